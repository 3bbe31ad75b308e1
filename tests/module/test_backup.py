# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What volt_backup makes, leaves, keeps and deletes, and what it says of that."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli

from .conftest import ODD, Host

NONE = {"added": 0, "changed": 0, "removed": 0}


def test_first_and_later_backups(host: Host) -> None:
    host.furnish()
    before = host.everything()
    options = {"exclude": ["/tmp/"], "tags": ["one", "two"], "notes": "The first", "workload_mode": "container"}
    foreseen = host.back_up(check=True, **options)
    assert host.everything() == before
    first = host.back_up(**options)
    backup = first["backup"]
    assert foreseen["changed"] and first["changed"] and foreseen["diff"] == first["diff"] and first["passed_over"] == []
    assert foreseen["backup"]["new_blobs"] == backup["new_blobs"]
    assert list(foreseen["backup"]) == list(backup)
    assert [foreseen["backup"][key] for key in ("id", "manifest_ref", "manifest_sha256")] == [None] * 3
    assert re.fullmatch("app-[0-9]{8}-[0-9]{6}-manual", backup["id"])
    expected = {
        "workload_name": "app", "workload_mode": "container", "type": "manual", "tags": ["one", "two"], "notes": "The first",
        "source_path": os.path.realpath(host.tree), "exclude": ["/tmp/"], "complete": True, "pushed_to_cdn": False, "file_count": 7,
        "total_size": 10 + 4 + 2 * 300000 + (20 << 20) + 1, "skipped_count": 0,
        "manifest_ref": f"{backup['id']}-{backup['manifest_sha256'][:12]}", "blob_count": backup["new_blobs"] + backup["dedup_blobs"],
    }  # fmt: skip
    assert {key: backup[key] for key in expected} == expected
    assert first["diff"]["counts"] == {"added": 12, "changed": 0, "removed": 0}
    assert ODD in first["diff"]["added"] and "tmp" not in first["diff"]["added"]

    foreseen, second = (host.back_up(check=check, **options) for check in (True, False))
    assert foreseen["changed"] and second["changed"] and foreseen["diff"] == second["diff"]
    assert second["backup"]["id"] != backup["id"] and (second["backup"]["new_blobs"], second["backup"]["new_bytes"]) == (0, 0)
    assert second["diff"]["counts"] == NONE and second["diff"]["prepared"] == ""

    (host.tree / "conf/app.conf").write_text("port = 8080\n")
    (host.tree / "conf/new.conf").write_text("new\n")
    (host.tree / "conf/old.conf").unlink()
    other_names = {"workload_name": "app", "source_path": str(host.tree), "backup_type": "pre-deploy", "exclude": "/tmp/", "compression": "zlib"}
    foreseen, third = (host.run("volt_backup", check, **other_names) for check in (True, False))
    assert foreseen["changed"] and third["changed"] and foreseen["diff"] == third["diff"]
    backup, diff = third["backup"], third["diff"]
    assert re.fullmatch("app-[0-9]{8}-[0-9]{6}-pre-deploy", backup["id"])
    assert (backup["type"], backup["notes"], backup["workload_mode"], backup["new_blobs"]) == ("pre-deploy", None, None, 2)
    assert (diff["added"], diff["changed"], diff["removed"], diff["more"]) == (["conf/new.conf"], ["conf/app.conf"], ["conf/old.conf"], 0)
    assert json.loads((host.backups / f"{backup['id']}.json").read_text()) == backup

    other = host.run("volt_backup", name="other", path=str(host.tree), type="snapshot", diff_limit=2)
    assert other["changed"] and other["backup"]["new_blobs"] == 0
    assert (other["diff"]["counts"]["added"], len(other["diff"]["added"]), other["diff"]["more"]) == (14, 2, 12)


def test_no_backup_if_none_is_needed(host: Host) -> None:
    host.furnish()
    base = host.back_up(exclude=["/tmp/"])["backup"]
    wanted = {"exclude": ["/tmp/"], "only_if_changed": True, "type": "scheduled"}
    for parameters in (wanted, {"exclude": ["/tmp/"], "max_age": "1h30m"}):
        for check in (True, False):
            result = host.back_up(check=check, **parameters)
            assert not result["changed"] and "skipped" not in result and result["backup"] == base
            assert result["diff"]["counts"] == NONE
    assert host.back_up(check=True, max_age="1h30m")["changed"]  # with other exclusions
    assert host.back_up(check=True, exclude=["/tmp/"], max_age="0s")["changed"]
    (host.tree / "conf/app.conf").chmod(0o600)
    foreseen, changed, again = host.twice("volt_backup", workload="app", source=str(host.tree), **wanted)
    assert foreseen["backup"]["id"] is None and foreseen["diff"]["changed"] == ["conf/app.conf"]
    assert (changed["backup"]["type"], changed["backup"]["new_blobs"]) == ("scheduled", 0)
    assert again["backup"] == changed["backup"]


def test_keep(host: Host) -> None:
    ids = [host.back_up(type=kind)["backup"]["id"] for kind in ("scheduled", "manual", "scheduled", "scheduled")]
    foreseen = host.back_up(check=True, type="scheduled", keep={"last": 2, "daily": 0})
    assert foreseen["changed"] and foreseen["backup"]["id"] is None and host.info()["count"] == 4
    assert [row["id"] for row in foreseen["pruned"]["kept"]] == [None, ids[3]]
    done = host.back_up(type="scheduled", keep={"last": 2, "daily": 0})
    kept = [done["backup"]["id"], ids[3]]
    assert done["changed"] and [(row["id"], row["rule"]) for row in done["pruned"]["kept"]] == [(name, "last") for name in kept]
    assert [row["id"] for row in done["pruned"]["removed"]] == [ids[2], ids[0]]
    assert done["pruned"]["removed"] == foreseen["pruned"]["removed"]
    assert f"remove {ids[2]} (no rule keeps it)\n" in done["diff"]["prepared"] and done["diff"]["counts"] == foreseen["diff"]["counts"]
    left = host.info()["backups"]
    assert [row["id"] for row in left] == [*kept, ids[1]] and not any(row["damaged"] for row in left)
    assert "pruned" not in host.back_up()


def test_absent(host: Host) -> None:
    made = host.back_up()["backup"]
    foreseen, done, again = host.twice("volt_backup", state="absent", id=made["id"])
    assert foreseen["backup"] == done["backup"] == made and "backup" not in again
    assert done["diff"] == {"before": f"{made['id']}\n", "after": ""} and again["diff"] == {"before": "", "after": ""}
    assert host.info()["count"] == 0
    assert not host.run("volt_backup", state="absent", backup_id=made["id"])["changed"]


def test_absent_of_a_broken_record(host: Host) -> None:
    broken = host.back_up()["backup"]["id"]
    (host.backups / f"{broken}.json").write_text('{"id": ')
    deleted = host.run("volt_backup", state="absent", id=broken)
    assert deleted["changed"] and deleted["backup"]["id"] == broken
    assert [*host.backups.glob("app-*"), *(host.store / "refs").glob("app-*")] == []


def test_a_mount_that_is_missing_and_then_accepted(host: Host, capfd: Any) -> None:
    """The sidecars name a mount point that this host has not: as after a disk was taken out."""
    host.furnish()
    for backup in [host.back_up()["backup"] for _turn in range(2)]:
        path = host.backups / f"{backup['id']}.json"
        path.write_text(json.dumps({**backup, "mounts": [os.path.dirname(host.tree)]}))
    failure = host.back_up(max_age="1h")
    assert (failure["code"], failure["mounts"]) == ("mount_missing", [os.path.dirname(host.tree)]), failure
    words = ["accept", "app", "--store", str(host.store), "--backup-dir", str(host.backups)]
    assert cli.main([*words, "--dry-run"]) == 0 and "Would forget these mounts" in capfd.readouterr().out
    foreseen, accepted, again = host.twice("volt_backup", workload="app", state="accepted")
    assert foreseen["mounts"] == accepted["mounts"] == failure["mounts"] and again["mounts"] == []
    assert accepted["diff"] == {"before": f"{failure['mounts'][0]}\n", "after": ""}
    assert cli.main(words) == 0 and "Nothing to accept" in capfd.readouterr().out
    assert host.back_up()["changed"]
    assert host.run("volt_backup", workload="unknown", state="accepted")["code"] == "not_found"
    assert cli.main([*words[:1], "unknown", *words[2:]]) == 5


def test_an_unstable_backup_is_kept_and_fails_with_that_option(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.furnish()
    log, real = host.tree / "conf/app.conf", os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        data = real(fd, size, offset)
        if os.fstat(fd).st_ino == log.stat().st_ino:
            log.write_text(f"{len(data)} {os.times()[4]}\n")
        return data

    monkeypatch.setattr(os, "pread", pread)
    done = host.back_up()
    assert done["backup"]["unstable_paths"] == ["conf/app.conf"] and "the backup is unstable" in str(done["warnings"][0])
    failure = host.back_up(fail_on_unstable=True, keep={"last": 1})
    assert failure["code"] == "unstable" and failure["backup"]["id"] and failure["changed"] and "pruned" not in failure
    assert not host.back_up(fail_on_unstable=True, unstable_ok=["conf/*"]).get("failed")


def test_a_suspect_backup_is_kept_and_fails(host: Host) -> None:
    for number in range(80):
        (host.tree / f"f{number}").write_text(f"{number} of many lines\n" * 50)
    good = host.back_up(keep={"last": 1})["backup"]["id"]
    for number in range(80):
        (host.tree / f"f{number}").write_bytes(os.urandom(900))
    foreseen, failure = (host.back_up(check=check, keep={"last": 1}) for check in (True, False))
    assert foreseen["code"] == failure["code"] == "suspect" and foreseen["backup"]["id"] is None
    suspect = failure["backup"]["id"]
    assert failure["failed"] and failure["changed"] and "pruned" not in failure and failure["backup"]["suspect"] and "state: accepted" in failure["msg"]
    listed = {found["id"]: found for found in host.info()["backups"]}
    assert set(listed) == {good, suspect} and listed[suspect]["suspect_reason"] == failure["backup"]["suspect_reason"]
    rows = host.run("volt_backup_prune", workload="app", keep={"last": 1})["kept"]
    assert {row["id"]: (row["rule"], row["suspect"]) for row in rows} == {good: ("older than a suspect backup", False), suspect: ("last", True)}
    assert host.back_up(max_churn=0)["backup"]["suspect"] is False, "which is also how the hold ends"
    assert host.back_up(max_churn=101)["code"] == "usage"


def test_marks_on_a_backup(host: Host) -> None:
    for number in range(60):
        (host.tree / f"f{number}").write_text("x" * number)
    good = host.back_up()["backup"]["id"]
    for number in range(50):
        (host.tree / f"f{number}").unlink()
    suspect = host.back_up()["backup"]["id"]
    assert host.run("volt_backup", state="accepted")["code"] == "usage"
    assert host.run("volt_backup", state="accepted", id=suspect, workload="app")["code"] == "usage"
    assert host.run("volt_backup", state="accepted", id="app-20200101-000000-manual")["code"] == "not_found"
    assert host.run("volt_backup", state="protected")["code"] == "usage" and host.back_up(id=good)["code"] == "usage"
    assert not host.run("volt_backup", state="accepted", id=good)["changed"], "a sound one"
    said = (("accepted", suspect, "suspect", False), ("protected", good, "protected", True), ("unprotected", good, "protected", False))
    for state, backup, key, after in said:
        foreseen, done, again = (host.run("volt_backup", check, state=state, id=backup) for check in (True, False, False))
        assert (foreseen["changed"], done["changed"], again["changed"]) == (True, True, False)
        assert foreseen["diff"] == done["diff"] == {"before": f"{key}: {not after}\n", "after": f"{key}: {after}\n"}
        assert done["backup"][key] is after and again["backup"] == done["backup"] == next(f for f in host.info(id=backup)["backups"])
        if state == "protected":
            assert host.run("volt_backup", state="absent", id=good)["code"] == "protected"
    assert not host.back_up().get("failed")
    assert host.run("volt_backup", state="absent", id=good)["changed"]
