# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""One entry in systemd's journal, with a field for each fact. Source: systemd's "Journal Native Protocol".

An entry is one datagram that is sent without waiting: without a journal, or with one that is busy, there is no entry, and nothing fails. Values may come
from others, such as the names of files: their control characters become escapes, and their length is limited.
"""

from __future__ import annotations

import struct
import typing as t

from .text import brief

SOCKET = "/run/systemd/journal/socket"
#: By what journalctl -t finds our entries and lines, and those of the user's commands.
IDENTIFIER = "volt-backup"
ERROR, WARNING, INFO = 3, 4, 6
#: Characters of a value, and how many values one field has.
_LONGEST, _MOST = 2000, 100


def send(message: str, kind: str, priority: int, facts: t.Mapping[str, t.Any]) -> bool:
    """Make an entry; whether the journal took it.

    :param kind: the MESSAGE_ID, 32 hex digits. :param priority: as of syslog(3).
    :param facts: become fields, their names in capitals after VOLT_. A list becomes a field with several values, None becomes none.
    """
    import socket  # only here: what writes no entry need not load it

    fields: t.List[t.Tuple[str, t.Any]] = [("MESSAGE", message), ("MESSAGE_ID", kind), ("PRIORITY", priority), ("SYSLOG_IDENTIFIER", IDENTIFIER)]
    for name, fact in facts.items():
        values = fact[:_MOST] if isinstance(fact, list) else [fact]
        fields += [(f"VOLT_{name.upper()}", value) for value in values if value is not None]
    data = b"".join(_field(name, brief(value, _LONGEST)) for name, value in fields)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as to:
            to.sendto(data, SOCKET)
        return True
    except OSError:
        return False


def _field(name: str, text: str) -> bytes:
    """A field, its value by its length: whatever is in that, it is no other field."""
    value = text.encode("utf-8", "backslashreplace")
    return name.encode("ascii") + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
