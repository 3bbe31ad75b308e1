# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""200 timers of one host elapse in the same second, beside a run that stands still, lists, restores, creates and collections. None waits for another.

Long mode only: 200 runs, and as many commands as fit beside them, keep a machine busy for minutes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from ansible_collections.volt.backup.tests.rigs import control, sample, warm
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet, Host

COUNT = 200
#: Seconds that a command may wait for others. How long it takes is another thing: 200 runs at once leave little of a processor for each.
WAIT = 5
PLACES = ("--store", "/srv/cas", "--backup-dir", "/srv/backups", "--lock-timeout", str(WAIT))
#: Each workload has its own files, some of which all have.
FURNISH = f"""
import os
for number in range({COUNT}):
    os.makedirs(f"/srv/data/{{number}}")
    for name in range(20):
        with open(f"/srv/data/{{number}}/{{name}}", "wb") as file:
            file.write(os.urandom(2000) if name % 2 else b"%d of all" % name)
"""


@pytest.fixture
def host(fleet: Fleet) -> Iterator[Host]:
    host = fleet.boot("timers", "bookworm")
    host.ready()
    yield host
    host.kill()


def _declare(host: Host, fleet: Fleet, room: Path, ansible: warm.Ansible, when: str) -> None:
    node = control.Node(fleet, room / "node", ansible, [host])
    variables = {
        "volt_schedule_store": "/srv/cas", "volt_schedule_backup_dir": "/srv/backups", "volt_schedule_lock_timeout": WAIT,
        "volt_schedule_workloads": [
            {"workload": f"w{number}", "source": f"/srv/data/{number}", "on_calendar": when, "randomized_delay": "0"} for number in range(COUNT)
        ],
    }  # fmt: skip
    (room / "vars.json").write_text(json.dumps(variables), encoding="utf-8")
    play = room / "declare.yml"
    play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": ["volt.backup.volt_runner", "volt.backup.volt_schedule"]}]), encoding="utf-8")
    done = node.run("ansible-playbook", str(play), "-e", f"@{room / 'vars.json'}")
    assert done.returncode == 0, done.stdout


class Beside:
    """Commands that a user gives meanwhile, one after another, a thread for each kind; how long each took."""

    def __init__(self, host: Host) -> None:
        self._host, self._stop = host, threading.Event()
        self.took: dict[str, list[float]] = {}
        self.failures: list[str] = []
        calls = {
            "list": ("list", *PLACES),
            "restore": ("restore", "w0", "--target", "/srv/restored", "--force", *PLACES),
            "create": ("create", "beside", "--source", "/srv/data/1", *PLACES),
            "gc": ("gc", "--grace", "0s", *PLACES),
        }
        self._threads = [threading.Thread(target=self._again, args=item) for item in calls.items()]

    def _again(self, name: str, words: tuple[str, ...]) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            done = self._host.run("volt-backup", *words, check=False)
            self.took.setdefault(name, []).append(time.monotonic() - began)
            if done.returncode:
                self.failures.append(f"{name}: {done.returncode} {done.stderr}")

    def __enter__(self) -> Beside:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def _unfinished(host: Host) -> int:
    """Schedules that have no backup yet."""
    found = json.loads(host.run("volt-backup", "list", *PLACES, "--json").stdout)["backups"]
    return COUNT - len({one["workload_name"] for one in found if one["workload_name"].startswith("w") and one["id"].endswith("scheduled")})


def many_timers(host: Host, fleet: Fleet, room: Path, ansible: warm.Ansible) -> None:
    host.run("python3", "-", stdin=FURNISH)
    _declare(host, fleet, room, ansible, "2100-01-01 00:00:00")  # none yet
    host.run("volt-backup", "create", "w0", "--source", "/srv/data/0", *PLACES)
    slow = f"volt-backup create slow --source /usr {' '.join(PLACES)}"
    host.run("sh", "-c", f"setsid {slow} >/srv/slow.log 2>&1 & echo $! >/srv/slow.pid; sleep 1; kill -STOP $!")
    slot = datetime.now(timezone.utc) + timedelta(seconds=60)
    _declare(host, fleet, room, ansible, slot.strftime("%Y-%m-%d %H:%M:%S UTC"))
    assert datetime.now(timezone.utc) < slot
    assert host.run("cut", "-d ", "-f3", "/proc/" + host.run("cat", "/srv/slow.pid").stdout.strip() + "/stat").stdout.strip() == "T"
    while datetime.now(timezone.utc) < slot:
        time.sleep(0.2)
    began = time.monotonic()
    with Beside(host) as beside:
        while _unfinished(host):
            assert time.monotonic() - began < 600, host.run("systemctl", "--no-pager", "list-jobs").stdout
            time.sleep(1)
        host.run("sh", "-c", "while systemctl list-units --no-legend --state=activating 'volt-backup-w*.service' | grep -q .; do sleep 0.2; done")
    cost = time.monotonic() - began
    longest = {name: round(max(found), 2) for name, found in beside.took.items()}
    print(f"{COUNT} timers in {cost:.0f} s; {({name: len(found) for name, found in beside.took.items()})} beside them, the longest took {longest} s")
    assert not beside.failures, beside.failures
    failed = host.run("systemctl", "--no-legend", "--plain", "--state=failed", "list-units", "volt-backup-*").stdout
    assert not failed, failed
    host.run("sh", "-c", "kill -CONT $(cat /srv/slow.pid); while kill -0 $(cat /srv/slow.pid) 2>/dev/null; do sleep 0.2; done")
    assert "slow" in host.run("volt-backup", "list", "slow", *PLACES).stdout, host.run("cat", "/srv/slow.log").stdout
    assert json.loads(host.run("volt-backup", "verify", "--content", *PLACES, "--json", timeout=600).stdout)["damage"] == []


if sample.LONG:

    def test_many_timers(host: Host, fleet: Fleet, tmp_path: Path, controller: warm.Ansible) -> None:
        many_timers(host, fleet, tmp_path, controller)
