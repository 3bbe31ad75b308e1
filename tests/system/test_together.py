# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many at one store: creates, deletions, prunes, collections, verifications, restores, in processes of their own, none of which knows of the others.

25 seconds of it, or three minutes with VOLT_TESTS=long.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import catalog, create, verify
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager, Query
from ansible_collections.volt.backup.plugins.module_utils._base.errors import LockLost, LockTimeout, NotFound
from ansible_collections.volt.backup.plugins.module_utils._base.time import parse_time
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._store import gc as collection, layout
from ansible_collections.volt.backup.plugins.module_utils._store.lock import Lock
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction
from ansible_collections.volt.backup.tests.rigs import forks, model
from ansible_collections.volt.backup.tests.rigs.sample import LONG

RUSH = 180.0 if LONG else 25.0
VERSIONS = 4
#: Ends of commands that are no fault while others work: the lock was taken for too long, a backup was deleted, a target busy; and at the
#: beginning there is no store yet.
EXPECTED = ("lock_timeout", "not_found", "no_store")


def version(top: Path, seed: int, count: int = 40) -> None:
    """A tree of which half is common to all versions, with something of each way to be stored."""
    for number in range(count):
        chance = random.Random(number if number % 2 else f"{seed}/{number}")
        path = top / f"d{number % 5}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(20_000)))
    (top / "object").write_bytes(random.Random(seed).randbytes(200_000))
    (top / "shared").write_bytes(random.Random(0).randbytes(300_000))
    with open(top / "chunked", "wb") as file:
        file.truncate(9 << 20)
        file.seek((seed % 9) << 20)
        file.write(random.Random(seed).randbytes(1 << 19))
    os.link(top / "object", top / "again")


class Crowd:
    """Workloads whose sources never change, so that what a backup must hold is known from its source path."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.places = ["--store", str(top / "store"), "--backup-dir", str(top / "backups"), "--json", "--lock-timeout", "20"]
        self.sources = {number: top / f"source{number}" for number in range(VERSIONS)}
        self.wanted: dict[str, model.Snapshot] = {}
        for number, source in self.sources.items():
            source.mkdir()
            version(source, number)
            self.wanted[str(source)] = model.snapshot(source)
        self.count: Counter[str] = Counter()
        self.faults: list[str] = []
        self.until = time.monotonic() + RUSH
        self.guard = threading.Lock()

    def words(self, command: str, *options: object) -> list[str]:
        return [command, *map(str, options), *self.places]

    def run(self, server: forks.Server, chance: random.Random, command: str, *options: object) -> dict | None:
        """One command; None where it ended in a way that is no fault."""
        result = server.run(self.words(command, *options))
        self.count[command] += 1
        if result.status == 0:
            return json.loads(result.output)
        self.count["refused"] += 1
        text = result.output + result.errors
        if "Traceback" in text or not any(code in text for code in EXPECTED):
            self.fault(f"{command} {options}: {text[-1500:]}")
        return None

    def fault(self, text: str) -> None:
        with self.guard:
            self.faults.append(text)

    # ---- what each of the crowd does, over and over

    def creator(self, server: forks.Server, chance: random.Random, me: int) -> None:
        source = self.sources[chance.randrange(VERSIONS)]
        changed = ["--only-if-changed"] if chance.random() < 0.3 else []
        self.run(server, chance, "create", chance.choice(["common", f"own{me}"]), "--source", source, *changed)

    def lister(self, server: forks.Server, chance: random.Random, me: int) -> None:
        found = self.run(server, chance, "list")
        for backup in (found or {}).get("backups", []):
            if backup["damaged"]:
                self.fault(f"listed as damaged: {backup['id']}: {backup['damage']}")

    def restorer(self, server: forks.Server, chance: random.Random, me: int) -> None:
        found = (self.run(server, chance, "list") or {}).get("backups", [])
        if not found:
            return
        backup, target = chance.choice(found), self.top / f"target{me}"
        if self.run(server, chance, "restore", backup["id"], "--target", target, "--force", "--strategy", chance.choice(["replace", "in_place"])) is None:
            return
        if chance.random() < 0.5:
            # An id that a deletion freed within its second may have become another backup's between the list and the restore.
            still = (self.run(server, chance, "list") or {}).get("backups", [])
            if not any(one["manifest_ref"] == backup["manifest_ref"] for one in still):
                return
            # in place leaves what the backup lacks: the versions have the same names
            different = model.unlike(self.wanted[backup["source_path"]], model.snapshot(target))
            if different:
                self.fault(f"restored otherwise: {backup['id']}: {different}")
            self.count["compared"] += 1

    def keeper(self, server: forks.Server, chance: random.Random, me: int) -> None:
        what = chance.randrange(4)
        if what == 0:
            self.run(server, chance, "gc", "--grace", "0s")
        elif what == 1:
            self.run(server, chance, "prune", chance.choice(["common", "own0", "own1"]), "--keep", 2)
        elif what == 2:
            found = (self.run(server, chance, "list") or {}).get("backups", [])
            if len(found) > 3:
                self.run(server, chance, "delete", chance.choice(found)["id"])
        else:
            extra = ["--repair"] if chance.random() < 0.4 else []
            self.run(server, chance, "verify", *(["--content"] if chance.random() < 0.5 else []), *extra)


def test_a_crowd_loses_nothing(tmp_path: Path, record_property) -> None:
    crowd = Crowd(tmp_path)
    crowd.faults.clear()
    roles = [crowd.creator, crowd.creator, crowd.lister, crowd.restorer, crowd.keeper, crowd.keeper]

    def one(number: int) -> None:
        chance = random.Random(number)
        code = f"{forks.ENGINE}\nfrom ansible_collections.volt.backup.plugins.module_utils._store import gc; gc._BREATH = 0.05"
        try:
            with forks.Server(code) as mine:
                while time.monotonic() < crowd.until and not crowd.faults:
                    roles[number](mine, chance, number)
        except BaseException as error:
            crowd.fault(repr(error))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(roles))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("crowd:", dict(crowd.count))
    for what, number in crowd.count.items():
        record_property(what, number)
    assert not crowd.faults, crowd.faults[0]
    with forks.Server() as server:
        chance = random.Random(0)
        for command in (["verify", "--content"], ["gc", "--grace", "0s"], ["verify", "--content"]):
            assert crowd.run(server, chance, *command) is not None, crowd.faults
        found = crowd.run(server, chance, "list")
        for backup in found["backups"]:
            target = tmp_path / "last"
            assert not backup["damaged"] and crowd.run(server, chance, "restore", backup["id"], "--target", target) is not None, crowd.faults
            assert not model.unlike(crowd.wanted[backup["source_path"]], model.snapshot(target))
            shutil.rmtree(target)
    assert not os.listdir(tmp_path / "store" / "tmp")


@pytest.fixture
def remade(bench, monkeypatch) -> Callable[[str], None]:
    """Delete a backup and, within the same second, make another one, which gets the same id."""

    def remake(backup: str) -> None:
        other = Manager(str(bench.store), str(bench.backups), 5)
        (sidecar,) = [item for item in other.find(Query()) if item["id"] == backup]
        moment = parse_time(sidecar["created_at"])
        other.delete(backup)
        bench.files(a=b"anew")
        monkeypatch.setattr(create, "now", lambda: moment)
        assert bench.create().backup["id"] == backup

    return remake


@pytest.mark.parametrize("anew", [False, True], ids=["gone", "anew"])
@pytest.mark.parametrize("look", ["list", "restore newest", "show", "create", "prune", "usage", "verify"])
def test_a_backup_that_is_deleted_while_somebody_looks_is_not_damaged(bench, monkeypatch, remade, look: str, anew: bool) -> None:
    """Its sidecar was read, its manifest is gone: it is no more, and that is all; also where its id is another backup's by now."""
    bench.files(a=b"1")
    first = bench.create().backup["id"]
    second = bench.create().backup["id"]
    real = catalog.Catalog.manifest
    deleted = []

    def late(self, sidecar):
        if sidecar["id"] == second and not deleted:
            deleted.append(second)
            remade(second) if anew else Manager(str(bench.store), str(bench.backups), 5).delete(second)
        return real(self, sidecar)

    monkeypatch.setattr(catalog.Catalog, "manifest", late)
    if look == "list":
        assert [(item["id"], item["damaged"]) for item in bench.found()] == [(first, False)]
    elif look == "show":
        with pytest.raises(NotFound):
            bench.manager.contents(second, 10)
    elif look == "create":
        assert bench.create(only_if_changed=True).skipped == []
    elif look == "prune":
        done = bench.manager.prune("work", {"last": 1}, dry=True)
        assert not any(row["damaged"] for row in [*done.kept, *done.removed])
    elif look == "usage":
        assert not bench.manager.usage()["damaged"]
    elif look == "verify":
        assert bench.manager.verify(verify.VerifyRequest()).damage == []
    else:
        _done, passed = bench.manager.restore(None, RestoreRequest(str(bench.target)), newest=Query(workload="work"))
        assert passed == []
    assert deleted


def test_a_collection_is_not_refused_for_a_backup_that_is_created_again(bench, monkeypatch, remade) -> None:
    """Its manifest is younger than the list of manifests that the collection has."""
    bench.files(a=b"1")
    backup = bench.create().backup["id"]
    real = catalog.Catalog.sidecar
    done = []

    def late(self, wanted):
        if not done:
            done.append(wanted)
            remade(wanted)
        return real(self, wanted)

    monkeypatch.setattr(catalog.Catalog, "sidecar", late)
    bench.manager.collect("0s")
    assert done == [backup]
    assert [(item["id"], item["damaged"]) for item in bench.found()] == [(backup, False)]
    bench.restore(backup)
    assert (bench.target / "a").read_bytes() == b"anew"


# ---- frozen


#: A create that tells when it has looked at everything, and then waits to be frozen.
FREEZE = """
import os, signal, sys
from ansible_collections.volt.backup.plugins.module_utils._backup import create, publish
from ansible_collections.volt.backup.plugins.module_utils._runner.cli import main
moment = sys.argv.pop(1)
place, name = {"captured": (create.Creator, "_capture"), "stored": (create.Transaction, "commit"), "published": (publish, "directory_lock")}[moment]
real = getattr(place, name)
def stop(*arguments, **options):
    if moment == "published":
        setattr(place, name, real)  # once
        os.kill(os.getpid(), signal.SIGSTOP)
        return real(*arguments, **options)
    result = real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGSTOP)
    return result
setattr(place, name, stop)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def frozen(bench) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a create that freezes at a moment; it goes on, and ends, with the test."""
    started: list[subprocess.Popen] = []

    def start(moment: str) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        places = ["--store", str(bench.store), "--backup-dir", str(bench.backups), "--json"]
        words = [sys.executable, "-c", FREEZE, moment, "create", "work", "--source", str(bench.source), *places]
        child = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        started.append(child)
        _pid, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGSTOP, child.stdout.read()
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.send_signal(signal.SIGCONT)
            child.communicate(timeout=60)


def thaw(child: subprocess.Popen) -> None:
    child.send_signal(signal.SIGCONT)
    output, _none = child.communicate(timeout=60)
    assert child.returncode == 0, output


@pytest.mark.parametrize("moment", ["captured", "stored", "published"])
def test_a_create_that_is_frozen_loses_nothing(bench, frozen, moment: str) -> None:
    """It has found its blobs in the store; then the one backup that they belong to is deleted, and a collection comes by, twice."""
    bench.source.mkdir()
    version(bench.source, 1)
    wanted = model.snapshot(bench.source)
    first = bench.create().backup["id"]
    child = frozen(moment)
    assert bench.manager.delete(first)
    bench.manager._timeout = 1
    for _turn in range(2):
        with pytest.raises(LockTimeout):
            bench.manager.collect("0s")
    assert bench.found() == [], "readers are let in meanwhile"
    thaw(child)
    (backup,) = bench.found()
    assert not backup["damaged"] and backup["new_blobs"] == 0
    bench.manager.collect("0s")
    bench.restore(backup["id"], numeric_owner=True)
    assert not model.unlike(wanted, model.snapshot(bench.target))


# ---- lock files that somebody removes


#: What somebody does to the lock and the gate, and whether a collection can be made then.
TROUBLE = {
    "lock removed": lambda store: (store / "lock").unlink(),
    "gate removed": lambda store: (store / "gate").unlink(),
    "both removed": lambda store: ((store / "lock").unlink(), (store / "gate").unlink()),
    "both replaced": lambda store: [((store / name).unlink(), (store / name).touch()) for name in ("lock", "gate")],
}


@pytest.mark.parametrize("moment", ["captured", "stored", "published"])
@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_collection_is_refused_while_a_run_has_a_lock_that_was_removed(bench, frozen, trouble: str, moment: str) -> None:
    bench.source.mkdir()
    version(bench.source, 1)
    wanted = model.snapshot(bench.source)
    first = bench.create().backup["id"]
    child = frozen(moment)
    assert bench.manager.delete(first)
    TROUBLE[trouble](bench.store)
    bench.manager._timeout = 1
    for _turn in range(2):
        with pytest.raises(LockTimeout if trouble == "gate removed" else LockLost, match="work|hold") as caught:
            bench.manager.collect("0s")
    if isinstance(caught.value, LockLost):
        assert len(caught.value.details["runs"]) == 1
    thaw(child)
    (backup,) = bench.found()
    assert not backup["damaged"]
    bench.manager.collect("0s")
    bench.restore(backup["id"], numeric_owner=True)
    assert not model.unlike(wanted, model.snapshot(bench.target))


def test_a_repair_makes_no_sidecar_for_a_run_whose_lock_was_removed(bench, frozen) -> None:
    """It is between its manifest and its sidecar, or about to be."""
    bench.files(a=b"1")
    lost = bench.create().backup["id"]
    (bench.backups / f"{lost}.json").unlink()
    bench.files(a=b"2")
    child = frozen("stored")
    (bench.store / "lock").unlink()
    with pytest.raises(LockLost):
        bench.manager.verify(verify.VerifyRequest(repair=True))
    thaw(child)
    assert bench.manager.verify(verify.VerifyRequest(repair=True)).repaired["sidecars"] == [lost]
    assert [backup["damaged"] for backup in bench.found()] == [False, False]


def test_a_run_that_begins_during_a_slice_of_a_collection_loses_nothing(bench, monkeypatch) -> None:
    """The collector has the store alone, the lock's file is removed, and a run comes in: what it has seen is put back."""
    bench.source.mkdir()
    version(bench.source, 1)
    first = bench.create().backup["id"]
    bench.manager.delete(first)
    real = collection._Trash.take
    begun: list[Transaction] = []

    def take(self, file) -> None:
        if not begun:
            (bench.store / "lock").unlink()
            begun.append(Transaction(Store(str(bench.store), 5)).__enter__())
        real(self, file)

    before = sorted(path.relative_to(bench.store) for kind in ("objects", "packs") for path in (bench.store / kind).rglob("*") if path.is_file())
    monkeypatch.setattr(collection._Trash, "take", take)
    with pytest.raises(LockLost):
        bench.manager.collect("0s")
    begun[0].__exit__()
    after = sorted(path.relative_to(bench.store) for kind in ("objects", "packs") for path in (bench.store / kind).rglob("*") if path.is_file())
    assert after == before
    assert bench.manager.collect("0s")["freed_files"] == len(before)


def test_a_collection_ends_where_another_may_have_begun(bench, monkeypatch) -> None:
    """The directory by whose lock collections keep each other out is removed while one is at work."""
    bench.source.mkdir()
    version(bench.source, 1)
    bench.manager.delete(bench.create().backup["id"])
    real = collection._settle

    def settle(store) -> None:
        shutil.rmtree(bench.store / "trash")
        real(store)

    monkeypatch.setattr(collection, "_settle", settle)
    with pytest.raises(LockLost, match="trash"):
        bench.manager.collect("0s")
    monkeypatch.undo()
    assert bench.manager.collect("0s")["freed_files"]


# ---- nobody starves


def busy(store: str, until: float, seed: int) -> None:
    """What many schedules do: hold the store with others for moments, over and over."""
    chance = random.Random(seed)
    while time.monotonic() < until:
        try:
            with Lock(store, 60):
                time.sleep(chance.uniform(0.01, 0.1))
        except LockTimeout:
            pass


def test_a_collection_gets_the_lock_and_does_not_block_others(bench, record_property) -> None:
    """As 200 schedules would: there is always somebody who holds the store. And 20,000 objects are to be swept."""
    bench.files(a=b"1", object=b"x" * 200_000)
    keep = bench.create().backup["id"]
    dead = 100_000 if LONG else 20_000
    for number in range(dead):
        name = random.Random(number).randbytes(32).hex()
        shelf = bench.store / "objects" / name[:2]
        shelf.mkdir(exist_ok=True)
        (shelf / name).touch()
    until = time.monotonic() + 300
    crowd: list[int] = []
    waits: dict[str, list[float]] = {"list": [], "restore": []}
    stop = threading.Event()
    try:
        for seed in range(40):
            child = os.fork()
            if not child:
                try:
                    busy(str(bench.store), until, seed)
                finally:
                    os._exit(0)
            crowd.append(child)

        def measure(what: str) -> None:
            number = 0
            while not stop.is_set():
                began = time.monotonic()
                number += 1
                if what == "list":
                    assert [item["damaged"] for item in bench.found()][-1] is False
                elif what == "restore":
                    bench.restore(keep, target=str(bench.top / "measured"))
                    shutil.rmtree(bench.top / "measured")
                waits[what].append(time.monotonic() - began)

        threads = [threading.Thread(target=measure, args=(what,)) for what in ("list", "restore")]
        for thread in threads:
            thread.start()
        bench.manager._timeout = 30
        began = time.monotonic()
        try:
            done = bench.manager.collect("0s")
        finally:
            took = time.monotonic() - began
            stop.set()
            for thread in threads:
                thread.join()
    finally:
        for child in crowd:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    longest = {what: round(max(found), 3) for what, found in waits.items() if found}
    print(f"collection of {dead} objects among 40 others: {took:.1f} s; longest waits of readers: {longest}")
    record_property("longest", str(longest))
    assert done["freed_files"] == dead
    assert max(longest.values()) < 5
    assert layout.look(str(bench.store)) and collection._SLICE < 5
