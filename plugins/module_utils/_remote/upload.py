# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Sends what the remote does not have, in packs.

What other hosts of the domain have sent is not sent again, where hosts share (see `shared`): an index of this host then names their packs. While others
push at the same time, small packs are sent one by one in a random order, so that hosts with the same content do not send the same at once. After each pack,
this host tells the others what it has sent, by an index, and looks at what they have.

A pack or an object of the local store travels as it is stored if the backup needs all of it. Else its blobs that are needed are grouped anew: a push
takes nothing off the host that its backup does not need. Trees and lists do not share packs with content, except where all is below 1 MiB.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import random
import struct
import threading
import typing as t

from .._base import Damaged, Progress, RemoteError
from .._store import codec, outgoing
from .._store.store import Store
from .._store.table import Table
from . import commits, indexes, names, packs
from .keys import Keys
from .memory import Blobs, IndexName, Journal, Unfinished
from .transport import Transport

if t.TYPE_CHECKING:
    from .shared import Shared

#: A push below this is one pack, in plain bytes.
_SMALL = 1 << 20
#: While other hosts push, a pack is finished with so many bytes, and later with a sixteenth of what was sent.
_IN_A_CROWD = 4 << 20
_OBJECT = struct.Struct("<32s?")
#: How often what a local collection has moved is looked for again.
_TURNS = 5
#: What is known of a blob that the backup needs: it is to be sent, as content or as metadata; or it is in a pack that is or will be on the remote.
_CONTENT, _METADATA, _PACKED = b"\0", b"\1", b"\2"
#: Segments that are cut to be grouped anew, by the kind of their pack.
_Groups = t.Dict[int, t.List[t.Tuple[bytes, bytes]]]


class Uploader:
    """Takes the blobs of one backup, then sends those that are new.

    :param blobs: what the remote has; what is sent is added. :param begun: the push, and what it has sent already.
    :param shared: what other hosts have; None where hosts do not share.
    """

    def __init__(
        self,
        store: Store,
        jobs: int,
        transport: Transport,
        keys: Keys,
        blobs: Blobs,
        journal: Journal,
        begun: Unfinished,
        progress: Progress,
        shared: t.Optional[Shared] = None,
    ) -> None:
        self._shared, self._crowded = shared, False
        self._untold = 0  # bytes that were sent since other hosts were told
        self._store, self._jobs, self._transport, self._keys, self._blobs, self._journal = store, jobs, transport, keys, blobs, journal
        self._push, self._progress = begun.push, progress
        self._seen = Table(1)
        self._wanted = 0  # how many blobs are still to be sent
        self._used: t.Set[names.Pack] = set()
        self._named: t.Dict[names.Push, int] = {}  # how much of a commit those of other hosts take
        self._packs: t.Dict[bytes, None] = {}
        self._objects = bytearray()
        self._builders = {kind: packs.Builder(kind) for kind in (packs.CONTENT, packs.METADATA)}
        self._groups: _Groups = {packs.CONTENT: [], packs.METADATA: []}
        self._grouped = {packs.CONTENT: 0, packs.METADATA: 0}  # bytes in each
        self._next = [begun.next_pack, begun.next_index]
        # packs that are on the remote and in no index yet, each with its list
        self._lists: t.List[t.Tuple[names.Pack, bytes]] = [item for item in begun.packs if item[0] not in begun.indexed]
        self._lock = threading.Lock()
        self._running: t.Set[concurrent.futures.Future[None]] = set()
        self._pool = concurrent.futures.ThreadPoolExecutor(jobs)  # which starts no thread before it gets work
        #: Packs of other hosts that no index of this host names yet, each with its list.
        self.borrowed: t.List[t.Tuple[names.Pack, bytes]] = []
        #: Packs that this push has written, or is about to.
        self.packs: t.List[names.Pack] = [pack for pack, _body in begun.packs]
        #: Indexes that this push has written.
        self.indexes: t.List[IndexName] = list(begun.indexes)
        self.new_blobs = self.new_bytes = self.sent_bytes = self.sent_packs = self.steps = 0

    # ---- what is needed

    def use(self, packs: t.Iterable[names.Pack]) -> None:
        """The backup needs just these packs, which are on the remote."""
        self._used.update(packs)

    def content(self, digest: bytes, size: int) -> None:
        """The backup needs a blob of content."""
        self._offer(digest, size, _CONTENT)

    def metadata(self, digest: bytes) -> None:
        """The backup needs a tree, a list or a table."""
        self._offer(digest, -1, _METADATA)

    def _offer(self, digest: bytes, size: int, kind: bytes) -> None:
        if self._seen.find(digest) >= 0:
            return
        self.steps += 1
        if self._is_there(digest):
            self._seen.add(digest, _PACKED)
            return
        self._seen.add(digest, kind)
        self._wanted += 1
        self.new_blobs += 1
        self.new_bytes += max(size, 0)
        self._locate(digest, size, kind)

    def _is_there(self, digest: bytes) -> bool:
        """Whether a pack on the remote has a blob. The backup uses that pack from then on."""
        blob = self._keys.blob_id(digest)
        pack = self._blobs.find(blob)
        if pack is None and self._shared is not None:
            found = self._shared.find(blob)
            if found is not None and self._can_name(found[0]):
                self.borrowed.append(found)
                self._blobs.add(*found, over=False)
                pack = self._blobs.find(blob)
        if pack is None or not self._can_name(pack):
            return False
        self._used.add(pack)
        return True

    def _can_name(self, pack: names.Pack) -> bool:
        """Whether the commit has room for a pack. Other hosts chose the numbers of theirs, so those get half of it."""
        if pack.push.host == self._push.host or pack in self._used:
            return True
        before, size = self._named.get(pack.push, 0), commits.bitmap_size(pack.number)
        room = commits.NEEDS_MOST // 2 - sum(self._named.values()) + before
        if size <= room:
            self._named[pack.push] = max(size, before)
        return size <= room

    def _locate(self, digest: bytes, size: int, kind: bytes) -> None:
        pack = self._store.pack_of(digest, size)
        if pack is None:
            self._store.steadily(lambda: self._store.present(digest, size))  # a collection may just have moved it
            pack = self._store.pack_of(digest, size)
        if pack:
            self._packs[pack] = None
        else:
            self._objects += _OBJECT.pack(digest, kind == _METADATA)

    def needs(self) -> t.Dict[names.Push, t.Set[int]]:
        """The numbers of the packs that have what the backup needs, by push. Called once all is sent."""
        found: t.Dict[names.Push, t.Set[int]] = {}
        for pack in self._used:
            found.setdefault(pack.push, set()).add(pack.number)
        return found

    # ---- sending

    def send(self) -> None:
        """Upload all that is new, and an index of it."""
        self._store.rest()  # the walk is over
        self._transport.pace.stopped.clear()
        with self._pool:
            try:
                self._send_found()
                for _turn in range(_TURNS):
                    if not self._wanted:
                        break
                    self._find_again()
                    self._send_found()
                self._finish()
            except BaseException:
                self._transport.pace.stopped.set()
                for future in self._running:
                    future.cancel()
                raise
        self._index(1)
        self.indexes += self.write_indexes(self.borrowed)
        self._seen = Table(1)  # which was large

    def _send_found(self) -> None:
        """Local packs in the order in which the backup came to them, then objects. What a collection has moved meanwhile is passed over."""
        found, self._packs = list(self._packs), {}
        objects, self._objects = bytes(self._objects), bytearray()
        order: t.Sequence[int] = range(0, len(objects), _OBJECT.size)
        self._crowded = self._shared is not None and self.new_bytes > _IN_A_CROWD and self._shared.is_crowded
        if self._crowded:
            random.shuffle(found)
            order = random.sample(order, len(order))
        for name in found:
            self._take(outgoing.of_pack(self._store, name))
        for start in order:
            digest, is_metadata = _OBJECT.unpack_from(objects, start)
            self._take(outgoing.of_object(self._store, digest, is_metadata))
        for kind in self._groups:
            self._close_group(kind)

    def _find_again(self) -> None:
        """Locate anew what is still to be sent, because it was not where it was."""
        self._store.look_again()
        for position in range(len(self._seen)):
            kind = self._seen.value(position)
            if kind != _PACKED:
                self._locate(self._seen.digest(position), -1, kind)

    def _take(self, file: t.Optional[outgoing.Outgoing]) -> None:
        """Send a local file: as it is if all of it is needed and new, else what of it is."""
        if file is None:
            return  # it is looked for again
        kind = packs.METADATA if file.is_metadata else packs.CONTENT
        wanted = [blob for blob in file.blobs if self._take_blob(blob[0], blob[2])]
        if len(wanted) == len(file.blobs):
            sort = packs.LOCAL_PACK if file.is_pack else packs.BLOBS
            self._add(kind, packs.Segment(file.stored, file.form, len(file.plain), sort, [(digest, length) for digest, _offset, length in wanted]))
            return
        for digest, offset, length in wanted:
            if self._grouped[kind] + length > packs.SEGMENT:
                self._close_group(kind)
            self._groups[kind].append((digest, file.plain[offset : offset + length]))
            self._grouped[kind] += length

    def _take_blob(self, digest: bytes, length: int) -> bool:
        """Whether a blob is still to be sent. From here on it is not."""
        position = self._seen.find(digest)
        kind = self._seen.value(position) if position >= 0 else _PACKED
        if kind == _PACKED:
            return False
        self._seen.replace(position, _PACKED)
        self._wanted -= 1
        if self._shared is not None and self._is_there(digest):  # another host has sent it meanwhile
            self.new_blobs -= 1
            self.new_bytes -= length if kind == _CONTENT else 0
            return False
        return True

    def _close_group(self, kind: int) -> None:
        group, self._groups[kind], self._grouped[kind] = self._groups[kind], [], 0
        if group:
            plain = b"".join(blob for _digest, blob in group)
            form, stored = codec.compress(plain, codec.choose("auto"))
            self._add(kind, packs.Segment(stored, form, len(plain), packs.BLOBS, [(digest, len(blob)) for digest, blob in group]))

    def _add(self, kind: int, segment: packs.Segment) -> None:
        builder = self._builders[kind]
        builder.add(segment)
        self._progress(0, segment.plain)
        enough = max(_IN_A_CROWD, self.sent_bytes >> 4)  # so that there are not many indexes
        if builder.is_full or self._crowded and builder.size >= enough:
            self._upload(builder)
            self._untold += builder.size
            self._builders[kind] = packs.Builder(kind)
            self._crowded = self._shared is not None and self._shared.is_crowded
            if self._shared is not None and self._crowded and self._untold >= enough:
                self._untold = 0
                while self._running:
                    self._wait()
                self._index(1)
                self._shared.look()

    def _finish(self) -> None:
        content, metadata = (self._builders[kind] for kind in (packs.CONTENT, packs.METADATA))
        if self._wanted:
            raise Damaged(f"{self._wanted} blobs were not sent; report this error.")
        if not self.sent_packs and content.segments and metadata.segments and content.size + metadata.size < _SMALL:
            whole = packs.Builder(packs.MIXED)
            for segment in (*content.segments, *metadata.segments):
                whole.add(segment)
            content, metadata = whole, packs.Builder(packs.METADATA)
        for builder in (content, metadata):
            if builder.segments:
                self._upload(builder)
        while self._running:
            self._wait()

    def _upload(self, builder: packs.Builder) -> None:
        """Hand a pack to a thread, once one is free."""
        while len(self._running) >= self._jobs:
            self._wait()
        self._index(indexes.BLOBS)
        data = self._keys.seal_data(builder.finish())
        pack = names.Pack(self._push, self._number(0), builder.kind == packs.METADATA, hashlib.sha256(data).hexdigest())
        body = b"".join(
            indexes.LINE.pack(number, self._keys.blob_id(digest), length) for number, segment in enumerate(builder.segments) for digest, length in segment.blobs
        )
        self._blobs.add(pack, body)
        self._used.add(pack)
        self.packs.append(pack)
        self.sent_packs += 1
        self.sent_bytes += len(data)
        self._running.add(self._pool.submit(self._create, pack, data, body))

    def _create(self, pack: names.Pack, data: bytes, body: bytes) -> None:
        if not self._transport.create(pack.name, data):
            there = self._transport.head(pack.name)  # the answer to a request that did its work was lost
            if there is None or there.size != len(data):
                raise RemoteError(f"{self._transport.where}: {pack.name} already exists with other content; find out what else writes to the remote.")
        with self._lock:
            self._journal.pack(pack, body)
            self._lists.append((pack, body))
        self.steps += 1

    def _wait(self) -> None:
        done, self._running = concurrent.futures.wait(self._running, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in done:
            future.result()

    def _number(self, which: int) -> int:
        """A number that no pack (0) or index (1) of this push has, or ever will have."""
        number = self._next[which]
        self._next[which] += 1
        with self._lock:
            self._journal.number(*self._next)
        return number

    def _index(self, least: int) -> None:
        """Upload an index of the packs that are in none, if they have so many blobs."""
        with self._lock:
            if sum(len(body) for _pack, body in self._lists) < least * indexes.LINE.size:
                return
            lists, self._lists = self._lists, []
        self.indexes += self.write_indexes(lists)

    def write_indexes(self, lists: t.Sequence[t.Tuple[names.Pack, bytes]]) -> t.List[IndexName]:
        """Upload indexes of these packs. Those of other hosts get indexes of their own, without samples: their hosts' indexes have these."""
        ours = [item for item in lists if item[0].push.host == self._push.host]
        theirs = [item for item in lists if item[0].push.host != self._push.host]
        return self._write_indexes(ours, 0) + self._write_indexes(theirs, None)

    def _write_indexes(self, lists: t.Sequence[t.Tuple[names.Pack, bytes]], bits: t.Optional[int]) -> t.List[IndexName]:
        written: t.List[IndexName] = []
        todo = list(lists)
        while todo:
            part: t.List[t.Tuple[names.Pack, bytes]] = []
            blobs = 0
            while todo and blobs < indexes.BLOBS:
                part.append(todo.pop(0))
                blobs += len(part[-1][1]) // indexes.LINE.size
            number = self._number(1)
            data = indexes.encode(self._push, number, part, self._keys.seal_list, bits)
            index = IndexName(self._push.index_name(number), hashlib.sha256(data).hexdigest(), len(data))
            if not self._transport.create(index.name, data) and self._transport.get(index.name) != data:
                raise RemoteError(f"{self._transport.where}: {index.name} already exists with other content; find out what else writes to the remote.")
            with self._lock:
                self._journal.index(index, [pack for pack, _body in part])
            written.append(index)
        return written
