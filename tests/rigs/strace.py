# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill or fail a command at a chosen system call.

    for call, n in strace.points(command, 100):
        prepare(); strace.run(command, call, n); inspect()

strace counts calls for each thread and process by itself, so a point is "the n-th such call of any one of them". Where a
worker process reaches it first, it is the worker that dies and the command must cope; a thread takes its process along.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import Unavailable, need

# What changes the world, and what learns about it: death between any two of these is what matters.
CALLS = tuple(
    "openat mkdirat mknodat symlinkat linkat unlinkat unlink rename renameat renameat2 write pwrite64 writev ftruncate fallocate"
    " copy_file_range ioctl fsync fdatasync syncfs fchmod fchmodat chmod fchown fchownat lchown utimensat setxattr fsetxattr lsetxattr"
    " removexattr lremovexattr fremovexattr flock close read pread64 getdents64 newfstatat statx".split()
)


@dataclass(frozen=True)
class Result:
    """How a command ended: status is negative for a signal, as in subprocess."""

    status: int
    output: bytes
    errors: bytes

    @property
    def killed(self) -> bool:
        return self.status == -9


def run(command: Sequence[str], call: str, when: int, fault: str = "signal=KILL", timeout: float = 600, **popen: object) -> Result:
    """Run a command with a fault at the `when`-th `call`: `signal=KILL`, `signal=TERM`, `error=ENOSPC`, ..."""
    _check()
    # Without the filter: strace 6.1 injects nothing where --seccomp-bpf is given.
    return _strace(["-e", "trace=" + call, "-e", f"inject={call}:{fault}:when={when}"], "/dev/null", command, timeout, popen)


def points(command: Sequence[str], number: int, calls: Sequence[str] = CALLS, timeout: float = 600, **popen: object) -> list[tuple[str, int]]:
    """Run a command once, whole, and name up to `number` different calls spread evenly over its run."""
    _check()
    seen: list[tuple[str, int]] = []
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as room:
        log = os.path.join(room, "log")
        # A `?` before a name lets strace pass over calls that this machine's architecture does not have.
        done = _strace(["--seccomp-bpf", "-e", "trace=" + ",".join("?" + name for name in calls), "-e", "signal=none"], log, command, timeout, popen)
        if done.status:
            raise RuntimeError(f"the command fails by itself, status {done.status}: {done.errors[-500:]!r}")
        with open(log, "rb") as stream:
            for line in stream:
                match = re.match(rb"(\d+) +(\w+)\(", line)
                if match:
                    process, name = match.group(1).decode(), match.group(2).decode()
                    counts[process, name] += 1
                    seen.append((name, counts[process, name]))
    number = min(number, len(seen))
    chosen = [seen[index * len(seen) // number] for index in range(number)]
    return list(dict.fromkeys(chosen))


def counts(command: Sequence[str], calls: Sequence[str] = CALLS, **popen: object) -> dict[str, int]:
    """How often a command makes each call, as the thread or process that makes it most often."""
    most: dict[str, int] = {}
    for name, ordinal in points(command, 1 << 62, calls, **popen):
        most[name] = max(most.get(name, 0), ordinal)
    return most


def _check() -> None:
    need("strace")
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if scope.exists() and scope.read_text(encoding="ascii").strip() == "3":
        raise Unavailable("this kernel forbids tracing")


def _strace(how: list[str], log: str, command: Sequence[str], timeout: float, popen: dict) -> Result:
    # --kill-on-exit is not in every strace, so a session of its own lets a timeout end the traced tree too.
    full = ["strace", "-f", "-qq", "-o", log, *how, "--", *command]
    process = subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **popen)
    try:
        output, errors = process.communicate(timeout=timeout)
    except BaseException:
        os.killpg(process.pid, 9)
        process.communicate()
        raise
    return Result(process.returncode, output, errors)
