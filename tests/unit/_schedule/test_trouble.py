# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules where something went wrong: clocks, damaged files, declarations that were killed. What is told is true, and the next run mends it."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import host as host_file
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import files, process
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Unsupported, UsageError, VoltError
from ansible_collections.volt.backup.plugins.module_utils._schedule import command, job as jobs, record, run, status, systemd
from ansible_collections.volt.backup.plugins.module_utils._schedule.declare import HostWide
from ansible_collections.volt.backup.plugins.module_utils._schedule.slots import DAY, Slots
from ansible_collections.volt.backup.tests.unit._schedule.host import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """One without systemd: only notes tell."""
    monkeypatch.setattr(status.systemd, "running", lambda: False)
    monkeypatch.setattr(host_file, "PATH", str(tmp_path / "backup.json"))
    return Host(tmp_path)


class Clock:
    """The clock by which notes are made and judged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0
        for module in (record, status):
            monkeypatch.setattr(module, "time", self)

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    yield Clock(monkeypatch)


def test_a_clock_that_was_ahead_hides_nothing(host: Host, clock: Clock) -> None:
    host.declare(host.job())
    clock.now += 30 * DAY
    host.record().begin()
    host.record().succeed({"backup_id": "x"}, "")
    clock.now -= 30 * DAY
    assert host.rows()["app"]["state"] == "ok"
    clock.now += 5 * DAY
    assert host.rows()["app"]["state"] == "overdue"
    for number in (1, 2, 3):
        host.record().fail(VoltError("It broke."), "")
        row = host.rows()["app"]
        assert (row["state"], row["failures"]) == ("failed", number) and row["reason"].startswith("It broke. No backup was made since")


def test_other_options_forgive_nothing_and_other_times_do(host: Host, clock: Clock) -> None:
    host.declare(host.job(interval="1d"))
    clock.now += 5 * DAY
    assert host.rows()["app"]["state"] == "overdue"
    host.declare(host.job(interval="1d", tags=["new"], nice=3))
    assert host.rows()["app"]["state"] == "overdue"
    host.declare(host.job(interval="12h", tags=["new"], nice=3))
    assert host.rows()["app"]["state"] == "waiting"
    clock.now += DAY
    host.declare(host.job(interval="12h", enabled=False))
    assert host.rows()["app"]["state"] == "disabled"
    host.declare(host.job(interval="12h"))
    assert host.rows()["app"]["state"] == "waiting"


def test_a_run_that_hangs_over_a_slot_is_overdue(host: Host, clock: Clock) -> None:
    host.declare(host.job(interval="1d"))
    with host.record().alone():
        host.record().begin()
        assert host.rows()["app"]["state"] == "running"
        clock.now += 2 * DAY
        assert host.rows()["app"]["state"] == "overdue"
        host.record().begin()
        assert host.rows()["app"]["state"] == "running"


def test_next_is_when_the_timer_starts_a_run(host: Host, clock: Clock) -> None:
    """Of a timer that only ticks: with its next tick, where a run is wanted, else with the next slot."""
    host.declare(host.job(interval="36h"))
    slots = Slots(36 * 3600, json.loads(Path(jobs.path("app", host.places.jobs)).read_text())["phase"])

    def following() -> float:
        text = host.rows()["app"]["next_elapse"]
        return next(moment for moment in (slots.timer.coming(clock.now), slots.coming(clock.now)) if status.shown(moment) == text)

    clock.now = float(slots.begun(clock.now))  # so that tick and slot differ
    assert following() == slots.timer.coming(clock.now) < slots.coming(clock.now)
    host.record().begin("one")
    host.record().succeed({"backup_id": "x"}, "one")
    assert following() == slots.coming(clock.now)
    clock.now += 60
    host.record().ask()
    host.record().unask()
    assert not host.record().due(slots)
    host.record().ask()
    assert host.record().due(slots) and following() == slots.timer.coming(clock.now)
    host.record().begin("two")
    assert not host.record().due(slots) and host.record().is_run_of("two") and not host.record().is_run_of("one")


@pytest.mark.parametrize("note", [{"success": {"at": "x"}}, {"failures": "many"}, {"proved": {"at": []}}, {"since": "x"}, {"failure": {"reason": ["x"]}}])
def test_a_note_of_another_shape_is_ignored(host: Host, note: dict[str, Any]) -> None:
    host.declare(host.job())
    (Path(host.places.records) / "app.json").write_text(json.dumps(note))
    assert host.record().read() == {} and host.rows()["app"]["state"] == "records missing"


def test_a_damaged_job_is_rewritten_and_a_newer_one_is_not(host: Host) -> None:
    """Ours is what our service runs; one that is odd does not keep others from being purged."""
    host.declare(host.job(), host.job("other"), host.job("third"))
    path = Path(jobs.path("app", host.places.jobs))
    path.write_text("{")
    assert host.rows()["app"]["state"] == "unreadable"
    host.declare(host.job(), host.job("other"), host.job("third"))
    assert host.rows()["app"]["state"] == "waiting"
    for text, says in (('{"format": 99}', "job format 99"), ("{", "was not written by volt.backup")):
        path.write_text(text)
        if says.startswith("was"):
            host.unit("volt-backup-app.service").write_text("[Service]\n")
        with pytest.raises((UsageError, Unsupported), match=says):
            host.declare(host.job())
        planned = host.plan(host.job("other"))
        planned = type(planned)([host.job("other")], [], True, "/usr/bin/python3", False, False, host.places)
        (warning,) = planned.plan()
        assert says in warning and "app" in warning and planned.changed == ("third" in jobs.declared(host.places.jobs))
        planned.apply()
        assert jobs.declared(host.places.jobs) == ["app", "other"] and path.read_text() == text
    host.declare(purge=True, force=True)
    assert host.left() == []


def test_units_whose_job_is_gone_are_reported_and_purged(host: Host) -> None:
    host.declare(host.job(), host.job("other"))
    os.unlink(jobs.path("app", host.places.jobs))
    assert host.rows()["app"]["state"] == "unreadable" and "is missing" in host.rows()["app"]["reason"]
    host.unit("volt-backup-mine.service").write_text("[Service]\n")
    host.declare(host.job("other"), purge=True)
    assert list(host.rows()) == ["other"]
    host.declare(purge=True)
    assert host.left() == ["units/volt-backup-mine.service"]


class Death:
    """Comes at a call of this number, of any of several functions."""

    def __init__(self, number: int) -> None:
        self._left = number

    def at(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt
            return work(*arguments, **named)

        return call


def test_a_removal_that_was_killed_is_finished(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever file it died."""
    path = host.top / "volt.prom"
    for purge in (True, False):
        for number in range(1, 100):
            host.declare(*(host.job(name)._replace(metrics=str(path)) for name in ("app", "db")))
            host.record().drilled({"backup_id": "x", "reason": None})
            with monkeypatch.context() as patch:
                death = Death(number)
                patch.setattr(command, "remove", death.at(command.remove))
                patch.setattr(record, "remove", death.at(record.remove))
                patch.setattr(files, "write_file", death.at(files.write_file))
                died = False
                try:
                    host.declare(host.job("db")._replace(metrics=str(path)), purge=purge, absent=() if purge else ("app",))
                except KeyboardInterrupt:
                    died = True
            again = host.declare(host.job("db")._replace(metrics=str(path)), purge=purge, absent=() if purge else ("app",))
            assert again.changed or not died
            assert not any("app" in name for name in host.left()) and '"app"' not in path.read_text() and '"db"' in path.read_text()
            if not died:
                break
        assert number > 6


def test_files_of_others_are_kept(host: Host) -> None:
    """Names that are like ours: the timer of a slice, units of a workload that was never declared here."""
    wide = HostWide({"volt-backup.slice": "[Unit]\nDescription=x"}, {})
    host.declare(host.job(), wide=wide)
    for name in ("volt-backup", "volt-backup-foo"):
        (host.top / "units/timers.target.wants" / f"{name}.timer").symlink_to(f"/usr/lib/systemd/system/{name}.timer")
        (Path(host.places.stamps) / f"stamp-{name}.timer").touch()
    host.declare(wide=HostWide({}, {}), purge=True)
    host.declare(absent=("foo",))
    kept = [f"stamps/stamp-{name}.timer" for name in ("volt-backup-foo", "volt-backup")]
    assert host.left() == kept + [f"units/timers.target.wants/{name}.timer" for name in ("volt-backup-foo", "volt-backup")]


@pytest.mark.parametrize("options, says", [({"exclude": ["[z-a]"]}, "not a valid pattern"), ({"compression": "rar"}, "Unknown compression")])
def test_what_would_fail_at_every_run_is_refused(host: Host, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        host.job(**options)
    (host.top / "cas/inner").mkdir(parents=True)
    with pytest.raises(UsageError, match="where backups are kept"):
        host.plan(host.job(source=str(host.top / "cas/inner")))


def test_metrics_that_cannot_be_written_are_warned_of(host: Host) -> None:
    path = host.top / "prom"
    planned = host.plan(host.job()._replace(metrics=str(path)))
    path.mkdir()
    (warning,) = planned.apply()
    assert "cannot be written" in warning and host.rows()["app"]["state"] == "waiting"


def test_a_dry_run_warns_of_a_source_that_is_not_there_yet(host: Host) -> None:
    host.source.rmdir()
    planned = host.plan(host.job(enabled=False))
    planned = type(planned)([host.job()], [], False, "/usr/bin/python3", False, False, host.places)
    assert planned.plan(dry=True) == [] and planned.changed
    failure = planned.failure()
    assert failure is not None and f"app ({host.source})" in failure.message


def test_overdue_stays_overdue_when_the_next_slot_begins(host: Host, clock: Clock) -> None:
    host.declare(host.job(interval="1h", randomized_delay="0s"))
    clock.now += 3 * 3600
    host.record().begin()
    host.record().succeed({"backup_id": "x"}, "")
    missed = Slots(3600, 0).coming(clock.now)
    for after, state in ((-1, "ok"), (1799, "ok"), (1801, "overdue"), (3599, "overdue"), (3601, "overdue"), (5000, "overdue"), (7201, "overdue")):
        clock.now = missed + after
        assert host.rows()["app"]["state"] == state, after


@pytest.mark.parametrize("calendar, step, patience", [("*-*-* *:00/10:00", 600, 300), ("*-*-* *:00:00", 3600, 1800), ("*-*-* 03:00:00", 86400, 3600)])
def test_a_calendar_is_overdue_without_systemd_and_however_fine(host: Host, clock: Clock, calendar: str, step: int, patience: int) -> None:
    """The first time after the last backup counts, as the host's time zone has it; also under a run that hangs."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    clock.now = 1_800_000_001.0
    host.declare(host.job(interval=None, on_calendar=calendar))
    due = systemd.coming(calendar, 1, clock.now)[0]
    assert clock.now < due <= clock.now + step
    for after, state in ((patience - 1, "waiting"), (patience + 1, "overdue"), (10 * step, "overdue")):
        clock.now = due + after
        assert host.rows()["app"]["state"] == state, after
    host.record().begin()
    host.record().succeed({"backup_id": "x"}, "")
    due = systemd.coming(calendar, 1, clock.now)[0]
    for after, state in ((patience - 1, "ok"), (patience + 1, "overdue"), (step + 1, "overdue")):
        clock.now = due + after
        assert host.rows()["app"]["state"] == state, after
    with host.record().alone():
        host.record().begin()
        assert host.rows()["app"]["state"] == "running"
        clock.now += 2 * step
        assert host.rows()["app"]["state"] == "overdue"


def test_the_times_of_a_calendar_are_those_of_the_hosts_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd tells a time in another zone with the same time in UTC below it."""
    said = "    Next elapse: Tue 2026-09-22 03:00:00 CEST\n       (in UTC): Tue 2026-09-22 01:00:00 UTC\n       From now: 2 months\n"
    said += "       Iter. #2: Wed 2026-09-23 03:00:00 CEST\n       (in UTC): Wed 2026-09-23 01:00:00 UTC\n"
    given: dict[str, Any] = {}

    def run_it(words: Any, environment: dict[str, str], **_more: Any) -> process.Ended:
        given.update(words=words, zone=environment.get("TZ"))
        return process.Ended(0, said, "")

    monkeypatch.setattr(systemd.process, "run", run_it)
    assert systemd.coming("03:00", 2, 1790000000.5) == [1790038800.0, 1790125200.0]
    assert "--base-time=@1790000000" in given["words"] and given["zone"] is None


def test_a_calendar_of_which_only_the_timer_tells(host: Host, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before systemd 244. Where nothing tells, that is said."""
    monkeypatch.setattr(systemd, "coming", lambda *_arguments: [])
    host.declare(host.job(interval=None, on_calendar="*-*-* *:00/10:00"))
    clock.now += 1
    assert "never overdue" in host.rows()["app"]["reason"]
    started = clock.now
    timer = {"ActiveState": "active", "SubState": "waiting", "UnitFileState": "enabled"}

    def show(names: Any, *_properties: str) -> dict[str, dict[str, str]]:
        last = started + (clock.now - started) // 600 * 600
        told = [time.strftime("%a %Y-%m-%d %H:%M:%S UTC", time.gmtime(moment)) for moment in (last, last + 600)]
        return {name: {**timer, "LastTriggerUSec": told[0], "NextElapseUSecRealtime": told[1]} if name.endswith("timer") else {} for name in names}

    monkeypatch.setattr(status.systemd, "running", lambda: True)
    monkeypatch.setattr(status.systemd, "show", show)
    for after, state in ((299, "waiting"), (301, "overdue"), (599, "overdue"), (601, "overdue"), (950, "overdue"), (1201, "overdue")):
        clock.now = started + after
        assert host.rows()["app"]["state"] == state, after


def test_an_empty_source_pushes_no_backup_out(host: Host) -> None:
    """As where its file system is not mounted: told at each run, until somebody mounts it or says that it is meant."""
    job = host.job(max_keep=2)
    (host.source / "a").write_text("1")

    def there() -> list[str]:
        return [backup["id"] for backup in Manager(job.store, job.backup_dir, 5).find(Query("app"))]

    for _number in (1, 2, 3):
        run._back_up(job)
    kept = there()
    assert len(kept) == 2
    (host.source / "a").rename(host.top / "a")
    for _number in (1, 2, 3):
        with pytest.raises(VoltError, match="is empty, but .*, its last backup, is not"):
            run._back_up(job)
    assert there() == kept
    (host.source / "link").symlink_to("nowhere")  # something is there
    run._back_up(job)
    (host.source / "link").unlink()
    run._back_up(job)
    assert len(there()) == 2


def test_a_suspect_backup_fails_the_run_and_prunes_nothing(host: Host) -> None:
    for number in range(60):
        (host.source / f"f{number}").write_text(f"{number}" * 100)
    job = host.job(keep={"last": 1}, max_shrink=20)
    assert run._back_up(job).failure is None
    for number in range(20):
        (host.source / f"f{number}").unlink()
    done = run._back_up(job)
    assert done.failure is not None and done.failure.code == "suspect" and done.value["backup"]["suspect"] and done.value["pruned"] == 0
    host.declare(job)
    host.record().begin()
    host.record().fail(done.failure, "")
    row = host.rows()["app"]
    assert row["state"] == "failed" and "max_shrink: 20" in row["reason"] and "state: accepted and id: app-" in row["reason"]
    assert run._back_up(host.job(keep={"last": 1}, max_shrink=0)).failure is None
    for wrong in ({"max_shrink": 101}, {"max_churn": -1}):
        with pytest.raises(UsageError, match="percentage"):
            host.job(**wrong)
