# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A large file that has changed in a few places is restored from what it still has: little is read of the store, written to the disk or fetched."""

from __future__ import annotations

import functools
import mmap
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import kernel
from ansible_collections.volt.backup.plugins.module_utils._fs.descent import find_holes
from ansible_collections.volt.backup.plugins.module_utils._restore import content
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.tests.rigs import need, oracle, sample
from ansible_collections.volt.backup.tests.unit.kit import noise

from .test_push import made
from .test_restore_remote import Elsewhere

MIB = 1 << 20
WAYS = ("replace", "in_place")


@functools.lru_cache
def image() -> bytes:
    """With a hole, a text that compresses, and an end that is no whole chunk."""
    return noise(12 * MIB, 1) + bytes(3 * MIB) + b"text\n" * (8 * MIB // 5) + noise(MIB + 777, 2)


def spoil(path: Path, *places: int) -> None:
    """Change a byte at some places, and the time with it."""
    with open(path, "r+b") as file:
        for place in places:
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 1]))
    os.utime(path, (1, 1))


@pytest.fixture(params=sample.some(["ext4", "xfs", "btrfs"], 2, "images"))
def ground(request: pytest.FixtureRequest, bench_on: Any) -> Any:
    """A backup of an image, restored once."""
    bench = bench_on(request.param)
    bench.files(image=image(), small=b"small")
    with open(bench.source / "image", "r+b") as file:
        kernel.punch(file.fileno(), 12 * MIB, 3 * MIB)
    bench.create(compression="zlib")
    bench.restore()
    return bench


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of chunks that are read of the store."""
    found: list[int] = []
    read = Store.read_object_first

    def counted(self: Store, digest: bytes, limit: int) -> bytes:
        found.append(limit)
        return read(self, digest, limit)

    monkeypatch.setattr(Store, "read_object_first", counted)
    return found


@pytest.mark.parametrize("strategy", WAYS)
def test_only_what_differs_is_read(ground: Any, reads: list[int], strategy: str) -> None:
    spoil(ground.target / "image", 5 * MIB + 3, 13 * MIB, 20 * MIB, 24 * MIB + 100)
    ground.restore(force=True, strategy=strategy, link="copy")
    assert oracle.differences(ground.source, ground.target) == []
    assert len(reads) == 3
    assert ground.debris() == []


def test_what_is_kept_is_not_written_where_blocks_can_be_shared(bench_on: Any) -> None:
    bench = bench_on("xfs")
    bench.files(image=noise(16 * MIB))
    bench.create(compression="zlib")
    bench.restore(link="copy")
    spoil(bench.target / "image", 5 * MIB)
    os.sync()
    free = os.statvfs(bench.target).f_bfree
    with open(bench.target / "image", "rb"):  # so that its blocks are not free again
        bench.restore(force=True, strategy="in_place", link="copy")
        os.sync()
        info = os.statvfs(bench.target)
        assert (free - info.f_bfree) * info.f_frsize < 4 * MIB
    assert oracle.differences(bench.source, bench.target) == []


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("size", sample.some([0, 3 * MIB, 40 * MIB], 1, "old image"))
def test_an_old_file_of_another_size(ground: Any, strategy: str, size: int) -> None:
    os.truncate(ground.target / "image", size)
    ground.restore(force=True, strategy=strategy)
    assert oracle.differences(ground.source, ground.target) == []


def test_one_that_is_all_different_is_hardly_read(ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (ground.target / "image").write_bytes(noise(len(image()), 9))
    looked: list[int] = []
    take = content.Filler._take

    def counted(self: Any, fd: int, old: int, offset: int, *more: Any) -> bool:
        looked.append(offset)
        return take(self, fd, old, offset, *more)

    monkeypatch.setattr(content.Filler, "_take", counted)
    ground.restore(force=True, strategy="in_place", link="copy")
    assert oracle.differences(ground.source, ground.target) == [] and 4 <= len(looked) <= 10


@pytest.mark.parametrize("strategy", WAYS)
def test_a_file_that_changes_while_chunks_are_taken(ground: Any, monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    """Others may write to the old file at any time; what was hashed is what is there in the end."""
    path = ground.target / "image"
    spoil(path, 0)
    clone, chunk_at = kernel.clone_range, content.chunk_at

    def cloned(*words: Any) -> None:
        clone(*words)
        spoil(path, words[1] + 5)

    def looked(fd: int, offset: int, *more: Any) -> Any:
        found = chunk_at(fd, offset, *more)
        spoil(path, offset + 7)
        return found

    monkeypatch.setattr(kernel, "clone_range", cloned)
    monkeypatch.setattr(content, "chunk_at", looked)
    ground.restore(force=True, strategy=strategy, link="copy")
    assert oracle.differences(ground.source, ground.target) == []


@pytest.fixture
def elsewhere(bench: Any) -> Elsewhere:
    """A host without a store that has restored an image, and a file that is its own since."""
    need("zstd")
    bench.files(image=image(), other=b"other")
    place = made(bench)
    place.create()
    place.push()
    found = Elsewhere(place)
    found.restore()
    (found.target / "other").write_bytes(b"mine")
    return found


def test_only_what_differs_is_fetched(bench: Any, elsewhere: Elsewhere) -> None:
    spoil(elsewhere.target / "image", 5 * MIB + 3, 20 * MIB)
    done = elsewhere.restore(force=True)
    assert oracle.differences(bench.source, elsewhere.target) == []
    assert done.restore["fetched_bytes"] < 3 * MIB


@pytest.mark.parametrize("strategy", WAYS)
def test_nothing_of_the_old_file_stays_in_holes(bench_on: Any, strategy: str) -> None:
    """Of one that is all different, and whose blocks were shared before that was found out."""
    bench = bench_on("xfs")
    bench.files(image=b"text\n" * (12 * MIB // 5))
    with open(bench.source / "image", "r+b") as file:
        kernel.punch(file.fileno(), 2 * MIB + 65536, 65536)
    bench.create(compression="zlib")
    bench.restore()
    (bench.target / "image").write_bytes(noise(12 * MIB, 9))
    bench.restore(force=True, strategy=strategy)
    assert oracle.differences(bench.source, bench.target) == []


@pytest.mark.parametrize("strategy", WAYS)
def test_a_bad_sector_of_the_old_file(bench_on: Any, tmp_path: Path, strategy: str) -> None:
    """What the disk has lost is what a restore is for."""
    bench = bench_on("btrfs")
    bench.files(image=noise(12 * MIB))
    bench.create()
    bench.restore(link="copy")
    mark = noise(4096, 77)
    with open(bench.target / "image", "r+b") as file:
        os.pwrite(file.fileno(), mark, 6 * MIB)
        os.fsync(file.fileno())
        (disk,) = tmp_path.glob("btrfs-*/image")
        with open(disk, "r+b") as raw, mmap.mmap(raw.fileno(), 0) as view:
            at = view.find(mark)
            assert at > 0
            view[at : at + 16] = bytes(16)
            view.flush()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(file.fileno(), 4096, 6 * MIB)
    bench.restore(force=True, strategy=strategy, link="copy")
    assert oracle.differences(bench.source, bench.target) == []


def test_a_tree_that_is_kept_gives_its_chunks_too(bench: Any, elsewhere: Elsewhere) -> None:
    done = elsewhere.restore(force=True, keep_previous=True)
    assert oracle.differences(bench.source, elsewhere.target) == []
    assert done.restore["fetched_bytes"] < MIB


@pytest.mark.parametrize("link", ["auto", "copy"])
def test_zeros_that_are_data_stay_data(bench_on: Any, link: str) -> None:
    """The old file has a hole there, which reads the same. A swap file must have none."""
    bench = bench_on("xfs")
    bench.files(image=noise(4 * MIB, 1) + bytes(6 * MIB))
    bench.create(compression="zlib")
    bench.restore()
    spoil(bench.target / "image", 0)
    with open(bench.target / "image", "r+b") as file:
        kernel.punch(file.fileno(), 5 * MIB, 3 * MIB)
    bench.restore(force=True, strategy="in_place", link=link)
    assert oracle.differences(bench.source, bench.target) == []
    with open(bench.target / "image", "rb") as file:
        assert not find_holes(file.fileno(), 10 * MIB)
