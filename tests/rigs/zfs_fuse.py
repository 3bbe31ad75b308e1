# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real ZFS without a kernel module: zfs-fuse, with pools on files. Data sets, snapshots, holds, clones and their programs are ZFS's own.

    with zfs_fuse.daemon(scratch) as zfs: zfs.pool("tank"); zfs("create", "tank/a"); ...; run([*zfs.words(archive), "list"], env=zfs.environment)

It differs from OpenZFS on Linux in four ways. They are made up for here, so that all of the product's own code runs:

- The kernel knows its mounts as type `fuse.zfs`. The command sees `zfs` in its list of mounts.
- mount(2) cannot mount a snapshot. The command's call for that asks the daemon, which mounts it, and then has it where it wanted it, in its own mounts.
- `zfs snapshot` takes one snapshot a command. A program of that name in front of it has several made with `-r`, which is of one moment too.
- The daemon learns of an unmount a little later than the kernel. The same program waits for that, when a snapshot is destroyed that nothing has mounted.

Nothing is known here of .zfs, encryption, the list of statistics in /proc/spl, and the numbers that statfs(2) gives to OpenZFS's file systems.
This file is also what runs in the processes of the command, and that program: no module of the tests is imported then.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Where the daemon has its socket, its lock and the list of its pools, and its settings. All of that is in memory, and of one daemon.
PLACES = ("/run/zfs", "/run/lock/zfs", "/var/lib/zfs", "/etc/zfs")
SOCKET = "/run/zfs/zfs_socket"
REAL = "/sbin/zfs"
#: In the environment of the command: the daemon, unless it has the mounts of the host; a directory whose mounts it shares with everybody;
#: and seconds that a program may take.
DAEMON, SHARED, LIMIT = "ZFS_FUSE_DAEMON", "ZFS_FUSE_SHARED", "ZFS_FUSE_LIMIT"
#: What asks the daemon for a mount: its number, and the lengths of three texts; the message is as long as its longest kind.
REQUEST = struct.Struct("=i4xIIii8x")
MOUNT = 6


class Zfs:
    """A running daemon."""

    def __init__(self, room: Path, daemon: int) -> None:
        self._room = room
        self.top = room / "pools"
        self.environment = {**os.environ, DAEMON: str(daemon), SHARED: str(room / "shared"), "PATH": f"{room / 'bin'}:/sbin:{os.environ['PATH']}"}

    def __call__(self, *words: str, program: str = "zfs") -> str:
        done = subprocess.run([program, *words], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def pool(self, name: str, size: int = 128 << 20) -> Path:
        """Where a new pool's own data set is mounted."""
        disk = self.disk(name)
        with open(disk, "wb") as file:
            file.truncate(size)
        self("create", "-m", str(self.top / name), name, str(disk), program="zpool")
        return self.top / name

    def disk(self, pool: str) -> Path:
        return self._room / f"{pool}.disk"

    def snapshots(self) -> list[str]:
        return self("list", "-H", "-o", "name", "-t", "snapshot").split()

    def words(self, archive: Path) -> list[str]:
        """What runs the command in front of its own words."""
        return [sys.executable, __file__, "command", str(archive)]


@contextlib.contextmanager
def daemon(scratch: Path) -> Iterator[Zfs]:
    """A daemon of its own, which ends with the context, and all of its pools."""
    from . import debian, mounts, need

    need("zfs-fuse", "nsenter")
    mounts.need_private()
    room = scratch / "zfs"
    for name in ("pools", "shared", "bin"):
        (room / name).mkdir(parents=True)
    wrapper = room / "bin/zfs"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" zfs "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    with contextlib.ExitStack() as stack:
        users = debian.cache().parent / "zfs-users"
        users.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(mounts.places(users, PLACES))
        for place in (*PLACES, str(room / "shared"), str(room / "pools")):
            subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", place], check=True)
        for place in ("shared", "pools"):  # a run sees what is mounted and unmounted there
            subprocess.run(["mount", "--make-shared", str(room / place)], check=True)
        process = subprocess.Popen(["zfs-fuse", "--no-daemon", "--no-kstat-mount"], stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        deadline = time.monotonic() + 30
        while not os.path.exists(SOCKET):
            assert process.poll() is None and time.monotonic() < deadline, "zfs-fuse does not start"
            time.sleep(0.01)
        zfs = Zfs(room, process.pid)
        stack.callback(_unmount, room)
        yield zfs


def _unmount(room: Path) -> None:
    points = re.findall(rf" ({re.escape(str(room))}/\S*) \S+ .*- fuse", Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    for point in reversed(points):
        subprocess.run(["umount", "--lazy", point], check=True)


def command(archive: str) -> int:
    """Run volt-backup as with OpenZFS in the kernel."""
    sys.path.insert(0, archive)
    from volt_backup._base import kernel, process  # type: ignore[import-not-found]
    from volt_backup._fs import mounts  # type: ignore[import-not-found]
    from volt_backup._runner.cli import main  # type: ignore[import-not-found]
    from volt_backup._sources import storage  # type: ignore[import-not-found]

    parsed, plain = mounts.parsed, kernel.mount_device
    # In a unit of systemd, the daemon has the mounts of the host.
    beside = ["nsenter", f"--target={os.environ[DAEMON]}", "--mount"] if DAEMON in os.environ else process.apart()

    def as_zfs(content: bytes) -> Any:
        return parsed(content.replace(b" - fuse.zfs ", b" - zfs "))

    def mount_device(device: bytes, target: bytes, kind: bytes, options: bytes) -> None:
        if kind != b"zfs":
            plain(device, target, kind, options)
            return
        there = os.fsencode(f"{os.environ[SHARED]}/{os.urandom(8).hex()}")
        os.mkdir(there)
        try:
            ask(device, there)
            kernel.bind(there, target)
            kernel.make_read_only(target)
            subprocess.run([*beside, "umount", "--lazy", there], check=True)
        finally:
            os.rmdir(there)

    mounts.parsed, kernel.mount_device = as_zfs, mount_device
    storage.LIMIT = float(os.environ.get(LIMIT, storage.LIMIT))
    return int(main())


def ask(what: bytes, where: bytes) -> None:
    """Let the daemon mount something. OSError if it cannot."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(SOCKET)
        connection.sendall(REQUEST.pack(MOUNT, len(what), len(where), 0, 0) + what + where)
        number = struct.unpack("=I", connection.recv(4))[0]
    if number:
        raise OSError(number, os.strerror(number))


def zfs(words: list[str]) -> int:
    """`zfs`, as OpenZFS has it."""
    if words[0] == "snapshot" and len(words) > 2:
        return snapshot(words[1:])
    if words[0] == "destroy" and "@" in words[-1]:
        deadline = time.monotonic() + 5
        while is_mounted(words[-1]) is False and time.monotonic() < deadline:
            done = subprocess.run([REAL, *words], stderr=subprocess.PIPE, text=True, check=False)
            if "busy" not in done.stderr:
                sys.stderr.write(done.stderr)
                return done.returncode
            time.sleep(0.02)
    return subprocess.run([REAL, *words], check=False).returncode


def snapshot(wanted: list[str]) -> int:
    """Several at one moment: those of all data sets below their common one, without those that are not wanted."""
    names, name = [one.split("@")[0] for one in wanted], wanted[0].split("@")[1]
    top = os.path.commonpath(names)
    code = subprocess.run([REAL, "snapshot", "-r", f"{top}@{name}"], check=False).returncode
    if code == 0:
        there = subprocess.run([REAL, "list", "-H", "-o", "name", "-r", top], capture_output=True, text=True, check=True).stdout.split()
        missing = [wish for wish in names if wish not in there]
        for found in there:
            if missing or found not in names:
                subprocess.run([REAL, "destroy", f"{found}@{name}"], check=True)
        if missing:
            sys.stderr.write(f"cannot open '{missing[0]}': dataset does not exist\n")
            return 1
    return code


def is_mounted(name: str) -> bool:
    """Whether any process has a snapshot mounted."""
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if f" {name} " in Path(f"/proc/{process}/mountinfo").read_text(encoding="utf-8"):
                return True
    return False


if __name__ == "__main__":
    if sys.argv[1] == "zfs":
        raise SystemExit(zfs(sys.argv[2:]))
    archive = sys.argv[2]
    sys.argv[:3] = [archive]
    raise SystemExit(command(archive))
