# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory tree with every kind of file that Linux knows, always the same one, and edits to it.

    skipped = torture.build(path)          what this user or file system cannot have, each with its reason
    torture.mutate(path, seed)

Everything works on bytes and on directory descriptors: names are arbitrary bytes, and one branch is longer than PATH_MAX.
Times are set last, because making an entry changes its directory's.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import stat
import struct
import subprocess
from collections.abc import Callable

KIB = 1 << 10
MIB = 1 << 20

BORDERS = (0, 1, 4 * KIB, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, MIB, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 8 * MIB + 4097, 20 * MIB + 3)
# Before 1970, the first and last nanosecond of a second, beyond 32 bits; all within what ext4 (until 2446) can hold.
TIMES = (0, 1, 999_999_999, -1, -1_500_000_000, -315_576_000_123_456_789, -(1 << 31) * 10**9, 1_234_567_890_123_456_789,
         (1 << 31) * 10**9 + 7, 4_294_967_296_000_000_001, 13_000_000_000_987_654_321)
LONG_BRANCH = b"longer-than-path-max"


def data(size: int, seed: object) -> bytes:
    """Incompressible bytes, the same for the same seed on every machine and Python."""
    return hashlib.shake_128(repr(seed).encode()).digest(size)


def build(path: str | os.PathLike[str], entries: int = 3000, long_paths: bool = True) -> list[str]:
    """Make the tree at `path` (which must not exist). Returns the kinds left out, as `kind: reason`.

    Tools that build whole path names (rsync, getfattr, cp) stop at PATH_MAX; `long_paths=False` leaves that branch out.
    """
    builder = _Builder(os.fsencode(path), entries)
    os.mkdir(builder.root)
    kinds = [builder.contents, builder.compressible, builder.duplicates, builder.sparse, builder.modes, builder.owners, builder.symlinks,
             builder.hard_links, builder.hard_linked_specials, builder.fifos_and_sockets, builder.devices, builder.user_xattrs, builder.trusted_xattrs,
             builder.symlink_xattrs, builder.security_xattrs, builder.capabilities, builder.acls, builder.default_acls, builder.empty, builder.names,
             builder.many]
    if long_paths:
        kinds.append(builder.long_branch)
    for kind in kinds:
        try:
            kind()
        except OSError as error:
            builder.skipped.append(f"{kind.__name__.replace('_', ' ')}: {error.strerror}")
        except subprocess.CalledProcessError as error:
            builder.skipped.append(f"{kind.__name__.replace('_', ' ')}: {error.stderr.strip()}")
    _set_times(builder.root, b"")
    for name in builder.closed:
        os.chmod(name, 0)
    return builder.skipped


class _Builder:
    """One method a kind; each makes what it needs in a directory of its own."""

    def __init__(self, root: bytes, entries: int) -> None:
        self.root = root
        self.entries = entries
        self.skipped: list[str] = []
        self.closed: list[bytes] = []  # to lose all permissions when everything else is done

    def folder(self, *names: bytes) -> bytes:
        path = os.path.join(self.root, *names)
        os.makedirs(path, exist_ok=True)
        return path

    def contents(self) -> None:
        """Every size at which the store changes its mind, and allocated zeros."""
        for size in BORDERS:
            _write(self.folder(b"sizes") + b"/%d" % size, data(size, size))
        for size in (4 * KIB, MIB, 9 * MIB):
            _write(self.folder(b"zeros") + b"/%d" % size, bytes(size))

    def compressible(self) -> None:
        for size in (100, 100 * KIB, MIB, 10 * MIB):
            line = b"the same line of %d\n" % size
            _write(self.folder(b"compressible") + b"/%d" % size, (line * (size // len(line) + 1))[:size])

    def duplicates(self) -> None:
        for number in range(3):
            for size in (10, 100 * KIB, 2 * MIB, 9 * MIB):
                _write(self.folder(b"duplicates", b"%d" % number) + b"/%d" % size, data(size, ("same", size)))

    def sparse(self) -> None:
        folder = self.folder(b"sparse")
        block = data(64 * KIB, "sparse")
        layouts = {
            b"small": (100 * KIB, [50 * KIB // 4096 * 4096]),
            b"one-mib": (MIB, [512 * KIB]),
            b"hole-at-start": (20 * MIB, [10 * MIB, 19 * MIB + 960 * KIB]),
            b"hole-in-middle": (20 * MIB, [0, 19 * MIB]),
            b"hole-at-end": (20 * MIB + 5, [0, MIB]),
            b"hole-within-chunk": (12 * MIB, [number * 512 * KIB + 128 * KIB for number in range(24)]),
            b"hole-across-chunks": (12 * MIB, [700 * KIB, 3 * MIB - 64 * KIB, 3 * MIB]),
            b"all-hole-small": (64 * KIB, []),
            b"all-hole": (30 * MIB, []),
            b"all-hole-odd": (9 * MIB + 1, []),
            b"mostly-hole": (128 * MIB, [0, 70 * MIB]),
        }
        for name, (size, places) in layouts.items():
            with open(folder + b"/" + name, "wb") as stream:
                stream.truncate(size)
                for place in places:
                    stream.seek(place)
                    stream.write(block[: max(0, size - place)])

    def modes(self) -> None:
        folder = self.folder(b"modes")
        for mode in (0o400, 0o644, 0o777, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777):
            _write(folder + b"/file-%04o" % mode, b"%o" % mode)
            os.chmod(folder + b"/file-%04o" % mode, mode)
            os.mkdir(folder + b"/dir-%04o" % mode)
            os.chmod(folder + b"/dir-%04o" % mode, mode)
        _write(folder + b"/file-0000", b"closed")
        _write(self.folder(b"modes", b"dir-0000") + b"/inside", b"behind a closed door")
        self.closed += [folder + b"/file-0000", folder + b"/dir-0000"]

    def owners(self) -> None:
        folder = self.folder(b"owners")
        for uid, gid in ((1, 2), (65534, 65534), (65536, 70000), (3_000_000_000, 4_294_967_294), (0, 12345)):
            path = folder + b"/%d-%d" % (uid, gid)
            _touch(path)
            os.mkdir(path + b"-dir")
            os.symlink(b"owned", path + b"-link")
            for owned in (path, path + b"-dir", path + b"-link"):
                os.lchown(owned, uid, gid)
        # A change of owner takes these bits away, so a restore must set them after it.
        _touch(folder + b"/setuid")
        os.chown(folder + b"/setuid", 1000, 1000)
        os.chmod(folder + b"/setuid", 0o6755)

    def symlinks(self) -> None:
        folder = self.folder(b"symlinks")
        targets = {b"dangling": b"no/such/file", b"absolute": b"/etc/passwd", b"parent": b"..", b"self": b"self", b"into": b"../sizes/1",
                   b"bytes": b"\xff\xfe/\x80", b"newline": b"a\nb", b"backslash": b"a\\012b", b"outside": b"../../../../../../tmp", b"slashes": b"a//b/"}
        for name, target in targets.items():
            os.symlink(target, folder + b"/" + name)
        for length in (59, 60, 255, 1023, 4095):
            try:
                os.symlink(b"t" * length, folder + b"/long-%d" % length)
            except OSError as error:
                self.skipped.append(f"symlink target of {length} bytes: {error.strerror}")

    def hard_links(self) -> None:
        for number, size in enumerate((0, 10, 2 * MIB, 9 * MIB)):
            first = self.folder(b"links", b"here") + b"/%d" % number
            _write(first, data(size, ("linked", size)))
            os.link(first, first + b"-again")
            os.link(first, self.folder(b"links", b"there", b"deeper") + b"/%d" % number)
        # Same content, yet not linked: must stay so.
        _write(self.folder(b"links") + b"/not-linked", data(10, ("linked", 10)))

    def hard_linked_specials(self) -> None:
        folder = self.folder(b"linked-specials")
        os.symlink(b"target", folder + b"/symlink")
        os.mkfifo(folder + b"/fifo")
        for name in (b"symlink", b"fifo"):
            os.link(folder + b"/" + name, self.folder(b"linked-specials", b"other") + b"/" + name, follow_symlinks=False)

    def fifos_and_sockets(self) -> None:
        folder = self.folder(b"specials")
        os.mkfifo(folder + b"/fifo", 0o640)
        # A socket's address is short: bind it by a path through a descriptor.
        handle = os.open(folder, os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(b"/proc/self/fd/%d/socket" % handle)
        finally:
            os.close(handle)

    def devices(self) -> None:
        folder = self.folder(b"devices")
        for name, kind, major, minor in ((b"null", stat.S_IFCHR, 1, 3), (b"disk", stat.S_IFBLK, 8, 1), (b"large", stat.S_IFBLK, 259, 200_000)):
            os.mknod(folder + b"/" + name, kind | 0o660, os.makedev(major, minor))

    def user_xattrs(self) -> None:
        for path in self.bearers(b"xattrs-user"):
            os.setxattr(path, b"user.text", b"value")
            os.setxattr(path, b"user.empty", b"")
            os.setxattr(path, b"user.binary", bytes(range(256)))
            os.setxattr(path, b"user.caf\xc3\xa9 = \"x\"", b"odd name")
            os.setxattr(path, b"user.bytes-\xff", b"name that is not UTF-8")
        _touch(self.folder(b"xattrs-user") + b"/large")
        os.setxattr(self.folder(b"xattrs-user") + b"/large", b"user.large", data(3000, "xattr"))

    def trusted_xattrs(self) -> None:
        for path in self.bearers(b"xattrs-trusted"):
            os.setxattr(path, b"trusted.note", b"\0\1\2")

    def symlink_xattrs(self) -> None:
        link = self.folder(b"xattrs-trusted") + b"/link"
        os.symlink(b"nowhere", link)
        os.setxattr(link, b"trusted.link", b"on the link itself", follow_symlinks=False)

    def security_xattrs(self) -> None:
        for path in self.bearers(b"xattrs-security"):
            os.setxattr(path, b"security.volt", b"label\0")

    def capabilities(self) -> None:
        """cap_net_raw, version 2; and with a root id of a user namespace, version 3."""
        folder = self.folder(b"capabilities")
        effective, net_raw = 1, 1 << 13
        values = {b"plain": struct.pack("<5I", 0x02000000 | effective, net_raw, 0, 0, 0),
                  b"namespaced": struct.pack("<6I", 0x03000000 | effective, net_raw, 0, 0, 0, 100_000)}
        for name, value in values.items():
            _write(folder + b"/" + name, b"#!/bin/sh\n")
            os.chown(folder + b"/" + name, 1000, 1000)
            os.chmod(folder + b"/" + name, 0o755)
            os.setxattr(folder + b"/" + name, b"security.capability", value)

    def acls(self) -> None:
        for path in self.bearers(b"acls"):
            os.setxattr(path, b"system.posix_acl_access", _acl((0x02, 7, 1234), (0x08, 5, 70000)))

    def default_acls(self) -> None:
        folder = self.folder(b"acls", b"default")
        os.setxattr(folder, b"system.posix_acl_default", _acl((0x02, 6, 4321)))
        _touch(folder + b"/heir")
        os.mkdir(folder + b"/sub")

    def bearers(self, name: bytes) -> list[bytes]:
        folder = self.folder(name)
        _write(folder + b"/file", b"bears attributes")
        return [folder + b"/file", self.folder(name, b"dir")]

    def empty(self) -> None:
        self.folder(b"empty", b"dir")
        _touch(self.folder(b"empty") + b"/file")

    def names(self) -> None:
        folder = self.folder(b"names")
        odd = [bytes([code]) for code in range(1, 256) if code not in b"/."]
        odd += [b"new\nline", b"back\\slash", b"\\012", b"\\x41", b"\xc3\x28 bad utf-8", "ä".encode(), "a\u0308".encode(), b" lead", b"trail ", b"-rf", b"...",
                b"..a", b"%s", b"$(id)", b"*", b"a'b\"c", b"\x1b[31mred", b"CON", b"a:b", b"#x", b"!x", b"x" * 255, b"\xff" * 255]
        for name in odd:
            if not os.path.lexists(folder + b"/" + name):
                _write(folder + b"/" + name, name)
        # Order by bytes is not order by text, nor is a directory's name ordered as if it ended in a slash.
        for name in (b"a", b"a-b", b"a.b", b"a0"):
            self.folder(b"names", b"order", name, b"x")
        os.mkdir(folder + b"/dir\n\xff\\")
        _write(folder + b"/dir\n\xff\\/file", b"in an oddly named directory")

    def many(self) -> None:
        folder = os.open(self.folder(b"many"), os.O_RDONLY)
        try:
            for number in range(self.entries):
                handle = os.open(b"%d" % number, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=folder)
                os.write(handle, b"%d" % (number // 2))
                os.close(handle)
        finally:
            os.close(folder)

    def long_branch(self) -> None:
        here = os.open(self.folder(LONG_BRANCH), os.O_RDONLY)
        try:
            for level in range(24):
                name = b"%02d" % level + b"d" * 198
                os.mkdir(name, dir_fd=here)
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
            for name, size in ((b"small", 10), (b"object", 200 * KIB), (b"chunked", 9 * MIB)):
                handle = os.open(name, os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=here)
                with open(handle, "wb") as stream:
                    stream.write(data(size, name))
            os.symlink(b"small", b"link", dir_fd=here)
            os.link(b"small", b"small-again", src_dir_fd=here, dst_dir_fd=here)
            os.mkfifo(b"fifo", dir_fd=here)
            os.mkdir(b"empty", dir_fd=here)
            os.setxattr(b"/proc/self/fd/%d/object" % here, b"user.deep", b"down here")
        finally:
            os.close(here)


def mutate(path: str | os.PathLike[str], seed: int) -> list[str]:
    """Edit a tree that build() made, in every way that a second backup must notice. Returns what could not be done.

    The seed chooses the bytes, the times and which entries of `many`; any number of calls with different seeds may follow each other.
    """
    root = os.fsencode(path) + b"/"
    dice = random.Random(seed)
    mark = b"%d" % seed
    skipped = []

    def same_size_same_mtime() -> None:
        for name in (b"duplicates/0/10", b"sizes/131072", b"sizes/8388608", b"duplicates/1/9437184"):
            before = os.stat(root + name)
            _write(root + name, data(before.st_size, (name, seed)))
            os.utime(root + name, ns=(before.st_atime_ns, before.st_mtime_ns))

    def content() -> None:
        _write(root + b"sizes/1", data(1 + seed % 100, seed))
        _write(root + b"compressible/100", b"")
        for number in dice.sample(range(1000), 20):
            if os.path.exists(root + b"many/%d" % number):
                _write(root + b"many/%d" % number, b"%d changed by %d" % (number, seed))

    def big_file() -> None:
        with open(root + b"sizes/20971523", "r+b") as stream:
            stream.seek(10 * MIB + dice.randrange(MIB))
            stream.write(data(5000, ("middle", seed)))
            stream.seek(0, os.SEEK_END)
            stream.write(data(70 * KIB, ("end", seed)))
        os.truncate(root + b"duplicates/2/9437184", dice.randrange(8 * MIB - 5, 9 * MIB))

    def holes() -> None:
        subprocess.run([b"fallocate", b"--punch-hole", b"--offset", b"%d" % (MIB * dice.randrange(4, 9)), b"--length", b"%d" % (300 * KIB),
                        root + b"zeros/9437184"], check=True, stderr=subprocess.PIPE)
        with open(root + b"sparse/all-hole", "r+b") as stream:
            stream.seek(MIB * dice.randrange(30))
            stream.write(data(4096, seed))

    def modes() -> None:
        os.chmod(root + b"modes/file-0644", 0o600 + dice.randrange(64))
        os.chmod(root + b"modes/dir-0777", 0o700 + dice.randrange(64))
        os.chmod(root + b"modes/file-4755", 0o755 if seed % 2 else 0o4755)

    def owners() -> None:
        os.lchown(root + b"owners/1-2", dice.randrange(1 << 31), dice.randrange(1 << 31))

    def times() -> None:
        for name in (b"empty/file", b"empty/dir", b"symlinks/dangling", b"specials/fifo"):
            os.utime(root + name, ns=(0, dice.randrange(-(10**18), 10**19)), follow_symlinks=False)

    def xattrs() -> None:
        os.setxattr(root + b"xattrs-user/file", b"user.text", mark)
        os.setxattr(root + b"xattrs-user/dir", b"user.added-" + mark, b"")
        if b"user.empty" in map(os.fsencode, os.listxattr(root + b"xattrs-user/file")):
            os.removexattr(root + b"xattrs-user/file", b"user.empty")

    def acls() -> None:
        os.setxattr(root + b"acls/file", b"system.posix_acl_access", _acl((0x02, 1 + seed % 7, 1000 + seed)))

    def renames() -> None:
        names = root + b"names/"
        newest = max((name for name in os.listdir(names) if name.startswith(b"new")), key=len)
        os.rename(names + newest, names + b"new\nline " + mark)
        os.rename(root + b"duplicates/0", root + b"duplicates/moving")
        os.rename(root + b"duplicates/moving", root + b"duplicates/0")

    def deletions() -> None:
        present = sorted(os.listdir(root + b"many"))
        for name in dice.sample(present, min(5, len(present))):
            os.unlink(root + b"many/" + name)

    def additions() -> None:
        os.makedirs(root + b"added/%s/empty" % mark)
        _write(root + b"added/%s/file" % mark, data(300 * KIB, seed))
        os.symlink(mark, root + b"added/%s/link" % mark)

    def types() -> None:
        """file -> directory -> symlink -> fifo -> file, a step a call."""
        turning = root + b"turning"
        kind = stat.S_IFMT(os.lstat(turning).st_mode) if os.path.lexists(turning) else 0
        if kind == stat.S_IFDIR:
            os.unlink(turning + b"/inside")
            os.rmdir(turning)
        elif kind:
            os.unlink(turning)
        if kind == stat.S_IFREG:
            os.mkdir(turning)
            _write(turning + b"/inside", mark)
        elif kind == stat.S_IFDIR:
            os.symlink(b"sizes", turning)
        elif kind == stat.S_IFLNK:
            os.mkfifo(turning)
        else:
            _write(turning, mark)
        # And all at once, on three entries of the first build.
        if not kind:
            os.unlink(root + b"modes/file-0400")
            os.mkdir(root + b"modes/file-0400")
            os.rmdir(root + b"modes/dir-1644")
            os.symlink(b"../sizes", root + b"modes/dir-1644")
            os.unlink(root + b"symlinks/parent")
            _write(root + b"symlinks/parent", b"no longer a link")

    def links() -> None:
        os.link(root + b"links/here/1", root + b"links/extra-" + mark)
        if os.path.exists(root + b"links/here/2-again"):
            os.unlink(root + b"links/here/2-again")
            # A member that leaves its group, with the same content as before.
            held = os.lstat(root + b"links/there/deeper/0")
            os.unlink(root + b"links/there/deeper/0")
            _touch(root + b"links/there/deeper/0")
            os.utime(root + b"links/there/deeper/0", ns=(held.st_atime_ns, held.st_mtime_ns))

    edits: list[Callable[[], None]] = [same_size_same_mtime, content, big_file, holes, modes, owners, times, xattrs, acls, renames, deletions, additions,
                                       types, links]
    for edit in edits:
        try:
            edit()
        except (OSError, subprocess.CalledProcessError) as error:
            skipped.append(f"{edit.__name__.replace('_', ' ')}: {error}")
    return skipped


def _write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(content)


def _touch(path: bytes) -> None:
    _write(path, b"")


def _acl(*entries: tuple[int, int, int]) -> bytes:
    """The kernel's form of an ACL: the three usual entries, those given as (tag, permissions, id), and a mask."""
    nobody = 0xFFFFFFFF
    every = sorted([(0x01, 6, nobody), (0x04, 4, nobody), (0x10, 7, nobody), (0x20, 4, nobody), *entries])
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, permissions, who) for tag, permissions, who in every)


def _set_times(directory: bytes | int, relative: bytes) -> None:
    """Give every entry a time chosen by its path, children before their directory."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY) if isinstance(directory, bytes) else directory
    try:
        for name in os.listdir(handle):
            name = os.fsencode(name)
            path = relative + b"/" + name
            if stat.S_ISDIR(os.lstat(name, dir_fd=handle).st_mode):
                _set_times(os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle), path)
            _set_time(name, path, handle)
        if isinstance(directory, bytes):
            _set_time(b".", relative, handle)
    finally:
        os.close(handle)


def _set_time(name: bytes, relative: bytes, handle: int) -> None:
    chosen = TIMES[int.from_bytes(hashlib.sha256(relative).digest()[:4], "big") % len(TIMES)]
    os.utime(name, ns=(chosen, chosen), dir_fd=handle, follow_symlinks=False)
