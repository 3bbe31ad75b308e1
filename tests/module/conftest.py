# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules, run as Ansible runs them but without Ansible around: each in a process of its own, parameters in, JSON out."""

from __future__ import annotations

import codecs
import functools
import importlib
import json
import os
import pkgutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.volt.backup.plugins.module_utils._backup import host as backup_host
from ansible_collections.volt.backup.plugins.module_utils._schedule import declare
from ansible_collections.volt.backup.plugins.module_utils._schedule.record import RunRecord
from ansible_collections.volt.backup.tests.rigs import model, warm
from ansible_collections.volt.backup.tests.unit import kit

PACKAGE = "ansible_collections.volt.backup.plugins.modules"
NOBODY = 65534
#: The state of a backup that is as it should be, as it is listed.
SOUND = {
    "checked": True, "damaged": False, "damage": None, "unsupported": False, "unsupported_reason": None, "future": False, "foreign": False,
    "foreign_reason": None,
}  # fmt: skip
#: As results show the name of the file that holds a byte which is no UTF-8, and a backslash.
ODD = "data/caf\\xe9 \\\\ back"
#: 20 July 1969, 20:17:40.123456789 UTC.
LANDING = -14182939876543211


#: What Ansible hands to each module. Nothing goes to this machine's log: from Python 3.12 on, logging refuses a NUL before the module can.
SETTINGS = {"_ansible_remote_tmp": "/tmp", "_ansible_no_log": True}


#: Packages of which modules import something late, by its name.
LATE = ("ansible_collections.volt.backup.plugins.module_utils", "ansible.module_utils._internal")


@functools.cache
def import_all() -> None:
    """Import all that a module may import, and the codec that it looks up."""
    for name in LATE:
        for found in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            if not found.name.endswith(".__main__"):
                importlib.import_module(found.name)
    codecs.lookup("ascii")


class Running:
    """A module under way."""

    def __init__(self, name: str, parameters: dict[str, Any], check: bool, user: int | None) -> None:
        # Before the fork: another user may not be able to read our Python or this checkout.
        module = importlib.import_module(f"{PACKAGE}.{name}")
        import_all()
        read, write = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(read)
                os.dup2(write, 1)
                if user is not None:
                    os.setgroups([])
                    os.setresgid(user, user, user)
                    os.setresuid(user, user, user)
                with patch_module_args({**parameters, **SETTINGS, "_ansible_check_mode": check}):
                    sys.stdout = os.fdopen(1, "w", encoding="utf-8")  # strict: what is no UTF-8 must not get here
                    module.main()
            except SystemExit:
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(write)
        self._output = os.fdopen(read, encoding="utf-8")

    def signal(self, number: int, after: float) -> None:
        time.sleep(after)
        os.kill(self.pid, number)

    def end(self) -> dict[str, Any]:
        with self._output as output:
            text = output.read()
        os.waitpid(self.pid, 0)
        return json.loads(text)


class Host:
    """A store and a tree of its own for each test, and the modules on them."""

    def __init__(self, top: Path) -> None:
        self.top, self.tree = top, top / "tree"
        self.store, self.backups = top / "cas", top / "backups"
        self.scheduled = {"runner": str(top / "volt-backup"), "manage_units": False, "jitter_seed": "here"}
        (self.tree / "conf").mkdir(parents=True)
        (self.tree / "conf" / "app.conf").write_text("port = 80\n")

    def start(self, name: str, /, check: bool = False, user: int | None = None, **parameters: Any) -> Running:
        return Running(name, {"store": str(self.store), "backup_dir": str(self.backups), "lock_timeout": 10, **parameters}, check, user)

    def run(self, name: str, /, check: bool = False, user: int | None = None, **parameters: Any) -> dict[str, Any]:
        return self.start(name, check, user, **parameters).end()

    def back_up(self, check: bool = False, user: int | None = None, **parameters: Any) -> dict[str, Any]:
        return self.run("volt_backup", check, user, **{"workload": "app", "source": str(self.tree), **parameters})

    def restore(self, check: bool = False, **parameters: Any) -> dict[str, Any]:
        return self.run("volt_restore", check, **parameters)

    def info(self, **parameters: Any) -> dict[str, Any]:
        return self.run("volt_backup_info", **parameters)

    def furnish(self) -> Host:
        """More than plain files in the tree."""
        for name in ("data", "empty", "tmp"):
            (self.tree / name).mkdir()
        files = {"conf/old.conf": b"old\n", "data/large": os.urandom(300000), "data/nothing": b"", "tmp/scratch": b"x"}
        files[os.fsdecode(b"data/caf\xe9 \\ back")] = b"x"
        for name, content in files.items():
            (self.tree / name).write_bytes(content)
        (self.tree / "data/sparse").touch()
        os.truncate(self.tree / "data/sparse", 20 << 20)
        os.link(self.tree / "data/large", self.tree / "data/linked")
        (self.tree / "data/link").symlink_to("../conf/app.conf")
        os.mkfifo(self.tree / "data/pipe")
        (self.tree / "conf/old.conf").chmod(0o4755)
        for name in ("conf/app.conf", "data/link", "conf"):
            os.utime(self.tree / name, ns=(LANDING, LANDING), follow_symlinks=False)
        return self

    def change(self) -> None:
        """One file changed, one new, one gone."""
        (self.tree / "conf/app.conf").write_text("port = 8080\n")
        (self.tree / "conf/new.conf").write_text("new\n")
        (self.tree / "data/link").unlink()

    def declare(self, check: bool = False, **parameters: Any) -> dict[str, Any]:
        """volt_backup_schedule on the directories of `scheduling`."""
        return self.run("volt_backup_schedule", check, **{**self.scheduled, **parameters})

    def twice(self, name: str, /, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Check, run, check again, run again: check mode writes nothing and foresees the diff, and once is enough.

        :returns: what check mode foresaw, what happened, what happened the second time.
        """
        before = self.everything()
        foreseen = self.run(name, True, **parameters)
        assert foreseen["changed"] and not foreseen.get("failed"), foreseen
        assert self.everything() == before
        done = self.run(name, **parameters)
        assert done["changed"] and not done.get("failed"), done
        assert done["diff"] == foreseen["diff"]
        again = [self.run(name, check, **parameters) for check in (True, False)]
        for result in again:
            assert not result["changed"] and not result.get("failed"), result
        return foreseen, done, again[1]

    def everything(self) -> dict[bytes, tuple[int, ...]]:
        """All there is, the tree included, with what changes where something is written."""
        return model.states(os.fsencode(self.top))


@pytest.fixture(scope="session")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warm.Ansible]:
    """Ansible's programs, with nothing of the user's."""
    room = tmp_path_factory.mktemp("controller")
    with warm.Ansible(room, HOME=str(room / "home"), ANSIBLE_REMOTE_TMP=str(room / "remote")) as ansible:
        yield ansible


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def scheduling(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories of its own for volt_backup_schedule, for its options name none; systemd is not told. The command is there."""
    module = importlib.import_module(f"{PACKAGE}.volt_backup_schedule")
    places = declare.HostPaths(*(str(host.top / name) for name in ("units", "jobs", "records", "stamps", "volt-backup", "notify.json", "run/status.json")))
    monkeypatch.setattr(module, "HostPaths", lambda command: places._replace(command=command))
    monkeypatch.setattr(backup_host, "PATH", str(host.top / "backup.json"))
    monkeypatch.setattr(module, "RunRecord", lambda workload: RunRecord(workload, places.records))
    Path(places.command).write_bytes(kit.command())


@pytest.fixture
def stop() -> Callable[[Running, float], dict[str, Any]]:
    """Send SIGTERM after a while; the result."""

    def send(running: Running, after: float) -> dict[str, Any]:
        running.signal(signal.SIGTERM, after)
        return running.end()

    return send
