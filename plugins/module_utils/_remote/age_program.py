# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The same as `age` by the programs age and age-keygen, for hosts without python3-cryptography. An identity is handed over in a file in memory.

Source: age(1), age-keygen(1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import typing as t

from .._base import Damaged, RemoteError

_PATIENCE = 600.0


def is_there() -> bool:
    """Whether this host has the programs."""
    return all(shutil.which(name) for name in ("age", "age-keygen"))


def recipient(identity: str) -> str:
    """The recipient of an identity, as text. :param identity: a valid one."""
    return _run(["age-keygen", "-y"], identity.encode() + b"\n").decode().strip()


def seal(data: bytes, recipients: t.Sequence[str]) -> bytes:
    """An age file with these bytes. :param recipients: valid ones."""
    return _run(["age", *(word for text in recipients for word in ("-r", text))], data)


def unseal(data: bytes, identities: t.Sequence[str]) -> bytes:
    """The bytes of an age file; Damaged where it was altered, or is for none of the identities. :param identities: valid ones."""
    fd = os.memfd_create("identities")
    try:
        os.write(fd, "".join(f"{text}\n" for text in identities).encode())
        done = _start(["age", "-d", "-i", f"/proc/self/fd/{fd}"], data, (fd,))
    finally:
        os.close(fd)
    if done.returncode:
        raise Damaged("An age file is altered or truncated, or is not for this identity.")
    return done.stdout


def _run(words: t.Sequence[str], data: bytes) -> bytes:
    done = _start(words, data)
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[-200:]
        raise RemoteError(f"{words[0]} failed with status {done.returncode}: {said}; update it, or install python3-cryptography.")
    return done.stdout


def _start(words: t.Sequence[str], data: bytes, fds: t.Sequence[int] = ()) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(words, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=fds, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        what = "it did not end in time" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        raise RemoteError(f"{words[0]} could not be run: {what}; update it, or install python3-cryptography.") from None
