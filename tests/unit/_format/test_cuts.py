# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where streams are cut: the same data gives the same chunks, whatever came before it, at the speed that a backup needs."""

from __future__ import annotations

import random
import struct

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import Damaged
from ansible_collections.volt.backup.plugins.module_utils._format import chunks, cuts
from ansible_collections.volt.backup.tests.unit.kit import noise, within

MIB = 1 << 20
TEXT = b"".join(b"%d\tuser%d\tx%x\t2026-11-%02d\n" % (row, row * 7919 % 100003, row * 2654435761 % (1 << 32), row % 28 + 1) for row in range(300000))


def pieces(data: bytes) -> list[bytes]:
    found = []
    while data:
        length = cuts.first(data, len(data))
        found.append(data[:length])
        data = data[length:]
    return found


@pytest.mark.parametrize("data", [TEXT, noise(8 * MIB, "cuts"), bytes(9 * MIB), b"0," * 4 * MIB, b"one line without an end" * 400000], ids=range(5))
def test_lengths(data: bytes) -> None:
    found = pieces(data)
    assert b"".join(found) == data
    assert all(cuts.LEAST <= len(piece) <= cuts.MOST for piece in found[:-1]) and 0 < len(found[-1]) <= cuts.MOST
    assert cuts.MOST <= chunks.WHOLE_MOST


@pytest.mark.parametrize("data", [TEXT, noise(8 * MIB, "cuts")], ids=["rows", "noise"])
def test_what_is_inserted_costs_the_chunks_it_touches(data: bytes) -> None:
    chance = random.Random(1)
    old = set(pieces(data))
    for at in [0, len(data) // 2, *(chance.randrange(len(data)) for _place in range(3))]:
        new = [piece for piece in pieces(data[:at] + b"a new row\n" + data[at:]) if piece not in old]
        assert sum(map(len, new)) < 3 * MIB, at


def test_speed() -> None:
    """Also where every byte looks like an end: at least 20 MB/s there; others are ten times as fast, which a benchmark shows."""
    for data in (TEXT, b"\n" * 4 * MIB, noise(4 * MIB, "speed")):
        with within(0.5, 60):
            pieces(data)


def test_round_trip() -> None:
    found = [(cuts.LEAST, bytes([1]) * 32), (7, bytes([2]) * 32), (chunks.WHOLE_MOST, bytes([1]) * 32)]
    size = sum(length for length, _digest in found)
    blob = chunks.encode_cuts(found)
    assert blob == b"VOLTCUTS" + struct.pack("<Q", size) + b"".join(struct.pack("<I", length) + digest for length, digest in found)
    starts = [0, cuts.LEAST, cuts.LEAST + 7]
    assert list(chunks.decode(blob, size).chunks()) == [(start, *piece) for start, piece in zip(starts, found)]


@pytest.mark.parametrize("spoil", [
    lambda blob: blob[:-1], lambda blob: blob[:8], lambda blob: blob[:-36], lambda blob: blob + blob[-36:],
    lambda blob: blob[:16] + bytes(4) + blob[20:], lambda blob: blob[:8] + struct.pack("<Q", 1 << 63) + blob[16:],
    lambda blob: blob[:16] + struct.pack("<I", chunks.WHOLE_MOST + 1) + blob[20:],
])  # fmt: skip
def test_damage(spoil) -> None:  # type: ignore[no-untyped-def]
    blob = chunks.encode_cuts([(MIB, bytes(32)), (5, bytes(32))])
    with pytest.raises(Damaged):
        chunks.decode(spoil(blob), MIB + 5)
    with pytest.raises(Damaged):
        chunks.decode(blob, MIB + 6)
