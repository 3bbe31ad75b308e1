# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Owners, extended attributes, modes and times: reading them all, and setting them in the one order that works.

Order: owner first (it clears setuid and file capabilities), then attributes (an ACL changes the mode's group bits, equally), then mode, and
times last. POSIX ACLs and capabilities are extended attributes to the kernel and to us (acl(5), capabilities(7), xattr(7)).
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import typing as t

from .._format import tree

Xattrs = t.Tuple[t.Tuple[bytes, bytes], ...]
PathOrDescriptor = t.Union[int, str]

#: What says "no extended attributes here".
_NONE = (errno.EOPNOTSUPP, errno.ENOSYS)
#: Twins of the POSIX ACLs that XFS may list; setting the ACL makes them.
_TWINS = "trusted.SGI_ACL_"
SPECIAL = {
    stat.S_IFLNK: tree.SYMLINK,
    stat.S_IFIFO: tree.FIFO,
    stat.S_IFSOCK: tree.SOCKET,
    stat.S_IFCHR: tree.CHARACTER,
    stat.S_IFBLK: tree.BLOCK,
}


def beneath(directory: int, name: t.Union[str, bytes]) -> str:
    """A path for calls that take no directory descriptor; short however deep the directory is, and not followed at its end."""
    return f"/proc/self/fd/{directory}/{os.fsdecode(name)}"


def read_xattrs(place: PathOrDescriptor, follow: bool = False) -> Xattrs:
    """All attributes that we may see, by name; OSError for more than an entry can hold.

    :param place: a descriptor, or a path from `beneath`. :param follow: take a path for what it leads to, as that of an O_PATH descriptor.
    """
    follow = follow or isinstance(place, int)
    try:
        names = os.listxattr(place, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NONE:
            return ()
        raise
    if not names:
        return ()
    found = []
    for name in names:
        if name.startswith(_TWINS):
            continue
        try:
            found.append((os.fsencode(name), os.getxattr(place, name, follow_symlinks=follow)))
        except OSError as error:
            if error.errno not in (errno.ENODATA,) + _NONE:
                raise
    if sum(len(name) + len(value) for name, value in found) > tree.XATTRS_MOST:
        raise OSError(f"they have more than {tree.XATTRS_MOST >> 20} MiB")
    found.sort()
    return tuple(found)


class Owners:
    """Numbers of owners, and their names on the host that made the backup.

    :param users, groups: number -> name as recorded; empty for plain numbers.
    """

    def __init__(self, users: t.Mapping[int, str], groups: t.Mapping[int, str]) -> None:
        self._uids = {number: _lookup(pwd.getpwnam, name, number) for number, name in users.items()}
        self._gids = {number: _lookup(grp.getgrnam, name, number) for number, name in groups.items()}

    def local(self, entry: tree.Entry) -> t.Tuple[int, int]:
        """(uid, gid) that the entry's owner has on this host: by name where the name exists, else by number."""
        return self._uids.get(entry.uid, entry.uid), self._gids.get(entry.gid, entry.gid)


def _lookup(find: t.Callable[[str], t.Any], name: str, number: int) -> int:
    try:
        return t.cast(int, find(name)[2])  # pw_uid, gr_gid
    except (KeyError, ValueError):
        return number


def names_of(numbers: t.Iterable[int], find: t.Callable[[int], t.Any]) -> t.Dict[int, str]:
    """Names of users (`pwd.getpwuid`) or groups (`grp.getgrgid`), for those that have one."""
    found = {}
    for number in sorted(numbers):
        try:
            found[number] = str(find(number)[0])
        except (KeyError, OverflowError):
            continue
    return found


class Setter:
    """Applies an entry's metadata to files that exist already. Counts, rather than stops, where we may not give files away.

    :ivar refused: entries whose owner or privileged attributes could not be set because we are not root.
    """

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._root = os.geteuid() == 0
        self.refused = 0

    def owns_new(self, directory: os.stat_result) -> bool:
        """Whether what we make in a new directory, and in directories in it, gets our own user and group."""
        return self._root and directory.st_gid == os.getegid() and not directory.st_mode & stat.S_ISGID

    def is_born(self, entry: tree.Entry) -> bool:
        """Whether a file that we made with the entry's mode lacks nothing more but its times."""
        return entry.extra is tree.NOTHING and entry.mode & 0o6000 == 0 and self._owners.local(entry) == (0, os.getegid())

    def file(self, fd: int, entry: tree.Entry) -> None:
        """For an open regular file or directory."""
        refused = False
        uid, gid = self._owners.local(entry)
        try:
            os.fchown(fd, uid, gid)
        except PermissionError:
            refused = True
            self._own_group(fd, gid)
        if entry.extra is not tree.NOTHING:
            refused = self._xattrs(fd, entry.extra.xattrs) or refused
        mode = entry.mode
        if refused and mode & 0o6000 and not self._owned(fd, uid, gid):
            mode &= ~0o6000  # setuid for another user is not what was backed up
        os.fchmod(fd, mode)
        os.utime(fd, ns=(entry.mtime, entry.mtime))
        self.refused += refused

    def symlink(self, directory: int, name: bytes, entry: tree.Entry) -> None:
        """For a symlink itself, never for what it points to."""
        refused = False
        try:
            os.chown(name, *self._owners.local(entry), dir_fd=directory, follow_symlinks=False)
        except PermissionError:
            refused = True
        if entry.extra.xattrs:
            refused = self._xattrs(beneath(directory, name), entry.extra.xattrs, follow=False) or refused
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)
        self.refused += refused

    def special(self, directory: int, name: bytes, entry: tree.Entry) -> None:
        """For a fifo, socket or device: through a descriptor, so that nothing put in its place meanwhile is touched."""
        refused = False
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            place = f"/proc/self/fd/{fd}"
            try:
                os.chown(place, *self._owners.local(entry))
            except PermissionError:
                refused = True
            if entry.extra.xattrs:
                refused = self._xattrs(place, entry.extra.xattrs) or refused
            os.chmod(place, entry.mode)
            os.utime(place, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)
        self.refused += refused

    def _own_group(self, fd: int, gid: int) -> None:
        try:
            os.fchown(fd, -1, gid)
        except PermissionError:
            pass

    def _owned(self, fd: int, uid: int, gid: int) -> bool:
        info = os.fstat(fd)
        return (info.st_uid, info.st_gid) == (uid, gid)

    def _xattrs(self, place: PathOrDescriptor, xattrs: Xattrs, follow: bool = True) -> bool:
        refused = False
        for name, value in xattrs:
            try:
                os.setxattr(place, name, value, follow_symlinks=follow)
            except OSError as error:
                if self._root and error.errno not in (errno.EPERM, errno.EACCES):
                    raise
                refused = True
        return refused

    def strip(self, place: PathOrDescriptor, keep: Xattrs) -> None:
        """Remove attributes that the entry has not: those inherited from a default ACL, or left from before."""
        wanted = {name for name, _value in keep}
        for name, _value in read_xattrs(place):
            if name not in wanted and not name.startswith(b"security.selinux"):
                try:
                    os.removexattr(place, name, follow_symlinks=isinstance(place, int))
                except OSError as error:
                    if error.errno not in (errno.ENODATA, errno.EPERM, errno.EACCES):
                        raise
