# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store's lock, between real processes: who waits for whom, who goes first, and what death releases."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import LockTimeout, StoreError
from ansible_collections.volt.backup.plugins.module_utils._store.lock import Lock

from ..kit import Child, descriptors


def hold(pipe: Any, store: str, exclusive: bool = False, timeout: float = 10) -> None:
    """Say "held" once the lock is held, and release it on any word."""
    try:
        with Lock(store, timeout, exclusive):
            pipe.send("held")
            pipe.recv()
        pipe.send("released")
    except LockTimeout as error:
        pipe.send(error.message)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path)


def test_shared_beside_shared(store: str) -> None:
    with Child(hold, store) as one, Child(hold, store) as two:
        assert one.hear() == two.hear() == "held"


@pytest.mark.parametrize(("first", "second"), [(False, True), (True, False), (True, True)])
def test_exclusive_is_alone(store: str, first: bool, second: bool) -> None:
    with Child(hold, store, first) as one:
        assert one.hear() == "held"
        with Child(hold, store, second) as two:
            assert two.quiet()
            one.tell()
            assert (one.hear(), two.hear()) == ("released", "held")


def test_newcomers_do_not_starve_who_wants_it_alone(store: str) -> None:
    """While somebody waits for the store alone, a newcomer waits at the gate, though the lock would be shared with it."""
    with Child(hold, store) as reader:
        assert reader.hear() == "held"
        with Child(hold, store, True) as collector:
            assert collector.quiet()
            with Child(hold, store) as newcomer:
                assert newcomer.quiet()
                reader.tell()
                assert collector.hear() == "held"
                assert newcomer.quiet()
                collector.tell()
                assert newcomer.hear() == "held"


@pytest.mark.parametrize("exclusive", [False, True])
def test_death_releases(store: str, exclusive: bool) -> None:
    child = Child(hold, store, exclusive)
    assert child.hear() == "held"
    with pytest.raises(LockTimeout), Lock(store, 0, exclusive=True):
        pass
    child.kill()
    with Lock(store, 0, exclusive=True):
        pass


def test_death_at_the_gate_releases(store: str) -> None:
    with Child(hold, store) as reader:
        assert reader.hear() == "held"
        waiting = Child(hold, store, True)
        assert waiting.quiet()
        waiting.kill()
        with Lock(store, 0):
            pass


@pytest.mark.parametrize(("timeout", "least"), [(0, 0.0), (0.2, 0.2)])
def test_timeout(store: str, timeout: float, least: float) -> None:
    with Child(hold, store) as reader:
        assert reader.hear() == "held"
        started = time.monotonic()
        with pytest.raises(LockTimeout, match=f"the lock of store {store}.*lock_timeout") as caught, Lock(store, timeout, exclusive=True):
            pass
        assert least <= time.monotonic() - started < 5
        assert caught.value.code == "lock_timeout"
        with Lock(store, 0):  # who gave up holds nothing: neither gate nor lock
            pass


def test_timeout_at_the_gate_says_so(store: str) -> None:
    with Child(hold, store) as reader:
        assert reader.hear() == "held"
        with Child(hold, store, True, 3) as waiting:
            assert waiting.quiet(0.8)
            with pytest.raises(LockTimeout, match=f"the gate of store {store}"), Lock(store, 0.1):
                pass


def test_at_gate_is_alone_and_its_failure_releases(store: str) -> None:
    def fail() -> None:
        with pytest.raises(LockTimeout), Lock(store, 0):  # even a reader cannot come in
            pass
        raise RuntimeError("at the gate")

    with pytest.raises(RuntimeError, match="at the gate"), Lock(store, 0, at_gate=fail):
        pass
    with Lock(store, 0, exclusive=True):
        pass


def test_reader_of_nothing_makes_nothing(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with Lock(str(place), 0, write=False):
            pass
    assert os.listdir(tmp_path) == []


def test_reader_waits_where_there_is_a_lock(store: str) -> None:
    with Child(hold, store, True) as writer:
        assert writer.hear() == "held"
        with pytest.raises(LockTimeout), Lock(store, 0, write=False):
            pass


@pytest.mark.parametrize("name", ["gate", "lock"])
@pytest.mark.parametrize("write", [True, False])
def test_planted_symlink_is_not_followed(tmp_path: Path, name: str, write: bool) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=os.strerror(errno.ELOOP)[1:]), Lock(str(store), 0, write=write):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_no_descriptor_is_left(store: str) -> None:
    before = descriptors()
    with Lock(store, 0):
        pass
    with Lock(store, 0, exclusive=True), pytest.raises(LockTimeout), Lock(store, 0):
        pass
    assert descriptors() == before


# ---- files that somebody removes or replaces


@pytest.mark.parametrize("names", [["lock"], ["gate"], ["lock", "gate"]], ids=["lock", "gate", "both"])
@pytest.mark.parametrize("anew", [False, True], ids=["removed", "replaced"])
def test_a_lock_that_was_removed_while_two_waited_lets_one_in_at_a_time(store: str, names: list[str], anew: bool) -> None:
    with Child(hold, store) as first:
        assert first.hear() == "held"
        with Child(hold, store, True) as one, Child(hold, store, True) as two:
            assert one.quiet(0.3) and two.quiet(0.3)
            for name in names:
                os.unlink(os.path.join(store, name))
                if anew:
                    Path(store, name).touch()
            first.tell()
            assert first.hear() == "released"
            time.sleep(0.5)
            held = [child for child in (one, two) if not child.quiet(0.5)]
            assert len(held) == 1
            assert held[0].hear() == "held"
            held[0].tell()
            assert held[0].hear() == "released"
            (other,) = {one, two} - set(held)
            assert other.hear() == "held"
    with pytest.raises(LockTimeout), Lock(store, 0), Lock(store, 0, exclusive=True):
        pass


def test_a_reader_of_a_lock_that_was_removed_makes_nothing(store: str) -> None:
    with Child(hold, store, True) as writer, Child(look, store) as reader:
        assert writer.hear() == "held"
        assert reader.hear() == "begun" and reader.quiet()
        os.unlink(os.path.join(store, "lock"))
        writer.tell()
        assert (writer.hear(), reader.hear()) == ("released", "held")
    assert os.listdir(store) == ["gate"]


def look(pipe: Any, store: str) -> None:
    """What a reader does."""
    time.sleep(0.2)  # a writer comes first
    pipe.send("begun")
    with Lock(store, 10, write=False, gate=False):
        pipe.send("held")


@pytest.mark.parametrize("name", ["gate", "lock"])
@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize("kind", ["directory", "fifo", "socket", "device"])
def test_a_lock_must_be_a_file(store: str, name: str, write: bool, kind: str) -> None:
    path = os.path.join(store, name)
    if kind == "directory":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        if os.geteuid():
            pytest.skip("only root makes devices")
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
    before = descriptors()
    with pytest.raises(StoreError, match="remove it, then run again") as caught, Lock(store, 0, write=write):
        pass
    assert not isinstance(caught.value, LockTimeout)
    assert descriptors() == before
