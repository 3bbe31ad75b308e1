# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command as one file: what is in it, that any Python puts the same sources in it, and that any Python runs it."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.volt.backup.plugins.module_utils import _version
from ansible_collections.volt.backup.plugins.module_utils._base.errors import UsageError, VoltError
from ansible_collections.volt.backup.plugins.module_utils._runner import archive
from ansible_collections.volt.backup.plugins.module_utils._schedule import command, job
from ansible_collections.volt.backup.plugins.module_utils._store import features

from .. import kit

ROOT = Path(__file__).parents[3]
ENGINE = ROOT / "plugins" / "module_utils"
PYTHONS = [path for path in os.environ.get("VOLT_PYTHONS", "").split(":") if path] or [sys.executable]
BUILD = """
import sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.volt.backup.plugins.module_utils._runner import archive
sys.stdout.buffer.write(archive.build())
"""


@pytest.fixture(scope="module")
def built() -> bytes:
    return kit.command()


@pytest.fixture
def runner(built: bytes, tmp_path: Path) -> str:
    path = str(tmp_path / "volt-backup")
    command.write(path, built)
    return path


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Away from all sources, so that nothing but the archive can be imported."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(words, cwd="/", env={**clean, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def test_the_version_is_that_of_the_collection() -> None:
    assert yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"] == _version.VERSION


def test_holds_the_sources(built: bytes) -> None:
    """All of the engine as it is, in order, without anything that comes from this machine."""
    packages = ("_backup", "_base", "_capture", "_format", "_fs", "_proof", "_remote", "_restore", "_runner", "_schedule", "_sources", "_store")
    sources = [ENGINE / "_version.py", *(path for package in packages for path in (ENGINE / package).glob("*.py") if path.name != "__main__.py")]
    with zipfile.ZipFile(io.BytesIO(built)) as file:
        entries = file.infolist()
        content = {entry.filename: file.read(entry) for entry in entries}
    assert built.startswith(b"#!/usr/bin/env python3\nPK")
    assert list(content) == sorted(content)
    assert {(entry.date_time, entry.compress_type, entry.create_system, entry.external_attr) for entry in entries} == {
        ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED, 3, 0o100644 << 16)
    }
    assert content.pop("volt_backup/__init__.py") == b""
    assert b"import main" in content.pop("__main__.py")
    bytecode = {name: content.pop(name) for name in list(content) if name.endswith(".pyc")}
    assert content == {f"volt_backup/{path.relative_to(ENGINE)}": path.read_bytes() for path in sources}
    assert list(bytecode) == [f"{name}c" for name in sorted([*content, "volt_backup/__init__.py"])]
    assert {data[:8] for data in bytecode.values()} == {importlib.util.MAGIC_NUMBER + b"\1\0\0\0"}


def sources(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist() if name.endswith(".py")}


@pytest.mark.parametrize("python", PYTHONS)
def test_any_python_takes_the_same_sources_and_says_the_same_of_them_twice(built: bytes, python: str, tmp_path: Path) -> None:
    collections = tmp_path / "ansible_collections" / "volt"
    collections.mkdir(parents=True)
    (collections / "backup").symlink_to(ROOT)
    made = [
        subprocess.run([python, "-B", "-c", BUILD, str(tmp_path)], cwd="/", env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, check=True)
        for seed in "12"
    ]
    assert sources(made[0].stdout) == sources(built)
    assert command.describe(made[0].stdout) == command.describe(made[1].stdout)


@pytest.mark.parametrize("python", PYTHONS)
def test_bytecode_is_taken_by_the_python_that_wrote_it_and_skipped_by_others(runner: str, python: str) -> None:
    """By what a start does: one that compiles reads the source of the first module."""
    looked = """
import sys
sys.path.insert(0, sys.argv[1])
from volt_backup._runner import cli
print(cli.__spec__.loader.get_filename(cli.__name__), cli.main.__code__.co_filename)
"""
    found, code = run(python, "-B", "-c", looked, runner).stdout.split()
    own = subprocess.run([python, "-c", "import importlib.util as u; print(u.MAGIC_NUMBER.hex())"], stdout=subprocess.PIPE, text=True, check=True)
    taken = own.stdout.strip() == importlib.util.MAGIC_NUMBER.hex()
    assert found == f"{runner}/volt_backup/_runner/cli.py{'c' if taken else ''}"
    assert code == ("volt_backup/_runner/cli.py" if taken else found)


@pytest.mark.parametrize("python", PYTHONS)
def test_runs(runner: str, python: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_text("content")
    places = ("--store", str(tmp_path / "cas"), "--backup-dir", str(tmp_path / "backups"), "--json")
    created = run(python, runner, "create", "app", "--source", str(tmp_path / "source"), *places)
    assert created.returncode == 0, created.stderr
    listed = run(python, "-I", runner, "list", "app", *places)
    assert [backup["id"] for backup in json.loads(listed.stdout)["backups"]] == [json.loads(created.stdout)["backup"]["id"]]
    assert run(python, runner, "list", "a/b", *places).returncode == 2


def test_runs_by_its_name(runner: str) -> None:
    helped = run(runner, "--help")
    assert helped.returncode == 0 and helped.stdout.startswith("usage: volt-backup"), helped.stderr


#: Run an archive that another one replaces as soon as a file of the store is opened.
UPGRADE = """
import os, runpy, sys
archive, new, store = sys.argv[1:4]
def hook(event, args):
    if event == "open" and isinstance(args[0], str) and args[0].startswith(store) and os.path.exists(new):
        os.replace(new, archive)
sys.addaudithook(hook)
sys.argv[1:] = sys.argv[4:]
runpy.run_path(archive, run_name="__main__")
"""


@pytest.mark.parametrize("words", [["verify"], ["gc"], ["restore", "latest", "--target", "target"], ["prune", "app", "--keep", "1"], ["find", "a"]])
def test_an_upgrade_leaves_a_run_alone(runner: str, built: bytes, tmp_path: Path, words: list[str]) -> None:
    """What a command imports late came from the new file, by offsets of the old one."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_text("content")
    places = ("--store", str(tmp_path / "cas"), "--backup-dir", str(tmp_path / "backups"))
    assert run(runner, "create", "app", "--source", str(tmp_path / "source"), *places).returncode == 0
    new = tmp_path / "new"
    new.write_bytes(built.replace(b"\n", b"\n# a longer one\n", 1))
    new.chmod(0o755)
    words = [str(tmp_path / word) if word == "target" else word for word in words]
    done = run(sys.executable, "-c", UPGRADE, runner, str(new), str(tmp_path / "cas"), *words, *places)
    assert done.returncode == 0, done.stderr
    assert not new.exists() and run(runner, *words, *places).returncode == 0


#: A separate process imports a module of an archive that is gone, by the descriptor that its start has made.
APART = """
import os, sys
sys.path.insert(0, "/proc/self/fd/%d" % os.open(sys.argv[1], os.O_RDONLY))
from volt_backup._schedule import apart
os.unlink(sys.argv[1])
lock = os.open("/", os.O_RDONLY)
def work(answer):
    from volt_backup._backup import verify
    return verify.__name__, os.path.exists("/proc/self/fd/%d" % lock)
print(*apart.apart(work))
"""


def test_a_separate_process_keeps_the_archive(runner: str) -> None:
    """It closes all other descriptors."""
    assert run(sys.executable, "-c", APART, runner).stdout == "volt_backup._backup.verify False\n"


def test_an_old_python_gets_a_message(runner: str, built: bytes) -> None:
    pretend = "import runpy, sys; sys.version_info = (3, 6, 8); runpy.run_path(sys.argv[1], run_name='__main__')"
    told = run(sys.executable, "-c", pretend, runner)
    assert told.returncode == 1 and told.stdout == ""
    assert told.stderr == "volt-backup needs Python 3.9 or newer, and this is 3.6; start it with a newer one.\n"
    with zipfile.ZipFile(io.BytesIO(built)) as file:
        ast.parse(file.read("__main__.py"), feature_version=(3, 4))


def test_stamp(runner: str, built: bytes) -> None:
    assert command.read(runner) == command.parse(built) == (_version.VERSION, job.FORMAT, features.KNOWN)


@pytest.mark.parametrize(
    ("version", "job_format", "known"), [("0.1.0", 1, ()), ("10.20.30-rc.1+build.5", 999999999, ("claims", "more-of_it2")), ("x" * 64, 0, ("a",))]
)
def test_stamp_comes_back(version: str, job_format: int, known: tuple[str, ...]) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.comment = command.stamp(command.CommandStamp(version, job_format, frozenset(known)))
    assert command.parse(file.getvalue()) == (version, job_format, frozenset(known))
    assert command.parse(b"#!" + b"x" * 1000 + file.getvalue()) == (version, job_format, frozenset(known))


def _zip(comment: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a", b"a")
        made.comment = comment
    return file.getvalue()


FOREIGN = {
    "empty": b"",
    "script": b"#!/bin/sh\necho volt-backup 0.1.0 job-format 1",
    "archive": _zip(b""),
    "archive of somebody": _zip(b"somebody 0.1.0 job-format 1"),
    "archive with more to say": _zip(b"volt-backup 0.1.0 job-format 1, or so"),
    "no number": _zip(b"volt-backup 0.1.0 job-format x"),
    "features of another sort": _zip(b"volt-backup 0.1.0 job-format 1 store-features A"),
    "cut short": _zip(b"volt-backup 0.1.0 job-format 12")[:-1],
    "longer": _zip(b"volt-backup 0.1.0 job-format 1") + b"2",
    "mark at the end": b"PK\5\6",
    "not the end": _zip(b"volt-backup 0.1.0 job-format 1") + b"\n" * 1000,
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_foreign(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "volt-backup"
    path.write_bytes(data)
    assert command.parse(data) is None
    for look in (command.read, command.state):
        with pytest.raises(UsageError, match=r"was not written by volt_runner; move it away, or choose another path\.$"):
            look(str(path))


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("none", "none/such", "file/in"):
        assert command.read(str(tmp_path / name)) is None
        assert command.state(str(tmp_path / name)) == ""
    os.mkfifo(tmp_path / "pipe")
    for name in ("", "pipe"):
        with pytest.raises(UsageError, match="not written by volt_runner"):
            command.read(str(tmp_path / name))


def test_link(runner: str, tmp_path: Path) -> None:
    """Started through a link it is as good; but written over, the link would be gone."""
    (tmp_path / "link").symlink_to(runner)
    assert command.read(str(tmp_path / "link")) == command.read(runner)
    with pytest.raises(UsageError, match="symbolic link"):
        command.state(str(tmp_path / "link"))


def test_state_tells_everything(runner: str, built: bytes) -> None:
    assert archive.describe() == command.describe(built)  # though the one is found without building the other
    assert command.state(runner) == command.describe(built)
    os.chmod(runner, 0o700)
    assert command.state(runner) == command.describe(built, 0o700) != command.describe(built)
    other = _zip(command.stamp(command.CommandStamp(_version.VERSION, job.FORMAT)))
    assert command.describe(other) != command.describe(built)  # of the same version, as while one works on it
    changed = built.replace(b"volt-backup needs", b"volt-backup wants")
    assert "sha256: damaged" in command.describe(changed) and len(changed) == len(built)
    assert command.describe(built.replace(b"#!/usr/bin/env python3", b"#!/usr/bin/env python4")) != command.describe(built)
    assert command.describe(built.replace(importlib.util.MAGIC_NUMBER + b"\1", b"\0\0\r\n\1")) != command.describe(built)  # of another Python


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_stays(runner: str, built: bytes) -> None:
    os.chown(runner, 1234, 1235)
    command.write(runner, built)
    status = os.stat(runner)
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 1235, 0o755)


def test_a_write_that_fails_leaves_the_old(runner: str, built: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VoltError, match="cannot be written: no space left on device; fix that, or choose another path"):
        command.write(runner, b"new")
    assert Path(runner).read_bytes() == built
    assert os.listdir(tmp_path) == ["volt-backup"]


def test_a_listing_imports_what_it_needs(runner: str, tmp_path: Path) -> None:
    """A start took 0.24 s of processor time when all of the engine was imported."""
    places = ("--store", str(tmp_path / "cas"), "--backup-dir", str(tmp_path / "backups"))
    assert run(sys.executable, runner, "init", *places).returncode == 0
    done = run(sys.executable, "-X", "importtime", runner, "list", *places)
    assert done.returncode == 0 and done.stdout.startswith("No backups in ")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    rooms = {name.split(".")[1] for name in imported if name.startswith("volt_backup.")}
    assert rooms == {"_version", "_backup", "_base", "_capture", "_format", "_fs", "_runner", "_store"}
    assert {name for name in imported if name.startswith("volt_backup._capture.")} == {"volt_backup._capture.stat_cache"}
    assert not imported & {"concurrent.futures", "socket", "ssl", "smtplib", "email", "http.client", "urllib.request", "subprocess", "tempfile", "logging"}
