# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.
"""Databases among the files that were read: detected by signature or name, and reported if a process has them open for writing.

A copy of such a file has its state at one moment at best, and the journal beside it that of another. It may be unusable, so the run lists these
files, and says how to get a usable copy. Sources: the file formats of SQLite, LMDB and Berkeley DB; names that PostgreSQL,
InnoDB and RocksDB give to their files; proc_pid_fd(5), proc_pid_fdinfo(5).
"""

from __future__ import annotations

import os
import re
import typing as t

#: Bytes from a file's start that tell what it is.
HEAD = 32

_SQLITE = b"SQLite format 3\0"
_LMDB = (0xBEEFC0DE).to_bytes(4, "little")
_BERKELEY = tuple(number.to_bytes(4, order) for number in (0x053162, 0x061561, 0x042253) for order in ("little", "big"))
#: Kinds as `dumps` calls them.
_SYSTEMS = {"SQLite": "sqlite", "InnoDB": "mariadb", "PostgreSQL": "postgresql"}
_NAMES = (
    ("InnoDB", re.compile(rb"(?:.+\.ibd|ibdata\d+|ib_logfile\d+|undo_\d+|#ib_redo\d+(?:_tmp)?)\Z")),
    ("PostgreSQL", re.compile(rb"(?:pg_control|[0-9A-F]{24})\Z")),
    ("RocksDB", re.compile(rb"(?:MANIFEST-\d{6,}|\d{6,}\.(?:log|sst|ldb))\Z")),
)


def kind_of(name: bytes, head: bytes) -> str:
    """Which database a file belongs to, by its name and its first bytes; empty for any other file."""
    if head[:16] == _SQLITE:
        return "SQLite"
    if head[16:20] in (_LMDB, _LMDB[::-1]):
        return "LMDB"
    if head[12:16] in _BERKELEY:
        return "Berkeley DB"
    return next((kind for kind, names in _NAMES if names.match(name)), "")


class Found(t.NamedTuple):
    """A file of a database: which one, and the file itself, by which it is known in containers as well."""

    kind: str
    device: int
    inode: int


def open_for_writing(databases: t.Mapping[bytes, Found]) -> t.List[bytes]:
    """Those of some files that a process has open for writing, as far as we may see.

    :param databases: by path. Other files are not accessed: they may be on a mount that does not respond.
    """
    wanted: t.Dict[bytes, t.Dict[t.Tuple[int, int], bytes]] = {}
    for path, found in databases.items():
        wanted.setdefault(os.path.basename(path), {})[found.device, found.inode] = path
    written = set()
    for process in os.listdir("/proc") if wanted else ():
        if not process.isdigit():
            continue
        try:
            for number in os.listdir(f"/proc/{process}/fd"):
                place = f"/proc/{process}/fd/{number}"
                files = wanted.get(os.path.basename(os.fsencode(os.readlink(place))))
                if files is None:
                    continue
                info = os.stat(place)
                path = files.get((info.st_dev, info.st_ino), b"")
                if path and path not in written and _writes(process, number):
                    written.add(path)
        except OSError:
            continue  # it has ended, or is another user's
    return sorted(written)


def _writes(process: str, number: str) -> bool:
    with open(f"/proc/{process}/fdinfo/{number}", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _colon, value = line.partition(":")
            if name == "flags":
                return int(value, 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def advice(databases: t.Mapping[bytes, Found], shown: t.Callable[[bytes], str], dumped: t.Container[str] = ()) -> t.List[str]:
    """A sentence for each kind of database whose files were read while a process had them open for writing.

    :param databases: by path, relative to the source. :param dumped: kinds in lower case of which the backup has dumps.
    """
    kinds: t.Dict[str, t.List[bytes]] = {}
    for path in open_for_writing(databases):
        if _SYSTEMS.get(databases[path].kind) not in dumped:
            kinds.setdefault(databases[path].kind, []).append(path)
    return [
        f"{len(paths)} file(s) of a {kind} database were open for writing during the backup, first {shown(paths[0])}; the copy may be inconsistent. Back up a"
        " dump (`dumps`) or a snapshot (`snapshot`), or stop the database during the backup."
        for kind, paths in sorted(kinds.items())
    ]
