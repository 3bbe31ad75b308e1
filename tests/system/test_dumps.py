# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of real servers under a writing load: each is loaded into a new server, whose own checker and a ledger's sum judge it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import SourceError, UsageError
from ansible_collections.volt.backup.plugins.module_utils._proof import loads, trial
from ansible_collections.volt.backup.plugins.module_utils._schedule import drill
from ansible_collections.volt.backup.plugins.module_utils._sources import prepare, sqlite
from ansible_collections.volt.backup.tests.rigs import Unavailable, databases, need, sample
from ansible_collections.volt.backup.tests.rigs.ledgers import Load
from ansible_collections.volt.backup.tests.system.conftest import Bench
from ansible_collections.volt.backup.tests.unit.kit import command

#: Accounts of a ledger, and what all of them together have at any moment.
ACCOUNTS, TOTAL = 100, 100_000
NOBODY = 65534


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, databases.Server]]:
    """One server each, with a ledger in a database named shop; skips where one is not installed, or without root."""
    if os.geteuid() or databases.missing():
        raise Unavailable(f"needs root and {', '.join(databases.missing())}")
    place = Path("/var/tmp") / f"volt-test-{os.getpid()}"
    place.mkdir()
    try:
        with ExitStack() as stack:
            found = {kind: stack.enter_context(getattr(databases, kind)(place / kind)) for kind in ("postgresql", "mariadb", "redis")}
            found["postgresql"]("CREATE DATABASE shop;", "-d", "postgres")
            found["postgresql"](f"CREATE TABLE ledger AS SELECT n AS id, {TOTAL // ACCOUNTS} AS amount FROM generate_series(1, {ACCOUNTS}) n;", "-d", "shop")
            found["mariadb"](
                "CREATE DATABASE shop; USE shop; CREATE TABLE ledger (id INT PRIMARY KEY, amount INT) ENGINE=InnoDB;"
                f"INSERT INTO ledger SELECT seq, {TOTAL // ACCOUNTS} FROM seq_1_to_{ACCOUNTS};"
            )
            found["redis"]("".join(f"HSET ledger {number} {TOTAL // ACCOUNTS}\n" for number in range(1, ACCOUNTS + 1)))
            yield found
    finally:
        shutil.rmtree(place)


def copies() -> set[str]:
    """The copies of SQLite databases that runs have made, of whatever is tested on this machine."""
    return {name for name in os.listdir(sqlite._PLACE) if name.startswith(sqlite._PREFIX)}


@pytest.fixture
def left() -> Callable[[], set[str]]:
    """Those that were made since the test began."""
    before = copies()
    return lambda: copies() - before


def sql(number: int) -> str:
    """A transfer that leaves the sum as it is."""
    one, other = number % ACCOUNTS + 1, number * 7 % ACCOUNTS + 1
    return f"BEGIN; UPDATE ledger SET amount = amount - 1 WHERE id = {one}; UPDATE ledger SET amount = amount + 1 WHERE id = {other}; COMMIT;\n"


def batch(number: int) -> str:
    return "".join(sql(50 * number + one) for one in range(50))


def socket_of(server: databases.Server) -> dict[str, Any]:
    return {"host": str(server.socket), "run_as": "postgres"} if server.user == "postgres" else {"socket": str(server.socket)}


def load(bench: Bench, dumped: dict[str, Any], how: Callable[[str], str]) -> str:
    """Restore, and run what the restore says loads the dump, with the client told where the new server is."""
    restore = bench.restore(force=True).restore
    assert [{key: dump[key] for key in dumped} for dump in restore["dumps"][:1]] == [dumped]
    words = how(restore["dumps"][0]["load"])
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False, cwd="/")
    assert not done.returncode, done.stderr
    return str(restore["dumps"][0]["path"])


def test_postgresql(public_path: Path, servers: dict[str, databases.Server]) -> None:
    server, bench = servers["postgresql"], Bench(public_path)
    bench.files(a=b"a")
    with Load(lambda number: server(batch(number), "-d", "shop")):
        backup = bench.create(dumps=[{"postgresql": {"database": "shop", **socket_of(server)}}]).backup
    assert [dump["kind"] for dump in backup["dumps"]] == ["postgresql"] * 2 and backup["complete"]
    server("", "-d", "postgres", "-c", "DROP DATABASE IF EXISTS restored")
    there = f"export PGHOST={server.socket}; "
    load(bench, {"kind": "postgresql", "database": "shop"}, lambda words: there + words.replace("shop &", "restored &").replace("=shop", "=restored"))
    assert server("SELECT sum(amount), count(*) FROM ledger;", "-d", "restored") == f"{TOTAL}|{ACCOUNTS}\n"
    done = subprocess.run(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", str(databases._postgresql_bin() / "pg_amcheck"), "-h",
                           str(server.socket), "--install-missing", "restored"], capture_output=True, text=True, check=False, cwd="/")  # fmt: skip
    assert not done.returncode, done.stdout + done.stderr
    globals_ = (bench.target / ".volt-dumps" / f"postgresql-globals-{str(server.socket).replace('/', '_')}.sql").read_text()
    assert "CREATE ROLE postgres;" in globals_


def test_mariadb(bench: Bench, servers: dict[str, databases.Server]) -> None:
    server = servers["mariadb"]
    bench.files(a=b"a")
    with Load(lambda number: server("USE shop;" + batch(number))):
        bench.create(dumps=[{"mariadb": {"database": "shop", **socket_of(server)}}])
    with databases.mariadb(Path("/var/tmp") / f"volt-test-{os.getpid()}" / "mariadb-restored") as other:
        load(bench, {"kind": "mariadb", "database": "shop"}, lambda words: words.replace("mariadb <", f"mariadb --no-defaults --socket={other.socket} <"))
        assert other("SELECT SUM(amount), COUNT(*) FROM shop.ledger; CHECK TABLE shop.ledger;").split() == [
            str(TOTAL), str(ACCOUNTS), "shop.ledger", "check", "status", "OK",
        ]  # fmt: skip


def test_redis(bench: Bench, servers: dict[str, databases.Server]) -> None:
    server = servers["redis"]

    def transfer(number: int) -> None:
        one, other = number % ACCOUNTS + 1, number * 7 % ACCOUNTS + 1
        server(f"MULTI\nHINCRBY ledger {one} -1\nHINCRBY ledger {other} 1\nEXEC\n" * 50)

    bench.files(a=b"a")
    with Load(transfer):
        bench.create(dumps=[{"redis": {**socket_of(server), "name": "shop.rdb"}}])
    bench.restore()
    data = Path("/var/tmp") / f"volt-test-{os.getpid()}" / "redis-data"
    data.mkdir()
    shutil.copy(bench.target / ".volt-dumps/shop.rdb", data / "dump.rdb")
    for path in (data, data / "dump.rdb"):
        shutil.chown(path, "redis")
    subprocess.run(["redis-check-rdb", str(data / "dump.rdb")], check=True, capture_output=True)
    with databases.redis(data.with_name("redis-restored"), data) as other:
        assert sum(map(int, other("HVALS ledger").split())) == TOTAL


def test_nothing_is_left_behind_after_kills(public_path: Path, servers: dict[str, databases.Server], left: Callable[[], set[str]]) -> None:
    """Programs that write dumps end with their run, copies of databases go with the next one, and what is listed is complete."""
    bench = Bench(public_path)
    bench.source.mkdir()
    ledger(bench.source / "app.db", "wal")
    archive = bench.top / "volt-backup"
    archive.write_bytes(command())
    words = [sys.executable, str(archive), "create", "work", "--source", str(bench.source), "--store", str(bench.store), "--backup-dir", str(bench.backups)]
    words += ["--dump", "sqlite:path=app.db", "--dump", f"mariadb:database=shop,socket={servers['mariadb'].socket}"]
    words += ["--dump", f"postgresql:database=shop,host={servers['postgresql'].socket},run_as=postgres"]
    words += ["--dump", f"redis:socket={servers['redis'].socket}"]
    for number in range(200 if sample.LONG else 4):
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(sample.chance("kills of dumps", number).uniform(0.1, 1.2))
        child.kill()
        child.wait()
    for name in left():
        os.utime(os.path.join(sqlite._PLACE, name), (0, 0))  # those of the last hour could be of runs that have just made them
    made = subprocess.run([*words, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(made.stdout)["backup"]["complete"] and all(backup["complete"] and not backup["damaged"] for backup in bench.found())
    assert not left()
    assert bench.debris() == []
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    ours = [str(servers[kind].socket) for kind in ("postgresql", "mariadb", "redis")]
    dumping = [line for line in running.splitlines() if line.startswith(("pg_dump", "mariadb-dump", "redis-cli")) and any(path in line for path in ours)]
    assert not dumping


def drilled(bench: Bench) -> drill.Drill:
    (done,) = drill.Driller(bench.manager, str(bench.top / "scratch"), False, str(bench.top), str(bench.top))([])
    return done


@pytest.mark.costly
def test_a_drill_loads_them(public_path: Path, servers: dict[str, databases.Server]) -> None:
    """Into servers of its own; what the database itself refuses is not proved."""
    bench = Bench(public_path)
    bench.source.mkdir()
    ledger(bench.source / "app.db", "wal")
    of = {kind: socket_of(servers[kind]) for kind in servers}
    dumps = [{"postgresql": {"database": "shop", **of["postgresql"]}}, {"mariadb": of["mariadb"]}, {"redis": of["redis"]}, {"sqlite": {"path": "app.db"}}]
    bench.create(dumps=dumps)
    done = drilled(bench)
    assert done.reason is None and [dump["kind"] for dump in done.dumps] == ["postgresql", "postgresql", "mariadb", "redis", "sqlite"]
    assert all(dump["loaded"] and dump["reason"] is None for dump in done.dumps)

    servers["postgresql"]("CREATE DATABASE odd;", "-d", "postgres")
    odd = "CREATE TABLE a (n INT); CREATE FUNCTION f(i INT) RETURNS BOOL LANGUAGE sql AS 'SELECT count(*) < 9 FROM a';"
    servers["postgresql"](f"{odd} CREATE TABLE b (n INT CHECK (f(n))); INSERT INTO b VALUES (1);", "-d", "odd")
    bench.create(dumps=[{"postgresql": {"database": "odd", **of["postgresql"]}}])
    done = drilled(bench)
    assert done.reason and "psql failed of database odd" in done.reason and 'relation "a" does not exist' in done.reason
    assert not any(dump["loaded"] for dump in done.dumps)


def test_which_dumps_differ_without_any_change(public_path: Path, servers: dict[str, databases.Server]) -> None:
    """As docs/databases.md says of `only_if_changed`: PostgreSQL in the key of \\restrict alone, Redis in two fields of its head and the checksum."""
    contents: dict[str, list[bytes]] = {}
    for kind, dump in {
        "postgresql": {"database": "shop", "globals": False}, "mariadb": {"database": "shop"}, "redis": {}, "sqlite": {"path": "app.db"},
    }.items():  # fmt: skip
        (public_path / kind).mkdir()
        bench = Bench(public_path / kind)
        bench.source.mkdir()
        ledger(bench.source / "app.db", "delete")
        dumps = [{kind: {**dump, "name": "dump", **({} if kind == "sqlite" else socket_of(servers[kind]))}}]
        made = []
        for _run in range(2):
            made.append(bench.create(dumps=dumps, only_if_changed=True))
            bench.restore(force=True)
            contents.setdefault(kind, []).append((bench.target / ".volt-dumps/dump").read_bytes())
            time.sleep(1.1)
        assert made[1].changed == (kind in ("postgresql", "redis")), kind
    one, other = (re.sub(rb"(?m)^(\\(?:un)?restrict) \w+$", rb"\1", content) for content in contents["postgresql"])
    assert one == other
    fields = rb"\xfa\x05ctime\xc2.{4}|\xfa\x08used-mem\xc2.{4}|.{8}(?:[0-9a-f]{40})?\Z"  # redis-cli also writes the mark that ends a transfer
    one, other = (re.sub(fields, b"", content, flags=re.DOTALL) for content in contents["redis"])
    assert one == other


SPACE = "CREATE TABLESPACE \"fast ssd\" OWNER postgres LOCATION '/srv/volt-none/ssd';\n"


@pytest.mark.parametrize(
    ("database", "text", "why"),
    [
        ("-x", "SELECT 1;", None),
        ("template1", "SELECT 1;", None),
        ("sh'o\"p", "SET default_tablespace = 'fast ssd';\nCREATE TABLE stock (id integer);\n", None),
        (None, 'CREATE ROLE "postgres";\nCREATE ROLE shop;\n', None),
        (None, "CREATE ROLL shop;\nCREATE ROLE other;\n", 'ERROR: syntax error at or near "ROLL"'),
    ],
)
@pytest.mark.costly
def test_odd_names_tablespaces_and_roles(tmp_path: Path, database: str | None, text: str, why: str | None) -> None:
    """None of the errors that there are while roles are made goes unseen, but those of roles that there are."""
    need("psql", root=True)
    (tmp_path / "tree").mkdir()
    for name, said in (("roles", SPACE), ("dump", text)):
        (tmp_path / "tree" / name).write_text(f"{said}\n-- PostgreSQL database dump complete\n")
    dumps = [{"kind": "postgresql", "database": name, "path": path} for name, path in ((database, "dump"), (None, "roles"))]
    tried = trial.tried(str(tmp_path), dumps, None, False)
    assert (tried.reason is None) == (why is None) and (why or "") in (tried.reason or ""), tried.reason


@pytest.mark.costly
def test_a_dump_without_its_end_is_not_proved(public_path: Path, servers: dict[str, databases.Server]) -> None:
    """A client takes what is there, and says nothing."""
    for kind in ("postgresql", "mariadb"):
        (public_path / kind).mkdir()
        bench = Bench(public_path / kind)
        bench.files(a=b"a")
        bench.create(dumps=[{kind: {"database": "shop", "name": "shop.sql", **socket_of(servers[kind])}}])
        bench.restore()
        room = bench.top / "room"
        (room / "tree").mkdir(parents=True)
        (room / "tree/shop.sql").write_bytes((bench.target / ".volt-dumps/shop.sql").read_bytes()[:-200])
        tried = trial.tried(str(room), [{"kind": kind, "database": "shop", "path": "shop.sql"}], None, False)
        assert tried.reason and tried.reason.startswith(f"Its dumps of {kind} cannot be loaded: the last line is missing in the dump of database shop; ")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_drill_finds_a_dump_whatever_its_name_is(bench: Bench) -> None:
    bench.source.mkdir()
    ledger(bench.source / "app.db", "delete")
    bench.create(dumps=[{"sqlite": {"path": "app.db", "name": "a\\\\ b.db"}}])
    done = drilled(bench)
    assert done.reason is None and done.dumps[0]["loaded"]


def test_a_drill_finds_a_damaged_database(bench: Bench) -> None:
    bench.source.mkdir()
    ledger(bench.source / "app.db", "delete")
    with open(bench.source / "app.db", "r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096)
    bench.create(dumps=[{"sqlite": {"path": "app.db"}}])
    done = drilled(bench)
    assert done.reason and done.reason.startswith("Its dumps of sqlite cannot be loaded: ") and not done.dumps[0]["loaded"]


def test_a_dump_that_no_server_here_can_load_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.source.mkdir()
    ledger(bench.source / "app.db", "delete")
    bench.create(dumps=[{"sqlite": {"path": "app.db"}}])
    monkeypatch.setattr(loads, "lack", lambda kind: f"the server of {kind} is not installed on this host")
    done = drilled(bench)
    assert (done.reason, done.dumps[0]["loaded"]) == (None, False)
    assert drill.unloaded(done) == "1 dump(s) were not loaded: .volt-dumps/sqlite-app.db (the server of sqlite is not installed on this host)"


def test_a_dump_of_mongodb_needs_its_server_and_its_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are, in the long mode, test_mongodb.py loads one."""
    monkeypatch.setattr(loads, "_PLAIN", {**loads._PLAIN, "PATH": str(tmp_path)})
    assert loads.lack("mongodb") == "the server of MongoDB is not installed on this host (mongod, mongorestore, mongodump missing)"
    for name in ("mongod", "mongorestore", "mongodump"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert loads.lack("mongodb") is None


_HOLD = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN EXCLUSIVE'); print('held', flush=True); time.sleep(600)"
_TRANSFER = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None).executescript(sys.stdin.read())"


def ledger(path: Path, mode: str) -> Callable[[int], object]:
    """Make a SQLite ledger, and return a transfer in it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE ledger (id INTEGER PRIMARY KEY, amount INT, filler TEXT)")
        connection.executemany("INSERT INTO ledger VALUES (?, ?, ?)", ((number, TOTAL // ACCOUNTS, "x" * 3000) for number in range(1, ACCOUNTS + 1)))
        connection.commit()

    return lambda number: subprocess.run([sys.executable, "-c", _TRANSFER, path], input=batch(number), text=True, check=True)  # a fork must not inherit it


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_sqlite(bench: Bench, mode: str, left: Callable[[], set[str]]) -> None:
    bench.source.mkdir()
    transfer = ledger(bench.source / "app.db", mode)
    with Load(transfer):
        made = bench.create(dumps=[{"sqlite": {"path": "app.db"}}], unstable_ok=["app.db*"])
    assert made.backup["dumps"] == [{"kind": "sqlite", "path": ".volt-dumps/sqlite-app.db", "database": str(bench.source / "app.db")}]
    assert not any("SQLite" in text for text in made.warnings)
    bench.restore()
    with contextlib.closing(sqlite3.connect(bench.target / ".volt-dumps/sqlite-app.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT sum(amount), count(*) FROM ledger").fetchall() == [(TOTAL, ACCOUNTS)]
    assert not left()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_sqlite_is_opened_by_its_owner(public_path: Path) -> None:
    """Root opens nothing that the owner prepared: not what a link leads to, and not a copy that he replaces."""
    bench = Bench(public_path)
    bench.source.mkdir()
    secret = bench.top / "secret.db"
    ledger(secret, "delete")
    secret.chmod(0o600)
    ledger(bench.source / "app.db", "wal")
    (bench.source / "link.db").symlink_to(secret)
    for path in (bench.source, *bench.source.iterdir()):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    os.chown(secret, 0, 0)
    bench.create(dumps=[{"sqlite": {"path": "app.db"}}])
    for path in bench.source.iterdir():
        assert path.lstat().st_uid == NOBODY, path
    bench.files(text=b"no database")
    os.chown(bench.source / "text", NOBODY, NOBODY)
    for path, said in (("none.db", "no such file"), ("text", "not a database"), ("link.db", "symbolic link of another user"), (".", "not a regular file")):
        with pytest.raises(SourceError, match=f"{path}.*{said}"):
            bench.create(dumps=[{"sqlite": {"path": path}}])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_database_that_others_could_replace_is_refused(public_path: Path) -> None:
    """SQLite deletes what a journal names beside the file that it opens: root's file in a user's directory, or a link to one, would obey that user."""
    bench = Bench(public_path)
    bench.source.mkdir()
    ledger(bench.source / "roots.db", "delete")
    os.chown(bench.source, NOBODY, NOBODY)
    with pytest.raises(SourceError, match="other users than its owner can write to"):
        bench.create(dumps=[{"sqlite": {"path": "roots.db"}}])
    os.chown(bench.source, 0, 0)
    bench.source.chmod(0o777)
    with pytest.raises(SourceError, match="other users than its owner can write to"):
        bench.create(dumps=[{"sqlite": {"path": "roots.db"}}])
    bench.source.chmod(0o755)
    assert bench.create(dumps=[{"sqlite": {"path": "roots.db"}}]).backup["complete"]


def test_a_database_that_is_locked_ends_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch, left: Callable[[], set[str]]) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE", 1)
    bench.source.mkdir()
    ledger(bench.source / "app.db", "delete")
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, bench.source / "app.db"], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(SourceError, match="database is locked"):
            bench.create(dumps=[{"sqlite": {"path": "app.db"}}])
    finally:
        holder.kill()
        holder.communicate()
    assert bench.found() == [] and not left()


def test_no_place_for_the_copy_of_a_database(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_PLACE", "/proc")
    bench.source.mkdir()
    ledger(bench.source / "app.db", "delete")
    with pytest.raises(SourceError, match="app.db: its copy cannot be made in /proc: no such file or directory; "):
        bench.create(dumps=[{"sqlite": {"path": "app.db"}}])


def test_a_password_is_in_no_command_line_and_no_message(bench: Bench, servers: dict[str, databases.Server], tmp_path: Path) -> None:
    with databases.redis(Path("/var/tmp") / f"volt-test-{os.getpid()}" / "redis-secret", password="correct-horse") as server:
        (tmp_path / "password").write_text("correct-horse\n")
        bench.files(a=b"a")
        options = {"socket": str(server.socket), "password_file": str(tmp_path / "password")}
        made = bench.create(dumps=[{"redis": options}])
        assert "correct-horse" not in repr(made)
        assert "correct-horse" not in repr(vars(prepare.prepare(prepare.Asked(dumps=[{"redis": options}]), b"/x")[0]))
        for wrong, said in ((tmp_path / "none", "cannot be read"), (None, "NOAUTH")):
            with pytest.raises(SourceError, match=said) as caught:
                bench.create(dumps=[{"redis": {**options, "password_file": wrong and str(wrong)}}])
            assert "correct-horse" not in str(caught.value)
    with pytest.raises(SourceError, match="Could not connect"):
        bench.create(dumps=[{"redis": options}])
    assert len(bench.found()) == 1 and not bench.debris()


@pytest.mark.parametrize("dumps, said", [
    ([{}], "must have one key"),
    ([{"oracle": {}}], "must have one key"),
    ([{"redis": {}, "mariadb": {}}], "must have one key"),
    ([{"redis": "x"}], "must be a mapping"),
    ([{"redis": {"colour": 1}}], "colour of redis"),
    ([{"postgresql": {}}], "needs .database."),
    ([{"postgresql": {"database": "postgresql://u:secret@h/db"}}], "not a connection string"),
    ([{"sqlite": {}}], "needs .path."),
    ([{"redis": {}}, {"redis": {"port": 6380}}], "Two files of the backup would be"),
    ([{"redis": {"name": "../x"}}], "must be the name of a file"),
])  # fmt: skip
def test_what_cannot_be_meant(bench: Bench, dumps: list[Any], said: str) -> None:
    bench.source.mkdir()
    with pytest.raises(UsageError, match=said) as caught:
        bench.create(dumps=dumps)
    assert "secret" not in str(caught.value) and not bench.store.exists()


def test_two_databases_of_one_server_have_one_file_of_roles() -> None:
    asked = prepare.Asked(dumps=[{"postgresql": {"database": name}} for name in ("a", "b")])
    found = [dump["path"] for dump in prepare.prepare(asked, b"/x")[1]]
    assert found == [".volt-dumps/postgresql-a.sql", ".volt-dumps/postgresql-globals.sql", ".volt-dumps/postgresql-b.sql"]
