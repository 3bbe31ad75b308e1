# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An exported archive against GNU tar: what that extracts is what was backed up."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._runner import upkeep
from ansible_collections.volt.backup.tests.rigs import need, oracle, torture
from ansible_collections.volt.backup.tests.unit.kit import noise

from .test_look import Run, run

__all__ = ["run"]


def extract(archive: Path, where: Path) -> None:
    need("tar", root=True)
    where.mkdir()
    subprocess.run(["tar", "--warning=no-timestamp", "--xattrs", "--xattrs-include=*", "--acls", "-xpf", archive, "-C", where], check=True)


def test_every_type_of_file(bench: Any, run: Run) -> None:
    """But sockets, which tar does not know either."""
    lacking = torture.build(bench.source, entries=20, long_paths=False)
    assert not lacking
    bench.create()
    archive = bench.top / "archive.tar"
    found = run.json("export", "work", "--tar", "--output", str(archive))
    assert found["skipped"] == ["specials/socket"] and "1 socket(s) are not in the archive" in found["warnings"][0]
    assert found["size"] == archive.stat().st_size and found["size"] % 10240 == 0
    extract(archive, bench.target)
    assert [line for line in oracle.differences(bench.source, bench.target) if "specials/socket" not in line] == []


def test_paths_and_links(bench: Any, run: Run, tmp_path: Path) -> None:
    """A hard link is a link where its first name is in the archive, else a file."""
    bench.files(a__one=b"linked", a__two=b"2", b__x=b"x", c=b"c")
    os.link(bench.source / "a/one", bench.source / "b/also")
    (bench.source / "s").symlink_to("x" * 200)
    bench.create()

    def members(*words: str) -> dict[str, tarfile.TarInfo]:
        status, data, error = run("export", "work", *words)
        assert (status, error) == (upkeep.DONE, "")
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return {member.name: member for member in archive}

    found = members()
    assert list(found) == [".", "./a", "./a/one", "./a/two", "./b", "./b/also", "./b/x", "./c", "./s"]
    assert found["./b/also"].islnk() and found["./b/also"].linkname == "./a/one" and found["./s"].linkname == "x" * 200
    assert found["./a/one"].uname == "root" and found["./a/one"].mtime == pytest.approx((bench.source / "a/one").stat().st_mtime)
    found = members("--path", "b", "--path", "b/x", "--path", f"{bench.source}/c")
    assert list(found) == ["./b", "./b/also", "./b/x", "./c"] and found["./b/also"].isreg() and found["./b/also"].size == 6
    assert run("export", "work", "--path", "none")[0] == upkeep.UNKNOWN


def test_owners_of_a_system_are_numbers(bench: Any, run: Run) -> None:
    """A restore does not translate them either."""
    bench.files(etc__passwd=b"", x=b"x")
    bench.create()
    with tarfile.open(fileobj=io.BytesIO(run("export", "work")[1])) as archive:
        assert {(member.uname, member.gname, member.uid) for member in archive} == {("", "", os.getuid())}


def test_what_is_no_place_for_an_archive(bench: Any, run: Run) -> None:
    bench.files(x=b"x")
    bench.create()
    for words in (["--json"], ["--output", "/dev/null"], ["--output", str(bench.top)]):
        status, out, _error = run("export", "work", *words)
        assert status == upkeep.USAGE and b"./x" not in out
    assert not Path("/dev/null").is_file()
    status, _out, error = run("export", "work", "--output", str(bench.top / "none/archive.tar"))
    assert status == upkeep.FAILED and "none/archive.tar cannot be written: no such file or directory; fix that" in error


def test_a_damaged_backup_gives_no_archive(bench: Any, run: Run) -> None:
    """Whether that shows before the first byte or in the middle: no wrong byte, no end of the archive, and no file under its name."""
    content = noise(300_000)
    bench.files(a=b"a" * 1000, b=content, c=b"c")
    backup = bench.create(compression="none").backup["id"]
    (damaged,) = (bench.store / "objects").glob("*/*")
    damaged.chmod(0o600)
    with open(damaged, "r+b") as file:
        file.seek(1000)
        file.write(b"wrong")
    archive = bench.top / "archive.tar"
    assert run("export", backup, "--output", str(archive))[0] == upkeep.FAILED and not archive.exists()
    status, out, error = run("export", backup, "--path", "a", "--path", "b")
    assert status == upkeep.FAILED and b"wrong" not in out and f"b in backup {backup} is damaged" in error
    with pytest.raises(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(out)) as found:
        found.extractall(bench.target, filter="tar") if hasattr(tarfile, "tar_filter") else found.extractall(bench.target)
    assert run("export", backup, "--path", "a")[0] == upkeep.DONE
    assert [name for name in os.listdir(bench.top) if name.endswith(".tmp")] == []
