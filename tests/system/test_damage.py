# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that lacks something, or holds something false: it is told for every backup that it hurts."""

from __future__ import annotations

import json
import os

import pytest


def test_every_backup_that_shares_the_damage_is_listed_with_it(bench):
    """Two backups of one unchanged tree; what one lacks the other lacks."""
    bench.files(top=b"1", below__deeper__object=os.urandom(300_000))
    for _backup in range(2):
        bench.create()
    (thing,) = (path for path in (bench.store / "objects").rglob("*") if path.is_file())
    thing.unlink()
    assert [backup["damaged"] for backup in bench.found()] == [True, True]


def test_a_manifest_without_a_sidecar_can_be_deleted(bench):
    """What a crash left between the two, or a lost record."""
    bench.files(a=b"1")
    backup = bench.create().backup["id"]
    (bench.backups / f"{backup}.json").unlink()
    assert bench.manager.delete(backup, dry=True)["id"] == backup
    assert len(os.listdir(bench.store / "refs")) == 1
    assert bench.manager.delete(backup)["id"] == backup
    assert os.listdir(bench.store / "refs") == []
    assert bench.manager.delete(backup) is None


@pytest.mark.parametrize("forged", ["another", "../../backups/x-000000000000", "", "x"])
def test_a_sidecar_that_names_a_manifest_of_another_costs_that_one_nothing(bench, forged):
    """A forged or mixed-up record: deleting its backup deletes no manifest but its own."""
    bench.files(a=b"1")
    one, other = bench.create().backup, bench.create().backup
    path = bench.backups / f"{one['id']}.json"
    record = json.loads(path.read_text())
    record["manifest_ref"] = other["manifest_ref"] if forged == "another" else forged
    path.write_text(json.dumps(record))
    bench.manager.delete(one["id"])
    assert [(backup["id"], backup["damaged"]) for backup in bench.found()] == [(other["id"], False)]
    assert os.listdir(bench.store / "refs") == [f"{other['manifest_ref']}.json"]
