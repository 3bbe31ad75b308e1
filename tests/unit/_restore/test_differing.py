# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs, as a tree of names; and a restore in place that enters only what differs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._restore import assemble
from ansible_collections.volt.backup.plugins.module_utils._restore.compare import Differing
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest

from ..kit import within


def test_paths_and_what_is_above_them() -> None:
    differing = Differing()
    differing.add(b"a/b/c")
    assert all(map(differing.has, (b"", b"a", b"a/b", b"a/b/c")))
    assert not any(map(differing.has, (b"a/c", b"b", b"a/b/c/d", b"ab")))


@pytest.mark.parametrize("order", [1, -1])
def test_whole_directories(order: int) -> None:
    differing = Differing()
    for path, whole in [(b"a/b", True), (b"a/b/c/d", False), (b"a/x", False)][::order]:
        differing.add(path, whole)
    assert all(map(differing.has, (b"a/b/other", b"a/b/c/d/e", b"a/x")))
    assert not differing.has(b"a/y")


def test_nothing_differs_but_the_root_is_entered() -> None:
    assert Differing().has(b"") and not Differing().has(b"a")


def test_a_deep_tree_takes_no_square_of_its_depth() -> None:
    differing = Differing()
    with within(5, 40):
        differing.add(b"/".join([b"d" * 200] * 12_000))
        differing.add(b"/".join([b"d" * 200] * 11_999 + [b"other"]))
    assert not differing.has(b"d")


def test_all_levels_of_a_deep_tree_take_no_square_of_their_number() -> None:
    """As a walk comes by them: each directory is noted after the one above it."""
    differing, path = Differing(), b"d"
    with within(20, 60):
        for _level in range(12_000):
            differing.add(path)
            differing.add(path + b"/file")
            assert differing.has(path)
            path += b"/d"
    assert not differing.has(b"d/d/other") and differing.has(b"d/d/file")


def test_what_differs_as_a_whole_after_something_in_it() -> None:
    differing = Differing()
    differing.add(b"a/b/c")
    differing.add(b"a/b", True)
    assert differing.has(b"a/b/c/d") and differing.has(b"a/b/x/y")
    differing.add(b"a/b/c/d")
    assert differing.has(b"a/b/z")


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Directories that a restore in place enters."""
    paths: list[bytes] = []
    enter = assemble.Rooms.enter

    def noted(self: Any, path: bytes, fd: int) -> None:
        paths.append(path)
        enter(self, path, fd)

    monkeypatch.setattr(assemble.Rooms, "enter", noted)
    return paths


CHANGES = {
    "a file": lambda top: (top / "one/deep/f").write_bytes(b"changed"),
    "a missing file": lambda top: (top / "one/deep/f").unlink(),
    "an attribute of a directory": lambda top: (top / "one/deep").chmod(0o700),
    "a file in the place of a directory": lambda top: (_empty(top / "one/deep"), (top / "one/deep").write_bytes(b"")),
    "one that is too many": lambda top: (top / "one/deep/more").write_bytes(b""),
    "a directory that is too many": lambda top: (top / "one/deep/more").mkdir(),
    "a lost hard link": lambda top: ((top / "one/deep/link").unlink(), (top / "one/deep/link").write_bytes(b"linked")),
}


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_differs_is_entered(tmp_path: Path, entered: list[bytes], change: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for top in ("one", "two", "three"):
        (source / top / "deep").mkdir(parents=True)
        (source / top / "deep/f").write_bytes(top.encode())
        (source / top / "f").write_bytes(top.encode())
    (source / "one/deep/first").write_bytes(b"linked")
    os.link(source / "one/deep/first", source / "one/deep/link")
    manager = Manager(str(tmp_path / "cas"), str(tmp_path / "backups"))
    backup = manager.create(CreateRequest("shop", str(source))).backup["id"]
    manager.restore(backup, RestoreRequest(target=str(target)))
    CHANGES[change](target)
    progress = [0, 0]

    def seen(files: int, size: int) -> None:
        progress[0] += files
        progress[1] += size

    request = RestoreRequest(target=str(target), force=True, strategy="in_place", delete=True)
    restored, _passed = manager.restore(backup, request, progress=seen)
    assert restored.changed
    assert set(entered) - {b"one/deep"} == {b"", b"one"} and b"two/deep" not in entered
    assert progress == [8, sum(path.stat().st_size for path in source.rglob("*") if path.is_file())]
    assert 5 <= restored.restore["files_unchanged"] <= 8
    again, _passed = manager.restore(backup, request)
    assert not again.changed
