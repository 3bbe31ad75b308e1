# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What can still be had of a damaged backup.

A lost blob costs the files that need it, a lost listing what is in that directory. `Salvage` finds these paths, and offers the trees without them:
a restore then treats the rest as any backup, and what is lost as something that the backup left alone.
"""

from __future__ import annotations

import typing as t

from .._base import Damaged, show
from .._format import chunks
from .._format.tree import CHUNKED, DIRECTORY, Entry
from .._format.walk import Load, join
from .._fs.exclusions import Skipped
from .blobs import Blobs
from .compare import Selection

#: As many lost paths are named in a message.
_NAMED = 5


class Salvage:
    """The sound rest of a backup, as far as it is asked for.

    :ivar lost: what is not in it: paths of files, and of directories of which the listing is lost; and which of these a path is.
    :ivar reason: why the first of these listings cannot be had, as a sentence.
    """

    def __init__(self, store: Blobs, load: Load, root: Entry, selection: Selection) -> None:
        self._store, self._load = store, load
        self._sound: t.Dict[bytes, bool] = {}
        self._lost_trees: t.Set[bytes] = set()
        self.lost: t.Dict[bytes, bool] = {}
        self.reason = ""
        self._find(root, selection)

    def load(self, digest: bytes) -> t.Sequence[Entry]:
        """The entries of a directory that can be had."""
        if digest in self._lost_trees:
            return []
        entries = self._load(digest)
        return [entry for entry in entries if self._is_sound(entry)] if self.lost else entries

    def skipped(self) -> t.List[Skipped]:
        """What is lost, as something that is not the backup's business. Of a lost directory that is what is in it."""
        return [Skipped(path, "unlisted" if is_directory else "lost", "") for path, is_directory in self.lost.items()]

    def _find(self, root: Entry, selection: Selection) -> None:
        todo = [(b"", root, selection.everything)]
        while todo:
            path, directory, inside = todo.pop()
            try:
                entries = self._load(directory.content)
            except Damaged as error:
                self.reason = self.reason or error.message
                self._lost_trees.add(directory.content)
                self.lost[path] = True
                continue
            for entry in entries:
                here = join(path, entry.name)
                look, wanted = selection.wants(here, inside)
                if look and entry.kind == DIRECTORY:
                    todo.append((here, entry, wanted))
                elif wanted and not self._is_sound(entry):
                    self.lost[here] = False

    def _is_sound(self, entry: Entry) -> bool:
        """Whether the content of a file is here."""
        if not entry.is_file or not entry.size:
            return True
        known = self._sound.get(entry.content)
        if known is None:
            known = self._has(entry)
            if not known or entry.kind == CHUNKED:
                self._sound[entry.content] = known
        return known

    def _has(self, entry: Entry) -> bool:
        if entry.kind != CHUNKED:
            return self._store.has(entry.content, entry.size)
        try:
            found = chunks.decode(self._store.read(entry.content, chunks.LIST_LIMIT), entry.size)
        except Damaged:
            return False
        return all(self._store.has(digest, length) for _offset, length, digest in found.chunks())


def named(paths: t.Sequence[bytes]) -> str:
    """Some paths, for a message."""
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(map(show, paths[:_NAMED])) + more
