# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Messages in the reader's terms.

The engine writes in those of a playbook's task, and marks options: "use `force: true`", "raise `lock_timeout`". A call of another module
is recognized by its form: "volt_cas_gc with grace: 0s". On output this is translated: to `--force` and `volt-backup gc --grace 0s` on the
command line, to `volt_force: true` if a playbook of this collection calls the module. If the reader has no such option, it stays as it is. Text
without marks stays too, because paths and names may look like options.
"""

from __future__ import annotations

import re
import typing as t

_VALUE = r"[0-9A-Za-z_.-]*[0-9A-Za-z_-]"
_CALL = re.compile(rf"(?<![\w/.])(volt_\w+) with (\w+: {_VALUE}(?: and \w+: {_VALUE})*)")
_MARKED = re.compile(rf"(?<![\w/])`([a-z][a-z_]*)(?:: ({_VALUE}))?`(?![\w/])")

#: An option's name and value (empty where none is said) as the reader writes it; None where the reader has none of that name.
Option = t.Callable[[str, str], t.Optional[str]]
#: The same of a call of a module, by its name and options.
Call = t.Callable[[str, t.Dict[str, str]], t.Optional[str]]


def translate(text: str, option: Option, call: t.Optional[Call] = None) -> str:
    """A message with its advice in the reader's form."""
    pieces = []
    end = 0
    for match in _CALL.finditer(text):
        options = dict(said.split(": ") for said in match[2].split(" and "))
        pieces += [_options(text[end : match.start()], option), (call(match[1], options) if call else None) or match[0]]
        end = match.end()
    return "".join([*pieces, _options(text[end:], option)])


def _options(text: str, option: Option) -> str:
    return _MARKED.sub(lambda match: option(match[1], match[2] or "") or match[0], text)
