# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine advises, as its readers write it: on the command line, in a task, in the variables of a playbook."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils import _module
from ansible_collections.volt.backup.plugins.module_utils._base import translate
from ansible_collections.volt.backup.plugins.module_utils._runner import cli, screen

COLLECTION = Path(__file__).parents[3]
RESTORE = ["restore", "x"]
#: A command, what the engine says, and what it says there.
SAID = [
    (RESTORE, "It differs; use `force: true` to overwrite it.", "It differs; use --force to overwrite it."),
    (RESTORE, "Say `strategy: in_place`.", "Say --strategy in_place."),
    (RESTORE, "`delete` only applies to in_place.", "--delete only applies to in_place."),
    (["list"], "Name `store` and `backup_dir`.", "Name --store and --backup-dir."),
    (["list"], "Declare it again with `force: true`.", "Declare it again with `force: true`."),
    (["gc"], "Say `repack: false`, not `repack: true`.", "Say --no-repack, not `repack: true`."),
    (RESTORE, "Another run holds /a/lock_timeout; raise `lock_timeout`.", "Another run holds /a/lock_timeout; raise --lock-timeout."),
    (["list"], "Delete backups and run volt_cas_gc with grace: 0s, then run again.", "Delete backups and run volt-backup gc --grace 0s, then run again."),
    (["create", "w", "--source", "/"], "Full: run volt_cas_gc with grace: 0s.", "Full: run volt-backup gc --grace 0s."),
    (["list"], "Run volt_cas_verify with repair: true first.", "Run volt-backup verify --repair first."),
    (["list"], "If so, run volt_backup with state: accepted and id: app-1.", "If so, run volt-backup accept app-1."),
    (["list"], "Run volt_backup with state: accepted and workload: app.", "Run volt-backup accept app."),
    (["list"], "To start again, run volt_backup with new_store: true.", "To start again, run volt-backup init --replace."),
]
#: What paths, workloads and the words of others may hold; no reader's language changes it.
DATA = [
    "Workload store: the backup is suspect.", "Source /srv/my max_age is empty.", "Source /srv/force is empty.", "Source force: true is empty.",
    "Target /a/`force`/b differs.", "Target /srv/strategy: in_place differs.", "It said: raise lock_timeout, say delete: true.", "Store /srv/force: true is.",
    "Update it with volt_runner.", "It said: run volt_backup with state: present.", "It said: volt_copy with force: true.", "`date` and `uname -r` failed.",
]  # fmt: skip


@pytest.mark.parametrize(("words", "engine", "command"), SAID)
def test_on_the_command_line(words: list[str], engine: str, command: str) -> None:
    assert screen.speak(engine, cli.parser().parse_args(words)) == command


@pytest.mark.parametrize("said", DATA)
def test_data_is_no_option(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (RESTORE, ["list"], ["create", "w", "--source", "/"]):
        assert screen.speak(said, cli.parser().parse_args(words)) == said
    options = ("force", "store", "max_age", "strategy", "lock_timeout", "delete")
    assert _module._translated(said, options) == said
    monkeypatch.setenv("VOLT_VARIABLES", " ".join(f"{name}=volt_{name}" for name in options))
    assert _module._translated(said, options) == said


def test_in_a_task_and_in_a_playbook(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's own options lose their marks; what another module has keeps them."""
    for _words, engine, _command in SAID:
        assert _module._translated(engine) == engine
    assert _module._translated("Say `force: true` or `delete: true`; raise `lock_timeout`.", ["force", "lock_timeout"]) == (
        "Say force: true or `delete: true`; raise lock_timeout."
    )
    monkeypatch.setenv("VOLT_VARIABLES", "force=volt_force lock_timeout=volt_predeploy_lock_timeout")
    said = _module._translated("Say `force: true` or `delete: true`; raise `lock_timeout`.", ["delete"])
    assert said == "Say volt_force: true or delete: true; raise volt_predeploy_lock_timeout."


def engine_texts() -> Iterator[tuple[Path, str]]:
    """Texts in the engine and the modules that are not documentation, with {} for what is filled in."""
    for path in sorted([*COLLECTION.glob("plugins/module_utils/**/*.py"), *COLLECTION.glob("plugins/modules/*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, (ast.Expr, ast.Assign, ast.AnnAssign))}
        passed |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        passed |= {id(word.value) for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords if word.arg in ("help", "description")}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield path, "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed and " " in node.value:
                yield path, node.value


#: Names of options that are no advice: a fact in the words that are kept with a backup, and names in texts of other programs.
NO_ADVICE = {"(max_shrink: {})", "(max_churn: {})", "\"store_id\": \"{}\""}


def test_options_in_messages_are_marked() -> None:
    names = {name for module in COLLECTION.glob("plugins/modules/*.py") for name in options_of(module)}
    assert {"force", "max_shrink", "on_calendar", "allow_in_use"} <= names
    either = "|".join(sorted(names))
    bare = re.compile(rf"(?<![\w/.`-])(?:(?:{either}): (?:true|false)|(?:{'|'.join(name for name in names if '_' in name)}))(?![\w`/-])")
    wrong, marked = [], 0
    for path, text in engine_texts():
        for part in NO_ADVICE:
            text = text.replace(part, "")
        text = re.sub(r"volt_\w+ with \w+: \S+( and \w+: \S+)?", "", text)
        marks = re.findall(r"`([a-z_]+)(?:: [^`]*)?`", text)
        assert set(marks) <= names, (path.name, text)
        marked += len(marks)
        if bare.search(text):
            wrong.append((path.name, text))
    assert wrong == [] and marked > 40


def options_of(module: Path) -> set[str]:
    """Names of a module's options, suboptions among them."""
    found: set[str] = set(_module.SHARED) | set(_module.DIFF_LIMIT) | set(_module.CREDENTIALS["options"])
    found |= {name for system in _module.DUMPS["options"].values() for name in system["options"]}
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
            found |= {str(word.arg) for word in node.keywords} - {"type", "default", "elements", "choices", "options", "required", "no_log", "aliases"}
    return found


def test_every_reader_is_known() -> None:
    """Playbooks and roles that call a module say how its options are set; what they say is there."""
    documented = {
        name
        for path in (*COLLECTION.glob("playbooks/*.yml"), *COLLECTION.glob("roles/*/meta/argument_specs.yml"))
        for name in re.findall(r"^(?: {6}|#   )(volt_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    said = 0
    for path in (*COLLECTION.glob("playbooks/*.yml"), *COLLECTION.glob("roles/*/tasks/*.yml")):
        for option, variable in re.findall(r"(?<=[ \n])([a-z_]+)=(volt_\w+)", path.read_text(encoding="utf-8")):
            said += 1
            assert variable in documented and variable.endswith(option), (path, variable)
    assert said > 20


def test_no_message_speaks_one_readers_language_to_all() -> None:
    """Flags of the command in the engine: only of words that no module has."""
    for path in sorted((COLLECTION / "plugins/module_utils").glob("_*/*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
        for node in ast.walk(module) if path.parent.name != "_runner" else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                flags = re.findall(r"(?<=[ (])--[a-z-]+", node.value)
                others = "volt-backup adopt|volt-backup notify|^runuser |^mongorestore |omit --replace|ExecStart|Exec"
                assert not flags or re.search(others, node.value), (path, node.value)


def test_text_without_advice_is_itself() -> None:
    assert translate("", lambda name, value: "x") == ""
    assert translate("Nothing: at `all`.", lambda _name, _value: None) == "Nothing: at `all`."
