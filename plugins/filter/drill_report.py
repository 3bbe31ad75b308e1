# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What drills proved on many hosts, as a report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: drill_report
short_description: Report what restore drills proved on many hosts
version_added: 0.1.0
author: volt.backup contributors (!UNKNOWN)
description:
  - Makes an HTML report from the results of M(volt.backup.volt_backup_info) on each host. It has what was proved, when, and how long it took, and first
    of all what was not proved. The playbook C(volt.backup.report) writes it.
  - The report needs no server, no network and no scripts. Text from hosts is shown as text, never as markup.
positional: _input, days
options:
  _input:
    description:
      - The results of M(volt.backup.volt_backup_info) with O(volt.backup.volt_backup_info#module:include=schedules) and
        O(volt.backup.volt_backup_info#module:include=drills), by host name. Include those of failed tasks and unreachable hosts.
    type: dict
    required: true
  days:
    description:
      - How many days to report, up to now. Hosts remember the last 70 drills of each schedule.
    type: int
    default: 31
"""

EXAMPLES = r"""
- name: Ask a host
  volt.backup.volt_backup_info:
    include: [schedules, drills]
    since: '9999-12-31' # list no backups
  register: asked

- name: Write the report of this host
  ansible.builtin.copy:
    content: "{{ ({inventory_hostname: asked} | volt.backup.drill_report(31)).html }}"
    dest: /tmp/report.html
    mode: "0640"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The report, for people and for programs.
  type: dict
  contains:
    html:
      description: The report.
      type: str
    json:
      description:
        - The same for programs, with C(format), C(made_at), C(from), C(days), C(hosts), C(workloads), C(drills), C(counts) and C(rows).
        - Each row has C(host), C(workload), C(scheduled), C(state), C(reason), C(last_proved), and C(drills) as in
          RV(volt.backup.volt_backup_info#module:drills[].drills). The state is V(failed) if a failure stands, V(not known) if the host returned
          nothing, V(not tried) without a drill, or V(proved).
      type: dict
"""

from typing import Any

from ansible.errors import AnsibleFilterError


def drill_report(results: Any, days: Any = 31) -> dict[str, Any]:
    """A report of all hosts' drills."""
    from ansible_collections.volt.backup.plugins.plugin_utils import drill_report as maker  # only here: it takes time to import

    if not isinstance(results, dict):
        raise AnsibleFilterError("drill_report needs a dictionary with host names as keys: the results of volt_backup_info.")
    try:
        number = int(str(days))
    except ValueError:
        number = 0
    if not 1 <= number <= 3660:
        raise AnsibleFilterError(f"drill_report needs a number of days from 1 to 3660 (got {days}).")
    return maker.drill_report(results, number)


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"drill_report": drill_report}
