# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real file systems on loop devices, each in a scratch directory of its own, taken down again whatever happens.

    with mounts.mount("xfs", scratch, mounts.GIB) as where: ...

    with mounts.Disk("ext4", scratch, size) as disk: fill(disk.where); disk.keep(); ...; disk.reset()

Only the mount and the loop device that a call made are undone by it. XFS and Btrfs share blocks (reflink), ext4 and tmpfs
do not; "overlay" is an overlayfs over ext4.

The tests of a process mount in a namespace of their own (`private`, which tests/conftest.py calls). Hosts and other test runs do not see
these mounts, so they cannot keep a file system in use that a test cuts the power of. The kernel unmounts all of them when the process
ends, also by SIGKILL, and frees their loop devices.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from . import Unavailable, need

MIB = 1 << 20
GIB = 1 << 30
KINDS = ("ext4", "xfs", "btrfs", "tmpfs", "overlay")

_CLONE_NEWNS = 0x00020000
_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "nodiscard"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
#: Whether `private` has worked.
_STATE = {"private": False}


def private() -> bool:
    """Give this process mounts of its own; whether that worked. Call it from the main thread, before there are others.

    It does not where the kernel refuses, as in many containers, nor where the root directory is no mount point, as in a chroot.
    """
    if os.geteuid() != 0 or shutil.which("mount") is None or ctypes.CDLL(None).unshare(_CLONE_NEWNS) != 0:
        return False
    _STATE["private"] = subprocess.run(["mount", "--make-rprivate", "/"], stderr=subprocess.DEVNULL, check=False).returncode == 0
    return _STATE["private"]


def need_private() -> None:
    """Raise Unavailable unless these mounts are our own: for what covers directories that all of this machine uses."""
    need("mount", root=True)
    if not _STATE["private"]:
        raise Unavailable("no mounts of its own")


@contextmanager
def places(users: Path, paths: Sequence[str]) -> Iterator[None]:
    """Directories of this machine are there, for mounts of tests. Those below /run go again.

    To remove one that is a mount point of other tests would unmount that there: the last ones that use them do. :param users: a file that tells.
    """
    with open(users, "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        for path in paths:
            os.makedirs(path, exist_ok=True)
        try:
            yield
        finally:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for path in paths:
                    with suppress(OSError):  # a program of this machine uses it
                        if path.startswith("/run/"):
                            os.rmdir(path)


@contextmanager
def mount(kind: str, scratch: str | os.PathLike[str], size: int = GIB) -> Iterator[Path]:
    """An empty file system of a kind and size, mounted below `scratch`. Its image is sparse. XFS needs 300 MiB, Btrfs 110 MiB."""
    maker = {"tmpfs": _tmpfs, "overlay": _overlay}.get(kind)
    with tempfile.TemporaryDirectory(prefix=kind + "-", dir=scratch) as room:
        with maker(Path(room), size) if maker else _loop(kind, Path(room), size) as where:
            yield where


@contextmanager
def image(path: Path, where: Path, options: str = "") -> Iterator[Path]:
    """The file system in an image file, mounted at an existing directory."""
    need("mount", root=True)
    with _mounted(where, *_loop_of(path, options)):
        yield where


def make(kind: str, path: Path, size: int) -> None:
    """Make `path` a sparse image holding an empty file system."""
    command = _MAKE[kind]
    need(command[0], root=True)
    with open(path, "wb") as stream:
        stream.truncate(size)
    _attempt(*command, str(path))


class Disk:
    """A file system that can be put back to how it was: to the inode and the change time, which no copying of files can do.

    :ivar where: its mount point, the same at all times.
    """

    def __init__(self, kind: str, scratch: str | os.PathLike[str], size: int = 128 * MIB) -> None:
        self._kind, self._scratch, self._size = kind, scratch, size
        self._mount: ExitStack | None = None

    def __enter__(self) -> Disk:
        self._room = Path(tempfile.mkdtemp(prefix=self._kind + "-", dir=self._scratch))
        self.where = self._room / "mnt"
        try:
            self.where.mkdir()
            make(self._kind, self._room / "image", self._size)
            self._on()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._off()
        shutil.rmtree(self._room)

    def keep(self, name: str = "kept") -> None:
        """Remember the state of now."""
        self._off()
        self._copy("image", name)
        self._on()

    def reset(self, name: str = "kept") -> None:
        """Be as at that time."""
        self._off()
        self._copy(name, "image")
        self._on()

    def _copy(self, old: str, new: str) -> None:
        subprocess.run(["cp", "--sparse=always", self._room / old, self._room / new], check=True)

    def _on(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(image(self._room / "image", self.where, "noinit_itable" if self._kind == "ext4" else ""))
            self._mount = stack.pop_all()

    def _off(self) -> None:
        if self._mount is not None:
            mount, self._mount = self._mount, None
            mount.close()


@contextmanager
def memory(needed: int = 2 * GIB) -> Iterator[Path | None]:
    """A scratch directory in memory, for what would wait for disks thousands of times; None where there is no room for it."""
    available = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(encoding="ascii"), re.M)
    if os.geteuid() != 0 or available is None or int(available[1]) * 1024 < 2 * needed:
        yield None
        return
    room = Path(tempfile.mkdtemp(prefix="volt-tests-"))
    try:
        with _mounted(room, "-t", "tmpfs", "-o", f"size={needed}", "tmpfs"):
            yield room
    finally:
        room.rmdir()


def power_cut(mountpoint: str | os.PathLike[str]) -> None:
    """Lose what an ext4 has not yet made durable, as when power fails, then mount it again at the same place.

    What runs there must have ended: nothing on the old mount may be open.
    """
    shut_down(mountpoint)
    remount(mountpoint)


def shut_down(mountpoint: str | os.PathLike[str]) -> None:
    """The first half: from now on every call there fails, and nothing more reaches the disk."""
    handle = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(handle, _EXT4_IOC_SHUTDOWN, _NO_LOG_FLUSH.to_bytes(4, "little"))
    finally:
        os.close(handle)


def remount(mountpoint: str | os.PathLike[str]) -> None:
    """The second half, once nothing there is open any more."""
    device, options = _mount_of(mountpoint)
    backing = Path("/sys/block", os.path.basename(device), "loop/backing_file").read_text(encoding="utf-8").rstrip("\n")
    _unmount(Path(mountpoint))
    try:
        _attempt("mount", *_loop_of(Path(backing), options), os.fspath(mountpoint))
    except Unavailable as failure:  # it was mounted before, so this is no lack of the machine
        raise RuntimeError(f"after the power cut: {failure}") from None


@contextmanager
def _loop(kind: str, room: Path, size: int) -> Iterator[Path]:
    make(kind, room / "image", size)
    where = room / "mnt"
    where.mkdir()
    # Without noinit_itable the kernel goes on writing inode tables in the background.
    with image(room / "image", where, "noinit_itable" if kind == "ext4" else ""):
        yield where


@contextmanager
def _tmpfs(room: Path, size: int) -> Iterator[Path]:
    need("mount", root=True)
    where = room / "mnt"
    where.mkdir()
    with _mounted(where, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        yield where


@contextmanager
def _overlay(room: Path, size: int) -> Iterator[Path]:
    with _loop("ext4", room, size) as disk:
        for name in ("lower", "upper", "work"):
            (disk / name).mkdir()
        where = room / "merged"
        where.mkdir()
        layers = ",".join(f"{name}dir={disk / name}" for name in ("lower", "upper", "work"))
        with _mounted(where, "-t", "overlay", "-o", layers, "overlay"):
            yield where


@contextmanager
def _mounted(where: Path, *how: str) -> Iterator[None]:
    _attempt("mount", *how, str(where))
    try:
        yield
    finally:
        _unmount(where)


def _loop_of(path: Path, options: str) -> list[str]:
    """Options of mount(8) for an image: it makes a loop device that the kernel frees when the last mount of it is gone."""
    return ["-o", ",".join(filter(None, ("loop", options))), str(path)]


def _unmount(where: Path) -> None:
    """Unmount what is mounted at a place, and below; a process that is just ending gets a few seconds."""
    gc.collect()  # cycles and caught exceptions may hold memory maps of files there
    for _attempts in range(50):
        if subprocess.run(["umount", "--recursive", str(where)], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return
        time.sleep(0.1)
    # Out of the way at least, so that nothing later runs into it; the loop device goes when its last user does.
    subprocess.run(["umount", "--recursive", "--lazy", str(where)], check=True)
    raise RuntimeError(f"{where} was still in use when it had to be unmounted")


def _mount_of(mountpoint: str | os.PathLike[str]) -> tuple[str, str]:
    wanted = os.path.realpath(mountpoint)
    for line in reversed(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()):
        left, right = line.split(" - ")
        fields = left.split(" ")
        if re.sub(r"\\(\d{3})", lambda octal: chr(int(octal.group(1), 8)), fields[4]) == wanted:
            kind, device, _options = right.split(" ", 2)
            if kind != "ext4":
                raise Unavailable(f"power is cut on ext4 only, not on {kind}")
            return device, fields[5]
    raise ValueError(f"nothing is mounted at {mountpoint}")


def _attempt(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{command[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()
