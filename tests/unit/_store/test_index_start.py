# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command looks at the packs that it uses, and lists only the shards that changed; whatever lies about that is found."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged
from ansible_collections.volt.backup.plugins.module_utils._store import layout
from ansible_collections.volt.backup.plugins.module_utils._store.index import Index
from ansible_collections.volt.backup.plugins.module_utils._store.pack_files import PackFiles
from ansible_collections.volt.backup.plugins.module_utils._store.pack_tables import PackTable
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store

from ..kit import digest, noise
from .test_transaction import files, put

BLOBS = [noise(100_000, ("start", number)) for number in range(12)]  # some packs


class Looks:
    """Which shards were listed, and which packs were looked at or read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.listed: list[str] = []
        self.packs: list[bytes] = []
        self.read: list[bytes] = []
        for to, name, key in ((self.listed, "names", 0), (self.packs, "forms", 0)):
            self._count(monkeypatch, PackFiles, name, to, key)
        self._count(monkeypatch, Index, "read_pack", self.read, 0)

    @staticmethod
    def _count(monkeypatch: pytest.MonkeyPatch, kind: Any, name: str, to: list[Any], key: int) -> None:
        real = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *arguments: (to.append(arguments[key]), real(self, *arguments))[1])

    def clear(self) -> None:
        for found in (self.listed, self.packs, self.read):
            found.clear()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


def settle(path: Path) -> None:
    """Until the next change of a shard is sure to show in its times."""
    while any(layout.may_have_changed(shard.stat().st_mtime_ns) for shard in (path / "packs").iterdir()):
        time.sleep(0.005)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store in which all shards are known: the last run has listed those that the ones before it changed."""
    path = tmp_path / "store"
    for blob in BLOBS:
        put(path, blob)
    settle(path)
    put(path, b"one more")
    return path


def pack_of(path: Path, blob: bytes) -> Path:
    place = Index(str(path)).find(digest(blob))
    assert place is not None
    return next(path / name for name in files(path, "packs") if place[0].hex() in name)


def whole(path: Path) -> bool:
    store = Store(str(path))
    return all(store.read(digest(blob), len(blob)) == blob for blob in BLOBS)


def test_what_is_not_there_is_looked_for_in_the_shard_that_changed(path: Path, looks: Looks) -> None:
    looks.clear()
    assert Index(str(path)).find(bytes(32)) is None
    assert looks.listed == [pack_of(path, b"one more").parent.name] and looks.packs[:-1] == [] and looks.read == []


def test_a_pack_is_looked_at_when_it_is_used(path: Path, looks: Looks) -> None:
    looks.clear()
    index = Index(str(path))
    place = index.find(digest(BLOBS[3]))
    assert place and looks.packs == [place[0]] and looks.listed == [] and looks.read == []
    index.find(digest(BLOBS[3]))
    assert looks.packs == [place[0]]


def test_a_run_lists_what_the_one_before_it_changed(path: Path, looks: Looks) -> None:
    settle(path)
    looks.clear()
    put(path, b"and another")
    assert len(looks.listed) <= 1 and len(looks.packs) <= 1


def test_a_file_that_went_without_a_trace_is_missed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a file system lies about a directory's times."""
    stamps = {shard: PackFiles(str(path)).stamp(shard) for shard in os.listdir(path / "packs")}
    pack_of(path, BLOBS[0]).unlink()
    monkeypatch.setattr(PackFiles, "stamp", lambda _self, shard: stamps.get(shard))
    store = Store(str(path))
    assert not store.has(digest(BLOBS[0]), len(BLOBS[0]))
    with pytest.raises(Damaged):
        store.read(digest(BLOBS[0]), len(BLOBS[0]))
    assert put(path, BLOBS[0]).counts.new_blobs == 1 and whole(path)


def lose_table_of(path: Path, blob: bytes) -> None:
    """Remove all tables, as a run that died before it wrote them leaves it; then bring back those of the other packs by a run."""
    pack = pack_of(path, blob)
    away = pack.with_name("away")
    pack.rename(away)
    for name in files(path, "index"):
        (path / name).unlink()
    settle(path)
    put(path, b"makes new tables")
    settle(path)
    put(path, b"and lists again")
    away.rename(pack)


def test_a_pack_that_no_table_tells_of_is_found(path: Path, looks: Looks) -> None:
    lose_table_of(path, BLOBS[0])
    looks.clear()
    assert whole(path)
    assert len(set(looks.read)) >= 1
    put(path, b"remembers it")
    looks.clear()
    assert Index(str(path)).find(digest(BLOBS[0])) and looks.read == []


def test_the_clock_was_set_back(path: Path) -> None:
    """A directory that changes without a later time has another time."""
    lose_table_of(path, BLOBS[0])
    shard = pack_of(path, BLOBS[0]).parent
    os.utime(shard, ns=(0, 0))
    assert whole(path)


def test_a_shard_that_changed_a_moment_ago_is_not_taken_for_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change within the same tick of the file system's clock would not show."""
    with monkeypatch.context() as patched:
        patched.setattr(layout, "may_have_changed", lambda _moment: True)
        put(path, b"within a tick")
    last = pack_of(path, b"one more").parent.name
    looks = Looks(monkeypatch)
    Index(str(path)).seek()
    assert last in looks.listed


def test_a_copied_store_is_listed(path: Path, tmp_path: Path, looks: Looks) -> None:
    """The copies of directories keep their mtimes."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", path, copy], check=True)
    shutil.rmtree(path)
    looks.clear()
    Index(str(copy)).find(bytes(32))
    assert sorted(looks.listed) == sorted(os.listdir(copy / "packs"))
    assert whole(copy) and put(copy, *BLOBS).counts.new_blobs == 0


@pytest.mark.parametrize("number", range(3))
def test_a_lost_table_takes_what_it_knew_of_shards_along(path: Path, number: int) -> None:
    tables = [name for name in files(path, "index") if "packs-" in name]
    (path / tables[number % len(tables)]).unlink()
    assert whole(path) and put(path, *BLOBS).counts.new_blobs == 0


def test_a_damaged_pack_is_looked_at_again_until_it_is_sound(path: Path) -> None:
    """Its shard is not taken for known, for its blobs are in no table any more."""
    pack = pack_of(path, BLOBS[0])
    good = pack.read_bytes()
    pack.write_bytes(good[:-1])
    with pytest.raises(Damaged):
        Store(str(path)).read(digest(BLOBS[0]), len(BLOBS[0]))
    for number in range(3):  # which fold the tables
        settle(path)
        put(path, noise(1000, ("later", number)))
        Index(str(path)).look_at_all()
    pack.write_bytes(good)
    assert whole(path)


def test_a_damaged_block_of_a_table_is_found_by_who_reads_it(path: Path) -> None:
    """The rest is used."""
    table = max((path / name for name in files(path, "index") if "packs-" in name), key=lambda found: found.stat().st_size)
    data = bytearray(table.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 64):
        data[at] ^= 0xFF
    table.write_bytes(data)
    assert whole(path)
    put(path, b"folds")
    assert whole(path) and put(path, *BLOBS).counts.new_blobs == 0


@pytest.mark.parametrize("data", [b"", b"1", b"[1, 2]", b"[{}]", b"[[], []]", b'[{"00": 1}, []]', b'[{"00": "x"}, [1]]', b"[" * 100_000, b"\xff"])
def test_notes_of_shards_that_say_nothing_under_a_true_checksum(path: Path, data: bytes) -> None:
    """The table is of no use then; or what it says of shards is true of none."""
    for name in files(path, "index"):
        if "packs-" in name:
            file, end = path / name, PackTable.load(str(path / name)).places.end  # type: ignore[attr-defined]
            file.write_bytes(file.read_bytes()[:end] + struct.pack("=I", zlib.crc32(data)) + data)
    assert whole(path) and put(path, *BLOBS).counts.new_blobs == 0
