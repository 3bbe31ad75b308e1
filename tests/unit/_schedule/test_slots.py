# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots against arithmetic by hand, and calendar lines against a reader of systemd's syntax that is not theirs."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import UsageError
from ansible_collections.volt.backup.plugins.module_utils._schedule import systemd
from ansible_collections.volt.backup.plugins.module_utils._schedule.slots import DAY, Slots, parse_slots, phase
from hypothesis import given, strategies as st

MINUTE, HOUR = 60, 3600


def seconds_of_day(lines: list[str]) -> list[int]:
    """All times of day at which calendar lines elapse."""
    found = []
    for line in lines:
        day, clock, zone = line.split(" ")
        assert (day, zone) == ("*-*-*", "UTC")
        hours, minutes, seconds = (
            range(most) if part == "*" else [int(number) for number in part.split(",")] for part, most in zip(clock.split(":"), (24, 60, 60))
        )
        found += [hour * HOUR + minute * MINUTE + second for hour in hours for minute in minutes for second in seconds]
    return found


CALENDARS = {
    (DAY, 0): ["*-*-* 00:00:00 UTC"],
    (6 * HOUR, 221): ["*-*-* 00,06,12,18:03:41 UTC"],
    (90 * MINUTE, 0): ["*-*-* 00,03,06,09,12,15,18,21:00 UTC", "*-*-* 01,04,07,10,13,16,19,22:30 UTC"],
    (15 * MINUTE, 5): ["*-*-* *:00,15,30,45:05 UTC"],
    (MINUTE, 7): ["*-*-* *:*:07 UTC"],
    (7 * HOUR, 61): ["*-*-* *:01:01 UTC"],
    (2 * DAY, DAY + HOUR): ["*-*-* 01:00:00 UTC"],
}


@pytest.mark.parametrize("interval,shift", CALENDARS)
def test_calendar_lines(interval: int, shift: int) -> None:
    wanted = [line if line.count(":") == 2 else line.replace(" UTC", ":00 UTC") for line in CALENDARS[interval, shift]]
    assert Slots(interval, shift).calendar() == wanted


minutes = st.integers(1, 40 * 24 * 60)


@given(minutes, st.integers(0, 10**7))
def test_the_lines_meet_every_slot_and_no_more_where_the_interval_divides_a_day(interval: int, shift: int) -> None:
    slots = Slots(interval * MINUTE, shift % (interval * MINUTE))
    times = seconds_of_day(slots.calendar())
    assert len(times) == len(set(times))
    some = {(slots.phase + number * slots.interval) % DAY for number in range(2000)}
    assert some <= set(times)
    if not slots.ticks:
        assert some == set(times)


@given(minutes, st.integers(0, 10**7), st.integers(0, 4 * 10**9))
def test_slots_begun_and_coming(interval: int, shift: int, moment: int) -> None:
    slots = Slots(interval * MINUTE, shift % (interval * MINUTE))
    begun, coming = slots.begun(moment), slots.coming(moment)
    assert begun <= moment < coming == begun + slots.interval
    assert (begun - slots.phase) % slots.interval == 0


def test_phases_spread_hosts_and_stay() -> None:
    found = [phase(f"host{number}", "app", 300) for number in range(3000)]
    assert {phase("host7", "app", 300) for _again in range(3)} == {found[7]}
    assert set(found) == set(range(300))
    assert max(found.count(second) for second in range(300)) < 35
    assert phase("host", "app", 0) == 0
    assert phase("a", "b", 10**9) != phase("a", "c", 10**9) != phase("b", "c", 10**9)


WRONG = {"0m": "5m", "30s": "0s", "90s": "0s", "-6h": "5m", "6": "5m", "soon": "5m", "": "5m", "400d": "5m", "5m": "5m", "1h": "61m", "2h": "-1m"}


@pytest.mark.parametrize("interval", WRONG)
def test_intervals_and_delays_that_make_no_sense(interval: str) -> None:
    with pytest.raises(UsageError):
        parse_slots(interval, WRONG[interval], "host", "app")


@pytest.mark.parametrize("lines", [parse_slots(text, "5m", "host", "app").calendar() for text in ("6m", "8m", "90m", "7h", "1d", "10d")])
def test_systemd_reads_them(lines: list[str]) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    for line in lines:
        assert "Normalized form" in subprocess.run(["systemd-analyze", "calendar", line], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("text", ["", " ", "daily\nX=1", "$(reboot)", "%h", "a;b", "*-*-* 03:00 `x`"])
def test_calendar_expressions_that_would_break_a_unit(text: str) -> None:
    with pytest.raises(UsageError):
        systemd.check_calendar(text)


def test_a_calendar_expression_is_taken_as_it_is() -> None:
    assert systemd.check_calendar("Mon..Fri *-*-* 03:00:00 UTC") == "Mon..Fri *-*-* 03:00:00 UTC"
