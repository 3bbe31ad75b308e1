# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What units say: mounts that a run needs, hardening, an interpreter that is there, names of lines; and what is left of them once they go."""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import host as host_file
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import UsageError, VoltError
from ansible_collections.volt.backup.plugins.module_utils._schedule import command, hooks, job as jobs, leftovers, notification, notify, status, systemd, units
from ansible_collections.volt.backup.plugins.module_utils._schedule.first import First, firsts
from ansible_collections.volt.backup.tests.unit._schedule.host import Host

TEMPLATES = Path(__file__).parents[3] / "roles/volt_schedule/templates"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(host_file, "PATH", str(tmp_path / "backup.json"))
    return Host(tmp_path)


def setting(seed: str = "node1") -> units.Setting:
    return units.Setting("/usr/bin/python3", seed, ["/srv/cas", "/srv/backups"], "/var/lib/volt/schedules")


def host_units() -> dict[str, str]:
    """The role's own units, as Ansible would render them where nothing is set but what has a default."""
    found = {}
    for path in sorted(TEMPLATES.glob("volt-cas-*.j2")):
        text = re.sub(r"\{#.*?#\}\s*|\{% from .*? %\}\s*", "", path.read_text(), flags=re.DOTALL)
        text = re.sub(r"\{\{ words\(.*?\) \}\}", '"/usr/local/bin/volt-backup" "gc"', text)
        found[path.stem] = re.sub(r"\{\{ \w+_calendar \}\}", "*-*-* 05:@SPREAD@ UTC", text)
    return {name: units.host_wide(name, text, setting()) for name, text in found.items()}


def test_a_run_waits_for_its_mounts(host: Host) -> None:
    """Also for those to which symbolic links lead."""
    (host.top / "disk").mkdir()
    (host.top / "link").symlink_to(host.top / "disk")
    job = host.job(source=str(host.top / "link"))

    def needs(job: jobs.Job) -> list[str]:
        text = units.service(job, "/usr/bin/python3", "/c", "/records")
        return [word for line in text.splitlines() if line.startswith("RequiresMountsFor=") for word in shlex.split(line.partition("=")[2])]

    assert needs(job) == [str(host.top / name) for name in ("link", "cas", "backups", "disk")]
    assert needs(job._replace(source="/srv/a b"))[0] == "/srv/a b"
    assert needs(job._replace(requires_mounts=False)) == []


def test_units_are_hardened(host: Host, tmp_path: Path) -> None:
    """All of them, by systemd's own judgement. Lines of the user's commands, and of programs that tell people, are outside of it on purpose."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    texts = {f"{host.job().unit}.service": units.service(host.job(), "/usr/bin/python3", "/usr/local/bin/volt-backup", "/var/lib/volt/schedules")}
    texts.update({name: text for name, text in host_units().items() if name.endswith(".service")})
    assert len(texts) == 5
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(tmp_path / name)]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if "unrecognized option" in done.stdout:
            pytest.skip("systemd-analyze is too old to judge what is not loaded")
        assert float(done.stdout.splitlines()[-1].split(":")[1].split()[0]) <= 3.0, (name, done.stdout)
        assert "SyslogIdentifier=volt-backup" in text and re.search("@[A-Z_]+@", text) is None, text


def test_the_alarm_finds_an_interpreter(tmp_path: Path) -> None:
    """Where that of the other units is gone, or is broken, another one of the host."""
    line = next(line for line in host_units()["volt-cas-failure@.service"].splitlines() if line.startswith("ExecStart="))
    words = [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(line.partition("=")[2])]
    assert words[:2] == ["/bin/sh", "-c"] and words[3] == "/usr/bin/python3"
    script = tmp_path / "said"
    script.write_text("import sys; print(sys.executable, sys.argv[1:])")
    broken = tmp_path / "python3.13"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    for python in (sys.executable, str(tmp_path / "gone"), str(broken)):
        done = subprocess.run([*words[:3], python, str(script), "notify", "a b"], stdout=subprocess.PIPE, text=True, check=False)
        assert "['notify', 'a b']" in done.stdout and done.returncode == 0
        assert (python in done.stdout) == (python == sys.executable)


def test_units_use_the_hosts_own_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_SYSTEM", sys.executable)
    assert command.interpreter("/venv/bin/python") == sys.executable
    for other in ("/nonexistent/python3", "/bin/false"):
        monkeypatch.setattr(command, "_SYSTEM", other)
        assert command.interpreter("/venv/bin/python") == "/venv/bin/python"


def test_hosts_collect_at_different_times() -> None:
    text = "[Timer]\nOnCalendar=*-*-* 05:@SPREAD@ UTC"
    times = {seed: units.host_wide("volt-cas-gc.timer", text, setting(seed)) for seed in ("node1", "node2", "node3")}
    assert len(set(times.values())) == 3 and times["node1"] == units.host_wide("volt-cas-gc.timer", text, setting("node1"))
    assert all(re.search(r"05:[0-5]\d:[0-5]\d UTC", found) for found in times.values())


@pytest.mark.parametrize(
    "interval, keep, warns",
    [
        ("6h", {"daily": 7}, True), ("6h", {"daily": 7, "last": 1}, True), ("6h", {"daily": 7, "last": 4}, False), ("6h", {"within": "1d", "daily": 7}, False),
        ("6h", {"within": "1h", "daily": 7}, True), ("1d", {"daily": 7}, False), ("1d", {"weekly": 4}, True), ("30m", {"hourly": 9}, True),
        ("2h", {"hourly": 9}, False), ("6h", {"last": 1}, False), ("6h", {"tags": ["x"]}, False),
    ],
)  # fmt: skip
def test_retention_that_is_coarser_than_the_interval_is_warned_of(host: Host, interval: str, keep: dict[str, Any], warns: bool) -> None:
    job = host.job(interval=interval, keep=keep)
    assert (jobs.coarse(job) is not None) == warns
    planned = host.plan()
    planned = type(planned)([job], [], False, sys.executable, False, False, host.places)
    assert any("deletes the backup before" in text for text in planned.plan()) == warns


def test_retention_that_is_coarser_than_a_calendar_is_warned_of(host: Host) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    for calendar, warns in (("*-*-* 00/6:00:00", True), ("Mon..Fri 03:00 UTC", False), ("*-*-* 03:00 UTC", False), ("*-*-* 03,04:00 UTC", True)):
        assert (jobs.coarse(host.job(interval=None, on_calendar=calendar, keep={"daily": 7})) is not None) == warns, calendar
    assert systemd.period("*-*-* 03,04:00 UTC") == 3600.0 and systemd.period("nonsense") is None
    deadline = status.deadline(host.job(interval=None, on_calendar="*-*-* *:00:00 UTC"), time.time())
    assert deadline is not None and 1800 < deadline - time.time() <= 5400


def test_addresses_are_checked_and_shown_nowhere(host: Host) -> None:
    secret = "https://hc.example.org/SeCrEt?m={reason}&b={backup_id}"
    job = host.job(on_success_url=secret, on_failure_url="http://example.org/SeCrEt")
    done = host.declare(job)
    assert "SeCrEt" not in str(done.diff()) and "SeCrEt" in Path(jobs.path("app", host.places.jobs)).read_text()
    assert not any("SeCrEt" in host.unit(f"volt-backup-app.{kind}").read_text() for kind in ("service", "timer"))
    assert "ExecStartPre" not in host.unit("volt-backup-app.service").read_text()
    host.declare(job._replace(on_start_url="https://example.org"))
    assert "ExecStartPre" in host.unit("volt-backup-app.service").read_text()
    for url in ("ftp://example.org/SeCrEt", "https://example.org/Se CrEt", "https://example.org/SeCrEt{secret}"):
        with pytest.raises(UsageError) as caught:
            host.job(on_start_url=url)
        assert "SeCrEt" not in caught.value.message


@pytest.fixture
def pinged() -> Iterator[tuple[str, list[str]]]:
    """An address, and the paths that were called there; `/500` fails."""
    paths: list[str] = []

    class Ping(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(500 if self.path.startswith("/500") else 200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ping) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", paths
        server.shutdown()


def test_addresses_are_called(host: Host, pinged: tuple[str, list[str]]) -> None:
    url, paths = pinged
    told: list[str] = []
    job = host.job(on_start_url=f"{url}/s", on_success_url=f"{url}/ok/{{workload}}?b={{backup_id}}&t={{duration}}", on_failure_url=f"{url}/500?m={{reason}}")
    hooks.announce(job, "start", {}, told.append)
    hooks.announce(job, "success", hooks.told_of({"backup_id": "app-1", "duration": 1500000000, "total_size": 3}), told.append)
    assert told == []
    hooks.announce(job, "failure", {"reason": "It broke: a&b."}, told.append)
    hooks.announce(host.job(on_start_url="http://127.0.0.1:1/SeCrEt"), "start", {}, told.append)
    assert paths == ["/s", "/ok/app?b=app-1&t=1.500", "/500?m=It%20broke%3A%20a%26b."]
    assert len(told) == 2 and "answered 500" in told[0] and "SeCrEt" not in told[1] and "could not be called" in told[1]


def test_a_first_backup_comes_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    now, later = host.job(first_run="now"), host.job(first_run="spread", interval="6h")
    assert host.job().first_after is None and now.first_after == 0 and 0 <= later.first_after < 6 * 3600
    assert later.first_after != host.job(first_run="spread", jitter_seed="other").first_after
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(systemd, "call", lambda *words: called.append(words))
    monkeypatch.setattr(systemd, "attempt", lambda *words: None)
    assert firsts([host.job()]) == [] and firsts([host.job(first_run="now", enabled=False)]) == []
    (first,) = firsts([now])
    first.begin(host.record(), ("/usr/bin/python3", "/c"))
    assert called == [("systemctl", "start", "--no-block", "--", "volt-backup-app.service")] and host.record().read()["asked"]
    First(later, 77).begin(host.record(), ("/usr/bin/python3", "/c"))
    assert called[1][:4] == ("systemd-run", "--quiet", "--unit=volt-first-app", "--on-active=77s") and called[1][-3:] == ("run", "--quiet", "app")
    (host.source / "a").write_text("1")
    now.manager.create(CreateRequest(workload="app", source=str(host.source)))
    assert firsts([now]) == []


def test_removal_leaves_nothing_and_names_what_others_wrote(host: Host) -> None:
    host.declare(host.job())
    for more, name in (("", "volt-backup-app.service.d"), (".control", "volt-backup-app.timer.d")):
        (host.top / f"units{more}" / name).mkdir(parents=True)
        (host.top / f"units{more}" / name / "50-mine.conf").write_text("[Service]\n")
    planned = host.plan(purge=True)
    again = type(planned)([], [], True, sys.executable, False, False, host.places)
    warnings = again.plan()
    assert "no schedules left" in warnings[0]
    assert len(warnings) == 3 and all("50-mine.conf" in text and "stays" in text for text in warnings[1:])
    again.apply()
    assert not (host.top / "jobs").exists() and not (host.top / "run").exists()
    assert not [path.name for path in (host.top / "records").glob("*") if path.name != "app.json"], "but for the history of runs"
    assert (host.top / "units/volt-backup-app.service.d/50-mine.conf").exists()
    leftovers.sweep([str(host.top)])
    assert host.top.exists()


def test_a_command_that_units_start_is_in_use(host: Host) -> None:
    host.declare(host.job())
    assert units.users(host.places.units, host.places.command) == ["volt-backup-app.service"]
    assert units.users(host.places.units, f"{host.places.command}x") == [] and units.users(str(host.top / "none"), "/c") == []
    host.unit("volt-cas-gc.service").write_text(units.host_wide("volt-cas-gc.service", f'[Service]\nExecStart=@PYTHON@ "{host.places.command}" gc', setting()))
    host.unit("volt-mine.service").write_text(f"[Service]\nExecStart={host.places.command} list\n")
    assert units.users(host.places.units, host.places.command) == ["volt-backup-app.service", "volt-cas-gc.service"]


@pytest.mark.parametrize(
    "url, says",
    [
        ("https://example.org/{x-y}", "has {x-y}, which is unknown"), ("https://example.org/{}", "has {...}"), ("https://example.org/{S3cr3t}", "has {...}"),
        ("https://example.org/{ workload }", "has { workload }"), ("https://example.org/{workload", "brace"), ("https://example.org/workload}", "brace"),
        ("https://example.org/{{workload}}", "brace"), ("https://example.org:port/", "must be a URL"), ("https://example.org:99999/", "must be a URL"),
        ("https:///hook", "must be a URL"), ("https://", "must be a URL"), ("https://me:pw@example.org/", "must be a URL"),
        ("https://me@example.org", "must be a URL"),
        ("https://example.org/ü", "must be a URL"), ("https://example.org/a\nb", "must be a URL"), ("https:/example.org", "must be a URL"),
    ],
)  # fmt: skip
def test_addresses_that_cannot_be_called_are_found_at_declaration(host: Host, url: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        host.job(on_start_url=url)
    assert says in caught.value.message and "S3cr3t" not in caught.value.message
    text = host.job()._replace(on_start_url=url).text()
    assert jobs.parse(text, "app.json").on_start_url == url, "a schedule of before, whose backups go on"
    if "{" not in url and "}" not in url:
        with pytest.raises(UsageError, match="failure webhook"):
            notification.check({"webhook": {"url": url}})


@pytest.mark.parametrize(
    "url", ["http://a", "HTTPS://example.org:8443/x?y={reason}#z", "http://[::1]:80/{workload}", "https://a_b.example.org?{size}", "http://1.2.3.4"]
)
def test_addresses_that_can_be_called(host: Host, url: str) -> None:
    assert host.job(on_failure_url=url).on_failure_url == url


@pytest.mark.parametrize(
    "ways",
    [
        {"mail": {"to": "a@example.org\nBcc: b@example.org"}}, {"mail": {"to": "a@example.org", "smtp": "x", "port": 70000}},
        {"mail": {"to": "a@example.org", "port": -1}}, {"webhook": {"url": "http://a", "headers": {"X": "secret\nY: z"}}},
        {"webhook": {"url": "http://a", "headers": {"X: secret": "z"}}}, {"webhook": {"url": "http://a", "headers": {"X": "€"}}},
    ],
)  # fmt: skip
def test_ways_that_cannot_be_used_are_found_at_declaration(host: Host, ways: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        notification.check(ways)
    assert "secret" not in caught.value.message
    (host.top / "notify.json").write_text(json.dumps(ways))
    assert notification.load(str(host.top / "notify.json")) == ways, "what else is set there is tried"


def test_a_command_is_what_its_path_leads_to(host: Host) -> None:
    """Not how that path is spelt: in the declaration, in the unit, or in the question."""
    directory = host.top / "bin"
    directory.mkdir()
    (directory / "a b%$\\'\"ü").write_text("")
    (host.top / "link").symlink_to(directory)
    (host.top / "same").symlink_to(directory / "a b%$\\'\"ü")
    path = str(directory / "a b%$\\'\"ü")
    spelt = [path, path.replace("bin/", "bin//"), path.replace("/bin/", "/./bin/x/../"), path.replace("/bin/", "/link/"), str(host.top / "same")]
    (directory / "x").mkdir()
    for written in spelt:
        host.unit("volt-backup-app.service").parent.mkdir(exist_ok=True)
        host.unit("volt-backup-app.service").write_text(units.service(host.job(), "/usr/bin/python3", written, str(host.top)))
        for asked in (*spelt, os.fsencode(path).decode("utf-8", "surrogateescape")):
            assert units.users(host.places.units, asked) == ["volt-backup-app.service"], (written, asked)
        assert units.users(host.places.units, path + "x") == [] == units.users(host.places.units, str(directory))
    host.unit("volt-backup-app.service").unlink()
    (directory / "volt").write_text("")
    for line in ("+{}/volt gc", "/bin/sh -c '{}/volt gc'", '/bin/sh -c "exec {}/volt gc; true"', "/usr/bin/python3 \\\n  {}/volt gc"):
        host.unit("volt-cas-gc.service").write_text(f"{units.OURS}\n[Service]\nExecStart={line.format(host.top / 'link')}\n")
        assert units.users(host.places.units, str(directory / "volt")) == ["volt-cas-gc.service"], line


def test_metrics_that_are_spelled_differently_stay(host: Host) -> None:
    path = str(host.top / "volt.prom")
    host.declare(host.job()._replace(metrics=path))
    assert os.path.exists(path)
    host.declare(host.job()._replace(metrics=path.replace("/volt.prom", "//volt.prom")))
    assert os.path.exists(path)
    host.declare(host.job()._replace(metrics=str(host.top / "other.prom")))
    assert not os.path.exists(path) and os.path.exists(host.top / "other.prom")


def test_a_mail_without_sendmail_is_found_at_declaration(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    mail = {"mail": {"to": "a@example.org"}}
    monkeypatch.setattr(notification, "SENDMAIL", str(host.top / "sendmail"))
    assert "no server (smtp) is set" in str(notification.lacking(mail))
    assert notification.lacking({"mail": {"to": "a@example.org", "smtp": "mail"}}) is None
    assert "is not a program" in str(notification.lacking({"command": ["/nonexistent"]})) and notification.lacking({"command": ["/bin/sh"]}) is None
    for path in (host.top / "directory", host.top / "file", host.top / "sendmail"):
        path.write_text("") if path.name == "file" else path.mkdir()
        assert "is not a program" in str(notification.lacking({"command": [str(path)]})), path
    assert "no server (smtp) is set" in str(notification.lacking(mail)), "a directory sends nothing"
    (host.top / "sendmail").rmdir()
    (host.top / "sendmail").write_text("#!/bin/sh\n")
    (host.top / "sendmail").chmod(0o755)
    assert notification.lacking(mail) is None


def test_a_mount_that_failed_is_reported_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd starts no run then, and no line of the unit can say why."""
    shown = {
        "volt-backup-app.service": {"Requires": "srv-data.mount -.mount system.slice", "ActiveState": "inactive", "Result": "success"},
        "srv-data.mount": {"ActiveState": "failed", "Where": "/srv/data"}, "-.mount": {"ActiveState": "active", "Where": "/"},
    }  # fmt: skip
    monkeypatch.setattr(systemd, "running", lambda: True)
    monkeypatch.setattr(systemd, "show", lambda names, *_properties: {name: shown[name] for name in names if name in shown})
    assert systemd.failed_mounts(["volt-backup-app.service"]) == {"volt-backup-app.service": ["/srv/data"]}
    failure = notify._unnoted("app", "volt-backup-app")
    assert failure is not None and failure[0].message.startswith("Mount /srv/data failed") and failure[0].code == "mount_failed"
    shown["srv-data.mount"]["ActiveState"] = "active"
    assert systemd.failed_mounts(["volt-backup-app.service"]) == {} and notify._unnoted("app", "volt-backup-app") is None
    assert isinstance(failure[0], VoltError) and json.dumps(failure[0].message) and os.sep in failure[0].message
