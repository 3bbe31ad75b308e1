# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases with a ledger that is written all the time, backed up, restored and judged: by their own checkers, and by the ledger's sum.

    ledgers.prove(["postgresql", "redis"], place, "snapshot", archive, 50)

Each transaction moves money from one account to another, so a backup whose sum is another one has half of a transaction. It needs nothing but
`databases.py` beside it, because it also runs in a machine of its own: python -m rigs.ledgers KIND,... PLACE WAY ARCHIVE NUMBER prints the result.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import databases

KINDS = ("postgresql", "mariadb", "sqlite", "redis")
#: How it is backed up: a snapshot of its files, a dump, or its files while they are in use.
WAYS = {"snapshot": ["--snapshot", "require"], "dump": [], "plain": []}
ACCOUNTS, EACH = 1000, 100
_BATCH = 50
_BIG = "x" * 300


class Torn(Exception):
    """A restored database is not sound; the message says why."""


def moves(number: int) -> Iterator[tuple[int, int]]:
    """Accounts from and to which a batch of transactions moves money."""
    for one in range(_BATCH * number, _BATCH * (number + 1)):
        yield one * 13 % ACCOUNTS + 1, one * 29 % ACCOUNTS + 1


def sql(number: int) -> str:
    update = "UPDATE ledger SET amount = amount {sign} 1 WHERE id = {account};"
    return "".join(
        f"BEGIN; {update.format(sign='-', account=one)} {update.format(sign='+', account=other)} COMMIT;\n" for one, other in moves(number)
    )


def expect(found: str, wanted: str) -> None:
    if found.split() != wanted.split():
        raise Torn(f"{found!r} is not {wanted!r}")


SUM = "SELECT sum(amount), count(*) FROM ledger"


class PostgreSQL:
    def __init__(self, source: Path) -> None:
        self._source = source

    @contextlib.contextmanager
    def running(self) -> Iterator[Callable[[int], object]]:
        """:returns: a step of its load.

        A snapshot is as good as a power cut, no better: without `fsync`, 1 of 50 on Btrfs was not sound, since what is written in between may be missing
        although later writes to other files are there.
        """
        with databases.postgresql(self._source, more=("-c", "fsync=on")) as server:
            self._server = server
            server("CREATE DATABASE shop;", "-d", "postgres")
            rows = f"SELECT n AS id, {EACH} AS amount, '{_BIG}' AS filler FROM generate_series(1, {ACCOUNTS}) n"
            server(f"CREATE TABLE ledger AS {rows}; ALTER TABLE ledger ADD PRIMARY KEY (id);", "-d", "shop")
            yield lambda number: server(sql(number) + "CHECKPOINT;", "-d", "shop")

    def dump(self) -> str:
        return f"postgresql:database=shop,host={self._server.socket},run_as=postgres,globals=false,name=postgresql"

    def judge(self, restored: Path, room: Path) -> None:
        (restored / "data/postmaster.pid").unlink()  # it names the server that runs
        with databases.postgresql(room, restored / "data") as server:
            self._check(server, "shop")

    def judge_dump(self, dump: Path, room: Path) -> None:
        server = self._server
        server("DROP DATABASE IF EXISTS restored;", "-d", "postgres")
        server("CREATE DATABASE restored;", "-d", "postgres")
        server(dump.read_text(), "-d", "restored")
        self._check(server, "restored")

    @staticmethod
    def _check(server: databases.Server, database: str) -> None:
        expect(server(SUM, "-d", database), f"{ACCOUNTS * EACH}|{ACCOUNTS}")
        program = str(databases._postgresql_bin() / "pg_amcheck")
        words = [*databases._as("postgres"), program, "-h", str(server.socket), "--heapallindexed", "--install-missing", database]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
        if done.returncode:
            raise Torn(done.stdout + done.stderr)


class MariaDB:
    def __init__(self, source: Path) -> None:
        self._source = source

    @contextlib.contextmanager
    def running(self) -> Iterator[Callable[[int], object]]:
        with databases.mariadb(self._source) as server:
            self._server = server
            rows = f"SELECT seq, {EACH}, '{_BIG}' FROM seq_1_to_{ACCOUNTS}"
            server("SET GLOBAL innodb_flush_log_at_trx_commit = 2;")  # what is committed is written
            server("CREATE DATABASE shop; USE shop; CREATE TABLE ledger (id INT PRIMARY KEY, amount INT, filler TEXT) ENGINE=InnoDB;")
            server(f"USE shop; INSERT INTO ledger {rows};")
            yield lambda number: server(f"USE shop; {sql(number)}")

    def dump(self) -> str:
        return f"mariadb:database=shop,socket={self._server.socket},name=mariadb"

    def judge(self, restored: Path, room: Path) -> None:
        with databases.mariadb(room, restored / "data") as server:
            self._check(server)

    def judge_dump(self, dump: Path, room: Path) -> None:
        with databases.mariadb(room) as server:
            server(dump.read_text())
            self._check(server)

    @staticmethod
    def _check(server: databases.Server) -> None:
        found = server(f"USE shop; {SUM}; CHECK TABLE ledger EXTENDED;")
        expect(found, f"{ACCOUNTS * EACH} {ACCOUNTS} shop.ledger check status OK")


class SQLite:
    #: Another process, as an application is one; its transactions come on its standard input.
    _LOAD = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None).executescript(sys.stdin.read())"

    def __init__(self, source: Path) -> None:
        self._path = source / "app.db"

    @contextlib.contextmanager
    def running(self) -> Iterator[Callable[[int], object]]:
        self._path.parent.mkdir(parents=True)
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            connection.execute("PRAGMA journal_mode=wal")
            connection.execute("CREATE TABLE ledger (id INTEGER PRIMARY KEY, amount INT, filler TEXT)")
            connection.executemany("INSERT INTO ledger VALUES (?, ?, ?)", ((number, EACH, _BIG * 10) for number in range(1, ACCOUNTS + 1)))
            connection.commit()
        yield lambda number: subprocess.run([sys.executable, "-c", self._LOAD, str(self._path)], input=sql(number), text=True, check=True)

    def dump(self) -> str:
        return f"sqlite:path={self._path},name=sqlite"

    def judge(self, restored: Path, room: Path) -> None:
        self._check(restored / "app.db")

    def judge_dump(self, dump: Path, room: Path) -> None:
        self._check(dump)

    @staticmethod
    def _check(path: Path) -> None:
        try:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                expect(str(connection.execute("PRAGMA integrity_check").fetchall()), "[('ok',)]")
                expect(str(connection.execute(SUM).fetchall()), f"[({ACCOUNTS * EACH}, {ACCOUNTS})]")
        except sqlite3.Error as error:
            raise Torn(str(error)) from None


class Redis:
    _AOF = ("--appendonly", "yes", "--auto-aof-rewrite-percentage", "0")

    def __init__(self, source: Path) -> None:
        self._source = source

    @contextlib.contextmanager
    def running(self) -> Iterator[Callable[[int], object]]:
        with databases.redis(self._source, more=self._AOF) as server:
            self._server = server
            server("".join(f"HSET ledger {number} {EACH}\nSET filler{number} {_BIG}\n" for number in range(1, ACCOUNTS + 1)))

            def step(number: int) -> None:
                server("".join(f"MULTI\nHINCRBY ledger {one} -1\nHINCRBY ledger {other} 1\nEXEC\n" for one, other in moves(number)))
                if number % 5 == 0:
                    server("BGREWRITEAOF\n")

            yield step

    def dump(self) -> str:
        return f"redis:socket={self._server.socket},name=redis"

    def judge(self, restored: Path, room: Path) -> None:
        for manifest in restored.glob("appendonlydir/*.manifest"):
            _checked("redis-check-aof", str(manifest))
        self._check(restored, room, self._AOF)

    def judge_dump(self, dump: Path, room: Path) -> None:
        data = room.with_name("redis-data")
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        shutil.copy(dump, data / "dump.rdb")
        for path in (data, data / "dump.rdb"):
            shutil.chown(path, "redis")
        _checked("redis-check-rdb", str(data / "dump.rdb"))
        self._check(data, room)

    @staticmethod
    def _check(data: Path, room: Path, more: Sequence[str] = ()) -> None:
        with databases.redis(room, data, more=more) as server:
            found = list(map(int, server("HVALS ledger").split()))
            expect(f"{sum(found)} {len(found)}", f"{ACCOUNTS * EACH} {ACCOUNTS}")


def _checked(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Torn(f"{words[0]}: {done.stdout[-300:]}")


_LEDGERS = {"postgresql": PostgreSQL, "mariadb": MariaDB, "sqlite": SQLite, "redis": Redis}


class Load:
    """A step that is done again and again, in a thread, while the context lasts; it goes on where it was. One that fails fails the proof."""

    def __init__(self, step: Callable[[int], object]) -> None:
        self._step, self._number = step, 0

    def __enter__(self) -> None:
        self._stop, self._begun = threading.Event(), threading.Event()
        self._failed: list[Exception] = []
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self._begun.wait()

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failed:
            raise self._failed[0]

    def _work(self) -> None:
        while not self._stop.is_set() and not self._failed:
            self._number += 1
            try:
                self._step(self._number)
            except Exception as error:
                self._failed.append(error)
            self._begun.set()


def prove(kinds: Sequence[str], place: Path, way: str, archive: Path, number: int) -> dict[str, list[str]]:
    """Back up databases while all of them are written, restore and judge them, so many times. By kind, what is wrong with each backup that is not sound.

    :param place: an empty directory that all users can reach; the databases are in `source`. :param archive: the command.
    """
    source, target, room = place / "source", place / "target", place / "room"
    ledgers = {kind: _LEDGERS[kind](source / kind) for kind in kinds}
    wrong: dict[str, list[str]] = {kind: [] for kind in kinds}
    with contextlib.ExitStack() as servers:
        loads = [Load(servers.enter_context(ledger.running())) for ledger in ledgers.values()]
        dumps = [word for ledger in ledgers.values() for word in ("--dump", ledger.dump())] if way == "dump" else []
        words = [*WAYS[way], *([*dumps, "--exclude", "*"] if dumps else [])]
        for run in range(number):
            with contextlib.ExitStack() as busy:
                for load in loads:
                    busy.enter_context(load)
                made = _call(archive, place, "create", "work", "--source", str(source), "--compression", "zlib", *words)["backup"]
            _call(archive, place, "restore", made["id"], "--target", str(target), "--force", "--delete")
            for kind, ledger in ledgers.items():
                shutil.rmtree(room, ignore_errors=True)
                try:
                    if way == "dump":
                        ledger.judge_dump(target / ".volt-dumps" / kind, room)
                    else:
                        ledger.judge(target / kind, room)
                except (Torn, AssertionError) as error:
                    wrong[kind].append(str(error)[-300:])
            shutil.rmtree(target)  # the judges have written into it
            print(f"{run + 1} of {number}, wrong: {wrong}", file=sys.stderr, flush=True)
    return wrong


def _call(archive: Path, place: Path, *words: str) -> dict:  # type: ignore[type-arg]
    places = ["--store", str(place / "store"), "--backup-dir", str(place / "backups"), "--json"]
    done = subprocess.run([sys.executable, str(archive), *words, *places], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-500:] + done.stderr[-500:])
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    print(json.dumps(prove(sys.argv[1].split(","), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))))
