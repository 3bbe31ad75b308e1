# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring: what is refused, what is left alone, and that a failure leaves the target as it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import restore
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import errors, kernel
from ansible_collections.volt.backup.tests.rigs import need, oracle

WAYS = ("replace", "in_place")


@pytest.fixture
def made(bench):
    """A backup of a small tree."""
    bench.files(a=b"1", d__b=b"2" * 200_000, d__e__c=b"3")
    bench.create()
    return bench


def tree(path):
    return sorted(str(item.relative_to(path)) for item in path.rglob("*"))


def test_equal_is_unchanged_whatever_is_forced(made):
    def there():
        """All but the stat cache of the target, which a comparison writes once the files are old enough for it."""
        return {path: facts for path, facts in made.snapshot().items() if not path.startswith(f"{made.store}/cache")}

    made.restore()
    before = there()
    for options in ({}, {"force": True}, {"verify": True}, {"force": True, "strategy": "in_place", "delete": True}):
        done = made.restore(**options)
        assert not done.changed and done.restore["strategy"] == "none"
    assert there() == before


@pytest.mark.parametrize("dry", [False, True])
def test_different_needs_force(made, dry):
    made.restore()
    (made.target / "a").write_bytes(b"mine")
    before = made.snapshot()
    with pytest.raises(errors.TargetDiffers, match="use `force: true`") as caught:
        made.restore(dry=dry)
    assert caught.value.details["diff"]["changed"] == ["a"]
    assert made.snapshot() == before


def test_content_of_the_same_size_and_time_is_found_by_verify(made):
    made.restore()
    info = os.stat(made.target / "a")
    (made.target / "a").write_bytes(b"X")
    os.utime(made.target / "a", ns=(info.st_atime_ns, info.st_mtime_ns))
    done = made.restore(force=True, verify=False)
    assert not done.changed and not done.restore["verified"]
    done = made.restore(force=True)
    assert done.changed and done.restore["verified"]
    assert (made.target / "a").read_bytes() == b"1"


def test_auto_loses_nothing(made):
    """Something is in the target that the backup lacks: auto goes in place and leaves it."""
    made.restore()
    (made.target / "mine").write_bytes(b"mine")
    (made.target / "a").write_bytes(b"changed")
    done = made.restore(force=True)
    assert done.restore["strategy"] == "in_place"
    assert (made.target / "mine").read_bytes() == b"mine" and (made.target / "a").read_bytes() == b"1"
    assert not made.restore(force=True).changed, "what auto leaves alone is no difference"
    done = made.restore(force=True, delete=True)
    assert done.restore["files_removed"] == 1 and not (made.target / "mine").exists()
    (made.target / "a").write_bytes(b"changed")
    assert made.restore(force=True).restore["strategy"] == "replace"


@pytest.mark.parametrize("strategy", WAYS)
def test_excluded_and_skipped_things_stay(bench, strategy):
    bench.files(a=b"1", uploads__u=b"2", d__x__log=b"3", d__b=b"4")
    (bench.source / "d" / "y.log").write_bytes(b"5")
    bench.create(exclude=["/uploads", "*.log"])
    bench.restore()
    (bench.target / "uploads" / "deep").mkdir(parents=True)
    (bench.target / "uploads" / "deep" / "picture").write_bytes(b"precious")
    (bench.target / "d" / "z.log").write_bytes(b"log")
    (bench.target / "new").mkdir()
    (bench.target / "new" / "n.log").write_bytes(b"log")
    (bench.target / "new" / "other").write_bytes(b"goes")
    (bench.target / "a").write_bytes(b"changed")
    options = {"delete": True} if strategy == "in_place" else {}
    done = bench.restore(force=True, strategy=strategy, **options)
    assert done.restore["strategy"] == strategy
    assert tree(bench.target) == ["a", "d", "d/b", "d/x", "d/x/log", "d/z.log", "new", "new/n.log", "uploads", "uploads/deep", "uploads/deep/picture"]
    assert (bench.target / "a").read_bytes() == b"1"
    assert (bench.target / "uploads" / "deep" / "picture").read_bytes() == b"precious"
    assert not bench.restore(force=True, strategy=strategy, **options).changed
    assert bench.debris() == []


@pytest.mark.parametrize("strategy", ["auto", *WAYS])
def test_a_mount_below_the_target(made, tmp_path, strategy):
    """A bind mount of the same file system: no device number tells, and what is mounted must survive."""
    need("mount", root=True)
    made.restore()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"precious")
    (made.target / "m").mkdir()
    subprocess.run(["mount", "--bind", elsewhere, made.target / "m"], check=True)
    try:
        (made.target / "a").write_bytes(b"changed")
        if strategy == "replace":
            before = made.snapshot()
            with pytest.raises(errors.TargetError, match="mounted below"):
                made.restore(force=True, strategy=strategy)
            assert made.snapshot() == before
        else:
            done = made.restore(force=True, strategy=strategy, delete=True)
            assert done.restore["strategy"] == "in_place"
            assert (made.target / "a").read_bytes() == b"1"
        assert (elsewhere / "precious").read_bytes() == b"precious"
        assert (made.target / "m" / "precious").exists()
    finally:
        subprocess.run(["umount", made.target / "m"], check=True)


def test_a_mount_point_as_target(made):
    need("mount", root=True)
    made.target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", made.target], check=True)
    try:
        (made.target / "old").write_bytes(b"old")
        done = made.restore(force=True, strategy="replace")
        assert done.restore["strategy"] == "in_place" and any("mount point" in warning for warning in done.warnings)
        assert oracle.differences(made.source, made.target) == []
    finally:
        subprocess.run(["umount", made.target], check=True)


def test_overlayfs_that_cannot_exchange(tmp_path):
    """A directory that comes from the lower layer cannot be renamed: in place, and said so."""
    need("mount", root=True)
    from ansible_collections.volt.backup.tests.system.conftest import Bench

    layers = {name: tmp_path / name for name in ("lower", "upper", "work", "merged")}
    for path in layers.values():
        path.mkdir()
    (layers["lower"] / "target").mkdir()
    (layers["lower"] / "target" / "old").write_bytes(b"old")
    options = "lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=off".format(**layers)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, layers["merged"]], check=True)
    try:
        bench = Bench(layers["merged"])
        bench.files(a=b"1", d__b=b"2")
        bench.create()
        done = bench.restore(force=True, strategy="replace")
        assert done.restore["strategy"] == "in_place" and any("cannot swap" in warning for warning in done.warnings)
        assert oracle.differences(bench.source, bench.target) == []
        assert bench.debris() == []
    finally:
        subprocess.run(["umount", layers["merged"]], check=True)


def test_some_paths(made):
    made.restore(paths=["d/e", "/a"])
    assert tree(made.target) == ["a", "d", "d/e", "d/e/c"]
    (made.target / "d" / "b").write_bytes(b"mine")
    (made.target / "a").write_bytes(b"mine")
    made.restore(paths=["d/e/c", "a"], force=True)
    assert (made.target / "d" / "b").read_bytes() == b"mine" and (made.target / "a").read_bytes() == b"1"
    for path, words in (("nothing", "has no path nothing"), ("../a", "contains `..`")):
        with pytest.raises(errors.UsageError, match=words):
            made.restore(paths=[path], force=True)


def test_a_directory_in_the_place_of_a_file(made):
    made.restore()
    (made.target / "a").unlink()
    (made.target / "a").mkdir()
    (made.target / "a" / "mine").write_bytes(b"mine")
    with pytest.raises(errors.TargetError, match="directory with files") as caught:
        made.restore(force=True, strategy="in_place")
    assert (made.target / "a" / "mine").exists() and caught.value.details["paths"] == ["a"]
    made.restore(force=True, strategy="in_place", delete=True)
    assert oracle.differences(made.source, made.target) == []


def test_keep_previous(made):
    made.restore()
    (made.target / "a").write_bytes(b"before")
    done = made.restore(force=True, keep_previous=True)
    previous = done.restore["previous"]
    assert oracle.differences(made.source, made.target) == []
    with open(os.path.join(previous, "a"), "rb") as file:
        assert file.read() == b"before"
    assert not {info.stat().st_ino for info in made.target.rglob("*")} & {os.lstat(os.path.join(previous, name)).st_ino for name in ("a", "d/b")}


def test_unchanged_files_keep_their_blocks(made):
    """Replacing takes over what is equal: the same inode, nothing copied."""
    made.restore()
    inode = (made.target / "d" / "b").stat().st_ino
    (made.target / "a").write_bytes(b"changed")
    done = made.restore(force=True, strategy="replace")
    assert done.restore["files_unchanged"] == 2 and done.restore["files_copied"] == 1
    assert (made.target / "d" / "b").stat().st_ino == inode


@pytest.mark.parametrize("strategy", WAYS)
def test_a_planted_symlink_leads_nowhere(made, tmp_path, strategy):
    made.restore()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "c").write_bytes(b"outside")
    shutil.rmtree(made.target / "d" / "e")
    os.symlink(outside, made.target / "d" / "e")
    made.restore(force=True, strategy=strategy)
    assert (outside / "c").read_bytes() == b"outside" and sorted(os.listdir(outside)) == ["c"]
    assert oracle.differences(made.source, made.target) == []


@pytest.mark.parametrize("where", ["packs", "objects"])
@pytest.mark.parametrize("harm", ["missing", "altered", "truncated"])
@pytest.mark.parametrize("strategy", WAYS)
def test_a_damaged_backup_is_refused_and_nothing_is_touched(made, where, harm, strategy):
    other = made.top / "other"
    other.mkdir()
    (other / "z").write_bytes(os.urandom(300_000))
    sound = made.create(source=other).backup["id"]
    mine = made.found()[1]["id"]
    made.restore(mine)
    (made.target / "a").write_bytes(b"mine")
    before = made.snapshot()
    kept = {path for path in (made.store / where).rglob("*") if path.is_file()}
    fresh = made.manager.contents(sound, 10)
    assert fresh["count"] == 2
    oldest = sorted(kept, key=lambda path: path.stat().st_mtime_ns)
    for path in oldest[:1] if where == "objects" else oldest[:2]:
        if harm == "missing":
            path.unlink()
        else:
            content = path.read_bytes()
            path.write_bytes(content[:-5] if harm == "truncated" else content[:-5] + bytes([content[-5] ^ 4]) + content[-4:])
    with pytest.raises(errors.Damaged):
        made.restore(mine, force=True, strategy=strategy)
    target = {path: state for path, state in before.items() if path.startswith(str(made.target))}
    assert {path: state for path, state in made.snapshot().items() if path.startswith(str(made.target))} == target
    states = {backup["id"]: backup["damaged"] for backup in made.found()}
    assert states == {mine: True, sound: False}
    assert made.restore(sound, target=str(made.top / "elsewhere")).changed


@pytest.mark.parametrize("strategy", WAYS)
def test_bit_rot_that_no_stat_shows_stops_before_the_exchange(made, strategy, monkeypatch):
    """An object changed under the very same size and change time, as a failing disk does it."""
    from ansible_collections.volt.backup.plugins.module_utils._store import layout

    made.restore()
    (made.target / "d" / "b").unlink()
    before = tree(made.target)
    real = layout.read_blob_file
    monkeypatch.setattr(layout, "read_blob_file", lambda path, limit: real(path, limit)[:-1] + b"!" if "/objects/" in path else real(path, limit))
    with pytest.raises(errors.Damaged) as caught:
        made.restore(force=True, strategy=strategy)
    assert tree(made.target) == before and made.debris() == []
    if strategy == "in_place":
        assert caught.value.details["restored_count"] == 0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "not JSON"),
        (lambda text: b"nonsense", "not JSON"),
        (lambda text: text.replace(b'"format": 1', b'"format": "1"'), "invalid format: '1'"),
        (lambda text: text.replace(b'"id"', b'"di"'), "no field id"),
        (lambda text: text.replace(b'"work-', b'"wark-'), "belongs to backup"),
    ],
)
def test_damaged_sidecars_are_listed(made, damage, words):
    sound = made.create().backup["id"]
    first = next(path for path in made.backups.glob("*-*.json") if path.stem != sound)
    first.write_bytes(damage(first.read_bytes()))
    listed = {backup["id"]: backup for backup in made.found()}
    assert listed[first.stem]["damaged"] and words in listed[first.stem]["damage"]
    assert set(listed[first.stem]) == set(listed[sound]), "a damaged backup has every key"
    assert not listed[sound]["damaged"]
    with pytest.raises(errors.Damaged):
        made.restore(first.stem)
    assert made.manager.delete(first.stem) is not None
    assert [backup["id"] for backup in made.found()] == [sound]
    assert len(os.listdir(made.store / "refs")) == 1


@pytest.mark.parametrize("harm", ["missing", "altered", "truncated"])
def test_damaged_manifests_are_listed(made, harm):
    path = next((made.store / "refs").iterdir())
    text = path.read_bytes()
    path.unlink()
    if harm != "missing":
        path.write_bytes(text[:-40] if harm == "truncated" else text.replace(b"4", b"5", 1))
    listed = made.found()[0]
    assert listed["damaged"] and "Manifest" in listed["damage"]
    with pytest.raises(errors.Damaged):
        made.restore(listed["id"])
    assert made.create().changed, "the next backup stands alone"


def test_targets_that_cannot_be_meant(made):
    made.restore()
    cases = [
        (made.store / "refs" / "x", "where backups are kept"),
        (made.store, "where backups are kept"),
        (made.top, "contains"),
        (made.top / "no" / "parent", "no parent directory"),
        (made.target / "a", "not a directory"),
    ]
    before = made.snapshot()
    for target, words in cases:
        with pytest.raises(errors.TargetError, match=words):
            made.restore(target=str(target), force=True)
    assert made.snapshot() == before


@pytest.mark.parametrize(
    ("backup", "kind"), [("work-20200101-000000-manual", errors.NotFound), ("../x", errors.UsageError), ("a/b", errors.UsageError), ("..", errors.UsageError)]
)
def test_invalid_ids(made, backup, kind):
    with pytest.raises(kind):
        made.restore(backup)
    with pytest.raises(errors.UsageError) if kind is errors.UsageError else pytest.raises(AssertionError):
        assert made.manager.delete(backup) is not None


@pytest.mark.parametrize("strategy", WAYS)
def test_disk_full_during_restore(bench_on, tmp_path, strategy):
    bench = bench_on("ext4", 48 << 20)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(12):
        (source / f"f{number}").write_bytes(os.urandom(2 << 20))
    from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager

    bench.manager = Manager(str(tmp_path / "store"), str(tmp_path / "backups"), 5)
    bench.create(source=source)
    bench.target.mkdir()
    (bench.target / "f0").write_bytes(b"old")
    (bench.top / "ballast").write_bytes(os.urandom(20 << 20))
    with pytest.raises(errors.TargetFull, match="target's file system is full") as caught:
        bench.restore(force=True, strategy=strategy)
    if strategy == "replace":
        assert caught.value.details["restored_count"] > 0, "no space for two trees: it went in place, and says what is done"
    assert not [name for name in os.listdir(bench.target) if name.startswith(".volt")]
    assert [name for name in os.listdir(bench.top) if name.startswith(".")] == []
    (bench.top / "ballast").unlink()
    bench.restore(force=True, strategy=strategy)
    assert oracle.differences(source, bench.target) == []


def test_explicit_reflink_where_there_is_none(bench_on):
    bench = bench_on("ext4")
    bench.files(a=b"1")
    bench.create()
    before = bench.snapshot()
    with pytest.raises(errors.TargetError, match="cannot share data"):
        bench.restore(link="reflink")
    assert not bench.target.exists() and bench.debris() == []
    assert set(bench.snapshot()) == set(before)


def test_owners_by_name_and_by_number(made):
    need("chown", root=True)
    import pwd

    someone = pwd.getpwnam("daemon")
    os.chown(made.source / "a", someone.pw_uid, someone.pw_gid)
    made.create()
    path = next((made.store / "refs").glob("*"))
    assert path.exists()
    made.restore(numeric_owner=True)
    assert (made.target / "a").stat().st_uid == someone.pw_uid


def test_a_second_restore_waits_its_turn(made, monkeypatch):
    """Whether it names the target as the first one does, or reaches it by another path."""
    made.restore()
    (made.target / "a").write_bytes(b"changed")
    (made.top / "link").symlink_to(made.target)
    met = []

    def meanwhile(*arguments):
        for target in (made.target, made.top / "link"):
            with pytest.raises(errors.TargetError, match="is running"):
                made.restore(target=str(target), force=True, strategy="in_place")
            met.append(target)
        return real(*arguments)

    real = restore.Restorer._run
    monkeypatch.setattr(restore.Restorer, "_run", lambda self: real(self) if met else meanwhile(self))
    assert made.restore(force=True, strategy="in_place").changed
    assert len(met) == 2


def test_a_crash_right_after_the_exchange_is_finished_by_the_next_restore(bench, monkeypatch):
    """The one moment in which the old tree holds things that the new one has not got yet."""
    bench.files(a=b"1", uploads__u=b"2")
    bench.create(exclude=["/uploads"])
    bench.restore()
    (bench.target / "uploads").mkdir()
    (bench.target / "uploads" / "picture").write_bytes(b"precious")
    (bench.target / "a").write_bytes(b"changed")
    child = os.fork()
    if not child:
        real = kernel.exchange

        def dies(*arguments):
            real(*arguments)
            os.kill(os.getpid(), 9)

        kernel.exchange = dies
        bench.restore(force=True, strategy="replace")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert bench.debris() and not (bench.target / "uploads").exists()
    (bench.target / "a").write_bytes(b"changed again")
    bench.restore(force=True, strategy="replace")
    assert (bench.target / "uploads" / "picture").read_bytes() == b"precious" and (bench.target / "a").read_bytes() == b"1"
    assert bench.debris() == []


# ---- found by a hostile reader


def test_a_path_that_means_everything_does_not_reach_the_store(bench):
    bench.files(a=b"1")
    bench.create()
    host = bench.top / "host"
    host.mkdir()
    from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager

    bench.store.rename(host / "cas")
    bench.backups.rename(host / "backups")
    bench.store, bench.backups = host / "cas", host / "backups"
    bench.manager = Manager(str(bench.store), str(bench.backups), 5)
    for path in (".", "./", "cas/..", "./cas"):
        with pytest.raises((errors.TargetError, errors.UsageError)):
            bench.restore(target=str(host), force=True, paths=[path], strategy="in_place", delete=True)
    assert not bench.found()[0]["damaged"]
    bench.restore(target=str(host), force=True, paths=["a"])
    assert (host / "a").read_bytes() == b"1"


@pytest.mark.parametrize("strategy", ["auto", "in_place"])
def test_auto_does_not_take_a_directory_of_files_for_a_change(made, strategy):
    made.restore()
    (made.target / "a").unlink()
    (made.target / "a").mkdir()
    (made.target / "a" / "only-copy").write_bytes(b"precious")
    with pytest.raises(errors.TargetError, match="directory with files"):
        made.restore(force=True, strategy=strategy)
    assert (made.target / "a" / "only-copy").read_bytes() == b"precious"


def test_excluded_things_in_the_way_are_refused_in_place_and_kept_by_replace(bench):
    bench.files(d=b"file", cache=b"file")
    bench.create(exclude=["*.log", "cache/"])
    bench.restore()
    for name in ("d", "cache"):
        (bench.target / name).unlink()
        (bench.target / name).mkdir()
    (bench.target / "d" / "x.log").write_bytes(b"log")
    (bench.target / "cache" / "excluded").write_bytes(b"cached")
    with pytest.raises(errors.TargetError, match="excluded path"):
        bench.restore(force=True, strategy="in_place", delete=True)
    done = bench.restore(force=True, strategy="replace")
    kept = done.restore["previous"]
    assert kept and any("could not be moved into" in warning for warning in done.warnings)
    assert open(os.path.join(kept, "d", "x.log"), "rb").read() == b"log"
    assert open(os.path.join(kept, "cache", "excluded"), "rb").read() == b"cached"


def test_keep_previous_twice_in_one_second_and_with_a_long_name(made):
    target = made.top / ("n" * 240)
    made.restore(target=str(target))
    kept = []
    for number in range(3):
        (target / "a").write_bytes(b"%d!" % number)
        kept.append(made.restore(target=str(target), force=True, strategy="replace", keep_previous=True).restore["previous"])
    assert [open(os.path.join(place, "a"), "rb").read() for place in kept] == [b"0!", b"1!", b"2!"]
    assert made.debris() == []


def test_keep_previous_is_kept_or_refused(made):
    made.restore()
    (made.target / "mine").write_bytes(b"mine")
    done = made.restore(force=True, keep_previous=True)
    assert done.restore["strategy"] == "replace"
    assert open(os.path.join(done.restore["previous"], "mine"), "rb").read() == b"mine"
    for options in ({"strategy": "in_place"}, {"paths": ["a"]}):
        with pytest.raises(errors.UsageError, match="keep_previous"):
            made.restore(force=True, keep_previous=True, **options)


@pytest.mark.parametrize("moment", ["before the rename", "after an error"])
def test_keep_previous_survives_a_crash(made, moment):
    made.restore()
    (made.target / "a").write_bytes(b"before")
    child = os.fork()
    if not child:
        real = kernel.exchange

        def ends(*arguments):
            real(*arguments)
            if moment == "before the rename":
                os.kill(os.getpid(), 9)

            def fails(*_arguments, **_options):
                raise OSError(5, "injected")

            os.rename = fails

        kernel.exchange = ends
        try:
            made.restore(force=True, keep_previous=True)
        except errors.TargetError as error:
            os._exit(0 if "next restore" in error.message else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (-9 if moment == "before the rename" else 0)
    done = made.restore(force=True)
    assert any("kept in" in warning for warning in done.warnings)
    kept = [name for name in os.listdir(made.top) if name.startswith("target.previous-")]
    assert len(kept) == 1 and (made.top / kept[0] / "a").read_bytes() == b"before"
    made.create()  # which removes what the killed one left in the store
    assert made.debris() == []


def test_what_comes_in_while_auto_replaces_is_carried_over(made, monkeypatch):
    made.restore()
    (made.target / "a").write_bytes(b"changed")
    real = kernel.exchange

    def late(*arguments):
        (made.target / "d" / "late").write_bytes(b"late")
        (made.target / "newdir").mkdir()
        (made.target / "newdir" / "x").write_bytes(b"x")
        real(*arguments)

    monkeypatch.setattr(kernel, "exchange", late)
    assert made.restore(force=True).restore["strategy"] == "replace"
    assert (made.target / "d" / "late").read_bytes() == b"late" and (made.target / "newdir" / "x").read_bytes() == b"x"


def test_restores_to_one_target_exclude_each_other(made, monkeypatch):
    made.restore()
    (made.target / "a").write_bytes(b"changed")
    real = kernel.exchange
    seen = []

    def meanwhile(*arguments):
        for strategy in WAYS:
            try:
                made.restore(force=True, strategy=strategy)
            except errors.TargetError as error:
                seen.append(error.message)
        real(*arguments)

    monkeypatch.setattr(kernel, "exchange", meanwhile)
    made.restore(force=True, strategy="replace")
    assert len(seen) == 2 and all("is running" in message for message in seen)


def test_an_immutable_file_does_not_block_the_target_for_good(bench_on):
    need("chattr", root=True)
    made = bench_on("ext4")
    made.files(a=b"1", im=b"2")
    made.create()
    made.restore()
    (made.target / "im").write_bytes(b"3")
    subprocess.run(["chattr", "+i", made.target / "im"], check=True)
    try:
        done = made.restore(force=True, strategy="replace")
        assert any("could not be removed, first im" in warning for warning in done.warnings)
        assert (made.target / "im").read_bytes() == b"2"
        (made.target / "a").write_bytes(b"changed")
        again = made.restore(force=True)
        assert any("cannot be removed" in warning for warning in again.warnings)
        assert (made.target / "a").read_bytes() == b"1"
    finally:
        subprocess.run(["chattr", "-R", "-i", made.top], check=False, stderr=subprocess.DEVNULL)


def test_a_user_s_own_directory_with_such_a_name_is_not_changed(made):
    for name in (".target.volt-data", ".target.volt-0123456789abcdef", ".target.volt-kept-0123456789abcdef"):
        (made.top / name / "tree").mkdir(parents=True)
        (made.top / name / "tree" / "p").write_bytes(b"mine")
    made.restore()
    (made.target / "a").write_bytes(b"changed")
    made.restore(force=True)
    assert len(list(made.top.glob(".target.volt-*/tree/p"))) == 3


def test_a_file_that_is_a_mount_point_is_refused_before_anything_is_written(made, tmp_path):
    need("mount", root=True)
    made.restore()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"elsewhere")
    subprocess.run(["mount", "--bind", elsewhere, made.target / "d" / "b"], check=True)
    try:
        (made.target / "a").write_bytes(b"changed")
        with pytest.raises(errors.TargetError, match="mount point"):
            made.restore(force=True, strategy="in_place")
        assert (made.target / "a").read_bytes() == b"changed"
    finally:
        subprocess.run(["umount", made.target / "d" / "b"], check=True)


@pytest.mark.parametrize("strategy", WAYS)
def test_a_cache_that_lost_its_tag_keeps_its_content(bench, strategy):
    bench.files(a=b"1", c__data=b"cached")
    (bench.source / "c" / "CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    bench.create(exclude_caches=True)
    bench.restore()
    (bench.target / "c" / "data").write_bytes(b"cached")
    (bench.target / "c" / "CACHEDIR.TAG").unlink()
    options = {"delete": True} if strategy == "in_place" else {}
    bench.restore(force=True, strategy=strategy, **options)
    assert (bench.target / "c" / "data").read_bytes() == b"cached" and (bench.target / "c" / "CACHEDIR.TAG").exists()


def test_hard_linked_groups_do_not_stay_on_the_store_s_inode(bench):
    bench.files(o=b"o" * 300_000, p=b"p" * 300_000)
    os.link(bench.source / "o", bench.source / "o2")
    bench.create(compression="none")
    bench.restore(link="hardlink")
    (bench.target / "p").unlink()
    (bench.target / "p").write_bytes(b"changed")
    bench.restore(force=True, strategy="replace", link="copy")
    inside = {path.stat().st_ino for path in (bench.store / "objects").rglob("*") if path.is_file()}
    assert not inside & {path.stat().st_ino for path in bench.target.iterdir()}
    assert oracle.differences(bench.source, bench.target) == []


def test_empty_paths_are_refused(made):
    for options in ({"target": ""}, {"paths": [""]}):
        with pytest.raises(errors.UsageError, match="empty"):
            made.restore(force=True, **options)
    with pytest.raises(errors.UsageError, match="empty"):
        made.create(source="")


@pytest.mark.parametrize("link", ["reflink", "hardlink"])
@pytest.mark.parametrize("there", [True, False])
def test_check_mode_refuses_a_kind_of_link_that_the_run_would_refuse(bench, bench_on, link, there):
    other = bench_on("ext4", 64 << 20)
    bench.files(object=b"x" * 300_000)
    bench.create()
    if there:
        other.target.mkdir()
    before = other.snapshot()
    for dry in (True, False):
        with pytest.raises(errors.TargetError, match=f"cannot share data with the store by {link}; use `link: auto`"):
            bench.restore(target=str(other.target), link=link, force=True, dry=dry)
    assert {path: facts for path, facts in other.snapshot().items() if "target" not in path} == {
        path: facts for path, facts in before.items() if "target" not in path
    }


def test_check_mode_promises_links_where_there_will_be_some(bench_on):
    bench = bench_on("xfs")
    bench.files(object=b"x" * 300_000)
    bench.create()
    before = bench.snapshot()
    for link in ("reflink", "hardlink"):
        assert bench.restore(link=link, dry=True).changed
    assert bench.snapshot() == before
    assert bench.restore(link="reflink").changed


def test_a_stage_that_died_before_its_mark_was_written(bench):
    """Killed between making the mark and writing into it, which the crash tests met: it is known as ours all the same."""
    bench.files(a=b"1")
    backup = bench.create().backup["id"]
    stage = bench.top / f".target.volt-{1:016x}"
    stage.mkdir(0o700)
    (stage / "volt-restore").touch()
    bench.restore(backup)
    assert bench.debris() == []
    shutil.rmtree(bench.target)
    stage.mkdir(0o700)
    (stage / "volt-restore").touch()
    (stage / "mine").write_bytes(b"a user's own")
    bench.restore(backup)
    assert (stage / "mine").exists()


@pytest.mark.parametrize("strategy", WAYS)
def test_a_link_in_the_place_of_an_excluded_directory_stays(bench, strategy):
    """Uploads that a deployment moves elsewhere, and links, are still not the backup's business; a file of that name is."""
    bench.files(a=b"1", uploads__u=b"2", d__cache__c=b"3")
    bench.create(exclude=["/uploads/", "cache/"])
    (bench.source / "uploads").rename(bench.top / "shared")
    (bench.source / "uploads").symlink_to(bench.top / "shared")
    shutil.rmtree(bench.source / "d")
    (bench.source / "d").mkdir()
    (bench.source / "d" / "cache").write_bytes(b"a file")
    (bench.source / "a").write_bytes(b"changed")
    (bench.source / "new").symlink_to("a")
    bench.restore(target=None, force=True, delete=strategy == "in_place", strategy=strategy)
    assert os.readlink(bench.source / "uploads") == str(bench.top / "shared") and (bench.top / "shared" / "u").read_bytes() == b"2"
    assert tree(bench.source) == ["a", "d", "uploads"] and (bench.source / "a").read_bytes() == b"1"


@pytest.mark.parametrize("dry", [True, False])
def test_where_it_came_from_is_not_where_a_link_leads(made, dry):
    """Not the last name nor one above it; by target it can be said all the same."""
    (made.top / "innocent" / "source").mkdir(parents=True)
    (made.top / "innocent" / "source" / "precious").write_bytes(b"1")
    for source in (made.source, made.top / "above" / "source"):
        source.parent.mkdir(exist_ok=True)
        if source != made.source:
            made.source.rename(source)
            made.create(source=source)
        backup = made.found()[0]["id"]
        away = made.top / "away"
        link, leads = (source, made.top / "innocent" / "source") if source == made.source else (source.parent, made.top / "innocent")
        link.rename(away)
        link.symlink_to(leads)
        before = made.snapshot()
        with pytest.raises(errors.TargetError, match="is now a symbolic link"):
            made.restore(backup, dry, target=None, force=True, delete=True)
        assert made.snapshot() == before
        link.unlink()
        away.rename(link)
    assert made.restore(made.found()[0]["id"], True, target=str(made.top / "innocent" / "source"), force=True, delete=True).changed


@pytest.mark.parametrize(("key", "value", "words"), [("workload_name", "other", "to workload 'other'"), ("manifest_ref", "../escape", "invalid manifest name")])
def test_sidecars_that_point_elsewhere_are_damaged(made, key, value, words):
    sound = made.create().backup["id"]
    first = next(path for path in made.backups.glob("*-*.json") if path.stem != sound)
    first.write_text(json.dumps({**json.loads(first.read_bytes()), key: value}))
    listed = {backup["id"]: backup for backup in made.found()}
    assert listed[first.stem]["damaged"] and words in listed[first.stem]["damage"] and not listed[sound]["damaged"]
    assert {backup["id"] for backup in made.manager.find(Query("work"))} == {first.stem, sound}
