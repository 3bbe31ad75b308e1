# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are two trees the same? Judged by rsync, getfattr, getfacl and getcap, and by a plain walk for what those cannot see.

    assert not oracle.differences(a, b)

What each misses, found by trying (test_rigs.py holds them to it):

* rsync compares times to the second unless told `--modify-window=-1`; misses hard links that
  `b` has and `a` lacks, so it is run in both directions; compares no holes; leaves deletions out after any error, so errors count
  as differences; in its patterns a backslash escapes only where the pattern also holds a wildcard.
* getfattr, getfacl and getcap list in directory order, so their lists are compared as sets.
* None of them reaches a path of PATH_MAX bytes. Branches that grow longer than BRANCH are left to the walk from half that length on: it
  goes by directory descriptors and reads file contents there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import subprocess
from dataclasses import dataclass
from typing import Optional

from . import need

BRANCH = 2000  # bytes of a relative path; leaves room below PATH_MAX for the roots' own


@dataclass
class Entry:
    """What lstat and its like say of one entry. An attribute of None was not asked for."""

    type: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: Optional[int] = None
    device: Optional[tuple] = None
    target: Optional[bytes] = None
    xattrs: Optional[dict] = None
    links: Optional[frozenset] = None
    data: Optional[list] = None
    content: Optional[str] = None


def differences(a: str | os.PathLike[str], b: str | os.PathLike[str], holes: bool = True, times: bool = True) -> list[str]:
    """Each difference between two directories, as `tool: what`. `holes` compares where files have data at all."""
    need("rsync", "getfattr", "getfacl", "getcap", root=True)
    left, right = os.fsencode(a), os.fsencode(b)
    mine, yours = walk(left, holes), walk(right, holes)
    hidden = _hidden([*mine, *yours])
    found = compare(mine, yours, times)
    found += rsync(left, right, hidden, times)
    found += [f"{line} (backwards)" for line in rsync(right, left, hidden, times)]
    # A link's attributes are its own: -P and -h, never those of what it points to.
    found += _sets("getfattr", ["getfattr", "-d", "-m-", "-h", "-P", "-R", "-e", "hex", "."], left, right, b"\n\n")
    found += _sets("getfacl", ["getfacl", "-R", "-n", "-P", "."], left, right, b"\n\n")
    found += _sets("getcap", ["getcap", "-n", "-r", "."], left, right, b"\n")
    return found


def rsync(left: bytes, right: bytes, exclude: list[bytes] | None = None, times: bool = True) -> list[str]:
    """What rsync would do to make `right` equal `left`, reading all content."""
    need("rsync")
    command = ["rsync", "-naiHAX", "--numeric-ids", "--checksum", "--delete", "--modify-window=-1", "--8-bit-output",
               "--exclude-from=-", "--from0"]
    if not times:
        command.append("--no-times")
    rules = b"\0".join(_pattern(path) for path in exclude or [])
    done = subprocess.run([*command, "--", left + b"/", right + b"/"], input=rules, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    found = ["rsync: " + _show(line) for line in done.stdout.splitlines()]
    if done.returncode and not found:
        found = [f"rsync: failed with status {done.returncode}"]
    return found


def walk(root: bytes, holes: bool = True) -> dict[bytes, Entry]:
    """Every entry below and including a directory (as `.`), by its relative path, however long."""
    entries: dict[bytes, Entry] = {}
    groups: dict[tuple[int, int], list[bytes]] = {}

    def visit(handle: int, prefix: bytes) -> None:
        for name in sorted(map(os.fsencode, os.listdir(handle))):
            path = prefix + name
            status = os.lstat(name, dir_fd=handle)
            entry = entries[path] = _entry(status, handle, name, holes, content=len(path) > BRANCH // 2)
            if entry.type == "dir":
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
                try:
                    visit(below, path + b"/")
                finally:
                    os.close(below)
            elif status.st_nlink > 1:
                groups.setdefault((status.st_dev, status.st_ino), []).append(path)

    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        entries[b"."] = _entry(os.fstat(top), top, b".", holes, content=False)
        visit(top, b"")
    finally:
        os.close(top)
    for members in groups.values():
        for path in members:
            entries[path].links = frozenset(members)
    return entries


def compare(mine: dict[bytes, Entry], yours: dict[bytes, Entry], times: bool = True) -> list[str]:
    """The differences between two walks."""
    found = []
    for path in sorted({*mine, *yours}):
        left, right = mine.get(path), yours.get(path)
        if left is None or right is None:
            found.append(f"walk: {_show(path)}: only in the {'first' if left else 'second'}")
            continue
        for name in Entry.__dataclass_fields__:
            was, now = getattr(left, name), getattr(right, name)
            if was != now and (times or name != "mtime_ns"):
                was, now = (oct(was), oct(now)) if name == "mode" else (was, now)
                found.append(f"walk: {_show(path)}: {name} {_brief(was)} against {_brief(now)}")
    return found


def _entry(status: os.stat_result, handle: int, name: bytes, holes: bool, content: bool) -> Entry:
    kind = stat.S_IFMT(status.st_mode)
    types = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFCHR: "char",
             stat.S_IFBLK: "block"}
    entry = Entry(types[kind], stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)
    where = b"/proc/self/fd/%d/%s" % (handle, name)
    entry.xattrs = {key: os.getxattr(where, key, follow_symlinks=False) for key in sorted(os.listxattr(where, follow_symlinks=False))}
    if kind == stat.S_IFREG:
        entry.size = status.st_size
        if holes or content:
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=handle)
            with open(opened, "rb") as stream:
                entry.data = _data(opened, status.st_size) if holes else None
                entry.content = _digest(stream) if content else None
    elif kind == stat.S_IFLNK:
        entry.target = os.readlink(name, dir_fd=handle)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        entry.device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return entry


def _data(handle: int, size: int) -> list[tuple[int, int]]:
    """The ranges of a file that are not holes."""
    ranges, end = [], 0
    while end < size:
        try:
            start = os.lseek(handle, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = os.lseek(handle, start, os.SEEK_HOLE)
        ranges.append((start, end))
    return ranges


def _digest(stream) -> str:
    digest = hashlib.sha256()
    stream.seek(0)
    for block in iter(lambda: stream.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def _hidden(paths: list[bytes]) -> list[bytes]:
    """Where the branches that are too long for the tools pass half that length, leaving all above to them."""
    tops = set()
    for path in paths:
        if len(path) > BRANCH:
            slash = path.find(b"/", BRANCH // 2)
            tops.add(path[:slash] if slash >= 0 else path)
    return sorted(tops)


def _pattern(path: bytes) -> bytes:
    return b"/" + (re.sub(rb"([*?\[\\])", rb"\\\1", path) if re.search(rb"[*?\[]", path) else path)


def _sets(tool: str, command: list[str], left: bytes, right: bytes, separator: bytes) -> list[str]:
    lists, failures = [], []
    for root in (left, right):
        done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        # A tool that fails in both trees alike has compared nothing.
        failures += [f"{tool}: {_show(line)}" for line in done.stderr.splitlines() if b"File name too long" not in line]
        lists.append({record for record in done.stdout.split(separator) if record})
    records = sorted([(record, "first") for record in lists[0] - lists[1]] + [(record, "second") for record in lists[1] - lists[0]])
    return failures + [f"{tool}: only in the {side}: {_show(record)}" for record, side in records]


def _show(value: bytes) -> str:
    text = value.decode("utf-8", "backslashreplace").replace("\n", "\\n")
    return text if len(text) <= 300 else text[:150] + "..." + text[-150:]


def _brief(value: object) -> str:
    if isinstance(value, frozenset):
        value = sorted(value)
    text = repr(value)
    return text if len(text) <= 200 else text[:100] + "..." + text[-100:]
