# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine advises, as its readers write it: on the command line, in a task, in the variables of a playbook."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils import _module
from ansible_collections.volt.backup.plugins.module_utils._base import translate
from ansible_collections.volt.backup.plugins.module_utils._runner import cli, screen

COLLECTION = Path(__file__).parents[3]
RESTORE = ["restore", "x"]
SAID = [
    (RESTORE, "It differs; say force: true to overwrite it.", "It differs; say --force to overwrite it."),
    (RESTORE, "Say strategy: in_place.", "Say --strategy in_place."),
    (["list"], "Declare it again with force: true.", "Declare it again with force: true."),
    (["gc"], "Say repack: false, not repack: true.", "Say --no-repack, not repack: true."),
    (RESTORE, "Another run holds /a/lock_timeout; raise lock_timeout.", "Another run holds /a/lock_timeout; raise --lock-timeout."),
    (["list"], "Delete backups and run volt_cas_gc with grace: 0s, then run again.", "Delete backups and run volt-backup gc --grace 0s, then run again."),
    (["create", "w", "--source", "/"], "Full: run volt_cas_gc with grace: 0s.", "Full: run volt-backup gc --grace 0s."),
    (["list"], "Run volt_cas_verify with repair: true first.", "Run volt-backup verify --repair first."),
    (["list"], "If so, run volt_backup with state: accepted and id: app-1.", "If so, run volt-backup accept app-1."),
    (["list"], "Run volt_backup with state: accepted and workload: app.", "Run volt-backup accept app."),
    (["list"], "To begin anew, run volt_backup with new_store: true.", "To begin anew, run volt-backup init --replace."),
    (["list"], "Store /srv/force: true story is at 10:30.", "Store /srv/force: true story is at 10:30."),
    (["list"], "Write it anew with volt_runner.", "Write it anew with volt_runner."),
]


@pytest.mark.parametrize(("words", "engine", "command"), SAID)
def test_on_the_command_line(words: list[str], engine: str, command: str) -> None:
    assert screen.speak(engine, cli.parser().parse_args(words)) == command


def test_in_a_task_and_in_a_playbook(monkeypatch: pytest.MonkeyPatch) -> None:
    for _words, engine, _command in SAID:
        assert _module._translated(engine) == engine
    monkeypatch.setenv("VOLT_VARIABLES", "force=volt_force lock_timeout=volt_predeploy_lock_timeout")
    said = _module._translated("Say force: true or delete: true; raise lock_timeout.")
    assert said == "Say volt_force: true or delete: true; raise volt_predeploy_lock_timeout."


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
                assert not flags or re.search("volt-backup adopt|volt-backup notify|leave --replace out|ExecStart|Exec", node.value), (path, node.value)


def test_text_without_advice_is_itself() -> None:
    assert translate("", lambda name, value: "x") == ""
    assert translate("Nothing: at all.", lambda _name, _value: None) == "Nothing: at all."
