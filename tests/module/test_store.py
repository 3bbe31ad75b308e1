# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What modules for a whole store do, and say of it: pruning, collecting, verifying, drilling."""

from __future__ import annotations

import os
import re
import shutil
from typing import Any

import pytest

from .conftest import Host


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def test_prune(host: Host) -> None:
    kinds = [("manual", ["release"]), ("manual", []), ("scheduled", []), ("pre-deploy", []), ("scheduled", [])]
    made = [host.back_up(type=kind, tags=tags)["backup"] for kind, tags in kinds]
    one, two, three, four, newest = ids(made)
    host.back_up(workload="other")
    (host.store / "refs" / f"{made[4]['manifest_ref']}.json").unlink()
    foreseen, done, again = host.twice("volt_backup_prune", workload="app", keep={"last": 1, "tags": ["release", "other"]})
    assert [(row["id"], row["rule"], row["damaged"]) for row in done["kept"]] == [
        (newest, "last", True), (four, "last", False), (one, "tag release", False),
    ]  # fmt: skip
    assert [(row["id"], row["rule"]) for row in done["removed"]] == [(three, "no rule keeps it"), (two, "no rule keeps it")]
    assert (done["kept"], done["removed"]) == (foreseen["kept"], foreseen["removed"]) and again["kept"] == done["kept"]
    lines = done["diff"]["prepared"].splitlines()
    assert (lines[0], lines[2]) == (f"keep   {newest} (last; damaged)", f"remove {three} (no rule keeps it)")
    left = host.info()["backups"]
    assert len(left) == 4 and three not in ids(left) and ids([row for row in left if row["damaged"]]) == [newest]

    one_type = host.run("volt_backup_prune", name="app", types="manual", keep={"within": "1d12h", "yearly": 1})
    assert not one_type["changed"] and ids(one_type["kept"]) == [one]
    assert re.fullmatch("yearly [0-9]{4}, within 1d12h", one_type["kept"][0]["rule"]) and one_type["kept"][0]["damaged"] is None
    nobody = host.run("volt_backup_prune", workload="nobody", keep={"last": 1})
    assert not nobody["changed"] and nobody["kept"] == []


def test_collect(host: Host) -> None:
    host.furnish()
    assert not host.run("volt_cas_gc")["changed"]  # where there is no store yet
    one = host.back_up()["backup"]
    (host.tree / "data/large").write_bytes(os.urandom(300000))
    two = host.back_up()["backup"]
    assert not host.run("volt_cas_gc", repack=False)["changed"]
    host.run("volt_backup", state="absent", id=one["id"])
    foreseen, done, _again = host.twice("volt_cas_gc", grace="1h")
    assert done["trashed_bytes"] > 300000 and done["freed_bytes"] == 0 and re.match("move [0-9]+ file", done["diff"]["prepared"])
    assert (foreseen["trashed_bytes"], foreseen["live_blobs"]) == (done["trashed_bytes"], done["live_blobs"])
    foreseen, emptied = (host.run("volt_cas_gc", check, grace="0s") for check in (True, False))
    assert foreseen["changed"] and emptied["changed"] and foreseen["freed_bytes"] == emptied["freed_bytes"] == done["trashed_bytes"]
    store = host.info(include="store")["store"]
    assert store["trash_bytes"] == 0 and store["unreferenced_bytes"] < 3000 and store["dedup_ratio"] is not None
    assert [row["workload_name"] for row in store["workloads"]] == ["app"]
    assert host.restore(id=two["id"], target=str(host.top / "restored"), verify=True)["changed"]


def test_no_collection_with_an_unreadable_record(host: Host) -> None:
    made = host.back_up()["backup"]["id"]
    (host.backups / f"{made}.json").write_text("{")
    for options in ({}, {"grace": "0s"}):
        failure = host.run("volt_cas_gc", **options)
        assert failure["failed"] and failure["code"] == "damaged" and failure["backup_id"] == made
        assert failure["msg"].startswith("Garbage collection refused")


def test_verify_an_undamaged_store(host: Host) -> None:
    host.furnish()
    before = host.everything()
    nothing = host.run("volt_cas_verify", level="content", repair=True)
    assert not nothing["changed"] and nothing["backup_count"] == 0 and host.everything() == before
    made = host.back_up()["backup"]["id"]
    wanted: list[dict[str, Any]] = [
        {}, {"level": "content"}, {"level": "content", "repair": True}, {"level": "content", "ids": made}, *[{"level": "content", "budget": "50%"}] * 2,
    ]  # fmt: skip
    structure, content, repaired, some, half, rest = sound = [host.run("volt_cas_verify", **options) for options in wanted]
    for result in sound:
        assert not result["changed"] and result["damage"] == [] and result["backup_count"] == 1
    assert structure["file_count"] == 0 and content["file_count"] > 2 and content["repaired"] is None
    assert repaired["repaired"]["blobs"] == 0 and some["file_count"] == content["file_count"]
    assert half["file_count"] + rest["file_count"] == content["file_count"] and (half["covered"], rest["covered"]) == (50.0, 100.0)


def test_verify_and_repair(host: Host) -> None:
    host.furnish()
    made = host.back_up()["backup"]["id"]
    (spoiled,) = (path for path in (host.store / "objects").rglob("*") if path.is_file() and path.stat().st_size > 200000)
    with open(spoiled, "r+b") as stream:
        stream.seek(1000)
        byte = stream.read(1)
        stream.seek(1000)
        stream.write(bytes([byte[0] ^ 1]))
    damaged = host.run("volt_cas_verify")
    assert damaged["failed"] and damaged["code"] == "damaged" and damaged["damaged"] == [made] and "run volt_cas_verify with repair: true" in damaged["msg"]
    assert [row["file"] for row in damaged["damage"] if row.get("file")] == [str(spoiled.relative_to(host.store))]
    assert sorted(row["path"] for row in damaged["damage"] if row.get("path")) == ["data/large", "data/linked"]
    foreseen = host.run("volt_cas_verify", True, repair=True)
    assert foreseen["failed"] and foreseen["changed"] and len(foreseen["repaired"]["quarantined"]) == 1 and spoiled.exists()
    done = host.run("volt_cas_verify", repair=True)
    assert done["changed"] and not done.get("failed") and done["damage"] == [] and done["diff"]["prepared"].startswith("quarantine ")
    assert done["repaired"]["blobs"] == 1 and done["repaired"]["sources"] == [os.path.realpath(host.tree)]
    assert (host.store / done["repaired"]["quarantined"][0]).exists()
    for check in (True, False):
        again = host.run("volt_cas_verify", check, repair=True)
        assert not again["changed"] and not again.get("failed")
    assert host.restore(id=made, target=str(host.top / "restored"), verify=True)["changed"]


def test_drill(host: Host) -> None:
    host.furnish()
    scratch = str(host.top / "drill")
    nothing = host.run("volt_restore_drill", scratch_dir=scratch)
    assert nothing["failed"] and nothing["code"] == "not_found"
    made = [host.back_up(workload=name)["backup"]["id"] for name in ("one", "two")]
    for check in (True, False):
        drilled = host.run("volt_restore_drill", check, scratch_dir=scratch)
        assert not drilled["changed"] and not drilled.get("failed") and not os.path.exists(scratch)
        assert [(row["backup_id"], bool(row["reason"])) for row in drilled["drills"]] == [(name, False) for name in made]
    for name in ("packs", "objects"):
        shutil.rmtree(host.store / name)
    damaged = host.run("volt_restore_drill", scratch_dir=scratch, workloads=["two"])
    assert damaged["failed"] and damaged["code"] == "drill"
    (row,) = damaged["drills"]
    assert "two" in row["reason"] and len(row["passed_over"]) == 1


@pytest.mark.parametrize("sizes", [True, False])
def test_workloads_are_only_looked_at(host: Host, sizes: bool) -> None:
    (host.top / "stacks/shop").mkdir(parents=True)
    (host.top / "stacks/shop/compose.yaml").write_text("services:\n  app: {}\n")
    before = host.everything()
    for check in (True, False):
        found = host.run("volt_workload_info", check, compose_dirs=f"{host.top}/stacks", sizes=sizes)
        assert not found["changed"] and isinstance(found["complete"], bool)
        (shop,) = (row for row in found["workloads"] if row["source"] == f"{os.path.realpath(host.top)}/stacks/shop")
        assert (shop["name"], shop["size"]) == ("shop", 20 if sizes else None)
    assert host.everything() == before
