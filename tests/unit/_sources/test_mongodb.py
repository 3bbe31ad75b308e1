# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What mongodump is told, and what of its output is refused. Real servers are in tests/system/test_mongodb.py."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import SourceError, UsageError
from ansible_collections.volt.backup.plugins.module_utils._sources import dumps, loading, prepare

#: As mongodump writes it for a server without collections, and for one with more.
_HEADER = (5).to_bytes(4, "little") + b"\0"
EMPTY = b"\x6d\xe2\x99\x81" + _HEADER + b"\xff" * 4
ARCHIVE = b"\x6d\xe2\x99\x81" + _HEADER + b"\x10\0\0\0 a collection" + b"x" * 100_000

#: Tells what it was given, then writes an archive.
_PROGRAM = """#!/bin/sh
printf '%s\\n' "$@" >{room}/argv
env >{room}/environment
for word; do
    case $word in --config=*) stat --dereference --format=%a "${{word#*=}}" >{room}/mode && cat "${{word#*=}}" >{room}/config ;; esac
done
cat {room}/archive
exit $(cat {room}/status)
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a program named mongodump tells what it was given; it writes `archive`, and ends with `status`."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/mongodump"
    program.write_text(_PROGRAM.format(room=tmp_path))
    program.chmod(0o755)
    (tmp_path / "archive").write_bytes(ARCHIVE)
    (tmp_path / "status").write_text("0")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def dumped(most: int = 1 << 20, **options: Any) -> bytes:
    """All of a dump, read in pieces."""
    (dump,) = dumps.parse({"mongodb": options}, None)
    with dump.stream.open() as read:
        return b"".join(iter(lambda: read(most), b""))


_FIXED = ["--archive", "--numParallelCollections=1"]


@pytest.mark.parametrize(("options", "argv", "config"), [
    ({}, [], None),
    ({"database": "shop"}, ["--db=shop"], None),
    ({"oplog": True}, ["--oplog"], None),
    ({"host": "rs0/db1,db2", "port": 27018}, ["--host=rs0/db1,db2", "--port=27018"], None),
    ({"user": "backup", "auth_database": "admin"}, ["--username=backup", "--authenticationDatabase=admin"], None),
    ({"socket": "/run/mongodb/a b.sock"}, [], {"uri": "mongodb://%2Frun%2Fmongodb%2Fa%20b.sock/"}),
    ({"uri": "mongodb+srv://backup@db.example/?tls=true"}, [], {"uri": "mongodb+srv://backup@db.example/?tls=true"}),
])  # fmt: skip
def test_what_mongodump_is_told(room: Path, options: dict[str, Any], argv: list[str], config: dict[str, str] | None) -> None:
    assert dumped(**options) == ARCHIVE
    told = (room / "argv").read_text().splitlines()
    named = [word for word in told if word.startswith("--config=")]
    assert told == [*_FIXED, *argv, *named] and len(named) == (config is not None)
    assert config is None or read_config(room) == config


def read_config(room: Path) -> dict[str, str]:
    """The settings. A YAML string between double quotes with these escapes is one of Python."""
    pairs = [line.split(": ", 1) for line in (room / "config").read_text(encoding="ascii").splitlines()]
    return {key: ast.literal_eval(value) for key, value in pairs}


@pytest.mark.parametrize("password", ["correct-horse", 'a"\\\t: #{}\u00e9\U0001f40e'], ids=["plain", "odd"])
def test_a_password_goes_by_a_file_that_only_its_user_can_read(room: Path, password: str) -> None:
    (room / "password").write_text(f"{password}\n", encoding="utf-8")
    before = os.listdir("/proc/self/fd")
    assert dumped(user="backup", password_file=str(room / "password"), socket="/run/m.sock") == ARCHIVE
    assert read_config(room) == {"uri": "mongodb://%2Frun%2Fm.sock/", "password": password}
    assert (room / "mode").read_text() == "600\n"
    assert password not in (room / "argv").read_text() + (room / "environment").read_text()
    assert os.listdir("/proc/self/fd") == before


def test_a_password_that_cannot_be_read(room: Path) -> None:
    with pytest.raises(SourceError, match="^Dump of MongoDB databases: .*none, its `password_file`, cannot be read: no such file or directory; "):
        dumped(password_file=str(room / "none"))


def test_it_is_not_installed(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SourceError, match="^Dump of MongoDB database shop: the program mongodump is not installed; "):
        dumped(database="shop")


@pytest.mark.parametrize("most", [1, 3, 4, 17, 1 << 20])
def test_no_byte_is_lost(room: Path, most: int) -> None:
    (room / "archive").write_bytes(ARCHIVE[:1000])
    assert dumped(most) == ARCHIVE[:1000]


def test_an_archive_without_collections_is_refused(room: Path) -> None:
    """mongodump ends well for a database that does not exist, and for a user who may see none."""
    (room / "archive").write_bytes(EMPTY)
    with pytest.raises(SourceError, match="^Dump of MongoDB database shpo: the server shows no collections; "):
        dumped(database="shpo")


@pytest.mark.parametrize("cut", [0, 3, 8, 12, len(EMPTY), 50_000, len(ARCHIVE)])
def test_it_fails_in_the_middle(room: Path, cut: int) -> None:
    (room / "archive").write_bytes(ARCHIVE[:cut])
    (room / "status").write_text("1")
    with pytest.raises(SourceError, match="^Dump of MongoDB databases: mongodump failed with exit status 1; "):
        dumped()


@pytest.mark.parametrize(("options", "said"), [
    ({"uri": "mongodb://backup:secret@db/"}, "must not contain a password"),
    ({"uri": "mongodb://backup:sec/ret@db/"}, "must not contain a password"),
    ({"uri": "mongodb+srv://:secret@db/"}, "must not contain a password"),
    ({"uri": "backup:secret@db"}, "must begin with mongodb:// or mongodb"),
    ({"uri": "mongodb://db/", "host": "db"}, "three ways to name a server"),
    ({"uri": "mongodb://db/", "port": 27018}, "three ways to name a server"),
    ({"socket": "/run/m.sock", "port": 27018}, "three ways to name a server"),
    ({"socket": "/run/m.sock", "uri": "mongodb://db/"}, "three ways to name a server"),
    ({"database": "shop", "oplog": True}, "for a dump of all databases"),
    ({"password": "secret"}, "Option password of mongodb in .dumps. is unknown"),
])  # fmt: skip
def test_what_cannot_be_meant(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        list(dumps.parse({"mongodb": options}, None))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("options", "name", "load"), [
    ({"database": "shop"}, "mongodb-shop.archive", "mongorestore --stopOnError --archive='/a b/.volt-dumps/mongodb-shop.archive'"),
    ({}, "mongodb-all.archive", "mongorestore --stopOnError --archive='/a b/.volt-dumps/mongodb-all.archive'"),
    ({"oplog": True}, "mongodb-all.archive", "mongorestore --stopOnError --oplogReplay --archive='/a b/.volt-dumps/mongodb-all.archive'"),
    ({"oplog": False, "name": "x"}, "x", "mongorestore --stopOnError --archive='/a b/.volt-dumps/x'"),
])  # fmt: skip
def test_how_it_is_loaded(options: dict[str, Any], name: str, load: str) -> None:
    recorded = prepare.prepare(prepare.Asked(dumps=[{"mongodb": options}]), b"/source")[1]
    (told,) = loading.of_restore(recorded, "/a b")
    assert (recorded[0]["path"], told["path"], told["load"]) == (f".volt-dumps/{name}", f"/a b/.volt-dumps/{name}", load)
