# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut the power: what was reported as done is there afterwards, and the next backup of the same source is whole in content."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

from ansible_collections.volt.backup.plugins.module_utils._backup import create
from ansible_collections.volt.backup.tests.crash.conftest import Bench
from ansible_collections.volt.backup.tests.rigs import mounts, oracle

#: More rounds by VOLT_POWER_CUTS; each takes about two seconds.
ROUNDS = int(os.environ.get("VOLT_POWER_CUTS", "20"))


def content_is_whole(store: Path) -> None:
    """Every file in the store has the bytes that its name says, by tools that are not ours."""
    for kind in ("objects", "packs"):
        for path in (store / kind).rglob("*"):
            if path.is_file():
                reader = ["zstd", "-dcq"] if path.suffix == ".zst" else ["cat"]
                data = subprocess.run([*reader, path], stdout=subprocess.PIPE, check=True).stdout
                digest = subprocess.run(["sha256sum"], input=data, stdout=subprocess.PIPE, check=True).stdout.split()[0].decode()
                assert digest == path.name.split(".")[0], path


def test_create(tmp_path):
    """The store is on a file system that loses power at a random moment of the run, or right after its end."""
    chance = random.Random(20)
    source, kept = tmp_path / "source", tmp_path / "kept"
    with mounts.mount("ext4", tmp_path, 1 << 30) as where:
        bench = Bench(where)
        bench.source = source
        bench.fill()
        first = bench.promise(kept)
        started = time.monotonic()
        subprocess.run(bench.creation(), env=bench.environment(), check=True, stdout=subprocess.DEVNULL)
        length = time.monotonic() - started
        done = {first}
        for turn in range(ROUNDS):
            bench.edit()
            child = subprocess.Popen(bench.creation(), env=bench.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if turn % 4:
                time.sleep(chance.uniform(0.2, 1.1) * length)
                finished = child.poll() == 0
                mounts.shut_down(where)
                child.wait()
            else:
                finished = child.wait() == 0
                mounts.shut_down(where)
            child.stdout.close()
            mounts.remount(where)
            found = {backup["id"] for backup in bench.sound()}
            assert done <= found, f"round {turn}: a backup that was reported is gone"
            if finished:
                assert len(found - done) >= 1, f"round {turn}: reported as done, and not there"
            made = bench.manager.create(create.Request("work", str(source))).backup
            done = found | {made["id"]}
            content_is_whole(bench.store)
            if turn % 5 == 4:
                bench.equals(made["id"], source, tmp_path / "scratch")
        bench.equals(first, kept, tmp_path / "scratch")


def test_restore(tmp_path):
    """The target loses power: replaced as a whole or not at all."""
    chance = random.Random(21)
    old, new = tmp_path / "old", tmp_path / "new"
    bench = Bench(tmp_path)
    bench.fill()
    first = bench.promise(old)
    bench.edit()
    subprocess.run(["cp", "-a", bench.source, new], check=True)
    second = bench.manager.create(create.Request("work", str(bench.source))).backup["id"]
    with mounts.mount("ext4", tmp_path, 1 << 30) as where:
        target = where / "target"
        for turn in range(ROUNDS):
            shutil.rmtree(target, ignore_errors=True)
            subprocess.run(["cp", "-a", old, target], check=True)
            subprocess.run(["sync", "-f", where], check=True)
            words = ["restore", second, "--target", str(target), "--force", "--strategy", "replace"]
            child = subprocess.Popen(bench.command(*words), env=bench.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if turn % 4:
                time.sleep(chance.uniform(0.15, 0.6))
                finished = child.poll() == 0
                mounts.shut_down(where)
                child.wait()
            else:
                finished = child.wait() == 0
                mounts.shut_down(where)
            child.stdout.close()
            mounts.remount(where)
            found = [tree for tree in (old, new) if oracle.differences(tree, target) == []]
            assert found, (turn, finished, oracle.differences(new, target)[:5], oracle.differences(old, target)[:5], os.listdir(where))
            assert not finished or found == [new], f"round {turn}: reported as done, and lost"
            subprocess.run(bench.command(*words), env=bench.environment(), check=True, stdout=subprocess.DEVNULL)
            assert oracle.differences(new, target) == []
            assert sorted(os.listdir(where)) == ["lost+found", "target"]
    bench.sound()
    bench.equals(first, old, tmp_path / "scratch")
