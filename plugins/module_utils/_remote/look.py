# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A look at all that a remote has of a host: its commits and its indexes, by listings. What the listings do not have is asked for once more."""

from __future__ import annotations

import typing as t

from .._base import Damaged, RemoteRefused, Unsupported
from . import known, names
from .memory import IndexName, Memory, State
from .transport import Transport


class Look:
    """Made when it is needed, and kept for all backups of a push.

    :param lost: indexes of this host were lost, so the commits of copies are read: they may name one of these.
    """

    def __init__(self, transport: Transport, host: str, memory: Memory, lost: bool = False) -> None:
        self._transport, self._host, self._memory, self._lost = transport, host, memory, lost
        self._commits: t.Dict[str, t.Dict[names.Push, None]] = {}
        self._indexes: t.Dict[str, t.Optional[int]] = {}
        self._listed = False
        self._altered: t.Set[str] = set()
        state = memory.state()
        #: Whether what is remembered of the remote fits to what it has.
        self.fits = state is None or self.fits_to(state)

    def fits_to(self, state: State) -> bool:
        """Whether the newest commit is the last that is remembered, and the indexes are there with their sizes."""
        last = names.Push(self._host, state.last)
        newer = [push for push in self._of(self._host) if push.id > last.id]
        missing = [index.name for index in state.indexes if self._size(index.name) != index.size]
        self._altered.update(missing)
        if missing:
            self._lost = True
            self._memory.lost()
        self.fits = not missing and self._is_listed(last) and all(known.is_revoked(self._transport, push) for push in newer)
        return self.fits

    def has(self, push: names.Push) -> bool:
        """Whether a commit is there. If indexes of this host were lost, also whether those are there that it names."""
        if not self._is_listed(push):
            return False
        if push.host != self._host or not self._lost:
            return True
        try:
            found = known.read_commit(self._transport, push)
        except Unsupported:
            return True
        except Damaged:
            return False
        return found is not None and all(self._size(name) is not None and name not in self._altered for name, _digest in found.commit.indexes)

    def add(self, push: names.Push, indexes: t.Iterable[IndexName]) -> None:
        """A commit was created, and what is remembered is of now."""
        self._of(push.host)[push] = None
        self._indexes.update((index.name, index.size) for index in indexes)
        self.fits = True

    def _of(self, host: str) -> t.Dict[names.Push, None]:
        if host not in self._commits:
            self._commits[host] = dict.fromkeys(known.committed(self._transport, host))
        return self._commits[host]

    def _is_listed(self, push: names.Push) -> bool:
        if push not in self._of(push.host):
            try:
                late = self._transport.head(push.commit) is not None
            except RemoteRefused:
                if push.host == self._host:
                    raise
                late = False  # of a name that this host had before, and may not read: the listing decides
            if late:
                self._commits[push.host][push] = None
        return push in self._commits[push.host]

    def _size(self, index: str) -> t.Optional[int]:
        """The size of an index; None where it is missing."""
        if not self._listed:
            self._indexes = {entry.name: entry.size for entry in self._transport.list(f"{names.INDEXES}{self._host}/")}
            self._listed = True
        if index not in self._indexes:
            entry = self._transport.head(index)
            self._indexes[index] = entry.size if entry is not None else None
        return self._indexes[index]
