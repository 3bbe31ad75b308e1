# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""One entry in systemd's journal for each run, with a field for each fact.

`journalctl VOLT_WORKLOAD=app VOLT_RESULT=failure -o json` finds them without parsing text. Only runs whose output goes to the
journal write one; a run by hand prints a line. Source: systemd's "Journal Native Protocol".
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import typing as t

SOCKET, STREAM = "/run/systemd/journal/socket", "/run/systemd/journal/stdout"
#: By what journalctl -t finds our lines, and those of the user's commands.
IDENTIFIER = "volt-backup"
WARNING = 4
#: What each kind of entry is known by, for good.
IDS = {"success": "5e1c0a6f0d0f4a5f8c3b7d2b9a64e1c7", "failure": "b3b4d0c1f7a14a0e9d1e6c2f58a97d43"}
_PRIORITIES = {"success": 6, "failure": 3}


def connected() -> bool:
    """Whether our output goes to the journal. Source: systemd.exec(5), $JOURNAL_STREAM."""
    try:
        device, inode = os.environ["JOURNAL_STREAM"].split(":")
        status = os.fstat(1)
        return (status.st_dev, status.st_ino) == (int(device), int(inode))
    except (KeyError, ValueError, OSError):
        return False


@contextlib.contextmanager
def stream(path: str = STREAM) -> t.Iterator[t.Optional[int]]:
    """A descriptor whose lines the journal records as warnings, unlike other output; None if there is no journal.

    It is a program's own as long as that has it, whatever becomes of us. Source: sd_journal_stream_fd(3).
    """
    with contextlib.ExitStack() as stack:
        try:
            to = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
            to.connect(path)
            to.shutdown(socket.SHUT_RD)
            # identifier, unit, priority, and whether lines begin with a level, and go to syslog, kernel and console
            to.sendall(f"{IDENTIFIER}\n\n{WARNING}\n0\n0\n0\n0\n".encode("ascii"))
        except OSError:
            yield None
            return
        yield to.fileno()


def send(result: str, message: str, facts: t.Mapping[str, t.Any], path: str = SOCKET) -> bool:
    """Make an entry; whether the journal took it.

    :param result: success or failure. :param facts: become fields, their names in capitals after VOLT_.
    """
    fields = {
        "MESSAGE": message,
        "MESSAGE_ID": IDS[result],
        "PRIORITY": _PRIORITIES[result],
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "VOLT_RESULT": result,
        **{f"VOLT_{name.upper()}": fact for name, fact in facts.items()},
    }
    data = b"".join(_field(name, str(value).encode("utf-8", "surrogateescape")) for name, value in fields.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.sendto(data, path)
        return True
    except OSError:
        return False


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return name.encode("ascii") + b"=" + value + b"\n"
    return name.encode("ascii") + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
