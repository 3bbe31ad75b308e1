# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is tried on logical volumes, inside of a machine that has nothing else to do: python volumes.py VOLT_BACKUP RESULTS KILLS.

RESULTS becomes a JSON object: what was tried, and the traceback of what failed, or nothing. Two disks are needed: one of 1500 MiB, and a small one.
"""

from __future__ import annotations

import contextlib
import datetime
import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any, Callable

#: Volumes by their names: how they are made, and which file system is put on them.
VOLUMES = {
    "e-classic": (["--size", "64M", "big"], "ext4"),
    "e-thin": (["--virtualsize", "64M", "--thinpool", "big/pool"], "ext4"),
    "x-classic": (["--size", "320M", "big"], "xfs"),
    "x-thin": (["--virtualsize", "320M", "--thinpool", "big/pool"], "xfs"),
}
TOP = "/run/volumes"
#: Writes files one after the other, again and again.
BUSY = """\
import os, sys
top, number = sys.argv[1], 0
while True:
    number += 1
    for name in "abcdefgh":
        with open(f"{top}/{name}.new", "w") as file:
            file.write(f"{number}\\n")
        os.rename(f"{top}/{name}.new", f"{top}/{name}")
"""
#: Runs volt-backup with another limit for the programs of LVM.
COMMAND = """\
import sys
sys.path.insert(0, sys.argv[1])
from volt_backup._runner.cli import main
from volt_backup._sources import storage
storage.LIMIT = float(sys.argv[2])
del sys.argv[1:3]
sys.exit(main())
"""
#: A program in the place of one of LVM's, which may be ended anywhere.
INSTEAD = """\
#!/bin/sh
{does}
"""


def do(*words: str) -> str:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


class Run:
    """One run of volt-backup, with a store of its own for each source."""

    def __init__(self, source: str, snapshot: str, *more: str, before: tuple[str, ...] = (), limit: str = "300", **environment: str) -> None:
        self.store = f"/run/stores/{os.path.relpath(source, TOP)}"
        places = ["--store", self.store, "--backup-dir", f"{self.store}-records"]
        words = [*before, sys.executable, "-c", COMMAND, sys.argv[1], limit, *places, "create", "work", "--source", source]
        self.words = [*words, "--snapshot", snapshot, "--compression", "zlib", "--json", *more]
        self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})

    def result(self) -> dict[str, Any]:
        output, said = self.process.communicate()
        assert output, said
        return dict(json.loads(output))

    def backup(self) -> dict[str, Any]:
        result = self.result()
        assert self.process.returncode == 0 and not result["warnings"], result
        return dict(result["backup"])

    def refused(self) -> str:
        result = self.result()
        assert self.process.returncode == 1 and "backup" not in result, result
        return str(result["msg"])

    def until_snapshot(self) -> None:
        """Wait for a snapshot that is mounted by the run."""
        while not self._has_snapshot():
            assert self.process.poll() is None, self.result()
            time.sleep(0.002)

    def _has_snapshot(self) -> bool:
        try:
            with open(f"/proc/{self.process.pid}/mounts", encoding="utf-8") as file:
                return "/view" in file.read()
        except OSError:  # it has ended
            return False


def left() -> list[str]:
    """Snapshots of ours that there are."""
    return [name for name in do("lvs", "--noheadings", "--options", "lv_name").split() if name.startswith("volt-")]


@contextlib.contextmanager
def busy(top: str) -> Iterator[None]:
    child = subprocess.Popen([sys.executable, "-c", BUSY, top])
    try:
        while os.path.getsize(f"{top}/h") < 3:  # until there are numbers of two digits
            time.sleep(0.01)
        yield
    finally:
        child.kill()
        child.wait()
        for path in glob.glob(f"{top}/*.new"):
            os.unlink(path)


def make() -> None:
    do("vgcreate", "big", "/dev/ubda")
    do("lvcreate", "--type", "thin-pool", "--size", "400M", "--name", "pool", "big")
    for name, (words, kind) in VOLUMES.items():
        do("lvcreate", "--yes", "--name", name, *words)
        mount("big", name, kind)
        for letter in "abcdefgh":
            with open(f"{TOP}/{name}/{letter}", "w", encoding="ascii") as file:
                file.write("0\n")


def mount(group: str, name: str, kind: str) -> None:
    whole = ["-E", "lazy_itable_init=0,lazy_journal_init=0"] if kind == "ext4" else []  # else it goes on in the background, and fills a pool unseen
    do(f"mkfs.{kind}", "-q", *whole, f"/dev/{group}/{name}")
    os.makedirs(f"{TOP}/{name}")
    do("mount", f"/dev/{group}/{name}", f"{TOP}/{name}")


def all_is_of_one_moment(name: str) -> Callable[[], None]:
    def check() -> None:
        source = f"{TOP}/{name}"
        with busy(source):
            run = Run(source, "require", *([] if "thin" in name else ["--snapshot-size", "50%"]))
            backup = run.backup()
        assert [(part["path"], part["kind"]) for part in backup["snapshots"]] == [(source, "lvm")] and not backup["unstable"], backup
        places = ["--store", run.store, "--backup-dir", f"{run.store}-records"]
        do(sys.executable, sys.argv[1], *places, "restore", backup["id"], "--target", "/run/restored")
        numbers = [int(open(f"/run/restored/{letter}", encoding="ascii").read()) for letter in "abcdefgh"]
        shutil.rmtree("/run/restored")
        assert numbers == sorted(numbers, reverse=True) and 0 <= numbers[0] - numbers[-1] <= 1 and numbers[0] > 0, numbers

    return check


def inodes_and_times_are_those_of_the_source() -> None:
    """What a run read is not read again, with a snapshot or without."""
    os.mkdir(f"{TOP}/x-thin/inner")
    source = f"{TOP}/x-thin/inner/most"
    os.mkdir(source)
    with open(f"{source}/content", "wb") as file:
        file.write(os.urandom(200_000))
    time.sleep(2.1)  # what is younger than that is read again in any case
    Run(source, "none").backup()
    for snapshot in ("require", "none", "require"):
        run = Run(source, snapshot, before=("strace", "-f", "-e", "trace=openat,openat2", "-o", "/run/trace"))
        assert run.result()["diff"]["counts"] == {"added": 0, "changed": 0, "removed": 0}
        with open("/run/trace", encoding="utf-8", errors="replace") as trace:
            assert '"content"' not in trace.read(), snapshot


def mounts_below() -> None:
    """Two volumes, one of them mounted twice: it has one snapshot. They are not of one moment; the record tells how far apart."""
    source = f"{TOP}/e-thin"
    for name, shown in (("below", f"{TOP}/x-classic"), ("again", f"{TOP}/e-thin")):
        os.mkdir(f"{source}/{name}")
        do("mount", "--bind", shown, f"{source}/{name}")
    backup = Run(source, "require").backup()
    kinds = {part["path"]: part["kind"] for part in backup["snapshots"]}
    assert kinds == {source: "lvm", f"{source}/below": "lvm", f"{source}/again": "lvm"} and backup["file_count"] == 24, backup
    taken = {part["path"]: datetime.datetime.fromisoformat(part["taken_at"].rstrip("Z")) for part in backup["snapshots"]}
    assert taken[source] == taken[f"{source}/again"]
    apart = (taken[f"{source}/below"] - taken[source]).total_seconds()
    print(f"snapshots of two volumes were {1000 * apart:.0f} ms apart", flush=True)
    assert 0 < apart < 5, apart
    for name in ("below", "again"):
        do("umount", f"{source}/{name}")


def classic_ones_share_the_free_space() -> None:
    """Each has its size or none. One that has none costs no other its own."""
    source = f"{TOP}/both"
    names = ("e-classic", "x-classic")
    for name in names:
        os.makedirs(f"{source}/{name}")
        do("mount", "--bind", f"{TOP}/{name}", f"{source}/{name}")
    free = int(float(do("vgs", "--noheadings", "--nosuffix", "--units", "m", "--options", "vg_free", "big")))
    half = free // 8 * 4  # extents have 4 MiB
    message = Run(source, "require", "--snapshot-size", f"{half + 4}M").refused()
    assert f"has {free - half - 4} MiB free, less than `snapshot_size`" in message.replace("--snapshot-size", "`snapshot_size`"), message
    for size, kinds in ((half + 4, ["none", "lvm", "none"]), (half - 4, ["none", "lvm", "lvm"])):
        made = Run(source, "auto", "--snapshot-size", f"{size}M").result()
        assert [part["kind"] for part in made["backup"]["snapshots"]] == kinds and not left(), made
        assert (f"{source}/{names[1]} (volume group big has" in made["warnings"][0]) == (kinds[2] == "none"), made["warnings"]
    do("umount", *(f"{source}/{name}" for name in names))


def much_to_read(source: str) -> None:
    """Content that keeps the next run busy for longer than it takes to stop it."""
    with open(f"{source}/content", "wb") as file:
        file.write(os.urandom(8 << 20))
    os.sync()


def a_full_snapshot_fails() -> None:
    source = f"{TOP}/e-classic"
    for snapshot in ("require", "auto"):
        much_to_read(source)
        run = Run(source, snapshot, "--snapshot-size", "4M")
        run.until_snapshot()
        run.process.send_signal(signal.SIGSTOP)
        with open(f"{source}/much", "wb") as file:
            file.write(os.urandom(16 << 20))
            os.fsync(file.fileno())
        run.process.send_signal(signal.SIGCONT)
        message = run.refused()
        assert "became full" in message and source in message, message
        os.unlink(f"{source}/much")
        os.sync()
        assert not left()


def what_a_killed_run_left_is_removed() -> None:
    for name in ("e-classic", "x-thin"):
        much_to_read(f"{TOP}/{name}")
        run = Run(f"{TOP}/{name}", "require")
        run.until_snapshot()
        run.process.kill()
        run.process.communicate()
        assert len(left()) == 1, left()
        Run(f"{TOP}/{name}", "require").backup()
        assert not left()


def nothing_is_left_behind_after_kills() -> None:
    """At any moment, also while a program of LVM works: that one goes on by itself. Every second run is killed while it reads its snapshot."""
    names, dice, seen = ("e-classic", "x-thin"), random.Random(sys.argv[3]), 0
    began = time.monotonic()
    Run(f"{TOP}/{names[0]}", "require").backup()
    whole = time.monotonic() - began
    for number in range(int(sys.argv[3])):
        name = names[number // 2 % 2]
        much_to_read(f"{TOP}/{name}")
        run = Run(f"{TOP}/{name}", "require")
        if number % 2:
            run.until_snapshot()
            time.sleep(dice.uniform(0, 0.2))
        else:
            time.sleep(dice.uniform(0, whole))
        run.process.kill()
        run.process.communicate()
        is_awake(name)
        seen += bool(left())
    assert seen
    for name in names:
        Run(f"{TOP}/{name}", "require").backup()
    assert not left()
    print(f"{sys.argv[3]} runs were killed, of which {seen} left a snapshot behind for the next one", flush=True)


@contextlib.contextmanager
def instead_of(program: str, does: str) -> Iterator[str]:
    """A PATH with another program of that name."""
    os.makedirs("/run/front")
    with open(f"/run/front/{program}", "w", encoding="ascii") as file:
        file.write(INSTEAD.format(does=does))
    os.chmod(f"/run/front/{program}", 0o755)
    try:
        yield f"/run/front:{os.environ['PATH']}"
    finally:
        shutil.rmtree("/run/front")


def what_hangs_is_ended() -> None:
    """Also where it made the snapshot, and left the volume suspended. Other volumes that are suspended stay so."""
    do("lvcreate", "--yes", "--size", "4M", "--name", "idle", "big")
    do("dmsetup", "suspend", "big-idle")
    for name in ("e-classic", "x-thin"):
        device = f"big-{name.replace('-', '--')}"
        with instead_of("lvcreate", f'/sbin/lvcreate "$@"; dmsetup suspend {device}; sleep 1000') as path:
            refuses(f"{TOP}/{name}", "lvcreate did not end in 2 seconds; check `dmsetup info`", limit="2", PATH=path)
        is_awake(name)
    assert "suspended" in do("lvs", "--noheadings", "--options", "lv_suspended", "big/idle")
    do("dmsetup", "resume", "big-idle")
    do("lvremove", "--yes", "big/idle")


def a_check_that_hangs_fails_the_run() -> None:
    """Then it cannot be found out whether the snapshot became full. On a busy machine, lvs ends within the limit unless it hangs."""
    much_to_read(f"{TOP}/e-classic")
    with instead_of("lvs", 'if [ -e /run/hang ]; then rm /run/hang; sleep 1000; fi; exec /sbin/lvs "$@"') as path:
        run = Run(f"{TOP}/e-classic", "auto", limit="20", PATH=path)
        run.until_snapshot()
        run.process.send_signal(signal.SIGSTOP)
        open("/run/hang", "w", encoding="ascii").close()
        run.process.send_signal(signal.SIGCONT)
        message = run.refused()
    assert message.startswith(f"The snapshot of {TOP}/e-classic may have become full while it was read, so nothing is stored: lvs did not end"), message
    assert not left() and not os.path.exists("/run/hang")


def a_program_that_is_killed_leaves_nothing() -> None:
    for name in ("e-classic", "e-thin"):
        for number in (120, 260):
            with instead_of("lvcreate", f'/sbin/lvcreate "$@" & sleep 0.{number}; kill -9 $! && exit 1; wait $!') as path:
                Run(f"{TOP}/{name}", "auto", PATH=path).result()
            is_awake(name)
            Run(f"{TOP}/{name}", "require").backup()
            assert not left()


def half_a_snapshot_is_removed() -> None:
    """lvcreate makes a plain volume at first. One without the tag is not ours."""
    for name, more in (("volt-0123456789abcdef", ["--addtag", "volt.backup"]), ("volt-fedcba9876543210", [])):
        do("lvcreate", "--yes", "--extents", "1", "--name", name, *more, "big")
    Run(f"{TOP}/e-thin", "require").backup()
    assert left() == ["volt-fedcba9876543210"]
    do("lvremove", "--yes", "big/volt-fedcba9876543210")


def is_awake(name: str) -> None:
    with open(f"{TOP}/{name}/awake", "w", encoding="ascii") as file:
        file.write("yes")
        os.fsync(file.fileno())
    os.unlink(file.name)


def two_runs_at_a_time() -> None:
    runs = [Run(f"{TOP}/{name}", "require") for name in ("e-classic", "e-thin")]
    for run in runs:
        assert run.backup()["complete"]
    assert not left()


def no_space_in_the_group() -> None:
    do("vgcreate", "tight", "/dev/ubdb")
    do("lvcreate", "--yes", "--extents", "100%FREE", "--name", "all", "tight")
    mount("tight", "all", "ext4")
    refuses(f"{TOP}/all", "volume group tight has no free space")
    do("umount", f"{TOP}/all")
    do("lvremove", "--yes", "tight/all")


def a_full_pool() -> None:
    do("lvcreate", "--type", "thin-pool", "--size", "32M", "--chunksize", "64k", "--name", "small", "tight")
    for name in ("some", "rest"):
        do("lvcreate", "--virtualsize", "32M", "--thinpool", "tight/small", "--name", name)
    mount("tight", "some", "ext4")
    do("sync")
    used = round(512 * float(do("lvs", "--noheadings", "--options", "data_percent", "tight/small")) / 100)
    do("dd", "if=/dev/urandom", "of=/dev/tight/rest", "bs=64k", f"count={512 - used}", "oflag=direct")
    refuses(f"{TOP}/some", "thin pool tight/small is full")


def without_lvm() -> None:
    refuses(f"{TOP}/e-classic", "lvs is missing; install lvm2", PATH="/usr/bin:/bin")


def refuses(source: str, why: str, **environment: str) -> None:
    """`require` fails, and `auto` reads what lies there, and both say why."""
    message = Run(source, "require", **environment).refused()
    assert why in message and source in message, message
    result = Run(source, "auto", **environment).result()
    assert result["backup"]["snapshots"] == [{"path": source, "kind": "none", "taken_at": None}] and why in result["warnings"][0], result
    assert not left()


def nothing_is_left() -> None:
    assert not left()
    assert not [name for name in glob.glob("/sys/block/*/dm/name") if "volt" in open(name, encoding="ascii").read()]
    assert "/view" not in open("/proc/self/mounts", encoding="ascii").read()
    assert re.findall("suspended.*", do("lvs", "--noheadings", "--options", "lv_suspended")) == []


def main() -> None:
    tried: list[tuple[str, Callable[[], None]]] = [("make", make)]
    tried += [(f"all is of one moment: {name}", all_is_of_one_moment(name)) for name in VOLUMES]
    several = (mounts_below, classic_ones_share_the_free_space)
    more = (inodes_and_times_are_those_of_the_source, *several, a_full_snapshot_fails, what_a_killed_run_left_is_removed, two_runs_at_a_time)
    ended = (what_hangs_is_ended, a_check_that_hangs_fails_the_run, a_program_that_is_killed_leaves_nothing)
    killed = (nothing_is_left_behind_after_kills, half_a_snapshot_is_removed)
    for check in (*more, *ended, *killed, no_space_in_the_group, a_full_pool, without_lvm, nothing_is_left):
        tried.append((check.__name__.replace("_", " "), check))
    results = {}
    for name, check in tried:
        try:
            check()
            results[name] = ""
        except Exception:
            results[name] = traceback.format_exc()
        print(f"{time.monotonic():.1f} s: {name}", flush=True)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main()
