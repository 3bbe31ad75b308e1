# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sets to measure on: R, S, V and M. Each is made afresh, with content that is the same every time.

A set's `source` stays at one path while its content changes: that is what the peers' own caches go by. Bytes are made
incompressible or, by mapping them to few symbols, compressible to about half; neither way do two files share content.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

from rigs import debian, mounts

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PACKAGES = (*debian.HOST_PACKAGES, "gcc", "git")
_HALF = bytes(b"etaoin shrdlu\n.,"[code % 16] for code in range(256))


class Set:
    """A source directory, how it changes, and how a restored copy is made to differ in 1%."""

    name = title = ""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.source = room / "source"

    def build(self) -> None:
        raise NotImplementedError

    def renew(self) -> None:
        """Before each round: by default a set goes on from where the last round left it."""

    def change(self, number: int) -> None:
        """What happens between two backups: here, 1% of the files get new content."""
        rewrite(self.source, 100, random.Random(f"change {number}"))

    def spoil(self, target: Path, number: int) -> None:
        """Make a restored tree differ in 1%."""
        rewrite(target, 100, random.Random(f"spoil {number}"))


class RootFs(Set):
    name, title = "R", "Debian root file system"

    def build(self) -> None:
        debian.copy(None, self.source, PACKAGES)


class LargeRootFs(Set):
    name, title = "S", "root file system of 2 GiB, 50 MiB in changed files"

    def build(self) -> None:
        debian.copy(None, self.source, PACKAGES)
        dice = random.Random("S")
        folder = self.source / "srv"
        left = 2 * GIB - int(subprocess.check_output(["du", "-s", "-B1", "--apparent-size", str(self.source)]).split()[0])
        number = 0
        while left > 0:
            # From 4 KiB to 32 MiB, each doubling as likely as the next: as files on servers are.
            size = min(left, int(4 * KIB * 2 ** dice.uniform(0, 13)))
            path = folder / f"{number // 50:02d}" / f"{number:04d}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content(dice, size, number % 2 == 0))
            left -= size
            number += 1

    def change(self, number: int) -> None:
        """Files of 50 MiB in all, each wholly rewritten with incompressible bytes."""
        dice = random.Random(f"change S {number}")
        files = sorted((self.source / "srv").glob("*/*"))
        dice.shuffle(files)
        left = 50 * MIB
        for path in files:
            size = path.stat().st_size
            if size <= left:
                path.write_bytes(dice.randbytes(size))
                left -= size
        (self.source / f"srv/rest-{number}").write_bytes(dice.randbytes(left))


class DiskImage(Set):
    """A virtual machine's disk, changed by dpkg from within, as an upgrade does."""

    name, title = "V", "ext4 image of 4 GiB, changed by a package upgrade"
    upgraded, installed = ("libc6", "coreutils", "bash", "perl-base", "tar", "dpkg"), ("git", "perl")

    def build(self) -> None:
        self.source.mkdir()
        base = self.room / "base.img"
        mounts.make("ext4", base, 4 * GIB)
        with self._mounted(base) as root:
            subprocess.run(["cp", "-a", f"{debian.tree(None, debian.HOST_PACKAGES)}/.", str(root)], check=True)
            # Nothing may start a service in there.
            (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
            (root / "usr/sbin/policy-rc.d").chmod(0o755)
            self.packages = debian.download(root, [*self.upgraded, *self.installed], self.room / "packages")

    def renew(self) -> None:
        subprocess.run(["cp", "--sparse=always", str(self.room / "base.img"), str(self.source / "disk.img")], check=True)
        self._note(0)

    def change(self, number: int) -> None:
        with self._mounted(self.source / "disk.img") as root:
            subprocess.run(["dpkg", f"--root={root}", "--install", *map(str, self.packages)], env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
        self._note(number + 1)

    def spoil(self, target: Path, number: int) -> None:
        dice = random.Random(f"spoil V {number}")
        image = target / "disk.img"
        with open(image, "r+b") as stream:
            for _block in range(max(1, image.stat().st_blocks * 512 // 100 // (64 * KIB))):
                stream.seek(os.lseek(stream.fileno(), dice.randrange(3 * GIB), os.SEEK_DATA) // 4096 * 4096)
                stream.write(dice.randbytes(64 * KIB))

    def _note(self, state: int) -> None:
        """A small file younger than the image, as such a directory has: borg reads the youngest file again every time."""
        time.sleep(0.1)
        (self.source / "state.json").write_text(f'{{"state": {state}}}\n', encoding="ascii")

    def _mounted(self, image: Path):
        where = self.room / "mnt"
        where.mkdir(exist_ok=True)
        return mounts.image(image, where, "noinit_itable")


class ManyFiles(Set):
    name = "M"

    def __init__(self, room: Path, files: int) -> None:
        super().__init__(room)
        self.files = files
        self.title = f"{files:,} small files"

    def build(self) -> None:
        dice = random.Random("M")
        for number in range(self.files):
            path = f"{self.source}/{number // 10000:02d}/{number // 100 % 100:02d}"
            if number % 100 == 0:
                os.makedirs(path)
            handle = os.open(f"{path}/{number:07d}", os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(handle, content(dice, 1 + min(16 * KIB, int(dice.expovariate(1 / 1500))), True))
            os.close(handle)


def content(dice: random.Random, size: int, compressible: bool) -> bytes:
    made = dice.randbytes(size)
    return made.translate(_HALF) if compressible else made


def rewrite(root: Path, part: int, dice: random.Random) -> None:
    """Give one in `part` of the regular files (those with one name) new content of the same size, up to 1 MiB of it."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            if dice.randrange(part) == 0 and os.path.isfile(path) and not os.path.islink(path) and os.lstat(path).st_nlink == 1:
                with open(path, "r+b") as stream:
                    stream.write(content(dice, min(MIB, os.path.getsize(path)), True))


def make(names: list[str], room: Path, files: int) -> list[Set]:
    """The sets of these names, each with a room of its own; not yet built."""
    known = {"R": RootFs, "S": LargeRootFs, "V": DiskImage, "M": lambda where: ManyFiles(where, files)}
    chosen = []
    for name in names:
        where = room / name
        where.mkdir()
        chosen.append(known[name](where))
    return chosen
