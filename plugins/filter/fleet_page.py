# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backups of many hosts on one page."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_page
short_description: Show the backups of many hosts on one page
version_added: 0.1.0
author: volt.backup contributors (!UNKNOWN)
description:
  - Makes an HTML page from the results of M(volt.backup.volt_backup_info) on each host, problems first. The playbook C(volt.backup.status) writes it.
  - The page needs no server and no network. Text from hosts is shown as text, never as markup.
positional: _input, declared, objectives
options:
  _input:
    description:
      - The results of M(volt.backup.volt_backup_info) by host name, as for P(volt.backup.fleet_status#filter). With
        O(volt.backup.volt_backup_info#module:include=history), the page shows the last 90 days.
    type: dict
    required: true
  declared:
    description:
      - As in P(volt.backup.fleet_status#filter).
    type: dict
    default: {}
  objectives:
    description:
      - As in P(volt.backup.fleet_status#filter).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Ask a host
  volt.backup.volt_backup_info:
    include: [schedules, history]
    since: '9999-12-31' # list no backups
  register: asked

- name: Write the page of this host
  ansible.builtin.copy:
    content: "{{ ({inventory_hostname: asked} | volt.backup.fleet_page).html }}"
    dest: /tmp/fleet.html
    mode: "0640"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The page, for people and for programs.
  type: dict
  contains:
    html:
      description: The page.
      type: str
    json:
      description:
        - The same for programs, with C(format), C(made_at), C(hosts), C(trouble) and C(rows). The rows are those of P(volt.backup.fleet_status#filter).
          Each also has C(trouble), and C(history) as in RV(volt.backup.volt_backup_info#module:history).
      type: dict
"""

from typing import Any

from ansible.errors import AnsibleFilterError


def fleet_page(results: Any, declared: Any = None, objectives: Any = None) -> dict[str, Any]:
    """One page of all hosts' backups."""
    from ansible_collections.volt.backup.plugins.plugin_utils import fleet_page as page  # only here: it takes time to import

    given = (results, {} if declared is None else declared, {} if objectives is None else objectives)
    if not all(isinstance(one, dict) for one in given):
        raise AnsibleFilterError(
            "fleet_page needs dictionaries with host names as keys: the results of volt_backup_info, the declared schedules, and the objectives."
        )
    return page.fleet_page(*given)


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"fleet_page": fleet_page}
