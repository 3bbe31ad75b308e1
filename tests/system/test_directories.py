# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several backup directories on one store: none harms another. And records of other stores, records that were copied, and how they are taken over."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, Foreign, NotFound, StoreError, Unsupported
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._runner import backups, cli

DIRECTORY = ".directory.json"


class Pair:
    """Two backup directories on one store, each with backups of a workload of the same name."""

    def __init__(self, bench) -> None:
        self.bench, self.store = bench, bench.store
        self.paths = [bench.top / "one", bench.top / "two"]
        self.managers = [Manager(str(bench.store), str(path), 5) for path in self.paths]
        self.ids: list[list[str]] = [[], []]
        self.made, self.content = 0, dict[str, str]()
        for number in (0, 1, 0, 1, 0):
            self.make(number)

    def make(self, number: int) -> str:
        source = self.bench.top / f"source{number}"
        source.mkdir(exist_ok=True)
        self.made += 1
        (source / "f").write_text(f"{number} {self.made}")
        backup = self.managers[number].create(CreateRequest("work", str(source))).backup["id"]
        self.content[backup] = (source / "f").read_text()
        self.ids[number].append(backup)
        return backup

    def states(self, number: int) -> dict[str, str]:
        return {backup["id"]: backups._state(backup).partition(":")[0] for backup in self.managers[number].find(Query())}

    def whole(self, number: int) -> bool:
        """Whether a directory lists its backups as before, and each can be restored."""
        for backup in self.ids[number]:
            target = self.bench.top / f"restored-{os.urandom(4).hex()}"
            self.managers[number].restore(backup, RestoreRequest(str(target)))
            assert (target / "f").read_text() == self.content[backup]
        return self.states(number) == dict.fromkeys(self.ids[number], "ok")


@pytest.fixture
def pair(bench) -> Pair:
    return Pair(bench)


def change(path: Path, **keys: Any) -> None:
    """Alter a record; a key of None goes."""
    value = {**json.loads(path.read_bytes()), **keys}
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not None or key not in keys}))


def test_records_name_directory_and_store(pair: Pair) -> None:
    said = [json.loads((path / DIRECTORY).read_bytes()) for path in pair.paths]
    store = json.loads((pair.store / "format.json").read_bytes())["id"]
    assert [value["format"] for value in said] == [1, 1] and {value["store"] for value in said} == {store}
    assert said[0]["id"] != said[1]["id"]
    for value, path, ids in zip(said, pair.paths, pair.ids):
        for backup in ids:
            sidecar = json.loads((path / f"{backup}.json").read_bytes())
            assert (sidecar["directory_id"], sidecar["store_id"]) == (value["id"], store)
            manifest = json.loads((pair.store / "refs" / f"{sidecar['manifest_ref']}.json").read_bytes())
            assert manifest["backup"]["directory_id"] == value["id"]


def test_neither_harms_the_other(pair: Pair) -> None:
    other = pair.managers[1]
    found = other.verify(VerifyRequest(level="content", repair=True))
    assert found.failure() is None and found.foreign == sorted(pair.ids[0]) and found.unlisted == [] and not found.changed
    assert found.backup_count == 2 and found.warnings == [], "it is one of several"
    assert pair.states(1) == dict.fromkeys(pair.ids[1], "ok")
    pair.managers[1].prune("work", {"last": 1})
    del pair.ids[1][0]
    collected = other.collect("0s")
    assert collected["warnings"] == [] and pair.whole(0) and pair.whole(1)
    for backup in pair.ids[0]:
        assert other.delete(backup) is None, "there is none here"
    assert pair.whole(0)


def test_a_directory_that_lost_a_record_gets_its_own_back(pair: Pair) -> None:
    lost = pair.ids[1][0]
    for path in (pair.paths[1] / f"{lost}.json", pair.paths[0] / f"{pair.ids[0][0]}.json"):
        path.unlink()
    collected = pair.managers[1].collect("0s")
    assert "1 manifest(s) have no sidecar" in collected["warnings"][0] and lost in collected["warnings"][0]
    assert pair.managers[1].verify(VerifyRequest(repair=True)).repaired["sidecars"] == [lost]
    assert pair.states(1) == dict.fromkeys(pair.ids[1], "ok")
    pair.managers[0].delete(pair.ids[0][0])
    assert pair.states(0) == dict.fromkeys(pair.ids[0][1:], "ok"), "without a sidecar, one's own manifest can be deleted"


@pytest.mark.parametrize("how", ["copied", "made by 0.1.0"])
def test_records_of_the_other_are_not_changed(pair: Pair, how: str) -> None:
    """Copied by hand, or made by a repair of version 0.1.0, which made them without ids."""
    for backup in pair.ids[0]:
        shutil.copy(pair.paths[0] / f"{backup}.json", pair.paths[1])
        if how != "copied":
            change(pair.paths[1] / f"{backup}.json", directory_id=None, store_id=None)
    other = pair.managers[1]
    assert pair.states(1) == {**dict.fromkeys(pair.ids[0], "foreign"), **dict.fromkeys(pair.ids[1], "ok")}
    assert all("adopt" in backup["foreign_reason"] for backup in other.find(Query()) if backup["foreign"])
    done = other.prune("work", {"last": 1})
    assert [row["id"] for row in done.removed] == pair.ids[1][:1]
    assert {row["rule"] for row in done.kept if row["id"] in pair.ids[0]} == {"of another backup directory"}
    with pytest.raises(Foreign, match="was not deleted") as caught:
        other.delete(pair.ids[0][0])
    assert caught.value.code == "foreign"
    found = other.verify(VerifyRequest(repair=True))
    assert found.failure() is None and found.foreign == sorted(pair.ids[0])
    _done, passed = other.restore(None, RestoreRequest(str(pair.bench.target)), Query(workload="work"))
    assert (pair.bench.target / "f").read_text() == pair.content[pair.ids[1][1]] and [item["id"] for item in passed] == pair.ids[0][:1:-1]
    other.restore(pair.ids[0][0], RestoreRequest(str(pair.bench.top / "by id")))
    assert sorted(path.stem for path in pair.paths[1].glob("work-*")) == sorted(row["id"] for row in done.kept)
    assert pair.whole(0)
    if how == "copied":
        assert pair.managers[0].delete(pair.ids[0].pop())
        other.collect("0s")  # that a manifest is gone is the other's business
        assert other.verify(VerifyRequest()).failure() is None


@pytest.mark.parametrize("with_file", [False, True], ids=["lost", "records copied back"])
def test_a_directory_that_is_lost_is_taken_over(pair: Pair, with_file: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it, or all but what tells whose it is: to a new directory."""
    new = pair.bench.top / "new"
    if with_file:
        new.mkdir()
        for backup in pair.ids[0]:
            shutil.copy(pair.paths[0] / f"{backup}.json", new)
    shutil.rmtree(pair.paths[0])
    manager = Manager(str(pair.store), str(new), 5)
    wanted = sorted(pair.ids[0] if with_file else pair.ids[0] + pair.ids[1])
    assert [backup["foreign"] for backup in manager.find(Query())] == [True] * (3 if with_file else 0)
    found = manager.verify(VerifyRequest(repair=True))
    assert found.repaired["sidecars"] == [] and "adopt" in found.warnings[0]
    before = pair.bench.snapshot()
    planned = manager.adopt(dry=True)
    assert sorted(row["id"] for row in planned.adopted) == wanted and planned.left == [] and planned.changed
    assert {row["found"] for row in planned.adopted} == {"record" if with_file else "manifest"}
    assert pair.bench.snapshot() == before
    ids = [] if with_file else pair.ids[0]  # those of the directory that is alive are not taken
    done = manager.adopt(ids)
    assert sorted(row["id"] for row in done.adopted) == sorted(pair.ids[0])
    assert {backup["id"]: backups._state(backup) for backup in manager.find(Query())} == dict.fromkeys(pair.ids[0], "ok")
    assert not manager.adopt().changed and pair.whole(1)
    assert [row["id"] for row in manager.prune("work", {"last": 1}).removed] == pair.ids[0][1::-1]
    places = ["--store", str(pair.store), "--backup-dir", str(new)]
    assert cli.main(["adopt", *places]) == 0 and "Nothing to adopt" in capsys.readouterr().out
    assert cli.main(["adopt", "--unlisted", "--dry-run", *places]) == 0
    text = capsys.readouterr().out
    assert all(backup in text for backup in pair.ids[1]) and "Would adopt 2 of 2" in text
    assert cli.main(["adopt", "work-20200101-000000-manual", *places]) == cli._STATUS.get(NotFound, 1)
    assert "There is no backup work-20200101-000000-manual" in capsys.readouterr().err


@pytest.mark.parametrize("there", [False, True], ids=["elsewhere", "its store has a new id"])
def test_a_record_of_another_store_is_damaged_and_stays(bench, there: bool) -> None:
    bench.files(a=b"1")
    mine = bench.create().backup["id"]
    bench.files(a=b"2")
    theirs = bench.create().backup["id"]
    path = bench.backups / f"{theirs}.json"
    change(path, store_id="ab" * 16)
    if not there:
        manifest = json.loads(path.read_bytes())["manifest_ref"]
        (bench.store / "refs" / f"{manifest}.json").unlink()
    for _turn in range(2):
        listed = {backup["id"]: backup for backup in bench.found()}
        assert not listed[mine]["damaged"] and listed[theirs]["damaged"] and "to another store (id abab" in listed[theirs]["damage"]
        assert listed[theirs]["source_path"] == str(bench.source)
        with pytest.raises(Damaged, match="another store"):
            bench.restore(theirs)
        bench.create()
        assert "of another store" in {row["rule"] for row in bench.manager.prune("work", {"last": 1}).kept}
        mine = next(backup["id"] for backup in bench.found() if not backup["damaged"])
        with pytest.raises(Foreign, match="set `store` to that store"):
            bench.manager.delete(theirs)
        bench.manager.collect("0s")
        bench.manager.verify(VerifyRequest(repair=True))
        assert path.exists()
    done = bench.manager.adopt()
    if there:
        assert [row["id"] for row in done.adopted] == [theirs]
        bench.restore(theirs)
        assert (bench.target / "a").read_bytes() == b"2"
    else:
        assert not done.changed and [(row["id"], "another store" in row["reason"]) for row in done.left] == [(theirs, True)]


@pytest.mark.parametrize("what", ["not JSON", "no id", "an odd id", "not a number", "empty", "symlink", "fifo", "directory"])
def test_a_directory_that_does_not_say_whose_it_is(pair: Pair, what: str) -> None:
    place = pair.paths[0] / DIRECTORY
    said = json.loads(place.read_bytes())
    place.unlink()
    if what == "symlink":
        place.symlink_to(pair.paths[1] / DIRECTORY)
    elif what == "fifo":
        os.mkfifo(place)
    elif what == "directory":
        place.mkdir()
    else:
        value = {"no id": {"format": 1, "store": said["store"]}, "an odd id": {**said, "id": "../x"}, "not a number": {**said, "format": True}}.get(what)
        place.write_text({"not JSON": "{", "empty": ""}.get(what) or json.dumps(value))
    manager = pair.managers[0]
    assert pair.states(0) == dict.fromkeys(pair.ids[0], "foreign")
    assert {backup["foreign_reason"].partition(",")[0] for backup in manager.find(Query())} == {f"{place} is damaged"}
    for call in (lambda: pair.make(0), manager.adopt):
        with pytest.raises(StoreError, match="is damaged"):
            call()
    assert not manager.prune("work", {"last": 1}).removed
    manager.restore(pair.ids[0][0], RestoreRequest(str(pair.bench.target)))
    shutil.rmtree(place) if what == "directory" else place.unlink()
    assert pair.states(0) == dict.fromkeys(pair.ids[0], "foreign"), "it has no id, and they name one"
    assert len(manager.adopt().adopted) == 3
    assert pair.whole(0) and pair.whole(1)


def test_a_directory_of_a_newer_version_is_unsupported(pair: Pair) -> None:
    change(pair.paths[0] / DIRECTORY, format=2)
    for call in (lambda: pair.make(0), lambda: pair.managers[0].prune("work", {"last": 1}), pair.managers[0].adopt, lambda: pair.states(0)):
        with pytest.raises(Unsupported, match="newer version"):
            call()
    assert pair.whole(1)


@pytest.mark.parametrize("away", [False, True], ids=["another store", "no store"])
def test_no_backup_is_made_into_a_directory_of_another_store(bench, away: bool) -> None:
    bench.files(a=b"1")
    bench.create()
    other = bench.top / "elsewhere"
    manager = Manager(str(other), str(bench.backups), 5)
    if not away:
        Manager(str(other), str(bench.top / "its own"), 5).create(CreateRequest("work", str(bench.source)))
    before = bench.snapshot()
    for dry in (True, False):
        with pytest.raises(StoreError, match="mount it, or set the right `store`|mount the right store, or set `store`") as caught:
            manager.create(CreateRequest("work", str(bench.source)), dry)
    assert caught.value.details["store_id"] and bench.snapshot() == before


def test_two_first_runs_make_one_directory(bench) -> None:
    bench.files(a=b"1")
    Manager(str(bench.store), str(bench.top / "other"), 5).create(CreateRequest("work", str(bench.source)))
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(bench.create().backup["directory_id"])) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 4 and len(set(made)) == 1
    assert [backup["foreign"] for backup in bench.found()] == [False] * 4
