# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command many times without Python's start each time: a server that has it imported forks a worker for each run.

    with forks.Server(forks.ENGINE) as server:
        result = server.run(["list", "--json"])

A worker waits at a gate before the command begins, so that a tracer can be attached first (see strace.py): what is counted from
then on are the command's own system calls. The gate is a readv(2), and what it prints is collected in memory and handed over by pwritev(2), which
nothing here ever makes fail, so a fault meets the command and never its report.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

#: Defines `main(words) -> status`: the engine's command. All of the engine is imported, so a fault meets what a run does, and no import.
ENGINE = """
import concurrent.futures.thread, encodings.idna, http.client, importlib, pkgutil, shutil, socket, textwrap
from ansible_collections.volt.backup.plugins import module_utils
from ansible_collections.volt.backup.plugins.module_utils._runner.cli import main
for found in pkgutil.walk_packages(module_utils.__path__, module_utils.__name__ + "."):
    importlib.import_module(found.name)
"""


@dataclass(frozen=True)
class Result:
    """How a run ended: status is negative for a signal, as in subprocess."""

    status: int
    output: str
    errors: str

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL

    @property
    def value(self) -> dict[str, Any]:
        """What the command printed with --json."""
        return json.loads(self.output)


class Worker:
    """A forked run, which waits until it is told to `go`."""

    def __init__(self, server: Server, words: Sequence[str]) -> None:
        self._server = server
        self._room = tempfile.TemporaryDirectory(prefix="fork-")
        self._files = [os.path.join(self._room.name, name) for name in ("out", "err")]
        self.pid = int(server.ask("fork", list(words), *self._files))

    def go(self) -> None:
        self._server.ask("go", self.pid)

    def poll(self, timeout: float = 0) -> int | None:
        """The status, or None while it runs."""
        return self._server.ask("wait", self.pid, timeout)

    def end(self, timeout: float = 120) -> Result:
        """Wait for the end; a run that takes longer is killed, and that is an error."""
        status = self.poll(timeout)
        if status is None:
            self.kill()
            status = self.poll(timeout)
            raise TimeoutError(f"a worker ran for more than {timeout} seconds; killed, status {status}: {self._read()}")
        output, errors = self._read()
        self._room.cleanup()
        return Result(status, output, errors)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _read(self) -> list[str]:
        texts = []
        for path in self._files:
            with open(path, encoding="utf-8", errors="surrogateescape") as stream:
                texts.append(stream.read())
        return texts


class Server:
    """The process that forks. A context: at its end the server goes, and with it whatever still waits at its gate."""

    def __init__(self, code: str = ENGINE, python: str = sys.executable) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}
        # A session of its own: an interrupt at the terminal is for us.
        self._process = subprocess.Popen(
            [python, os.path.abspath(__file__), code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd="/", start_new_session=True
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def start(self, words: Sequence[str]) -> Worker:
        """A run that goes at once."""
        worker = Worker(self, words)
        worker.go()
        return worker

    def run(self, words: Sequence[str], timeout: float = 120) -> Result:
        return self.start(words).end(timeout)

    def ask(self, *order: Any) -> Any:
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server has died, status {self._process.wait()}")
        return json.loads(answer)


# ---- in the server


def _serve(main: Callable[[list[str]], int]) -> None:
    gates: dict[int, int] = {}
    statuses: dict[int, int] = {}

    def fork(words: list[str], *files: str) -> int:
        inner, outer = os.pipe()
        here, ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            for fd in (outer, here, *gates.values()):
                os.close(fd)
            _work(main, words, files, inner, ready)
        os.close(inner)
        os.close(ready)
        os.read(here, 1)  # ends when the worker is at its gate: a tracer must not see it on its way there
        os.close(here)
        gates[pid] = outer
        statuses.pop(pid, None)  # of an earlier one: numbers come again
        return pid

    def go(pid: int) -> None:
        gate = gates.pop(pid)
        os.write(gate, b"go")
        os.close(gate)

    def wait(pid: int, timeout: float) -> int | None:
        deadline = time.monotonic() + timeout
        while pid not in statuses:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                statuses[pid] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= deadline:
                return None
            else:
                select.select([], [], [], 0.001)
        return statuses[pid]

    calls = {"fork": fork, "go": go, "wait": wait}
    for line in iter(sys.stdin.buffer.readline, b""):
        name, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(calls[name](*arguments)) + "\n")
        sys.stdout.flush()


def _work(main: Callable[[list[str]], int], words: list[str], files: Sequence[str], gate: int, ready: int) -> NoReturn:
    """In the worker: one run."""
    status = 70
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        handles = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600) for path in files]
        texts = [io.StringIO(), io.StringIO()]
        sys.stdout, sys.stderr = texts
        os.close(ready)
        if os.readv(gate, [bytearray(2)]) != 2:  # not read(2), which a fault may be meant for
            os._exit(71)
        os.close(gate)
        try:
            status = main(words) or 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except KeyboardInterrupt:
            traceback.print_exc()
            status = 130
        except BaseException:
            traceback.print_exc()
            status = 1
        for handle, text in zip(handles, texts):
            if text.tell():
                os.pwritev(handle, [text.getvalue().encode("utf-8", "surrogateescape")], 0)
    finally:
        os._exit(status)


if __name__ == "__main__":
    scope: dict[str, Any] = {}
    exec(compile(sys.argv[1], "<server>", "exec"), scope)
    _serve(scope["main"])
