# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many at one store: creates, deletions, prunes, collections, verifications, restores, in processes of their own, none of which knows of the others.

25 seconds of it, or three minutes with VOLT_TESTS=long.
"""

from __future__ import annotations

import errno
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
from typing import Optional

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import catalog, create, garbage, restore as restore_module, verify
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, LockLost, NotFound, StoreError
from ansible_collections.volt.backup.plugins.module_utils._base.time import parse_time
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._store import claims, gc as collection, index, layout
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction
from ansible_collections.volt.backup.tests.rigs import forks, model
from ansible_collections.volt.backup.tests.rigs.sample import LONG

RUSH = 180.0 if LONG else 12.0
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


@pytest.mark.costly
def test_a_crowd_loses_nothing(tmp_path: Path, record_property) -> None:
    crowd = Crowd(tmp_path)
    crowd.faults.clear()
    roles = [crowd.creator, crowd.creator, crowd.lister, crowd.restorer, crowd.keeper, crowd.keeper]

    def one(number: int) -> None:
        chance = random.Random(number)
        try:
            with forks.Server(forks.ENGINE) as mine:
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


@pytest.mark.parametrize("again", [False, True], ids=["first collection", "trash of an earlier one"])
@pytest.mark.parametrize("moment", ["captured", "stored", "published"])
def test_a_create_that_is_frozen_loses_nothing(bench, frozen, moment: str, again: bool) -> None:
    """It has found its blobs in the store; then the one backup that they belong to is deleted, and collections come by. None of them waits for it."""
    bench.source.mkdir()
    version(bench.source, 1)
    wanted = model.snapshot(bench.source)
    first = bench.create().backup["id"]
    child = frozen(moment)
    assert bench.manager.delete(first)
    bench.manager._timeout = 1
    for _turn in range(2):
        if again:  # a collection that was killed after its moves
            to_trash(bench)
        assert bench.manager.collect("0s")["freed_files"] == 0
    if moment == "captured":
        other = Manager(str(bench.store), str(bench.backups), 1)
        assert other.create(create.CreateRequest("other", str(bench.source))).backup["new_blobs"] == 0
        assert other.delete(bench.found()[0]["id"])
    assert bench.found() == []
    thaw(child)
    (backup,) = bench.found()
    assert not backup["damaged"] and backup["new_blobs"] == 0
    bench.manager.collect("0s")
    bench.restore(backup["id"], numeric_owner=True)
    assert not model.unlike(wanted, model.snapshot(bench.target))
    bench.manager.delete(backup["id"])
    assert bench.manager.collect("0s")["freed_files"] and bench.manager.usage()["stored_bytes"] == 0


def to_trash(bench) -> None:
    """Move all packs and objects to the trash, as a collection does before it reads the claims."""
    trash = bench.store / "trash" / "00000000000000000001-1.open"
    for kind in ("objects", "packs"):
        (trash / kind).mkdir(parents=True, exist_ok=True)
        for path in [path for path in (bench.store / kind).rglob("*") if path.is_file()]:
            path.rename(trash / kind / path.name)


@pytest.mark.parametrize("moment", ["captured", "stored"])
def test_a_run_whose_directory_was_removed_makes_no_backup(bench, frozen, moment: str) -> None:
    """No collection can see what it relies on."""
    bench.source.mkdir()
    version(bench.source, 1)
    bench.create()
    child = frozen(moment)
    shutil.rmtree(bench.store / "tmp")
    child.send_signal(signal.SIGCONT)
    output, _none = child.communicate(timeout=60)
    if moment == "captured":
        assert child.returncode == 1, output
        assert len(bench.found()) == 1


def test_a_repair_makes_no_sidecar_for_a_run_that_is_about_to(bench, frozen) -> None:
    """It is between its manifest and its sidecar, or about to be."""
    bench.files(a=b"1")
    lost = bench.create().backup["id"]
    (bench.backups / f"{lost}.json").unlink()
    bench.files(a=b"2")
    child = frozen("stored")
    assert bench.manager.verify(verify.VerifyRequest(repair=True)).repaired["sidecars"] == [lost]
    thaw(child)
    assert bench.manager.verify(verify.VerifyRequest(repair=True)).repaired["sidecars"] == []
    assert [backup["damaged"] for backup in bench.found()] == [False, False]


def test_a_restore_keeps_a_backup_that_is_deleted_meanwhile(bench, monkeypatch) -> None:
    bench.source.mkdir()
    version(bench.source, 1)
    wanted = model.snapshot(bench.source)
    backup = bench.create().backup["id"]
    real = restore_module.Restorer._carry_out

    def meanwhile(self, *arguments):
        other = Manager(str(bench.store), str(bench.backups), 1)
        assert other.delete(backup)
        assert other.collect("0s")["freed_files"] == 0
        return real(self, *arguments)

    monkeypatch.setattr(restore_module.Restorer, "_carry_out", meanwhile)
    bench.restore(backup, numeric_owner=True)
    assert not model.unlike(wanted, model.snapshot(bench.target))
    assert bench.manager.collect("0s")["freed_files"] and bench.debris() == []


# ---- the order of claims, looks and moves


class Race:
    """A create and a collection, each stopped by the other at chosen steps of their code. What the create relies on was dead before."""

    def __init__(self, bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench, self.patch = bench, monkeypatch
        bench.source.mkdir()
        version(bench.source, 1)
        bench.manager.delete(bench.create().backup["id"])
        self.done: set[str] = set()
        self.failed = False

    def once(self, where: object, name: str, other: Callable[[], object], before: bool) -> None:
        """Let the other process go on, once, before or after a step."""
        real = getattr(where, name)

        def step(*arguments, **more):
            first = name not in self.done
            self.done.add(name)
            if first and before:
                other()
            result = real(*arguments, **more)
            if first and not before:
                other()
            return result

        self.patch.setattr(where, name, step)

    def create(self) -> None:
        Manager(str(self.bench.store), str(self.bench.backups), 1).create(create.CreateRequest("work", str(self.bench.source)))

    def run(self, ended: threading.Event) -> None:
        try:
            self.create()
        except Damaged:
            self.failed = True  # it read what it relied on, and that was gone
        finally:
            ended.set()

    def begin(self) -> tuple[threading.Event, threading.Event]:
        """Let a run come when the collection has its plan, up to its commit. What lets it go on, and what tells that it has ended."""
        go, stop, ended = threading.Event(), threading.Event(), threading.Event()
        real = Transaction.commit

        def commit(run, *arguments, **more):
            if threading.current_thread() is runner:
                go.set()
                assert stop.wait(60)
            return real(run, *arguments, **more)

        runner = threading.Thread(target=self.run, args=(ended,))
        self.patch.setattr(Transaction, "commit", commit)
        self.once(collection, "_settle", lambda: (runner.start(), go.wait(60)), before=True)
        return stop, ended

    def collect(self) -> None:
        Manager(str(self.bench.store), str(self.bench.backups), 1).collect("0s")

    def check(self) -> bool:
        """Whether the backup is whole: as listed, and as restored."""
        self.patch.undo()
        if self.failed:
            return False
        (backup,) = self.bench.found()
        whole = not backup["damaged"] and not self.bench.manager.verify(verify.VerifyRequest(level="content")).damage
        if whole:
            self.bench.restore(backup["id"], str(self.bench.top / "again"))
        return whole


def _look_before_claim(patch: pytest.MonkeyPatch) -> None:
    real = claims.Claims.add

    def late(self, kind, names):  # the claim is written after the look: at the end of the run
        waiting = self.__dict__.setdefault("waiting", [])
        waiting.append((kind, list(names)))

    def commit(self, *arguments, **more):
        for item in self._space.claims.__dict__.get("waiting", ()):
            real(self._space.claims, *item)
        return real_commit(self, *arguments, **more)

    real_commit = Transaction.commit
    patch.setattr(claims.Claims, "add", late)
    patch.setattr(Transaction, "commit", commit)


def _claims_before_moves(patch: pytest.MonkeyPatch) -> None:
    """The claims are read once, with the plan, and not after the moves."""
    real = claims.Claimed.read

    def read(self):
        if "once" not in self.__dict__:
            self.once = real(self)
        return self.once

    patch.setattr(claims.Claimed, "read", read)


def _manifests_before_claims(patch: pytest.MonkeyPatch) -> None:
    def mark(self):
        self._mark(self.live)
        return self._claimed.read()

    patch.setattr(collection._Needed, "mark", mark)


def _nothing_put_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(collection.Collector, "_put_back", lambda self, needed, moved: set())


def _own_files_unclaimed(patch: pytest.MonkeyPatch) -> None:
    real = claims.Claims.add

    def add(self, kind, names):
        trees = Path(os.readlink(f"/proc/self/fd/{self._fd}")).parents[2] / ("objects" if kind == claims.OBJECT else "packs")
        real(self, kind, [name for name in names if list((trees / name.hex()[:2]).glob(f"{name.hex()}*"))])

    patch.setattr(claims.Claims, "add", add)


def relies_while_it_collects(race: Race) -> None:
    """The collection has its plan; a run comes to rely on what is dead in it, and stays; files are moved; the run ends."""
    stop, ended = race.begin()
    race.collect()
    stop.set()
    assert ended.wait(60)


def ends_while_it_marks(race: Race) -> None:
    """A run relies on what is about to be moved. The files are moved, and the run writes its manifest and ends just before or after the marking."""
    stop, ended = race.begin()
    turns: list[int] = []
    marked = garbage.Marker.__call__

    def mark(self, live):
        marked(self, live)
        turns.append(1)
        if len(turns) == 2:  # the one after the moves
            stop.set()
            assert ended.wait(60)

    race.patch.setattr(garbage.Marker, "__call__", mark)
    race.collect()
    stop.set()
    assert ended.wait(60)


def brings_while_it_plans(race: Race) -> None:
    """The collection has marked; a run moves new files into place; the collection lists them; the run writes its manifest after the last marking."""
    (race.bench.source / "new").write_bytes(b"new" * 100_000)
    go, stop, ended = threading.Event(), threading.Event(), threading.Event()
    real = create.publish

    def publish(*arguments):
        go.set()
        assert stop.wait(60)
        return real(*arguments)

    runner = threading.Thread(target=race.run, args=(ended,))
    race.patch.setattr(create, "publish", publish)
    race.once(collection, "_dead_objects", lambda: (runner.start(), go.wait(60)), before=True)
    race.collect()
    stop.set()
    assert ended.wait(60)


#: What happens, and the faults in the code under which it must lose data.
RACES = {
    "a run relies on what is dead": (relies_while_it_collects, [_look_before_claim, _claims_before_moves, _nothing_put_back]),
    "a run ends during the marking": (ends_while_it_marks, [_manifests_before_claims, _nothing_put_back]),
    "a run brings what is listed as dead": (brings_while_it_plans, [_own_files_unclaimed, _nothing_put_back]),
}


@pytest.mark.parametrize(
    ("race", "fault"), [(name, fault) for name, (_play, faults) in RACES.items() for fault in (None, *faults)], ids=lambda item: getattr(item, "__name__", item)
)
def test_nothing_is_lost_and_each_step_of_the_order_is_needed(bench, monkeypatch, race: str, fault: Optional[Callable[[pytest.MonkeyPatch], None]]) -> None:
    play = Race(bench, monkeypatch)
    if fault is not None:
        fault(monkeypatch)
    RACES[race][0](play)
    assert play.check() == (fault is None)


# ---- what a collection does in the moment of a look


def test_a_held_manifest_that_is_deleted_during_the_marking_counts(bench, monkeypatch) -> None:
    bench.source.mkdir()
    version(bench.source, 1)
    backup = bench.create().backup["id"]
    store = Store(str(bench.store))
    (reference,) = store.refs.names()
    real = catalog.Catalog.referenced

    def late(self, name: str):
        if name == reference and bench.backups.joinpath(f"{backup}.json").exists():
            assert Manager(str(bench.store), str(bench.backups), 5).delete(backup)
        return real(self, name)

    monkeypatch.setattr(catalog.Catalog, "referenced", late)
    with store.holding(reference):
        assert bench.manager.collect("0s")["freed_files"] == 0
    assert bench.manager.collect("0s")["freed_files"]


def test_packs_that_are_moved_while_they_are_listed(bench, monkeypatch) -> None:
    """The listing has a name whose file is in the trash when it is looked at."""
    bench.files(a=b"1")
    bench.create()
    real = layout.state
    moved: list[Path] = []

    def state(info: os.stat_result):
        if not moved:
            to_trash(bench)
            moved.append(bench.store)
        return real(info)

    monkeypatch.setattr(layout, "state", state)
    assert [item["damaged"] for item in bench.found()] == [False]
    assert moved and bench.manager.collect("0s")["freed_files"] == 0


def test_a_pack_that_is_away_for_a_moment_is_not_condemned(bench, monkeypatch) -> None:
    bench.source.mkdir()
    version(bench.source, 1)
    bench.create()
    shutil.rmtree(bench.store / "cache")
    real = index.Index.read_pack
    away: list[Path] = []

    def read_pack(self, name: bytes, suffix: str) -> bytes:
        path = bench.store / layout.pack_path(name, suffix)
        if away or not path.exists():
            return real(self, name, suffix)
        away.append(bench.store / "trash" / "00000000000000000001-1.open" / "packs" / path.name)
        away[0].parent.mkdir(parents=True)
        path.rename(away[0])
        try:
            return real(self, name, suffix)
        finally:
            away[0].rename(path)

    monkeypatch.setattr(index.Index, "read_pack", read_pack)
    assert [item["damaged"] for item in bench.found()] == [False] and away
    assert bench.manager.verify(verify.VerifyRequest(level="content")).damage == []


def test_a_verification_ends_where_a_time_in_the_trash_is_of_the_future(bench) -> None:
    bench.files(a=b"1", object=b"x" * 200_000)
    backup = bench.create().backup["id"]
    for path in list((bench.store / "objects").rglob("?" * 64 + "*")):
        path.unlink()
    trash = bench.store / "trash" / "00000000000000000001-1.open" / "packs"
    trash.mkdir(parents=True)
    os.utime(trash, (time.time() + 9e4,) * 2)
    assert bench.manager.verify(verify.VerifyRequest()).damaged == [backup]


@pytest.mark.parametrize("what", ["restore", "contents", "diff", "usage"])
def test_a_backup_that_is_deleted_and_collected_meanwhile_is_not_damaged(bench, monkeypatch, what: str) -> None:
    bench.source.mkdir()
    version(bench.source, 1)
    first = bench.create().backup["id"]
    shutil.rmtree(bench.source)
    bench.source.mkdir()
    version(bench.source, 2)
    second = bench.create().backup["id"]
    real, deleted = catalog.Catalog.manifest_here, []

    def read(self, sidecar):
        manifest = real(self, sidecar)
        if sidecar["id"] == first and not deleted:
            deleted.append(first)
            other = Manager(str(bench.store), str(bench.backups), 5)
            other.delete(first)
            other.collect("0s")
        return manifest

    monkeypatch.setattr(catalog.Catalog, "manifest_here", read)
    if what == "usage":
        assert not bench.manager.usage()["damaged"]
        return
    calls = {
        "restore": lambda: bench.restore(first, strategy="in_place", force=True),
        "contents": lambda: bench.manager.contents(first, None),
        "diff": lambda: bench.manager.diff(first, second),
    }
    bench.target.mkdir()
    with pytest.raises(NotFound, match="deleted a moment ago"):
        calls[what]()
    assert list(bench.target.iterdir()) == []


def test_a_sound_object_in_the_trash_stays_where_that_in_place_is_damaged(bench) -> None:
    bench.files(object=os.urandom(200_000))
    bench.create()
    (path,) = [path for path in (bench.store / "objects").rglob("?" * 64 + "*") if path.is_file()]
    copy = bench.store / "trash" / "00000000000000000001-1" / "objects" / path.name
    copy.parent.mkdir(parents=True)
    shutil.copy2(path, copy)
    path.write_bytes(b"")
    assert bench.manager.collect("0s")["freed_files"] == 0 and copy.exists()
    (bench.source / "object").unlink()
    assert bench.manager.verify(verify.VerifyRequest(level="content", repair=True)).damage == []


def test_a_trash_that_cannot_be_listed_is_not_emptied(bench, monkeypatch) -> None:
    """An error that passes: what a killed collection left there is needed, and was not seen."""
    bench.files(a=b"1", object=b"x" * 200_000)
    backup = bench.create().backup["id"]
    to_trash(bench)
    real = os.listdir

    def fails(path="."):
        if str(path).endswith((".open/objects", ".open/packs")):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="cannot be listed"):
        patch.setattr(os, "listdir", fails)
        bench.manager.collect("0s")
    assert bench.manager.collect("0s")["freed_files"] == 0
    bench.restore(backup)


# ---- directories that are removed


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


# ---- waiting


def timer(store: str, backups: str, source: str, number: int) -> float:
    """What a schedule does, and how long it took in seconds."""
    began = time.monotonic()
    Manager(store, backups, 5).create(create.CreateRequest(f"w{number % 20}", source))
    return time.monotonic() - began


@pytest.mark.costly
def test_no_command_waits_for_another(bench, frozen, record_property) -> None:
    """A run that is stopped for as long as the rest takes, a restore that is stopped as well, lists, restores, many timers, and one collection after
    another over many dead objects."""
    bench.source.mkdir()
    version(bench.source, 1)
    wanted = model.snapshot(bench.source)
    keep = bench.create().backup["id"]
    long_run = frozen("captured")
    bench.manager.delete(keep)
    keep = bench.manager.create(create.CreateRequest("kept", str(bench.source))).backup["id"]
    dead = 100_000 if LONG else 5_000
    for number in range(dead):
        name = random.Random(number).randbytes(32).hex()
        shard = bench.store / "objects" / name[:2]
        shard.mkdir(exist_ok=True)
        (shard / name).touch()
    waits: dict[str, list[float]] = {"list": [], "restore": [], "create": [], "gc": []}
    stop = threading.Event()
    failures: list[BaseException] = []

    def again(what: str, call: Callable[[int], object]) -> None:
        number = 0
        try:
            while not stop.is_set():
                began = time.monotonic()
                call(number)
                number += 1
                waits[what].append(time.monotonic() - began)
        except BaseException as error:
            failures.append(error)
            stop.set()

    def restored(number: int) -> None:
        target = bench.top / f"restored{number}"
        Manager(str(bench.store), str(bench.backups), 5).restore(keep, RestoreRequest(target=str(target), numeric_owner=True))
        assert not model.unlike(wanted, model.snapshot(target))
        shutil.rmtree(target)

    def listed(_number: int) -> None:
        assert not any(item["damaged"] for item in Manager(str(bench.store), str(bench.backups), 5).find(Query()))

    jobs = {
        "list": listed,
        "restore": restored,
        "create": lambda number: timer(str(bench.store), str(bench.backups), str(bench.source), number),
        "gc": lambda _number: Manager(str(bench.store), str(bench.backups), 5).collect("0s"),
    }
    threads = [threading.Thread(target=again, args=item) for item in jobs.items()]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    while not stop.is_set() and (len(waits["create"]) < (200 if LONG else 40) or len(waits["gc"]) < 3):
        time.sleep(0.1)
        assert time.monotonic() - began < 600
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures
    thaw(long_run)
    cost = time.monotonic() - began
    longest = {what: round(max(found), 3) for what, found in waits.items()}
    counts = {what: len(found) for what, found in waits.items()}
    print(f"{counts} in {cost:.1f} s beside a run that was stopped; longest waits {longest}")
    record_property("longest", str(longest))
    assert max(longest[what] for what in ("list", "restore", "create")) < 5
    assert not any(item["damaged"] for item in bench.found())
    assert bench.manager.verify(verify.VerifyRequest(level="content")).damage == []
    bench.restore(next(item["id"] for item in bench.found() if item["workload_name"] == "work"), numeric_owner=True)
    assert not model.unlike(wanted, model.snapshot(bench.target))
