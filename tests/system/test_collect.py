# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collection takes what no backup refers to, all of it, and nothing else."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import create
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged
from ansible_collections.volt.backup.plugins.module_utils._store import pack
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store


def stored(bench) -> int:
    """Bytes of all files that hold blobs, the trash included."""
    return sum(
        os.lstat(os.path.join(top, name)).st_size
        for part in ("objects", "packs", "trash")
        for top, _directories, names in os.walk(bench.store / part)
        for name in names
    )


def some(bench, turn: int, count: int = 40, size: int = 6000) -> None:
    """Small files, one object, one file in chunks, all different in each turn."""
    chance = random.Random(turn)
    for number in range(count):
        bench.files(**{f"d{number % 7}__f{turn}_{number}": chance.randbytes(size)})
    bench.files(object=chance.randbytes(400_000), chunked=chance.randbytes(9 << 20))


def test_everything_dead_goes_and_everything_live_stays(bench):
    some(bench, 1)
    first = bench.create().backup["id"]
    for path in bench.source.rglob("f1_*"):
        path.unlink()
    some(bench, 2)
    second = bench.create().backup["id"]
    kept = {str(path.relative_to(bench.source)): path.read_bytes() for path in bench.source.rglob("*") if path.is_file()}
    bench.manager.delete(first)
    before = stored(bench)
    expected = bench.manager.collect("0s", dry=True)
    assert stored(bench) == before
    done = bench.manager.collect("0s")
    assert {**done, "warnings": 0} == {**expected, "warnings": 0}
    assert done["changed"] and done["freed_bytes"] - done["written_bytes"] == before - stored(bench)
    assert stored(bench) < before * 0.6
    again = bench.manager.collect("0s")
    assert not again["changed"], again
    bench.restore(second)
    assert kept == {str(path.relative_to(bench.target)): path.read_bytes() for path in bench.target.rglob("*") if path.is_file()}
    assert not any(backup["damaged"] for backup in bench.found())
    bench.manager.delete(second)
    bench.manager.collect("0s")
    assert stored(bench) == 0


def test_the_trash_holds_until_the_grace_is_over(bench):
    some(bench, 1)
    bench.manager.delete(bench.create().backup["id"])
    before = stored(bench)
    done = bench.manager.collect("1h")
    assert done["freed_bytes"] == 0 and done["trashed_bytes"] == before == stored(bench)
    assert bench.manager.collect("1h")["changed"] is False
    (old,) = (bench.store / "trash").iterdir()
    old.rename(old.with_name(f"{time.time_ns() - 3601 * 10**9:020d}-1"))
    assert bench.manager.collect("1h", dry=True)["freed_bytes"] == before
    assert bench.manager.collect("1h")["freed_bytes"] == before
    assert stored(bench) == 0


def test_packs_that_are_mostly_dead_are_rewritten(bench):
    chance = random.Random(3)
    for number in range(300):
        bench.files(**{f"a{number:03}": chance.randbytes(4000)})
    first = bench.create().backup["id"]
    for path in [path for path in bench.source.iterdir() if int(path.name[1:]) % 3]:
        path.unlink()
    bench.create()
    bench.manager.delete(first)
    before = stored(bench)
    expected = bench.manager.collect("0s", dry=True)
    done = bench.manager.collect("0s")
    assert done["repacked_packs"] and {**done, "warnings": 0} == {**expected, "warnings": 0}
    assert before - stored(bench) == done["freed_bytes"] - done["written_bytes"]
    assert stored(bench) < 100 * 4000 * 1.3
    assert bench.restore().changed


def test_each_dead_pack_is_looked_at_once(bench, monkeypatch):
    """Calls that are made for each pack are most of what a collection of 100,000 costs: one look, and one move."""
    monkeypatch.setattr(pack.Builder, "add", lambda builder, digest, blob, add=pack.Builder.add: (add(builder, digest, blob)[0], True))
    bench.files(**{f"f{number}": b"%d" % number for number in range(1000)})
    backup = bench.create().backup["id"]
    monkeypatch.undo()
    bench.manager.delete(backup)
    calls: Counter[str] = Counter()
    for name in ("stat", "lstat", "mkdir", "rename"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real, **more: (calls.update([name]), real(*args, **more))[1])
    done = bench.manager.collect("24h")
    monkeypatch.undo()
    assert done["trashed_files"] > 1000 and done["trashed_bytes"] == stored(bench)
    shards = 4 * 256  # which are looked at as well
    assert calls["rename"] < 1050 and calls["stat"] + calls["lstat"] < 1200 + shards and calls["mkdir"] < 30, calls
    assert not [path for path in (bench.store / "packs").rglob("*") if path.is_file()]


def test_tiny_packs_are_merged(bench):
    for turn in range(12):
        bench.files(**{f"f{turn}": os.urandom(300)})
        bench.create()
    packs = [path for path in (bench.store / "packs").rglob("*") if path.is_file()]
    done = bench.manager.collect("0s")
    left = [path for path in (bench.store / "packs").rglob("*") if path.is_file()]
    assert len(packs) == 24 and done["repacked_packs"] == 24 and len(left) == 2
    assert not bench.manager.collect("0s")["changed"]
    assert not any(backup["damaged"] for backup in bench.found())
    assert len([name for name in os.listdir(bench.store / "index") if name.startswith("packs-")]) == 1


def test_the_next_backup_after_a_collection_reads_nothing_twice(bench):
    """The stat cache relied on packs that are gone; every file is still known."""
    some(bench, 1)
    time.sleep(2.1)
    bench.create()
    bench.create()
    bench.manager.collect("0s")
    made = bench.create().backup
    assert made["new_blobs"] == 0 and bench.restore(made["id"]).changed


@pytest.mark.parametrize("what", ["sidecar", "manifest", "lost manifest", "tree"])
def test_it_refuses_what_it_cannot_read(bench, what):
    some(bench, 1)
    backup = bench.create().backup
    bench.files(more=b"x")
    bench.create()
    bench.manager.delete(backup["id"])
    backup = bench.found()[0]
    reference = bench.store / "refs" / f"{backup['manifest_ref']}.json"
    if what == "sidecar":
        (bench.backups / f"{backup['id']}.json").write_text("{")
    elif what == "manifest":
        reference.write_text(reference.read_text().replace('"mode"', '"mood"'))
    elif what == "lost manifest":
        reference.unlink()
    else:
        for path in (bench.store / "packs").rglob("*.pack*"):
            path.unlink()
    before = stored(bench)
    for dry in (True, False):
        with pytest.raises(Damaged, match="Garbage collection refused") as refusal:
            bench.manager.collect("0s", dry=dry)
        assert backup["id"] in refusal.value.message
        assert stored(bench) == before
    bench.manager.delete(backup["id"])
    assert bench.manager.collect("0s")["freed_bytes"] == before


def test_a_lost_backup_directory_costs_nothing(bench, tmp_path):
    some(bench, 1)
    bench.create()
    before = stored(bench)
    other = Manager(str(bench.store), str(tmp_path / "other"), 5)
    done = other.collect("0s", repack=False)
    assert not done["changed"] and stored(bench) == before
    assert "1 backup(s) in this store belong to a" in done["warnings"][0]


def test_a_store_that_is_not_there(bench):
    assert bench.manager.collect()["changed"] is False
    assert not bench.store.exists()


def test_readers_get_in_while_it_waits_and_while_it_works(bench):
    """A long run holds the store, a collection waits for it to end: a reader is not held up by the waiting."""
    some(bench, 1)
    bench.create()
    holder = Store(str(bench.store))
    with holder.lock():
        worker = threading.Thread(target=bench.manager.collect, args=("0s",))
        worker.start()
        time.sleep(0.5)
        before = time.monotonic()
        assert bench.found()
        assert time.monotonic() - before < 2
    worker.join()


def test_backups_made_meanwhile_are_kept(bench, monkeypatch):
    """One that comes between the first marking and the sweep, and relies on what was dead then."""
    some(bench, 1)
    bench.manager.delete(bench.create().backup["id"])
    late: list[str] = []
    from ansible_collections.volt.backup.plugins.module_utils._store import gc as collection

    settle = collection._settle

    def meanwhile(store) -> None:
        late.append(Manager(str(bench.store), str(bench.backups), 5).create(create.CreateRequest("work", str(bench.source))).backup["id"])
        settle(store)

    monkeypatch.setattr(collection, "_settle", meanwhile)
    bench.manager.collect("0s")
    (backup,) = bench.found()
    assert backup["id"] == late[0] and not backup["damaged"] and backup["new_blobs"] == 0
    bench.restore(late[0])


def test_a_clock_that_went_back(bench, monkeypatch):
    """What was learned last counts, whatever the clock says: repacked packs are found, and the old ones go."""
    chance = random.Random(4)
    for number in range(300):
        bench.files(**{f"a{number:03}": chance.randbytes(4000)})
    first = bench.create().backup["id"]
    for path in [path for path in bench.source.iterdir() if int(path.name[1:]) % 3]:
        path.unlink()
    bench.create()
    bench.manager.delete(first)
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() - 10**9 * 86400)
    before = stored(bench)
    done = bench.manager.collect("0s")
    assert done["repacked_packs"] and stored(bench) < before / 2
    assert not bench.manager.collect("0s")["changed"]
    assert bench.restore().changed
