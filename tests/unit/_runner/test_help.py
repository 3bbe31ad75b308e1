# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `--help` says, and that options are understood wherever they stand."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import UsageError
from ansible_collections.volt.backup.plugins.module_utils._runner import cli, manual, upkeep

COLLECTION = Path(__file__).parents[3]


def commands() -> dict[str, argparse.ArgumentParser]:
    (words,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    return words.choices


COMMANDS = commands()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name: str) -> None:
    assert [action.option_strings or action.dest for action in COMMANDS[name]._actions if not action.help] == []


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_ends_with_examples_that_are_understood_and_with_exit_statuses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = (COMMANDS[name] if name else cli.parser()).format_help()
    assert all(len(line) <= 80 for line in text.splitlines()), [line for line in text.splitlines() if len(line) > 80]
    examples = re.findall(r"^  volt-backup (.*)$", text, re.MULTILINE)
    assert examples
    for example in examples:
        args = cli.parser().parse_args(shlex.split(example))
        assert args.word == name or not name
    assert {f"{number:5d}  {meaning}" for number, meaning in manual.STATUSES.items()} <= set(text.splitlines())


def test_every_exit_status_is_explained() -> None:
    names = ("DONE", "FAILED", "USAGE", "INCOMPLETE", "NO_STORE", "UNKNOWN", "SUSPECT", "UNSUPPORTED", "INTERRUPTED")
    assert list(manual.STATUSES) == [getattr(upkeep, name) for name in names]
    assert set(manual.EXAMPLES) == {"", *COMMANDS}
    guide = (COLLECTION / "docs/command.md").read_text(encoding="utf-8")
    assert [number for number in manual.STATUSES if f"\n| {number} | " not in guide] == []


def test_help_and_version_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    def call(*words: str) -> str:
        assert cli.main(words) == upkeep.DONE
        return capsys.readouterr().out

    assert call("help") == cli.parser().format_help() and call("help", "restore") == COMMANDS["restore"].format_help()
    assert call("version").startswith("volt-backup ") and {"version", "job_format", "features"} <= json.loads(call("--json", "version")).keys()
    assert cli.main(["help", "nothing"]) == upkeep.USAGE
    assert "Command nothing is unknown" in capsys.readouterr().err


def test_options_stand_between_operands() -> None:
    parse = cli.parser().parse_args
    for words in (["adopt", "a", "--dry-run", "b"], ["adopt", "--dry", "a", "b"], ["adopt", "a", "b", "--dry-run"], ["adopt", "--dry-run", "--", "a", "b"]):
        args = parse(words)
        assert (args.ids, args.dry_run) == (["a", "b"], True), words
    args = parse(["drill", "a", "--scratch", "x", "b", "--json", "c", "--sto", "s", "d", "--lock-timeout=7", "e"])
    assert (args.workloads, args.scratch, args.store, args.json, args.lock_timeout) == (["a", "b", "c", "d", "e"], "x", "s", True, 7)
    args = parse(["diff", "a", "--diff-limit", "5", "/b"])
    assert (args.old, args.new, args.diff_limit) == ("a", "/b", 5) and parse(["diff", "--json", "a"]).new is None
    assert parse(["completion", "words", "--", "list", "--json", "--", "-x"]).typed[:2] == ["list", "--json"]
    for words in (["drill", "a", "--scratch"], ["drill", "--scratch", "--json", "a"], ["drill", "a", "--scratch", "--", "b"], ["drill", "a", "--scr"]):
        with pytest.raises(UsageError, match="expected one argument"):
            parse(words)


@pytest.mark.parametrize(
    ("words", "said", "of"),
    [([], "the following arguments are required: COMMAND", ""), (["lst"], "invalid choice: 'lst'", ""), (["show"], "are required: ID", " show"),
     (["list", "--limit", "x"], "argument --limit: invalid int value: 'x'", " list"), (["show", "a", "b"], "unrecognized arguments: b", ""),
     (["verify", "--diff-limit", "-1"], "argument --diff-limit: -1 is negative", " verify")],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_json_where_that_is_wanted(words: list[str], said: str, of: str, capsys: pytest.CaptureFixture[str]) -> None:
    for before, after in (([], []), (["--json"], []), ([], ["--json"])):
        assert cli.main([*before, *words, *after]) == upkeep.USAGE
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1 and said.lower() in captured.err.lower() and f"see volt-backup{of} --help.\n" in captured.err
        if before or after:
            failure = json.loads(captured.out)
            assert failure["failed"] is True and failure["code"] == "usage" and said.lower() in failure["msg"].lower()
        else:
            assert captured.out == ""


@pytest.mark.parametrize("at", range(4))
def test_shared_options_work_anywhere(tmp_path: Path, at: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the command, after it, and between its arguments; the last one counts."""
    shared = [["--store", f"{tmp_path}/store"], ["--backup-dir", f"{tmp_path}/backups"], ["--json"], ["--lock-timeout", "7"]]
    before, after = [word for one in shared[:at] for word in one], [word for one in shared[at:] for word in one]
    assert cli.main(["init", "--quiet", "--store", f"{tmp_path}/store", "--backup-dir", f"{tmp_path}/backups"]) == upkeep.DONE
    assert cli.main([*before, "list", *after]) == upkeep.DONE
    assert json.loads(capsys.readouterr().out)["count"] == 0
    args = cli.parser().parse_args([*before, "list", *after, "--since", "2026-11-23"])
    assert (args.store, args.lock_timeout, args.json, args.quiet) == (f"{tmp_path}/store", 7, True, False)
    assert cli.parser().parse_args(["--store", "/a", "list", "--store", "/b"]).store == "/b"
    plain = cli.parser().parse_args(["list"])
    assert (plain.store, plain.backup_dir, plain.lock_timeout, plain.json, plain.quiet) == (None, None, 300, False, False)
    assert cli.main([*before, "show", "none", *after]) == upkeep.UNKNOWN
    captured = capsys.readouterr()
    assert json.loads(captured.out)["failed"] is True and captured.err.startswith("volt-backup: ")
