# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# python3 benchmarks/run.py --sets R,M --rounds 3
"""Measure this engine beside restic, borg, tar with zstd, rsync, cp and find, on real sets, in turn, several rounds.

For each set and round: an empty store each; first backup, nothing changed, changed, list, restore, restore over a tree that differs in
1%; on S also a restore by reflink on XFS. The order of the peers is drawn for each step. Then rounds with cold caches: first backup, nothing changed,
list and restore, each after the kernel has dropped all that it had cached.
Each round's stores and targets lie on a fresh ext4 of their own, nothing is deleted there before the round is over: where many
files have just been deleted, ext4 looks past their inodes for minutes (a `cp -a` of 1 CPU s then took 10).
Needs root, and room for some twelve copies of a set. Everything made is removed again; the tables go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
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
from rigs import Unavailable, mounts, oracle  # noqa: E402  # pylint: disable=wrong-import-position

# A stat cache may distrust what changed within the last seconds before it looked; no peer shall pay for the harness's haste.
SETTLE = 3
DISK = 120 * mounts.GIB  # as it seems; the image is sparse
#: Those that have a part in the rounds with cold caches.
COLD = (tools.Volt, tools.Restic, tools.Borg, tools.Tar, tools.Rsync)


class Bench:
    """One set: runs the peers, step by step, and keeps what each cost."""

    def __init__(self, data: sets.Set, classes: list, results: dict) -> None:
        self.data = data
        self.classes = classes
        self.results = results
        self.record = measure.Record(results, data.room)
        self.failed: set[str] = set()  # without a backup there is nothing more to measure
        self.dice = random.Random(f"order {data.name}")

    def round(self, number: int) -> None:
        self.data.renew()
        self.results.update(report.size(self.data.source))
        time.sleep(SETTLE)
        with mounts.mount("ext4", self.data.room, DISK) as disk:
            self.steps(number, disk)
        if self.data.name == "S":
            self.reflink()

    def cold(self) -> None:
        """One round with cold caches."""
        self.data.renew()
        time.sleep(SETTLE)
        with mounts.mount("ext4", self.data.room, DISK) as disk:
            present = [peer for peer in self.start(disk, self.data.source) if type(peer) in COLD]
            for step in ("first", "unchanged", "listing", "restore"):
                for peer in self.shuffled(present):
                    self.step(peer, step, peer.room / "target", cold=True)

    def steps(self, number: int, disk: Path) -> None:
        present = self.start(disk, self.data.source)
        for step in ("first", "unchanged", "changed", "listing"):
            if step == "changed":
                self.data.change(number)
                time.sleep(SETTLE)
            for peer in self.shuffled(present):
                self.step(peer, step)
        for peer in self.shuffled(present):
            target = peer.room / "target"
            if self.step(peer, "restore", target):
                self.data.spoil(target, number)
                time.sleep(SETTLE)
                self.step(peer, "restore_over", target)
                if isinstance(peer, tools.Volt) and number == 0:
                    self.check(peer, target)

    def shuffled(self, present: list) -> list:
        return self.dice.sample(present, len(present))

    def reflink(self) -> None:
        """Source, store and target on one XFS, where blocks can be shared."""
        with mounts.mount("xfs", self.data.room, 12 * mounts.GIB) as disk:
            source = disk / "source"
            subprocess.run(["cp", "-a", str(self.data.source), str(source)], check=True)
            time.sleep(SETTLE)
            for peer in self.start(disk / "peers", source):
                target = peer.room / "target"
                if not peer.plain and peer.restore_reflink(target):
                    peer.learn("first", peer.run(*(peer.first() or ["true"])))
                    os.sync()
                    before = os.statvfs(disk).f_bfree
                    run = self.step(peer, "restore_reflink", target)
                    os.sync()
                    if run:
                        run["grown"] = (before - os.statvfs(disk).f_bfree) * os.statvfs(disk).f_frsize

    def start(self, room: Path, source: Path) -> list:
        present = []
        for number, kind in enumerate(self.classes):
            if kind.name not in self.failed:
                where = room / str(number)
                where.mkdir(parents=True)
                peer = kind(where, source)
                peer.prepare()
                present.append(peer)
        return present

    def step(self, peer: tools.Peer, name: str, target: Path = Path(), cold: bool = False) -> dict | None:
        """Run one step of one peer; a failure of a backup ends the peer's part in this set."""
        if peer.name in self.failed or (peer.plain and name != "first"):
            return None
        method = getattr(peer, name)
        command = method(target) if name.startswith("restore") else method()
        if command is None:
            return None
        creates = name in ("first", "unchanged", "changed")
        run, output = self.record.step(peer, f"{name}, cold" if cold else name, command, peer.cwd(name, target), creates and not peer.discard, cold)
        if run is None:
            self.failed |= {peer.name} if creates else set()
        else:
            peer.learn(name, output)
        return run

    def check(self, peer: tools.Peer, target: Path) -> None:
        """A fast restore of something else is worth nothing."""
        if peer.name not in self.failed:
            found = oracle.rsync(os.fsencode(self.data.source), os.fsencode(target))
            self.results["equal"] = not found
            for line in found[:10]:
                say("    differs: " + line)


def main() -> None:
    arguments = parse()
    # Ending by a signal, too, goes through every `finally`: nothing stays mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.geteuid() != 0:
        sys.exit("needs root: the sets hold device nodes and foreign owners")
    room = Path(tempfile.mkdtemp(prefix="volt-bench-", dir=arguments.work))
    try:
        written = report.write(rounds(arguments, room), HERE / "results")
        say(f"\n{written.read_text(encoding='utf-8')}\nwritten to {written.relative_to(HERE.parent)}")
    finally:
        if arguments.keep:
            say(f"kept: {room}")
        else:
            shutil.rmtree(room)


def rounds(arguments: argparse.Namespace, room: Path) -> dict:
    """All sets, and what each step cost each peer."""
    outcome: dict = {"skipped": {}, "versions": {}, "sets": {}, "rounds": arguments.rounds, "machine": report.machine(room)}
    classes = available(arguments.peers, room, outcome)
    for data in sets.make(arguments.sets, room, arguments.files):
        say(f"{data.name}: {data.title}")
        results = outcome["sets"][data.name] = {"title": data.title, "steps": {}}
        try:
            data.build()
            bench = Bench(data, classes, results)
            for number in range(arguments.rounds):
                say(f" round {number + 1} of {arguments.rounds}")
                bench.round(number)
            for number in range(arguments.cold):
                say(f" round {number + 1} of {arguments.cold}, cold caches")
                bench.cold()
        except Unavailable as lack:
            outcome["skipped"][f"set {data.name}"] = str(lack)
            say(f"  skipped: {lack}")
        finally:
            if not arguments.keep:
                shutil.rmtree(data.room)
    return outcome


def available(names: list[str], room: Path, outcome: dict) -> list:
    """The peers that can run here; the others are named in the report."""
    classes = []
    for name in names:
        for kind in tools.ALL[name]:
            where = room / "probe" / kind.__name__
            where.mkdir(parents=True)
            peer = kind(where, where)
            lack = peer.missing()
            if lack:
                outcome["skipped"][kind.name] = lack
                say(f"skipped: {kind.name}: {lack}")
            else:
                classes.append(kind)
                outcome["versions"].setdefault(tools.ALL[name][0].name, peer.version())
    return classes


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_options(parser, list("RSVM"))
    return parser.parse_args()


def add_options(parser: argparse.ArgumentParser, names: list[str]) -> None:
    """:param names: of the sets that are measured by default."""
    parser.add_argument("--sets", type=report.among("RSVM"), default=names, help=f"of R,S,V,M (default: {','.join(names)})")
    parser.add_argument("--peers", type=report.among(tools.ALL), default=list(tools.ALL), help="of " + ",".join(tools.ALL))
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--cold", type=int, default=2, help="rounds with cold caches (default: %(default)s)")
    parser.add_argument("--files", type=int, default=100_000, help="files in M; the aims speak of 1000000")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where to work (a file system with room; not tmpfs)")
    parser.add_argument("--keep", action="store_true", help="leave the sets for a look")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
