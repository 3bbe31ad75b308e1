# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What is mounted where, from /proc/self/mountinfo (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
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
_OCTAL = re.compile(rb"\\([0-7]{3})")


def untrusted(kind: str) -> bool:
    """Whether a file of this kind of file system may change and keep its stats."""
    return kind in _UNTRUSTED or kind.startswith("fuse.")


class Mount(t.NamedTuple):
    """One line: the device number as stat gives it, the mount point, the type."""

    device: int
    point: bytes
    kind: str


def mounts() -> t.List[Mount]:
    """All mounts that this process sees, in the order of mounting."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise SourceError(f"/proc/self/mountinfo cannot be read: {reason(error)}; mount /proc first.") from None
    found = []
    for line in lines:
        left, _dash, right = line.partition(b" - ")
        fields = left.split(b" ")
        major, minor = fields[2].split(b":")
        point = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), fields[4])
        kind = os.fsdecode(right.split(b" ")[0])
        found.append(Mount(os.makedev(int(major), int(minor)), point, kind))
    return found


class Kinds:
    """File system types by device number, read again when an unknown device turns up."""

    def __init__(self) -> None:
        self._kinds: t.Dict[int, str] = {}

    def __call__(self, device: int) -> str:
        """The type, or nothing for a device that no mount has (a Btrfs subvolume)."""
        if device not in self._kinds:
            self._kinds.update((mount.device, mount.kind) for mount in mounts())
        return self._kinds.setdefault(device, "")


def below(path: bytes) -> t.List[bytes]:
    """Mount points strictly below a real, absolute path."""
    prefix = path.rstrip(b"/") + b"/"
    return sorted({mount.point for mount in mounts() if mount.point.startswith(prefix) and mount.point != prefix})


def is_mount_point(path: bytes) -> bool:
    """Whether something is mounted exactly here (a bind mount of the same file system included)."""
    return any(mount.point == path for mount in mounts())
