# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run gates side by side in lanes, and say at every moment which.

A gate begins once those that it needs have passed and its lane has a free place. Each one's output goes to a file of its own. A gate that
fails stops no other, but those that need it do not begin. A signal ends what runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

#: Seconds that a gate has to clean up when it is told to end, and those after which what runs is said again.
_GRACE, _PULSE = 60, 60
#: Of patient gates. The kernel shares time out among sessions before it looks at single processes; see autogroup in sched(7).
_NICENESS = 10


class Gate(NamedTuple):
    """`command` gives the words, the environment and the working directory. It is called when the gate begins.

    A `patient` gate leaves the processor to those that are not: to the longest one, which then does not end after all others.
    """

    name: str
    about: str
    lane: str
    needs: tuple[str, ...]
    command: Callable[[], tuple[Sequence[str], Mapping[str, str], Path]]
    patient: bool = True


class Outcome(NamedTuple):
    """How a gate ended. `status` is None for one that did not begin. Times are in seconds; `cpu` is that of all its processes."""

    gate: Gate
    status: int | None
    wall: float
    cpu: float


class _Running(NamedTuple):
    gate: Gate
    process: subprocess.Popen[bytes]
    began: float


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def run(gates: Sequence[Gate], places: Mapping[str, int], logs: Path) -> list[Outcome]:
    """Run gates in their order, as far as their needs and the places of their lanes allow. KeyboardInterrupt where a signal asked to end."""
    with _interruptible():
        return _run(gates, places, logs)


def _run(gates: Sequence[Gate], places: Mapping[str, int], logs: Path) -> list[Outcome]:
    logs.mkdir(parents=True, exist_ok=True)
    waiting, running, ended = list(gates), dict[str, _Running](), dict[str, Outcome]()
    pulse = time.monotonic()
    try:
        while waiting or running:
            for gate in _startable(waiting, running, ended, places):
                waiting.remove(gate)
                say(f"{gate.name}: {gate.about}")
                try:
                    running[gate.name] = _start(gate, logs)
                except (OSError, subprocess.SubprocessError, SystemExit) as error:
                    (logs / f"{gate.name}.log").write_text(f"It cannot be started: {error}\n", encoding="utf-8")
                    ended[gate.name] = Outcome(gate, 1, 0, 0)
                    say(f"{gate.name}: cannot be started: {error}")
            for outcome in _reaped(running):
                del running[outcome.gate.name]
                ended[outcome.gate.name] = outcome
                result = f"failed (status {outcome.status}; {logs / outcome.gate.name}.log)" if outcome.status else "passed"
                say(f"{outcome.gate.name}: {result} after {outcome.wall:.0f} s")
                pulse = time.monotonic()
            for gate in [gate for gate in waiting if any(need in ended and ended[need].status != 0 for need in gate.needs)]:
                waiting.remove(gate)
                say(f"{gate.name}: not run, since what it needs failed")
                ended[gate.name] = Outcome(gate, None, 0, 0)
            if time.monotonic() - pulse > _PULSE:
                say("running: " + ", ".join(f"{one.gate.name} ({time.monotonic() - one.began:.0f} s)" for one in running.values()))
                pulse = time.monotonic()
            time.sleep(0.1)
    finally:
        _end(running)
    return [ended[gate.name] for gate in gates]


def _startable(waiting: Sequence[Gate], running: Mapping[str, _Running], ended: Mapping[str, Outcome], places: Mapping[str, int]) -> list[Gate]:
    # A lane that has done all of its work lends its places, so that as many gates run side by side to the end.
    done = {outcome.gate.lane for outcome in ended.values()} - {gate.lane for gate in waiting} - {one.gate.lane for one in running.values()}
    lent = sum(places[lane] for lane in done)
    free = {lane: number + lent - sum(one.gate.lane == lane for one in running.values()) for lane, number in places.items()}
    found = []
    for gate in waiting:
        if free[gate.lane] > 0 and all(need in ended and ended[need].status == 0 for need in gate.needs):
            free[gate.lane] -= 1
            found.append(gate)
    return found


def _start(gate: Gate, logs: Path) -> _Running:
    words, environment, place = gate.command()
    with open(logs / f"{gate.name}.log", "wb") as log:
        process = _spawn(words, environment, place, log)
    if gate.patient:
        with suppress(OSError):
            Path(f"/proc/{process.pid}/autogroup").write_text(str(_NICENESS), encoding="ascii")
    return _Running(gate, process, time.monotonic())


def _spawn(words: Sequence[str], environment: Mapping[str, str], place: Path, output: BinaryIO | None) -> subprocess.Popen[bytes]:
    """A process in a session of its own, which can be told to end with all that it starts. It is also told so when this process is killed."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *words], env=environment, cwd=place, stdin=subprocess.DEVNULL, stdout=output,
                            stderr=subprocess.STDOUT if output else None, start_new_session=True)  # fmt: skip


def _reaped(running: Mapping[str, _Running]) -> list[Outcome]:
    found = []
    for one in running.values():
        pid, status, usage = os.wait4(one.process.pid, os.WNOHANG)
        if pid:
            one.process.returncode = os.waitstatus_to_exitcode(status)
            found.append(Outcome(one.gate, one.process.returncode, time.monotonic() - one.began, usage.ru_utime + usage.ru_stime))
    return found


def _end(running: Mapping[str, _Running]) -> None:
    """Tell what runs to end, and wait for it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = [one for one in running.values() if one.process.poll() is None]
        if left:
            say(f"ending {', '.join(one.gate.name for one in left)}")
        for one in left:
            os.killpg(one.process.pid, number)
        until = time.monotonic() + _GRACE
        for one in left:
            try:
                one.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def alone(gate: Gate) -> int:
    """Run one gate in front, its output where ours goes; its status. KeyboardInterrupt where a signal asked to end."""
    words, environment, place = gate.command()
    sys.stdout.flush()
    one = _Running(gate, _spawn(words, environment, place, None), time.monotonic())
    with _interruptible():
        try:
            return one.process.wait()
        finally:
            _end({gate.name: one})


@contextmanager
def _interruptible() -> Iterator[None]:
    """Signals that ask to end raise KeyboardInterrupt while the context lasts."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
