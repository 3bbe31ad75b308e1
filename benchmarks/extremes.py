# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# python3 benchmarks/extremes.py --only directory,levels,objects,backups,files,packs
"""Measure what is far larger than usual: one directory of a million files, 12,000 levels, a million objects, 10,000 backups, 10 million files, 100,000 packs.

Each extreme is measured at its size and at a tenth of it, so that a time which grows faster than the size is seen. Memory is compared with invariant 20 of
docs/design.md. All is real but the backups, whose records are written in one process, and the packs, which are cut at each file. Content is small, so
that a million files fit: it lies in the inodes of the ext4 that this makes. Needs root; everything made is removed again.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import measure  # noqa: E402  # pylint: disable=wrong-import-position
import peers  # noqa: E402  # pylint: disable=wrong-import-position
import report  # noqa: E402  # pylint: disable=wrong-import-position
from rigs import mounts  # noqa: E402  # pylint: disable=wrong-import-position

MIB = 1 << 20
#: Just too large for a pack: an object each.
OBJECT = (128 << 10) + 1
Steps = Iterator[tuple[str, list[str]]]


class Extreme:
    """One kind. `source` is what is backed up.

    :ivar size: how many of the thing there are.
    """

    name = title = ""
    most = 0
    inodes = 3  # of the file system, for each
    entries = 1  # files of a backup for each, as invariant 20 counts

    def __init__(self, room: Path, size: int) -> None:
        self.room, self.size = room, size
        self.source = room / "source"
        self.volt = peers.Volt(room, self.source)
        self.volt.prepare()
        if self.volt.missing():
            raise SystemExit("the command's archive cannot be built")

    def build(self) -> None:
        raise NotImplementedError

    def word(self, *words: str) -> list[str]:
        return [*self.volt.command, *words, *self.volt.places]

    def engine(self, program: str, *words: str, **more: str) -> None:
        """Run a program that uses the engine, in a process of its own."""
        places = [str(self.volt.store / "cas"), str(self.volt.store / "backups")]
        subprocess.run([sys.executable, "-c", program, *places, *words], env={**os.environ, **self.volt.env, **more}, check=True)

    def limit(self) -> int:
        """Bytes of memory by invariant 20."""
        return 300_000_000 + 300 * max(0, self.size * self.entries - 1_000_000)

    def steps(self) -> Steps:
        yield "first backup", self.volt.first()
        yield "nothing changed", self.volt.first()
        yield "list", self.word("list")
        yield "verify, structure", self.word("verify")
        yield "verify, content", self.word("verify", "--content")
        yield "gc, check mode", self.word("gc", "--grace", "0s", "--dry-run")
        yield "gc, nothing to do", self.word("gc", "--grace", "0s")
        yield "restore", self.word("restore", "latest", "--target", str(self.room / "target"))
        yield "restore, equal already", self.word("restore", "latest", "--target", str(self.room / "target"))
        yield "delete all", [sys.executable, "-c", _DELETE, *self.volt.command, *self.volt.places]
        yield "gc, all is dead", self.word("gc", "--grace", "0s")


#: Delete each backup; its cost is that of the two commands.
_DELETE = """
import json, subprocess, sys
command, places = sys.argv[1:3], sys.argv[3:]
for backup in json.loads(subprocess.check_output([*command, "list", *places]))["backups"]:
    subprocess.run([*command, "delete", backup["id"], *places], check=True)
"""


class OneDirectory(Extreme):
    name, title, most = "directory", "files in one directory", 1_000_000

    def build(self) -> None:
        self.source.mkdir()
        write(self.source, self.size)

    def limit(self) -> int:
        return max(300_000_000, 1000 * self.size)


class Levels(Extreme):
    name, title, most = "levels", "levels of directories", 12_000

    def build(self) -> None:
        self.source.mkdir()
        here = os.open(self.source, os.O_RDONLY)
        for number in range(self.size):
            os.close(os.open("file", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here))
            os.mkdir(f"level-{number:05d}", dir_fd=here)
            below = os.open(f"level-{number:05d}", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)


class Objects(Extreme):
    """Sparse files of one page each."""

    name, title, most = "objects", "objects", 1_000_000

    def build(self) -> None:
        for number in range(self.size):
            if number % 1000 == 0:
                folder = self.source / f"{number // 1000:04d}"
                folder.mkdir(parents=True)
            handle = os.open(f"{folder}/{number:07d}", os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(handle, b"%016d" % number)
            os.truncate(handle, OBJECT)
            os.close(handle)


class Files(Extreme):
    name, title, most, inodes = "files", "files, 100 a directory", 10_000_000, 1.2

    def build(self) -> None:
        for number in range(0, self.size, 100):
            folder = self.source / f"{number // 100_000:03d}" / f"{number // 1000 % 100:02d}" / f"{number // 100 % 10}"
            folder.mkdir(parents=True)
            write(folder, 100, number)

    def steps(self) -> Steps:
        for step, command in super().steps():
            if step == "restore":
                yield "restore, one directory", self.word("restore", "latest", "--target", str(self.room / "target"), "--path", "000")
            elif not step.startswith("restore"):
                yield step, command


class Backups(Extreme):
    """Backups of ten small files, one of which changes each hour."""

    name, title, most, entries = "backups", "backups of one workload", 10_000, 0

    def build(self) -> None:
        self.source.mkdir()
        for number in range(10):
            (self.source / f"file-{number}").write_text(f"{number}\n", encoding="ascii")
        time.sleep(3)
        subprocess.run(self.volt.first(), check=True, stdout=subprocess.DEVNULL)
        self.engine(_MULTIPLY, str(self.size))

    def steps(self) -> Steps:
        yield "list", self.word("list")
        yield "list, second time", self.word("list")
        yield "nothing changed", self.volt.first()
        yield "verify, structure", self.word("verify")
        yield "gc, check mode", self.word("gc", "--grace", "0s", "--dry-run")
        yield "prune to half, check mode", self.word("prune", "bench", "--keep", str(self.size // 2), "--dry-run")
        yield "restore the newest", self.word("restore", "latest", "--target", str(self.room / "target"))
        yield "prune to half", self.word("prune", "bench", "--keep", str(self.size // 2))
        yield "gc", self.word("gc", "--grace", "0s")
        yield "list after", self.word("list")


#: Make more backups of the one that is there: each has another content of one file, so another tree, and another time.
_MULTIPLY = """
import datetime, hashlib, sys
from ansible_collections.volt.backup.plugins.module_utils._backup import records
from ansible_collections.volt.backup.plugins.module_utils._backup.catalog import Catalog
from ansible_collections.volt.backup.plugins.module_utils._backup.ids import new_id
from ansible_collections.volt.backup.plugins.module_utils._base import parse_time, show_time
from ansible_collections.volt.backup.plugins.module_utils._format import tree
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction

path, directory, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = Store(path)
catalog = Catalog(store, directory)
sidecar = catalog.list()[0]
manifest = catalog.manifest(sidecar)
entries = tree.load(store.read, manifest.root.content)
begin = parse_time(sidecar["created_at"])

with Transaction(store) as run:
    roots = []
    for number in range(1, count):
        blob = b"%d\\n" % (number + 10)
        digest = hashlib.sha256(blob).digest()
        run.blobs.add(digest, blob)
        entries[number % 10] = entries[number % 10]._replace(content=digest, size=len(blob))
        roots.append(tree.store(run.add_metadata, entries))
    run.commit()
for number, root in enumerate(roots):
    created = begin - datetime.timedelta(hours=number + 1)
    backup = new_id(sidecar["workload_name"], created, sidecar["type"], 1)
    facts = {**manifest.backup, "id": backup, "created_at": show_time(created)}
    data = records.encode_manifest(manifest._replace(backup=facts, root=manifest.root._replace(content=root)))
    name, digest = records.reference(backup, data)
    listed = {key: sidecar[key] for key in records.SIDECAR}
    listed.update(id=backup, created_at=facts["created_at"], manifest_ref=name, manifest_sha256=digest)
    with open(f"{path}/refs/{name}.json", "xb") as file:
        file.write(data)
    with open(f"{directory}/{backup}.json", "xb") as file:
        file.write(records.encode_sidecar(listed))
"""


class Packs(Extreme):
    """Files of some bytes, each of which gets a pack of its own; and a small workload beside them."""

    name, title, most = "packs", "packs that one backup needs", 100_000

    def build(self) -> None:
        self.source.mkdir()
        write(self.source, self.size)
        small = self.room / "small"
        small.mkdir()
        (small / "file").write_bytes(b"small")
        time.sleep(3)
        self.engine(_CUT, str(self.source))
        subprocess.run(self.word("create", "small", "--source", str(small)), check=True, stdout=subprocess.DEVNULL)

    def steps(self) -> Steps:
        yield "list on an empty store", [*self.volt.command, "list", "--store", str(self.room / "none"), "--backup-dir", str(self.room / "none"), "--json"]
        yield "list of the small workload", self.word("list", "small")
        yield "list", self.word("list")
        yield "list, second time", self.word("list")
        yield "backup of the small workload", self.word("create", "small", "--source", str(self.room / "small"))
        yield "nothing changed", self.volt.first()
        yield "delete", [sys.executable, "-c", _DELETE, *self.volt.command, *self.volt.places]
        yield "gc, all is dead", self.word("gc", "--grace", "24h")
        yield "gc, check mode", self.word("gc", "--grace", "0s", "--dry-run")
        yield "gc, all is deleted", self.word("gc", "--grace", "0s")


#: A first backup of which each blob has a pack of its own.
_CUT = """
import sys
from ansible_collections.volt.backup.plugins.module_utils._store import pack
pack.Builder.add = (lambda add: lambda builder, digest, blob: (add(builder, digest, blob)[0], True))(pack.Builder.add)
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
Manager(*sys.argv[1:3]).create(CreateRequest(workload="bench", source=sys.argv[3]))
"""

KINDS = {kind.name: kind for kind in (OneDirectory, Levels, Objects, Backups, Packs, Files)}


def write(folder: Path, count: int, first: int = 0) -> None:
    """Files of some bytes, no two alike."""
    here = os.open(folder, os.O_RDONLY)
    for number in range(first, first + count):
        handle = os.open(f"{number:08d}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here)
        os.write(handle, b"%016d" % number)
        os.close(handle)
    os.close(here)


def measured(kind: type[Extreme], size: int, scratch: str) -> tuple[dict[str, measure.Cost], int]:
    """What each step costs, and the limit of memory, on a file system of its own."""
    with tempfile.TemporaryDirectory(dir=scratch) as room:
        image, where = Path(room) / "image", Path(room) / "mnt"
        where.mkdir()
        with open(image, "wb") as stream:
            stream.truncate(200 * mounts.GIB)
        inodes = max(100_000, int(size * kind.inodes * 1.2))
        subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "inline_data", "-I", "256", "-N", str(inodes), "-E", "nodiscard", str(image)], check=True)
        with mounts.image(image, where):
            extreme = kind(where, size)
            begin = time.monotonic()
            extreme.build()
            print(f"{kind.name} {size:,}: made in {time.monotonic() - begin:.0f} s", file=sys.stderr)
            time.sleep(3)
            costs = {}
            for step, command in extreme.steps():
                cost = costs[step] = measure.run(command, where, extreme.volt.env, discard=True)
                trouble = cost.errors[-300:] if cost.status else ""
                print(f"{kind.name} {size:,}, {step}: {cost.cpu:.2f} CPU s, {cost.wall:.1f} s, {cost.memory / 1e6:.0f} MB {trouble}", file=sys.stderr)
            return costs, extreme.limit()


def table(title: str, costs: dict[str, measure.Cost], tenth: dict[str, measure.Cost], limit: int) -> list[str]:
    lines = [f"## {title}", "", f"Aim: at most {limit / 1e6:.0f} MB, and ten times the time of a tenth.", ""]
    lines += ["| step | CPU s | s | MB | CPU s of a tenth | MB of a tenth | |", "|---|--:|--:|--:|--:|--:|---|"]
    for step, cost in costs.items():
        small = tenth.get(step)
        cells = [f"{cost.cpu:.2f}", f"{cost.wall:.1f}", f"{cost.memory / 1e6:.0f}"]
        cells += [f"{small.cpu:.2f}", f"{small.memory / 1e6:.0f}"] if small else ["", ""]
        misses = [f"failed: {cost.errors.strip().splitlines()[-1][:120] if cost.errors.strip() else cost.status}"] if cost.status else []
        misses += ["memory"] if cost.memory > limit else []
        misses += ["time"] if small and cost.cpu > 12 * max(small.cpu, 0.1) else []
        lines.append(f"| {step} | {' | '.join(cells)} | {', '.join(misses)} |")
    return [*lines, ""]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", type=report.among(KINDS), default=list(KINDS), help=f"of {','.join(KINDS)} (default: all)")
    options.add_argument("--part", type=int, default=1, help="measure at this part of each size (default: %(default)s, the whole)")
    options.add_argument("--alone", action="store_true", help="without the tenth")
    options.add_argument("--room", default=None, help="where to work (default: the system's temporary directory)")
    options.add_argument("--results", type=Path, default=HERE / "results", help="where the tables go (default: %(default)s)")
    args = options.parse_args()
    moment = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
    with tempfile.TemporaryDirectory(dir=args.room) as scratch:
        machine = report.machine(Path(scratch))
        for name in args.only:
            kind = KINDS[name]
            size = kind.most // args.part
            tenth = {} if args.alone else measured(kind, size // 10, scratch)[0]
            costs, limit = measured(kind, size, scratch)
            head = [f"# Extremes: {size:,} {kind.title}", "", ", ".join(f"{key}: {value}" for key, value in machine.items()), ""]
            text = "\n".join([*head, *table(f"{size:,} {kind.title}", costs, tenth, limit)])
            print(text)
            (args.results / f"{moment}-extremes-{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
