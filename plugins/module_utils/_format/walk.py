# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Going through trees: from the top entry by entry, directory by directory with the way back up, or from the leaves; and straight to a path.

None of these recurses: a tree may be deeper than a stack. Paths are bytes, relative to a root whose own path is empty.
"""

from __future__ import annotations

import typing as t

from .tree import DIRECTORY, Entry

#: Digest of a tree -> its entries, ascending by name.
Load = t.Callable[[bytes], t.Sequence[Entry]]


def join(parent: bytes, name: bytes) -> bytes:
    """A path relative to a root, which itself is empty."""
    return parent + b"/" + name if parent else name


def _always(_path: bytes, _entry: Entry) -> bool:
    return True


def walk(load: Load, top: Entry, path: bytes = b"", into: t.Callable[[bytes, Entry], bool] = _always) -> t.Iterator[t.Tuple[bytes, Entry]]:
    """(path, entry) of an entry and of all below it: depth first, names ascending.

    :param path: of `top`. :param into: asked of each directory once the caller has had it; False leaves out what is in it.
    """
    todo = [(path, top)]
    while todo:
        here, entry = todo.pop()
        yield here, entry
        if entry.kind == DIRECTORY and into(here, entry):
            todo += [(join(here, child.name), child) for child in reversed(load(entry.content))]


def directories(load: Load, root: Entry, into: t.Callable[[bytes, Entry], bool] = _always) -> t.Iterator[t.Tuple[bytes, Entry, bool]]:
    """(path, entry, whether it is left) of each directory: once when it is entered, and once when all below it is done.

    :param into: asked of each subdirectory after its parent was entered, in ascending order.
    """
    todo = [(b"", root, False)]
    while todo:
        path, entry, left = todo.pop()
        yield path, entry, left
        if left:
            continue
        todo.append((path, entry, True))
        below = [(join(path, child.name), child) for child in load(entry.content) if child.kind == DIRECTORY]
        todo += reversed([(here, child, False) for here, child in below if into(here, child)])


def leaves_first(root: bytes, below: t.Callable[[bytes], t.Iterable[bytes]], is_known: t.Callable[[bytes], bool]) -> t.Iterator[bytes]:
    """Digests of trees that are not known, each once, after all that it refers to: the caller learns it before it takes the next.

    :param below: the trees that a tree refers to; asked once for each.
    """
    todo = [(root, False)]
    while todo:
        digest, left = todo.pop()
        if is_known(digest):
            continue
        if left:
            yield digest
            continue
        todo.append((digest, True))
        todo += [(child, False) for child in below(digest)]


def find(load: Load, root: Entry, path: bytes) -> t.Optional[Entry]:
    """The entry at a path, or None. Each directory on the way is searched by name; nothing else is read."""
    entry = root
    for name in path.split(b"/") if path else ():
        if entry.kind != DIRECTORY:
            return None
        entries = load(entry.content)
        low, high = 0, len(entries)
        while low < high:
            middle = (low + high) // 2
            if entries[middle].name < name:
                low = middle + 1
            else:
                high = middle
        if low == len(entries) or entries[low].name != name:
            return None
        entry = entries[low]
    return entry
