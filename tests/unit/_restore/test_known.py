# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stat cache of a target: its order, and what that takes. tests/system/test_restore.py has what it is for."""

from __future__ import annotations

import random
import tracemalloc
from array import array

from ansible_collections.volt.backup.plugins.module_utils._restore import known
from hypothesis import given, strategies as st


@given(st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 1 << 18)))
def test_files_are_ordered_by_inode(inodes: list[int]) -> None:
    order = known._ascending(array("Q", inodes))
    assert list(order) == sorted(range(len(inodes)), key=inodes.__getitem__)


def test_a_million_files_are_ordered_in_little_memory() -> None:
    inodes = array("Q", random.Random(1).sample(range(1 << 22), 300_000))
    tracemalloc.start()
    known._ascending(inodes)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 20 * len(inodes)
