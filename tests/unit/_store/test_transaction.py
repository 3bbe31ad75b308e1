# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs on a real store: what a run writes, when it becomes true, and what is left of one that dies."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import files as base_files, kernel
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, StoreError, StoreFull, UsageError
from ansible_collections.volt.backup.plugins.module_utils._store import pack, transaction
from ansible_collections.volt.backup.plugins.module_utils._store.lock import taken
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction

from ..kit import Child, digest, noise

MIB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def put(path: Path, *blobs: bytes, compression: str = "none", timeout: float = 5) -> Transaction:
    """Store blobs as content: small ones in packs, others as objects."""
    with Transaction(Store(str(path), timeout), compression) as run:
        for blob in blobs:
            if len(blob) <= 128 << 10:
                run.blobs.add(digest(blob), blob)
            else:
                run.objects.save(digest(blob), blob)
        run.commit()
    return run


def files(path: Path, *kinds: str) -> list[str]:
    """What lies below, relative; without locks and marks."""
    found = [str(file.relative_to(path)) for kind in kinds or ("objects", "packs", "index", "tmp") for file in (path / kind).rglob("*")]
    return sorted(name for name in found if not (path / name).is_dir() or name.startswith("tmp"))


SMALL = [noise(size, size) for size in (1, 100, 5000, 128 << 10)]
LARGE = [noise((128 << 10) + 1), bytes(MIB)]


@pytest.mark.parametrize("compression", ["none", "zlib", "auto"])
def test_everything_comes_back(path: Path, compression: str) -> None:
    run = put(path, *SMALL, *LARGE, compression=compression)
    assert (run.counts.new_blobs, run.counts.new_bytes) == (6, sum(map(len, SMALL + LARGE)))
    store = Store(str(path))
    for blob in SMALL + LARGE:
        assert store.read(digest(blob), len(blob)) == blob
        with pytest.raises(Damaged):
            Store(str(path)).read(digest(blob), len(blob) - 1)
    stored = sum((path / name).stat().st_size for name in files(path, "objects", "packs"))
    assert run.counts.stored_bytes == stored
    suffixes = {name.partition(".")[2] for name in files(path, "objects", "packs")}
    assert compression != "none" or suffixes == {"", "pack"}
    assert compression != "zlib" or suffixes == {"", "zz", "pack"}  # what is noise stays plain
    assert files(path, "tmp") == []


def test_second_time_nothing_is_new(path: Path) -> None:
    put(path, *SMALL, *LARGE)
    before = files(path, "objects", "packs", "index")
    run = put(path, *SMALL, *LARGE, *SMALL)
    assert (run.counts.new_blobs, run.counts.new_bytes, run.counts.stored_bytes) == (0, 0, 0)
    assert files(path, "objects", "packs", "index") == before


def test_twice_in_one_run_is_once(path: Path) -> None:
    run = put(path, *SMALL, *SMALL, *LARGE, *LARGE)
    assert run.counts.new_blobs == 6


def test_another_compression_keeps_what_is_there(path: Path) -> None:
    put(path, *SMALL, *LARGE, compression="none")
    before = files(path, "objects", "packs")
    put(path, *SMALL, *LARGE, compression="zlib")
    assert files(path, "objects", "packs") == before


def test_same_blobs_same_packs_on_every_host(tmp_path: Path) -> None:
    blobs = [noise(3000, number) for number in range(2000)]
    for name in ("one", "two"):
        put(tmp_path / name, *blobs)
    packs = files(tmp_path / "one", "packs")
    assert packs == files(tmp_path / "two", "packs") and len(packs) > 2
    for name in packs:
        assert digest((tmp_path / "one" / name).read_bytes()).hex() == Path(name).name[:64]


def test_content_and_metadata_keep_apart(path: Path) -> None:
    with Transaction(Store(str(path)), "none") as run:
        run.blobs.add(digest(b"content"), b"content")
        run.add_metadata(b"metadata")
        run.blobs.add(digest(b"more"), b"more")
        run.commit()
    kinds = {}
    for name in files(path, "packs"):
        data = (path / name).read_bytes()
        kinds[pack.HEADER.unpack_from(data)[1]] = data[pack.first_blob(data) :]
    assert kinds == {pack.CONTENT: b"contentmore", pack.METADATA: b"metadata"}


@pytest.mark.parametrize("size", [pack.BLOB_MOST, pack.BLOB_MOST + 1])
def test_metadata_of_any_size(path: Path, size: int) -> None:
    blob = noise(1000) * (size // 1000 + 1)
    blob = blob[:size]
    with Transaction(Store(str(path)), "zlib") as run:
        assert run.add_metadata(blob) == run.add_metadata(blob) == digest(blob)
        run.commit()
        assert run.read(digest(blob), size) == blob
    assert len(files(path, "objects")) == (size > pack.BLOB_MOST)


def test_a_large_metadata_object_stays_undamaged_when_its_ctime_moves(path: Path) -> None:
    """A store that was copied, or whose owner was changed, has new ctimes: everything is hashed once, and believed again."""
    blob = noise(1000) * 10_000
    with Transaction(Store(str(path)), "zlib") as run:
        run.add_metadata(blob)
        run.commit()
    file = path / files(path, "objects")[0]
    os.chmod(file, 0o640)
    store = Store(str(path))
    assert store.object_form(digest(blob), len(blob)) is not None
    assert not store.index.damaged


def test_nothing_is_true_before_commit(path: Path) -> None:
    with Transaction(Store(str(path)), "none") as run:
        for blob in SMALL:
            run.blobs.add(digest(blob), blob)
        run.objects.save(digest(LARGE[0]), LARGE[0])
        run.finish()
        assert files(path, "objects", "packs", "index") == []
        assert len(files(path, "tmp")) > 4
    assert files(path) == []  # it never was


def test_order_of_durability(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data is synced under tmp, then named, then the names are synced; the index comes with the names."""
    steps = []

    def where(target: Any) -> str:
        return os.path.relpath(target, path).split("/", 1)[0]

    real = os.rename
    monkeypatch.setattr(kernel, "syncfs", lambda _fd: steps.append("sync"))
    monkeypatch.setattr(os, "rename", lambda old, new, **more: (steps.append(where(new)), real(old, new, **more))[1])
    assert put(path, SMALL[1], LARGE[0]).counts.new_blobs == 2
    while steps[0] != "sync":
        steps.pop(0)  # the store's own making
    assert steps == ["sync", "objects", "packs", "index", "index", "sync"]


def test_a_run_that_fails_leaves_nothing(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Transaction(Store(str(path))) as run:
        run.blobs.add(digest(b"x"), b"x")
        run.finish()
        raise ZeroDivisionError
    assert files(path) == []
    with taken(str(path), "gate", 0):
        pass


def die(pipe: Any, path: str, commit: bool) -> None:
    with Transaction(Store(path, 5), "none") as run:
        run.blobs.add(digest(b"dying"), b"dying")
        run.finish()
        if commit:
            run.commit()
        pipe.send("ready")
        pipe.recv()


@pytest.mark.parametrize("commit", [False, True])
def test_death_leaves_a_directory_that_the_next_run_sweeps(path: Path, commit: bool) -> None:
    with Child(die, str(path), commit) as child:
        assert child.hear() == "ready"
        child.kill()
    assert files(path, "tmp") != []
    run = put(path, b"dying")
    assert run.counts.new_blobs == (not commit)
    assert files(path, "tmp") == []


def test_the_living_are_not_swept(path: Path) -> None:
    put(path, b"x")
    with Child(die, str(path), False) as child:
        assert child.hear() == "ready"
        put(path, b"y")
        assert any(name.endswith(".pack") for name in files(path, "tmp"))


def test_runs_side_by_side_store_the_same_once(path: Path) -> None:
    blobs = [noise(4000, number) for number in range(300)]
    failures = []

    def work() -> None:
        try:
            put(path, *blobs, LARGE[0])
        except BaseException as error:  # noqa: B036
            failures.append(error)

    put(path)
    threads = [threading.Thread(target=work) for _thread in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(files(path, "objects")) == 1
    store = Store(str(path))
    assert [store.read(digest(blob), 4000) for blob in blobs] == blobs
    assert sum((path / name).stat().st_size for name in files(path, "packs")) < 2 * 300 * 4036


# ---- dry


def test_dry_writes_nothing(path: Path) -> None:
    for there in (False, True):
        if there:
            put(path, b"there")
        before = files(path) if there else None
        with Transaction(Store(str(path)), "none", dry=True) as run:
            run.blobs.add(digest(b"new"), b"new")
            tree = run.add_metadata(b"tree")
            for _turn in range(2):
                run.objects.save(digest(LARGE[0]), LARGE[0])
            run.finish()
            run.commit()
            assert (run.counts.new_blobs, run.read(tree, 100)) == (2, b"tree")
            with pytest.raises(Damaged):
                run.read(tree, 3)
        assert path.exists() == there
        assert not there or files(path) == before


# ---- trouble


@pytest.mark.parametrize(("code", "kind"), [(28, StoreFull), (122, StoreFull), (30, StoreError), (5, StoreError)])
@pytest.mark.parametrize("what", ["pack", "object"])
def test_write_errors_are_the_stores_and_leave_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type, what: str) -> None:
    put(path, b"before")
    before = files(path)

    def fail(_fd: int, _data: bytes) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(base_files, "write_all", fail)
    with pytest.raises(kind) as caught:
        put(path, b"new" if what == "pack" else LARGE[0])
    assert (caught.value.code == "store_full") == (kind is StoreFull)
    assert files(path) == before


def test_a_worker_s_failure_stops_the_run_soon(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with Transaction(Store(str(path)), "none") as run:
        monkeypatch.setattr(base_files, "write_all", fail)
        with pytest.raises(StoreFull):
            for number in range(2000):  # 200 MB, were it to go on
                blob = noise(100_000, number)
                run.blobs.add(digest(blob), blob)
        assert number < 1000


def test_sync_errors_are_not_swallowed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path, b"x")

    def fail(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(kernel, "syncfs", fail)
    before = files(path)
    with pytest.raises(StoreError, match="durable"):
        put(path, b"y", LARGE[0])
    assert files(path) == before


@pytest.mark.parametrize("compression", ["gzip", ""])
def test_unknown_compression(path: Path, compression: str) -> None:
    with pytest.raises(UsageError):
        Transaction(Store(str(path)), compression)


def test_files_are_private_and_never_change(path: Path) -> None:
    put(path, *SMALL, *LARGE)
    before = {name: ((path / name).read_bytes(), (path / name).stat().st_ino) for name in files(path, "objects", "packs")}
    assert all(stat.S_IMODE((path / name).stat().st_mode) == 0o600 for name in before)
    put(path, b"other", noise(200_000, "other"))
    assert all(((path / name).read_bytes(), (path / name).stat().st_ino) == held for name, held in before.items())


def test_store_is_whole_after_a_move(path: Path, tmp_path: Path) -> None:
    """Copied with new ctimes, without its index and cache: it reads the same, and nothing is stored again."""
    put(path, *SMALL, *LARGE, compression="zlib")
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    shutil.rmtree(copy / "index")
    shutil.rmtree(copy / "cache")
    (copy / "index").mkdir()
    (copy / "cache").mkdir()
    store = Store(str(copy))
    assert all(store.read(digest(blob), len(blob)) == blob for blob in SMALL + LARGE)
    assert put(copy, *SMALL, *LARGE).counts.new_blobs == 0


@pytest.mark.parametrize("compression", ["none", "zlib", "auto"])
def test_dry_counts_the_bytes_that_a_run_would_store(path: Path, compression: str) -> None:
    blobs = [*SMALL, *LARGE, b"text " * 5000, *(noise(3000, number) for number in range(500))]
    counts = []
    for dry in (True, False):
        with Transaction(Store(str(path), 5), compression, dry) as run:
            for blob in blobs:
                if len(blob) <= 128 << 10:
                    run.blobs.add(digest(blob), blob)
                else:
                    run.objects.save(digest(blob), blob)
            run.add_metadata(b"tree " * 1000)
            run.commit()
            counts.append((run.counts.new_blobs, run.counts.new_bytes, run.counts.stored_bytes))
            assert not dry or all(len(kept) < 6000 for _suffix, kept in run.blobs._kept.values()), "content is not kept"
    assert counts[0] == counts[1]
    assert counts[0][2] == sum((path / name).stat().st_size for name in files(path, "objects", "packs"))


def test_the_names_of_a_million_files_take_little_memory(tmp_path: Path) -> None:
    names = {hashlib.sha256(b"%d" % number).hexdigest() + ("" if number % 2 else ".zst") for number in range(20_000)}
    for name in names:
        (tmp_path / name).touch()
    tracemalloc.start()
    groups = transaction._by_shard(str(tmp_path))
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {digest.hex() + suffix for (_shard, suffix), group in groups.items() for digest in transaction._digests(group)} == names
    assert taken < 60 * len(names)
