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

from .._base import SourceError, files, reason

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

    `is_itself`: a directory is mounted over itself, so that it shows the directory without another mount. systemd does that in the units of schedules.
    `root`: which directory of the file system is mounted. `place`: where it is mounted, as the device and the path in the file system
    there; that is the same in each mount namespace. `id`: the kernel's number, as of fdinfo. `writable`: this mount allows it.
    `source`: what is mounted, in the words of the file system: a device, or a data set of ZFS.
    """

    device: int
    point: bytes
    kind: str
    options: bytes = b""
    is_itself: bool = False
    root: bytes = b"/"
    place: t.Tuple[int, bytes] = (0, b"/")
    id: int = 0
    writable: bool = True
    source: bytes = b""

    @property
    def is_remote(self) -> bool:
        """Whether it may fail to answer."""
        return self.kind in _REMOTE or self.kind.startswith("fuse.")

    @property
    def lasts(self) -> bool:
        """Whether the next run may expect it to be here still."""
        return self.point != b"/" and self.kind not in PSEUDO | _PASSING and not self.kind.startswith("fuse")


def mounts(process: str = "self") -> t.List[Mount]:
    """All mounts that a process sees, in the order of mounting. OSError if another process has ended, or we may not read it."""
    try:
        with open(f"/proc/{process}/mountinfo", "rb") as file:
            return parsed(file.read())
    except OSError as error:
        if process != "self":
            raise
        raise SourceError(f"/proc/self/mountinfo cannot be read: {reason(error)}; mount /proc first.") from None


def parsed(content: bytes) -> t.List[Mount]:
    """The mounts in the content of such a file."""
    found: t.Dict[bytes, Mount] = {}
    for line in content.splitlines():
        left, _dash, right = line.partition(b" - ")
        fields = left.split(b" ")
        major, minor = fields[2].split(b":")
        device, root, point = os.makedev(int(major), int(minor)), _plain(fields[3]), _plain(fields[4])
        kind, source, options = (*right.split(b" "), b"", b"")[:3]
        above = found.get(fields[1])
        place = (0, b"/") if above is None else (above.device, _moved(point, above.point, above.root))
        is_itself, writable = place == (device, root) and above is not None, b"rw" in fields[5].split(b",")
        found[fields[0]] = Mount(device, point, os.fsdecode(kind), options, is_itself, root, place, int(fields[0]), writable, _plain(source))
    return list(found.values())


def _plain(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)


def _moved(path: bytes, point: bytes, root: bytes) -> bytes:
    """A path below a mount point as a path in the file system that is mounted there."""
    return os.path.normpath(root.rstrip(b"/") + b"/" + os.path.relpath(path, point))


def is_within(path: bytes, top: bytes) -> bool:
    """Whether a normalized path is equal to another one, or below it."""
    return path == top or path.startswith(top.rstrip(b"/") + b"/")


def place_of(path: bytes, seen: t.Sequence[Mount]) -> t.Tuple[int, bytes]:
    """The place of a real, absolute path, in the form of `Mount.place`."""
    on = [mount for mount in seen if is_within(path, mount.point)]
    if not on:
        return 0, path
    last = max(on, key=lambda mount: len(mount.point))
    last = [mount for mount in on if mount.point == last.point][-1]  # the last one is on top
    return last.device, _moved(path, last.point, last.root)


class Kinds:
    """File systems by device number, read again when an unknown device turns up."""

    def __init__(self, identities: t.Optional[t.Mapping[int, int]] = None) -> None:
        """:param identities: of devices that stand for others, as those of snapshots do."""
        self._mounts: t.Dict[int, Mount] = {}
        self._untrusted: t.Dict[int, bool] = {}
        self._identities = identities or {}

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
            self._untrusted[device] = True  # until its layers are checked: one that is its own layer is not
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
        """A number for the file system of a directory (statfs(2): f_fsid), to mix with inode numbers; for an overlay, that of its layers."""
        if device in self._identities:
            return self._identities[device]
        number = os.fstatvfs(fd).f_fsid
        mount = self._mount(device)
        for layer in layers_of(mount.options) if mount.kind == "overlay" else ():
            try:
                number = number * 1_000_003 ^ os.statvfs(layer).f_fsid ^ os.stat(layer).st_ino
            except OSError:
                continue  # then it is not trusted
        return number & ((1 << 62) - 1)


def layers_of(options: bytes) -> t.List[bytes]:
    """The directories that an overlay is made of (proc_pid_mountinfo(5), overlayfs); none if its options do not list all of them."""
    found: t.List[bytes] = []
    for option in options.split(b","):
        name, _equals, value = option.partition(b"=")
        if name in (b"lowerdir", b"lowerdir+", b"datadir+", b"upperdir"):
            if b"\\:" in value:
                return []
            found += [_plain(path) for path in value.split(b":") if path]
    return found if all(path.startswith(b"/") for path in found) else []


class MountsBelow:
    """The mounts below a directory, by the parent directory of the mount point. Only the kernel's list is read."""

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
        """Whether it is of another file system than the top."""
        return mount.device != (self._device if self._own is None else self._own.device)

    def own(self) -> t.List[bytes]:
        """The mount of the directory, if it is a lasting one."""
        return [self._own.point] if self._own is not None and self._own.lasts else []


def answers(path: bytes, seconds: float) -> bool:
    """Whether a file system answers in time. A child asks: a call that a dead server keeps cannot be taken back."""
    try:
        child = os.fork()
        if not child:
            try:
                os.closerange(0, os.sysconf("SC_OPEN_MAX"))  # it may outlive us, and must not keep a lock or pipe then
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
    except OSError:  # SIGCHLD is ignored, as we were started so, and the child has ended; or no further process is allowed: the walk itself will look
        pass
    return True


def below(path: bytes) -> t.Dict[bytes, int]:
    """What is mounted strictly below a real, absolute path: paths from there, ascending, and the ids of the mounts."""
    found = {os.path.relpath(mount.point, path): mount.id for mount in mounts() if is_within(mount.point, path) and mount.point != path}
    return dict(sorted(found.items()))  # of two at one point, the last one is on top


#: The inode of a subvolume's own directory (btrfs(5)).
SUBVOLUME = 256
#: The directory there that has the snapshots of backups.
SNAPSHOTS = b".volt-snapshots"


def is_subvolume(fd: int) -> bool:
    """Whether an open directory is a Btrfs subvolume: a file system of its own in most respects, without a mount."""
    if os.fstat(fd).st_ino != SUBVOLUME:
        return False
    number = files.mount_id(fd)
    return any(mount.kind == "btrfs" for mount in mounts() if mount.id == number)
