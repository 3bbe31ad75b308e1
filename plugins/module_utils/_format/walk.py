# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Walks over trees: from the top by entry, by directory with the way back up, or from the leaves; and straight to a path.

None of these is recursive: a tree may be deeper than a stack. Paths are bytes, relative to a root whose own path is empty.
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


def cut(here: bytes, length: int, name: bytes) -> bytes:
    """The path of an entry that a walk comes to, depth first, from any path below the same directory.

    Only the path where a walk stands is kept: those of all directories on the way to it take the square of its depth.

    :param here: where the walk stands. :param length: of the directory's path.
    """
    return join(here[:length], name) if name else here[:length]


def walk(load: Load, top: Entry, path: bytes = b"", into: t.Callable[[bytes, Entry], bool] = _always) -> t.Iterator[t.Tuple[bytes, Entry]]:
    """(path, entry) of an entry and of all below it: depth first, names ascending.

    :param path: of `top`. :param into: called for each directory after it was yielded; False skips its contents.
    """
    todo: t.List[t.Tuple[int, t.List[Entry]]] = []
    here = path
    yield path, top
    if top.kind == DIRECTORY and into(path, top):
        todo.append((len(path), list(reversed(load(top.content)))))
    while todo:
        length, left = todo[-1]
        here = here[:length]
        while left:
            entry = left.pop()
            yield join(here, entry.name), entry
            if entry.kind == DIRECTORY and into(join(here, entry.name), entry):
                here = join(here, entry.name)
                todo.append((len(here), list(reversed(load(entry.content)))))
                break
        else:
            todo.pop()


def directories(load: Load, root: Entry, into: t.Callable[[bytes, Entry], bool] = _always) -> t.Iterator[t.Tuple[bytes, Entry, bool]]:
    """(path, entry, whether it is left) of each directory: once when it is entered, and once when all below it is done.

    :param into: asked of each subdirectory after its parent was entered, in ascending order.
    """
    todo: t.List[t.Tuple[int, bytes, Entry, bool]] = [(0, b"", root, False)]
    here = b""
    while todo:
        length, name, entry, left = todo.pop()
        here = cut(here, length, name)
        yield here, entry, left
        if left:
            continue
        todo.append((len(here), b"", entry, True))
        below = [child for child in load(entry.content) if child.kind == DIRECTORY]
        todo += reversed([(len(here), child.name, child, False) for child in below if into(join(here, child.name), child)])


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


class Replaced(t.NamedTuple):
    """A root with other entries in its trees, and the entries that stood there before, by path."""

    root: Entry
    old: t.Dict[bytes, Entry]


def replaced(load: Load, save: t.Callable[[t.Sequence[Entry]], bytes], root: Entry, entries: t.Mapping[bytes, Entry]) -> Replaced:
    """Replace entries of trees. Paths that no tree has are skipped.

    :param save: stores the entries of one directory, and gives the digest of its tree.
    """
    levels: t.Dict[int, t.Dict[bytes, t.Dict[bytes, Entry]]] = {}

    def put(path: bytes, entry: Entry) -> None:
        above, _slash, name = path.rpartition(b"/")
        levels.setdefault(above.count(b"/") + bool(above), {}).setdefault(above, {})[name] = entry

    for path, entry in entries.items():
        put(path, entry)
    old: t.Dict[bytes, Entry] = {}
    # the deepest first: a change in a directory changes its entry in its parent
    for depth in range(max(levels, default=-1), -1, -1):
        for path, new in levels.pop(depth, {}).items():
            here = find(load, root, path)
            if here is None or here.kind != DIRECTORY:
                continue
            listed = list(load(here.content))
            for at, entry in enumerate(listed):
                if entry.name in new:
                    old[join(path, entry.name)] = entry
                    listed[at] = new[entry.name]
            here = here._replace(content=save(listed))
            if path:
                put(path, here)
            else:
                root = here
    return Replaced(root, {path: entry for path, entry in old.items() if path in entries})
