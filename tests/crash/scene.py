# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small store with promises to keep, on a file system of its own that is put back to this state before each fault.

Below the mount point: `source` and `other` (two workloads), `store`, `backups`, `target`. A promise is a backup that was reported as made, and
a copy of its source, kept elsewhere.
"""

from __future__ import annotations

import gc
import hashlib
import os
import random
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Optional

from ansible_collections.volt.backup.plugins.module_utils._backup import create
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction
from ansible_collections.volt.backup.tests.rigs import mounts, oracle

KIB = 1 << 10


def _has(method: str, word: str) -> bool:
    """Whether the engine can do this: tests of what it will learn switch themselves on."""
    return hasattr(Manager, method) and any(word in (action.choices or ()) for action in cli.parser()._actions)


PRUNES, COLLECTS, VERIFIES = _has("prune", "prune"), _has("collect", "gc"), _has("verify", "verify")

Snapshot = dict[str, tuple]


def snapshot(top: Path) -> Snapshot:
    """A tree as a value: types, modes, owners, times, attributes, content, hard links. Quick, and of our own making: the rsync oracle has the
    last word where a test ends."""
    found: Snapshot = {}
    groups: dict[int, list[str]] = {}

    def visit(path: str, relative: str) -> None:
        info = os.lstat(path)
        what: object = None
        if stat.S_ISREG(info.st_mode):
            with open(path, "rb") as stream:
                what = hashlib.file_digest(stream, "sha256").hexdigest()
            if info.st_nlink > 1:
                groups.setdefault(info.st_ino, []).append(relative)
        elif stat.S_ISLNK(info.st_mode):
            what = os.readlink(path)
        attributes = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(os.listxattr(path, follow_symlinks=False)))
        found[relative] = (stat.filemode(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns, what, attributes)
        if stat.S_ISDIR(info.st_mode):
            for name in sorted(os.listdir(path)):
                visit(os.path.join(path, name), f"{relative}/{name}")

    visit(str(top), ".")
    found["hard links"] = tuple(sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1))
    return found


def unlike(wanted: Snapshot, found: Snapshot) -> list[str]:
    """What differs, for a message."""
    return [f"{path}: {wanted.get(path)} / {found.get(path)}" for path in sorted({*wanted, *found}) if wanted.get(path) != found.get(path)][:5]


class Scene:
    """See above. A context; `room` is where copies and restored trees go."""

    def __init__(self, kind: str, room: Path, size: int = 160 * mounts.MIB, disk_room: Optional[Path] = None) -> None:
        self.kind, self.room = kind, room
        self.disk = mounts.Disk(kind, disk_room or room, max(size, 320 * mounts.MIB if kind == "xfs" else 0))
        self.promises: dict[str, Path] = {}
        self.wanted: dict[str, Snapshot] = {}
        self._chance = random.Random(7)

    def __enter__(self) -> Scene:
        self.disk.__enter__()
        self.at(self.disk.where)
        (self.room / "kept").mkdir(parents=True, exist_ok=True)
        return self

    def at(self, top: Path) -> None:
        self.top = top
        self.store, self.backups, self.source, self.other, self.target = (top / name for name in ("store", "backups", "source", "other", "target"))

    def __exit__(self, *exception: object) -> None:
        self.disk.__exit__(*exception)

    @property
    def manager(self) -> Manager:
        return Manager(str(self.store), str(self.backups), 30)

    def words(self, *words: str) -> list[str]:
        return [*words, "--store", str(self.store), "--backup-dir", str(self.backups), "--json", "--lock-timeout", "30"]

    # ---- making the corpus

    def data(self, size: int) -> bytes:
        return self._chance.randbytes(size)

    def put(self, path: Path, size: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.data(size))
        return path

    def build(self, settled: bool = True) -> None:
        """Every way in which content is stored; dead packs, dead objects, packs of which most is dead, small packs.

        :param settled: wait until the stat cache may believe in these files.
        """
        source, other = self.source, self.other
        for number in range(20):
            self.put(source / f"d{number % 4}" / f"f{number}", 100 * number)
        for number in range(60):
            self.put(source / "mostly" / f"m{number}", 5000)
        self.object = self.put(source / "object", 300_000)
        self.put(source / "going", 200_000)
        self.put(source / "chunked", (8 << 20) + 100_000)
        os.symlink("object", source / "link")
        os.link(source / "object", source / "d0" / "again")
        os.mkfifo(source / "d1" / "fifo", 0o640)
        (source / "empty").mkdir(mode=0o2750)
        os.setxattr(source / "d2" / "f2", "user.note", b"\0\1")
        os.chown(source / "d2" / "f6", 1234, 4321)
        os.chmod(source / "d2" / "f6", 0o4711)
        for number in range(12):
            self.put(other / f"o{number}", 3000)
        if settled:
            time.sleep(2.1)
        doomed = self.promise("work", source)
        for path in [*source.glob("mostly/m*")][5:]:
            path.unlink()
        (source / "going").unlink()
        self.edit()
        self.old = self.promise("work", source)
        self.smalls = []
        for turn in range(3):
            self.put(other / f"turn{turn}", 4000)
            self.smalls.append(self.promise("other", other))
        lost = self.promise("lost", self.put(self.top / "lost" / "x", 50_000).parent)
        self.put(source / "uploads" / "u", 2000)
        self.edit()
        self.new = self.promise("work", source, exclude=["/uploads"])
        for backup in (doomed, lost):
            self.manager.delete(backup)
            self.forget(backup)
        shutil.rmtree(self.top / "lost")
        shutil.rmtree(source / "uploads")
        self.edit()  # the next backup has something to do
        (source / "d3" / "f3").unlink()
        self.disk.keep()

    def edit(self) -> None:
        """Something new of each kind."""
        self.put(self.source / "d1" / f"new{len(self.promises)}", 2000)
        self.put(self.source / "d2" / "f2", 500)
        self.put(self.source / "changing", 150_000)
        with open(self.source / "chunked", "r+b") as file:
            file.seek(3 << 20)
            file.write(self.data(5000))

    def promise(self, workload: str, source: Path, **more: Any) -> str:
        """Make a backup, and a copy to compare with."""
        backup = str(self.manager.create(create.CreateRequest(workload, str(source), **more)).backup["id"])
        self.keep(backup, source, more.get("exclude", ()))
        return backup

    def keep(self, backup: str, source: Path, without: Iterable[str] = ()) -> None:
        kept = self.room / "kept" / backup
        subprocess.run(["cp", "-a", source, kept], check=True)
        for path in without:
            shutil.rmtree(kept / path.strip("/"))
            os.utime(kept, ns=(0, os.stat(source).st_mtime_ns))
        self.promises[backup] = kept
        self.wanted[backup] = snapshot(kept)

    def forget(self, backup: str) -> None:
        shutil.rmtree(self.promises.pop(backup))
        del self.wanted[backup]

    # ---- looking at it

    def found(self) -> dict[str, str]:
        """All backups that are listed, and what is wrong with each (nothing: empty)."""
        return {backup["id"]: backup["damage"] or "" for backup in self.manager.find(Query())}

    def restored(self, backup: str) -> AbstractContextManager[Path]:
        """A backup restored with every byte hashed."""
        scratch = self.room / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        self.manager.restore(backup, RestoreRequest(str(scratch), link="copy", verify=True))
        return nullcontext(scratch)

    def holds(self, but: Iterable[str] = (), newest: Optional[Snapshot] = None) -> set[str]:
        """Every promise is kept, and whatever else is listed is sound; the ids of what else there is.

        :param but: promises that may be gone, which are whole if they are not.
        :param newest: the tree that other backups are of.
        """
        found = self.found()
        assert not any(found.values()), found
        missing = set(self.promises) - set(found) - set(but)
        assert not missing, f"lost: {missing}"
        for backup in found:
            with self.restored(backup) as tree:
                wanted = self.wanted.get(backup, newest)
                assert wanted is None or snapshot(tree) == wanted, (backup, unlike(wanted, snapshot(tree)))
        self.clean()
        return set(found) - set(self.promises)

    def clean(self) -> None:
        """Verification of all content finds nothing."""
        if VERIFIES:
            from ansible_collections.volt.backup.plugins.module_utils._backup import verify

            damage = self.manager.verify(verify.VerifyRequest(level="content")).damage
            assert not damage, damage

    def collect(self) -> None:
        if COLLECTS:
            self.manager.collect(grace="0s")

    def judged_by_others(self) -> None:
        """The last word: the rsync oracle on every promise, and every file in the store by tools that are not ours."""
        for backup in sorted(set(self.promises) & set(self.found())):
            with self.restored(backup) as tree:
                assert oracle.differences(self.promises[backup], tree) == []
        self.whole()

    def whole(self) -> None:
        """Every file in the store has the bytes that its name says."""
        for kind in ("objects", "packs"):
            for path in (self.store / kind).rglob("*"):
                if path.is_file():
                    assert digest_by_others(path) == path.name.split(".")[0], path

    def debris(self, living: bool = False) -> list[str]:
        """What a run that was killed may leave, and the next one removes. What a killed restore leaves under tmp/, the next one that writes to the store
        removes, unless with `living`."""
        tmp = self.store / "tmp"
        if not living and tmp.exists() and not any((run / "objects").exists() for run in tmp.iterdir()):
            with Transaction(Store(str(self.store), 5)):
                pass
        return (os.listdir(tmp) if tmp.exists() else []) + [name for name in os.listdir(self.top) if ".volt-" in name]

    def leftovers(self) -> list[str]:
        """What only a run that was killed may leave, until a collection a day later."""
        places = (self.store, self.store / "refs", self.store / "index", self.store / "cache", self.backups)
        found = [(place.name, name) for place in places if place.exists() for name in os.listdir(place) if name.startswith(".")]
        return [f"{place}/{name}" for place, name in found if name != ".directory.json"]

    def reset(self, name: str = "kept") -> None:
        gc.collect()  # maps of files there
        self.disk.reset(name)

    # ---- damage

    def damage(self) -> None:
        """Flip bits: in the object that the source still has, in one chunk, and in a pack of small files."""
        digests = {hashlib.sha256(self.object.read_bytes()).hexdigest()}
        chunks = [path for path in sorted((self.store / "objects").rglob("*")) if path.is_file() and path.stat().st_size > 900 * KIB]
        packs = [path for path in sorted((self.store / "packs").rglob("*")) if path.is_file() and path.stat().st_size > 10_000]
        objects = [path for path in (self.store / "objects").rglob("*") if path.name.split(".")[0] in digests]
        for path in (*objects, chunks[0], packs[0]):
            flip(path)


def digest_by_others(path: Path) -> str:
    reader = ["zstd", "-dcq"] if path.suffix == ".zst" else ["cat"]
    data = subprocess.run([*reader, path], stdout=subprocess.PIPE, check=True).stdout
    return subprocess.run(["sha256sum"], input=data, stdout=subprocess.PIPE, check=True).stdout.split()[0].decode()


def flip(path: Path) -> None:
    """Change one byte in the middle, and nothing that lstat tells but the change time."""
    info = path.stat()
    with open(path, "r+b") as file:
        file.seek(info.st_size // 2)
        byte = file.read(1)
        file.seek(info.st_size // 2)
        file.write(bytes([byte[0] ^ 0xFF]))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
