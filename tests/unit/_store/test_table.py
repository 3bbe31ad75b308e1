# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table against a dict; its file form against every kind of damage."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._store import table as module
from ansible_collections.volt.backup.plugins.module_utils._store.table import Table, Unusable
from hypothesis import given, strategies as st

from ..kit import Child, cuts, digest, flips

MANY = 100_000


def key(number: int) -> bytes:
    return digest(number.to_bytes(8, "little"))


def save(table: Table, path: Path) -> str:
    path.write_bytes(b"".join(table.parts()))
    return str(path)


@pytest.fixture(scope="module")
def many() -> tuple[Table, dict[bytes, bytes]]:
    table, model = Table(4), {}
    for number in range(MANY):
        value = number.to_bytes(4, "little")
        assert table.add(key(number), value) == number
        model[key(number)] = value
    return table, model


@pytest.mark.parametrize("form", ["built", "loaded"])
def test_many_as_in_a_dict(many: tuple[Table, dict[bytes, bytes]], form: str, tmp_path: Path) -> None:
    table, model = many
    if form == "loaded":
        table = Table.load(save(table, tmp_path / "table"), 4)
    assert len(table) == len(model)
    for position, (name, value) in enumerate(model.items()):
        assert table.find(name) == position
        assert table.value(position) == value
        assert table.digest(position) == name
    assert all(table.find(key(-1 - number & 0xFFFFFFFF)) == -1 for number in range(10_000))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=60))
def test_collisions_as_in_a_dict(steps: list[tuple[int, int]]) -> None:
    """Digests that all fall on a few slots: nearly everything is probing."""
    table, model = Table(1), {}
    for low, rest in steps:
        name = bytes([low]) + bytes(7) + bytes([rest]) + bytes(23)
        if name in model:
            table.replace(table.find(name), b"r")
            model[name] = b"r"
        else:
            table.add(name, b"a")
            model[name] = b"a"
    assert {table.digest(at): table.value(at) for at in range(len(table))} == model
    assert all(table.value(table.find(name)) == value for name, value in model.items())
    assert table.find(b"\5" * 32) == -1


def test_wraps_around_the_end() -> None:
    table = Table(0)
    last = [(0x3FF).to_bytes(8, "little") + bytes([number]) + bytes(23) for number in range(5)]
    for name in last:
        table.add(name, b"")
    assert [table.find(name) for name in last] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("expected", [0, 10, 511, 512, 5000])
def test_room_asked_for_is_no_limit(expected: int) -> None:
    table = Table(2, expected)
    for number in range(3000):
        table.add(key(number), b"ab")
    assert [table.find(key(number)) for number in (0, 1500, 2999, 3000)] == [0, 1500, 2999, -1]


def small() -> Table:
    table = Table(8)
    for number in range(20):
        table.add(key(number), number.to_bytes(8, "big"))
    return table


def test_empty(tmp_path: Path) -> None:
    table = Table.load(save(Table(8), tmp_path / "table"), 8)
    assert len(table) == 0 and table.find(key(1)) == -1


def test_missing_is_not_doubtful(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Table.load(str(tmp_path / "none"), 8)


def test_another_value_size_is_doubtful(tmp_path: Path) -> None:
    path = save(small(), tmp_path / "table")
    for size in (0, 7, 9, 40):
        with pytest.raises(Unusable):
            Table.load(path, size)


def test_damage(tmp_path: Path) -> None:
    whole = b"".join(small().parts())
    path = tmp_path / "table"
    damaged = [*cuts(whole), *(changed for _at, changed in flips(whole)), whole + b"\0", whole + whole, b"", bytes(len(whole))]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(Unusable):
            Table.load(str(path), 8).check()


def test_damage_is_found_where_it_is_read(many: tuple[Table, dict[bytes, bytes]], tmp_path: Path) -> None:
    """Every block has its checksum; what is asked for is right or refused, and what lies in other blocks is still found."""
    table, model = many
    path = tmp_path / "table"
    whole = b"".join(table.parts())
    names = [(name, position) for position, name in enumerate(model) if not position % 97]
    for at, changed in flips(whole, 10):
        if at > 10_000:  # behind the header and the checksums
            path.write_bytes(changed)
            loaded, found = Table.load(str(path), 4), 0
            for name, position in names:
                with contextlib.suppress(Unusable):
                    assert loaded.find(name) == position and loaded.digest(position) == name and loaded.value(position) == model[name]
                    found += 1
            assert found > len(names) // 2
            with pytest.raises(Unusable):
                loaded.check()


@pytest.mark.parametrize(("count", "slots"), [(1024, 1024), (1, 0), (0, 0), (5, 3), (0, 1023), (0xFFFFFFFF, 1024), (20, 0xFFFFFFFF)])
def test_absurd_counts_under_a_true_checksum(tmp_path: Path, count: int, slots: int) -> None:
    """The checksum finds accidents; sizes must fit even where it is right."""
    rest = struct.pack("=IIII", 0x01020304, count, slots, 8) + bytes(4 * min(slots, 2048) + 40 * min(count, 2048))
    path = tmp_path / "table"
    path.write_bytes(b"VOLTIDX4" + struct.pack("=I", zlib.crc32(rest)) + rest)
    with pytest.raises(Unusable):
        Table.load(str(path), 8)


@pytest.mark.parametrize("slot", [1, 21, 0xFFFFFFFF])
def test_slots_that_lead_nowhere_under_true_checksums(tmp_path: Path, slot: int) -> None:
    table = small()
    for at in range(len(table._slots)):
        table._slots[at] = slot
    loaded = Table.load(save(table, tmp_path / "table"), 8)
    with pytest.raises(Unusable):
        loaded.find(key(99))


def test_other_byte_order_is_doubtful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(small(), tmp_path / "table")
    monkeypatch.setattr(module, "_ORDER", 0x04030201)
    with pytest.raises(Unusable):
        Table.load(path, 8)


def load(pipe: Any, path: str) -> None:
    try:
        Table.load(path, 4)
    except (Unusable, OSError):
        pipe.send("doubtful")


@pytest.mark.parametrize("plant", ["fifo", "symlink", "directory", "device"])
def test_planted(tmp_path: Path, plant: str) -> None:
    """Whatever is in a table's place, it is no table, and is not waited for."""
    path = tmp_path / "table"
    if plant == "fifo":
        os.mkfifo(path)
    elif plant == "directory":
        path.mkdir()
    else:
        path.symlink_to(save(Table(4), tmp_path / "elsewhere") if plant == "symlink" else "/dev/zero")
    with Child(load, str(path)) as child:
        assert child.hear(5) == "doubtful"
