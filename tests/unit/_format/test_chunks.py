# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chunk lists and holes: arithmetic against the plainest model, files with real holes, and lists that lie."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, Unsupported
from ansible_collections.volt.backup.plugins.module_utils._capture.file_saver import count_chunks
from ansible_collections.volt.backup.plugins.module_utils._format import chunks
from ansible_collections.volt.backup.plugins.module_utils._format.chunks import CHUNK
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction
from hypothesis import given, strategies as st

from ..kit import Child, cuts, digest, flips, within

D = b"d" * 32
HUGE = (1 << 63) - 1  # no file is larger


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, chunks.Holes]:
    """A size and holes, ends near multiples of a chunk as often as not; in units small enough for a model."""
    near = st.one_of(st.integers(0, 6 * CHUNK), st.builds(lambda n, d: max(0, n * CHUNK + d), st.integers(0, 6), st.integers(-2, 2)))
    size = draw(near)
    edges = sorted(draw(st.sets(near.filter(lambda at: at <= size), max_size=8)))
    return size, tuple((a, b - a) for a, b in zip(edges[::2], edges[1::2]))


def in_hole(holes: chunks.Holes, start: int, end: int) -> bool:
    return any(offset <= start and end <= offset + length for offset, length in holes)


@given(layouts())
def test_spans(layout: tuple[int, chunks.Holes]) -> None:
    size, holes = layout
    every = [(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK)]
    assert list(chunks.spans(size, holes)) == [(start, end - start) for start, end in every if not in_hole(holes, start, end)]


@given(layouts(), st.integers(0, 6 * CHUNK), st.integers(0, 6 * CHUNK))
def test_data_ranges(layout: tuple[int, chunks.Holes], one: int, two: int) -> None:
    _size, holes = layout
    start, end = sorted((one, two))
    edges = sorted({start, end, *(edge for offset, length in holes for edge in (offset, offset + length) if start < edge < end)})
    data = [(a, b) for a, b in zip(edges, edges[1:]) if not in_hole(holes, a, b)]
    joined: list[tuple[int, int]] = []
    for a, b in data:
        if joined and joined[-1][1] == a:
            joined[-1] = (joined[-1][0], b)
        else:
            joined.append((a, b))
    assert list(chunks.data_ranges(start, end, holes)) == [(a, b - a) for a, b in joined]


@given(layouts())
def test_round_trip(layout: tuple[int, chunks.Holes]) -> None:
    size, holes = layout
    digests = [bytes([number % 256]) * 32 for number, _span in enumerate(chunks.spans(size, holes))]
    blob = chunks.encode(size, holes, digests)
    assert blob == b"VOLTCHNK" + struct.pack("<QI", size, len(holes)) + b"".join(struct.pack("<QQ", *hole) for hole in holes) + b"".join(digests)
    found = chunks.decode(blob, size)
    assert found == chunks.ChunkList(size, holes, digests)
    assert [(offset, length) for offset, length, _digest in found.chunks()] == list(chunks.spans(size, holes))
    for wrong in (size - 1, size + 1, size + CHUNK):
        with pytest.raises(Damaged):
            chunks.decode(blob, wrong)


def raw(size: int, holes: list[tuple[int, int]], digests: int, count: int | None = None) -> bytes:
    packed = b"".join(struct.pack("<QQ", *hole) for hole in holes)
    return b"VOLTCHNK" + struct.pack("<QI", size, len(holes) if count is None else count) + packed + D * digests


FORGED: dict[str, tuple[int, bytes]] = {
    "another magic": (CHUNK, b"VOLTTREE" + raw(CHUNK, [], 1)[8:]),
    "a digest too few": (2 * CHUNK, raw(2 * CHUNK, [], 1)),
    "a digest too many": (2 * CHUNK, raw(2 * CHUNK, [], 3)),
    "half a digest": (2 * CHUNK, raw(2 * CHUNK, [], 2)[:-16]),
    "absurd count of holes": (CHUNK, raw(CHUNK, [], 1, 0xFFFFFFFF)),
    "a size that would need petabytes": (1 << 62, raw(1 << 62, [], 1)),
    "an empty hole": (CHUNK, raw(CHUNK, [(0, 0)], 1)),
    "a hole behind the end": (CHUNK, raw(CHUNK, [(CHUNK, 1)], 1)),
    "a hole across the end": (CHUNK, raw(CHUNK, [(CHUNK - 1, 2)], 1)),
    "a hole that wraps around 64 bits": (CHUNK, raw(CHUNK, [(CHUNK // 2, (1 << 64) - 1)], 1)),
    "holes that touch": (CHUNK, raw(CHUNK, [(0, 10), (10, 10)], 1)),
    "holes that overlap": (CHUNK, raw(CHUNK, [(0, 10), (5, 10)], 1)),
    "holes in the wrong order": (CHUNK, raw(CHUNK, [(20, 10), (5, 10)], 1)),
    "the same hole twice, to miscount chunks": (4 * CHUNK, raw(4 * CHUNK, [(0, 2 * CHUNK), (0, 2 * CHUNK)], 0)),
    "a digest for a hole": (2 * CHUNK, raw(2 * CHUNK, [(0, CHUNK)], 2)),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged(name: str) -> None:
    size, blob = FORGED[name]
    with within(0.1, 20), pytest.raises(Damaged):
        chunks.decode(blob, size)


def test_damage() -> None:
    size, holes = 5 * CHUNK + 7, ((10, 20), (CHUNK, 2 * CHUNK))
    good = chunks.encode(size, holes, [D] * 4)
    for blob in (*cuts(good), good + b"\0", b""):
        with pytest.raises(Damaged):
            chunks.decode(blob, size)
    for _at, blob in flips(good):
        try:
            found = chunks.decode(blob, size)
            assert len(list(found.chunks())) == len(found.digests)
        except (Damaged, Unsupported):
            pass


def test_hole_within_one_chunk_costs_no_chunk() -> None:
    assert list(chunks.spans(CHUNK, ((1, CHUNK - 2),))) == [(0, CHUNK)]


def say_spans(pipe: Any, size: int, holes: chunks.Holes) -> None:
    pipe.send(list(chunks.spans(size, holes)))


@pytest.mark.parametrize(
    ("size", "holes", "expected"),
    [
        pytest.param(1 << 50, ((0, 1 << 50),), [], id="all hole"),
        pytest.param(HUGE, ((0, HUGE),), [], id="the largest file"),
        pytest.param(1 << 50, ((0, (1 << 50) - 5),), [((1 << 50) - CHUNK, CHUNK)], id="data at its end"),
        pytest.param(1 << 50, ((5, (1 << 50) - 5),), [(0, CHUNK)], id="data at its beginning"),
    ],
)
def test_a_giant_that_is_nearly_all_hole_is_cheap(size: int, holes: chunks.Holes, expected: list[tuple[int, int]]) -> None:
    """`truncate -s 1P` makes one in no time, and a forged list costs its forger nothing either."""
    with Child(say_spans, size, holes) as child:
        assert child.hear(1) == expected


def test_many_holes_are_not_looked_at_for_every_chunk() -> None:
    """A disk image of 100 GiB with 200,000 holes has 100,000 chunks: their product would take hours."""
    holes = tuple((number * 8192, 4096) for number in range(200_000))
    end = 200_000 * 8192
    with within(0.3, 60):
        for number in range(100):
            ranges = list(chunks.data_ranges(end - (number + 1) * CHUNK, end - number * CHUNK, holes))
            assert len(ranges) == 128


# ---- real files


def test_a_list_of_any_length_is_found_again(tmp_path: Path) -> None:
    """A list above 8 MiB (a file of 256 GiB, or half a million holes) is an object, and the stat cache must find it there."""
    chunk = bytes(CHUNK)
    count = 600_000
    holes = tuple((number * 8192, 4096) for number in range(count))
    size = count * 8192
    with Transaction(Store(str(tmp_path / "store")), "zlib") as run:
        run.objects.save(digest(chunk), chunk)
        blob = chunks.encode(size, holes, [digest(chunk)] * -(-size // CHUNK))
        assert len(blob) > 8 << 20
        name = run.add_metadata(blob)
        run.commit()
    with Transaction(Store(str(tmp_path / "store")), "zlib") as run:
        assert count_chunks(run, name, size) == -(-size // CHUNK)
