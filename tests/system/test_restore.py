# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring: what is refused, what is left alone, and that a failure leaves the target as it was."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from ansible_collections.volt.backup.plugins.module_utils._store import errors, kernel
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
    made.restore()
    before = made.snapshot()
    for options in ({}, {"force": True}, {"verify": True}, {"force": True, "strategy": "in_place", "delete": True}):
        done = made.restore(**options)
        assert not done.changed and done.restore["strategy"] == "none"
    assert made.snapshot() == before


@pytest.mark.parametrize("dry", [False, True])
def test_different_needs_force(made, dry):
    made.restore()
    (made.target / "a").write_bytes(b"mine")
    before = made.snapshot()
    with pytest.raises(errors.TargetDiffers, match="say force: true") as caught:
        made.restore(dry=dry)
    assert caught.value.details["diff"]["changed"] == ["a"]
    assert made.snapshot() == before


def test_content_of_the_same_size_and_time_is_found_by_verify(made):
    made.restore()
    info = os.stat(made.target / "a")
    (made.target / "a").write_bytes(b"X")
    os.utime(made.target / "a", ns=(info.st_atime_ns, info.st_mtime_ns))
    assert not made.restore(force=True).changed
    assert made.restore(force=True, verify=True).changed
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
        assert done.restore["strategy"] == "in_place" and any("cannot be exchanged" in warning for warning in done.warnings)
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
    for path, words in (("nothing", "has no nothing"), ("../a", "leads out")):
        with pytest.raises(errors.UsageError, match=words):
            made.restore(paths=[path], force=True)


def test_a_directory_in_the_place_of_a_file(made):
    made.restore()
    (made.target / "a").unlink()
    (made.target / "a").mkdir()
    (made.target / "a" / "mine").write_bytes(b"mine")
    with pytest.raises(errors.TargetError, match="directory with content") as caught:
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
    from ansible_collections.volt.backup.plugins.module_utils._store import reader

    made.restore()
    (made.target / "d" / "b").unlink()
    before = tree(made.target)
    real = reader.read_bounded
    monkeypatch.setattr(reader, "read_bounded", lambda path, limit: real(path, limit)[:-1] + b"!" if "/objects/" in path else real(path, limit))
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
        (lambda text: text.replace(b'"format": 1', b'"format": 2'), "format 2"),
        (lambda text: text.replace(b'"id"', b'"di"'), "has no id"),
        (lambda text: text.replace(b'"work-', b'"wark-'), "says that it is"),
    ],
)
def test_damaged_sidecars_are_listed(made, damage, words):
    sound = made.create().backup["id"]
    first = next(path for path in made.backups.iterdir() if path.stem != sound)
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
        (made.top, "holds"),
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
def test_ids_that_are_none(made, backup, kind):
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
    with pytest.raises(errors.TargetError, match="cannot share files"):
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


def test_a_second_restore_waits_its_turn(made):
    import fcntl

    made.restore()
    (made.target / "a").write_bytes(b"changed")
    fd = os.open(made.target, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(errors.TargetError, match="under way"):
            made.restore(force=True, strategy="in_place")
    finally:
        os.close(fd)


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
