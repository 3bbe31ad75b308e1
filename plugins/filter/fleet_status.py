# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The schedules of many hosts in one table."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_status
short_description: Show the schedules of many hosts in one table
version_added: 0.1.0
author: volt.backup contributors (!UNKNOWN)
description:
  - Makes one table from the results of M(volt.backup.volt_backup_info) on each host, problems first. The playbook C(volt.backup.status) shows it.
positional: _input, declared, objectives
options:
  _input:
    description:
      - The results of M(volt.backup.volt_backup_info) with O(volt.backup.volt_backup_info#module:include=schedules), by host name. Include those of failed
        tasks and unreachable hosts.
    type: dict
    required: true
  declared:
    description:
      - The schedules that each host should have, by host name, as in O(volt.backup.volt_backup_schedule#module:schedules). A missing schedule is
        reported as a problem.
    type: dict
    default: {}
  objectives:
    description:
      - What is demanded of the schedules of each host, by host name. Each value is a dictionary with any of the keys C(rpo) for the age of the newest good
        backup, C(drill_every) for the time since it was last proved that one can be restored, and C(copy_within) for the age of the newest backup that has
        a copy elsewhere. Their values are durations, such as V(26h) or V(7d).
      - A schedule that misses one is a problem, in the state V(too old), V(not proved) or V(not copied). Schedules that are disabled, and workloads that have
        backups but no schedule, are not judged.
      - A schedule without a backup has missed C(rpo) if it was declared longer ago. Without a backup, there is nothing to prove or copy.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show the state of the schedules of two hosts
  ansible.builtin.debug:
    msg: "{{ {'node1': hostvars.node1.asked, 'node2': hostvars.node2.asked} | volt.backup.fleet_status }}"

- name: Show which schedules have no good backup of the last 26 hours
  ansible.builtin.debug:
    msg: "{{ ({'node1': asked} | volt.backup.fleet_status(objectives={'node1': {'rpo': '26h'}})).trouble }}"

- name: Fail if a schedule of the host is missing or has a problem
  ansible.builtin.assert:
    that: status.trouble | length == 0
    fail_msg: "{{ status.trouble }}"
  vars:
    status: "{{ {'node1': asked} | volt.backup.fleet_status({'node1': [{'workload': 'app'}]}) }}"
"""

RETURN = r"""
_value:
  description: The table, for people and for programs.
  type: dict
  contains:
    table:
      description: Lines of the table, starting with the header.
      type: list
      elements: str
    rows:
      description:
        - The same for programs, a row for each schedule, each workload that has backups but no schedule, and each problem of a host itself.
        - Each has C(host), C(workload), C(state), C(overdue), C(reason) and other keys. C(workload) is null for a problem of the host itself.
      type: list
      elements: dict
    trouble:
      description: A sentence for each row with a problem.
      type: list
      elements: str
    troubled:
      description: The hosts that have problems, by name, each with a short text for each problem, such as C(app failed).
      type: dict
"""

from typing import Any

from ansible.errors import AnsibleFilterError


def fleet_status(results: Any, declared: Any = None, objectives: Any = None) -> dict[str, Any]:
    """One table of all hosts' schedules."""
    from ansible_collections.volt.backup.plugins.plugin_utils.fleet_table import fleet_table  # only here: it takes time to import

    given = (results, {} if declared is None else declared, {} if objectives is None else objectives)
    if not all(isinstance(one, dict) for one in given):
        raise AnsibleFilterError(
            "fleet_status needs dictionaries with host names as keys: the results of volt_backup_info, the declared schedules, and the objectives."
        )
    return fleet_table(*given)


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"fleet_status": fleet_status}
