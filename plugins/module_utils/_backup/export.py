# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A backup as a tar archive, in one pass. What GNU tar extracts from it equals a restore, without sockets, which an archive cannot hold.

Each blob is hashed before it is written. An archive that could not be written as a whole has no end, so that tar fails on it.
"""

from __future__ import annotations

import typing as t

from .._base import Damaged, show
from .._format import chunks, walk
from .._format.tree import DIRECTORY, SOCKET, Entry
from .._restore.blobs import exactly
from .._restore.space import Space
from .._restore.supply import Supply
from . import dump, listing, tar
from .origin import Origin
from .restore import keeps_numbers


class Exporter:
    """One export. Iterate it once: it gives the archive, piece by piece. Damaged or NotFound before the first where it cannot be whole.

    :param paths: what to export with all below it; by default, everything.
    :ivar members: how many there are so far. :ivar size: bytes so far. :ivar sockets: paths that were left out.
    """

    def __init__(self, origin: Origin, paths: t.Sequence[str]) -> None:
        self._origin, self._manifest = origin, origin.manifest()
        places = [listing.place(origin, path) for path in paths or (None,)]
        self._tops = [place for place in dict.fromkeys(places) if not any(_is_below(place.path, other.path) for other in places)]
        self.members = self.size = 0
        self.sockets: t.List[str] = []
        self._first: t.Dict[int, bytes] = {}  # by hard-link group, the member with the content
        if not paths:
            origin.check(self._manifest)
        self._group_of = {path: number for number, group in enumerate(origin.groups(self._manifest)) for path in group}
        own = keeps_numbers(origin.sidecar, origin.load, self._manifest)
        self._users, self._groups = ({}, {}) if own else (_encoded(self._manifest.users), _encoded(self._manifest.groups))

    def __iter__(self) -> t.Iterator[bytes]:
        space = Space(self._group_of)
        for path, entry in self._entries():
            space.add(path, entry)
        blobs = self._origin.blobs
        supply = Supply(blobs, space.uses)
        with self._origin.supplying(space.wanted(blobs), 0):
            for path, entry in self._entries():
                try:
                    for piece in self._member(path, entry, supply):
                        self.size += len(piece)
                        yield piece
                except Damaged as error:
                    raise Damaged(
                        f"{show(path)} in backup {self._origin.sidecar['id']} is damaged: {error.message} The archive ends there; export another backup, or"
                        " select the paths you need.",
                        path=show(path),
                    ) from None
            ending = tar.end(self.size)
            self.size += len(ending)
            yield ending

    def _entries(self) -> t.Iterator[t.Tuple[bytes, Entry]]:
        for place in self._tops:
            yield from walk.walk(self._origin.load, place.entry, place.path)

    def _member(self, path: bytes, entry: Entry, supply: Supply) -> t.Iterator[bytes]:
        if entry.kind == SOCKET:
            self.sockets.append(show(path))
            return
        self.members += 1
        name = b"./" + path + (b"/" if path and entry.kind == DIRECTORY else b"")
        member = tar.Member(name, entry, self._users.get(entry.uid, b""), self._groups.get(entry.gid, b""))
        group = self._group_of.get(path)
        if group is not None and self._first.setdefault(group, name) != name:
            yield tar.head(member._replace(link=self._first[group]))
            return
        if not entry.is_file:
            yield tar.head(member)
            return
        holes = dump.holes(self._origin.blobs, entry)
        if holes:
            yield from self._sparse(member, holes)
            return
        yield tar.head(member, entry.size)
        if 0 < entry.size <= chunks.PACKED_MOST:
            yield exactly(supply.read, entry.content, entry.size)
        else:
            yield from dump.pieces(self._origin.blobs, entry)
        yield tar.padding(entry.size)

    def _sparse(self, member: tar.Member, holes: chunks.Holes) -> t.Iterator[bytes]:
        entry, written = member.entry, 0
        yield tar.sparse_head(member, list(chunks.data_ranges(0, entry.size, holes)))
        for offset, piece in dump.spans(self._origin.blobs, entry):
            for start, length in chunks.data_ranges(offset, offset + len(piece), holes):
                yield piece[start - offset : start - offset + length]
                written += length
        yield tar.padding(written)


def result(exporter: Exporter, origin: Origin) -> t.Dict[str, t.Any]:
    """What was exported, for JSON."""
    warnings = [*origin.troubles]
    if exporter.sockets:
        warnings.append(f"{len(exporter.sockets)} socket(s) are not in the archive, first {exporter.sockets[0]}: tar cannot hold sockets.")
    return {"backup_id": origin.sidecar["id"], "members": exporter.members, "size": exporter.size, "skipped": exporter.sockets, "warnings": warnings}


def _is_below(path: bytes, other: bytes) -> bool:
    return path != other and (not other or path.startswith(other + b"/"))


def _encoded(names: t.Mapping[int, str]) -> t.Dict[int, bytes]:
    return {number: name.encode() for number, name in names.items()}
