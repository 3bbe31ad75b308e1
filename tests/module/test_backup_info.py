# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What volt_backup_info finds, looks into, and calls damaged."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from .conftest import LANDING, ODD, SOUND, Host


@pytest.fixture
def three(host: Host) -> list[dict[str, Any]]:
    """Three backups, oldest first."""
    host.furnish()
    one = host.back_up(tags=["daily", "blue"])
    (host.tree / "conf/app.conf").write_text("port = 8080\n")
    two = host.back_up(type="pre-deploy", tags=["daily"])
    return [made["backup"] for made in (one, two, host.back_up(workload="other", source=f"{host.tree}/conf"))]


def test_nothing(host: Host) -> None:
    before = host.everything()
    nothing = host.info(include=["changes", "store"])
    assert not nothing["changed"] and (nothing["backups"], nothing["count"], nothing["changes"]) == ([], 0, {})
    assert not nothing["store"]["exists"] and nothing["store"]["ratio"] is None
    assert host.everything() == before


def test_all(host: Host, three: list[dict[str, Any]]) -> None:
    for check in (True, False):
        result = host.run("volt_backup_info", check)
        assert not result["changed"] and result["count"] == 3
        assert result["backups"] == [{**backup, **SOUND, "checked_at": found["checked_at"]} for backup, found in zip(reversed(three), result["backups"])]
        assert not {"contents", "changes", "store"} & set(result)


def test_filters(host: Host, three: list[dict[str, Any]]) -> None:
    one, two, _three = three
    wanted: list[tuple[dict[str, Any], list[int]]] = [
        ({"workload": "app"}, [2, 1]),
        ({"workload": "nobody"}, []),
        ({"type": "pre-deploy"}, [2]),
        ({"tags": "daily"}, [2, 1]),
        ({"tags": "blue,daily"}, [1]),
        ({"tags": "blue,red"}, []),
        ({"id": one["id"]}, [1]),
        ({"id": one["id"], "workload": "other"}, []),
        ({"id": "unknown"}, []),
        ({"host": one["host"]}, [3, 2, 1]),
        ({"host": "elsewhere.example"}, []),
        ({"since": two["created_at"]}, [3, 2]),
        ({"until": two["created_at"]}, [2, 1]),
        ({"since": "2999-01-01"}, []),
        ({"until": "1999-12-31T23:59:59+02:00"}, []),
        ({"limit": 2}, [3, 2]),
        ({"workload": "app", "limit": 1}, [2]),
    ]
    numbers = {backup["id"]: number for number, backup in enumerate(three, 1)}
    found = [(options, host.info(**options)) for options, _numbers in wanted]
    assert [(options, [numbers[backup["id"]] for backup in result["backups"]]) for options, result in found] == wanted
    assert not any(result["changed"] for _options, result in found)


def test_look_inside(host: Host, three: list[dict[str, Any]]) -> None:
    one, two, _three = three
    looked = host.info(id=one["id"], include=["contents", "changes", "store"])
    contents, store = looked["contents"], looked["store"]
    assert not looked["changed"] and looked["count"] == 1
    assert (contents["count"], contents["more"], len(contents["entries"]), contents["entries"][0]["path"]) == (15, 0, 15, ".")
    entries = {entry["path"]: entry for entry in contents["entries"]}
    app = entries["conf/app.conf"]
    assert (app["type"], app["size"], app["mtime"]) == ("file", 10, "1969-07-20T20:17:40.123456789Z") and LANDING % 10**9 == 123456789
    assert ODD in entries and entries["conf/old.conf"]["mode"] == "4755"
    assert {name: entries[name]["type"] for name in ("data", "data/link", "data/pipe")} == {"data": "directory", "data/link": "symlink", "data/pipe": "fifo"}
    assert entries["data/link"]["target"] == "../conf/app.conf" and entries["data/sparse"]["size"] == 20 << 20
    assert looked["changes"] == {one["id"]: None}
    assert store["exists"] and store["path"] == os.path.realpath(host.store)
    assert (store["format"], store["features"]["required"], store["backups"]) == (2, ["claims"], 3)
    for total, part in (("logical_bytes", "total_size"), ("stored_bytes", "stored_bytes")):
        assert store[total] == sum(backup[part] for backup in three)
    assert store["ratio"] > 1

    beginning = host.info(id=one["id"], include="contents", diff_limit=3)["contents"]
    assert beginning == {**beginning, "entries": contents["entries"][:3], "count": 15, "more": 12}
    unknown = host.info(id="unknown", include="contents")
    assert unknown["count"] == 0 and unknown["contents"] is None
    changes = host.info(workload="app", include="changes")["changes"]
    assert changes[one["id"]] is None
    second = changes[two["id"]]
    assert (second["since"], second["changed"], second["counts"]) == (one["id"], ["conf/app.conf"], {"added": 0, "changed": 1, "removed": 0})


def test_damage(host: Host, three: list[dict[str, Any]]) -> None:
    one, two, last = (backup["id"] for backup in three)
    one_source = three[2]["source_path"]
    large = [path for path in (host.store / "objects").rglob("*") if path.is_file() and path.stat().st_size > 100000]
    assert len(large) == 1
    large[0].unlink()
    (host.backups / f"{last}.json").write_text("{")
    with open(os.fsencode(host.backups) + b"/caf\xe9.json", "w", encoding="utf-8") as stream:
        stream.write("{")
    damaged = host.info(include=["changes"])
    by_id = {backup["id"]: backup for backup in damaged["backups"]}
    assert damaged["count"] == 4 and sorted(by_id) == sorted([one, two, last, "caf\\xe9"])
    assert all(backup["damaged"] for backup in damaged["backups"])
    assert re.match("Blob [0-9a-f]{64} is missing", by_id[two]["damage"])
    assert by_id[last]["damage"] == "The sidecar is not JSON."
    assert (by_id[last]["workload_name"], by_id[last]["source_path"]) == ("other", one_source), "as far as its manifest tells"
    assert set(damaged["changes"].values()) == {None}
    into = host.info(id=one, include="contents")
    assert into["backups"][0]["damaged"] and into["contents"]["count"] == 15
    into = host.info(id=last, include="contents")
    assert into["backups"][0]["damaged"] and into["contents"] is None and "cannot be listed" in str(into["warnings"][0])


def test_history(host: Host, three: list[dict[str, Any]]) -> None:
    """The last 90 days of each workload, whatever the filters are. Of a backup whose record cannot be read, only the name is known."""
    (host.backups / "app-20260101-000000-manual.json").write_text("{")
    told = host.info(include="history", since="9999-12-31")
    assert told["backups"] == [] and "schedules" not in told
    app, other = told["history"]
    assert (app["workload"], other["workload"]) == ("app", "other") and len(app["days"]) == 90 and app["days"] == app["kept"]
    assert set(app["days"][-2:]) <= {"g", "-"} and "g" in app["days"][-2:] and set(app["days"][:-2]) == {"-"}
    recent = app["recent"]
    assert recent["states"] == "sgg" and recent["total_size"] == [None, *(backup["total_size"] for backup in three[:2])]
    assert recent["new_bytes"] == [None, *(backup["new_bytes"] for backup in three[:2])]
    assert recent["created_at"] == ["2026-01-01T00:00:00Z", *(f"{backup['created_at'][:19]}Z" for backup in three[:2])]
    assert {"schedules", "history"} <= set(host.info(include=["schedules", "history"]))


def test_what_an_empty_list_means(host: Host) -> None:
    """No store, an unknown workload, nothing that matches: three answers, and each says where was looked."""
    assert (host.info()["answer"], host.info(workload="app")["answer"]) == ("no_store", "no_store")
    host.back_up()
    for asked, answer in (({}, "backups"), ({"workload": "app"}, "backups"), ({"workload": "ap"}, "unknown_workload"), ({"tags": ["x"]}, "nothing"),
                          ({"workload": "app", "type": "snapshot"}, "nothing"), ({"id": "unknown"}, "nothing")):  # fmt: skip
        found = host.info(**asked)
        assert not found.get("failed") and found["answer"] == answer and found["read"] == {"store": str(host.store), "backup_dir": str(host.backups)}, asked


def test_search(host: Host, three: list[dict[str, Any]]) -> None:
    one, two, other = (backup["id"] for backup in three)
    found = host.info(include="search", search={"pattern": "app.conf"})["search"]
    assert [(row["path"], row["count"], row["first_id"], row["last_id"], row["workload_name"]) for row in found["matches"]] == [
        ("app.conf", 1, other, other, "other"), ("conf/app.conf", 1, two, two, "app"), ("conf/app.conf", 1, one, one, "app"),
    ]  # fmt: skip
    assert (found["count"], found["more"], found["searched"], found["not_searched"]) == (3, 0, 3, [])
    everything = host.info(workload="app", limit=1, include=["search"], search={"pattern": "*"}, diff_limit=2)
    assert everything["count"] == 1 and everything["search"]["searched"] == 2 and len(everything["search"]["matches"]) == 2
    assert everything["search"]["more"] == everything["search"]["count"] - 2 > 10
    history = host.info(workload="app", include=["search"], search={"path": f"{host.tree}/conf/app.conf"})["search"]["history"]
    assert [(row["first_id"], row["changes"]) for row in history] == [(two, ["content", "size", "mtime"]), (one, [])]
    nothing = {"count": 0, "more": 0, "searched": 3, "not_searched": []}
    assert host.info(include=["search"], search={"path": "none"})["search"] == {"history": [], **nothing}
    assert host.info(include=["search"], search={"pattern": ODD[:3] + "?none"})["search"] == {"matches": [], **nothing}
    (host.backups / f"{one}.json").write_text("{}")
    damaged = host.info(include=["search"], search={"pattern": "app.conf"})
    assert [item["id"] for item in damaged["search"]["not_searched"]] == [one] and f"Backup {one} was not searched" in str(damaged["warnings"][0])


@pytest.mark.parametrize(
    "parameters",
    [{"include": ["search"]}, {"search": {"pattern": "x"}}, {"include": ["search"], "search": {}}, {"include": ["search"], "search": {"pattern": "!x"}},
     {"include": ["search"], "search": {"pattern": "x", "path": "x"}}, {"include": ["search"], "search": {"path": "../x"}}],
)  # fmt: skip
def test_a_search_for_nothing(host: Host, three: list[dict[str, Any]], parameters: dict[str, Any]) -> None:
    failed = host.run("volt_backup_info", **parameters)
    assert failed["failed"] and failed["code"] == "usage"
