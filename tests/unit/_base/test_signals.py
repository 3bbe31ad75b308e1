# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A signal that stops a run leaves no lock taken, wherever it comes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import Damaged, Interrupted, interruptible, tolerated
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store


def test_a_condition_is_not_left_taken() -> None:
    """Signals come at any moment while one is taken and given back all the time. Without care, one in a few leaves it taken."""

    def send() -> None:
        time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    for _turn in range(100):
        condition = threading.Condition()
        sender = threading.Thread(target=send)
        try:
            with interruptible():
                sender.start()
                while True:
                    with condition:
                        pass
        except Interrupted:
            pass
        sender.join()
        free: list[bool] = []
        other = threading.Thread(target=lambda: free.append(condition.acquire(timeout=5)))  # noqa: B023  called at once
        other.start()
        other.join()
        assert free == [True]


def test_a_callback_of_a_future_does_not_take_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """The future logs what a callback raises, and goes on."""
    done: Future[None] = Future()
    done.set_result(None)
    with pytest.raises(Interrupted), interruptible():
        done.add_done_callback(lambda _done: os.kill(os.getpid(), signal.SIGINT))
        time.sleep(10)
    assert not caplog.records


def test_who_is_asked_to_stop_is_not_among_what_is_tolerated() -> None:
    with tolerated(Damaged, OSError):
        raise FileNotFoundError
    with pytest.raises(Interrupted), tolerated(Exception):
        raise Interrupted("It was stopped.")


def test_a_reader_that_waits_at_the_gate_is_stopped(tmp_path: Path) -> None:
    """It would go on without what it waits for if that did not come. Once it had passed over the signal, nothing would stop it any more."""
    store = Store(str(tmp_path / "store"))
    store.make()
    sender = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    went_on = False
    with open(tmp_path / "store" / "gate", "a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        sender.start()
        with contextlib.suppress(Interrupted), interruptible(), store.holding("none"):
            went_on = True
    sender.join()
    assert not went_on
    assert os.listdir(tmp_path / "store" / "tmp") == []
