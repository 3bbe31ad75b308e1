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

    :ivar fits: whether what is remembered of the remote fits to what it has. It is found out when it is first asked for.
    """

    def __init__(self, transport: Transport, host: str, memory: Memory) -> None:
        self._transport, self._host, self._memory = transport, host, memory
        self._commits: t.Dict[str, t.Dict[names.Push, None]] = {}
        self._indexes: t.Dict[str, t.Optional[int]] = {}
        self._listed = False
        self._fits: t.Optional[bool] = None
        self._lost = False  # also after new commits

    @property
    def fits(self) -> bool:
        if self._fits is None:
            state = self._memory.state()
            self._fits = state is None or self.fits_to(state)
        return self._fits

    def fits_to(self, state: State) -> bool:
        """Whether the newest commit is the last that is remembered, and the indexes are there with their sizes."""
        newest, last = next(reversed(self._of(self._host)), None), names.Push(self._host, state.last)
        ahead = newest is not None and newest.id > last.id
        self._fits = not ahead and self._is_listed(last) and all(self._size(index.name) == index.size for index in state.indexes)
        self._lost = self._lost or not self._fits
        return self._fits

    def has(self, push: names.Push) -> bool:
        """Whether a commit is there. If indexes of this host were lost, also whether those are there that it names."""
        try:
            if not self._is_listed(push):
                return False
            if push.host != self._host or self.fits and not self._lost:
                return True
            found = known.read_commit(self._transport, push)
            return found is not None and all(self._size(name) is not None for name, _digest in found.commit.indexes)
        except RemoteRefused:
            if push.host == self._host:
                raise
            return True  # of a name that this host had before: what it may not read is not judged
        except Unsupported:
            return True
        except Damaged:
            return False

    def add(self, push: names.Push, indexes: t.Iterable[IndexName]) -> None:
        """A commit was created, and what is remembered is of now."""
        self._of(push.host)[push] = None
        self._indexes.update((index.name, index.size) for index in indexes)
        self._fits = True

    def _of(self, host: str) -> t.Dict[names.Push, None]:
        if host not in self._commits:
            self._commits[host] = dict.fromkeys(known.committed(self._transport, host))
        return self._commits[host]

    def _is_listed(self, push: names.Push) -> bool:
        if push not in self._of(push.host) and self._transport.head(push.commit) is not None:
            self._commits[push.host][push] = None  # a listing may be late
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
