# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command costs: CPU of its whole process tree, wall time, and the memory of its largest process; and a record of such costs.

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
from typing import Any


@dataclass
class Cost:
    """One run. `output` is what it wrote to standard output, unless that was thrown away."""

    status: int
    cpu: float
    wall: float
    memory: int
    output: str = ""
    errors: str = ""


def run(command: list[str], cwd: Path, env: dict[str, str] | None = None, discard: bool = False, cold: bool = False) -> Cost:
    """Measure a command. Dirty pages are written out first, because the command would wait for those of the one before.

    :param cold: with empty caches of the kernel, which needs root.
    """
    os.sync()
    if cold:
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
    settings = {**os.environ, **(env or {})}
    settings.pop("PYTHONDONTWRITEBYTECODE", None)  # Python programs start as they do elsewhere
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        reader, writer = os.pipe()
        starter = [sys.executable, "-I", "-S", __file__, str(writer), *command]
        with subprocess.Popen(starter, cwd=cwd, env=settings, stdin=subprocess.DEVNULL, pass_fds=[writer],
                              stdout=subprocess.DEVNULL if discard else output, stderr=errors) as process:
            os.close(writer)
            with open(reader, encoding="ascii") as stream:
                measured = json.load(stream)
            process.wait()
        output.seek(0)
        errors.seek(0)
        return Cost(**measured, output=output.read().decode("utf-8", "replace"), errors=errors.read().decode("utf-8", "replace")[-2000:])


class Record:
    """What each step has cost each peer, in `results["steps"][step][peer]["runs"]`; a failure is noted instead.

    :param hide: a directory that no message of a failure shows.
    """

    def __init__(self, results: dict, hide: Path) -> None:
        self.results, self._hide = results, str(hide)
        results.setdefault("steps", {})

    def step(self, peer: Any, name: str, command: list[str], cwd: Path, sizes: bool = False, cold: bool = False) -> tuple[dict | None, str]:
        """Measure a step of a peer: what it cost, None where it failed, and what it printed.

        :param sizes: look at what its store holds before and after.
        """
        before = stored(peer.store) if sizes else None
        cost = run(command, cwd, peer.env, peer.discard, cold)
        found: dict = {"cpu": round(cost.cpu, 4), "wall": round(cost.wall, 4), "memory": cost.memory}
        if before is not None:
            found["stored"] = stored(peer.store)
            found["new"] = {kind: found["stored"][kind] - before[kind] for kind in before}
        runs = self.results["steps"].setdefault(name, {}).setdefault(peer.name, {"runs": []})
        sys.stderr.write(f"  {name:24} {peer.name:26} {cost.cpu:8.2f} CPU s {cost.wall:8.2f} s {cost.memory / 1e6:6.0f} MB\n")
        # borg and rsync end with 1 or 24 for mere warnings; a benchmark wants none.
        if cost.status:
            said = (cost.errors or cost.output).strip().splitlines() or [""]
            runs["failed"] = f"status {cost.status}: {said[-1][-300:]}".replace(self._hide, "...")
            sys.stderr.write(f"    {runs['failed']}\n")
            return None, cost.output
        runs["runs"].append(found)
        return found, cost.output


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
