# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""NFS: what the kernel does not ask the server, and how it is made to ask.

Other hosts may use the same files. But the kernel remembers for up to a minute which names a directory has or lacks and what their stats are, it
keeps what is written until the file is synced or closed, and a lock on a directory is known to this host alone. To open a directory asks the server
for it (close-to-open consistency), and names in it are looked up anew if it has changed. Sources: nfs(5), flock(2), and trying it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import typing as t

from . import files

_KINDS = (b"nfs", b"nfs4")
#: What a write to a locked file says after its lock was lost: this host did not reach the server for longer than its lease.
LOST = (errno.EIO, errno.EBADF, errno.ESTALE)
#: Of each device: the options of the file system if it is NFS, else None. Of each directory that was asked for: the device.
_known: t.Dict[int, t.Optional[t.List[bytes]]] = {}
_devices: t.Dict[str, int] = {}


def _options(directory: str) -> t.Optional[t.List[bytes]]:
    """The options with which an NFS file system is mounted; None for any other, and where there is no such directory. Looked at once."""
    device = _devices.get(directory)
    if device is None:
        try:
            device = _devices[directory] = os.stat(directory).st_dev
        except OSError:
            return None
    if device not in _known:
        _known[device] = None if os.major(device) else _mounted(device)  # NFS has no block device
    return _known[device]


def _mounted(device: int) -> t.Optional[t.List[bytes]]:
    """From /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    number = b"%d:%d" % (os.major(device), os.minor(device))
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            left, _dash, right = line.partition(b" - ")
            if left.split(b" ")[2] == number:
                kind, _source, options = (*right.split(), b"", b"")[:3]
                return options.split(b",") if kind in _KINDS else None
    return None


def is_nfs(directory: str) -> bool:
    return _options(directory) is not None


def has_local_locks(directory: str) -> bool:
    """Whether locks are known to this host alone (`nolock`, `local_lock`), so that it does not see those of others."""
    return bool({b"local_lock=all", b"local_lock=flock", b"nolock"}.intersection(_options(directory) or ()))


def look_anew(directory: str) -> None:
    """Let a directory, and what is looked up in it from now on, be what the server has now. Without effect, and cheap, where it is not on NFS."""
    above = os.path.dirname(directory)
    for path in (above, directory) if is_nfs(above) else ():
        with contextlib.suppress(OSError), files.Closing(files.open_directory(path, follow=True)):
            pass
