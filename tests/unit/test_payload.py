# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine is imported from a payload with little compiling: each source once, and none where the command has its bytecode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.volt.backup.plugins.module_utils._runner import archive
from ansible_collections.volt.backup.tests.unit import kit

ENGINE = Path(__file__).parents[2] / "plugins/module_utils"
INSIDE = "ansible_collections/volt/backup/plugins/module_utils"
#: Import a part of the engine from the payload, and say what was compiled, and what was imported from where.
LOOK = f"""
import json, sys
sys.path.insert(0, sys.argv[1])
compiled = []
sys.addaudithook(lambda event, said: compiled.append(str(said[1])) if event == "compile" else None)
from {INSIDE.replace("/", ".")} import _payload
_payload._version.COMMAND = sys.argv[2]
compiled.clear()
_payload.install()
from {INSIDE.replace("/", ".")}._backup import create
from {INSIDE.replace("/", ".")}._runner import archive
ours = {{name: module.__file__ for name, module in sys.modules.items() if "._" in name and name.startswith("{INSIDE.replace("/", ".")}._")}}
print(json.dumps([[path for path in compiled if "module_utils" in path], ours, archive.describe()]))
"""


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Ansible makes one: sources alone, compressed."""
    path = tmp_path_factory.mktemp("payload") / "payload.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        parts = INSIDE.split("/")
        for depth in range(1, len(parts) + 1):
            made.writestr("/".join([*parts[:depth], "__init__.py"]), b"")
        for source in sorted(ENGINE.rglob("*.py")):
            made.write(source, f"{INSIDE}/{source.relative_to(ENGINE)}")
    return path


@pytest.fixture
def command(tmp_path: Path) -> Path:
    path = tmp_path / "volt-backup"
    path.write_bytes(kit.command())
    path.chmod(0o755)
    return path


def look(payload: Path, command: Path) -> tuple[Counter[str], dict[str, str]]:
    """(how often each source was compiled, module -> where it comes from). The command that the imported engine builds is the right one."""
    done = subprocess.run([sys.executable, "-c", LOOK, str(payload), str(command)], check=True, capture_output=True, text=True)
    compiled, ours, described = json.loads(done.stdout)
    assert len(ours) > 50
    assert all(path.startswith(str(payload)) for path in ours.values())
    assert described == archive.describe()
    known = set(ours.values())
    return Counter(path for path in compiled if path in known), ours


def test_without_the_command_each_source_is_compiled_once(payload: Path, tmp_path: Path) -> None:
    compiled, ours = look(payload, tmp_path / "none")
    early = {"_payload", "_version"}  # which come before
    assert dict(compiled) == {path: 1 for name, path in ours.items() if name.rpartition(".")[2] not in early}


def test_with_the_command_none_is_compiled(payload: Path, command: Path) -> None:
    assert look(payload, command)[0] == {}


def _writable(command: Path) -> None:
    command.chmod(0o775)


def _of_another_user(command: Path) -> None:
    os.chown(command, 12345, 12345)


def _cut(command: Path) -> None:
    os.truncate(command, command.stat().st_size // 2)


def _no_archive(command: Path) -> None:
    command.write_text("#!/bin/sh\n", encoding="ascii")


def _field(offset: int, value: int) -> Callable[[Path], None]:
    """One byte of each entry of the archive's directory is another."""

    def spoil(command: Path) -> None:
        data = bytearray(command.read_bytes())
        at = int.from_bytes(data[data.rindex(b"PK\5\6") :][16:20], "little")
        while data[at : at + 4] == b"PK\1\2":
            data[at + offset] ^= value
            at += 46 + sum(int.from_bytes(data[at + field : at + field + 2], "little") for field in (28, 30, 32))
        command.write_bytes(data)

    return spoil


_newer, _encrypted, _patched, _deflated, _unknown = _field(6, 0x80), _field(8, 1), _field(8, 0x20), _field(10, 8), _field(10, 0x33)


def _directory(command: Path) -> None:
    command.unlink()
    command.mkdir()


def _link(command: Path) -> None:
    """Who may write to the directory (on Debian, the group staff) could have it lead to bytes of his that root keeps, as in a store."""
    command.rename(command.with_suffix(".real"))
    command.symlink_to(command.with_suffix(".real"))


def _pipe(command: Path) -> None:
    command.unlink()
    os.mkfifo(command)


@pytest.mark.parametrize("spoil", [_writable, _of_another_user, _cut, _no_archive, _directory, _link, _pipe, _newer, _encrypted, _patched, _deflated, _unknown])
def test_a_command_that_cannot_be_trusted_is_left_alone(payload: Path, command: Path, spoil: Callable[[Path], None]) -> None:
    spoil(command)
    compiled, ours = look(payload, command)
    assert len(compiled) == len(ours) - 2


def _changed(entry: zipfile.ZipInfo, data: bytes) -> bytes:
    """Of another version: its source was different."""
    return data[:8] + bytes([data[8] ^ 1]) + data[9:]


def _of_another_python(entry: zipfile.ZipInfo, data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def _torn(entry: zipfile.ZipInfo, data: bytes) -> bytes:
    return data[: len(data) // 2]


def _missing(entry: zipfile.ZipInfo, data: bytes) -> bytes:
    entry.filename += ".old"
    return data


@pytest.mark.parametrize("change", [_changed, _of_another_python, _torn, _missing])
def test_bytecode_that_does_not_fit_is_compiled(payload: Path, command: Path, change: Callable[[zipfile.ZipInfo, bytes], bytes]) -> None:
    with zipfile.ZipFile(command) as old, zipfile.ZipFile(command.with_suffix(".new"), "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry, change(entry, data) if entry.filename == "volt_backup/_backup/create.pyc" else data)
    os.replace(command.with_suffix(".new"), command)
    compiled, ours = look(payload, command)
    assert set(compiled) == {path for name, path in ours.items() if name.endswith("._backup.create")}


def test_a_flipped_bit_in_the_command_is_noticed(payload: Path, command: Path) -> None:
    with zipfile.ZipFile(command) as made:
        entry = made.getinfo("volt_backup/_backup/create.pyc")
    data = bytearray(command.read_bytes())
    data[entry.header_offset + 30 + len(entry.filename) + entry.file_size // 2] ^= 1
    command.write_bytes(data)
    compiled, ours = look(payload, command)
    assert set(compiled) == {path for name, path in ours.items() if name.endswith("._backup.create")}
