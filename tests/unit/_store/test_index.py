# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where blobs are: tables that may be lost, packs that may be altered, and never a wrong byte."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, StoreError
from ansible_collections.volt.backup.plugins.module_utils._store import codec, layout, pack
from ansible_collections.volt.backup.plugins.module_utils._store.index import Index
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction

from ..kit import Child, cuts, descriptors, digest, flips, noise, within
from .test_transaction import files, put

BLOBS = [noise(2000, number) for number in range(20)]
LARGE = noise(300_000, "large")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    put(path, *BLOBS, LARGE)
    return path


def whole(path: Path) -> bool:
    store = Store(str(path))
    return all(store.read(digest(blob), len(blob)) == blob for blob in [*BLOBS, LARGE])


def the(path: Path, kind: str) -> Path:
    (name,) = files(path, kind)
    return path / name


# ---- derived files


@pytest.mark.parametrize("lost", ["packs-", "objects-", ""])
def test_a_lost_table_is_no_loss(path: Path, lost: str) -> None:
    for name in files(path, "index"):
        if lost in name:
            (path / name).unlink()
    assert whole(path)
    assert put(path, *BLOBS, LARGE).counts.new_blobs == 0
    assert whole(path)


def test_a_lost_index_directory_is_no_loss_to_readers(path: Path) -> None:
    shutil.rmtree(path / "index")
    assert whole(path)


def test_a_lost_table_is_written_again(path: Path) -> None:
    for name in files(path, "index"):
        (path / name).unlink()
    put(path, b"one more")
    (table,) = (name for name in files(path, "index") if "packs-" in name)
    for name in files(path, "packs"):  # all is in the new table: packs need not be read
        (path / name).chmod(0o600)
    index = Index(str(path))
    index.load()
    assert table and all(index.find(digest(blob)) for blob in [*BLOBS, b"one more"])


def test_damaged_tables(path: Path) -> None:
    for name in files(path, "index"):
        table = path / name
        good = table.read_bytes()
        for bad in (*cuts(good, 12), *(changed for _at, changed in flips(good, 25)), bytes(len(good))):
            table.write_bytes(bad)
            assert whole(path)
        table.write_bytes(good)


@pytest.mark.parametrize("plant", ["directory", "symlink loop", "strange names"])
def test_planted_in_the_index(path: Path, plant: str) -> None:
    if plant == "directory":
        (path / "index" / "packs-9").mkdir()
        (path / "index" / "objects-9").mkdir()
    elif plant == "symlink loop":
        (path / "index" / "packs-9").symlink_to("packs-9")
    else:
        (path / "index" / "packs-").write_bytes(b"")
        (path / "index" / "other").write_bytes(b"")
    assert whole(path)


def test_many_runs_leave_few_tables(path: Path) -> None:
    more = [noise(1000, ("more", number)) for number in range(15)]
    for number, blob in enumerate(more):
        put(path, blob, noise(200_000, ("large", number)))
    assert len(files(path, "index")) <= 4
    store = Store(str(path))
    assert all(store.read(digest(blob), 1000) == blob for blob in more)
    assert all(store.index.objects.find(digest(noise(200_000, ("large", number)))) for number in range(15))
    assert whole(path)


# ---- packs


def test_altered_packs_are_never_trusted(path: Path) -> None:
    """A changed byte changes ctime, so the pack is hashed and refused, at the first look."""
    file = the(path, "packs")
    good = file.read_bytes()
    for bad in (*cuts(good, 12), *(changed for _at, changed in flips(good, 25)), good + b"\0"):
        file.write_bytes(bad)
        store = Store(str(path))
        assert store.index.packs == {}
        assert len(store.index.damaged) == 1
        with pytest.raises(Damaged):
            store.read(digest(BLOBS[0]), 2000)
    file.write_bytes(good)
    assert whole(path)


def test_rot_below_an_unchanged_ctime_is_found_on_reading(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state agrees, the bytes do not: what is read is hashed, and the pack is condemned."""
    file = the(path, "packs")
    good = file.read_bytes()
    place = len(good) - 1  # in the last blob
    rotten = good[:place] + bytes([good[place] ^ 1])
    monkeypatch.setattr(Index, "read_pack", lambda _self, _name, _suffix: rotten)
    store = Store(str(path))
    assert store.read(digest(BLOBS[0]), 2000) == BLOBS[0]
    with pytest.raises(Damaged, match="altered"):
        store.read(digest(BLOBS[-1]), 2000)
    assert store.index.packs == {}


def test_a_pack_that_was_false_and_is_gone_is_not_here(path: Path) -> None:
    """The tables still tell of its blobs, in an older line than the one that it is false."""
    file = the(path, "packs")
    name = bytes.fromhex(file.name[:64])
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    first = Store(str(path))
    assert first.known_packs([name]) == set()
    first.index.remember()
    file.unlink()
    assert Store(str(path)).known_packs([name]) == set()
    assert list(Store(str(path), proves=False).packs_hashed([name])) == [None]


def test_what_is_damaged_is_stored_again(path: Path) -> None:
    file = the(path, "packs")
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    run = put(path, *BLOBS, LARGE)
    assert run.counts.new_blobs == len(BLOBS)
    assert file.read_bytes() == good
    assert whole(path)


def test_a_damaged_form_beside_a_undamaged_one(path: Path) -> None:
    file = the(path, "packs")
    file.with_suffix(".pack.zz").write_bytes(b"rubbish")
    assert whole(path)
    good = file.read_bytes()
    file.with_suffix(".pack.zz").write_bytes(zlib.compress(good))
    file.write_bytes(b"rubbish")
    assert whole(path)


def test_a_touched_undamaged_pack_is_hashed_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chmod(the(path, "packs"), 0o640)
    reads = []
    real = Index.read_pack
    monkeypatch.setattr(Index, "read_pack", lambda self, name, suffix: (reads.append(name), real(self, name, suffix))[1])
    assert len(Index(str(path)).packs) == 1
    assert len(reads) == 1
    put(path, BLOBS[0], b"new")  # a run remembers what it found
    reads.clear()
    assert Index(str(path)).packs and reads == []


@pytest.mark.parametrize(
    "name", ["ab/short.pack", "ab/" + "AB" * 32 + ".pack", "cd/" + "ab" * 32 + ".pack", "ab/" + "ab" * 32 + ".pack.gz", "ab/." + "ab" * 32 + ".pack.tmp"]
)
def test_strange_files_among_packs(path: Path, name: str) -> None:
    file = path / "packs" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"rubbish")
    store = Store(str(path))
    assert len(store.index.packs) == 1 and not store.index.damaged
    assert whole(path)


@pytest.mark.parametrize("plant", ["symlink", "directory", "sparse giant", "bomb"])
def test_planted_packs(path: Path, plant: str) -> None:
    name = path / "packs" / "ab" / ("ab" * 32 + (".pack.zz" if plant == "bomb" else ".pack"))
    name.parent.mkdir(exist_ok=True)
    if plant == "symlink":
        name.symlink_to("/etc/passwd")
    elif plant == "directory":
        name.mkdir()
    elif plant == "sparse giant":
        with open(name, "wb") as file:
            file.truncate(1 << 40)
    else:
        name.write_bytes(codec.compress(bytes(64 << 20), codec.ZLIB)[1])
    with within(1, 60):
        store = Store(str(path))
        assert len(store.index.packs) == 1 and list(store.index.damaged) == [bytes.fromhex("ab" * 32)]
        assert whole(path)


def look(pipe: Any, path: str, kind: str) -> None:
    if kind == "packs":
        index = Index(path)
        index.seek()
        pipe.send(len(index.damaged))
    else:
        try:
            Store(path).read(b"\xab" * 32, 100)
        except Damaged:
            pipe.send(1)


@pytest.mark.parametrize("kind", ["packs", "objects"])
def test_a_planted_fifo_does_not_stop_us(path: Path, kind: str) -> None:
    """Opening one waits for a writer, for ever."""
    name = path / kind / "ab" / ("ab" * 32 + (".pack" if kind == "packs" else ""))
    name.parent.mkdir(exist_ok=True)
    os.mkfifo(name)
    with Child(look, str(path), kind) as child:
        assert child.hear(2) == 1


def test_a_limit_too_small_says_nothing_about_the_pack(path: Path) -> None:
    """An entry that lies about a size is refused, and what else lies in the same pack is still read."""
    store = Store(str(path))
    with pytest.raises(Damaged):
        store.read(digest(BLOBS[0]), 1999)
    assert store.index.packs and store.read(digest(BLOBS[1]), 2000) == BLOBS[1]


def test_unlistable_packs_are_not_an_empty_store(path: Path) -> None:
    shutil.rmtree(path / "packs")
    (path / "packs").write_bytes(b"")
    for look in (Index.seek, lambda index: index.packs, lambda index: index.pack(bytes(32)), lambda index: index.find(bytes(32))):
        with pytest.raises(StoreError, match="cannot be listed"):
            look(Index(str(path)))


def test_a_lying_digest_in_a_undamaged_pack(path: Path, tmp_path: Path) -> None:
    """Somebody made a pack whose table names other bytes: its own name is true, and still nothing wrong comes out."""
    victim = digest(b"the truth")
    data = b"VOLTPAK1" + (0).to_bytes(4, "little") + (1).to_bytes(4, "little") + victim + (3).to_bytes(4, "little") + b"lie"
    name = digest(data)
    file = path / "packs" / name.hex()[:2] / f"{name.hex()}.pack"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    store = Store(str(path))
    assert name in store.index.packs
    with pytest.raises(Damaged):
        store.read(victim, 100)
    assert whole(path)


# ---- objects


def test_altered_objects_are_never_trusted(path: Path) -> None:
    file = the(path, "objects")
    good = file.read_bytes()
    for bad in (b"", good[:-1], good + b"\0", bytes(len(good)), *(changed for _at, changed in flips(good, 5))):
        file.write_bytes(bad)
        store = Store(str(path))
        assert not store.has(digest(LARGE), len(LARGE))
        assert store.open_plain(digest(LARGE), len(LARGE), verify=False) == -1
        with pytest.raises(Damaged):
            store.read(digest(LARGE), len(LARGE))
    assert put(path, LARGE).counts.new_blobs == 1
    assert whole(path)


@pytest.mark.parametrize("plant", ["symlink", "directory", "missing"])
def test_planted_objects(path: Path, tmp_path: Path, plant: str) -> None:
    file = the(path, "objects")
    if plant == "symlink":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")  # the right bytes, but not the store's
    else:
        file.unlink()
        if plant == "directory":
            file.mkdir()
    store = Store(str(path))
    assert not store.has(digest(LARGE), len(LARGE))
    with pytest.raises(Damaged):
        store.read(digest(LARGE), len(LARGE))


def test_another_form_of_an_object_counts(path: Path) -> None:
    blob = bytes(500_000)
    put(path, blob, compression="zlib")
    store = Store(str(path))
    assert store.object_form(digest(blob), len(blob))[0] == ".zz"  # type: ignore[index]
    assert put(path, blob, compression="none").counts.new_blobs == 0
    plain = path / "objects" / digest(blob).hex()[:2] / digest(blob).hex()
    plain.write_bytes(b"rubbish")
    assert Store(str(path)).read(digest(blob), len(blob)) == blob


def test_read_blob_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert layout.read_blob_file(str(file), 5) == b"12345"
    for bad, limit in ((file, 4), (tmp_path / "none", 5), (tmp_path, 1 << 30)):
        with pytest.raises(Damaged):
            layout.read_blob_file(str(bad), limit)


def test_no_descriptors_are_left(path: Path) -> None:
    before = len(descriptors())
    for _time in range(3):
        assert whole(path)
    assert len(descriptors()) <= before + 1


def test_memory_of_reading_is_bounded(path: Path) -> None:
    """Plain packs are kept, but not all of them."""
    put(path, *(noise(100_000, ("big", number)) for number in range(30)))
    store = Store(str(path), room=100_000)
    for number in range(30):
        blob = noise(100_000, ("big", number))
        assert store.read(digest(blob), len(blob)) == blob
        assert len(store._plain) <= 2
    store.rest()
    assert not store._plain and store.read(digest(blob), len(blob)) == blob


def hashed(_store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read of objects from now on."""
    read: list[str] = []
    real = layout.read_blob_file
    monkeypatch.setattr(layout, "read_blob_file", lambda path, limit: "/objects/" in path and read.append(path) or real(path, limit))
    return read


def lose_index(path: Path) -> None:
    for name in files(path, "index"):
        (path / name).unlink()


def test_unknown_files_are_hashed_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = hashed(Store(str(path)), monkeypatch)
    assert put(path, LARGE).counts.new_blobs == 0 and read == []
    lose_index(path)
    assert put(path, LARGE, LARGE).counts.new_blobs == 0 and len(read) == 1
    assert put(path, LARGE).counts.new_blobs == 0 and len(read) == 1, "the run wrote down what it found out, though it stored nothing"


def test_without_an_index_presence_proves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = the(path, "objects")
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)  # same size
    lose_index(path)
    store = Store(str(path))
    read = hashed(store, monkeypatch)
    for _time in range(3):
        assert store.object_form(digest(LARGE), len(LARGE)) is None and store.open_plain(digest(LARGE), len(LARGE), verify=False) == -1
    assert len(read) == 1, "what was found false is not read again in vain"
    assert put(path, LARGE).counts.new_blobs == 1
    assert whole(path)


@pytest.mark.parametrize("size", [0, 1000, len(LARGE) - 1, len(LARGE) + 1])
@pytest.mark.parametrize("lost", [False, True])
def test_an_object_of_another_size_is_replaced(path: Path, size: int, lost: bool) -> None:
    os.truncate(the(path, "objects"), size)
    if lost:
        lose_index(path)
    assert put(path, LARGE).counts.new_blobs == 1
    assert whole(path)


def test_a_planted_symlink_is_replaced(path: Path, tmp_path: Path) -> None:
    file = the(path, "objects")
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert put(path, LARGE).counts.new_blobs == 1
    assert whole(path) and not file.is_symlink()


def test_many_threads_use_an_unread_index(path: Path) -> None:
    blobs = [noise(200_000, ("thread", number)) for number in range(8)]
    put(path, *blobs)
    for lost in (False, True):
        if lost:
            lose_index(path)
        with Transaction(Store(str(path), 5), "none") as run:
            for future in [run.submit(run.objects.save, digest(blob), blob) for _turn in range(4) for blob in blobs]:
                future.result()
            assert run.counts.new_blobs == 0
            new = noise(200_000, ("thread", "new"))
            for future in [run.submit(run.objects.save, digest(new), new) for _turn in range(16)]:
                future.result()
            assert run.counts.new_blobs == 1


@pytest.mark.parametrize("kind", ["objects", "packs"])
@pytest.mark.parametrize("plant", ["symlink", "dangling", "file"])
def test_nothing_is_put_behind_a_planted_shelf(path: Path, tmp_path: Path, kind: str, plant: str) -> None:
    elsewhere, shelf = tmp_path / "elsewhere", the(path, kind).parent
    shelf.rename(elsewhere)
    if plant == "file":
        shelf.write_bytes(b"")
    else:
        shelf.symlink_to(elsewhere if plant == "symlink" else tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("elsewhere/*"))
    blob = next(blob for blob in (noise(200_000 if kind == "objects" else 2000, ("shelf", number)) for number in range(100_000))
                if name_of(blob, kind)[:2] == shelf.name)  # fmt: skip
    with pytest.raises(StoreError, match=f"^{shelf} is not a directory of the store; .*again[.]$"):
        put(path, blob)
    assert sorted(tmp_path.rglob("elsewhere/*")) == before and not (tmp_path / "nowhere").exists()
    assert files(path, "tmp") == []
    if kind == "packs":
        assert not Store(str(path)).index.packs, "what lies behind it is not the store's"
    shelf.unlink()
    put(path, *BLOBS, LARGE, blob)
    assert whole(path)


def name_of(blob: bytes, kind: str) -> str:
    """The name that a blob's file gets, alone in a run."""
    if kind == "objects":
        return digest(blob).hex()
    builder = pack.Builder(pack.CONTENT)
    builder.add(digest(blob), blob)
    return digest(b"".join(builder.take())).hex()


# ---- blobs that several packs have


def together(path: Path, *sets: list[bytes]) -> None:
    """Runs at the same time, none of which sees what the others bring."""
    runs = [Transaction(Store(str(path))) for _blobs in sets]
    for run in runs:
        run.__enter__()
    for run, blobs in zip(runs, sets):
        for blob in blobs:
            run.blobs.add(digest(blob), blob)
    for run in runs:
        run.commit()
        run.__exit__()


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("how", ["some", "all", "index lost", "table lost"])
def test_a_blob_stays_while_any_pack_has_it(tmp_path: Path, lost: int, how: str) -> None:
    """Folding tables into one must not forget the second place of a blob: a collection may take away the first."""
    path, shared = tmp_path / "store", [noise(3000, f"shared {number}") for number in range(5)]
    own = [[noise(3000, f"{name} {number}") for number in range(4)] for name in "abc"]
    together(path, *(shared + blobs for blobs in own))
    if how == "index lost":
        shutil.rmtree(path / "index")
    for number in range(3):  # which fold what was there
        put(path, noise(100, f"later {number}"))
    if how == "all":
        with Transaction(Store(str(path))) as run:
            run.commit(folding="all")
    if how == "table lost":
        for name in sorted(files(path, "index"))[:1]:
            (path / name).write_bytes(b"")
    store = Store(str(path))
    packs = sorted(name for name in store.index.packs if name in {place[0] for blobs in own if (place := store.index.find(digest(blobs[0])))})
    assert len(packs) == 3
    for name in [other for number, other in enumerate(packs) if number != lost]:
        os.unlink(path / layout.pack_path(name, store.index.packs[name].suffix))
        put(path, noise(100, name.hex()))
        with Transaction(Store(str(path))) as run:
            run.commit(folding="all")
    store = Store(str(path))
    assert all(store.read(digest(blob), len(blob)) == blob for blob in shared)
    assert sum(store.index.find(digest(blobs[0])) is not None for blobs in own) == 1
    assert len([name for name in files(path, "index") if "packs-" in name]) <= 3
