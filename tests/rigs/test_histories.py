# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are made-up histories what they say, and does the program that measures the brake by them count right?"""

from __future__ import annotations

import gzip
import io
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.benchmarks import brake
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.tests.rigs import sample

histories = brake.histories
binary, text = histories.benign.binary, histories.benign.text
History, Tree = histories.History, histories.Tree


def on_disk(root: Path) -> set[str]:
    return {os.path.relpath(os.path.join(path, name), root) for path, _folders, files in os.walk(root) for name in files}


def regular(root: Path) -> set[str]:
    return {name for name in on_disk(root) if not os.path.islink(root / name)}


def size(root: Path) -> int:
    return sum(os.lstat(root / name).st_size for name in on_disk(root))


@pytest.fixture
def room() -> Iterator[Path]:
    """Where thousands of files are made and removed in no time."""
    with tempfile.TemporaryDirectory(dir=brake.place_of()) as name:
        yield Path(name)


# ---- the generator

DIGESTS = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import histories
for kind, begin in (("git", None), ("folders renamed", None), ("SQLite vacuum", None), ("random names", 2), ("one folder", 2), ("deletes most", 2)):
    with tempfile.TemporaryDirectory(dir=sys.argv[3]) as room:
        for tree in histories.History(kind, int(sys.argv[2]), begin is not None, 4, begin).play(Path(room)):
            pass
        print(kind, tree.digest())
"""


def digests(room: Path, seed: int, order: int) -> list[str]:
    command = [sys.executable, "-c", DIGESTS, str(Path(brake.__file__).parent), str(seed), str(room)]
    done = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": str(order)}, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def test_a_history_follows_from_its_seed(room: Path) -> None:
    """In any process: hashes of texts, which differ there, decide nothing."""
    first = digests(room, 4, 1)
    assert len(first) == 6 and first == digests(room, 4, 2)
    assert not set(first) & set(digests(room, 5, 1))


@pytest.mark.parametrize("kind", sample.some(list(histories.BENIGN), 20, "benign"))
def test_benign(kind: str, room: Path) -> None:
    tree = list(History(kind, 3, False, 4, None).play(room))[-1]
    assert set(tree.files()) == regular(room)
    assert 3 <= len(tree.files()) <= 1600 and size(room) < 20 << 20
    assert tree.day == 3 and not tree.victims


@pytest.mark.parametrize("kind", sample.some(list(histories.HOSTILE), 20, "hostile"))
def test_hostile(kind: str, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "ENOUGH", 0.25)
    begin, runs = 1, 3 + histories.HOSTILE[kind].more
    before: set[str] = set()
    for tree in History(kind, 3, True, runs, begin).play(room):
        assert set(tree.files()) <= regular(room)
        if tree.day < begin:
            assert not tree.victims and set(tree.files()) == regular(room)
            before = set(tree.files())
        elif tree.day == begin:
            assert tree.victims or histories.HOSTILE[kind].more
    assert tree.destroyed() >= 0.25
    assert len(before & set(tree.victims)) >= len(before) / 5
    assert all(begin <= died for _born, died in tree.victims.values())


def test_what_is_destroyed_is_not_what_it_was(room: Path) -> None:
    tree = Tree(room, random.Random(1))
    for name in ("a/one.txt", "a/two.txt", "three.txt"):
        tree.write(name, text.prose(tree.dice, 9000))
    tree.day = 1
    was = tree.read("a/one.txt")
    next(histories.hostile.encrypter(histories.hostile.first(4096), names=histories.hostile.suffix(".x"), note=True)(tree))
    assert regular(room) == {"a/one.txt.x", "a/two.txt.x", "three.txt.x", "a/HOW_TO_DECRYPT.txt", "HOW_TO_DECRYPT.txt"}
    now = tree.read("a/one.txt.x")
    assert now[:4096] != was[:4096] and now[4096:] == was[4096:]
    assert tree.files() == [] and tree.victims["a/one.txt"] == (0, 1) and tree.destroyed() == 1


def test_halves_have_all_kinds_and_other_seeds() -> None:
    tune, report = (histories.choose(200, 200, 0, (half,)) for half in (0, 1))
    for half, found in enumerate((tune, report)):
        assert len(found) == 200 and {history.seed % 2 for history in found} == {half}
        assert {(history.hostile, history.kind) for history in found} == {
            *((False, kind) for kind in histories.benign.KINDS), *((True, kind) for kind in histories.hostile.KINDS)
        }  # fmt: skip
    assert histories.choose(200, 200, 0, (0, 1)) == tune + report
    assert len(histories.choose(7, 4, 0, (0, 1))) == 11
    beyond = {history.kind for history in histories.choose(20, 20, 0, (0,), True)}
    assert beyond == {*histories.benign.BEYOND, *histories.hostile.BEYOND} and len(histories.BENIGN) == len(histories.benign.KINDS) + 3
    assert all(history.begin is None or 4 <= history.begin <= 8 and history.runs >= history.begin + 8 for history in tune)


def test_content_is_what_it_says() -> None:
    dice = random.Random(1)
    assert gzip.decompress(binary.gz(b"text")) == b"text"
    for made in (binary.docx(dice, 9000), binary.jar(dice, 9000), binary.model(dice, 9000)):
        assert zipfile.ZipFile(io.BytesIO(made)).testzip() is None
    assert zipfile.ZipFile(io.BytesIO(binary.archive(dice, {"a": b"b"}))).read("a") == b"b"
    name, made = binary.loose(b"content")
    assert len(name) == 41 and zlib.decompress(made) == b"blob 7\0content"
    assert len(binary.relation(dice, 5)) == 5 * 8192
    picture = binary.jpeg(dice, 5000, b"old")
    assert binary.relabelled(picture, b"new") == picture.replace(b"old", b"new")


def test_databases_are_real(room: Path) -> None:
    dice = random.Random(1)
    made = binary.database(dice, 900)
    less = binary.altered(made, [("DELETE FROM items WHERE id % 5", []), ("VACUUM", [])])
    assert len(less) < len(made) / 3
    (room / "db").write_bytes(less)
    link = sqlite3.connect(room / "db")
    assert link.execute("SELECT count(*) FROM items").fetchone() == (180,)
    link.close()


# ---- the program that measures


@pytest.fixture
def brakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, str]]:
    """Runs that the engine calls suspect, with the reason; retention then is to spare what is clean, which is not the engine's part in this test."""
    suspect: dict[int, str] = {}
    create, count = Manager.create, iter(range(1000))

    def marked(*arguments: Any, **more: Any) -> Any:
        made, number = create(*arguments, **more), next(count)
        backup: Mapping[str, Any] = {**made.backup, "suspect": number in suspect, "suspect_reason": suspect.get(number)}
        return made._replace(backup=backup)

    monkeypatch.setattr(Manager, "create", marked)
    monkeypatch.setattr(brake, "KEEP", {"last": 100})
    yield suspect


def test_an_alarm_is_noticed(brakes: dict[int, str], room: Path) -> None:
    brakes[5] = "rewritten"
    found = brake.replay(History("keeps names", 7, True, 7, 4), room)
    assert found.alarms == [(5, "rewritten")] and found.noticed == 5 and found.clean == 4
    assert (found.false_alarm, found.missed, found.lost) == (False, False, 0.0)
    assert found.gone_by_then and found.gone_by_then > 0.25
    assert "misses: 0 of 1 (0.0%)" in brake.table([found]) and '"half": "report"' in brake.as_json([found])


def test_an_alarm_before_the_attack_is_none_of_it(brakes: dict[int, str], room: Path) -> None:
    brakes[1] = "early"
    found = brake.replay(History("keeps names", 7, True, 6, 4), room)
    assert found.noticed is None and found.false_alarm and found.missed
    assert "run 1 of 6: early" in brake.table([found])


def test_a_false_alarm(brakes: dict[int, str], room: Path) -> None:
    brakes[2] = "shrunk"
    found = brake.replay(History("small, replaced", 7, False, 4, None), room)
    assert found.false_alarm and not found.missed and found.clean == 4
    assert "false alarms: 1 of 1 (100.0%)" in brake.table([found])


def test_what_is_lost() -> None:
    victims = {"old": (0, 5), "young": (3, 5), "never backed up": (5, 5)}
    assert brake.lost(victims, [2, 6]) == 0.5 and brake.lost(victims, [4]) == 0.0 and brake.lost(victims, [5]) == 1.0
    assert brake.lost({}, []) == 0.0


def test_a_source_that_is_empty_is_refused(room: Path) -> None:
    found = brake.replay(History("deletes all", 11, True, 3, 2), room)
    assert found.destroyed == 1 and found.refused or found.noticed is None
