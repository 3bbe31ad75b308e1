# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The structure of a host's copies: whether the remote has all that they need. No content of files is read.

::

    read the commits: each has the signature of its host and the manifest that its record names, and follows the one before
    read the indexes, compare them with the digests in the commits, and list the packs
    read all trees and lists, from packs of metadata; for each blob of content, look whether a pack has it that is there

What is listed and no commit needs is unreferenced, unless its push is under way, or a commit that needs it may have been lost. A pack of content that was
altered, or cut behind its list of blobs, is only found by reading it, as a drill does.
"""

from __future__ import annotations

import itertools
import typing as t

from .._backup import records
from .._backup.verify import Verified
from .._base import Damaged, Foreign, NotFound, RemoteRefused, Unsupported, show
from .._format.reachability import Reachability, Tracer
from .._restore.spool import Spool
from . import choice, commits, known, names, reading
from .blobs import RemoteBlobs
from .fetcher import Fetcher
from .keys import Keys
from .places import Places
from .transport import Transport

_Item = t.Dict[str, t.Any]


def _item(backup: t.Optional[str], path: t.Optional[str], file: t.Optional[str], reason: str) -> _Item:
    return {"id": backup, "path": path, "file": file, "reason": reason}


class Survey:
    """One look at the copies of a host, which has some. Use once.

    :param jobs: requests at once. :param ids: only these backups; none: all.
    """

    def __init__(self, transport: Transport, keys: Keys, jobs: int, host: str, ids: t.Sequence[str]) -> None:
        self._transport, self._keys, self._jobs, self._host, self._ids = transport, keys, jobs, host, ids
        self._pushes: t.Set[names.Push] = set()
        self._read: t.List[commits.Read] = []
        self._whole: t.List[t.Tuple[str, records.Manifest]] = []
        self._unsupported: t.Set[str] = set()
        self._files: t.List[_Item] = []  # commits and indexes
        self._lacking: t.Dict[bytes, str] = {}

    def __call__(self, limit: int) -> Verified:
        """What was found. NotFound where an id is of no backup. :param limit: damaged items and unreferenced objects that are named."""
        self._read_commits()
        with Fetcher(self._transport, self._keys, self._jobs, Spool()) as fetcher:
            named = dict(pair for read in self._read for pair in read.commit.indexes)
            places = Places(self._transport, self._keys, list(named.items()), None, True, fetcher.contents)
            self._files += [_item(None, None, name, wrong) for name, wrong in sorted(places.faulty.items())]
            blobs = RemoteBlobs(fetcher, self._keys, places, True, None)
            self._look(blobs, places)
            listed, count, hurt = self._damage(blobs, limit)
        warnings = [] if self._ids else reading.chain_faults(self._host, self._read)
        unreferenced: t.List[str] = []
        if not self._ids:
            written = self._indexes_without(named)
            uncommitted = self._uncommitted(written.values())
            warnings += [
                f"{push} on {self._transport.where} has an index and no commit; it was cut off, or its commit was lost. List the host's backups and compare."
                for push in uncommitted
            ]
            if not warnings:
                unreferenced = self._unreferenced(places, written)
        return Verified(
            damage=listed, damage_count=count, damaged=hurt, unsupported=sorted(self._unsupported), foreign=[], unlisted=[],
            backup_count=len({backup for backup, _manifest in self._whole}.union(hurt, self._unsupported)), file_count=0, byte_count=0, covered=None,
            repaired=None, changed=False, warnings=warnings, remote=self._transport.where,
            unreferenced=unreferenced[:limit], unreferenced_count=len(unreferenced),
        )  # fmt: skip

    def _read_commits(self) -> None:
        missing = set(self._ids)
        for push in known.committed(self._transport, self._host):
            self._pushes.add(push)
            try:
                found = reading.read(self._transport, self._keys, push)
                if found is None or self._ids and found[1]["id"] not in self._ids:
                    continue
                read, sidecar = found
                self._read.append(read)
                missing.discard(sidecar["id"])
                self._whole.append((f"{self._host}/{sidecar['id']}", choice.manifest(self._keys, read, sidecar)))
            except Unsupported:
                self._unsupported.add(str(push))
            except (Damaged, Foreign) as error:
                self._files.append(_item(str(push), None, push.commit, error.message))
        if missing:
            raise NotFound(f"{self._transport.where} has no backup {self._host}/{min(missing)}; list the backups there.")

    def _look(self, blobs: RemoteBlobs, places: Places) -> None:
        """Go through all trees."""
        lacking, keys = self._lacking, self._keys

        def content(digest: bytes, _size: int) -> None:
            place = places.find(keys.blob_id(digest))
            if place is None:
                lacking[digest] = f"Blob {digest.hex()} is in no index of the host."
            elif place[0] in places.missing:
                lacking[digest] = f"Blob {digest.hex()} is missing, because {place[0].name} is missing or truncated."

        def broken(digest: bytes, error: Damaged) -> None:
            lacking[digest] = error.message

        reach = Reachability(blobs.read, content, broken=broken)
        for backup, manifest in self._whole:
            try:
                reach(manifest.root.content, manifest.links)
            except Unsupported:
                self._unsupported.add(backup)
        self._whole = [(backup, manifest) for backup, manifest in self._whole if backup not in self._unsupported]

    def _damage(self, blobs: RemoteBlobs, limit: int) -> t.Tuple[t.List[_Item], int, t.List[str]]:
        """The first items, how many there are in all, and the backups concerned."""
        listed, count = self._files[:limit], len(self._files)
        hurt = {item["id"] for item in self._files if item["id"] is not None}
        trace = Tracer(blobs.read, self._lacking)
        for backup, manifest in self._whole if self._lacking else ():
            found = trace.count(manifest.root.content, manifest.links)
            if found:
                count += found
                hurt.add(backup)
                paths = itertools.islice(trace(manifest.root.content, manifest.links), max(0, limit - len(listed)))
                listed += [_item(backup, show(path) or ".", None, reason) for path, reason in paths]
        return listed, count, sorted(hurt)

    def _indexes_without(self, named: t.Mapping[str, str]) -> t.Dict[str, names.Push]:
        """The indexes that no commit names, with their pushes."""
        found = {}
        for entry in self._transport.list(f"{names.INDEXES}{self._host}/"):
            index = names.parse_index(entry.name)
            if index is not None and entry.name not in named:
                found[entry.name] = index[0]
        return found

    def _under_way(self) -> t.Set[names.Push]:
        """The pushes that have begun and not ended, and those that ended since the commits were read."""
        # in this order: a push that ends now has had an intent, or has a commit
        found = {names.parse_push(entry.name[len(names.INTENTS) :]) for entry in self._transport.list(f"{names.INTENTS}{self._host}/")}
        found.update(set(known.committed(self._transport, self._host)) - self._pushes)
        return {push for push in found if push is not None}

    def _uncommitted(self, written: t.Iterable[names.Push]) -> t.List[names.Push]:
        """Pushes that wrote an index after the last commit. Commits are numbered, so a lost one before the last is noticed without this."""
        last = max(self._pushes, default=None)  # a remote may list nothing where it just had something
        found = {push for push in written if last is None or push > last}
        return sorted(found - self._under_way()) if found else []

    def _left_by_others(self, packs: t.Iterable[names.Pack]) -> t.List[names.Pack]:
        """Those of the packs that no commit of another host needs; none where one of these commits cannot be read."""
        left = set(packs)
        for host, pushes in reading.hosts(self._transport).items():
            for push in (known.committed(self._transport, host) if pushes is None else pushes) if host != self._host else ():
                try:
                    read = known.read_commit(self._transport, push)
                except (Damaged, Unsupported, RemoteRefused):  # a host needs no rights to read the commits of others
                    return []
                needs = read.commit.needs if read is not None else {}
                left = {pack for pack in left if pack.number not in needs.get(pack.push, ())}
        return sorted(left)

    def _unreferenced(self, places: Places, written: t.Mapping[str, names.Push]) -> t.List[str]:
        """Packs and indexes that no commit needs. Empty if a commit cannot be read, because it may need them."""
        if len(self._whole) < len(self._read) or self._files or self._unsupported:
            return []
        needs: t.Dict[names.Push, t.Set[int]] = {}
        for read in self._read:
            for push, numbers in read.commit.needs.items():
                needs.setdefault(push, set()).update(numbers)
        ours = [pack for pack in places.there if pack.push.host == self._host]
        found = {pack.name: pack.push for pack in ours if pack.number not in needs.get(pack.push, ())}
        if found:  # hosts may share
            found = {pack.name: pack.push for pack in self._left_by_others(ours) if pack.name in found}
        found.update(written)
        under_way = self._under_way()
        return sorted(name for name, push in found.items() if push not in under_way)
