# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention against restic's: the same timelines and policies, and restic itself as the judge.

restic counts days in the zone that a snapshot was recorded in. So each timeline is recorded in the offset that its zone had at the moment, and
judged under that zone, which is what ours does with moments in UTC. The timelines are restic's hosts, all in one repository.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import retention
from ansible_collections.volt.backup.plugins.module_utils._base.time import now, parse_time
from ansible_collections.volt.backup.tests.rigs import Unavailable, need, sample

BERLIN, NEW_YORK, KOLKATA = "Europe/Berlin", "America/New_York", "Asia/Kolkata"
#: Zones of a single offset: no other way leads to both of the times that a clock shows twice in a night.
FIXED = {"+02": "Etc/GMT-2", "+01": "Etc/GMT-1", "-04": "Etc/GMT+4", "-05": "Etc/GMT+5", "+0530": KOLKATA}

TIMELINES = {
    # its newest one, less a day, is in the hour that there was not
    ("spring", BERLIN): [
        "2020-12-28 00:00:00+01", "2021-01-03 23:59:59+01", "2021-01-04 00:00:00+01", "2024-02-29 23:30:00+01", "2024-03-01 00:30:00+01",
        "2024-12-29 12:00:00+01", "2024-12-30 12:00:00+01", "2025-01-01 00:30:00+01", "2025-03-01 02:30:01+01", "2025-03-01 03:30:00+01",
        "2025-03-30 00:30:00+01", "2025-03-30 01:30:01+01", "2025-03-30 03:30:00+02", "2025-03-30 03:30:01+02", "2025-03-31 00:10:00+02",
        "2025-03-31 00:50:00+02", "2025-03-31 02:30:00+02",
    ],
    # its newest one, less a day, was twice
    ("autumn", NEW_YORK): [
        "2022-01-01 22:00:00-05", "2023-01-01 10:00:00-05", "2023-12-31 20:00:00-05", "2025-10-04 00:30:00-04", "2025-10-04 01:30:01-04",
        "2025-10-31 23:30:00-04", "2025-11-01 12:00:00-04", "2025-11-02 01:29:59-04", "2025-11-02 01:30:00-04", "2025-11-02 01:30:01-04",
        "2025-11-02 01:30:00-05", "2025-11-02 01:30:01-05", "2025-11-03 01:30:00-05",
    ],
    ("autumn", BERLIN): ["2025-10-26 02:30:00+02", "2025-10-26 02:30:01+02", "2025-10-26 02:30:00+01", "2025-10-26 02:30:01+01", "2025-10-27 02:30:00+01"],
    ("spring", NEW_YORK): ["2025-03-09 01:29:00-05", "2025-03-09 01:30:01-05", "2025-03-09 03:30:01-04", "2025-03-10 02:30:00-04"],
    ("dense", KOLKATA): [
        "2024-05-31 23:59:00+0530", "2024-06-01 00:01:00+0530", "2024-06-02 05:29:00+0530", "2024-06-02 05:31:00+0530", "2024-06-02 06:00:00+0530",
        "2024-06-02 06:59:59+0530", "2024-06-02 07:00:00+0530",
    ],
}  # fmt: skip
#: restic takes a second for each of their backups.
TAKEN = dict(sample.some(list(TIMELINES.items()), 1, "timelines"))
TAGGED = {"2021-01-04 00:00:00+01": "release", "2025-10-04 00:30:00-04": "release", "2024-06-02 06:00:00+0530": "other"}

POLICIES: list[dict[str, Any]] = [
    {"last": 3},
    {"hourly": 4},
    {"daily": 4},
    {"weekly": 5},
    {"monthly": 4},
    {"yearly": 99},
    {"within": "1d"},
    {"within": "24h"},
    {"within": "30d"},
    {"within": "29d24h", "yearly": 2},
    {"last": 2, "hourly": 3, "daily": 3, "weekly": 3, "monthly": 3, "yearly": 3},
    {"tags": ["release", "other"], "weekly": 1},
]


class Restic:
    """One repository."""

    def __init__(self, top: Path) -> None:
        self._environment = {**os.environ, "RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": str(top / "repository"), "RESTIC_CACHE_DIR": str(top / "cache")}
        self._source = top / "source"
        self._source.mkdir()
        (self._source / "file").write_text("x")
        self("init")

    def __call__(self, *words: str, zone: str = "UTC") -> str:
        run = subprocess.run(
            ["restic", *words], env={**self._environment, "TZ": zone}, cwd=self._source, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True
        )
        return run.stdout

    def back_up(self, host: str, written: str) -> None:
        tag = ["--tag", TAGGED[written]] if written in TAGGED else []
        self("backup", "--quiet", "--force", "--host", host, "--time", written[:19], *tag, ".", zone=FIXED[written[19:]])

    def forget(self, hosts: list[str], zone: str, keep: dict[str, Any]) -> dict[str, dict[datetime.datetime, set[str]]]:
        """For each host, of what is kept, the rules by the snapshot's time."""
        words = [f"--host={host}" for host in hosts]
        for name, value in keep.items():
            words += [f"--keep-tag={tag}" for tag in value] if name == "tags" else [f"--keep-{name}={value}"]
        groups = json.loads(self("forget", "--dry-run", "--json", "--group-by", "host", *words, zone=zone))
        return {group["host"]: {moment(row["snapshot"]): set(map(rule_of, row["matches"])) for row in group["reasons"] or []} for group in groups}


def moment(snapshot: dict[str, Any]) -> datetime.datetime:
    return parse_time(snapshot["time"])


def rule_of(text: str) -> str:
    """A rule by its first word; restic says `has tags`."""
    return {"has": "tag"}.get(text.split()[0], text.split()[0])


@pytest.fixture(scope="module")
def restic(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A repository with all timelines in it."""
    try:
        need("restic")
    except Unavailable as lack:  # in a fixture nobody turns it into a skip
        pytest.skip(str(lack))
    made = Restic(tmp_path_factory.mktemp("restic"))
    jobs = [(f"{season}-{zone.replace('/', '-')}", written) for (season, zone), timeline in TAKEN.items() for written in timeline]
    with concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        list(pool.map(lambda job: made.back_up(*job), jobs))
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def put(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


def ours(snapshots: list[dict[str, Any]], keep: dict[str, Any]) -> dict[datetime.datetime, set[str]]:
    items = [retention.Item(found["time"], moment(found), found.get("tags") or [], True) for found in snapshots]
    rules = retention.decide(retention.parse_policy(keep), items, now())
    return {moment(found): set(map(rule_of, text.split(", "))) for found, text in zip(snapshots, rules) if text is not None}


def test_the_same_is_kept(restic: Restic, clock: Any) -> None:
    snapshots = json.loads(restic("snapshots", "--json"))
    assert len(snapshots) == sum(map(len, TAKEN.values()))
    keeps_oldest = tuple(map(int, re.findall(r"\d+", restic("version"))[:2])) >= (0, 16)
    looked = 0
    policies = sample.some(POLICIES, 6, "restic")
    for zone in sorted({zone for _season, zone in TAKEN}):
        hosts = [f"{season}-{zone.replace('/', '-')}" for season, where in TAKEN if where == zone]
        clock(zone)
        for keep in policies:
            theirs = restic.forget(hosts, zone, keep)
            assert sorted(theirs) == sorted(hosts)
            for host in hosts:
                timeline = sorted((found for found in snapshots if found["hostname"] == host), key=moment)
                expected, found = theirs[host], ours(timeline, keep)
                if keeps_oldest:  # and 0.14 does not; see retention.py
                    expected.pop(moment(timeline[0]), None)
                    found.pop(moment(timeline[0]), None)
                assert found == expected, (host, keep)
                looked += len(timeline)
    assert looked == len(snapshots) * len(policies)


def test_a_day_is_the_time_zones_in_retention(clock: Any) -> None:
    """The judge above would see it if the zone made no difference at all."""
    moments = [datetime.datetime(2025, 7, 1, hour, tzinfo=datetime.timezone.utc) for hour in (21, 23)]
    rows = [{"time": found.isoformat()} for found in moments]
    counts = {}
    for zone in (BERLIN, "UTC"):
        clock(zone)
        counts[zone] = len(ours(rows, {"daily": 9}))
    assert counts == {BERLIN: 2, "UTC": 1}
