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
positional: _input, declared
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
"""

EXAMPLES = r"""
- name: Show the state of the schedules of two hosts
  ansible.builtin.debug:
    msg: "{{ {'node1': hostvars.node1.asked, 'node2': hostvars.node2.asked} | volt.backup.fleet_status }}"

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


def fleet_status(results: Any, declared: Any = None) -> dict[str, Any]:
    """One table of all hosts' schedules."""
    from ansible_collections.volt.backup.plugins.plugin_utils.fleet_table import fleet_table  # only here: it takes time to import

    meant = {} if declared is None else declared
    if not (isinstance(results, dict) and isinstance(meant, dict)):
        raise AnsibleFilterError("fleet_status needs two dictionaries with host names as keys: the results of volt_backup_info, and the declared schedules.")
    return fleet_table(results, meant)


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"fleet_status": fleet_status}
