# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is measured: this engine, and what people use instead, in the newest versions. One class a peer, one method a step.

A method returns the command to measure, or None where the peer has no such step. Steps of one backup after another: first, unchanged, changed,
listing, restore, restore_over, restore_reflink. Steps of a store with a history: restore_oldest, structure, content, prune, collect_dry, collect.
A peer with `plain` set stores without compression and does `first` only.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rigs import Unavailable, debian

CHECKOUT = Path(__file__).resolve().parents[1]
#: The Python of managed hosts, with the packages that Debian has for it.
PYTHON = shutil.which("python3", path="/usr/bin") or sys.executable
BORG = "1.4.5"
_BUILD = "import sys; from ansible_collections.volt.backup.plugins.module_utils._runner import archive; sys.stdout.buffer.write(archive.build())"


@functools.lru_cache(maxsize=None)
def archive() -> bytes:
    """The command as it is shipped: one file, with bytecode of the Python that runs it."""
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room) / "ansible_collections/volt"
        folder.mkdir(parents=True)
        (folder / "backup").symlink_to(CHECKOUT)
        env = {**os.environ, "PYTHONPATH": room, "PYTHONPYCACHEPREFIX": room}
        return subprocess.run([PYTHON, "-c", _BUILD], env=env, stdout=subprocess.PIPE, check=True).stdout


def restic() -> str:
    """A newer one than this machine may have: the program of trixie needs no libraries."""
    return str(debian.tree("trixie", ("restic",)) / "usr/bin/restic")


@functools.lru_cache(maxsize=None)
def borg() -> str:
    """The newest one, of PyPI, built once in the user's cache. That needs a compiler and the headers that tests/packages.txt names."""
    place = debian.cache().parent / f"borg-{BORG}"
    with debian._locked(place.with_name(f"{place.name}.lock")):
        if not (place / "made").exists():
            shutil.rmtree(place, ignore_errors=True)
            steps = ([PYTHON, "-m", "venv", place], [place / "bin/python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", f"borgbackup=={BORG}"])
            for step in steps:
                done = subprocess.run(step, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
                if done.returncode:
                    raise Unavailable(f"borg {BORG} cannot be built: {' '.join(done.stdout.split())[-300:]}")
            (place / "made").touch()
    return str(place / "bin/borg")


def _version(program: str, option: str = "--version") -> str:
    """Its name and number."""
    found = re.search(r"\d+(\.\d+)+", subprocess.check_output([program, option], text=True))
    return f"{Path(program).name} {found[0] if found else 'of an unknown version'}"


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
        return _version(self.tool)

    def prepare(self) -> None:
        """Before `first`, not measured: an empty store."""

    def learn(self, step: str, output: str) -> None:
        """After a step, its output."""

    def run(self, *command: str) -> str:
        """Run a command that is not measured; what it printed."""
        return subprocess.run(command, cwd=self.source, env={**os.environ, **self.env}, stdout=subprocess.PIPE, text=True, check=True).stdout

    def first(self) -> list[str] | None:
        return None

    def unchanged(self) -> list[str] | None:
        return self.first()

    def changed(self) -> list[str] | None:
        return self.first()

    def listing(self) -> list[str] | None:
        return None

    def restore(self, target: Path) -> list[str] | None:
        """The newest, into a target that does not exist."""
        return None

    def restore_over(self, target: Path) -> list[str] | None:
        """The newest, over a target that differs in 1%."""
        return self.restore(target)

    def restore_reflink(self, target: Path) -> list[str] | None:
        """As `restore`, sharing blocks with the store."""
        return None

    def restore_oldest(self, target: Path) -> list[str] | None:
        return None

    def structure(self) -> list[str] | None:
        """Check that all is there."""
        return None

    def content(self) -> list[str] | None:
        """Read all and check it."""
        return None

    def prune(self, keep: int) -> list[str] | None:
        return None

    def collect_dry(self) -> list[str] | None:
        return None

    def collect(self) -> list[str] | None:
        """Free what no backup needs."""
        return None

    def forget_target(self) -> bool:
        """Forget what a stat cache knows of targets; whether there is such a thing."""
        return False

    def cwd(self, step: str, target: Path) -> Path:
        return self.source


class Volt(Peer):
    name, tool = "volt.backup", PYTHON

    def __init__(self, room: Path, source: Path) -> None:
        super().__init__(room, source)
        self.backup = "latest"
        self._archive = room / "volt-backup"
        self.command = [PYTHON, str(self._archive)]
        self.places = ["--store", str(self.store / "cas"), "--backup-dir", str(self.store / "backups"), "--json"]

    def missing(self) -> str | None:
        self._archive.write_bytes(archive())
        return None

    def version(self) -> str:
        probe = "import importlib.util as u, sys; print(sys.version.split()[0], 'with' if u.find_spec('zstandard') else 'without', 'zstandard')"
        return "volt.backup on Python " + subprocess.check_output([PYTHON, "-c", probe], text=True).strip()

    def prepare(self) -> None:
        self._archive.write_bytes(archive())
        self.store.mkdir()
        self.run(*self.word("init"))

    def learn(self, step: str, output: str) -> None:
        if step in ("first", "unchanged", "changed"):
            self.backup = json.loads(output)["backup"]["id"]

    def word(self, *words: str) -> list[str]:
        return [*self.command, *words, *self.places]

    def first(self) -> list[str]:
        return self.word("create", "bench", "--source", str(self.source), "--compression", "none" if self.plain else "auto")

    def listing(self) -> list[str]:
        return self.word("list")

    def restore(self, target: Path) -> list[str]:
        return self.word("restore", self.backup, "--target", str(target), "--link", "copy")

    def restore_over(self, target: Path) -> list[str]:
        return [*self.restore(target), "--force", "--strategy", "in_place"]

    def restore_reflink(self, target: Path) -> list[str]:
        return self.word("restore", self.backup, "--target", str(target), "--link", "reflink")

    def restore_oldest(self, target: Path) -> list[str]:
        oldest = json.loads(self.run(*self.listing()))["backups"][-1]["id"]
        return self.word("restore", oldest, "--target", str(target), "--link", "copy")

    def structure(self) -> list[str]:
        return self.word("verify")

    def content(self) -> list[str]:
        return self.word("verify", "--content")

    def prune(self, keep: int) -> list[str]:
        return self.word("prune", "bench", "--keep", str(keep))

    def collect_dry(self) -> list[str]:
        return self.word("gc", "--grace", "0s", "--dry-run")

    def collect(self) -> list[str]:
        return self.word("gc", "--grace", "0s")

    def forget_target(self) -> bool:
        for cached in (self.store / "cas/cache").glob("*.target"):
            cached.unlink()
        return True


class Restic(Peer):
    name = "restic"

    def __init__(self, room: Path, source: Path) -> None:
        super().__init__(room, source)
        self.env = {"RESTIC_PASSWORD": "benchmark", "RESTIC_REPOSITORY": str(self.store), "RESTIC_CACHE_DIR": str(room / "cache")}

    def missing(self) -> str | None:
        try:
            self.tool = restic()
        except Unavailable as lack:
            return str(lack)
        return None

    def version(self) -> str:
        return _version(restic(), "version")

    def prepare(self) -> None:
        self.run(*self.word("init"))

    def word(self, *words: str) -> list[str]:
        return [restic(), "--quiet", *words]

    def first(self) -> list[str]:
        return self.word("--compression", "off" if self.plain else "auto", "backup", ".")

    def listing(self) -> list[str]:
        return [restic(), "snapshots"]

    def restore(self, target: Path) -> list[str]:
        return self.word("restore", "latest", "--target", str(target))

    def restore_oldest(self, target: Path) -> list[str]:
        found = json.loads(self.run(*self.word("snapshots", "--json")))
        return self.word("restore", str(min(found, key=lambda snapshot: snapshot["time"])["id"]), "--target", str(target))

    def structure(self) -> list[str]:
        return self.word("check")

    def content(self) -> list[str]:
        return self.word("check", "--read-data")

    def prune(self, keep: int) -> list[str]:
        return self.word("forget", "--keep-last", str(keep))

    def collect_dry(self) -> list[str]:
        return self.word("prune", "--dry-run")

    def collect(self) -> list[str]:
        return self.word("prune")


class Borg(Peer):
    name = "borg"

    def __init__(self, room: Path, source: Path) -> None:
        super().__init__(room, source)
        self.env = {"BORG_BASE_DIR": str(room / "base"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        self.archives = 0

    def missing(self) -> str | None:
        try:
            self.tool = borg()
        except Unavailable as lack:
            return str(lack)
        return None

    def version(self) -> str:
        return _version(borg())

    def prepare(self) -> None:
        self.run(borg(), "init", "--encryption=none", str(self.store))

    def first(self) -> list[str]:
        self.archives += 1
        return [borg(), "create", "-C", "none" if self.plain else "zstd,3", f"{self.store}::{self.archives}", "."]

    def listing(self) -> list[str]:
        return [borg(), "list", str(self.store)]

    def restore(self, target: Path) -> list[str]:
        return self._extract(self.archives, target)

    def restore_oldest(self, target: Path) -> list[str]:
        return self._extract(1, target)

    def _extract(self, archive: int, target: Path) -> list[str]:
        target.mkdir(exist_ok=True)
        return [borg(), "extract", "--numeric-ids", f"{self.store}::{archive}"]

    def structure(self) -> list[str]:
        return [borg(), "check", str(self.store)]

    def content(self) -> list[str]:
        return [borg(), "check", "--verify-data", str(self.store)]

    def prune(self, keep: int) -> list[str]:
        return [borg(), "prune", "--keep-last", str(keep), str(self.store)]

    def collect(self) -> list[str]:
        return [borg(), "compact", str(self.store)]

    def cwd(self, step: str, target: Path) -> Path:
        return target if step.startswith("restore") else self.source


class Tar(Peer):
    """The floor: one compressed archive a backup, read and written whole each time."""

    name, tool = "tar, zstd", "zstd"

    def __init__(self, room: Path, source: Path) -> None:
        super().__init__(room, source)
        self.archives = 0

    def missing(self) -> str | None:
        return super().missing() if shutil.which("tar") else "not installed"

    def version(self) -> str:
        return f"{_version('tar')}, {_version('zstd')}"

    def prepare(self) -> None:
        self.store.mkdir()

    def first(self) -> list[str]:
        self.archives += 1
        return ["sh", "-ec", 'tar --xattrs --acls --sparse --numeric-owner -cf - . | zstd -q -3 -T0 -o "$0"', f"{self.store}/{self.archives}.tar.zst"]

    def restore(self, target: Path) -> list[str]:
        target.mkdir(exist_ok=True)
        unpack = 'zstd -dcq "$0" | tar --xattrs --xattrs-include="*" --acls --numeric-owner -xpf -'
        return ["sh", "-ec", unpack, f"{self.store}/{self.archives}.tar.zst"]

    def restore_over(self, target: Path) -> list[str] | None:
        return None  # it cannot but write all

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

    def restore(self, target: Path) -> list[str]:
        return [*self.plain_copy, "--delete", f"{self.store}/{self.copies}/", f"{target}/"]


class Cp(Peer):
    name, tool = "cp -a", "cp"

    def prepare(self) -> None:
        self.store.mkdir()

    def first(self) -> list[str]:
        return ["cp", "-a", "--reflink=never", str(self.source), str(self.store / "copy")]

    def unchanged(self) -> list[str] | None:
        return None  # once is enough

    changed = unchanged

    def restore(self, target: Path) -> list[str]:
        return ["cp", "-a", "--reflink=never", str(self.source), str(target)]

    def restore_over(self, target: Path) -> list[str] | None:
        return None

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


ALL = {
    "volt": (Volt, VoltPlain), "restic": (Restic, ResticPlain), "borg": (Borg, BorgPlain), "tar": (Tar,), "rsync": (Rsync,), "cp": (Cp,), "find": (Find,),
}  # fmt: skip
