# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/recovery.md and docs/operations.md tell people to do in need is done here, as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.tests.rigs import need, oracle, sample, torture

DOCS = Path(__file__).parents[2] / "docs"
RECOVERY = (DOCS / "recovery.md").read_text(encoding="utf-8")


def script() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", RECOVERY, re.DOTALL)
    return found


@pytest.mark.parametrize("compression", sample.some(["auto", "zlib", "none"], 1, "by hand"))
def test_restoring_by_hand(bench, compression):
    """The script alone, in a Python that knows nothing of us, on a hard tree; rsync is the judge."""
    need("zstd")
    torture.build(bench.source, entries=600, long_paths=False)
    for top, _directories, names in os.walk(bench.source):
        for name in names:
            kind = stat.S_IFMT(os.lstat(os.path.join(top, name)).st_mode)
            if kind in (stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR):
                os.unlink(os.path.join(top, name))  # which the script leaves out, and says so
    backup = bench.create(compression=compression).backup
    (bench.top / "by_hand.py").write_text(script())
    manifest = bench.store / "refs" / f"{backup['manifest_ref']}.json"
    command = [sys.executable, "-I", "-W", "ignore", bench.top / "by_hand.py", bench.store, manifest, bench.target]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"]}, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    # the bytes of holes are there, the holes need not be
    assert [item for item in oracle.differences(bench.source, bench.target) if not re.match(r"walk: .*: data \[", item)] == []


def test_the_script_sees_damage(bench):
    bench.files(a=os.urandom(5000))
    backup = bench.create(compression="none").backup
    for path in (bench.store / "packs").rglob("*.pack"):
        if path.stat().st_size > 4000:
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
    (bench.top / "by_hand.py").write_text(script())
    command = [sys.executable, bench.top / "by_hand.py", bench.store, bench.store / "refs" / f"{backup['manifest_ref']}.json", bench.target]
    assert "is damaged" in subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False).stderr


def run(bench, line: str) -> int:
    words = line.split()[1:]
    places = [] if "--backup-dir" in words else ["--backup-dir", str(bench.backups)]
    return cli.main([*words, "--store", str(bench.store), *places])


def test_every_command_of_the_documents_is_one():
    text = RECOVERY + (DOCS / "operations.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ (volt-backup .*)$", text, re.M) + re.findall(r"`(volt-backup [a-z].*?)`", text)
    assert len(lines) >= 10
    for line in lines:
        cli.parser().parse_args(line.split()[1:])  # a wrong one would raise UsageError


def test_a_full_disk(bench_on):
    """As the document has it: backups until there is no room, then prune and gc make some."""
    bench = bench_on("ext4", 48 << 20)
    made = []
    with pytest.raises(Exception, match="store's file system is full"):
        for turn in range(20):
            bench.files(**{f"f{turn % 3}": os.urandom(5 << 20)})
            made.append(bench.create(source=bench.source, workload_mode=None).backup["id"])
    shutil.rmtree(bench.source)
    filler = bench.top / "filler"
    with open(filler, "wb") as file, pytest.raises(OSError):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    (prune,) = re.findall(r"^\$ (volt-backup prune app .*)$", RECOVERY, re.M)
    (gc,) = re.findall(r"^\$ (volt-backup gc .*)$", RECOVERY, re.M)
    assert run(bench, prune.replace("app", "work").replace("3", "1")) == 0
    free = shutil.disk_usage(bench.top).free
    assert run(bench, gc) == 0
    assert shutil.disk_usage(bench.top).free > free + (1 << 20)
    assert [item["damaged"] for item in bench.found()] == [False]


def test_lost_records(bench):
    bench.files(a=b"1")
    backup = bench.create().backup["id"]
    shutil.rmtree(bench.backups)
    lines = re.findall(r"^\$ (volt-backup adopt .*)$", RECOVERY, re.M)
    assert len(lines) == 2
    for line in lines:
        assert run(bench, line) == 0
    assert [item["id"] for item in bench.found()] == [backup]


def test_a_lost_index(bench):
    bench.files(a=b"1", object=os.urandom(300_000))
    backup = bench.create().backup["id"]
    for part in ("index", "cache"):
        shutil.rmtree(bench.store / part)
    assert not bench.found()[0]["damaged"]
    bench.restore(backup)
    assert bench.create().backup["new_blobs"] == 0
