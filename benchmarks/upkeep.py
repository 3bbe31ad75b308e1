# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# python3 benchmarks/upkeep.py --set R --backups 50
# python3 benchmarks/upkeep.py --set M --backups 50 --only volt
"""Measure what keeps a store in order, beside restic and borg: listing, verifying, pruning half of all backups, collecting.

Each backup but the first is of a source of which 1% has changed. Needs root; everything made is removed again, the table is printed and
goes to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import measure  # noqa: E402  # pylint: disable=wrong-import-position
import peers as tools  # noqa: E402  # pylint: disable=wrong-import-position
import report  # noqa: E402  # pylint: disable=wrong-import-position
import sets  # noqa: E402  # pylint: disable=wrong-import-position
from rigs import mounts  # noqa: E402  # pylint: disable=wrong-import-position

STEPS = (
    "start", "nothing changed", "list", "restore the newest", "restore the oldest", "restore over 1%", "structure", "content", "info", "prune", "collect, dry",
    "collect", "list after", "backup after",
)


def volt(peer: tools.Volt, keep: int) -> dict[str, list[str]]:
    def word(*words: str) -> list[str]:
        return [*peer.command, *words, *peer.places]

    oldest = json.loads(subprocess.check_output([*word("list"), "--json"], env={**os.environ, **peer.env}))["backups"][-1]["id"]
    return {
        "start": [*peer.command, "--version"],
        "nothing changed": peer.unchanged(),
        "list": word("list"),
        "restore the newest": word("restore", "latest", "--target", str(peer.room / "target"), "--link", "copy"),
        "restore the oldest": word("restore", oldest, "--target", str(peer.room / "old"), "--link", "copy"),
        "restore over 1%": word("restore", "latest", "--target", str(peer.room / "target"), "--link", "copy", "--force", "--strategy", "in_place"),
        "structure": word("verify"),
        "content": word("verify", "--content"),
        "info": [sys.executable, "-c", INFO, str(peer.store / "cas"), str(peer.store / "backups")],
        "prune": word("prune", "bench", "--keep", str(keep)),
        "collect, dry": word("gc", "--grace", "0s", "--dry-run"),
        "collect": word("gc", "--grace", "0s"),
        "list after": word("list"),
        "backup after": peer.changed(),
    }


INFO = (
    "import sys; from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager; print(Manager(*sys.argv[1:]).usage())"
)


def restic(peer: tools.Restic, keep: int) -> dict[str, list[str]]:
    return {
        "start": ["restic", "version"],
        "nothing changed": peer.unchanged(),
        "list": ["restic", "snapshots"],
        "restore the newest": ["restic", "--quiet", "restore", "latest", "--target", str(peer.room / "target")],
        "restore the oldest": ["restic", "--quiet", "restore", _oldest(peer), "--target", str(peer.room / "old")],
        "restore over 1%": ["restic", "--quiet", "restore", "latest", "--target", str(peer.room / "target")],
        "structure": ["restic", "--quiet", "check"],
        "content": ["restic", "--quiet", "check", "--read-data"],
        "info": ["restic", "stats", "--mode", "raw-data"],
        "prune": ["restic", "--quiet", "forget", "--keep-last", str(keep)],
        "collect, dry": ["restic", "--quiet", "prune", "--dry-run"],
        "collect": ["restic", "--quiet", "prune"],
        "list after": ["restic", "snapshots"],
        "backup after": peer.changed(),
    }


def _oldest(peer: tools.Restic) -> str:
    found = json.loads(subprocess.check_output(["restic", "snapshots", "--json"], env={**os.environ, **peer.env}))
    return str(min(found, key=lambda snapshot: snapshot["time"])["id"])


def borg(peer: tools.Borg, keep: int) -> dict[str, list[str]]:
    for name in ("target", "old"):
        (peer.room / name).mkdir()
    return {
        "start": ["borg", "--version"],
        "nothing changed": peer.unchanged(),
        "list": ["borg", "list", str(peer.store)],
        "restore the newest": peer.restore(peer.room / "target"),
        "restore the oldest": ["borg", "extract", "--numeric-ids", f"{peer.store}::1"],
        "restore over 1%": peer.restore(peer.room / "target"),
        "structure": ["borg", "check", str(peer.store)],
        "content": ["borg", "check", "--verify-data", str(peer.store)],
        "info": ["borg", "info", str(peer.store)],
        "prune": ["borg", "prune", "--keep-last", str(keep), str(peer.store)],
        "collect": ["borg", "compact", str(peer.store)],
        "list after": ["borg", "list", str(peer.store)],
        "backup after": peer.changed(),
    }


PEERS = {"volt": (tools.Volt, volt), "restic": (tools.Restic, restic), "borg": (tools.Borg, borg)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--set", default="R", choices=("R", "M"))
    options.add_argument("--files", type=int, default=1_000_000, help="files in M (default: %(default)s)")
    options.add_argument("--backups", type=int, default=50)
    options.add_argument("--only", choices=PEERS, action="append")
    options.add_argument("--room", default=None, help="where to work (default: the system's temporary directory)")
    args = options.parse_args()
    costs: dict[str, dict[str, measure.Cost]] = {step: {} for step in STEPS}
    sizes: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory(dir=args.room) as scratch, mounts.mount("ext4", scratch, 120 * mounts.GIB) as disk:
        (data,) = sets.make([args.set], disk, args.files)
        data.build()
        time.sleep(3)
        present = []
        for name in args.only or PEERS:
            (disk / name).mkdir()
            peer = PEERS[name][0](disk / name, data.source)
            missing = peer.missing()
            if missing:
                print(f"{peer.name}: {missing}", file=sys.stderr)
                continue
            peer.prepare()
            present.append((name, peer))
        for number in range(args.backups):
            if number:
                sets.rewrite(data.source, 100, random.Random(f"change {number}"))
                time.sleep(3)
            for _name, peer in present:
                done = measure.run(peer.first(), data.source, peer.env)
                if done.status:
                    raise SystemExit(f"{peer.name}: {done.errors}")
            print(f"backup {number + 1}", file=sys.stderr)
        for name, peer in present:
            for step, command in PEERS[name][1](peer, args.backups // 2).items():
                before = measure.stored(peer.store)["apparent"]
                if step == "restore over 1%":
                    sets.rewrite(peer.room / "target", 100, random.Random("spoil"))
                    time.sleep(3)
                cost = costs[step][peer.name] = measure.run(command, _where(peer, step), peer.env)
                trouble = cost.errors[-300:] if cost.status else ""
                print(f"{peer.name} {step}: {cost.cpu:.1f} CPU s, {cost.wall:.1f} s, {cost.memory >> 20} MiB {trouble}", file=sys.stderr)
                if step == "collect":
                    sizes[peer.name] = [before, measure.stored(peer.store)["apparent"]]
        text = table(args, report.machine(disk), report.size(data.source), costs, sizes)
    print(text)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / f"upkeep-{args.set}-{time.strftime('%Y%m%d-%H%M%S')}.md").write_text(text, encoding="utf-8")


def _where(peer: tools.Peer, step: str) -> Path:
    """Where a command runs: borg extracts into its working directory."""
    if isinstance(peer, tools.Borg) and step.startswith("restore"):
        return peer.room / ("old" if step == "restore the oldest" else "target")
    return peer.source


def table(args: argparse.Namespace, machine: dict[str, str], size: dict[str, int], costs: dict, sizes: dict) -> str:
    names = list(costs["list"])
    lines = [f"# Upkeep of {args.backups} backups of {args.set}: {size['entries']:,} entries, {size['bytes'] >> 20} MiB", ""]
    lines += [", ".join(f"{key}: {value}" for key, value in machine.items()), ""]
    lines += ["CPU seconds (memory of the largest process in MiB).", "", f"| step | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for step in STEPS:
        cells = [f"{costs[step][name].cpu:.2f} ({costs[step][name].memory >> 20})" if name in costs[step] else "" for name in names]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    for name, (before, after) in sizes.items():
        lines.append(f"\n{name}: {before / 1e6:.0f} MB before collecting, {after / 1e6:.0f} MB after.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
