# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules on a host whose clock really jumps: past slots, over daylight saving and a month's end, through a week without power, and back.

The host is a virtual machine, for containers share this machine's clock. It lives in Berlin and in the future: systemd puts a clock that is
earlier than its own release forward. It is slow, and so it does its work while other tests run.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterable
from typing import Any, Callable

import pytest
from ansible_collections.volt.backup.plugins.module_utils._schedule.slots import DAY, Slots
from ansible_collections.volt.backup.tests.rigs import control, virtual, warm
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet

STORE = ["--store", "/srv/cas", "--backup-dir", "/srv/backups", "--json"]
#: An interval that divides a day, and one whose timer only ticks often enough.
WORKLOADS = {"daily": "1d", "ticking": "36h"}
#: Waits until a timer that is due has started its unit, and until no unit of ours runs; then shows the documents of all backups, a line each.
#: That is no work for volt-backup: here it needs longer to start than all else.
SETTLE = """
sleep 5
while [ -n "$(systemctl list-jobs --no-legend; systemctl list-units --no-legend --state=activating,deactivating 'volt-*')" ]; do sleep 0.5; done
for path in /srv/backups/*.json; do [ ! -e "$path" ] || { tr -d '\\n' <"$path"; echo; }; done
"""
#: Seconds after a slot within which a run must have begun, of slots that are a day apart: the machine is slow.
SLOW = 600


def moment(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).timestamp())


def began(backups: Iterable[dict[str, Any]]) -> dict[str, list[float]]:
    """When the backups of each workload began. All are whole, and made by a schedule."""
    found: dict[str, list[float]] = {name: [] for name in WORKLOADS}
    for backup in backups:
        assert backup["type"] == "scheduled" and backup["complete"], backup
        found[backup["workload_name"]].append(moment(backup["created_at"].replace("Z", "+00:00")))
    return {name: sorted(times) for name, times in found.items()}


class Clockwork:
    """The host, its clock, and when its workloads were backed up."""

    def __init__(self, fleet: Fleet) -> None:
        self.host = fleet.boot("clockwork", "bookworm", virtual.Machine)
        self.host.run("sh", "-c", "ln -sf /usr/share/zoneinfo/Europe/Berlin /etc/localtime; mkdir -p /srv/app; echo 1 >/srv/app/a")
        self._fleet = fleet
        self.slots: dict[str, Slots] = {}

    def declare(self) -> None:
        given = {
            "volt_schedule_workloads": [{"workload": name, "source": "/srv/app", "interval": interval} for name, interval in WORKLOADS.items()],
            "volt_schedule_store": "/srv/cas",
            "volt_schedule_backup_dir": "/srv/backups",
        }
        room = self._fleet.room
        with warm.Ansible(room / "controller") as ansible:
            done = control.Node(self._fleet, room / "ansible", ansible).play("- import_playbook: volt.backup.schedule\n", "-e", json.dumps(given))
        assert done.returncode == 0, done.stdout
        for name in WORKLOADS:
            job = json.loads(self.host.run("cat", f"/etc/volt/backup/{name}.json").stdout)
            self.slots[name] = Slots(job["interval"], job["phase"])

    def now(self) -> float:
        return float(self.host.run("date", "+%s.%N").stdout)

    def set(self, to: float) -> None:
        self.host.run("date", "--set", f"@{to}")

    def runs(self, *awaited: str, more_than: dict[str, list[float]] | None = None) -> dict[str, list[float]]:
        """When backups of each workload began, once nothing runs and nothing waits to run any more.

        :param awaited: workloads that have yet to run more often than is given: the machine is slow.
        """
        until = time.monotonic() + SLOW
        while True:
            found = began(json.loads(line) for line in self.host.run("sh", "-c", SETTLE, timeout=900).stdout.splitlines())
            if all(len(found[name]) > len((more_than or {}).get(name, ())) for name in awaited) or time.monotonic() > until:
                return found

    def is_on_time(self, name: str) -> None:
        """From shortly before the next slot on, one run begins, with the slot. A slot that comes before that is let pass: a jump over it is made up for."""
        before = self.runs()
        if self.slots[name].coming(self.now()) < self.now() + 60:
            before = self.runs(name, more_than=before)
        slot = self.slots[name].coming(self.now() + 60)
        self.set(slot - 3)
        runs = self.runs(name, more_than=before)[name]
        assert slot <= runs[-1] <= slot + SLOW and (len(runs) == 1 or runs[-2] < slot), (name, slot, runs)

    def makes_up_for_one(self, jump: Callable[[], None]) -> None:
        """After a jump past slots of all workloads, each is backed up once, and at once."""
        before = self.runs()
        jump()
        now = self.now()
        after = self.runs(*WORKLOADS, more_than=before)
        for name in WORKLOADS:
            assert len(after[name]) == len(before[name]) + 1 and abs(after[name][-1] - now) <= SLOW, (name, now, after)

    def states(self) -> dict[str, str]:
        return {row["workload"]: row["state"] for row in json.loads(self.host.run("volt-backup", "status", *STORE).stdout)["schedules"]}


def runs_are_on_time(fleet: Fleet) -> None:
    clockwork = Clockwork(fleet)
    clockwork.set(moment("2027-03-24T12:34:56+00:00"))
    clockwork.declare()
    assert clockwork.runs() == {"daily": [], "ticking": []}  # declared, and nothing starts
    clockwork.is_on_time("daily")
    # one that never ran is due at any tick of its timer: the first may come shortly before a slot
    clockwork.host.run("systemctl", "start", "volt-backup-ticking.service", timeout=900)
    clockwork.is_on_time("ticking")
    clockwork.makes_up_for_one(lambda: clockwork.set(moment("2027-03-28T13:00:00+00:00")))  # daylight saving has begun
    clockwork.is_on_time("daily")
    now, runs = clockwork.now(), clockwork.runs()
    clockwork.set(now - 1800)  # back, and all that lies between comes again
    assert clockwork.runs() == runs

    def be_off() -> None:
        clockwork.host.poweroff()
        clockwork.host.clock = datetime.datetime.fromtimestamp(now + 7 * DAY, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        clockwork.host.power_on()

    clockwork.makes_up_for_one(be_off)  # a week, in which March ends
    clockwork.is_on_time("ticking")
    clockwork.is_on_time("daily")
    assert set(clockwork.states().values()) == {"ok"}
    clockwork.host.run("systemctl", "stop", "volt-backup-daily.timer")
    clockwork.set(clockwork.now() + 2 * DAY)  # a few seconds after a slot: what was missed before it is not forgotten
    runs = clockwork.runs()
    assert clockwork.states() == {"daily": "overdue", "ticking": "ok"}
    assert began(json.loads(clockwork.host.run("volt-backup", "list", *STORE).stdout)["backups"]) == runs


@pytest.mark.meanwhile(work=runs_are_on_time)
@pytest.mark.costly
def test_runs_are_on_time_whatever_the_clock_does(outcome: Callable[[], None]) -> None:
    outcome()
