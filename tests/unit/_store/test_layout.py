# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a store begins, and what is taken for one."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import files
from ansible_collections.volt.backup.plugins.module_utils._base.errors import StoreError
from ansible_collections.volt.backup.plugins.module_utils._store import layout

EVERYTHING = {*layout.DIRECTORIES, "format.json", "CACHEDIR.TAG"}


def test_make(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "store"
    layout.make(str(path))
    assert layout.look(str(path))
    assert set(os.listdir(path)) == EVERYTHING
    assert all(stat.S_IMODE((path / name).stat().st_mode) & 0o077 == 0 for name in EVERYTHING)
    said = json.loads((path / "format.json").read_bytes())
    assert said["format"] == 2 and re.fullmatch("[0-9a-f]{32}", said["id"]) and said["features"] == {"required": ["claims"], "optional": []}
    assert (path / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")


def plant(path: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (path / name).mkdir(exist_ok=True)
        else:
            (path / name).write_bytes(data)


VACANT: dict[str, dict[str, bytes]] = {
    "nothing": {},
    "a fresh file system": {"lost+found/": b""},
    "making cut short": {"objects/": b"", "packs/": b"", "refs/": b"", "CACHEDIR.TAG": b"x", "lock": b"", "gate": b""},
    "empty shards": {"objects/ab/": b"", "packs/cd/": b""},
}


@pytest.mark.parametrize("name", VACANT)
def test_vacant_is_no_store_yet_and_can_become_one(tmp_path: Path, name: str) -> None:
    plant(tmp_path, VACANT[name])
    assert not layout.look(str(tmp_path))
    layout.make(str(tmp_path))
    assert layout.look(str(tmp_path))


def test_absent(tmp_path: Path) -> None:
    assert not layout.look(str(tmp_path / "absent"))


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "other things": ({"precious": b""}, "it has other files"),
    "an object without format": ({"objects/ab/cd": b"x"}, "no format.json"),
    "a pack without format": ({"packs/ab/cd": b"x"}, "no format.json"),
    "a manifest without format": ({"refs/x.json": b"x"}, "no format.json"),
    "format as text": ({"format.json": b'{"format": "1"}'}, "was not written by volt.backup"),
    "format 0": ({"format.json": b'{"format": 0}'}, "was not written by volt.backup"),
    "format true": ({"format.json": b'{"format": true}'}, "was not written by volt.backup"),
    "format none": ({"format.json": b'{"format": null}'}, "was not written by volt.backup"),
    "an id that is none": ({"format.json": b'{"format": 1, "id": 5}'}, "was not written by volt.backup"),
    "features that are none": ({"format.json": b'{"format": 1, "features": []}'}, "was not written by volt.backup"),
    "an id of other characters": ({"format.json": b'{"format": 1, "id": "\\ud800"}'}, "was not written by volt.backup"),
    "a feature that steers a terminal": ({"format.json": b'{"format": 1, "features": {"required": ["\\u001b[31m"]}}'}, "was not written by volt.backup"),
    "features in one text": ({"format.json": b'{"format": 1, "features": {"required": "abc"}}'}, "was not written by volt.backup"),
    "features that are no words": ({"format.json": b'{"format": 1, "features": {"required": [1]}}'}, "was not written by volt.backup"),
    "no format": ({"format.json": b"{}"}, "was not written by volt.backup"),
    "a list": ({"format.json": b"[1]"}, "was not written by volt.backup"),
    "a number": ({"format.json": b"1"}, "was not written by volt.backup"),
    "empty": ({"format.json": b""}, "was not written by volt.backup"),
    "cut short": ({"format.json": b'{"format": 1'}, "was not written by volt.backup"),
    "not text": ({"format.json": b"\xff\xfe\x00"}, "was not written by volt.backup"),
    "endless": ({"format.json": b" " * 100_000 + b'{"format": 1}'}, "was not written by volt.backup"),
    "deeply nested": ({"format.json": b"[" * 60_000}, "was not written by volt.backup"),
    "a directory": ({"format.json/": b""}, "was not written by volt.backup"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_not_changed(tmp_path: Path, name: str) -> None:
    planted, words = REFUSED[name]
    plant(tmp_path, planted)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(StoreError, match=words):
        layout.look(str(tmp_path))
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        layout.look(str(tmp_path / "file"))


@pytest.mark.parametrize("missing", [False, True])
def test_making_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool) -> None:
    path = tmp_path / "a" / "b"
    if not missing:
        path.mkdir(parents=True)

    def fail(name: str, _data: bytes, exclusive: bool = False) -> None:
        if name.endswith("format.json"):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "write_file", fail)
    with pytest.raises(StoreError, match="cannot be created"):
        layout.make(str(path))
    assert os.listdir(tmp_path) == ([] if missing else ["a"])
    assert missing or os.listdir(path) == []


def test_paths() -> None:
    digest = bytes.fromhex("ab" * 32)
    assert layout.object_path(digest, ".zst") == f"objects/ab/{'ab' * 32}.zst"
    assert layout.pack_path(digest, "") == f"packs/ab/{'ab' * 32}.pack"


@pytest.mark.parametrize("suffix", ["", ".zst", ".zz"])
def test_names_of_ours(suffix: str) -> None:
    assert layout.OBJECT_NAME.match("0f" * 32 + suffix)
    assert layout.PACK_NAME.match("0f" * 32 + ".pack" + suffix)


@pytest.mark.parametrize(
    "name", ["0f" * 31, "0F" * 32, "0f" * 32 + "\n", "0f" * 32 + ".gz", "0f" * 33, "." + "0f" * 32, "0f" * 32 + ".zst.tmp", "../" + "0f" * 32, ""]
)
def test_names_not_of_ours(name: str) -> None:
    assert not layout.OBJECT_NAME.match(name)
    assert not layout.PACK_NAME.match(name + ".pack")


def test_a_store_that_is_made_while_somebody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """format.json comes between the attempt to open it and the look at what else there is."""
    path = str(tmp_path / "cas")
    real = os.open

    def late(name: Any, *arguments: Any, **options: Any) -> int:
        if str(name).endswith("format.json"):
            monkeypatch.undo()
            layout.make(path)
            raise FileNotFoundError(2, "not yet")
        return real(name, *arguments, **options)

    monkeypatch.setattr(os, "open", late)
    assert layout.look(path)


def test_a_format_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "format.json").symlink_to(tmp_path / "nothing")
    with pytest.raises(StoreError):
        layout.look(str(tmp_path))
