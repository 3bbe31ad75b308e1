# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# python3 benchmarks/find.py --files 123000 --backups 100
"""Measure searches through many backups, beside restic.

The tree is like one of packages: thousands of files in two large directories, the others in directories of 4 to 18. Before each backup but the first,
1% of the files change, by whole directories, as an upgrade does it; in the large directories single files change, so that these differ each time. Needs
no root; everything made is removed again. The table is printed and goes to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import measure  # noqa: E402  # pylint: disable=wrong-import-position
import peers as tools  # noqa: E402  # pylint: disable=wrong-import-position
import report  # noqa: E402  # pylint: disable=wrong-import-position

INFO, DOCS = "var/lib/dpkg/info", "usr/share/doc-all"
#: What is searched for, as both tools are asked. "one name" is in no directory but one, "all of a kind" in nearly each small one.
STEPS = {
    "list": (["list"], ["snapshots"]),
    "find, one name": (["find", "package-00012.list"], ["find", "package-00012.list"]),
    "find, no match": (["find", "no-such-name"], ["find", "no-such-name"]),
    "find, all of a kind (*.conf)": (["find", "*.conf"], ["find", "*.conf"]),
    "find, one path": (["find", f"/{INFO}/package-00012.list"], None),
    "find, everything (*)": (["find", "*"], None),
    "history of one path": (["history", f"{INFO}/package-00012.list"], None),
}


def build(source: Path, count: int) -> list[Path]:
    """The files of the tree."""
    dice = random.Random("find")
    found = [source / INFO / f"package-{number:05d}.list" for number in range(count // 25)]
    found += [source / DOCS / f"doc-{number:05d}.txt" for number in range(count // 40)]
    part = 0
    while len(found) < count:
        folder = source / "usr" / ("lib" if part % 2 else "share") / f"pkg{part // 8:04d}" / f"part{part % 8}"
        found += [folder / f"file{number:03d}.{'py' if number else 'conf'}" for number in range(dice.randint(4, 18))]
        part += 1
    for path in found[:count]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(24))
    return found[:count]


def change(files: list[Path], number: int) -> None:
    """New content for 1% of the files."""
    dice = random.Random(f"change {number}")
    left = len(files) // 100
    while left > 0:
        chosen = dice.choice(files)
        beside = sorted(chosen.parent.iterdir())
        for path in beside if len(beside) < 50 else [chosen]:
            path.write_bytes(dice.randbytes(24))
            left -= 1


def prepared(room: Path, count: int, backups: int) -> tuple[tools.Volt, tools.Restic | None]:
    """Both tools with their backups."""
    source = room / "source"
    (room / "volt").mkdir(parents=True)
    volt, restic = tools.Volt(room / "volt", source), tools.Restic(room / "restic", source)
    present: list[tools.Peer] = [peer for peer in (volt, restic) if not peer.missing()]
    files = build(source, count)
    for peer in present:
        peer.room.mkdir(exist_ok=True)
        peer.prepare()
    for number in range(backups):
        if number:
            change(files, number)
        for peer in present:
            done = measure.run(peer.first() or [], source, peer.env)
            if done.status:
                raise SystemExit(f"{peer.name}: {done.errors}")
        print(f"backup {number + 1}", file=sys.stderr)
    return volt, restic if restic in present else None


def costs(volt: tools.Volt, restic: tools.Restic | None, rounds: int) -> dict[str, dict[str, list[measure.Cost]]]:
    """By step and tool, the cost of each round."""
    places = [word for word in volt.places if word != "--json"]
    found: dict[str, dict[str, list[measure.Cost]]] = {step: {} for step in STEPS}
    for number in range(rounds):
        for step, (ours, theirs) in STEPS.items():
            found[step].setdefault("volt.backup", []).append(measure.run([*volt.command, *ours, *places], volt.source, volt.env))
            if restic is not None and theirs is not None and not number:  # its searches take minutes
                found[step]["restic"] = [measure.run([tools.restic(), *theirs], restic.source, restic.env)]
            for name, measured in found[step].items():
                print(f"{name} {step}: {measured[-1].cpu:.2f} CPU s, {measured[-1].memory >> 20} MiB {measured[-1].errors[-200:]}", file=sys.stderr)
    return found


def table(title: str, machine: dict[str, str], found: dict[str, dict[str, list[measure.Cost]]]) -> str:
    lines = [f"# {title}", "", ", ".join(f"{key}: {value}" for key, value in machine.items()), ""]
    lines += ["CPU seconds, the median of all rounds (memory of the process in MiB).", "", "| step | volt.backup | restic |", "|---|--:|--:|"]
    for step, tools_ in found.items():
        cells = []
        for name in ("volt.backup", "restic"):
            measured = sorted(tools_.get(name, []), key=lambda cost: cost.cpu)
            cells.append(f"{measured[len(measured) // 2].cpu:.2f} ({max(cost.memory for cost in measured) >> 20})" if measured else "")
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--files", type=int, default=123_000)
    options.add_argument("--backups", type=int, default=100)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--room", default=None, help="where to work (default: the system's temporary directory)")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.room) as scratch:
        volt, restic = prepared(Path(scratch), args.files, args.backups)
        title = f"Searches through {args.backups} backups of {args.files:,} files"
        versions = ", ".join(peer.version() for peer in (volt, restic) if peer)
        text = table(title, {**report.machine(Path(scratch)), "versions": versions}, costs(volt, restic, args.rounds))
    print(text)
    (HERE / "results" / f"{time.strftime('%Y%m%d-%H%M%S')}-find.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
