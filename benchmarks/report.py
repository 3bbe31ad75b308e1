# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome as JSON and as Markdown: every cost, and each aim of the design beside what was reached."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

MIB = 1 << 20
STEPS = {"first": "first backup", "unchanged": "nothing changed", "changed": "changed", "restore": "restore by copy", "restore_over": "restore over 1%",
         "restore_reflink": "restore by reflink (XFS)"}
VOLT = "volt.backup"


def among(known: Iterable[str]) -> Callable[[str], list[str]]:
    """For argparse: names out of these, with commas between them."""

    def split(text: str) -> list[str]:
        names = text.split(",")
        if not set(names) <= set(known):
            raise argparse.ArgumentTypeError(f"choose from {','.join(known)}")
        return names

    return split


def machine(work: Path) -> dict[str, str]:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    total = int(re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"), re.M).group(1))
    return {"CPU": f"{os.cpu_count()} x {model.group(1) if model else platform.machine()}", "memory": f"{total / MIB:.1f} GiB",
            "kernel": f"{platform.system()} {platform.release()}", "Python": platform.python_version(),
            "file system": subprocess.check_output(["stat", "-f", "-c", "%T", str(work)], text=True).strip(), "caches": "warm: none dropped",
            "date": time.strftime("%Y-%m-%d")}


def size(source: Path) -> dict[str, int]:
    entries = sum(1 + len(files) + sum(os.path.islink(os.path.join(folder, name)) for name in folders) for folder, folders, files in os.walk(source))
    return {"entries": entries, "bytes": int(subprocess.check_output(["du", "-s", "-B1", str(source)]).split()[0])}


class Medians:
    """Medians of one set's runs; None where there is no such run."""

    def __init__(self, results: dict) -> None:
        self.steps = results["steps"]

    def get(self, step: str, peer: str, what: str, kind: str = "") -> float | None:
        runs = self.steps.get(step, {}).get(peer, {}).get("runs", [])
        values = [run[what][kind] if kind else run[what] for run in runs if what in run]
        return statistics.median(values) if values else None

    def ratio(self, step: str, peer: str, other: str, what: str, kind: str = "", other_step: str = "") -> float | None:
        mine, theirs = self.get(step, peer, what, kind), self.get(other_step or step, other, what, kind)
        return mine / theirs if mine is not None and theirs else None


def aims(outcome: dict) -> list[tuple[str, str, float, float, str]]:
    """(set, aim, limit, reached, unit) for each aim of the design that these runs can judge."""
    found: list[tuple[str, str, float | None, float, str]] = []
    for name, results in outcome["sets"].items():
        medians = Medians(results)

        def add(text: str, limit: float, reached: float | None, unit: str = "", name: str = name) -> None:
            found.append((name, text, limit, reached, unit))

        for suffix in ("", ", uncompressed"):
            mine, restic = VOLT + suffix, "restic" + suffix
            add(f"first backup{suffix}: CPU of restic's", 0.4, medians.ratio("first", mine, restic, "cpu"))
            add(f"first backup{suffix}: wall of restic's", 0.5, medians.ratio("first", mine, restic, "wall"))
            add(f"first backup{suffix}: bytes stored of restic's", 1.0, medians.ratio("first", mine, restic, "stored", "apparent"))
        if name in "RM":
            add("nothing changed: CPU of restic's", 0.2, medians.ratio("unchanged", VOLT, "restic", "cpu"))
        if name == "M":
            add("nothing changed: CPU of find's", 2.5, medians.ratio("unchanged", VOLT, "find -printf", "cpu"))
        if name == "S":
            new = medians.get("changed", VOLT, "new", "apparent")
            add("changed: new data", 51, new and new / MIB, "MiB")
            add("restore by reflink: CPU", 1.0, medians.get("restore_reflink", VOLT, "cpu"), "s")
            grown = medians.get("restore_reflink", VOLT, "grown")
            add("restore by reflink: blocks not shared (our reading: 5% of the tree)", 0.05 * results["bytes"] / MIB, grown and grown / MIB, "MiB")
        if name == "V":
            add("changed: new bytes of restic's", 1.1, medians.ratio("changed", VOLT, "restic", "new", "apparent"))
        add("restore by copy: CPU of cp -a's", 1.5, medians.ratio("restore", VOLT, "cp -a", "cpu"))
        add("restore by copy: CPU of restic's", 0.4, medians.ratio("restore", VOLT, "restic", "cpu"))
        add("restore over 1%: wall of its own whole restore (our reading: a quarter)", 0.25,
            medians.ratio("restore_over", VOLT, VOLT, "wall", other_step="restore"))
        if name == "M":
            peaks = [medians.get(step, peer, "memory") for step in STEPS for peer in (VOLT, VOLT + ", uncompressed")]
            add("memory, most of any command", 300, max((peak / 1e6 for peak in peaks if peak), default=None), "MB")
    return [aim for aim in found if aim[3] is not None]


def markdown(outcome: dict) -> str:
    lines = ["# Benchmarks", "", "; ".join(f"{key}: {value}" for key, value in outcome["machine"].items()) + ".", ""]
    lines += [f"Medians of {outcome['rounds']} interleaved rounds. CPU is user + system of the whole process tree, memory the peak of the largest process.",
              "Stored and new bytes are file sizes (`du --apparent-size`); allocated is what they take on disk.", ""]
    lines += ["Versions: " + "; ".join(f"{name}: {version}" for name, version in outcome["versions"].items()) + "."]
    lines += [f"Skipped: {name} ({reason})." for name, reason in outcome["skipped"].items()]
    judged = aims(outcome)
    if judged:
        lines += ["", "## Aims", "", "| set | aim | at most | reached | |", "|---|---|--:|--:|---|"]
        lines += [f"| {name} | {text} | {limit:.4g} {unit} | {reached:.3g} {unit} | {'met' if reached <= limit else '**not met**'} |"
                  for name, text, limit, reached, unit in judged]
    for name, results in outcome["sets"].items():
        if not results["steps"]:
            continue
        lines += ["", f"## {name}: {results['title']}", "", f"{results['entries']:,} entries, {results['bytes'] / 1e6:,.0f} MB on disk."]
        if "equal" in results:
            lines += [f"What {VOLT} restored {'equals' if results['equal'] else '**DIFFERS FROM**'} the source, says rsync, reading all content."]
        lines += ["", "| step | peer | CPU s | wall s | memory MB | stored MB | new MB | allocated MB |", "|---|---|--:|--:|--:|--:|--:|--:|"]
        medians = Medians(results)
        for step, title in STEPS.items():
            for peer, record in results["steps"].get(step, {}).items():
                if record.get("failed"):
                    failure = " ".join(record["failed"].split()).replace("|", "\\|")
                    lines.append(f"| {title} | {peer} | failed: {failure} |")
                if record["runs"]:
                    cells = [_number(medians.get(step, peer, "cpu"), 1, 2), _number(medians.get(step, peer, "wall"), 1, 2)]
                    cells += [_number(medians.get(step, peer, "memory"), 1e6, 0)]
                    cells += [_number(medians.get(step, peer, what, kind), 1e6, 1)
                              for what, kind in (("stored", "apparent"), ("new", "apparent"), ("stored", "allocated"))]
                    lines.append(f"| {title} | {peer} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(outcome: dict, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    name = time.strftime("%Y%m%d-%H%M%S")
    (folder / f"{name}.json").write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
    text = folder / f"{name}.md"
    text.write_text(markdown(outcome), encoding="utf-8")
    return text


def _number(value: float | None, unit: float, digits: int) -> str:
    return "" if value is None else f"{value / unit:,.{digits}f}"


if __name__ == "__main__":
    # python3 benchmarks/report.py RESULT.json: the table again, from what was measured.
    sys.stdout.write(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
