# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a fleet, in a browser: what it shows, how people use it, and that no host can do anything with it."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.volt.backup.plugins.plugin_utils import fleet_page as maker
from ansible_collections.volt.backup.tests.rigs import browser, fleet_answers, picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROWS = "tbody tr"
EVIL = (
    "<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "<!--<script>", "\u2028${alert(3)}{{ 1 + 1 }}", "a\u202eb\x00\x1b[2J",
    "' onclick='alert(4)",
)  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.started() as found:
        yield found


def write(path: Path, results: dict[str, Any], declared: dict[str, Any] | None = None, objectives: dict[str, Any] | None = None) -> Path:
    made = maker.fleet_page(results, declared or {}, objectives or {})
    path.write_text(made["html"], encoding="utf-8")
    json.dumps(made["json"], allow_nan=False)
    return path


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return write(tmp_path / "fleet.html", *fleet_answers.three())


def names(page: Page) -> list[tuple[str, str, str]]:
    """State, host and workload of the rows of the table."""
    found: Any = page.locator(ROWS).evaluate_all("rows => rows.map(row => [...row.children].slice(0, 3).map(cell => cell.innerText.trim()))")
    return [tuple(row) for row in found]


TROUBLE = [
    ("unreachable", "nas", "–"), ("failed", "web1", "shop"), ("stopped", "db1", "volt-cas-gc.timer"), ("too old", "web2", "builds"),
    ("not copied", "web2", "media"), ("not proved", "db1", "etc"),
]  # fmt: skip


def test_what_it_shows(chromium: Browser, three: Path) -> None:
    """Problems first, each with its reason; a row for each workload, with its objectives and its charts."""
    with browser.opened(chromium, three) as page:
        assert page.title() == "Backups: 6 problems on 4 of 4 hosts" and "6 problems" in page.locator("header").inner_text()
        items = page.locator("#problems li").all_inner_texts()
        assert [item.split()[0] for item in items] == ["unreachable", "failed", "stopped", "too", "not", "not"] and "No route to host" in items[0]
        assert "Source /srv/shop does not exist" in items[1] and "run volt-backup run shop" in items[1] and "The newest good backup is 3d2h old" in items[1]
        assert names(page) == [*TROUBLE, *(("ok", host, name) for host, name in (("db1", "postgres"), ("web1", "mail"), ("web1", "wiki"), ("web2", "shop")))]
        shop = page.locator(ROWS).nth(1)
        cells = shop.locator("td").all_inner_texts()
        assert cells[2:6] == ["3d 2h > 26h", "in 3h 53m", "3d of 30d", "9h of 2d"] and "GiB" in cells[6]
        assert [chart.get_attribute("aria-label") for chart in shop.get_by_role("img").all()][:2] == [
            "Sizes of the last 28 backups", "New content of the last 28 backups"
        ]
        days = shop.get_by_role("img").nth(2).get_attribute("aria-label") or ""
        assert days.startswith("Last 90 days: ") and "4 failed" in days and "10 nothing known" in days
        assert page.locator(ROWS).nth(3).locator("td").all_inner_texts()[2] == "none of 26h"


def test_the_same_as_json() -> None:
    told = maker.fleet_page(*fleet_answers.three())["json"]
    assert (told["format"], told["hosts"], told["hosts_in_trouble"], told["trouble"], told["days"]) == (1, 4, 4, 6, 90)
    shop = told["rows"][1]
    assert (shop["host"], shop["workload"], shop["state"], shop["trouble"], shop["missed"]) == ("web1", "shop", "failed", True, ["rpo"])
    assert len(shop["history"]["days"]) == 90 and [len(values) for values in shop["history"]["recent"].values()] == [28] * 4
    assert shop["objectives"] == {"rpo": 93600, "copy_within": 172800, "drill_every": 2592000}


def test_filters(chromium: Browser, three: Path) -> None:
    with browser.opened(chromium, three) as page:
        told = page.get_by_role("main").get_by_role("status")
        page.get_by_label("State").select_option(label="Problems (6)")
        assert names(page) == TROUBLE and told.inner_text() == "6 of 10 rows"
        page.get_by_label("Host", exact=True).fill("WEB")
        assert [row[1] for row in names(page)] == ["web1", "web2", "web2"]
        page.get_by_label("Workload", exact=True).fill("shop")
        assert names(page) == TROUBLE[1:2]
        page.get_by_role("button", name="Clear").click()
        assert len(names(page)) == 10 and told.inner_text() == "10 rows"
        page.get_by_label("Search").fill("longer web1 directory")
        assert names(page) == TROUBLE[1:2], "words of the reason"
        page.get_by_label("Search").fill("nothing like this")
        assert names(page) == [] and page.get_by_text("No row matches.").is_visible() and told.inner_text() == "0 of 10 rows"


def test_sorting(chromium: Browser, three: Path) -> None:
    """What is not known comes last in both directions."""
    with browser.opened(chromium, three) as page:
        assert page.locator("th[aria-sort]").all_inner_texts() == ["State"]
        page.get_by_role("button", name="Host", exact=True).click()
        assert [row[1] for row in names(page)] == ["db1"] * 3 + ["nas"] + ["web1"] * 3 + ["web2"] * 3
        for direction, first in (("ascending", ("web2", "shop")), ("descending", ("web1", "shop"))):
            page.get_by_role("button", name="Newest").click()
            assert page.locator("th[aria-sort]").get_attribute("aria-sort") == direction
            assert names(page)[0][1:] == first and {row[0] for row in names(page)[-3:]} == {"unreachable", "stopped", "too old"}


def test_keys_alone(chromium: Browser, three: Path) -> None:
    """From the first link to a host and back, and a column sorted, without a mouse."""
    with browser.opened(chromium, three) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to all workloads"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "nas"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        sheet = page.get_by_role("dialog", name="web1")
        assert sheet.is_visible() and sheet.get_by_role("heading", level=3).all_inner_texts() == ["shop\nfailed", "mail\nok", "wiki\nok"]
        text = sheet.inner_text()
        assert "Fix the reason, then run volt-backup run shop on the host." in text and "(volt_rpo is 26h)" in text and "every 6h" in text
        assert "Days without a good backup that is stable: " in text and "good backup, deleted since by retention" in text
        page.keyboard.press("Escape")
        assert not sheet.is_visible() and page.evaluate("document.activeElement.textContent") == "web1"
        page.get_by_role("button", name="Workload").focus()
        page.keyboard.press("Enter")
        assert [row[2] for row in names(page)][:3] == ["–", "builds", "etc"]


@pytest.mark.parametrize("size, dark", [(browser.DESK, False), (browser.DESK, True), (browser.PHONE, False)], ids=["light", "dark", "phone"])
@pytest.mark.costly
def test_everybody_can_use_it(chromium: Browser, three: Path, size: tuple[int, int], dark: bool) -> None:
    with browser.opened(chromium, three, size, dark) as page:
        assert browser.faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it must not scroll sideways"
        if size == browser.DESK:
            page.get_by_role("button", name="web1").first.click()
            assert browser.faults(page) == []


def test_without_scripts_and_on_paper(chromium: Browser, three: Path) -> None:
    with browser.opened(chromium, three, scripts=False) as page:
        assert page.locator("#problems li").count() == 6 and page.get_by_role("row").count() == 11
        assert page.get_by_role("row").nth(2).inner_text().split("\t")[:4] == ["failed", "web1", "shop", "3d2h"]
    with browser.opened(chromium, three) as page:
        page.emulate_media(media="print")
        assert page.get_by_role("table").is_visible() and not page.get_by_label("Search").is_visible()


def liar(at: int, text: str) -> dict[str, Any]:
    """A host all of whose texts are this one, and whose numbers are none."""
    wild = {"newest_age": -5, "copied_age": float("nan"), "last_proved": "9999-12-31", "next_elapse": "9999-12-31", "interval": text, "total_size": -1}
    texts = dict.fromkeys(("reason", "source", "newest_id", "on_calendar"), text * 50)
    schedule = {**fleet_answers.row(text), **wild, **texts, "state": [text, "failed", "ok"][at % 3]}
    numbers = [10**400, float("inf"), 2**62, -1] * 100
    recent = {"created_at": ["9999-01-01", 3, text], "states": text, "total_size": numbers, "new_bytes": "x" if at % 2 else [text]}
    day = "9999-01-01" if at % 2 else fleet_answers.time(0)[:10]
    past = {"workload": text, "day": day, "days": text * 90, "kept": ["g"] * 90, "recent": recent if at else [recent] * 100}
    return {"schedules": [schedule], "history": [past, 3, {"workload": [text]}], "problems": [{"what": text, "state": text, "reason": text}], "workloads": text}


def test_a_host_that_lies(chromium: Browser, tmp_path: Path) -> None:
    """Its texts are texts. Nothing runs, nothing is loaded, and the page stays small."""
    hosts = {f"host{at}{text}": liar(at, text) for at, text in enumerate(EVIL)}
    flood = {"schedules": [fleet_answers.row("w")] * 50000, "history": [{"workload": "w", "days": "g" * 10**6, "recent": {"total_size": [1] * 10**6}}] * 5000}
    hosts["deep"] = {"schedules": [fleet_answers.row("w", reason="x" * 10**6, state="y" * 10**6)], "history": {"w": []}}
    path = write(tmp_path / "fleet.html", {**hosts, "flood": flood}, {}, dict.fromkeys(hosts, {"rpo": "1d", "drill_every": "1d", "copy_within": "1d"}))
    assert path.stat().st_size < 900_000 and path.read_text(encoding="utf-8").count("<script") == 2
    with browser.opened(chromium, path) as page:
        page.get_by_label("Host", exact=True).fill("host")
        assert page.locator("img, iframe, [onerror]").count() == 0
        shown = {row[2] for row in names(page)}
        assert {EVIL[0], EVIL[1], EVIL[2], "a\\u202eb\\x00\\x1b[2J", "\\u2028${alert(3)}{{ 1 + 1 }}"} <= shown
        assert page.locator(ROWS).first.get_attribute("onclick") is None
        page.get_by_role("button", name="host0<img").first.click()
        sheet = page.get_by_role("dialog")
        assert EVIL[0] in sheet.inner_text() and sheet.locator("img").count() == 0
    with browser.opened(chromium, path, scripts=False) as page:
        assert page.locator("img, iframe").count() == 0 and EVIL[1] in page.locator("table").inner_text()


def test_only_its_own_script_runs(chromium: Browser, three: Path) -> None:
    """Were there a way to bring markup in, the policy in the page would stop it."""
    text = three.read_text(encoding="utf-8")
    three.write_text(text.replace("<main>", "<main><script>document.title = 'broken'</script><img src='x.png' onerror='document.title = 1'>"), encoding="utf-8")
    with pytest.raises(AssertionError, match="Content Security Policy"), browser.opened(chromium, three) as page:
        assert page.title().startswith("Backups: ") and len(names(page)) == 10


@pytest.mark.parametrize(
    "results, words, rows",
    [
        ({}, ["No problems", "on 0 hosts", "There are no hosts."], 0),
        ({"web": {"schedules": []}}, ["No problems", "on 1 host", "0 workloads", "no schedules"], 1),
        ({"web": fleet_answers.answer(fleet_answers.row("app"))}, ["No problems", "1 workload", "app"], 1),
        ({"web": {"unreachable": True, "msg": "off"}}, ["1 problem", "on 1 of 1 host", "unreachable"], 1),
        ({"web": {"schedules": [fleet_answers.row("app")]}}, ["No problems", "app"], 1),
    ],
)  # fmt: skip
def test_small_fleets(chromium: Browser, tmp_path: Path, results: dict[str, Any], words: list[str], rows: int) -> None:
    with browser.opened(chromium, write(tmp_path / "fleet.html", results)) as page:
        text = page.locator("body").inner_text()
        assert [word for word in words if word not in text] == [] and page.locator(ROWS).count() == rows


def test_an_old_page_says_so(chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker, "now", lambda: datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=3))
    with browser.opened(chromium, write(tmp_path / "fleet.html", {})) as page:
        assert page.get_by_text("This page is 3d old.").is_visible()


def test_days_of_yesterday() -> None:
    """A host that was asked before midnight, or whose clock is ahead."""
    today = datetime.date(2026, 11, 24)
    row = {"days": "u" + "g" * 88 + "f", "kept": "-" * 90}
    wanted = {"2026-11-24": row["days"], "2026-11-23": "g" * 88 + "f-", "2026-11-25": "-u" + "g" * 88, "2026-08-01": None, "2027-01-01": None}
    assert {day: maker._history({**row, "day": day}, today)["days"] for day in wanted} == wanted


def test_a_thousand_hosts(chromium: Browser, tmp_path: Path, record_property: Any) -> None:
    """They load and filter in a second, on a machine that does nothing else; that is told, and not judged here."""
    began = time.process_time()
    path = write(tmp_path / "fleet.html", *fleet_answers.many(1000, 5))
    made = time.process_time() - began
    with browser.opened(chromium, path) as page:
        loaded = page.evaluate("performance.getEntriesByType('navigation')[0].domComplete")
        assert page.get_by_role("main").get_by_role("status").inner_text() == "5,000 rows" and 50 <= page.locator(ROWS).count() < 1000
        # until the next frame is drawn
        filtered: Any = page.evaluate("""async () => {
            const box = document.querySelector("input"), began = performance.now();
            box.value = "node07 db";
            box.dispatchEvent(new Event("input"));
            await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
            return performance.now() - began;
        }""")
        assert page.get_by_role("main").get_by_role("status").inner_text() == "100 of 5,000 rows"
        page.get_by_label("Search").fill("")
        page.get_by_role("button", name="Show more").scroll_into_view_if_needed()
        page.locator(ROWS).nth(60).wait_for()
        page.get_by_label("State").select_option(label="failed (20)")
        assert len(names(page)) == 20
    said = f"made in {made:.2f} s of CPU, {path.stat().st_size / 1e6:.1f} MB, loaded in {loaded:.0f} ms, filtered in {filtered:.0f} ms"
    record_property("thousand hosts", said)
    print(f"1,000 hosts with 5 workloads: {said}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pictures(chromium: Browser, tmp_path: Path, dark: bool) -> None:
    """What the README shows; VOLT_PICTURES=write makes it anew."""
    path = picture.PICTURES / f"fleet-{'dark' if dark else 'light'}.png"
    if os.environ.get("VOLT_PICTURES") == "write":
        with browser.opened(chromium, write(tmp_path / "fleet.html", *fleet_answers.pictured()), (1200, 900), dark) as page:
            page.screenshot(path=path)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 150_000
