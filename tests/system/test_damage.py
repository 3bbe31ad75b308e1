# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that lacks something, or holds something false: it is told for every backup that it hurts."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, NotFound
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.tests.system.conftest import Bench


def test_every_backup_that_shares_the_damage_is_listed_with_it(bench):
    """Two backups of one unchanged tree; what one lacks the other lacks."""
    bench.files(top=b"1", below__deeper__object=os.urandom(300_000))
    for _backup in range(2):
        bench.create()
    (thing,) = (path for path in (bench.store / "objects").rglob("*") if path.is_file())
    thing.unlink()
    assert [backup["damaged"] for backup in bench.found()] == [True, True]


def test_that_no_backup_is_left_to_restore_is_told_with_the_reason(bench):
    """Of a workload all of whose backups are damaged, the newest one first."""
    bench.files(below__object=os.urandom(300_000))
    made = [bench.create().backup["id"] for _backup in range(2)]
    (thing,) = (path for path in (bench.store / "objects").rglob("*") if path.is_file())
    thing.unlink()
    with pytest.raises(NotFound) as caught:
        bench.manager.restore(None, RestoreRequest(str(bench.target)), Query("work"))
    assert [item["id"] for item in caught.value.details["skipped"]] == made[::-1]
    assert caught.value.message.endswith(f"Backup {made[1]} was skipped: {caught.value.details['skipped'][0]['reason']}")


def test_a_manifest_without_a_sidecar_can_be_deleted(bench):
    """What a crash left between the two, or a lost record."""
    bench.files(a=b"1")
    backup = bench.create().backup["id"]
    (bench.backups / f"{backup}.json").unlink()
    assert bench.manager.delete(backup, dry=True)["id"] == backup
    assert len(os.listdir(bench.store / "refs")) == 1
    assert bench.manager.delete(backup)["id"] == backup
    assert os.listdir(bench.store / "refs") == []
    assert bench.manager.delete(backup) is None


@pytest.mark.parametrize("forged", ["another", "../../backups/x-000000000000", "", "x"])
def test_a_sidecar_that_names_a_manifest_of_another_costs_that_one_nothing(bench, forged):
    """A forged or mixed-up record: deleting its backup deletes no manifest but its own."""
    bench.files(a=b"1")
    one, other = bench.create().backup, bench.create().backup
    path = bench.backups / f"{one['id']}.json"
    record = json.loads(path.read_text())
    record["manifest_ref"] = other["manifest_ref"] if forged == "another" else forged
    path.write_text(json.dumps(record))
    bench.manager.delete(one["id"])
    assert [(backup["id"], backup["damaged"]) for backup in bench.found()] == [(other["id"], False)]
    assert os.listdir(bench.store / "refs") == [f"{other['manifest_ref']}.json"]


def rot(disk: Any, where: Path, piece: bytes) -> None:
    """Alter bytes of a file as a failing disk does: no stat tells. `where` is mounted, and is again afterwards."""
    disk.umount(where)
    image = where.parent / f"{where.name}.image"
    data = bytearray(image.read_bytes())
    at = data.find(piece)
    assert at >= 0
    while at >= 0:
        data[at] ^= 1
        at = data.find(piece, at + 1)
    image.write_bytes(data)
    disk.mount(where)


@pytest.fixture
def rotten(tmp_path: Path, disk: Any) -> Any:
    """A bench whose store is on a disk of its own. `rotten.rot(piece)` alters these bytes there."""
    bench = Bench(tmp_path)
    bench.store.mkdir()
    disk.mount(bench.store)
    bench.manager = Manager(str(bench.store / "cas"), str(bench.backups), 5)
    bench.rot = lambda piece: rot(disk, bench.store, piece)
    return bench


def tried(bench: Any, **options: Any) -> Damaged:
    """How a restore fails over damage that no stat tells, as a new process."""
    backup = bench.found()[0]["id"]
    manager = Manager(str(bench.store / "cas"), str(bench.backups), 5)
    with pytest.raises(Damaged) as failure:
        manager.restore(backup, RestoreRequest(target=str(bench.target), force=True, **options))
    return failure.value


def test_a_damaged_list_of_chunks_is_met_before_the_target_is_changed(rotten: Any) -> None:
    """It is read only to write the file, or to compare its content: not where the target lacks the file."""
    bench = rotten
    bench.files(a=b"new", z=b"x" * (9 << 20))
    time.sleep(2.1)
    bench.create(compression="none")
    bench.target.mkdir()
    (bench.target / "a").write_bytes(b"old")
    chunk = hashlib.sha256(b"x" * (1 << 20)).digest()
    (listed,) = (data[data.find(chunk) :] for data in map(Path.read_bytes, bench.store.glob("cas/packs/*/*")) if chunk in data)
    bench.rot(listed[:48])  # with what is behind it there: the store's cache names the chunk as well
    failure = tried(bench, strategy="in_place")
    assert "restored" not in failure.details and (bench.target / "a").read_bytes() == b"old"
    assert os.listdir(bench.target) == ["a"]


@pytest.mark.parametrize("options", [{}, {"paths": ["d"]}], ids=["all", "a path"])
def test_what_is_said_to_be_lost_is_what_a_salvage_finds_lost(rotten: Any, options: dict[str, Any]) -> None:
    """The pack with the listing of `d` has the others, too, and is lost as a whole: so no rest is there to be salvaged."""
    bench = rotten
    bench.files(a=b"1", d__unheard_of_name=b"2", z__b=b"3")
    time.sleep(2.1)
    bench.create(compression="none")
    bench.rot(b"unheard_of_name")
    failure = tried(bench, **options)
    assert failure.details["paths"] == tried(bench, **options, salvage=True).details["paths"] == ["."], failure.message
