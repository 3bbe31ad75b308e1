# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find variables whose names are nearly those of this collection."""

from __future__ import annotations

DOCUMENTATION = r"""
name: misspelt
short_description: Find misspelt variables of this collection
version_added: 0.1.0
author: volt.backup contributors (!UNKNOWN)
description:
  - Compares the names of variables with those that the roles and playbooks of this collection take. The role P(volt.backup.volt_variables#role) calls it.
  - Names that are nearly one of them are returned. For other unknown names that begin with C(volt_), it shows a warning.
positional: _input, known, among, playbook
options:
  _input:
    description: Names of variables.
    type: list
    elements: str
    required: true
  known:
    description: Names that are correct and not checked.
    type: list
    elements: str
    default: []
  among:
    description: Compare with these names, such as the keys of a dictionary, instead of the variables of this collection. There are no warnings then.
    type: list
    elements: str
  playbook:
    description:
      - Name of the playbook that runs, such as V(restore). A variable of another playbook counts as misspelt if it differs by one letter from a variable of
        this playbook that is not set.
    type: str
"""

EXAMPLES = r"""
- name: Fail if a variable is misspelt
  ansible.builtin.assert:
    that: wrong | length == 0
    fail_msg: "{{ wrong | join(' ') }}"
  vars:
    wrong: "{{ query('ansible.builtin.varnames', '.') | volt.backup.misspelt }}"
"""

RETURN = r"""
_value:
  description: A sentence for each variable that is misspelt.
  type: list
  elements: str
"""

import functools
import re
from collections.abc import Iterable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display
from ansible_collections.volt.backup.plugins.filter.variables import internal, variables

_PREFIX = "volt_"
_NO_LETTER = re.compile(r"[^a-z0-9]")
#: Names of so many letters are near to each other also with two mistakes.
_LONG = 13

_display = Display()


def misspelt(names: Any, known: Any = None, among: Any = None, playbook: Any = None) -> list[str]:
    """A sentence for each name that is nearly one that users may set. Shows a warning for other unknown names."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise AnsibleFilterError("misspelt needs a list of variable names.")
    if among is not None:
        slips = {name: [right for right in among if distance(name, right, 1) == 1] for name in sorted(set(map(str, names)) - set(among))}
        return [f"Unknown key {name}; use {found[0]}." for name, found in slips.items() if found]
    given = set(map(str, names))
    options = set(variables())
    own = options if playbook is None else set(variables(playbook))
    wrong = []
    for name in sorted(given - own - set(internal()) - set(known or ())):
        if name in options:
            near = nearest(name, own - given, 1)
        else:
            near = nearest(name, options)
        if near:
            wrong.append(f"Unknown variable {name}; use {near}, or list {name} in volt_known_variables if it is your own.")
        elif name.startswith(_PREFIX) and name not in options:
            _display.warning(f"volt.backup has no variable {name}; correct the name, or list it in volt_known_variables if it is your own.")
    return wrong


def nearest(name: str, options: Iterable[str], slips: int = 2) -> str:
    """The option that a name is a misspelling of, or nothing. Signs between letters do not count. :param slips: mistakes that a long name may have."""
    letters = _letters(name)
    begins = letters.startswith(_letters(_PREFIX))
    found = []
    for option in options:
        right = _letters(option)
        # two names that differ by one letter agree before it, or after it
        if not (begins or letters.endswith(right[len(_PREFIX) :])):
            continue
        most = slips if begins and len(option) >= _LONG else 1
        mistakes = distance(letters, right, most)
        if mistakes <= most:
            found.append((mistakes, option))
    return min(found)[1] if found else ""


@functools.cache
def _letters(name: str) -> str:
    return _NO_LETTER.sub("", name.lower())


def distance(one: str, other: str, most: int) -> int:
    """How many letters are missing, extra, wrong or swapped with their neighbour. More than `most` if the result is above that."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, wanted in enumerate(other, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                best = min(best, earlier[j - 2] + 1)
            row.append(best)
    return row[-1]


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        return {"misspelt": misspelt}
