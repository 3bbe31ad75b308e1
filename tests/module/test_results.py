# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Results that only some hosts see: unreadable files, other users, signals, names of any bytes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any, Callable

import pytest

from .conftest import NOBODY, SOUND, Host, Running

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become a user that may not read everything")


@pytest.fixture
def private(public_path: Path) -> Host:
    """A tree that nobody may enter, with one file in it that nobody may not read."""
    host = Host(public_path)
    (host.tree / "secret").write_text("x")
    (host.tree / "secret").chmod(0o600)
    os.chown(host.top, NOBODY, NOBODY)
    return host


@only_root
def test_incomplete_backup_is_kept_and_fails(private: Host) -> None:
    planned = private.back_up(check=True, user=NOBODY)
    failure = private.back_up(user=NOBODY)
    for result in (planned, failure):
        assert result["failed"] and result["code"] == "incomplete" and result["changed"]
        assert "1 path(s) could not be read, first secret (permission denied)" in result["msg"]
        assert result["backup"]["skipped"] == [{"path": "secret", "reason": "unreadable", "detail": "permission denied"}]
        assert result["diff"]["added"] == ["conf", "conf/app.conf"]
    assert planned["backup"]["id"] is None
    assert failure["backup"]["id"] in failure["msg"]
    (listed,) = private.info(user=NOBODY)["backups"]
    assert listed == {**failure["backup"], **SOUND, "checked_at": listed["checked_at"]}
    assert listed["complete"] is False


@only_root
def test_incomplete_backup_may_be_allowed(private: Host) -> None:
    made = private.back_up(user=NOBODY, allow_incomplete=True)
    assert made["changed"] and not made.get("failed") and not made["backup"]["complete"]
    assert any("could not be read" in str(warning) for warning in made["warnings"])


@only_root
def test_incomplete_backup_is_skipped(private: Host) -> None:
    (private.tree / "secret").chmod(0o644)
    whole = private.back_up(user=NOBODY)
    (private.tree / "secret").chmod(0o600)
    lacking = private.back_up(user=NOBODY, allow_incomplete=True)
    again = private.back_up(user=NOBODY, allow_incomplete=True)
    passed = [{"id": lacking["backup"]["id"], "reason": "It is incomplete."}]
    assert again["passed_over"] == passed and again["diff"]["removed"] == ["secret"]
    restored = private.run("volt_restore", user=NOBODY, workload="app", target=str(private.top / "restored"))
    assert restored["restore"]["backup_id"] == whole["backup"]["id"]
    assert restored["passed_over"] == [{"id": again["backup"]["id"], "reason": "It is incomplete."}, *passed]
    assert "skipped" not in restored and "skipped" not in again
    assert any("not running as root" in str(warning) for warning in restored.get("warnings", [])) == (whole["backup"]["file_count"] > 0)


def rules(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["id"], row["rule"]) for row in rows]


@only_root
def test_keep_after_an_incomplete_backup(private: Host) -> None:
    """One that fails the task deletes nothing; one that is allowed counts for nothing, and retention goes on without it."""
    (private.tree / "secret").chmod(0o644)
    whole = [private.back_up(user=NOBODY)["backup"]["id"] for _turn in range(3)]
    (private.tree / "secret").chmod(0o600)
    failure = private.back_up(user=NOBODY, keep={"last": 2})
    assert failure["code"] == "incomplete" and "pruned" not in failure and private.info()["count"] == 4
    planned = private.back_up(check=True, user=NOBODY, keep={"last": 2}, allow_incomplete=True)
    made = private.back_up(user=NOBODY, keep={"last": 2}, allow_incomplete=True)
    expected = [made["backup"]["id"], failure["backup"]["id"], *whole[:0:-1]]
    assert [row["id"] for row in made["pruned"]["kept"]] == expected
    assert [row["id"] for row in planned["pruned"]["kept"]] == [None, *expected[1:]]
    assert [row["id"] for row in made["pruned"]["removed"]] == [row["id"] for row in planned["pruned"]["removed"]] == whole[:1]
    assert [row["complete"] for row in made["pruned"]["kept"]] == [False, False, True, True]


def test_keep_where_no_backup_was_needed(host: Host) -> None:
    ids = [host.back_up()["backup"]["id"] for _turn in range(3)]
    scheduled = host.back_up(type="scheduled")["backup"]["id"]
    for check, changed in ((True, True), (False, True), (True, False), (False, False)):
        result = host.back_up(check=check, max_age="1h", keep={"last": 1})
        assert result["changed"] is changed and result["backup"]["id"] == scheduled
        assert rules(result["pruned"]["kept"]) == [(ids[2], "last")]
        assert rules(result["pruned"]["removed"]) == [(name, "no rule keeps it") for name in ids[1::-1] if changed]
        assert (f"remove {ids[0]} (no rule keeps it)\n" in result["diff"]["prepared"]) is changed
    assert host.info()["count"] == 2


def test_a_backup_that_was_made_is_reported_where_pruning_fails(host: Host) -> None:
    host.back_up()
    running = host.back_up(keep={"last": 1, "within": "999999999d"})
    assert len(running["pruned"]["kept"]) == 2
    record = host.backups / f"{running['backup']['id']}.json"
    record.rename(host.top / "aside")
    record.mkdir()  # a record that cannot be removed as a file is
    (record / "x").touch()
    failure = host.back_up(keep={"last": 1})
    assert failure["failed"] and failure["code"] == "store" and failure["changed"], failure
    assert failure["msg"].startswith(f"Backup {failure['backup']['id']} was made, but older ones could not be pruned: ")


def test_names_of_any_bytes(host: Host) -> None:
    name = b"caf\xe9 \\ \xff\n\x1b[31m"
    (host.tree / os.fsdecode(name)).touch()
    made = host.back_up()
    assert r"caf\xe9 \\ \xff" in "".join(made["diff"]["added"])
    contents = host.info(id=made["backup"]["id"], include=["contents"])["contents"]
    (path,) = (entry["path"] for entry in contents["entries"] if entry["path"].startswith("caf"))
    restored = host.restore(id=made["backup"]["id"], target=str(host.top / "restored"), paths=[path])
    assert os.listdir(os.fsencode(host.top / "restored")) == [name]
    assert path in restored["diff"]["added"]


def test_text_for_a_screen_has_no_control_characters(host: Host) -> None:
    """A file's name must not draw on the terminal of whoever runs --diff, nor look like a line of its own."""
    (host.tree / "a\n~conf\x1b[31m").touch()
    assert sorted(host.back_up()["diff"]["prepared"].splitlines()) == ["+a\\x0a~conf\\x1b[31m", "+conf", "+conf/app.conf"]


@pytest.mark.parametrize("text", [None, ""], ids=["null", "what ansible-core 2.18 makes of null"])
def test_unknown_id_in_check_mode(host: Host, text: str | None) -> None:
    planned = host.restore(check=True, id=text)
    assert planned["changed"] and planned["restore"]["backup_id"] is None
    failure = host.restore(id=text)
    assert failure["failed"] and failure["code"] == "usage"


@pytest.fixture
def locked(host: Host) -> Any:
    """The store is in the hands of somebody who wants it alone."""
    host.back_up()
    with open(host.store / "gate", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield host


def test_waiting_for_the_lock_ends(locked: Host) -> None:
    failure = locked.back_up(lock_timeout=1)
    assert failure["failed"] and failure["code"] == "lock_timeout"


def test_signal(locked: Host, stop: Callable[[Running, float], dict[str, Any]]) -> None:
    before = locked.everything()
    failure = stop(locked.start("volt_backup", workload="app", source=str(locked.tree), lock_timeout=60), 1)
    assert failure["failed"] and failure["code"] == "interrupted" and "SIGTERM" in failure["msg"]
    assert locked.everything() == before
