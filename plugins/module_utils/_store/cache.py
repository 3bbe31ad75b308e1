# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Files that may be lost at any time: what the last walk of a source saw, what a restore put where, how far a scrub has come.

Losing them costs time, nothing else.
"""

from __future__ import annotations

import os
import typing as t

from .._base import Damaged, StoreError, UsageError, files

STAT_CACHE = ".scan"


class Cache:
    """The cache files of the store at a path."""

    def __init__(self, store: str) -> None:
        self._directory = os.path.join(store, "cache")

    def path(self, name: str) -> str:
        """Where a file is or would be, for readers that map it and for a transaction that moves one in."""
        return os.path.join(self._directory, name)

    def read(self, name: str, most: int) -> t.Optional[bytes]:
        """A small file's bytes; None where it cannot be had."""
        try:
            return files.read_stored(self.path(name), most)
        except (FileNotFoundError, Damaged, StoreError, UsageError):
            return None

    def has(self, name: str) -> bool:
        return os.path.lexists(self.path(name))

    def write(self, name: str, data: t.Union[bytes, t.Iterable[t.Any]]) -> None:
        """Write a file, of its bytes or the pieces that they are made of. OSError where that fails."""
        files.write_file(self.path(name), data)

    def names(self, ending: str) -> t.List[str]:
        """Names of the files of one kind that there are."""
        return [name for name in files.names_in(self._directory) if name.endswith(ending)]

    def remove(self, name: str) -> None:
        """Remove a file, if that can be done."""
        files.quietly(os.unlink, self.path(name))

    def sweep(self, age: float) -> None:
        """Remove what dead runs left half-written, if it is older than so many seconds."""
        files.sweep(self._directory, age)
