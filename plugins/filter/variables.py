# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables that the roles and playbooks of this collection take."""

from __future__ import annotations

DOCUMENTATION = r"""
name: variables
short_description: List the variables of this collection
version_added: 0.1.0
author: volt.backup contributors (!UNKNOWN)
description:
  - Lists the variables that all roles and one playbook of this collection take. The role P(volt.backup.volt_variables#role) calls it.
options:
  _input:
    description: Name of the playbook, such as V(restore), or V(*) for all of them.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the variables of the playbook volt.backup.restore
  ansible.builtin.debug:
    msg: "{{ 'restore' | volt.backup.variables }}"
"""

RETURN = r"""
_value:
  description: Names of variables, sorted.
  type: list
  elements: str
"""

import functools
import re
from pathlib import Path
from typing import Any

_COLLECTION = Path(__file__).parents[2]
#: What users may set: options of a role's argument specs, and the list at the head of each playbook.
_OPTION = re.compile(r"^(?: {6}|#   )(volt_\w+)", re.MULTILINE)
_WORD = re.compile(r"\bvolt_\w+")


def variables(playbook: Any = "*") -> list[str]:
    """Names that users may set."""
    return sorted(_read(str(playbook))[0])


def internal() -> list[str]:
    """Other names that roles and playbooks use."""
    options, words = _read("*")
    return sorted(words - options)


@functools.cache
def _read(playbook: str) -> tuple[set[str], set[str]]:
    options: set[str] = set()
    words: set[str] = set()
    for path in (*_COLLECTION.glob("roles/*/*/*.yml"), *_COLLECTION.glob(f"playbooks/{playbook}.yml")):
        text = path.read_text(encoding="utf-8")
        words.update(_WORD.findall(text))
        if path.name == "argument_specs.yml" or path.parent.name == "playbooks":
            options.update(_OPTION.findall(text))
    return options, words


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"variables": variables}
