# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill create and restore at system calls spread over their whole run: no earlier backup, no target, no next run is hurt."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import create, restore
from ansible_collections.volt.backup.tests.rigs import oracle, strace

#: The calls between which the world differs. Reading ones would mostly be Python's imports.
CALLS = (
    "mkdir mkdirat mknodat symlinkat linkat unlinkat unlink rmdir rename renameat renameat2 write pwrite64 ftruncate fallocate fsync syncfs"
    " fchmod fchown fchownat lchown utimensat fsetxattr lsetxattr flock"
).split()
#: More points by VOLT_CRASH_POINTS; each takes about a second.
POINTS = int(os.environ.get("VOLT_CRASH_POINTS", "60"))


def test_create(bench, tmp_path):
    kept = tmp_path / "kept"
    first = bench.promise(kept)
    bench.edit()
    points = strace.points(bench.creation(), POINTS, CALLS, env=bench.environment())
    killed = 0
    for call, number in points:
        bench.edit()
        before = {backup["id"] for backup in bench.sound()}
        result = strace.run(bench.creation(), call, number, env=bench.environment())
        killed += result.killed
        after = {backup["id"] for backup in bench.sound()}
        assert before <= after and len(after - before) <= 1, (call, number)
        if not result.killed:
            assert result.status == 0 and len(after - before) == 1, (call, number, result)
        made = bench.manager.create(create.Request("work", str(bench.source)))
        assert made.backup["complete"] and bench.debris() == [], (call, number)
    assert killed > len(points) * 0.7, "calls vary a little from run to run, but most points must have been met"
    bench.equals(first, kept, tmp_path / "scratch")
    for backup in bench.sound()[:5]:
        bench.manager.restore(backup["id"], restore.Request(str(tmp_path / "scratch"), force=True, verify=True))
    bench.equals(bench.sound()[0]["id"], bench.source, tmp_path / "scratch")


def state(target: Path, *states: Path) -> list[bool]:
    """Which of these trees the target equals."""
    return [target.exists() == tree.exists() and (not tree.exists() or oracle.differences(tree, target) == []) for tree in states]


@pytest.mark.parametrize("strategy", ["replace", "in_place"])
def test_restore(bench, tmp_path, strategy):
    old, new, precious = tmp_path / "old", tmp_path / "new", b"precious"
    first = bench.promise(old)
    bench.edit()
    subprocess.run(["cp", "-a", bench.source, new], check=True)
    second = bench.manager.create(create.Request("work", str(bench.source), exclude=["/uploads"])).backup["id"]
    words = ["restore", second, "--target", str(bench.target), "--force", "--strategy", strategy]
    words += ["--delete"] if strategy == "in_place" else []
    command = bench.command(*words)

    def prepare() -> None:
        shutil.rmtree(bench.target, ignore_errors=True)
        subprocess.run(["cp", "-a", old, bench.target], check=True)
        (bench.target / "uploads").mkdir()
        (bench.target / "uploads" / "u").write_bytes(precious)

    prepare()
    points = strace.points(command, POINTS, CALLS, env=bench.environment())
    killed = 0
    for call, number in points:
        prepare()
        result = strace.run(command, call, number, env=bench.environment())
        killed += result.killed
        uploads = [path for path in tmp_path.glob("**/uploads/u") if path.read_bytes() == precious]
        assert len(uploads) == 1, (call, number, "what the backup excluded is somewhere, once")
        if strategy == "replace":
            aside = tmp_path / "aside"
            shutil.rmtree(aside, ignore_errors=True)
            subprocess.run(["cp", "-a", bench.target, aside], check=True)
            shutil.rmtree(aside / "uploads", ignore_errors=True)
            for tree in (old, new):
                os.utime(aside, ns=(0, tree.stat().st_mtime_ns))
                if oracle.differences(tree, aside) == []:
                    break
            else:
                raise AssertionError(f"{call} {number}: the target is neither the old nor the new tree")
        else:
            for path in bench.target.rglob("f*"):
                if path.is_file() and not path.name.startswith("."):
                    relative = path.relative_to(bench.target)
                    assert path.read_bytes() in ((old / relative).read_bytes(), (new / relative).read_bytes()), (call, number, relative)
        bench.manager.restore(second, restore.Request(str(bench.target), force=True, strategy=strategy, delete=strategy == "in_place", verify=True))
        assert (bench.target / "uploads" / "u").read_bytes() == precious, (call, number)
        shutil.rmtree(bench.target / "uploads")
        os.utime(bench.target, ns=(0, new.stat().st_mtime_ns))
        assert oracle.differences(new, bench.target) == [], (call, number)
        assert bench.debris() == [], (call, number)
    assert killed > len(points) * 0.7
    bench.sound()
    bench.equals(first, old, tmp_path / "scratch")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("word", ["create", "restore"])
def test_signals_end_cleanly(bench, tmp_path, number, word):
    """At any moment: one sentence, no debris, nothing half-done."""
    first = bench.promise(tmp_path / "kept")
    for turn in range(6):
        bench.edit()
        shutil.rmtree(bench.target, ignore_errors=True)
        words = ["create", "work", "--source", str(bench.source)] if word == "create" else ["restore", first, "--target", str(bench.target)]
        child = subprocess.Popen(bench.command(*words), env=bench.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(0.12 + 0.03 * turn)
        child.send_signal(number)
        out, errors = child.communicate(timeout=60)
        if child.returncode not in (0, -number, 1):
            raise AssertionError((child.returncode, out, errors))
        if child.returncode == 1 and "KeyboardInterrupt" not in errors:
            assert "nothing half-done was left behind" in errors and "Traceback" not in errors
        assert bench.debris() == []
        assert not bench.target.exists() or word == "restore" and oracle.differences(tmp_path / "kept", bench.target) == []
        bench.sound()
