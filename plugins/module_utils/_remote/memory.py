# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What this host knows of a remote: its own commits and packs there, and a push that was not finished.

::

    cache/remote-<name>.blobs      table: id of a blob -> pack, segment; what the host's indexes tell
    cache/remote-<name>.state      JSON: the newest commit, the indexes, what was last copied of each workload
    cache/remote-<name>.samples    table: id of a blob -> number of a pack of another host; see `shared`
    cache/remote-<name>.journal    JSON lines: the push that is under way, its packs
    cache/remote-at-<URL>.about    what the remote at a URL is, as in its volt.json; the name has 16 digits of the SHA-256 of the URL
    cache/remote-<name>.lost       empty: its time is when an index was last found to be lost
    cache/remote-<name>.looked-<choice>    empty: its time is when what the remote has was last listed, for this choice of backups

The name is made of the remote's id and of what the host is called there. All of this is derived, and lies in the store's cache. Blobs and
state belong together: where one is missing, or is not of the same indexes as the other, both are made anew from the remote. The journal is
only read by the next push.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import struct
import typing as t
import zlib

from .._base import files, store_failure
from .._store.store import Store
from .._store.table import Mapped, Table, Unusable, map_file
from . import names
from .about import About
from .indexes import LINE

_PLACE = struct.Struct("<II")  # number of the pack, segment
_SUM = struct.Struct("<I")  # CRC-32 of what is behind a table: JSON
_STATE_MOST = 64 << 20
_JOURNAL_MOST = 1 << 30


class IndexName(t.NamedTuple):
    """An index of this host on the remote."""

    name: str
    sha256: str
    size: int


class Content(t.NamedTuple):
    """What was last copied of a workload.

    :ivar ids: of its root and its table of hard links, as the remote's indexes name them, in hex.
    :ivar needs: the packs that have all of it: the name of each push, and their numbers as in a commit.
    """

    ids: str
    needs: t.Tuple[t.Tuple[str, str], ...]


class State(t.NamedTuple):
    """Where a host stands on a remote: its newest commit, its indexes, and the lists of tombstones that were read."""

    seq: int = 0
    previous: t.Optional[str] = None
    #: The newest commits, without the host, the newest last.
    recent: t.Tuple[str, ...] = ()
    indexes: t.Tuple[IndexName, ...] = ()
    tombstones: t.Tuple[str, ...] = ()
    #: False from before a commit is created until it is noted, and where the remote did not fit: then only the numbers count, at least.
    sure: bool = True
    #: By workload.
    contents: t.Mapping[str, Content] = {}

    @property
    def last(self) -> str:
        """The newest commit, without the host; empty where there is none."""
        return self.recent[-1] if self.recent else ""

    @property
    def key(self) -> str:
        """What the table of blobs must be of."""
        return hashlib.sha256(json.dumps([self.indexes, self.tombstones]).encode()).hexdigest()


class Blobs:
    """The blobs that a host's indexes name: id -> the pack that has it. A mapped table, and what came to it since."""

    def __init__(self, base: t.Optional[Table] = None, packs: t.Iterable[names.Pack] = ()) -> None:
        self._base, self._fresh = base or Table(_PLACE.size), Table(_PLACE.size)
        self._packs = list(packs)
        self._numbers = {pack: number for number, pack in enumerate(self._packs)}
        self._dead: t.Set[int] = set()

    def find(self, blob: bytes) -> t.Optional[names.Pack]:
        """The pack that has a blob; None where it is not known, or the pack is about to be deleted."""
        place = self.place(blob)
        return None if place is None else place[0]

    def place(self, blob: bytes) -> t.Optional[t.Tuple[names.Pack, int]]:
        """The same, and the number of the segment."""
        for table in (self._fresh, self._base):
            position = table.find(blob)
            if position >= 0:
                number, segment = _PLACE.unpack(table.value(position))
                if number not in self._dead:
                    return self._packs[number], segment
        return None

    def add(self, pack: names.Pack, body: bytes, over: bool = True) -> None:
        """Learn what a pack has, by its list. :param over: of two packs with the same blob, believe in this one."""
        number = self._numbers.setdefault(pack, len(self._packs))
        if number == len(self._packs):
            self._packs.append(pack)
        for segment, blob, _length in LINE.iter_unpack(body):
            place = _PLACE.pack(number, segment)
            position = self._fresh.find(blob)
            if position >= 0:
                if over:
                    self._fresh.replace(position, place)
            else:
                self._fresh.add(blob, place)

    def packs(self, needs: t.Mapping[names.Push, t.Set[int]]) -> t.Optional[t.Set[names.Pack]]:
        """The packs with these numbers; None where one of them is not known, or is about to be deleted."""
        found = {pack for number, pack in enumerate(self._packs) if number not in self._dead and pack.number in needs.get(pack.push, ())}
        return found if len(found) == sum(map(len, needs.values())) else None

    def forget(self, pack: names.Pack) -> None:
        """Believe no more in a pack, which is about to be deleted on the remote."""
        if pack in self._numbers:
            self._dead.add(self._numbers[pack])

    def parts(self, key: str) -> t.Iterator[t.Any]:
        """The file form. :param key: of the state that it goes with."""
        alive = [pack for number, pack in enumerate(self._packs) if number not in self._dead]
        yield from _parts(self._whole() if self._dead or len(self._base) else self._fresh, [key, [pack.name for pack in alive]])

    def _whole(self) -> Table:
        """One table with all that counts."""
        whole = Table(_PLACE.size, len(self._base) + len(self._fresh))
        numbers = {number: position for position, number in enumerate(n for n in range(len(self._packs)) if n not in self._dead)}
        for table in (self._fresh, self._base):
            for position in range(len(table)):
                blob = table.digest(position)
                number, segment = _PLACE.unpack(table.value(position))
                if number in numbers and (table is self._fresh or whole.find(blob) < 0):
                    whole.add(blob, _PLACE.pack(numbers[number], segment))
        return whole


def _parts(table: Table, value: t.Any) -> t.Iterator[t.Any]:
    """The file form of a table and what goes with it."""
    text = json.dumps(value).encode()
    yield from table.parts()
    yield _SUM.pack(zlib.crc32(text)) + text


def _mapped(path: str, width: int) -> t.Tuple[Mapped, t.Any]:
    """A table and what goes with it. ValueError, OSError, struct.error or Unusable where it is not there, or not as it was written."""
    view = map_file(path)
    table = Mapped(path, view, 0, width)
    table.check()
    tail = bytes(view[table.end :])
    if zlib.crc32(tail[_SUM.size :]) != _SUM.unpack_from(tail)[0]:
        raise Unusable(path)
    return table, json.loads(tail[_SUM.size :])


def remembered(store: Store, where: str) -> t.Optional[About]:
    """What the remote at a URL was when a push to it ended; None where that is not known."""
    try:
        return About(**json.loads(store.cache.read(_about_at(where), _STATE_MOST) or b"null"))
    except (ValueError, TypeError, RecursionError, OSError):
        return None


def remember(store: Store, where: str, about: About) -> None:
    """Write that down. OSError where it fails."""
    if remembered(store, where) != about:
        store.cache.write(_about_at(where), json.dumps(about._asdict()).encode())


def _about_at(where: str) -> str:
    return f"remote-at-{hashlib.sha256(where.encode()).hexdigest()[:16]}.about"


class Memory:
    """The files of one remote. :param remote: its id. :param host: what this host is called there, which may change. :param dry: check mode."""

    def __init__(self, store: Store, remote: str, host: str, dry: bool = False) -> None:
        self._dry = dry
        self._cache, self._name = store.cache, f"remote-{remote}-{hashlib.sha256(host.encode()).hexdigest()[:8]}"

    @property
    def lock(self) -> str:
        """The path of the file that one push of this host holds at a time."""
        return self._cache.path(f"{self._name}.lock")

    def state(self) -> t.Optional[State]:
        """None where that is not known."""
        try:
            value = json.loads(self._cache.read(f"{self._name}.state", _STATE_MOST) or b"null")
            return State(
                int(value["seq"]), value["previous"], tuple(value["recent"]), tuple(IndexName(*item) for item in value["indexes"]), tuple(value["tombstones"]),
                bool(value["sure"]),
                {workload: Content(ids, tuple((push, bits) for push, bits in needs)) for workload, (ids, needs) in value["contents"].items()},
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
            return None

    def blobs(self, state: State) -> t.Optional[Blobs]:
        """Those that go with a state; None where they are not there or not of it, and where it is in doubt."""
        if not state.sure:
            return None
        try:
            table, (key, found) = _mapped(self._cache.path(f"{self._name}.blobs"), _PLACE.size)
            packs = [names.parse_pack(name) for name in found]
            if key != state.key or not all(packs):
                return None
            return Blobs(table, t.cast(t.List[names.Pack], packs))
        except (ValueError, KeyError, TypeError, RecursionError, OSError, struct.error, Unusable):
            return None

    def save(self, state: State, blobs: Blobs, anew: bool) -> None:
        """Write down where the host stands. OSError where that fails. :param anew: the blobs, too, as they have changed."""
        if anew:
            self._cache.write(f"{self._name}.blobs", blobs.parts(state.key))
        self._cache.write(f"{self._name}.state", json.dumps(state._asdict()).encode())

    def samples(self, width: int) -> t.Optional[t.Tuple[Table, t.Any]]:
        """What is known of other hosts, as it was saved; None where it is not there. :param width: of the table's values."""
        try:
            return _mapped(self._cache.path(f"{self._name}.samples"), width)
        except (ValueError, RecursionError, OSError, struct.error, Unusable):
            return None

    def save_samples(self, table: Table, value: t.Any) -> None:
        """Remember it. :param value: what goes with the table, as JSON. OSError where that fails."""
        self._cache.write(f"{self._name}.samples", _parts(table, value))

    def looked_at(self, choice: str) -> float:
        """When what the remote has was last listed, for a choice of backups: seconds since 1970, 0 where that is not known."""
        try:
            return os.stat(self._cache.path(self._look(choice))).st_mtime
        except OSError:
            return 0.0

    def looked(self, choice: str) -> None:
        """It was listed, and what had been lost is there again. What fails here costs a look next time."""
        with contextlib.suppress(OSError):
            self._cache.write(self._look(choice), b"")

    @property
    def lost_at(self) -> float:
        """When an index of this host was last found to be lost, as `looked_at`."""
        try:
            return os.stat(self._cache.path(f"{self._name}.lost")).st_mtime
        except OSError:
            return 0.0

    def lost(self) -> None:
        """An index is lost: for each choice of backups, the copies that need it are to be looked for. Not noted in check mode."""
        if self._dry:
            return
        with contextlib.suppress(OSError):
            self._cache.write(f"{self._name}.lost", b"")

    def _look(self, choice: str) -> str:
        return f"{self._name}.looked-{hashlib.sha256(choice.encode()).hexdigest()[:8]}"

    def doubt(self) -> None:
        """Trust only the numbers of commits, until it is saved again."""
        state = self.state()
        if state is None:
            return
        try:
            self._cache.write(f"{self._name}.state", json.dumps(state._replace(sure=False)._asdict()).encode())
        except OSError:
            self._cache.remove(f"{self._name}.state")

    @property
    def journal(self) -> Journal:
        return Journal(self._cache.path(f"{self._name}.journal"))


class Committed(t.NamedTuple):
    """A commit: its SHA-256, and the id and the SHA-256 of the manifest of the backup in it."""

    sha256: str
    backup: str
    manifest: str


class Unfinished(t.NamedTuple):
    """A push that was begun and has no commit as far as is known."""

    push: names.Push
    #: The packs that are on the remote, each with its list.
    packs: t.List[t.Tuple[names.Pack, bytes]]
    indexes: t.List[IndexName]
    #: Packs that the indexes name.
    indexed: t.Set[names.Pack]
    #: The next numbers that no pack and no index may have.
    next_pack: int = 0
    next_index: int = 0
    #: Of the commit that was about to be created: its SHA-256 in hex, and which backup is in it.
    commit: t.Optional[Committed] = None


class Journal:
    """The push that is under way: each line is written before the step after it begins, and outlives a killed process."""

    def __init__(self, path: str) -> None:
        self._path = path

    def begin(self, push: names.Push) -> None:
        files.write_file(self._path, self._line({"push": str(push)}))

    def number(self, pack: int, index: int) -> None:
        """The numbers that come next. Written before one is used: what a killed push has sent under it is none of ours."""
        self._append({"next": [pack, index]})

    def pack(self, pack: names.Pack, body: bytes) -> None:
        """A pack is on the remote. :param body: its list."""
        self._append({"pack": pack.name, "list": base64.b64encode(body).decode()})

    def index(self, index: IndexName, packs: t.Iterable[names.Pack]) -> None:
        """An index is on the remote."""
        self._append({"index": list(index), "packs": [pack.name for pack in packs]})

    def commit(self, commit: Committed) -> None:
        """A commit is about to be created."""
        self._append({"commit": list(commit)})

    def end(self) -> None:
        files.quietly(files.unlink, self._path)

    def read(self) -> t.Optional[Unfinished]:
        """The unfinished push; None where there is none. A line that a killed process wrote in part is as if it were not there."""
        try:
            lines = files.read_file(self._path, _JOURNAL_MOST).split(b"\n")
            push = names.parse_push(json.loads(lines[0])["push"])
            if push is None:
                return None
            found = Unfinished(push, [], [], set())
            for line in lines[1:]:
                try:
                    value = json.loads(line)
                except ValueError:
                    continue
                found = self._learn(found, value)
            return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
            return None

    @staticmethod
    def _learn(found: Unfinished, value: t.Dict[str, t.Any]) -> Unfinished:
        if "next" in value:
            return found._replace(next_pack=max(found.next_pack, value["next"][0]), next_index=max(found.next_index, value["next"][1]))
        if "commit" in value:
            return found._replace(commit=Committed(*value["commit"]))
        packs = [names.parse_pack(name) for name in value.get("packs", [value.get("pack")])]
        if not all(packs):
            raise ValueError(value)
        known = t.cast(t.List[names.Pack], packs)
        if "pack" in value:
            body = base64.b64decode(value["list"])
            if len(body) % LINE.size:
                raise ValueError(value["pack"])
            found.packs.append((known[0], body))
        else:
            found.indexes.append(IndexName(*value["index"]))
            found.indexed.update(known)
        return found

    @staticmethod
    def _line(value: t.Dict[str, t.Any]) -> bytes:
        return json.dumps(value, separators=(",", ":")).encode() + b"\n"

    def _append(self, value: t.Dict[str, t.Any]) -> None:
        try:
            fd = files.open_file(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                files.write_all(fd, b"\n" + self._line(value))
            finally:
                os.close(fd)
        except OSError as error:
            raise store_failure("noting how far a push is", error) from None
