# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever changes a store, a target or a remote leaves an entry in the journal; nothing else does, and no journal keeps it from being done."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import acts
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import (
    Damaged,
    Protected,
    RemoteError,
    SourceError,
    TargetDiffers,
    UsageError,
    VoltError,
    journal,
)
from ansible_collections.volt.backup.plugins.module_utils._remote.declared import Settings
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Meant, Remote, Which
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.tests.unit.kit import Journal, noise

DOCUMENT = Path(__file__).parents[2] / "docs/monitoring.md"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    path = tmp_path / "journal"
    monkeypatch.setattr(journal, "SOCKET", str(path))
    monkeypatch.setenv("SUDO_USER", "alice")
    with Journal(str(path)) as end:
        yield end


def told(log: Journal) -> list[dict[str, Any]]:
    """The entries' own fields, without those that every entry has, which are looked at here."""
    found = []
    for entry in log.taken():
        plain = {name.removeprefix("VOLT_").lower(): values[0] if len(values) == 1 else values for name, values in entry.items()}
        assert plain.pop("message_id") == acts.IDS[plain["action"]] and plain.pop("syslog_identifier") == "volt-backup"
        assert plain.pop("actor") == "alice as root" and float(plain.pop("seconds")) >= 0
        assert plain.pop("priority") == {"success": "6", "failure": "3", "damaged": "3"}.get(plain["result"], "4")
        assert plain["action"] in plain["message"] and plain.pop("message").count("\n") == 0
        found.append(plain)
    return found


def test_what_is_done_to_backups(bench, log) -> None:
    """Each act leaves one entry; repeated, or dry, none."""
    bench.files(a=noise(3000), b=b"b")
    store = {"store": str(bench.store), "result": "success"}
    bench.create(dry=True)
    assert told(log) == []
    made = bench.create()
    backup = made.backup["id"]
    of = {**store, "workload": "work", "backup_id": backup}
    assert told(log) == [{"action": "create", **of, "type": "manual", "size": "3001", "new_bytes": str(made.backup["new_bytes"])}]
    bench.create(only_if_changed=True)
    bench.restore(dry=True)
    assert told(log) == []
    bench.restore()
    assert told(log) == [{"action": "restore", **of, "target": str(bench.target), "size": "3001"}]
    bench.restore()
    bench.manager.protect(backup, dry=True)
    assert told(log) == []
    bench.manager.protect(backup)
    bench.manager.protect(backup)
    bench.manager.protect(backup, False)
    assert told(log) == [{"action": "protect", **of}, {"action": "unprotect", **of}]
    bench.manager.delete(backup, dry=True)
    assert told(log) == []
    bench.manager.delete(backup)
    bench.manager.delete(backup)
    assert told(log) == [{"action": "delete", **of}]


def test_what_is_done_to_the_store(bench, log) -> None:
    bench.manager.begin()
    bench.manager.begin()
    store = {"store": str(bench.store), "result": "success"}
    assert told(log) == [{"action": "init", **store}]
    bench.files(a=noise(3000))
    ids = [bench.create(notes=str(number)).backup["id"] for number in range(3)]
    told(log)
    bench.manager.prune("work", {"last": 1}, dry=True)
    assert told(log) == []
    bench.manager.prune("work", {"last": 1})
    bench.manager.prune("work", {"last": 1})
    assert told(log) == [{"action": "prune", **store, "workload": "work", "backup_id": ids[1::-1], "backups": "2"}]
    bench.manager.delete(ids[2])
    told(log)
    done = bench.manager.collect("0s")
    assert told(log) == [{"action": "gc", **store, "freed_bytes": str(done["freed_bytes"]), "trashed_bytes": str(done["trashed_bytes"])}]
    bench.manager.verify(VerifyRequest(repair=True))
    assert told(log) == []


def test_damage(bench, log) -> None:
    """That it was found is told by any verification; a repair is an act."""
    bench.files(a=noise(3000))
    backup = bench.create().backup["id"]
    pack = max((bench.store / "packs").rglob("*.pack*"), key=lambda path: path.stat().st_size)
    data = pack.read_bytes()
    os.chmod(pack, 0o600)
    pack.write_bytes(data[:-1])
    told(log)
    bench.manager.verify(VerifyRequest())
    (found,) = told(log)
    assert (found["action"], found["result"], found["backup_id"]) == ("verify", "damaged", backup) and int(found["damages"]) >= 1
    with pytest.raises(Damaged):
        bench.restore()
    (failed,) = told(log)
    assert (failed["action"], failed["result"], failed["code"], failed["backup_id"]) == ("restore", "failure", "damaged", backup) and failed["reason"]
    bench.manager.verify(VerifyRequest(repair=True))
    (repaired,) = told(log)
    assert (repaired["action"], repaired["result"]) == ("verify", "success")


def test_a_backup_that_is_suspect(bench, log) -> None:
    bench.files(**{f"f{number}": noise(100, number) for number in range(200)})
    for _count in range(3):
        bench.create()
    for path in bench.source.iterdir():
        path.unlink()
    bench.files(f0=b"x")
    told(log)
    backup = bench.create().backup["id"]
    assert [(entry["result"], entry["backup_id"]) for entry in told(log)] == [("suspect", backup)]
    bench.manager.accept(backup, dry=True)
    bench.manager.accept(backup)
    bench.manager.accept(backup)
    assert [(entry["action"], entry["result"], entry["backup_id"]) for entry in told(log)] == [("accept", "success", backup)]


def test_what_fails(bench, log) -> None:
    """It is told, with the reason; a request that is wrong in itself touched nothing, and is not."""
    bench.files(a=b"a")
    with pytest.raises(SourceError) as gone:
        bench.create(source=bench.top / "none")
    assert told(log) == [
        {"action": "create", "workload": "work", "store": str(bench.store), "result": "failure", "code": "source", "reason": gone.value.message}
    ]
    backup = bench.create().backup["id"]
    bench.manager.protect(backup)
    told(log)
    with pytest.raises(Protected):
        bench.manager.delete(backup)
    bench.target.mkdir()
    (bench.target / "other").touch()
    with pytest.raises(TargetDiffers):
        bench.restore()
    found = [(entry["action"], entry["result"], entry["code"], entry["backup_id"]) for entry in told(log)]
    assert found == [("delete", "failure", "protected", backup), ("restore", "failure", "target_differs", backup)]
    for wrong in (
        lambda: bench.manager.delete("x\nVOLT_RESULT=success"), lambda: bench.create(type="x"), lambda: bench.manager.restore(None, RestoreRequest()),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            wrong()
    with pytest.raises(TargetDiffers):
        bench.restore(dry=True)
    assert told(log) == []


def test_a_target_whose_name_looks_like_a_field(bench, log) -> None:
    bench.files(a=b"a")
    bench.create()
    told(log)
    target = bench.top / "x\nVOLT_RESULT=failure\nVOLT_ACTOR=root"
    bench.restore(target=str(target))
    (entry,) = told(log)
    assert entry["result"] == "success" and entry["target"].endswith("x\\x0aVOLT_RESULT=failure\\x0aVOLT_ACTOR=root")


def test_copies(bench, log, tmp_path: Path) -> None:
    """A push has an entry for each backup; what was copied before it failed is told as well."""
    bench.files(a=noise(3000))
    (bench.top / "remote").mkdir()
    remote = Remote(bench.manager, Settings(f"file://{bench.top}/remote"))
    with pytest.raises(RemoteError) as missing:
        bench.create()
        remote.push(Which())
    assert [(entry["action"], entry.get("code")) for entry in told(log)] == [("create", None), ("push", missing.value.code)]
    remote.begin(dry=True)
    assert told(log) == []
    remote.begin()
    remote.begin()
    place = {"remote": remote.transport.where, "store": str(bench.store), "result": "success"}
    assert told(log) == [{"action": "init", **place}]
    bench.create()
    ids = [backup["id"] for backup in reversed(bench.found())]
    told(log)
    remote.push(Which(), dry=True)
    assert told(log) == []
    done = remote.push(Which())
    remote.push(Which())
    remote.push(Which(ids[:1]))
    assert told(log) == [
        {"action": "push", **place, "workload": "work", "backup_id": sidecar["id"], "new_bytes": str(pushed.new_bytes)} for sidecar, pushed in done
    ]
    restored = remote.restore(Meant(backup=ids[0]), RestoreRequest(str(bench.target)))[0]
    assert told(log) == [
        {"action": "restore", **place, "workload": "work", "backup_id": ids[0], "target": str(bench.target), "size": str(restored.restore["total_size"])}
    ]
    bench.manager.delete(ids[0])
    told(log)
    remote.pull(Meant(backup=ids[0]))
    remote.pull(Meant(backup=ids[0]))
    assert told(log) == [{"action": "pull", **place, "workload": "work", "backup_id": ids[0], "new_bytes": "0"}]
    remote.verify(VerifyRequest())
    remote.verify(VerifyRequest(vet=True), dry=True)
    assert told(log) == []
    remote.verify(VerifyRequest(vet=True))
    remote.verify(VerifyRequest(vet=True))
    assert told(log) == [{"action": "verify", **place}]
    for path in (bench.top / "remote/packs").rglob("0*"):
        path.unlink()
    remote.verify(VerifyRequest())
    (entry,) = told(log)
    assert (entry["action"], entry["result"]) == ("verify", "damaged")


def test_a_push_that_fails_in_the_middle(bench, log, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.files(a=b"a")
    (bench.top / "remote").mkdir()
    remote = Remote(bench.manager, Settings(f"file://{bench.top}/remote"))
    remote.begin()
    first, second = (bench.create().backup["id"] for _count in range(2))
    told(log)
    real = Remote._push_one

    def fail(copies: Any, pusher: Any, before: Any) -> Any:
        if before["id"] == second:
            raise RemoteError("It broke; try again.")
        return real(copies, pusher, before)

    monkeypatch.setattr(Remote, "_push_one", staticmethod(fail))
    with pytest.raises(RemoteError) as broken:
        remote.push(Which())
    assert [copy["id"] for copy in broken.value.details["pushed"]] == [first]
    done, failed = told(log)
    assert (done["backup_id"], done["result"]) == (first, "success") and (failed["result"], failed["reason"]) == ("failure", "It broke; try again.")


def test_backups_of_others(bench, log) -> None:
    """Taken over by another directory."""
    bench.files(a=b"a")
    backup = bench.create().backup["id"]
    told(log)
    other = Manager(str(bench.store), str(bench.top / "other"), 5)
    other.adopt([backup], dry=True)
    assert told(log) == []
    other.adopt([backup])
    assert told(log) == [{"action": "adopt", "store": str(bench.store), "result": "success", "backup_id": backup, "backups": "1"}]


def test_the_command_and_who_asked(bench, log, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bench.files(a=b"a")
    place = ["--store", str(bench.store), "--backup-dir", str(bench.backups)]
    assert cli.main([*place, "create", "work", "--source", str(bench.source), "--notes", "SeCrEt"]) == 0
    data = log.end.recv(1 << 20)
    assert b"VOLT_ACTION" in data and b"create" in data and b"SeCrEt" not in data
    monkeypatch.delenv("SUDO_USER")
    assert cli.main([*place, "delete", bench.found()[0]["id"]]) == 0
    assert log.taken()[0]["VOLT_ACTOR"] == ["root"]
    assert cli.main([*place, "delete", "work-20261128-001122-manual"]) == 5 and log.taken() == []


@pytest.mark.parametrize("how", ["missing", "full", "closed"])
def test_no_journal_keeps_anything_from_being_done(bench, log, how: str) -> None:
    bench.files(a=b"a")
    if how == "missing":
        os.unlink(journal.SOCKET)
    elif how == "closed":
        log.end.close()
    else:
        while journal.send("x", "0" * 32, journal.INFO, {}):
            pass
    backup = bench.create().backup["id"]
    bench.restore()
    assert bench.manager.delete(backup) is not None


def test_every_act_is_in_the_document() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `(\w+)` .*`([0-9a-f]{32})` \|$", text, re.MULTILINE)) == acts.IDS
    assert {act.action for act in (*acts.LOCAL.values(), *acts.REMOTE.values())} | {"unprotect"} == set(acts.IDS)


@pytest.mark.parametrize("kind", [Manager, Remote])
def test_a_method_that_changes_something_is_an_act(kind: type) -> None:
    """Those that have a dry run do, but for some: a search only notes damage that it finds, and a pull is an act of the remote."""
    table, others = (acts.LOCAL, {"find", "opened", "searched", "pull"}) if kind is Manager else (acts.REMOTE, set())
    methods = {name: inspect.unwrap(method) for name, method in vars(kind).items() if inspect.isfunction(method) and not name.startswith("_")}
    assert {name for name, method in methods.items() if "dry" in inspect.signature(method).parameters} - others == set(table)


def test_a_bug_is_no_act(bench, log, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no error of ours is told by its traceback."""
    monkeypatch.setattr(Manager, "_open", lambda *_values, **_more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench.manager.collect()
    assert told(log) == []


def test_an_act_whose_place_is_unknown(log, monkeypatch: pytest.MonkeyPatch, host_file: Path) -> None:
    host_file.write_text("{")
    with pytest.raises(VoltError):
        Manager(None, None).create(CreateRequest("work", "/"))
    (entry,) = told(log)
    assert (entry["action"], entry["result"], entry["code"]) == ("create", "failure", "store") and "store" not in entry
