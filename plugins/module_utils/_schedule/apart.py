# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Run work that may hang in the kernel, where even SIGKILL has no effect, in a separate process, so that the caller can continue.

A hanging process keeps its locks, for example on the store, until the kernel releases it. It keeps nothing of the caller.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import time
import typing as t

from .._base import Interrupted, VoltError, files, forked, held, kernel

#: Seconds: for a process that was told to stop to clean up; for one that has answered to end.
_GRACE, _END = 30.0, 5.0

Answer = t.Callable[[t.Any], None]


class Late(VoltError):
    """The process did not answer in time, and is left behind."""


def apart(work: t.Callable[[Answer], t.Any], patience: t.Optional[float] = None, what: str = "that backed up") -> t.Any:
    """The result of work in a separate process, which ends with us. VoltError if it ended without a result, Late if it did not answer.

    :param work: raises nothing. With its argument it can answer early, if it may never return.
    :param patience: seconds to wait for its answer; None for as long as it takes. :param what: names the process in messages.
    """
    reader, writer = os.pipe()
    us, child = os.getpid(), 0
    try:
        try:
            with held():  # a signal that comes now must end the process as well
                child = os.fork()
                if not child:
                    forked()
                    _work(work, writer, us)
                os.close(writer)
            data = _read(reader, patience)
        except Interrupted:
            if child:
                os.kill(child, signal.SIGTERM)
                _wait(child, _GRACE)
            raise
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            raise Late(
                f"The process {what} did not respond within {patience:.0f} s; check that the file systems of the store and the sources respond."
            ) from None
    finally:
        if os.getpid() != us:
            os._exit(1)  # whatever happened there must not happen twice
        os.close(reader)
    if not data:
        raise VoltError(f"The process {what} ended without a result ({_wait(child, _END)}); see the kernel log.")
    _wait(child, _END)
    return pickle.loads(data)


def _work(work: t.Callable[[Answer], t.Any], writer: int, parent: int) -> None:
    gc.freeze()  # a file that our parent no longer needs must not be closed by its number, which is another's by then
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    files.close_all_but(writer)  # who waits for a pipe or for the workload's turn must not wait for one that hangs
    kernel.end_with_parent(parent)

    def answer(value: t.Any) -> None:
        data = memoryview(pickle.dumps(value))
        while data:
            data = data[os.write(writer, data) :]
        os.close(writer)

    answer(work(answer))
    os._exit(0)


def _read(fd: int, patience: t.Optional[float]) -> bytes:
    """All output; TimeoutError if it does not end in time."""
    pieces = []
    deadline = None if patience is None else time.monotonic() + patience
    while True:
        if deadline is not None and not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        piece = os.read(fd, 1 << 16)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def _wait(child: int, seconds: float) -> str:
    """Wait for a process, but no longer than that; how it ended."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            pid, status = os.waitpid(child, os.WNOHANG)
        except ChildProcessError:  # SIGCHLD is ignored, as we were started so
            return "status unknown"
        if pid:
            return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {os.WEXITSTATUS(status)}"
        if time.monotonic() > deadline:
            return "it has not ended yet"
        time.sleep(0.01)
