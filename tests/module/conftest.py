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
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible.module_utils.testing import patch_module_args

PACKAGE = "ansible_collections.volt.backup.plugins.modules"
NOBODY = 65534


#: What Ansible hands to each module. Nothing goes to this machine's log: from Python 3.12 on, logging refuses a NUL before the module can.
SETTINGS = {"_ansible_remote_tmp": "/tmp", "_ansible_no_log": True}


#: Packages of which modules import something late, by its name.
LATE = ("ansible_collections.volt.backup.plugins.module_utils", "ansible.module_utils._internal", "ansible.module_utils.common")


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
        (self.tree / "conf").mkdir(parents=True)
        (self.tree / "conf" / "app.conf").write_text("port = 80\n")

    def start(self, name: str, check: bool = False, user: int | None = None, **parameters: Any) -> Running:
        return Running(name, {"store": str(self.store), "backup_dir": str(self.backups), "lock_timeout": 10, **parameters}, check, user)

    def run(self, name: str, check: bool = False, user: int | None = None, **parameters: Any) -> dict[str, Any]:
        return self.start(name, check, user, **parameters).end()

    def back_up(self, check: bool = False, user: int | None = None, **parameters: Any) -> dict[str, Any]:
        return self.run("volt_backup", check, user, **{"workload": "app", "source": str(self.tree), **parameters})

    def restore(self, check: bool = False, **parameters: Any) -> dict[str, Any]:
        return self.run("volt_restore", check, **parameters)

    def info(self, **parameters: Any) -> dict[str, Any]:
        return self.run("volt_backup_info", **parameters)

    def everything(self) -> set[bytes]:
        """All there is, the tree included."""
        top = os.fsencode(self.top)
        return {os.path.join(where, name) for where, names, files in os.walk(top) for name in names + files}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def stop() -> Callable[[Running, float], dict[str, Any]]:
    """Send SIGTERM after a while; the result."""

    def send(running: Running, after: float) -> dict[str, Any]:
        running.signal(signal.SIGTERM, after)
        return running.end()

    return send
