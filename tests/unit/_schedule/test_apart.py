# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in a process of its own: what it gives, how it ends, and that nobody waits for one that hangs."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import Interrupted, LockTimeout, VoltError, interruptible
from ansible_collections.volt.backup.plugins.module_utils._schedule import apart


def test_it_gives_what_it_found(capfd: Any) -> None:
    def work(_answer: apart.Answer) -> Any:
        os.write(1, b"seen by nobody")
        return os.getpid(), "x" * 1_000_000, LockTimeout("It is locked.", seconds=3)

    process, text, error = apart.apart(work)
    assert process != os.getpid() and len(text) == 1_000_000 and capfd.readouterr().out == ""
    assert error.__class__ is LockTimeout and (error.message, error.details, error.code) == ("It is locked.", {"seconds": 3}, "lock_timeout")


@pytest.mark.parametrize("how, says", [("raises", "exit status 1"), ("is killed", "signal 9"), ("exits", "exit status 3")])
def test_one_that_ends_without_a_word(how: str, says: str) -> None:
    def work(_answer: apart.Answer) -> None:
        if how == "raises":
            raise KeyboardInterrupt
        if how == "exits":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(VoltError, match=rf"without a result \({says}\)"):
        apart.apart(work)


def test_a_hanging_process_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the one that started it, nor one that waits for the end of its output or for a lock."""
    monkeypatch.setattr(apart, "_END", 0.1)
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)

    def work(answer: apart.Answer) -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        answer("failed")
        time.sleep(60)

    assert apart.apart(work) == "failed"
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def stopped(place: Path) -> Callable[[apart.Answer], None]:
    """Work that says when it has begun, and that it cleaned up."""

    def work(_answer: apart.Answer) -> None:
        try:
            (place / "begun").touch()
            time.sleep(60)
        except Interrupted:
            (place / "cleaned").touch()

    return work


def test_it_is_stopped_and_cleans_up(tmp_path: Path) -> None:
    def stop() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Timer(0, stop)
    with interruptible(), pytest.raises(Interrupted, match="SIGTERM"):
        stopper.start()
        apart.apart(stopped(tmp_path))
    stopper.join()
    assert (tmp_path / "cleaned").exists()


def test_it_is_stopped_by_a_signal_right_after_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its number is known to the one that waits."""
    fork = os.fork

    def slow() -> int:
        child = fork()
        while child and not (tmp_path / "begun").exists():
            time.sleep(0.01)
        if child:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
        return child

    monkeypatch.setattr(apart.os, "fork", slow)
    with interruptible(), pytest.raises(Interrupted, match="SIGTERM"):
        apart.apart(stopped(tmp_path))
    assert (tmp_path / "cleaned").exists()


def test_it_ends_with_the_one_that_waits(tmp_path: Path) -> None:
    def work(_answer: apart.Answer) -> None:
        with interruptible():
            try:
                (tmp_path / "begun").touch()
                time.sleep(60)
            except Interrupted:
                (tmp_path / "cleaned").touch()

    child = os.fork()
    if not child:
        try:
            apart.apart(work)
        finally:
            os._exit(7)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for _turn in range(1000):
        if (tmp_path / "cleaned").exists():
            return
        time.sleep(0.01)
    pytest.fail("it goes on")


def test_files_that_the_parent_forgot_are_not_closed_by_their_numbers(tmp_path: Path) -> None:
    """What lies in a cycle is closed when the collector comes by, and it may come by in the child, which has closed that number and uses it anew."""

    class Cycle:
        def __init__(self) -> None:
            self.me, self.file = self, open(__file__, "rb")

    def work(_answer: Any) -> str:
        fds = [os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT) for _number in range(20)]
        gc.collect()
        for fd in fds:
            os.write(fd, b"x")
        return "written"

    gc.disable()
    try:
        for _number in range(5):
            Cycle()
        assert apart.apart(work) == "written"
    finally:
        gc.enable()
