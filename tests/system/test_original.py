# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the original Volt command in the same directories: listed, passed by, never deleted. What only resembles them is damaged."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import import_original
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, Foreign, NotFound, StoreError
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest

BACKUP = "work-20260619-143052-manual"


class Original:
    """What the original left: one backup and one schedule. `sidecar` and `manifest` are what its files hold."""

    def __init__(self, bench) -> None:
        self.bench = bench
        data = {"etc/hostname": b"web\n", "bin/sh": b"\x7fELF" + bytes(5000)}
        self.objects = {hashlib.sha256(content).hexdigest(): content for content in data.values()}
        for path in (bench.store / "objects", bench.store / "refs", bench.backups):
            path.mkdir(parents=True)
        for name, content in self.objects.items():
            (bench.store / "objects" / name).write_bytes(content)
        self.manifest = {"name": f"backup-{BACKUP}", "objects": {path: hashlib.sha256(content).hexdigest() for path, content in data.items()}}
        self.reference = bench.store / "refs" / f"backup-{BACKUP}-{hashlib.sha256(b'').hexdigest()[:12]}.json"
        self.sidecar = {
            "id": BACKUP, "workload_name": "work", "workload_mode": "container", "type": "manual", "manifest_ref": self.reference.name, "tags": ["nightly"],
            "created_at": "2026-06-19T14:30:52.123456789Z", "blob_count": 2, "total_size": 5008, "new_blobs": 2, "dedup_blobs": 0, "duration": 1234567890,
            "pushed_to_cdn": False, "source_path": str(bench.source), "notes": "first",
        }  # fmt: skip
        self.schedule = {"workload_name": "work", "interval": 86400 * 10**9, "max_keep": 7, "push_to_cdn": False, "tags": ["nightly"]}
        self.write()

    def write(self) -> None:
        self.reference.write_text(json.dumps(self.manifest))
        (self.bench.backups / f"{BACKUP}.json").write_text(json.dumps(self.sidecar))
        (self.bench.backups / "schedule-work.json").write_text(json.dumps(self.schedule))

    def files(self) -> dict[str, bytes]:
        """What must stay as it is."""
        paths = [self.reference, self.bench.backups / f"{BACKUP}.json", self.bench.backups / "schedule-work.json"]
        return {str(path): path.read_bytes() for path in (*paths, *(self.bench.store / "objects" / name for name in self.objects))}


@pytest.fixture
def original(bench) -> Original:
    return Original(bench)


def test_all_of_it_is_listed_and_not_changed(original: Original, bench) -> None:
    before = original.files()
    bench.files(a=b"1")
    for _turn in range(2):  # before there is a store of ours, and after
        listed = {backup["id"]: backup for backup in bench.found() if backup["foreign"]}
        assert sorted(listed) == ["schedule-work", BACKUP]
        assert not any(backup["damaged"] or backup["complete"] for backup in listed.values())
        assert {key: listed[BACKUP][key] for key in original.sidecar} == original.sidecar
        assert "original Volt command" in listed[BACKUP]["foreign_reason"] and listed["schedule-work"]["workload_name"] == "work"
        done = bench.manager.collect("0s")
        assert not done["changed"] and done["warnings"] == []
        for request in (VerifyRequest(), VerifyRequest(level="content"), VerifyRequest(level="content", repair=True)):
            assert bench.manager.verify(request).failure() is None
        assert not bench.manager.prune("work", {"last": 1}).removed
        assert bench.manager.adopt(unlisted=True).adopted == [] if bench.store.joinpath("format.json").exists() else True
        for backup in listed:
            with pytest.raises(Foreign, match="original Volt command"):
                bench.manager.delete(backup)
            with pytest.raises(Foreign, match="original Volt command"):
                bench.restore(backup)
        made = bench.create()
        assert made.changed and made.diff["added"] if _turn == 0 else made.changed
        assert original.files() == before
    assert bench.manager.find(Query(workload="work"))[0]["id"] == made.backup["id"]
    _done, passed = bench.manager.restore(None, RestoreRequest(str(bench.target)), Query(workload="work"))
    assert passed == [] and (bench.target / "a").read_bytes() == b"1"
    figures = bench.manager.usage()
    assert not figures["damaged"] and figures["objects"] == 0 and figures["stored_bytes"] < 5000, "what gc does not free is not said to be free"
    assert bench.manager.workloads() == ["work"]
    assert bench.manager.changes(bench.found(), 10)[BACKUP] is None
    bench.manager.prune("work", {"last": 1})
    bench.manager.collect("0s")
    assert bench.manager.accept_mounts("work") == []
    assert original.files() == before


LIKE: dict[str, tuple[str, dict[str, Any]]] = {
    "a sidecar of another id": ("sidecar", {"id": "other"}),
    "a sidecar with a key more": ("sidecar", {"host": "h"}),
    "a sidecar with a wrong value": ("sidecar", {"total_size": "5"}),
    "a sidecar without its manifest's name": ("sidecar", {"manifest_ref": None}),
    "a schedule without an interval": ("schedule", {"interval": None}),
    "a schedule of another workload": ("schedule", {"workload_name": "other"}),
    "a manifest without objects": ("manifest", {"objects": None}),
    "a manifest with other objects": ("manifest", {"objects": {"a": "short"}}),
    "a manifest with a format": ("manifest", {"format": 1}),
}


@pytest.mark.parametrize("what", LIKE)
def test_what_only_resembles_it_is_damaged(original: Original, bench, what: str) -> None:
    kind, values = LIKE[what]
    bench.files(a=b"1")
    bench.create()
    getattr(original, kind).update(values)
    original.write()
    before = original.files()
    if kind != "manifest":
        assert len([backup for backup in bench.found() if backup["damaged"]]) == 1
    assert bench.manager.verify(VerifyRequest()).failure() is not None
    with pytest.raises(Damaged, match="Garbage collection refused"):
        bench.manager.collect("0s")
    assert original.files() == before


@pytest.mark.parametrize("what", ["shard", "pack", "odd object", "manifest of ours"])
def test_a_store_that_lost_its_format_is_not_taken_for_the_original_s(original: Original, bench, what: str) -> None:
    path: Path = bench.store / {
        "shard": f"objects/ab/{'ab' * 32}", "pack": f"packs/ab/{'ab' * 32}.pack", "odd object": "objects/x", "manifest of ours": "refs/x-0123456789ab.json"
    }[what]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": 1}))
    bench.files(a=b"1")
    with pytest.raises(StoreError, match="no format.json"):
        bench.create()


# ---- taking them in


def manifest(original: Original, **objects: str) -> None:
    """Give the original another manifest, under the name that is its own."""
    original.manifest["objects"] = objects
    original.reference.unlink()
    text = json.dumps(original.manifest)
    original.reference = original.reference.with_name(f"backup-{BACKUP}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json")
    original.sidecar["manifest_ref"] = original.reference.name
    original.write()


def test_taking_in(original: Original, bench) -> None:
    large = bytes(range(256)) * 40_000  # in chunks
    digest = hashlib.sha256(large).hexdigest()
    (bench.store / "objects" / digest).write_bytes(large)
    original.objects[digest] = large
    empty = hashlib.sha256(b"").hexdigest()
    (bench.store / "objects" / empty).write_bytes(b"")
    deep = "/".join(["d"] * 1500)
    small, shell = sorted(original.objects, key=lambda name: len(original.objects[name]))[:2]
    manifest(original, **{"etc/hostname": small, "bin/sh": shell, "disk": digest, "empty": empty, deep: small, "caf\\xe9": small})
    before = original.files()
    foreseen = bench.manager.import_original(dry=True)
    assert [row["id"] for row in foreseen.imported] == [BACKUP] and not (bench.store / "format.json").exists()
    done = bench.manager.import_original()
    (row,) = done.imported
    assert done.changed and row["new_id"] == f"{BACKUP}-2" and original.files() == before
    found = next(backup for backup in bench.found() if backup["id"] == row["new_id"])
    assert not found["complete"] and not found["damaged"] and found["created_at"] == "2026-06-19T14:30:52.123456Z" and found["tags"] == ["nightly"]
    assert (found["file_count"], found["total_size"]) == (6, 3 * 4 + 5004 + len(large)) and found["notes"] == "first"
    assert "owners, modes" in found["skipped"][0]["detail"]
    bench.restore(row["new_id"])
    assert (bench.target / "disk").read_bytes() == large and (bench.target / "etc" / "hostname").read_bytes() == b"web\n"
    assert (bench.target / "bin" / "sh").stat().st_mode & 0o7777 == 0o644 and (bench.target / "empty").read_bytes() == b""
    assert (bench.target / os.fsdecode(b"caf\xe9")).read_bytes() == b"web\n"
    assert bench.manager.verify(VerifyRequest(level="content")).failure() is None
    subprocess.run(["rm", "-rf", bench.target], check=True)  # too deep for what clears up after tests
    again = bench.manager.import_original()
    assert not again.changed and again.left[0]["new_id"] == row["new_id"] and "was imported" in again.left[0]["reason"]
    bench.manager.collect("0s")
    assert original.files() == before


IMPOSSIBLE = {
    "an absolute path": {"/etc/passwd": 0},
    "a path that climbs": {"a/../../b": 0},
    "an empty name": {"a//b": 0},
    "a path below a file": {"a": 0, "a/b": 1},
    "a path that is too long": {"/".join(["x" * 200] * 30): 0},
}


@pytest.mark.parametrize("what", [*IMPOSSIBLE, "an object that is gone", "an object that is altered", "an object that is a link", "a manifest that is altered"])
def test_damaged_backups_are_not_imported(original: Original, bench, what: str) -> None:
    names = sorted(original.objects)
    if what in IMPOSSIBLE:
        manifest(original, **{path: names[number] for path, number in IMPOSSIBLE[what].items()})
    else:
        manifest(original, **{"a": names[0], "b": names[1]})
        path = bench.store / "objects" / names[1]
        if what == "an object that is altered":
            path.write_bytes(b"x" + path.read_bytes()[1:])
        elif what == "a manifest that is altered":
            original.reference.write_text(original.reference.read_text().replace('"a"', '"c"'))
        else:
            path.rename(bench.top / "elsewhere")
            if what == "an object that is a link":
                path.symlink_to(bench.top / "elsewhere")
    done = bench.manager.import_original()
    assert not done.changed and done.left[0]["reason"], done
    assert not (bench.store / "format.json").exists()
    with pytest.raises(NotFound, match="of the original Volt command"):
        bench.manager.import_original(["work-20200101-000000-manual"])


RECORDS = {
    "no time": {"created_at": "yesterday"}, "the end of time": {"created_at": "0001-01-01T00:00:00+14:00"}, "a negative duration": {"duration": -1},
    "an endless duration": {"duration": 1 << 63}, "another type": {"type": "weekly"}, "no source": {"source_path": None},
}  # fmt: skip


@pytest.mark.parametrize("what", RECORDS)
def test_an_odd_record_is_not_taken_in(original: Original, bench, what: str) -> None:
    manifest(original, a=sorted(original.objects)[0])
    original.sidecar.update(RECORDS[what])
    original.write()
    for _turn in range(2):
        done = bench.manager.import_original()
        assert not done.changed and all(row["reason"] for row in done.left)
        assert not [found for found in bench.found() if not found["foreign"]]


def test_an_object_that_changes_after_it_was_proved(original: Original, bench, monkeypatch: pytest.MonkeyPatch) -> None:
    large = bytes(range(256)) * 40_000
    digest = hashlib.sha256(large).hexdigest()
    path = bench.store / "objects" / digest
    path.write_bytes(large)
    manifest(original, a=digest)
    real = import_original._check
    monkeypatch.setattr(import_original, "_check", lambda paths: (path.write_bytes(b"x" * len(large)), real(paths))[1])
    (row,) = bench.manager.import_original().left
    assert "changed while it was read" in row["reason"] and not [found for found in bench.found() if not found["foreign"]]


def test_a_path_that_is_written_twice(original: Original, bench) -> None:
    manifest(original, **{"aA": sorted(original.objects)[0], "a\\x41": sorted(original.objects)[1]})
    assert "twice" in bench.manager.import_original().left[0]["reason"]
