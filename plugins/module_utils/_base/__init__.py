# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Shared functions: errors, names as shown, files, locks, time.

Nothing here knows stores, trees or backups. Rules for the whole engine are implemented here once: a file that others may have created is
opened without following a link and without blocking, read up to a limit, and written completely or not at all. An error of the system
becomes a sentence. Bytes become text that can be converted back.

Files: `errors` (the exceptions), `text` (paths as shown, and back), `speech` (option names in messages, as the reader knows them), `time`
(times and durations), `files` (open, read, write, sync), `locks` (waiting for a kernel lock), `nfs` (what the kernel does not ask an NFS server),
`kernel` (system calls that Python lacks), `signals` (a signal as an exception), `progress` (progress of the work), `process` (started programs),
`journal` (entries in systemd's journal). Other packages import the names below from here, and `files`, `kernel`, `nfs`, `process` and `journal` as
modules.
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
    NoRemote,
    NoStore,
    NotFound,
    Protected,
    RemoteError,
    RemoteFull,
    RemoteRefused,
    RemoteUnreachable,
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
    check_format,
    newer,
    reason,
    store_errors,
    store_failure,
    target_errors,
    target_failure,
    tolerated,
    unexpected,
)
from .files import Closing, create_file, is_regular, open_directory, open_file, open_real
from .locks import NO_LOCKS, among_hosts, directory_lock, is_at, lock_file, locked, wait
from .progress import Phase, Progress, Standing, unwatched
from .signals import forked, held, interruptible, stoppable
from .speech import translate
from .text import brief, excerpt, one_line, parse, show
from .time import AHEAD, is_future, now, parse_span, parse_time, show_time

__all__ = [
    "AHEAD", "NO_LOCKS", "AttributesRefused", "Closing", "Damaged", "Foreign", "Incomplete", "Interrupted", "LockLost", "LockTimeout", "NoRemote", "NoStore",
    "NotFound", "Phase", "Progress", "Protected", "RemoteError", "RemoteFull", "RemoteRefused", "RemoteUnreachable", "SourceError", "Stalled", "Standing",
    "StoreError", "StoreFull", "Suspect", "TargetDiffers", "TargetError", "TargetFull", "TargetInUse", "TimedOut", "Unstable", "Unsupported", "UsageError",
    "VoltError", "among_hosts", "brief", "check_format", "create_file", "directory_lock", "excerpt", "forked", "held", "interruptible", "is_at", "is_future",
    "is_regular", "lock_file", "locked", "newer", "now", "one_line", "open_directory", "open_file", "open_real", "parse", "parse_span", "parse_time",
    "reason", "show", "show_time", "stoppable", "store_errors", "store_failure", "target_errors", "target_failure", "tolerated", "translate", "unexpected",
    "unwatched", "wait",
]  # fmt: skip
