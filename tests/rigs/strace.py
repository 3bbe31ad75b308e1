# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill or fail a command at a chosen system call: strace, attached to a worker of a fork server before its command begins.

    for point in strace.points(server, words):
        prepare(); strace.run(server, words, point, "signal=KILL"); inspect()

strace counts calls for each thread by itself, so a point is "the n-th such call of any one thread"; a signal takes the whole process
along, an error meets every thread that comes so far. A signal that kills comes instead of the call, any other one after it.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import Unavailable, need
from .forks import Result, Server, Worker

#: What changes the world, or makes the change last: death between any two of these is what matters.
CALLS = tuple(
    "mkdir mkdirat mknod mknodat symlink symlinkat link linkat unlink unlinkat rmdir rename renameat renameat2 write writev pwrite64 truncate"
    " ftruncate fallocate copy_file_range sendfile splice fsync fdatasync syncfs msync chmod fchmod fchmodat chown fchown lchown fchownat utimensat"
    " setxattr fsetxattr lsetxattr removexattr fremovexattr lremovexattr flock".split()
)
#: Calls that change something with certain arguments only; all of them are counted, for strace counts so.
SOMETIMES = {"openat": "O_CREAT|O_TRUNC|O_TMPFILE", "ioctl": "FICLONE|FIDEDUPE"}


class Point(NamedTuple):
    """The `number`-th `call` of any one thread."""

    call: str
    number: int


def points(
    server: Server, words: Sequence[str], calls: Sequence[str] = (*CALLS, *SOMETIMES), success: bool = True, every: bool = False
) -> list[Point]:
    """Run a command once, whole, and name all its write-side system calls in their order; those of several threads that are alike once.

    :param success: an error where the command fails. :param every: name also calls whose arguments change nothing.
    """
    return list(dict.fromkeys(point for point, _line in trace(server, words, calls, success, every)))


def trace(
    server: Server, words: Sequence[str], calls: Sequence[str] = (*CALLS, *SOMETIMES), success: bool = True, every: bool = False
) -> list[tuple[Point, str]]:
    """The same with what strace says of each call, paths of descriptors included."""
    seen: list[tuple[Point, str]] = []
    counts: Counter[tuple[bytes, bytes]] = Counter()
    with tempfile.TemporaryDirectory(prefix="strace-") as room:
        log = os.path.join(room, "log")
        # A `?` before a name lets strace pass over calls that this machine's architecture does not have.
        result = _traced(server, words, ["-y", "-e", "trace=" + ",".join("?" + name for name in calls)], log)
        if result.status and success:
            raise RuntimeError(f"the command fails by itself, status {result.status}: {result.errors[-2000:]}")
        with open(log, "rb") as stream:
            for line in stream:
                match = re.match(rb"(\d+) +(\w+)\(", line)
                if match:
                    counts[match.groups()] += 1
                    name = match.group(2).decode()
                    text = line.decode("utf-8", "backslashreplace").rstrip()
                    if every or changes(name, text):
                        seen.append((Point(name, counts[match.groups()]), text))
    return seen


def changes(call: str, line: str) -> bool:
    """Whether a call of a kind that is traced can change something."""
    return call not in SOMETIMES or re.search(SOMETIMES[call], line) is not None


def run(server: Server, words: Sequence[str], point: Point, fault: str, met: list[str] | None = None, timeout: float = 120) -> Result:
    """Run a command with a fault at a point: `signal=KILL`, `signal=TERM`, `error=ENOSPC`, ...

    :param met: the calls that failed are added, as strace tells them. Threads share their work anew in each run, so these may not be those of a trace.
    """
    # Without --seccomp-bpf: strace 6.1 injects nothing where that is given.
    how = ["-e", "trace=" + point.call, "-e", f"inject={point.call}:{fault}:when={point.number}"]
    if met is None:
        return _traced(server, words, how, os.devnull, timeout)
    with tempfile.TemporaryDirectory(prefix="strace-") as room:
        log = Path(room, "log")
        result = _traced(server, words, ["-y", *how], str(log), timeout)
        begun: dict[str, str] = {}
        for line in log.read_text(encoding="utf-8", errors="backslashreplace").splitlines():
            thread = line.partition(" ")[0]
            if "(INJECTED)" in line:
                met.append(begun.get(thread, "") + line if " resumed>" in line else line)
            elif "<unfinished ...>" in line:
                begun[thread] = line
        return result


def _traced(server: Server, words: Sequence[str], how: list[str], log: str, timeout: float = 120) -> Result:
    need("strace")
    worker = Worker(server, words)
    command = ["strace", "-f", "-o", log, "-e", "signal=none", *how, "-p", str(worker.pid)]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _attached(tracer, worker.pid)
        worker.go()
        return worker.end(timeout)
    finally:
        # It ends with what it traces.
        try:
            tracer.communicate(timeout=10)
        except BaseException:
            worker.kill()
            tracer.kill()
            tracer.communicate()
            raise


def _attached(tracer: subprocess.Popen[bytes], pid: int) -> None:
    """Wait until strace says that it has the process: only then is every call counted."""
    said = tracer.stderr.readline()
    while said and b" attached" not in said:
        if b"ptrace" in said or b"attach:" in said:
            break
        said = tracer.stderr.readline()
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    if f"TracerPid:\t{tracer.pid}" not in status:
        os.kill(pid, 9)
        raise Unavailable(f"strace cannot attach: {said.decode(errors='replace').strip()}")
