# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of hard links."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, Unsupported
from ansible_collections.volt.backup.plugins.module_utils._format import links
from hypothesis import given, strategies as st

from ..kit import cuts, flips, within

PART = st.binary(min_size=1, max_size=8).filter(lambda part: not {0, 47} & set(part) and part not in (b".", b".."))
PATH = st.lists(PART, min_size=1, max_size=4).map(b"/".join)


@given(st.lists(PATH, max_size=20, unique=True), st.integers(2, 4))
def test_round_trip(paths: list[bytes], members: int) -> None:
    groups = [paths[start : start + members] for start in range(0, len(paths) - members + 1, members)]
    blob = links.encode(groups)
    assert list(links.decode(blob)) == sorted(sorted(group) for group in groups)
    assert links.encode(reversed([group[::-1] for group in groups])) == blob  # whatever order a walk found them in


def test_form() -> None:
    blob = links.encode([[b"z", b"b"], [b"d/x", b"a"]])
    assert blob == b"VOLTLINK" + struct.pack("<I", 2) + struct.pack("<I", 2) + b"a\0d/x\0" + struct.pack("<I", 2) + b"b\0z\0"


def raw(count: int, *groups: tuple[int, bytes]) -> bytes:
    return b"VOLTLINK" + struct.pack("<I", count) + b"".join(struct.pack("<I", members) + paths for members, paths in groups)


FORGED = {
    "another magic": b"VOLTTREE" + bytes(4),
    "magic alone": b"VOLTLINK",
    "absurd count": raw(0xFFFFFFFF),
    "absurd members": raw(1, (0xFFFFFFFF, b"a\0b\0")),
    "a group of none": raw(1, (0, b"")),
    "a group of one": raw(1, (1, b"a\0")),
    "many groups of none": raw(100_000, *[(0, b"")] * 100_000),
    "bytes behind": raw(1, (2, b"a\0b\0c\0")),
    "no end": raw(1, (2, b"a\0b")),
    "empty path": raw(1, (2, b"\0b\0")),
    "absolute": raw(1, (2, b"/etc/shadow\0b\0")),
    "dot": raw(1, (2, b"./a\0b\0")),
    "climbing": raw(1, (2, b"../a\0b\0")),
    "climbing within": raw(1, (2, b"a\0b/../../c\0")),
    "climbing at the end": raw(1, (2, b"a\0b/..\0")),
    "double slash": raw(1, (2, b"a//b\0c\0")),
    "slash at the end": raw(1, (2, b"a/\0c\0")),
    "a path twice": raw(1, (2, b"a\0a\0")),
    "paths that descend": raw(1, (2, b"b\0a\0")),
    "groups that descend": raw(2, (2, b"b\0c\0"), (2, b"a\0d\0")),
    "a group twice": raw(2, (2, b"a\0b\0"), (2, b"a\0b\0")),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged(name: str) -> None:
    with within(0.2, 30), pytest.raises(Damaged):
        list(links.decode(FORGED[name]))


def test_damage() -> None:
    good = links.encode([[b"a/b", b"c"], [b"d", b"e", b"f/g"]])
    for blob in (*cuts(good), good + b"\0", b""):
        with pytest.raises(Damaged):
            list(links.decode(blob))
    for _at, blob in flips(good):
        try:
            assert all(len(group) > 1 for group in links.decode(blob))
        except (Damaged, Unsupported):
            pass


@given(st.binary(max_size=100))
def test_rubbish(data: bytes) -> None:
    for blob in (data, b"VOLTLINK" + data):
        try:
            list(links.decode(blob))
        except Damaged:
            pass
