# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files: opened with care, read within a bound, there whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import files

from ..kit import Child, descriptors


def read(pipe: Any, path: str, most: int) -> None:
    try:
        pipe.send(files.read_file(path, most))
    except files.Unsuitable:
        pipe.send("unsuitable")
    except OSError as error:
        pipe.send(type(error).__name__)


@pytest.mark.parametrize(
    ("plant", "expected"),
    [("file", b"12345"), ("empty", b""), ("long", "unsuitable"), ("nothing", "FileNotFoundError"), ("directory", "unsuitable"), ("fifo", "unsuitable"),
     ("symlink", "unsuitable")],
)  # fmt: skip
def test_read_file(tmp_path: Path, plant: str, expected: object) -> None:
    """Whatever has the name, reading neither waits nor follows."""
    path = tmp_path / "file"
    if plant == "directory":
        path.mkdir()
    elif plant == "fifo":
        os.mkfifo(path)  # it has no writer, and must not be waited for
    elif plant == "symlink":
        (tmp_path / "there").write_bytes(b"12345")
        path.symlink_to("there")
    elif plant != "nothing":
        path.write_bytes({"file": b"12345", "empty": b"", "long": b"123456"}[plant])
    with Child(read, str(path), 5) as child:
        assert child.hear(5) == expected


def test_what_cannot_be_read_costs_no_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    for _time in range(3):
        with pytest.raises(files.Unsuitable):
            files.read_file(str(tmp_path), 5)
    assert descriptors() == before


def test_a_file_of_proc_has_no_size(tmp_path: Path) -> None:
    assert files.read_file("/proc/self/comm", 100)[-1:] == b"\n"


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, count: real(fd, min(count, 3)))
    assert files.read_file(str(tmp_path / "file"), 10) == b"0123456789"


def test_a_fixed_name_beside_is_taken_over(tmp_path: Path) -> None:
    """What a killed writer left there goes with the next write."""
    beside = tmp_path / "file.new"
    beside.write_bytes(b"half")
    files.write_file(str(tmp_path / "file"), b"whole", beside=str(beside))
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"whole"


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_signal_between_two_descriptors_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """It comes right after one was closed on the way down a path: that is not closed again."""
    (tmp_path / "a/b/c").mkdir(parents=True)
    top, closed, real = os.open(tmp_path, os.O_RDONLY), [], os.close

    def close(fd: int) -> None:
        real(fd)
        closed.append(fd)
        if len(closed) == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "close", close)
    with pytest.raises(KeyboardInterrupt):
        files.open_real(b"a/b/c", top)
    real(top)


def test_write_file_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"old", b"new and longer", b""):
        files.write_file(str(path), data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["file"] and stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_what_another_user_put_in_the_way_is_not_written_to(tmp_path: Path, kind: str) -> None:
    """In a directory that others can write: the name beside is theirs to guess."""
    path, theirs = tmp_path / "file", tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    beside = tmp_path / f".file.{os.getpid()}.tmp"
    {"file": lambda: os.link(theirs, beside), "link": lambda: beside.symlink_to(theirs), "pipe": lambda: os.mkfifo(beside)}[kind]()
    files.write_file(str(path), b"ours", mode=0o644)
    assert path.read_bytes() == b"ours" and theirs.read_bytes() == b"theirs"
    assert path.stat().st_mode & 0o777 == 0o644 and sorted(os.listdir(tmp_path)) == ["file", "theirs"]


def test_write_file_exclusive(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_file(str(path), b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        files.write_file(str(path), b"second", exclusive=True)
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["file"]


def test_long_names(tmp_path: Path) -> None:
    """The file beside must not be longer than a name may be."""
    path = tmp_path / ("n" * 255)
    files.write_file(str(path), b"x")
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_write_file_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space"):
            files.write_file(str(path), b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_write_file_syncs_before_and_after_its_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def watch(name: str) -> None:
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *arguments: (calls.append(name), real(*arguments))[1])

    for name in ("write", "fsync", "rename"):
        watch(name)
    files.write_file(str(tmp_path / "file"), b"x")
    assert calls == ["write", "fsync", "rename", "fsync"]


def test_short_writes_are_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = bytearray()

    def some(_fd: int, data: Any) -> int:
        taken.extend(data[:3])
        return len(data[:3])

    monkeypatch.setattr(os, "write", some)
    files.write_all(1, b"0123456789")
    assert bytes(taken) == b"0123456789"


def test_what_cannot_be_looked_at_is_not_gone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    assert [files.is_gone(str(tmp_path / name)) for name in ("file", "dangling", "nothing", "nothing/f", "file/f", "loop/f")] == [
        False, False, True, True, True, False,
    ]  # fmt: skip
