# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores whose disk is away: whoever knows of one says so, and nothing is made in its place, unless a user says to begin anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import host
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import StoreError, Unsupported, UsageError
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli, screen
from ansible_collections.volt.backup.plugins.module_utils._schedule import hooks, run
from ansible_collections.volt.backup.plugins.module_utils._schedule.job import Job
from ansible_collections.volt.backup.plugins.module_utils._schedule.record import RunRecord

DIRECTORY = ".directory.json"


class Place:
    """A store on a disk that goes away and comes back. Its records are on another one."""

    def __init__(self, bench: Any, disk: Any, host_file: Path) -> None:
        self.bench, self.disk, self.host_file = bench, disk, host_file
        self.mount, self.store, self.backups = bench.top / "disk", bench.top / "disk" / "cas", bench.top / "backups"
        disk.mount(self.mount)
        bench.files(a=b"1")
        self.first = self.create().backup["id"]
        self.id = self.format()["id"]

    def manager(self, **more: Any) -> Manager:
        return Manager(str(self.store), str(self.backups), 5, **more)

    def create(self, dry: bool = False, **more: Any) -> Any:
        return self.manager().create(CreateRequest("work", str(self.bench.source)), dry, **more)

    def format(self) -> dict[str, Any]:
        return json.loads((self.store / "format.json").read_bytes())

    def says(self) -> dict[str, Any]:
        return json.loads((self.backups / DIRECTORY).read_bytes())

    def declare(self, **more: Any) -> None:
        host.write(host.Home(str(self.store), str(self.backups), self.id)._replace(**more))

    def snapshot(self) -> dict[str, Any]:
        """All files but that of the disk, to which the kernel writes when it likes."""
        return {path: state for path, state in self.bench.snapshot().items() if not path.endswith(".image")}

    def command(self, *words: str) -> int:
        return cli.main([*words, "--store", str(self.store), "--backup-dir", str(self.backups)])


@pytest.fixture
def place(bench: Any, disk: Any, host_file: Path) -> Place:
    return Place(bench, disk, host_file)


@pytest.mark.parametrize("who", ["directory", "records", "records of 0.1.0", "host file", "job"])
def test_a_store_that_is_away_is_an_error_and_nothing_is_made(place: Place, who: str) -> None:
    said: dict[str, Any] = {}
    if who in ("host file", "job"):
        place.backups.rename(place.bench.top / "kept")  # not even the backup directory is there
    if who.startswith("records"):
        (place.backups / DIRECTORY).unlink()
    if who == "records of 0.1.0":
        path = place.backups / f"{place.first}.json"
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_bytes()).items() if not key.endswith("_id") or key == "host_id"}))
    if who == "host file":
        place.declare()
    if who == "job":
        said["store_id"] = place.id
    if who == "directory":
        (place.backups / f"{place.first}.json").unlink()
    place.disk.umount(place.mount)
    before, manager = place.snapshot(), place.manager(**said)
    request = CreateRequest("work", str(place.bench.source))
    calls = {
        "create": lambda: manager.create(request), "check mode": lambda: manager.create(request, dry=True), "list": lambda: manager.find(Query()),
        "delete": lambda: manager.delete(place.first), "gc": manager.collect, "verify": lambda: manager.verify(VerifyRequest(repair=True)),
        "prune": lambda: manager.prune("work", {"last": 1}), "usage": manager.usage, "init": manager.begin,
        "contents": lambda: manager.contents(place.first, 1),
    }  # fmt: skip
    for call in calls.values():
        with pytest.raises(StoreError, match=f"There is no store at {place.store}, but .*; mount it, or set the right `store`.*new_store: true") as caught:
            call()
        assert place.id in caught.value.message or who == "records of 0.1.0"
        assert caught.value.code == "store" and caught.value.details["store_id"] == (None if who == "records of 0.1.0" else place.id)
    assert place.snapshot() == before and os.listdir(place.mount) == []
    place.disk.mount(place.mount)
    if who == "host file":
        (place.bench.top / "kept").rename(place.backups)
    assert manager.create(request).changed and place.format()["id"] == place.id


def test_records_that_are_away(place: Place) -> None:
    """Without its records a workload has no history: the guards would know nothing, and a new directory would list nothing of what there is."""
    place.declare()
    place.backups.rename(place.bench.top / "kept")
    for call in (place.create, lambda: place.create(dry=True), lambda: place.manager().prune("work", {"last": 1})):
        with pytest.raises(StoreError, match="of this host is missing, but the store has backups; mount its disk"):
            call()
    assert not place.backups.exists()
    (place.bench.top / "kept").rename(place.backups)
    assert place.create().changed
    place.backups.rename(place.bench.top / "kept")
    assert place.first in [row["id"] for row in place.manager().adopt().adopted]
    assert place.create().changed


def test_a_disk_with_another_host_s_store_is_not_worked_on(place: Place, tmp_path: Path) -> None:
    """Store and records of it are there, and sound: they are not this host's."""
    place.declare(store_id="0" * 32)
    manager = place.manager()
    calls = (
        lambda: manager.find(Query()), lambda: manager.prune("work", {"last": 1}), lambda: manager.delete(place.first), manager.collect,
        lambda: manager.restore(None, RestoreRequest(str(tmp_path / "t")), Query(workload="work")), lambda: manager.protect(place.first),
        lambda: manager.accept(place.first), lambda: manager.accept_mounts("work"), manager.import_original, manager.usage,
    )  # fmt: skip
    for call in calls:
        with pytest.raises(StoreError, match=f"has the id {place.id}, but .* needs the store with id 0000") as caught:
            call()
        assert caught.value.details["store_id"] == "0" * 32


@pytest.mark.parametrize("who", ["directory", "host file", "job"])
def test_another_store_in_its_place_is_refused_with_both_ids(place: Place, who: str) -> None:
    said = {"store_id": place.id} if who == "job" else {}
    if who == "host file":
        place.declare()
    other = "cd" * 16
    (place.store / "format.json").write_text(json.dumps({**place.format(), "id": other}))
    if who != "directory":
        (place.backups / DIRECTORY).unlink()
    before, manager = place.snapshot(), place.manager(**said)
    for call in (lambda: manager.create(CreateRequest("work", str(place.bench.source)), new_store=True), lambda: manager.begin(replace=True), manager.begin):
        with pytest.raises(StoreError, match=f"has the id {other}, but .*{place.id}"):
            call()
    assert place.snapshot() == before


def test_where_nothing_is_known_there_are_no_backups(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--store", str(bench.store), "--backup-dir", str(bench.backups)]
    assert cli.main(["list", *where]) == 4 and f"There is no store {bench.store}" in capsys.readouterr().err
    assert bench.snapshot() == {}
    bench.backups.mkdir()
    (bench.backups / "notes.json").write_text("{")  # no backup, by its name
    bench.files(a=b"1")
    assert bench.create().changed


# ---- to begin anew


def test_start_a_new_store(place: Place) -> None:
    place.declare()
    place.disk.umount(place.mount)
    before = place.snapshot()
    foreseen = place.create(dry=True, new_store=True)
    assert foreseen.changed and place.snapshot() == before
    made = place.create(new_store=True).backup
    new = place.format()["id"]
    assert new != place.id and made["store_id"] == new == place.says()["store"] == json.loads(place.host_file.read_bytes())["store_id"]
    assert place.host_file.stat().st_mode & 0o777 == 0o644
    listed = {backup["id"]: backup for backup in place.manager().find(Query())}
    assert not listed[made["id"]]["damaged"] and listed[place.first]["damage"].startswith(f"It belongs to another store (id {place.id})")
    again = place.create(new_store=True).backup
    assert again["store_id"] == new, "it is there now"
    assert place.manager(store_id=place.id).create(CreateRequest("work", str(place.bench.source))).changed, "the host file knows it better than an older job"
    place.disk.mount(place.mount)
    with pytest.raises(StoreError, match=f"has the id {place.id}, but .* id {new}"):
        place.create(new_store=True)


def test_an_interrupted_start_of_a_new_store_continues(place: Place) -> None:
    """The store was made, and the backup directory does not name it yet."""
    place.disk.umount(place.mount)
    Manager(str(place.store), str(place.bench.top / "other"), 5).begin()
    with pytest.raises(StoreError):
        place.create()
    assert place.manager().begin(replace=True).steps == [f"name the store in {place.backups}/{DIRECTORY}"]
    assert place.create().backup["store_id"] == place.says()["store"] == place.format()["id"]


def test_init(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--store", str(bench.store), "--backup-dir", str(bench.backups)]
    assert cli.main(["init", "--dry-run", *where]) == 0 and bench.snapshot() == {}
    assert f"make store {bench.store}" in capsys.readouterr().out
    assert cli.main(["init", "--json", *where]) == 0
    done = json.loads(capsys.readouterr().out)
    known = json.loads((bench.store / "format.json").read_bytes())["id"]
    steps = [f"make directory {bench.store}", f"make directory {bench.backups}", f"make store {bench.store}", f"name the store in {bench.backups}/{DIRECTORY}"]
    assert done == {"changed": True, "store": str(bench.store), "backup_dir": str(bench.backups), "store_id": known,
                    "diff": {"prepared": "".join(f"{step}\n" for step in steps)}}  # fmt: skip
    before = bench.snapshot()
    assert cli.main(["init", *where]) == 0 and capsys.readouterr().out == f"Nothing to do: the store {bench.store} exists.\n"
    assert cli.main(["init", "--replace", *where]) == 2 and "exists, and --replace does not overwrite it" in capsys.readouterr().err
    assert bench.snapshot() == before


def test_init_replace(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.declare()
    place.disk.umount(place.mount)
    before = place.snapshot()
    assert place.command("init") == 4 and "volt-backup init --replace" in capsys.readouterr().err
    assert place.command("init", "--replace", "--dry-run") == 0 and place.snapshot() == before
    assert place.command("init", "--replace") == 0
    new = place.format()["id"]
    assert new != place.id and place.says()["store"] == new == json.loads(place.host_file.read_bytes())["store_id"]
    capsys.readouterr()
    assert place.command("list") == 0 and f"DAMAGED: It belongs to another store (id {place.id})" in capsys.readouterr().out
    assert place.create().changed


def test_init_gives_a_store_of_version_0_1_0_its_id(place: Place) -> None:
    (place.store / "format.json").write_text('{"format": 1}')
    (place.backups / DIRECTORY).unlink()
    assert place.manager().begin().steps[0] == f"give store {place.store} an id"
    assert place.says()["store"] == place.format()["id"]


def test_a_store_that_has_got_a_new_id_is_taken_over_for_the_host_as_well(place: Place) -> None:
    """Its format.json was lost, and made anew as its error tells."""
    place.declare()
    (place.store / "format.json").write_text('{"format": 1}')
    with pytest.raises(StoreError, match=place.id):
        place.create()
    assert place.format()["id"] not in ("", place.id)
    assert [row["id"] for row in place.manager().adopt().adopted] == [place.first]
    assert json.loads(place.host_file.read_bytes())["store_id"] == place.says()["store"] == place.format()["id"]
    assert place.create().changed


# ---- the host file


def test_the_host_file_names_the_store_that_is_meant(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.declare()
    assert cli.main(["list"]) == 0 and place.first in capsys.readouterr().out
    assert cli.main(["list", "--store", f"{place.store}/"]) == 0 and place.first in capsys.readouterr().out
    assert cli.main(["show", "work-20200101-000000-manual"]) != 0 and f"(records in {place.backups});" in capsys.readouterr().err
    place.disk.umount(place.mount)
    assert cli.main(["list"]) == 4 and f"There is no store at {place.store}" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "kind"), [("{", StoreError), ('{"format": 2}', Unsupported)])
def test_a_host_file_that_cannot_be_read(place: Place, text: str, kind: type[Exception]) -> None:
    """Nobody then knows which store is meant, nor whether one was there. Backups to a store that is there go on."""
    place.host_file.write_text(text)
    with pytest.raises(kind):
        Manager(None, None).find(Query())
    assert place.create().changed
    place.disk.umount(place.mount)
    fresh = Manager(str(place.store), str(place.bench.top / "fresh"), 5)
    with pytest.raises(kind):
        fresh.create(CreateRequest("work", str(place.bench.source)))
    assert os.listdir(place.mount) == []


def test_a_host_file_for_another_store_has_no_say(bench: Any, host_file: Path) -> None:
    host.write(host.Home("/elsewhere/cas", "/elsewhere/backups", "ab" * 16))
    bench.files(a=b"1")
    assert bench.create().changed


# ---- scheduled runs


@pytest.mark.parametrize("other", [False, True], ids=["away", "another"])
def test_a_run_whose_store_is_away(place: Place, other: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    place.backups.rename(place.bench.top / "kept")  # the job alone knows
    mark = place.bench.top / "mark"
    job = Job("work", str(place.bench.source), 3600, pre_command=["/bin/touch", str(mark)], store=str(place.store), backup_dir=str(place.backups),
              store_id=place.id)  # fmt: skip
    monkeypatch.setattr(hooks, "load_job", lambda _workload, _record: job)
    monkeypatch.setattr(run, "RunRecord", lambda workload: RunRecord(workload, str(place.bench.top / "records")))
    monkeypatch.setattr(run.systemd, "running", lambda: False)
    place.disk.umount(place.mount)
    if other:
        Manager(str(place.store), str(place.bench.top / "other"), 5).begin()
    before = set(place.snapshot())
    assert cli.main(["run", "work", "--json"]) == (1 if other else 4)
    result = json.loads(capsys.readouterr().out)
    assert result["code"] == "store" and result["store_id"] == place.id and str(place.store) in result["msg"]
    assert {path for path in set(place.snapshot()) - before if "/records" not in path} == set() and not mark.exists()
    reason = RunRecord("work", str(place.bench.top / "records")).read()["failure"]["reason"]
    assert screen.speak(reason.replace("`backup_dir`", "--backup-dir").replace("`store`", "--store")) == result["msg"]
    if not other:
        place.disk.mount(place.mount)
        assert cli.main(["run", "work"]) == 0 and mark.exists()


def test_an_empty_path_is_refused(bench: Any) -> None:
    with pytest.raises(UsageError, match="empty"):
        Manager("", str(bench.backups)).find(Query())
