# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Going about in a tree by descriptors: order, depth, and what others do meanwhile."""

from __future__ import annotations

import os
import resource
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._format import chunks
from ansible_collections.volt.backup.plugins.module_utils._format.walk import join
from ansible_collections.volt.backup.plugins.module_utils._fs import descent
from ansible_collections.volt.backup.plugins.module_utils._fs.descent import Moved, Trail, find_holes, listing, open_directory

from ..kit import descriptors


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = open_directory(os.fsencode(tmp_path))
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "names",
    [
        [],
        [b"one"],
        [b"b", b"a", b"B", b"A", b"0", b"~", b" "],
        ["ä".encode(), b"z", b"a"],
        # as text with surrogates, \xff would sort before the private use characters and the emoji
        [b"\xff", b"\xee\x80\x80", "😀".encode(), b"\x80", "é".encode(), b"e"],
        [b"new\nline", b"-rf", b"tab\t", b"\\"],
    ],
)
def test_listing_is_in_byte_order(tmp_path: Path, fd: int, names: list[bytes]) -> None:
    for name in names:
        Path(tmp_path, os.fsdecode(name)).touch()
    items, found = listing(fd)
    assert found == sorted(names)
    assert [os.fsencode(item[0]) for item in items] == found
    assert all(item[1].st_ino == os.lstat(os.path.join(os.fsencode(tmp_path), name)).st_ino for item, name in zip(items, found))


def test_listing_twice(tmp_path: Path, fd: int) -> None:
    (tmp_path / "a").touch()
    assert listing(fd)[1] == listing(fd)[1] == [b"a"]


def test_listing_does_not_follow(tmp_path: Path, fd: int) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (_name, info), = listing(fd)[0]
    assert info.st_ino == os.lstat(tmp_path / "link").st_ino


def chain(tmp_path: Path, depth: int) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _level in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


@pytest.mark.parametrize("depth", [1, descent._KEEP - 1, descent._KEEP, descent._KEEP + 1, 700])
def test_deep(tmp_path: Path, fd: int, depth: int) -> None:
    chain(tmp_path, depth)
    before, inodes = len(descriptors()), []
    with Trail(os.dup(fd)) as trail:
        for _level in range(depth):
            inodes.append(os.fstat(trail.fd).st_ino)
            info = trail.enter("d")
            assert info.st_ino == os.fstat(trail.fd).st_ino
        assert trail.depth == depth + 1
        assert len(descriptors()) - before <= descent._KEEP + 1
        while inodes:
            trail.leave()
            assert os.fstat(trail.fd).st_ino == inodes.pop()
        assert os.fstat(trail.fd).st_ino == os.fstat(fd).st_ino
        for _level in range(depth):  # and down once more
            trail.enter("d")
    assert len(descriptors()) == before


def test_deeper_than_descriptors_go(tmp_path: Path, fd: int) -> None:
    chain(tmp_path, 600)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(256, len(descriptors()) + descent._KEEP + 20), hard))
    try:
        with Trail(os.dup(fd)) as trail:
            for _level in range(600):
                trail.enter("d")
            for _level in range(600):
                trail.leave()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("plant", ["symlink", "symlink to a directory", "file", "fifo", "nothing"])
def test_only_directories_are_entered(tmp_path: Path, fd: int, plant: str) -> None:
    there = tmp_path / "there"
    if plant.startswith("symlink"):
        there.symlink_to("/" if plant == "symlink to a directory" else "nowhere")
    elif plant == "file":
        there.touch()
    elif plant == "fifo":
        os.mkfifo(there)
    before = len(descriptors())
    with Trail(os.dup(fd)) as trail:
        with pytest.raises(OSError):
            trail.enter("there")
        assert trail.depth == 1 and os.fstat(trail.fd).st_ino == os.fstat(fd).st_ino
    assert len(descriptors()) == before


def test_a_move_is_got_over_on_the_way_up(tmp_path: Path, fd: int) -> None:
    """Beyond the descriptors that are kept, up means "..": which must be where we came from, or the way is taken from above once more."""
    depth = descent._KEEP + 2
    chain(tmp_path, depth)
    (tmp_path / "elsewhere").mkdir()
    before, inodes = len(descriptors()), []
    with Trail(os.dup(fd)) as trail:
        for _level in range(depth):
            inodes.append(os.fstat(trail.fd).st_ino)
            trail.enter("d")
        # d/d, whose parent's descriptor is no longer kept, moves away from under us
        os.rename(tmp_path / "d" / "d", tmp_path / "elsewhere" / "d")
        while inodes:
            trail.leave()
            assert os.fstat(trail.fd).st_ino == inodes.pop()
    assert len(descriptors()) == before


@pytest.mark.parametrize("instead", ["nothing", "directory", "link"])
def test_the_trail_ends_at_the_last_directory_that_exists(tmp_path: Path, fd: int, instead: str) -> None:
    depth = descent._KEEP + 4
    chain(tmp_path, depth)
    (tmp_path / "elsewhere").mkdir()
    before = len(descriptors())
    with Trail(os.dup(fd)) as trail:
        for _level in range(depth):
            trail.enter("d")
        os.rename(tmp_path / "d" / "d" / "d" / "d", tmp_path / "elsewhere" / "e")
        os.rename(tmp_path / "d" / "d", tmp_path / "elsewhere" / "d")
        if instead == "directory":
            (tmp_path / "d" / "d").mkdir()
        elif instead == "link":
            (tmp_path / "d" / "d").symlink_to(tmp_path / "elsewhere" / "d")
        with pytest.raises(Moved) as caught:
            for _level in range(depth):
                trail.leave()
        assert (caught.value.code, caught.value.depth, trail.depth) == ("moved", 2, 2)
        assert os.fstat(trail.fd).st_ino == (tmp_path / "d").stat().st_ino
        trail.leave()
        assert os.fstat(trail.fd).st_ino == tmp_path.stat().st_ino
    assert len(descriptors()) == before


def test_a_move_within_what_is_kept_does_no_harm(tmp_path: Path, fd: int) -> None:
    chain(tmp_path, 2)
    with Trail(os.dup(fd)) as trail:
        trail.enter("d")
        here = os.fstat(trail.fd).st_ino
        trail.enter("d")
        os.rename(tmp_path / "d" / "d", tmp_path / "moved")
        trail.leave()
        assert os.fstat(trail.fd).st_ino == here


@pytest.mark.parametrize(("parent", "name", "path"), [(b"", b"a", b"a"), (b"a", b"b", b"a/b"), (b"a/b", b"\xff", b"a/b/\xff")])
def test_join(parent: bytes, name: bytes, path: bytes) -> None:
    assert join(parent, name) == path


def test_user_s_own_path_may_lead_through_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    fd = open_directory(os.fsencode(tmp_path / "link"), follow=True)
    try:
        assert os.fstat(fd).st_ino == (tmp_path / "real").stat().st_ino
    finally:
        os.close(fd)


def sparse(path: Path, size: int, *data: tuple[int, bytes]) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, size)
    for offset, piece in data:
        os.pwrite(fd, piece, offset)
    return fd


@pytest.mark.parametrize(
    ("size", "data"),
    [(0, ()), (1, ()), (1 << 20, ()), (1 << 20, ((0, b"x"),)), (1 << 20, (((1 << 20) - 1, b"x"),)), (10 << 20, ((5 << 20, b"middle"),)),
     ((1 << 20) + 5, ((65536, b"one"), (1 << 19, b"two")))],
)  # fmt: skip
def test_find_holes(tmp_path: Path, size: int, data: tuple[tuple[int, bytes], ...]) -> None:
    """Whatever the file system's blocks: holes are sound, all the data lies outside them, and at least most of the rest inside."""
    fd = sparse(tmp_path / "file", size, *data)
    try:
        holes = find_holes(fd, size)
        chunks.check_holes(holes, size)
        assert not any(offset <= at < offset + length for at, _piece in data for offset, length in holes)
        if os.fstat(fd).st_blocks * 512 < size:  # the file system has holes
            assert sum(length for _offset, length in holes) >= size - 65536 * (1 + 2 * len(data))
        assert all(not any(os.pread(fd, length, offset)) for offset, length in holes)
    finally:
        os.close(fd)


def test_allocated_zeros_are_data(tmp_path: Path) -> None:
    fd = sparse(tmp_path / "file", 1 << 20, (0, bytes(1 << 20)))
    try:
        assert find_holes(fd, 1 << 20) == ()
    finally:
        os.close(fd)


def test_a_file_that_shrinks_under_our_hands(tmp_path: Path) -> None:
    fd = sparse(tmp_path / "file", 100)
    try:
        chunks.check_holes(find_holes(fd, 1 << 30), 1 << 30)
    finally:
        os.close(fd)


def test_a_pipe_has_no_holes() -> None:
    out, into = os.pipe()
    try:
        with pytest.raises(OSError):
            find_holes(out, 100)
    finally:
        os.close(out)
        os.close(into)


FIELDS = "st_mode st_ino st_dev st_nlink st_uid st_gid st_size st_mtime_ns st_ctime_ns st_blocks st_rdev".split()


def test_the_stats_of_a_large_directory_take_less_memory(tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2000):
        (tmp_path / str(number)).touch()
    (tmp_path / "file").write_bytes(b"123")
    (tmp_path / "link").symlink_to("nowhere")
    os.mknod(tmp_path / "fifo", 0o600 | stat.S_IFIFO)
    sizes, facts = [], []
    for large in (1 << 30, 0):
        monkeypatch.setattr(descent, "_LARGE", large)
        tracemalloc.start()
        items = listing(fd)[0]
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        facts.append([(name, [getattr(info, field) for field in FIELDS]) for name, info in items])
        del items
    assert facts[0] == facts[1]
    assert sizes[1] < 0.7 * sizes[0]
