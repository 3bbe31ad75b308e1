# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources that change while they are read, and sources that cannot be read as others can: what is captured is what was there, or is named.

A change comes at a chosen moment: when a file has been read once, or each time that it is read.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import SourceError, kernel
from ansible_collections.volt.backup.plugins.module_utils._capture import capture, link_check
from ansible_collections.volt.backup.plugins.module_utils._capture.databases import HEAD
from ansible_collections.volt.backup.plugins.module_utils._format import chunks, links
from ansible_collections.volt.backup.plugins.module_utils._fs import descent
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.plugins.module_utils._schedule import job, run as schedule_run
from ansible_collections.volt.backup.tests.rigs import mounts, need, oracle

SIZES = {"packed": 5_000, "object": 300_000, "chunks": (9 << 20) + 5}


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """`meanwhile(path, act)`: call act(n) after the n-th reading of a file (from its start) has got bytes; how often it was read."""

    def plan(path: Path, act: Callable[[int], object]) -> list[int]:
        real, seen = os.pread, []
        inode = path.stat().st_ino

        def pread(fd: int, size: int, offset: int) -> bytes:
            data = real(fd, size, offset)
            if size not in (1, HEAD) and offset == 0 and os.fstat(fd).st_ino == inode:
                seen.append(1)
                act(len(seen))
            return data

        monkeypatch.setattr(os, "pread", pread)
        return seen

    return plan


def stored(bench: Any) -> int:
    return sum(path.stat().st_size for kind in ("objects", "packs") for path in (bench.store / kind).rglob("*") if path.is_file())


def noise(size: int) -> bytes:
    return os.urandom(size)


# ---- files that are written


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_file_that_grows_is_kept_as_it_began(bench, meanwhile, size: int) -> None:
    bench.files(log=noise(size))
    log = bench.source / "log"
    began = log.read_bytes()

    def grow(_turn: int) -> None:
        with open(log, "ab") as file:
            file.write(b"another line\n")

    meanwhile(log, grow)
    made = bench.create()
    assert made.backup["complete"] and not made.backup["unstable"] and made.warnings == []
    assert made.backup["changed_while_read"] == ["log"] and made.backup["changed_while_read_count"] == 1
    bench.restore()
    assert (bench.target / "log").read_bytes() == began
    assert stored(bench) < size + 20_000


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_file_that_is_written_under_each_reading_is_unstable(bench, meanwhile, size: int) -> None:
    bench.files(base=noise(size), quiet=b"quiet")
    base = bench.source / "base"

    def write(turn: int) -> None:
        with open(base, "r+b") as file:
            file.write(b"%09d" % turn)
            file.seek(-9, os.SEEK_END)
            file.write(b"%09d" % turn)

    meanwhile(base, write)
    made = bench.create()
    assert made.backup["complete"] and made.backup["unstable"] and made.backup["unstable_paths"] == ["base"] and made.backup["unstable_count"] == 1
    assert len(made.warnings) == 1 and "base: the backup is unstable" in made.warnings[0]
    (found,) = bench.found()
    assert found["unstable"] and not found["damaged"]
    bench.restore()
    assert (bench.target / "base").stat().st_size == size and (bench.target / "quiet").read_bytes() == b"quiet"
    assert stored(bench) < size + 20_000, "readings that were superseded leave nothing"


@pytest.mark.parametrize("how", ["command", "schedule"])
def test_unstable_may_be_a_failure_or_no_matter(bench, meanwhile, how: str, capfd: Any) -> None:
    bench.files(var__lib__base=noise(5000), var__lib__lock=noise(5000))
    for name in ("base", "lock"):
        path = bench.source / "var" / "lib" / name
        meanwhile(path, lambda _turn, path=path: path.write_bytes(noise(5000)))

    def run(*patterns: str) -> tuple[str, list[str]]:
        if how == "schedule":
            made = job.Job("work", str(bench.source), 3600, unstable_ok=patterns, fail_on_unstable=True, store=str(bench.store), backup_dir=str(bench.backups),
                           keep={"last": 1})  # fmt: skip
            done = schedule_run._back_up(job.check(made))
            code = "" if done.failure is None else done.failure.code
        else:
            words = ["create", "work", "--source", str(bench.source), "--store", str(bench.store), "--backup-dir", str(bench.backups), "--json"]
            status = cli.main([*words, "--fail-on-unstable", *(word for pattern in patterns for word in ("--unstable-ok", pattern))])
            said = json.loads(capfd.readouterr().out)
            code = said.get("code", "")
            assert status == int(bool(code)) and said["backup"]["id"]
        return code, bench.found()[0]["unstable_paths"]

    assert run() == ("unstable", ["var/lib/base", "var/lib/lock"])
    assert run("lock") == ("unstable", ["var/lib/base"])
    assert len(bench.found()) == 2, "nothing is pruned"
    assert run("lock", "/var/lib/base") == ("", [])
    assert bench.found()[0]["changed_while_read"] == ["var/lib/base", "var/lib/lock"]


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_file_that_is_written_once_is_read_again(bench, meanwhile, size: int) -> None:
    bench.files(base=noise(size))
    base = bench.source / "base"
    turns = meanwhile(base, lambda turn: turn == 1 and base.write_bytes(noise(size)))
    made = bench.create()
    assert not made.backup["unstable"] and made.backup["changed_while_read"] == [] and len(turns) > 1
    bench.restore()
    assert (bench.target / "base").read_bytes() == base.read_bytes()
    assert stored(bench) < size + 20_000
    assert (made.backup["new_bytes"], made.backup["total_size"]) == (size, size)


@pytest.mark.parametrize("shared", ["with another file", "with an older backup"])
def test_what_a_superseded_reading_shares_stays(bench, meanwhile, shared: str) -> None:
    """Chunks that are taken back go only if nothing else needs them."""
    content = noise(9 << 20)
    bench.files(a=content, b=content)
    if shared == "with an older backup":
        bench.create()
        (bench.source / "a").write_bytes(content)  # with a new time, so that it is read
    last = bench.source / ("b" if shared == "with another file" else "a")
    meanwhile(last, lambda turn: turn == 1 and last.write_bytes(noise(9 << 20)))
    bench.create()
    bench.restore()
    assert oracle.differences(bench.source, bench.target) == []
    assert not bench.manager.verify(VerifyRequest(level="content")).damage


@pytest.mark.parametrize("to", [0, 1_000_000, (5 << 20) + 7])
def test_a_large_file_that_shrinks_is_kept_as_far_as_it_was_there(bench, meanwhile, to: int) -> None:
    content = noise(20 << 20)
    bench.files(journal=content)
    journal = bench.source / "journal"

    def cut(_turn: int) -> None:
        os.truncate(journal, to)
        os.truncate(journal, 20 << 20)
        os.truncate(journal, to)

    meanwhile(journal, cut)
    made = bench.create()
    assert made.backup["unstable_paths"] == ["journal"] or made.backup["total_size"] == to
    bench.restore()
    kept = (bench.target / "journal").read_bytes()
    assert len(kept) >= to and kept[: min(to, 1 << 20)] == content[: min(to, 1 << 20)]
    assert not bench.found()[0]["damaged"]


def test_a_hole_that_is_punched_after_the_reading_makes_no_zeros(trusted_bench, monkeypatch) -> None:
    """What was hashed is what comes back."""
    bench = trusted_bench
    bench.files(sparse=b"A" * 4096)
    path = bench.source / "sparse"
    with open(path, "r+b") as file:
        file.truncate(100 << 10)
        file.seek(48 << 10)
        file.write(b"B" * 4096)
        os.fsync(file.fileno())
    real = descent.find_holes

    def late(fd: int, size: int) -> chunks.Holes:
        subprocess.run(["fallocate", "-p", "-o", str(48 << 10), "-l", "4096", path], check=True)
        return real(fd, size)

    from ansible_collections.volt.backup.plugins.module_utils._capture import reading

    monkeypatch.setattr(reading, "find_holes", late)
    bench.create()
    bench.restore()
    assert not bench.restore(verify=True).changed


@pytest.mark.parametrize("name", ["/proc/version", "/proc/kallsyms"])
def test_a_file_that_says_size_zero_is_read_to_its_end(bench, name: str) -> None:
    need("mount", root=True)
    bench.files(kernel=b"", other=b"1")
    subprocess.run(["mount", "--bind", name, bench.source / "kernel"], check=True)
    try:
        content = Path(name).read_bytes()
        made = bench.create()
        assert made.backup["complete"] and not made.backup["unstable"]
        bench.restore()
    finally:
        subprocess.run(["umount", bench.source / "kernel"], check=True)
    assert (bench.target / "kernel").read_bytes() == content and len(content) > 10


WRITER = """
import sqlite3, sys
with open(sys.argv[1], "r+b") as other, open(sys.argv[2], "rb") as reads:
    base = sqlite3.connect(sys.argv[3])
    base.execute("create table t (x)")
    base.commit()
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_database_that_a_process_writes_is_named_with_the_way_out(bench) -> None:
    lmdb = bytes(16) + (0xBEEFC0DE).to_bytes(4, "little") + bytes(4096)
    bench.files(data__mdb=lmdb, data__read=b"SQLite format 3\0" + bytes(4096), data__plain=bytes(4096), data__ibdata1=bytes(4096))
    words = [sys.executable, "-c", WRITER, bench.source / "data" / "mdb", bench.source / "data" / "read", bench.source / "data" / "app.db"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"open\n"
        warnings = bench.create().warnings
        writer.stdin.close()
    assert [warning.partition(";")[0] for warning in warnings] == [
        "1 file(s) of a LMDB database were open for writing while they were read, first data/mdb",
        "1 file(s) of a SQLite database were open for writing while they were read, first data/app.db",
    ]
    assert all("dump" in warning and "snapshot" in warning and "paused" in warning for warning in warnings)
    assert bench.create().warnings == []


# ---- hard links


def test_an_inode_number_that_is_used_again_ties_no_files(trusted_bench, meanwhile) -> None:
    need("mount", root=True)
    bench = trusted_bench
    bench.files(a__one=b"ONE", m__middle=noise(1000), z__zero=b"0")
    os.link(bench.source / "a" / "one", bench.source / "a" / "uno")
    inode = (bench.source / "a" / "one").stat().st_ino

    def reuse(turn: int) -> None:
        if turn > 1:
            return
        os.unlink(bench.source / "a" / "one")
        os.unlink(bench.source / "a" / "uno")
        for number in range(5000):
            new = bench.source / "z" / "two"
            new.write_bytes(b"TWO")
            if new.stat().st_ino == inode:
                os.link(new, bench.source / "z" / "dos")
                return
            new.rename(bench.source / "z" / f"junk{number}")
        pytest.skip("this file system does not use inode numbers again")

    meanwhile(bench.source / "m" / "middle", reuse)
    bench.create()
    bench.restore()
    found = {name: (bench.target / name).read_bytes() for name in ("a/one", "a/uno", "z/two", "z/dos")}
    assert found == {"a/one": b"ONE", "a/uno": b"ONE", "z/two": b"TWO", "z/dos": b"TWO"}
    assert (bench.target / "z/two").samefile(bench.target / "z/dos") and not (bench.target / "a/one").samefile(bench.target / "z/two")
    assert not bench.restore().changed


@pytest.mark.parametrize("births", [True, False])
@pytest.mark.parametrize("size", [10, 300_000])
def test_a_linked_file_that_is_written_between_the_visits_of_its_names(bench, meanwhile, monkeypatch, births: bool, size: int) -> None:
    if not births:
        monkeypatch.setattr(kernel, "birth", lambda _directory, _name, _inode: -1)
    bench.files(a__log=noise(size), m__middle=noise(1000), z__zero=b"0")
    os.link(bench.source / "a" / "log", bench.source / "z" / "log")

    def grow(turn: int) -> None:
        if turn == 1:
            with open(bench.source / "a" / "log", "ab") as file:
                file.write(b"two\n")

    meanwhile(bench.source / "m" / "middle", grow)
    made = bench.create()
    assert not made.backup["unstable"] and made.backup["total_size"] == 2 * (size + 4) + 1001
    bench.restore()
    assert (bench.target / "a/log").samefile(bench.target / "z/log")
    assert (bench.target / "a/log").read_bytes() == (bench.source / "a/log").read_bytes()
    assert not bench.restore().changed
    again = bench.create(only_if_changed=True)
    assert not again.changed, again.diff


def test_where_no_birth_is_told_links_are_looked_at_again_and_not_read_again(bench, monkeypatch, meanwhile) -> None:
    monkeypatch.setattr(kernel, "birth", lambda _directory, _name, _inode: -1)
    bench.files(a__log=b"one", b__x=b"1")
    for name in ("b/log", "c"):
        os.link(bench.source / "a" / "log", bench.source / name)
    turns = meanwhile(bench.source / "a" / "log", lambda _turn: None)
    made = bench.create()
    assert not made.backup["unstable"] and len(turns) == 1
    bench.restore()
    assert (bench.target / "a/log").stat().st_nlink == 3


@pytest.mark.parametrize("births", [True, False])
def test_a_name_that_leads_elsewhere_by_now_is_a_file_of_its_own_and_named(bench, meanwhile, monkeypatch, births: bool) -> None:
    if not births:
        monkeypatch.setattr(kernel, "birth", lambda _directory, _name, _inode: -1)
    bench.files(a__log=b"one", m__middle=noise(1000), z__zero=b"0")
    os.link(bench.source / "a" / "log", bench.source / "b")
    os.link(bench.source / "a" / "log", bench.source / "z" / "log")

    def act(turn: int) -> None:
        if turn == 1:
            (bench.source / "new").write_bytes(b"another")
            (bench.source / "new").rename(bench.source / "b")
            with open(bench.source / "z" / "log", "ab") as file:
                file.write(b"two")

    meanwhile(bench.source / "m" / "middle", act)
    made = bench.create()
    assert made.backup["unstable"] and made.backup["unstable_paths"] == ["b"]
    bench.restore()
    assert (bench.target / "b").read_bytes() == b"one" and not (bench.target / "b").samefile(bench.target / "z/log")
    assert (bench.target / "a/log").read_bytes() == b"onetwo" and (bench.target / "a/log").samefile(bench.target / "z/log")


def test_a_backup_that_ties_different_files_is_restored_as_their_entries_say(bench, monkeypatch) -> None:
    """Version 0.1.0 made such backups."""
    bench.files(a=b"a", b=b"b", c=b"c", d=b"c")
    os.utime(bench.source / "c", ns=(5, 5))
    os.utime(bench.source / "d", ns=(5, 5))
    real = link_check.LinkCheck.settle

    def tie(self: Any, root: Any) -> Any:
        return ([[b"a", b"b", b"c", b"d"]], *real(self, root)[1:])

    monkeypatch.setattr(link_check.LinkCheck, "settle", tie)
    bench.create()
    bench.restore()
    assert {name: (bench.target / name).read_bytes() for name in "abcd"} == {"a": b"a", "b": b"b", "c": b"c", "d": b"c"}
    assert (bench.target / "c").samefile(bench.target / "d") and (bench.target / "a").stat().st_nlink == 1
    assert not bench.restore().changed


# ---- entries that cannot be looked at


@contextmanager
def fuse(where: Path, user: int) -> Iterator[None]:
    """A FUSE mount that never answers; with another user's number, the kernel itself says no to root."""
    need("mount", root=True)
    try:
        fd = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no FUSE: {error}")
    options = b"fd=%d,rootmode=40000,user_id=%d,group_id=%d" % (fd, user, user)
    try:
        assert ctypes.CDLL(None, use_errno=True).mount(b"dead", os.fsencode(where), b"fuse", ctypes.c_ulong(6), options) == 0
        try:
            yield
        finally:
            os.close(fd)
            fd = -1
            subprocess.run(["umount", "-l", where], check=True)
    finally:
        if fd >= 0:
            os.close(fd)


@pytest.mark.parametrize("one_file_system", [True, False])
def test_a_mount_that_is_closed_to_root_costs_itself_alone(bench, one_file_system: bool) -> None:
    bench.files(home__key=b"k", home__papers__thesis=b"t")
    (bench.source / "home" / "mnt").mkdir()
    with fuse(bench.source / "home" / "mnt", 1000):
        made = bench.create(one_file_system=one_file_system)
        assert made.backup["complete"] is one_file_system
        assert [(item["path"], item["reason"]) for item in made.backup["skipped"]] == [("home/mnt", "mount_point" if one_file_system else "unreadable")]
        assert bench.create(exclude=["/home/mnt"]).backup["complete"]
    bench.restore()
    assert (bench.target / "home/papers/thesis").read_bytes() == b"t" and (bench.target / "home/key").read_bytes() == b"k"


def test_a_mount_that_never_answers_is_unreadable_and_passed_over_where_it_is_left_out(bench, monkeypatch) -> None:
    monkeypatch.setattr(capture, "_ANSWER", 0.5)
    bench.files(a=b"a", sub__b=b"b")
    (bench.source / "sub" / "mnt").mkdir()
    with fuse(bench.source / "sub" / "mnt", 0):
        began = time.monotonic()
        made = bench.create()
        assert time.monotonic() - began < 20
        assert [(item["path"], item["reason"], item["detail"]) for item in made.backup["skipped"]] == [
            ("sub/mnt", "unreadable", "this fuse mount does not answer")
        ]
        for options in ({"one_file_system": True}, {"exclude": ["mnt"]}):
            assert bench.create(**options).backup["complete"]
    bench.restore()
    assert (bench.target / "sub/b").read_bytes() == b"b"


def test_one_corrupt_inode_costs_itself_alone(tmp_path: Path, bench) -> None:
    need("debugfs", "mkfs.ext4", root=True)
    image = tmp_path / "image"
    mounts.make("ext4", image, 64 << 20)
    bench.source.mkdir()
    with mounts.image(image, bench.source):
        bench.files(a=b"1", bad=b"2", photos__p=b"3")
        inode = (bench.source / "bad").stat().st_ino
    subprocess.run(["debugfs", "-w", "-R", f"set_inode_field <{inode}> checksum 0x1234", image], check=True, capture_output=True)
    with mounts.image(image, bench.source):
        made = bench.create(exclude=["lost+found"])
    assert [(item["path"], item["reason"]) for item in made.backup["skipped"]] == [("bad", "unreadable")]
    bench.restore()
    assert sorted(os.listdir(bench.target)) == ["a", "photos"] and (bench.target / "photos/p").read_bytes() == b"3"


def test_a_single_file_of_another_file_system_is_left_out_with_one_file_system(bench) -> None:
    need("mount", root=True)
    bench.files(secret=b"", same=b"", a=b"a", original=b"original")
    with mounts.mount("tmpfs", bench.top) as other:
        (other / "secret").write_bytes(b"secret")
        subprocess.run(["mount", "--bind", other / "secret", bench.source / "secret"], check=True)
        subprocess.run(["mount", "--bind", bench.source / "original", bench.source / "same"], check=True)
        try:
            made = bench.create(one_file_system=True)
        finally:
            for name in ("same", "secret"):
                subprocess.run(["umount", bench.source / name], check=True)
    assert [(item["path"], item["reason"]) for item in made.backup["skipped"]] == [("secret", "mount_point")]
    bench.restore()
    assert sorted(os.listdir(bench.target)) == ["a", "original", "same"]


LEASE = """
import fcntl, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR)
signal.signal(signal.SIGIO, lambda *_: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK))
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
while sys.stdin.buffer.raw.read(1):
    pass
"""


def test_a_leased_file_is_read_once_its_holder_gives_it_back(bench) -> None:
    bench.files(doc=b"shared")
    holder = subprocess.Popen([sys.executable, "-c", LEASE, bench.source / "doc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        made = bench.create()
        holder.stdin.close()
    assert made.backup["complete"]
    bench.restore()
    assert (bench.target / "doc").read_bytes() == b"shared"


@pytest.mark.parametrize("where", ["file", "directory", "root"])
@pytest.mark.parametrize("many", ["names", "bytes"])
def test_attributes_that_cannot_be_kept_cost_themselves_alone(bench_on, where: str, many: str) -> None:
    bench = bench_on("xfs")
    bench.files(sub__f=b"content", g=b"other")
    path = {"file": bench.source / "sub" / "f", "directory": bench.source / "sub", "root": bench.source}[where]
    number, value = (300, b"1") if many == "names" else (270, b"x" * 65536)
    for at in range(number):
        os.setxattr(path, "user.%04d" % at + "x" * 240 * (many == "names"), value)
    made = bench.create()
    name = {"file": "sub/f", "directory": "sub", "root": ""}[where]
    assert [(item["path"], item["reason"]) for item in made.backup["skipped"]] == [(name, "attributes")] and not made.backup["complete"]
    bench.restore()
    assert (bench.target / "sub/f").read_bytes() == b"content" and (bench.target / "g").read_bytes() == b"other"


# ---- the place of the source


@pytest.mark.parametrize("how", ["exchange", "remove", "link"])
def test_a_source_that_is_another_by_the_end_of_the_walk(bench, meanwhile, how: str) -> None:
    bench.files(a=b"a", m=noise(1000))
    other = bench.top / "other"
    other.mkdir()
    (other / "a").write_bytes(b"new")

    def act(turn: int) -> None:
        if turn > 1:
            return
        bench.source.rename(bench.top / "old")
        if how == "exchange":
            other.rename(bench.source)
        elif how == "remove":
            shutil.rmtree(bench.top / "old")
        else:
            bench.source.symlink_to(other)

    meanwhile(bench.source / "m", act)
    if how == "exchange":
        bench.create()
        bench.restore()
        assert [(path.name, path.read_bytes()) for path in bench.target.iterdir()] == [("a", b"new")]
    else:
        with pytest.raises(SourceError) as caught:
            bench.create()
        assert caught.value.code == "source" and bench.found() == []


def test_a_link_that_has_come_into_the_path_is_refused(bench) -> None:
    real = bench.top / "user" / "data"
    real.mkdir(parents=True)
    (real / "thesis").write_bytes(b"thesis")
    (bench.top / "root").mkdir()
    bench.create(source=real)
    real.rename(bench.top / "user" / "data2")
    real.symlink_to(bench.top / "root")
    with pytest.raises(SourceError, match="leads through the symbolic link .*user/data, which was none at the last backup"):
        bench.create(source=real)
    real.unlink()
    (bench.top / "user" / "data2").rename(real)
    assert bench.create(source=real).backup["source_links"] == []
    (bench.top / "user").rename(bench.top / "elsewhere")
    (bench.top / "user").symlink_to(bench.top / "elsewhere")
    with pytest.raises(SourceError, match=r"link .*/user, which"):
        bench.create(source=real)
    assert bench.create(source=bench.top / "elsewhere" / "data").changed, "the directory itself may be named"


def test_a_last_name_that_was_a_link_may_lead_elsewhere(bench) -> None:
    for number in (1, 2):
        (bench.top / f"release-{number}").mkdir()
        (bench.top / f"release-{number}" / "a").write_bytes(b"%d" % number)
    current = bench.top / "current"
    for number in (1, 2):
        current.unlink(missing_ok=True)
        current.symlink_to(f"release-{number}")
        made = bench.create(source=current)
        assert made.backup["source_asked"] == str(current) and made.backup["source_links"] == [str(current)]
        assert made.backup["source_path"] == str(bench.top / f"release-{number}")


def test_a_directory_that_is_moved_costs_what_was_not_read_of_it(bench, meanwhile) -> None:
    """Deeper than descriptors are kept."""
    deep = bench.source / "user"
    path = deep
    for _level in range(descent._KEEP + 10):
        path = path / "d"
    path.mkdir(parents=True)
    (path / "f").write_bytes(noise(1000))
    (deep / "d" / "d" / "later").mkdir()
    (deep / "d" / "d" / "later" / "g").write_bytes(b"g")
    bench.files(a=b"a", z__z=b"z")

    def move(turn: int) -> None:
        if turn == 1:
            (deep / "d" / "d" / "d").rename(bench.top / "moved")
            (deep / "d").rename(bench.top / "moved too")

    meanwhile(path / "f", move)
    made = bench.create()
    assert not made.backup["complete"]
    assert [(item["path"], item["detail"]) for item in made.backup["skipped"]] == [("user/d/d/later", "a directory above it was moved while it was read")]
    bench.restore()
    assert (bench.target / "a").read_bytes() == b"a" and (bench.target / "z/z").read_bytes() == b"z"


@pytest.mark.parametrize("layers", ["squashfs below", "tmpfs above"])
def test_an_overlay_is_trusted_no_more_than_its_layers(bench, tmp_path: Path, layers: str) -> None:
    need("mksquashfs", "mount", root=True)
    for name in ("lower", "empty", "work"):
        (tmp_path / name).mkdir()
    bench.source.mkdir()
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "tool").write_bytes(b"version-%d" % number)
        for path in (tmp_path / str(number) / "tool", tmp_path / str(number)):
            os.utime(path, ns=(1_600_000_000_000_000_000,) * 2)
        made = ["mksquashfs", str(tmp_path / str(number)), str(tmp_path / f"{number}.img"), "-quiet", "-no-progress", "-mkfs-time", "1600000000"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    for number in (1, 2):
        with mounts.mount("tmpfs", tmp_path) as memory, mounts.image(tmp_path / f"{number}.img", tmp_path / "lower", "ro"):
            for name in ("upper", "work"):
                (memory / name).mkdir()
            upper = f",upperdir={memory}/upper,workdir={memory}/work" if layers == "tmpfs above" else f":{tmp_path}/empty"
            subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={tmp_path}/lower{upper}", bench.source], check=True)
            try:
                assert bench.create(only_if_changed=True).changed
            finally:
                subprocess.run(["umount", bench.source], check=True)
    bench.restore()
    assert (bench.target / "tool").read_bytes() == b"version-2"


# ---- limits of what can be read back


def test_a_list_of_chunks_beyond_its_limit_costs_the_file(bench, monkeypatch) -> None:
    bench.files(other=b"x", image=b"")
    with open(bench.source / "image", "wb") as file:
        for number in range(40):
            file.seek(number << 20)
            file.write(b"x")
    monkeypatch.setattr(chunks, "LIST_LIMIT", 1000)
    made = bench.create()
    assert [(item["path"], item["reason"]) for item in made.backup["skipped"]] == [("image", "unreadable")]
    assert not bench.found()[0]["damaged"]
    bench.restore()
    assert os.listdir(bench.target) == ["other"]


def test_links_beyond_the_table_s_limit_are_files_of_their_own(bench, monkeypatch) -> None:
    bench.files(a=b"a", few=b"few")
    os.link(bench.source / "few", bench.source / "fewer")
    for number in range(50):
        os.link(bench.source / "a", bench.source / ("l%d" % number + "x" * 200))
    monkeypatch.setattr(links, "LIMIT", 5000)
    made = bench.create()
    assert [(item["path"], item["reason"]) for item in made.backup["skipped"]] == [("a", "links")] and not made.backup["complete"]
    assert not bench.found()[0]["damaged"]
    bench.restore()
    assert len(os.listdir(bench.target)) == 53 and (bench.target / "few").stat().st_nlink == 2 and (bench.target / "a").stat().st_nlink == 1


DEEP = """
import resource, sys
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
status = cli.main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
sys.exit(status)
"""


def test_memory_does_not_grow_with_the_square_of_the_depth(bench) -> None:
    depth, name = 2500, "d" * 250  # all paths together: 780 MB
    bench.source.mkdir()
    here = os.getcwd()
    os.chdir(bench.source)
    try:
        for _level in range(depth):
            os.mkdir(name)
            os.chdir(name)
    finally:
        os.chdir(here)
    words = ["create", "work", "--source", str(bench.source), "--store", str(bench.store), "--backup-dir", str(bench.backups), "--quiet", "--diff-limit", "1"]
    done = subprocess.run([sys.executable, "-c", DEEP, *words], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) < 300
    subprocess.run(["rm", "-rf", bench.source], check=True)
