# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# python3 benchmarks/brake.py --half tune --only "git gc"
# python3 benchmarks/brake.py --half report
"""How often the brake is wrong: made-up histories, backed up by the engine as a schedule does, with `keep: {last: 7}`.

A benign history is a false alarm where any of its runs is suspect; so is an alarm in a hostile one before the attack begins. A hostile one is a miss where
no run since the attack began was suspect or refused, or where no backup from before it is left at the end.

What is destroyed, and no kept backup has any more, is "lost": by slow attacks that may be much though a clean backup is left, or nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, Optional

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import histories  # noqa: E402  # pylint: disable=wrong-import-position

KEEP = {"last": 7}
HALVES = {"tune": (0,), "report": (1,), "all": (0, 1)}
WORKLOAD = "history"
#: Free bytes that a memory file system is to have.
_ROOM = 2 << 30


class Outcome(NamedTuple):
    """What became of a history. Runs count from 0; shares are of the workload's files.

    :ivar alarms: runs that were suspect, with the reason. :ivar refused: runs of which the engine made no backup, with the reason.
    :ivar noticed: the first of both since the attack began. :ivar clean: how many backups from before the attack are left.
    """

    kind: str
    seed: int
    hostile: bool
    runs: int
    begin: Optional[int]
    alarms: list[tuple[int, str]]
    refused: list[tuple[int, str]]
    noticed: Optional[int]
    gone_by_then: Optional[float]
    destroyed: float
    clean: int
    lost: float
    seconds: float

    @property
    def false_alarm(self) -> bool:
        """For a hostile history: in its clean part."""
        return any(self.begin is None or run < self.begin for run, _reason in self.alarms)

    @property
    def missed(self) -> bool:
        return self.hostile and (self.noticed is None or not self.clean)


def engine(room: Path) -> None:
    """Make this checkout importable by the collection's name, unless some tool has done so."""
    try:
        importlib.import_module("ansible_collections.volt.backup.plugins.module_utils._backup.manager")
    except ImportError:
        folder = room / "path/ansible_collections/volt"
        folder.mkdir(parents=True)
        (folder / "backup").symlink_to(HERE.parent)
        sys.path.insert(0, str(room / "path"))
        importlib.invalidate_caches()


def replay(history: histories.History, room: Path) -> Outcome:
    """Back up each state of a history, and prune as a schedule does."""
    base = "ansible_collections.volt.backup.plugins.module_utils."
    manager_of, create, errors = (importlib.import_module(base + name) for name in ("_backup.manager", "_backup.create", "_base"))
    began, source = time.monotonic(), room / "source"
    source.mkdir()
    manager = manager_of.Manager(str(room / "store"), str(room / "backups"))
    request = create.CreateRequest(workload=WORKLOAD, source=str(source), type="scheduled")
    made: dict[str, int] = {}
    alarms: list[tuple[int, str]] = []
    refused: list[tuple[int, str]] = []
    noticed = gone = None
    for tree in history.play(source):
        try:
            backup = manager.create(request).backup
        except errors.SourceError as error:
            refused.append((tree.day, str(error)))
        else:
            made[backup["id"]] = tree.day
            if backup.get("suspect"):
                alarms.append((tree.day, str(backup.get("suspect_reason"))))
            elif backup["complete"]:
                manager.prune(WORKLOAD, KEEP, ["scheduled"])
        if noticed is None and history.begin is not None and tree.day >= history.begin and any(run == tree.day for run, _reason in alarms + refused):
            noticed, gone = tree.day, tree.destroyed()
    kept = [made[found["id"]] for found in manager.find(manager_of.Query(workload=WORKLOAD))]
    clean = sum(run < (tree.day + 1 if history.begin is None else history.begin) for run in kept)
    return Outcome(history.kind, history.seed, history.hostile, tree.day + 1, history.begin, alarms, refused, noticed, gone, tree.destroyed(), clean,
                   lost(tree.victims, kept), time.monotonic() - began)  # fmt: skip


def lost(victims: dict[str, tuple[int, int]], kept: list[int]) -> float:
    """The share of destroyed files that no kept backup has. Those that no backup ever had are not counted."""
    saved = [any(born <= run < died for run in kept) for born, died in victims.values() if born < died]
    return 1 - sum(saved) / len(saved) if saved else 0.0


# ---- many of them


def _one(task: tuple[histories.History, str]) -> Outcome:
    history, place = task
    with tempfile.TemporaryDirectory(dir=place) as room:
        try:
            return replay(history, Path(room))
        except Exception as error:
            raise RuntimeError(f"{history} failed: {error!r}") from error


def place_of() -> Optional[str]:
    """In memory, where there is room; else the system's place."""
    memory = "/dev/shm"
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= _ROOM:
        return memory
    return None


def run(chosen: list[histories.History], jobs: int) -> list[Outcome]:
    with tempfile.TemporaryDirectory(dir=place_of(), prefix="brake-") as room:
        engine(Path(room))
        tasks = [(history, room) for history in chosen]
        found: list[Outcome] = []
        # Forked: what is imported by now is so there.
        with multiprocessing.get_context("fork").Pool(jobs) as pool:
            for outcome in pool.imap(_one, tasks):
                found.append(outcome)
                print(f"\r{len(found)} of {len(tasks)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return found


# ---- what is told


def percent(part: int, count: int) -> str:
    return f"{part} of {count} ({100 * part / count:.1f}%)" if count else "none"


def table(found: list[Outcome]) -> str:
    lines = ["| benign | histories | false alarms |", "|---|--:|--:|"]
    calm, attacked = ([one for one in found if one.hostile == hostile] for hostile in (False, True))
    for kind in dict.fromkeys(one.kind for one in calm):
        these = [one for one in calm if one.kind == kind]
        lines.append(f"| {kind} | {len(these)} | {sum(one.false_alarm for one in these) or ''} |")
    lines += ["", "| hostile | histories | misses | noticed in run | destroyed by then | at the end | lost |", "|---|--:|--:|--:|--:|--:|--:|"]
    for kind in dict.fromkeys(one.kind for one in attacked):
        these = [one for one in attacked if one.kind == kind]
        after = sorted(one.noticed - (one.begin or 0) + 1 for one in these if one.noticed is not None)
        gone = [one.gone_by_then for one in these if one.gone_by_then is not None]
        cells = [
            f"{after[0]}-{after[-1]}" if after else "",
            f"{statistics.mean(gone):.0%}" if gone else "",
            f"{statistics.mean(one.destroyed for one in these):.0%}",
            f"{statistics.mean(one.lost for one in these):.0%}",
        ]
        lines.append(f"| {kind} | {len(these)} | {sum(one.missed for one in these) or ''} | {' | '.join(cells)} |")
    lines.append("")
    for one in found:
        where = f"{one.kind} (seed {one.seed})"
        if one.false_alarm:
            lines += [f"- false alarm: {where}, run {run_} of {one.runs}: {reason}" for run_, reason in one.alarms if one.begin is None or run_ < one.begin]
        if one.missed:
            seen = "never noticed" if one.noticed is None else f"noticed in run {one.noticed}, by when nothing clean was left"
            lines.append(f"- miss: {where}, begun in run {one.begin} of {one.runs}: {seen}; {one.destroyed:.0%} destroyed, {one.lost:.0%} of it lost")
    lines += [""] + [f"{name}: {text}" for name, text in totals(found).items()]
    return "\n".join(lines)


def totals(found: list[Outcome]) -> dict[str, str]:
    calm, attacked = ([one for one in found if one.hostile == hostile] for hostile in (False, True))
    return {
        "false alarms": percent(sum(one.false_alarm for one in calm), len(calm)),
        "false alarms before attacks": percent(sum(one.false_alarm for one in attacked), len(attacked)),
        "misses": percent(sum(one.missed for one in attacked), len(attacked)),
    }


def as_json(found: list[Outcome]) -> str:
    rows: list[dict[str, Any]] = [
        {**one._asdict(), "half": ("tune", "report")[one.seed % 2], "false_alarm": one.false_alarm, "missed": one.missed} for one in found
    ]
    return json.dumps({"totals": totals(found), "histories": rows}, indent=1)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--benign", type=int, default=200, help="how many (default: %(default)s, in both halves together)")
    options.add_argument("--hostile", type=int, default=200, help="likewise")
    options.add_argument("--seed", type=int, default=0, help="another one makes other histories (default: %(default)s)")
    options.add_argument("--half", choices=HALVES, default="all", help="even seeds are to tune on, odd ones to report (default: %(default)s)")
    options.add_argument("--beyond", action="store_true", help="the kinds that no brake is held to, and none of the others: to see how far it reaches")
    options.add_argument("--only", action="append", help="of those histories, only the ones of this kind; may be given again")
    options.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    options.add_argument("--json", action="store_true", help="all outcomes, for programs")
    args = options.parse_args()
    chosen = histories.choose(args.benign, args.hostile, args.seed, HALVES[args.half], args.beyond)
    if args.only:
        kinds = list(dict.fromkeys(history.kind for history in chosen))
        unknown = set(args.only) - set(kinds)
        if unknown:
            options.error(f"there is no kind {sorted(unknown)[0]!r} among them; there are {', '.join(kinds)}")
        chosen = [history for history in chosen if history.kind in args.only]
    began = time.monotonic()
    found = run(chosen, max(1, args.jobs))
    if args.json:
        print(as_json(found))
    else:
        print(table(found))
        print(f"time: {time.monotonic() - began:.0f} s, {args.jobs} processes")


if __name__ == "__main__":
    main()
