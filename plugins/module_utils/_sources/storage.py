# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What snapshots have in common that programs of the system make: these programs, the turn of a run, and a mount of its own.

A program that hangs is ended, because the disk or pool that it waits for may never answer. What it made by then is removed like what a killed run left.
In a unit of systemd, the programs run in a transient service, outside of the unit's hardening: they need all disks. Source: systemd-run(1).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import time
import typing as t

from .._base import kernel, lock_file, process, reason

#: Seconds that a program may take.
LIMIT = 300.0
#: Seconds for which another run may make or remove a snapshot: a program of its own may hang first, and one that cleans up after that.
_PATIENCE = 2 * LIMIT + 60
_PLACE = "/run/volt"


@contextlib.contextmanager
def turn(kind: str) -> t.Iterator[None]:
    """A snapshot is mounted a moment after it is made. No other run sweeps in between."""
    path = f"{_PLACE}/{kind}.lock" if os.path.isdir(_PLACE) else f"/run/volt-{kind}.lock"
    fd = t.cast(int, lock_file(path, fcntl.LOCK_EX, time.monotonic() + _PATIENCE, "a backup that makes a snapshot"))
    try:
        yield
    finally:
        os.close(fd)


def mounted(stack: contextlib.ExitStack, device: str, kind: str, place: bytes, options: bytes = b"") -> int:
    """A descriptor of a device's file system, mounted over what is at the place until the stack ends."""
    kernel.mount_device(os.fsencode(device), place, os.fsencode(kind), options)
    stack.callback(kernel.unmount, place)
    top = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, top)
    return top


def why(error: OSError) -> str:
    """Why something failed: in our words, if they are, else in the kernel's."""
    return reason(error) if error.strerror == os.strerror(error.errno or 0) else error.strerror or str(error)


def run(words: t.Sequence[str], package: str, look: str, apart: bool = True, told: int = -1) -> str:
    """The output of a program. OSError if it fails, with its complaint, or if it hangs.

    :param package: what it is of. :param look: what to check if it hangs. :param apart: outside of a unit's hardening.
    :param told: which line of what it says is its complaint.
    """
    program = words[0]
    if shutil.which(program) is None:
        raise OSError(errno.ENOENT, f"{program} is missing; install {package}")
    environment = {**os.environ, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
    before = process.apart(LIMIT) if apart else []
    late = OSError(errno.ETIMEDOUT, f"{program} did not end in {LIMIT:.0f} seconds; {look}")
    start = time.monotonic()
    try:
        done = process.run([*before, *words], environment, patience=LIMIT + (60 if before else 0), capture=True)
    except subprocess.TimeoutExpired:
        raise late from None
    except (ValueError, subprocess.SubprocessError) as error:
        raise OSError(errno.EIO, f"{program} could not be started: {error}") from None
    if done.status:
        if before and time.monotonic() - start >= LIMIT:
            raise late
        said = [line.strip() for line in done.errors.splitlines() if line.strip() and "WARNING" not in line]
        raise OSError(errno.EIO, f"{program} says: {said[told].rstrip('.') if said else done.how}")
    return done.output
