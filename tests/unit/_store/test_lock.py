# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate and the lock of a store, between real processes: who waits for whom, and what death releases."""

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
from ansible_collections.volt.backup.plugins.module_utils._store.lock import taken

from ..kit import Child, descriptors


def hold(pipe: Any, store: str, exclusive: bool = False, timeout: float = 10) -> None:
    """Say "held" once the lock is held, and release it on any word."""
    try:
        with taken(store, "lock", timeout, exclusive):
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


@pytest.mark.parametrize("exclusive", [False, True])
def test_death_releases(store: str, exclusive: bool) -> None:
    child = Child(hold, store, exclusive)
    assert child.hear() == "held"
    with pytest.raises(LockTimeout), taken(store, "lock", 0):
        pass
    child.kill()
    with taken(store, "lock", 0):
        pass


@pytest.mark.parametrize(("timeout", "least"), [(0, 0.0), (0.2, 0.2)])
def test_timeout(store: str, timeout: float, least: float) -> None:
    with Child(hold, store) as reader:
        assert reader.hear() == "held"
        started = time.monotonic()
        with pytest.raises(LockTimeout, match=f"the lock of store {store}.*lock_timeout") as caught, taken(store, "lock", timeout):
            pass
        assert least <= time.monotonic() - started < 5
        assert caught.value.code == "lock_timeout"
        with taken(store, "lock", 0, False):  # the process that gave up holds nothing
            pass


def test_reader_of_nothing_makes_nothing(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with taken(str(place), "lock", 0, False, write=False):
            pass
    assert os.listdir(tmp_path) == []


def test_reader_waits_where_there_is_a_lock(store: str) -> None:
    with Child(hold, store, True) as writer:
        assert writer.hear() == "held"
        with pytest.raises(LockTimeout), taken(store, "lock", 0, False, write=False):
            pass


@pytest.mark.parametrize("name", ["gate", "lock"])
@pytest.mark.parametrize("write", [True, False])
def test_planted_symlink_is_not_followed(tmp_path: Path, name: str, write: bool) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=os.strerror(errno.ELOOP)[1:]), taken(str(store), name, 0, False, write=write):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_no_descriptor_is_left(store: str) -> None:
    before = descriptors()
    with taken(store, "lock", 0, False):
        pass
    with taken(store, "lock", 0), pytest.raises(LockTimeout), taken(store, "lock", 0, False):
        pass
    assert descriptors() == before


# ---- files that somebody removes or replaces


@pytest.mark.parametrize("anew", [False, True], ids=["removed", "replaced"])
def test_a_lock_that_was_removed_while_two_waited_lets_one_in_at_a_time(store: str, anew: bool) -> None:
    with Child(hold, store) as first:
        assert first.hear() == "held"
        with Child(hold, store, True) as one, Child(hold, store, True) as two:
            assert one.quiet(0.3) and two.quiet(0.3)
            os.unlink(os.path.join(store, "lock"))
            if anew:
                Path(store, "lock").touch()
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
    with pytest.raises(LockTimeout), taken(store, "lock", 0, False), taken(store, "lock", 0):
        pass


def test_a_reader_of_a_lock_that_was_removed_makes_nothing(store: str) -> None:
    with Child(hold, store, True) as writer, Child(look, store) as reader:
        assert writer.hear() == "held"
        assert reader.hear() == "begun" and reader.quiet()
        os.unlink(os.path.join(store, "lock"))
        writer.tell()
        assert (writer.hear(), reader.hear()) == ("released", "held")
    assert os.listdir(store) == []


def look(pipe: Any, store: str) -> None:
    """What a reader does."""
    time.sleep(0.2)  # a writer comes first
    pipe.send("begun")
    with taken(store, "lock", 10, False, write=False):
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
    with pytest.raises(StoreError, match="remove it, then run again") as caught, taken(store, name, 0, False, write=write):
        pass
    assert not isinstance(caught.value, LockTimeout)
    assert descriptors() == before
