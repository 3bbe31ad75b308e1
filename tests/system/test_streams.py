# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a backup that a program writes: what is piped in, the output of a command."""

from __future__ import annotations

import io
import json
import os
import time

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import SourceError, UsageError
from ansible_collections.volt.backup.plugins.module_utils._capture import stream
from ansible_collections.volt.backup.tests.system.conftest import Bench
from ansible_collections.volt.backup.tests.unit._store.independent_reader import Reader
from ansible_collections.volt.backup.tests.unit.kit import noise

MIB = 1 << 20
ROWS = b"".join(b"%d\tcustomer %d\t%x\n" % (row, row * 7919 % 100003, row * 2654435761 % (1 << 32)) for row in range(200000))


def piped(data: bytes, name: str = "dump.sql") -> tuple[str, io.BytesIO]:
    return name, io.BytesIO(data)


def alone(bench: Bench, data: bytes, dry: bool = False, **options: object):  # type: ignore[no-untyped-def]
    return bench.manager.create(CreateRequest("work", None, stdin=piped(data), compression="zlib", **options), dry)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 128 << 10, (128 << 10) + 1, 512 << 10, MIB + 1, 9 * MIB])
def test_what_is_piped_in_comes_back(bench: Bench, size: int) -> None:
    data = noise(size, "stream")
    backup = alone(bench, data).backup
    assert backup["source_path"] == "/dev/stdin" and backup["file_count"] == 1 and backup["total_size"] == size and backup["complete"]
    bench.restore()
    assert (bench.target / "dump.sql").read_bytes() == data and os.listdir(bench.target) == ["dump.sql"]
    assert os.stat(bench.target / "dump.sql").st_mode & 0o7777 == 0o600
    _head, nodes, _links = Reader(str(bench.store)).backup(str(bench.backups / f"{backup['id']}.json"))
    assert set(nodes) == {b"dump.sql"}
    features = json.loads((bench.store / "format.json").read_text())["features"]["required"]
    assert ("cdc" in features) == (size > 512 << 10)
    assert not bench.manager.verify(VerifyRequest(level="content")).damage and not bench.debris()


def test_a_row_more_costs_what_it_touches(bench: Bench) -> None:
    alone(bench, ROWS)
    backup = alone(bench, ROWS[: len(ROWS) // 2] + b"a new row\n" + ROWS[len(ROWS) // 2 :]).backup
    assert 0 < backup["new_bytes"] < 2 * MIB < len(ROWS)


def test_beside_a_source(bench: Bench) -> None:
    bench.files(**{"a": b"a" * 1000, "d__b": b"b", "out": b"of the source", ".volt-dumps__out": b"of an earlier restore"})
    bench.create(command=["sh", "-c", "echo one"], command_file="out")
    bench.restore()
    assert {path.name: path.read_bytes() for path in bench.target.iterdir() if path.is_file()} == {"a": b"a" * 1000, "out": b"of the source"}
    assert (bench.target / ".volt-dumps/out").read_bytes() == b"one\n"
    assert (bench.target / "d/b").read_bytes() == b"b"
    second = bench.create(command=["sh", "-c", "echo two"], command_file="out")
    third = bench.create()  # without the command, the source's own directory counts again
    for made in (second, third):
        assert {".volt-dumps/out"} <= set(made.diff["changed"]) <= {".volt-dumps/out", ".volt-dumps"} and not made.diff["added"] + made.diff["removed"]
    bench.restore(force=True)
    assert (bench.target / ".volt-dumps/out").read_bytes() == b"of an earlier restore"
    assert bench.create().diff["counts"] == {"added": 0, "changed": 0, "removed": 0}


def test_files_of_the_source_are_not_read_again(trusted_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.volt.backup.plugins.module_utils._capture import file_saver

    bench = trusted_bench
    bench.files(a=noise(200000), d__b=b"b")
    time.sleep(2.1)  # else the stat cache does not believe them
    for _run in range(2):
        bench.create(command=["echo", "x"])
    opened: list[object] = []
    genuine = file_saver.open_source
    monkeypatch.setattr(file_saver, "open_source", lambda *words: opened.append(words[0]) or genuine(*words))
    bench.create(command=["echo", "y"])
    bench.create()
    assert opened == []


@pytest.mark.parametrize("command, said", [
    (["sh", "-c", "head -c 3000000 /dev/zero; echo no room >&2; exit 1"], r"sh failed with exit status 1 \(no room\)"),
    (["sh", "-c", "head -c 3000000 /dev/zero; kill -9 $$"], "signal 9"),
    (["true"], "wrote nothing"),
    (["/does/not/exist"], "not installed"),
])  # fmt: skip
def test_a_command_that_fails_leaves_no_backup(bench: Bench, command: list[str], said: str) -> None:
    bench.files(a=b"a")
    with pytest.raises(SourceError, match=said):
        bench.create(command=command)
    assert bench.found() == [] and not bench.debris()


def test_nothing_piped_in_is_a_failure(bench: Bench) -> None:
    with pytest.raises(SourceError, match="wrote nothing"):
        alone(bench, b"")
    assert bench.found() == []
    assert alone(bench, b"", allow_empty=True).backup["file_count"] == 1
    bench.restore()
    assert (bench.target / "dump.sql").read_bytes() == b""


def test_a_dry_run_counts_and_stores_nothing(bench: Bench) -> None:
    made = alone(bench, ROWS, dry=True)
    assert made.backup["id"] is None and made.backup["new_bytes"] == len(ROWS) and made.diff["counts"]["added"] == 1
    assert not bench.store.exists()


def test_a_dry_run_runs_no_command(bench: Bench) -> None:
    bench.files(a=b"a")
    command = ["sh", "-c", f"echo run >>{bench.top}/told; echo x"]
    first = bench.create(command=command, command_file="out", dry=True)
    assert not (bench.top / "told").exists() and "A check runs no commands" in first.warnings[-1]
    bench.create(command=command, command_file="out")
    again = bench.create(command=command, command_file="out", dry=True)
    assert again.diff["counts"] == {"added": 0, "changed": 0, "removed": 0} and (bench.top / "told").read_text() == "run\n"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".volt-dumps", "x" * 256, "\\x00"])
def test_names(bench: Bench, name: str) -> None:
    bench.files(a=b"a")
    with pytest.raises(UsageError):
        bench.create(stdin=piped(b"x", name))
    with pytest.raises(UsageError):
        bench.create(command=["echo", "x"], command_file=name)


def test_two_of_one_name_and_nothing_at_all(bench: Bench) -> None:
    bench.files(a=b"a")
    with pytest.raises(UsageError, match="would be .volt-dumps/dump.sql"):
        bench.create(stdin=piped(b"x"), command=["echo", "x"], command_file="dump.sql")
    with pytest.raises(UsageError, match="nothing to back up"):
        bench.manager.create(CreateRequest("work", None))
    with pytest.raises(UsageError, match="no effect without"):
        bench.create(command_file="x")


def test_a_backup_without_a_source_wants_a_target(bench: Bench) -> None:
    alone(bench, b"x")
    with pytest.raises(UsageError, match="has no source"):
        bench.restore(target=None)


def test_only_if_changed_and_a_collection(bench: Bench) -> None:
    first = alone(bench, ROWS).backup
    time.sleep(1.1)  # equal content keeps the time that it has
    assert alone(bench, ROWS, only_if_changed=True).backup["id"] == first["id"]
    assert alone(bench, ROWS + b"x", only_if_changed=True).changed
    bench.manager.delete(first["id"])
    bench.manager.collect("0s")
    bench.manager.collect("0s")
    bench.restore()
    assert (bench.target / "dump.sql").read_bytes() == ROWS + b"x"


def test_memory_does_not_grow_with_the_stream(bench: Bench) -> None:
    class Endless(io.RawIOBase):
        left = 48

        def read(self, most: int = -1) -> bytes:
            self.left -= 1
            return noise(min(most, MIB), self.left) if self.left >= 0 else b""

    import tracemalloc

    tracemalloc.start()
    try:
        bench.manager.create(CreateRequest("work", None, stdin=("big", Endless()), compression="none"))  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()


def test_pieces_are_whole() -> None:
    """Reads that give less than asked for, as pipes do, cut the stream at the same places."""
    at = 0

    def little(most: int) -> bytes:
        nonlocal at
        piece = ROWS[at : at + min(most, 4097)]
        at += len(piece)
        return piece

    assert list(stream._pieces(little)) == list(stream._pieces(io.BytesIO(ROWS).read))
