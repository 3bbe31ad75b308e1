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


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("error", "said"),
    [(PermissionError(13, "Permission denied", "/srv/a\n" + ODD), " at /srv/a\\x0a\\xff: permission denied"),
     (OSError(5, "Input/output error"), ": input/output error"), (OSError(9, "Bad", 7), ": bad file descriptor"), (OSError("odd"), ": odd")],
)  # fmt: skip
def test_errors_that_nobody_foresaw(
    error: OSError, said: str, as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_places: object) -> None:
        raise error

    monkeypatch.setattr(cli, "Manager", fail)
    assert cli.main(["list"] + ["--json"] * as_json) == upkeep.FAILED
    captured = capsys.readouterr()
    assert captured.err == f"volt-backup: Something unexpected went wrong{said}; mend that, then run again.\n"
    assert not as_json or json.loads(captured.out)["code"] == "error"


def test_a_signal_while_words_are_read_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """The terminal is asked for its width then."""

    def width(fallback: Any = None) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return os.terminal_size((80, 24))

    monkeypatch.setattr(shutil, "get_terminal_size", width)
    assert cli.main(["--help"]) == upkeep.FAILED
    assert capfd.readouterr().err == "volt-backup: Stopped by SIGINT; nothing half-done was left behind.\n"
