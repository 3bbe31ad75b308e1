# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs: where they end is decided by their blobs alone, and nothing is believed that their name does not vouch for."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable, Iterable

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, Unsupported
from ansible_collections.volt.backup.plugins.module_utils._store import pack

from ..kit import cuts, digest, flips, noise, within

KIB, MIB = 1 << 10, 1 << 20


def build(blobs: Iterable[bytes], kind: int = pack.CONTENT) -> list[bytes]:
    """The packs that blobs make in this order; the last one is closed as a run's end closes it."""
    builder, packs = pack.Builder(kind), []
    for blob in blobs:
        _offset, ends = builder.add(digest(blob), blob)
        if ends:
            packs.append(b"".join(builder.take()))
    if builder:
        packs.append(b"".join(builder.take()))
    return packs


class Length:
    """Stands in for a blob where only its length counts: gigabytes cost nothing."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


def sizes_of_packs(lengths: Iterable[int]) -> list[int]:
    builder, found, size = pack.Builder(pack.CONTENT), [], 0
    for number, length in enumerate(lengths):
        _offset, ends = builder.add(hashlib.sha256(b"%d" % number).digest(), Length(length))  # type: ignore[arg-type]
        size += length + pack.ENTRY.size
        if ends:
            found.append(size)
            builder, size = pack.Builder(pack.CONTENT), 0
    return found


def test_form() -> None:
    """Byte by byte, as the format says."""
    first, second = b"first", b""
    table = digest(first) + struct.pack("<I", 5) + digest(second) + struct.pack("<I", 0)
    assert build([first, second], pack.METADATA) == [b"VOLTPAK1" + struct.pack("<II", 1, 2) + table + b"first"]


def test_offsets_and_parse_agree() -> None:
    blobs = [noise(size, size) for size in (10, 0, 1000, 1)]
    builder = pack.Builder(pack.CONTENT)
    offsets = [builder.add(digest(blob), blob)[0] for blob in blobs]
    data = b"".join(builder.take())
    assert pack.parse(data, digest(data)) == [(digest(blob), at, len(blob)) for blob, at in zip(blobs, offsets)]
    start = pack.first_blob(data)
    assert [data[start + at : start + at + len(blob)] for blob, at in zip(blobs, offsets)] == blobs
    assert not builder and builder.add(digest(b"x"), b"x")[0] == 0  # taken: it begins anew


DISTRIBUTIONS: dict[str, Callable[[random.Random], int]] = {
    "all 100 bytes": lambda rng: 100,
    "all 4 KiB": lambda rng: 4 * KIB,
    "all 128 KiB": lambda rng: 128 * KIB,
    "uniform to 128 KiB": lambda rng: rng.randrange(1, 128 * KIB),
    "as in a file system": lambda rng: min(int(rng.lognormvariate(8, 2)), 128 * KIB),
    "tiny with giants": lambda rng: 128 * KIB if rng.random() < 0.02 else 300,
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mean_is_about_one_mebibyte(name: str) -> None:
    rng, draw = random.Random(1), DISTRIBUTIONS[name]

    def lengths() -> Iterable[int]:
        total = 0
        while total < (40 * MIB if name == "all 100 bytes" else 300 * MIB):
            length = draw(rng)
            total += length + pack.ENTRY.size
            yield length

    sizes = sizes_of_packs(lengths())
    # an exponential tail behind the least size: 256 KiB + 1 MiB
    mean = sum(sizes) / len(sizes)
    assert 0.9 * MIB < mean < 1.6 * MIB
    assert min(sizes) >= 256 * KIB
    assert max(sizes) < 8 * MIB + 128 * KIB + pack.ENTRY.size


def test_same_blobs_same_packs_and_one_new_blob_changes_few() -> None:
    blobs = [noise(20 * KIB, number) for number in range(600)]
    packs = build(blobs)
    assert packs == build(list(blobs)) and len(packs) > 5
    for place in (0, 300, 599):
        other = build([*blobs[:place], noise(20 * KIB, "new"), *blobs[place:]])
        assert len(set(packs) - set(other)) <= 3  # cuts fall into step again soon


@pytest.mark.parametrize(("kind", "further"), [(pack.CONTENT, MIB), (pack.METADATA, 128 * KIB)])
def test_cut_rule(kind: int, further: int) -> None:
    """The rule of the format, computed in another way."""
    builder, size = pack.Builder(kind), 0
    for number in range(3000):
        blob = noise(number * 37 % 5000, number)
        own = len(blob) + 36
        size += own
        expected = size >= 8 * MIB or (size >= 256 * KIB and int.from_bytes(digest(blob)[:8], "big") / 2**64 < own / further)
        assert builder.add(digest(blob), blob)[1] == expected
        if expected:
            builder.take()
            size = 0


def nearly_full() -> pack.Builder:
    """A pack of 8 MiB less 128 KiB, of blobs whose digests would never end it."""
    builder = pack.Builder(pack.CONTENT)
    for _blob in range(63):
        assert builder.add(b"\xff" * 32, Length(128 * KIB - 36))[1] is False  # type: ignore[arg-type]
    return builder


@pytest.mark.parametrize(("length", "ends"), [(0, False), (128 * KIB - 37, False), (128 * KIB - 36, True), (128 * KIB, True)])
def test_eight_mebibytes_end_it_in_any_case(length: int, ends: bool) -> None:
    assert nearly_full().add(b"\xff" * 32, Length(length))[1] is ends  # type: ignore[arg-type]


def test_no_cut_below_256_kib() -> None:
    builder = pack.Builder(pack.CONTENT)
    assert builder.add(bytes(32), Length(256 * KIB - 37))[1] is False  # type: ignore[arg-type]
    assert builder.add(bytes(32), Length(0))[1] is True  # type: ignore[arg-type]


def test_largest_pack_is_within_the_readers_bound() -> None:
    builder = nearly_full()
    assert builder.add(b"\xff" * 32, Length(128 * KIB - 37))[1] is False  # type: ignore[arg-type]
    assert builder.add(b"\xff" * 32, Length(pack.BLOB_MOST))[1] is True  # type: ignore[arg-type]
    assert pack.table_size(65) + 64 * (128 * KIB - 36) - 1 + pack.BLOB_MOST <= pack.PACK_MOST


def sound() -> bytes:
    return build([b"one", b"two", noise(500)])[0]


def test_altered() -> None:
    for data in (*cuts(sound()), *(changed for _at, changed in flips(sound())), sound() + b"\0"):
        with pytest.raises(Damaged):
            pack.parse(data, digest(sound()))


def forged(count: int, *lines: tuple[bytes, int], magic: bytes = b"VOLTPAK1", kind: int = 0, blobs: bytes = b"") -> bytes:
    return magic + struct.pack("<II", kind, count) + b"".join(struct.pack("<32sI", *line) for line in lines) + blobs


D = b"d" * 32


@pytest.mark.parametrize("data", [forged(0, magic=b"VOLTPAK2"), forged(0, kind=2)], ids=["another magic", "another kind"])
def test_packs_of_a_newer_version(data: bytes) -> None:
    """Where the name says that they were written so; else they are damaged."""
    with pytest.raises(Unsupported, match="written by a newer version; update volt.backup"):
        pack.parse(data, digest(data))
    with pytest.raises(Damaged):
        pack.parse(data, D)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(forged(0, magic=b"NOTAPACK"), id="another magic"),
        pytest.param(forged(0xFFFFFFFF), id="absurd count"),
        pytest.param(forged(2, (D, 1), blobs=b"x"), id="more counted than listed"),
        pytest.param(forged(1, (D, 2), blobs=b"x"), id="a blob cut short"),
        pytest.param(forged(1, (D, 1), blobs=b"xy"), id="bytes behind the last blob"),
        pytest.param(forged(1, (D, 0xFFFFFFFF), blobs=b"xy"), id="absurd length"),
        pytest.param(forged(2, (D, 0xFFFFFFFF), (D, 3), blobs=b"xy"), id="lengths that wrap around 32 bits"),
    ],
)
def test_forged_under_a_true_name(data: bytes) -> None:
    with within(0.1, 20), pytest.raises(Damaged):
        pack.parse(data, digest(data))
