# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Going through trees of any shape: all of it, in order, each once, however deep; and straight to a path."""

from __future__ import annotations

from typing import Any

from ansible_collections.volt.backup.plugins.module_utils._format import tree
from ansible_collections.volt.backup.plugins.module_utils._format.tree import DIRECTORY, FIFO, Entry
from ansible_collections.volt.backup.plugins.module_utils._format.walk import directories, find, leaves_first, walk
from hypothesis import given, strategies as st

from ..kit import digest, within

NAMES = st.binary(min_size=1, max_size=3).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))
SHAPES = st.recursive(st.none(), lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=15).map(lambda shape: shape or {})


class Trees(dict):
    """Trees in a dict; counts how often each is loaded."""

    def __init__(self, shape: dict[bytes, Any]) -> None:
        super().__init__()
        self.loaded: list[bytes] = []
        self.root = self.put(b"", shape)

    def put(self, name: bytes, shape: dict[bytes, Any] | None) -> Entry:
        if shape is None:
            return Entry(name, FIFO, 0, 0, 0, 0, 0, 0, b"")
        blob = tree.encode([self.put(below, shape[below]) for below in sorted(shape)])
        self[digest(blob)] = blob
        return Entry(name, DIRECTORY, 0, 0, 0, 0, 0, 0, digest(blob))

    def load(self, key: bytes) -> list[Entry]:
        self.loaded.append(key)
        return tree.decode(self[key])


def paths(shape: dict[bytes, Any] | None, path: bytes = b"") -> list[bytes]:
    """All paths of a shape, depth first, by recursion."""
    found = [path]
    for name in sorted(shape or {}):
        found += paths(shape[name], path + b"/" + name if path else name)
    return found


@given(SHAPES)
def test_walk_and_find(shape: dict[bytes, Any]) -> None:
    trees = Trees(shape)
    walked = list(walk(trees.load, trees.root))
    assert [path for path, _entry in walked] == paths(shape)
    for path, entry in walked:
        assert find(trees.load, trees.root, path) == entry
        assert find(trees.load, trees.root, path + b"/none" if path else b"none") is None
        assert find(trees.load, trees.root, path + b"\xff" if path else b"\xff\xff\xff\xff") is None or path + b"\xff" in paths(shape)


@given(SHAPES)
def test_directories_are_entered_and_left(shape: dict[bytes, Any]) -> None:
    trees = Trees(shape)
    on_the_way: list[bytes] = []
    entered = []
    for path, entry, left in directories(trees.load, trees.root):
        assert entry.kind == DIRECTORY
        if left:
            assert on_the_way.pop() == path
        else:
            assert path.rpartition(b"/")[0] == (on_the_way[-1] if on_the_way else b"")
            on_the_way.append(path)
            entered.append(path)
    assert not on_the_way
    assert entered == [path for path, entry in walk(trees.load, trees.root) if entry.kind == DIRECTORY]


def test_what_is_not_to_be_entered_is_not_loaded() -> None:
    trees = Trees({b"a": {b"b": None}, b"c": {b"d": {b"e": None}}})
    assert [path for path, _entry in walk(trees.load, trees.root, into=lambda path, _entry: path != b"c")] == [b"", b"a", b"a/b", b"c"]
    assert [path for path, _entry, left in directories(trees.load, trees.root, lambda path, _entry: path != b"c") if left] == [b"a", b""]
    assert len(trees.loaded) == 4


@given(SHAPES)
def test_leaves_come_first_and_each_once(shape: dict[bytes, Any]) -> None:
    trees = Trees(shape)
    known: list[bytes] = []

    def below(key: bytes) -> list[bytes]:
        return [entry.content for entry in trees.load(key) if entry.kind == DIRECTORY]

    for key in leaves_first(trees.root.content, below, known.__contains__):
        assert {entry.content for entry in tree.decode(trees[key]) if entry.kind == DIRECTORY} <= set(known)
        known.append(key)
    assert len(known) == len(set(known)) and set(known) == set(trees) == set(trees.loaded)


def test_a_tree_deeper_than_any_stack() -> None:
    trees = Trees({})
    entry = trees.root
    for _level in range(20_000):
        blob = tree.encode([entry._replace(name=b"d")])
        trees[digest(blob)] = blob
        entry = Entry(b"", DIRECTORY, 0, 0, 0, 0, 0, 0, digest(blob))
    with within(3, 100):  # time does not grow with the square of the depth, nor memory
        assert sum(1 for _found in walk(trees.load, entry)) == 20_001
        deepest = b""
        for path, _entry, _left in directories(trees.load, entry):
            deepest = max(deepest, path, key=len)
        assert deepest.count(b"/") == 19_999
        assert find(trees.load, entry, deepest).content == trees.root.content
