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

from .._base import Damaged, RemoteError, reason

_PATIENCE = 600.0


class _Program(subprocess.Popen[bytes]):
    """A program with pipes. It may read the files of some descriptors."""

    def __init__(self, words: t.Sequence[str], fds: t.Sequence[int]) -> None:
        super().__init__(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=fds)


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
        status, output, _said = _start(["age", "-d", "-i", f"/proc/self/fd/{fd}"], data, (fd,))
    finally:
        os.close(fd)
    if status:
        raise Damaged("An age file is altered or truncated, or is not for this identity.")
    return output


def _run(words: t.Sequence[str], data: bytes) -> bytes:
    status, output, said = _start(words, data)
    if status:
        why = " ".join(said.decode("utf-8", "replace").split())[-200:]
        raise RemoteError(f"{words[0]} failed with status {status}: {why}; update it, or install python3-cryptography.")
    return output


def _start(words: t.Sequence[str], data: bytes, fds: t.Sequence[int] = ()) -> t.Tuple[int, bytes, bytes]:
    """Status, output and complaints of a program. :param data: its input. :param fds: of files that it may read."""
    try:
        child = _Program(words, fds)
    except OSError as error:
        raise RemoteError(f"{words[0]} could not be run: {reason(error)}; update it, or install python3-cryptography.") from None
    with child:
        try:
            output, said = child.communicate(data, _PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            raise RemoteError(f"{words[0]} did not end in time; find out what stops it, or install python3-cryptography.") from None
        except BaseException:
            child.kill()
            raise
    return child.returncode, output, said
