# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What modules refuse: one sentence each, a code to branch on, nothing written, in check mode the same."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils import _module
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager

from .conftest import Host

NOT_ALLOWED = "is invalid; use 1 to 128 letters"

#: The value of an option that is not given.
LEFT_OUT = object()

KEEP = {
    "empty": ({}, "keep has no rule"),
    "of nothing": ({"last": 0, "tags": [], "within": ""}, "keep has no rule"),
    "negative": ({"last": -1}, "keep.last must be a whole number, 0 or more (got -1)"),
    "no number": ({"daily": "many"}, "'many'"),
    "unknown": ({"last": 1, "newest": 1}, "Unsupported parameters for"),
    "span without a unit": ({"within": "30"}, "Duration '30' is invalid"),
    "span in years": ({"within": "1y"}, "Duration '1y' is invalid"),
    "tag empty": ({"tags": [""]}, "keep.tags must be a list of non-empty strings"),
    "no dictionary": ("three", "dict"),
}

BACKUP = {
    "source missing": ({"source": "{top}/none"}, "source", "{top}/none does not exist"),
    "source is a file": ({"source": "{top}/file"}, "source", "{top}/file is not a directory"),
    "source is a dangling link": ({"source": "{top}/dangling"}, "source", "does not exist"),
    "source relative": ({"source": "tree"}, "usage", "source must be an absolute path without NUL (got 'tree')"),
    "source empty": ({"source": ""}, "usage", "source must be an absolute path"),
    "source in the store": ({"source": "{top}/cas/objects"}, "usage", "where backups are kept"),
    "source is the store": ({"source": "{top}/cas"}, "usage", "where backups are kept"),
    "source is the backup directory": ({"source": "{top}/backups"}, "usage", "where backups are kept"),
    "source left out": ({"source": LEFT_OUT}, "usage", "There is nothing to back up"),
    "workload left out": ({"workload": LEFT_OUT}, "usage", "missing: workload"),
    "source null": ({"source": None}, "usage", "There is nothing to back up"),
    "workload null": ({"workload": None}, "usage", "missing: workload"),
    "absent, id null": ({"state": "absent", "id": None}, "usage", "missing: id"),
    "workload empty": ({"workload": ""}, "usage", NOT_ALLOWED),
    "workload with a slash": ({"workload": "a/b"}, "usage", NOT_ALLOWED),
    "workload of dots": ({"workload": ".."}, "usage", NOT_ALLOWED),
    "workload with a line break": ({"workload": "a\nb"}, "usage", NOT_ALLOWED),
    "workload with a line break at its end": ({"workload": "a\n"}, "usage", NOT_ALLOWED),
    "workload of 129 characters": ({"workload": "a" * 129}, "usage", NOT_ALLOWED),
    "workload not ASCII": ({"workload": "caf\u00e9"}, "usage", NOT_ALLOWED),
    "age without a unit": ({"max_age": "6"}, "usage", "Duration '6' is invalid"),
    "age of an unknown unit": ({"max_age": "1y"}, "usage", "Duration '1y' is invalid"),
    "age absurd": ({"max_age": "99999999999999w"}, "usage", "Duration"),
    "exclusion with a line break": ({"exclude": ["a\nb"]}, "usage", "line break"),
    "exclusion of everything": ({"exclude": ["/"]}, "usage", "matches the source itself"),
    "type unknown": ({"type": "weekly"}, "usage", "value of type must be one of"),
    "compression unknown": ({"compression": "lz4"}, "usage", "value of compression must be one of"),
    "id for a new backup": ({"id": "x"}, "usage", "Option id does not apply to state present"),
    "diff_limit negative": ({"diff_limit": -1}, "usage", "diff_limit must not be negative"),
    "lock_timeout negative": ({"lock_timeout": -1}, "usage", "lock_timeout must not be negative"),
    "store is a file": ({"store": "{top}/file"}, "store", "not a directory"),
    "store in a file": ({"store": "{top}/file/cas"}, "store", "{top}/file"),
    "store is another directory": ({"store": "{top}/tree"}, "store", "{top}/tree"),
    "backup_dir relative": ({"backup_dir": "backups"}, "usage", "backup_dir must be an absolute path"),
    "absent without id": ({"state": "absent"}, "usage", "missing: id"),
    "absent, id empty": ({"state": "absent", "id": ""}, "usage", "is not a valid backup id"),
    "absent, id with a slash": ({"state": "absent", "id": "a/b"}, "usage", "is not a valid backup id"),
    "absent, id that leads out": ({"state": "absent", "id": "../x"}, "usage", "is not a valid backup id"),
    "absent, id with a line break": ({"state": "absent", "id": "x\n"}, "usage", "is not a valid backup id"),
    "option of a later version": ({"level": "fast"}, "usage", "Unsupported parameters"),
    "dump of an unknown system": ({"dumps": [{"oracle": {"database": "x"}}]}, "usage", "Unsupported parameters"),
    "dump without a database": ({"dumps": [{"postgresql": {}}]}, "usage", "missing required arguments: database"),
    "dump of two systems": ({"dumps": [{"redis": {}, "sqlite": {"path": "x"}}]}, "usage", "must have one key"),
    "file of a command without one": ({"command_file": "x"}, "usage", "no effect without"),
    **{f"keep {name}": ({"keep": keep}, "usage", says) for name, (keep, says) in KEEP.items()},
}

PRUNE = {
    "keep left out": ({"keep": LEFT_OUT}, "usage", "missing required arguments: keep"),
    "keep null": ({"keep": None}, "usage", "keep' is of type NoneType"),
    "workload null": ({"workload": None}, "usage", NOT_ALLOWED),
    "workload with a slash": ({"workload": "a/b"}, "usage", NOT_ALLOWED),
    "type unknown": ({"types": ["weekly"]}, "usage", "value of types must be one or more of"),
    "lock_timeout negative": ({"lock_timeout": -1}, "usage", "lock_timeout must not be negative"),
    **{f"keep {name}": ({"keep": keep}, "usage", says) for name, (keep, says) in KEEP.items()},
}

UPKEEP = {
    "grace without a unit": ({"module": "volt_cas_gc", "grace": "24"}, "usage", "Duration '24' is invalid"),
    "grace negative": ({"module": "volt_cas_gc", "grace": "-1h"}, "usage", "Duration '-1h' is invalid"),
    "level unknown": ({"module": "volt_cas_verify", "level": "all"}, "usage", "value of level must be one of"),
    "budget of nothing": ({"module": "volt_cas_verify", "level": "content", "budget": "0%"}, "usage", "Budget 0% is out of range"),
    "budget above all": ({"module": "volt_cas_verify", "level": "content", "budget": "101%"}, "usage", "Budget 101% is out of range"),
    "budget without a unit": ({"module": "volt_cas_verify", "level": "content", "budget": "5"}, "usage", "Budget '5' is invalid"),
    "budget for structure": ({"module": "volt_cas_verify", "budget": "5%"}, "usage", "budget only applies to level content"),
    "budget for some backups": (
        {"module": "volt_cas_verify", "level": "content", "budget": "5%", "ids": ["app-20261123-100000-manual"]},
        "usage", "budget only applies to level content",
    ),
    "drill of what is no name": ({"module": "volt_restore_drill", "workloads": ["../x"]}, "usage", NOT_ALLOWED),
    "drill of what has no backup": (
        {"module": "volt_restore_drill", "workloads": ["other"], "scratch_dir": "{top}/drill"}, "drill", "The drill of workload other failed: Workload",
    ),
    "drill in a file": ({"module": "volt_restore_drill", "scratch_dir": "{top}/file"}, "usage", "{top}/file is not a directory; choose another"),
    "drill in the store": ({"module": "volt_restore_drill", "scratch_dir": "{top}/cas/tmp"}, "usage", "where backups are kept"),
    "drill in a relative directory": ({"module": "volt_restore_drill", "scratch_dir": "drill"}, "usage", "scratch_dir must be an absolute path"),
    "kind unknown": ({"module": "volt_workload_info", "kinds": ["docker"]}, "usage", "value of kinds must be one or more of"),
    "user unknown": ({"module": "volt_workload_info", "users": ["nobody here"]}, "usage", "User 'nobody here' does not exist on this host"),
    "Compose directory relative": ({"module": "volt_workload_info", "compose_dirs": ["stacks"]}, "usage", "compose_dirs must be absolute paths"),
    "id that leads out": ({"module": "volt_cas_verify", "ids": ["../x"]}, "usage", "is not a valid backup id"),
    "id unknown": ({"module": "volt_cas_verify", "ids": ["app-20000101-000000-manual"]}, "not_found", "There is no backup app-20000101-000000-manual"),
}

RUNNER = {
    "path is a file of somebody's": ({"path": "{top}/file"}, "usage", "{top}/file was not written by volt_runner; move it away"),
    "path is somebody's, absent": ({"path": "{top}/file", "state": "absent"}, "usage", "{top}/file was not written by volt_runner"),
    "path is a directory": ({"path": "{top}/other"}, "usage", "{top}/other was not written by volt_runner"),
    "path is a dangling link": ({"path": "{top}/dangling"}, "usage", "{top}/dangling is a symbolic link"),
    "path in no directory": ({"path": "{top}/none/such"}, "usage", "{top}/none is not a directory; create it"),
    "path in a file": ({"path": "{top}/file/such"}, "usage", "{top}/file is not a directory; create it"),
    "path ends in a slash": ({"path": "{top}/none/"}, "usage", "{top}/none is not a directory; create it"),
    "path relative": ({"path": "volt-backup"}, "usage", "path must be an absolute path"),
    "path empty": ({"path": ""}, "usage", "path must be an absolute path"),
    "state unknown": ({"state": "latest"}, "usage", "value of state must be one of"),
    "option that is none": ({"force": True}, "usage", "Unsupported parameters"),
}

SCHEDULE: dict[str, Any] = {
    "interval of nothing": ({"interval": "0s"}, "usage", "Interval"),
    "interval negative": ({"interval": "-6h"}, "usage", "-6h"),
    "interval not understood": ({"interval": "often"}, "usage", "often"),
    "delay as long as the interval": ({"interval": "6h", "randomized_delay": "6h"}, "usage", "randomized_delay"),
    "interval and on_calendar": ({"interval": "6h", "on_calendar": "daily"}, "usage", "either interval or on_calendar"),
    "neither interval nor on_calendar": ({}, "usage", "either interval or on_calendar"),
    "on_calendar of two lines": ({"on_calendar": "daily\nUnit=x"}, "usage", "Calendar expression"),
    "workload of two lines": ({"interval": "6h", "workload": "a\nExecStart=/bin/sh"}, "usage", "Workload name"),
    "workload that leads out": ({"interval": "6h", "workload": "../x"}, "usage", "Workload name"),
    "source relative": ({"interval": "6h", "source": "relative"}, "usage", "must be an absolute path"),
    "program relative": ({"interval": "6h", "pre_command": ["dump"]}, "usage", "absolute path of a program"),
    "purge without a list": ({"interval": "6h", "purge": True}, "usage", "purge needs schedules"),
    "on_failure without host_units": ({"interval": "6h", "on_failure": {"command": ["/bin/true"]}}, "usage", "Option on_failure needs host_units"),
    "unit that is no text": ({"interval": "6h", "host_units": {"volt-cas-x.service": 3}}, "usage", "Unit volt-cas-x.service of host_units must be a string"),
    "workload and schedules": ({"interval": "6h", "schedules": []}, "usage", "mutually exclusive: workload|schedules"),
    "neither workload nor schedules": ({"workload": LEFT_OUT}, "usage", "one of the following is required: workload, schedules"),
}

RESTORE = {
    "id unknown": ({"id": "unknown"}, "not_found", "There is no backup unknown"),
    "id with a slash": ({"id": "a/b"}, "usage", "is not a valid backup id"),
    "id and workload": ({"workload": "app"}, "usage", "mutually exclusive: id|workload"),
    "id and type": ({"type": "manual"}, "usage", "Option type only applies with workload"),
    "id and tags": ({"tags": ["x"]}, "usage", "Option tags only applies with workload"),
    "id and before": ({"before": "2026-01-01"}, "usage", "Option before only applies with workload"),
    "target is a file": ({"target": "{top}/file"}, "target", "{top}/file is not a directory"),
    "target without a parent": ({"target": "{top}/none/such"}, "target", "has no parent directory"),
    "target in the store": ({"target": "{top}/cas/in"}, "target", "where backups are kept"),
    "target is the store": ({"target": "{top}/cas"}, "target", "where backups are kept"),
    "target in the backup directory": ({"target": "{top}/backups/in"}, "target", "where backups are kept"),
    "target holds the store": ({"target": "{top}"}, "target", "where backups are kept"),
    "target relative": ({"target": "never"}, "usage", "target must be an absolute path"),
    "target empty": ({"target": ""}, "usage", "target must be an absolute path"),
    "target differs": ({"target": "{top}/other"}, "target_differs", "use force: true"),
    "paths and replace": ({"paths": ["conf"], "strategy": "replace"}, "usage", "only be restored in place"),
    "delete and replace": ({"delete": True, "strategy": "replace"}, "usage", "delete only applies to strategy in_place"),
    "path that leads out": ({"paths": ["../x"]}, "usage", "contains `..`"),
    "path that is not there": ({"paths": ["none"]}, None, "none"),
    "strategy unknown": ({"strategy": "hope"}, "usage", "value of strategy must be one of"),
    "link unknown": ({"link": "soft"}, "usage", "value of link must be one of"),
}

INFO = {
    "id with a slash": ({"id": "a/b"}, "usage", "is not a valid backup id"),
    "workload with a slash": ({"workload": "a/b"}, "usage", NOT_ALLOWED),
    "time not understood": ({"since": "yesterday"}, "usage", "Time 'yesterday' is invalid"),
    "day that is none": ({"until": "2026-13-01"}, "usage", "is invalid"),
    "limit negative": ({"limit": -1}, "usage", "limit must not be negative"),
    "type unknown": ({"type": "weekly"}, "usage", "value of type must be one of"),
    "contents of no id": ({"include": ["contents"]}, "usage", "needs one backup; set id"),
    "include unknown": ({"include": ["everything"]}, "usage", "value of include must be one or more of"),
}

NEWEST = {
    "neither id nor workload": ({}, "usage", "one of the following is required: id, workload"),
    "workload unknown": ({"workload": "nobody"}, "not_found", "Workload nobody has no matching backup"),
    "workload not a name": ({"workload": "a/b"}, "usage", NOT_ALLOWED),
    "workload empty": ({"workload": ""}, "usage", NOT_ALLOWED),
    "time not understood": ({"workload": "app", "before": "yesterday"}, "usage", "Time 'yesterday' is invalid"),
    "nothing so old": ({"workload": "app", "before": "1999-01-01"}, "not_found", "Workload app has no matching backup"),
}


def cases(table: dict[str, Any]) -> Any:
    return pytest.mark.parametrize(("parameters", "code", "says"), table.values(), ids=table.keys())


@pytest.fixture
def ready(host: Host) -> Host:
    """With a backup, and things that are in the way."""
    made = host.back_up()
    assert made["changed"]
    (host.top / "file").touch()
    (host.top / "dangling").symlink_to("nowhere")
    (host.top / "other").mkdir()
    (host.top / "other" / "precious").touch()
    host.id = made["backup"]["id"]
    return host


def state(host: Host) -> dict[bytes, tuple[int, int]]:
    """All there is, with sizes and times: nothing was made, and nothing written to."""
    found = {path: os.lstat(path) for path in host.everything()}
    return {path: (info.st_size, info.st_mtime_ns) for path, info in found.items()}


def refused(host: Host, module: str, parameters: dict[str, Any], code: str | None, says: str) -> None:
    filled = {key: value.format(top=host.top) if isinstance(value, str) else value for key, value in parameters.items() if value is not LEFT_OUT}
    before = state(host)
    failures = [host.run(module, check, **filled) for check in (True, False)]
    for failure in failures:
        assert failure["failed"]
        assert says.format(top=host.top) in failure["msg"]
        assert "\n" not in failure["msg"]
        assert failure["code"] == (code or failure["code"])
    assert failures[0]["msg"] == failures[1]["msg"]
    assert state(host) == before


@cases(BACKUP)
def test_backup(ready: Host, parameters: dict[str, Any], code: str, says: str) -> None:
    refused(ready, "volt_backup", {"workload": "app", "source": str(ready.tree), **parameters}, code, says)


@cases(PRUNE)
def test_prune(ready: Host, parameters: dict[str, Any], code: str, says: str) -> None:
    refused(ready, "volt_backup_prune", {"workload": "app", "keep": {"last": 1}, **parameters}, code, says)


@cases(UPKEEP)
def test_upkeep(ready: Host, parameters: dict[str, Any], code: str, says: str) -> None:
    options = dict(parameters)
    refused(ready, options.pop("module"), options, code, says)


@cases(RUNNER)
def test_runner(ready: Host, parameters: dict[str, Any], code: str, says: str) -> None:
    refused(ready, "volt_runner", {"path": f"{ready.top}/never", **parameters}, code, says)


@cases(SCHEDULE)
def test_schedule(ready: Host, scheduling: None, parameters: dict[str, Any], code: str, says: str) -> None:
    refused(ready, "volt_backup_schedule", {**ready.scheduled, "workload": "app", "source": str(ready.tree), **parameters}, code, says)


@cases(RESTORE)
def test_restore(ready: Host, parameters: dict[str, Any], code: str, says: str) -> None:
    refused(ready, "volt_restore", {"id": ready.id, "target": f"{ready.top}/never", **parameters}, code, says)


@cases(INFO)
def test_info(ready: Host, parameters: dict[str, Any], code: str, says: str) -> None:
    refused(ready, "volt_backup_info", parameters, code, says)


@cases(NEWEST)
def test_restore_newest(ready: Host, parameters: dict[str, Any], code: str, says: str) -> None:
    refused(ready, "volt_restore", {"target": f"{ready.top}/never", **parameters}, code, says)


@pytest.mark.parametrize("name", ["source", "store", "backup_dir", "target"])
@pytest.mark.parametrize("text", ["/tmp/a\0b", r"/tmp/a\x00b"], ids=["NUL", "NUL in its escaped form"])
def test_path_with_nul(ready: Host, name: str, text: str) -> None:
    module, more = ("volt_restore", {"id": ready.id}) if name == "target" else ("volt_backup", {"workload": "app", "source": str(ready.tree)})
    refused(ready, module, {**more, name: text}, "usage", "NUL")


def test_messages_are_utf8(ready: Host) -> None:
    """A byte in an option's path, given as \\xNN, comes back like that in every message."""
    failure = ready.back_up(source=f"{ready.top}/caf\\xe9 \\\\")
    assert f"{ready.top}/caf\\xe9 \\\\ does not exist" in failure["msg"]
    failure = ready.restore(id="unknown", backup_dir=f"{ready.top}/caf\\xe9")
    assert f"{ready.top}/caf\\xe9" in failure["msg"]
    assert os.path.exists(ready.top)


def test_backup_directory_is_a_file(ready: Host) -> None:
    parameters = {"workload": "app", "source": str(ready.tree), "backup_dir": f"{ready.top}/file"}
    refused(ready, "volt_backup", parameters, "usage", "{top}/file is not a directory")


@pytest.mark.parametrize("module", ["volt_backup_info", "volt_workload_info"])
def test_a_python_that_is_too_old(host: Host, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Ansible itself refuses those before 3.8; 3.8 reads all of our files, and then learns that it is not enough."""
    monkeypatch.setattr(_module, "sys", SimpleNamespace(version_info=(3, 8, 18)))
    failure = host.run(module)
    assert failure["failed"] and failure["code"] == "usage" and failure["msg"].startswith("The managed host needs Python 3.9 or newer")


def test_an_unexpected_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence all the same, and no traceback."""

    def fail(*_arguments: Any) -> None:
        raise OSError(5, "x", b"/srv/caf\xe9")

    monkeypatch.setattr(Manager, "find", fail)
    failure = host.info()
    assert failure["msg"] == "An unexpected error occurred at /srv/caf\\xe9: input/output error; fix that, then run again."
    assert failure["code"] == "error" and "exception" not in failure
