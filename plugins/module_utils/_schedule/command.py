# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The command `volt-backup` as a file on a host: whose it is, of which version, and how it gets there and away.

It is a zip archive, and a zip archive may end with a comment. Ours says `volt-backup 0.1.0 job-format 1`, so that whoever declares job files
learns from the last bytes of the file whether the command will understand them, without running it. A file without that comment is
somebody else's, and is neither written over nor removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import typing as t

from .._base import files
from .._base.errors import UsageError, VoltError, reason

MODE = 0o755

_STAMP = re.compile(rb"volt-backup ([0-9A-Za-z.+-]{1,64}) job-format ([0-9]{1,9})")
#: What ends an archive: a mark, figures that do not matter here, the length of the comment, and then the comment.
_END = struct.Struct("<4s16xH")
_MARK = b"PK\x05\x06"
#: More than that and the longest stamp take.
_TAIL = 256


class CommandStamp(t.NamedTuple):
    """What a command says of itself."""

    version: str
    job_format: int


def stamp(version: str, job_format: int) -> bytes:
    """The archive's comment."""
    return f"volt-backup {version} job-format {job_format}".encode("ascii")


def parse(data: bytes) -> t.Optional[CommandStamp]:
    """What the end of an archive says; None where it is none of ours."""
    at = data.rfind(_MARK, -_TAIL)
    if at < 0 or len(data) < at + _END.size:
        return None
    _mark, length = _END.unpack_from(data, at)
    match = _STAMP.fullmatch(data, at + _END.size)
    return CommandStamp(match[1].decode("ascii"), int(match[2])) if match and len(match[0]) == length else None


def read(path: str) -> t.Optional[CommandStamp]:
    """The command at a path; None where nothing is, UsageError for what is not ours."""
    found = _load(path, _TAIL)
    return None if found is None else found[0]


def state(path: str) -> str:
    """The command at a path in words that differ where anything about it does; empty where nothing is, UsageError for what is not ours."""
    if os.path.islink(path):
        raise UsageError(f"{path} is a symbolic link, which is not replaced; choose the path that it leads to, or move it away.")
    found = _load(path)
    return "" if found is None else describe(*found[1:])


def describe(data: bytes, mode: int = MODE) -> str:
    """The same for one that is not written yet."""
    said = t.cast(CommandStamp, parse(data))
    digest = hashlib.sha256(data).hexdigest()
    return f"version: {said.version}\njob_format: {said.job_format}\nsha256: {digest}\nmode: {mode:04o}\n"


def _load(path: str, most: t.Optional[int] = None) -> t.Optional[t.Tuple[CommandStamp, bytes, int]]:
    """What a command says of itself, its bytes (the last ones, if so many are enough) and its mode."""
    data = b""
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):  # a pipe of that name would hold us up
            with open(path, "rb") as file:
                file.seek(max(0, status.st_size - most) if most else 0)
                data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise VoltError(f"{path} cannot be read: {reason(error)}; mend that or choose another path.") from None
    said = parse(data)
    if said is None:
        raise UsageError(f"{path} is no command that volt_runner wrote; move it away or choose another path.")
    return said, data, stat.S_IMODE(status.st_mode)


def write(path: str, data: bytes) -> None:
    """Put a command in its place: the old one or the new one is there whole at any time. Its owner stays."""
    beside = f"{path}.volt-new"  # always the same name, so that what a killed run leaves is not there for good
    try:
        old = os.stat(path) if os.path.exists(path) else None
        foreign = old is not None and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid())
        files.write_file(path, data, mode=MODE, owner=(old.st_uid, old.st_gid) if old is not None and foreign else None, beside=beside)
    except OSError as error:
        raise VoltError(f"{path} cannot be written: {reason(error)}; mend that or choose another path.") from None


def remove(path: str) -> None:
    """Take a file away, if it is there; VoltError where that fails."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise VoltError(f"{path} cannot be removed: {reason(error)}; mend that, then run again.") from None
