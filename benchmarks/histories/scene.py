# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory that a history happens to: what is in it, who wrote it, and what an attack has destroyed there."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Callable, Iterator, Optional

#: When histories begin: the past, so that no file is of the future; one run a day.
_START, _DAY = 1_740_000_000, 86_400


def step(life: Iterator[None]) -> None:
    """A life or an attack goes on; neither ends."""
    next(life)


class Tree:
    """A directory, and the dice of its history.

    Life goes on with what is whole: `files` names no file that an attack has destroyed or made.

    :ivar day: number of the run that comes next.
    """

    def __init__(self, root: Path, dice: random.Random) -> None:
        self.root, self.dice, self.day = str(root), dice, 0
        self._whole: set[str] = set()
        self._born: dict[str, int] = {}
        #: For each destroyed file, by the name that it had: the first run that saw it whole, and the first one that did not.
        self.victims: dict[str, tuple[int, int]] = {}
        #: The directory that an attack has chosen, for one that keeps to it.
        self.target = ""

    # ---- what is there

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def files(self, under: str = "", ends: tuple[str, ...] = ()) -> list[str]:
        """Regular files that are whole, sorted."""
        found = [name for name in self._whole if (not under or name.startswith(under)) and (not ends or name.endswith(ends))]
        return sorted(found)

    def some(self, share: float, under: str = "", ends: tuple[str, ...] = ()) -> list[str]:
        """A share of them by chance; of small lots also one now and then."""
        found = self.files(under, ends)
        count = int(len(found) * share + self.dice.random())
        return sorted(self.dice.sample(found, min(len(found), count)))

    def folders(self) -> list[str]:
        return sorted({os.path.dirname(name) for name in self._whole})

    def exists(self, name: str) -> bool:
        return os.path.lexists(self.path(name))

    def read(self, name: str) -> bytes:
        with open(self.path(name), "rb") as file:
            return file.read()

    def size(self, name: str) -> int:
        return os.lstat(self.path(name)).st_size

    # ---- what its owners do

    def write(self, name: str, data: bytes, age: int = 0) -> None:
        """A file of that many days ago."""
        path = self.path(name)
        try:
            file = open(path, "wb")
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path))
            file = open(path, "wb")
        with file:
            file.write(data)
        self._stamp(path, _START + (self.day - age) * _DAY + self.dice.randrange(40_000))
        if name not in self._whole:
            self._whole.add(name)
            self._born[name] = self.day

    def edit(self, name: str, change: Callable[[bytes], bytes]) -> None:
        self.write(name, change(self.read(name)))

    def remove(self, name: str) -> None:
        os.unlink(self.path(name))
        self._whole.discard(name)

    def rename(self, old: str, new: str) -> None:
        if old == new:
            return
        os.makedirs(os.path.dirname(self.path(new)), exist_ok=True)
        os.rename(self.path(old), self.path(new))
        self._whole.discard(old)
        self._whole.add(new)
        self._born[new] = self.day

    def move(self, old: str, new: str) -> None:
        """A directory. What an attack has left there goes along."""
        for name in self.files(old + "/"):
            self.rename(name, new + name[len(old) :])

    def drop(self, folder: str) -> None:
        """A directory with all that is in it."""
        for name in self.files(folder + "/"):
            self.remove(name)
        self.tidy()

    def tidy(self) -> None:
        """Without directories that are empty."""
        for path, folders, files in os.walk(self.root, topdown=False):
            if not files and not any(os.path.lexists(os.path.join(path, name)) for name in folders) and path != self.root:
                os.rmdir(path)

    def link(self, name: str, target: str) -> None:
        path = self.path(name)
        if os.path.lexists(path):
            os.unlink(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)

    @staticmethod
    def _stamp(path: str, moment: float) -> None:
        os.utime(path, (moment, moment))

    # ---- what attackers do

    def age(self, name: str) -> float:
        """The older, the more."""
        return -os.lstat(self.path(name)).st_mtime

    def spoil(self, name: str, data: Optional[bytes], new: Optional[str] = None, keep_time: bool = False) -> None:
        """Destroy a file: other content, perhaps under another name; None leaves nothing of it."""
        path, target = self.path(name), new or name
        moment = os.lstat(path).st_mtime
        if target != name and target in self._whole:  # two files that differ in their ending alone
            target += ".1"
        self._whole.discard(name)
        self.victims[name] = self._born[name], self.day
        if data is None or target != name:
            os.unlink(path)
        if data is not None:
            self.put(target, data)
            if keep_time:
                self._stamp(self.path(target), moment)

    def put(self, name: str, data: bytes) -> None:
        """A file of the attackers' own: no part of the workload."""
        if name in self._whole:
            raise ValueError(f"{name} is the workload's")
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb") as file:
            file.write(data)
        self._stamp(self.path(name), _START + self.day * _DAY + 43_000)

    def destroyed(self) -> float:
        """The share of files that the attack has destroyed, of all that would be there by now."""
        return len(self.victims) / max(1, len(self.victims) + len(self._whole))

    # ---- for tests

    def digest(self) -> str:
        """Of names, content and times."""
        found = hashlib.sha256()
        for path, folders, files in os.walk(self.root):
            folders.sort()
            for name in sorted([*files, *(folder for folder in folders if os.path.islink(os.path.join(path, folder)))]):
                whole = os.path.join(path, name)
                about = os.readlink(whole).encode() if os.path.islink(whole) else hashlib.sha256(Path(whole).read_bytes()).digest()
                found.update(f"{os.path.relpath(whole, self.root)} {os.lstat(whole).st_mtime if not os.path.islink(whole) else 0}\n".encode() + about)
        return found.hexdigest()
