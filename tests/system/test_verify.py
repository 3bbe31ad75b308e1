# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification sees damage of every kind, and repair mends what can be mended from what is still there."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import create
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest, parse_budget
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, NotFound, UsageError
from ansible_collections.volt.backup.plugins.module_utils._format import chunks
from ansible_collections.volt.backup.plugins.module_utils._store.quarantine import Remains
from ansible_collections.volt.backup.plugins.module_utils._store.rounds import SPACE
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction
from ansible_collections.volt.backup.tests.rigs import need, oracle
from ansible_collections.volt.backup.tests.unit.kit import command


def fill(bench, turn: int = 1) -> str:
    """Packed files, an object, a file in chunks, a hard link; the id of a backup of them."""
    chance = random.Random(turn)
    for number in range(60):
        bench.files(**{f"d{number % 5}__deep__f{number}": chance.randbytes(3000)})
    bench.files(object=chance.randbytes(400_000), d1__chunked=chance.randbytes(9 << 20))
    if not (bench.source / "again").exists():
        os.link(bench.source / "object", bench.source / "again")
    return bench.create().backup["id"]


def store_files(bench, kind: str) -> list[Path]:
    return sorted(path for path in (bench.store / kind).rglob("*") if path.is_file())


def pack(bench, metadata: bool) -> Path:
    """A pack of content or of metadata, by how well it compresses: content is random here."""
    packs = sorted(store_files(bench, "packs"), key=lambda path: path.stat().st_size)
    return packs[0] if metadata else packs[-1]


def flip(path: Path, quietly: bool = True) -> None:
    """Change one bit in the middle of a file; quietly: as a disk does it, without a trace in the index's eyes."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    if quietly:
        forge_index(path, before.st_ctime_ns)


def forge_index(path: Path, old: int) -> None:
    """ctime cannot be set back, so the index is told the new one instead."""
    info = path.stat()
    name = bytes.fromhex(path.name[:64])
    lines = [name + struct.pack("=Qq", info.st_size, moment) for moment in (old, info.st_ctime_ns)]
    for table in (path.parents[2] / "index").iterdir():
        table.write_bytes(sealed(table.read_bytes().replace(*lines)))


def sealed(data: bytes) -> bytes:
    """The tables of a file with true checksums (see `_store/table.py`)."""
    out, at = bytearray(data), 0
    while out[at : at + 8] == b"VOLTIDX4":
        _order, count, slots, width = struct.unpack_from("=IIII", out, at + 12)
        size = count * (32 + width) + 4 * slots
        first = at + 28 + 4 * -(-size >> 14)
        end = first + size
        out[at + 28 : first] = b"".join(struct.pack("=I", zlib.crc32(out[block : min(block + (1 << 14), end)])) for block in range(first, end, 1 << 14))
        out[at + 8 : at + 12] = struct.pack("=I", zlib.crc32(out[at + 12 : first]))
        at = end
    return bytes(out)


def verify(bench, dry: bool = False, **options):
    return bench.manager.verify(VerifyRequest(**options), dry)


def test_an_undamaged_store(bench):
    fill(bench)
    for level in ("structure", "content"):
        found = verify(bench, level=level)
        assert (found.damage, found.damage_count, found.damaged, found.unlisted, found.changed) == ([], 0, [], [], False)
    assert found.file_count == len(store_files(bench, "objects") + store_files(bench, "packs"))
    assert verify(bench, level="content", repair=True).changed is False


@pytest.mark.parametrize("what", ["object", "pack", "metadata"])
@pytest.mark.parametrize("how", ["flipped", "gone", "cut", "a directory", "a link"])
def test_damage_is_found_reported_and_repaired_from_the_source(bench, what, how):
    backup = fill(bench)
    victim = store_files(bench, "objects")[0] if what == "object" else pack(bench, what == "metadata")
    data = victim.read_bytes()
    if how == "flipped":
        flip(victim)
        assert bool(verify(bench, dry=True).damage) == (what == "metadata"), "structure reads trees, and no content"
    elif how == "cut":
        victim.write_bytes(data[:-1])
    else:
        victim.unlink()
    if how == "a directory":
        victim.mkdir()
    elif how == "a link":
        (bench.top / "elsewhere").write_bytes(data)
        victim.symlink_to(bench.top / "elsewhere")
    before = bench.snapshot()
    dry = verify(bench, dry=True, level="content")
    planned = verify(bench, dry=True, level="content", repair=True)
    assert bench.snapshot() == before
    assert dry.damaged == [backup] and dry.damage_count == len(dry.damage) and planned.damage == dry.damage
    assert planned.changed == (how != "gone")
    shown = {item["path"] for item in dry.damage if item["id"] == backup}
    assert shown, dry.damage
    if what == "pack":
        assert all("deep/f" in path for path in shown)
    done = verify(bench, level="content", repair=True)
    assert done.changed and done.damage == [] and done.repaired["blobs"] > 0, (done, dry)
    assert verify(bench, level="content").damage == []
    assert [item["damaged"] for item in bench.found()] == [False]
    bench.restore(backup)
    assert oracle.differences(bench.source, bench.target) == []


def test_content_in_no_source_is_reported_as_lost(bench):
    backup = fill(bench)
    bench.files(d2__deep__f2=b"other now")
    second = bench.create().backup["id"]
    for path in store_files(bench, "packs"):
        if path.stat().st_size > 50_000:
            path.write_bytes(os.urandom(1000))
    done = verify(bench, level="content", repair=True)
    assert [(item["id"], item["path"]) for item in done.damage] == [(backup, "d2/deep/f2")]
    assert done.damaged == [backup] and done.repaired["quarantined"]
    assert [item["damaged"] for item in bench.found()] == [False, True]
    bench.restore(second)
    assert oracle.differences(bench.source, bench.target) == []
    assert list((bench.store / "quarantine").rglob("*.pack*")), "destroyed nothing"


@pytest.mark.parametrize("index", [True, False], ids=["index", "no index"])
@pytest.mark.parametrize("unfinished", [True, False])
def test_blobs_come_back_from_the_trash(bench, index: bool, unfinished: bool):
    """The source is gone, the trash is not: trees and content alike. In that of an unfinished collection nothing is missing at all."""
    backup = fill(bench)
    shutil.copytree(bench.source, bench.top / "kept", symlinks=True)
    trash = bench.store / "trash" / ("00000000000000000001-1.open" if unfinished else "00000000000000000001-1")
    for kind in ("objects", "packs"):
        (trash / kind).mkdir(parents=True)
        for path in store_files(bench, kind):
            path.rename(trash / kind / path.name)
    shutil.rmtree(bench.source)
    if index is False:
        shutil.rmtree(bench.store / "index")
    if unfinished:
        assert verify(bench).damaged == [] == [backup for backup in bench.found() if backup["damaged"]]
        assert bench.manager.collect("0s")["freed_files"] == 0 and store_files(bench, "objects") and store_files(bench, "packs")
    else:
        assert verify(bench).damaged == [backup]
    done = verify(bench, repair=True)
    assert done.damage == [] and done.repaired["sources"] == []
    bench.restore(backup)
    for name in ("object", "d1/chunked", "d3/deep/f3"):
        assert (bench.target / name).read_bytes() == (bench.top / "kept" / name).read_bytes()
    assert verify(bench, level="content").damage == []


def test_undamaged_blobs_of_a_damaged_pack_are_taken_out_of_it(bench):
    for number in range(60):
        bench.files(**{f"f{number:02}": bytes([number]) * 3000})
    backup = bench.create(compression="none").backup["id"]
    flip(pack(bench, metadata=False))
    shutil.rmtree(bench.source)
    done = verify(bench, level="content", repair=True)
    assert done.damage_count == 1 and done.repaired["blobs"] == 59, done
    assert done.damaged == [backup]


def test_an_object_changed_through_a_hard_link_is_caught(bench):
    backup = fill(bench)
    bench.restore(backup, link="hardlink")
    with open(bench.target / "object", "r+b") as file:
        file.write(b"edited in place")
    assert [(found["damaged"], found["checked"]) for found in bench.found()] == [(False, False)]
    found = verify(bench)
    assert {item["path"] for item in found.damage if item["id"]} == {"object", "again"}
    assert bench.found()[0]["damaged"]
    done = verify(bench, repair=True)
    assert done.damage == []
    shutil.rmtree(bench.target)
    bench.restore(backup)
    assert oracle.differences(bench.source, bench.target) == []


def test_damage_is_remembered(bench):
    """Bits that flipped without a trace: found once by content, known to all from then on, and stored anew by the next backup."""
    fill(bench)
    flip(pack(bench, metadata=False))
    flip(store_files(bench, "objects")[0])
    assert not bench.found()[0]["damaged"]
    verify(bench, level="content")
    assert bench.found()[0]["damaged"]
    bench.create()
    assert verify(bench, level="content").damaged == []
    assert [item["damaged"] for item in bench.found()] == [False, False]


def test_a_restore_that_meets_damage_makes_it_known(bench):
    backup = fill(bench)
    flip(pack(bench, metadata=False))
    with pytest.raises(Damaged):
        bench.restore(backup)
    assert bench.found()[0]["damaged"]


def test_a_budget_covers_everything_in_its_time(bench):
    fill(bench)
    names = {path.name for kind in ("objects", "packs") for path in store_files(bench, kind)}
    seen = 0
    at = []
    for _night in range(20):
        found = verify(bench, level="content", budget="5%")
        seen += found.file_count
        at.append(found.covered)
    assert seen == len(names)
    assert at == sorted(at) and at[0] == 5.0 and at[-1] == 100.0
    for path in store_files(bench, "packs"):
        flip(path)
    assert sum(verify(bench, level="content", budget="33.4%").damage_count > 0 for _night in range(3)) >= 1
    assert verify(bench, level="content", budget="10m").file_count == len(names)


def test_budgets():
    assert 20 * parse_budget("5%").names >= SPACE > 19 * parse_budget("5%").names
    assert parse_budget("90s").seconds == 90
    for text in ("0%", "101%", "5", "%", "", "-1%", "5 %"):
        with pytest.raises(UsageError, match="Budget"):
            parse_budget(text)


def test_lost_and_unreadable_records(bench):
    one = fill(bench)
    bench.files(more=b"x")
    two = bench.create().backup["id"]
    three = bench.create().backup["id"]
    originals = {backup: json.loads((bench.backups / f"{backup}.json").read_text()) for backup in (one, two)}
    (bench.backups / f"{one}.json").unlink()
    (bench.backups / f"{two}.json").write_text("{}")
    manifest = bench.manifest(three)
    manifest.write_text(manifest.read_text() + " ")
    found = verify(bench)
    assert sorted(item["id"] for item in found.damage) == sorted([two, three]) and len(found.unlisted) == 1
    done = verify(bench, repair=True)
    assert done.damaged == [three] and sorted(done.repaired["sidecars"]) == sorted([one, two]) and done.unlisted == []
    for backup, original in originals.items():
        made = json.loads((bench.backups / f"{backup}.json").read_text())
        figures = {"new_blobs", "dedup_blobs", "new_bytes", "stored_bytes", "duration"}  # which no manifest has
        assert {key: made[key] for key in made if key not in figures} == {key: original[key] for key in original if key not in figures}
    assert (next((bench.store / "quarantine").rglob(f"{two}.json"))).read_text() == "{}"
    bench.restore(one)


def test_some_backups_only(bench):
    one = fill(bench, 1)
    for path in bench.source.rglob("f*"):
        path.unlink()
    two = fill(bench, 2)
    for path in store_files(bench, "packs"):
        flip(path)
        if verify(bench, level="content", ids=[one]).damaged:
            break
    assert verify(bench, level="content", ids=[one]).damaged == [one]
    with pytest.raises(NotFound):
        verify(bench, ids=["work-20000101-000000-manual"])
    with pytest.raises(UsageError, match="budget"):
        verify(bench, level="content", ids=[two], budget="5%")


def test_derived_files_that_lie(bench):
    """Index and stat cache are replaced by rubbish: nothing is lost, and repair makes them anew."""
    backup = fill(bench)
    for part in ("index", "cache"):
        for path in (bench.store / part).iterdir():
            path.write_bytes(os.urandom(5000))
    assert verify(bench, level="content").damage == []
    verify(bench, repair=True)
    assert bench.restore(backup).changed
    assert bench.create().backup["new_blobs"] == 0


def test_an_object_shelf_that_leads_elsewhere(bench):
    fill(bench)
    shelf = store_files(bench, "objects")[0].parent
    shutil.move(shelf, bench.top / "moved")
    shelf.symlink_to(bench.top / "moved")
    assert verify(bench).damaged and bench.found()[0]["damaged"]


def test_an_empty_place(bench):
    found = verify(bench, level="content", repair=True)
    assert found.damage == [] and not bench.store.exists()


def test_a_list_that_compresses_beyond_belief(bench):
    """The chunk list of a huge image of one repeated chunk: nothing that is sound is taken out, and it can be taken again from the trash."""
    count = 300_000
    blob = bytes(1 << 20)
    digest = hashlib.sha256(blob).digest()
    bench.files(a=b"1")
    bench.create()
    with Transaction(Store(str(bench.store))) as run:
        listed = run.add_metadata(chunks.encode(count << 20, (), [digest] * count))
        run.commit()
    found = verify(bench, level="content", repair=True)
    assert found.damage == [] and not found.changed
    trash = bench.store / "trash" / "00000000000000000001-1" / "objects"
    trash.mkdir(parents=True)
    (thing,) = store_files(bench, "objects")
    thing.rename(trash / thing.name)
    assert hashlib.sha256(Remains(Store(str(bench.store))).get(listed) or b"").digest() == listed


@pytest.mark.parametrize("compression", ["auto", "zlib"])
def test_a_damaged_pack_is_read_up_to_the_damage(bench, compression):
    """The source is gone, so what the pack held before the damage is all there is."""
    text = {f"f{number:02}": b"".join(b"%d %d\n" % (number, line * line * number % 7919) for line in range(600)) for number in range(45)}
    bench.files(**text)
    backup = bench.create(compression=compression).backup["id"]
    victim = pack(bench, metadata=False)
    assert victim.suffix != ".pack" and len(store_files(bench, "packs")) == 2
    size = victim.stat().st_size
    with open(victim, "r+b") as file:
        file.seek(size * 3 // 4)
        file.write(bytes(size - size * 3 // 4))
    shutil.rmtree(bench.source)
    assert verify(bench, level="content", repair=True).damage
    bench.restore(backup, salvage=True)
    restored = {path.name: path.read_bytes() for path in bench.target.iterdir()}
    assert len(restored) > 20 and restored.items() <= text.items()


def test_a_pack_with_a_bad_sector(bench, tmp_path):
    """All of the pack that the disk still reads is taken, though no read of the whole succeeds."""
    need("strace")
    content = {f"f{number:02}": os.urandom(3000) for number in range(60)}
    bench.files(**content)
    backup = bench.create().backup["id"]
    victim = pack(bench, metadata=False)
    place = bench.store / "quarantine" / "00000000000000000001-1" / "packs"
    place.mkdir(parents=True)
    victim.rename(place / victim.name)
    shutil.rmtree(bench.source)
    faults = [f"--inject={fault}" for fault in ("read:error=EIO", "pread64:error=EIO:when=20")]
    archive = tmp_path / "volt-backup"
    archive.write_bytes(command())
    words = [sys.executable, archive, "verify", "--content", "--repair", "--store", bench.store, "--backup-dir", bench.backups]
    log = tmp_path / "log"
    done = subprocess.run(["strace", "-f", "-qq", "-o", log, "-P", place / victim.name, *faults, *words], check=False, capture_output=True, text=True)
    injected = log.read_text().count("INJECTED")
    assert injected >= 2, (done.stdout, done.stderr)
    bench.restore(backup, salvage=True)
    restored = {path.name: path.read_bytes() for path in bench.target.iterdir()}
    assert 56 <= len(restored) < 60 and restored.items() <= content.items()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_quarantined_file_of_another_user_is_passed_over(public_path):
    place = public_path / "store" / "quarantine" / "00000000000000000001-1" / "packs"
    place.mkdir(parents=True)
    (place / f"{'00' * 32}.pack").touch(mode=0o600)
    os.seteuid(65534)
    try:
        assert Remains(Store(str(public_path / "store"))).get(bytes(32)) is None
    finally:
        os.seteuid(0)


def test_repair_material_is_not_emptied_from_the_trash(bench):
    """Small packs are merged, the old ones lie in the trash, and the new ones are damaged: collection keeps what repair needs."""
    for turn in range(3):
        bench.files(**{f"f{turn}": os.urandom(500)})
        bench.create()
    bench.manager.collect("24h")
    for path in store_files(bench, "packs"):
        flip(path)
    shutil.rmtree(bench.source)
    with pytest.raises(Damaged, match="Garbage collection refused"):
        bench.manager.collect("0s")
    assert verify(bench, level="content", repair=True).damage == []


def test_missing_content_keeps_the_trash(bench):
    backup = fill(bench)
    next(path for path in store_files(bench, "objects") if path.stat().st_size == 400_000).unlink()
    bench.files(extra=os.urandom(200_000))
    bench.manager.delete(bench.create(exclude=["/object", "/again"]).backup["id"])
    done = bench.manager.collect("0s")
    assert done["trashed_files"] and not done["freed_files"] and "1 blob(s) that backups need are missing" in done["warnings"][0]
    assert verify(bench).damaged == [backup]


def test_two_backup_directories_on_one_store(bench, tmp_path):
    """What is made and deleted in one leaves the other alone, also within one second."""
    other = Manager(str(bench.store), str(tmp_path / "other"), 5)
    bench.files(a=b"1")
    request = create.CreateRequest("work", str(bench.source))
    ours, theirs = [], []
    for _turn in range(3):
        ours.append(bench.manager.create(request).backup["id"])
        theirs.append(other.create(request).backup["id"])
    assert not set(ours) & set(theirs)
    for backup in ours:
        bench.manager.delete(backup)
    bench.manager.collect("0s")
    assert [item["damaged"] for item in other.find(Query())] == [False] * 3


def test_an_undamaged_form_beside_a_damaged_one(bench):
    backup = fill(bench)
    victim = pack(bench, metadata=True)
    assert victim.name.endswith(".pack.zst")
    victim.with_name(victim.name[:-4]).write_bytes(b"rubbish")
    found = verify(bench, level="content")
    assert found.damaged == [] and [item["file"][-5:] for item in found.damage] == [".pack"]
    assert verify(bench, level="content", repair=True).damage == []
    bench.restore(backup)


def test_a_repair_in_vain_changes_nothing(bench):
    backup = fill(bench)
    (bench.source / "d1" / "deep" / "f1").write_bytes(b"other")
    for path in store_files(bench, "packs"):
        if path.stat().st_size > 50_000:
            path.unlink()
    first = verify(bench, repair=True)
    assert first.changed and first.damaged == [backup] and first.repaired["blobs"] == 59
    again = verify(bench, repair=True)
    assert not again.changed and again.repaired["blobs"] == 0 and again.damage == first.damage


def test_no_time_at_all_is_refused():
    with pytest.raises(UsageError, match="longer than 0"):
        parse_budget("0s")
