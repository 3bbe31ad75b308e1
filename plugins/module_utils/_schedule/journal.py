# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""One entry in systemd's journal for each run, with a field for each fact.

`journalctl VOLT_ACTION=run VOLT_WORKLOAD=app VOLT_RESULT=failure -o json` finds them without parsing text. Only runs whose output goes to the
journal write one; a run by hand prints a line. What a run did with backups has entries of its own (`_backup.acts`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import typing as t

from .._base import journal
from .._base.journal import IDENTIFIER, WARNING

STREAM = "/run/systemd/journal/stdout"
#: What each kind of entry is known by, for good.
IDS = {"success": "5e1c0a6f0d0f4a5f8c3b7d2b9a64e1c7", "failure": "b3b4d0c1f7a14a0e9d1e6c2f58a97d43"}
_PRIORITIES = {"success": journal.INFO, "failure": journal.ERROR}
#: Facts that other entries know by another name.
_NAMES = {"backup": "backup_id", "new": "new_bytes"}


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


def send(result: str, message: str, facts: t.Mapping[str, t.Any]) -> bool:
    """Make an entry; whether the journal took it.

    :param result: success or failure. :param facts: see `_base.journal`.
    """
    named = {_NAMES.get(name, name): fact for name, fact in facts.items()}
    return journal.send(message, IDS[result], _PRIORITIES[result], {"action": "run", "result": result, **named})
