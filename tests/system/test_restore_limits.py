# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Targets that cannot hold all of a backup, and backups that lack something: what is restored, what is told, and that comparing afterwards says equal."""

from __future__ import annotations

import collections
import ctypes
import errno
import hashlib
import mmap
import os
import shutil
import stat
import struct
import subprocess
import tempfile
import time
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import restore as restores
from ansible_collections.volt.backup.plugins.module_utils._base import errors
from ansible_collections.volt.backup.plugins.module_utils._format import walk
from ansible_collections.volt.backup.plugins.module_utils._fs import acl, flags, metadata, mounts as file_systems
from ansible_collections.volt.backup.plugins.module_utils._restore import compare, equal, plan, rooms
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.tests.rigs import mounts, need, sample
from ansible_collections.volt.backup.tests.system.conftest import Bench

WAYS = ("replace", "in_place")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`other("ext4", "-I", "128")`: another file system, made so, to restore to."""
    with ExitStack() as stack:

        def make(kind: str, *options: str, size: int = 96 << 20) -> Path:
            need("mount", f"mkfs.{kind}", root=True)
            image, where = tmp_path / f"{kind}.other", tmp_path / f"{kind}-other"
            where.mkdir()
            with image.open("wb") as file:
                file.truncate(size)
            subprocess.run([f"mkfs.{kind}", *options, image], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.enter_context(mounts.image(image, where))
            return where

        yield make


def twice(bench: Any, target: Path, **options: Any) -> restores.Restored:
    """Restore, and find it equal afterwards: also once more where all that differs is content."""
    done = bench.restore(target=str(target), **options)
    again = bench.restore(target=str(target), force=True, delete=True)
    assert done.changed and not again.changed, again.diff["prepared"]
    return done


# ---- what the target cannot hold


def test_an_attribute_of_another_file_system(bench_on: Any, other: Any) -> None:
    need("btrfs", root=True)
    bench = bench_on("btrfs")
    bench.files(a=b"1", f=b"2", z=b"3")
    subprocess.run(["btrfs", "property", "set", bench.source / "f", "compression", "zstd"], check=True)
    os.setxattr(bench.source / "f", "user.kept", b"kept")
    bench.create()
    target = other("ext4") / "app"
    with pytest.raises(errors.AttributesRefused, match=r"cannot hold btrfs.compression \(1\) of 1 path") as caught:
        bench.restore(target=str(target), attributes="strict")
    assert caught.value.details["paths"] == ["f"] and not target.exists()
    done = twice(bench, target)
    assert (done.restore["attributes_skipped"], done.restore["attributes_skipped_names"]) == (1, {"btrfs.compression": 1})
    assert done.restore["attributes_skipped_paths"] == ["f"] and "btrfs.compression" in done.warnings[0]
    assert os.getxattr(target / "f", "user.kept") == b"kept" and (target / "z").read_bytes() == b"3"
    with pytest.raises(errors.AttributesRefused):
        (target / "a").write_bytes(b"changed")
        bench.restore(target=str(target), attributes="strict", force=True, dry=True)


def test_attributes_that_are_too_large(bench_on: Any, other: Any) -> None:
    """One alone, and several that only together have no room."""
    bench = bench_on("xfs")
    bench.files(a=b"1", big=b"2", many=b"3", z=b"4")
    os.setxattr(bench.source / "big", "user.big", b"x" * 20_000)
    for number in range(3):
        os.setxattr(bench.source / "many", f"user.n{number}", b"x" * 1700)
    bench.create()
    done = twice(bench, other("ext4", "-b", "4096") / "app")
    assert done.restore["attributes_skipped_names"] == {"user.big": 1, "user.n2": 1}


@pytest.mark.parametrize("strategy", WAYS)
def test_whole_seconds(bench: Any, other: Any, strategy: str) -> None:
    bench.files(a=b"1", d__b=b"2")
    bench.create()
    target = other("ext4", "-I", "128") / "app"
    done = twice(bench, target, strategy=strategy)
    assert done.restore["attributes_skipped_names"]["mtime"] == 4
    (target / "a").write_bytes(b"9")
    os.utime(target / "a", (1, 1))
    assert bench.restore(target=str(target), force=True).diff["changed"] == ["a"], "a second that differs is a difference"


@pytest.mark.parametrize("strategy", WAYS)
def test_times_that_this_host_has_no_number_for(bench: Any, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library of a 32-bit host may end in 2038, and Python refuses what is beyond. test_architecture.py has such a host."""
    bench.files(a=b"1", d__b=b"2", d__e=b"3")
    os.symlink("nowhere", bench.source / "link")
    os.mkfifo(bench.source / "fifo")
    last = (1 << 31) - 1
    for name in ("a", "d/b", "link", "fifo", "d"):
        os.utime(bench.source / name, (4_102_444_800, 4_102_444_800), follow_symlinks=False)
    os.utime(bench.source / "d" / "e", (last, last))
    bench.create()
    real = os.utime

    def short(*place: Any, ns: tuple[int, int] | None = None, **more: Any) -> None:
        if ns and not -(1 << 31) <= ns[1] // 10**9 <= last:
            raise OverflowError("timestamp out of range for platform time_t")
        real(*place, **more, **({"ns": ns} if ns else {}))

    monkeypatch.setattr(os, "utime", short)
    done = twice(bench, bench.target, strategy=strategy)
    assert done.restore["attributes_skipped_names"] == {"mtime": 5}
    times = {os.lstat(bench.target / name).st_mtime_ns for name in ("a", "d/b", "link", "fifo", "d", "d/e")}
    assert times == {last * 10**9}


@pytest.mark.parametrize("strategy", WAYS)
def test_what_this_host_cannot_look_at_is_named(bench: Any, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a 32-bit host says of a file from after 2038."""
    bench.files(d__a=b"1")
    backup = bench.create().backup["id"]
    bench.restore(backup, target=str(bench.target))
    (bench.target / "d/late").write_bytes(b"2")
    real = os.stat

    def stat(place: Any, **more: Any) -> os.stat_result:
        if place == b"late":
            raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW))
        return real(place, **more)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(errors.TargetError, match="^d/late in the target cannot be compared: value too large for defined data type; fix that"):
        bench.restore(backup, target=str(bench.target), strategy=strategy, force=True)


def test_owners_outside_of_a_user_namespace(bench: Any) -> None:
    need("unshare", root=True)
    bench.files(a=b"1", b=b"2", c=b"3")
    os.chown(bench.source / "b", 1234, 1234)
    backup = bench.create().backup["id"]

    def apart() -> None:
        for turn in range(2):
            done = bench.restore(backup, target=str(bench.target))
            assert done.changed is (turn == 0) and done.restore["attributes_skipped_names"] == ({"owner": 1} if turn == 0 else {})

    top = Path("/proc/self")
    child = os.fork()
    if not child:
        code = 1
        try:
            assert ctypes.CDLL(None).unshare(0x10000000) == 0
            (top / "setgroups").write_text("deny")
            for name in ("uid_map", "gid_map"):
                (top / name).write_text("0 0 1")
            apart()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (bench.target / "c").read_bytes() == b"3"


def test_attributes_that_a_file_system_cannot_store(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As vfat, which has neither symbolic links nor pipes."""
    need(root=True)
    bench.files(a=b"1", z=b"2")
    (bench.source / "link").symlink_to("a")
    os.mkfifo(bench.source / "pipe")
    bench.create()

    def none(*_arguments: Any, **_more: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    for name in ("symlink", "mknod"):
        monkeypatch.setattr(os, name, none)
    for strategy in WAYS:
        done = bench.restore(strategy=strategy, force=True)
        assert done.restore["attributes_skipped_names"] == {"symlink": 1, "fifo": 1} and sorted(os.listdir(bench.target)) == ["a", "z"]


def test_hard_links_across_a_mount(bench: Any, tmp_path: Path) -> None:
    need("mount", root=True)
    bench.files(a=b"1", z=b"2")
    (bench.source / "data").mkdir()
    for name in ("data/one", "data/two", "b"):
        os.link(bench.source / "a", bench.source / name)
    bench.create()
    bench.restore()
    (bench.target / "data" / "one").unlink()
    (bench.target / "data" / "two").unlink()
    subprocess.run(["mount", "-t", "tmpfs", "none", bench.target / "data"], check=True)
    try:
        done = bench.restore(force=True)
        assert done.restore["strategy"] == "in_place" and done.restore["attributes_skipped_names"] == {"hard link": 1}
        assert (bench.target / "data" / "one").stat().st_ino == (bench.target / "data" / "two").stat().st_ino
        assert not bench.restore().changed
    finally:
        subprocess.run(["umount", bench.target / "data"], check=True)
    assert (bench.target / "a").stat().st_nlink >= 2


def test_more_names_than_a_file_may_have(bench_on: Any, other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """ext4 stops at 65,000; in a usual run it is made to stop earlier. The next names are of a second file, not of a file each."""
    bench = bench_on("xfs")
    bench.files(f=b"1")
    for number in range(65_100 if sample.LONG else 2_100):
        os.link(bench.source / "f", bench.source / f"l{number:05d}")
    bench.create()
    if not sample.LONG:
        link = os.link

        def limited(*names: Any, src_dir_fd: Any = None, **more: Any) -> None:
            if os.stat(names[0], dir_fd=src_dir_fd, follow_symlinks=False).st_nlink >= 2000:
                raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
            link(*names, src_dir_fd=src_dir_fd, **more)

        monkeypatch.setattr(os, "link", limited)
        monkeypatch.setattr(compare, "links_most", lambda _directory: 2000)
    target = other("ext4", "-N", "8000", size=256 << 20) / "app"
    twice(bench, target)
    assert len({entry.inode() for entry in os.scandir(target)}) == 2


def test_acls_follow_names_as_owners_do(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    need("setfacl", root=True)
    bench.files(f=b"1", etc__x=b"2")
    subprocess.run(["setfacl", "-m", "u:daemon:rw,g:games:r", bench.source / "f"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:daemon:rwx", bench.source / "etc"], check=True)
    bench.create()
    moved = {"daemon": 4001, "games": 4002}
    real = metadata._lookup
    monkeypatch.setattr(metadata, "_lookup", lambda find, name, number: moved.get(name) or real(find, name, number))
    twice(bench, bench.target)
    users, groups = acl.ids(metadata.read_xattrs(os.fspath(bench.target / "f")))
    assert (users, groups) == ({4001}, {4002})
    assert acl.ids(metadata.read_xattrs(os.fspath(bench.target / "etc")))[0] == {4001}
    numbers = bench.top / "numbers"
    bench.restore(target=str(numbers), numeric_owner=True)
    assert 4001 not in acl.ids(metadata.read_xattrs(os.fspath(numbers / "f")))[0]


@pytest.mark.parametrize("how", ["container", "passwd"])
def test_a_system_s_own_numbers_are_kept(bench: Any, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need(root=True)
    bench.files(f=b"1", **({"etc__passwd": b"root:x:0:0"} if how == "passwd" else {}))
    os.chown(bench.source / "f", 1, 1)  # daemon
    bench.create(**({"workload_mode": "container"} if how == "container" else {}))
    monkeypatch.setattr(metadata, "_lookup", lambda find, name, number: number + 5000)
    bench.restore()
    assert (bench.target / "f").stat().st_uid == 1


# ---- subvolumes, projects, flags


def subvolume(path: Path) -> None:
    subprocess.run(["btrfs", "subvolume", "create", path], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("strategy", ["auto", "replace"])
def test_a_subvolume_stays_what_it_is(bench_on: Any, strategy: str) -> None:
    need("btrfs", root=True)
    bench = bench_on("btrfs")
    subvolume(bench.source)
    bench.files(conf=b"1", uploads__u=b"precious")
    bench.create(exclude=["/uploads/"])
    (bench.source / "conf").write_bytes(b"2")
    done = bench.restore(target=None, force=True, strategy=strategy, delete=strategy == "auto")
    assert done.restore["strategy"] == "in_place" and (bench.source / "conf").read_bytes() == b"1"
    assert bench.source.stat().st_ino == 256 and (bench.source / "uploads" / "u").read_bytes() == b"precious"


@pytest.mark.parametrize("delete", [True, False])
def test_a_subvolume_below_the_target_stays(bench_on: Any, delete: bool) -> None:
    """A snapshot of snapper's, or data of its own."""
    need("btrfs", root=True)
    bench = bench_on("btrfs")
    bench.files(conf=b"1", data__d=b"2")
    bench.create()
    bench.restore()
    shutil.rmtree(bench.target / "data")
    for name in ("data", ".snapshots"):
        subvolume(bench.target / name)
    (bench.target / ".snapshots" / "precious").write_bytes(b"precious")
    (bench.target / "data" / "d").write_bytes(b"changed")
    with pytest.raises(errors.TargetError, match="mounted below target|subvolume"):
        bench.restore(force=True, strategy="replace")
    done = bench.restore(force=True, delete=delete)
    assert done.restore["strategy"] == "in_place"
    assert (bench.target / "data" / "d").read_bytes() == b"2" and (bench.target / "data").stat().st_ino == 256
    assert (bench.target / ".snapshots" / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("inside", [False, True])
def test_a_subvolume_in_the_way_of_a_file_stays(bench_on: Any, inside: bool) -> None:
    need("btrfs", root=True)
    bench = bench_on("btrfs")
    bench.files(a=b"1", f=b"2")
    bench.create()
    bench.restore()
    (bench.target / "f").unlink()
    if inside:
        (bench.target / "f").mkdir()
    place = bench.target / "f" / "sub" if inside else bench.target / "f"
    subvolume(place)
    (place / "precious").write_bytes(b"precious")
    (bench.target / "a").write_bytes(b"changed")
    with pytest.raises(errors.TargetError, match="f in the target is a mount point or"):
        bench.restore(force=True, delete=True)
    assert (place / "precious").read_bytes() == b"precious" and (bench.target / "a").read_bytes() == b"changed"


def test_what_cannot_be_written_is_found_before_anything_is(bench_on: Any) -> None:
    """A directory that is immutable, and a read-only mount, in which something is missing."""
    need("chattr", "mount", root=True)
    bench = bench_on("ext4")
    bench.files(a=b"1", d__b=b"2", m__c=b"3")
    bench.create()
    bench.restore()
    (bench.target / "a").write_bytes(b"changed")
    (bench.target / "d" / "b").unlink()
    subprocess.run(["chattr", "+i", bench.target / "d"], check=True)
    try:
        with pytest.raises(errors.TargetError, match="d in the target differs but is immutable"):
            bench.restore(force=True, strategy="in_place")
    finally:
        subprocess.run(["chattr", "-i", bench.target / "d"], check=True)
    (bench.target / "m" / "c").unlink()
    subprocess.run(["mount", "--bind", bench.target / "m", bench.target / "m"], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", bench.target / "m"], check=True)
        with pytest.raises(errors.TargetError, match="m in the target differs but is on a read-only file system"):
            bench.restore(force=True, strategy="in_place")
    finally:
        subprocess.run(["umount", bench.target / "m"], check=True)
    assert (bench.target / "a").read_bytes() == b"changed"


def flags_of(path: Path) -> flags.Flags:
    fd = os.open(path, os.O_RDONLY)
    try:
        return flags.read_flags(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("strategy", WAYS)
def test_flags_are_carried_over(bench_on: Any, strategy: str) -> None:
    need("chattr", root=True)
    bench = bench_on("btrfs")
    bench.files(db__file=b"1" * 300_000, a=b"2")
    bench.create()
    bench.target.mkdir()
    (bench.target / "db").mkdir()
    subprocess.run(["chattr", "+C", bench.target / "db"], check=True)
    (bench.target / "db" / "file").write_bytes(b"changed")
    assert flags_of(bench.target / "db" / "file").flags & 0x800000
    done = bench.restore(force=True, strategy=strategy, delete=strategy == "in_place")
    assert done.restore["strategy"] == strategy
    for name in ("db", "db/file"):
        assert flags_of(bench.target / name).flags & 0x800000, name


@pytest.mark.parametrize("strategy", WAYS)
def test_projects_are_carried_over(bench: Any, other: Any, strategy: str) -> None:
    need("chattr", root=True)
    bench.files(a=b"1", d__b=b"2", uploads__u=b"x")
    bench.create(exclude=["/uploads/"])
    target = other("xfs", size=320 << 20) / "app"
    target.mkdir()
    subprocess.run(["chattr", "+P", "-p", "77", target], check=True)
    (target / "uploads").mkdir()
    (target / "uploads" / "u").write_bytes(b"precious")
    (target / "a").write_bytes(b"changed")
    bench.restore(target=str(target), force=True, strategy=strategy)
    for name in (".", "a", "d", "d/b", "uploads/u"):
        assert flags_of(target / name).project == 77, name
    assert (target / "uploads" / "u").read_bytes() == b"precious"


def test_what_is_immutable_is_found_before_anything_is_written(bench_on: Any) -> None:
    need("chattr", root=True)
    bench = bench_on("ext4")
    bench.files(a=b"1", im=b"2", uploads__u=b"x")
    bench.create(exclude=["/uploads/"])
    bench.restore()
    for name in ("a", "im"):
        (bench.target / name).write_bytes(b"changed")
    (bench.target / "uploads").mkdir()
    (bench.target / "uploads" / "u").write_bytes(b"precious")
    try:
        subprocess.run(["chattr", "+i", bench.target / "im"], check=True)
        with pytest.raises(errors.TargetError, match="im in the target differs but is immutable"):
            bench.restore(force=True, strategy="in_place")
        assert (bench.target / "a").read_bytes() == b"changed"
        subprocess.run(["chattr", "-i", bench.target / "im"], check=True)
        subprocess.run(["chattr", "+i", bench.target / "uploads"], check=True)
        done = bench.restore(force=True, strategy="replace")
        assert done.restore["strategy"] == "in_place", "what was excluded cannot move, so the rest comes to it"
        assert (bench.target / "uploads" / "u").read_bytes() == b"precious" and (bench.target / "im").read_bytes() == b"2"
    finally:
        subprocess.run(["chattr", "-R", "-i", bench.top], check=False, stderr=subprocess.DEVNULL)


# ---- space


def test_space_is_what_will_be_written(bench: Any, other: Any) -> None:
    """An image that is mostly holes, and a file with thirty names."""
    with open_new(bench.source / "thin") as file:
        file.truncate(10 << 30)
        file.seek(5 << 30)
        file.write(os.urandom(1 << 20))
    (bench.source / "0").mkdir()
    (bench.source / "0" / "f").write_bytes(os.urandom(3 << 20))
    for number in range(1, 30):
        (bench.source / str(number)).mkdir()
        os.link(bench.source / "0" / "f", bench.source / str(number) / "f")
    bench.create()
    target = other("ext4") / "app"
    done = bench.restore(target=str(target), dry=True)
    assert 4 << 20 <= done.restore["bytes_needed"] < 5 << 20
    bench.restore(target=str(target))
    (target / "0" / "f").write_bytes(b"changed")
    assert bench.restore(target=str(target), force=True).restore["strategy"] == "replace"


def open_new(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def test_clones_need_no_space(bench_on: Any) -> None:
    bench = bench_on("btrfs")
    bench.files(large=os.urandom(4 << 20), small=b"1" * 5000)
    bench.create()
    assert bench.restore(dry=True).restore["bytes_needed"] == 8192
    assert bench.restore(dry=True, link="copy").restore["bytes_needed"] == (4 << 20) + 8192


# ---- damage


def lose(bench: Any, *contents: bytes) -> None:
    for content in contents:
        name = hashlib.sha256(content).hexdigest()
        for path in (bench.store / "objects" / name[:2]).glob(f"{name}*"):
            path.unlink()


@pytest.fixture
def hurt(bench: Any) -> Any:
    bench.large = [os.urandom(300_000) for _number in range(2)]
    bench.files(a__big=bench.large[0], a__small=b"s", b__small=b"t", b__other=bench.large[1])
    bench.create()
    lose(bench, bench.large[0])
    return bench


def test_the_rest_of_a_damaged_backup(hurt: Any) -> None:
    sentence = r"lacks the content of 1 path\(s\): a/big\. Blob \w+ is missing or altered\. Restore the rest with `salvage: true`"
    with pytest.raises(errors.Damaged, match=sentence) as caught:
        hurt.restore()
    assert caught.value.details["paths"] == ["a/big"] and not hurt.target.exists()
    hurt.restore(paths=["b", "a/small"])
    assert (hurt.target / "b" / "other").read_bytes() == hurt.large[1] and (hurt.target / "a" / "small").exists()
    with pytest.raises(errors.Damaged, match="a/big"):
        hurt.restore(paths=["a"], force=True)


def test_salvage(hurt: Any) -> None:
    hurt.target.mkdir()
    (hurt.target / "a").mkdir()
    (hurt.target / "a" / "big").write_bytes(b"what is left of it")
    for dry in (True, False):
        done = hurt.restore(salvage=True, force=True, delete=True, dry=dry)
        assert done.restore["lost"] == ["a/big"] and any("1 path(s) could not be restored" in text for text in done.warnings)
    assert (hurt.target / "a" / "big").read_bytes() == b"what is left of it" and (hurt.target / "b" / "small").exists()
    again = hurt.restore(salvage=True)
    assert not again.changed and "all intact paths of" in restores.unchanged(again.restore)
    with pytest.raises(errors.UsageError, match="in place"):
        hurt.restore(salvage=True, strategy="replace")


def test_salvage_of_content_that_turns_out_to_be_altered(bench: Any) -> None:
    """Of the right size, so that only the restore finds it."""
    bench.large = [os.urandom(300_000) for _number in range(2)]
    bench.files(a=bench.large[0], b=bench.large[1])
    bench.create(compression="none")
    name = hashlib.sha256(bench.large[0]).hexdigest()
    path = bench.store / "objects" / name[:2] / name
    info = path.stat()
    os.chmod(path, 0o600)
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    for _turn in range(2):
        done = bench.restore(salvage=True, force=True)
        assert done.restore["lost"] == ["a"]
    assert sorted(os.listdir(bench.target)) == ["b"]


def test_salvage_of_a_lost_listing(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in that directory cannot be known, so what the target has there stays."""
    bench.files(a=b"1", d__b=b"2", d__e__c=b"3", z__f=b"4")
    bench.create()
    _store, catalog = bench.manager._open()
    lost = walk.find(catalog.load, catalog.manifest(catalog.list()[0]).root, b"d").content
    real = Store.read

    def read(self: Any, digest: bytes, limit: int) -> bytes:
        if digest == lost:
            raise errors.Damaged("It is lost.")
        return real(self, digest, limit)

    monkeypatch.setattr(Store, "read", read)
    with pytest.raises(errors.Damaged, match=r"lacks the content of 1 path\(s\): d\."):
        bench.restore()
    bench.restore(paths=["z", "a"])
    (bench.target / "d").mkdir()
    (bench.target / "d" / "mine").write_bytes(b"mine")
    done = bench.restore(salvage=True, force=True, delete=True)
    assert done.restore["lost"] == ["d"] and (bench.target / "d" / "mine").read_bytes() == b"mine"
    assert sorted(os.listdir(bench.target)) == ["a", "d", "z"]


def test_each_tree_is_read_once(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of what the backup needs says that all is there. Without it, the trees are walked before the comparison reads them."""
    bench.files(a=b"1", d__b=b"2", d__e__c=b"3", z__f=b"4")
    bench.create()
    bench.restore()
    reads: collections.Counter[bytes] = collections.Counter()
    real = Store.read
    monkeypatch.setattr(Store, "read", lambda self, digest, limit: reads.update([digest]) or real(self, digest, limit))
    assert not bench.restore(numeric_owner=True).changed
    assert len(reads) == 4 and set(reads.values()) == {1}
    for path in (bench.store / "cache").glob("*.needs"):
        path.unlink()
    reads.clear()
    assert not bench.restore(bench.found()[0]["id"], numeric_owner=True).changed
    assert len(reads) == 4 and max(reads.values()) > 1


@pytest.mark.parametrize("salvage", [False, True])
def test_a_lost_top_directory_costs_all(bench: Any, salvage: bool) -> None:
    """No option restores any of it, so none is advised."""
    bench.files(a=b"a")
    bench.create()
    shutil.rmtree(bench.store / "packs")
    with pytest.raises(errors.Damaged, match=r"lacks the list of its top directory, .*; use another backup\. Blob \w+ is missing from the store\.$"):
        bench.restore(salvage=salvage)
    assert not bench.target.exists()


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_flipped_bit_does_not_come_through_a_clone(bench_on: Any, kind: str) -> None:
    bench = bench_on(kind)
    content = os.urandom(1 << 20)
    bench.files(a=content)
    bench.create()
    name = hashlib.sha256(content).hexdigest()
    (path,) = (bench.store / "objects" / name[:2]).glob(f"{name}*")
    info = path.stat()
    os.chmod(path, 0o600)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(bytes([content[5000] ^ 1]))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    with pytest.raises(errors.Damaged):
        bench.restore()
    assert not bench.target.exists()


# ---- the stat cache of a target


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Names of files in the target that are hashed."""
    real, seen = equal.Comparer._same_content, []

    def counted(self: Any, entry: Any, directory: int, name: bytes) -> bool:
        seen.append(name)
        return real(self, entry, directory, name)

    monkeypatch.setattr(equal.Comparer, "_same_content", counted)
    return seen


def forget(bench: Any) -> None:
    """Remove the stat caches of targets."""
    for path in (bench.store / "cache").glob("*.target"):
        path.unlink()


def test_what_was_hashed_is_not_hashed_again(trusted_bench: Any, hashes: list[bytes]) -> None:
    bench = trusted_bench
    bench.files(a=b"1", b=b"2", c=b"3")
    bench.create()
    bench.restore()
    forget(bench)
    bench.restore()
    assert sorted(hashes) == [b"a", b"b", b"c"]
    time.sleep(2.1)
    bench.restore()
    assert sorted(hashes) == 2 * [b"a"] + 2 * [b"b"] + 2 * [b"c"], "too young to be believed"
    hashes.clear()
    bench.restore()
    bench.restore(dry=True)
    assert hashes == []
    info = (bench.target / "b").stat()
    (bench.target / "b").write_bytes(b"X")
    os.utime(bench.target / "b", ns=(info.st_atime_ns, info.st_mtime_ns))
    assert bench.restore(force=True).diff["changed"] == ["b"] and hashes[:1] == [b"b"]
    assert (bench.target / "b").read_bytes() == b"2"


def test_a_restore_in_place_hashes_once_and_forgets_no_other_path(trusted_bench: Any, hashes: list[bytes]) -> None:
    bench = trusted_bench
    bench.files(a=b"1", b=b"2", c=b"3")
    bench.create()
    bench.restore()
    forget(bench)
    time.sleep(2.1)
    (bench.target / "c").write_bytes(b"other")
    assert bench.restore(force=True, strategy="in_place").diff["changed"] == ["c"]
    assert sorted(hashes) == [b"a", b"b"], "each once, by the comparison"
    hashes.clear()
    (bench.target / "b").write_bytes(b"other")
    assert bench.restore(force=True, paths=["b"]).diff["changed"] == ["b"]
    assert bench.restore(dry=True, force=True).diff["changed"] == ["."] and b"a" not in hashes, "known since the restore before"


def test_a_store_through_a_memory_map_is_seen(bench_on: Any) -> None:
    """To a page that was dirty already when the file was hashed, it moves no time of its own."""
    bench = bench_on("xfs")
    bench.files(a=b"1" * 4096)
    bench.create()
    bench.restore()
    with (bench.target / "a").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as view:
        view[0:1] = b"1"
        os.utime(file.fileno(), ns=(0, (bench.source / "a").stat().st_mtime_ns))
        time.sleep(2.1)
        assert not bench.restore(force=True).changed
        view[0:1] = b"X"
        assert bench.restore(force=True).diff["changed"] == ["a"]
    assert (bench.target / "a").read_bytes()[:1] == b"1"


def test_a_new_tree_is_trusted_from_the_exchange_on(trusted_bench: Any, hashes: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the restore can reach it until then. So what was written before the file system's clock moved on last is known."""
    bench = trusted_bench
    bench.files(a=b"1", b=b"2")
    bench.create()
    settle = restores.Stage.settle
    monkeypatch.setattr(restores.Stage, "settle", lambda self: time.sleep(0.1) or settle(self))
    bench.restore()
    assert not bench.restore().changed and hashes == []
    info = (bench.target / "a").stat()
    (bench.target / "a").write_bytes(b"X")
    os.utime(bench.target / "a", ns=(info.st_atime_ns, info.st_mtime_ns))
    assert bench.restore(force=True).diff["changed"] == ["a"] and hashes[:1] == [b"a"]
    hashes.clear()
    shutil.rmtree(bench.target)
    shutil.copytree(bench.source, bench.target)
    assert bench.restore(dry=True, force=True).diff["changed"] in ([], ["."]) and sorted(hashes) == [b"a", b"b"], "other files, the same path"


def test_what_was_written_in_the_last_tick_before_the_exchange_is_hashed(trusted_bench: Any, hashes: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A change after the exchange could have the same ctime."""
    bench = trusted_bench
    bench.files(a=b"1")
    bench.create()
    settle = restores.Stage.settle
    monkeypatch.setattr(restores.Stage, "settle", lambda self: settle(self) and os.stat("a", dir_fd=self.tree).st_ctime_ns)
    bench.restore()
    assert not bench.restore().changed and hashes == [b"a"]


@pytest.mark.parametrize("harm", ["cut", "flip", "other"])
def test_a_cache_that_is_not_one_is_skipped(trusted_bench: Any, hashes: list[bytes], harm: str) -> None:
    bench = trusted_bench
    bench.files(a=b"1")
    bench.create()
    bench.restore()
    time.sleep(2.1)
    bench.restore()
    hashes.clear()
    (cache,) = (bench.store / "cache").glob("*.target")
    data = cache.read_bytes()
    cache.write_bytes({"cut": data[:-1], "flip": data[:-1] + bytes([data[-1] ^ 1]), "other": b"x" * len(data)}[harm])
    assert not bench.restore().changed and hashes == [b"a"]


def test_caches_of_targets_that_are_gone_are_collected(trusted_bench: Any) -> None:
    bench = trusted_bench
    bench.files(a=b"1")
    bench.create()
    bench.restore()
    time.sleep(2.1)
    bench.restore()
    assert list((bench.store / "cache").glob("*.target"))
    bench.manager.collect("0s")
    assert list((bench.store / "cache").glob("*.target"))
    shutil.rmtree(bench.target)
    bench.manager.collect("0s")
    assert not list((bench.store / "cache").glob("*.target"))


def test_on_a_file_system_whose_stats_prove_nothing_all_is_hashed(bench_on: Any, hashes: list[bytes]) -> None:
    bench = bench_on("tmpfs")
    bench.files(a=b"1")
    bench.create()
    bench.restore()
    time.sleep(2.1)
    bench.restore()
    bench.restore()
    assert hashes == [b"a", b"a"] and file_systems.untrusted("tmpfs")


# ---- what is said


def test_equal_is_only_said_of_what_is_equal(bench: Any) -> None:
    bench.files(a=b"1", d__b=b"2")
    bench.create()
    bench.restore()
    assert "equals" in restores.unchanged(bench.restore().restore)
    (bench.target / "d" / "mine").write_bytes(b"mine")
    done = bench.restore(force=True)
    assert not done.changed or done.diff["changed"] == ["d"]
    assert "; 1 other path was left unchanged" in restores.unchanged(bench.restore(force=True).restore)
    assert "all selected paths of" in restores.unchanged(bench.restore(paths=["a"]).restore)
    assert "by size and time only" in restores.unchanged(bench.restore(paths=["a"], verify=False).restore)


# ---- without root


def test_without_root(tmp_path: Path) -> None:
    """One's own read-only directories, and one's own home, beside which nothing can be made."""
    need("setpriv", root=True)
    top = Path(tempfile.mkdtemp(dir="/var/tmp"))
    os.chmod(top, 0o755)
    child = os.fork()
    if not child:
        code = 1
        try:
            home = top / "home" / "u"
            for path in (home, top / "cas"):
                path.mkdir(parents=True)
                os.chown(path, 65534, 65534)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            _as_a_user(home, top / "cas")
            code = 0
        finally:
            os._exit(code)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        shutil.rmtree(top)


def _as_a_user(home: Path, place: Path) -> None:
    bench = Bench(place)
    module = home / "go" / "mod"
    module.mkdir(parents=True)
    for name in "fgh":
        (module / name).write_bytes(name.encode())
        os.chmod(module / name, 0o444)
    for path in (module, home / "go"):
        os.chmod(path, 0o555)
    go = bench.create(source=home / "go").backup["id"]
    for strategy in WAYS:
        os.chmod(module, 0o755)
        (module / "f").unlink()
        os.chmod(module, 0o555)
        done = bench.restore(go, target=str(home / "go"), force=True, strategy=strategy)
        assert done.restore["strategy"] == strategy and done.warnings == []
        assert (module / "f").read_bytes() == b"f" and stat.S_IMODE(module.stat().st_mode) == stat.S_IMODE((home / "go").stat().st_mode) == 0o555
    os.chmod(module, 0o755)
    (module / "g").unlink()
    os.chmod(module, 0o555)
    bench.restore(go, target=str(home / "go"), force=True, paths=["mod/g"])
    assert stat.S_IMODE(module.stat().st_mode) == 0o555, "only passed through"
    whole = bench.create(source=home).backup["id"]
    (home / "new").write_bytes(b"new")
    os.chmod(module, 0o755)
    (module / "h").unlink()
    done = bench.restore(whole, target=str(home), force=True, delete=True)
    assert done.restore["strategy"] == "in_place" and (module / "h").exists() and not (home / "new").exists()
    assert not [name for name in os.listdir(home) if "volt" in name] and stat.S_IMODE(module.stat().st_mode) == 0o555


def test_the_layout_of_an_acl() -> None:
    """By the kernel's header: version 2, then tag, permissions and id of each entry."""
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in ((1, 6, 0xFFFFFFFF), (2, 6, 7), (4, 4, 0xFFFFFFFF), (8, 4, 9)))
    moved = acl.renumbered(((acl.ACCESS, value), (b"user.x", value)), lambda number: number + 1, lambda number: number + 10)
    assert acl.ids(moved) == ({8}, {19}) and moved[1] == (b"user.x", value)
    assert acl.ids(((acl.ACCESS, b"\x02\0\0\0x"), (acl.DEFAULT, b""))) == (set(), set())
    assert plan.ATTRIBUTES == ("best_effort", "strict")


def test_a_room_that_cannot_be_removed_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next restore removes it."""
    bench.files(d__f=b"old")
    bench.create()
    bench.restore()
    (bench.target / "d" / "f").write_bytes(b"new")

    def broken(_directory: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(rooms, "unmark", broken)
        done = bench.restore(force=True, strategy="in_place")
    (left,) = [name for name in os.listdir(bench.target) if name.startswith(".volt-restore-")]
    assert any(f"first {left}" in warning for warning in done.warnings), done.warnings
    assert not bench.restore(force=True, strategy="in_place").warnings and os.listdir(bench.target) == ["d"]


def test_memory_of_an_equal_directory(bench: Any) -> None:
    """A million files are compared in less than 1 GB: 1,100 bytes a file were the stats of all, on top of their entries."""
    peaks = []
    for first, last in ((0, 1_000), (1_000, 9_000)):
        bench.files(**{f"file-{number:05d}": b"" for number in range(first, last)})
        bench.create()
        bench.restore(force=True)
        tracemalloc.start()
        try:
            assert not bench.restore(force=True).changed
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 700 * 8_000
