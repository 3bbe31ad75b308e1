# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drills of the copies on a remote: they prove the copy, not the store."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import NotFound, VoltError
from ansible_collections.volt.backup.plugins.module_utils._proof import trial
from ansible_collections.volt.backup.plugins.module_utils._remote import packs, sealed as sealed_keys
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote, Settings, Which
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.plugins.module_utils._schedule import drill, history, job as jobs, metrics
from ansible_collections.volt.backup.plugins.module_utils._schedule.record import RunRecord
from ansible_collections.volt.backup.plugins.module_utils._schedule.survey import survey
from ansible_collections.volt.backup.plugins.plugin_utils.drill_report import drill_report
from ansible_collections.volt.backup.tests.rigs import need
from ansible_collections.volt.backup.tests.unit.kit import noise

from .test_drill import Ground
from .test_push import HOST, Place, Tapped, made


class Far(Ground):
    """A ground with a remote, and drills of the copies on it."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.bench)
        self.place, self.where = place, f"file://{place.top}"
        self.requests: list[tuple[str, str]] = []

    def far(
        self, *workloads: str, dry: bool = False, host: str | None = None, command: trial.Command | None = None, own: str | None = HOST
    ) -> list[drill.Drill]:
        """:param own: what this host is called there, as declared."""
        remote = Remote(self.bench.manager, Settings(self.where, own))
        remote.transport = Tapped(str(self.place.top))
        self.requests = remote.transport.requests
        copies = drill.Copies(remote, host)
        return drill.Driller(self.bench.manager, str(self.scratch), dry, str(self.jobs), str(self.records), command, copies)(workloads)

    def rotten(self) -> Path:
        """A pack of the remote with content, which has rotted."""
        path = max((self.place.top / "packs").rglob("*-*"), key=lambda path: path.stat().st_size)
        data = bytearray(path.read_bytes())
        data[-1000] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)
        return path


@pytest.fixture
def ground(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Far:
    need("zstd")
    monkeypatch.setattr(packs, "SIZE", 1 << 20)
    bench.files(small=b"hello\n", some__noise=noise(300_000), image=noise(3 << 20, 2))
    place = made(bench)
    place.create()
    place.push()
    return Far(place)


def test_the_copy_is_proved_and_that_is_recorded(ground: Far) -> None:
    ground.declare(remote="offsite")
    (done,) = ground.far()
    assert (done.workload, done.reason, done.remote, done.noted) == ("work", None, ground.where, True)
    assert {name for verb, name in ground.requests if verb == "get"} >= {f"packs/{HOST}/{path.parent.name}/{path.name}" for path in _packs(ground)}
    assert not ground.scratch.exists()
    row = ground.row()
    assert row["copy_proved_at"] is not None and row["copy_proved_at"] == row["last_proved"] and row["proved_id"] == done.backup_id
    ((one,),) = [found["drills"] for found in history.drills([jobs.load("work", str(ground.jobs))], str(ground.records))]
    assert one["remote"] == ground.where and one["reason"] is None
    (done,) = ground.drill()
    assert done.remote is None and ground.row()["copy_proved_at"] == row["copy_proved_at"] < ground.row()["last_proved"]


def _packs(ground: Far) -> list[Path]:
    return [path for path in (ground.place.top / "packs").rglob("*") if path.is_file()]


def test_nothing_comes_from_the_store(ground: Far) -> None:
    shutil.rmtree(ground.bench.store)
    (done,) = ground.far("work")
    assert done.reason is None and done.total_size > 3 << 20


def test_a_copy_that_rots_is_not_proved_although_the_store_is_whole(ground: Far) -> None:
    ground.declare(remote="offsite")
    ground.rotten()
    (done,) = ground.far()
    assert done.reason is not None and "altered" in done.reason and not done.noted and not ground.scratch.exists()
    assert ground.drill()[0].reason is None
    row = ground.row()
    assert row["state"] == "not proved" and f"from {ground.where} failed" in row["reason"], "a drill from the store does not hide it"
    ground.declare()
    assert ground.row()["state"] != "not proved", "the schedule does not use a remote any more"


def test_the_command_judges_the_copy(ground: Far) -> None:
    need(root=True)
    ground.declare(drill_command=["/usr/bin/test", "-s", "some/noise"])
    assert ground.far()[0].command == "passed"
    (done,) = ground.far(command=trial.Command(["/usr/bin/test", "-e", "missing"], 60))
    assert done.command == "failed" and done.reason is not None


def test_the_copies_of_another_host_are_not_recorded(ground: Far) -> None:
    ground.declare()
    (done,) = ground.far("lost", host=HOST)
    assert done.reason is not None and not RunRecord("lost", str(ground.records)).read()
    (done,) = ground.far("work", host="web2-00000000")
    assert done.reason is not None and "web2-00000000" in done.reason and not RunRecord("work", str(ground.records)).read()
    with pytest.raises(NotFound, match="no copies of host web2-00000000; it has those of " + HOST + "; set `host`"):
        ground.far(host="web2-00000000")


@pytest.mark.parametrize("rotten", [False, True])
def test_the_only_host_that_there_is_is_not_taken_for_this_one(ground: Far, rotten: bool) -> None:
    ground.declare(remote="offsite")
    for path in ground.bench.backups.glob("*.json"):  # this host's records have no copies
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "copies": [], "pushed_to_cdn": False}))
    if rotten:
        ground.rotten()
    for count, workloads in enumerate(([], ["work"]), 1):
        with pytest.raises(NotFound, match=f"; it has those of {HOST}; set `host`"):
            ground.far(*workloads, own=None)
        assert ground.row()["copy_proved_at"] is None and "no copies" in ground.row()["reason"]
        assert len(RunRecord("work", str(ground.records)).read()["drills"]) == count, "it should have copies there"
    remote = Remote(ground.bench.manager, Settings(ground.where))
    with pytest.raises(NotFound, match=f"; it has those of {HOST}; set `host`"):
        remote.verify(VerifyRequest())
    assert remote.verify(VerifyRequest(), HOST).host == HOST
    (done,) = ground.far("work", host=HOST, own=None)
    assert (done.host, done.noted, done.reason is None) == (HOST, False, not rotten)
    assert len(RunRecord("work", str(ground.records)).read()["drills"]) == 2


def test_a_host_is_known_by_its_records_as_well(ground: Far) -> None:
    ground.declare(remote="offsite")
    (done,) = ground.far(own=None)
    assert (done.host, done.noted, done.reason) == (HOST, True, None)
    assert ground.drill()[0].host is None


def test_an_earlier_name_does_not_stand_in_for_copies_that_are_lost(ground: Far) -> None:
    ground.declare(remote=ground.where)
    ground.bench.files(small=b"changed\n")
    ground.place.create()
    began = int(time.time())
    while int(time.time()) == began:  # names of pushes have seconds, and the newest is asked for
        time.sleep(0.02)
    ground.place.push(host="web1-new")
    assert [one.host for one in (*ground.far(own=None), *ground.far(own="web1-new"))] == ["web1-new", "web1-new"]
    shutil.rmtree(ground.place.top / "commits" / "web1-new")
    for count, own in ((3, None), (4, "web1-new")):
        with pytest.raises(NotFound, match=f"no copies of host web1-new; it has those of {HOST}"):
            ground.far(own=own)
        assert ground.row()["state"] == "not proved" and len(RunRecord("work", str(ground.records)).read()["drills"]) == count
    assert ground.far(host=HOST, own="web1-new")[0].noted, "it is asked for"
    assert ground.row()["copy_proved_at"] is not None


def _spoil(commit: Path) -> None:
    data = bytearray(commit.read_bytes())
    data[-5] ^= 1
    commit.chmod(0o600)
    commit.write_bytes(data)


@pytest.fixture
def second(ground: Far, tmp_path: Path) -> tuple[Far, Path]:
    """A ground with a second workload, and the commit of its copy."""
    ground.declare(remote=ground.where)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"x" * 1000)
    before = set(_commits(ground))
    ground.bench.manager.create(CreateRequest("second", str(tmp_path / "other")))
    ground.place.push()
    (commit,) = set(_commits(ground)) - before
    assert [(one.workload, one.reason) for one in ground.far()] == [("second", None), ("work", None)]
    return ground, commit


def _commits(ground: Far) -> list[Path]:
    return [path for path in (ground.place.top / "commits").rglob("*") if path.is_file()]


@pytest.mark.parametrize("lost", [False, True])
def test_a_workload_whose_copies_are_all_lost_is_not_left_out(second: tuple[Far, Path], lost: bool) -> None:
    ground, commit = second
    if lost:
        commit.unlink()
    else:
        _spoil(commit)
    done = ground.far()
    assert [(one.workload, one.reason is None) for one in done] == [("second", False), ("work", True)]
    assert drill.failure(done) is not None


def test_a_commit_of_an_unknown_workload_that_cannot_be_read_fails_the_drill(second: tuple[Far, Path], capsys: Any) -> None:
    ground, commit = second
    for path in ground.bench.backups.glob("second-*.json"):
        path.unlink()
    _spoil(commit)
    for own, host in ((HOST, None), (None, HOST)):
        done = ground.far(own=own, host=host)
        assert [(one.workload, one.reason is None) for one in done] == [("work", True), (None, False)]
        failure = drill.failure(done)
        assert failure is not None and f"1 commit(s) of host {HOST}" in failure.message and commit.name in failure.message
    assert [one.reason for one in ground.far("work")] == [None]
    at = ["--store", str(ground.bench.store), "--backup-dir", str(ground.bench.backups), "--scratch", str(ground.scratch)]
    assert cli.main(["drill", *at, "--remote", ground.where, "--host", HOST]) == 1
    assert "cannot be read" in capsys.readouterr().out


def test_a_schedule_that_has_copied_is_not_left_out_without_records(second: tuple[Far, Path]) -> None:
    ground, commit = second
    RunRecord("work", str(ground.records)).succeed({"backup_id": "x"}, "")
    for path in (*ground.bench.backups.glob("work-*.json"), *(path for path in _commits(ground) if path != commit)):
        path.unlink()
    assert [(one.workload, one.reason is None) for one in ground.far()] == [("second", True), ("work", False)]
    assert "not proved" in [trouble.state for trouble in ground.row()["troubles"]]


@pytest.mark.parametrize("harm", ["unreadable", "empty", "away"])
def test_copies_that_cannot_even_be_listed_are_not_proved(ground: Far, harm: str) -> None:
    ground.declare(remote=ground.where)
    assert ground.far()[0].reason is None and ground.row()["state"] != "not proved"
    if harm == "unreadable":
        _spoil(*_commits(ground))
        assert drill.failure(ground.far()) is not None
    else:
        if harm == "empty":
            shutil.rmtree(ground.place.top / "commits" / HOST)
        else:
            ground.place.top.rename(ground.place.top.with_name("away"))
        with pytest.raises(VoltError):
            ground.far(dry=True)
        assert ground.row()["state"] != "not proved"
        with pytest.raises(VoltError):
            ground.far()
    row = ground.row()
    assert row["state"] == "not proved" and f"from {ground.where} failed" in row["reason"]
    ground.declare(remote="file:///mnt/another")
    ground.drill()
    with pytest.raises(VoltError) if harm != "unreadable" else contextlib.nullcontext():
        ground.far(host="web2-00000000" if harm == "empty" else None)
    assert len(RunRecord("work", str(ground.records)).read()["drills"]) == (4 if harm == "unreadable" else 3)


def test_a_sealed_copy_of_this_host_is_recorded_good_or_bad(ground: Far, tmp_path: Path) -> None:
    need("age")
    top = tmp_path / "sealed"
    ground.declare(remote=f"file://{top}")
    recovery = sealed_keys.new_recovery()
    (tmp_path / "keys").write_text(recovery.of_host("web1").text())
    top.mkdir()
    remote = Remote(ground.bench.manager, Settings(f"file://{top}", keys=str(tmp_path / "keys")))
    remote.begin()
    remote.push(Which())
    for count, lost in ((1, False), (2, True), (3, True)):
        copies = drill.Copies(Remote(ground.bench.manager, Settings(f"file://{top}"), recovery), None if count == 3 else "web1")
        if count == 2:
            max((path for path in (top / "packs").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size).unlink()
        (done,) = drill.Driller(ground.bench.manager, str(ground.scratch), False, str(ground.jobs), str(ground.records), None, copies)(["work"])
        assert (done.host, done.reason is None) == ("web1", not lost)
        assert len(RunRecord("work", str(ground.records)).read()["drills"]) == count
        assert (ground.row()["state"] == "not proved") is lost


@pytest.mark.parametrize("remote", ["offsite", "s3://offsite?endpoint=https://s3.example"])
def test_a_failed_drill_of_a_remote_is_hidden_by_none_of_another_place(ground: Far, remote: str) -> None:
    """:param remote: of the schedule: one that is not declared here may be any."""
    where = "s3://offsite?endpoint=https://s3.example"
    ground.declare(remote=remote)
    record, good = RunRecord("work", str(ground.records)), {"backup_id": "x", "reason": None, "remote": None}
    assert "drill_failed{" not in _metrics(ground)
    record.drilled({**good, "reason": "lost", "remote": where})
    for drilled in [{**good, "remote": "file:///mnt/usb"}, *[good] * 75]:
        record.drilled(drilled)
        if drilled is good and len(record.read()["drills"]) not in (3, 72):
            continue
        assert [trouble.state for trouble in ground.row()["troubles"]].count("not proved") == 1
        assert f"from {where} failed: lost" in ground.row()["reason"] and 'drill_failed{workload="work"} 1' in _metrics(ground)
        (row,) = history.drills([jobs.load("work", str(ground.jobs))], str(ground.records))
        told = drill_report({"web1": {"schedules": [{"workload": "work"}], "drills": [row]}}, 30)["json"]["rows"][0]
        assert told["state"] == "failed" and "lost" in told["reason"]
    assert [one["remote"] for one in record.read()["drills"]].count(None) == 70 == len(record.read()["drills"]) - 2
    record.drilled({**good, "remote": "s3://offsite/?endpoint=https://s3.example/"})
    assert not [one for one in ground.row()["troubles"] if one.state == "not proved"] and 'drill_failed{workload="work"} 0' in _metrics(ground)


def test_a_failed_drill_of_a_remote_that_is_not_used_counts_while_it_is_the_last(ground: Far) -> None:
    ground.declare(remote="s3://offsite")
    record, good = RunRecord("work", str(ground.records)), {"backup_id": "x", "reason": None, "remote": None}
    record.drilled({**good, "reason": "lost", "remote": "file:///mnt/usb"})
    assert ground.row()["state"] == "not proved" and 'drill_failed{workload="work"} 1' in _metrics(ground)
    record.drilled({**good, "remote": "s3://offsite"})
    assert ground.row()["state"] != "not proved" and 'drill_failed{workload="work"} 0' in _metrics(ground)


def test_the_record_of_drills_is_bounded(ground: Far) -> None:
    record = RunRecord("work", str(ground.records))
    for number in range(100):
        record.drilled({"backup_id": "x", "reason": None, "remote": f"file:///mnt/{number}"})
    for _number in range(70):
        record.drilled({"backup_id": "x", "reason": None, "remote": None})
    assert [one["remote"] for one in record.read()["drills"]] == [*(f"file:///mnt/{number}" for number in range(80, 100)), *[None] * 70]


def _metrics(ground: Far) -> str:
    return metrics.text(
        survey(str(ground.jobs), str(ground.records), str(ground.bench.top / "units"), str(ground.bench.top / "no-command")), str(ground.records)
    )


def test_check_mode_fetches_no_content(ground: Far) -> None:
    (done,) = ground.far(dry=True)
    assert done.reason is None and not done.noted and not ground.scratch.exists()
    assert len([name for verb, name in ground.requests if verb == "get" and name.startswith("packs/")]) < len(_packs(ground))


def test_the_command_on_a_sealed_remote(ground: Far, tmp_path: Path, capsys: Any) -> None:
    need("age")
    recovery = sealed_keys.new_recovery()
    (tmp_path / "keys").write_text(recovery.of_host("web1").text())
    sealed_keys.write(str(tmp_path / "recovery"), recovery.text())
    top = tmp_path / "sealed"
    top.mkdir()
    remote = Remote(ground.bench.manager, Settings(f"file://{top}", keys=str(tmp_path / "keys")))
    remote.begin()
    remote.push(Which())
    at = ["--store", str(ground.bench.store), "--backup-dir", str(ground.bench.backups)]
    words = ["drill", "work", *at, "--scratch", str(ground.scratch), "--remote", f"file://{top}", "--host", "web1"]
    assert cli.main([*words, "--identity", str(tmp_path / "recovery")]) == 0
    assert "copy proved" in capsys.readouterr().out
    assert cli.main(words) != 0 and not os.path.lexists(ground.scratch)
    assert cli.main(["drill", "work", *at, "--host", "web1"]) == 2
