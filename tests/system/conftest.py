# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store, its backups and a place to work in, for each test."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import create, restore
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._capture.databases import HEAD
from ansible_collections.volt.backup.plugins.module_utils._fs import mounts as file_systems
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.tests.rigs import mounts, need


class Bench:
    """A scratch directory with a store in it, and short words for what tests do all the time."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.store, self.backups, self.source, self.target = (top / name for name in ("store", "backups", "source", "target"))
        self.manager = Manager(str(self.store), str(self.backups), 5)

    def files(self, **contents: bytes) -> None:
        """Write files below the source; `__` in a name stands for a slash. All look old, so that the stat cache believes them."""
        for name, content in contents.items():
            path = self.source / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def create(self, dry: bool = False, **options: Any) -> create.Created:
        return self.manager.create(create.CreateRequest("work", str(options.pop("source", self.source)), **options), dry)

    def restore(self, backup: Any = None, dry: bool = False, **options: Any) -> restore.Restored:
        backup = backup or self.manager.find(Query())[0]["id"]
        options.setdefault("target", str(self.target))
        return self.manager.restore(backup, RestoreRequest(**options), dry=dry)[0]

    def manifest(self, backup: str) -> Path:
        """The manifest of a backup. Another one of the same second has an id that begins alike."""
        (path,) = (self.store / "refs").glob(f"{backup}-{'[0-9a-f]' * 12}.json")
        return path

    def found(self) -> list[dict[str, Any]]:
        return self.manager.find(Query())

    def snapshot(self) -> dict[str, tuple[int, int, int]]:
        """Every file below the top with inode, size and change time: to show that nothing was written."""
        found = {}
        for top, directories, names in os.walk(self.top):
            for name in directories + names:
                info = os.lstat(os.path.join(top, name))
                found[os.path.join(top, name)] = (info.st_ino, info.st_size, info.st_ctime_ns)
        return found

    def debris(self) -> list[str]:
        """What no finished run may leave: things under tmp/, and stages beside targets."""
        tmp = [f"tmp/{name}" for name in os.listdir(self.store / "tmp")] if self.store.exists() else []
        return tmp + [name for name in os.listdir(self.top) if ".volt-" in name]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def trusted_bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench on a file system whose stats the stat cache believes: not in memory, where temporary files may lie."""
    if not file_systems.untrusted(file_systems.Kinds()(tmp_path.stat().st_dev)):
        yield Bench(tmp_path)
        return
    with mounts.mount("ext4", tmp_path) as where:
        yield Bench(where)


@pytest.fixture
def bench_on(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """A bench on a file system of its own: `bench_on("xfs", size)`."""
    opened = []

    def make(kind: str, size: int = mounts.GIB) -> Bench:
        context = mounts.mount(kind, tmp_path, size)
        where = context.__enter__()
        opened.append(context)
        return Bench(where)

    yield make
    for context in opened:
        context.__exit__(None, None, None)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Any]:
    """`disk.mount(path)`: an ext4 at a directory, the same each time; `disk.umount(path)`. All are away in the end."""
    need("mount", "mkfs.ext4", root=True)

    class Disk:
        def __init__(self) -> None:
            self._open: dict[Path, ExitStack] = {}

        def mount(self, where: Path) -> None:
            where.mkdir(parents=True, exist_ok=True)
            image = tmp_path / f"{where.name}.image"
            if not image.exists():
                mounts.make("ext4", image, 16 << 20)
            stack = self._open[where] = ExitStack()
            stack.enter_context(mounts.image(image, where))

        def umount(self, where: Path) -> None:
            self._open.pop(where).close()

    disk = Disk()
    yield disk
    for where in list(disk._open):
        disk.umount(where)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """`meanwhile(path, act)`: call act(n) after the n-th reading of a file (from its start) has got bytes; how often it was read."""

    def plan(path: Path, act: Callable[[int], object]) -> list[int]:
        real, seen = os.pread, []
        inode = path.stat().st_ino

        def pread(fd: int, size: int, offset: int) -> bytes:
            data = real(fd, size, offset)
            if size not in (1, HEAD) and offset == 0 and os.fstat(fd).st_ino == inode:
                seen.append(1)
                act(len(seen))
            return data

        monkeypatch.setattr(os, "pread", pread)
        return seen

    return plan
