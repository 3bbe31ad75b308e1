# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a host is never green over trouble: backups that are damaged or gone, units that failed, a store or records that are away."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import catalog, create as creation, host as host_file
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import VoltError
from ansible_collections.volt.backup.plugins.module_utils._runner import cli, upkeep as upkeep_words
from ansible_collections.volt.backup.plugins.module_utils._schedule import ledger, metrics, public, status, survey, systemd, upkeep, watch
from ansible_collections.volt.backup.plugins.module_utils._schedule.declare import HostWide
from ansible_collections.volt.backup.plugins.module_utils._schedule.held import Problem, Trouble
from ansible_collections.volt.backup.tests.unit._schedule.host import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """One without systemd, with a source that has content."""
    monkeypatch.setattr(status.systemd, "running", lambda: False)
    monkeypatch.setattr(host_file, "PATH", str(tmp_path / "backup.json"))
    made = Host(tmp_path)
    for number in range(3):
        (made.source / f"{number}").write_bytes(os.urandom(300_000))
    return made


def create(host: Host, workload: str = "app", kind: str = "manual") -> str:
    """Make a backup without a run; its id."""
    job = host.job(workload)
    return str(job.manager.create(CreateRequest(workload=workload, source=str(host.source), type=kind)).backup["id"])


def run(host: Host, workload: str = "app") -> str:
    """What a run does: a backup, and a note of it."""
    host.record(workload).begin()
    backup = create(host, workload, "scheduled")
    host.record(workload).succeed({"backup_id": backup}, "")
    return backup


def look(host: Host) -> survey.Survey:
    return host.survey(believe=False)


def row(host: Host, workload: str = "app") -> dict[str, Any]:
    return next(one for one in look(host).schedules if one["workload"] == workload)


def test_backups_of_a_schedule_without_a_source(host: Host) -> None:
    """They have none either; those of a directory are others."""
    job = host.job(source=None, command=["/bin/echo", "x"])
    host.declare(job)
    create(host)
    assert row(host)["newest_id"] is None and "1 backup(s) of that name belong to another host or source" in str(row(host)["reason"])
    made = job.manager.create(CreateRequest("app", None, command=["/bin/echo", "x"])).backup["id"]
    assert row(host)["newest_id"] == made and row(host)["state"] not in status.TROUBLE
    host.declare(host.job())
    assert row(host)["newest_id"] != made


def age(host: Host, seconds: float, workload: str = "app") -> None:
    """Let a schedule be declared so long ago."""
    path = Path(host.places.records) / f"{workload}.json"
    note = json.loads(path.read_text())
    path.write_text(json.dumps({**note, "since": note["since"] - seconds}))


def test_damaged_backups_are_trouble(host: Host) -> None:
    """Once verify has found flipped bits, and by their presence alone what is gone, with and without a schedule."""
    host.declare(host.job())
    run(host), create(host, "hand")
    assert look(host).trouble == []
    for path in (host.top / "cas/objects").rglob("*"):
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.chmod(0o600)
            path.write_bytes(data)
    host.job().manager.verify(VerifyRequest(level="content"))
    found = look(host)
    assert found.trouble == ["app", "hand"]
    assert found.schedules[0]["state"] == "damaged" and "1 of 1 backup(s) are damaged" in found.schedules[0]["reason"]
    assert [(one["workload"], one["state"], one["damaged_count"]) for one in found.unscheduled] == [("hand", "damaged", 1)]
    text = metrics.text(found, host.places.records)
    assert 'volt_backup_damaged{workload="app"} 1' in text and 'volt_backup_trouble{workload="app"} 1' in text


def test_a_store_that_is_named_is_looked_at(host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a bare host, and beside the schedules of one that has some; one that is not there has its exit status."""
    backup = create(host)
    for path in (host.top / "cas/objects").rglob("*"):
        if path.is_file():
            path.unlink()

    def status_of(*words: str) -> tuple[int, str]:
        return cli.main(["status", "--check", *words]), capsys.readouterr().out

    monkeypatch.setattr(survey.status.jobs, "DIRECTORY", str(host.top / "jobs"))
    monkeypatch.setattr(survey.survey, "__defaults__", (host.places.jobs, host.places.records, host.places.units, host.places.command, (), (), None))
    monkeypatch.setattr(public, "is_needed", lambda: False)
    there = ["--store", str(host.top / "cas"), "--backup-dir", str(host.top / "backups")]
    assert status_of(*there)[0] == 1 and backup in status_of(*there)[1]
    assert status_of("--store", str(host.top / "none"), "--backup-dir", str(host.top / "none"))[0] == upkeep_words.NO_STORE
    host.declare(host.job()._replace(store=str(host.top / "own"), backup_dir=str(host.top / "own-backups")), host.job("db")._replace(
        store=str(host.top / "own"), backup_dir=str(host.top / "own-backups")))  # fmt: skip
    assert "STORE MISSING" in status_of("--store", str(host.top / "none"), "--backup-dir", str(host.top / "none"))[1]
    away = ["--store", str(host.top / "own"), "--backup-dir", str(host.top / "own-backups")]
    assert status_of(*away)[0] == 0
    (host.top / "own").rename(host.top / "away")
    assert status_of(*away)[0] == 1 and "STORE MISSING" in status_of(*away)[1]
    (host.top / "away").rename(host.top / "own")
    assert cli.main(["status"]) == 0 and "no schedule starts" in capsys.readouterr().err  # systemd does not run it
    assert status_of()[0] == 0 and status_of(*there)[0] == 1 and backup in status_of(*there)[1] and "db" in status_of(*there)[1]


def test_backups_by_hand_count(host: Host) -> None:
    """A backup that was due and was made by hand is not overdue; workloads without a schedule are shown with the age of their newest backup."""
    host.declare(host.job(interval="1h", randomized_delay="0s"))
    age(host, 86400)
    assert row(host)["state"] == "overdue"
    backup = create(host)
    told = row(host)
    assert (told["state"], told["overdue"], told["newest_id"], told["newest_type"], told["backup_count"]) == ("ok", False, backup, "manual", 1)
    assert 0 <= told["newest_age"] < 60 and told["newest_at"] and told["last_success"] is None
    create(host, "other")
    (other,) = look(host).unscheduled
    assert (other["workload"], other["state"], other["backup_count"]) == ("other", "no schedule", 1) and look(host).trouble == []


@pytest.mark.parametrize("whose", ["host id", "host", "source", "directory"])
def test_backups_of_others_under_the_same_name_do_not_count(host: Host, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    """Of another host, by its id or without one by its name; of another source; in another backup directory."""
    host.declare(host.job(interval="1h", randomized_delay="0s"))
    age(host, 86400)
    with monkeypatch.context() as patch:
        if whose == "host id":
            patch.setattr(host_file, "machine_id", lambda: "0" * 32)
        elif whose == "host":
            patch.setattr(host_file, "machine_id", lambda: None)
            patch.setattr(creation.host, "name", lambda: "elsewhere")
        job = host.job()._replace(backup_dir=str(host.top / "others")) if whose == "directory" else host.job()
        source = host.top / "else" if whose == "source" else host.source
        source.mkdir(exist_ok=True)
        (source / "f").write_text("f")
        job.manager.create(CreateRequest(workload="app", source=str(source)))
    told = row(host)
    assert (told["state"], told["newest_id"]) == ("overdue", None)
    if whose == "directory":
        return
    assert "1 backup(s) of that name belong to another host or source" in told["reason"] and told["backup_count"] == 1
    assert [one["newest_timestamp"] for one in look(host).workloads] == [None]
    own = create(host)
    assert (row(host)["state"], row(host)["newest_id"]) == ("ok", own)


def test_a_source_by_a_link_that_leads_elsewhere_now_is_the_same(host: Host) -> None:
    link = host.top / "current"
    link.symlink_to(host.source)
    host.declare(host.job(source=str(link)))
    backup = str(host.job().manager.create(CreateRequest(workload="app", source=str(link))).backup["id"])
    (host.top / "next").mkdir()
    link.unlink()
    link.symlink_to(host.top / "next")
    assert row(host)["newest_id"] == backup


def test_a_success_without_its_backup_does_not_count(host: Host) -> None:
    host.declare(host.job())
    backup = run(host)
    assert row(host)["state"] == "ok"
    host.job().manager.delete(backup)
    time.sleep(0.01)
    assert row(host)["state"] == "overdue" and "No good backup of" in row(host)["reason"]
    kept = create(host)
    assert row(host)["state"] == "ok" and row(host)["newest_id"] == kept


def test_missing_store_and_records_are_trouble(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.declare(host.job())
    run(host)
    (host.top / "records/app.json").rename(host.top / "away.json")
    assert row(host)["state"] == "records missing"
    (host.top / "away.json").rename(host.top / "records/app.json")
    (host.top / "cas").rename(host.top / "cas.away")
    found = look(host)
    assert found.schedules[0]["state"] == "store missing" and found.trouble == ["app"]  # told once
    host.declare(host.job(enabled=False))
    assert look(host).trouble == ["store"] and look(host).problems[0].state == "store missing"
    (host.top / "cas.away").rename(host.top / "cas")
    assert look(host).trouble == []
    backups = list((host.top / "backups").glob("[!.]*.json"))
    for path in backups:
        path.unlink()
    monkeypatch.setattr(catalog, "_SETTLED", -1.0)
    assert [(problem.what, problem.state) for problem in look(host).problems] == [("records", "records missing")]
    shutil.rmtree(host.top / "backups")
    assert look(host).problems[0].state == "store missing"


def test_metrics_that_cannot_be_written_are_trouble(host: Host) -> None:
    (host.top / "prom").mkdir()
    host.declare(host.job()._replace(metrics=str(host.top / "prom/volt.prom")))
    assert look(host).trouble == []
    shutil.rmtree(host.top / "prom")
    (problem,) = look(host).problems
    assert problem.what == "metrics" and "cannot be written" in problem.reason
    complaints = public.bring_up(lambda _ended: look(host), host.places.records, host.places.public)
    assert len(complaints) == 1 and "cannot be written" in complaints[0]
    assert look(host).trouble == ["metrics"]


def test_whether_metrics_can_be_written_is_known_by_who_writes_them(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who looks may be a service that has not the rights: that is no trouble, and what failed for the other is."""
    prom = host.top / "prom"
    prom.mkdir()
    host.declare(host.job()._replace(metrics=str(prom / "volt.prom")))

    def bring_up(hardened: bool = False) -> list[str]:
        return public.bring_up(lambda _ended: look(host), host.places.records, host.places.public, hardened)

    def fail(_content: str, path: str) -> None:
        raise VoltError(f"{path} cannot be written: no space left on device.")

    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    assert look(host).trouble == []
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "write", fail)
        assert bring_up(hardened=True) == [] and look(host).trouble == []
        assert len(bring_up()) == 1 and look(host).trouble == ["metrics"] and public.read(host.places.public)["trouble"] == ["metrics"]
    assert bring_up() == [] and look(host).trouble == [] and public.read(host.places.public)["trouble"] == []
    assert "host_trouble{" not in (prom / "volt.prom").read_text()


FINE = {"ActiveState": "active", "SubState": "waiting", "Result": "success", "UnitFileState": "enabled"}
DONE = {"ActiveState": "inactive", "SubState": "dead", "Result": "success", "InvocationID": "x"}


@pytest.mark.parametrize(
    "unit, fields, state, says",
    [
        ("volt-cas-verify.service", {**DONE, "ActiveState": "failed", "Result": "exit-code"}, "failed", "(exit-code): It is damaged; see journalctl"),
        ("volt-cas-verify.service", {**DONE, "ActiveState": "deactivating", "Result": "exit-code"}, "failed", "(exit-code)"),
        ("volt-cas-gc.timer", {**FINE, "ActiveState": "inactive"}, "stopped", "is not active"),
        ("volt-cas-gc.timer", {**FINE, "UnitFileState": "disabled"}, "stopped", "does not start with the host"),
        ("volt-cas-gc.timer", {**FINE, "SubState": "elapsed"}, "stopped", "no future time"),
        ("volt-cas-gc.timer", {**FINE, "LoadState": "masked"}, "stopped", "is masked"),
        ("volt-cas-gc.service", {**DONE, "LoadState": "masked"}, "stopped", "is masked"),
        ("volt-cas-gc.service", {**DONE, "LoadState": "bad-setting"}, "stopped", "systemd cannot read volt-cas-gc.service"),
        ("volt-cas-failure@volt-backup-app.service", {**DONE, "ActiveState": "failed"}, "failed", "The notification that volt-backup-app failed"),
    ],
)
def test_units_of_the_host_are_looked_at(host: Host, monkeypatch: pytest.MonkeyPatch, unit: str, fields: dict[str, str], state: str, says: str) -> None:
    names = [f"volt-cas-{name}.{kind}" for name in ("gc", "verify") for kind in ("service", "timer")]
    host.declare(host.job(), wide=HostWide(dict.fromkeys(names, "[Service]\nExecStart=/bin/true"), {}))
    monkeypatch.setattr(upkeep.systemd, "running", lambda: True)
    monkeypatch.setattr(systemd, "last_words", lambda _invocation: "It is damaged.")
    shown = {name: FINE if name.endswith(".timer") else DONE for name in names}
    monkeypatch.setattr(systemd, "show", lambda asked, *_properties: {name: found for name, found in shown.items() if asked})
    notes = ledger.Ledger(host.places.records).read()
    assert upkeep.problems(notes, host.places.units) == []
    shown[unit] = fields
    (problem,) = upkeep.problems(notes, host.places.units)
    assert (problem.what, problem.state) == (unit, state) and says in problem.reason


UNITS = ("volt-cas-gc.service", "volt-cas-gc.timer", "volt-cas-status.timer", "volt-cas-failure@.service", "volt-backup.slice")


@pytest.mark.parametrize("unit", UNITS)
def test_units_that_somebody_took_away_are_missed(host: Host, monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
    """Removed, masked, or replaced: each is told. What a later declaration takes away is not missed."""
    monkeypatch.setattr(systemd, "show", lambda asked, *_properties: {name: FINE if name.endswith(".timer") else DONE for name in asked})
    host.declare(host.job(), wide=HostWide(dict.fromkeys(UNITS, "[Service]\nExecStart=/bin/true"), {}))
    host.declare(host.job("db"))  # leaves them as they are

    def found() -> list[str]:
        notes = ledger.Ledger(host.places.records).read()
        with monkeypatch.context() as patch:
            patch.setattr(upkeep.systemd, "running", lambda: True)
            return [f"{problem.state}: {problem.reason}" for problem in upkeep.problems(notes, host.places.units)]

    assert found() == []
    path = Path(host.places.units) / unit
    for make, says in ((lambda: None, "is missing"), (lambda: path.symlink_to("/dev/null"), "is masked"), (lambda: path.write_text("[Unit]"), "was replaced")):
        path.unlink(missing_ok=True)
        make()
        (told,) = found()
        assert told.startswith(f"stopped: {unit} {says}")
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(upkeep.systemd, "running", lambda: True)
        host.declare(host.job(), wide=HostWide({}, {}))
    assert found() == [] and public.read(host.places.public)["problems"] == []


@pytest.mark.parametrize("kind, state, says", [("timer", "masked", "masked"), ("service", "masked", "masked"), ("service", "not-found", "is missing")])
def test_units_of_a_schedule_that_cannot_start_are_reported(host: Host, monkeypatch: pytest.MonkeyPatch, kind: str, state: str, says: str) -> None:
    """Beside what else is wrong: one trouble hides no other."""
    host.declare(host.job())
    host.record().fail(VoltError("It broke."), "")
    shown = {"timer": {**FINE, "LoadState": "loaded"}, "service": {**DONE, "LoadState": "loaded"}}
    monkeypatch.setattr(systemd, "running", lambda: True)
    monkeypatch.setattr(systemd, "show", lambda asked, *_properties: {name: shown[name.rpartition(".")[2]] for name in asked if "app" in name})
    assert [trouble.state for trouble in row(host)["troubles"]] == ["failed"]
    shown[kind]["LoadState"] = state
    told = row(host)
    assert [trouble.state for trouble in told["troubles"]] == ["failed", "stopped"] and says in told["reason"] and told["state"] == "failed"


def test_how_a_unit_ended_outlives_a_restart_of_the_host(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    units = ("volt-cas-gc.service", "volt-cas-verify.service")
    host.declare(host.job(), wide=HostWide(dict.fromkeys(units, "[Service]\nExecStart=/bin/true"), {}))
    monkeypatch.setattr(systemd, "show", lambda asked, *_properties: {name: {**DONE, "InvocationID": ""} for name in asked})
    monkeypatch.setattr(systemd, "last_words", lambda invocation: f"volt-backup: It broke in {invocation}.")
    monkeypatch.setattr(systemd, "attempt", lambda *_words: None)
    book = ledger.Ledger(host.places.records)

    def end(result: str) -> list[Problem]:
        monkeypatch.setenv("SERVICE_RESULT", result)
        monkeypatch.setenv("INVOCATION_ID", "one")
        upkeep.note_ended("volt-cas-verify.service", host.places.records)
        with monkeypatch.context() as patch:
            patch.setattr(upkeep.systemd, "running", lambda: True)
            return upkeep.problems(book.read(), host.places.units)

    (problem,) = end("exit-code")
    assert (problem.what, problem.state, problem.parts) == ("volt-cas-verify.service", "failed", ["one"])
    assert problem.reason.startswith("volt-cas-verify.service failed (exit-code): It broke in one; ")
    assert end("success") == []


def test_others_learn_how_it_fares_and_nothing_else(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """No path, no source, no reason; a file that is missing, stale or of the future is trouble."""
    path = Path(host.places.public)
    assert public.read(str(path))["trouble"] == ["status.json"]
    host.declare(host.job(), host.job("db"))
    host.record().fail(VoltError(f"It broke at {host.source}/secret."), "")
    assert public.bring_up(lambda _ended: look(host)._replace(problems=[Problem("store", "store missing", "at /x/y")]), host.places.records, str(path)) == []
    assert path.stat().st_mode & 0o7777 == 0o640 and path.parent.stat().st_mode & 0o7777 == 0o2750
    assert "/" not in path.read_text() and "secret" not in path.read_text()
    told = public.read(str(path))
    assert told["trouble"] == ["app", "store"] and [one["state"] for one in told["schedules"]] == ["failed", "waiting"]
    written = json.loads(path.read_text())
    assert 0 < written["deadline"] - time.time() < 7 * 3600
    for change in ({"deadline": time.time() - 1}, {"written": time.time() + 3600}):
        path.write_text(json.dumps({**written, **change}))
        assert public.read(str(path))["trouble"][-1] == "status.json" and "stale" in public.read(str(path))["problems"][-1]["reason"]
        assert "was written at 20" in public.read(str(path))["problems"][-1]["reason"]
    for text in ("{", "[]", "3", '{"format": 1}'):
        path.write_text(text)
        with pytest.raises(VoltError, match="is damaged"):
            public.read(str(path))
    host.declare(purge=True)
    assert not path.parent.exists()
    assert host.job().manager.find(Query()) == []


def test_what_others_learn_always_has_an_end(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no time is known: schedules that are off, calendars that nothing tells. Where a unit looks every hour, it is two hours."""
    host.declare(host.job(enabled=False), host.job("db", interval=None, on_calendar="Mon 03:00", enabled=False))
    told = public.read(host.places.public)
    assert 24 * 3600 < told["holds_until"] - time.time() < 26 * 3600 and abs(told["written_at"] - time.time()) < 60
    host.declare(host.job(interval="7d"))
    assert public.read(host.places.public)["holds_until"] - time.time() < 8 * 86400
    monkeypatch.setattr(upkeep, "is_watched", lambda _directory: True)
    public.bring_up(lambda _ended: look(host), host.places.records, host.places.public)
    assert 3600 < public.read(host.places.public)["holds_until"] - time.time() <= 7200


def test_a_status_that_cannot_be_updated_is_removed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /run is full: a reader finds nothing, and that is trouble."""
    host.declare(host.job())
    assert public.read(host.places.public)["trouble"] == []

    def full(*_arguments: Any, **_more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def serves_who_waits() -> bool:
        with open(Path(host.places.public).with_name(public.LOCK), "rb") as lock:
            return public._last_look(lock.fileno()).serves(public._Look(0, False, frozenset()))

    assert serves_who_waits()
    with monkeypatch.context() as patch:
        patch.setattr(public.files, "write_file", full)
        (against,) = public.bring_up(lambda _ended: look(host), host.places.records, host.places.public)
    assert "no space left" in against and public.read(host.places.public)["trouble"] == ["status.json"]
    assert not serves_who_waits()


def new(host: Host, *problems: Problem, arrives: bool = True) -> str | None:
    """What is told of now, in two words.

    :param arrives: whether the people get it.
    """
    told = watch.new_trouble(look(host)._replace(problems=list(problems)), host.places.records)
    if told is not None and arrives:
        watch.note_told("volt-cas-status", None, "", host.places.records)
    return None if told is None else told.message


def test_a_new_problem_is_notified_once(host: Host) -> None:
    """What ends and comes again is told again; what did not arrive is told again; one trouble hides no other."""
    host.declare(host.job(), host.job("db"))
    host.record().fail(VoltError("It broke."), "")
    watch.note_told("volt-backup-app", "app", "x", host.places.records)
    assert new(host) is None
    host.source.rename(host.top / "away")
    for arrives in (False, True):
        told = new(host, arrives=arrives)
        assert told is not None and told.startswith("app is source missing: ") and told.endswith("Also: db is source missing.")
    assert new(host) is None
    timer, gone = Problem("volt-cas-gc.timer", "stopped", "It is not active."), Problem("records", "records missing", "2 are gone.", ["a", "b"])
    assert new(host, timer) == "volt-cas-gc.timer is stopped: It is not active."
    (host.top / "away").rename(host.source)
    assert new(host, gone) == "records is records missing: 2 are gone."
    assert new(host, gone._replace(parts=["b"])) is None and new(host, gone._replace(parts=["b", "c"])) is not None
    host.source.rename(host.top / "away")
    told = new(host, timer)
    assert told is not None and "db is source missing, volt-cas-gc.timer is stopped." in told
    host.declare(purge=True)
    assert not (Path(host.places.records) / ".host.json").exists()


def test_failures_are_notified_unless_their_unit_did(host: Host) -> None:
    """A run that power ended tells nothing; a unit whose notifier failed told nothing."""
    host.declare(host.job())
    host.record().begin("one")
    told = new(host)
    assert told is not None and "app is failed: It was stopped before it could record a reason." in told and new(host) is None
    host.record().begin("two")  # which finds that the one before it failed
    host.record().fail(VoltError("It broke."), "two")
    watch.note_told("volt-backup-app", "app", "two", host.places.records)
    assert new(host) is None
    time.sleep(0.01)
    host.record().fail(VoltError("It broke again."), "three")
    assert new(host) == "app is failed: It broke again."
    failed = Problem("volt-cas-gc.service", "failed", "It failed.", ["one"])
    watch.note_told("volt-cas-gc", None, "one", host.places.records)
    assert new(host, failed) is None and new(host, failed._replace(parts=["two"])) is not None


def test_more_damage_is_notified_even_if_a_run_failed(host: Host) -> None:
    host.declare(host.job())
    host.record().fail(VoltError("It broke."), "")
    watch.note_told("volt-backup-app", "app", "", host.places.records)
    there = look(host)
    for ids, tells in ((["a"], True), (["a"], False), ([*"abcdefghi"], True), (["a", "i"], False), (["a", "j"], True)):
        failed = there.schedules[0]["troubles"]
        row = {**there.schedules[0], "troubles": [*failed, Trouble("damaged", f"{len(ids)} are.", ids)]}
        told = watch.new_trouble(there._replace(schedules=[row]), host.places.records)
        assert (told is not None) == tells and (told is None or told.message == f"app is damaged: {len(ids)} are."), ids
        watch.note_told("volt-cas-status", None, "", host.places.records)


def test_suspect_backups_are_counted_until_a_good_one_comes(host: Host) -> None:
    """Of a schedule and by hand; one that was accepted is good."""
    for number in range(200):
        (host.source / f"n{number}").write_text(str(number))
    host.declare(host.job())
    create(host), create(host)
    assert [one["suspect_count"] for one in look(host).workloads] == [0]
    host.source.rename(host.top / "kept")
    host.source.mkdir()
    (host.source / "0").write_text("x")
    first, second = create(host), create(host)
    found = look(host)
    assert [one["suspect_count"] for one in found.workloads] == [2] and 'volt_backup_suspect{workload="app"} 2' in metrics.text(found, host.places.records)
    manager = host.job().manager
    manager.accept(second)
    assert [one["suspect_count"] for one in look(host).workloads] == [0]
    assert manager.find(Query(id=first))[0]["suspect"]


def test_locks_of_runs_go_with_the_last_schedule(host: Host) -> None:
    """But not one that a run holds: a second run would not wait for it."""
    directory = Path(host.places.public).parent
    directory.mkdir(exist_ok=True)
    there = look(host)._replace(schedules=[], problems=[])
    for name in ("quiesce.lock", "lvm.lock"):
        (directory / name).write_text("")
    with open(directory / "quiesce.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        public.write(there, host.places.public)
        assert os.listdir(directory) == ["quiesce.lock"]
    public.write(there, host.places.public)
    assert not directory.exists()


@pytest.mark.parametrize("measured", [True, False])
def test_one_look_serves_all_runs_that_wait(host: Host, measured: bool) -> None:
    """Twenty runs end while one looks: one more look takes in all of them, and each is shown as ended. One that died at its last line is not.

    Each run tells that the metrics cannot be written. The status says so too, so the first run looks twice.
    """
    (host.top / "prom").mkdir()
    host.declare(host.job()._replace(metrics=str(host.top / "prom/volt.prom")))
    if not measured:
        shutil.rmtree(host.top / "prom")
    Path(host.places.public).with_name("dead.ended").touch()
    looks: list[frozenset[str]] = []
    told: list[list[str]] = []
    first, go = threading.Event(), threading.Event()

    def slowly(ended: AbstractSet[str]) -> survey.Survey:
        looks.append(frozenset(ended))
        first.set()
        assert go.wait(30)
        return look(host)

    def end(*ended: str) -> None:
        told.append(public.bring_up(slowly, host.places.records, host.places.public, ended=set(ended)))

    begun = threading.Thread(target=end)
    begun.start()
    assert first.wait(30)
    others = [threading.Thread(target=end, args=(f"w{number}",)) for number in range(20)]
    for thread in others:
        thread.start()
    room = Path(host.places.public).parent
    until = time.monotonic() + 30
    while len(list(room.glob("*.ended"))) < 20:
        assert time.monotonic() < until
    time.sleep(0.2)  # the last of them has said so, and now waits
    go.set()
    for thread in [begun, *others]:
        thread.join()
    assert looks[0] == frozenset() and looks[-1] == {f"w{number}" for number in range(20)}
    assert len(looks) == 2 + (not measured) and not list(room.glob("*.ended"))
    assert len(told) == 21 and all(len(against) == (not measured) for against in told)


def test_a_unit_that_is_about_to_end_does_not_run(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends a little later than its last line. A run that looks then may be the last to look for a long time. A later run of the unit does run."""
    host.declare(host.job())
    run(host)
    service = {"ActiveState": "deactivating", "LoadState": "loaded", "InvocationID": "a" * 32}
    monkeypatch.setattr(status.systemd, "running", lambda: True)
    monkeypatch.setattr(systemd, "show", lambda asked, *_properties: {name: service if name.endswith("app.service") else FINE for name in asked})

    def bring_up(**more: Any) -> str:
        def look_now(ended: AbstractSet[str]) -> survey.Survey:
            return survey.survey(host.places.jobs, host.places.records, host.places.units, host.places.command, ended)

        assert public.bring_up(look_now, host.places.records, host.places.public, **more) == []
        return str(public.read(host.places.public)["schedules"][0]["state"])

    assert bring_up() == "running"
    assert bring_up(ended={"app"}, invocation="a" * 32) == "ok"
    assert bring_up() == "ok" and bring_up(ended={"db"}, invocation="c" * 32) == "ok"
    service["InvocationID"] = "b" * 32
    assert bring_up() == "running"
    service.update(ActiveState="activating", InvocationID="a" * 32)
    assert bring_up() == "running"


def test_a_look_without_metrics_serves_no_run_that_writes_them(host: Host) -> None:
    places = host.places
    counts = []
    for hardened, later in ((True, True), (True, False), (False, True)):
        lock = Path(places.public).with_name(public.LOCK)
        lock.parent.mkdir(exist_ok=True)
        lock.write_text(f"{time.monotonic_ns() + 10**12} {int(hardened)}", encoding="ascii")
        counts.append(public._last_look(os.open(lock, os.O_RDONLY)).began)
        lock.write_text(f"{time.monotonic_ns()} {int(hardened)} w1", encoding="ascii")
        found = public._last_look(os.open(lock, os.O_RDONLY))
        assert found.serves(public._Look(0, later, {"w1"})) is (not hardened or later)
        assert not found.serves(public._Look(0, later, {"w2"})) and not found.serves(public._Look(found.began, later, set()))
    assert counts == [-1] * 3  # of the future: it was written before the last boot


@pytest.mark.parametrize("text", ["", "x", "1", "1 2 3\xff", "99999999999999999999999 0"])
def test_a_lock_that_tells_of_no_look(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock"
    path.write_text(text, encoding="latin-1")
    fd = os.open(path, os.O_RDONLY)
    assert not public._last_look(fd).serves(public._Look(10, True, frozenset()))
    os.close(fd)
