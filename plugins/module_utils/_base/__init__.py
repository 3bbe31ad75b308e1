# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What all rooms share: how to fail, how to show a name, how to touch a file, how to wait.

Nothing here knows of stores, trees or backups. A rule that every room must keep has its one place here: a file that others may have put
there is opened without following a link and without waiting, read within a bound, and written whole or not at all; an error of the
system becomes a sentence; bytes become text that can be turned back.

Files: `errors` (the one family of exceptions), `text` (paths as shown, and back), `speech` (messages in their reader's
language), `time` (moments and spans), `files` (open, read, write,
sync), `locks` (waiting for a kernel lock), `kernel` (system calls that Python lacks), `signals` (a signal as an exception),
`progress` (how far work has come, and where it stands). Other rooms import the names below from here, and `files` and `kernel` as modules.
"""

from __future__ import annotations

from .errors import (
    AttributesRefused,
    Damaged,
    Foreign,
    Incomplete,
    Interrupted,
    LockLost,
    LockTimeout,
    NoStore,
    NotFound,
    Protected,
    SourceError,
    Stalled,
    StoreError,
    StoreFull,
    Suspect,
    TargetDiffers,
    TargetError,
    TargetFull,
    TargetInUse,
    TimedOut,
    Unstable,
    Unsupported,
    UsageError,
    VoltError,
    newer,
    reason,
    store_failure,
    target_failure,
    unexpected,
)
from .files import create_file, is_regular, open_directory, open_file, open_real
from .locks import NO_LOCKS, directory_lock, is_at, lock_file, locked, wait
from .progress import Phase, Progress, Standing, unwatched
from .signals import held, interruptible, stoppable
from .speech import translate
from .text import brief, one_line, parse, show
from .time import AHEAD, is_future, now, parse_span, parse_time, show_time

__all__ = [
    "AHEAD", "NO_LOCKS", "AttributesRefused", "Damaged", "Foreign", "Incomplete", "Interrupted", "LockLost", "LockTimeout", "NoStore", "NotFound", "Phase",
    "Progress", "Protected", "SourceError", "Stalled", "Standing", "StoreError", "StoreFull", "Suspect", "TargetDiffers", "TargetError", "TargetFull",
    "TargetInUse", "TimedOut", "Unstable", "Unsupported", "UsageError", "VoltError", "brief", "create_file",
    "directory_lock", "held", "interruptible", "is_at", "is_future", "is_regular", "lock_file", "locked", "newer", "now", "one_line",
    "open_directory", "open_file", "open_real", "parse", "parse_span", "parse_time", "reason", "show", "show_time", "stoppable", "store_failure",
    "target_failure", "translate", "unexpected", "unwatched", "wait",
]  # fmt: skip
