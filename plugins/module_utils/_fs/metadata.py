# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Owners, extended attributes, modes and times: reading them, and setting them in the only order that works.

Order: owner first (it clears setuid and file capabilities), then attributes (an ACL changes the mode's group bits, equally), then mode, and
times last. POSIX ACLs and capabilities are extended attributes for the kernel and for us (acl(5), capabilities(7), xattr(7)).
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import typing as t

from .._base import Closing, show
from .._format import tree
from . import acl

Xattrs = acl.Xattrs
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
    """All attributes that we may see, by name; OSError for more than an entry can store.

    :param place: a descriptor, or a path from `beneath`. :param follow: follow a symlink at the path, as for that of an O_PATH descriptor.
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
        self._renumbers = any(a != b for numbers in (self._uids, self._gids) for a, b in numbers.items())

    def local(self, entry: tree.Entry) -> t.Tuple[int, int]:
        """(uid, gid) that the entry's owner has on this host: by name if the name exists, else by number."""
        return self._uids.get(entry.uid, entry.uid), self._gids.get(entry.gid, entry.gid)

    def xattrs(self, entry: tree.Entry) -> Xattrs:
        """The entry's attributes, its ACLs with the numbers that their users and groups have on this host."""
        found = entry.extra.xattrs
        if not found or not self._renumbers:
            return found
        return acl.renumbered(found, lambda number: self._uids.get(number, number), lambda number: self._gids.get(number, number))


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


class Skips:
    """What could not be given to the files of a restore.

    :ivar count: files that lack something. :ivar names: how many lack what: `owner`, `mode`, `mtime`, or an extended attribute's name.
    :ivar paths: the first of them, as shown.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self.count = 0
        self.names: t.Dict[str, int] = {}
        self.paths: t.List[str] = []

    def add(self, path: bytes, names: t.Sequence[str]) -> None:
        """Note the missing attributes of the file at a path; nothing, if no name is given."""
        if not names:
            return
        self.count += 1
        if len(self.paths) < self._most:
            self.paths.append(show(path))
        for name in names:
            self.names[name] = self.names.get(name, 0) + 1

    def __str__(self) -> str:
        return ", ".join(f"{name} ({number})" for name, number in sorted(self.names.items()))


#: What says that an owner, a mode or an attribute cannot be here, rather than that the disk is full or broken.
_REFUSED = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.E2BIG, errno.ERANGE)
#: A file system with so many bytes left said "no space" of an attribute that is too large for it.
_ROOM = 1 << 20
#: Of a time in 32 bits, in ns.
_FIRST, _LAST = -(1 << 31) * 1_000_000_000, ((1 << 31) - 1) * 1_000_000_000


def set_xattrs(place: PathOrDescriptor, xattrs: Xattrs, follow: bool = True) -> t.List[str]:
    """Give a file attributes; the names of those that it cannot have."""
    refused = []
    for name, value in xattrs:
        try:
            os.setxattr(place, name, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                room = os.statvfs(place)
                if room.f_bavail * room.f_frsize < _ROOM:
                    raise
            elif error.errno not in _REFUSED:
                raise
            refused.append(show(name))
    return refused


def set_time(place: t.Union[int, str, bytes], mtime: int, directory: t.Optional[int] = None) -> None:
    """Give a file both its times. The first or last second of 32 bits stands for one beyond, where the C library's times end there: programs of that host
    could not even stat the file. File systems do the same with what they cannot store (utimensat(2)).

    :param place: a descriptor, a path, or with `directory` a name in it, whose symlink is not followed.
    """
    follow = directory is None
    try:
        os.utime(place, ns=(mtime, mtime), dir_fd=directory, follow_symlinks=follow)
    except OverflowError:
        mtime = max(_FIRST, min(mtime, _LAST))
        os.utime(place, ns=(mtime, mtime), dir_fd=directory, follow_symlinks=follow)


class Setter:
    """Applies an entry's metadata to files that exist already. If some of it cannot be set, that is counted, and it continues.

    :ivar skips: what could not be set.
    :ivar exact: whether the file system stores each mode and time exactly; if not, each file is checked again.
    """

    def __init__(self, owners: Owners, exact: bool = True) -> None:
        self._owners = owners
        self._root = os.geteuid() == 0
        self.exact = exact
        self.skips = Skips()

    def owns_new(self, directory: os.stat_result) -> bool:
        """Whether what we make in a new directory, and in directories in it, gets our own user and group."""
        return self._root and directory.st_gid == os.getegid() and not directory.st_mode & stat.S_ISGID

    def is_born(self, entry: tree.Entry) -> bool:
        """Whether a file that we made with the entry's mode lacks nothing more but its times."""
        return self.exact and entry.extra is tree.NOTHING and entry.mode & 0o6000 == 0 and self._owners.local(entry) == (0, os.getegid())

    def file(self, fd: int, entry: tree.Entry, path: bytes) -> None:
        """For an open regular file or directory. :param path: its name in a report."""
        uid, gid = self._owners.local(entry)
        lacks = self._give(lambda user, group: os.fchown(fd, user, group), uid, gid)
        if entry.extra is not tree.NOTHING:
            lacks += set_xattrs(fd, self._owners.xattrs(entry))
        mode = entry.mode
        if lacks and mode & 0o6000 and not self._owned(fd, uid, gid):
            mode &= ~0o6000  # setuid for another user would be wrong
        try:
            os.fchmod(fd, mode)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise
            lacks.append("mode")  # a file system without modes
        set_time(fd, entry.mtime)
        if not self.exact:
            lacks += _inexact(os.fstat(fd), entry, mode)
        self.skips.add(path, lacks)

    def symlink(self, directory: int, name: bytes, entry: tree.Entry, path: bytes) -> None:
        """For a symlink itself, never for what it points to."""
        lacks = self._give(lambda user, group: os.chown(name, user, group, dir_fd=directory, follow_symlinks=False), *self._owners.local(entry))
        if entry.extra.xattrs:
            lacks += set_xattrs(beneath(directory, name), self._owners.xattrs(entry), follow=False)
        set_time(name, entry.mtime, directory)
        if not self.exact:
            lacks += _inexact(os.stat(name, dir_fd=directory, follow_symlinks=False), entry, None)
        self.skips.add(path, lacks)

    def special(self, directory: int, name: bytes, entry: tree.Entry, path: bytes) -> None:
        """For a fifo, socket or device: through a descriptor, so that a file that replaces it meanwhile is not changed."""
        with Closing(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)) as fd:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            place = f"/proc/self/fd/{fd}"
            lacks = self._give(lambda user, group: os.chown(place, user, group), *self._owners.local(entry))
            if entry.extra.xattrs:
                lacks += set_xattrs(place, self._owners.xattrs(entry))
            os.chmod(place, entry.mode)
            set_time(place, entry.mtime)
            if not self.exact:
                lacks += _inexact(os.fstat(fd), entry, entry.mode)
        self.skips.add(path, lacks)

    def _give(self, chown: t.Callable[[int, int], None], uid: int, gid: int) -> t.List[str]:
        """Give a file away, or as much of that as we may."""
        try:
            chown(uid, gid)
            return []
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
        for user, group in ((-1, gid), (uid, -1)):
            try:
                chown(user, group)
            except OSError:
                continue
        return ["owner"]

    def _owned(self, fd: int, uid: int, gid: int) -> bool:
        info = os.fstat(fd)
        return (info.st_uid, info.st_gid) == (uid, gid)

    def strip(self, place: PathOrDescriptor, keep: Xattrs) -> None:
        """Remove attributes that the entry has not: those inherited from a default ACL, or left from before."""
        wanted = {name for name, _value in keep}
        for name, _value in read_xattrs(place):
            if name not in wanted and not name.startswith(b"security.selinux"):
                try:
                    os.removexattr(place, name, follow_symlinks=isinstance(place, int))
                except OSError as error:
                    if error.errno not in (errno.ENODATA, *_REFUSED):
                        raise


def _inexact(info: os.stat_result, entry: tree.Entry, mode: t.Optional[int]) -> t.List[str]:
    """What a file has otherwise than it was given."""
    return ["mtime"] * (info.st_mtime_ns != entry.mtime) + ["mode"] * (mode is not None and info.st_mode & 0o7777 != mode)
