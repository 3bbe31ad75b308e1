# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# python3 benchmarks/upkeep.py --set R --backups 100
# python3 benchmarks/upkeep.py --set M --backups 50 --peers volt
"""Measure a store with a history: each backup as the history grows, then commands, restores, verifying, pruning half of all backups, collecting.

Each backup but the first is of a source of which 1% has changed. The order of the peers is drawn for each backup and each round. What changes a store is
measured once, all else in several rounds. rsync and tar keep one copy, of the last state. Needs root; everything made is removed again, the
tables go to benchmarks/results/.
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
import sets  # noqa: E402  # pylint: disable=wrong-import-position
from rigs import mounts  # noqa: E402  # pylint: disable=wrong-import-position

PEERS = {"volt": tools.Volt, "restic": tools.Restic, "borg": tools.Borg, "rsync": tools.Rsync, "tar": tools.Tar}
#: They keep no history, or one that costs a pass over all files each time.
ONE_COPY = (tools.Rsync, tools.Tar)
#: A stat cache may distrust what changed within the last seconds before it looked.
SETTLE = 2.2


class History:
    """The peers with their stores, and what each step costs."""

    def __init__(self, data: sets.Set, room: Path, names: list[str], results: dict) -> None:
        self.data, self.results = data, results
        self.record = measure.Record(results, room)
        self.dice = random.Random("order")
        self.present: list[tools.Peer] = []
        self.empty: dict[str, tools.Peer] = {}  # each peer once more, with an empty store
        for name in names:
            for where in (room / name, room / f"{name}-empty"):
                where.mkdir()
            peer, empty = (PEERS[name](room / f"{name}{end}", data.source) for end in ("", "-empty"))
            lack = peer.missing()
            if lack:
                results.setdefault("skipped", {})[peer.name] = lack
                continue
            results.setdefault("versions", {})[peer.name] = peer.version()
            for one in (peer, empty):
                one.prepare()
            self.present.append(peer)
            self.empty[peer.name] = empty

    def shuffled(self) -> list[tools.Peer]:
        return self.dice.sample(self.present, len(self.present))

    def grow(self, backups: int) -> None:
        """The history, and what each backup of it cost."""
        series = self.results["series"] = {peer.name: [] for peer in self.present if not isinstance(peer, ONE_COPY)}
        for number in range(backups):
            if number:
                sets.rewrite(self.data.source, 100, random.Random(f"change {number}"))
                time.sleep(SETTLE)
            for peer in self.shuffled():
                if isinstance(peer, ONE_COPY) and number < backups - 1:
                    continue
                cost = measure.run(peer.first() or [], self.data.source, peer.env)
                if cost.status:
                    raise SystemExit(f"{peer.name}: {cost.errors}")
                if peer.name in series:
                    stored = measure.stored(peer.store)["apparent"]
                    series[peer.name].append({"cpu": round(cost.cpu, 3), "wall": round(cost.wall, 3), "memory": cost.memory, "stored": stored})
            print(f"backup {number + 1}", file=sys.stderr)

    def step(self, peer: tools.Peer, name: str, command: list[str] | None, target: Path = Path()) -> None:
        if command is not None:
            self.record.step(peer, name, command, peer.cwd(name, target))

    def repeat(self, rounds: int) -> None:
        """What leaves the store as it is, in rounds; at last what adds a backup in which nothing changed."""
        for number in range(rounds):
            for peer in self.shuffled():
                self.step(peer, "start", self.empty[peer.name].listing())
                self.step(peer, "listing", peer.listing())
            for peer in self.shuffled():
                for name in ("restore", "restore_oldest"):
                    target = peer.room / f"{name}-{number}"
                    self.step(peer, name, getattr(peer, name)(target), target)
            self.over(number)
        for _number in range(rounds):
            for peer in self.shuffled():
                self.step(peer, "unchanged", peer.unchanged())

    def over(self, number: int) -> None:
        """Restores over a tree that differs in 1%: where nothing is known of its files, then where the files that did not change are known."""
        for name in ("restore_over_unknown", "restore_over"):
            for peer in self.present:
                if peer.restore_over(self._target(peer)) is not None:
                    sets.rewrite(self._target(peer), 100, random.Random(f"spoil {name} {number}"))
            time.sleep(SETTLE)
            for peer in self.shuffled():
                if name == "restore_over" or peer.forget_target():
                    self.step(peer, name, peer.restore_over(self._target(peer)), self._target(peer))

    @staticmethod
    def _target(peer: tools.Peer) -> Path:
        return peer.room / "restore-0"

    def once(self, keep: int) -> None:
        """What changes the store, or takes long."""
        sizes = self.results["sizes"] = {}
        for name in ("structure", "content", "prune", "collect_dry", "collect", "list_after", "backup_after"):
            for peer in self.shuffled():
                if isinstance(peer, ONE_COPY):
                    continue
                before = measure.stored(peer.store)["apparent"]
                method = {"list_after": peer.listing, "backup_after": peer.changed}.get(name) or getattr(peer, name)
                self.step(peer, name, method(keep) if name == "prune" else method())
                if name == "collect":
                    sizes[peer.name] = [before, measure.stored(peer.store)["apparent"]]


def measured(room: Path, kind: str, files: int, backups: int, rounds: int, names: list[str]) -> dict:
    """A set with its history, and what each step cost."""
    with mounts.mount("ext4", room, 200 * mounts.GIB) as disk:
        (data,) = sets.make([kind], disk, files)
        data.build()
        results: dict = {"title": f"{backups} backups of {kind}", "backups": backups, **report.size(data.source)}
        time.sleep(SETTLE)
        history = History(data, disk, names, results)
        history.grow(backups)
        history.repeat(rounds)
        history.once(backups // 2)
    return results


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--set", default="R", choices=("R", "M"))
    options.add_argument("--files", type=int, default=1_000_000, help="files in M (default: %(default)s)")
    options.add_argument("--backups", type=int, default=100)
    options.add_argument("--rounds", type=int, default=3, help="of what leaves the store as it is (default: %(default)s)")
    options.add_argument("--peers", type=report.among(PEERS), default=list(PEERS), help="of " + ",".join(PEERS))
    options.add_argument("--room", default="/var/tmp", help="where to work (default: %(default)s)")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.room) as scratch:
        room = Path(scratch)
        results = measured(room, args.set, args.files, args.backups, args.rounds, args.peers)
        outcome = {"skipped": results.pop("skipped", {}), "versions": results.pop("versions", {}), "rounds": args.rounds, "machine": report.machine(room)}
    print(report.write({**outcome, "sets": {"history": results}}, HERE / "results").read_text(encoding="utf-8"))


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
