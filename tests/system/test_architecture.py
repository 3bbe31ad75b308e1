# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups between this amd64 machine and one of another architecture, in both directions: other byte order, other size of numbers, other system calls.

The command archive runs by Debian's own Python of that architecture. rsync and its like on this machine are the judges.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._runner import archive
from ansible_collections.volt.backup.tests.rigs import foreign, mounts, oracle, sample, torture

#: The usual one is of 64 bits, the most significant byte first.
ARCHITECTURES = list(foreign.EMULATORS) if sample.LONG else ["s390x"]
#: The end of times in 32 bits, and a time after it.
LAST, LATE = ((1 << 31) - 1) * 10**9, 4_102_444_800_123_456_789


class Pair:
    """Two machines on one file system: this one, and a foreign one."""

    def __init__(self, top: Path, there: foreign.Machine) -> None:
        self.top, self._there = top, there
        self.archive = top / "volt-backup.pyz"
        self.archive.write_bytes(archive.build())
        self.source, self.target = top / "source", top / "target"
        clock = there.run("python3", "-c", f"import os, sys; os.utime(sys.argv[1], ns=({LATE}, {LATE}))", self.archive)
        self.ends_in_2038 = clock.returncode != 0
        assert not self.ends_in_2038 or "OverflowError" in clock.stderr

    def ours(self, *words: str | Path, store: str = "store", status: int = 0) -> Any:
        done = subprocess.run([sys.executable, *self._words(words, store)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        return self._result(done, status)

    def theirs(self, *words: str | Path, store: str = "store", status: int = 0) -> Any:
        return self._result(self._there.run("python3", *self._words(words, store)), status)

    def asks(self, program: str, *arguments: str | Path) -> list[str]:
        """What a program prints there that uses the engine."""
        done = self._there.run("python3", "-c", program, self.archive, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def _words(self, words: tuple[str | Path, ...], store: str) -> list[str | Path]:
        return [self.archive, *words, "--json", "--store", self.top / store, "--backup-dir", self.top / f"{store}.records"]

    def _result(self, done: subprocess.CompletedProcess[str], status: int) -> Any:
        assert done.returncode == status and "Traceback" not in done.stderr, done.stderr + done.stdout
        return json.loads(done.stdout)

    def build(self) -> None:
        torture.build(self.source, entries=30)
        for size in (8 * torture.MIB - 1, 8 * torture.MIB + 1, 8 * torture.MIB + 4097):
            (self.source / "sizes" / str(size)).unlink()  # a quarter of all bytes, and QEMU takes its time
        self.have_early_times(self.source)

    def mutate(self, tree: Path, seed: int) -> None:
        torture.mutate(tree, seed)
        self.have_early_times(tree)

    def have_early_times(self, tree: Path) -> None:
        """For a machine whose programs cannot even stat a file from after 2038."""
        if not self.ends_in_2038:
            return
        for _path, folders, names, here in os.fwalk(os.fsencode(tree), topdown=False):
            for name in [*folders, *names]:
                if os.lstat(name, dir_fd=here).st_mtime_ns > LAST:
                    os.utime(name, ns=(LAST, LAST), dir_fd=here, follow_symlinks=False)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    scratch = tmp_path_factory.mktemp("architecture")
    with mounts.mount("xfs", scratch, 2 * mounts.GIB) as top, foreign.machine(request.param, top) as there:
        yield Pair(top, there)


@pytest.fixture(autouse=True)
def empty(pair: Pair) -> None:
    """Each test begins with nothing but the command."""
    subprocess.run(["find", pair.top, "-mindepth", "1", "-maxdepth", "1", "-not", "-name", pair.archive.name, "-exec", "rm", "-rf", "{}", "+"], check=True)


@pytest.mark.costly
def test_a_lost_host_comes_back_from_its_remote(pair: Pair) -> None:
    """Sealed. What goes on there goes to the remote again, and comes back here."""
    pair.build()
    (pair.top / "remote").mkdir()
    url, recovery, keys = f"file://{pair.top}/remote", pair.top / "recovery.key", [pair.top / "web1.key", pair.top / "web2.key"]
    pair.ours("remote", "keys", "--new", recovery)
    pair.ours("remote", "keys", "--from", recovery, "--host", "web1", "--out", keys[0])
    pair.ours("create", "app", "--source", pair.source)
    pair.ours("remote", "init", url, "--keys", keys[0])
    pair.ours("push", "--all", "--remote", url, "--keys", keys[0])

    away = ("--remote", url, "--identity", recovery)
    assert [found["id"].partition("/")[0] for found in pair.theirs("list", *away, store="none")["backups"]] == ["web1"]
    pair.theirs("restore", "web1/app", *away, "--target", pair.target, store="none")
    assert oracle.differences(pair.source, pair.target) == []

    pair.mutate(pair.target, 1)
    pair.theirs("remote", "keys", "--from", recovery, "--host", "web2", "--out", keys[1])
    pair.theirs("create", "app", "--source", pair.target, store="new")
    pair.theirs("push", "--all", "--remote", url, "--keys", keys[1], store="new")
    pair.ours("restore", "web2/app", *away, "--target", pair.top / "back", store="none")
    assert oracle.differences(pair.target, pair.top / "back") == []
    pair.ours("verify", "--remote", url, "--host", "web2", "--identity", recovery)
    assert not pair.theirs("verify", "--remote", url, "--host", "web1", "--identity", recovery)["damaged"]


@pytest.mark.costly
def test_one_store_for_both(pair: Pair) -> None:
    """A disk with a store goes from one to the other. Neither believes the caches of the other, and both find everything."""
    pair.build()
    pair.ours("create", "app", "--source", pair.source)
    again = pair.theirs("create", "app", "--source", pair.source)
    assert again["diff"]["prepared"] == "" and again["backup"]["new_blobs"] == 0
    assert not pair.theirs("create", "app", "--source", pair.source, "--only-if-changed")["changed"]

    pair.theirs("restore", "app", "--target", pair.target)
    assert oracle.differences(pair.source, pair.target) == []
    for seed, strategy in enumerate((("in_place", "--delete"), ("replace",))):
        pair.mutate(pair.target, seed)
        pair.theirs("restore", "app", "--target", pair.target, "--force", "--strategy", *strategy)
        assert oracle.differences(pair.source, pair.target) == []
    assert not pair.ours("restore", "app", "--target", pair.target, "--force", "--dry-run")["changed"]

    pair.mutate(pair.source, 9)
    pair.theirs("create", "app", "--source", pair.source)
    assert not pair.ours("create", "app", "--source", pair.source, "--only-if-changed")["changed"]
    pair.theirs("prune", "app", "--keep", "1")
    pair.ours("gc", "--grace", "0s", "--no-repack")
    pair.theirs("gc", "--grace", "0s")
    assert pair.theirs("verify", "--content")["damaged"] == pair.ours("verify", "--content")["damaged"] == []
    (drill,) = pair.theirs("drill", "--scratch", pair.top / "scratch", "--command", "/bin/true")["drills"]
    assert (drill["reason"], drill["command"]) == (None, "passed")
    pair.ours("restore", "app", "--target", pair.target, "--force", "--strategy", "replace")
    assert oracle.differences(pair.source, pair.target) == []


@pytest.mark.costly
def test_large_numbers(pair: Pair) -> None:
    """A file of more than 4 GiB, and a time after 2038."""
    pair.source.mkdir()
    pieces = {0: b"begin", (2 << 30) - 1: b"over 2 GiB", (4 << 30) - 2: b"over 4 GiB", (5 << 30) - 3: b"end"}
    with open(pair.source / "large", "wb") as file:
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)
    pair.theirs("create", "app", "--source", pair.source)
    (pair.source / "late").write_bytes(b"1")
    os.utime(pair.source / "late", ns=(LATE, LATE))
    if pair.ends_in_2038:
        (skipped,) = pair.theirs("create", "app", "--source", pair.source, status=3)["backup"]["skipped"]
        assert (skipped["path"], skipped["detail"]) == ("late", "a time after 2038, or another number, is too large for programs of this 32-bit host")
    pair.ours("create", "app", "--source", pair.source)
    told = pair.theirs("restore", "app", "--target", pair.target)["restore"]
    assert told["attributes_skipped_names"] == ({"mtime": 1} if pair.ends_in_2038 else {})
    assert not pair.theirs("restore", "app", "--target", pair.target)["changed"]
    assert (pair.target / "late").stat().st_mtime_ns == (LAST if pair.ends_in_2038 else LATE)
    os.utime(pair.target / "late", ns=(LATE, LATE))
    assert oracle.compare(oracle.walk(os.fsencode(pair.source)), oracle.walk(os.fsencode(pair.target))) == []
    with open(pair.target / "large", "rb") as file:
        assert {offset: os.pread(file.fileno(), len(data), offset) for offset, data in pieces.items()} == pieces
    if pair.ends_in_2038:
        failed = pair.theirs("restore", "app", "--target", pair.target, "--force", status=1)
        assert failed["msg"].startswith("late in the target cannot be compared: a time after 2038")


#: Calls whose numbers, structures and sizes differ between machines. Each line names the call, and what it gave.
CALLS = r"""
import ctypes, os, sys
sys.path.insert(0, sys.argv[1])
from volt_backup._base import kernel
from volt_backup._fs import flags

top, here = sys.argv[2], os.open(sys.argv[2], os.O_RDONLY)

def told(name, call, *arguments):
    try:
        print(name, call(*arguments))
    except OSError as error:
        print(name, os.strerror(error.errno))

def made(name, content=b""):
    with open(f"{top}/{name}", "wb") as file:
        file.write(content)
    return os.open(f"{top}/{name}", os.O_RDWR)

class Old:
    syscall = kernel._libc.syscall

one, two, three = made("one", b"1" * 65536), made("two"), made("three")
told("exchange", kernel.exchange, "one", "two", here, here)
told("rename_new", kernel.rename_new, "one", "two", here, here)
libc, kernel._libc = kernel._libc, Old()
told("exchange by number", kernel.exchange, "one", "two", here, here)
told("rename_new by number", kernel.rename_new, "one", "two", here, here)
kernel._libc = libc
print([os.stat(f"{top}/{name}").st_size for name in ("one", "two")])
told("clone", kernel.clone, one, two)
told("clone_range", kernel.clone_range, one, 4096, 8192, three, 4096)
told("punch", kernel.punch, two, 4096, 4096)
print([os.fstat(two).st_size, os.lseek(two, 0, os.SEEK_HOLE), os.lseek(two, 4096, os.SEEK_DATA), os.fstat(three).st_size])
told("syncfs", kernel.syncfs, here)
told("write_back", kernel.write_back, two)
told("carry", flags.carry, flags.Flags(0x40), three)
told("read_flags", lambda: flags.read_flags(three).flags)
"""


def test_system_calls(pair: Pair) -> None:
    for name in ("here", "there"):
        (pair.top / name).mkdir()
    done = subprocess.run([sys.executable, "-c", CALLS, pair.archive, pair.top / "here"], stdout=subprocess.PIPE, text=True, check=True)
    assert pair.asks(CALLS, pair.top / "there") == done.stdout.splitlines()
    assert "exchange by number None" in done.stdout and "clone None" in done.stdout and "read_flags 64" in done.stdout
    birth = "import os, sys; sys.path.insert(0, sys.argv[1]); from volt_backup._base import kernel; info = os.stat(sys.argv[2]);" \
        "print(kernel.birth(kernel.AT_FDCWD, sys.argv[2], info.st_ino))"  # fmt: skip
    ours = subprocess.run([sys.executable, "-c", birth, pair.archive, pair.archive], stdout=subprocess.PIPE, text=True, check=True)
    assert pair.asks(birth, pair.archive) == ours.stdout.splitlines() != ["-1"]
