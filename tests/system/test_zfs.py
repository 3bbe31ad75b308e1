# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of data sets, on zfs-fuse: rigs/zfs_fuse.py says how it differs from OpenZFS on Linux, and what of that is made up for.

Encryption is not tried, for zfs-fuse has none. A data set whose key is not loaded is not mounted, and one that is not mounted is tried.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.tests.rigs import sample, zfs_fuse
from ansible_collections.volt.backup.tests.system.test_snapshots import busy
from ansible_collections.volt.backup.tests.unit.kit import command

#: Writes files one after the other, again and again, each in another data set.
BUSY = """\
import os, sys
top, number = sys.argv[1], 0
while True:
    number += 1
    for name in ("a", "one/b", "one/two/c", "other/d"):
        with open(f"{top}/{name}.new", "w") as file:
            file.write(f"{number}\\n")
        os.rename(f"{top}/{name}.new", f"{top}/{name}")
"""
#: A program in front of `zfs`, for some of its commands.
INSTEAD = """\
#!/bin/sh
if [ "$1" = {word} ]; then
    {does}
fi
exec "{real}" "$@"
"""
#: zfs-fuse renames what is not mounted, a moment after it was unmounted everywhere.
RENAME = """\
nsenter --target="$ZFS_FUSE_DAEMON" --mount \
    sh -c 'zfs unmount tank/{old}; until zfs rename tank/{old} tank/{new} 2>/dev/null; do sleep 0.05; done; zfs mount tank/{new}'"""


class Pool:
    """A pool, a store beside it, and the command."""

    def __init__(self, zfs: zfs_fuse.Zfs, name: str, room: Path) -> None:
        self.zfs, self.name, self.room = zfs, name, room
        self.source = zfs.pool(name)
        self.archive = room / "volt-backup"
        self.archive.write_bytes(command())
        self.store, self.backups, self.target = room / "store", room / "backups", room / "target"
        self.environment = dict(zfs.environment)
        self.before: list[str] = []
        self.real = zfs.top.parent / "bin/zfs"

    def sets(self, *names: str) -> None:
        for name in names:
            self.zfs("create", f"{self.name}/{name}")

    def files(self, *names: str, content: bytes = b"x") -> None:
        for name in names:
            (self.source / name).parent.mkdir(parents=True, exist_ok=True)
            (self.source / name).write_bytes(content)

    def start(self, *words: str) -> subprocess.Popen[str]:
        places = ["--store", str(self.store), "--backup-dir", str(self.backups), "--json"]
        return subprocess.Popen(
            [*self.before, *self.zfs.words(self.archive), *places, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment
        )

    def create(self, snapshot: str, *words: str) -> subprocess.Popen[str]:
        return self.start("create", "work", "--source", str(self.source), "--snapshot", snapshot, "--compression", "zlib", *words)

    def run(self, snapshot: str, *words: str) -> dict[str, Any]:
        return result(self.create(snapshot, *words))

    def kinds(self, made: dict[str, Any]) -> dict[str, str]:
        return {part["path"].removeprefix(str(self.source)): part["kind"] for part in made["backup"]["snapshots"]}

    def restored(self, made: dict[str, Any]) -> set[str]:
        result(self.start("restore", made["backup"]["id"], "--target", str(self.target), "--force", "--delete"))
        return {str(path.relative_to(self.target)) for path in self.target.rglob("*") if path.is_file()}

    def left(self) -> list[str]:
        return self.zfs.snapshots()

    def refuses(self, why: str) -> None:
        """`require` fails, and `auto` reads what lies there, and both say why. Nothing is left."""
        message = self.run("require")["msg"]
        assert why in message and "no snapshot can be made" in message, message
        made = self.run("auto")
        assert set(self.kinds(made).values()) == {"none"} and why in made["warnings"][0], made
        assert self.left() == []

    def instead(self, word: str, does: str) -> Path:
        """Put a program in front of `zfs` that does something for one of its commands."""
        front = self.room / "front/zfs"
        front.parent.mkdir(exist_ok=True)
        front.write_text(INSTEAD.format(word=word, does=does, real=self.real), encoding="utf-8")
        front.chmod(0o755)
        self.environment["PATH"] = f"{front.parent}:{self.zfs.environment['PATH']}"
        return front

    def until_mounted(self, child: subprocess.Popen[str]) -> None:
        """Stop a run that has snapshots mounted, and none under way: the daemon mounts it where all see it at first, which the kernel does not need."""
        while True:
            assert child.poll() is None, child.communicate()
            if f"{self.room}/store/" in self._mounts(child):
                child.send_signal(signal.SIGSTOP)
                time.sleep(0.05)  # what it has asked for is done
                if f"{self.room}/zfs/shared/" not in self._mounts(child):
                    return
                child.send_signal(signal.SIGCONT)
            time.sleep(0.002)

    def _mounts(self, child: subprocess.Popen[str]) -> str:
        return Path(f"/proc/{child.pid}/mounts").read_text(encoding="utf-8")


def result(child: subprocess.Popen[str]) -> dict[str, Any]:
    output, said = child.communicate(timeout=120)
    assert output, said
    return dict(json.loads(output))


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with zfs_fuse.daemon(tmp_path) as running:
        yield Pool(running, "tank", tmp_path)
        assert "@volt-" not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def test_data_sets_of_a_pool_are_of_one_moment(pool: Pool) -> None:
    pool.sets("one", "one/two", "other")
    pool.files("a", "one/b", "one/two/c", "other/d", content=b"0\n")
    with busy(BUSY, pool.source):
        for _run in range(30 if sample.LONG else 4):
            made = pool.run("require")
            assert pool.kinds(made) == {"": "zfs", "/one": "zfs", "/one/two": "zfs", "/other": "zfs"}
            assert not made["warnings"] and not made["backup"]["unstable"]
            pool.restored(made)
            numbers = [int((pool.target / name).read_text()) for name in ("a", "one/b", "one/two/c", "other/d")]
            assert numbers == sorted(numbers, reverse=True) and numbers[0] - numbers[-1] <= 1
    assert numbers[0] > 0 and pool.left() == []


@pytest.mark.costly
def test_memory_maps_are_written_first(pool: Pool) -> None:
    """OpenZFS makes a snapshot without the pages that the kernel still has. zfs-fuse has none, so only the call can be seen."""
    pool.sets("one")
    trace = pool.room / "trace"
    pool.before = ["strace", "-f", "-e", "trace=execve,syncfs", "-o", str(trace)]
    assert pool.run("require")["backup"]["complete"]
    before, snapshot, _behind = trace.read_text(encoding="utf-8").partition('["zfs", "snapshot"')
    assert snapshot and before.count("syncfs(") == 2


@pytest.mark.costly
def test_what_is_mounted_below(pool: Pool) -> None:
    """Data sets that are not mounted are no part of the source; legacy mount points and parts of a data set are; a snapshot stands still already."""
    pool.sets("one", "away", "off", "off/below", "legacy", "one/excluded", "old")
    pool.zfs("unmount", f"{pool.name}/away")
    pool.zfs("set", "canmount=off", f"{pool.name}/off")
    pool.files("a", "one/b", "one/part/c", "off/below/d", "one/excluded/e", "old/f", "away/hidden")
    pool.zfs("set", "mountpoint=legacy", f"{pool.name}/legacy")
    pool.zfs("snapshot", f"{pool.name}/old@kept")
    points = {name: pool.source / name for name in ("by-hand", "part", "then", "memory")}
    for point in points.values():
        point.mkdir()
    try:
        zfs_fuse.ask(f"{pool.name}/legacy".encode(), os.fsencode(points["by-hand"]))
        zfs_fuse.ask(f"{pool.name}/old@kept".encode(), os.fsencode(points["then"]))
        subprocess.run(["mount", "--bind", str(pool.source / "one/part"), str(points["part"])], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(points["memory"])], check=True)
        pool.files("by-hand/g", "memory/m")
        assert "exclude it, move it to Btrfs, ZFS or LVM" in pool.run("require", "--exclude", "/one/excluded")["msg"]
        made = pool.run("auto", "--exclude", "/one/excluded")
        kept = dict.fromkeys(("", "/one", "/off/below", "/old", "/by-hand", "/part", "/then"), "zfs")
        assert pool.kinds(made) == {**kept, "/memory": "none"}
        assert [str(points["memory"]) in text for text in made["warnings"]] == [True]
        assert pool.restored(made) == {"a", "one/b", "one/part/c", "off/below/d", "old/f", "away/hidden", "by-hand/g", "part/c", "then/f", "memory/m"}
        alone = pool.run("require", "--one-file-system")
        plain = pool.run("none", "--one-file-system")  # the same is left out and noted
        assert pool.kinds(alone) == {"": "zfs"} and plain["diff"]["counts"] == {"added": 0, "changed": 0, "removed": 0}
        assert alone["backup"]["mounts"] == plain["backup"]["mounts"] and alone["backup"]["skipped"] == plain["backup"]["skipped"]
    finally:
        for point in points.values():
            subprocess.run(["umount", "--lazy", str(point)], check=False)
    assert pool.left() == [f"{pool.name}/old@kept"]


def test_the_stat_cache_holds(pool: Pool) -> None:
    """Inodes and times of a snapshot are those of the data set: what a plain run read is not read again, and the other way round."""
    pool.sets("one")
    pool.files("content", "one/more", content=b"x" * 200_000)
    time.sleep(2.1)
    pool.run("none")
    pool.run("require")
    for snapshot in ("require", "none"):
        trace = pool.room / "trace"
        pool.before = ["strace", "-f", "-e", "trace=openat,openat2", "-o", str(trace)]
        assert pool.run(snapshot)["diff"]["counts"] == {"added": 0, "changed": 0, "removed": 0}
        assert not {'"content"', '"more"'} & set(trace.read_text().replace(",", " ").split())


@pytest.mark.costly
def test_what_a_killed_run_leaves_the_next_one_removes(pool: Pool) -> None:
    """What other programs made stays."""
    pool.sets("one")
    pool.files("a", "one/b", content=os.urandom(1 << 20))
    names = ("autosnap_2026-01-01_00:00:00_daily", "zfs-auto-snap_daily-2026-01-01-0000", "zrepl_20260101", "pyznap_2026-01-01", "volt-by-hand", "volt-0")
    others = [f"{pool.name}/one@{name}" for name in names]
    for other in others:
        pool.zfs("snapshot", other)
    for _run in range(20 if sample.LONG else 2):
        child = pool.create("require")
        pool.until_mounted(child)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    left = [name for name in pool.left() if name not in others]
    assert len(left) == 2 and len({name.split("@")[1] for name in left}) == 1, left
    assert pool.run("require")["backup"]["complete"]
    assert sorted(pool.left()) == sorted(others)


@pytest.mark.costly
def test_runs_share_a_data_set(pool: Pool) -> None:
    """One must not take away the snapshot of the other."""
    pool.files(*(f"d/{number}" for number in range(30)), content=os.urandom(200_000))
    children = [pool.create("require") for _run in range(3)]
    assert all(result(child)["backup"]["complete"] for child in children)
    assert pool.left() == []


@pytest.mark.costly
def test_two_pools(pool: Pool) -> None:
    pool.zfs.pool("lake")
    pool.zfs("set", f"mountpoint={pool.source / 'other'}", "lake")
    pool.files("a", "other/b")
    made = pool.run("require")
    assert pool.kinds(made) == {"": "zfs", "/other": "zfs"} and pool.restored(made) == {"a", "other/b"}
    assert pool.zfs.snapshots() == []


@pytest.mark.costly
def test_a_snapshot_that_is_held_goes_when_it_is_released(pool: Pool) -> None:
    pool.files("a", content=os.urandom(1 << 20))
    child = pool.create("require")
    pool.until_mounted(child)
    held = pool.left()
    pool.zfs("hold", "someone", *held)
    child.send_signal(signal.SIGCONT)
    assert result(child)["backup"]["complete"] and pool.left() == held
    assert pool.run("require")["backup"]["complete"] and pool.left() == held
    pool.zfs("release", "someone", *held)
    assert pool.left() == []


@pytest.mark.costly
def test_a_data_set_that_is_renamed_meanwhile(pool: Pool) -> None:
    """Before the snapshot; after it; and while another one takes its name, whose content must not be stored as its own."""
    pool.sets("one", "two")
    pool.files("one/b", "two/c")
    front = pool.instead("snapshot", RENAME.format(old="two", new="three"))
    assert "zfs says: cannot open 'tank/two': dataset does not exist" in pool.run("require")["msg"] and pool.left() == []
    front.unlink()
    front = pool.instead("snapshot", f'"{pool.real}" "$@"; {RENAME.format(old="one", new="new")}; exit 0')
    assert "cannot be mounted: no such file or directory" in pool.run("require")["msg"]
    assert [name.split("@")[0] for name in pool.left()] == ["tank/new"]
    front.unlink()
    assert pool.run("require")["backup"]["complete"] and pool.left() == []  # it knows the new name
    front = pool.instead("snapshot", f"{RENAME.format(old='new', new='aside')}; {RENAME.format(old='three', new='new')}")
    assert "data set tank/new got another name or was unmounted meanwhile" in pool.run("require", "--exclude", "/three")["msg"]
    assert pool.left() == []


@pytest.mark.costly
def test_a_program_that_hangs(pool: Pool) -> None:
    """What it made all the same is removed."""
    pool.files("a")
    pool.environment[zfs_fuse.LIMIT] = "1"
    pool.instead("snapshot", f'"{pool.real}" "$@" && sleep 1000')
    pool.refuses("zfs did not end in 1 seconds; check `zpool status`")


@pytest.mark.costly
def test_without_the_program(pool: Pool) -> None:
    pool.files("a")
    front = pool.room / "front"
    front.mkdir()
    for program in ("sync", "nsenter", "umount"):
        (front / program).symlink_to(f"/usr/bin/{program}")
    pool.environment["PATH"] = str(front)
    pool.refuses("zpool is missing; install the programs of OpenZFS")


@pytest.mark.costly
def test_without_space(pool: Pool) -> None:
    pool.sets("one")
    pool.files("one/b", content=os.urandom(30 << 20))
    pool.zfs("set", "refreservation=80M", f"{pool.name}/one")
    pool.refuses("out of space")


@pytest.mark.costly
def test_a_pool_that_fails(pool: Pool) -> None:
    """Nothing waits for it."""
    pool.files("a")
    os.truncate(pool.zfs.disk(pool.name), 0)
    scrub = subprocess.Popen(["zpool", "scrub", pool.name], env=pool.environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while pool.zfs("list", "-H", "-o", "health", pool.name, program="zpool") == "ONLINE\n":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "pool tank is UNAVAIL; check `zpool status tank`" in pool.run("require")["msg"]
    finally:
        scrub.kill()
        scrub.wait()
