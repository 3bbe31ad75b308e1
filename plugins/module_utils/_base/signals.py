# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Signals as exceptions, so that a run that is stopped cleans up.

An exception that is raised while a condition of `threading` takes its lock or gives it back, which is written in Python, leaves the lock taken for good.
Semaphores, events and futures have one, so a worker would wait for ever. One that is raised while a thread starts spoils that thread, and one in a callback
of a future is logged there and goes no further. A signal that comes there is sent once more a moment later.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import threading
import time
import types
import typing as t

from .errors import Interrupted, VoltError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: By which a thread of ours stops the main one. One that comes too late is ignored, as the system does by itself.
_OURS = signal.SIGURG
_LOCKING = frozenset(("__enter__", "__exit__", "_acquire_restore", "_release_save"))
#: By modules: functions in which nothing may be raised, nor in what they call.
_SPOILED = {"threading": ("start",), "concurrent.futures._base": ("add_done_callback", "_invoke_callbacks")}
_held = 0
_pending: t.List[t.Callable[[], None]] = []


def _ignore(_number: int, _frame: object) -> None:
    pass


def _stop(number: int, frame: t.Optional[types.FrameType]) -> None:
    if _held:
        _pending.append(lambda: _stop(number, None))
        return
    if _is_bad_moment(frame):
        _thread.start_new_thread(_once_more, (number,))
        return
    _ignore_others()
    raise Interrupted(f"Interrupted by {signal.Signals(number).name}; no partial result was left.", signal=number)


def _is_bad_moment(frame: t.Optional[types.FrameType]) -> bool:
    """Whether a signal came while a condition of `threading` takes its lock, or gives it back, a thread starts, or the callback of a future runs."""
    if frame is not None and frame.f_code.co_name in _LOCKING and frame.f_globals.get("__name__") == "threading":
        return True
    for _level in range(6):  # `start` waits for an event
        if frame is None:
            return False
        if frame.f_code.co_name in _SPOILED.get(frame.f_globals.get("__name__", ""), ()):
            return True
        frame = frame.f_back
    return False


def _once_more(number: int) -> None:
    time.sleep(0.001)
    os.kill(os.getpid(), number)


def _ignore_others() -> t.Dict[int, t.Any]:
    """A second signal must not interrupt the cleaning up; the handlers that there were. SIG_IGN would be a TypeError if two come at once."""
    return {number: signal.signal(number, _ignore) for number in _SIGNALS}


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
def stoppable() -> t.Iterator[t.Callable[[VoltError], None]]:
    """While the context lasts, the function that it gives raises an error in the main thread, which enters it. Any other thread may call it."""
    why: t.List[VoltError] = []
    before: t.Dict[int, t.Any] = {}

    def raise_it(_number: int, frame: t.Optional[types.FrameType]) -> None:
        if _held:
            _pending.append(lambda: raise_it(_OURS, None))
        elif _is_bad_moment(frame):
            _thread.start_new_thread(_once_more, (_OURS,))
        elif why:
            before.update(_ignore_others())
            raise why.pop()

    def stop(error: VoltError) -> None:
        why.append(error)
        signal.pthread_kill(t.cast(int, threading.main_thread().ident), _OURS)

    signal.signal(_OURS, raise_it)
    try:
        yield stop
    finally:
        why.clear()
        signal.signal(_OURS, _ignore)
        for number, handler in before.items():
            signal.signal(number, handler)


def forked() -> None:
    """In a process that was forked within `held`: it holds nothing."""
    global _held
    _held = 0
    _pending.clear()


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
        first = _pending[0]
        _pending.clear()  # several ask for the same
        first()
