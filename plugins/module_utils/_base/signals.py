# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Signals as exceptions, so that a run that is told to stop takes back what it has begun."""

from __future__ import annotations

import contextlib
import signal
import threading
import typing as t

from .errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_held = 0
_pending: t.List[int] = []


def _ignore(_number: int, _frame: object) -> None:
    pass


def _stop(number: int, _frame: object) -> None:
    if _held:
        _pending.append(number)
        return
    for other in _SIGNALS:
        signal.signal(other, _ignore)  # a second one must not interrupt the cleaning up; SIG_IGN would be a TypeError where two come at once
    raise Interrupted(f"Stopped by {signal.Signals(number).name}; nothing half-done was left behind.", signal=number)


@contextlib.contextmanager
def interruptible() -> t.Iterator[None]:
    """While the context lasts, signals that ask to stop raise Interrupted in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held() -> t.Iterator[None]:
    """A short stretch that must not be cut in two: signals wait until its end."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1
    if not _held and _pending:
        number = _pending[0]
        _pending.clear()  # several ask for the same
        _stop(number, None)
