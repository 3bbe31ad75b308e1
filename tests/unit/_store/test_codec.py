# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compression: whoever made a stored form, everybody reads it; whatever is no such form is Damaged, and cheaply."""

from __future__ import annotations

import threading
import zlib

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, UsageError
from ansible_collections.volt.backup.plugins.module_utils._store import codec
from hypothesis import given, strategies as st

from ..kit import cuts, flips, noise, within

SAMPLES = {
    "nothing": b"",
    "one byte": b"x",
    "below the least": b"a" * 63,
    "at the least": b"a" * 64,
    "zeros": bytes(300_000),
    "text": b"The quick brown fox. " * 5000,
    "noise": noise(100_000),
    "half noise": noise(50_000) + bytes(50_000),
}


def zstd_ways() -> dict[str, codec.Zstd]:
    found = {}
    for name, way in (("standard", codec._standard_zstd), ("package", codec._package_zstd), ("system", codec._system_zstd)):
        try:
            found[name] = way()
        except (ImportError, OSError, AttributeError):
            continue
    return found


ZSTD = zstd_ways()


@pytest.fixture(params=[*ZSTD, "zlib"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The suffix to ask for, with each way there is to make and read it."""
    if request.param == "zlib":
        return codec.ZLIB
    monkeypatch.setattr(codec, "_zstd", ZSTD[request.param])
    return codec.ZSTD


@pytest.mark.parametrize("name", SAMPLES)
def test_comes_back(way: str, name: str) -> None:
    data = SAMPLES[name]
    suffix, stored = codec.compress(data, way)
    assert codec.decompress(stored, suffix, len(data)) == data


@pytest.mark.parametrize(
    ("name", "compressed"),
    [("nothing", False), ("one byte", False), ("below the least", False), ("at the least", True), ("zeros", True), ("text", True),
     ("noise", False), ("half noise", True)],
)  # fmt: skip
def test_only_where_it_helps(way: str, name: str, compressed: bool) -> None:
    suffix, stored = codec.compress(SAMPLES[name], way)
    assert suffix == (way if compressed else codec.NONE)
    assert len(stored) < len(SAMPLES[name]) if compressed else stored == SAMPLES[name]


@pytest.mark.skipif(len(ZSTD) < 2, reason="one way to zstd alone")
@pytest.mark.parametrize("maker", ZSTD)
@pytest.mark.parametrize("reader", ZSTD)
@pytest.mark.parametrize("name", SAMPLES)
def test_all_ways_to_zstd_read_each_other(maker: str, reader: str, name: str) -> None:
    data = SAMPLES[name]
    assert ZSTD[reader][1](ZSTD[maker][0](data), len(data)) == data


def test_bound_is_exact(way: str) -> None:
    data = SAMPLES["text"]
    suffix, stored = codec.compress(data, way)
    assert codec.decompress(stored, suffix, len(data)) == data
    for limit in (0, 1, len(data) - 1):
        with pytest.raises(Damaged):
            codec.decompress(stored, suffix, limit)


def test_plain_is_bounded_too() -> None:
    assert codec.decompress(b"123", codec.NONE, 3) == b"123"
    with pytest.raises(Damaged):
        codec.decompress(b"123", codec.NONE, 2)


def test_truncated(way: str) -> None:
    suffix, stored = codec.compress(SAMPLES["half noise"], way)
    for cut in cuts(stored, 40):
        with pytest.raises(Damaged):
            codec.decompress(cut, suffix, 1 << 20)


def test_bit_flips_are_damage_or_other_bytes(way: str) -> None:
    """No checksum is promised here, the digest is the caller's; but nothing else than Damaged may come out."""
    data = SAMPLES["text"]
    suffix, stored = codec.compress(data, way)
    for _at, changed in flips(stored):
        try:
            assert len(codec.decompress(changed, suffix, len(data))) <= len(data)
        except Damaged:
            pass


@pytest.mark.parametrize("harm", ["cut", "overwritten"])
def test_the_beginning_of_a_damaged_form(way: str, harm: str) -> None:
    data = b"".join(b"%d %d\n" % (number, number * number % 7919) for number in range(150_000))
    suffix, stored = codec.compress(data, way)
    place = len(stored) * 3 // 4
    damaged = stored[:place] + (b"" if harm == "cut" else b"\xff" * 64 + stored[place + 64 :])
    half = len(data) // 2
    found = codec.beginning(damaged, suffix, len(data))
    assert found[:half] == data[:half] and found != data
    assert codec.beginning(damaged, suffix, 1000) == data[:1000]
    assert codec.beginning(stored, suffix, len(data)) == data
    assert codec.beginning(b"rubbish", suffix, 1000) == b""


@given(st.binary(max_size=300))
def test_rubbish(data: bytes) -> None:
    for suffix in (codec.ZSTD, codec.ZLIB):
        try:
            assert len(codec.decompress(data, suffix, 1000)) <= 1000
        except (Damaged, UsageError):
            pass


def test_bomb(way: str) -> None:
    """A gigabyte of zeros in some kilobytes, where a kilobyte is allowed."""
    if way == codec.ZLIB:
        maker = zlib.compressobj(9)
        bomb = b"".join(maker.compress(bytes(1 << 20)) for _megabyte in range(64)) + maker.flush()
    else:
        bomb = codec.compress(bytes(64 << 20), way)[1]
    with within(0.5, 30), pytest.raises(Damaged):
        codec.decompress(bomb, way, 1000)


@pytest.mark.parametrize("reader", ZSTD)
@pytest.mark.parametrize("declared", [0, 1, 999, 1001, 1 << 20, (1 << 64) - 3, (1 << 64) - 2, (1 << 64) - 1])
def test_a_zstd_header_with_a_wrong_size(monkeypatch: pytest.MonkeyPatch, reader: str, declared: int) -> None:
    """RFC 8878: a frame header with an 8-byte content size; the blocks behind it hold 1,000 bytes."""
    monkeypatch.setattr(codec, "_zstd", ZSTD[reader])
    stored = ZSTD[reader].compress(noise(500) * 2)
    flag = stored[4]
    assert flag & 0x20 and flag >> 6 == 1  # single segment, two bytes of size
    lie = stored[:4] + bytes([flag & 0x3F | 0xC0]) + declared.to_bytes(8, "little") + stored[7:]
    with within(0.5, 30):
        try:
            assert (declared, codec.decompress(lie, codec.ZSTD, 1000)) == (0, b"")  # said to be empty, and read as such
        except Damaged:
            pass


@pytest.mark.parametrize(
    ("asked", "with_zstd", "without"),
    [("none", "", ""), ("zlib", ".zz", ".zz"), ("auto", ".zst", ".zz"), ("zstd", ".zst", UsageError), ("lz4", UsageError, UsageError),
     ("", UsageError, UsageError), ("AUTO", UsageError, UsageError)],
)  # fmt: skip
def test_choice(monkeypatch: pytest.MonkeyPatch, asked: str, with_zstd: object, without: object) -> None:
    for there, expected in ((lambda: None, with_zstd), (None, without)):
        monkeypatch.setattr(codec, "_zstd", there)
        if isinstance(expected, str):
            assert codec.choose(asked) == expected
        else:
            with pytest.raises(UsageError):
                codec.choose(asked)


def test_without_zstd_its_files_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_zstd", None)
    with pytest.raises(UsageError, match="python3-zstandard"):
        codec.decompress(b"anything", codec.ZSTD, 100)


def test_threads_do_not_share_buffers(way: str) -> None:
    """Each thread works on its own sizes, small after large; a shared buffer would mix them."""
    wrong = []

    def work(seed: int) -> None:
        for size in (200_000, 100, 50_000, 70):
            data = noise(20, seed) * (size // 20)
            suffix, stored = codec.compress(data, way)
            if codec.decompress(stored, suffix, len(data)) != data:
                wrong.append(size)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("maker", ZSTD)
def test_what_is_compressed_is_one_frame(maker: str, name: str) -> None:
    data = SAMPLES[name]
    stored = ZSTD[maker].compress(data)
    assert codec.is_one_frame(stored, len(data))
    for size in (len(data) + 1, len(data) - 1):
        assert not codec.is_one_frame(stored, size)
    for other in (stored[:-1], stored + b"x", stored + stored, b"\x50\x2a\x4d\x18\0\0\0\0" + stored, b"", stored[:5]):
        assert not codec.is_one_frame(other, len(data))


@given(st.binary(max_size=40))
def test_any_bytes_may_be_no_frame(data: bytes) -> None:
    assert not codec.is_one_frame(b"\x28\xb5\x2f\xfd" + data, 1 << 40)
