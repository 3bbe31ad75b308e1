# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let system calls fail: the command says whose fault it was, nothing is lost, and the next run works. And disks that are really full."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import pytest
from ansible_collections.volt.backup.tests.crash.cases import ALL, Create, Delete, Prune, Repair
from ansible_collections.volt.backup.tests.crash.scene import COLLECTS, Scene, snapshot, unlike
from ansible_collections.volt.backup.tests.rigs import mounts, sample, strace

NAMES = [kind.__name__ for kind in ALL]
FULL = ("ENOSPC", "EDQUOT")
_NAMES = ("ENOSPC", "EDQUOT", "EIO", "EACCES")
_DATA = ("ENOSPC", "EDQUOT", "EIO")
#: What each call can fail with, where that is not a matter of making a name.
ERRORS = {
    "openat": ("EMFILE", *_NAMES),
    **dict.fromkeys("write writev pwrite64 ftruncate truncate fallocate copy_file_range sendfile ioctl fsync fdatasync syncfs msync".split(), _DATA),
    # Without ENOSPC: with room left, that is what ext4 says of an attribute that is too large (tests/system/test_restore_limits.py).
    **dict.fromkeys("setxattr fsetxattr lsetxattr".split(), ("EDQUOT", "EIO")),
    **dict.fromkeys("unlink unlinkat rmdir fchmod fchmodat chmod fchown lchown fchownat utimensat".split(), ("EIO", "EACCES")),
    "flock": ("EIO",),
}
#: Of each command, in a usual run.
WRITES, READS, STUTTERS = 2, 2, 4
#: Calls that look, whose failures are the source's, the target's or the store's.
LOOKING = {"openat": ("EMFILE", "EIO", "EACCES"), "read": ("EIO",), "pread64": ("EIO",), "getdents64": ("EIO",), "newfstatat": ("EIO",), "statx": ("EIO",)}


@pytest.mark.parametrize("kind", ALL, ids=NAMES)
def test_writing_fails(worlds, count, kind):
    world = worlds["ext4"]
    case = world.case(kind)
    faults = [(point, error) for point in world.points(kind) for error in ERRORS.get(point.call, _NAMES)]
    for point, error in sample.some(faults, WRITES, "writing", kind.__name__):
        world.reset(kind)
        met: list[str] = []
        result = strace.run(world.server, case.words(), point, f"error={error}", met)
        mixed = any(not strace.changes(point.call, line) for line in met)
        try:
            failed = tidy(result, case.status, incomplete=mixed)
            if mixed and result.status == 3:
                undo_incomplete(world, kind, result)
                continue
            if failed and not mixed:
                codes = {place + ("_full" if error in FULL else "") for place in map(case.place, met)}
                assert result.value["code"] in codes, (codes, result.value)
            case.after(result)
            case.again(world.server.run(case.words()))
            assert case.debris() == []
            case.at_last()
        except Exception as trouble:
            trouble.add_note(f"{error}: {world.explain(kind, point)}\n{met}\n{result}")
            raise
        count("failed by an error" if failed else "survived an error")
    if kind is not Repair:
        world.scene.judged_by_others()


@pytest.mark.parametrize("kind", ALL, ids=NAMES)
def test_looking_fails(worlds, count, kind):
    """Whoever is to blame: one sentence, and nothing is lost."""
    world = worlds["ext4"]
    case = world.case(kind)
    seen = dict(strace.trace(world.server, case.words(), tuple(LOOKING), success=case.status == 0, every=True))
    # A module that cannot be imported is no failure of ours, the library looks for translations that nothing needs, and a pipe lets the command begin.
    foreign = (sysconfig.get_paths()["stdlib"], "/plugins/module_utils", "/.cache/link", "/share/locale", "<pipe:")
    faults = [(point, error) for point, line in seen.items() if not any(part in line for part in foreign) for error in LOOKING[point.call]]
    for point, error in sample.some(faults, READS, "looking", kind.__name__):
        world.reset(kind)
        result = strace.run(world.server, case.words(), point, f"error={error}")
        try:
            failed = tidy(result, case.status, incomplete=True)
            if result.status == 3:
                undo_incomplete(world, kind, result)
            else:
                case.after(result if failed or result.status == 0 else None)
            case.again(world.server.run(case.words()))
            assert case.debris() == []
        except Exception as trouble:
            trouble.add_note(f"{error}: {kind.__name__}, {point}: {seen[point]}\n{result}")
            raise
        count("failed by an error" if failed else "survived an error")


@pytest.mark.parametrize("kind, part", [(Create, "/store/packs/"), (Create, "/store/index/"), (Delete, "/backups/"), (Prune, "/backups/")])
def test_what_could_not_be_read_once_is_not_lost(worlds, count, kind, part):
    """A disk that stutters: what is believed of a file after one error must not outlive it, nor may success be reported for what was not done."""
    world = worlds["ext4"]
    case = world.case(kind)
    trace = strace.trace(world.server, case.words(), tuple(LOOKING), every=True)
    reads = [(point, line) for point, line in trace if part in line and point.call != "getdents64"]
    for point, line in sample.some(reads, STUTTERS, "stutters", kind.__name__, part):
        world.reset(kind)
        result = strace.run(world.server, case.words(), point, "error=EIO")
        try:
            if tidy(result, 0, incomplete=True):
                assert not any(world.scene.found().values()), world.scene.found()
            elif result.status == 3:  # calls vary a little from run to run, and this one met the source
                undo_incomplete(world, kind, result)
            else:
                case.after(result)
            case.again(world.server.run(case.words()))
        except Exception as trouble:
            trouble.add_note(f"EIO: {kind.__name__}, {point}: {line}\n{result}")
            raise
        count("stutters")


def undo_incomplete(world, kind, result):
    """A file of the source could not be read: the backup says which. It equals no tree, so what comes next begins without it."""
    backup = result.value["backup"]
    assert not backup["complete"] and backup["skipped"], result
    world.reset(kind)


def tidy(result, usual: int, incomplete: bool = False) -> bool:
    """Whether a run failed; if so, in one sentence that names a culprit."""
    assert "Traceback" not in result.errors, result
    if result.status == usual or incomplete and result.status == 3:
        return False
    if incomplete and result.status == 2 and result.value["code"] == "usage":
        return True  # a store that this user may not read: the message says who may
    assert result.status == 1 and result.value["failed"] and result.value["msg"], result
    assert result.value["code"] != "error" or incomplete, result.value
    return True


# ---- disks that are full


def fill(where: Path, but: int = 0) -> Path:
    """Leave `but` bytes, roughly."""
    ballast = where / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\xff" * size)
            except OSError:
                pass
    os.truncate(ballast, max(0, ballast.stat().st_size - but))
    os.sync()
    return ballast


def size(kind: str) -> int:
    """A small disk of a kind."""
    return (320 if kind == "xfs" else 160) * mounts.MIB


#: Bytes left on each kind of disk.
LEFT = [(kind, left) for kind in ("ext4", "xfs", "btrfs") for left in (0, 4 << 10, 100 << 10, 1 << 20)]


@pytest.mark.parametrize("kind, left", LEFT if sample.LONG else [LEFT[0], LEFT[2], LEFT[5], LEFT[11]])
def test_store_fills_up(worlds, tmp_path, kind, left):
    """Only store and records lie on a small disk: sources and targets have room."""
    with mounts.memory() as room, mounts.mount(kind, room or tmp_path, size(kind)) as disk:
        with Scene("ext4", tmp_path / "scene", disk_room=room) as scene:
            (disk / "backups").mkdir()
            scene.store, scene.backups = disk / "store", disk / "backups"
            scene.build(settled=False)
            store_fills_up(scene, disk, worlds["ext4"].server, left)


def store_fills_up(scene, disk, server, left):
    newest = snapshot(scene.source)
    scene.put(scene.source / "more", 12 << 20)
    more = snapshot(scene.source)
    ballast = fill(disk, left)
    words = scene.words("create", "work", "--source", str(scene.source))
    result = server.run(words)
    assert tidy(result, 0) and result.value["code"] == "store_full", result
    assert scene.holds(newest=newest) == set()
    # Deleting must be possible on a full disk, or there is no way out.
    result = server.run(scene.words("delete", scene.smalls[0]))
    assert result.status == 0, result
    scene.forget(scene.smalls[0])
    assert scene.holds() == set()
    if COLLECTS:
        result = server.run(scene.words("gc", "--grace", "0s"))
        assert result.status == 0, result
        assert result.value["freed_bytes"] > 0 or left, result.value
        assert scene.holds() == set()
    ballast.unlink()
    result = server.run(words)
    assert result.status == 0, result
    assert scene.holds(newest=more) == {result.value["backup"]["id"]}
    assert scene.debris() == []
    scene.judged_by_others()


@pytest.mark.parametrize("strategy", ["replace", "in_place"])
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_target_fills_up(worlds, tmp_path, kind, strategy):
    world = worlds["ext4"]
    world.reset_to_start()
    scene, server = world.scene, world.server
    with mounts.memory() as room, mounts.mount(kind, room or tmp_path, size(kind)) as disk:
        target = disk / "target"
        shutil.copytree(scene.promises[scene.smalls[0]], target)
        before, wanted = snapshot(target), scene.wanted[scene.new]
        ballast = fill(disk, 2 << 20)
        words = scene.words("restore", scene.new, "--target", str(target), "--force", "--strategy", strategy)
        result = server.run(words)
        assert tidy(result, 0) and result.value["code"] == "target_full", result
        # With no space for two trees a replacement is done in place as well: each file is the old one or the new one.
        for path, value in snapshot(target).items():
            assert path == "hard links" or not value[0].startswith("-") or value[4] in [tree[path][4] for tree in (before, wanted) if path in tree], path
        assert [name for name in os.listdir(disk) if ".volt-" in name] == []
        ballast.unlink()
        result = server.run(words if strategy == "replace" else [*words, "--delete"])
        assert result.status == 0, result
        assert snapshot(target) == wanted, (result, unlike(wanted, snapshot(target)))
    scene.holds()


def test_nothing_is_hidden_by_the_rigs(worlds):
    """The points of a creation and a deletion are those that the engine is known to have."""
    world = worlds["ext4"]
    calls = {point.call for point in world.points(Create)}
    assert {"mkdir", "openat", "write", "syncfs", "rename", "fsync", "link", "unlink"} <= calls
    assert {"unlink", "fsync"} <= {point.call for point in world.points(Delete)}
