# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The command `volt-backup` as a file on a host: who wrote it, its version, how it is installed and removed.

It is a zip archive, and a zip archive may end with a comment. Ours is `volt-backup 0.1.0 job-format 1`, and the required features of stores
that the command supports, if any, as in `store-features a,b`. So the last bytes of the file show, without running it, whether it supports
job files and stores. A file without that comment is not ours, and is neither overwritten nor removed.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import struct
import subprocess
import typing as t

from .. import _version
from .._base import UsageError, VoltError, files, parse as parse_path, process, reason
from .._store import features

PATH = _version.COMMAND
MODE = 0o755

_STAMP = re.compile(rb"volt-backup ([0-9A-Za-z.+-]{1,64}) job-format ([0-9]{1,9})(?: store-features ([0-9a-z_,-]{1,100}))?")
#: What ends an archive: a mark, figures that do not matter here, the length of the comment, and then the comment.
_END = struct.Struct("<4s16xH")
_MARK = b"PK\x05\x06"
#: How an entry begins; before the first one is the line that names the interpreter.
_ENTRY = b"PK\x03\x04"
#: Bytes that bytecode begins with: which Python wrote it, and of which source.
HEAD = 16
#: More than that and the longest stamp take.
_TAIL = 512


#: The host's own Python, which its upgrades keep, and what asks whether it serves.
_SYSTEM = "/usr/bin/python3"
_SERVES = "import sys, json, zipfile; sys.exit(sys.version_info < (3, 9))"


def interpreter(own: str) -> str:
    """The interpreter that units use: the host's own Python if it is new enough.

    :param own: else this one, which may be of a version that an upgrade of the host takes away.
    """
    try:
        return own if process.run([_SYSTEM, "-I", "-c", _SERVES], patience=60, capture=True).status else _SYSTEM
    except (OSError, subprocess.TimeoutExpired):
        return own


class CommandStamp(t.NamedTuple):
    """The description of a command, from its file."""

    version: str
    job_format: int
    features: t.FrozenSet[str] = frozenset()


def stamp(said: CommandStamp) -> bytes:
    """The archive's comment."""
    more = f" store-features {','.join(sorted(said.features))}" if said.features else ""
    return f"volt-backup {said.version} job-format {said.job_format}{more}".encode("ascii")


def lacks(found: CommandStamp, store: str) -> t.List[str]:
    """Required features of a store that a command does not support. Unsupported if we do not support them either."""
    path = os.fsdecode(parse_path(store))
    try:
        kind = features.read(path)
    except FileNotFoundError:
        return []
    features.check(path, kind)
    return sorted(set(kind.required) - found.features)


def outdated(path: str, found: CommandStamp, store: str, lacking: t.Sequence[str]) -> str:
    """The message for a command that is older than a store."""
    return f"The command at {path} is of version {found.version}, too old for store {store} (feature {', '.join(lacking)}); update it with volt_runner"


def parse(data: bytes) -> t.Optional[CommandStamp]:
    """The description at the end of an archive; None if it is not ours."""
    at = data.rfind(_MARK, -_TAIL)
    if at < 0 or len(data) < at + _END.size:
        return None
    _mark, length = _END.unpack_from(data, at)
    match = _STAMP.fullmatch(data, at + _END.size)
    if match is None or len(match[0]) != length:
        return None
    known = frozenset(match[3].decode("ascii").split(",")) if match[3] else frozenset()
    return CommandStamp(match[1].decode("ascii"), int(match[2]), known)


def read(path: str) -> t.Optional[CommandStamp]:
    """The command at a path; None if there is none, UsageError for a file that is not ours."""
    found = _load(path, _TAIL)
    return None if found is None else found[0]


def state(path: str) -> str:
    """The command at a path as a text for a diff; empty if there is none, UsageError for a file that is not ours."""
    if os.path.islink(path):
        raise UsageError(f"{path} is a symbolic link and is not replaced; use the path it points to, or move it away.")
    found = _load(path)
    return "" if found is None else describe(*found[1:])


def describe(data: bytes, mode: int = MODE) -> str:
    """The same of an archive's bytes."""
    import zipfile  # here alone: what runs a schedule reads no more than the stamp

    said = t.cast(CommandStamp, parse(data))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return describe_entries(said, data[: data.find(_ENTRY)], ((name, archive.read(name)) for name in archive.namelist()), mode)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError):
        return _lines(said, "damaged", mode)


def describe_entries(said: CommandStamp, before: bytes, entries: t.Iterable[t.Tuple[str, bytes]], mode: int = MODE) -> str:
    """The same of one that is not built yet.

    :param before: what comes before the archive. :param entries: names and content, in order. Of bytecode the head is enough, which says of
        which Python and which source it is: the same Python need not write the same bytes twice.
    """
    digest = hashlib.sha256(before)
    for name, content in entries:
        digest.update(b"%d %s\n" % (len(name), name.encode()))
        digest.update(content[:HEAD] if name.endswith(".pyc") else content)
    return _lines(said, digest.hexdigest(), mode)


def _lines(said: CommandStamp, digest: str, mode: int) -> str:
    return f"version: {said.version}\njob_format: {said.job_format}\nsha256: {digest}\nmode: {mode:04o}\n"


def _load(path: str, most: t.Optional[int] = None) -> t.Optional[t.Tuple[CommandStamp, bytes, int]]:
    """What a command says of itself, its bytes (the last ones, if so many are enough) and its mode."""
    data = b""
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):  # a pipe of that name would block
            with open(path, "rb") as file:
                file.seek(max(0, status.st_size - most) if most else 0)
                data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise VoltError(f"{path} cannot be read: {reason(error)}; fix that, or choose another path.") from None
    said = parse(data)
    if said is None:
        raise UsageError(f"{path} was not written by volt_runner; move it away, or choose another path.")
    return said, data, stat.S_IMODE(status.st_mode)


def write(path: str, data: bytes) -> None:
    """Put a command in its place: the old one or the new one is there whole at any time. Its owner stays."""
    beside = f"{path}.volt-new"  # always the same name, so that what a killed run leaves is not there for good
    try:
        old = os.stat(path) if os.path.exists(path) else None
        files.write_file(path, data, mode=MODE, owner=(old.st_uid, old.st_gid) if old is not None else None, beside=beside)
    except OSError as error:
        raise VoltError(f"{path} cannot be written: {reason(error)}; fix that, or choose another path.") from None


def foresee(path: str) -> None:
    """VoltError if a command could not be written or removed. Changes nothing."""
    try:
        files.foresee_write(path)
    except OSError as error:
        raise VoltError(f"{path} cannot be written: {reason(error)}; fix that, or choose another path.") from None


def remove(path: str) -> None:
    """Remove a file, if it exists; VoltError if that fails."""
    try:
        files.unlink(path)
    except OSError as error:
        raise VoltError(f"{path} cannot be removed: {reason(error)}; fix that, then run again.") from None
