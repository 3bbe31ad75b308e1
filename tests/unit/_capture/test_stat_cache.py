# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stat cache's file: what is written is found again, copied subtrees are equal, and anything doubtful is nothing."""

from __future__ import annotations

import io
import os
import struct
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._capture.stat_cache import NEVER, RACY, DirectoryFacts, DirectoryRecord, Known, Scan, Stats, Writer
from hypothesis import given, strategies as st

from ..kit import Child, cuts, digest, flips, within

STARTED = 10**18
OLD = STARTED - RACY


def facts(label: str, subdirectories: int = 0, files: int = 2) -> DirectoryFacts:
    """A directory of files, then of subdirectories; all numbers follow from the label."""
    names = [b"%s-%04d" % (label.encode(), number) for number in range(files + subdirectories)]
    numbers = array("q", [n for at, name in enumerate(names) for n in (zlib.crc32(name), at, 5, OLD - at)])
    return DirectoryFacts(
        tree=digest(label.encode()),
        stats=Stats(files, subdirectories, 0, 0, files * 10, files),
        names=b"\0".join(names),
        numbers=numbers.tobytes(),
        subdirectories=array("I", range(files, files + subdirectories)),
        linked=array("I", [0] if files else []),
        objects=[(digest(label.encode() + b"o"), 200_000)],
        chunked=[(digest(label.encode() + b"c"), 9_000_000)] * (files % 3),
        uids=array("I", [0, 1000]),
        gids=array("I", [5]),
    )


Shape = dict  # name -> Shape


def write(shape: Shape, out: io.BytesIO, packs: Sequence[bytes] = ()) -> None:
    writer = Writer(out, STARTED)

    def place(label: str, below: Shape) -> Known:
        children = [place(f"{label}/{name}", inner) if inner is not None else None for name, inner in below.items()]
        return writer.place(facts(label, len(below)), children)

    writer.end(place("", shape), packs)  # type: ignore[arg-type]


SHAPE: Shape = {"a": {"deep": {"deeper": {}}}, "b": {}, "c": {"x": {}, "y": {"z": {}}}, "gone": None}


def save(tmp_path: Path, shape: Shape, packs: Sequence[bytes] = (), name: str = "scan") -> str:
    out = io.BytesIO()
    write(shape, out, packs)
    (tmp_path / name).write_bytes(out.getvalue())
    return str(tmp_path / name)


def check(record: DirectoryRecord | None, label: str, shape: Shape) -> None:
    assert record is not None
    assert record.facts == facts(label, len(shape))
    names = record.facts.names.split(b"\0")
    for at, (name, inner) in enumerate(shape.items()):
        child = record.child(at)
        if inner is None:
            assert child is None
        else:
            check(child, f"{label}/{name}", inner)
        assert record.place_of(names[record.facts.subdirectories[at]]) == at
    assert record.positions() == {name: at for at, name in enumerate(names)}
    assert record.place_of(names[0]) == record.place_of(b"unknown") == -1


def test_round_trip(tmp_path: Path) -> None:
    packs = [b"p" * 32, b"a" * 32, b"p" * 32]
    scan = Scan(save(tmp_path, SHAPE, packs))
    check(scan.root(), "", SHAPE)
    assert sorted(scan.packs) == [b"a" * 32, b"p" * 32]


SHAPES = st.recursive(st.just({}), lambda below: st.dictionaries(st.sampled_from("abcde"), below, max_size=4), max_leaves=12)


@given(SHAPES)
def test_any_shape(tmp_path_factory: pytest.TempPathFactory, shape: Shape) -> None:
    check(Scan(save(tmp_path_factory.mktemp("scan"), shape)).root(), "", shape)


@given(SHAPES, st.integers(0, 2))
def test_unchanged_subtrees_are_copied_as_they_stand(tmp_path_factory: pytest.TempPathFactory, shape: Shape, generations: int) -> None:
    """A root with a new directory between old ones: what is copied reads like what was written, over several generations."""
    tmp_path = tmp_path_factory.mktemp("scan")
    path = save(tmp_path, {"old": shape, "other": {"x": {}}})
    for generation in range(generations + 1):
        root = Scan(path).root()
        assert root is not None
        out = io.BytesIO()
        writer = Writer(out, STARTED)
        new = writer.place(facts("new"), [])
        writer.end(writer.place(facts("", 3), [root.child(0), new, root.child(1 if generation == 0 else 2)]), [])
        path = str(tmp_path / str(generation))
        Path(path).write_bytes(out.getvalue())
        again = Scan(path).root()
        assert again is not None and again.facts == facts("", 3)
        check(again.child(0), "/old", shape)
        check(again.child(1), "new", {})
        check(again.child(2), "/other", {"x": {}})


def test_empty_directory(tmp_path: Path) -> None:
    out = io.BytesIO()
    writer = Writer(out, STARTED)
    writer.end(writer.place(facts("", 0, 0), []), [])
    (tmp_path / "scan").write_bytes(out.getvalue())
    root = Scan(str(tmp_path / "scan")).root()
    assert root is not None and root.positions() == {} and root.place_of(b"") == -1


# ---- what is believed


@pytest.mark.parametrize(
    ("ctime", "believed"), [(0, True), (OLD - 1, True), (OLD, True), (OLD + 1, False), (STARTED - 1, False), (STARTED, False), (STARTED + 10**12, False)]
)
def test_young_entries_never_match(ctime: int, believed: bool) -> None:
    numbers = array("q", [7, 8, 9, 0, 1, 2, 3, ctime]).tobytes()
    found = array("q", Writer(io.BytesIO(), STARTED).mark_racy(numbers, False, []))
    assert list(found) == [7, 8, 9, 0, 1, 2, 3, ctime if believed else NEVER]


def test_doubted_entries_never_match() -> None:
    numbers = array("q", [1, 2, 3, 4] * 5).tobytes()
    writer = Writer(io.BytesIO(), STARTED)
    assert list(array("q", writer.mark_racy(numbers, False, [0, 3])))[3::4] == [NEVER, 4, 4, NEVER, 4]
    assert list(array("q", writer.mark_racy(numbers, True, [])))[3::4] == [NEVER] * 5
    assert writer.mark_racy(numbers, False, []) == numbers
    assert writer.mark_racy(b"", True, []) == b""


# ---- what is no scan


@pytest.mark.parametrize("plant", ["nothing", "empty", "directory", "null", "short", "rubbish", "another magic"])
def test_no_scan(tmp_path: Path, plant: str) -> None:
    path = tmp_path / "scan"
    if plant == "directory":
        path.mkdir()
    elif plant == "null":
        path = Path(os.devnull)
    elif plant != "nothing":
        path.write_bytes({"empty": b"", "short": b"VOLTSCN1", "rubbish": bytes(5000), "another magic": b"VOLTSCN1" + b"x" * 500}[plant])
    scan = Scan(str(path))
    assert scan.root() is None and scan.packs == []


def readable(scan: Scan, record: DirectoryRecord | None, label: str, shape: Shape) -> None:
    """Whatever a damaged file still tells is true."""
    if record is None:
        return
    assert record.facts == facts(label, len(shape))
    for at, (name, inner) in enumerate(shape.items()):
        child = record.child(at)
        assert child is None or inner is not None
        if inner is not None:
            readable(scan, child, f"{label}/{name}", inner)


def test_damage(tmp_path: Path) -> None:
    """Only checked records are told of, and of a damaged one nothing; what is not damaged may still be told."""
    path = Path(save(tmp_path, SHAPE, [b"p" * 32]))
    good = path.read_bytes()
    for bad in (*cuts(good), *(changed for _at, changed in flips(good, 1500)), good + b"\0"):
        path.write_bytes(bad)
        scan = Scan(str(path))
        assert scan.packs in ([], [b"p" * 32])
        readable(scan, scan.root(), "", SHAPE)
    assert Scan(str(path)).root() is None  # the last one: bytes behind the end


@pytest.mark.parametrize(
    ("root", "count"), [(1 << 63, 0), (0, 0), (16, 1 << 58), (16, (1 << 64) - 1), (10**9, 0), (4, 0)]
)
def test_absurd_trailers_under_a_true_checksum(tmp_path: Path, root: int, count: int) -> None:
    path = Path(save(tmp_path, SHAPE))
    good = path.read_bytes()
    head = struct.pack("=QQI", root, count, 0x01020304)
    path.write_bytes(good[:-32] + head + struct.pack("=I8s", zlib.crc32(head), b"VOLTSCN1"))
    with within(0.2, 30):
        assert Scan(str(path)).root() is None


def test_memory_map_ends_with_the_scan(tmp_path: Path) -> None:
    path = save(tmp_path, SHAPE)
    scan = Scan(path)
    check(scan.root(), "", SHAPE)
    assert path in Path("/proc/self/maps").read_text()
    del scan
    assert path not in Path("/proc/self/maps").read_text()


def look(pipe: Any, path: str) -> None:
    pipe.send(Scan(path).root() is None)


@pytest.mark.parametrize("plant", ["fifo", "symlink"])
def test_planted(tmp_path: Path, plant: str) -> None:
    """A fifo is not waited for, and a symlink not followed."""
    path = tmp_path / "planted"
    if plant == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(save(tmp_path, SHAPE))
    with Child(look, str(path)) as child:
        assert child.hear(5) is True
