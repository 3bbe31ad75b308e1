# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is restored is what was backed up, to the last attribute, by tools that are not ours; on each file system, by each way."""

from __future__ import annotations

import pytest
from ansible_collections.volt.backup.tests.rigs import debian, oracle, sample, torture

KINDS = ("ext4", "xfs", "btrfs", "overlay")
#: Of these, those on which files can share blocks.
SHARING = ("xfs", "btrfs")


def ways(kind):
    """Each way to restore on a file system: what files come by, and how they get into place."""
    return [(link, strategy) for link in ("auto", "reflink", "copy") for strategy in ("replace", "in_place")
            if link != "reflink" or kind in SHARING]  # fmt: skip


def restored_is_the_source(bench, kind, link, strategy):
    where = bench.top / f"{link}-{strategy}"
    done = bench.restore(target=str(where), strategy=strategy, link=link)
    assert done.restore["strategy"] == strategy
    assert oracle.differences(bench.source, where) == []
    if link != "copy" and kind in SHARING:
        assert done.restore["files_linked"] > 5
    assert not bench.restore(target=str(where), strategy=strategy, link=link, verify=True).changed
    debian._discard(where)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.costly
def test_every_type_of_file_with_every_strategy(bench_on, kind):
    """By one of the ways; in the long mode by each."""
    bench = bench_on(kind, 3 << 30)
    lacking = torture.build(bench.source)
    assert kind == "xfs" or not lacking, lacking
    first = bench.create()
    assert first.backup["complete"] and first.changed and not first.warnings
    for link, strategy in sample.some(ways(kind), 1, "kinds", kind):
        restored_is_the_source(bench, kind, link, strategy)
    assert bench.debris() == []


@pytest.mark.parametrize("kind", sample.some(KINDS, 2, "debian"))
@pytest.mark.costly
def test_debian(bench_on, kind):
    """A real root file system, by one of the ways; in the long mode on each file system by each."""
    bench = bench_on(kind, 3 << 30)
    debian.copy(None, bench.source)
    assert bench.create().backup["complete"]
    for link, strategy in sample.some(ways(kind), 1, "debian", kind):
        restored_is_the_source(bench, kind, link, strategy)
    assert bench.debris() == []


@pytest.mark.parametrize("strategy", ["replace", "in_place"])
@pytest.mark.costly
def test_hard_links_into_the_store(bench_on, strategy):
    """Files share inodes with the store because that was asked for; content and attributes are right all the same."""
    bench = bench_on("ext4")
    torture.build(bench.source, entries=10)
    bench.create(compression="none")
    done = bench.restore(link="hardlink", strategy=strategy)
    assert done.restore["files_linked"] > 5
    differences = [line for line in oracle.differences(bench.source, bench.target) if "links None against" not in line]
    assert differences == []
    assert not bench.restore(link="hardlink").changed


@pytest.mark.parametrize("strategy", ["replace", "in_place"])
@pytest.mark.parametrize("seed", sample.some(range(4), 1, "changed trees"))
@pytest.mark.costly
def test_changed_trees_over_each_other(bench_on, strategy, seed):
    """Restore an older state over a newer one, and the newer over the older."""
    bench = bench_on("ext4")
    torture.build(bench.source, entries=50)
    old = bench.create().backup["id"]
    reference = bench.top / "reference"
    bench.restore(old, target=str(reference))
    torture.mutate(bench.source, seed)
    new = bench.create()
    assert new.changed and new.backup["complete"]
    options = {"delete": True} if strategy == "in_place" else {}
    bench.restore(new.backup["id"])
    assert oracle.differences(bench.source, bench.target) == []
    done = bench.restore(old, force=True, strategy=strategy, verify=True, **options)
    assert done.restore["strategy"] == strategy and done.restore["files_unchanged"] > 20
    assert oracle.differences(reference, bench.target) == []
    bench.restore(new.backup["id"], force=True, strategy=strategy, verify=True, **options)
    assert oracle.differences(bench.source, bench.target) == []
    assert bench.debris() == []


@pytest.mark.costly
def test_no_inode_is_shared_with_the_store(bench):
    bench.files(large=b"x" * 300_000, small=b"y" * 100)
    bench.create(compression="none")
    bench.restore()
    inside = {path.stat().st_ino for path in bench.store.rglob("*") if path.is_file()}
    assert not inside & {path.stat().st_ino for path in bench.target.iterdir()}


@pytest.mark.costly
def test_a_directory_of_very_many_entries(bench_on):
    """Its tree is a list of parts: of 20,000 entries as of 100,000."""
    entries = 100_000 if sample.LONG else 20_000
    bench = bench_on("ext4", 8 << 30)  # for its number of inodes
    torture.build(bench.source, entries=entries, long_paths=False)
    first = bench.create().backup
    assert first["file_count"] > entries
    many = max((path for path in bench.source.iterdir() if path.is_dir()), key=lambda path: path.stat().st_size)
    (many / "zz-one-more").write_bytes(b"new")
    second = bench.create()
    assert second.diff["counts"]["added"] == 1 and second.backup["new_blobs"] <= 1
    assert second.backup["stored_bytes"] < 1 << 20, "a new name rewrites one part of a large directory"
    bench.restore()
    assert oracle.differences(bench.source, bench.target) == []
