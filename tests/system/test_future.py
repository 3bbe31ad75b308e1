# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of the future: the clock was wrong when one was made, or is wrong now. None of them is the newest, and each says what it is."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import create
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base.errors import NotFound, SourceError
from ansible_collections.volt.backup.plugins.module_utils._base.time import now
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._runner import backups
from ansible_collections.volt.backup.plugins.module_utils._schedule.drill import Driller


@pytest.fixture
def ahead(bench, monkeypatch):
    """Make a backup while the clock is ahead by so much."""

    def make(by: datetime.timedelta, **options):
        with monkeypatch.context() as patched:
            patched.setattr(create, "now", lambda: now() + by)
            return bench.create(**options).backup["id"]

    return make


YEAR, SECONDS = datetime.timedelta(days=365), datetime.timedelta(seconds=20)


def restored(bench) -> tuple[bytes, list[str]]:
    _done, passed = bench.manager.restore(None, RestoreRequest(str(bench.target), force=True), Query(workload="work"))
    assert all("future" in item["reason"] for item in passed)
    return (bench.target / "a").read_bytes(), [item["id"] for item in passed]


@pytest.mark.parametrize("kind", ["manual", "scheduled"])
def test_one_of_the_future_is_not_the_newest(bench, ahead, kind: str) -> None:
    bench.files(a=b"old")
    wrong = ahead(YEAR, type=kind)
    bench.files(a=b"new!")
    made = bench.create(only_if_changed=True, max_age="1h")
    assert made.changed and [item["id"] for item in made.skipped] == [wrong]
    assert made.diff["added"], "there is none to compare with"
    again = bench.create(only_if_changed=True)
    assert not again.changed and again.backup["id"] == made.backup["id"]
    assert [item["id"] for item in again.skipped] == [wrong]
    assert bench.create(max_age="1h").backup["id"] == made.backup["id"]
    assert restored(bench) == (b"new!", [wrong])
    bench.files(b=b"2")
    assert bench.create(dry=True).diff["added"] == ["b"]
    (drill,) = Driller(bench.manager, str(bench.top / "drill"), False)([])
    assert drill.backup_id == made.backup["id"] and [item["id"] for item in drill.passed_over] == [wrong]


def test_it_is_listed_as_what_it_is(bench, ahead) -> None:
    bench.files(a=b"1")
    right, wrong = bench.create().backup["id"], ahead(YEAR)
    listed = {backup["id"]: backup for backup in bench.found()}
    assert {name: backup["future"] for name, backup in listed.items()} == {right: False, wrong: True}
    assert backups._state(listed[wrong]) == "time in the future" and backups._state(listed[right]) == "ok"
    assert backups._state({**listed[wrong], "complete": False}) == "time in the future, incomplete"
    assert bench.manager.changes(bench.found(), 10) == {right: None, wrong: None}


def test_clocks_that_are_set_while_backups_are_made_make_no_future(bench, ahead) -> None:
    bench.files(a=b"1")
    made = ahead(SECONDS)
    assert [backup["future"] for backup in bench.found()] == [False]
    for options in ({"only_if_changed": True}, {"max_age": "1h"}):
        again = bench.create(**options)
        assert not again.changed and again.backup["id"] == made and again.skipped == []
    assert restored(bench) == (b"1", [])
    done = bench.manager.prune("work", {"last": 1})
    assert [row["rule"] for row in done.kept] == ["last"]


def test_a_clock_that_is_behind_takes_no_backup_away(bench, ahead) -> None:
    """All backups are of the future then: each can be restored by its id, and the message says so."""
    bench.files(a=b"1")
    made = [ahead(YEAR), ahead(2 * YEAR)]
    with pytest.raises(NotFound, match="by its id") as caught:
        restored(bench)
    assert [item["id"] for item in caught.value.details["skipped"]] == made[::-1]
    assert not bench.manager.prune("work", {"last": 1}).removed
    bench.restore(made[0])
    assert (bench.target / "a").read_bytes() == b"1"


def test_an_emptied_source_is_refused_though_its_only_backup_is_of_the_future(bench, ahead) -> None:
    bench.files(a=b"1")
    ahead(YEAR)
    Path(bench.source, "a").unlink()
    with pytest.raises(SourceError, match="is empty"):
        bench.create()
    bench.create(allow_empty=True)
    assert bench.create().changed, "the newest is known to be empty"
