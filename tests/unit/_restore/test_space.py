# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore will write is counted in little memory, however many files there are."""

from __future__ import annotations

import tracemalloc
from typing import Any

from ansible_collections.volt.backup.plugins.module_utils._format.tree import FILE, Entry, Extra
from ansible_collections.volt.backup.plugins.module_utils._restore.space import Space

from ..kit import digest

SIZE = 200_000


def entry(number: int) -> Entry:
    """A file of one page of data and a hole."""
    return Entry(b"%d" % number, FILE, 0o644, 0, 0, 0, 0, SIZE, digest(b"%d" % number), Extra(holes=((4096, SIZE - 4096),)))


class Plain:
    """A store that has some objects as plain files."""

    def __init__(self, plain: set[bytes]) -> None:
        self._plain = plain

    def is_plain(self, content: bytes, size: int) -> bool:
        assert size == SIZE
        return content in self._plain


def test_files_that_are_objects() -> None:
    space = Space({b"3": 1, b"4": 1})
    for number in range(5):
        space.add(b"%d" % number, entry(number))
    store: Any = Plain({entry(0).content})
    assert space.needed(store, clones=False) == 4 * 4096, "two are linked, and holes take nothing"
    assert space.needed(store, clones=True) == 3 * 4096
    assert list(space.wanted(store)) == [entry(number).content for number in range(4)]


def test_a_million_files_take_little_memory() -> None:
    space = Space({})
    tracemalloc.start()
    for number in range(5_000):
        space.add(b"%d" % number, entry(number))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < 100 * 5_000
