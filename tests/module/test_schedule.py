# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What volt_backup_schedule declares and removes, in directories of its own. Runs of what is declared: tests/integration; systemd: tests/fleet."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import host as hosts
from ansible_collections.volt.backup.tests.rigs import need

from .conftest import Host

pytestmark = pytest.mark.usefixtures("scheduling")


def test_one(host: Host) -> None:
    options: dict[str, Any] = {"workload": "app", "source": str(host.tree), "interval": "6h", "max_keep": 3}
    foreseen, done, again = host.twice("volt_backup_schedule", **host.scheduled, **options)
    assert again["diff"] == [] and done["units"] == ["volt-backup-app.service", "volt-backup-app.timer"] == foreseen["units"]
    (timer,) = (part for part in done["diff"] if part.get("after_header", "").endswith(".timer"))
    assert "Persistent=true" in timer["after"] and [part for part in done["diff"] if "Persistent=true" in part.get("after", "")] == [timer]
    assert done["schedules"][0]["next_elapse"].startswith("20")
    assert os.stat(host.top / "jobs/app.json").st_mode & 0o7777 == 0o600
    assert f"{host.top}/volt-backup run app" in (host.top / "units/volt-backup-app.service").read_text()

    link = host.top / "units/timers.target.wants/volt-backup-app.timer"
    assert link.is_symlink()
    _foreseen, disabled, _again = host.twice("volt_backup_schedule", **host.scheduled, **options, enabled=False)
    assert not os.path.lexists(link) and disabled["schedules"][0]["next_elapse"] is None and (host.top / "jobs/app.json").exists()

    host.twice("volt_backup_schedule", **host.scheduled, workload="app", state="absent")
    left = [path for path in host.everything() if os.path.isfile(path) and b"app" in os.path.basename(path)]
    assert left == [os.fsencode(host.top / "records/app.json"), os.fsencode(host.tree / "conf/app.conf")], "the history of runs stays"


def test_dumps_alone(host: Host) -> None:
    """Such a schedule needs no source. One with nothing at all is refused."""
    options: dict[str, Any] = {"workload": "db", "interval": "1h", "dumps": [{"postgresql": {"database": "shop"}}, {"sqlite": {"path": "/srv/app.db"}}]}
    _foreseen, done, _again = host.twice("volt_backup_schedule", **host.scheduled, **options)
    assert done["units"] == ["volt-backup-db.service", "volt-backup-db.timer"]
    assert json.loads((host.top / "jobs/db.json").read_text())["source"] is None
    for more, says in (
        ({"dumps": []}, "Workload db has nothing to back up; set source, command or dumps."),
        ({"snapshot": "auto"}, "Workload db has no source, which snapshot and quiesce need; set it, or set them to none."),
        ({"dumps": [{"sqlite": {"path": "app.db"}}]}, "must be an absolute path, because there is no source"),
    ):
        failure = host.declare(**{**options, **more})
        assert failure["failed"] and failure["code"] == "usage" and says in failure["msg"], failure


def test_several(host: Host) -> None:
    two = {"workload": "two", "source": str(host.tree), "on_calendar": "*-*-* 03:00:00 UTC", "keep": {"daily": 7}}
    options: dict[str, Any] = {
        "schedules": [{"workload": "one", "source": str(host.tree), "interval": "1d"}, two],
        "host_units": {"volt-cas-test.service": "[Service]\nExecStart=@PYTHON@ --version"},
        "on_failure": {"webhook": {"url": "https://127.0.0.1/secret"}},
    }
    _foreseen, done, _again = host.twice("volt_backup_schedule", **host.scheduled, **options)
    assert len(done["schedules"]) == 2 and os.stat(host.top / "notify.json").st_mode & 0o7777 == 0o600
    assert "/secret" in (host.top / "notify.json").read_text() and "/secret" not in json.dumps(done)
    _foreseen, purged, _again = host.twice("volt_backup_schedule", **host.scheduled, schedules=[two], host_units={}, purge=True)
    assert purged["units"] == ["volt-backup-two.service", "volt-backup-two.timer"]
    names = {os.path.basename(path) for path in host.everything() if b"/records/" not in path}
    assert not {name for name in names if b"one" in name} | {b"volt-cas-test.service", b"notify.json"} & names


def test_what_does_not_fit_the_host(host: Host) -> None:
    """Nor do two of a name. What a play makes beforehand is not there in check mode, so that only warns of it."""
    options: dict[str, Any] = {"workload": "app", "source": str(host.tree), "interval": "6h"}
    for more, says in (
        ({"source": f"{host.top}/none"}, "is not a directory: app"),
        ({"runner": f"{host.top}/none"}, "does not exist; install it with volt_runner"),
    ):
        before = host.everything()
        foreseen = host.declare(True, **{**options, **more})
        assert foreseen["changed"] and says in str(foreseen["warnings"])
        failure = host.declare(**{**options, **more})
        assert failure["failed"] and failure["code"] == "usage" and says in failure["msg"]
        assert "command" not in more or "volt_runner" in failure["msg"]
        assert host.everything() == before
    failure = host.declare(schedules=[options, options])
    assert failure["failed"] and failure["code"] == "usage" and "declared twice" in failure["msg"]


def test_somebodys_unit_stays_without_force(host: Host) -> None:
    (host.top / "units").mkdir()
    (host.top / "units/volt-backup-app.timer").write_text("[Unit]\n")
    options: dict[str, Any] = {"workload": "app", "source": str(host.tree), "on_calendar": "daily"}
    for check in (True, False):
        failure = host.declare(check, **options)
        assert failure["failed"] and failure["code"] == "usage" and "volt-backup-app.timer" in failure["msg"]
    assert (host.top / "units/volt-backup-app.timer").read_text() == "[Unit]\n"
    host.twice("volt_backup_schedule", **host.scheduled, **options, force=True)


#: Headers with a secret, whatever they are called and however short it is.
SECRET = ["Authorization", "X-Api-Key", "PRIVATE-TOKEN", "Cookie", "X-Vault", "X-Gotify", "Title", "X-Q"]


@pytest.mark.parametrize("fails", [None, "the module", "a rule", "an option"])
def test_secrets_of_headers_are_hidden_and_other_values_are_not(host: Host, fails: str | None) -> None:
    headers = {name: f"hunter{number}" for number, name in enumerate(SECRET)} | {"X-App": "app", "X-Auth-Name": "tree", "X-Short": "e"}
    told = {"mail": {"to": "a@example.org", "password": "conf"}, "webhook": {"url": "https://127.0.0.1/hook", "headers": {**headers, "X-Same": "conf"}}}
    schedule = {"workload": "app", "source": str(host.tree), "interval": "6h", "on_success_url": "https://127.0.0.1/ping-me"}
    wrong = {"the module": {"interval": "nonsense"}, "a rule": {"source": None}, "an option": {"intervall": 5}}.get(str(fails), {})
    done = host.declare(schedules=[{**schedule, **wrong}], host_units={}, on_failure=told)
    said = json.dumps(done)
    assert not any(secret in said for secret in ("hunter", "/hook", "ping-me", '"conf"')), said
    if fails is not None:
        assert done["failed"] and (fails == "an option" or done["code"] == "usage"), "before a module begins, Ansible blots out even the letter e"
        return
    assert not done.get("failed") and done["units"] == ["volt-backup-app.service", "volt-backup-app.timer"], done
    assert done["invocation"]["module_args"]["schedules"][0]["source"] == str(host.tree)
    assert done["invocation"]["module_args"]["on_failure"]["mail"]["to"] == "a@example.org"
    kept = json.loads((host.top / "notify.json").read_text())["webhook"]["headers"]
    assert kept == {**headers, "X-Same": "conf"}


@pytest.mark.parametrize("check", [True, False], ids=["check mode", "run"])
def test_a_file_system_that_is_read_only_is_reported(host: Host, check: bool) -> None:
    """Check mode says what would happen, and that is nothing."""
    need("mount", root=True)
    options = {"workload": "app", "source": str(host.tree), "interval": "6h"}
    assert not host.declare(True, **options).get("failed")
    place = host.top / "units"
    place.mkdir()
    with read_only(place):
        before = host.everything()
        failure = host.declare(check, **options)
        assert failure["failed"] and f"{place}/volt-backup-app" in failure["msg"] and "read-only file system" in failure["msg"], failure
        failure = host.run("volt_runner", check, path=str(place / "volt-backup"))
        assert failure["failed"] and "cannot be written: read-only file system" in failure["msg"]
        failure = host.run("volt_backup_schedule", check, **{**host.scheduled, **options, "store": f"{place}/cas"})
        assert failure["failed"] and f"read-only file system (making directory {place}/cas)" in failure["msg"], failure
        assert host.everything() == before
    host.run("volt_runner", path=str(place / "volt-backup"))
    with read_only(place):
        assert not host.run("volt_runner", check, path=str(place / "volt-backup")).get("failed"), "it is right as it is"
        failure = host.run("volt_runner", check, path=str(place / "volt-backup"), state="absent")
        assert failure["failed"] and "read-only file system" in failure["msg"]


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[None]:
    for words in (["--bind", str(place), str(place)], ["-o", "remount,bind,ro", str(place)]):
        subprocess.run(["mount", *words], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_hosts_that_declare_for_themselves_differ(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ansible-pull all are localhost: machine id and host name tell them apart. What is told of failures and addresses stays secret."""
    options: dict[str, Any] = {"workload": "app", "source": str(host.tree), "interval": "1d", "randomized_delay": "12h", "jitter_seed": "localhost"}
    calendars = set()
    for name in ("one", "two"):
        monkeypatch.setattr(hosts, "name", lambda name=name: name)
        done = host.declare(True, **options, on_success_url="https://example.org/SeCrEt")
        calendars.add(done["schedules"][0]["calendar"][0])
        assert "SeCrEt" not in json.dumps(done)
    assert len(calendars) == 2
