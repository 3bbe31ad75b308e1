# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Removing a tree without ever leaving it, and without losing what a backup never held.

Things that `preserve` covers stay where they are. A mount point is never crossed, and no subvolume is entered: they are not part of the tree. What
cannot be removed is named, and the rest goes.
"""

from __future__ import annotations

import errno
import os
import stat
import typing as t

from .._format.walk import join
from .._fs.descent import Trail, listing
from .preserve import Preserve

#: What says that a thing stays: it is a mount point, or immutable (`chattr +i`), or in a directory that is.
_STAYS = (errno.EBUSY, errno.EPERM, errno.EACCES)


class Remover:
    """Removes trees; `removed` counts, `kept` names what stayed.

    :param preserve: what a backup never held, so that it must not go; None where everything may.
    """

    def __init__(self, preserve: t.Optional[Preserve]) -> None:
        self._preserve = preserve
        self.removed = 0
        self.kept: t.List[bytes] = []

    def remove(self, directory: int, name: bytes, path: bytes) -> None:
        """Remove `name` in an open directory, with all below it; `path` is where that is from the root of the backup."""
        try:
            info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(info.st_mode):
            self._unlink(directory, name, path)
            return
        if info.st_dev != os.fstat(directory).st_dev:
            self.kept.append(path)  # mounted, or a subvolume
            return
        with Trail(os.dup(directory)) as trail:
            # path, name, subdirectories to do, whether something stays in it
            stack: t.List[t.Tuple[bytes, bytes, t.List[bytes], bool]] = []
            entered = self._enter(trail, name, path, info.st_dev)
            stack += [entered] if entered is not None else []
            while stack:
                path, name, below, stays = stack[-1]
                if below:
                    child = below.pop()
                    entered = self._enter(trail, child, join(path, child), info.st_dev)
                    if entered is None:
                        stack[-1] = (path, name, below, self._is_there(trail.fd, child))
                    else:
                        stack.append(entered)
                    continue
                stack.pop()
                trail.leave()
                stays = stays or not self._rmdir(trail.fd, name, path)
                if stays and stack:
                    stack[-1] = (*stack[-1][:3], True)

    def _enter(self, trail: Trail, name: bytes, path: bytes, device: int) -> t.Optional[t.Tuple[bytes, bytes, t.List[bytes], bool]]:
        """Go down, and remove all but the subdirectories; None where something is mounted there, and where it has just gone."""
        try:
            info = trail.enter_on_mount(name)
        except OSError as error:
            if error.errno == errno.EXDEV:
                self.kept.append(path)
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            return None
        if info.st_mode & 0o700 != 0o700 and os.geteuid() != 0:
            os.fchmod(trail.fd, info.st_mode & 0o7777 | 0o700)
        below, stays = [], False
        items, names = listing(trail.fd)
        hollow = self._preserve is not None and self._preserve.covers_inside(path, trail.fd, set(names))
        for raw, (_name, found) in zip(names, items):
            directory, here = stat.S_ISDIR(found.st_mode), join(path, raw)
            if hollow or self._preserve is not None and self._preserve.covers_extraneous(path, raw, found.st_mode):
                stays = True
            elif directory and found.st_dev != device:
                self.kept.append(here)  # mounted, or a subvolume
                stays = True
            elif directory:
                below.append(raw)
            else:
                stays = not self._unlink(trail.fd, raw, here) or stays
        return path, name, below, stays

    @staticmethod
    def _is_there(directory: int, name: bytes) -> bool:
        try:
            os.stat(name, dir_fd=directory, follow_symlinks=False)
            return True
        except FileNotFoundError:
            return False

    def _unlink(self, directory: int, name: bytes, path: bytes) -> bool:
        try:
            os.unlink(name, dir_fd=directory)
            self.removed += 1
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in _STAYS:
                raise
            self.kept.append(path)
            return False
        return True

    def _rmdir(self, directory: int, name: bytes, path: bytes) -> bool:
        try:
            os.rmdir(name, dir_fd=directory)
            self.removed += 1
            return True
        except OSError as error:
            if error.errno == errno.ENOENT:
                return True
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, *_STAYS):
                raise
            self.kept.append(path)  # something was put in, or is mounted on it
            return False
