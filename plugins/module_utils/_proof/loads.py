# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Dumps are loaded into database servers of their own, which live as long as the sandbox. Sources: initdb(1), psql(1), mariadb-install-db(1), mariadb(1),
redis-server(1), mongod(1), the documentation of mongorestore, and that of SQLite, "PRAGMA integrity_check"."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
import typing as t

from .._base import excerpt, files, open_directory, open_file, process, reason
from .sandbox import PLAIN, Failed

_PLACE = "/tmp/volt-server"
#: Seconds until a server answers, and bytes at the end of a dump in which its last line is.
_PATIENCE, _END = 300, 4096
_PLAIN = {**PLAIN, "HOME": "/tmp", "TMPDIR": "/tmp"}
_TABLESPACE = re.compile(r'CREATE TABLESPACE ((?:"(?:[^"]|"")*"|[^" ])+) ')
_CHECK = """
import sqlite3, sys, urllib.parse
base = sqlite3.connect("file:" + urllib.parse.quote(sys.argv[1]) + "?mode=ro&immutable=1", uri=True)
found = [row[0] for row in base.execute("PRAGMA integrity_check")]
sys.exit(0 if found == ["ok"] else "; ".join(found))
"""


class Copy(t.NamedTuple):
    """A dump that was restored: its `database` (None for all), its file, and whether that contains the oplog of MongoDB."""

    database: t.Optional[str]
    path: bytes
    oplog: bool = False


def lack(kind: str) -> t.Optional[str]:
    """What keeps dumps of a kind from being loaded on this host; None if nothing does."""
    if kind == "sqlite":
        return None
    name, programs = {
        "postgresql": ("PostgreSQL", ("initdb", "postgres", "psql", "createdb")),
        "mariadb": ("MariaDB", ("mariadbd", "mariadb-install-db", "mariadb")),
        "redis": ("Redis", ("redis-server", "redis-cli")),
        "mongodb": ("MongoDB", ("mongod", "mongorestore", "mongodump")),
    }.get(kind, (kind, ()))
    if not programs:
        return f"this version cannot load dumps of {kind}"
    missing = [program for program in programs if _program(program) is None]
    return f"the server of {name} is not installed on this host ({', '.join(missing)} missing)" if missing else None


def load(kind: str, copies: t.Sequence[Copy]) -> None:
    """Load dumps of one kind. To be called in a sandbox. Failed tells what was refused."""
    try:
        {"postgresql": _postgresql, "mariadb": _mariadb, "redis": _redis, "mongodb": _mongodb, "sqlite": _sqlite}[kind](copies)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{os.path.basename(str(error.cmd[0]))} did not end") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise Failed(reason(error) if isinstance(error, OSError) else str(error)) from None


def _postgresql(copies: t.Sequence[Copy]) -> None:
    """Roles and tablespaces come first. Those that there are already, such as the owner of the server, are no failure."""
    user = _place("postgres")
    data = f"{_PLACE}/data"
    _do("initdb", f"--pgdata={data}", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", account=user)
    with _server("postgres", "-D", data, "-k", _PLACE, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off", account=user) as running:
        login = [f"--host={_PLACE}", "--username=postgres"]
        running.until_answer("psql", "--no-psqlrc", *login, "--dbname=postgres", "--command=SELECT 1")
        for copy in sorted(copies, key=lambda copy: copy.database is not None):
            _refuse_cut(copy, b"dump complete")
            psql = ["psql", "--no-psqlrc", "--quiet", "--output=/dev/null", *login]
            if copy.database is None:
                _do(*psql, "--dbname=postgres", *_tablespaces(copy), account=user)
                said = _do(*psql, "--dbname=postgres", source=copy, account=user).errors
                refused = [line for line in said.splitlines() if line.startswith("ERROR:") and not line.endswith("already exists")]
                if refused:
                    raise Failed(f"psql failed ({excerpt(refused[0])})")
                continue
            if copy.database not in ("postgres", "template1"):
                _do("createdb", *login, "--template=template0", "--", copy.database, account=user)
            _do(*psql, "--set=ON_ERROR_STOP=1", f"--dbname={copy.database}", source=copy, account=user)


def _refuse_cut(copy: Copy, last: bytes) -> None:
    """Failed for a dump without its last line: a client takes what is there, and says nothing."""
    with open(open_file(copy.path), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
        if last not in file.read():
            raise Failed(f"the last line is missing in the dump{_of(copy)}")


def _tablespaces(copy: Copy) -> t.List[str]:
    """What makes the tablespaces of a dump inside the server's own directory: those of the real server cannot be written to."""
    with open(open_file(copy.path), encoding="utf-8", errors="surrogateescape") as file:
        names = [match[1] for match in map(_TABLESPACE.match, file) if match]
    return [word for name in names for word in ("--command=SET allow_in_place_tablespaces = on", f"--command=CREATE TABLESPACE {name} LOCATION ''")]


def _mariadb(copies: t.Sequence[Copy]) -> None:
    user = _place("mysql")
    data, socket = f"{_PLACE}/data", f"{_PLACE}/socket"
    _do("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db", "--auth-root-authentication-method=normal", account=user)
    words = [f"--datadir={data}", f"--socket={socket}", f"--pid-file={_PLACE}/pid", "--skip-networking", "--innodb-flush-log-at-trx-commit=0"]
    with _server("mariadbd", "--no-defaults", *words, account=user) as running:
        client = ["mariadb", "--no-defaults", f"--socket={socket}", "--user=root"]
        running.until_answer(*client, "--execute=SELECT 1")
        for copy in copies:
            _refuse_cut(copy, b"-- Dump completed")
            _do(*client, source=copy, account=user)


def _redis(copies: t.Sequence[Copy]) -> None:
    """The server reads its file as it starts, and answers once it has."""
    for copy in copies:
        user = _place("redis")
        with open(open_file(copy.path), "rb") as file, open(f"{_PLACE}/dump.rdb", "wb") as loaded:
            shutil.copyfileobj(file, loaded, 1 << 20)
        os.chown(f"{_PLACE}/dump.rdb", user.uid, user.gid)
        socket = f"{_PLACE}/socket"
        words = ["--port", "0", "--unixsocket", socket, "--dir", _PLACE, "--dbfilename", "dump.rdb", "--save", "", "--appendonly", "no"]
        with _server("redis-server", *words, account=user) as running:
            running.until_answer("redis-cli", "-e", "-s", socket, "DBSIZE")
        shutil.rmtree(_PLACE)


def _mongodb(copies: t.Sequence[Copy]) -> None:
    """The port is that of the sandbox's own loopback interface. mongodump, of a database that is not there, tells whether the server answers.

    Copies of one name, from two servers, are loaded one over the other.
    """
    user = _place("mongodb")
    server = ["--host=127.0.0.1", "--port=27017"]
    with _server("mongod", "--dbpath", _PLACE, "--bind_ip", "127.0.0.1", "--port", "27017", "--nounixsocket", account=user) as running:
        running.until_answer("mongodump", *server, "--db=volt-none", "--archive=/dev/null")
        for copy in copies:
            _do("mongorestore", "--archive", "--stopOnError", "--drop", *(["--oplogReplay"] if copy.oplog else []), *server, source=copy)


def _sqlite(copies: t.Sequence[Copy]) -> None:
    for copy in copies:
        _do(sys.executable, "-I", "-c", _CHECK, os.fsdecode(copy.path))


# ---- programs and servers


class _Running(t.NamedTuple):
    """A server that was started: its process and the file of what it says."""

    child: t.Any
    log: str

    def until_answer(self, *words: str) -> None:
        """Wait until a client has an answer. Failed if the server has ended, or does not answer for long."""
        deadline = time.monotonic() + _PATIENCE
        while process.run([_found(words[0]), *words[1:]], _PLAIN, patience=_PATIENCE, capture=True).status != 0:
            if self.child.poll() is not None or time.monotonic() > deadline:
                how = "ended" if self.child.poll() is not None else "does not answer"
                raise Failed(f"the server {how} ({excerpt(files.read_file(self.log, 1 << 30).decode('utf-8', 'replace'))})")
            time.sleep(0.05)


@contextlib.contextmanager
def _server(*words: str, account: process.Account) -> t.Iterator[_Running]:
    log = f"{_PLACE}/log"
    with open(log, "wb") as file:
        child = process.start([_found(words[0]), *words[1:]], _PLAIN, file.fileno(), account)
    try:
        yield _Running(child, log)
    finally:
        child.end()


def _do(*words: str, source: t.Optional[Copy] = None, account: t.Optional[process.Account] = None) -> process.Ended:
    """Run a program, which may read a dump. Failed if it fails."""
    stdin = os.open("/dev/null", os.O_RDONLY) if source is None else open_file(source.path)
    try:
        done = process.run([_found(words[0]), *words[1:]], _PLAIN, stdin, capture=True, account=account)
    finally:
        os.close(stdin)
    if done.status:
        raise Failed(f"{os.path.basename(words[0])} failed{_of(source)} ({excerpt(done.errors or done.output)})")
    return done


def _of(copy: t.Optional[Copy]) -> str:
    return "" if copy is None or copy.database is None else f" of database {copy.database}"


def _place(user: str) -> process.Account:
    """A new directory of a server's, and the user that it belongs to."""
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        found = pwd.getpwnam("nobody")
    os.mkdir(_PLACE, 0o700)
    fd = open_directory(_PLACE)
    os.fchown(fd, found.pw_uid, found.pw_gid)
    os.close(fd)
    return process.Account(found.pw_uid, found.pw_gid)


def _found(name: str) -> str:
    return _program(name) or name


def _program(name: str) -> t.Optional[str]:
    """A program where it is expected; PostgreSQL's are below a directory with its version."""
    versions = glob.glob(f"/usr/lib/postgresql/*/bin/{name}") + glob.glob(f"/usr/pgsql-*/bin/{name}")
    newest = max(versions, default=None, key=lambda path: [int(number) for number in re.findall("[0-9]+", path)])
    return newest or shutil.which(name, path=_PLAIN["PATH"])
