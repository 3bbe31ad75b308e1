# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A push: one backup of this host to a remote.

The order of the steps is what makes a push and a collection on the remote safe together (see `docs/remote-format.md`):

1. choose the push's name, or take up the unfinished one of the journal
2. create the intent
3. read the tombstones that are new, and forget the packs that they name
4. only then ask which blobs are on the remote, or whether the packs of the last copy of the same content are
5. upload packs of what is not, several at once, and an index of them
6. create the commit; the name may be taken by this push itself (a lost answer) or by a revocation, after which all begins anew
7. remove the intent, replace the head

A remote can be set back to an earlier day at any time. So before 1 the newest commit of the host must be there, before a push is taken up its packs, and
before 6 all that it sent. If they are not, what is remembered of the remote does not count.

Nothing that is on the remote is overwritten. A push that is killed before 6 leaves packs that no commit names, and its journal: the next push takes
them up. After 6 the backup exists.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import time
import typing as t

from .._base import Damaged, Phase, Progress, RemoteError, Standing, lock_file, now, store_failure, unwatched
from .._format.reachability import Reachability
from .._store.store import Store
from . import about, commits, indexes, known, memory, names
from .about import About
from .keys import Keys
from .look import Look
from .memory import Blobs, Committed, Content, IndexName, Memory, State, Unfinished
from .transport import Transport
from .upload import Uploader

if t.TYPE_CHECKING:
    from .shared import Shared

#: How often a push begins anew because a collection revoked it.
_TURNS = 3
#: Seconds between two looks at all that the remote has. Less than a day: a daily push looks each time.
_LOOK = 20 * 3600.0
#: A commit names about so many indexes that are not full, at most; with more, the smallest earlier ones become one.
INDEXES_MOST = 16


class PushRequest(t.NamedTuple):
    """Where to, and how."""

    transport: Transport
    #: What this host is called there.
    host: str
    keys: Keys = Keys()
    #: How many packs are uploaded at once.
    jobs: int = 4
    #: The id that the remote must have; None for any.
    id: t.Optional[str] = None
    #: Names the backups that are chosen. For each such choice, what the remote has is listed now and then.
    choice: str = ""
    #: Days for which objects are locked; None where they are not.
    lock: t.Optional[int] = None
    #: Use packs that other hosts have sent.
    share: bool = False
    #: Of these, only those that were vetted.
    vetted: bool = False
    #: Say what would be sent, and write nothing, here or there.
    dry: bool = False


class Backup(t.NamedTuple):
    """What goes: the bytes of the sidecar and of the manifest, and what the manifest refers to."""

    id: str
    workload: str
    type: str
    sidecar: bytes
    manifest: bytes
    root: bytes
    links: bytes


class Pushed(t.NamedTuple):
    """What a push did, or would do."""

    #: `<host>/<push>`; None in check mode.
    push: t.Optional[str]
    #: Blobs and bytes (plain) that the remote did not have.
    new_blobs: int
    new_bytes: int
    #: Bytes and packs that were uploaded.
    sent_bytes: int
    sent_packs: int
    #: `<host>/<push>` of an earlier copy of the backup, which the remote has lost.
    lost: t.Optional[str] = None


class _Ended(Exception):
    """A push has its commit already, or a collection has revoked it: what is remembered of it is of no use.

    :ivar commit: SHA-256 of its commit in hex.
    """

    def __init__(self, commit: str) -> None:
        super().__init__(commit)
        self.commit = commit


class _SetBack(Exception):
    """The remote does not have what this push, or an earlier one, has written there."""


#: (id of a backup, SHA-256 of its manifest, <host>/<push>)
Note = t.Callable[[str, str, str], None]


class Pusher:
    """Pushes backups of one store to one remote.

    :param note: called with a backup's id, the SHA-256 of its manifest and `<host>/<push>` once the copy is there, and before that is forgotten.
    """

    def __init__(self, store: Store, request: PushRequest, note: Note, progress: Progress = unwatched, standing: t.Optional[Standing] = None) -> None:
        self._store, self._request, self._note, self._progress = store, request, note, progress
        self._transport, self._keys = request.transport, request.keys
        self._standing = standing or Standing()
        self._standing.phase = self._reading
        remembered = self._remembered()
        self._fresh = remembered is not None  # the newest commit was seen a moment ago
        self.about = remembered or about.read(self._transport)
        about.check(self._transport, self.about, self._keys, request.id)
        about.check_lock(self._transport, self.about, request.lock)
        self._memory = Memory(store, self.about.id, request.host, request.dry)
        self._shared = self._new_shared() if request.share else None
        self._look = self._new_look() if self._is_due(self._memory) else None
        #: How many of this host's newest commits the remote does not have.
        self.missing = 0

    @property
    def _reading(self) -> Phase:
        return Phase("reading what the remote has", lambda: self._transport.pace.moved)

    def _is_due(self, remembered: Memory) -> bool:
        looked = remembered.looked_at(self._request.choice)
        return not 0 <= time.time() - looked < _LOOK or looked <= remembered.lost_at

    def _new_look(self) -> Look:
        lost = self._memory.looked_at(self._request.choice) <= self._memory.lost_at > 0
        return Look(self._transport, self._request.host, self._memory, lost)

    def _new_shared(self) -> Shared:
        from .shared import Shared  # which most hosts do not need

        return Shared(self._transport, self._keys, self._request.host, self._memory, self._request.vetted)

    def _remembered(self) -> t.Optional[About]:
        """What is remembered of the remote. It holds if the newest commit is there: no other remote has one of that name."""
        found = memory.remembered(self._store, self._transport.where)
        if found is None:
            return None
        there = Memory(self._store, found.id, self._request.host)
        state = there.state()
        if state is None or self._is_due(there) or not self._is_newest(state):
            return None
        found.tell(self._transport)
        return found

    def _is_newest(self, state: State) -> bool:
        """Whether the newest commit on the remote is the last of a state. One request, also where there is a newer one."""
        before = state.recent[-2] if len(state.recent) > 1 else ""
        there = known.committed(self._transport, self._request.host, before)
        last = names.Push(self._request.host, state.last)
        return last in there and all(known.is_revoked(self._transport, push) for push in there if push.id > last.id)

    @property
    def looks(self) -> bool:
        """Whether `has` tells what is there. It can begin to while backups are pushed, because something is missing."""
        return self._look is not None

    def has(self, push: str, surely: bool = False) -> bool:
        """Whether a copy is on the remote. That is asked once in `_LOOK`, by listings; else it counts as there.

        :param push: `<host>/<push>`. :param surely: ask in any case.
        """
        found = names.parse_push(push)
        if found is None:
            return False
        if self._look is None and surely and (found.host != self._request.host or self._transport.head(found.commit) is None):
            self._look = self._new_look()
        return self._look is None or self._look.has(found)

    def ended(self) -> None:
        """The copies of this choice that the remote has lost are made again."""
        if self._look is not None:
            if not self._look.fits:
                self._memory.doubt()
            self._memory.looked(self._request.choice)

    def __call__(self, backup: Backup) -> Pushed:
        """Push one backup. The caller keeps what it needs from being collected, and is `alone`."""
        for _turn in range(_TURNS):
            unfinished = None if self._request.dry else self._memory.journal.read()
            try:
                return self._push(backup, unfinished)
            except _SetBack:
                self._memory.journal.end()
                self._look = self._new_look()
            except _Ended as ended:
                done = unfinished.commit if unfinished is not None else None
                if unfinished is not None and done is not None and done.sha256 == ended.commit:  # it was killed after that
                    self._note(done.backup, done.manifest, str(unfinished.push))
                self._memory.journal.end()
                self._memory.doubt()
                if unfinished is not None and done == Committed(ended.commit, backup.id, _sha256(backup.manifest)):
                    return Pushed(str(unfinished.push), 0, 0, 0, 0)
        raise RemoteError(f"{self._transport.where}: the push was ended {_TURNS} times by collections there, or by lost objects; push again later.")

    @contextlib.contextmanager
    def alone(self) -> t.Iterator[None]:
        """No other push of this store goes to the remote meanwhile. LockTimeout where one takes longer than others are waited for."""
        if self._request.dry:
            yield
            return
        timeout = self._store.lock_timeout
        self._standing.phase = Phase("waiting for another push of this host", patience=timeout)
        os.makedirs(os.path.dirname(self._memory.lock), 0o700, exist_ok=True)
        fd = lock_file(self._memory.lock, fcntl.LOCK_EX, time.monotonic() + timeout, f"the pushes to {self._transport.where}")
        self._standing.phase = self._reading
        try:
            yield
        finally:
            if fd is not None:
                os.close(fd)

    def _push(self, backup: Backup, unfinished: t.Optional[Unfinished]) -> Pushed:
        state, blobs, written = self._stand()
        begun = self._begin(state, unfinished)
        if self._shared is not None:
            self._shared.begin()
        state = known.forget_tombstones(self._transport, state, blobs, self._shared)
        for pack, body in begun.packs:
            blobs.add(pack, body)
        journal, jobs = self._memory.journal, self._request.jobs
        uploader = Uploader(self._store, jobs, self._transport, self._keys, blobs, journal, begun, self._progress, self._shared)
        self._standing.phase = Phase("sending", lambda: (uploader.steps, self._transport.pace.moved))
        unchanged = self._unchanged(backup, state, blobs)
        if unchanged is None:
            reach = Reachability(self._store.read, uploader.content, uploader.metadata)
            reach(backup.root, backup.links)
        else:
            uploader.use(unchanged)
        if self._request.dry:
            return Pushed(None, uploader.new_blobs, uploader.new_bytes, 0, 0)
        uploader.send()
        own = self._indexes(state, uploader)
        self._check_borrowed([pack for pack, _body in uploader.borrowed])
        self._check_sent(begun.push, uploader, state if written else None)
        state = self._commit(backup, begun.push, state, own, uploader.needs())
        self._note(backup.id, _sha256(backup.manifest), str(begun.push))
        self._end(begun.push, state, blobs, anew=state.key != written)
        return Pushed(str(begun.push), uploader.new_blobs, uploader.new_bytes, uploader.sent_bytes, uploader.sent_packs)

    def _ids(self, backup: Backup) -> str:
        return "".join(self._keys.blob_id(digest).hex() for digest in (backup.root, backup.links) if digest)

    def _unchanged(self, backup: Backup, state: State, blobs: Blobs) -> t.Optional[t.Set[names.Pack]]:
        """The packs that have all of a backup, where its content is that of the last copy of its workload; None where the walk must tell.

        They hold what they held then, so no tree of the backup is read.
        """
        content = state.contents.get(backup.workload)
        if content is None or content.ids != self._ids(backup):
            return None
        try:
            needs = {names.parse_push(push): commits.numbers(bits) for push, bits in content.needs}
        except ValueError:
            return None
        return None if None in needs else blobs.packs(t.cast(t.Dict[names.Push, t.Set[int]], needs))

    # ---- steps

    def _stand(self) -> t.Tuple[State, Blobs, str]:
        """Where this host stands, what the remote has of it, and the key of what is remembered: empty where that cannot be relied on.

        A remote that was set back has lost packs with its newest commits, and what a lost index names cannot be found.
        """
        kept, fresh, self._fresh = self._memory.state(), self._fresh, False
        if kept is not None:
            if not fresh and not self._is_newest(kept):
                self._look = self._new_look()
            blobs = self._memory.blobs(kept) if self._look is None or self._look.fits_to(kept) else None
            if blobs is not None:
                return kept, blobs, kept.key
        state, blobs, whole = known.recover(self._transport, self._request.host, self._keys)
        if not whole:
            self._memory.lost()
        if kept is not None and kept.seq > state.seq:
            # the numbers go on, so that a reader sees which commits are missing
            self.missing = kept.seq - state.seq
            state = state._replace(seq=kept.seq, previous=kept.previous, recent=kept.recent)
        return state, blobs, ""

    def _begin(self, state: State, found: t.Optional[Unfinished]) -> Unfinished:
        """Take up the unfinished push, or begin one; its intent is there afterwards, except in check mode."""
        ended = self._transport.get(found.push.commit) if found is not None else None
        if ended is not None:
            raise _Ended(_sha256(ended))
        if found is not None and found.packs:
            self._check_packs(found.push, [pack for pack, _body in found.packs])
        if found is None or found.push.host != self._request.host or found.push.id <= state.last:
            # names ascend, whatever the clock does, so that the last name is the newest commit
            moment = max(now(), names.moment(state.last) + datetime.timedelta(seconds=1)) if state.last else now()
            found = Unfinished(names.new_push(self._request.host, moment), [], [], set())
            try:
                if not self._request.dry:
                    self._memory.journal.begin(found.push)
            except OSError as error:
                raise store_failure("beginning a push", error) from None
        if not self._request.dry:
            self._transport.create(found.push.intent, json.dumps({"intent": 1, "push": str(found.push)}).encode() + b"\n")
        return found

    def _check_packs(self, push: names.Push, packs: t.Iterable[names.Pack]) -> None:
        there = {entry.name for entry in self._transport.list(f"{names.PACKS}{push}/")}
        if not there.issuperset(pack.name for pack in packs):
            raise _SetBack

    def _check_borrowed(self, packs: t.Sequence[names.Pack]) -> None:
        """_SetBack where the remote has lost a pack of another host that the backup uses."""
        there = {entry.name for push in {pack.push for pack in packs} for entry in self._transport.list(f"{names.PACKS}{push}/")}
        lost = [pack for pack in packs if pack.name not in there]
        if lost and self._shared is not None:
            self._shared.forget(lost)
            raise _SetBack

    def _check_sent(self, push: names.Push, uploader: Uploader, remembered: t.Optional[State]) -> None:
        """_SetBack where the remote has lost what this push has sent, or what was there before: many packs take time.

        :param remembered: where this host stands; None where that was just read.
        """
        if not uploader.indexes:
            return
        there = {entry.name for entry in self._transport.list(f"{names.INDEXES}{push}-")}
        if not there.issuperset(index.name for index in uploader.indexes):
            raise _SetBack
        if len(uploader.packs) > 2:  # more than one of each kind
            self._check_packs(push, uploader.packs)
            if remembered is not None and not self._is_newest(remembered):
                raise _SetBack

    def _indexes(self, state: State, uploader: Uploader) -> t.Tuple[IndexName, ...]:
        """The indexes that name all blobs of this host's backups; earlier ones are folded where they are too many. Those stay: earlier commits name them."""
        own = (*state.indexes, *uploader.indexes)
        count = sum(index.size < indexes.FULL for index in own)
        partial = sorted((index for index in state.indexes if index.size < indexes.FULL), key=lambda index: index.size)
        if count <= INDEXES_MOST or len(partial) < 2:
            return own
        small = partial[: count - INDEXES_MOST // 2]
        try:
            lists = [found for index in small for found in known.read_index(self._transport, self._keys, index)]
        except Damaged:
            self._memory.doubt()
            self._memory.lost()
            raise _SetBack from None
        folded = uploader.write_indexes(lists)
        return (*(index for index in own if index not in small), *folded)

    def _commit(self, backup: Backup, push: names.Push, state: State, own: t.Tuple[IndexName, ...], needs: t.Dict[names.Push, t.Set[int]]) -> State:
        """Create the commit: from then on the backup exists on the remote."""
        commit = commits.Commit(
            push, state.seq + 1, state.previous, self._keys.group(backup.workload, backup.type), [(index.name, index.sha256) for index in own], needs
        )
        sealed = self._keys.seal_catalog(backup.sidecar), self._keys.seal_data(backup.manifest)
        data = commits.encode(commit, *sealed, self._keys.sealed, self._keys.sign)
        self._memory.doubt()  # until it is written again: a commit that it does not know would get a second one with its number
        self._memory.journal.commit(Committed(_sha256(data), backup.id, _sha256(backup.manifest)))
        if not self._transport.create(push.commit, data):
            there = self._transport.get(push.commit)
            if there != data:
                if there is not None and commits.parse(push.commit, there) is None:
                    raise _Ended(_sha256(there))
                raise RemoteError(
                    f"{self._transport.where}: {push.commit} was written by another host; give each host a name and keys of its own, then push again."
                )
        if self._look is not None:
            self._look.add(push, own)
        content = Content(self._ids(backup), tuple((str(push), commits.bitmap(numbers)) for push, numbers in sorted(needs.items())))
        return state._replace(
            seq=commit.seq, previous=_sha256(data), recent=(*state.recent, push.id)[-commits.HEAD_MOST :], indexes=own,
            contents={**state.contents, backup.workload: content},
        )  # fmt: skip

    def _end(self, push: names.Push, state: State, blobs: Blobs, anew: bool) -> None:
        """The backup is there. What fails from here on costs requests next time, and nothing else."""
        with contextlib.suppress(OSError):
            self._memory.save(state, blobs, anew)
            if self._shared is not None:
                self._shared.save()
            memory.remember(self._store, self._transport.where, self.about)
        self._memory.journal.end()
        with contextlib.suppress(RemoteError):  # which a host may have no right to
            self._transport.delete([push.intent])
        with contextlib.suppress(RemoteError):
            self._transport.put(f"{names.HEADS}{push.host}", commits.head(push.host, state.seq, state.recent, self._keys.sign))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
