# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# python3 benchmarks/dumps.py
"""Measure what the dumps of 14 days cost: one a day of a database in which rows come, change and go, piped into this engine and into restic.

The dumps are made first, by real servers: PostgreSQL as plain SQL and in pg_dump's own format without compression, MariaDB as mariadb-dump writes it and
with one row a line, Redis, and SQLite. Each goes into a store of its own: of this engine, of this engine with chunks of a fixed 1 MiB, and of restic.
Needs root; everything made is removed again, the table is printed and goes to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent)]

import peers as tools  # noqa: E402  # pylint: disable=wrong-import-position
import report  # noqa: E402  # pylint: disable=wrong-import-position
import zstandard  # noqa: E402

from tests.rigs import databases  # noqa: E402  # pylint: disable=wrong-import-position

DAYS, ROWS, MIB = 14, 400_000, 1 << 20


def statements(day: int) -> list[str]:
    """What happens on a day: 1% of the rows change, most of them young ones, 1% are new, a few go."""
    draw = random.Random(day)
    last = ROWS + day * ROWS // 100
    found = [f"INSERT INTO orders SELECT n, n % 9973 * 7, md5(concat(n, 'x')), {day} FROM {{series}};".replace(
        "{series}", f"{{series:{last - ROWS // 100 + 1}:{last}}}")]  # fmt: skip
    for _change in range(ROWS // 1000):
        start = draw.randrange(last * 9 // 10, last)
        found.append(f"UPDATE orders SET amount = amount + 1, day = {day} WHERE id BETWEEN {start} AND {start + 9};")
    found += [f"DELETE FROM orders WHERE id = {draw.randrange(last)};" for _gone in range(5)]
    return found


def series(text: str, shape: str) -> str:
    """Put the series of numbers into a statement, as a database writes it."""
    if "{series:" not in text:
        return text
    first, last = text.partition("{series:")[2].partition("}")[0].split(":")
    return text.replace(f"{{series:{first}:{last}}}", shape.format(first=first, last=last))


class Maker:
    """Makes the dumps of each day, each kind into files of its own."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.kinds: dict[str, list[Path]] = {}

    def keep(self, kind: str, words: list[str]) -> None:
        path = self.room / f"{kind}-{len(self.kinds.get(kind, ()))}"
        with open(path, "wb") as file:
            subprocess.run(words, stdout=file, check=True, cwd="/", stderr=subprocess.DEVNULL)
        self.kinds.setdefault(kind, []).append(path)

    def postgresql(self) -> None:
        with databases.postgresql(self.room / "pg") as server:
            server("CREATE DATABASE shop", "-d", "postgres")
            shape = "generate_series({first}, {last}) n"
            server("CREATE TABLE orders (id int PRIMARY KEY, customer int, note text, amount int DEFAULT 0, day int);"
                   f"INSERT INTO orders SELECT n, n % 9973 * 7, md5(n::text), 0, 0 FROM generate_series(1, {ROWS}) n", "-d", "shop")
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "pg_dump", "-h", str(server.socket), "shop"]
            for day in range(DAYS):
                if day:
                    text = "".join(series(one, shape) for one in statements(day))
                    server(text.replace("INTO orders SELECT n,", "INTO orders (id, customer, note, day) SELECT n,"), "-d", "shop")
                self.keep("PostgreSQL, plain SQL", as_user)
                self.keep("PostgreSQL, custom format", [*as_user, "--format=custom", "--compress=0"])

    def mariadb(self) -> None:
        with databases.mariadb(self.room / "my") as server:
            shape = "seq_{first}_to_{last}"
            server("CREATE DATABASE shop; USE shop; CREATE TABLE orders (id int PRIMARY KEY, customer int, note text, day int, amount int DEFAULT 0);"
                   f"INSERT INTO orders SELECT seq, seq % 9973 * 7, md5(seq), 0, 0 FROM seq_1_to_{ROWS}")
            words = ["mariadb-dump", "--no-defaults", f"--socket={server.socket}", "--single-transaction", "--skip-dump-date", "--databases", "shop"]
            for day in range(DAYS):
                if day:
                    text = "".join(series(one, shape) for one in statements(day))
                    text = text.replace("INTO orders SELECT n, n %", "INTO orders (id, customer, note, day) SELECT seq, seq %")
                    server("USE shop;" + text.replace("concat(n,", "concat(seq,"))
                self.keep("MariaDB, statements of 1 MiB (its default)", words)
                self.keep("MariaDB, statements of 4 KiB", [*words, "--net-buffer-length=4096"])
                self.keep("MariaDB, a row a line", [*words, "--skip-extended-insert"])

    def redis(self) -> None:
        with databases.redis(self.room / "re") as server:
            for day in range(DAYS):
                draw = random.Random(day)
                numbers = range(200_000) if not day else [draw.randrange(220_000) for _change in range(4000)]
                subprocess.run(["redis-cli", "-s", str(server.socket), "--pipe"], check=True, capture_output=True, text=True,
                               input="".join(f"SET key{number} {hashlib.md5(b'%d %d' % (number, day)).hexdigest()}\n" for number in numbers))
                self.keep("Redis", ["redis-cli", "-s", str(server.socket), "--rdb", "-"])

    def sqlite(self) -> None:
        path = self.room / "app.db"
        connection = sqlite3.connect(path)
        connection.create_function("md5", 1, lambda text: hashlib.md5(str(text).encode()).hexdigest())
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INT, note TEXT, day INT, amount INT DEFAULT 0)")
        rows = ((number, number % 9973 * 7, hashlib.md5(b"%d" % number).hexdigest(), 0) for number in range(1, ROWS + 1))
        connection.executemany("INSERT INTO orders (id, customer, note, day) VALUES (?, ?, ?, ?)", rows)
        for day in range(DAYS):
            if day:
                last = ROWS + day * ROWS // 100
                rows = ((number, number, "x" * 32, day) for number in range(last - ROWS // 100 + 1, last + 1))
                connection.executemany("INSERT INTO orders (id, customer, note, day) VALUES (?, ?, ?, ?)", rows)
                connection.executescript("".join(statements(day)[1:]))
            connection.commit()
            self.keep("SQLite", ["cat", str(path)])
        connection.close()


def spent(words: list[str], source: Path, env: dict[str, str]) -> float:
    """CPU seconds of a program that a file is piped into."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(source, "rb") as file:
        subprocess.run(words, stdin=file, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def stored(place: Path) -> int:
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file() and "index" not in path.parts and "cache" not in path.parts)


def fixed(files: list[Path]) -> int:
    """What the distinct chunks of 1 MiB of all files take, each compressed alone, as the engine does."""
    seen: dict[bytes, int] = {}
    for path in files:
        with open(path, "rb") as file:
            while piece := file.read(MIB):
                digest = hashlib.sha256(piece).digest()
                seen[digest] = seen.get(digest) or len(zstandard.compress(piece, 3))
    return sum(seen.values())


def measured(room: Path, files: list[Path], volt: tools.Volt) -> list[str]:
    env = {**os.environ, **volt.env}
    words = [*volt.command, "--store", str(room / "store"), "--backup-dir", str(room / "backups"), "create", "shop", "--stdin", "dump"]
    theirs = {**env, "RESTIC_REPOSITORY": str(room / "restic"), "RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": str(room / "cache")}
    subprocess.run([tools.restic(), "init"], env=theirs, check=True, stdout=subprocess.DEVNULL)
    costs: tuple[list[float], list[float]] = ([], [])
    for path in files:
        costs[0].append(spent(words, path, env))
        costs[1].append(spent([tools.restic(), "backup", "--stdin", "--stdin-filename", "dump", "--quiet"], path, theirs))
    sizes = stored(room / "store"), stored(room / "restic"), fixed(files)
    once = sum(path.stat().st_size for path in files) / len(files)
    cells = [f"{once / MIB:.1f}", *(f"{size / MIB:.1f}" for size in sizes), *(f"{sum(cost):.2f}" for cost in costs)]
    for name in ("store", "backups", "restic", "cache"):
        shutil.rmtree(room / name, ignore_errors=True)
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ("postgresql", "mariadb", "redis", "sqlite")
    parser.add_argument("--systems", type=report.among(known), default=list(known), help="default: all")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="volt-dumps-", dir="/var/tmp") as name:
        room = Path(name)
        room.chmod(0o755)
        volt, restic = tools.Volt(room, room), subprocess.check_output([tools.restic(), "version"], text=True).split()[1]
        if volt.missing():
            raise SystemExit(volt.missing())
        maker = Maker(room)
        for system in given.systems:
            make: Callable[[], None] = getattr(maker, system)
            make()
        rows = [f"| {kind} | {' | '.join(measured(room, files, volt))} |" for kind, files in maker.kinds.items()]
        facts = report.machine(room)
    facts.update({"volt.backup": volt.version(), "restic": restic})
    text = "\n".join([
        f"# Dumps of {DAYS} days, {time.strftime('%Y-%m-%d')}", "",
        "Each day 1% of the rows change, among the youngest tenth, 1% are new, and five go anywhere. MiB; CPU seconds of all days together, user and",
        "system.", "",
        "| dump | one day | stored, volt | stored, restic | chunks of 1 MiB | CPU, volt | CPU, restic |", "|---|--:|--:|--:|--:|--:|--:|", *rows, "",
        *(f"- {key}: {value}" for key, value in facts.items()), ""])  # fmt: skip
    print(text)
    (HERE / "results" / f"{time.strftime('%Y%m%d')}-dumps.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
