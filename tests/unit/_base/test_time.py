# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moments and spans of time as users give them."""

from __future__ import annotations

import datetime
import os
import time

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import time as times
from ansible_collections.volt.backup.plugins.module_utils._base.errors import UsageError
from hypothesis import given, strategies as st

UTC = datetime.timezone.utc


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-23", "2026-11-23T00:00:00.000000Z"),
        ("2026-11-23T10:00:00Z", "2026-11-23T10:00:00.000000Z"),
        ("2026-11-23T10:00:00z", "2026-11-23T10:00:00.000000Z"),
        ("2026-11-23 10:00:00", "2026-11-23T10:00:00.000000Z"),
        ("2026-11-23T10:00", "2026-11-23T10:00:00.000000Z"),
        ("2026-11-23T10:00:00+02:00", "2026-11-23T08:00:00.000000Z"),
        ("2026-11-23T10:00:00-05:30", "2026-11-23T15:30:00.000000Z"),
        ("2026-11-23T10:00:00.123456Z", "2026-11-23T10:00:00.123456Z"),
        ("2026-11-23T10:00:00.123456789Z", "2026-11-23T10:00:00.123456Z"),
        ("2026-11-23T10:00:00.123Z", "2026-11-23T10:00:00.123000Z"),
        ("  2026-11-23  ", "2026-11-23T00:00:00.000000Z"),
        ("2024-02-29", "2024-02-29T00:00:00.000000Z"),
    ],
)
def test_times(text: str, shown: str) -> None:
    assert times.show_time(times.parse_time(text)) == shown


@pytest.mark.parametrize(
    "text", ["", " ", "Z", "z", "now", "yesterday", "2026-13-01", "2025-02-29", "2026-11-23T25:00", "23.11.2026", "2026-11-23T10:00:00ZZ", "\n", "9" * 5000]
)
def test_no_times(text: str) -> None:
    with pytest.raises(UsageError, match="2026-11-23"):
        times.parse_time(text)


@given(st.datetimes(min_value=datetime.datetime(1, 1, 2), max_value=datetime.datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_round_trip(moment: datetime.datetime) -> None:
    if moment.year >= 1000:  # glibc's strftime pads no years
        assert times.parse_time(times.show_time(moment)) == moment


def test_shown_times_sort_as_they_came() -> None:
    first = times.show_time(times.now())
    time.sleep(0.001)
    assert first < times.show_time(times.now())


def test_the_host_s_zone_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert times.show_time(times.parse_time("2026-11-23T10:00")) == "2026-11-23T10:00:00.000000Z"
        assert times.now().utcoffset() == datetime.timedelta(0)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert os.environ.get("TZ") != "Asia/Tokyo"


# ---- spans


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("6h", 21600), ("1d", 86400), ("1d12h", 129600), ("2w", 1209600), ("45s", 45), ("0s", 0), ("1h30m15s", 5415),
     (" 1d ", 86400), ("007m", 420)],
)  # fmt: skip
def test_spans(text: str, seconds: int) -> None:
    assert times.parse_span(text) == datetime.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "1", "d", "1y", "-1d", "1.5h", "1d 12h", "1D", "h1", "1d\n2h", "9" * 30 + "w", "9" * 5000 + "s"]
)
def test_no_spans(text: str) -> None:
    with pytest.raises(UsageError):
        times.parse_span(text)
