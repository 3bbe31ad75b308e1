# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A limit of bandwidth."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.volt.backup.plugins.module_utils._remote.pace import Body, Pace


def test_threads_share_it() -> None:
    pace = Pace(100_000)
    start = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(pace, [10_000] * 4))
    assert 0.3 <= time.monotonic() - start < 1.5  # the first one is free


def test_what_was_not_used_is_not_made_up_for() -> None:
    pace = Pace(100_000)
    pace(1)
    time.sleep(0.2)
    start = time.monotonic()
    for _number in range(3):
        pace(10_000)
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize(("rate", "piece"), [(1, 1024), (100_000, 25_000), (1 << 40, 256 << 10)])
def test_pieces(rate: float, piece: int) -> None:
    assert Pace(rate).piece == piece


@pytest.mark.parametrize("size", [1, 1000, 1 << 20, -1])
def test_body(size: int) -> None:
    content = bytes(range(256)) * 4
    body = Body(content, Pace(1 << 40))
    read = []
    while not read or read[-1]:
        read.append(body.read(size))
    assert b"".join(read) == content
