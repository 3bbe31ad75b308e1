# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host file: what it says, and which store is meant where one, both or none of the two directories are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import host
from ansible_collections.volt.backup.plugins.module_utils._base.errors import StoreError, Unsupported

ID = "0d8f3a7c5b6e49d2a1f0c3b2e4d5f697"
GOOD: dict[str, Any] = {"format": 1, "store": "/srv/cas", "backup_dir": "/srv/backups", "store_id": ID}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host, "PATH", str(tmp_path / "backup.json"))
    return tmp_path / "backup.json"


def test_what_is_written_is_read(path: Path) -> None:
    assert host.read() is None
    for home in (host.Home("/srv/cas", "/srv/b\\xff", ID), host.Home("/srv/cas", "/srv/backups", None)):
        host.write(home)
        assert host.read() == home and path.stat().st_mode & 0o777 == 0o644
    assert json.loads(path.read_text()) == {**GOOD, "store_id": None}


DECLARED, DEFAULT = ("/srv/cas", "/srv/backups"), ("/var/lib/volt/cas", "/var/lib/volt/backups")


@pytest.mark.parametrize(
    ("given", "with_file", "without"),
    [
        ((None, None), DECLARED, DEFAULT),
        (("/x", "/y"), ("/x", "/y"), ("/x", "/y")),
        (("/srv/cas", None), DECLARED, ("/srv/cas", DEFAULT[1])),
        (("/srv/../srv/cas/", None), ("/srv/../srv/cas/", DECLARED[1]), ("/srv/../srv/cas/", DEFAULT[1])),
        ((None, "/srv/backups"), DECLARED, (DEFAULT[0], "/srv/backups")),
        (("/x", None), ("/x", DEFAULT[1]), ("/x", DEFAULT[1])),
        ((None, "/y"), (DEFAULT[0], "/y"), (DEFAULT[0], "/y")),
    ],
)
def test_which_store_is_meant(path: Path, given: tuple[str | None, str | None], with_file: tuple[str, str], without: tuple[str, str]) -> None:
    assert host.resolve(*given) == without
    path.write_text(json.dumps(GOOD))
    assert host.resolve(*given) == with_file


DAMAGED: dict[str, Any] = {
    "empty": "", "not JSON": "{", "a list": "[]", "no format": {**GOOD, "format": None}, "true": {**GOOD, "format": True}, "older": {**GOOD, "format": 0},
    "no store": {key: value for key, value in GOOD.items() if key != "store"}, "a relative path": {**GOOD, "store": "cas"},
    "a number": {**GOOD, "backup_dir": 7}, "an odd id": {**GOOD, "store_id": "../x"}, "no text": {**GOOD, "store_id": 5}, "deep": "[" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_says_what_to_do(path: Path, name: str) -> None:
    path.write_text(DAMAGED[name] if isinstance(DAMAGED[name], str) else json.dumps(DAMAGED[name]))
    for call in (host.read, lambda: host.resolve(None, None), lambda: host.resolve("/x", None)):
        with pytest.raises(StoreError, match=f"{path} is damaged.*remove it and declare"):
            call()
    assert host.resolve("/x", "/y") == ("/x", "/y")


def test_an_invalid_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(json.dumps(GOOD))
    path.symlink_to(tmp_path / "other")
    with pytest.raises(StoreError, match="is damaged"):
        host.read()


def test_a_newer_file_is_unsupported(path: Path) -> None:
    path.write_text(json.dumps({**GOOD, "format": 2, "stores": []}))
    with pytest.raises(Unsupported, match="newer version"):
        host.resolve(None, None)
