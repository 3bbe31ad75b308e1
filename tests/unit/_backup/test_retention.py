# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups a policy keeps. tests/system/test_prune_restic.py holds the same arithmetic against restic."""

from __future__ import annotations

import datetime
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import retention
from ansible_collections.volt.backup.plugins.module_utils._backup.retention import FUTURE, NEWEST, NO_GOOD, NO_TAGS, NO_TIME, Item
from ansible_collections.volt.backup.plugins.module_utils._base.errors import UsageError
from hypothesis import given, settings, strategies as st

UTC = datetime.timezone.utc
NOW = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Antarctica/Troll", "Pacific/Apia")


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Set the time zone; UTC unless a test says otherwise."""

    def put(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    put("UTC")
    yield put
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def item(text: str | None, good: bool = True, tags: Any = ()) -> Item:
    return Item(text or "?", None if text is None else at(text), tags, good)


def kept(items: list[Item], **keep: Any) -> dict[str, str]:
    """By the name of the backup, which here is its time, the rule that keeps it."""
    rules = retention.decide(retention.parse_policy(keep), items, NOW)
    return {found.id: rule for found, rule in zip(items, rules) if rule is not None}


def good(*texts: str) -> list[Item]:
    return [item(text) for text in texts]


# ---- policies


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ({}, "keep has no rule"),
        ({"last": 0, "daily": 0}, "keep has no rule"),
        (dict.fromkeys(retention.KEYS), "keep has no rule"),
        ({"within": "", "tags": []}, "keep has no rule"),
        ({"within": "0d"}, "keep has no rule"),
        ({"last": -1}, "0 or more (got -1)"),
        ({"last": True}, "0 or more (got True)"),
        ({"last": "3"}, "0 or more (got '3')"),
        ({"weekly": 1.5}, "0 or more (got 1.5)"),
        ({"within": 30}, "such as 30d (got 30)"),
        ({"within": "30"}, "Duration '30' is invalid"),
        ({"within": "1y"}, "Duration '1y' is invalid"),
        ({"within": "9" * 5000 + "d"}, "is too long"),
        ({"tags": "release"}, "list of non-empty strings"),
        ({"tags": [1]}, "list of non-empty strings"),
        ({"tags": [""]}, "list of non-empty strings"),
        ({"last": 1, "newest": 1}, "unknown key 'newest'"),
        ({"last": 1, 5: 1}, "unknown key '5'"),
        ([("last", 1)], "must be a dictionary"),
        ("last", "must be a dictionary"),
        (None, "must be a dictionary"),
    ],
)
def test_refused(keep: Any, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        retention.parse_policy(keep)
    assert says in caught.value.message and "\n" not in caught.value.message


# ---- rules


HISTORY = good(
    "2026-11-22T23:30:00", "2026-11-22T23:10:00", "2026-11-22T08:00:00", "2026-11-21T23:59:59", "2026-11-16T00:00:00", "2026-11-15T23:59:59",
    "2026-10-31T12:00:00", "2026-01-01T00:00:00", "2025-12-31T23:59:59", "2024-12-30T10:00:00", "2020-02-29T10:00:00",
)  # fmt: skip


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ({"last": 1}, {0: "last"}),
        ({"last": 3}, {0: "last", 1: "last", 2: "last"}),
        ({"last": 100}, dict.fromkeys(range(11), "last")),
        ({"hourly": 2}, {0: "hourly 2026-11-22 23:00", 2: "hourly 2026-11-22 08:00"}),
        ({"daily": 3}, {0: "daily 2026-11-22", 3: "daily 2026-11-21", 4: "daily 2026-11-16"}),
        ({"weekly": 3}, {0: "weekly 2026-W47", 5: "weekly 2026-W46", 6: "weekly 2026-W44"}),
        ({"monthly": 3}, {0: "monthly 2026-11", 6: "monthly 2026-10", 7: "monthly 2026-01"}),
        ({"yearly": 9}, {0: "yearly 2026", 8: "yearly 2025", 9: "yearly 2024", 10: "yearly 2020"}),
        ({"within": "1d"}, {0: "within 1d", 1: "within 1d", 2: "within 1d", 3: "within 1d"}),
        ({"within": "20m"}, {0: "within 20m"}),  # what is as old as that is not younger
        ({"within": "20m1s"}, {0: "within 20m1s", 1: "within 20m1s"}),
        ({"within": "99999999w"}, dict.fromkeys(range(11), "within 99999999w")),
        ({"tags": ["x"]}, {0: NEWEST}),
        ({"last": 2, "daily": 2}, {0: "last, daily 2026-11-22", 1: "last", 3: "daily 2026-11-21"}),
    ],
)
def test_rules(keep: dict[str, Any], expected: dict[int, str]) -> None:
    assert kept(HISTORY, **keep) == {HISTORY[number].id: rule for number, rule in expected.items()}


def test_tags_any_of_them() -> None:
    items = [item("2026-01-03T00:00:00"), item("2026-01-02T00:00:00", tags=["a", "b"]), item("2026-01-01T00:00:00", tags=["c"])]
    assert kept(items, tags=["a", "b", "x"]) == {items[0].id: NEWEST, items[1].id: "tag a, tag b"}
    assert kept(items, tags=["c"]).keys() == {items[0].id, items[2].id}


def test_iso_weeks_at_new_year() -> None:
    """2027-01-03 is a Sunday, and in the last week of 2026; 2024-12-30 is a Monday, and in the first of 2025."""
    items = good("2026-01-04T00:00:00", "2025-12-29T00:00:00", "2025-12-28T00:00:00", "2025-01-01T00:00:00", "2024-12-30T00:00:00", "2024-12-29T00:00:00")
    assert kept(items, weekly=9) == {
        items[0].id: "weekly 2026-W01", items[2].id: "weekly 2025-W52", items[3].id: "weekly 2025-W01", items[5].id: "weekly 2024-W52",
    }  # fmt: skip


def test_days_are_local(zone: Any) -> None:
    items = good("2026-07-02T02:00:00", "2026-07-01T23:00:00", "2026-07-01T21:00:00")
    for name, expected in (("UTC", [0, 1]), ("Europe/Berlin", [0, 2]), ("America/New_York", [0]), ("Asia/Kolkata", [0])):
        zone(name)
        assert list(kept(items, daily=9)) == [items[number].id for number in expected], name


def test_hour_that_comes_twice_is_one(zone: Any) -> None:
    zone("Europe/Berlin")
    items = good("2025-10-26T01:30:00", "2025-10-26T00:30:00", "2025-10-25T23:30:00")
    assert kept(items, hourly=9) == {items[0].id: "hourly 2025-10-26 02:00", items[2].id: "hourly 2025-10-26 01:00"}


@pytest.mark.parametrize(
    ("name", "newest", "span", "edge"),
    [
        ("Europe/Berlin", "2025-04-10T12:00:00+02:00", "30d", "2025-03-11T12:00:00+01:00"),
        ("Europe/Berlin", "2025-04-10T12:00:00+02:00", "720h", "2025-03-11T11:00:00+01:00"),
        ("Europe/Berlin", "2025-04-10T12:00:00+02:00", "4w2d", "2025-03-11T12:00:00+01:00"),
        ("Europe/Berlin", "2025-04-10T12:00:00+02:00", "29d24h", "2025-03-11T12:00:00+01:00"),
        ("America/New_York", "2025-11-10T12:00:00-05:00", "10d", "2025-10-31T12:00:00-04:00"),
        ("Asia/Kolkata", "2025-04-10T12:00:00+05:30", "30d", "2025-03-11T12:00:00+05:30"),
        # to a time of day that there was not, or that there was twice
        ("Europe/Berlin", "2025-03-31T02:30:00+02:00", "1d", "2025-03-30T03:30:00+02:00"),
        ("Europe/Berlin", "2025-10-27T02:30:00+01:00", "1d", "2025-10-26T02:30:00+01:00"),
        ("America/New_York", "2025-03-10T02:30:00-04:00", "1d", "2025-03-09T01:30:00-05:00"),
        ("America/New_York", "2025-11-03T01:30:00-05:00", "1d", "2025-11-02T01:30:00-04:00"),
    ],
)
def test_within_goes_by_the_calendar(zone: Any, name: str, newest: str, span: str, edge: str) -> None:
    zone(name)
    second = datetime.timedelta(seconds=1)
    items = [Item("new", at(newest), (), True), Item("in", at(edge) + second, (), True), Item("out", at(edge), (), True)]
    assert list(kept(items, within=span)) == ["new", "in"]


# ---- what is not as it should be


def test_bad_ones_push_nothing_out() -> None:
    items = [item("2026-11-05T00:00:00", good=False), item("2026-11-04T00:00:00", good=False), *good("2026-11-03T00:00:00", "2026-11-02T00:00:00")]
    items += [item("2026-11-01T00:00:00", good=False), *good("2026-10-01T00:00:00")]
    assert kept(items, last=2) == dict.fromkeys([found.id for found in items[:4]], "last")
    assert kept(items, last=1).keys() == {items[0].id, items[2].id}
    assert kept(items, tags=["x"]).keys() == {items[0].id, items[2].id}
    assert kept(items, daily=4).keys() == {found.id for found in items if found != items[4]}, "the bad one of 1 November has four newer ones"
    assert kept(items, monthly=2).keys() == {items[0].id, items[2].id, items[5].id}


def test_the_newest_stable_one_stays_besides() -> None:
    """Of a tree that is always written, each backup is unstable: the last whole one is worth keeping."""
    items = good("2026-11-05T00:00:00", "2026-11-04T00:00:00", "2026-11-03T00:00:00", "2026-11-02T00:00:00", "2026-11-01T00:00:00")
    items[:2] = [found._replace(stable=False) for found in items[:2]]
    days = [found.id for found in items]
    assert kept(items, last=1) == {days[0]: "last", days[2]: "newest stable"}
    assert kept(items, last=3) == dict.fromkeys(days[:3], "last")
    assert kept([found._replace(stable=False) for found in items], last=1) == {days[0]: "last"}
    items[2] = items[2]._replace(good=False)
    assert kept(items, last=1)[days[3]] == "newest stable", "one that is damaged or incomplete is not taken for it"


def test_the_newest_checked_one_stays() -> None:
    items = good("2026-11-04T00:00:00", "2026-11-03T00:00:00", "2026-11-02T00:00:00", "2026-11-01T00:00:00")
    days = [found.id for found in items]
    items[:2] = [found._replace(checked=False) for found in items[:2]]
    assert kept(items, last=1) == {days[0]: "last", days[2]: "newest checked"}
    assert kept([found._replace(checked=False) for found in items], last=1) == {days[0]: "last"}
    items[2] = items[2]._replace(good=False)
    assert kept(items, last=1) == {days[0]: "last", days[3]: "newest checked"}


def test_without_a_good_one_all_stay() -> None:
    items = [item(f"2026-11-0{day}T00:00:00", good=False) for day in (3, 2, 1)]
    assert kept(items, last=1) == {items[0].id: "last", items[1].id: NO_GOOD, items[2].id: NO_GOOD}
    assert kept([], last=1) == {}


def test_future_ones_count_for_nothing() -> None:
    items = good("2099-01-01T00:00:00", "2026-11-24T00:00:00", "2026-11-02T00:00:00", "2026-11-01T00:00:00")
    items.insert(0, item("2098-01-01T00:00:00", good=False))
    future = dict.fromkeys([found.id for found in items[:3]], FUTURE)
    assert kept(items, last=1) == {**future, items[3].id: "last"}
    assert kept(items, within="12h") == {**future, items[3].id: "within 12h"}
    assert kept(items, within="2d").keys() == {found.id for found in items}
    assert kept(items[:3], last=1) == future


def test_what_is_unknown_is_kept() -> None:
    items = [item(None, good=False, tags=None), item("2026-11-01T00:00:00"), item("2026-10-01T00:00:00", good=False, tags=None)]
    assert kept(items, last=1) == {items[0].id: NO_TIME, items[1].id: "last"}
    assert kept(items, last=1, tags=["x"]) == {items[0].id: NO_TIME, items[1].id: "last", items[2].id: NO_TAGS}


@pytest.mark.parametrize("name", ZONES)
def test_ends_of_time(zone: Any, name: str) -> None:
    zone(name)
    items = good("0001-01-02T00:00:00", "0001-01-01T00:00:00", "1890-01-01T00:00:00", "1969-12-31T00:00:00")
    for keep in ({"yearly": 1}, {"hourly": 9, "weekly": 9}, {"within": "700000d"}, {"within": "20000w99999h"}):
        assert kept(items, **keep)[items[3].id]


# ---- properties


MOMENTS = st.one_of(
    st.datetimes(datetime.datetime(2019, 1, 1), datetime.datetime(2027, 6, 1)),
    # close together, about a night when Berlin's clocks go back, and a new year
    st.integers(0, 400).map(lambda minutes: datetime.datetime(2025, 10, 25, 22) + datetime.timedelta(minutes=minutes)),
    st.integers(-200, 200).map(lambda hours: datetime.datetime(2026, 1, 1) + datetime.timedelta(hours=hours)),
).map(lambda moment: moment.replace(tzinfo=UTC))
TAGS = st.one_of(st.none(), st.lists(st.sampled_from("abc"), max_size=2))
ITEMS = st.lists(st.tuples(st.one_of(MOMENTS, MOMENTS, MOMENTS, MOMENTS, st.none()), TAGS, st.booleans()), max_size=25).map(
    lambda rows: [Item(f"b{number}", moment, [] if is_good and tags is None else tags, is_good and moment is not None)
                  for number, (moment, tags, is_good) in enumerate(rows)]
)  # fmt: skip
COUNT = st.sampled_from([0, 0, 0, 1, 2, 3, 7])
POLICIES = st.fixed_dictionaries(
    {}, optional={**{name: COUNT for name in retention.COUNTS}, "within": st.sampled_from(["1h", "36h", "1d", "30d", "52w1h"]),
                  "tags": st.lists(st.sampled_from("abx"), min_size=1, max_size=2)},
).filter(lambda keep: any(keep.values())).map(retention.parse_policy)  # fmt: skip


def verdicts(policy: retention.Policy, items: list[Item]) -> dict[str, str | None]:
    return {found.id: rule for found, rule in zip(items, retention.decide(policy, items, NOW))}


def staying(policy: retention.Policy, items: list[Item]) -> set[str]:
    return {name for name, rule in verdicts(policy, items).items() if rule is not None}


@pytest.mark.parametrize("name", ZONES)
@settings(max_examples=150)
@given(policy=POLICIES, items=ITEMS, seed=st.integers(0, 99))
def test_properties(name: str, policy: retention.Policy, items: list[Item], seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        stays = staying(policy, items)
        of_good = [found for found in items if found.good]
        past = [found for found in of_good if found.moment is not None and found.moment <= NOW]
        if past:
            assert max(past, key=lambda found: (found.moment, found.id)).id in stays, "the newest good one stays"
        assert of_good or stays == {found.id for found in items}, "without a good one all stay"
        assert staying(policy, of_good) == stays & {found.id for found in of_good}, "bad ones make no difference to good ones"
        again = [found for found in items if found.id in stays]
        assert staying(policy, again) == stays, "pruning again removes nothing more"
        for found in items:
            if found.moment is None or found.moment > NOW:
                assert found.id in stays
            if not found.good:
                better = [found._replace(good=True, tags=found.tags or []) if other is found else other for other in items]
                assert not of_good or found.id not in stays or NO_TAGS == verdicts(policy, items)[found.id] or found.id in staying(
                    policy, [other._replace(good=True) for other in better]
                ), "a bad one is held no longer than a good one in its place"
        optimistic = [found._replace(good=True) for found in items]
        if len(staying(policy, optimistic)) == len(items):
            assert len(stays) == len(items), "where all would stay, damage makes no difference"
        shuffled = items[:]
        random.Random(seed).shuffle(shuffled)
        assert verdicts(policy, shuffled) == verdicts(policy, items), "the order of the list makes no difference"
        some = [found for number, found in enumerate(items) if (seed >> number % 7) & 1]
        if any(found.good for found in some):
            assert staying(policy, some) >= stays & {found.id for found in some}, "what is kept among many is kept among fewer"
    time.tzset()
