# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources that change while they are read, and sources that cannot be read as others can: what is captured is what was there, or is named.

A change comes at a chosen moment: when a file has been read once, or each time that it is read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import kernel
from ansible_collections.volt.backup.plugins.module_utils._capture import file_saver, link_check, reading
from ansible_collections.volt.backup.plugins.module_utils._format import chunks
from ansible_collections.volt.backup.plugins.module_utils._fs import descent
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.plugins.module_utils._schedule import job, run as schedule_run
from ansible_collections.volt.backup.tests.rigs import need, oracle

SIZES = {"packed": 5_000, "object": 300_000, "chunks": (9 << 20) + 5}


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
    kept = (bench.target / "log").read_bytes()
    assert kept.startswith(began) and log.read_bytes().startswith(kept)
    assert stored(bench) < size + 20_000


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_database_that_grows_is_unstable(bench, meanwhile, size: int) -> None:
    """Its first page may tell of pages that the copy has not."""
    bench.files(base=b"SQLite format 3\0" + noise(size))

    def grow(turn: int) -> None:
        with open(bench.source / "base", "ab") as file:
            file.write(b"%d" % turn * 100)

    meanwhile(bench.source / "base", grow)
    assert bench.create().backup["unstable_paths"] == ["base"]


@pytest.mark.parametrize("size", [5_000, 300_000])
def test_what_was_written_since_the_listing_is_no_growth(bench, monkeypatch, size: int) -> None:
    """A file whose beginning was rewritten, and which has grown, between the listing and the reading: it is read whole."""
    content = noise(size)
    bench.files(base=content)
    real = file_saver.open_source

    def late(name: str, directory: int, patience: Any) -> int:
        fd = real(name, directory, patience)
        with open(bench.source / "base", "r+b") as file:
            file.write(b"HEADER")
            file.seek(0, os.SEEK_END)
            file.write(b"new pages")
        monkeypatch.setattr(file_saver, "open_source", real)
        return fd

    monkeypatch.setattr(file_saver, "open_source", late)
    made = bench.create()
    assert made.backup["changed_while_read"] == []
    bench.restore()
    assert (bench.target / "base").read_bytes() == b"HEADER" + content[6:] + b"new pages"


@pytest.mark.parametrize("grows", [True, False])
def test_a_hole_that_is_filled_before_its_chunk_is_read_keeps_its_bytes(trusted_bench, monkeypatch, grows: bool) -> None:
    bench = trusted_bench
    bench.files(image=b"")
    path = bench.source / "image"
    with open(path, "r+b") as file:
        for at in (0, 600_000, 9 << 20):
            file.seek(at)
            file.write(b"D" * 4096)
    real, turn = reading.find_holes, iter(range(100))

    def early(fd: int, size: int) -> chunks.Holes:
        holes = real(fd, size)
        with open(path, "r+b") as file:
            file.seek(200_000 + 8192 * next(turn))
            file.write(b"WRITTEN")
            if grows:
                file.seek(0, os.SEEK_END)
                file.write(b"more")
        return holes

    monkeypatch.setattr(reading, "find_holes", early)
    made = bench.create()
    assert made.backup["unstable_paths"] == ["image"]
    bench.restore()
    assert not bench.restore(verify=True).changed
    assert (bench.target / "image").read_bytes().count(b"WRITTEN") >= next(turn) - 1


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
    turns = meanwhile(base, lambda turn: turn in (1, 100) and base.write_bytes(noise(size)))
    foreseen = bench.create(dry=True).backup
    turns += [1] * (99 - len(turns))
    made = bench.create()
    assert (foreseen["new_bytes"], foreseen["new_blobs"]) == (made.backup["new_bytes"], made.backup["new_blobs"])
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


@pytest.mark.parametrize("to", [6 << 20, (6 << 20) + 5, (3 << 20) + 5, 500_000, (12 << 20) + 400_000])
def test_a_large_sparse_file_that_shrinks_can_be_read_back(trusted_bench, meanwhile, to: int) -> None:
    """Where it ends by now may be in a hole, or in a chunk that was half a hole."""
    bench = trusted_bench
    bench.files(image=b"")
    path = bench.source / "image"
    with open(path, "r+b") as file:
        for start, end in ((600_000, 1 << 20), (6 << 20, 12 << 20), ((12 << 20) + 500_000, 20 << 20)):
            file.seek(start)
            file.write(noise(end - start))

    def cut(_turn: int) -> None:
        os.truncate(path, to)
        os.truncate(path, 20 << 20)
        os.truncate(path, to)

    meanwhile(path, cut)
    bench.create()
    assert not bench.found()[0]["damaged"]
    bench.restore()
    assert not bench.restore(verify=True).changed and (bench.target / "image").stat().st_size >= to


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
        "1 file(s) of a LMDB database were open for writing during the backup, first data/mdb",
        "1 file(s) of a SQLite database were open for writing during the backup, first data/app.db",
    ]
    assert all("dump" in warning and "snapshot" in warning and "stop the d" in warning for warning in warnings)
    assert bench.create().warnings == []


# ---- hard links


def test_an_inode_number_that_is_used_again_ties_no_files(bench_on, meanwhile) -> None:
    bench = bench_on("ext4", 64 << 20)
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
        raise AssertionError("the inode number did not come again")

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


def test_where_no_birth_is_reported_links_are_checked_again_and_not_read_again(bench, monkeypatch, meanwhile) -> None:
    monkeypatch.setattr(kernel, "birth", lambda _directory, _name, _inode: -1)
    bench.files(a__log=b"one", b__x=b"1")
    for name in ("b/log", "c"):
        os.link(bench.source / "a" / "log", bench.source / name)
    turns = meanwhile(bench.source / "a" / "log", lambda _turn: None)
    made = bench.create()
    assert not made.backup["unstable"] and len(turns) == 1
    bench.restore()
    assert (bench.target / "a/log").stat().st_nlink == 3


@pytest.mark.parametrize("lacking", [{b"one"}, {b"two"}, {b"one", b"three"}])
def test_no_link_is_lost_where_one_birth_cannot_be_told(bench, monkeypatch, lacking: set[bytes]) -> None:
    """A disk that stutters."""
    bench.files(one=noise(1000))
    for name in ("two", "three"):
        os.link(bench.source / "one", bench.source / name)
    real = kernel.birth
    monkeypatch.setattr(kernel, "birth", lambda directory, name, inode: -1 if os.fsencode(name) in lacking else real(directory, name, inode))
    assert not bench.create().backup["unstable"]
    bench.restore()
    assert (bench.target / "one").stat().st_nlink == 3


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
