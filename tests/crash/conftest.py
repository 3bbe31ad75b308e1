# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command as a child process that can be killed, and what must hold afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import create, restore
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager, Query
from ansible_collections.volt.backup.tests.rigs import oracle

RUNNER = "ansible_collections.volt.backup.plugins.module_utils._runner"


class Bench:
    """A store under `top` whose first backup is a promise: it must restore to the same tree whatever happens later."""

    def __init__(self, top: Path, python: str = sys.executable) -> None:
        self.top, self.python = top, python
        self.store, self.backups, self.source, self.target = (top / name for name in ("store", "backups", "source", "target"))
        self.manager = Manager(str(self.store), str(self.backups), 30)
        self.version = 0

    def fill(self) -> None:
        """A small source with every way in which content is stored."""
        for number in range(24):
            place = self.source / f"d{number % 5}" / f"f{number}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(os.urandom(100 * number))
        (self.source / "object").write_bytes(os.urandom(300_000))
        (self.source / "chunked").write_bytes(os.urandom(9 << 20))
        os.symlink("object", self.source / "link")
        os.link(self.source / "object", self.source / "d0" / "again")

    def edit(self) -> None:
        """Something new in each of these."""
        self.version += 1
        (self.source / "d1" / f"new{self.version}").write_bytes(os.urandom(2000))
        (self.source / "d2" / "f2").write_bytes(os.urandom(500))
        (self.source / "object").write_bytes(os.urandom(300_000))
        with open(self.source / "chunked", "r+b") as file:
            file.seek(3 << 20)
            file.write(os.urandom(5000))

    def command(self, *words: str) -> list[str]:
        return [self.python, "-m", RUNNER, *words, "--store", str(self.store), "--backup-dir", str(self.backups), "--json"]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}

    def creation(self) -> list[str]:
        return self.command("create", "work", "--source", str(self.source))

    def promise(self, kept: Path) -> str:
        """Make the first backup, and a copy of the source to compare with."""
        subprocess.run(["cp", "-a", self.source, kept], check=True)
        return str(self.manager.create(create.Request("work", str(self.source))).backup["id"])

    def sound(self) -> list[dict[str, Any]]:
        """All backups, none of which is damaged."""
        found = self.manager.find(Query())
        assert [(backup["id"], backup["damage"]) for backup in found if backup["damaged"]] == []
        return found

    def equals(self, backup: str, kept: Path, scratch: Path) -> None:
        """A backup, restored with every byte hashed, equals a tree."""
        shutil.rmtree(scratch, ignore_errors=True)
        self.manager.restore(backup, restore.Request(str(scratch), link="copy"))
        assert oracle.differences(kept, scratch) == []
        shutil.rmtree(scratch)

    def debris(self) -> list[str]:
        return os.listdir(self.store / "tmp") + [name for name in os.listdir(self.top) if ".volt-" in name]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.fill()
    return made
