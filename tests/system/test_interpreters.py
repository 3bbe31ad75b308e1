# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One store, many Pythons: each writes with what it has for compression, and each reads what the others wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ansible_collections.volt.backup.tests.rigs import oracle, sample

PYTHONS = os.environ.get("VOLT_PYTHONS", "").split(":") if os.environ.get("VOLT_PYTHONS") else [sys.executable]
#: How a process comes by its zstd, made so from outside.
WITHOUT = {
    "as found": "",
    "system library": "sys.modules['zstandard'] = sys.modules['compression'] = None",
    "no zstd": "sys.modules['zstandard'] = sys.modules['compression'] = None; import ctypes; real = ctypes.CDLL;"
    " ctypes.CDLL = lambda name, *a, **k: (_ for _ in ()).throw(OSError()) if name and 'zstd' in name else real(name, *a, **k)",
}
ENGINE = "ansible_collections.volt.backup.plugins.module_utils._runner"


def run(bench, python, kind, *words):
    code = f"import sys; {WITHOUT[kind]}\nfrom {ENGINE}.cli import main\nraise SystemExit(main(sys.argv[1:]))"
    collections = next(path for path in sys.path if os.path.isdir(os.path.join(path, "ansible_collections", "volt")))
    environment = {**os.environ, "PYTHONPATH": collections}
    done = subprocess.run(
        [python, "-c", code, *words, "--store", str(bench.store), "--backup-dir", str(bench.backups), "--json"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.costly
def test_all_write_and_all_read(bench):
    variants = [(python, kind) for python in PYTHONS for kind in WITHOUT]
    backups = {}
    for number, (python, kind) in enumerate(variants):
        name = f"source{number}"
        place = bench.top / name
        place.mkdir()
        for size in (10, 1000, 100_000, 300_000):
            (place / str(size)).write_bytes(f"{python} {kind} {size} ".encode() * (size // 10))
        with open(place / "chunked", "wb") as file:
            file.seek(9 << 20)
            file.write(name.encode() * 1000)
        (place / "shared").write_bytes(b"the same everywhere" * 100)
        status, result = run(bench, python, kind, "create", f"w{number}", "--source", str(place))
        assert status == 0, result
        if number:
            assert result["backup"]["dedup_blobs"] >= 1
        backups[result["backup"]["id"]] = place
    suffixes = {path.suffix for path in bench.store.rglob("*") if path.is_file() and path.parent.parent.name in ("packs", "objects")}
    assert ".zz" in suffixes
    for python in PYTHONS:
        for kind in ("as found", "system library"):
            for backup, place in sample.some(list(backups.items()), 4, "interpreters", python, kind):
                target = bench.top / "out"
                status, result = run(bench, python, kind, "restore", backup, "--target", str(target), "--force", "--delete", "--verify")
                assert status == 0, result
                assert oracle.rsync(os.fsencode(place), os.fsencode(target)) == []
    if ".zst" in suffixes:
        status, result = run(bench, PYTHONS[0], "no zstd", "restore", next(iter(backups)), "--target", str(bench.top / "never"))
        assert status != 0 and "zstd" in result["msg"] and not (bench.top / "never").exists()


@pytest.mark.costly
def test_the_same_tree_by_any_python_has_the_same_names(bench):
    """Digests do not depend on the interpreter or on how it compresses."""
    bench.files(a=b"1", b=b"2" * 300_000, d__e=b"3" * 5000)
    found = set()
    for number, python in enumerate(PYTHONS):
        bench.store, bench.backups = bench.top / f"store{number}", bench.top / f"backups{number}"
        status, _result = run(bench, python, "no zstd" if number % 2 else "as found", "create", "w", "--source", str(bench.source))
        assert status == 0
        found.add(frozenset(path.name.split(".")[0] for top in ("packs", "objects") for path in (bench.store / top).rglob("*") if path.is_file()))
    assert len(found) == 1


@pytest.mark.skipif(len(PYTHONS) < 2, reason="one interpreter only; VOLT_PYTHONS names more where there are more")
@pytest.mark.costly
def test_several_interpreters_were_found():
    assert len(PYTHONS) > 1
