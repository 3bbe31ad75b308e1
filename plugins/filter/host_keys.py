# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys of a host, made on the controller from the recovery key of a sealed remote."""

from __future__ import annotations

DOCUMENTATION = r"""
name: host_keys
short_description: Make the keys of a host for a sealed remote
version_added: 0.1.0
author: volt.backup contributors (!UNKNOWN)
description:
  - Makes the key file of a host, as for O(volt.backup.volt_remote#module:keys), from the recovery key. The role C(volt.backup.volt_remote) uses it.
  - The result is always the same. It is a secret, so use C(no_log).
positional: _input, host
options:
  _input:
    description: The content of the recovery key, which C(volt-backup remote keys --new) makes.
    type: str
    required: true
  host:
    description: What the host is called on the remote.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Write the keys of the host
  ansible.builtin.copy:
    content: "{{ lookup('ansible.builtin.file', 'recovery.key') | volt.backup.host_keys(inventory_hostname) }}"
    dest: /etc/volt/offsite.keys
    mode: "0600"
  no_log: true
"""

RETURN = r"""
_value:
  description: The content of the key file.
  type: str
"""

from typing import Any

from ansible.errors import AnsibleFilterError


def host_keys(recovery: Any, host: Any) -> str:
    """The content of a key file."""
    # only here: Ansible loads all filters of a collection to find one, and this takes time to import
    from ansible_collections.volt.backup.plugins.module_utils._base import VoltError
    from ansible_collections.volt.backup.plugins.module_utils._remote import sealed

    if not (isinstance(recovery, str) and isinstance(host, str)):
        raise AnsibleFilterError("host_keys needs two texts: the content of the recovery key, and the name of the host.")
    try:
        return sealed.parse_recovery(recovery, "The text").of_host(host).text()
    except VoltError as error:
        raise AnsibleFilterError(error.message) from None


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"host_keys": host_keys}
