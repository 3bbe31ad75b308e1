# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Reads a disk that others write to: never blocks, limits what it reads, and does not follow links of other users.

A path is resolved one name at a time. A symbolic link is followed only in a directory that belongs to root, or to us, and that no other user
may write: there an administrator made it. Elsewhere a user could use it to have another user's files copied.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import typing as t

from .._base import brief, open_file, reason, show

#: Descriptions of containers are some ten KiB; no file that we read has a reason to be larger.
MOST = 4 << 20
#: Why a place is left out that should have something, and has nothing.
AWAY = "perhaps it is not mounted"
LEADS_NOWHERE = "it is a symbolic link to a missing path; perhaps it is not mounted"
_LINKS = 40
_MOST_WARNINGS = 200
_OTHERS_WRITE = 0o022


class Unfit(Exception):
    """Something is invalid. Its text is a part of a sentence, for `Disk.leave`."""


class Disk:
    """A root directory, and the notes of the search. Paths are relative to this root, as on a host with it."""

    def __init__(self, root: str = "/") -> None:
        self._root = root.rstrip("/")
        self.left_out: t.List[t.Dict[str, str]] = []
        self.warnings: t.List[str] = []
        #: Whether all that could be a workload was looked at. Where not, what was not found may be there all the same.
        self.complete = True

    @property
    def is_this_host(self) -> bool:
        """Whether the programs of this host speak of it."""
        return not self._root

    def real(self, path: str) -> str:
        """The path for the system's calls."""
        return self._root + path

    def leave(self, path: str, why: t.Union[str, Exception], trouble: bool = True) -> None:
        """Note something that is not a workload, and why. If an administrator should fix it, there is also a warning."""
        text = f"it cannot be read: {reason(why)}" if isinstance(why, OSError) else brief(why)
        self.complete = self.complete and not trouble
        if any(item["path"] == show(path) for item in self.left_out):
            return  # two finders have come across it
        self.left_out.append({"path": show(path), "reason": text})
        if trouble:
            self._say(f"{brief(show(path))} is left out: {text}.")

    def warn(self, path: str, text: t.Union[str, Exception]) -> None:
        """Warn about something that does not change the result."""
        text = f"cannot be read: {reason(text)}" if isinstance(text, OSError) else brief(text)
        self._say(f"{brief(show(path))} {text}.")

    def _say(self, text: str) -> None:
        """A warning. A guest can give cause for as many as it likes, so they end somewhere."""
        if text not in self.warnings and len(self.warnings) < _MOST_WARNINGS:  # two finders may have come across it
            self.warnings.append(text)
            if len(self.warnings) == _MOST_WARNINGS:
                self.warnings.append("There are more warnings; fix these, then run again.")

    def miss(self, path: str, text: t.Union[str, Exception]) -> None:
        """Warn about a file that could have had more workloads."""
        self.complete = False
        self.warn(path, text)

    def reach(self, path: str) -> str:
        """The path without symbolic links in it. OSError, or Unfit for a link that any user may have made."""
        todo = _names(path)
        here, links = "", 0
        while todo:
            name = todo.pop()
            if name == "..":
                here = here.rpartition("/")[0]
                continue
            if not stat.S_ISLNK(os.lstat(self.real(f"{here}/{name}")).st_mode):
                here = f"{here}/{name}"
                continue
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if not self.is_hosts(here):
                raise Unfit(f"{show(f'{here}/{name}')} is a symbolic link that other users could have created")
            target = os.readlink(self.real(f"{here}/{name}"))
            todo += _names(target)
            here = "" if target.startswith("/") else here
        return here or "/"

    def is_hosts(self, path: str) -> bool:
        """Whether only root or we can write to a directory."""
        info = os.lstat(self.real(path or "/"))
        return info.st_uid in (0, os.geteuid()) and not info.st_mode & _OTHERS_WRITE

    def is_directory(self, path: str) -> bool:
        """Of a path that was reached."""
        return stat.S_ISDIR(os.lstat(self.real(path)).st_mode)

    def names(self, path: str) -> t.Tuple[str, t.List[str]]:
        """A resolved directory and its names, sorted; nothing if it does not exist."""
        try:
            here = self.reach(path)
            return here, sorted(os.listdir(self.real(here)))
        except (FileNotFoundError, NotADirectoryError):
            if os.path.islink(self.real(path)):
                self.leave(path, LEADS_NOWHERE)
        except OSError as error:
            self.leave(path, f"it cannot be read: {reason(error)}; run as root" if error.errno == errno.EACCES else error)
        except Unfit as error:
            self.leave(path, error)
        return path, []

    def is_bare(self, path: str) -> bool:
        """Whether a path is missing or an empty directory, as before a file system is mounted. Not for unreadable ones: `names` reports these."""
        try:
            return not os.listdir(self.real(self.reach(path)))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except (OSError, Unfit):
            return False

    def read(self, path: str, most: int = MOST) -> bytes:
        """A plain file's content. OSError or Unfit for anything else: a pipe is not waited for, a device is not read."""
        fd = open_file(self.real(self.reach(path)))
        with os.fdopen(fd, "rb") as file:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise Unfit("is not a regular file")
            if info.st_size > most:
                raise Unfit(f"has {info.st_size} bytes, which is more than this kind of file can have")
            return file.read(most)

    def begin(self, path: str, size: int) -> t.Tuple[bytes, os.stat_result]:
        """The first bytes of a plain file of any size, and its stats."""
        fd = open_file(self.real(path))
        with os.fdopen(fd, "rb") as file:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise Unfit("is not a regular file")
            return file.read(size), info

    def text(self, path: str) -> str:
        """A file's text, or nothing; problems are noted, except a missing file."""
        try:
            return self.read(path).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, Unfit) as error:
            self.miss(path, error)
        return ""

    def table(self, path: str, blank: bool = False) -> t.Optional[t.Dict[str, t.Any]]:
        """A file's JSON object, an empty one if there is no file, and None if it is invalid, which is noted.

        :param blank: whether a file without any text is as good as none.
        """
        try:
            content = self.read(path)
            value = {} if blank and not content.strip() else json.loads(content)
            if isinstance(value, dict):
                return value
            raise Unfit("does not contain a JSON object")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, Unfit) as error:
            self.miss(path, error)
        except (ValueError, RecursionError):
            self.miss(path, "is not JSON")
        return None


def _names(path: str) -> t.List[str]:
    """The names of a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def inner(value: t.Any, *keys: str) -> t.Any:
    """The value below keys of any JSON value, or None."""
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
