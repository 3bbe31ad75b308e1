# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks and roles pass every option of the modules that they call, but for those that are left out with a reason."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.volt.backup.plugins.module_utils._module import SHARED

from .conftest import PACKAGE

COLLECTION = Path(__file__).parents[2]
#: What a role sets for all tasks of the group volt_roles, by the variable that has it.
GIVEN = {"volt_predeploy_given", "volt_predeploy_guard.given", "volt_schedule_given"}
PLACES = {"store", "backup_dir", "lock_timeout"}
_FOUND, _DIFF = "what the host runs is found without a store", "the play shows no diff"
_ALONE = "a state is set for one backup; the command does that"
_GUARD = "the guard decides: exactly what was there, all of it, from this host"
#: By place and module: options that are not passed, and why.
LEFT_OUT: dict[tuple[str, str], dict[str, str]] = {
    ("backup.yml", "volt_backup"): {"state": _ALONE, "id": _ALONE, "diff_limit": _DIFF},
    ("backup.yml", "volt_workload_info"): dict.fromkeys(PLACES, _FOUND),
    ("recover.yml", "volt_backup_info"): {
        **dict.fromkeys(("workload", "type", "tags", "id", "since", "until", "limit", "include", "search"), "it is about all that a lost host had"),
        **dict.fromkeys((*PLACES, "lock_timeout"), "a remote is read"), "diff_limit": _DIFF,
    },
    ("recover.yml", "volt_restore"): {
        **dict.fromkeys(("type", "tags"), "the newest good backup of each workload is recovered"),
        **dict.fromkeys(("paths", "strategy", "delete", "link", "keep_previous", "verify"), "workloads come back as they were, where they were"),
        **dict.fromkeys(("attributes", "allow_in_use", "lock_timeout"), "the playbook restore has it"), "diff_limit": _DIFF,
    },
    ("restore.yml", "volt_restore"): {"diff_limit": _DIFF},
    ("status.yml", "volt_backup_info"): {
        **dict.fromkeys(("workload", "type", "tags", "id", "host", "until", "limit", "search"), "it is about all of a host"),
        **dict.fromkeys(("remote", "remote_credentials", "identity"), "it is about what the host itself has"),
        **dict.fromkeys(PLACES, "it is about the host's schedules, which say where they back up to"),
        "diff_limit": _DIFF,
    },
    ("report.yml", "volt_backup_info"): {
        **dict.fromkeys(("workload", "type", "tags", "id", "host", "until", "limit", "search"), "it is about all drills of a host"),
        **dict.fromkeys(("remote", "remote_credentials", "identity"), "a host records its own drills"),
        **dict.fromkeys((*PLACES, "lock_timeout"), "the schedules say where they back up to"), "diff_limit": _DIFF,
    },
    ("status.yml", "volt_workload_info"): dict.fromkeys(PLACES, _FOUND),
    ("verify.yml", "volt_restore_drill"): {
        **dict.fromkeys(("command", "command_timeout"), "each schedule has its own, drill_command"), "host": "each host proves its own copies",
    },
    ("volt_predeploy", "volt_backup"): {
        "state": _ALONE, "id": _ALONE, "diff_limit": _DIFF,
        "only_if_changed": "no other backup stands in for that of the guard", "max_age": "the same",
        "allow_incomplete": "nothing is deployed where a part could not be taken back", "allow_empty": "the same: back the empty source up by hand once",
        "new_store": "nothing is deployed where the store is away",
        **dict.fromkeys(("remote", "remote_credentials", "push_to_cdn"), "a deployment does not wait for a remote"),
    },
    ("volt_predeploy", "volt_restore"): {
        **dict.fromkeys(("workload", "type", "tags", "before", "target", "paths", "strategy", "link", "attributes", "numeric_owner", "keep_previous"), _GUARD),
        **dict.fromkeys(("remote", "remote_credentials", "identity", "host"), "the backup was made a moment ago, in the store of the host"),
        "salvage": "what is left out would look as if it had been taken back", "verify": "the default, but where nothing is restored", "diff_limit": _DIFF,
    },
    ("volt_remote", "volt_remote"): {
        **dict.fromkeys(("store", "backup_dir"), "they only name a host that has no name yet"), "lock_timeout": "nothing is locked",
    },
    ("volt_runner", "volt_runner"): dict.fromkeys(PLACES, "the command is no backup"),
    ("volt_schedule", "volt_workload_info"): dict.fromkeys(PLACES, _FOUND),
    ("volt_schedule", "volt_backup_schedule"): {},
}  # fmt: skip


def tasks(value: Any) -> Iterator[dict[str, Any]]:
    """All tasks in a file, those of blocks among them."""
    for one in value if isinstance(value, list) else []:
        yield one
        for name in ("tasks", "block", "rescue", "always"):
            yield from tasks(one.get(name))


def calls() -> dict[tuple[str, str], tuple[dict[str, Any], str]]:
    """By place and module: the options of all calls, with their values; and the text of the place."""
    found: dict[tuple[str, str], tuple[dict[str, Any], str]] = {}
    for path in (*COLLECTION.glob("playbooks/*.yml"), *COLLECTION.glob("roles/*/tasks/*.yml")):
        place = path.name if path.parent.name == "playbooks" else path.parents[1].name
        for task in tasks(yaml.safe_load(path.read_text(encoding="utf-8"))):
            for name, options in task.items():
                if name.startswith("volt.backup."):
                    known, text = found.get((place, name.rpartition(".")[2]), ({}, ""))
                    known.update(options)
                    given = " ".join(task.get("module_defaults", {}).values()).strip("{} ")
                    known.update(dict.fromkeys(PLACES, given) if given in GIVEN else {})
                    found[place, name.rpartition(".")[2]] = known, text + path.read_text(encoding="utf-8")
    return found


CALLS = calls()


def options_of(module: str) -> set[str]:
    return {*importlib.import_module(f"{PACKAGE}.{module}").OPTIONS, *SHARED}


@pytest.mark.parametrize("place, module", CALLS)
def test_every_option_is_passed_or_left_out_for_a_reason(place: str, module: str) -> None:
    options, text = CALLS[place, module]
    known, left_out = options_of(module), LEFT_OUT.get((place, module), {})
    several = {"workload", "source", "state", *schedule_options()} if (place, module) == ("volt_schedule", "volt_backup_schedule") else set()
    assert set(options) <= known
    assert sorted(known - set(options) - set(left_out) - several) == [], "pass it, or say in LEFT_OUT why not"
    stale = set(left_out) - known | {name for name in set(left_out) & set(options) if place not in ("restore.yml", "volt_predeploy")}
    assert stale == set()


def schedule_options() -> set[str]:
    """Options of one schedule, which the role hands over as they are in its list."""
    return set(importlib.import_module(f"{PACKAGE}.volt_backup_schedule").SCHEDULE)


@pytest.mark.parametrize("place, module", [call for call in CALLS if call[0].endswith(".yml")])
def test_variables_of_playbooks_are_documented_at_their_head(place: str, module: str) -> None:
    options, text = CALLS[place, module]
    listed = set(re.findall(r"^#   (volt_\w+)", text, re.MULTILINE))
    named = {name for value in options.values() for name in re.findall(r"(?<![\w.])(volt_\w+) \| default", str(value)) if not name.startswith("volt_schedule_")}
    assert named <= listed | {"volt_chosen"}, sorted(named - listed)
    if module != "volt_backup_info":
        told = dict(re.findall(r"(?<=[ \n])([a-z_]+)=(volt_\w+)", text))
        said = {name for name, value in options.items() if f"volt_{name} |" in str(value)}
        assert {name for name in said if told.get(name) != f"volt_{name}"} <= {"id", "workload", "type", "tags", "before", "notes", "serial"}


def test_a_workload_has_the_same_keys_everywhere() -> None:
    """Those that the playbook knows, those that it and the role hand over, and those of the role's argument specs."""
    play = (COLLECTION / "playbooks/backup.yml").read_text(encoding="utf-8")
    keys = {name.strip() for name in re.search(r"volt_keys: \[([^]]*)\]", play)[1].split(",")}  # type: ignore[index]
    handed = set(re.findall(r"item\.(\w+)", str(CALLS["backup.yml", "volt_backup"][0])))
    assert keys == handed | {"state"}
    spec = yaml.safe_load((COLLECTION / "roles/volt_predeploy/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    known = set(spec["main"]["options"]["volt_predeploy_workloads"]["options"])
    assert known == {"workload", *schedule_options()} - {"state"}, "one list serves schedules and deployments"
    assert handed == set(re.findall(r"item\.(\w+)", str(CALLS["volt_predeploy", "volt_backup"][0])))
    assert handed <= schedule_options() | {"workload"}
    for place in (play.split("\n- name")[0], (COLLECTION / "roles/volt_predeploy/README.md").read_text(encoding="utf-8")):
        assert [name for name in sorted(handed) if name not in place] == []
