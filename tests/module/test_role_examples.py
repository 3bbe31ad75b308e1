# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of roles: the same in the documentation (meta/argument_specs.yml) and in README.md, with variables that the roles take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.volt.backup.plugins.modules import volt_backup_schedule
from ansible_collections.volt.backup.tests.rigs import warm

TOP = Path(__file__).parents[2]
ROLES = sorted(path.name for path in (TOP / "roles").iterdir())
#: What of an option is for readers.
_WORDS = ("description", "version_added")


def entry_points(role: str) -> dict[str, Any]:
    return yaml.safe_load((TOP / f"roles/{role}/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]


def arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Options as a module has them."""
    found = {}
    for name, option in options.items():
        found[name] = {key: value for key, value in option.items() if key not in _WORDS}
        if "options" in option:
            found[name]["options"] = arguments(option["options"])
    return found


@pytest.mark.parametrize("role", ROLES)
def test_each_entry_point_has_the_examples_of_the_readme(role: str) -> None:
    readme = (TOP / f"roles/{role}/README.md").read_text(encoding="utf-8")
    given = {specification["examples"].strip("\n") for specification in entry_points(role).values()}
    assert given == {block.strip("\n") for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)}


@pytest.mark.parametrize("role", ROLES)
def test_an_example_has_variables_that_its_roles_take(role: str) -> None:
    seen = 0
    for play in yaml.safe_load(entry_points(role)["main"]["examples"]):
        for used in play["roles"]:
            name = used.pop("role").rpartition(".")[2]
            given = ArgumentSpecValidator(arguments(entry_points(name)["main"]["options"])).validate(used)
            assert given.error_messages == [], (name, used)
            seen += name == role
    assert seen


def test_the_example_of_schedules_has_options_that_the_module_takes() -> None:
    (play,) = yaml.safe_load(entry_points("volt_schedule")["main"]["examples"])
    variables = play["roles"][-1]
    for workload in variables["volt_schedule_workloads"]:
        given = ArgumentSpecValidator(volt_backup_schedule.SCHEDULE).validate(
            {**variables["volt_schedule_defaults"], **workload}
        )
        assert given.error_messages == []


@pytest.mark.parametrize("role", ROLES)
def test_an_example_is_a_playbook(role: str, tmp_path: Path, controller: warm.Ansible) -> None:
    for number, specification in enumerate(entry_points(role).values()):
        plays = yaml.safe_load(specification["examples"])
        if "hosts" not in plays[0]:
            plays = [{"hosts": "all", "tasks": plays}]
        (tmp_path / f"{number}.yml").write_text(yaml.safe_dump(plays))
    playbooks = sorted(str(path) for path in tmp_path.glob("*.yml"))
    done = controller.run("ansible-playbook", "-i", "localhost,", "--syntax-check", *playbooks)
    assert done.returncode == 0, done.stdout
