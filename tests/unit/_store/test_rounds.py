# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When each part of a store was last read, by verifications that read a piece at a time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._store.cache import Cache
from ansible_collections.volt.backup.plugins.module_utils._store.rounds import SPACE, Rounds

SHARD = SPACE >> 8
IN_FIRST, IN_SECOND, IN_LAST = b"\0" * 32, b"\1" * 32, b"\xff" * 32


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    (tmp_path / "cache").mkdir()
    return Cache(str(tmp_path))


def read(cache: Cache, *pieces: tuple[int, int]) -> Rounds:
    """Read from each first name to before each second one, and write that down."""
    rounds = Rounds(cache)
    for begin, end in pieces:
        rounds.end(end, rounds.begin(begin))
    rounds.save()
    return Rounds(cache)


def test_a_shard_that_was_read_whole(cache: Cache) -> None:
    before = time.time_ns()
    rounds = read(cache, (0, SHARD))
    assert before <= rounds.hashed(IN_FIRST) <= time.time_ns() and rounds.hashed(IN_SECOND) == 0 and rounds.next == SHARD


def test_a_shard_that_was_read_in_pieces_counts_since_the_first(cache: Cache) -> None:
    assert read(cache, (0, 5)).hashed(IN_FIRST) == 0
    between = time.time_ns()
    assert read(cache, (5, SHARD // 2)).hashed(IN_FIRST) == 0
    assert 0 < read(cache, (SHARD // 2, SHARD)).hashed(IN_FIRST) < between


def test_a_shard_of_which_a_piece_was_passed_over(cache: Cache) -> None:
    read(cache, (0, 5))
    rounds = read(cache, (7, SHARD), (SHARD, 2 * SHARD))
    assert rounds.hashed(IN_FIRST) == 0 and rounds.hashed(IN_SECOND)


def test_a_shard_that_is_being_read_again_keeps_its_time(cache: Cache) -> None:
    first = read(cache, (0, SHARD)).hashed(IN_FIRST)
    assert read(cache, (0, 5)).hashed(IN_FIRST) == first
    assert read(cache, (5, SHARD)).hashed(IN_FIRST) > first


def test_the_last_shard(cache: Cache) -> None:
    rounds = read(cache, (SPACE - SHARD, 0))
    assert rounds.hashed(IN_LAST) and not rounds.hashed(IN_FIRST) and rounds.next == 0
