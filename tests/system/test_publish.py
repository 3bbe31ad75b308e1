# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that write their records at the same moment: none waits for another, and no two backups get one id."""

from __future__ import annotations

import datetime
import errno
import multiprocessing
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import create, records
from ansible_collections.volt.backup.plugins.module_utils._backup.catalog import Catalog
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import kernel
from ansible_collections.volt.backup.plugins.module_utils._base.errors import LockTimeout, NotFound
from ansible_collections.volt.backup.plugins.module_utils._store.refs import Refs
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.tests.rigs.sample import LONG

MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.timezone.utc)
IDS = ["work-20260102-030405-manual", "work-20260102-030405-manual-2"]
PATIENCE = 30
#: Processes, for the half-written file of a record has the number of its process in its name.
FORK = multiprocessing.get_context("fork")


def backup(store: Path, directory: Path, source: Path) -> None:
    Manager(str(store), str(directory), PATIENCE).create(create.CreateRequest("work", str(source)))


def sources(top: Path, same: bool) -> list[Path]:
    made = []
    for number in range(2):
        source = top / f"source{0 if same else number}"
        source.mkdir(exist_ok=True)
        (source / "f").write_bytes(b"one" if same else b"%d" % number)
        made.append(source)
    return made


@pytest.mark.parametrize("rounds", range(20 if LONG else 1))
@pytest.mark.parametrize("apart", [False, True], ids=["one directory", "two directories"])
@pytest.mark.parametrize("same", [True, False], ids=["one tree", "two trees"])
def test_two_that_choose_one_id_get_two(bench, monkeypatch, same: bool, apart: bool, rounds: int) -> None:
    """Both choose before one of them writes, and both write their manifests before one of them looks who else did."""
    bench.source.mkdir()
    directories = [bench.backups, bench.top / "others" if apart else bench.backups]
    for directory in directories:  # both have their files, so that the runs share the locks
        Manager(str(bench.store), str(directory), PATIENCE).create(create.CreateRequest("first", str(bench.source)))
    both, writes, real = FORK.Barrier(2), Counter(), Refs.write

    def write(self: Refs, name: str, data: bytes) -> None:
        writes["all"] += 1
        if writes["all"] > 1:
            return real(self, name, data)
        both.wait(PATIENCE)  # both have chosen
        try:
            real(self, name, data)
        finally:
            both.wait(PATIENCE)

    monkeypatch.setattr(create, "now", lambda: MOMENT)
    monkeypatch.setattr(Refs, "write", write)
    runs = [FORK.Process(target=backup, args=(bench.store, directory, source)) for directory, source in zip(directories, sources(bench.top, same))]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0]
    found = [one for directory in dict.fromkeys(directories) for one in Manager(str(bench.store), str(directory)).find(Query("work"))]
    assert sorted(one["id"] for one in found) == IDS and not any(one["damaged"] for one in found)
    assert sorted(filter(lambda owner: owner.startswith("work"), map(records.owner, Refs(str(bench.store)).names()))) == IDS
    assert bench.manager.verify(VerifyRequest(level="content")).damage == []


@pytest.mark.parametrize("renames", [True, False], ids=["vfat", "neither"])
def test_two_of_one_manifest_without_hard_links(bench, monkeypatch, renames: bool) -> None:
    """Both give the same manifest its name, and one is done before the other writes its sidecar: no manifest goes that a sidecar needs."""
    bench.source.mkdir()
    Manager(str(bench.store), str(bench.backups), PATIENCE).create(create.CreateRequest("first", str(bench.source)))
    both, done, rename, met = FORK.Barrier(2), FORK.Event(), os.rename, Counter()
    monkeypatch.setattr(create, "now", lambda: MOMENT)

    def lacks(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def together(beside: str, path: str) -> None:
        met[Path(path).parent.name] += 1
        if Path(path).parent.name != "refs" or met["refs"] > 1:
            return rename(beside, path)
        first = both.wait(PATIENCE) == 0  # both have seen that the name is free
        rename(beside, path)
        both.wait(PATIENCE)
        assert first or done.wait(PATIENCE)

    monkeypatch.setattr(os, "link", lacks)
    monkeypatch.setattr(os, "rename", together)
    if not renames:
        monkeypatch.setattr(kernel, "rename_new", lacks)

    def run() -> None:
        backup(bench.store, bench.backups, source)
        done.set()

    source = sources(bench.top, True)[0]
    runs = [FORK.Process(target=run) for _number in range(2)]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert [one.exitcode for one in runs] == [0, 0]
    found = bench.manager.find(Query("work"))
    assert sorted(one["id"] for one in found) == IDS and not any(one["damaged"] for one in found)
    assert bench.manager.verify(VerifyRequest(level="content")).damage == []


def test_a_name_whose_answer_was_lost_is_ours(bench, monkeypatch) -> None:
    """On NFS the answer to a request can be lost. The request is sent again, and then the name is taken: by us."""
    bench.source.mkdir()
    real, sent = os.link, Counter()

    def twice(beside: str, path: str) -> None:
        sent[os.path.dirname(path)] += 1
        real(beside, path)
        if sent[os.path.dirname(path)] == 1:
            real(beside, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", twice)
        made = bench.create().backup
    assert [one["id"] for one in bench.found()] == [made["id"]] and not made["id"].endswith("-2") and bench.found()[0]["damaged"] is False
    assert bench.manager.verify(VerifyRequest(level="content")).unlisted == []


def test_a_run_that_stands_still_while_it_writes_its_records_keeps_no_other(bench, monkeypatch) -> None:
    """Neither creating nor deleting waits for it, nor what changes a record."""
    bench.source.mkdir()
    first = bench.create().backup["id"]
    real, still, go = Refs.write, FORK.Event(), FORK.Event()

    def stop(self: Refs, name: str, data: bytes) -> None:
        real(self, name, data)
        still.set()
        assert go.wait(PATIENCE)

    with monkeypatch.context() as patch:
        patch.setattr(Refs, "write", stop)
        stands = FORK.Process(target=backup, args=(bench.store, bench.backups, bench.source))
        stands.start()
    try:
        assert still.wait(PATIENCE)
        hasty = Manager(str(bench.store), str(bench.backups), 0)
        assert hasty.create(create.CreateRequest("other", str(bench.source))).backup["id"].startswith("other")
        assert hasty.protect(first).changed and hasty.protect(first, False).changed and hasty.delete(first)
        with pytest.raises(LockTimeout):
            hasty.adopt()
    finally:
        go.set()
        stands.join()
    assert Counter(one["workload_name"] for one in bench.found()) == {"work": 1, "other": 1}


def test_two_that_change_one_record_take_turns(bench, monkeypatch) -> None:
    """One protects a backup that another one is about to delete: it comes too late, and brings no record back. Other backups can be deleted meanwhile."""
    bench.source.mkdir()
    backup, other, third = (bench.create().backup["id"] for _number in range(3))
    real, still, go = Catalog._remove, FORK.Event(), FORK.Event()

    def stop(self: Catalog, *arguments: object) -> bool:
        still.set()
        assert go.wait(PATIENCE)
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "_remove", stop)
        deletes = FORK.Process(target=bench.manager.delete, args=(backup,))
        deletes.start()
    hasty = Manager(str(bench.store), str(bench.backups), 0)
    try:
        assert still.wait(PATIENCE)
        for act in (hasty.protect, hasty.delete):
            with pytest.raises(LockTimeout):
                act(backup)
        assert hasty.delete(other) and hasty.protect(third).changed
    finally:
        go.set()
        deletes.join()
    assert deletes.exitcode == 0 and [one["id"] for one in bench.found()] == [third]
    with pytest.raises(NotFound):
        hasty.protect(backup)


def test_a_record_that_two_change_at_once_has_both_changes(bench, monkeypatch) -> None:
    """One waits for the lock of a record, which then is another file. What the other one wrote is read, and stays."""
    bench.source.mkdir()
    backup = bench.create().backup["id"]
    real, still, go = Catalog.sidecar, FORK.Event(), FORK.Event()

    def stop(self: Catalog, *arguments: object) -> object:
        found = real(self, *arguments)
        still.set()
        assert go.wait(PATIENCE)
        return found

    def change(self: Catalog, one: str, does: object) -> object:
        with monkeypatch.context() as patch:
            patch.setattr(Catalog, "sidecar", stop)
            return changes(self, one, does)

    changes = Catalog.change
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "change", change)
        protects = FORK.Process(target=bench.manager.protect, args=(backup,))
        protects.start()
    accepts = FORK.Process(target=Catalog(Store(str(bench.store)), str(bench.backups)).change, args=(backup, lambda found: {**found, "notes": "later"}))
    try:
        assert still.wait(PATIENCE)
        accepts.start()
        time.sleep(0.3)  # it waits
    finally:
        go.set()
        protects.join()
        accepts.join()
    found = bench.found()[0]
    assert (protects.exitcode, accepts.exitcode, found["protected"], found["notes"]) == (0, 0, True, "later")
