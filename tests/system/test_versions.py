# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What other versions left: all that version 0.1.0 wrote can be used, and what a newer one wrote is told of and left alone."""

from __future__ import annotations

import json
import os
import struct
import tarfile
import types
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import create, records, verify
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Unsupported, VoltError
from ansible_collections.volt.backup.plugins.module_utils._format import chunks, links, tree
from ansible_collections.volt.backup.plugins.module_utils._format.tree import CHUNKED, FILE, Entry
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._runner import archive, cli, upkeep
from ansible_collections.volt.backup.plugins.module_utils._schedule import command, held, job as jobs, status
from ansible_collections.volt.backup.plugins.module_utils._schedule.declare import Declaration, HostPaths
from ansible_collections.volt.backup.plugins.module_utils._schedule.record import RunRecord
from ansible_collections.volt.backup.plugins.module_utils._schedule.survey import survey
from ansible_collections.volt.backup.plugins.module_utils._store import features, pack
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction

OLD = Path(__file__).parents[1] / "fixtures" / "made-by-0.1.0.tar.xz"


class Host:
    """What version 0.1.0 left on a host."""

    def __init__(self, top: Path) -> None:
        self.top = top
        with tarfile.open(OLD) as packed:
            packed.extractall(top, **({"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}))
        self.manager = Manager(str(top / "cas"), str(top / "backups"), 5)

    def said(self, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
        assert cli.main([*words, "--store", str(self.top / "cas"), "--backup-dir", str(self.top / "backups"), "--json"]) == status
        return json.loads(capsys.readouterr().out)


def content(top: Path) -> dict[Path, bytes]:
    """Every file below a directory, locks and what is derived apart."""
    apart = ("lock", "gate", "cache", "index")
    return {path: path.read_bytes() for path in top.rglob("*") if path.is_file() and path.relative_to(top).parts[0] not in apart}


@pytest.fixture
def old(tmp_path: Path) -> Host:
    return Host(tmp_path)


# ---- version 0.1.0


def test_a_store_of_version_0_1_0_goes_through_every_command(old: Host, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(old.top / "cas")
    listed = old.said(capsys, "list")["backups"]
    assert [(backup["workload_name"], backup["type"]) for backup in listed] == [("other", "pre-deploy"), ("app", "scheduled"), ("app", "manual")]
    assert not any(backup["damaged"] or backup["unsupported"] for backup in listed)
    other, second, first = (backup["id"] for backup in listed)
    shown = old.said(capsys, "show", first, "--contents")
    assert shown["contents"]["count"] == 49 and shown["backups"][0]["notes"] == "the first"
    assert old.said(capsys, "diff", first, second)["diff"]["counts"] == {"added": 1, "changed": 0, "removed": 1}
    for level in ([], ["--content"]):
        assert old.said(capsys, "verify", *level)["damage_count"] == 0
    planned = old.said(capsys, "gc", "--grace", "0s", "--dry-run")
    assert planned["repacked_packs"] == planned["trashed_files"], "small packs would be merged; nothing else is dead"
    assert old.said(capsys, "prune", "app", "--keep", "1", "--dry-run")["removed"][0]["id"] == first
    assert content(old.top / "cas") == before, "nothing was written"

    old.said(capsys, "restore", first, "--target", str(old.top / "target"))
    target = old.top / "target"
    assert (target / "dir" / "hello").samefile(target / "linked") and (target / "linked").read_bytes() == b"hello\n"
    assert (target / "chunked").stat().st_size == 9 << 20 and (target / "chunked").read_bytes()[9_000_000:9_000_010] == b"at the end"
    assert (target / "object").read_text().splitlines() == [str(number) for number in range(1, 40_001)]
    assert (target / "sparse").read_bytes() == bytes(65536) + b"data" and os.readlink(target / "symlink") == "dir/hello"
    assert (target / "fifo").is_fifo() and len(os.listdir(target / "dir")) == 41
    assert not old.said(capsys, "restore", first, "--target", str(target), "--verify")["changed"]

    made = old.said(capsys, "create", "app", "--source", str(target))
    assert made["backup"]["new_blobs"] == 0, "its blobs are known"
    said = json.loads((old.top / "cas" / "format.json").read_bytes())
    assert said["format"] == 2 and said["features"]["required"] == ["claims"] and len(said["id"]) == 32 and said["made_by"] == "volt.backup"
    old.said(capsys, "delete", other)
    assert old.said(capsys, "gc", "--grace", "0s")["freed_files"]
    assert old.said(capsys, "verify", "--content")["damage_count"] == 0
    for backup in (first, second, made["backup"]["id"]):
        old.said(capsys, "restore", backup, "--target", str(old.top / backup))


def test_lost_sidecars_of_version_0_1_0_are_created_again(old: Host, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.stem: json.loads(path.read_bytes()) for path in (old.top / "backups").iterdir()}
    for path in (old.top / "backups").iterdir():
        path.unlink()
    assert old.said(capsys, "verify", "--repair")["repaired"]["sidecars"] == [], "they name no directory: they may be another's"
    assert sorted(row["id"] for row in old.said(capsys, "adopt", "--dry-run")["adopted"]) == sorted(before)
    assert list((old.top / "backups").iterdir()) == []
    assert sorted(row["id"] for row in old.said(capsys, "adopt")["adopted"]) == sorted(before)
    own = json.loads((old.top / "backups" / ".directory.json").read_bytes())["id"]
    for backup, facts in before.items():
        again = json.loads((old.top / "backups" / f"{backup}.json").read_bytes())
        assert {key: again[key] for key in records.REPEATED} == {**{key: {**records.LATER, **facts}[key] for key in records.REPEATED}, "directory_id": own}


def test_records_of_version_0_1_0_are_its_directory_s(old: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """They are pruned and listed as ever, also beside new ones, and taken over where that is asked for."""
    (old.top / "source").mkdir()
    made = old.said(capsys, "create", "app", "--source", str(old.top / "source"))["backup"]
    planned = old.said(capsys, "adopt", "--dry-run")
    assert [(row["workload_name"], row["directory_id"]) for row in planned["adopted"]].count(("app", None)) == 2 and len(planned["adopted"]) == 3
    assert len(old.said(capsys, "prune", "app", "--keep", "1")["removed"]) == 2
    done = old.said(capsys, "adopt")
    assert [row["workload_name"] for row in done["adopted"]] == ["other"] and not old.said(capsys, "adopt")["changed"]
    listed = {backup["id"]: backup for backup in old.said(capsys, "list")["backups"]}
    assert {backup["directory_id"] for backup in listed.values()} == {made["directory_id"]}
    assert not any(backup["damaged"] or backup["foreign"] for backup in listed.values())


@pytest.fixture
def then(old: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a schedule's state is depends on time and source: it is soon after the runs that version 0.1.0 noted, and these are its backups."""
    ended = json.loads((old.top / "records" / "app.json").read_bytes())["ended"]
    monkeypatch.setattr(status, "time", types.SimpleNamespace(time=lambda: ended + 60))
    monkeypatch.setattr(held, "of_job", lambda _job: lambda _backup: True)


def test_schedules_of_version_0_1_0_are_read_and_taken_over_without_force(old: Host, then: None) -> None:
    places = HostPaths(*(str(old.top / name) for name in ("units", "jobs", "records", "stamps", "volt-backup", "notify.json", "run/status.json")))
    Path(places.command).write_bytes(archive.build())
    found = {name: jobs.load(name, places.jobs) for name in jobs.declared(places.jobs)}
    assert sorted(found) == ["app", "other"] and found["app"].keep == {"last": 3} and found["other"].on_calendar == "daily"
    assert RunRecord("app", places.records).read()["success"]["backup_id"] == "app-20261101-000000-scheduled"
    rows = {row["workload"]: row["state"] for row in survey(places.jobs, places.records, places.units, places.command).schedules}
    assert rows == {"app": "overdue", "other": "disabled"}, "the run succeeded, and its backup is not where the job of that host backs up to"
    here = [job._replace(store=str(old.top / "cas"), backup_dir=str(old.top / "backups")) for job in found.values()]
    for changed in (True, False):
        declaration = Declaration(here, [], False, "/usr/bin/python3", False, False, places)
        declaration.plan()
        assert declaration.changed is changed
        declaration.apply()
    assert RunRecord("app", places.records).read()["success"], "what is known of its runs stays"


@pytest.mark.parametrize("number", [0, -1])
def test_job_files_of_an_older_format_are_declared_again(old: Host, number: int) -> None:
    path = old.top / "jobs" / "app.json"
    path.write_text(json.dumps({"format": number, "something": "else"}))
    with pytest.raises(jobs.Older, match="older version .*declare the schedule again"):
        jobs.load("app", str(old.top / "jobs"))
    places = HostPaths(*(str(old.top / name) for name in ("units", "jobs", "records", "stamps", "volt-backup", "notify.json", "run/status.json")))
    Path(places.command).write_bytes(archive.build())
    job = jobs.load("other", places.jobs)._replace(workload="app", store=str(old.top / "cas"), backup_dir=str(old.top / "backups"))
    declaration = Declaration([job], [], False, "/usr/bin/python3", False, False, places)
    declaration.plan()
    declaration.apply()
    assert jobs.load("app", places.jobs).text() == job.text()


# ---- newer versions


def test_job_files_of_a_newer_format_are_not_changed(old: Host) -> None:
    path = old.top / "jobs" / "app.json"
    path.write_text(json.dumps({"format": 99, "something": "else"}))
    before = path.read_bytes()
    places = HostPaths(*(str(old.top / name) for name in ("units", "jobs", "records", "stamps", "volt-backup", "notify.json", "run/status.json")))
    Path(places.command).write_bytes(archive.build())
    with pytest.raises(Unsupported, match="newer version; update"):
        jobs.load("app", places.jobs)
    (row,) = (row for row in survey(places.jobs, places.records, places.units, places.command).schedules if row["workload"] == "app")
    assert row["state"] == "unsupported" and "newer version" in row["reason"]
    job = jobs.load("other", places.jobs)._replace(workload="app")
    with pytest.raises(Unsupported, match="newer version"):
        Declaration([job], [], False, "/usr/bin/python3", False, False, places).plan()
    assert path.read_bytes() == before


def test_a_command_that_is_older_than_the_store_is_named(old: Host, then: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of a newer version gave the store a feature that the command on the host does not know."""
    places = HostPaths(*(str(old.top / name) for name in ("units", "jobs", "records", "stamps", "volt-backup", "notify.json", "run/status.json")))
    Path(places.command).write_bytes(archive.build())
    job = jobs.load("app", places.jobs)._replace(store=str(old.top / "cas"), backup_dir=str(old.top / "backups"))
    (old.top / "jobs" / "app.json").write_text(job.text())
    (old.top / "cas" / "format.json").write_bytes(features.Format("0" * 32, required=("tomorrow",)).encode())

    def row() -> dict[str, Any]:
        return next(row for row in survey(places.jobs, places.records, places.units, places.command).schedules if row["workload"] == "app")

    assert row()["state"] == "unsupported" and "written by a newer version" in row()["reason"]
    monkeypatch.setattr(features, "KNOWN", frozenset({"tomorrow"}))
    assert row()["state"] == "unsupported" and "too old for store" in row()["reason"] and "tomorrow" in row()["reason"]
    with pytest.raises(VoltError, match="too old for store .*tomorrow.*update it with volt_runner"):
        Declaration([job], [], False, "/usr/bin/python3", False, False, places).plan()
    Path(places.command).write_bytes(archive.build())
    assert command.read(places.command).features == {"tomorrow"} and row()["state"] == "ok"
    Declaration([job], [], False, "/usr/bin/python3", False, False, places).plan()


@pytest.mark.parametrize("change", [{"format": 3}, {"format": 2, "features": {"required": ["tomorrow"], "optional": []}}])
def test_a_store_that_only_a_newer_version_can_use_is_not_changed(bench, change: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    bench.files(a=b"1")
    backup = bench.create().backup["id"]
    path = bench.store / "format.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    before = bench.snapshot()
    places = ["--store", str(bench.store), "--backup-dir", str(bench.backups), "--json"]
    for words in (["list"], ["show", backup], ["create", "work", "--source", str(bench.source)], ["restore", backup, "--target", str(bench.target)],
                  ["delete", backup], ["prune", "work", "--keep", "1"], ["gc"], ["verify", "--content", "--repair"], ["diff", backup, backup]):  # fmt: skip
        assert cli.main([*words, *places]) == upkeep.UNSUPPORTED, words
        said = json.loads(capsys.readouterr().out)
        assert said["code"] == "unsupported" and "written by a newer version" in said["msg"] and "update volt.backup" in said["msg"]
    assert bench.snapshot() == before


def graft(bench, change: Callable[[Store, Transaction, records.Manifest], records.Manifest]) -> str:
    """Let the newest backup be one whose metadata a newer version wrote; its id."""
    backup = bench.found()[0]["id"]
    store = Store(str(bench.store), 5)
    side = json.loads((bench.backups / f"{backup}.json").read_bytes())
    manifest = records.decode_manifest(store.refs.read(side["manifest_ref"]))
    with Transaction(store) as run:
        changed = change(store, run, manifest)
        run.commit()
    data = records.encode_manifest(changed)
    store.refs.remove([side["manifest_ref"]])
    side["manifest_ref"], side["manifest_sha256"] = records.reference(backup, data)
    store.refs.write(side["manifest_ref"], data)
    (bench.backups / f"{backup}.json").write_text(json.dumps(side))
    return backup


def with_root(blob: bytes) -> Callable[[Store, Transaction, records.Manifest], records.Manifest]:
    return lambda _store, run, manifest: manifest._replace(root=manifest.root._replace(content=run.add_metadata(blob)))


def _file(kind: int = FILE, content: bytes = b"d" * 32, size: int = 1) -> bytes:
    return tree.encode([Entry(b"a", kind, 0o600, 0, 0, 0, 0, size, content)])


def _field() -> bytes:
    blob = bytearray(tree.encode([Entry(b"a", FILE, 0o600, 0, 0, 0, 0, 0, b"")]))
    extra = struct.pack("<IBI", 0, 9, 3) + b"new" + b"\0"
    struct.pack_into("<I", blob, 20, len(extra))
    return bytes(blob + extra)


def _kind() -> bytes:
    blob = tree.encode([Entry(b"a", tree.FIFO, 0o600, 0, 0, 0, 0, 0, b"")])
    return blob.replace(b"a\0p", b"a\0x")


def _chunk_list(_store: Store, run: Transaction, manifest: records.Manifest) -> records.Manifest:
    listed = run.add_metadata(b"VOLTCHN2" + chunks.encode(9 << 20, (), [])[8:])
    return with_root(_file(CHUNKED, listed, 9 << 20))(_store, run, manifest)


def _links(_store: Store, run: Transaction, manifest: records.Manifest) -> records.Manifest:
    table = b"VOLTLNK2" + links.encode([[b"a", b"b"]])[8:]
    return manifest._replace(links=run.add_metadata(table), links_size=len(table))


NEWER: dict[str, Callable[[Any], str]] = {
    "a tree's field": lambda bench: graft(bench, with_root(_field())),
    "a tree's kind": lambda bench: graft(bench, with_root(_kind())),
    "a tree's magic": lambda bench: graft(bench, with_root(b"VOLTTRE2" + _file()[8:])),
    "a list of parts": lambda bench: graft(bench, with_root(b"VOLTPAR2" + bytes(4))),
    "a list of chunks": lambda bench: graft(bench, _chunk_list),
    "a table of links": lambda bench: graft(bench, _links),
}


def _sidecar(bench) -> str:
    backup = bench.found()[0]["id"]
    path = bench.backups / f"{backup}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2, "id": [backup], "new": {}}))
    return backup


def _manifest(bench) -> str:
    backup = bench.found()[0]["id"]
    side = json.loads((bench.backups / f"{backup}.json").read_bytes())
    old = bench.store / "refs" / f"{side['manifest_ref']}.json"
    data = json.dumps({**json.loads(old.read_text()), "format": 2, "root": "elsewhere"}).encode()
    old.unlink()
    side["manifest_ref"], side["manifest_sha256"] = records.reference(backup, data)
    (bench.store / "refs" / f"{side['manifest_ref']}.json").write_bytes(data)
    (bench.backups / f"{backup}.json").write_text(json.dumps(side))
    return backup


def _pack(bench) -> str:
    """The newest backup's blobs are in a pack that this version cannot read."""
    import hashlib

    backup = bench.found()[0]["id"]
    newest = max((bench.store / "packs").rglob("*.pack*"), key=lambda path: path.stat().st_ctime_ns)
    store = Store(str(bench.store))
    store.index.load()
    name = bytes.fromhex(newest.name[:64])
    data = b"VOLTPAK2" + store.index.read_pack(name, newest.name[69:])[8:]
    digest = hashlib.sha256(data).hexdigest()
    (bench.store / "packs" / digest[:2]).mkdir(exist_ok=True)
    (bench.store / "packs" / digest[:2] / f"{digest}.pack").write_bytes(data)
    newest.unlink()
    assert pack.HEADER.size == 16
    return backup


NEWER.update({"a sidecar": _sidecar, "a manifest": _manifest, "a pack": _pack})


@pytest.mark.parametrize("what", NEWER)
def test_what_a_newer_version_wrote_is_reported_of_and_not_changed(bench, what: str) -> None:
    bench.files(a=b"first", keep=b"same")
    first = bench.create(compression="none").backup["id"]
    bench.files(a=b"second", more=b"more")
    bench.create(compression="none")
    newer = NEWER[what](bench)
    records_before = {path: path.read_bytes() for top in (bench.backups, bench.store / "refs") for path in top.iterdir()}

    found = {backup["id"]: backup for backup in bench.found()}
    assert found[newer]["unsupported"] and not found[newer]["damaged"] and "written by a newer version" in found[newer]["unsupported_reason"]
    assert set(found[newer]) == set(found[first])
    assert what == "a pack" or not found[first]["unsupported"] and not found[first]["damaged"]
    refusals = [lambda: bench.restore(newer), lambda: bench.manager.collect("0s")]
    if what.startswith("a tree"):
        refusals.append(lambda: bench.manager.diff(newer, first))
    if what != "a pack":
        refusals.append(lambda: bench.manager.delete(newer))
    for refused in refusals:
        with pytest.raises(Unsupported) as caught:
            refused()
        assert not any(word in caught.value.message for word in ("damage", "delete", "repair")), caught.value.message
    assert not bench.target.exists()
    done = bench.manager.verify(verify.VerifyRequest(level="content", repair=True))
    assert newer in done.unsupported and not done.damage_count and not done.changed
    assert isinstance(done.failure(), Unsupported)
    kept = bench.manager.prune("work", {"last": 1})
    assert {row["id"] for row in kept.kept} >= {newer} and newer not in {row["id"] for row in kept.removed}
    usage = bench.manager.usage()
    assert usage["unsupported"] and not usage["damaged"]
    if what != "a pack":
        assert bench.manager.restore(None, RestoreRequest(str(bench.target)), Query("work"))[0].restore["backup_id"] == first
    made = bench.manager.create(create.CreateRequest("work", str(bench.source)))
    assert made.changed and bench.manager.restore(made.backup["id"], RestoreRequest(str(bench.top / "new")))[0].changed
    assert {path: path.read_bytes() for path in records_before} == records_before


def test_a_store_keeps_its_owner_and_mode_when_it_gets_an_id(old: Host, capsys: pytest.CaptureFixture[str]) -> None:
    path = old.top / "cas" / "format.json"
    path.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65533)
    before = path.stat()
    (old.top / "source").mkdir()
    (old.top / "source" / "a").write_bytes(b"a")
    old.said(capsys, "create", "new", "--source", str(old.top / "source"))
    after = path.stat()
    assert json.loads(path.read_bytes())["id"]
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_keys_of_a_state_are_found_out_not_read(bench) -> None:
    bench.files(a=b"1")
    backup = bench.create().backup["id"]
    path = bench.backups / f"{backup}.json"
    lies = {"damaged": True, "damage": "x", "unsupported": True, "unsupported_reason": "x", "future": True}
    path.write_text(json.dumps({**json.loads(path.read_text()), **lies}))
    (found,) = bench.found()
    assert {key: found[key] for key in lies} == {"damaged": False, "damage": None, "unsupported": False, "unsupported_reason": None, "future": False}
    assert not bench.manager.usage()["unsupported"]
