# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command's last lines of defence: texts that nobody could show, and errors that nobody foresaw."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli, upkeep
from ansible_collections.volt.backup.plugins.module_utils._schedule import job

ODD = "\udcff"  # what argv has for the byte ff


@pytest.mark.parametrize(
    ("words", "named"),
    [(["create", "w", "--source", ".", "--tag", "good", "--tag", ODD], "tag"), (["create", "w", "--source", ".", "--notes", ODD], "notes"),
     (["create", "w", "--source", ".", "--mode", ODD], "mode"), (["create", ODD, "--source", "."], "workload"), (["list", "--host", ODD], "host"),
     (["list", "--tag", ODD], "tag"), (["list", "--since", ODD], "since"), (["show", ODD], "id"), (["diff", "a", ODD], "id")],
)  # fmt: skip
def test_texts_are_utf8(words: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any) -> None:
    monkeypatch.chdir(tmp_path)
    status = cli.main([*words, "--store", str(tmp_path / "store"), "--backup-dir", str(tmp_path / "backups")])
    captured = capfdbinary.readouterr()
    assert status == upkeep.USAGE and captured.out == b""
    assert captured.err.decode() == f"volt-backup: The {named} \\xff is not valid UTF-8; write it in UTF-8.\n"
    assert list(tmp_path.iterdir()) == []


def test_paths_are_bytes(tmp_path: Path) -> None:
    for name in ("source", "source/a"):
        (tmp_path / (name + ODD)).mkdir(parents=True)
    words = ["create", "w", "--source", f"{tmp_path}/source{ODD}", "--store", f"{tmp_path}/store{ODD}", "--backup-dir", f"{tmp_path}/b{ODD}",
             "--exclude", "ü?", "--tag", "käthe", "--quiet"]  # fmt: skip
    assert cli.main(words) == upkeep.DONE


@pytest.mark.parametrize(
    ("words", "as_json"),
    [(["list", "--js", "--limit", "x"], True), (["list", "--j", "--limit", "x"], True), (["--jso", "list", "--limit", "x"], True),
     (["list", "--limit", "x"], False), (["list", "--", "--json", "more"], False)],
)  # fmt: skip
def test_wrong_usage_is_json_where_that_is_asked_for(words: list[str], as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Also by an abbreviation, which is an option as the whole name is."""
    assert cli.main(words) == upkeep.USAGE
    captured = capsys.readouterr()
    assert captured.err.startswith("volt-backup: ") and captured.err.count("\n") == 1
    assert (json.loads(captured.out)["code"] == "usage") if as_json else captured.out == ""


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("error", "said"),
    [(PermissionError(13, "Permission denied", "/srv/a\n" + ODD), " at /srv/a\\x0a\\xff: permission denied"),
     (OSError(5, "Input/output error"), ": input/output error"), (OSError(9, "Bad", 7), ": bad file descriptor"), (OSError("odd"), ": odd")],
)  # fmt: skip
def test_unexpected_errors(
    error: OSError, said: str, as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_places: object) -> None:
        raise error

    monkeypatch.setattr(cli, "Manager", fail)
    assert cli.main(["list"] + ["--json"] * as_json) == upkeep.FAILED
    captured = capsys.readouterr()
    assert captured.err == f"volt-backup: An unexpected error occurred{said}; fix that, then run again.\n"
    assert not as_json or json.loads(captured.out)["code"] == "error"


def test_a_signal_while_words_are_read_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """The terminal is asked for its width then."""

    def width(fallback: Any = None) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return os.terminal_size((80, 24))

    monkeypatch.setattr(shutil, "get_terminal_size", width)
    assert cli.main(["--help"]) == upkeep.INTERRUPTED
    assert capfd.readouterr().err == "volt-backup: Interrupted by SIGINT; no partial result was left.\n"


def test_nothing_is_found_for_three_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """No store, an unknown workload or id, an empty list: each says which store was read."""
    where = ["--store", str(tmp_path / "store"), "--backup-dir", str(tmp_path / "backups")]
    named = f"store {tmp_path}/store (records in {tmp_path}/backups)"

    def call(*words: str) -> tuple[int, str]:
        status = cli.main([*words, *where])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    reading = [["list"], ["list", "app"], ["show", "x"], ["diff", "x", "y"], ["restore", "x"], ["delete", "x"], ["accept", "app"], ["protect", "x"],
               ["unprotect", "x"], ["prune", "app", "--keep", "1"], ["gc"], ["verify"], ["drill"], ["adopt"], ["import-volt"],
               ["ls", "x"], ["cat", "x", "y"], ["export", "x", "--output", "y"], ["find", "x"], ["history", "x"]]  # fmt: skip
    for words in reading:
        status, said = call(*words)
        assert status == upkeep.NO_STORE == 4 and f"There is no {named}" in said, words
    assert list(tmp_path.iterdir()) == []
    assert call("init")[0] == upkeep.DONE
    assert call("list") == (upkeep.DONE, f"No backups in {named}.\n")
    for words in reading[1:10] + [["drill", "app"]]:
        status, said = call(*words)
        assert status == upkeep.UNKNOWN == 5 and named in said, words
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/app.json").touch()
    monkeypatch.setattr(job, "path", lambda workload: str(tmp_path / "jobs" / f"{workload}.json"))
    assert call("list", "app") == (upkeep.DONE, f"No backups in {named}.\n"), "it has a schedule"
    assert call("list", "--json")[0] == upkeep.DONE
    (tmp_path / "source").mkdir()
    assert call("create", "db", "--source", str(tmp_path / "source"), "--quiet")[0] == upkeep.DONE
    assert call("list", "db", "--tag", "none") == (upkeep.DONE, f"No backups in {named}.\n")
    assert call("list", "dc")[0] == upkeep.UNKNOWN


def test_contents_are_listed_to_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--store", str(tmp_path / "store"), "--backup-dir", str(tmp_path / "backups")]
    (tmp_path / "source").mkdir()
    for number in range(1100):
        (tmp_path / "source" / f"file-{number}").touch()
    assert cli.main(["create", "app", "--source", str(tmp_path / "source"), "--json", *where]) == upkeep.DONE
    backup = json.loads(capsys.readouterr().out)["backup"]["id"]
    assert cli.main(["show", backup, "--contents", *where]) == upkeep.DONE
    assert capsys.readouterr().out.count("file-") == 1100
    assert cli.main(["show", backup, "--contents", "--diff-limit", "7", *where]) == upkeep.DONE
    assert "... and 1094 more (--diff-limit)" in capsys.readouterr().out
