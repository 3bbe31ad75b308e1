# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that speaks the protocol of MongoDB: FerretDB, in front of a PostgreSQL of its own. Debian has neither MongoDB nor its tools, which are taken
from PATH: mongodump, mongorestore, mongoimport and mongoexport of MongoDB's database tools (tried: 100.5.4), and ferretdb (tried: 0.9.4).

It has no replica sets, no indexes but unique ones, and knows no mechanism but PLAIN to log in.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import databases, need

TOOLS = ("mongodump", "mongorestore", "mongoimport", "mongoexport")
#: The user of a server that asks for one.
USER, PASSWORD = "backup", 'correct "horse"\\ #\u00e9'
_PATIENCE = 60
_QUIET = ("--debug-addr=127.0.0.1:0", "--telemetry=disable", "--log-level=warn")


def needed() -> None:
    """Raise Unavailable where a test cannot have a server."""
    need(*TOOLS, "ferretdb", "psql", root=True)


class Server:
    """A server that runs, at a port of the loopback interface and at a socket. `child`: its process."""

    def __init__(self, words: Sequence[str], place: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.socket, self._log = place / "server.sock", place.parent / "log"
        self.uri = f"mongodb://{urllib.parse.quote(str(self.socket), safe='')}/"
        self._words = [*words, f"--listen-addr=127.0.0.1:{self.port}", f"--listen-unix={self.socket}", f"--state-dir={place}", *_QUIET]
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it anew, with the data that it has."""
        self.end()
        self.socket.unlink(missing_ok=True)
        with open(self._log, "wb") as log:
            self.child = subprocess.Popen(self._words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/")
        deadline = time.monotonic() + _PATIENCE
        while not self.socket.exists():
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"The server does not answer: {self._log.read_text(errors='replace')[-500:]}")
            time.sleep(0.05)

    def end(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()

    def put(self, where: str, documents: Sequence[Any]) -> None:
        """Insert documents into a collection, or replace those with the same _id. :param where: as in shop.ledger."""
        text = "".join(json.dumps(document) + "\n" for document in documents)
        self._tool("mongoimport", where, "--mode=upsert", text=text)

    def all(self, where: str) -> list[Any]:
        """The documents of a collection, by their _id."""
        lines = self._tool("mongoexport", where, "--jsonFormat=canonical").splitlines()
        return sorted(map(json.loads, lines), key=lambda document: json.dumps(document["_id"]))

    def _tool(self, program: str, where: str, *words: str, text: str = "") -> str:
        database, _dot, collection = where.partition(".")
        words = (program, f"--uri={self.uri}", f"--db={database}", f"--collection={collection}", *words)
        done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(done.stderr)
        return done.stdout


@contextmanager
def ferretdb(place: Path, users: bool = False) -> Iterator[Server]:
    """A server without data.

    :param place: a directory to be made, which the user postgres can reach. :param users: only USER may use it.
    """
    place.mkdir(parents=True)
    try:
        rules = place / "pg_hba.conf"
        rules.write_text(f"local all postgres peer\nlocal all all {'scram-sha-256' if users else 'trust'}\n")
        databases._owned(place / "ferretdb", "postgres")
        with databases.postgresql(place / "postgresql", more=("-c", f"hba_file={rules}")) as behind:
            behind(f"CREATE DATABASE ferretdb; CREATE ROLE {USER if users else 'anybody'} SUPERUSER LOGIN PASSWORD '{PASSWORD}';", "-d", "postgres")
            url = f"postgres://anybody@/ferretdb?host={place / 'postgresql'}"
            server = Server([*databases._as("postgres"), str(shutil.which("ferretdb")), f"--postgresql-url={url}"], place / "ferretdb")
            try:
                server.start()
                yield server
            finally:
                server.end()
    finally:
        shutil.rmtree(place)


#: What mongod is told by a drill, and nothing else, done by FerretDB.
_MONGOD = """#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        --dbpath) place=$2; shift ;;
        --bind_ip) address=$2; shift ;;
        --port) port=$2; shift ;;
        --nounixsocket) ;;
        *) echo "Error parsing command line: unrecognised option '$1'" >&2; exit 2 ;;
    esac
    shift
done
set -e
{postgresql}/initdb -D "$place/data" -A trust -U postgres -N --no-locale -E UTF8 >/dev/null
{postgresql}/postgres -D "$place/data" -k "$place" -c listen_addresses= -c fsync=off &
until {postgresql}/psql -h "$place" -U postgres -d postgres -qc 'CREATE DATABASE ferretdb' 2>/dev/null; do sleep 0.1; done
exec ferretdb --postgresql-url="postgres://postgres@/ferretdb?host=$place" --listen-addr="$address:$port" --debug-addr=127.0.0.1:0 --state-dir="$place" \\
    --telemetry=disable --log-level=warn
"""


def programs(place: Path) -> str:
    """The PATH of a host that has MongoDB: the real tools, and a mongod that is FerretDB. :param place: a directory to be made, which all users can reach."""
    place.mkdir(parents=True)
    for name in (*TOOLS, "ferretdb"):
        shutil.copy(str(shutil.which(name)), place / name)
    (place / "mongod").write_text(_MONGOD.format(postgresql=databases._postgresql_bin()))
    for path in (place, *place.iterdir()):
        path.chmod(0o755)
    return f"{place}{os.pathsep}{os.environ['PATH']}"
