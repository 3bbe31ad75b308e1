# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What volt_restore restores, and what it says of that. How faithful it is: tests/system."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import ODD, Host

NONE = {"added": 0, "changed": 0, "removed": 0}
LISTING = "find . -path ./tmp -prune -o ! -path . -type d -printf '%P %y %m %U %G %T@\\n' -o ! -path . -printf '%P %y %m %U %G %n %s %T@ %l\\n' | LC_ALL=C sort"


def equal(host: Host, restored: Path) -> None:
    """Tools that know nothing of us find the original again, but for what the backup excluded."""
    diff = ["diff", "-r", "--no-dereference", "--exclude=tmp", "--exclude=pipe", str(host.top / "original"), str(restored)]
    assert subprocess.run(diff, stdout=subprocess.PIPE, text=True, check=False).stdout == ""
    first, second = (subprocess.run(["sh", "-c", LISTING], cwd=where, stdout=subprocess.PIPE, check=True).stdout for where in (host.top / "original", restored))
    assert first == second


@pytest.fixture
def made(host: Host) -> dict[str, Any]:
    """A backup of the tree, and the tree as it was, to compare with."""
    host.furnish()
    backup: dict[str, Any] = host.back_up(exclude=["/tmp/"], tags=["good"])["backup"]
    subprocess.run(["cp", "-a", str(host.tree), str(host.top / "original")], check=True)
    return backup


def test_elsewhere(host: Host, made: dict[str, Any]) -> None:
    target = host.top / "copy"
    foreseen, done, _again = host.twice("volt_restore", id=made["id"], target=str(target))
    restore = done["restore"]
    assert (foreseen["restore"]["backup_id"], foreseen["restore"]["target_dir"]) == (made["id"], os.path.realpath(target))
    assert foreseen["restore"]["strategy"] == restore["strategy"] == "replace" and list(foreseen["restore"]) == list(restore)
    assert restore["total_size"] == made["total_size"] and (restore["files_unchanged"], restore["files_removed"], restore["previous"]) == (0, 0, None)
    assert {ODD, "data/pipe"} < set(done["diff"]["added"]) and done["passed_over"] == [] and "skipped" not in done
    again = host.restore(id=made["id"], dest=str(target), force=True, verify=True)
    assert not again["changed"] and again["restore"]["strategy"] == "none" and again["diff"]["counts"] == NONE
    equal(host, target)


def test_over_what_differs(host: Host, made: dict[str, Any]) -> None:
    host.change()
    failures = [host.restore(check, id=made["id"]) for check in (True, False)]
    assert failures[0]["msg"] == failures[1]["msg"]
    for failure in failures:
        assert failure["failed"] and failure["code"] == "target_differs" and "force: true" in failure["msg"]
        assert "conf/app.conf" in failure["diff"]["changed"] and failure["diff"]["added"] == ["data/link"]
    foreseen, done, _again = host.twice("volt_restore", id=made["id"], force=True)
    assert foreseen["restore"]["strategy"] == done["restore"]["strategy"] == "in_place" and done["restore"]["target_dir"] == os.path.realpath(host.tree)
    assert done["diff"]["added"] == ["data/link"] and "conf/app.conf" in done["diff"]["changed"] and done["diff"]["removed"] == []
    assert (host.tree / "conf/new.conf").exists()
    _foreseen, done, _again = host.twice("volt_restore", id=made["id"], strategy="in_place", delete=True, force=True)
    assert done["diff"]["removed"] == ["conf/new.conf"] and done["restore"]["files_removed"] == 1
    equal(host, host.tree)


def test_replace(host: Host, made: dict[str, Any]) -> None:
    host.change()
    foreseen, done, again = host.twice("volt_restore", id=made["id"], strategy="replace", keep_previous=True, force=True)
    assert foreseen["restore"]["strategy"] == done["restore"]["strategy"] == "replace" and done["diff"]["removed"] == ["conf/new.conf"]
    assert again["restore"]["previous"] is None
    equal(host, host.tree)
    assert (host.tree / "tmp/scratch").exists() and Path(done["restore"]["previous"], "conf/new.conf").exists()


def test_some_paths(host: Host, made: dict[str, Any]) -> None:
    subprocess.run(["rm", "-r", str(host.tree / "conf"), str(host.tree / "data")], check=True)
    foreseen, done, _again = host.twice("volt_restore", id=made["id"], force=True, paths=["conf", ODD])
    assert foreseen["restore"]["strategy"] == done["restore"]["strategy"] == "in_place"
    assert {ODD, "conf/app.conf"} < set(done["diff"]["added"]) and "data/large" not in done["diff"]["added"]
    assert sorted(os.listdir(host.tree / "conf")) == ["app.conf", "old.conf"]
    failure = host.restore(id=made["id"], force=True, paths="none/such")
    assert failure["failed"] and failure["code"] in ("not_found", "usage") and "none/such" in failure["msg"]
    assert host.restore(id=made["id"], force=True, link="copy", numeric_owner=True)["changed"]
    equal(host, host.tree)


def test_the_newest_undamaged_backup(host: Host, made: dict[str, Any]) -> None:
    newer, newest = (host.back_up(type="snapshot")["backup"] for _turn in range(2))
    (host.store / "refs" / f"{newest['manifest_ref']}.json").write_text("{")
    never = str(host.top / "never")
    for options, expected in (
        ({}, newer), ({"type": "snapshot"}, newer), ({"type": "manual"}, made), ({"tags": "good"}, made), ({"before": newer["created_at"]}, made),
    ):  # fmt: skip
        found = host.restore(True, workload="app", target=never, **options)
        assert found["changed"] and "skipped" not in found and found["restore"]["backup_id"] == expected["id"], options
    done = host.restore(workload="app", target=str(host.top / "newest"))
    assert done["changed"] and done["restore"]["backup_id"] == newer["id"] and "skipped" not in done
    assert done["passed_over"] == [{"id": newest["id"], "reason": f"Manifest {newest['manifest_ref']} is altered."}]
    failure = host.restore(workload="app", type="scheduled", target=never)
    assert failure["failed"] and failure["code"] == "not_found" and failure["passed_over"] == [] and "skipped" not in failure


def test_what_check_mode_did_not_back_up(host: Host) -> None:
    planned = host.restore(True, id=host.back_up(check=True)["backup"]["id"], target=f"{host.top}/never")
    assert planned["changed"] and planned["restore"]["target_dir"] == f"{os.path.realpath(host.top)}/never"


def test_a_damaged_backup_is_not_restored(host: Host, made: dict[str, Any]) -> None:
    for path in (host.store / "objects").rglob("*"):
        if path.is_file() and path.stat().st_size > 100000:
            path.unlink()
    host.change()
    failures = [host.restore(check, id=made["id"], force=True) for check in (True, False)]
    assert failures[0]["msg"] == failures[1]["msg"] and "lacks the content of 2 path(s): data/large, data/linked" in failures[0]["msg"]
    assert [failure["code"] for failure in failures] == ["damaged"] * 2
    assert (host.tree / "conf/app.conf").read_text() == "port = 8080\n"
