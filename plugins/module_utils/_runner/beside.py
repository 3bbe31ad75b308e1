# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What is installed beside the command: its manual page, and completion for each shell.

::

    PREFIX/bin/volt-backup  (or sbin)                         the command
    PREFIX/share/man/man8/volt-backup.8                       found by man(1)
    PREFIX/share/bash-completion/completions/volt-backup
    PREFIX/share/zsh/site-functions/_volt-backup
    PREFIX/share/fish/vendor_completions.d/volt-backup.fish

For a PREFIX that is the root directory it is /usr/share. A command in any other place, or of any other name, has none of them. A file there that does
not say that it is ours is left alone, and so is one whose directory cannot be written; a command without a manual page is better than none.
"""

from __future__ import annotations

import hashlib
import os
import stat
import typing as t

from .._base import Closing, VoltError, files, reason, show
from .._schedule.record import writing
from . import cli, completion, manual, page

_MODE = 0o644
#: More than any of them is long.
_MOST = 1 << 20
#: Within so many bytes ours says that it is ours.
_HEAD = 512


class Beside:
    """The files beside the command at a path.

    :param leaves: that the command is removed. What it shares with one in the other of `bin` and `sbin` stays then.
    :ivar warnings: which are left alone, and why.
    """

    def __init__(self, path: str, leaves: bool = False) -> None:
        self.warnings: t.List[str] = []
        self._found: t.Dict[str, str] = {}
        self._wanted: t.Dict[str, bytes] = {}
        for place, data in ({} if leaves and _is_shared(path) else _all(path)).items():
            try:
                found = _look(place)
                if leaves and found is None:
                    continue
                files.foresee_write(place)
            except OSError as error:
                self.warnings.append(f"{show(place)} is left alone: {reason(error)}.")
                continue
            if found == "":
                self.warnings.append(f"{show(place)} was not written by volt_runner and is left alone.")
                continue
            self._wanted[place] = data
            if found is not None:
                self._found[place] = found

    @property
    def before(self) -> str:
        """What is there of ours, for a diff."""
        return "".join(self._found.values())

    @property
    def after(self) -> str:
        """What would be there."""
        return "".join(_line(place, data, _MODE) for place, data in self._wanted.items())

    def write(self) -> None:
        """Write what is missing, or is not as it should be."""
        for place, data in self._wanted.items():
            if self._found.get(place) != _line(place, data, _MODE):
                with writing(place):
                    _make(os.path.dirname(place))
                    files.write_file(place, data, mode=_MODE)

    def remove(self) -> None:
        """Remove what is ours. Directories stay: others use them too."""
        for place in self._found:
            try:
                files.unlink(place)
            except OSError as error:
                raise VoltError(f"{show(place)} cannot be removed: {reason(error)}; fix that, then run again.") from None


def _all(path: str) -> t.Dict[str, bytes]:
    """Places and contents, by where the command is."""
    directory, name = os.path.split(os.path.abspath(path))
    prefix, room = os.path.split(directory)
    if name != manual.NAME or room not in ("bin", "sbin"):
        return {}
    places = {
        f"man/man8/{name}.8": page.render(cli.parser()),
        f"bash-completion/completions/{name}": completion.script("bash"),
        f"zsh/site-functions/_{name}": completion.script("zsh"),
        f"fish/vendor_completions.d/{name}.fish": completion.script("fish"),
    }
    prefix = prefix if prefix.strip("/") else "/usr"  # where man(1) and the shells look for what is about a command of /bin
    return {os.path.join(prefix, "share", place): text.encode() for place, text in places.items()}


def _is_shared(path: str) -> bool:
    """Whether there is another command beside which the same files are."""
    directory, name = os.path.split(os.path.abspath(path))
    prefix, room = os.path.split(directory)
    other = os.path.join(prefix, {"bin": "sbin", "sbin": "bin"}.get(room, room))
    return os.path.realpath(other) != os.path.realpath(directory) and os.path.isfile(os.path.join(other, name))


def _look(place: str) -> t.Optional[str]:
    """A file's line; None where nothing is, empty for what is not ours."""
    try:
        status = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return ""
    data = files.read_file(place, _MOST)
    return _line(place, data, stat.S_IMODE(status.st_mode)) if manual.WRITTEN.encode() in data[:_HEAD] else ""


def _line(place: str, data: bytes, mode: int) -> str:
    return f"{show(place)}: {hashlib.sha256(data).hexdigest()} {mode:04o}\n"


def _make(directory: str) -> None:
    """A directory and those above it, for all to read whatever the umask is."""
    if not os.path.isdir(directory):
        _make(os.path.dirname(directory))
        os.mkdir(directory)
        with Closing(files.open_directory(directory)) as fd:  # by descriptor: the owner of the parent directory may have replaced it with a link
            os.fchmod(fd, 0o755)
