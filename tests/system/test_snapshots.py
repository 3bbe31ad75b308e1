# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources at one moment: Btrfs under a writing load, nested subvolumes, mounts, kills. The command runs as a process, which gets mounts of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import now, show_time
from ansible_collections.volt.backup.tests.rigs import mounts, need, sample
from ansible_collections.volt.backup.tests.system.conftest import Bench
from ansible_collections.volt.backup.tests.unit.kit import command

BUSY = """\
import os, sys
top, number = sys.argv[1], 0
while True:
    number += 1
    for name in "abcdefgh":
        with open(f"{top}/{name}.new", "w") as file:
            file.write(f"{number}\\n")
        os.rename(f"{top}/{name}.new", f"{top}/{name}")
"""
TRANSFER = """\
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
number = 0
while True:
    number += 1
    one, other = number % 100 + 1, number * 7 % 100 + 1
    connection.executescript(f"BEGIN; UPDATE l SET a = a - 1 WHERE id = {one}; UPDATE l SET a = a + 1 WHERE id = {other}; COMMIT;")
"""


class Btrfs(Bench):
    """A bench whose source is a subvolume, with the command as a process. `before`: words in front of the command."""

    before: list[str] = []

    def __init__(self, where: Path, apart: Path) -> None:
        super().__init__(where)
        self.store, self.backups = apart / "store", apart / "backups"
        self.manager = type(self.manager)(str(self.store), str(self.backups), 5)
        self.archive = apart / "volt-backup"
        self.archive.write_bytes(command())
        self.subvolume(self.source)

    @staticmethod
    def subvolume(path: Path) -> None:
        subprocess.run(["btrfs", "subvolume", "create", str(path)], check=True, capture_output=True)

    def start(self, snapshot: str, *words: str) -> subprocess.Popen[str]:
        places = ["--store", str(self.store), "--backup-dir", str(self.backups)]
        create = ["create", "work", "--source", str(self.source), "--snapshot", snapshot, "--compression", "zlib", "--json"]
        command_line = [*self.before, sys.executable, str(self.archive), *places, *create, *words]
        return subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, snapshot: str, *words: str) -> dict[str, Any]:
        child = self.start(snapshot, *words)
        output, said = child.communicate()
        assert output, said
        return dict(json.loads(output))

    def left(self) -> list[str]:
        place = self.source / ".volt-snapshots"
        return os.listdir(place) if place.exists() else []


@pytest.fixture
def btrfs(bench_on: Callable[..., Bench], tmp_path: Path) -> Btrfs:
    need("btrfs", "strace", root=True)
    return Btrfs(bench_on("btrfs").top, tmp_path)


@contextlib.contextmanager
def busy(program: str, path: Path) -> Iterator[None]:
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.kill()
        child.wait()


def test_all_files_are_of_one_moment(btrfs: Btrfs) -> None:
    """Files that are written one after the other, again and again: those behind the newest number all have the one before."""
    btrfs.files(**{name: b"0\n" for name in "abcdefgh"})
    with busy(BUSY, btrfs.source):
        for _run in range(50 if sample.LONG else 4):
            before = show_time(now())
            made = btrfs.run("require")
            (part,) = made["backup"]["snapshots"]
            assert (part["path"], part["kind"]) == (str(btrfs.source), "btrfs") and not made["warnings"] and not made["backup"]["unstable"]
            assert before < part["taken_at"] < show_time(now())
            btrfs.restore(made["backup"]["id"], force=True)
            numbers = [int((btrfs.target / name).read_text()) for name in "abcdefgh"]
            assert numbers == sorted(numbers, reverse=True) and numbers[0] - numbers[-1] <= 1
    assert btrfs.left() == []


def test_a_database_starts(btrfs: Btrfs) -> None:
    with contextlib.closing(sqlite3.connect(btrfs.source / "app.db")) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE l (id INTEGER PRIMARY KEY, a INT, filler TEXT)")
        connection.executemany("INSERT INTO l VALUES (?, 1000, ?)", ((number, "x" * 3000) for number in range(1, 101)))
        connection.commit()
    with busy(TRANSFER, btrfs.source / "app.db"):
        for _run in range(50 if sample.LONG else 3):
            backup = btrfs.run("require")["backup"]
            btrfs.restore(backup["id"], force=True, delete=True)
            with contextlib.closing(sqlite3.connect(btrfs.target / "app.db")) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert connection.execute("SELECT sum(a), count(*) FROM l").fetchall() == [(100_000, 100)]


def test_subvolumes_and_mounts_below(btrfs: Btrfs) -> None:
    for path in ("nested", "nested/deep", "still"):
        btrfs.subvolume(btrfs.source / path)
    btrfs.files(a=b"a", nested__n=b"n", nested__deep__d=b"d", still__s=b"s", other__hidden=b"h")
    subprocess.run(["btrfs", "property", "set", str(btrfs.source / "still"), "ro", "true"], check=True)
    other = btrfs.source / "other"
    subprocess.run(["mount", "-t", "tmpfs", "none", str(other)], check=True)
    try:
        (other / "t").write_bytes(b"t")
        assert "no snapshot can be made of" in btrfs.run("require")["msg"] and str(other) in btrfs.run("require")["msg"]
        made = btrfs.run("auto")
        kinds = {part["path"].removeprefix(str(btrfs.source)): part["kind"] for part in made["backup"]["snapshots"]}
        assert kinds == {"": "btrfs", "/nested": "btrfs", "/nested/deep": "btrfs", "/still": "btrfs", "/other": "none"}
        assert [str(other) in text for text in made["warnings"]] == [True]
        btrfs.restore()
        found = {str(path.relative_to(btrfs.target)) for path in btrfs.target.rglob("*") if path.is_file()}
        assert found == {"a", "nested/n", "nested/deep/d", "still/s", "other/t"}
        assert btrfs.run("require", "--exclude", "/other")["backup"]["complete"]
        one = btrfs.run("require", "--one-file-system")["backup"]
        assert [part["path"] for part in one["snapshots"]] == [str(btrfs.source)] and one["mounts"] == made["backup"]["mounts"]
        plain = btrfs.run("none", "--one-file-system")  # the same is left out and noted, and what a mount hides stays hidden
        assert plain["diff"]["counts"] == {"added": 0, "changed": 0, "removed": 0} and plain["backup"]["skipped"] == one["skipped"]
    finally:
        subprocess.run(["umount", str(other)], check=True)
    assert btrfs.left() == [] and {item["reason"] for item in made["backup"]["skipped"]} == {"store"}


def test_the_stat_cache_holds(btrfs: Btrfs) -> None:
    """Inodes and times of a snapshot are those of the source: what a plain run read is not read again, and the other way round."""
    btrfs.files(**{f"d__{number}": b"x" * 200_000 for number in range(5)})
    inner = btrfs.source / "inner"
    inner.mkdir()
    (inner / "x").write_bytes(b"y" * 200_000)
    btrfs.source = inner
    time.sleep(2.1)
    btrfs.run("none")
    btrfs.run("require")
    time.sleep(2.1)
    for snapshot in ("require", "none"):
        trace = btrfs.store.with_name("trace")
        btrfs.before = ["strace", "-f", "-e", "trace=openat,openat2", "-o", str(trace)]
        made = btrfs.run(snapshot)
        assert made["diff"]["counts"] == {"added": 0, "changed": 0, "removed": 0}
        assert '"inner"' in trace.read_text() or snapshot == "require"
        assert '"x"' not in trace.read_text()


def test_what_a_killed_run_leaves_the_next_one_removes(btrfs: Btrfs) -> None:
    """Killed at any moment; every second run while it reads its own snapshot, whatever the one before has left."""
    btrfs.subvolume(btrfs.source / "nested")
    btrfs.files(**{f"f{number}": os.urandom(300_000) for number in range(20)})
    began = time.monotonic()
    btrfs.run("require")
    whole, seen = time.monotonic() - began, 0
    for number in range(200 if sample.LONG else 8):
        dice, before = sample.chance("kills of snapshots", number), set(btrfs.left())
        btrfs.files(**{f"f{one}": os.urandom(300_000) for one in range(20)})  # else there would be nothing to read
        child = btrfs.start("require")
        if number % 2:
            deadline = time.monotonic() + 60
            while not set(btrfs.left()) - before and time.monotonic() < deadline:
                assert child.poll() is None, child.communicate()
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.1))
        else:
            time.sleep(dice.uniform(0, whole))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        seen += bool(set(btrfs.left()) - before)
    assert seen
    assert btrfs.run("require")["backup"]["complete"]
    assert btrfs.left() == []
    listed = subprocess.run(["btrfs", "subvolume", "list", str(btrfs.top)], check=True, capture_output=True, text=True).stdout
    assert "volt-" not in listed.replace(".volt-snapshots", "")
    assert not [mount for mount in Path("/proc/self/mountinfo").read_text().splitlines() if str(btrfs.store) in mount]
    print(f"{number + 1} runs were killed, of which {seen} left a snapshot behind for the next one")


def test_a_store_inside_of_the_source_stays_out(btrfs: Btrfs) -> None:
    btrfs.files(a=b"a", d__b=b"b")
    btrfs.store, btrfs.backups = btrfs.source / "cas", btrfs.source / "records"
    counts = [btrfs.run(snapshot)["backup"]["file_count"] for snapshot in ("require", "require", "none")]
    assert counts == [2, 2, 2]


def test_a_directory_of_snapshots_of_another_user_is_not_used(btrfs: Btrfs) -> None:
    """Its owner could put another directory in the place of a snapshot."""
    btrfs.files(a=b"a")
    place = btrfs.source / ".volt-snapshots"
    place.mkdir()
    os.chown(place, 65534, 65534)
    assert "belongs to another user" in btrfs.run("require")["msg"]
    assert "belongs to another user" in btrfs.run("auto")["warnings"][0] and os.listdir(place) == []


def test_one_snapshot_that_fails_costs_no_other(btrfs: Btrfs, bench_on: Callable[..., Bench]) -> None:
    btrfs.files(a=b"a", other__hidden=b"h")
    beside, other = bench_on("btrfs").top, btrfs.source / "other"
    (beside / ".volt-snapshots").mkdir()
    os.chown(beside / ".volt-snapshots", 65534, 65534)
    (beside / "b").write_bytes(b"b")
    subprocess.run(["mount", "--bind", str(beside), str(other)], check=True)
    try:
        said = btrfs.run("require")["msg"]
        assert f"of {other} (.volt-snapshots belongs to another user);" in said, said
        made = btrfs.run("auto")
        assert {part["path"]: part["kind"] for part in made["backup"]["snapshots"]} == {str(btrfs.source): "btrfs", str(other): "none"}
        assert f"of {other} (.volt-snapshots belongs to another user);" in made["warnings"][0], made["warnings"]
        btrfs.restore()
        assert (btrfs.target / "a").read_bytes() == b"a" and (btrfs.target / "other/b").read_bytes() == b"b"
    finally:
        subprocess.run(["umount", str(other)], check=True)
    assert btrfs.left() == []


def test_what_is_below_a_read_only_subvolume(btrfs: Btrfs) -> None:
    btrfs.subvolume(btrfs.source / "nested")
    btrfs.files(nested__n=b"n")
    subprocess.run(["btrfs", "property", "set", str(btrfs.source), "ro", "true"], check=True)
    made = btrfs.run("require")
    assert [part["path"].removeprefix(str(btrfs.source)) for part in made["backup"]["snapshots"]] == ["", "/nested"]
    assert os.listdir(btrfs.source / "nested/.volt-snapshots") == []
    subprocess.run(["btrfs", "property", "set", "-f", str(btrfs.source), "ro", "false"], check=True)


def test_two_runs_share_a_subvolume(btrfs: Btrfs) -> None:
    """One must not take away the snapshot of the other."""
    btrfs.files(**{f"d__{number}": os.urandom(200_000) for number in range(30)})
    children = [btrfs.start("require") for _run in range(3)]
    for child in children:
        output, said = child.communicate()
        assert json.loads(output)["backup"]["complete"], said
    assert btrfs.left() == []


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_where_there_are_no_snapshots(bench_on: Callable[..., Bench], tmp_path: Path, kind: str) -> None:
    bench = bench_on(kind)
    bench.files(a=b"a")
    plain = Btrfs.__new__(Btrfs)
    Bench.__init__(plain, bench.top)
    plain.archive = tmp_path / "volt-backup"
    plain.archive.write_bytes(command())
    assert "no snapshot can be made" in plain.run("require")["msg"] and not plain.found()
    made = plain.run("auto")
    assert made["backup"]["snapshots"] == [{"path": str(bench.source), "kind": "none", "taken_at": None}] and "in use" in made["warnings"][0]
    assert plain.run("none")["backup"]["snapshots"] == []


def test_a_full_file_system(bench_on: Callable[..., Bench], tmp_path: Path) -> None:
    """A snapshot needs room for metadata. Without any, the run fails and leaves nothing, or it is made."""
    need("btrfs", root=True)
    bench = Btrfs(bench_on("btrfs", 120 * mounts.MIB).top, tmp_path)
    with contextlib.suppress(OSError), open(bench.source / "fill", "wb") as file:
        while True:
            file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())
    made = bench.run("require", "--exclude", "/fill")
    assert made.get("backup", {}).get("complete") or "no snapshot can be made" in made["msg"]
    assert bench.left() == []
