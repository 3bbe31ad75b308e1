# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Blobs that other hosts have on the remote, for hosts that share them.

The samples of an index tell which ids are in which pack. They are read once for each index of another host, and remembered. A blob that is found so
opens the list of its pack, which is in the same index; then all blobs of the pack are known. No pack is read: that it has the blobs is believed,
because hosts that share are of one domain, and a restore compares each blob with its digest. A host that does not trust the others uses only packs that
were vetted (see `vetted`).

A pack that a list of tombstones names is not used. So tombstones are read before samples, as for the host's own packs (see `push`).
"""

from __future__ import annotations

import datetime
import struct
import typing as t

from .._base import Damaged, NoRemote, RemoteError, RemoteRefused, RemoteUnreachable, Unsupported, now
from .._store.table import Mapped, Table
from . import indexes, names, vetted as vetted_packs
from .keys import Keys
from .memory import Memory
from .transport import Transport

_NUMBER = struct.Struct("<I")
#: What is read of an index at first: of most, the head and all samples.
_FIRST = 256 << 10
#: A push that began before that has ended, as a rule.
_LONG = datetime.timedelta(days=1)
#: So many samples are remembered, at most. With more, only every second id is, then every fourth: the others are found by the lists of packs.
MOST = 1 << 20


def _refused(error: RemoteRefused) -> RemoteRefused:
    why = "Hosts that share read the indexes of each other; give them the rights of `volt-backup remote policy`, or use `share: host`."
    return RemoteRefused(f"{error.message} {why}")


class _Place(t.NamedTuple):
    """Where the list of a pack is: in which index, and where there."""

    pack: str
    of: str
    offset: int
    length: int


class Shared:
    """What other hosts of the domain have. Threads may not share it.

    :param host: this host, whose own indexes are passed over. :param vetted: use vetted packs alone.
    """

    def __init__(self, transport: Transport, keys: Keys, host: str, memory: Memory, vetted: bool = False) -> None:
        self._transport, self._keys, self._host, self._memory = transport, keys, host, memory
        self._samples, known = memory.samples(_NUMBER.size) or (Table(_NUMBER.size), {})
        self._indexes: t.Dict[str, None] = dict.fromkeys(known.get("indexes", ()))
        self._places = [_Place(*place) for place in known.get("places", ())]
        self._dead: t.Set[str] = set(known.get("dead", ()))
        self._bits: int = known.get("bits", 0)
        #: By the names of vetted packs, what their lists must be; None where others are used too. Of which lists of vetted packs.
        self._vetted: t.Optional[t.Dict[str, str]] = dict(known.get("vetted", ())) if vetted else None
        self._vettings: t.Set[str] = set(known.get("vettings", ())) if vetted else set()
        #: The lists of tombstones that were read.
        self.tombstones: t.Set[str] = set(known.get("tombstones", ()))
        self._opened: t.Set[str] = set()
        self._pushes: t.Set[str] = set()  # with vetted packs
        self._looked = self._changed = False

    def begin(self) -> None:
        """A push begins: what others have is looked for again when it is first asked for."""
        self._opened, self._looked = set(), False

    def forget(self, packs: t.Iterable[names.Pack]) -> None:
        """Do not use these packs, which are or will be deleted."""
        before = len(self._dead)
        self._dead.update(pack.name for pack in packs)
        self._changed |= len(self._dead) > before

    def find(self, blob: bytes) -> t.Optional[t.Tuple[names.Pack, bytes]]:
        """The pack of another host that has a blob, and the list of its blobs; None where there is none, or it was told before."""
        if not self._looked:
            self.look()
        position = self._samples.find(blob)
        if position < 0:
            return None
        place = self._places[_NUMBER.unpack(self._samples.value(position))[0]]
        if not self._is_usable(place.pack) or place.pack in self._opened:
            return None
        self._opened.add(place.pack)
        pack = names.parse_pack(place.pack)
        try:
            data = self._transport.get(place.of, place.offset, place.length)
            body = indexes.check(self._keys.open_list(data)) if data else b""
        except (NoRemote, RemoteUnreachable):
            raise
        except (Damaged, RemoteError):
            return None
        return (pack, body) if pack is not None and body and self._is_right(place.pack, body) else None

    def look(self) -> None:
        """Read the samples of the indexes that are new. RemoteRefused where no index of another host was ever read."""
        self._looked = True
        self._read_vetted()
        refused: t.Optional[RemoteRefused] = None
        for entry in self._transport.list(names.INDEXES):
            index = names.parse_index(entry.name)
            if index is not None and index[0].host != self._host and entry.name not in self._indexes and not self._waits(index[0]):
                try:
                    self._read(entry.name, index[0].host)
                except RemoteRefused as error:
                    refused = error
                except (NoRemote, RemoteUnreachable):
                    raise
                except RemoteError:
                    continue  # an object that its host has sent so costs sharing, too
        if refused is not None and not self._indexes:
            raise _refused(refused)

    @property
    def is_crowded(self) -> bool:
        """Whether other hosts push now. One request. An intent stays where a push was killed, so one of another day says nothing."""
        pushes = (names.parse_push(entry.name[len(names.INTENTS) :]) for entry in self._transport.list(names.INTENTS))
        moment = now()
        return any(push is not None and push.host != self._host and abs(names.moment(push.id) - moment) < _LONG for push in pushes)

    def save(self) -> None:
        """Remember what was read. OSError where that fails."""
        if self._changed:
            known = {
                "indexes": [*self._indexes], "places": self._places, "dead": sorted(self._dead), "bits": self._bits, "tombstones": sorted(self.tombstones),
                "vetted": self._vetted or {}, "vettings": sorted(self._vettings),
            }  # fmt: skip
            self._samples = self._writable()
            self._memory.save_samples(self._samples, known)
            self._changed = False

    # ---- inside

    def _is_usable(self, pack: str) -> bool:
        return pack not in self._dead and (self._vetted is None or pack in self._vetted)

    def _is_right(self, pack: str, body: bytes) -> bool:
        """Whether an index says of a pack what was found when it was vetted."""
        return self._vetted is None or self._vetted[pack] == vetted_packs.digest_of(body)

    def _read_vetted(self) -> None:
        """Read the lists of vetted packs that are new, where no others are used."""
        known = self._vetted
        for entry in self._transport.list(names.VETTED) if known is not None else ():
            if known is not None and entry.name not in self._vettings:
                try:
                    known.update(vetted_packs.read(self._transport, entry.name))
                except RemoteRefused as error:
                    raise _refused(error) from None
                self._vettings.add(entry.name)
                self._changed = True
        self._pushes = {pack[len(names.PACKS) :].rpartition("/")[0] for pack in known or ()}

    def _waits(self, push: names.Push) -> bool:
        """Whether nothing of a push was vetted yet. Its index is read later, so that what it says hides no pack that was."""
        return self._vetted is not None and str(push) not in self._pushes

    def _read(self, name: str, host: str) -> None:
        """Learn the samples of an index of a host. One that cannot be used is passed over from now on: it costs sharing, and nothing else.

        A host samples its own packs alone. Samples of others would hide what their own indexes say.
        """
        try:
            first = self._transport.get(name, 0, _FIRST) or b""
            first = self._up_to(name, first, indexes.head_size(first))
            head = indexes.parse_head(first)
            end = head.first_sample + head.samples * indexes.SAMPLE_SIZE
            samples = indexes.samples(self._up_to(name, first, end)[head.first_sample : end])
        except (Damaged, Unsupported):
            head, samples = None, []
        self._indexes[name] = None
        self._changed = True
        start = len(self._places)
        if head is not None and samples:
            self._places += [_Place(place.pack.name, name, place.offset, place.length) for place in head.packs]
        for blob, position in samples:
            if head is not None and position < len(head.packs) and head.packs[position].pack.push.host == host:
                self._learn(blob, start + position)

    def _up_to(self, name: str, data: bytes, size: int) -> bytes:
        """The first bytes of an index, at least so many if it has them. :param data: those that were read."""
        return data if size <= len(data) else data + (self._transport.get(name, len(data), size - len(data)) or b"")

    def _learn(self, blob: bytes, number: int) -> None:
        if int.from_bytes(blob[:8], "big") >> (64 - self._bits):
            return
        position = self._samples.find(blob)
        if position >= 0 and self._is_usable(self._places[_NUMBER.unpack(self._samples.value(position))[0]].pack):
            return
        self._samples = self._writable()
        if position >= 0:
            self._samples.replace(self._samples.find(blob), _NUMBER.pack(number))
        else:
            self._samples.add(blob, _NUMBER.pack(number))
        if len(self._samples) > MOST:
            self._bits += 1
            self._samples = self._copied()

    def _writable(self) -> Table:
        """A table that can grow: what is remembered is a mapped file at first."""
        return self._copied() if isinstance(self._samples, Mapped) else self._samples

    def _copied(self) -> Table:
        copy = Table(_NUMBER.size, len(self._samples))
        for position in range(len(self._samples)):
            blob = self._samples.digest(position)
            if not int.from_bytes(blob[:8], "big") >> (64 - self._bits):
                copy.add(blob, self._samples.value(position))
        return copy
