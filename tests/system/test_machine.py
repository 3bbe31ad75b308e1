# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine beside a model that has only lists of trees: random edits, backups, deletions, collections, damage, repairs and restores.

The same steps each time; VOLT_TESTS=long takes new ones each time, and far more. A failure prints what reproduces it.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import create, verify
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, VoltError
from ansible_collections.volt.backup.plugins.module_utils._capture import stat_cache
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.tests.rigs import model
from ansible_collections.volt.backup.tests.rigs.sample import LONG
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

KIB, MIB = 1 << 10, 1 << 20
STEPS: Counter[str] = Counter()

NAMES = [b"a", b"b", b"a.b", b"a b", b"\xff", b"new\nline", b"back\\slash", "\u00e4".encode(), b"-rf", b"x" * 255]
#: Around the places where files are stored another way; the large ones are rare, for they cost time.
SIZES = [0, 1, 100, 5000, 70 * KIB, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, 200 * KIB]
LARGE = [8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 9 * MIB, 9 * MIB + 5]

names = st.sampled_from(NAMES)
sizes = st.one_of(*[st.sampled_from(SIZES)] * 12, st.sampled_from(LARGE))
seeds = st.integers(0, 5)  # few, so that content comes twice
times = st.sampled_from([1, 1_600_000_000_123_456_789, -5_000_000_000, 2_000_000_000_000_000_000])


class Kept:
    """What the model knows of a backup."""

    def __init__(self, workload: str, tree: model.Snapshot) -> None:
        self.workload, self.tree = workload, tree


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="machine-"))
        self.source, self.target = os.fsencode(self.top / "source"), self.top / "target"
        self.store, self.backups = self.top / "store", self.top / "backups"
        os.mkdir(self.source)
        self.manager = Manager(str(self.store), str(self.backups), 5)
        self.kept: dict[str, Kept] = {}
        self.order: list[str] = []
        self.step = 0
        self.harmed = False  # something was done to the store that no verification has looked at since
        self.racy = stat_cache.RACY

    def teardown(self) -> None:
        stat_cache.RACY = self.racy
        shutil.rmtree(self.top)

    # ---- the tree

    def all(self, *wanted: int) -> list[bytes]:
        """Paths below the source of some types, in a fixed order."""
        found = []
        for top, directories, files in os.walk(self.source):
            for name in directories + files:
                path = os.path.join(top, name)
                if stat.S_IFMT(os.lstat(path).st_mode) in wanted:
                    found.append(path)
        return sorted(found)

    def pick(self, data: st.DataObject, *wanted: int) -> Optional[bytes]:
        found = self.all(*wanted)
        return self.choose(data, found) if found else None

    @staticmethod
    def choose(data: st.DataObject, found: list) -> Any:
        """One of a list whose length may be another in a second run: names of packs and ids of backups come from the clock."""
        return found[data.draw(st.integers(0, 9999)) % len(found)]

    def place(self, data: st.DataObject) -> Optional[bytes]:
        """A name below a random directory that nothing has; None where the draw is taken."""
        directories = [self.source, *self.all(stat.S_IFDIR)]
        path = os.path.join(self.choose(data, directories), data.draw(names))
        return None if os.path.lexists(path) or len(path) - len(self.source) > 900 else path

    @staticmethod
    def content(seed: int, size: int) -> bytes:
        return random.Random(seed).randbytes(min(size, 4096)) * (size // 4096 + 1)

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for _turn in range(5):
            self.new_file(data, data.draw(sizes), data.draw(seeds))
        self.backup("auto", False, "one", False)

    @rule(data=st.data(), size=sizes, seed=seeds)
    def new_file(self, data: st.DataObject, size: int, seed: int) -> None:
        path = self.place(data)
        if path:
            Path(os.fsdecode(path)).write_bytes(self.content(seed, size)[:size])

    @rule(data=st.data(), kind=st.sampled_from(["directory", "symlink", "fifo", "sparse", "device"]))
    def new_thing(self, data: st.DataObject, kind: str) -> None:
        path = self.place(data)
        if not path:
            return
        if kind == "directory":
            os.mkdir(path)
        elif kind == "symlink":
            os.symlink(data.draw(st.sampled_from([b"a", b"../..", b"/etc", b"\xff", b"t" * 300])), path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        else:
            with open(path, "wb") as file:
                file.truncate(data.draw(st.sampled_from([10 * KIB, 300 * KIB, 8 * MIB + 1])))
                file.seek(4096)
                file.write(b"data")

    @rule(data=st.data(), seed=seeds)
    def same_size_same_mtime(self, data: st.DataObject, seed: int) -> None:
        path = self.pick(data, stat.S_IFREG)
        if path:
            before = os.stat(path)
            with open(path, "r+b") as file:
                file.write(self.content(seed + 10, min(before.st_size, 5000))[: before.st_size])
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    @rule(data=st.data(), how=st.sampled_from(["append", "truncate", "touch", "replace", "mode", "owner", "attribute", "remove"]), moment=times)
    def edit(self, data: st.DataObject, how: str, moment: int) -> None:
        path = self.pick(data, stat.S_IFREG)
        if not path:
            return
        if how == "append":
            with open(path, "ab") as file:
                file.write(b"more")
        elif how == "truncate":
            os.truncate(path, os.stat(path).st_size // 2)
        elif how == "touch":
            os.utime(path, ns=(moment, moment))
        elif how == "replace":  # another inode under the name, all else alike
            before, content = os.stat(path), Path(os.fsdecode(path)).read_bytes()
            Path(os.fsdecode(path + b"~" if len(os.path.basename(path)) < 255 else path[:-1])).write_bytes(content[::-1])
            os.rename(path + b"~" if len(os.path.basename(path)) < 255 else path[:-1], path)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif how == "mode":
            os.chmod(path, data.draw(st.sampled_from([0o600, 0o4755, 0o000])))
        elif how == "owner":
            os.chown(path, data.draw(st.sampled_from([0, 1000])), data.draw(st.sampled_from([0, 1234])))
        elif how == "attribute":
            os.setxattr(path, b"user.x", data.draw(st.sampled_from([b"", b"one", b"\xff" * 500])))
        else:
            os.unlink(path)

    @rule(data=st.data(), how=st.sampled_from(["link", "break", "rename", "directory", "symlink", "remove tree", "mode"]))
    def rearrange(self, data: st.DataObject, how: str) -> None:
        path = self.pick(data, stat.S_IFDIR if how in ("remove tree", "mode") else stat.S_IFREG)
        if not path:
            return
        if how in ("link", "rename"):
            other = self.place(data)
            if other:
                (os.link if how == "link" else os.rename)(path, other)
        elif how == "break":
            content, before = Path(os.fsdecode(path)).read_bytes(), os.stat(path)
            os.unlink(path)
            Path(os.fsdecode(path)).write_bytes(content)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif how == "remove tree":
            shutil.rmtree(path)
        elif how == "mode":
            os.chmod(path, data.draw(st.sampled_from([0o755, 0o700, 0o1777])))
        else:
            os.unlink(path)
            os.mkdir(path) if how == "directory" else os.symlink(b"b", path)

    # ---- backups

    @rule(how=st.sampled_from(["auto", "auto", "none", "zlib"]), changed=st.booleans(), workload=st.sampled_from(["one", "two"]), exclude=st.booleans())
    def backup(self, how: str, changed: bool, workload: str, exclude: bool) -> None:
        STEPS["backups"] += 1
        rules = ["a.b"] if exclude else []
        tree = model.snapshot(self.source, lambda name: exclude and name == b"a.b")
        made = self.manager.create(create.CreateRequest(workload, os.fsdecode(self.source), compression=how, only_if_changed=changed, exclude=rules))
        assert made.backup["complete"] and not made.skipped or self.harmed, made
        backup = made.backup["id"]
        if made.changed:
            assert backup not in self.kept
            self.kept[backup] = Kept(workload, tree)
            self.order.append(backup)
        else:
            assert changed and not model.unlike(self.kept[backup].tree, tree), "called unchanged what was changed"

    @rule()
    def grow_old(self) -> None:
        """From now on the stat cache believes what is older than the scan, as it does after two seconds; the kernel's tick is let pass."""
        stat_cache.RACY = 0
        model.tick(self.top)

    @rule()
    def be_young(self) -> None:
        stat_cache.RACY = self.racy

    # with RACY at 0, what is edited in the tick of a scan is rightly not seen; so each edit begins in a tick of its own
    @invariant()
    def pass_time(self) -> None:
        """What has the time of today gets one that it also has when these steps are taken again: a tree is stored with its times."""
        STEPS["steps"] += 1
        self.step += 1
        now = time.time_ns()
        for path in [*self.all(stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR), self.source]:
            if abs(os.lstat(path).st_mtime_ns - now) < 86400_000_000_000:
                os.utime(path, ns=(self.step, 1_700_000_000_000_000_000 + self.step), follow_symlinks=False)
        if stat_cache.RACY == 0:
            model.tick(self.top)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if len(self.order) < 2:
            return
        backup = self.choose(data, self.order)
        assert self.manager.delete(backup) is not None
        self.forget(backup)

    @rule(workload=st.sampled_from(["one", "two"]), count=st.integers(1, 3))
    def prune(self, workload: str, count: int) -> None:
        done = self.manager.prune(workload, {"last": count})
        mine = [backup for backup in self.order if self.kept[backup].workload == workload]
        assert {row["id"] for row in done.kept} | {row["id"] for row in done.removed} == set(mine)
        if not self.harmed:
            assert sorted(row["id"] for row in done.kept) == sorted(mine[-count:])
        for row in done.removed:
            self.forget(row["id"])

    def forget(self, backup: str) -> None:
        del self.kept[backup]
        self.order.remove(backup)

    @rule(grace=st.sampled_from(["0s", "0s", "1h"]), repack=st.booleans())
    def collect(self, grace: str, repack: bool) -> None:
        STEPS["collections"] += 1
        try:
            dry = self.manager.collect(grace, repack, dry=True)
            done = self.manager.collect(grace, repack)
        except Damaged:
            assert self.harmed, "refused over a sound store"
            return
        assert {**dry, "warnings": 0} == {**done, "warnings": 0}, (dry, done)

    # ---- damage

    def files(self) -> list[Path]:
        return sorted(path for part in ("objects", "packs") for path in (self.store / part).rglob("*") if path.is_file())

    @rule(data=st.data(), how=st.sampled_from(["flip", "lose", "cut", "lose index", "lose cache"]))
    def harm(self, data: st.DataObject, how: str) -> None:
        STEPS["damages"] += 1
        if how in ("lose index", "lose cache"):
            for path in (self.store / how.split()[1]).iterdir():
                path.unlink()
            return
        found = self.files()
        if not found:
            return
        path = self.choose(data, found)
        self.harmed = True
        content = path.read_bytes()
        if how == "lose":
            path.unlink()
        elif how == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            at = data.draw(st.integers(0, 1 << 20)) % len(content)
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])

    @rule()
    def verify_structure(self) -> None:
        found = self.manager.verify(verify.VerifyRequest())
        assert self.harmed or not found.damage_count, found

    @rule()
    def mend(self) -> None:
        """Repair never loses a backup; what it calls sound is sound. Damaged ones for good are deleted, as a user would."""
        STEPS["repairs"] += 1
        done = self.manager.verify(verify.VerifyRequest(level="content", repair=True))
        assert self.harmed or not done.damage_count and not done.repaired["quarantined"], done
        assert set(done.damaged) <= set(self.kept)
        now = model.snapshot(self.source)
        for backup in done.damaged:
            assert model.unlike(self.kept[backup].tree, now), "the source holds all of it still"
        again = self.manager.verify(verify.VerifyRequest(level="content"))
        assert again.damaged == done.damaged, again
        for backup in done.damaged:
            self.manager.delete(backup)
            self.forget(backup)
        self.harmed = False
        assert not self.manager.verify(verify.VerifyRequest(level="content")).damage_count

    # ---- what must hold

    @rule(data=st.data(), strategy=st.sampled_from(["replace", "in_place"]), link=st.sampled_from(["auto", "copy", "hardlink"]), whole=st.booleans())
    def restored(self, data: st.DataObject, strategy: str, link: str, whole: bool) -> None:
        if not self.order:
            return
        STEPS["restores"] += 1
        backup = self.choose(data, self.order)
        if whole and self.target.exists():
            shutil.rmtree(self.target)
        options = RestoreRequest(
            str(self.target), force=True, strategy=strategy, delete=strategy == "in_place", link=link, verify=True, numeric_owner=True
        )
        try:
            self.manager.restore(backup, options)
        except VoltError as error:
            # excluded names in the way are nobody's to remove
            assert self.harmed or "left alone" in error.message, error.message
            return
        found, wanted = model.snapshot(self.target), self.kept[backup].tree
        left_alone = {path for path in found if b"a.b" in path.split(b"/") and path not in wanted}
        found = {path: value for path, value in found.items() if path not in left_alone}
        assert left_alone or not model.unlike(wanted, found), model.unlike(wanted, found)
        if link == "hardlink":
            shutil.rmtree(self.target)  # its files are the store's own

    @invariant()
    def listed(self) -> None:
        found = {item["id"]: item["damaged"] for item in self.manager.find(Query())} if self.store.exists() else {}
        assert set(found) == set(self.kept)
        assert self.harmed or not any(found.values()), found

    @precondition(lambda self: self.kept)
    @invariant()
    def newest_comes_back(self) -> None:
        """Every undamaged backup is the model's: one a step, in turn."""
        backup = self.order[self.step % len(self.order)]
        scratch = self.top / "scratch"
        try:
            self.manager.restore(backup, RestoreRequest(str(scratch), numeric_owner=True))
        except Damaged:
            assert self.harmed
            return
        found = model.snapshot(scratch)
        shutil.rmtree(scratch)
        assert not model.unlike(self.kept[backup].tree, found)
        STEPS["restores"] += 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_engine_is_the_model(record_property) -> None:
    STEPS.clear()
    if LONG:
        profile = settings(max_examples=250, stateful_step_count=50, print_blob=True)
    else:
        profile = settings(max_examples=8, stateful_step_count=20, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
    every = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]
    try:
        run_state_machine_as_test(Machine, settings=settings(profile, deadline=None, suppress_health_check=every))
    finally:
        print("model:", dict(STEPS))
        for what, number in STEPS.items():
            record_property(what, number)
