# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and times as users give them."""

from __future__ import annotations

import datetime
import os
import time

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import names
from ansible_collections.volt.backup.plugins.module_utils._store.errors import UsageError
from hypothesis import given, strategies as st

UTC = datetime.timezone.utc
MOMENT = datetime.datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize("name", ["a", "A", "0", "web", "web-1", "a.b_c-D", "a" * 128, "9..9", "a--", "CON"])
def test_workloads(name: str) -> None:
    assert names.check_workload(name) == name


HOSTILE = ["", "/", "..", ".", "a/b", "../a", "a\nb", "a\n", "\na", "a" * 129, "-a", "_a", ".a", " a", "a ", "a b"]
HOSTILE += ["ä", "a\0", "a\\b", "a;b", "a%b", "$a", "*", "٣"]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_workloads(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        names.check_workload(name)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "a" * 129] + ["a" * 202])
def test_no_ids(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        names.check_id(name)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("kind", names.TYPES)
@pytest.mark.parametrize("number", [1, 2, 1000])
def test_new_ids_are_ids(kind: str, number: int) -> None:
    made = names.new_id("w" * 128, MOMENT, kind, number)
    assert names.check_id(made) == made
    assert made == f"{'w' * 128}-20261123-100000-{kind}" + (f"-{number}" if number > 1 else "")
    assert len(f"{made}-{'0' * 12}.json") <= 255  # a manifest's file name


@pytest.mark.parametrize("kind", ["manual", "scheduled", "snapshot", "pre-deploy"])
def test_types(kind: str) -> None:
    assert names.check_type(kind) == kind


@pytest.mark.parametrize("kind", ["", "Manual", "manual ", "pre_deploy", "weekly", "manual\n"])
def test_no_types(kind: str) -> None:
    with pytest.raises(UsageError, match="pre-deploy"):
        names.check_type(kind)


# ---- times


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
    assert names.show_time(names.parse_time(text)) == shown


@pytest.mark.parametrize(
    "text", ["", " ", "Z", "z", "now", "yesterday", "2026-13-01", "2025-02-29", "2026-11-23T25:00", "23.11.2026", "2026-11-23T10:00:00ZZ", "\n", "9" * 5000]
)
def test_no_times(text: str) -> None:
    with pytest.raises(UsageError, match="2026-11-23"):
        names.parse_time(text)


@given(st.datetimes(min_value=datetime.datetime(1, 1, 2), max_value=datetime.datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_round_trip(moment: datetime.datetime) -> None:
    if moment.year >= 1000:  # glibc's strftime pads no years
        assert names.parse_time(names.show_time(moment)) == moment


def test_shown_times_sort_as_they_came() -> None:
    first = names.show_time(names.now())
    time.sleep(0.001)
    assert first < names.show_time(names.now())


def test_the_host_s_zone_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert names.show_time(names.parse_time("2026-11-23T10:00")) == "2026-11-23T10:00:00.000000Z"
        assert names.now().utcoffset() == datetime.timedelta(0)
        assert names.new_id("w", MOMENT, "manual", 1) == "w-20261123-100000-manual"
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
    assert names.parse_span(text) == datetime.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "1", "d", "1y", "-1d", "1.5h", "1d 12h", "1D", "h1", "1d\n2h", "9" * 30 + "w", "9" * 5000 + "s"]
)
def test_no_spans(text: str) -> None:
    with pytest.raises(UsageError):
        names.parse_span(text)


@pytest.mark.parametrize(
    ("tags", "wanted", "matches"),
    [([], [], True), (["a"], [], True), ([], ["a"], False), (["a", "b"], ["b"], True), (["a", "b"], ["b", "a", "b"], True),
     (["a"], ["a", "b"], False), (["ab"], ["a"], False)],
)  # fmt: skip
def test_tags(tags: list[str], wanted: list[str], matches: bool) -> None:
    assert names.matches_tags(tags, wanted) is matches
