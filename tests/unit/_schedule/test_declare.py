# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules declared in a directory that stands for a host's: what is written, when, and what is refused. Real systemd: tests/fleet."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import host as host_file
from ansible_collections.volt.backup.plugins.module_utils._base.errors import NotFound, StoreError, Unsupported, UsageError, VoltError
from ansible_collections.volt.backup.plugins.module_utils._schedule import job as jobs, metrics, notification, public, units
from ansible_collections.volt.backup.plugins.module_utils._schedule.declare import Declaration, HostWide
from ansible_collections.volt.backup.plugins.module_utils._schedule.record import STOPPED, RunRecord
from ansible_collections.volt.backup.plugins.module_utils._schedule.slots import Slots
from ansible_collections.volt.backup.plugins.module_utils._schedule.status import TROUBLE
from ansible_collections.volt.backup.tests.unit._schedule.host import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(host_file, "PATH", str(tmp_path / "backup.json"))
    return Host(tmp_path)


OURS = [
    "jobs/app.json",
    "records/app.json",
    "stamps/stamp-volt-backup-app.timer",
    "units/timers.target.wants/volt-backup-app.timer",
    "units/volt-backup-app.service",
    "units/volt-backup-app.timer",
]


def test_declare_again_and_remove(host: Host) -> None:
    planned = host.plan(host.job())
    assert planned.changed and host.files() == []
    assert host.declare(host.job()).diff() == planned.diff()
    assert host.files() == OURS
    assert os.stat(jobs.path("app", host.places.jobs)).st_mode & 0o777 == 0o600
    again = host.declare(host.job())
    assert not again.changed and again.diff() == []
    host.record().succeed({"backup_id": "x"}, "")
    host.declare(absent=("app",))
    assert host.files() == ["records/app.json"]
    assert not host.declare(absent=("app",)).changed
    host.declare(host.job())
    assert host.rows()["app"]["last_success"], "history outlives the schedule"


def test_the_last_schedule_does_not_go_in_silence(host: Host) -> None:
    def warnings(dry: bool, *present: jobs.Job, absent: tuple[str, ...] = (), purge: bool = False) -> list[str]:
        return Declaration(present, absent, purge, sys.executable, False, False, host.places).plan(dry)

    host.declare(host.job("app"), host.job("db"))
    for dry in (True, False):
        assert warnings(dry, absent=("app",)) == [] and warnings(dry, host.job("db"), purge=True) == []
        (warning,) = warnings(dry, purge=True)
        assert "has no schedules left after this: app, db are removed" in warning
    host.declare(purge=True)
    assert warnings(False, purge=True) == []


def test_a_missing_source_keeps_no_other_from_being_scheduled(host: Host) -> None:
    gone = host.top / "gone"
    gone.mkdir()
    host.declare(host.job("old", source=str(gone)))
    before = Path(jobs.path("old", host.places.jobs)).read_text()
    gone.rmdir()
    declared = host.declare(host.job("old", source=str(gone), nice=5), host.job("new", source=str(host.top / "none")), host.job("app"), purge=True)
    failure = declared.failure()
    assert failure is not None and f"old ({gone}), new ({host.top}/none)" in failure.message and socket.gethostname() in failure.message
    assert set(host.rows()) == {"app", "old"}, "the one that was there stays"
    assert Path(jobs.path("old", host.places.jobs)).read_text() == before
    assert host.declare(host.job("app")).failure() is None


def test_the_diff_is_what_changes(host: Host) -> None:
    host.declare(host.job())
    diff = host.plan(host.job(nice=5)).diff()
    assert [Path(part["before_header"]).name for part in diff] == ["app.json", "volt-backup-app.service"]
    before, after = diff[1]["before"].splitlines(), diff[1]["after"].splitlines()
    assert [line for line in after if line not in before] == ["Nice=5"]


def test_a_changed_schedule_gets_a_fresh_stamp_and_an_unchanged_one_does_not(host: Host) -> None:
    host.declare(host.job())
    stamp = Path(host.places.stamps) / "stamp-volt-backup-app.timer"
    os.utime(stamp, (1, 1))
    host.declare(host.job(nice=5))
    assert stamp.stat().st_mtime == 1
    host.declare(host.job(nice=5, interval="1h"))
    assert stamp.stat().st_mtime > 10**9


def test_disabled_keeps_the_files_and_takes_the_link(host: Host) -> None:
    host.declare(host.job())
    host.declare(host.job(enabled=False))
    assert host.files() == [path for path in OURS if "wants" not in path]
    assert not host.declare(host.job(enabled=False)).changed


def test_purge_removes_what_is_not_named_and_nothing_else(host: Host) -> None:
    host.declare(host.job("one"), host.job("two"))
    host.unit("other.service").write_text("[Service]\n")
    host.declare(host.job("two"), purge=True)
    assert jobs.declared(host.places.jobs) == ["two"] and host.unit("other.service").exists()
    host.declare(purge=True)
    assert host.left() == ["units/other.service"]


@pytest.mark.parametrize("name", ["volt-backup-app.service", "volt-backup-app.timer"])
def test_a_unit_that_is_not_ours_stays_without_force(host: Host, name: str) -> None:
    host.unit(name).parent.mkdir()
    host.unit(name).write_text("[Unit]\nDescription=mine\n")
    for ask in (lambda: host.declare(host.job()), lambda: host.declare(absent=("app",))):
        with pytest.raises(UsageError, match="was not written by volt.backup"):
            ask()
    assert host.unit(name).read_text() == "[Unit]\nDescription=mine\n" and len(host.files()) == 1
    host.declare(host.job(), force=True)
    assert host.unit(name).read_text().startswith(units.MARK)


def test_a_masked_unit_is_named(host: Host) -> None:
    host.unit("volt-backup-app.timer").parent.mkdir()
    host.unit("volt-backup-app.timer").symlink_to("/dev/null")
    with pytest.raises(UsageError, match="masked"):
        host.declare(host.job())


def test_a_newer_job_file_is_not_overwritten_without_force(host: Host) -> None:
    path = Path(jobs.path("app", host.places.jobs))
    path.parent.mkdir()
    path.write_text('{"format": 99}')
    with pytest.raises(Unsupported, match="or set `force: true`"):
        host.declare(host.job())
    with pytest.raises(Unsupported, match="job format 99"):
        jobs.load("app", host.places.jobs)


REFUSED: dict[str, dict[str, Any]] = {
    "both": {"on_calendar": "daily"},
    "neither": {"interval": None},
    "delay": {"randomized_delay": "6h"},
    "zero": {"interval": "0s"},
    "workload": {"workload": "a\nExecStart=/bin/sh"},
    "workload with a slash": {"workload": "../x"},
    "nothing to back up": {"source": None},
    "an empty source beside dumps": {"source": "", "dumps": [{"redis": {}}]},
    "a snapshot of nothing": {"source": None, "command": ["/bin/true"], "snapshot": "auto"},
    "containers of nothing": {"source": None, "command": ["/bin/true"], "quiesce": "pause"},
    "a database relative to nothing": {"source": None, "dumps": [{"sqlite": {"path": "app.db"}}]},
    "relative source": {"source": "srv"},
    "two ways to keep": {"max_keep": 3, "keep": {"last": 2}},
    "negative": {"max_keep": -1},
    "lines": {"interval": None, "on_calendar": "daily\nUnit=evil.service"},
    "nice": {"nice": 20},
    "relative command": {"pre_command": ["dump"]},
    "no time": {"command_timeout": 0},
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_declarations(host: Host, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        host.plan(host.job(**REFUSED[name]))
    assert caught.value.message.count("\n") == 0


def test_a_schedule_without_a_source(host: Host) -> None:
    """What programs write is enough. Mounts and directories are those of the store, and of the database."""
    made = host.job(source=None, dumps=[{"sqlite": {"path": f"{host.top}/data/app.db"}}])
    planned = host.plan(made)
    assert host.declare(made).diff() == planned.diff() and not host.plan(made).changed
    assert jobs.load("app", host.places.jobs).source is None
    text = host.unit("volt-backup-app.service").read_text()
    assert re.findall("^RequiresMountsFor=(.*)", text, re.MULTILINE) == [f"{host.top}/cas {host.top}/backups"]
    (written,) = re.findall("^ReadWritePaths=(.*)", text, re.MULTILINE)
    assert f"-{host.top}/data" in written.split() and "-/var/tmp" in written.split()
    found = host.rows()["app"]
    assert (found["source"], found["enabled"], found["reason"]) == (None, True, None)
    assert 'volt_backup_enabled{workload="app"} 1' in metrics.text(host.survey(), host.places.records)


def test_what_does_not_fit_the_host(host: Host) -> None:
    missing = host.plan(host.job(source=str(host.top / "missing")))
    assert not missing.changed and missing.failure() is not None
    assert host.plan(host.job(source=str(host.top / "missing"), enabled=False)).changed
    with pytest.raises(UsageError, match="declared twice"):
        host.plan(host.job(), host.job())
    os.unlink(host.places.command)
    with pytest.raises(UsageError, match="volt_runner"):
        host.plan(host.job())


ODD = '/srv/a b%h$HOME"quote\\x'


def test_odd_words_reach_the_service_whole(host: Host) -> None:
    """systemd itself splits the line again, and runs what it finds."""
    assert units.word("/usr/bin/python3") == "/usr/bin/python3"
    assert units.word(ODD) == '"/srv/a b%%h$$HOME\\"quote\\\\x"'
    assert units.word("\udcff\n") == '"\\xff\\x0a"'


def test_systemd_accepts_the_units(host: Host) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    host.declare(host.job(interval="7h", pre_command=["/bin/true"]), host.job("cal", interval=None, on_calendar="Mon..Fri 03:00 UTC"))
    paths = [str(path) for path in Path(host.places.units).glob("volt-backup-*")]
    assert len(paths) == 4
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "volt-backup-" in line]) == (0, [])


# ---- what became of runs


def test_a_record_tells_success_only_of_what_succeeded(tmp_path: Path) -> None:
    record = RunRecord("app", str(tmp_path))
    assert record.read() == {} and record.due(Slots(3600, 0))
    record.begin()
    assert "success" not in record.read() and not record.due(Slots(10**9, 0))
    record.fail(VoltError("It broke."), "")
    assert record.read()["failure"]["reason"] == "It broke." and record.read()["failures"] == 1
    record.begin()
    record.begin()  # the one before was killed
    assert record.read()["failures"] == 2
    record.succeed({"backup_id": "x"}, "")
    note = record.read()
    assert note["failures"] == 0 and note["success"]["backup_id"] == "x" and note["success"]["at"] >= note["failure"]["at"]


def test_the_first_reason_of_a_run_stands(tmp_path: Path) -> None:
    record = RunRecord("app", str(tmp_path))
    record.begin()
    record.fail(VoltError("The pre_command failed."), "one")
    record.fail(VoltError("The service ended with exit-code."), "one")
    assert (record.read()["failure"]["reason"], record.read()["failures"]) == ("The pre_command failed.", 1)
    record.fail(VoltError("Again."), "two")
    assert record.read()["failures"] == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"began": "x"}', '{"success": 3}', "\x00"])
def test_a_damaged_record_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "app.json").write_text(text)
    assert RunRecord("app", str(tmp_path)).read() == {}


def test_status_says_what_is_wrong(host: Host) -> None:
    host.declare(*(host.job(name) for name in ("fine", "fails", "late", "gone")), host.job("off", enabled=False))
    for name in ("fine", "late", "gone"):
        RunRecord(name, host.places.records).succeed({"backup_id": "x", "duration": 5 * 10**8, "total_size": 7, "new_bytes": 3}, "")
    RunRecord("fails", host.places.records).fail(VoltError("It broke."), "")
    late = Path(host.places.records) / "late.json"
    note = json.loads(late.read_text())
    note["success"]["at"] -= 86400
    late.write_text(json.dumps(note))
    for name in ("late", "fine"):
        path = Path(host.places.records) / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "since": 1}))
    for name in ("broken", "newer"):
        Path(jobs.path(name, host.places.jobs)).write_text('{"format": 2}' if name == "newer" else "?")
    found = host.rows()
    assert list(found)[0] == "fails" and found["fails"]["reason"] == "It broke."
    assert found["off"]["state"] == "disabled" and found["off"]["next_elapse"] is None
    assert (found["broken"]["state"], found["newer"]["state"]) == ("unreadable", "unsupported")
    expected = {"ok"} if not os.path.isdir("/run/systemd/system") else {"stopped"}
    assert found["fine"]["state"] in expected | {"ok"}
    shown = metrics.text(host.survey(), host.places.records)
    assert 'volt_backup_failures{workload="fails"} 1' in shown and 'last_success_timestamp_seconds{workload="fails"}' not in shown
    assert 'volt_backup_last_new_bytes{workload="fine"} 3' in shown and 'volt_backup_trouble{workload="fails"} 1' in shown


def test_a_late_backup_is_overdue(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.declare(host.job(randomized_delay="0s"))
    RunRecord("app", host.places.records).succeed({"backup_id": "x"}, "")
    declared = os.stat(jobs.path("app", host.places.jobs)).st_mtime
    next_slot = Slots(6 * 3600, 0).coming(declared)
    module = "ansible_collections.volt.backup.plugins.module_utils._schedule.status"
    monkeypatch.setattr(f"{module}.systemd.running", lambda: False)
    for moment, state in ((next_slot - 1, "ok"), (next_slot + 3599, "ok"), (next_slot + 3601, "overdue")):
        monkeypatch.setattr(f"{module}.time.time", lambda moment=moment: moment)
        assert [row["state"] for row in host.rows().values()] == [state]


def test_a_run_that_power_ended_has_failed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its note says that it began, and nobody has its turn any more."""
    monkeypatch.setattr("ansible_collections.volt.backup.plugins.module_utils._schedule.status.systemd.running", lambda: False)
    host.declare(host.job())
    record = RunRecord("app", host.places.records)

    def state() -> tuple[str, str | None]:
        (row,) = host.rows().values()
        return row["state"], row["reason"]

    with record.alone():
        record.begin()
        assert state() == ("running", None)
    assert state() == ("failed", STOPPED)
    with record.alone():
        record.begin()
        assert state() == ("running", None)
        record.succeed({"backup_id": "x"}, "")
    assert state() == ("ok", None)


def test_a_second_run_of_a_workload_waits_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with RunRecord("app", str(tmp_path)).alone():
            order.append("second")

    thread = threading.Thread(target=second)
    with RunRecord("app", str(tmp_path)).alone():
        thread.start()
        thread.join(0.2)
        with RunRecord("other", str(tmp_path)).alone():  # for which no run waits
            order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


@pytest.mark.parametrize("how", ["removed", "retired"])
def test_runs_that_wait_for_a_turn_whose_file_goes_come_one_at_a_time(tmp_path: Path, how: str) -> None:
    record = RunRecord("app", str(tmp_path))
    at_work: list[int] = []
    most: list[int] = []

    def later(number: int) -> None:
        with RunRecord("app", str(tmp_path)).alone():
            at_work.append(number)
            most.append(len(at_work))
            time.sleep(0.1)
            at_work.remove(number)

    threads = [threading.Thread(target=later, args=(number,)) for number in range(4)]
    with record.alone():
        for thread in threads[:2]:
            thread.start()
        time.sleep(0.1)
        record.retire()
        assert (tmp_path / "app.lock").exists(), "a run has the turn"
        if how == "removed":
            (tmp_path / "app.lock").unlink()
    for thread in threads[2:]:
        thread.start()
    if how == "retired":
        record.retire()
    for thread in threads:
        thread.join(10)
    assert most == [1, 1, 1, 1]
    record.retire()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("unit", [True, False], ids=["unit", "by hand"])
def test_a_run_whose_post_command_fails_is_no_success(tmp_path: Path, unit: bool) -> None:
    """What monitoring sees as the last success is that of the run before."""
    record = RunRecord("app", str(tmp_path))
    for number in (1, 2, 3):
        invocation = str(number) if unit else ""
        record.begin()
        record.succeed({"backup_id": f"b{number}"}, invocation)
        if number == 2:
            assert record.fail(VoltError("The post_command failed."), invocation, after_all=not unit)
            note = record.read()
            assert (note["success"]["backup_id"], note["failures"]) == ("b1", 1) and note["failure"]["at"] > note["success"]["at"]
    assert (record.read()["success"]["backup_id"], record.read()["failures"]) == ("b3", 0)
    record.fail(VoltError("The pre_command of the next run failed."), "4" if unit else "")
    assert (record.read()["success"]["backup_id"], record.read()["failures"]) == ("b3", 1)


def test_unknown_workloads(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="volt_backup_schedule"):
        jobs.load("app", str(tmp_path))
    assert jobs.declared(str(tmp_path / "missing")) == []


def test_a_stray_file_among_the_jobs_does_no_harm(host: Host) -> None:
    host.declare(host.job())
    (Path(host.places.jobs) / "app (copy).json").write_text("{}")
    assert list(host.rows()) == ["app"] and "(copy)" not in metrics.text(host.survey(), host.places.records)
    host.declare(purge=True)
    assert host.left() == ["jobs/app (copy).json"]


def test_metrics_are_of_what_is_declared(host: Host) -> None:
    """A schedule that is gone leaves no figures behind, and the last one no file."""
    (host.top / "prom").mkdir()
    path = host.top / "prom/volt.prom"
    app, db = (host.job(name)._replace(metrics=str(path)) for name in ("app", "db"))
    host.declare(app, db)
    assert 'interval_seconds{workload="app"} 21600' in path.read_text() and 'failures{workload="db"} 0' in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    stamp = path.stat().st_mtime_ns
    assert not host.declare(app, db).changed and path.stat().st_mtime_ns == stamp
    host.declare(app, absent=("db",))
    assert '"db"' not in path.read_text() and '"app"' in path.read_text()
    host.declare(app._replace(metrics=f"{path}.other"))
    assert os.listdir(path.parent) == ["volt.prom.other"]
    host.declare(purge=True)
    assert os.listdir(path.parent) == []
    with pytest.raises(UsageError, match="directory of the metrics file .* does not exist"):
        host.plan(app._replace(metrics=str(host.top / "none/volt.prom")))


def test_metrics_of_others_are_not_changed(host: Host) -> None:
    """Refused where they are declared, neither overwritten nor removed where they came later, and replaced by force."""
    path = host.top / "node.prom"
    path.write_text("# HELP other_thing\n")
    app = host.job()._replace(metrics=str(path))
    with pytest.raises(UsageError, match="was not written by volt.backup; .* `force: true`"):
        host.plan(app)
    planned = host.plan(app, force=True)
    assert "replace " in str(planned.diff()) and path.read_text() == "# HELP other_thing\n"
    planned.apply()
    assert path.read_text().startswith("# HELP volt_backup_")
    assert not host.declare(app, force=True).changed
    path.write_text("mine")
    (against,) = public.bring_up(host.survey, host.places.records, host.places.public)
    assert "was not written by volt.backup" in against and host.survey().trouble == ["metrics"]
    host.declare(purge=True)
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to(host.top / "elsewhere")
    with pytest.raises(VoltError, match="was not written"):
        metrics.write("x", str(path))


def test_a_first_run_without_systemd_is_a_warning(host: Host) -> None:
    """Where systemd is not told; not of a workload that has a backup, and once."""
    declaration = Declaration([host.job("now", first_run="now"), host.job("slot")], [], False, "/usr/bin/python3", False, False, host.places)
    (warning,) = declaration.plan()
    assert "`first_run` has no effect" in warning and "once for each of now" in warning and "start volt-backup-now.service" not in str(declaration.diff())
    declaration.apply()
    assert Declaration([host.job("now", first_run="now")], [], False, "/usr/bin/python3", False, False, host.places).plan() == []


def test_a_schedule_that_is_absent_leaves_the_figures_of_those_that_are_not_named(host: Host) -> None:
    path = host.top / "volt.prom"
    host.declare(*(host.job(name)._replace(metrics=str(path)) for name in ("app", "db")))
    host.declare(absent=("db",))
    assert '"app"' in path.read_text() and '"db"' not in path.read_text()


TIMER = "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target"
WIDE = HostWide({"volt-cas-gc.service": "[Service]\nExecStart=@PYTHON@ gc", "volt-cas-gc.timer": TIMER}, {})
GC = ["stamps/stamp-volt-cas-gc.timer", "units/timers.target.wants/volt-cas-gc.timer", "units/volt-cas-gc.service", "units/volt-cas-gc.timer"]


def test_units_of_the_host_as_a_whole(host: Host) -> None:
    """They come, stay and go with the schedules, and are left alone by who does not speak of them."""
    host.declare(host.job(), wide=WIDE)
    assert host.files() == sorted([*OURS, *GC, "records/.host.json"])
    assert f"ExecStart={sys.executable} gc\n" in host.unit("volt-cas-gc.service").read_text()
    assert not host.declare(host.job(), wide=WIDE).changed
    host.declare(host.job(nice=5))
    assert host.files() == sorted([*OURS, *GC, "records/.host.json"])
    host.unit("volt-cas-mine.service").write_text("[Service]\n")
    host.unit("volt-cas-masked.timer").symlink_to("/dev/null")
    host.declare(wide=HostWide({}, {}), purge=True)
    assert host.files() == ["records/app.json", "units/volt-cas-masked.timer", "units/volt-cas-mine.service"]
    with pytest.raises(UsageError, match="was not written by volt.backup"):
        host.plan(wide=HostWide({"volt-cas-mine.service": "x"}, {}))


@pytest.mark.parametrize(
    "name", ["ssh.service", "volt-cas-gc.socket", "../volt-cas-gc.timer", "volt-cas-gc.timer\n", "volt-backup-app.timer", "volt-cas-.timer"]
)
def test_other_names_are_no_units_of_the_host(host: Host, name: str) -> None:
    with pytest.raises(UsageError, match="is not allowed in `host_units`"):
        host.plan(wide=HostWide({name: "x"}, {}))
    assert host.files() == []


def test_only_root_can_read_the_notification_settings(host: Host) -> None:
    told = notification.check({"command": None, "mail": {"to": "a@example.org", "password": "secret"}, "webhook": {"url": "https://example.org/secret"}})
    done = host.declare(wide=HostWide({}, told))
    path = Path(host.places.ways)
    assert path.stat().st_mode & 0o777 == 0o600 and notification.load(str(path)) == told
    assert "secret/" not in json.dumps(done.diff()) and "/secret" not in json.dumps(done.diff()) and "a@example.org" in json.dumps(done.diff())
    assert not host.declare(wide=HostWide({}, told)).changed
    again = host.plan(wide=HostWide({}, {"webhook": {"url": "https://example.org/other"}}))
    assert again.changed and "/other" not in json.dumps(again.diff())
    host.declare(wide=HostWide({}, {}))
    assert not path.exists()


@pytest.mark.parametrize(
    "bad",
    [{"command": ["relative"]}, {"command": ["/x", "\0"]}, {"webhook": {"url": "ftp://x"}}, {"mail": {"to": ""}}, {"mail": {"to": "x", "port": "y"}}],
)
def test_invalid_notification_settings(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        notification.check(bad)


# ---- where they back up to


def lines(declaration: Declaration) -> list[str]:
    return [line for part in declaration.diff() for line in part.get("prepared", "").splitlines()]


def test_the_first_declaration_makes_the_store_and_writes_down_its_id(host: Host) -> None:
    planned = host.plan(host.job())
    made = [f"make directory {host.top}/{name}" for name in ("cas", "backups")] + [f"make store {host.top}/cas"]
    made.append(f"make directory {host.top}/records")
    assert lines(planned)[:4] == made and planned.diff()[0]["after_header"] == host_file.PATH
    assert [part["after"].count('"store_id": "(new)"') for part in planned.diff()[:2]] == [1, 1]
    assert not os.path.exists(host.top / "cas") and not os.path.exists(host_file.PATH)
    host.declare(host.job())
    known = json.loads((host.top / "cas/format.json").read_bytes())["id"]
    assert json.loads(Path(host_file.PATH).read_bytes()) == {
        "format": 1, "store": f"{host.top}/cas", "backup_dir": f"{host.top}/backups", "store_id": known,
    }  # fmt: skip
    assert os.stat(host_file.PATH).st_mode & 0o777 == 0o644
    assert jobs.load("app", host.places.jobs).store_id == known
    assert not host.plan(host.job()).changed
    host.declare(host.job("db"))
    assert jobs.load("db", host.places.jobs).store_id == known
    host.declare(absent=("app",))
    assert os.path.exists(host_file.PATH)
    last = host.declare(absent=("db",))
    assert not os.path.exists(host_file.PATH) and {"before_header": host_file.PATH, "after": ""}.items() <= last.diff()[0].items()
    assert not host.plan(absent=("db",)).changed and (host.top / "cas/format.json").exists()


def test_a_tag_that_looks_like_a_new_id_stays(host: Host) -> None:
    host.declare(host.job(tags=["(new)", '"store_id": "(new)"']))
    assert list(jobs.load("app", host.places.jobs).tags) == ["(new)", '"store_id": "(new)"']


def test_where_all_are_disabled_there_are_directories_and_no_store(host: Host) -> None:
    """A unit that is started by hand would else not even start."""
    job = host.job(enabled=False, source=str(host.top / "missing"))
    assert lines(host.declare(job)) == [f"make directory {host.top}/{name}" for name in ("cas", "backups", "records")]
    assert os.listdir(host.top / "cas") == [] == os.listdir(host.top / "backups")
    home = host_file.read()
    assert home is not None and home.store_id is None and jobs.load("app", host.places.jobs).store_id is None
    assert not host.plan(job).changed
    host.declare(host.job())
    home = host_file.read()
    assert home is not None and home.store_id is not None and home.store_id == jobs.load("app", host.places.jobs).store_id


@pytest.mark.parametrize("who", ["host file", "job", "both"])
def test_a_store_that_is_away_is_not_made_again(host: Host, who: str) -> None:
    host.declare(host.job())
    home = host_file.read()
    assert home is not None
    for name in ("cas", "backups"):
        (host.top / name).rename(host.top / f"{name}.away")
    if who != "both":
        Path(host_file.PATH if who == "job" else jobs.path("app", host.places.jobs)).unlink()
    before = sorted(host.top.rglob("*"))
    for job in (host.job(), host.job("db")):
        with pytest.raises(StoreError, match=f"There is no store at {host.top}/cas, but .*{home.store_id}") as caught:
            host.plan(job)
        assert caught.value.details["store_id"] == home.store_id
    idle = host.plan(host.job(enabled=False))
    assert not any("make directory" in line for line in lines(idle))
    idle.apply()
    assert jobs.load("app", host.places.jobs).store_id == home.store_id == home_of().store_id, "what is known stays known"
    assert {path for path in host.top.rglob("*") if path not in before and path.name in ("cas", "backups")} == set()
    assert host.rows()["app"]["state"] == "disabled"
    for name in ("cas", "backups"):
        (host.top / f"{name}.away").rename(host.top / name)
    host.declare(host.job())


def home_of() -> host_file.Home:
    home = host_file.read()
    assert home is not None
    return home


def test_another_store_in_its_place_is_reported(host: Host) -> None:
    host.declare(host.job())
    known = home_of().store_id
    for name in ("cas", "backups"):
        shutil.rmtree(host.top / name)
    job = host.job("other")
    job.manager.begin(replace=True)
    assert home_of().store_id != known, "it was begun anew"
    assert host.declare(host.job()).changed and jobs.load("app", host.places.jobs).store_id == home_of().store_id
    host_file.write(home_of()._replace(store_id=known))
    with pytest.raises(StoreError, match=f"has the id .*{known}"):
        host.plan(host.job())


def test_a_host_has_one_store(host: Host) -> None:
    one, other = host.job(), host.job("db")._replace(store=str(host.top / "cas2"))
    with pytest.raises(UsageError, match=f"two stores, {one.store} and {other.store}"):
        host.plan(one, other)
    host.declare(one)
    with pytest.raises(UsageError, match=rf"in the store {one.store} \(schedules app\), but {other.store} is a different one"):
        host.plan(other)
    assert home_of().store == one.store
    host.declare(other, absent=("app",))
    assert home_of().store == other.store and home_of().store_id == jobs.load("db", host.places.jobs).store_id
    host.declare(other._replace(store=one.store))
    assert home_of().store == one.store


def test_the_host_file_names_a_backup_directory_that_is_in_use(host: Host) -> None:
    one, other = host.job(), host.job("db")._replace(backup_dir=str(host.top / "others"))
    host.declare(one)
    host.declare(other)
    assert home_of().backup_dir == one.backup_dir and (host.top / "others").is_dir() and not host.plan(one).changed
    host.declare(other, absent=("app",))
    assert home_of().backup_dir == other.backup_dir
    assert not host.plan(other).changed


@pytest.mark.parametrize(("text", "kind"), [("{", StoreError), ('{"format": 2}', Unsupported)])
def test_a_host_file_that_cannot_be_read(host: Host, text: str, kind: type[Exception]) -> None:
    host.declare(host.job())
    Path(host_file.PATH).write_text(text)
    for force in (False, True):
        with pytest.raises(kind):
            host.plan(host.job(), force=force)
    host.declare(absent=("app",))
    assert not os.path.exists(host_file.PATH)


def test_a_job_of_version_0_1_0_has_no_id(host: Host) -> None:
    host.declare(host.job())
    path = Path(jobs.path("app", host.places.jobs))
    value = json.loads(path.read_bytes())
    del value["store_id"]
    path.write_text(json.dumps(value))
    os.unlink(host_file.PATH)
    assert jobs.load("app", host.places.jobs).store_id is None
    host.declare(host.job())
    assert home_of().store_id is not None and jobs.load("app", host.places.jobs).store_id == home_of().store_id


def test_status_tells_of_a_store_that_is_away(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.volt.backup.plugins.module_utils._schedule.status.systemd.running", lambda: False)
    host.declare(host.job())
    assert host.rows()["app"]["state"] == "waiting"
    (host.top / "cas").rename(host.top / "away")
    row = host.rows()["app"]
    assert row["state"] == "store missing" and row["state"] in TROUBLE and row["reason"].startswith(f"There is no store at {host.top}/cas")
    (host.top / "away").rename(host.top / "cas")
    assert host.rows()["app"]["state"] == "waiting"


def test_a_service_starts_where_the_disk_is_away(host: Host) -> None:
    """It is the run that says so, not systemd, which would know no reason. A dash lets a path be missing: systemd.exec(5)."""
    odd = host.job()._replace(store="/srv/a b/cas")
    (line,) = [line for line in units.service(odd, "/usr/bin/python3", "/c", "/records").splitlines() if line.startswith("ReadWritePaths=")]
    assert line == f'ReadWritePaths="-/srv/a b/cas" -{host.top}/backups -/run/volt /records'


def test_how_long_a_run_may_take_and_stall(host: Host) -> None:
    def limits(**options: Any) -> tuple[int, int]:
        made = host.job(**options)
        assert jobs.parse(made.text(), "x") == made
        return made.timeout, made.stall

    assert limits() == (0, 900)
    for given, seconds in (("6h", 21600), ("90s", 90), ("0", 0), ("0m", 0), ("", 0), (None, 0)):
        assert limits(timeout=given) == (seconds, 900) and limits(stall=given) == (0, seconds)
    for name in ("timeout", "stall"):
        for wrong, says in (("soon", "is invalid"), ("-1h", "is invalid"), ("90", "is invalid"), ("367d", f"Option {name} of .* 366d")):
            with pytest.raises(UsageError, match=says):
                host.job(**{name: wrong})
    older = {key: value for key, value in json.loads(host.job().text()).items() if key not in ("timeout", "stall")}
    assert jobs.parse(json.dumps(older), "x") == host.job(), "a job of an older version"


def test_systemd_ends_what_does_not_end_by_itself(host: Host) -> None:
    def lines(**options: Any) -> list[str]:
        return units.service(host.job(**options), "/usr/bin/python3", "/c", "/records").splitlines()

    assert "TimeoutStartSec=infinity" in lines() and "KillMode=process" in lines()
    assert "TimeoutStartSec=22500" in lines(timeout="6h")
    assert "TimeoutStartSec=32400" in lines(timeout="6h", command_timeout=3 * 3600 - 300), "a command before it has its own time"
