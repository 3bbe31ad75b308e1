# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""System calls that Python's standard library lacks: syncfs, sync_file_range, renameat2, openat2, prctl, mount, unshare, and the ioctls for clones.

Numbers of calls and ioctls depend on the machine. Sources: syncfs(2), sync_file_range(2), prctl(2), rename(2), openat2(2), ioctl_ficlone(2),
ioctl_ficlonerange(2), mount(2), umount2(2), unshare(2), capabilities(7), netdevice(7); asm/ioctl.h and asm/unistd.h of the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import struct
import sys
import threading
import typing as t

_PDEATHSIG, _CAPBSET_DROP = 1, 24
#: Machines that write the direction of an ioctl otherwise than all the others.
_OTHER_DIRECTIONS = ("ppc", "mips", "sparc", "alpha")
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
#: In place of a directory: the current one.
AT_FDCWD = -100
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x08000000, 0x20000000, 0x40000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE, _SLAVE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18, 1 << 19
#: SIOCSIFFLAGS and IFF_UP
_SET_FLAGS, _UP = 0x8914, 1
_DETACH, _NO_FOLLOW = 2, 8
_MMAP_THRESHOLD = -3
_WRITE_AND_WAIT = 1 | 2 | 4
_PUNCH_HOLE = 3  # with FALLOC_FL_KEEP_SIZE, which it demands
#: Numbers of renameat2(2) in programs of 32 bits and of 64, by how the machine's name begins. A kernel of 64 bits runs both.
_RENAMEAT2 = {
    ("x86_64", "i386", "i486", "i586", "i686"): (353, 316),
    ("aarch64", "arm"): (382, 276),
    ("riscv", "loongarch"): (276, 276),
    ("ppc",): (357, 357),
    ("s390",): (347, 347),
}

#: openat2(2) has one number everywhere but on Alpha.
_OPENAT2 = -1 if os.uname().machine == "alpha" else 437
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS = 0x01, 0x02, 0x04
#: What openat2 says where it cannot be had: an old kernel, a filter that does not know it (seccomp(2)).
NO_OPENAT2 = (errno.ENOSYS, errno.EPERM)
_OPEN_HOW = struct.Struct("=QQQ")
#: What the clone ioctls say where a pair of file systems cannot share blocks at all ...
NEVER_CLONES = (errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.ENOSYS)
#: ... or where this one file cannot (swap files, files without copy-on-write, odd alignment).
NO_CLONE = NEVER_CLONES + (errno.EINVAL, errno.EPERM, errno.ETXTBSY)

_libc = ctypes.CDLL(None, use_errno=True)


def ioctl_number(reads: bool, writes: bool, kind: int, number: int, size: int, machine: str = os.uname().machine) -> int:
    """The number of an ioctl, as _IOR, _IOW and _IOWR make it. :param reads: it gives the caller something. :param writes: the caller gives it something."""
    direction = (reads << 1 | writes << 2) << 29 if machine.startswith(_OTHER_DIRECTIONS) else (reads << 1 | writes) << 30
    return direction | size << 16 | kind << 8 | number


_FICLONE, _FICLONERANGE = ioctl_number(False, True, 0x94, 9, 4), ioctl_number(False, True, 0x94, 13, 32)

# statx(2): flags and masks, and where in the answer the fields are
_NOFOLLOW, _BTIME = 0x100, 0x800
_MASK, _INODE, _BIRTH = struct.Struct("=I"), struct.Struct("=32xQ"), struct.Struct("=80xqI")
_answers = threading.local()


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def end_with_parent(parent: int, number: int = signal.SIGTERM) -> None:
    """Let a signal come to this process once its parent has ended, which may have happened. :param parent: 0 for one in another PID namespace."""
    _libc.prctl(_PDEATHSIG, ctypes.c_ulong(number))
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def return_memory() -> None:
    """Give memory of a MiB or more back to the system as soon as it is free. By itself glibc keeps up to 32 MiB in each thread. Source: mallopt(3)."""
    call = getattr(_libc, "mallopt", None)
    if call is not None:
        call(ctypes.c_int(_MMAP_THRESHOLD), ctypes.c_int(1 << 20))


def syncfs(fd: int) -> None:
    """Write everything dirty of the file system of `fd`; OSError if a write failed."""
    call = getattr(_libc, "syncfs", None)
    if call is None:
        os.sync()
        return
    _check(call(ctypes.c_int(fd)))


def write_back(fd: int) -> None:
    """Write the dirty pages of one file, and wait for that; OSError. It makes nothing durable: sizes, names and the disk's cache are left out."""
    call = getattr(_libc, "sync_file_range", None)
    if call is None:
        os.fdatasync(fd)
        return
    _check(call(ctypes.c_int(fd), ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(_WRITE_AND_WAIT)))


def exchange(old: t.Union[str, bytes], new: t.Union[str, bytes], old_dir: int, new_dir: int) -> None:
    """Swap two names atomically (RENAME_EXCHANGE); OSError with EXDEV, EINVAL or ENOSYS if that is not possible."""
    _rename(old, new, old_dir, new_dir, _RENAME_EXCHANGE)


def rename_new(old: t.Union[str, bytes], new: t.Union[str, bytes], old_dir: int, new_dir: int) -> None:
    """Rename to a name that must not exist (RENAME_NOREPLACE): EEXIST if it does, EINVAL or ENOSYS if that is not possible."""
    _rename(old, new, old_dir, new_dir, _RENAME_NOREPLACE)


def _rename(old: t.Union[str, bytes], new: t.Union[str, bytes], old_dir: int, new_dir: int, flags: int) -> None:
    """renameat2(2)."""
    arguments = (
        ctypes.c_int(old_dir),
        ctypes.c_char_p(os.fsencode(old)),
        ctypes.c_int(new_dir),
        ctypes.c_char_p(os.fsencode(new)),
        ctypes.c_uint(flags),
    )
    call = getattr(_libc, "renameat2", None)
    if call is not None:
        _check(call(*arguments))
        return
    number = renameat2_number(os.uname().machine, sys.maxsize > 1 << 32)
    if number < 0:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    _check(_libc.syscall(ctypes.c_long(number), *arguments))


def renameat2_number(machine: str, is_64_bit: bool) -> int:
    """-1 if it is not known. :param is_64_bit: this program, not the kernel."""
    return next((pair[is_64_bit] for names, pair in _RENAMEAT2.items() if machine.startswith(names)), -1)


def open_on_mount(name: t.Union[str, bytes], directory: int, flags: int) -> int:
    """A descriptor of a name in a directory; EXDEV if something is mounted there, ELOOP for a symbolic link (openat2(2)).

    OSError with one of NO_OPENAT2 if the kernel does not have it.
    """
    if _OPENAT2 < 0:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    how = _OPEN_HOW.pack(flags, 0, _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS)
    fd = _libc.syscall(ctypes.c_long(_OPENAT2), ctypes.c_int(directory), ctypes.c_char_p(os.fsencode(name)), ctypes.c_char_p(how), ctypes.c_size_t(len(how)))
    if fd < 0:
        _check(fd)
    return t.cast(int, fd)


def clone(source: int, target: int) -> None:
    """Make the file `target` share all blocks of `source`."""
    fcntl.ioctl(target, _FICLONE, source)


def clone_range(source: int, source_offset: int, length: int, target: int, target_offset: int) -> None:
    """Share `length` bytes of blocks; length 0 means to the end of the source."""
    fcntl.ioctl(target, _FICLONERANGE, struct.pack("=qQQQ", source, source_offset, length, target_offset))


def punch(fd: int, offset: int, length: int) -> None:
    """Make a hole in a file (fallocate(2), FALLOC_FL_PUNCH_HOLE); no error if the file system does not support holes."""
    call = getattr(_libc, "fallocate64", None) or _libc.fallocate
    result = call(ctypes.c_int(fd), ctypes.c_int(_PUNCH_HOLE), ctypes.c_int64(offset), ctypes.c_int64(length))
    if result != 0 and ctypes.get_errno() not in (errno.EOPNOTSUPP, errno.ENOSYS):
        _check(result)


def birth(directory: int, name: t.Union[str, bytes], inode: int) -> int:
    """When the file of a name was made, in ns (statx(2), stx_btime); -1 if the name has another inode now, or the time is unknown."""
    call = getattr(_libc, "statx", None)
    if call is None:
        return -1
    try:
        room = _answers.room
    except AttributeError:
        room = _answers.room = ctypes.create_string_buffer(256)
    if call(ctypes.c_int(directory), ctypes.c_char_p(os.fsencode(name)), ctypes.c_int(_NOFOLLOW), ctypes.c_uint(_BTIME), room):
        return -1
    if not _MASK.unpack_from(room)[0] & _BTIME or _INODE.unpack_from(room)[0] != inode:
        return -1
    seconds, nanos = _BIRTH.unpack_from(room)
    return t.cast(int, seconds * 1_000_000_000 + nanos)


def own_mounts() -> None:
    """Give this thread, and those that it starts, mounts of their own; what others mount still shows. They end with the process."""
    _check(_libc.unshare(ctypes.c_int(_CLONE_NEWNS)))
    _mount(None, b"/", None, _RECURSIVE | _SLAVE)


def isolate() -> None:
    """Give this process mounts and IPC of its own, and a network that is only a loopback interface. The next process that it starts, and those that this
    starts, see no other processes; they end with it."""
    import socket  # only here: it takes time to import

    _check(_libc.unshare(ctypes.c_int(_CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET)))
    _mount(None, b"/", None, _RECURSIVE | _PRIVATE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))


def drop_capabilities(keep: t.Container[int]) -> None:
    """Let no program that this process starts have other capabilities than these, by their numbers."""
    for number in range(64):
        if number not in keep and _libc.prctl(_CAPBSET_DROP, ctypes.c_ulong(number)) != 0:
            if ctypes.get_errno() == errno.EINVAL:  # the kernel knows no more
                return
            _check(-1)


def mount_tmpfs(target: bytes) -> None:
    """Cover a directory with an empty one in memory, of which it takes a fifth at most."""
    _mount(b"tmpfs", target, b"tmpfs", _NO_SUID | _NO_DEVICES, b"size=20%,mode=0755")


def mount_proc(target: bytes) -> None:
    """Show the processes of the caller's own namespace."""
    _mount(b"proc", target, b"proc", _NO_SUID | _NO_DEVICES | _NO_EXEC)


def mount_device(device: bytes, target: bytes, kind: bytes, options: bytes) -> None:
    """Show the file system of a block device, to be read only. The kernel may recover it from its log, which writes to the device."""
    _mount(device, target, kind, _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_EXEC, options)


def bind(source: bytes, target: bytes) -> None:
    """Show a directory or file at another one as well."""
    _mount(source, target, None, _BIND)


def make_read_only(target: bytes) -> None:
    """Let nothing be written through a mount."""
    _restrict(target, _READ_ONLY)


def forbid_devices(target: bytes) -> None:
    """Let no device be opened through a mount."""
    _restrict(target, _NO_DEVICES)


def _restrict(target: bytes, flag: int) -> None:
    """Set a flag of a mount; what it forbids besides stays forbidden."""
    kept = os.statvfs(target).f_flag & (_READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_EXEC)  # the numbers are the same, statfs(2)
    _mount(None, target, None, _BIND | _REMOUNT | kept | flag)


def unmount(target: bytes) -> None:
    """Take a mount away; what is still open in it stays until it is closed."""
    _check(_libc.umount2(ctypes.c_char_p(target), ctypes.c_int(_DETACH | _NO_FOLLOW)))


def _mount(source: t.Optional[bytes], target: bytes, kind: t.Optional[bytes], flags: int, options: t.Optional[bytes] = None) -> None:
    _check(_libc.mount(ctypes.c_char_p(source), ctypes.c_char_p(target), ctypes.c_char_p(kind), ctypes.c_ulong(flags), ctypes.c_char_p(options)))
