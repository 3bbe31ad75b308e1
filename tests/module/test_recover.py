# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook recover: what a lost host had comes back from a sealed remote, and what the remote hides is told."""

from __future__ import annotations

import datetime
import json
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._remote import sealed
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote, Settings, Which
from ansible_collections.volt.backup.tests.rigs import need, warm

from .test_plays import Node

LOST = "web1"


class Lost:
    """A host that pushed three backups of app and one of db, and is lost with its store."""

    def __init__(self, room: Path, ansible: warm.Ansible) -> None:
        need("age")
        self.room, self.node, self.nas = room, Node(room, ansible), room / "nas"
        self.seen, self.recovery = room / "seen.json", sealed.new_recovery()
        (room / "web1.keys").write_text(self.recovery.of_host(LOST).text(), encoding="utf-8")
        self.nas.mkdir()
        manager = Manager(str(room / "cas"), str(room / "list"))
        self.remote = Remote(manager, Settings(f"file://{self.nas}", keys=str(room / "web1.keys")))
        self.remote.begin()
        for number, name in enumerate(("app", "db", "app", "app")):
            (room / name / "file").write_text(f"{name} {number}", encoding="utf-8")
            manager.create(CreateRequest(name, str(room / name)))
            self.remote.push(Which())
        shutil.rmtree(room / "cas")
        for name in ("app", "db"):
            shutil.rmtree(room / name)

    def recover(self, *arguments: str, status: int = 0, **variables: Any) -> str:
        given = {
            "volt_hosts": "one", "ansible_become": False, "volt_store": str(self.room / "cas"), "volt_backup_dir": str(self.room / "new-list"),
            "volt_recover_host": LOST, "volt_recover_remote": f"file://{self.nas}", "volt_recover_identity": self.recovery.text(),
            "volt_recover_seen": str(self.seen), "volt_runner_path": str(self.room / "volt-backup"),
        }  # fmt: skip
        said = self.node.run("volt.backup.recover", *arguments, "-vvv", status=status, **{**given, **variables})
        assert self.recovery.data not in said and self.recovery.domain.hex() not in said
        return said

    def found(self) -> dict[str, str]:
        return {path.parent.name: path.read_text(encoding="utf-8") for name in ("app", "db") for path in (self.room / name).glob("file")}

    def commits(self) -> list[Path]:
        return sorted((self.nas / "commits" / LOST).iterdir())


@pytest.fixture
def lost(tmp_path: Path, controller: warm.Ansible) -> Lost:
    return Lost(tmp_path, controller)


@pytest.mark.costly
def test_a_lost_host_comes_back(lost: Lost) -> None:
    said = lost.recover("--check")
    assert lost.found() == {} and not lost.seen.exists() and " goes to " in said and "Make sure that the host is really lost" in said
    lost.recover()
    assert lost.found() == {"app": "app 3", "db": "db 1"}
    assert json.loads(lost.seen.read_text(encoding="utf-8"))[LOST]["seq"] == 4
    assert " changed=0 " in lost.recover()
    (lost.room / "app/file").write_text("mine", encoding="utf-8")
    assert "volt_recover_force: true" in lost.recover(status=2)
    lost.recover(volt_recover_force=True, volt_recover_workloads=["app"])
    assert lost.found()["app"] == "app 3"


@pytest.mark.costly
def test_workloads_without_a_source(lost: Lost) -> None:
    """Each goes to a directory of its own, and how to load its dumps is shown."""
    database = lost.room / "shop.db"
    sqlite3.connect(database).close()
    manager = Manager(str(lost.room / "cas"), str(lost.room / "new"))
    remote = Remote(manager, Settings(f"file://{lost.nas}", keys=str(lost.room / "web1.keys")))
    manager.create(CreateRequest("dump", None, dumps=[{"sqlite": {"path": str(database), "name": "copy"}}]))
    manager.create(CreateRequest("output", None, command=["echo", "word"], command_file="said"))
    remote.push(Which())
    apart = lost.room / "apart"
    given = {"volt_recover_dumps": str(apart)}
    assert "must be a list, and volt_recover_seen and volt_recover_dumps absolute paths" in lost.recover(status=2, volt_recover_dumps="apart")
    lost.recover("--check", **given)
    assert not apart.exists()
    apart.mkdir()
    assert f"goes to {apart}/output" in lost.recover("--check", **given) and list(apart.iterdir()) == []
    said = lost.recover(**given)
    assert f"cp {apart}/dump/.volt-dumps/copy {database}" in said
    assert (apart / "output/said").read_text(encoding="utf-8") == "word\n" and lost.found() == {"app": "app 3", "db": "db 1"}
    assert (apart / "dump").stat().st_mode & 0o777 == 0o700
    assert " changed=0 " in lost.recover(**given)


@pytest.mark.costly
def test_as_it_was_when_it_had_a_source(lost: Lost) -> None:
    """The newest backup of the workload has none. The one that is restored goes to its source."""
    time.sleep(1.1)
    before = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%dT%H:%M:%S}"
    time.sleep(1.1)
    manager = Manager(str(lost.room / "cas"), str(lost.room / "new"))
    manager.create(CreateRequest("app", None, command=["echo", "word"], command_file="said"))
    Remote(manager, Settings(f"file://{lost.nas}", keys=str(lost.room / "web1.keys"))).push(Which())
    lost.recover(volt_recover_dumps=str(lost.room / "apart"), volt_recover_before=before)
    assert lost.found() == {"app": "app 3", "db": "db 1"} and not (lost.room / "apart").exists()


@pytest.mark.costly
def test_a_host_that_is_alive_is_told(lost: Lost, tmp_path: Path) -> None:
    """It makes a backup while it is recovered: the workloads are back, and no second host begins to do its work."""
    (tmp_path / "alive").mkdir()
    (tmp_path / "alive/file").write_text("alive", encoding="utf-8")
    manager = Manager(str(tmp_path / "cas2"), str(tmp_path / "list2"))
    manager.create(CreateRequest("app", str(tmp_path / "alive")))
    Remote(manager, Settings(f"file://{lost.nas}", keys=str(lost.room / "web1.keys"))).push(Which())
    newest = lost.commits()[-1]
    newest.rename(tmp_path / "held")

    def make_it_while_the_second_workload_is_restored() -> None:
        while not (lost.room / "app/file").exists():
            time.sleep(0.005)
        (tmp_path / "held").rename(newest)

    other = threading.Thread(target=make_it_while_the_second_workload_is_restored, daemon=True)
    other.start()
    said = lost.recover(status=2)
    other.join()
    assert "web1 is alive: it made the backup web1/app-" in said and "volt_recover_accept_alive=true" in said
    assert lost.found() == {"app": "app 3", "db": "db 1"} and newest.exists(), "nothing is lost"
    lost.recover(volt_recover_force=True, volt_recover_workloads=["db"])
    assert lost.found()["db"] == "db 1"


@pytest.mark.costly
def test_what_the_remote_hides_is_told(lost: Lost) -> None:
    """Withheld in the midst, set back, replaced, damaged: nothing is restored before that was read and accepted."""
    lost.recover("--check")
    lost.seen.write_text("{}", encoding="utf-8")
    hidden = lost.room / "hidden"
    lost.commits()[1].rename(hidden)
    said = lost.recover(status=2)
    assert "Commit 2 of host web1 is missing" in said and "volt_recover_accept_faults" in said and lost.found() == {}
    lost.recover(volt_recover_accept_faults=True)
    assert lost.found() == {"app": "app 3"}
    shutil.rmtree(lost.room / "app")
    lost.commits()[-1].unlink()
    said = lost.recover(status=2, volt_recover_accept_faults=False)
    assert "The remote does not have the newest commits of web1: the last one is number 3, and number 4 was there before" in said
    newest = lost.commits()[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    said = lost.recover(status=2)
    assert "is damaged" in said and lost.found() == {}


@pytest.mark.costly
def test_workloads_that_would_overwrite_each_other(lost: Lost) -> None:
    """One whose source is inside that of another one, or the same: refused, and named."""
    outer, inner = lost.room / "outer", lost.room / "outer/inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("old", encoding="utf-8")
    manager = Manager(str(lost.room / "cas"), str(lost.room / "new"))
    remote = Remote(manager, Settings(f"file://{lost.nas}", keys=str(lost.room / "web1.keys")))
    manager.create(CreateRequest("z-outer", str(outer)))
    (inner / "file").write_text("new", encoding="utf-8")
    manager.create(CreateRequest("inner", str(inner)))
    remote.push(Which())
    shutil.rmtree(outer)
    said = lost.recover(status=2, volt_recover_force=True)
    assert "inner in z-outer" in said and not outer.exists() and lost.found() == {}
    lost.recover(volt_recover_workloads=["z-outer"])
    lost.recover(volt_recover_workloads=["inner"], volt_recover_force=True)
    assert (inner / "file").read_text(encoding="utf-8") == "new"


@pytest.mark.costly
def test_nothing_begins_where_something_is_missing(lost: Lost) -> None:
    assert "choose one with --limit" in lost.recover(status=2, volt_hosts="all")
    assert "has no backup of web2" in lost.recover(status=2, volt_recover_host="web2")
    assert "recovery key" in lost.recover(status=2, volt_recover_identity=sealed.new_recovery().text())
    assert "has no backup of dbb of web1" in lost.recover(status=2, volt_recover_workloads=["app", "dbb"])
    assert "must be a list" in lost.recover(status=2, volt_recover_workloads="app")
    assert "absolute paths" in lost.recover(status=2, volt_recover_seen="seen.json")
    assert "cannot be su" in lost.recover(status=2, ansible_become_method="su")
    assert "use volt_recover_before" in lost.recover(status=2, volt_recover_bfore="2026-01-01")
    assert lost.found() == {}
