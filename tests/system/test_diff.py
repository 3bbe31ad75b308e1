# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `diff` tells of two backups, and of a backup and a directory as it is now."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli, upkeep


class Run:
    def __init__(self, bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self._bench, self._capsys = bench, capsys

    def __call__(self, *words: str, status: int = upkeep.DONE) -> str:
        assert cli.main([*words, "--store", str(self._bench.store), "--backup-dir", str(self._bench.backups)]) == status
        captured = self._capsys.readouterr()
        return captured.out + captured.err

    def diff(self, *words: str) -> tuple[list[str], list[str], list[str]]:
        """(added, changed, removed); what is printed agrees with it."""
        value = json.loads(self("diff", *words, "--json"))
        found = value["diff"]
        lines = [sign + path for sign, kind in (("+", "added"), ("~", "changed"), ("-", "removed")) for path in found[kind]]
        lines.append(", ".join(f"{len(found[kind])} {kind}" for kind in ("added", "changed", "removed")) + f", from {value['old']} to {value['new']}")
        assert self("diff", *words).splitlines() == lines
        return found["added"], found["changed"], found["removed"]


@pytest.fixture
def run(bench: Any, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(bench, capsys)


def change(source: Path) -> None:
    """One file of each fate; one that keeps its size and time."""
    kept = (source / "conf/same-time").stat()
    (source / "conf/same-time").write_bytes(b"B")
    os.utime(source / "conf/same-time", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    (source / "conf/mode").chmod(0o640)
    (source / "gone").unlink()
    shutil.rmtree(source / "old")
    (source / "new/deep").mkdir(parents=True)
    (source / "new/deep/file").write_bytes(b"new")
    (source / "turned").unlink()
    (source / "turned").mkdir()
    (source / "turned/in").write_bytes(b"")


BEFORE = {"conf__same-time": b"A", "conf__mode": b"m", "conf__plain": b"p", "gone": b"g", "old__a": b"a", "old__b": b"b", "turned": b"t", "skip__a": b"s"}
ADDED, REMOVED = ["new", "new/deep", "new/deep/file", "turned/in"], ["gone", "old", "old/a", "old/b"]


def test_two_backups_or_a_directory(bench: Any, run: Run) -> None:
    bench.files(**BEFORE)
    first = bench.create(exclude=["skip"]).backup["id"]
    assert run.diff("work", str(bench.source)) == ([], [], []) and run.diff(first, f"{bench.source}/") == ([], [], [])
    change(bench.source)
    (bench.source / "skip/b").write_bytes(b"excluded, so not new")
    before = bench.snapshot()
    added, changed, removed = run.diff("latest")
    assert run.diff("work", str(bench.source)) == (added, changed, removed)
    assert bench.snapshot() == before, "it writes nothing"
    assert (added, changed, removed) == (ADDED, ["conf/mode", "conf/same-time", "turned"], REMOVED)
    second = bench.create(exclude=["skip"]).backup["id"]
    between = run.diff(first, second)
    turned = ["turned"]  # a directory in a file's place: of two backups, one gone and one new
    assert between == (sorted(ADDED + turned), ["conf/mode", "conf/same-time"], REMOVED + turned)
    assert run.diff("work", second) == ([], [], []), "a workload is its newest good backup"
    assert run.diff(first, "work") == between and run.diff(second, first) == (between[2], between[1], between[0])


def test_content_is_compared_unless_that_is_given_up(bench: Any, run: Run) -> None:
    bench.files(a=b"A", b=b"B" * (9 << 20))
    first = bench.create().backup["id"]
    for name, at in (("a", 0), ("b", 5 << 20)):
        info = (bench.source / name).stat()
        with open(bench.source / name, "r+b") as file:
            file.seek(at)
            file.write(b"x")
        os.utime(bench.source / name, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert run.diff(first, str(bench.source)) == ([], ["a", "b"], [])
    assert run.diff(first, str(bench.source), "--no-verify") == ([], [], [])


def test_paths_in_every_form(bench: Any, run: Run) -> None:
    bench.files(**BEFORE)
    (bench.source / "caf\udce9").mkdir()
    first = bench.create().backup["id"]
    change(bench.source)
    (bench.source / "caf\udce9/in").write_bytes(b"")
    second = bench.create().backup["id"]
    for newer in (second, str(bench.source)):
        for path in ("conf", "/conf", "./conf/", f"{bench.source}/conf", f"{bench.source}/conf/"[1:]):
            assert run.diff(first, newer, "--path", path) == ([], ["conf/mode", "conf/same-time"], []), path
        assert run.diff(first, newer, "--path", "conf/mode", "--path", "old", "--path", "conf") == (
            [], ["conf/mode", "conf/same-time"], ["old", "old/a", "old/b"],
        )  # fmt: skip
        assert run.diff(first, newer, "--path", "caf\\xe9")[0] == ["caf\\xe9/in"]
        assert run.diff(first, newer, "--path", "caf\udce9")[0] == ["caf\\xe9/in"]
        assert len(run.diff(first, newer, "--path", "/")[0]) == len(ADDED) + 1 + (newer == second)  # a directory in a file's place
        assert "has no path nothing" in run("diff", first, newer, "--path", "nothing", status=upkeep.USAGE) or newer == second
        assert "contains `..`" in run("diff", first, newer, "--path", "conf/../../etc", status=upkeep.USAGE)
        assert "is empty" in run("diff", first, newer, "--path", "", status=upkeep.USAGE)
    assert run.diff(first, second, "--path", "new") == (["new", "new/deep", "new/deep/file"], [], []), "which the first one does not have"
    assert "Neither backup has path nothing" in run("diff", first, second, "--path", "nothing", status=upkeep.USAGE)
    limited = json.loads(run("diff", first, str(bench.source), "--diff-limit", "1", "--json"))["diff"]
    assert limited["more"] == sum(limited["counts"].values()) - 1


def test_where_no_restore_could_go(bench: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Around the store, by a symbolic link, from the directory itself; and of a backup that lost content, which tells all the same."""
    bench.files(a=b"A" * 200_000, b=b"b")
    first = bench.create().backup["id"]
    (bench.top / "link").symlink_to(bench.source)
    assert run.diff(first, f"{bench.top}/link") == ([], [], [])
    monkeypatch.chdir(bench.source)
    assert run.diff(first, ".") == ([], [], []) and run.diff(first, "../source") == ([], [], [])
    added, _changed, removed = run.diff(first, str(bench.top))
    assert removed == ["a", "b"] and not any(path.startswith(("store", "backups")) for path in added)
    for blob in (bench.store / "objects").glob("*/*"):
        blob.unlink()
    (bench.source / "b").write_bytes(b"c")
    assert run.diff(first, ".") == ([], ["b"], [])
    assert "There is no directory /nowhere" in run("diff", first, "/nowhere", status=upkeep.FAILED)
    assert "There is no directory /dev/null; give the one to compare" in run("diff", first, "/dev/null", status=upkeep.FAILED)
    assert "There is no directory /nowhere/at/all" in run("diff", first, "/nowhere/at/all", status=upkeep.FAILED)
    monkeypatch.chdir(bench.top)
    assert "write ./source" in run("diff", first, "source", status=upkeep.UNKNOWN)
    assert "write ./" not in run("diff", "none", "source", status=upkeep.UNKNOWN) + run("diff", first, "none", status=upkeep.UNKNOWN)
    assert "There is no directory" in run("diff", first, f"{bench.source}/b", status=upkeep.FAILED)
    assert "There is no backup or workload none" in run("diff", "none", ".", status=upkeep.UNKNOWN)


@pytest.mark.parametrize("one_file_system", [False, True])
def test_what_is_mounted_below(bench: Any, disk: Any, run: Run, one_file_system: bool) -> None:
    """It belongs to the directory, as it does in a backup, unless that was to stay on one file system."""
    bench.files(a=b"A")
    disk.mount(bench.source / "data")
    (bench.source / "data/first").write_bytes(b"1")
    first = bench.create(one_file_system=one_file_system).backup["id"]
    (bench.source / "data/second").write_bytes(b"2")
    (bench.source / "data/first").write_bytes(b"2")
    assert run.diff(first, str(bench.source)) == (([], [], []) if one_file_system else (["data/second"], ["data/first"], []))


def test_the_text_of_a_file(bench: Any, run: Run) -> None:
    """Of one file that was asked for. What it says controls no terminal."""
    bench.files(conf=b"one\ntwo\nthree\n", gone=b"gone\n", other=b"o", binary=b"a\0b", large=b"x\n" * (600 << 10), moved__to=b"")
    first = bench.create().backup["id"]
    bench.files(conf=b"one\n2\ttwo\x1b[31m\nthree", other=b"p", binary=b"a\0c", large=b"y\n" * (600 << 10))
    (bench.source / "gone").unlink()
    (bench.source / "moved/to").chmod(0o600)
    second = bench.create().backup["id"]
    printed = run("diff", first, second, "--path", f"{bench.source}/conf").splitlines()
    assert printed == ["~conf", f"--- {first}:conf", f"+++ {second}:conf", "@@ -1,3 +1,3 @@", " one", "-two", "-three", "+2\ttwo\\x1b[31m", "+three",
                       "\\ No newline at end of file", f"0 added, 1 changed, 0 removed, from {first} to {second}"]  # fmt: skip
    assert run("diff", first, second, "--path", "gone").splitlines()[1:5] == [f"--- {first}:gone", "+++ /dev/null", "@@ -1 +0,0 @@", "-gone"]
    told = {
        "binary": "The content of binary differs, and it is not text.", "large": "The text of large was not compared, because it is larger than 1 MiB.",
        "moved/to": None, "moved": None,
    }  # fmt: skip
    for path, reason in told.items():
        found = json.loads(run("diff", first, second, "--path", path, "--json"))
        assert (found["text"], found["text_reason"]) == (None, reason), path
        assert reason is None or reason in run("diff", first, second, "--path", path).splitlines()
    assert json.loads(run("diff", first, second, "--path", "conf", "--path", "other", "--json"))["text"] is None
    assert json.loads(run("diff", first, second, "--json"))["text"] is None


def test_backups_of_a_remote(bench: Any, run: Run) -> None:
    bench.files(conf=b"one\n", other=b"o")
    first = bench.create().backup["id"]
    bench.files(conf=b"two\n")
    second = bench.create().backup["id"]
    place = bench.top / "remote"
    place.mkdir()
    run("remote", "init", f"file://{place}")
    run("push", "--all", "--remote", f"file://{place}")
    local = run("diff", first, second, "--path", "conf")
    shutil.move(bench.store, bench.top / "away")
    assert "-one\n+two\n" in local and run("diff", first, second, "--path", "conf", "--remote", f"file://{place}") == local
    assert run("diff", first, "work", "--remote", f"file://{place}").endswith(f"~conf\n0 added, 1 changed, 0 removed, from {first} to {second}\n")
    run("diff", first, "--remote", f"file://{place}", status=upkeep.USAGE)
