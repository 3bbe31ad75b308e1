# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of drills, in a browser: what it says was proved and what was not, and that no host can do anything with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.volt.backup.plugins.plugin_utils.drill_report import drill_report
from ansible_collections.volt.backup.tests.rigs import browser, fleet_answers

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DAY = fleet_answers.DAY
EVIL = ("<img src=x onerror=alert(1)>", "</style><script>alert(2)</script>", "{{ 1 + 1 }}\u2028\x1b[2J")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.started() as found:
        yield found


def write(path: Path, results: dict[str, Any], days: int = 31) -> Path:
    made = drill_report(results, days)
    json.dumps(made["json"], allow_nan=False)
    path.write_text(made["html"], encoding="utf-8")
    return path


def states(results: dict[str, Any], days: int = 31) -> dict[tuple[str, Any], str]:
    return {(row["host"], row["workload"]): row["state"] for row in drill_report(results, days)["json"]["rows"]}


def test_what_was_proved_and_what_was_not() -> None:
    found = drill_report(fleet_answers.drilled(), 31)["json"]
    assert found["counts"] == {"failed": 1, "not_known": 1, "not_tried": 7, "proved": 3} and found["workloads"] == 12 and found["hosts"] == 4
    rows = {(row["host"], row["workload"]): row for row in found["rows"]}
    assert [row["state"] for row in found["rows"][:2]] == ["failed", "not known"]
    assert rows["web1", "shop"]["reason"].startswith("Its drill command /usr/local/sbin/check-shop: it failed")
    assert [drill["backup_id"] for drill in rows["web1", "shop"]["drills"]] == ["shop-2"]  # the other one was before the period
    assert rows["db1", "etc"]["state"] == "not tried" and rows["db1", "etc"]["last_proved"] is not None
    assert rows["web1", "old"]["reason"] == "It has backups but no schedule, so its drills are not recorded."
    assert rows["nas", None]["reason"] == "The host could not be reached."
    assert [drill["reason"] is None for drill in rows["web1", "mail"]["drills"]] == [False, True] and rows["web1", "mail"]["state"] == "proved"
    assert states(fleet_answers.drilled(), 60)["db1", "etc"] == "proved"
    assert states(fleet_answers.drilled(), 1)["db1", "postgres"] == "not tried"


@pytest.mark.parametrize("look", [{"dark": False}, {"dark": True}, {"size": browser.PHONE}, {"scripts": False}], ids=["light", "dark", "phone", "no scripts"])
@pytest.mark.costly
def test_everybody_can_read_it(chromium: Browser, tmp_path: Path, look: dict[str, Any]) -> None:
    with browser.opened(chromium, write(tmp_path / "report.html", fleet_answers.drilled()), **look) as page:
        assert page.get_by_role("heading", name="Restore drills").is_visible()
        assert page.get_by_text("3 of 12 workloads proved").is_visible() and page.get_by_text("6 drills on 4 hosts").is_visible()
        unproved = page.get_by_role("region", name="Not proved").get_by_role("listitem")
        assert unproved.count() == 9 and "shop" in unproved.first.inner_text() and "table orders is empty" in unproved.first.inner_text()
        proved = page.get_by_role("region", name="Proved", exact=True).locator("tbody tr")
        assert proved.count() == 3
        text = " ".join(proved.all_inner_texts())
        assert all(words in text for words in ("2 unstable file(s)", "1 failed", "1 dump(s) were not loaded", "12s", "47.0 MiB", "passed"))
        assert page.get_by_role("region", name="Each drill").locator("tbody tr").count() == 6
        if look.get("scripts", True):
            assert browser.faults(page) == []


def test_a_host_that_lies(chromium: Browser, tmp_path: Path) -> None:
    evil = "".join(EVIL)
    lately = fleet_answers.time(DAY)
    odd = [
        {"at": "9999-12-31T00:00:00Z"}, {"at": 7, "reason": [1]}, 5, {"at": lately, "reason": evil * 1000, "backup_id": evil},
        {"at": lately, "duration": float("nan"), "total_size": -1, "loaded": [evil] * 99, "not_loaded": {}, "unstable_count": 1e400},
    ]  # fmt: skip
    rows = [fleet_answers.row(name) for name in ("app", *EVIL)]
    results = {
        EVIL[0]: {"schedules": rows, "drills": [{"workload": row["workload"], "drills": odd} for row in rows], "workloads": "x"},
        "b": {"schedules": [5], "drills": [None, {"workload": []}], "workloads": [{"workload": evil}]},
        "c": {"schedules": "x", "drills": 7, "msg": evil}, "d": evil, "e": {"schedules": [], "drills": [{"workload": "a", "drills": [{}] * 100_000}]},
    }  # fmt: skip
    path = write(tmp_path / "report.html", results)
    assert path.stat().st_size < 1_000_000
    with browser.opened(chromium, path) as page:
        assert page.locator("img, script").count() == 0
        assert page.get_by_text(EVIL[0]).first.is_visible()
        assert browser.faults(page) == []


def test_nothing_to_report(chromium: Browser, tmp_path: Path) -> None:
    for results in ({}, {"a": {"schedules": [], "drills": [], "workloads": []}}):
        with browser.opened(chromium, write(tmp_path / "report.html", results)) as page:
            assert page.get_by_text("There are no workloads.").is_visible()


def test_a_host_with_more_than_is_read() -> None:
    many = {"schedules": [fleet_answers.row(f"w{number}") for number in range(1001)], "drills": [], "workloads": []}
    rows = drill_report({"a": many}, 31)["json"]["rows"]
    assert len(rows) == 1001 and rows[0]["state"] == "not known" and rows[0]["reason"] == "The host returned 1001 schedules; the first 1000 are shown."


def test_a_large_fleet_is_bounded(tmp_path: Path) -> None:
    hosts = {}
    for number in range(300):
        hosts[f"node{number}"] = {
            "schedules": [fleet_answers.row("app")], "workloads": [],
            "drills": [{"workload": "app", "drills": [fleet_answers.drill("app-1", at * 3600) for at in range(70, 0, -1)]}],
        }  # fmt: skip
    made = drill_report(hosts, 31)
    assert made["json"]["drills"] == 21_000 and made["html"].count("<tr>") == 1_302 and "20000 earlier drills are in the JSON file" in made["html"]
