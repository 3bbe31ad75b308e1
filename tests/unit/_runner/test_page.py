# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manual page: troff has nothing to complain of, and every command, option, example and exit status is in it as `--help` has it."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli, completion, manual, page, upkeep

from .. import kit

PYTHONS = [path for path in os.environ.get("VOLT_PYTHONS", "").split(":") if path] or [sys.executable]
ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "200", "MAN_KEEP_FORMATTING": "", "PAGER": "cat", "MANPAGER": "cat"}

_ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from volt_backup._runner import cli
for words in sys.argv[2:]:
    assert cli.main(words.split()) == 0
    print(end="\\0", flush=True)
"""


def man(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("man") is None:
        pytest.skip("needs man")
    return subprocess.run(
        ["man", *options, "-l", str(path)], env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "volt-backup.8"
    path.write_text(page.render(cli.parser()), encoding="ascii")
    return path


def test_troff_has_no_warning(made: Path) -> None:
    done = man(made, "--warnings", "-E", "UTF-8", "-Tutf8", "-Z")
    assert (done.returncode, done.stderr) == (0, "")


def test_says_all(made: Path) -> None:
    shown = man(made).stdout
    flat = " ".join(shown.split())
    (words,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, parser in words.choices.items():
        assert re.search(rf"^   {name}( |$)", shown, re.MULTILINE), name
        for action in parser._actions:
            assert all(flag in flat for flag in action.option_strings), (name, action.dest)
            said = " ".join(manual.meaning(action).split())
            assert said[1:] in flat, (name, said)
        for example in manual.EXAMPLES[name]:
            assert f"volt-backup {example}\n" in shown
    for number, meaning in manual.STATUSES.items():
        assert re.search(rf"^ +{number} +{re.escape(meaning)}$", shown, re.MULTILINE)


def test_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "--man"]) == upkeep.DONE
    assert capsys.readouterr().out == page.render(cli.parser())


def test_every_python_prints_the_same(tmp_path: Path) -> None:
    """The manual page, the scripts of shells, and what these ask for."""
    command = tmp_path / "volt-backup"
    command.write_bytes(kit.command())
    asked = ["help --man", *(f"completion {shell}" for shell in completion.SHELLS), "completion words -- restore --", "completion words -- --quiet ver"]
    # One start of each Python: those that did not write the archive compile all of it.
    ask = [str(command), *asked]
    printed = {
        python: subprocess.run([python, "-c", _ASK, *ask], stdout=subprocess.PIPE, text=True, check=True).stdout.split("\0")[:-1] for python in PYTHONS
    }
    assert {len(said) for said in printed.values()} == {len(asked)}
    assert all(said == printed[PYTHONS[0]] for said in printed.values())
    assert printed[PYTHONS[0]][0] == page.render(cli.parser()) and printed[PYTHONS[0]][-1].split("\t")[0] == "verify"


def test_hides_nothing_from_troff() -> None:
    assert page._text(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert page._text("'a' -b \\c ~d `e`") == "\\(aqa\\(aq \\-b \\ec \\(tid \\(gae\\(ga"
