# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores and backup directories that somebody has been at: nothing hangs, nothing wrong is believed, nothing breaks the list."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import verify
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import errors
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.plugins.module_utils._store import layout
from ansible_collections.volt.backup.tests.rigs import oracle


def lose(bench, *names: str) -> None:
    for name in names:
        for path in (bench.store / name).iterdir():
            path.unlink()


def words(bench) -> list[str]:
    return ["--store", str(bench.store), "--backup-dir", str(bench.backups)]


# ---- sidecars


STRANGE = {
    "work-20261399-000000-manual": b"junk",
    "work-00000101-000000-manual": b"junk",
    "work-20260101-250000-manual": b"junk",
    "work-00010101-000000-manual": b"junk",
    "work-20260101-000000-manual": b"junk",
    "work-\u0662\u0660\u0662\u0666\u0660\u0661\u0660\u0661-000000-manual": b"junk",
    "no-id-at-all\n\x1b[31m": b"{}",
    "b\udcff": b"junk",
}


def test_strange_sidecars_do_not_break_anything(bench, capsys):
    bench.files(a=b"1")
    made = bench.create().backup
    for name, content in STRANGE.items():
        (bench.backups / f"{name}.json").write_bytes(content)
    found = bench.found()
    assert len(found) == 1 + len(STRANGE) and [backup["id"] for backup in found if not backup["damaged"]] == [made["id"]]
    for backup in found:
        json.dumps(backup, ensure_ascii=False, allow_nan=False).encode()
    times = {backup["id"]: backup["created_at"] for backup in found}
    assert times["work-20261399-000000-manual"] is times["work-00000101-000000-manual"] is None
    assert times["work-20260101-000000-manual"] == "2026-01-01T00:00:00.000000Z"
    assert len(bench.manager.find(Query(since="2026-06-01"))) == 6, "one of 2026-01 and one of year 1 are not asked for; who knows of the rest"
    assert bench.manager.find(Query(id="work-20261399-000000-manual"))[0]["damaged"]
    for options in (["list"], ["list", "--json"], ["show", made["id"]]):
        assert cli.main([*options, *words(bench)]) == 0
    assert cli.main(["show", "work-20261399-000000-manual", *words(bench)]) == 1
    assert "\x1b" not in capsys.readouterr().out
    assert bench.create(max_age="1h").backup["id"] == made["id"]
    assert bench.create().backup["new_blobs"] == 0
    bench.restore(made["id"])


@pytest.mark.parametrize(
    "edit",
    [{"created_at": "2026-13-01T00:00:00Z"}, {"total_size": True}, {"duration": 10**400}, {"notes": 5}, {"skipped": [5]}, {"skipped": [{"path": 5}]},
     {"host": None}, {"tags": ["\ud800"]}, {"new_bytes": float("nan")}, {"later": float("inf")}, {"changed_while_read": [None]}, {"format": True}],
)  # fmt: skip
def test_a_sidecar_with_a_wrong_value_is_a_damaged_backup(bench, edit, capsys):
    bench.files(a=b"1")
    made = bench.create().backup
    path = bench.backups / f"{made['id']}.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **edit}))
    assert bench.found()[0]["damaged"]
    assert cli.main(["list", *words(bench)]) == 0
    assert cli.main(["show", made["id"], *words(bench)]) == 1
    again = bench.create()
    assert again.skipped[0]["id"] == made["id"] and len(bench.found()) == 2
    capsys.readouterr()


# ---- planted


@pytest.mark.parametrize("plant", ["fifo", "symlink", "directory"])
def test_planted_index_tables(bench, plant):
    bench.files(a=b"1", b=b"x" * 500_000)
    bench.create()
    for name in ("packs-9", "objects-9"):
        path = bench.store / "index" / name
        if plant == "fifo":
            os.mkfifo(path)
        elif plant == "directory":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero")
    assert not bench.found()[0]["damaged"]
    assert bench.create().backup["new_blobs"] == 0


def test_planted_stat_cache(bench):
    bench.files(a=b"1", b=b"x" * 500_000)
    bench.create()
    for cache in (bench.store / "cache").iterdir():
        cache.unlink()
        os.mkfifo(cache)
    assert bench.create().backup["new_blobs"] == 0


@pytest.mark.parametrize("kind", ["objects", "packs"])
def test_a_symlinked_shelf_sends_nothing_outside(bench, tmp_path, kind):
    bench.files(a=b"1")
    bench.create(compression="none")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number in range(256):
        shelf = bench.store / kind / f"{number:02x}"
        if not shelf.exists():
            shelf.symlink_to(elsewhere)
    bench.files(b=os.urandom(1000), c=os.urandom(500_000))
    with pytest.raises(errors.StoreError, match=f"{kind}/.. is not a directory of the store; "):
        bench.create()
    assert list(elsewhere.iterdir()) == [] and bench.debris() == []
    assert len(bench.found()) == 1 and not bench.found()[0]["damaged"]
    for shelf in (bench.store / kind).iterdir():
        if shelf.is_symlink():
            shelf.unlink()
    bench.create()
    assert not any(backup["damaged"] for backup in bench.found())


# ---- the index is safe to lose


@pytest.mark.parametrize("size", [500_000, 20 << 20])
@pytest.mark.parametrize("lost", [("index",), ("index", "cache")])
def test_a_lost_index_hides_no_damage(bench, size, lost):
    """Written through a hard link that restore made, which has the store's inode: the only trace is the ctime, and it is forgotten."""
    bench.files(a=b"small", large=os.urandom(size))
    time.sleep(2.1)
    first = bench.create(compression="none").backup["id"]
    objects = [path for path in (bench.store / "objects").rglob("*") if path.is_file()]
    if size < 8 << 20:
        bench.restore(link="hardlink")
        victim = bench.target / "large"
        assert os.stat(victim).st_ino == objects[0].stat().st_ino
    else:
        victim = objects[0]
    with open(victim, "r+b") as file:
        file.seek(1000)
        file.write(b"xyz")
    lose(bench, *lost)
    assert bench.found()[0]["checked"] is False, "a truthful list"
    assert bench.create(compression="none").backup["new_blobs"] == 1
    assert [backup["checked"] for backup in bench.found()] == [True, True]
    shutil.rmtree(bench.target, ignore_errors=True)
    bench.restore(first)
    assert oracle.differences(bench.source, bench.target) == []


def test_after_a_loss_one_run_hashes_and_the_next_is_quick(bench, monkeypatch):
    bench.files(**{f"f{number}": os.urandom(200_000 + number) for number in range(5)}, chunked=os.urandom(9 << 20))
    time.sleep(2.1)
    bench.create()
    read = []
    real = layout.read_blob_file
    monkeypatch.setattr(layout, "read_blob_file", lambda path, limit: "/objects/" in path and read.append(path) or real(path, limit))
    for options in ({}, {"only_if_changed": True}):
        lose(bench, "index")
        bench.found()
        assert read == [], "a listing hashes nothing"
        bench.create(**options)
        assert len(read) == 5 + 9, "each once"
        read.clear()
        bench.create(**options)
        bench.found()
        assert read == [], "nothing was stored, and still it was written down"


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
def test_a_dry_run_stores_as_many_bytes_as_the_run(bench, compression):
    bench.files(a=b"text " * 1000, b=os.urandom(5000), c=b"y" * 300_000, d__e=os.urandom(300_000), d__f=bytes(9 << 20))
    for _turn in range(2):
        dry, real = (bench.create(dry=dry, compression=compression).backup for dry in (True, False))
        assert {key: dry[key] for key in ("stored_bytes", "new_bytes", "new_blobs")} == {
            key: real[key] for key in ("stored_bytes", "new_bytes", "new_blobs")
        }
        bench.files(g=b"more " * 5000)


def test_a_store_that_is_an_old_copy_of_itself(bench):
    """Someone put back yesterday's copy: what came since is damaged and stays listed, pushes nothing out, and the next backup is whole."""
    bench.files(a=b"1" * 2000)
    old = bench.create().backup["id"]
    shutil.copytree(bench.store, bench.top / "copy", symlinks=True)
    bench.files(b=b"2" * 2000)
    new = bench.create().backup["id"]
    shutil.rmtree(bench.store)
    (bench.top / "copy").rename(bench.store)
    assert {found["id"]: found["damaged"] for found in bench.found()} == {old: False, new: True}
    with pytest.raises(errors.Damaged, match="Garbage collection refused"):
        bench.manager.collect("0s")
    kept = bench.manager.prune("work", {"last": 1}).kept
    assert {row["id"] for row in kept} == {old, new}
    made = bench.create()
    assert [item["id"] for item in made.skipped] == [new] and made.diff["added"] == ["b"]
    bench.restore(made.backup["id"])
    assert oracle.differences(bench.source, bench.target) == []
    assert bench.manager.delete(new) is not None
    assert not bench.manager.verify(verify.VerifyRequest(level="content")).failure()
