# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources and targets that somebody changes under our hands, to be read what is not theirs or to be given what is not ours.

The other is a process that exchanges two names in a tight loop. A backup run for root over a user's directory must never hold what lies outside it,
and a restore must never write or delete outside its target.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import kernel
from ansible_collections.volt.backup.plugins.module_utils._base.errors import VoltError
from ansible_collections.volt.backup.plugins.module_utils._capture import reading
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.tests.rigs import model, need
from ansible_collections.volt.backup.tests.rigs.sample import LONG

TURNS = 600 if LONG else 12
SECRET = b"secret" * 100


@contextlib.contextmanager
def racing(act: Callable[[int], None]) -> Iterator[None]:
    """Another process that does something over and over."""
    child = os.fork()
    if not child:
        number = 0
        while True:
            try:
                act(number)
            except OSError:
                pass
            except BaseException:
                os._exit(1)
            number += 1
    try:
        yield
    finally:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the racer fell"
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def exchanging(one: Path, other: Path) -> Callable[[int], None]:
    """Let two names take each other's place, with pauses of all lengths that a walk has between two steps."""
    parents = [os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY) for path in (one, other)]

    def act(number: int) -> None:
        kernel.exchange(os.fsencode(one.name), os.fsencode(other.name), *parents)
        time.sleep((number * 7919 % 13) * 0.0001)

    return act


@pytest.fixture
def outside(bench) -> Path:
    """What is nobody's business here: a directory like `d` in the source, with other content."""
    path = bench.top / "outside"
    (path / "sub").mkdir(parents=True)
    for name in ("f0", "f1", "big", "sub/f2"):
        (path / name).write_bytes(SECRET if name != "big" else SECRET * 500)
    return path


def tree(bench) -> None:
    for name in ("f0", "f1", "sub__f2"):
        bench.files(**{f"d__{name}": b"public" * 100, f"e__{name}": b"public" * 90})
    bench.files(d__big=b"public" * 50_000)


def holds_secret(top: Path) -> list[str]:
    found = []
    for here, _directories, names in os.walk(top):
        for name in names:
            path = os.path.join(here, name)
            if stat.S_ISREG(os.lstat(path).st_mode) and b"secret" in Path(path).read_bytes():
                found.append(path)
    return found


# ---- backing up


@pytest.mark.parametrize("what", ["directory", "file", "big file", "deeper"])
def test_what_is_swapped_for_a_symlink_is_not_followed(bench, outside: Path, what: str) -> None:
    tree(bench)
    victim = bench.source / {"directory": "d", "file": "d/f0", "big file": "d/big", "deeper": "d/sub"}[what]
    decoy = bench.top / "decoy"
    decoy.symlink_to(outside / victim.relative_to(bench.source / "d"))
    seen = set()
    turns, deadline = 0, time.monotonic() + 60
    with racing(exchanging(victim, decoy)):
        while turns < TURNS or len(seen) < 2 and time.monotonic() < deadline:  # on a busy machine, one of the two may be met seldom
            turns += 1
            made = bench.create()
            bench.restore(made.backup["id"], numeric_owner=True)
            assert not holds_secret(bench.target)
            copy = bench.target / victim.relative_to(bench.source)
            seen.add(stat.S_IFMT(os.lstat(copy).st_mode) if os.path.lexists(copy) else 0)
            shutil.rmtree(bench.target)
    assert len(seen) > 1, "it was never met in two forms"


@pytest.mark.parametrize("kind", ["fifo", "zero", "socket"])
@pytest.mark.costly
def test_a_file_swapped_for_something_that_blocks(bench, kind: str) -> None:
    """/dev/zero never ends; a fifo never begins."""
    need(root=kind == "zero")
    tree(bench)
    for name in ("f0", "big"):
        decoy = bench.top / f"decoy-{name}"
        if kind == "zero":
            os.mknod(decoy, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        else:
            os.mknod(decoy, 0o600 | (stat.S_IFIFO if kind == "fifo" else stat.S_IFSOCK))
    acts = [exchanging(bench.source / "d" / name, bench.top / f"decoy-{name}") for name in ("f0", "big")]
    with racing(lambda number: [act(number) for act in acts] and None):
        for _turn in range(TURNS):
            outcomes = model.bounded([("create", lambda: bench.create().backup["complete"])], seconds=20)
            assert outcomes["create"].value is True, outcomes


@pytest.mark.costly
def test_files_that_grow_and_vanish(bench) -> None:
    """Neither ends a backup, nor makes it endless, nor incomplete."""
    tree(bench)

    def act(number: int) -> None:
        with open(bench.source / "d" / "f0", "ab") as file:
            file.write(b"x" * 5000)
        with open(bench.source / "d" / "big", "ab") as file:
            file.write(b"x" * 50_000)
        if number % 100 == 0:
            os.truncate(bench.source / "d" / "f0", 10)
            os.truncate(bench.source / "d" / "big", 150_000)
        path = bench.source / "e" / f"come-and-go{number % 9}"
        if path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif number % 2:
            path.mkdir()
            (path / "in").write_bytes(b"1")
        else:
            path.write_bytes(b"2")

    with racing(act):
        for _turn in range(TURNS // 2):
            outcomes = model.bounded([("create", lambda: (bench.create().backup["skipped"], bench.found()[0]["damaged"]))], seconds=20)
            assert outcomes["create"].value == ([], False), outcomes
    made = bench.create()
    bench.restore(made.backup["id"], numeric_owner=True)
    assert not model.unlike(model.snapshot(bench.source), model.snapshot(bench.target))


def test_a_file_that_outgrows_the_way_it_is_stored(bench, monkeypatch) -> None:
    """A log that passes 8 MiB between being opened and being read is no reason for an incomplete backup."""
    tree(bench)
    bench.files(log=b"x" * ((8 << 20) - 10))
    real, done = reading.read_whole, []

    def late(run, fd):
        if not done:
            done.append(fd)
            with open(bench.source / "log", "ab") as file:
                file.write(b"x" * 100)
        return real(run, fd)

    monkeypatch.setattr(reading, "read_whole", late)
    made = bench.create()
    assert made.backup["complete"] and not made.backup["skipped"]


def test_a_source_that_is_another_by_now(bench) -> None:
    """The whole source is exchanged with another tree: a backup is of the one or of the other."""
    tree(bench)
    other = bench.top / "other"
    shutil.copytree(bench.source, other)
    for path in other.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes().swapcase())
    snapshots = [model.snapshot(bench.source), model.snapshot(other)]
    seen = set()
    with racing(exchanging(bench.source, other)):
        for _turn in range(TURNS):
            try:
                made = bench.create()
            except VoltError as error:
                assert error.message.endswith(".")
                continue
            bench.restore(made.backup["id"], numeric_owner=True)
            found = model.snapshot(bench.target)
            assert found in snapshots
            seen.add(snapshots.index(found))
            shutil.rmtree(bench.target)
    assert seen == {0, 1}


# ---- restoring


@pytest.mark.parametrize("strategy", ["in_place", "replace"])
@pytest.mark.parametrize("what", ["directory", "deeper", "file"])
@pytest.mark.costly
def test_a_target_that_is_swapped_while_we_write(bench, outside: Path, strategy: str, what: str) -> None:
    tree(bench)
    backup = bench.create().backup["id"]
    victim = bench.target / {"directory": "d", "deeper": "d/sub", "file": "d/f0"}[what]
    decoy = bench.top / "decoy"
    before = model.states(outside)
    ended = {True: 0, False: 0}
    for turn in range(max(4, TURNS // 10)):
        bench.restore(backup, strategy=strategy, force=True)
        if decoy.is_symlink():
            decoy.unlink()
        elif decoy.exists():
            shutil.rmtree(decoy) if decoy.is_dir() else decoy.unlink()
        decoy.symlink_to(outside / victim.relative_to(bench.target / "d"))
        with racing(exchanging(victim, decoy)):
            for again in range(10):
                extra = bench.target / "d" / "extra"
                with contextlib.suppress(OSError):
                    # what delete would remove, by names that are outside as well
                    (bench.target / "e" / f"x{again}").write_bytes(b"extra")
                    os.chmod(bench.target / "e" / "f1", 0o600 + turn % 64)
                    if not (bench.target / "d").is_symlink():
                        extra.mkdir(exist_ok=True)
                options = {"delete": True} if strategy == "in_place" else {}
                try:
                    bench.restore(backup, strategy=strategy, force=True, **options)
                    ended[True] += 1
                except VoltError as error:
                    assert error.message.endswith("."), error.message
                    ended[False] += 1
                # `extra` may have been made through the symlink by us, the test, between look and call
                with contextlib.suppress(OSError):
                    os.rmdir(outside / "extra")
                assert model.states(outside) == before
    assert ended[True], "none came to its end"


@pytest.mark.parametrize("strategy", ["in_place", "replace"])
def test_planted_symlinks_in_the_target(bench, outside: Path, strategy: str) -> None:
    tree(bench)
    backup = bench.create().backup["id"]
    bench.restore(backup)
    wanted, before = model.snapshot(bench.target), model.states(outside)
    target = bench.target
    for name in ("d/f0", "d/big", "e/f1"):
        (target / name).unlink()
        (target / name).symlink_to(outside / "f0")
    shutil.rmtree(target / "d" / "sub")
    (target / "d" / "sub").symlink_to(outside)
    (target / "extra").symlink_to(outside)
    (target / ".volt-restore-0123456789abcdef").symlink_to(outside)
    options = {"delete": True} if strategy == "in_place" else {}
    bench.restore(backup, strategy=strategy, force=True, **options)
    assert not model.unlike(wanted, model.snapshot(target)) and model.states(outside) == before


def test_a_directory_named_as_our_own_debris(bench) -> None:
    tree(bench)
    backup = bench.create().backup["id"]
    bench.restore(backup)
    own = bench.target / "d" / ".volt-restore-0123456789abcdef"
    own.mkdir()
    (own / "mine").write_bytes(b"mine")
    (bench.target / "d" / "f0").write_bytes(b"other")
    bench.restore(backup, strategy="in_place", force=True)
    assert (bench.target / "d" / "f0").read_bytes() == b"public" * 100 and (own / "mine").exists()


def test_a_symlinked_parent_of_the_target(bench, outside: Path) -> None:
    """A path that the user gives may lead through symlinks; all else is as ever."""
    tree(bench)
    backup = bench.create().backup["id"]
    (bench.top / "real").mkdir()
    (bench.top / "way").symlink_to("real")
    for _turn in range(2):
        bench.restore(backup, target=str(bench.top / "way" / "target"), force=True, strategy="replace")
        (bench.top / "real" / "target" / "d" / "f0").write_bytes(b"x")
    assert os.listdir(bench.top / "real") == ["target"] and (bench.top / "way").is_symlink()


# ---- a stage that somebody planted beside the target


def plant(bench, outside: Path, **journal: object) -> Path:
    """What a restore that died right after its exchange would have left, had it been ours."""
    stage = bench.top / ".target.volt-0123456789abcdef"
    (stage / "tree").mkdir(parents=True)
    (stage / "tree" / "evil").write_bytes(b"evil")
    (stage / "volt-restore").write_bytes(b"target")
    os.chmod(stage, 0o700)  # as ours are: else it is left alone at once
    info = os.stat(bench.target)
    known = {"inode": info.st_ino, "mtime": info.st_mtime_ns, "keep": None, "newcomers": False, "exclude": [], "caches": False, "skipped": []}
    (stage / "journal.json").write_text(json.dumps({**known, **journal}))
    return stage


@pytest.mark.parametrize("keep", ["outside/kept", "../kept", "outside/../outside/kept", ".", "..", "a\0b"])
def test_a_journal_that_leads_elsewhere(bench, outside: Path, keep: str) -> None:
    """Whoever may write beside the target could have root move a tree of his to any place of the file system."""
    tree(bench)
    backup = bench.create().backup["id"]
    bench.restore(backup)
    plant(bench, outside, keep=keep)
    above, before = set(os.listdir(bench.top.parent)), model.states(outside)
    outcome = model.bounded([("restore", lambda: bench.restore(backup, force=True).changed)])["restore"]
    assert outcome.fine, outcome
    assert model.states(outside) == before and set(os.listdir(bench.top.parent)) == above


@pytest.mark.parametrize("how", ["symlinked stage", "symlinked tree", "symlinked journal", "fifo", "nested", "exclusions", "symlinked mark"])
def test_a_planted_stage(bench, outside: Path, how: str) -> None:
    tree(bench)
    backup = bench.create().backup["id"]
    bench.restore(backup)
    stage, before = plant(bench, outside), model.states(outside)
    if how == "symlinked stage":
        shutil.rmtree(stage)
        stage.symlink_to(outside)
    elif how == "symlinked tree":
        shutil.rmtree(stage / "tree")
        (stage / "tree").symlink_to(outside)
    elif how == "exclusions":
        (stage / "journal.json").write_text(json.dumps({**json.loads((stage / "journal.json").read_text()), "exclude": ["\\", 5], "skipped": [5]}))
    else:
        path = stage / ("volt-restore" if how == "symlinked mark" else "journal.json")
        path.unlink()
        if how == "fifo":
            os.mkfifo(path)
        elif how == "nested":
            path.write_text("[" * 100_000)
        else:
            path.symlink_to(outside / "f0")
    outcome = model.bounded([("restore", lambda: bench.restore(backup, force=True).changed)], seconds=10)["restore"]
    assert outcome.fine and model.states(outside) == before, outcome
    request = RestoreRequest(str(bench.top / "fresh"))
    outcome = model.bounded([("other", lambda: bench.manager.restore(backup, request)[0].changed)], seconds=10)["other"]
    assert outcome.value is True, outcome
