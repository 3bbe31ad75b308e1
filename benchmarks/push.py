# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# python3 benchmarks/push.py
# python3 benchmarks/push.py --set M --places directory --peers volt,sealed
"""Measure copies off the host beside restic and rclone: a first one, one of a backup in which nothing changed, one after 1% has changed. Then
another host, which has nothing, restores all of it, and one file.

The backups here are made before each step and not measured, except by `restic backup`, which has no other step. Each peer has a fresh source, store
and place to copy to: a directory, or Ceph's gateway in memory behind a proxy that counts requests and the bytes of their bodies. In a directory, what
it grew by counts. restic is that of trixie; rclone copies the files of this engine's store. Needs root; everything made is removed again, the
table is printed and goes to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent)]

import measure  # noqa: E402  # pylint: disable=wrong-import-position
import peers as tools  # noqa: E402  # pylint: disable=wrong-import-position
import report  # noqa: E402  # pylint: disable=wrong-import-position
import sets  # noqa: E402  # pylint: disable=wrong-import-position

from tests.rigs import http_faults, mounts, s3_servers  # noqa: E402  # pylint: disable=wrong-import-position

BUCKET = "copies"
STEPS = ("first", "nothing changed", "1% changed")
RESTORES = ("all restored", "one file restored")
#: A stat cache may distrust what changed within the last seconds before it looked.
SETTLE = 3


class Directory:
    """Copies in a directory."""

    name = "directory"

    def __init__(self, room: Path) -> None:
        self._top = room / "copies"
        self._top.mkdir()
        self.env: dict[str, str] = {}
        #: Where each tool finds it.
        self.volt, self.restic, self.rclone = f"file://{self._top}", str(self._top), str(self._top)

    def count(self) -> tuple[int | None, int]:
        """Requests so far, where they can be counted, and bytes."""
        return None, measure.stored(self._top)["apparent"]


class Bucket:
    """Copies in a bucket of an S3 server, which is asked through a proxy."""

    name = "Ceph RGW"

    def __init__(self, proxy: http_faults.Proxy, server: s3_servers.Server) -> None:
        self._proxy, keys = proxy, server.keys["owner"]
        remote = {"TYPE": "s3", "PROVIDER": "Ceph", "ENV_AUTH": "true", "ENDPOINT": proxy.endpoint}
        self.env = {"AWS_ACCESS_KEY_ID": keys["access_key"], "AWS_SECRET_ACCESS_KEY": keys["secret_key"], "NO_PROXY": "127.0.0.1",
                    **{f"RCLONE_CONFIG_THERE_{key}": value for key, value in remote.items()}}  # fmt: skip
        self.volt, self.restic, self.rclone = f"s3://{BUCKET}/volt?endpoint={proxy.endpoint}", f"s3:{proxy.endpoint}/{BUCKET}/restic", f"there:{BUCKET}/rclone"

    def count(self) -> tuple[int | None, int]:
        return len(self._proxy.seen), sum(len(request.body) for request in self._proxy.seen)


@contextmanager
def ceph(room: Path) -> Iterator[Bucket]:
    with tempfile.TemporaryDirectory() as scratch, s3_servers.ceph(Path(scratch)) as server, http_faults.Proxy(server.endpoint) as proxy:
        server.make_bucket(BUCKET)
        yield Bucket(proxy, server)


@contextmanager
def directory(room: Path) -> Iterator[Directory]:
    yield Directory(room)


PLACES = {"ceph": ceph, "directory": directory}
Place = Directory | Bucket


class Peer:
    """Who copies. `prepare` makes the place usable, `backup` makes the backup that is copied, `send` is measured."""

    name = ""

    def __init__(self, room: Path, source: Path, place: Place) -> None:
        self.room, self.source, self.place = room, source, place
        self.env: dict[str, str] = place.env

    def prepare(self) -> None:
        raise NotImplementedError

    def backup(self) -> None:
        """By default there is none."""

    def send(self) -> list[str]:
        raise NotImplementedError

    def fetch(self, _target: Path, _path: str | None) -> list[str]:
        """Restore on a host that has nothing: all, or the file at a path. Who cannot has no command."""
        return []

    def run(self, *command: str) -> None:
        subprocess.run(command, cwd=self.source, env={**os.environ, **self.env}, stdout=subprocess.DEVNULL, check=True)


class Volt(Peer):
    name = "volt.backup"

    def __init__(self, room: Path, source: Path, place: Place) -> None:
        super().__init__(room, source, place)
        self._tool = tools.Volt(room, source)
        lack = self._tool.missing()
        if lack:
            raise SystemExit(lack)
        self.env = {**self._tool.env, **place.env}
        self._keys: list[str] = []
        self._opens: list[str] = []

    def prepare(self) -> None:
        self._tool.prepare()
        self.run(*self._tool.command, "remote", "init", *self._keys, self.place.volt)

    def backup(self) -> None:
        self.run(*self._tool.first())

    def send(self) -> list[str]:
        where = ["--remote", self.place.volt, "--remote-host", "bench", *self._keys]
        return [*self._tool.command, "push", "--all", *where, *self._tool.places]

    def fetch(self, target: Path, path: str | None) -> list[str]:
        nothing = ["--store", str(self.room / "none"), "--backup-dir", str(self.room / "none-either")]
        words = ["restore", "bench/bench", "--remote", self.place.volt, "--target", str(target), *self._opens, *nothing]
        return [*self._tool.command, *words, *(["--path", path] if path else [])]


class Sealed(Volt):
    name = "volt.backup, sealed"

    def prepare(self) -> None:
        recovery, own = str(self.room / "recovery.key"), str(self.room / "bench.key")
        for words in (["--new", recovery], ["--from", recovery, "--host", "bench", "--out", own]):
            self.run(*self._tool.command, "remote", "keys", *words)
        self._keys, self._opens = ["--keys", own], ["--identity", recovery]
        super().prepare()


class ResticBackup(Peer):
    name = "restic backup"

    def __init__(self, room: Path, source: Path, place: Place) -> None:
        super().__init__(room, source, place)
        self.env = {**place.env, "RESTIC_PASSWORD": "benchmark", "RESTIC_REPOSITORY": place.restic, "RESTIC_CACHE_DIR": str(room / "cache")}

    def prepare(self) -> None:
        self.run(tools.restic(), "--quiet", "init")

    def send(self) -> list[str]:
        return [tools.restic(), "--quiet", "backup", "."]

    def fetch(self, target: Path, path: str | None) -> list[str]:
        self.env["RESTIC_CACHE_DIR"] = str(self.room / f"cache-{target.name}")
        return [tools.restic(), "--quiet", "restore", "latest", "--target", str(target), *(["--include", f"/{path}"] if path else [])]


class ResticCopy(ResticBackup):
    name = "restic copy"

    def __init__(self, room: Path, source: Path, place: Place) -> None:
        super().__init__(room, source, place)
        self._local = str(room / "store")
        self.env["RESTIC_FROM_PASSWORD"] = "benchmark"

    def prepare(self) -> None:
        self.run(tools.restic(), "--quiet", "--repo", self._local, "init")
        self.run(tools.restic(), "--quiet", "init", "--from-repo", self._local, "--copy-chunker-params")

    def backup(self) -> None:
        self.run(tools.restic(), "--quiet", "--repo", self._local, "backup", ".")

    def send(self) -> list[str]:
        return [tools.restic(), "--quiet", "copy", "--from-repo", self._local]


class Rclone(Volt):
    name = "rclone copy"

    def prepare(self) -> None:
        self._tool.prepare()

    def fetch(self, _target: Path, _path: str | None) -> list[str]:
        return []

    def send(self) -> list[str]:
        return [str(s3_servers.rclone_program()), "copy", "--config", os.devnull, str(self._tool.store), self.place.rclone]


PEERS: dict[str, type[Peer]] = {"volt": Volt, "sealed": Sealed, "copy": ResticCopy, "backup": ResticBackup, "rclone": Rclone}


@dataclass
class Sent:
    """What one step cost."""

    cpu: float
    wall: float
    memory: int
    requests: int | None
    size: int


Runs = dict[tuple[str, str, str], list[Sent]]  # by place, peer, step


def steps(args: argparse.Namespace, number: int, where: str, kind: type[Peer], runs: Runs) -> dict[str, int]:
    """All steps of one peer at one place; the size of the source."""
    with tempfile.TemporaryDirectory(dir=args.room) as scratch, mounts.mount("ext4", scratch, 120 * mounts.GIB) as disk, PLACES[where](disk) as place:
        (data,) = sets.make([args.set], disk, args.files)
        data.build()
        room = disk / "peer"
        room.mkdir()
        peer = kind(room, data.source, place)
        peer.prepare()
        for step in STEPS:
            if step == STEPS[-1]:
                data.change(number)
            time.sleep(SETTLE)
            peer.backup()
            one_step(peer, place, step, peer.send(), runs)
        some = a_file(data.source)
        for step, path in zip(RESTORES, (None, some)):
            words = peer.fetch(room / step.split(" ", maxsplit=1)[0], path)
            if words:
                one_step(peer, place, step, words, runs)
        return report.size(data.source)


def a_file(source: Path) -> str:
    """The path of a file with content, the same each time."""
    below = source / "etc" if (source / "etc").is_dir() else source
    paths = (Path(top) / name for top, _directories, names in os.walk(below) for name in sorted(names))
    return next((str(path.relative_to(source)) for path in paths if path.is_file() and not path.is_symlink() and path.stat().st_size), "")


def one_step(peer: Peer, place: Place, step: str, words: list[str], runs: Runs) -> None:
    requests, size = place.count()
    cost = measure.run(words, peer.source, peer.env)
    if cost.status:
        raise SystemExit(f"{peer.name}, {step}: {cost.errors}")
    more, larger = place.count()
    sent = Sent(cost.cpu, cost.wall, cost.memory, None if more is None or requests is None else more - requests, larger - size)
    runs.setdefault((place.name, peer.name, step), []).append(sent)
    print(f"{place.name}, {peer.name}, {step}: {sent}", file=sys.stderr)


class Medians:
    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def __call__(self, where: str, peer: str, step: str, what: str) -> float | None:
        values = [getattr(sent, what) for sent in self._runs.get((where, peer, step), [])]
        return statistics.median(values) if values and None not in values else None

    def ratio(self, where: str, peer: str, other: str, step: str, what: str) -> float | None:
        mine, theirs = self(where, peer, step, what), self(where, other, step, what)
        return mine / theirs if mine is not None and theirs else None


def aims(runs: Runs) -> list[tuple[str, str, float, float]]:
    """(place, aim, limit, reached) of each aim that these runs can judge."""
    medians = Medians(runs)
    found: list[tuple[str, str, float, float | None]] = []
    first, unchanged, changed = STEPS
    for where in dict.fromkeys(where for where, _peer, _step in runs):
        for peer in (Volt.name, Sealed.name):
            found.append((where, f"{peer}, {unchanged}: requests", 6, medians(where, peer, unchanged, "requests")))
            found.append((where, f"{peer}, {changed}: requests", 10, medians(where, peer, changed, "requests")))
            found.append((where, f"{peer}, {first}: requests of `restic copy`'s", 1.2, medians.ratio(where, peer, ResticCopy.name, first, "requests")))
        for peer in (Volt.name, Sealed.name):
            found.append((where, f"{peer}, {RESTORES[0]}: CPU of restic's", 0.5, medians.ratio(where, peer, ResticCopy.name, RESTORES[0], "cpu")))
            found.append((where, f"{peer}, {RESTORES[1]}: requests", 12, medians(where, peer, RESTORES[1], "requests")))
        for step in STEPS:
            found.append((where, f"{step}: CPU of `restic copy`'s", 0.4, medians.ratio(where, Volt.name, ResticCopy.name, step, "cpu")))
        found.append((where, f"{first}: CPU sealed of plain", 1.3, medians.ratio(where, Sealed.name, Volt.name, first, "cpu")))
        peaks = [medians(where, peer, step, "memory") for peer in (Volt.name, Sealed.name) for step in STEPS]
        found.append((where, "memory, most of any push, MB", 300, max((peak / 1e6 for peak in peaks if peak is not None), default=None)))
    return [(where, text, limit, reached) for where, text, limit, reached in found if reached is not None]


def table(args: argparse.Namespace, machine: dict[str, str], size: dict[str, int], runs: Runs) -> str:
    lines = [f"# Copies of {args.set} off the host: {size['entries']:,} entries, {size['bytes'] / 1e6:,.0f} MB", ""]
    lines += ["; ".join(f"{key}: {value}" for key, value in machine.items()) + ".", ""]
    lines += [f"Medians of {args.rounds} rounds; other work may have gone on. CPU is user + system of the whole process tree, memory the peak of the largest",
              "process. Bytes are those of request bodies, or what a directory grew by.", ""]  # fmt: skip
    lines += ["| place | aim | at most | reached | |", "|---|---|--:|--:|---|"]
    for where, text, limit, reached in aims(runs):
        lines.append(f"| {where} | {text} | {limit:.4g} | {reached:.3g} | {'met' if reached <= limit else '**not met**'} |")
    lines += ["", "| place | step | peer | CPU s | wall s | memory MB | requests | MB sent |", "|---|---|---|--:|--:|--:|--:|--:|"]
    medians = Medians(runs)
    for where, step in dict.fromkeys((where, step) for where, _peer, step in runs):
        for peer in dict.fromkeys(peer for there, peer, _step in runs if there == where):
            cells = [medians(where, peer, step, what) for what in ("cpu", "wall", "memory", "requests", "size")]
            text = [_number(cell, unit, digits) for cell, unit, digits in zip(cells, (1, 1, 1e6, 1, 1e6), (2, 2, 0, 0, 2))]
            lines.append(f"| {where} | {step} | {peer} | {' | '.join(text)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, unit: float, digits: int) -> str:
    return "" if value is None else f"{value / unit:,.{digits}f}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--set", default="R", choices=("R", "M"))
    options.add_argument("--files", type=int, default=1_000_000, help="files in M (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--places", type=report.among(PLACES), default=list(PLACES), help=f"of {','.join(PLACES)}; M is too large for Ceph in memory")
    options.add_argument("--peers", type=report.among(PEERS), default=list(PEERS), help=f"of {','.join(PEERS)}")
    options.add_argument("--room", default=None, help="where to work (default: the system's temporary directory)")
    args = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which goes through every `finally`: nothing stays mounted
    runs: Runs = {}
    for number in range(args.rounds):
        for where in args.places:
            for name in args.peers:
                size = steps(args, number, where, PEERS[name], runs)
    with tempfile.TemporaryDirectory(dir=args.room) as scratch:
        machine = report.machine(Path(scratch))
        machine["versions"] = ", ".join(kind(Path(scratch), Path(scratch)).version() for kind in (tools.Volt, tools.Restic))
    machine["rclone"] = s3_servers.RCLONE
    text = table(args, machine, size, runs)
    print(text)
    (HERE / "results" / f"{time.strftime('%Y%m%d')}-push-{args.set}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
