# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd makes of our calendar lines, where clocks are put forward and back, months end and years are leap; and a week without power."""

from __future__ import annotations

import datetime
import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._schedule import record
from ansible_collections.volt.backup.plugins.module_utils._schedule.slots import DAY, Slots, parse_slots

#: An hour or so before what happens: clocks of Berlin and of New York forward and back, ends of February and of a year.
MOMENTS = {
    "Europe/Berlin forward": "2026-03-28 23:30:00",
    "Europe/Berlin back": "2026-10-24 23:30:00",
    "America/New_York forward": "2026-03-08 05:30:00",
    "America/New_York back": "2026-11-01 04:30:00",
    "Pacific/Apia month": "2026-04-30 22:59:59",
    "Europe/Berlin February": "2027-02-28 21:10:00",
    "Europe/Berlin leap day": "2028-02-28 22:00:00",
    "Australia/Lord_Howe year": "2026-12-31 22:00:00",
}
INTERVALS = ("1m", "7m", "30m", "90m", "5h", "6h", "1d", "36h", "1w")


def seconds(text: str) -> int:
    return int(datetime.datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=datetime.timezone.utc).timestamp())


def elapses(lines: list[str], after: str, zone: str, count: int) -> list[int]:
    """When systemd would start a timer of these lines on a host of this zone, as far as all lines are known."""
    found, known = set(), math.inf
    for line in lines:
        done = subprocess.run(
            ["systemd-analyze", "calendar", f"--iterations={count}", f"--base-time={after} UTC", "--", line],
            env={**os.environ, "TZ": zone, "LC_ALL": "C"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        times = [seconds(text) for text in re.findall(r"\(in UTC\): \w+ (\S+ \S+) UTC", done.stdout)]
        assert len(times) == count, done.stdout
        found.update(times)
        known = min(known, times[-1])
    return sorted(time for time in found if time <= known)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("interval", INTERVALS)
def test_systemd_starts_at_the_slots(moment: str, interval: str) -> None:
    slots = parse_slots(interval, "0s" if interval == "1m" else "5m", "host", moment)
    after, zone = MOMENTS[moment], moment.split()[0]
    times = elapses(slots.calendar(), after, zone, 60)
    if not slots.ticks:
        wanted = [slots.coming(seconds(after))]
        while len(wanted) < len(times):
            wanted.append(wanted[-1] + slots.interval)
        assert times == wanted
        return
    step = math.gcd(slots.interval, DAY)
    assert {second - first for first, second in zip(times, times[1:])} == {step}
    due = [time for time in times if (time - slots.phase) % slots.interval == 0]
    assert due == list(range(slots.coming(seconds(after)), times[-1] + 1, slots.interval))


class Clock:
    """A host's clock, and a workload whose timer ticks by it."""

    def __init__(self, directory: Path, slots: Slots, start: int) -> None:
        self.now, self.slots, self._record = float(start), slots, record.RunRecord("app", str(directory))
        self.runs: list[int] = []

    def time(self) -> float:
        return self.now

    def tick(self) -> None:
        if self._record.due(self.slots):
            self._record.begin()
            self.runs.append(int(self.now))
            self._record.succeed({}, "")

    def tick_until(self, end: int) -> None:
        step = math.gcd(self.slots.interval, DAY)
        ticks = Slots(step, self.slots.phase % step)
        while ticks.coming(self.now) <= end:
            self.now = float(ticks.coming(self.now))
            self.tick()


@pytest.mark.parametrize("interval", ["7m", "5h", "36h"])
@pytest.mark.parametrize("moment", ["Europe/Berlin forward", "Europe/Berlin back"])
def test_a_week_without_power_is_made_up_for_by_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: str, moment: str) -> None:
    """The tick that systemd makes up for starts one run, unless no slot has passed; from then on runs begin with their slots."""
    slots = parse_slots(interval, "5m", "host", "app")
    clock = Clock(tmp_path, slots, seconds(MOMENTS[moment]) - 3 * DAY)
    monkeypatch.setattr(record, "time", clock)
    clock.tick()
    clock.tick_until(slots.coming(clock.now) + slots.interval)
    before = len(clock.runs)
    assert all((run - slots.phase) % slots.interval == 0 for run in clock.runs[1:]) and before == 3
    clock.now += 7 * DAY + 1234
    clock.tick()
    clock.tick()
    assert clock.runs[before:] == [int(clock.now)]
    back = int(clock.now)
    clock.tick_until(back + 3 * slots.interval)
    assert clock.runs[before + 1 :] == [slots.coming(back) + number * slots.interval for number in range(3)]


def test_a_clock_that_was_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of the future holds back none; a clock that is put back by less than an interval starts none twice."""
    slots = Slots(3600, 0)
    clock = Clock(tmp_path, slots, 1_000 * 3600 + 10)
    monkeypatch.setattr(record, "time", clock)
    clock.tick()
    clock.now += 365 * DAY
    clock.tick()
    clock.now -= 365 * DAY - 3600
    clock.tick()
    assert len(clock.runs) == 3
    clock.now -= 5
    clock.tick()
    assert len(clock.runs) == 3
