# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# python3 benchmarks/all.py
# python3 benchmarks/all.py --parts history,packs --backups 5 --packs 1000 --rounds 2
"""Measure what docs/benchmarks.md shows, and write it there: its tables, its charts, and the figures below benchmarks/results/.

sets      first backup, nothing changed, changed, list and restores, beside all peers, with warm caches and cold ones (run.py)
history   100 backups: each backup as the history grows, then commands, restores, pruning and collecting (upkeep.py)
packs     commands in a store of 100,000 packs beside an empty one (packs.py)
tasks     one task of a module over ssh, beside ping (fleet.py)

Needs root. All of it took 45 minutes on two cores with a load of 8; an idle machine needs less.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import packs  # noqa: E402  # pylint: disable=wrong-import-position
import report  # noqa: E402  # pylint: disable=wrong-import-position
import run  # noqa: E402  # pylint: disable=wrong-import-position
import upkeep  # noqa: E402  # pylint: disable=wrong-import-position

DOCS = HERE.parent / "docs"
PARTS = ("sets", "history", "packs", "tasks")
BEGIN, END = "<!-- benchmarks/all.py writes this -->\n", "<!-- to here -->\n"


def main() -> None:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which goes through every `finally`: nothing stays mounted
    if os.geteuid() != 0:
        sys.exit("needs root: the sets hold device nodes and foreign owners")
    with tempfile.TemporaryDirectory(prefix="volt-bench-", dir=args.work) as name:
        outcome = measured(args, Path(name))
    written = report.write(outcome, HERE / "results")
    print(written.read_text(encoding="utf-8"))
    if set(args.parts) == set(PARTS) and not args.dry:
        publish(outcome)


def measured(args: argparse.Namespace, room: Path) -> dict:
    began = time.monotonic()
    outcome: dict = {"skipped": {}, "versions": {}, "sets": {}, "rounds": args.rounds, "machine": report.machine(room)}
    if "history" in args.parts:
        found = upkeep.measured(room, "R", 0, args.backups, args.rounds, list(upkeep.PEERS))
        outcome["skipped"].update(found.pop("skipped", {}))
        outcome["versions"].update(found.pop("versions", {}))
        outcome["sets"]["history"] = found
    if "sets" in args.parts:
        found = run.rounds(args, room)
        for key in ("skipped", "versions", "sets"):
            outcome[key].update(found[key])
    if "packs" in args.parts:
        outcome["sets"]["packs"] = packs.measured(room, args.packs, args.rounds)
    if "tasks" in args.parts:
        try:
            outcome["tasks"] = tasks(args.tasks)
        except subprocess.CalledProcessError as error:  # what was measured before is kept
            outcome["skipped"]["tasks over ssh"] = f"{Path(error.cmd[1]).name} ended with {error.returncode}"
    outcome["minutes"] = round((time.monotonic() - began) / 60)
    return outcome


def tasks(count: int) -> dict:
    """By a Python that has Ansible."""
    made = subprocess.check_output([sys.executable, str(HERE.parent / "tests/tools/environments.py"), "tools"], text=True).strip()
    return json.loads(subprocess.check_output([f"{made}/bin/python", str(HERE / "fleet.py"), "--tasks", str(count)], text=True))


def publish(outcome: dict) -> None:
    """Write the tables between the two marks of docs/benchmarks.md."""
    path = DOCS / "benchmarks.md"
    text = path.read_text(encoding="utf-8")
    tables = report.docs(outcome, DOCS / "pictures")
    new, found = re.subn(f"{BEGIN}.*?{END}", lambda _old: f"{BEGIN}\n{tables}\n{END}", text, flags=re.DOTALL)
    if found != 1:
        sys.exit(f"{path}: there is no place for the tables; put the lines {BEGIN.strip()} and {END.strip()} there.")
    path.write_text(new, encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", type=report.among(PARTS), default=list(PARTS), help="of " + ",".join(PARTS))
    parser.add_argument("--backups", type=int, default=100, help="in the history (default: %(default)s)")
    parser.add_argument("--packs", type=int, default=100_000, help="in the store of many packs (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=6, help="in a play, after the first (default: %(default)s)")
    parser.add_argument("--dry", action="store_true", help="leave the documents as they are, as without one of the parts")
    run.add_options(parser, ["R"])
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if len(sys.argv) == 3 and sys.argv[1] == "--publish":  # the documents again, from what was measured
        publish(json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    else:
        main()
