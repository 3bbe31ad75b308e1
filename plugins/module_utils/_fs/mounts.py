# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What is mounted where, from /proc/self/mountinfo (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
import signal
import time
import typing as t

from .._base import SourceError, reason

#: File systems that show the kernel, not data: never entered.
PSEUDO = frozenset(
    (
        "autofs binder binfmt_misc bpf cgroup cgroup2 configfs cpuset debugfs devpts efivarfs fusectl fuse.lxcfs fuse.gvfsd-fuse"
        " fuse.portal hugetlbfs mqueue nsfs pipefs proc pstore resctrl rpc_pipefs securityfs selinuxfs smackfs sockfs sysfs tracefs"
    ).split()
)
#: File systems whose stats prove nothing. In memory, only the first store through a memory map moves a file's times (measured). Images
#: and foreign formats have times that no kernel keeps, and the next image may have them all alike; user space promises nothing.
_UNTRUSTED = frozenset("tmpfs ramfs squashfs erofs cramfs romfs iso9660 udf vfat msdos exfat hfs hfsplus ntfs ntfs3 fuse fuseblk".split())
#: File systems that a server or a program answers for, which may be gone.
_REMOTE = frozenset("9p afs beegfs ceph cifs coda davfs fuse fuseblk glusterfs lustre ncpfs nfs nfs4 orangefs smb3 smbfs virtiofs".split())
#: File systems whose mounts come and go with what uses them.
_PASSING = frozenset("autofs overlay tmpfs ramfs squashfs nsfs".split())
_OCTAL = re.compile(rb"\\([0-7]{3})")


def untrusted(kind: str) -> bool:
    """Whether a file of this kind of file system may change and keep its stats."""
    return kind in _UNTRUSTED or kind.startswith("fuse.")


class Mount(t.NamedTuple):
    """One line: the device number as stat gives it, the mount point, the type, the options of the file system itself.

    `is_itself`: a directory is mounted over itself, so that it shows what is there without the mount. systemd does that in the units of schedules.
    """

    device: int
    point: bytes
    kind: str
    options: bytes = b""
    is_itself: bool = False

    @property
    def is_remote(self) -> bool:
        """Whether it may fail to answer."""
        return self.kind in _REMOTE or self.kind.startswith("fuse.")

    @property
    def lasts(self) -> bool:
        """Whether the next run may expect it to be here still."""
        return self.point != b"/" and self.kind not in PSEUDO | _PASSING and not self.kind.startswith("fuse")


def mounts() -> t.List[Mount]:
    """All mounts that this process sees, in the order of mounting."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise SourceError(f"/proc/self/mountinfo cannot be read: {reason(error)}; mount /proc first.") from None
    found = []
    known: t.Dict[bytes, t.Tuple[bytes, bytes, bytes]] = {}  # by id: device, root and mount point
    for line in lines:
        left, _dash, right = line.partition(b" - ")
        fields = left.split(b" ")
        major, minor = fields[2].split(b":")
        point = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), fields[4])
        kind, _source, options = (*right.split(b" "), b"", b"")[:3]
        root = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), fields[3])
        above = known.get(fields[1])
        itself = above is not None and above[0] == fields[2] and root == os.path.normpath(above[1].rstrip(b"/") + b"/" + os.path.relpath(point, above[2]))
        known[fields[0]] = (fields[2], root, point)
        found.append(Mount(os.makedev(int(major), int(minor)), point, os.fsdecode(kind), options, itself))
    return found


class Kinds:
    """File systems by device number, read again when an unknown device turns up."""

    def __init__(self) -> None:
        self._mounts: t.Dict[int, Mount] = {}
        self._untrusted: t.Dict[int, bool] = {}

    def __call__(self, device: int) -> str:
        """The type, or nothing for a device that no mount has (a Btrfs subvolume)."""
        return self._mount(device).kind

    def _mount(self, device: int) -> Mount:
        if device not in self._mounts:
            self._mounts.update((mount.device, mount) for mount in mounts())
        return self._mounts.setdefault(device, Mount(device, b"", ""))

    def untrusted(self, device: int) -> bool:
        """Whether a file may change and keep its stats. An overlay is trusted no more than its layers; in doubt it is not."""
        if device not in self._untrusted:
            self._untrusted[device] = True  # until its layers are looked at: one that is its own layer is not
            self._untrusted[device] = self._judge(self._mount(device))
        return self._untrusted[device]

    def _judge(self, mount: Mount) -> bool:
        if mount.kind != "overlay":
            return untrusted(mount.kind)
        layers = layers_of(mount.options)
        try:
            return not layers or any(self.untrusted(os.stat(layer).st_dev) for layer in layers)
        except (OSError, RecursionError):
            return True

    def identity(self, fd: int, device: int) -> int:
        """A number for the file system that a directory lies on (statfs(2): f_fsid), to mix with inode numbers; an overlay is its layers."""
        number = os.fstatvfs(fd).f_fsid
        mount = self._mount(device)
        for layer in layers_of(mount.options) if mount.kind == "overlay" else ():
            try:
                number = number * 1_000_003 ^ os.statvfs(layer).f_fsid ^ os.stat(layer).st_ino
            except OSError:
                continue  # then it is not trusted
        return number & ((1 << 62) - 1)


def layers_of(options: bytes) -> t.List[bytes]:
    """The directories that an overlay is made of (proc_pid_mountinfo(5), overlayfs); none where its options do not tell them all."""
    found: t.List[bytes] = []
    for option in options.split(b","):
        name, _equals, value = option.partition(b"=")
        if name in (b"lowerdir", b"lowerdir+", b"datadir+", b"upperdir"):
            if b"\\:" in value:
                return []
            found += [_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), path) for path in value.split(b":") if path]
    return found if all(path.startswith(b"/") for path in found) else []


class MountsBelow:
    """What is mounted below a directory, by the directory that holds the mount point. Nothing is looked at but the kernel's list."""

    def __init__(self, top: bytes, device: int) -> None:
        """:param top: a real, absolute path. :param device: its st_dev, for a chroot whose own mount is not in the list."""
        prefix = top.rstrip(b"/") + b"/"
        self._own: t.Optional[Mount] = None
        self._device = device
        self._found: t.Dict[bytes, t.Dict[bytes, Mount]] = {}
        longest = -1
        for mount in mounts():
            if mount.is_itself:
                continue
            point = mount.point.rstrip(b"/") + b"/"
            if prefix.startswith(point) and len(point) >= longest:
                longest, self._own = len(point), mount
            elif point.startswith(prefix):
                parent, _slash, name = mount.point[len(prefix) :].rpartition(b"/")
                self._found.setdefault(parent, {})[name] = mount  # the last one is on top

    def __bool__(self) -> bool:
        return bool(self._found)

    def at(self, directory: bytes) -> t.Mapping[bytes, Mount]:
        """Mounts by name, in a directory whose path is relative to the top."""
        return self._found.get(directory, {})

    def is_other(self, mount: Mount) -> bool:
        """Whether it is of another file system than the one that the top lies on."""
        return mount.device != (self._device if self._own is None else self._own.device)

    def own(self) -> t.List[bytes]:
        """The mount that the directory lies on, if it is one that lasts."""
        return [self._own.point] if self._own is not None and self._own.lasts else []


def answers(path: bytes, seconds: float) -> bool:
    """Whether a file system answers in time. A child asks: a call that a dead server keeps cannot be taken back."""
    try:
        child = os.fork()
        if not child:
            try:
                os.closerange(0, os.sysconf("SC_OPEN_MAX"))  # it may outlive us, and must hold no lock and no pipe then
                os.statvfs(path)
                os.lstat(path)
            finally:
                os._exit(0)  # an error is an answer as well
        deadline, pause = time.monotonic() + seconds, 0.001
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, os.WNOHANG)
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
    except ChildProcessError:
        pass  # SIGCHLD is ignored, as we were started so; the child has ended
    except OSError:
        pass  # no further process is allowed: the walk itself will look
    return True


def below(path: bytes) -> t.List[bytes]:
    """Mount points strictly below a real, absolute path."""
    prefix = path.rstrip(b"/") + b"/"
    return sorted({mount.point for mount in mounts() if mount.point.startswith(prefix) and mount.point != prefix})


def is_mount_point(path: bytes) -> bool:
    """Whether something is mounted exactly here (a bind mount of the same file system included)."""
    return any(mount.point == path for mount in mounts())
