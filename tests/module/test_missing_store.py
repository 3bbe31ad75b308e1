# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which store modules mean, and what they say of one that is away. More of that, on real disks: tests/system."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import host as backup_host
from ansible_collections.volt.backup.plugins.module_utils._runner import cli

from .conftest import NOBODY, Host

#: What each module does where it means the store that is declared; those that read say nothing of a store that was never made.
MODULES: dict[str, dict[str, Any]] = {
    "volt_backup_info": {}, "volt_backup_prune": {"workload": "app", "keep": {"last": 1}}, "volt_cas_gc": {}, "volt_cas_verify": {},
    "volt_restore": {"workload": "app", "target": "/nonexistent/target"}, "volt_restore_drill": {},
}  # fmt: skip


def away(host: Host) -> str:
    """Take the store's disk away; the store's id."""
    known = json.loads((host.store / "format.json").read_bytes())["id"]
    host.store.rename(host.top / "disk")
    return known


@pytest.mark.parametrize("name", MODULES)
def test_a_store_that_is_away(host: Host, name: str) -> None:
    host.back_up()
    known, before = away(host), host.everything()
    for check in (True, False):
        failure = host.run(name, check, **MODULES[name])
        assert failure["failed"] and (failure["code"], failure["store_id"]) == ("store", known), failure
        assert failure["msg"].startswith(f"There is no store at {host.store}, but ")
    assert host.everything() == before


def test_a_backup_starts_a_new_store_with_that_option(host: Host) -> None:
    made = host.back_up()["backup"]
    known, before = away(host), host.everything()
    for state in ({"state": "absent", "id": made["id"]}, {"workload": "app", "source": str(host.tree)}, {"workload": "app", "state": "accepted"}):
        for check in (True, False):
            failure = host.run("volt_backup", check, **state)
            assert failure["failed"] and (failure["code"], failure["store_id"]) == ("store", known) and "new_store: true" in failure["msg"]
    foreseen = host.back_up(check=True, new_store=True, keep={"last": 1})
    assert host.everything() == before and foreseen["changed"]
    done = host.back_up(new_store=True, keep={"last": 1})
    told = [[(row["id"] if row["id"] == made["id"] else "new", row["rule"]) for row in result["pruned"]["kept"]] for result in (foreseen, done)]
    assert told[0] == told[1] == [("new", "last"), (made["id"], "of another store")] and foreseen["pruned"]["removed"] == done["pruned"]["removed"] == []
    ids = str(done["backup"]["id"]), "(the new backup)"
    assert {**done["diff"], "prepared": done["diff"]["prepared"].replace(*ids)} == foreseen["diff"]
    assert done["changed"] and done["backup"]["store_id"] != known
    rows = {row["id"]: row for row in host.info()["backups"]}
    assert rows[made["id"]]["damage"].startswith(f"It belongs to another store (id {known})") and not rows[done["backup"]["id"]]["damaged"]
    assert host.back_up(new_store=True)["backup"]["store_id"] == done["backup"]["store_id"]


@pytest.mark.usefixtures("scheduling")
def test_who_names_no_store_means_that_of_the_schedules(host: Host) -> None:
    options: dict[str, Any] = {"workload": "app", "source": str(host.tree), "interval": "6h"}
    foreseen, done, again = host.twice("volt_backup_schedule", **host.scheduled, **options)
    file = host.top / "backup.json"
    known = json.loads((host.store / "format.json").read_bytes())["id"]
    assert json.loads(file.read_bytes()) == {"format": 1, "store": str(host.store), "backup_dir": str(host.backups), "store_id": known}
    assert again["diff"] == [] and [part["after_header"] for part in done["diff"] if "after_header" in part][0] == str(file)
    assert done["diff"][-1]["prepared"].startswith(f"make directory {host.store}\nmake directory {host.backups}\nmake store {host.store}\n")
    nowhere: dict[str, Any] = {"store": None, "backup_dir": None}
    made = host.back_up(**nowhere)["backup"]
    assert made["store_id"] == known
    for given in (nowhere, {"store": None}, {"backup_dir": None}):
        assert [row["id"] for row in host.info(**given)["backups"]] == [made["id"]]
    assert not host.declare(**options, **nowhere)["changed"]
    failure = host.declare(workload="db", source=str(host.tree), interval="6h", store=f"{host.top}/cas2")
    assert failure["failed"] and failure["code"] == "usage" and str(host.store) in failure["msg"] and f"{host.top}/cas2" in failure["msg"]

    away(host)
    before = host.everything()
    for check in (True, False):
        failure = host.declare(check, **options)
        assert failure["failed"] and (failure["code"], failure["store_id"]) == ("store", known)
    assert host.everything() == before
    (host.top / "disk").rename(host.store)
    _foreseen, gone, _again = host.twice("volt_backup_schedule", **host.scheduled, workload="app", state="absent")
    assert not file.exists() and str(file) in [part.get("before_header") for part in gone["diff"]]
    assert json.loads((host.store / "format.json").read_bytes())["id"] == known


@pytest.mark.usefixtures("scheduling")
def test_every_module_and_command_means_the_store_of_the_schedules(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Each finds in it what is there, and nothing is made elsewhere."""
    assert not host.declare(workload="app", source=str(host.tree), interval="6h").get("failed")
    nowhere: dict[str, Any] = {"store": None, "backup_dir": None}
    backup = host.back_up(**nowhere)["backup"]["id"]
    target = str(host.top / "target")
    assert host.run("volt_backup_prune", **nowhere, workload="app", keep={"last": 1})["kept"][0]["id"] == backup
    assert host.run("volt_cas_verify", **nowhere)["backup_count"] == 1
    assert host.run("volt_cas_gc", **nowhere)["live_blobs"] > 0
    assert host.run("volt_restore", **nowhere, workload="app", target=target)["restore"]["backup_id"] == backup
    assert host.run("volt_restore_drill", **nowhere, scratch_dir=f"{host.top}/scratch")["drills"][0]["backup_id"] == backup
    assert host.info(**nowhere)["read"] == {"store": str(host.store), "backup_dir": str(host.backups)}
    for words, said in (
        (["list"], backup), (["list", "app"], backup), (["show", backup, "--contents"], "app.conf"), (["diff", backup, backup], "0 added"),
        (["restore", backup, "--target", target], "equals"), (["prune", "app", "--keep", "1"], backup), (["gc"], "Nothing to collect"),
        (["verify", "--content"], "1"), (["drill", "--scratch", f"{host.top}/scratch"], backup), (["protect", backup], backup), (["unprotect", backup], backup),
        (["accept", backup], "not suspect"), (["create", "db", "--source", str(host.tree)], "db-"), (["delete", backup], "Deleted"),
    ):  # fmt: skip
        assert cli.main(words) == 0, words
        assert said in capsys.readouterr().out, words
    away(host)
    for words in (["list"], ["show", backup], ["restore", backup], ["gc"], ["verify"], ["drill"], ["prune", "app", "--keep", "1"], ["delete", backup], ["init"],
                  ["create", "db", "--source", str(host.tree)]):  # fmt: skip
        assert cli.main(words) == 4 and f"There is no store at {host.store}" in capsys.readouterr().err, words


def test_a_user_who_may_not_read_gets_that_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never another store."""
    if os.geteuid():
        pytest.skip("needs root to act as another user")
    etc = Path("/run") / f"volt-test-{os.getpid()}"
    etc.mkdir(mode=0o755)
    try:
        monkeypatch.setattr(backup_host, "PATH", str(etc / "backup.json"))
        host.back_up()
        (host.top).chmod(0o700)
        backup_host.write(backup_host.Home(str(host.store), str(host.backups)))
        failure = host.info(user=NOBODY, store=None, backup_dir=None)
        assert failure["failed"] and failure["code"] == "store" and f"{host.store} cannot be read: permission denied" in failure["msg"]
        etc.chmod(0o700)
        failure = host.info(user=NOBODY, store=None, backup_dir=None)
        assert failure["failed"] and failure["code"] == "store" and failure["msg"].startswith(f"{etc}/backup.json contains the location")
    finally:
        shutil.rmtree(etc)
