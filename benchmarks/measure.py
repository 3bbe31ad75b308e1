# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command costs: CPU of its whole process tree, wall time, and the memory of its largest process.

The command is started by a process of its own (this very file as a script), because Linux counts the memory of whoever
forked it into a command's peak: so small a parent keeps that floor at about 15 MB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Cost:
    """One run. `output` is what it wrote to standard output, unless that was thrown away."""

    status: int
    cpu: float
    wall: float
    memory: int
    output: str = ""
    errors: str = ""


def run(command: list[str], cwd: Path, env: dict[str, str] | None = None, discard: bool = False) -> Cost:
    """Measure a command. Dirty pages are written out first, so that nobody pays for what ran before."""
    os.sync()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        reader, writer = os.pipe()
        starter = [sys.executable, "-I", "-S", __file__, str(writer), *command]
        with subprocess.Popen(starter, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, pass_fds=[writer],
                              stdout=subprocess.DEVNULL if discard else output, stderr=errors) as process:
            os.close(writer)
            with open(reader, encoding="ascii") as stream:
                measured = json.load(stream)
            process.wait()
        output.seek(0)
        errors.seek(0)
        return Cost(**measured, output=output.read().decode("utf-8", "replace"), errors=errors.read().decode("utf-8", "replace")[-2000:])


def stored(path: Path) -> dict[str, int]:
    """The bytes below a directory, hard links once: as file sizes, and as allocated on disk."""
    if not path.exists():
        return {"apparent": 0, "allocated": 0}
    os.sync()
    kinds = {"apparent": ["--apparent-size"], "allocated": []}
    return {kind: int(subprocess.check_output(["du", "-s", "-B1", *options, str(path)]).split()[0]) for kind, options in kinds.items()}


def _main() -> None:
    report, command = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(report, False)
    begin = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    _pid, status, usage = os.wait4(child, 0)
    cost = Cost(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, time.monotonic() - begin, usage.ru_maxrss * 1024)
    facts = asdict(cost)
    del facts["output"], facts["errors"]
    os.write(report, json.dumps(facts).encode("ascii"))


if __name__ == "__main__":
    _main()
