# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pruning of real stores: what goes is gone, what stays is whole, bad ones push nothing out, and many at once do no harm."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import catalog, create
from ansible_collections.volt.backup.plugins.module_utils._backup.ids import TYPES
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import errors
from ansible_collections.volt.backup.plugins.module_utils._base.locks import directory_lock
from ansible_collections.volt.backup.plugins.module_utils._runner import cli, upkeep
from ansible_collections.volt.backup.tests.rigs import oracle

MIDDAY = datetime.datetime(2026, 6, 15, 12, tzinfo=datetime.timezone.utc)


@pytest.fixture
def clock(monkeypatch):
    """Make backups at another time: days before midday of 15 June 2026."""

    def put(days: float) -> datetime.datetime:
        moment = MIDDAY - datetime.timedelta(days=days)
        monkeypatch.setattr(create, "now", lambda: moment)
        return moment

    return put


@pytest.fixture
def history(bench, clock):
    """One backup a day, for five days, each with content of its own; the ids from the newest on."""
    ids = []
    for day in reversed(range(5)):
        clock(day)
        bench.files(same=b"same", **{f"of_{day}": str(day).encode() * 1000})
        ids.insert(0, bench.create().backup["id"])
    return ids


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def edit(bench, backup: str, **values: Any) -> None:
    path = bench.backups / f"{backup}.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))


def damage(bench, backup: str) -> None:
    """Take its manifest away."""
    bench.manifest(backup).unlink()


def test_deleted_backups_are_removed(bench, history):
    done = bench.manager.prune("work", {"last": 2, "tags": ["x"]})
    assert done.changed and ids(done.kept) == history[:2] and ids(done.removed) == history[2:]
    assert ids(bench.found()) == history[:2] and not any(found["damaged"] for found in bench.found())
    assert sorted(path.name[:-18] for path in (bench.store / "refs").iterdir()) == sorted(history[:2]), "the manifests as well"
    assert done.kept[0] == {
        "id": history[0], "created_at": "2026-06-15T12:00:00.000000Z", "type": "manual", "rule": "last", "complete": True, "damaged": False,
        "unsupported": False, "foreign": False, "suspect": False,
    }  # fmt: skip
    assert {row["rule"] for row in done.removed} == {"no rule keeps it"}
    lines = [f"keep   {backup} (last)\n" for backup in history[:2]] + [f"remove {backup} (no rule keeps it)\n" for backup in history[2:]]
    assert done.diff == {"prepared": "".join(lines)}
    bench.restore(history[0])
    assert oracle.differences(bench.source, bench.target) == []
    again = bench.manager.prune("work", {"last": 2})
    assert not again.changed and again.removed == [] and ids(again.kept) == history[:2]


def test_check_mode_writes_nothing(bench, history):
    before = bench.snapshot()
    planned = bench.manager.prune("work", {"daily": 3}, dry=True)
    assert bench.snapshot() == before
    assert planned == bench.manager.prune("work", {"daily": 3})
    assert ids(planned.removed) == history[3:]


def test_backups_are_not_read_if_all_are_kept(bench, history, monkeypatch):
    damage(bench, history[1])
    looked = []
    monkeypatch.setattr(catalog.Catalog, "judged", lambda _self, sidecar: looked.append(sidecar))
    done = bench.manager.prune("work", {"last": 5})
    assert looked == [] and not done.changed and {row["damaged"] for row in done.kept} == {None}


@pytest.mark.parametrize("harm", ["incomplete", "no manifest", "no content", "no record"])
def test_bad_ones_push_nothing_out(bench, history, harm):
    bad = history[:2]
    for number, backup in enumerate(bad):
        if harm == "incomplete":
            edit(bench, backup, complete=False)
        elif harm == "no manifest":
            damage(bench, backup)
        elif harm == "no record":
            (bench.backups / f"{backup}.json").write_bytes(b"{")
        else:
            edit(bench, backup, manifest_sha256="00" * 32)
        done = bench.manager.prune("work", {"last": 2}, dry=True)
        assert ids(done.kept) == [*history[: number + 1], *history[number + 1 : number + 3]][: 3 + number]
    done = bench.manager.prune("work", {"last": 2})
    assert ids(done.kept) == history[:4] and ids(done.removed) == history[4:]
    for row in done.kept[:2]:
        assert (row["damaged"], row["complete"]) == ((False, False) if harm == "incomplete" else (True, harm != "no record"))
    done = bench.manager.prune("work", {"last": 1})
    assert ids(done.kept) == [history[0], history[2]], "a bad one goes where a good one would"
    assert ("incomplete" if harm == "incomplete" else "damaged") in done.diff["prepared"].splitlines()[0]


def test_without_a_good_one_nothing_goes(bench, history):
    for backup in history:
        damage(bench, backup)
    done = bench.manager.prune("work", {"last": 1})
    assert not done.changed and ids(done.kept) == history
    assert {row["rule"] for row in done.kept[1:]} == {"no complete and undamaged backup is left"}


def test_a_lost_store_is_no_reason(bench, history):
    (bench.store / "refs").rename(bench.top / "refs")
    assert not bench.manager.prune("work", {"last": 1}).changed, "every manifest is missing"
    bench.store.rename(bench.top / "elsewhere")
    for call in (bench.manager.collect, lambda: bench.manager.prune("work", {"last": 1}), lambda: bench.manager.delete(history[0]), bench.found):
        with pytest.raises(errors.StoreError, match="There is no store at .* lists 5 backup"):
            call()
    (bench.top / "elsewhere").rename(bench.store)
    assert len(bench.found()) == 5


def test_backups_with_unknown_facts_are_kept(bench, history):
    (bench.backups / "work-20261399-000000-manual.json").write_bytes(b"junk")
    (bench.backups / "work-20200101-000000-manual.json").write_bytes(b"junk")
    edit(bench, history[4], created_at="0001-01-01T00:00:00+14:00")
    done = bench.manager.prune("work", {"last": 1, "tags": ["x"]})
    rules = {row["id"]: row["rule"] for row in done.kept}
    assert rules == {
        history[0]: "last", history[4]: "time unknown", "work-20261399-000000-manual": "time unknown", "work-20200101-000000-manual": "tags unknown",
    }  # fmt: skip
    assert "work-20200101-000000-manual" in ids(bench.manager.prune("work", {"last": 1}).removed)


def test_a_wrong_clock_deletes_nothing(bench, history, clock):
    clock(-365 * 50)
    future = bench.create().backup["id"]
    done = bench.manager.prune("work", {"last": 1, "within": "1d"})
    assert {row["id"]: row["rule"] for row in done.kept} == {future: "future", history[0]: "last, within 1d"}


def test_types_and_workloads_apart(bench, history, clock):
    clock(-1)
    scheduled = bench.create(type="scheduled").backup["id"]
    other = bench.manager.create(create.CreateRequest("other", str(bench.source))).backup["id"]
    similar = bench.manager.create(create.CreateRequest("work-20260615", str(bench.source))).backup["id"]
    assert ids(bench.manager.prune("work", {"last": 1}, ["scheduled"]).kept) == [scheduled]
    assert ids(bench.manager.prune("work", {"last": 2}, ["manual"]).kept) == history[:2]
    assert ids(bench.manager.prune("work", {"last": 2}, ["manual", "scheduled"]).kept) == [scheduled, history[0]]
    assert bench.manager.prune("work", {"last": 1}, ["snapshot"]) == ([], [], {"prepared": ""}, False)
    assert ids(bench.manager.prune("work", {"last": 1}).kept) == [scheduled]
    assert sorted(ids(bench.found())) == sorted([scheduled, other, similar])


@pytest.mark.parametrize(
    "words",
    [{"keep": {}}, {"keep": {"last": 0}}, {"keep": {"last": -1}}, {"keep": {"newest": 1}}, {"keep": {"within": "1y"}}, {"types": ["weekly"]},
     {"workload": "../x"}],
)  # fmt: skip
def test_refused(bench, history, words):
    before = bench.snapshot()
    with pytest.raises(errors.UsageError):
        bench.manager.prune(**{"workload": "work", "keep": {"last": 1}, **words})
    assert bench.snapshot() == before


def test_oldest_first(bench, history, monkeypatch):
    removed = []
    real = catalog.Catalog.remove

    def stop_at_the_second(self, backup, meant):
        if len(removed) == 2:
            raise errors.StoreError("cannot")
        removed.append(backup)
        return real(self, backup, meant)

    monkeypatch.setattr(catalog.Catalog, "remove", stop_at_the_second)
    with pytest.raises(errors.StoreError):
        bench.manager.prune("work", {"last": 1})
    assert removed == [history[4], history[3]] and ids(bench.found()) == history[:3]


# ---- others at the same time


def test_backups_deleted_meanwhile_are_not_an_error(bench, history, monkeypatch):
    """Another prune deletes each of them just before we do: once before we look, then before we remove."""
    real = catalog.Catalog.judged
    monkeypatch.setattr(catalog.Catalog, "judged", lambda self, sidecar: (self.remove(history[4]), real(self, sidecar))[1])
    done = bench.manager.prune("work", {"last": 2}, dry=True)
    assert ids(done.kept) == history[:2] and ids(done.removed) == history[2:4]
    monkeypatch.undo()
    remove = catalog.Catalog.remove
    monkeypatch.setattr(catalog.Catalog, "remove", lambda self, backup, meant: remove(self, backup, meant) and remove(self, backup, meant))
    done = bench.manager.prune("work", {"last": 2})
    assert not done.changed and done.removed == [] and ids(bench.found()) == history[:2]


def test_a_file_that_vanishes_under_remove(bench, history, monkeypatch):
    real = os.unlink

    def twice(path, **options):
        real(path, **options)
        real(path, **options)

    monkeypatch.setattr(catalog.os, "unlink", twice)
    assert not bench.manager.prune("work", {"last": 2}).changed
    monkeypatch.undo()
    assert ids(bench.found()) == history[:2]


def test_an_id_that_was_given_again_is_another_backup(bench, history, clock):
    """Between the listing and the deletion the id is freed, and taken by a backup with other content."""
    (old,) = (found for found in bench.found() if found["id"] == history[2])
    bench.manager.delete(history[2])
    clock(2)
    bench.files(more=b"more")
    assert bench.create().backup["id"] == history[2]
    store, listed = bench.manager._open()
    with store.lock():
        assert listed.remove(history[2], old) is False
        assert listed.remove(history[2], bench.found()[2]) is True


def test_a_new_backup_of_the_id_of_one_that_went_is_no_failure(bench, history, monkeypatch):
    """Another process has just deleted the sidecar; then a new backup gets the id."""
    path = bench.backups / f"{history[0]}.json"
    text = path.read_bytes()
    path.unlink()
    real = catalog.Catalog.remove

    def remove(self, backup, meant=None):
        path.write_bytes(text)
        return real(self, backup, meant)

    monkeypatch.setattr(catalog.Catalog, "remove", remove)
    assert bench.manager.delete(history[0]) is None
    assert [backup["id"] for backup in bench.found() if not backup["damaged"]] == history


def test_waiting_for_the_backup_directory_ends(bench, history):
    with directory_lock(str(bench.backups), 1):
        with pytest.raises(errors.LockTimeout, match="holds the lock of directory"):
            Manager(str(bench.store), str(bench.backups), 0).prune("work", {"last": 1})
    assert len(bench.found()) == 5


def _many(store: str, backups: str, source: str, what: str, turns: int, failures: Any) -> None:
    manager = Manager(store, backups, 60)
    for number in range(turns):
        try:
            if what == "create":
                manager.create(create.CreateRequest("work", source, type=TYPES[number % 2]))
            elif what == "delete":
                for found in manager.find(Query())[2:3]:
                    manager.delete(found["id"])
            else:
                manager.prune("work", {"last": 2}, ["manual"] if what == "manual" else [])
        except BaseException as error:  # told to the parent, whatever it is
            failures.put(f"{what}: {error!r}")


def test_prunes_creates_and_deletes_at_once(bench, history):
    fork = multiprocessing.get_context("fork")
    failures = fork.Queue()
    jobs = [
        fork.Process(target=_many, args=(str(bench.store), str(bench.backups), str(bench.source), what, 12, failures))
        for what in ("create", "create", "prune", "prune", "manual", "delete")
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert failures.empty(), failures.get()
    found = bench.found()
    assert found and not any(backup["damaged"] for backup in found)
    done = bench.manager.prune("work", {"last": 1})
    assert len(done.kept) == 1
    assert len(list((bench.store / "refs").iterdir())) == 1, "no manifest is left behind"
    bench.restore()
    assert oracle.differences(bench.source, bench.target) == []


def test_the_newest_goes_while_the_next_is_made(bench, history, monkeypatch):
    """Another run prunes what this one compares with."""
    real = create.Creator._walk

    def walk(self, *arguments):
        for backup in history:
            bench.manager.delete(backup)
        return real(self, *arguments)

    monkeypatch.setattr(create.Creator, "_walk", walk)
    made = bench.create(only_if_changed=True)
    assert made.changed and made.diff["counts"]["removed"] == 0 and made.diff["counts"]["added"] > 0
    assert ids(bench.found()) == [made.backup["id"]]


# ---- the command


def test_command(bench, history, capsys):
    shared = ["--store", str(bench.store), "--backup-dir", str(bench.backups)]
    assert cli.main(["prune", "work", *shared]) == upkeep.USAGE
    assert "keep has no rule" in capsys.readouterr().err
    assert cli.main(["prune", "work", "--keep", "-1", *shared]) == upkeep.USAGE
    assert cli.main(["prune", "work", "--keep-tag", "\udcff", *shared]) == upkeep.USAGE
    assert "The tag \\xff is not valid UTF-8" in capsys.readouterr().err
    assert cli.main(["prune", "work", "--keep", "1", "--keep-daily", "2", "--keep-within", "1h", "--keep-tag", "x", "--dry-run", *shared]) == upkeep.DONE
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == "Would remove 3 of 5." and "last, daily 2026-06-15, within 1h" in text and len(bench.found()) == 5
    assert cli.main(["prune", "work", "--keep-weekly", "1", "--type", "manual", "--json", *shared]) == upkeep.DONE
    value = json.loads(capsys.readouterr().out)
    assert sorted(value) == ["changed", "diff", "kept", "removed"] and value["changed"] and ids(value["kept"]) == history[:1]
    assert value["kept"][0]["rule"] == "weekly 2026-W25"
    assert cli.main(["prune", "nobody", "--keep", "1", *shared]) == upkeep.UNKNOWN
    assert "Workload nobody has no backups in store" in capsys.readouterr().err
