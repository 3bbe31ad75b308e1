# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When what a backup needs was last hashed: listings tell, and hash nothing; a verification hashes once, and settles it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager, Query
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import Damaged, parse_time
from ansible_collections.volt.backup.plugins.module_utils._store import layout

CONTENT = VerifyRequest(level="content")


class Reads:
    """Which packs and objects were read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        real = layout.read_blob_file

        def read(path: str, limit: int) -> bytes:
            self.paths.append(path)
            return real(path, limit)

        monkeypatch.setattr(layout, "read_blob_file", read)

    def take(self) -> list[str]:
        paths, self.paths = self.paths, []
        return paths


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
def copied(bench: Any) -> Any:
    """A store of two backups on another disk: all ctimes are new."""
    bench.files(small=b"1", below__other=b"2" * 5000, large=os.urandom(200_000), larger=os.urandom(300_000))
    bench.create()
    bench.files(new=os.urandom(150_000))
    bench.create()
    original = bench.top / "original"
    bench.store.rename(original)
    subprocess.run(["cp", "-a", original, bench.store], check=True)
    shutil.rmtree(original)
    return bench


def states(bench: Any) -> list[Any]:
    return [(backup["damaged"], backup["checked"]) for backup in bench.found()]


def objects(bench: Any) -> list[Path]:
    return sorted(path for path in (bench.store / "objects").rglob("*") if path.is_file())


def turn_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with open(path, "r+b") as file:
        file.write(data)


def test_a_new_backup_was_checked_when_it_was_made(bench):
    before = time.time()
    bench.files(a=b"1", large=os.urandom(200_000))
    bench.create()
    (backup,) = bench.found()
    assert backup["checked"] is True and before - 2 <= parse_time(backup["checked_at"]).timestamp() <= time.time()


def test_a_backup_of_old_data_was_checked_when_that_was(bench):
    bench.files(a=b"1", large=os.urandom(200_000))
    bench.create()
    (old,) = bench.found()
    bench.files(b=b"2")
    time.sleep(0.05)  # clocks of file systems are coarse
    bench.create()
    assert bench.found()[0]["checked_at"] == old["checked_at"]


def test_a_listing_of_a_copied_store_hashes_nothing(copied, reads):
    assert states(copied) == [(False, False)] * 2 and [backup["checked_at"] for backup in copied.found()] == [None, None]
    copied.manager.prune("work", {"last": 1}, dry=True)
    assert reads.take() == []
    copied.manager.usage()  # which walks the trees
    assert not any("/objects/" in path for path in reads.take())
    objects(copied)[0].unlink()
    assert states(copied)[0] == (True, None)  # what is missing is found all the same


def test_a_copied_store_without_lists_of_needs_reads_trees_and_no_content(copied, reads):
    for file in (copied.store / "cache").glob("*"):
        file.unlink()
    for dry in (True, False):
        assert [(backup["damaged"], backup["checked"]) for backup in copied.manager.find(Query(), dry)] == [(False, False)] * 2
        assert not any("/objects/" in path for path in reads.take())
    assert states(copied) == [(False, False)] * 2 and reads.take() == []


def test_a_copied_store_without_an_index_is_listed_without_reading(copied, reads):
    shutil.rmtree(copied.store / "index")
    assert states(copied) == [(False, False)] * 2 and reads.take() == []


def test_verification_settles_it_and_hashes_once(copied, reads):
    began = time.time()
    files = len(objects(copied)) + len([path for path in (copied.store / "packs").rglob("*") if path.is_file()])
    assert not copied.manager.verify(CONTENT).damage_count
    assert len(reads.take()) <= files + 2  # and the packs of trees, to walk them
    assert states(copied) == [(False, True)] * 2 and reads.take() == []
    assert all(began <= parse_time(backup["checked_at"]).timestamp() <= time.time() for backup in copied.found())
    copied.manager.verify(VerifyRequest())
    assert not any("/objects/" in path for path in reads.take())


def test_verification_of_some_backups_settles_those(copied):
    newer, older = copied.found()
    copied.manager.verify(VerifyRequest(level="content", ids=[older["id"]]))
    assert states(copied) == [(False, False), (False, True)]
    copied.manager.verify(VerifyRequest(level="content", ids=[newer["id"]]))
    assert states(copied) == [(False, True), (False, True)]


def test_check_mode_settles_nothing(copied):
    copied.manager.verify(CONTENT, dry=True)
    assert states(copied) == [(False, False)] * 2


def test_rounds_of_pieces_count_where_a_shard_was_read_whole(bench):
    bench.files(**{f"large{number}": os.urandom(140_000) for number in range(8)})
    bench.create()
    began = time.time()
    nights = []
    for _night in range(9):
        bench.manager.verify(VerifyRequest(level="content", budget="12.3%"))
        nights.append(bench.found()[0]["checked_at"])
    assert nights == sorted(nights) and began <= parse_time(nights[-1]).timestamp() <= time.time()


def test_a_false_object_of_a_copied_store(copied):
    """Unchecked until something reads it; damaged from then on."""
    turn_a_bit(next(path for path in objects(copied) if path.stat().st_size == 200_000))
    assert states(copied) == [(False, False)] * 2
    assert copied.manager.verify(CONTENT).damage_count
    assert states(copied) == [(True, None)] * 2


def test_a_false_pack_of_a_copied_store(copied):
    for path in (copied.store / "packs").rglob("*.pack*"):
        turn_a_bit(path)
    assert states(copied) == [(False, False)] * 2
    assert copied.manager.verify(CONTENT).damage_count
    assert states(copied) == [(True, None)] * 2


def test_what_is_false_is_not_counted_on_by_the_next_backup(copied):
    """Deduplication proves what is unchecked; the next backup stores anew what is false, and that is checked."""
    turn_a_bit(next(path for path in objects(copied) if path.stat().st_size == 200_000))
    for file in (copied.store / "cache").glob("*.scan"):
        file.unlink()
    assert copied.create().backup["new_blobs"] == 1
    assert states(copied)[0] == (False, True)
    assert not copied.manager.verify(CONTENT).damage_count


def test_a_restore_of_what_is_false_fails_and_tells_the_next_listing(copied):
    turn_a_bit(next(path for path in objects(copied) if path.stat().st_size == 200_000))
    newest = copied.found()[0]["id"]
    with pytest.raises(Damaged):
        copied.restore(newest)
    assert not copied.target.exists()
    assert states(copied) == [(True, None)] * 2


def test_the_newest_that_is_checked_stays(bench):
    """A prune hashes nothing, so what changed since it was hashed pushes out nothing that did not."""
    for number in range(3):
        bench.files(**{f"large{number}": os.urandom(140_000 + number)})
        bench.create()
    next(path for path in objects(bench) if path.stat().st_size == 140_002).chmod(0o600)
    assert states(bench) == [(False, False), (False, True), (False, True)]
    pruned = bench.manager.prune("work", {"last": 1})
    assert [row["rule"] for row in pruned.kept] == ["last", "newest checked"] and len(pruned.removed) == 1


@pytest.mark.parametrize("text", ["", "{}", '{"next": "0", "since": 1, "hashed": []}', '{"next": "0", "since": "x", "hashed": {"00": "x"}}', "[1]"])
def test_a_note_of_rounds_that_says_nothing(bench, text):
    bench.files(a=b"1", large=os.urandom(200_000))
    bench.create()
    made = bench.found()[0]["checked_at"]
    (bench.store / "cache" / "verify.json").write_text(text)
    assert bench.found()[0]["checked_at"] == made
    bench.manager.verify(CONTENT)
    assert bench.found()[0]["checked_at"] > made


def test_a_note_of_rounds_from_the_future_tells_nothing(bench):
    bench.files(a=b"1")
    bench.create()
    made = bench.found()[0]["checked_at"]
    ahead = time.time_ns() + 10**15
    shards = ", ".join(f'"{number:02x}": {ahead}' for number in range(256))
    (bench.store / "cache" / "verify.json").write_text(f'{{"next": "0", "since": 0, "hashed": {{{shards}}}}}')
    assert bench.found()[0]["checked_at"] == made


def test_a_store_that_cannot_be_written_is_listed_with_it_too(bench, monkeypatch):
    bench.files(a=b"1", large=os.urandom(200_000))
    bench.create()
    made = bench.found()[0]["checked_at"]
    for file in (bench.store / "cache").glob("*"):
        file.unlink()
    (bench.store / "cache").rmdir()
    (bench.store / "cache").write_bytes(b"")  # root could write anywhere else
    other = Manager(str(bench.store), str(bench.backups), 5)
    assert [(backup["checked"], backup["checked_at"]) for backup in other.find(Query())] == [(True, made)]
