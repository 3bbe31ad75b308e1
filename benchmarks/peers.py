# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is measured: this engine, and what people use instead. One class a peer, one method a step.

A method returns the command to measure, or None where the peer has no such step. Steps, in order: first, unchanged,
changed, restore, restore_over, restore_reflink. A peer with `plain` set stores without compression and does `first` only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
_BUILD = "import sys; from ansible_collections.volt.backup.plugins.module_utils._runner import archive; open(sys.argv[1], 'wb').write(archive.build())"


class Peer:
    """A tool with a store of its own in `room`. `cwd` is where its commands run: most name what they store by it."""

    name = tool = ""
    plain = False
    discard = False  # its output is too long to keep

    def __init__(self, room: Path, source: Path) -> None:
        self.room = room
        self.source = source
        self.store = room / "store"
        self.env: dict[str, str] = {}

    def missing(self) -> str | None:
        return None if shutil.which(self.tool) else "not installed"

    def version(self) -> str:
        return subprocess.check_output([self.tool, "--version"], text=True).splitlines()[0]

    def prepare(self) -> None:
        """Before `first`, not measured: an empty store."""

    def learn(self, step: str, output: str) -> None:
        """After a step, its output."""

    def first(self) -> list[str] | None:
        return None

    def unchanged(self) -> list[str] | None:
        return None

    def changed(self) -> list[str] | None:
        return None

    def restore(self, target: Path) -> list[str] | None:
        """Into a target that does not exist."""
        return None

    def restore_over(self, target: Path) -> list[str] | None:
        """Over a target that differs in 1%."""
        return None

    def restore_reflink(self, target: Path) -> list[str] | None:
        """As `restore`, sharing blocks with the store."""
        return None

    def cwd(self, step: str, target: Path) -> Path:
        return self.source


class Volt(Peer):
    name, tool = "volt.backup", sys.executable

    def __init__(self, room: Path, source: Path) -> None:
        super().__init__(room, source)
        self.backup = ""
        # The command as it is shipped: the archive, with bytecode of this Python in it.
        folder = room / "path/ansible_collections/volt"
        folder.mkdir(parents=True)
        (folder / "backup").symlink_to(CHECKOUT)
        self.env = {"PYTHONPATH": str(room / "path"), "PYTHONPYCACHEPREFIX": str(room / "pycache")}  # for what is not a word of the command
        self._archive = room / "volt-backup"
        self.command = [sys.executable, str(self._archive)]
        self.places = ["--store", str(self.store / "cas"), "--backup-dir", str(self.store / "backups"), "--json"]

    def missing(self) -> str | None:
        done = subprocess.run([sys.executable, "-c", _BUILD, str(self._archive)], env={**os.environ, **self.env}, check=False)
        return "its archive cannot be built" if done.returncode else None

    def version(self) -> str:
        probe = "import importlib.util as u, sys; print('Python', sys.version.split()[0], 'with' if u.find_spec('zstandard') else 'without', 'zstandard')"
        return subprocess.check_output([sys.executable, "-c", probe], text=True).strip()

    def prepare(self) -> None:
        self.store.mkdir()

    def learn(self, step: str, output: str) -> None:
        if step in ("first", "unchanged", "changed"):
            self.backup = json.loads(output)["backup"]["id"]

    def first(self) -> list[str]:
        return [*self.command, "create", "bench", "--source", str(self.source), "--compression", "none" if self.plain else "auto", *self.places]

    unchanged = changed = first

    def restore(self, target: Path) -> list[str]:
        return [*self.command, "restore", self.backup, "--target", str(target), "--link", "copy", *self.places]

    def restore_over(self, target: Path) -> list[str]:
        return [*self.restore(target), "--force", "--strategy", "in_place"]

    def restore_reflink(self, target: Path) -> list[str]:
        return [*self.command, "restore", self.backup, "--target", str(target), "--link", "reflink", *self.places]


class Restic(Peer):
    name = tool = "restic"

    def __init__(self, room: Path, source: Path) -> None:
        super().__init__(room, source)
        self.env = {"RESTIC_PASSWORD": "benchmark", "RESTIC_REPOSITORY": str(self.store), "RESTIC_CACHE_DIR": str(room / "cache")}

    def version(self) -> str:
        return subprocess.check_output(["restic", "version"], text=True).strip()

    def prepare(self) -> None:
        subprocess.run(["restic", "init", "--quiet"], env={**os.environ, **self.env}, check=True)

    def first(self) -> list[str]:
        return ["restic", "--quiet", "--compression", "off" if self.plain else "auto", "backup", "."]

    unchanged = changed = first

    def restore(self, target: Path) -> list[str]:
        return ["restic", "--quiet", "restore", "latest", "--target", str(target)]

    restore_over = restore


class Borg(Peer):
    name = tool = "borg"

    def __init__(self, room: Path, source: Path) -> None:
        super().__init__(room, source)
        self.env = {"BORG_BASE_DIR": str(room / "base"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        self.archives = 0

    def prepare(self) -> None:
        subprocess.run(["borg", "init", "--encryption=none", str(self.store)], env={**os.environ, **self.env}, check=True)

    def first(self) -> list[str]:
        self.archives += 1
        return ["borg", "create", "-C", "none" if self.plain else "zstd,3", f"{self.store}::{self.archives}", "."]

    unchanged = changed = first

    def restore(self, target: Path) -> list[str]:
        target.mkdir(exist_ok=True)
        return ["borg", "extract", "--numeric-ids", f"{self.store}::{self.archives}"]

    restore_over = restore

    def cwd(self, step: str, target: Path) -> Path:
        return target if step.startswith("restore") else self.source


class Rsync(Peer):
    """A directory a backup, unchanged files linked to the one before; with all metadata and holes, as the others keep them."""

    name, tool = "rsync --link-dest", "rsync"
    plain_copy = ["rsync", "-aHAXS", "--numeric-ids"]

    def __init__(self, room: Path, source: Path) -> None:
        super().__init__(room, source)
        self.copies = 0

    def prepare(self) -> None:
        self.store.mkdir()

    def first(self) -> list[str]:
        self.copies += 1
        previous = [f"--link-dest={self.store}/{self.copies - 1}"] if self.copies > 1 else []
        return [*self.plain_copy, *previous, f"{self.source}/", f"{self.store}/{self.copies}/"]

    unchanged = changed = first

    def restore(self, target: Path) -> list[str]:
        return [*self.plain_copy, "--delete", f"{self.store}/{self.copies}/", f"{target}/"]

    restore_over = restore


class Cp(Peer):
    name, tool = "cp -a", "cp"

    def prepare(self) -> None:
        self.store.mkdir()

    def first(self) -> list[str]:
        return ["cp", "-a", "--reflink=never", str(self.source), str(self.store / "copy")]

    def restore(self, target: Path) -> list[str]:
        return ["cp", "-a", "--reflink=never", str(self.source), str(target)]

    def restore_reflink(self, target: Path) -> list[str]:
        return ["cp", "-a", "--reflink=always", str(self.source), str(target)]


class Find(Peer):
    """The least that anybody must do to learn that nothing changed."""

    name, tool, discard = "find -printf", "find", True

    def unchanged(self) -> list[str]:
        return ["find", str(self.source), "-printf", "%p %y %m %U %G %s %T@ %C@ %i %n\\n"]


class VoltPlain(Volt):
    name, plain = "volt.backup, uncompressed", True


class ResticPlain(Restic):
    name, plain = "restic, uncompressed", True


class BorgPlain(Borg):
    name, plain = "borg, uncompressed", True


ALL = {"volt": (Volt, VoltPlain), "restic": (Restic, ResticPlain), "borg": (Borg, BorgPlain), "rsync": (Rsync,), "cp": (Cp,), "find": (Find,)}
