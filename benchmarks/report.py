# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome as JSON and as Markdown: every cost, and each aim of the design beside what was reached."""

from __future__ import annotations

import argparse
import html
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
         "restore_reflink": "restore by reflink (XFS)", "start": "list, empty store", "listing": "list", "restore_oldest": "restore the oldest",
         "restore_over_unknown": "restore over 1%, nothing known of the target", "structure": "verify, structure", "content": "verify, content",
         "prune": "prune half", "collect_dry": "gc, check mode", "collect": "gc", "list_after": "list after it", "backup_after": "backup after it"}
VOLT = "volt.backup"
#: Of a store with a history: the columns, and CPU seconds at most by step.
PEERS = (VOLT, "restic", "borg", "rsync --link-dest", "tar, zstd")
AIMS = {"start": 0.07, "unchanged": 0.14, "listing": 0.1, "restore": 1.0, "restore_oldest": 1.0, "restore_over": 0.45}
LATER, FREED, MANY = 0.6, 1.5, 0.1  # more where the target is unknown; prune and gc; more in a store of many packs
TASK = (0.1, 0.06)  # a task over ping: seconds that pass, CPU seconds of the host


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
            "kernel": f"{platform.system()} {platform.release()}",
            "file system": subprocess.check_output(["stat", "-f", "-c", "%T", str(work)], text=True).strip(),
            "load when it began": f"{os.getloadavg()[0]:.1f}", "date": time.strftime("%Y-%m-%d")}


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

    def more(self, step: str, other: str) -> float | None:
        mine, theirs = self.get(step, VOLT, "cpu"), self.get(other, VOLT, "cpu")
        return mine - theirs if mine is not None and theirs is not None else None

    def sum(self, peer: str, *steps: str) -> float | None:
        values = [value for value in (self.get(step, peer, "cpu") for step in steps) if value is not None]
        return sum(values) if len(values) == len(steps) else None

    def ratio(self, step: str, peer: str, other: str, what: str, kind: str = "", other_step: str = "") -> float | None:
        mine, theirs = self.get(step, peer, what, kind), self.get(other_step or step, other, what, kind)
        return mine / theirs if mine is not None and theirs else None


def aims(outcome: dict) -> list[tuple[str, str, float, float, str]]:
    """(set, aim, limit, reached, unit) for each aim of the design that these runs can judge."""
    found: list[tuple[str, str, float | None, float, str]] = []
    for name, results in outcome["sets"].items():
        if name in ("history", "packs"):
            continue
        medians = Medians(results)

        def add(text: str, limit: float, reached: float | None, unit: str = "", name: str = name) -> None:
            found.append((name, text, limit, reached, unit))

        for suffix in ("", ", uncompressed"):
            mine, restic = VOLT + suffix, "restic" + suffix
            add(f"first backup{suffix}: CPU of restic's", 0.35, medians.ratio("first", mine, restic, "cpu"))
            add(f"first backup{suffix}: wall of restic's", 0.5, medians.ratio("first", mine, restic, "wall"))
            add(f"first backup{suffix}: bytes stored of restic's", 1.0, medians.ratio("first", mine, restic, "stored", "apparent"))
        if name in "RM":
            add("nothing changed: CPU of restic's", 0.2, medians.ratio("unchanged", VOLT, "restic", "cpu"))
        if name == "M":
            add("nothing changed: CPU of find's", 2.0, medians.ratio("unchanged", VOLT, "find -printf", "cpu"))
        if name == "S":
            new = medians.get("changed", VOLT, "new", "apparent")
            add("changed: new data", 51, new and new / MIB, "MiB")
            add("restore by reflink: CPU", 1.0, medians.get("restore_reflink", VOLT, "cpu"), "s")
            grown = medians.get("restore_reflink", VOLT, "grown")
            add("restore by reflink: blocks not shared (our reading: 5% of the tree)", 0.05 * results["bytes"] / MIB, grown and grown / MIB, "MiB")
        if name == "V":
            add("changed: new bytes of restic's", 1.1, medians.ratio("changed", VOLT, "restic", "new", "apparent"))
        add("restore by copy: CPU of cp -a's", 1.5, medians.ratio("restore", VOLT, "cp -a", "cpu"))
        add("restore by copy: CPU of restic's", 0.5, medians.ratio("restore", VOLT, "restic", "cpu"))
        add("restore over 1%: wall of its own whole restore (our reading: a quarter)", 0.25,
            medians.ratio("restore_over", VOLT, VOLT, "wall", other_step="restore"))
        if name == "M":
            peaks = [medians.get(step, peer, "memory") for step in STEPS for peer in (VOLT, VOLT + ", uncompressed")]
            add("memory, most of any command", 300, max((peak / 1e6 for peak in peaks if peak), default=None), "MB")
    return [aim for aim in found if aim[3] is not None] + upkeep_aims(outcome)


def upkeep_aims(outcome: dict) -> list[tuple[str, str, float, float, str]]:
    """The same for a store with a history, for one with many packs, and for tasks over ssh."""
    found: list[tuple[str, str, float, float | None, str]] = []
    history = Medians(outcome["sets"].get("history", {"steps": {}}))
    for step, limit in AIMS.items():
        found.append(("history", f"{STEPS[step]}: CPU", limit, history.get(step, VOLT, "cpu"), "s"))
    found.append(("history", "restore over 1%, nothing known of the target: CPU more", LATER, history.more("restore_over_unknown", "restore_over"), "s"))
    found.append(("history", "prune half and gc: CPU", FREED, history.sum(VOLT, "prune", "collect"), "s"))
    packs = outcome["sets"].get("packs", {"packs": 0, "steps": {}})
    for step in packs["steps"]:
        many, few = (Medians(packs).get(step, name, "cpu") for name in (f"{packs['packs']:,} packs", "empty store"))
        found.append(("packs", f"{step}: CPU more than in an empty store", MANY, many - few if many is not None and few is not None else None, "s"))
    for way, named in outcome.get("tasks", {}).items():
        for name, cost in named.items():
            for limit, what, text in ((TASK[0], "wall", "wall"), (TASK[1], "host", "CPU of the host")):
                if name != "ping":
                    found.append((f"ssh, {way}", f"{name} over ping: {text}", limit, cost[what] - named["ping"][what], "s"))
    return [aim for aim in found if aim[3] is not None]


def markdown(outcome: dict) -> str:
    lines = ["# Benchmarks", "", "; ".join(f"{key}: {value}" for key, value in outcome["machine"].items()) + ".", ""]
    lines += [f"Medians of {outcome['rounds']} interleaved rounds. CPU is user + system of the whole process tree, memory the peak of the largest process.",
              "Stored and new bytes are file sizes (`du --apparent-size`); allocated is what they take on disk.", ""]
    lines += ["Versions: " + "; ".join(outcome["versions"].values()) + "."]
    lines += [f"Skipped: {name} ({reason})." for name, reason in outcome["skipped"].items()]
    judged = aims(outcome)
    if judged:
        lines += ["", "## Aims", "", "| set | aim | at most | reached | |", "|---|---|--:|--:|---|"]
        lines += [f"| {name} | {text} | {limit:.4g} {unit} | {reached:.3g} {unit} | {'met' if reached <= limit else '**not met**'} |"
                  for name, text, limit, reached, unit in judged]
    for name, results in outcome["sets"].items():
        if not results["steps"]:
            continue
        lines += ["", f"## {name}: {results['title']}", ""]
        lines += [f"{results['entries']:,} entries, {results['bytes'] / 1e6:,.0f} MB on disk."] if "entries" in results else []
        if "equal" in results:
            lines += [f"What {VOLT} restored {'equals' if results['equal'] else '**DIFFERS FROM**'} the source, says rsync, reading all content."]
        lines += ["", "| step | peer | CPU s | wall s | memory MB | stored MB | new MB | allocated MB |", "|---|---|--:|--:|--:|--:|--:|--:|"]
        medians = Medians(results)
        for step, named in results["steps"].items():
            title = step_title(step)
            for peer, record in sorted(named.items()):
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
    name = outcome["name"] = time.strftime("%Y%m%d-%H%M%S")
    # One line for each run: shorter, and a comparison of two files shows what differs.
    text = re.sub(r"\{[^{}\[\]]*\}", lambda found: " ".join(found[0].split()), json.dumps(outcome, indent=1))
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    table = folder / f"{name}.md"
    table.write_text(markdown(outcome), encoding="utf-8")
    return table


def step_title(step: str) -> str:
    name, comma, more = step.partition(",")
    return STEPS.get(name, name) + comma + more


def docs(outcome: dict, pictures: Path) -> str:
    """The tables of docs/benchmarks.md. Charts of a history go to `pictures`."""
    facts = "; ".join(f"{key}: {value}" for key, value in outcome["machine"].items())
    lines = [f"{facts}.", "", f"Versions: {'; '.join(outcome['versions'].values())}.", ""]
    lines += ["CPU seconds are user and system seconds of all processes of a command, the median of the rounds."]
    lines += [f"{outcome['rounds']} rounds; the order of the programs is drawn for each step."]
    lines += [f"All figures: [{outcome['name']}.md](../benchmarks/results/{outcome['name']}.md)."]
    lines += [f"Not measured: {name} ({reason})." for name, reason in outcome["skipped"].items()]
    for name, results in outcome["sets"].items():
        if name == "history":
            lines += _history(results, pictures)
        elif name == "packs":
            lines += _packs(results)
        else:
            lines += _set(name, results)
    return "\n".join(lines + _tasks(outcome.get("tasks", {}))) + "\n"


def _table(first: str, columns: list[str], rows: list[list[str]]) -> list[str]:
    kept = [number for number in range(len(columns)) if any(row[number + 1] for row in rows)]
    lines = ["", "| " + " | ".join([first, *(columns[number] for number in kept)]) + " |", "|---|" + "--:|" * len(kept)]
    return lines + ["| " + " | ".join([row[0], *(row[number + 1] for number in kept)]) + " |" for row in rows]


def _history(results: dict, pictures: Path) -> list[str]:
    medians = Medians(results)
    count = results["backups"]
    lines = ["", "### A store with a history", "", f"{count} backups of R ({results['entries']:,} entries, {results['bytes'] / 1e6:,.0f} MB)."]
    lines += ["Before each, 1% of the files changed. What changes the store is measured once."]
    known = {**AIMS, "restore_over_unknown": AIMS["restore_over"] + LATER}
    titles = {"listing": f"list, {count} backups", "restore": "restore the newest", "restore_over": "restore over 1%, target known by its stat cache"}
    rows = []
    for step in sorted(results["steps"], key=lambda step: step not in known):
        cells = [_number(medians.get(step, peer, "cpu"), 1, 2) for peer in PEERS]
        rows.append([titles.get(step, STEPS[step]), f"{known[step]:.2f}" if step in known else "", *cells])
    freed = [_number(medians.sum(peer, "prune", "collect"), 1, 2) for peer in PEERS]
    rows.insert(len(known), ["prune half, then gc", f"{FREED:.2f}", *freed])
    lines += _table("step", ["aim", *PEERS], rows)
    sizes = [f"{name} {before / 1e6:,.0f} and {after / 1e6:,.0f}" for name, (before, after) in results["sizes"].items()]
    lines += ["", f"Stored before and after gc, MB: {'; '.join(sizes)}."]
    charts = {"cpu": ("CPU seconds of each backup after the first", 1.0, 1), "memory": ("Memory of each backup, MB", 1e6, 0),
              "stored": ("Stored after each backup, MB", 1e6, 0)}  # fmt: skip
    for what, (title, unit, start) in charts.items():
        series = {name: [(number + 1, run[what] / unit) for number, run in enumerate(runs)][start:] for name, runs in results["series"].items()}
        (pictures / f"benchmarks-{what}.svg").write_text(chart(title, series), encoding="utf-8")
        lines += ["", f"![{title}](pictures/benchmarks-{what}.svg)"]
    return lines


def _set(name: str, results: dict) -> list[str]:
    medians = Medians(results)
    columns = [VOLT, "restic", "borg", "tar, zstd", "rsync --link-dest", "cp -a", "find -printf"]
    warm = [step for step in results["steps"] if not step.endswith(", cold")]
    rows = [[STEPS[step], *(_number(medians.get(step, peer, "cpu"), 1, 2) for peer in columns)] for step in warm]
    rows[1:1] = [["first backup, uncompressed", *(_number(medians.get("first", f"{peer}, uncompressed", "cpu"), 1, 2) for peer in columns)],
                 ["first backup, MB stored", *(_number(medians.get("first", peer, "stored", "apparent"), 1e6, 0) for peer in columns)]]  # fmt: skip
    lines = ["", f"### {name}: {results['title']}", "", f"{results['entries']:,} entries, {results['bytes'] / 1e6:,.0f} MB; caches warm."]
    lines += _table("step", columns, rows)
    cold = [step for step in results["steps"] if step.endswith(", cold")]
    cells = [[STEPS[step[:-6]], *(_pair(medians.get(step, peer, "cpu"), medians.get(step, peer, "wall")) for peer in columns)] for step in cold]
    return lines + (["", "Caches cold: CPU seconds, and in parentheses the seconds that pass.", *_table("step", columns, cells)] if cold else [])


def _packs(results: dict) -> list[str]:
    medians = Medians(results)
    columns = [f"{results['packs']:,} packs", "empty store"]
    rows = [[step, *(_number(medians.get(step, name, "cpu"), 1, 2) for name in columns)] for step in results["steps"]]
    return ["", "### Many packs", "", f"Aim: at most {MANY} more than in an empty store.", *_table("step", columns, rows)]


def _tasks(tasks: dict) -> list[str]:
    if not tasks:
        return []
    rows = []
    for way, named in tasks.items():
        ping = named["ping"]
        for name, cost in sorted(named.items()):
            more = [f"{cost['wall'] - ping['wall']:.2f}", f"{(cost['host'] - ping['host']) * 1000:.0f}"] if name != "ping" else ["", ""]
            rows.append([f"{name}, {way}", f"{cost['wall']:.2f}", f"{cost['host'] * 1000:.0f}", *more, f"{cost['first']:.1f}"])
    text = ["A task over ssh, to a host that is up. `volt_backup_info` has no store to look at, `volt_backup` finds nothing changed in /etc, or in",
            "one file. The columns but the last are of each further task of a run; in its first one, Ansible makes the archive that it sends.",
            f"Aim: at most {TASK[0]} s and {TASK[1] * 1000:.0f} ms of the host's CPU over `ping`."]  # fmt: skip
    columns = ["s", "host, ms", "over ping, s", "over ping, host, ms", "run of one task, s"]
    return ["", "### A task over ssh", "", *text, *_table("task", columns, rows)]


def _pair(cpu: float | None, wall: float | None) -> str:
    return "" if cpu is None or wall is None else f"{cpu:.2f} ({wall:.1f})"


#: A line's colour and dashes; readable on the dark ground that a chart brings along.
_LINES = (("#8fbcbb", ""), ("#d7a65f", "7 3"), ("#d7827e", "2 3"), ("#b48ead", "9 3 2 3"))
_WIDE, _HIGH, _LEFT, _TOP, _LOW = 640, 260, 52, 48, 34


def chart(title: str, series: dict[str, list[tuple[int, float]]]) -> str:
    """Lines over the number of the backup, as SVG."""
    title = html.escape(title)
    points = [point for line in series.values() for point in line]
    last, most = max(x for x, _y in points), max(y for _x, y in points) or 1
    step = next(size for power in range(-6, 12) for size in (10.0**power, 2 * 10.0**power, 5 * 10.0**power) if most / size <= 5)
    top = step * -(-most // step)

    def place(x: float, y: float) -> str:
        return f"{_LEFT + x / last * (_WIDE - _LEFT - 16):.1f},{_HIGH - _LOW - y / top * (_HIGH - _TOP - _LOW):.1f}"

    shown = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_HIGH}" width="{_WIDE}" height="{_HIGH}" role="img" aria-label="{title}">',
             f'<rect width="{_WIDE}" height="{_HIGH}" rx="8" fill="#1f2430"/>',
             '<g fill="#d8dee9" font-family="system-ui, DejaVu Sans, sans-serif" font-size="12">',
             f'<text x="16" y="22" font-size="14">{title}</text>']  # fmt: skip
    for number in range(round(top / step) + 1):
        left, height = place(0, number * step).split(",")
        shown += [f'<path d="M{left},{height}H{_WIDE - 16}" stroke="#4c566a" stroke-width="1"/>',
                  f'<text x="{_LEFT - 6}" y="{float(height) + 4:.1f}" text-anchor="end">{number * step:,g}</text>']  # fmt: skip
    for number in range(0, last + 1, max(1, last // 5)):
        shown.append(f'<text x="{place(number, 0).split(",")[0]}" y="{_HIGH - 12}" text-anchor="middle">{number}</text>')
    for number, ((name, line), (colour, dashes)) in enumerate(zip(series.items(), _LINES)):
        stroke = f'fill="none" stroke="{colour}" stroke-width="2"' + (f' stroke-dasharray="{dashes}"' if dashes else "")
        key = _LEFT + number * 130
        shown += [f'<path d="M{key},36h24" {stroke}/><text x="{key + 30}" y="40">{html.escape(name)}</text>',
                  f'<polyline points="{" ".join(place(*point) for point in line)}" {stroke}/>']  # fmt: skip
    return "\n".join([*shown, "</g>", "</svg>", ""])


def _number(value: float | None, unit: float, digits: int) -> str:
    return "" if value is None else f"{value / unit:,.{digits}f}"


if __name__ == "__main__":
    # python3 benchmarks/report.py RESULT.json: the table again, from what was measured.
    sys.stdout.write(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
