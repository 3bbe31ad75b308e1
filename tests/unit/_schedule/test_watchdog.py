# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a watchdog ends a run, and how. That of a real run is in tests/system/test_stall.py."""

from __future__ import annotations

import itertools
import os
import signal
import time
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import Interrupted, Phase, Stalled, Standing, TimedOut, held, interruptible
from ansible_collections.volt.backup.plugins.module_utils._schedule import watchdog
from ansible_collections.volt.backup.plugins.module_utils._schedule.job import Job


def watched(standing: Standing, **limits: int) -> Any:
    return watchdog.watched(Job("app", "/srv", 3600, **{"timeout": 0, "stall": 0, **limits}), standing, lambda error: pytest.fail(error.message))


def test_a_stalled_run_is_ended() -> None:
    standing = Standing()
    with pytest.raises(Stalled, match=r"Workload app: no progress for 1 s while reading, at /srv/a; check that") as caught, watched(standing, stall=1):
        standing.phase = Phase("reading", path=lambda: b"/srv/a")
        time.sleep(30)
    assert caught.value.code == "stalled" and caught.value.details == {"path": "/srv/a", "seconds": 1}


def test_a_run_with_progress_is_only_ended_by_its_timeout() -> None:
    standing, steps = Standing(), itertools.count()
    standing.phase = Phase("deleting older backups", lambda: next(steps))
    with pytest.raises(TimedOut, match=r"took longer than 2 s and was stopped while deleting older backups; ") as caught, watched(standing, stall=1, timeout=2):
        time.sleep(30)
    assert caught.value.code == "timeout" and caught.value.details == {"path": None, "seconds": 2}


def test_new_phases_are_progress_and_some_may_wait() -> None:
    standing = Standing()
    with watched(standing, stall=1):
        for patience in (0, 0, 5):
            standing.phase = Phase("waiting", patience=patience)
            time.sleep(0.7 if not patience else 2)


@pytest.mark.parametrize("limits", [{}, {"timeout": 1}, {"stall": 1}])
def test_nothing_is_left_of_it(limits: dict[str, int]) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    with interruptible():
        for _turn in range(2):
            try:
                with watched(Standing(), **limits):
                    time.sleep(1.5)
            except (Stalled, TimedOut):
                assert limits
        os.kill(os.getpid(), signal.SIGURG)  # one that comes too late
        with pytest.raises(Interrupted, match="SIGTERM"):  # others are heard again
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_stretch_that_must_not_be_cut_is_not() -> None:
    went_on = False
    with pytest.raises(Stalled), watched(Standing(), stall=1):
        with held():
            time.sleep(1.5)
            went_on = True
        time.sleep(10)
    assert went_on


def test_a_run_that_cannot_be_ended_is_reported_and_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(watchdog, "_GRACE", 0.5)
    child = os.fork()
    if not child:
        try:
            def tell(error: Any) -> None:
                (tmp_path / "told").write_text(error.code)

            with watchdog.watched(Job("app", "/srv", 3600, stall=1), Standing(), tell), held():
                time.sleep(60)
        finally:
            os._exit(7)
    began = time.monotonic()
    _pid, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1 and time.monotonic() - began < 20 and (tmp_path / "told").read_text() == "stalled"
