# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables with one wrong letter: the filter knows every one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.volt.backup.tests.rigs import sample

COLLECTION = Path(__file__).parents[2]
#: In a process of its own: who has imported the filter is a control node to Ansible from then on, and modules behave differently there.
CALL = """
import json, sys
from ansible_collections.volt.backup.plugins.filter import misspelt
given = json.load(sys.stdin)
options, internal = misspelt.variables(), misspelt.internal()
near = [name for name in internal if misspelt.nearest(name, options)]
print(json.dumps({"options": options, "internal": internal, "near": near, "told": [misspelt.misspelt(*one) for one in given]}))
"""


def call(*given: list[Any]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", CALL], input=json.dumps(given), capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout), "warned": done.stderr}


def misspelled(name: str) -> list[str]:
    """All that one slip makes of a name: a letter left out, doubled, wrong, exchanged with the next, or one too many."""
    made = {name[:at] + name[at + 1 :] for at in range(len(name))}
    made |= {name[: at + 1] + name[at:] for at in range(len(name))}
    made |= {f"{name[:at]}{'q' if name[at] != 'q' else 'x'}{name[at + 1 :]}" for at in range(len(name))}
    made |= {name[:at] + name[at + 1] + name[at] + name[at + 2 :] for at in range(len(name) - 1)}
    made |= {f"{name[:at]}z{name[at:]}" for at in range(len(name) + 1)}
    return sorted(made - {name})


def test_every_slip_of_every_variable_is_found() -> None:
    options = call()["options"]
    names = sample.some(options, 8, "slips")
    slips = [slip for name in names for slip in misspelled(name) if slip not in options]
    told = call(*([[slip]] for slip in slips))["told"]
    assert len(slips) > 40 * len(names) and [slip for slip, wrong in zip(slips, told) if len(wrong) != 1] == []


def test_the_variables_are_those_of_roles_and_playbooks() -> None:
    known = call()
    specs = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in COLLECTION.glob("roles/*/meta/argument_specs.yml")]
    of_roles = {name for spec in specs for entry in spec["argument_specs"].values() for name in entry["options"]}
    assert of_roles <= set(known["options"]) and {"volt_hosts", "volt_id", "volt_force", "volt_workloads"} <= set(known["options"])
    assert {"volt_found", "volt_schedule_wanted"} <= set(known["internal"])
    assert known["near"] == [], "a variable that is misspelt as one of these would be taken for it"


def test_keys_of_a_dictionary() -> None:
    done = call([["exlude", "tag", "source", "pre_command"], None, ["exclude", "tags", "source"]])
    assert done["told"] == [["Unknown key exlude; use exclude.", "Unknown key tag; use tags."]] and done["warned"] == ""


def test_names_of_ones_own() -> None:
    names = ["volt_own_thing", "volt_hostz", "ansible_host", "app_volt_force", "volt_schedule_wanted", "inventory_hostname"]
    done = call([names], [names, ["volt_hostz", "volt_own_thing"]])
    assert len(done["told"][0]) == 1 and "volt_hostz; use volt_hosts" in done["told"][0][0] and done["told"][1] == []
    assert "no variable volt_own_thing" in done["warned"] and done["warned"].count("no variable") == 1


def test_a_sign_is_no_letter() -> None:
    """A name that no template could read can stand in an inventory all the same."""
    told = call([["volt-schedule-workloads", "voltscheduleworkloads", "Volt_Schedule_Workloads", "VOLT_SERIAL", "volt.serial"]])["told"][0]
    assert sorted(line.split("; use ")[1].split(",")[0] for line in told) == ["volt_schedule_workloads"] * 3 + ["volt_serial"] * 2


def test_a_variable_of_another_playbook() -> None:
    """It is a slip where it is one letter off, and the right one is not set."""
    lone, both, other, own = call(
        [["volt_workload"], None, None, "backup"], [["volt_workload", "volt_workloads"], None, None, "backup"], [["volt_workloads"], None, None, "restore"],
        [["volt_workload", "volt_force", "volt_scratch_dir"], None, None, "restore"],
    )["told"]  # fmt: skip
    assert "use volt_workloads" in lone[0] and both == own == [] and "use volt_workload," in other[0]
