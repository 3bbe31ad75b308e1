# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps by the real mongodump of a server that speaks MongoDB's protocol, loaded by the real mongorestore. In the long mode, where PATH has the programs."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import SourceError, process
from ansible_collections.volt.backup.plugins.module_utils._proof import loads
from ansible_collections.volt.backup.plugins.module_utils._schedule import drill
from ansible_collections.volt.backup.plugins.module_utils._sources import mongodb as dumping
from ansible_collections.volt.backup.tests.rigs import mongodb, sample
from ansible_collections.volt.backup.tests.rigs.ledgers import Load
from ansible_collections.volt.backup.tests.system.conftest import Bench
from ansible_collections.volt.backup.tests.unit.kit import command

#: Accounts of a ledger; each document has a sum of its own.
ACCOUNTS, EACH = 2000, 100
ODD: list[dict[str, Any]] = [
    {"_id": {"$oid": "65f1a2b3c4d5e6f708192a3b"}, "when": {"$date": "2026-11-29T09:00:00.123Z"}, "none": None, "nested": {"list": [1, True, "x", {}]}},
    {"_id": "n\u00e4me\u2603", "long": {"$numberLong": "9007199254740991"}, "bytes": {"$binary": {"base64": "AP8Q", "subType": "00"}}, "half": 0.5},
]


def account(number: int, amount: int) -> dict[str, Any]:
    return {"_id": number, "one": amount, "other": EACH - amount, "filler": "x" * 300}


def transfer(server: mongodb.Server) -> Callable[[int], None]:
    """A step of a load: accounts that change, and one that is new."""
    return lambda step: server.put("shop.ledger", [account((step * 13 + one) % ACCOUNTS, step % EACH) for one in range(50)] + [account(ACCOUNTS + step, 1)])


def of(server: mongodb.Server, **options: Any) -> list[dict[str, Any]]:
    return [{"mongodb": {"socket": str(server.socket), **options}}]


def running(server: mongodb.Server) -> list[int]:
    """The processes of mongodump that are connected to a server of ours, or try to be: all those that we can see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _read(f"/proc/{name}/comm") == "mongodump\n"]


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """A directory that all users can reach, also in a sandbox."""
    mongodb.needed()
    place = Path("/var/lib") / f"volt-test-mongodb-{os.getpid()}"
    place.mkdir()
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def server(room: Path) -> Iterator[mongodb.Server]:
    with mongodb.ferretdb(room / "server") as found:
        found.put("shop.ledger", [account(number, number % EACH) for number in range(ACCOUNTS)])
        found.put("shop.odd", ODD)
        found.put("wiki.pages", [{"_id": number} for number in range(10)])
        yield found


def load(bench: Bench, other: mongodb.Server) -> None:
    """Restore, and run what the restore says, with the program told where the new server is."""
    restored = bench.restore(force=True).restore
    words = restored["dumps"][0]["load"].replace("mongorestore ", f"mongorestore --uri='{other.uri}' ")
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def drilled(bench: Bench) -> drill.Drill:
    (done,) = drill.Driller(bench.manager, str(bench.top / "scratch"), False, str(bench.top), str(bench.top))([])
    return done


if sample.LONG:

    def test_under_a_writing_load(bench: Bench, room: Path, server: mongodb.Server) -> None:
        """Every document is whole, and those of before are there."""
        bench.files(a=b"a")
        with Load(transfer(server)):
            backup = bench.create(dumps=of(server, database="shop")).backup
        assert backup["dumps"] == [{"kind": "mongodb", "path": ".volt-dumps/mongodb-shop.archive", "database": "shop"}]
        with mongodb.ferretdb(room / "other") as other:
            load(bench, other)
            found = other.all("shop.ledger")
            assert len(found) >= ACCOUNTS and all(int(one["one"]["$numberInt"]) + int(one["other"]["$numberInt"]) == EACH for one in found)
            assert {int(one["_id"]["$numberInt"]) for one in found} >= set(range(ACCOUNTS))
            assert other.all("shop.odd") == server.all("shop.odd") and len(other.all("shop.odd")) == len(ODD)
            assert other.all("wiki.pages") == []
            done = subprocess.run(["sh", "-c", f"mongorestore --uri='{other.uri}' --stopOnError --archive='{bench.target}/.volt-dumps/mongodb-shop.archive'"],
                                  capture_output=True, text=True, check=False)  # fmt: skip
            assert done.returncode and "duplicate key" in done.stderr

    def test_a_whole_server(bench: Bench, room: Path, server: mongodb.Server) -> None:
        bench.files(a=b"a")
        bench.create(dumps=[{"mongodb": {"host": "127.0.0.1", "port": server.port}}])
        with mongodb.ferretdb(room / "other") as other:
            load(bench, other)
            for where in ("shop.ledger", "shop.odd", "wiki.pages"):
                assert other.all(where) == server.all(where) != []

    def test_which_dumps_differ_without_any_change(bench: Bench, server: mongodb.Server) -> None:
        """As docs/databases.md says of `only_if_changed`: those of one collection do not."""
        bench.files(a=b"a")
        made = [bench.create(dumps=of(server, database="wiki"), only_if_changed=True).changed for _run in range(3)]
        assert made == [True, False, False]
        assert bench.create(dumps=of(server, database="shop"), only_if_changed=True).changed
        assert any(bench.create(dumps=of(server, database="shop"), only_if_changed=True).changed for _run in range(40))  # by chance, each second one

    def test_a_server_without_an_oplog(bench: Bench, server: mongodb.Server) -> None:
        """FerretDB has no replica sets, so what mongodump does with one is not tested."""
        bench.files(a=b"a")
        with pytest.raises(SourceError, match="mongodump failed .*Failed: error getting oplog start: .*; correct that, then run again."):
            bench.create(dumps=of(server, oplog=True))
        assert bench.found() == []

    def test_a_password(bench: Bench, room: Path, tmp_path: Path) -> None:
        """It is in no command line, no environment and no message; without it, or with a wrong one, there is no backup."""
        bench.files(a=b"a")
        (tmp_path / "password").write_text(f"{mongodb.PASSWORD}\n", encoding="utf-8")
        (tmp_path / "wrong").write_text("battery-staple\n", encoding="utf-8")
        with mongodb.ferretdb(room / "users", users=True) as server:
            by = {"uri": f"{server.uri}?authMechanism=PLAIN", "socket": None, "database": "shop", "user": mongodb.USER}
            words = [f"--uri={by['uri']}", f"--username={mongodb.USER}", f"--password={mongodb.PASSWORD}", "--db=shop", "--collection=ledger"]
            text = "".join(f'{{"_id": {number}, "filler": "{"x" * 1000}"}}\n' for number in range(5000))
            subprocess.run(["mongoimport", *words], input=text, text=True, check=True, capture_output=True)
            seen: set[str] = set()
            watching = threading.Event()
            watcher = threading.Thread(target=lambda: _watch(server, seen, watching))
            watcher.start()
            try:
                made = bench.create(dumps=of(server, **by, password_file=str(tmp_path / "password")))
            finally:
                watching.set()
                watcher.join()
            assert any("--username=backup" in text for text in seen)
            assert not [text for text in (*seen, repr(made)) if "correct" in text or "horse" in text]
            for more, said in (({"password_file": str(tmp_path / "wrong")}, "password authentication failed"), ({"user": None}, "mongodump failed")):
                with pytest.raises(SourceError, match=said) as caught:
                    bench.create(dumps=of(server, **{**by, **more}))
                assert "staple" not in str(caught.value)
        assert len(bench.found()) == 1 and not bench.debris()

    def _watch(server: mongodb.Server, seen: set[str], end: threading.Event) -> None:
        while not end.is_set():
            for number in running(server):
                seen.add(_read(f"/proc/{number}/cmdline") + _read(f"/proc/{number}/environ"))
            time.sleep(0.01)

    def test_what_is_not_there(bench: Bench, server: mongodb.Server) -> None:
        bench.files(a=b"a")
        with pytest.raises(SourceError, match="^Dump of MongoDB database shpo: the server shows no collections; "):
            bench.create(dumps=of(server, database="shpo"))
        with pytest.raises(SourceError, match="^Dump of MongoDB databases: mongodump failed .*no such file or directory.*; correct that"):
            bench.create(dumps=[{"mongodb": {"socket": "/run/volt-none.sock"}}])
        assert bench.found() == []

    @pytest.fixture(scope="module")
    def filled(room: Path) -> Iterator[mongodb.Server]:
        """A server with more than a dump can take in one piece: FerretDB sends a collection as fast as it is read, once it begins."""
        with mongodb.ferretdb(room / "large") as found:
            for name in ("one", "three", "two"):
                found.put(f"shop.{name}", [{"_id": number, "filler": f"{number}" * 2000} for number in range(1500)])
            yield found

    @pytest.fixture
    def large(filled: mongodb.Server) -> mongodb.Server:
        """The same, as new."""
        filled.start()
        return filled

    def _once_it_flows(server: mongodb.Server, act: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if any(int(_read(f"/proc/{number}/io").partition("wchar: ")[2].partition("\n")[0] or 0) > 2 << 20 for number in running(server)):
                act()
                return
            time.sleep(0.002)

    @pytest.mark.parametrize(("number", "patience", "said"), [
        (signal.SIGKILL, 120, "mongodump failed with exit status 1 "),  # it looks for the server for half a minute
        (signal.SIGSTOP, 15, "mongodump wrote nothing for 15 seconds; "),
    ])  # fmt: skip
    def test_the_server_goes_in_the_middle(
        bench: Bench, large: mongodb.Server, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, patience: int, said: str
    ) -> None:
        monkeypatch.setattr(dumping.process, "Output", functools.partial(process.Output, patience=patience))
        bench.files(a=b"a")
        acting = threading.Thread(target=_once_it_flows, args=(large, lambda: large.child and large.child.send_signal(number)))
        acting.start()
        with pytest.raises(SourceError, match=f"^Dump of MongoDB database shop: {said}"):
            bench.create(dumps=of(large, database="shop"))
        acting.join()
        assert bench.found() == [] and not bench.debris() and not running(large)

    def test_the_run_is_killed(bench: Bench, large: mongodb.Server) -> None:
        """mongodump ends with it, and no file with a password is left anywhere, as there never was one."""
        bench.files(a=b"a")
        archive = bench.top / "volt-backup"
        archive.write_bytes(command())
        (bench.top / "password").write_text("correct-horse")
        words = [sys.executable, str(archive), "create", "work", "--source", str(bench.source), "--store", str(bench.store), "--backup-dir", str(bench.backups)]
        words += ["--dump", f"mongodb:uri={large.uri}?authMechanism=PLAIN,user=anybody,password_file={bench.top}/password,database=shop"]
        child = subprocess.Popen(words)
        _once_it_flows(large, child.kill)
        assert child.wait() == -signal.SIGKILL
        deadline = time.monotonic() + 30
        while running(large) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not running(large) and bench.found() == []

    def test_a_drill_loads_it(bench: Bench, room: Path, server: mongodb.Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """Into a server of its own; one that is cut, or that mongorestore refuses, is not proved."""
        bench.files(a=b"a")
        bench.create(dumps=[*of(server, database="shop"), *of(server)])
        assert "mongod" in str(drilled(bench).dumps[0]["reason"]) and not drilled(bench).dumps[0]["loaded"]
        path = mongodb.programs(room / "programs")
        monkeypatch.setattr(loads, "_PLAIN", {**loads._PLAIN, "PATH": path})
        done = drilled(bench)
        assert done.reason is None and [dump["loaded"] for dump in done.dumps] == [True, True]

        monkeypatch.setenv("PATH", path)
        cut = room / "programs/mongodump"
        cut.rename(room / "programs/real")
        cut.write_text(f'#!/bin/sh\n{room}/programs/real "$@" | head -c 100000\n')
        cut.chmod(0o755)
        bench.create(dumps=of(server, database="shop"))
        (room / "programs/real").replace(cut)
        done = drilled(bench)
        assert done.reason and done.reason.startswith("Its dumps of mongodb cannot be loaded: mongorestore failed of database shop (")
        assert not done.dumps[0]["loaded"]
