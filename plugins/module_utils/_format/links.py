# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Hard links: one table a backup, outside the trees, because a link ties places that no single directory sees.

::

    8 bytes   "VOLTLINK"
    u32       count of groups
    each      u32 count of paths, then the paths (from the root, parts joined by "/"), each followed by a NUL

Paths ascend within a group, groups by their first path. Every member also has its full entry in its own tree, so a restore
of a part needs no other part.
"""

from __future__ import annotations

import hashlib
import struct
import typing as t

from .._base import Damaged
from . import magic, tree, walk

#: The longest table that is read.
LIMIT = 1 << 30


def encode(groups: t.Iterable[t.List[bytes]]) -> bytes:
    """The table for groups of at least two paths each."""
    ordered = sorted(sorted(group) for group in groups)
    pieces = [magic.LINKS, struct.pack("<I", len(ordered))]
    for group in ordered:
        pieces.append(struct.pack("<I", len(group)))
        pieces.extend(path + b"\0" for path in group)
    return b"".join(pieces)


def fitting(groups: t.Iterable[t.List[bytes]]) -> t.Tuple[t.List[t.List[bytes]], t.List[t.List[bytes]]]:
    """(groups that fit into a table, those that do not): the shorter ones first, because users can make one as long as they like."""
    held: t.List[t.List[bytes]] = []
    left: t.List[t.List[bytes]] = []
    size = 12
    for group in sorted(groups, key=lambda paths: sum(map(len, paths))):
        size += 4 + sum(map(len, group)) + len(group)
        (held if size <= LIMIT else left).append(group)
    return held, left


def groups(table: t.Iterable[t.List[bytes]], load: walk.Load, root: tree.Entry) -> t.List[t.List[bytes]]:
    """The groups of names whose entries are equal. Backups of version 0.1.0 may tie names of different files. :param table: as decoded."""
    named: t.Dict[bytes, t.List[t.Tuple[bytes, int]]] = {}  # by directory, so that each is read once
    for number, paths in enumerate(table):
        for path in paths:
            above, _slash, name = path.rpartition(b"/")
            named.setdefault(above, []).append((name, number))
    same: t.Dict[t.Tuple[int, bytes], t.List[bytes]] = {}
    for above in sorted(named):
        holder = walk.find(load, root, above)
        entries = {entry.name: entry for entry in load(holder.content)} if holder is not None and holder.kind == tree.DIRECTORY else {}
        for name, number in named[above]:
            entry = entries.get(name)
            if entry is not None:
                what = hashlib.sha256(repr(entry._replace(name=b"")).encode()).digest()
                same.setdefault((number, what), []).append(walk.join(above, name))
    return [sorted(group) for _key, group in sorted(same.items()) if len(group) > 1]


def decode(blob: bytes) -> t.Iterator[t.List[bytes]]:
    """The groups, one by one: a table may have more of them than fit into memory. Damaged if this is not such a table, if a path could lead anywhere
    but down, or where they do not ascend."""
    try:
        magic.check(blob, magic.LINKS, "The table of hard links")
        (count,) = struct.unpack_from("<I", blob, 8)
        offset, first = 12, b""
        for _group in range(count):
            (members,) = struct.unpack_from("<I", blob, offset)
            offset += 4
            group: t.List[bytes] = []
            for _member in range(members):
                end = blob.index(b"\0", offset)
                path = blob[offset:end]
                if group and path <= group[-1]:
                    raise ValueError("paths are not sorted")
                group.append(path)
                offset = end + 1
            if len(group) < 2 or group[0] <= first or any(part in (b"", b".", b"..") for path in group for part in path.split(b"/")):
                raise ValueError("an invalid group")
            first = group[0]
            yield group
        if offset != len(blob):
            raise ValueError("lengths disagree")
    except (struct.error, ValueError) as error:
        raise Damaged(f"The table of hard links is damaged: {error}.") from None
