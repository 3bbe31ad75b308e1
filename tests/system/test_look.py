# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `ls` and `cat` tell of a backup, and what they refuse to tell."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli, upkeep
from ansible_collections.volt.backup.tests.unit.kit import command, noise

ODD = b"a\xff\n\\b\x1b[31m"  # what must not reach a terminal as it is
SHOWN = "a\\xff\\x0a\\\\b\\x1b[31m"


class Run:
    """The command on the store of a bench: (status, bytes on stdout, text on stderr)."""

    def __init__(self, bench: Any, capfdbinary: Any) -> None:
        self._where = ["--store", str(bench.store), "--backup-dir", str(bench.backups)]
        self._capture = capfdbinary

    def __call__(self, *words: str) -> tuple[int, bytes, str]:
        status = cli.main([*words, *self._where])
        captured = self._capture.readouterr()
        return status, captured.out, captured.err.decode()

    def json(self, *words: str, status: int = upkeep.DONE) -> dict[str, Any]:
        found = self(*words, "--json")
        assert found[0] == status, found
        return dict(json.loads(found[1]))


@pytest.fixture
def run(bench: Any, capfdbinary: Any) -> Run:
    return Run(bench, capfdbinary)


def furnish(bench: Any) -> str:
    bench.files(conf__app=b"port = 1\n", empty=b"", deep__er__x=b"x")
    (bench.source / os.fsdecode(ODD)).write_bytes(b"odd")
    (bench.source / "link").symlink_to("conf/app")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(bench.source / "socket"))
    return str(bench.create(workload_mode="container").backup["id"])


def test_ls(bench: Any, run: Run) -> None:
    backup = furnish(bench)
    names = [SHOWN.replace("\\x0a", "\n").replace("\\x1b", "\x1b"), "conf", "deep", "empty", "link", "socket"]
    top = run.json("ls", backup)
    assert [entry["path"] for entry in top["entries"]] == names and (top["backup_id"], top["path"], top["count"], top["changed"]) == (backup, ".", 6, False)
    status, text, _error = run("ls", backup)
    assert status == upkeep.DONE and b"\x1b" not in text and len(text.splitlines()) == 7 and f"  {SHOWN}\n".encode() in text
    assert text.endswith(b"socket\n") and b"link -> conf/app\n" in text
    for path in ("conf", "./conf/", str(bench.source / "conf"), f"{bench.source}/conf/"):
        assert [entry["path"] for entry in run.json("ls", "work", path)["entries"]] == ["conf/app"], path
    assert [entry["path"] for entry in run.json("ls", "latest", "deep", "--recursive")["entries"]] == ["deep/er", "deep/er/x"]
    assert run.json("ls", backup[:-4], str(bench.source))["entries"] == top["entries"], "the source itself; the start of an id"
    assert [entry["path"] for entry in run.json("ls", backup, "link")["entries"]] == ["link"], "no directory: itself"
    assert run.json("ls", backup, SHOWN)["count"] == 1


def test_unknown_paths_and_ids(bench: Any, run: Run) -> None:
    backup = furnish(bench)
    for words in (["ls", backup, "none"], ["cat", backup, "conf/none"], ["cat", backup, "conf/app/below"]):
        assert run(*words) == (upkeep.UNKNOWN, b"", f"volt-backup: Backup {backup} has no path {words[2]}; list its contents.\n")
    assert run("ls", "nothing")[0] == run("cat", "nothing", "x")[0] == upkeep.UNKNOWN
    refused = {
        "conf": "conf is a directory; give", "link": "link is a symbolic link to conf/app; give", "socket": "socket is a socket, which has no",
        str(bench.source): "The source is a directory; give", "../x": "contains `..`",
    }  # fmt: skip
    for path, said in refused.items():
        status, out, error = run("cat", backup, path)
        assert (status, out) == (upkeep.USAGE, b"") and said in error


def test_cat_gives_bytes_as_they_are(bench: Any, run: Run) -> None:
    furnish(bench)
    contents = {"packed": bytes(range(256)) * 9, "object": noise(200_000), "chunked": noise((8 << 20) + 12345)}
    for name, content in contents.items():
        (bench.source / name).write_bytes(content)
    sparse = bench.source / "sparse"
    with open(sparse, "wb") as file:
        file.seek(9 << 20)
        file.write(noise(100))
        file.truncate(11 << 20)
    bench.create()
    for name, content in {**contents, "sparse": sparse.read_bytes(), "empty": b""}.items():
        assert run("cat", "work", name) == (upkeep.DONE, content, ""), name
    assert run("cat", "work", SHOWN)[1] == run("cat", "work", os.fsdecode(ODD).replace("\\", "\\\\"))[1] == b"odd"
    assert run("cat", "work", "object", "--quiet") == (upkeep.DONE, b"", "")
    found = run.json("cat", "work", f"{bench.source}/conf/app")
    assert base64.b64decode(found["content"]) == b"port = 1\n" and found["path"] == "conf/app" and found["encoding"] == "base64"
    (bench.source / "chunked").write_bytes(noise(17 << 20))
    bench.create()
    assert run.json("cat", "work", "chunked", status=upkeep.USAGE)["code"] == "usage"


def test_cat_ends_before_wrong_bytes(bench: Any, run: Run) -> None:
    content = noise(9 << 20)
    bench.files(big=content, small=b"packed\n")
    backup = bench.create(compression="none").backup["id"]
    damaged = next((bench.store / "objects").glob(f"*/{hashlib.sha256(content[3 << 20 : 4 << 20]).hexdigest()}"))
    with open(damaged, "r+b") as file:
        file.write(b"\0")
    status, out, error = run("cat", backup, "big")
    assert status == upkeep.FAILED and out == content[: 3 << 20]
    assert error.startswith(f"volt-backup: big in backup {backup} is damaged after {3 << 20} of {9 << 20} bytes: Object ") and error.count("\n") == 1
    pack = next(path for path in (bench.store / "packs").glob("*/*") if b"packed\n" in path.read_bytes())
    pack.write_bytes(pack.read_bytes().replace(b"packed\n", b"pocked\n"))
    status, out, error = run("cat", backup, "small")
    assert (status, out) == (upkeep.FAILED, b"") and f"small in backup {backup} is damaged after 0 of 7 bytes" in error


def test_one_who_has_read_enough(bench: Any, tmp_path: Path) -> None:
    """A closed pipe is no failure, a full disk is one."""
    bench.files(big=noise(3 << 20))
    bench.create()
    (tmp_path / "volt-backup").write_bytes(command())
    words = [sys.executable, str(tmp_path / "volt-backup"), "cat", "work", "big", "--store", str(bench.store), "--backup-dir", str(bench.backups)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert (process.wait(), process.stderr.read()) == (upkeep.DONE, b"")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == upkeep.FAILED and done.stderr.startswith(b"volt-backup: The output cannot be written: no space left")
