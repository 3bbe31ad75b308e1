# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The size of a tree: the sum of the sizes of its files."""

from __future__ import annotations

import os
import stat
import typing as t

from .._base import open_directory
from .._fs.descent import Moved, Trail, listing
from .._fs.mounts import PSEUDO, Kinds


class Measure:
    """One tree after another. `size` in bytes, and `lacking`: how many directories could not be read."""

    def __init__(self) -> None:
        self.size = self.lacking = 0
        self._kinds = Kinds()
        self._linked: t.Set[t.Tuple[int, int]] = set()

    def tree(self, path: str) -> Measure:
        """Go through a tree. No symbolic link is followed, a file with several names counts once, and no file system is entered
        that shows the kernel. Files that vanish meanwhile do not count.
        """
        self.size = self.lacking = 0
        self._linked.clear()
        try:
            root = open_directory(path)
        except FileNotFoundError:
            return self
        except OSError:
            self.lacking = 1
            return self
        with Trail(root) as trail:
            try:
                self._walk(trail)
            except Moved:
                self.lacking += 1
        return self

    def _walk(self, trail: Trail) -> None:
        levels = [self._look(trail.fd)]  # of each directory on the way down, those in it that are still to come
        while levels:
            if not levels[-1]:
                levels.pop()
                if levels:
                    trail.leave()
                continue
            try:
                trail.enter(levels[-1].pop())
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                self.lacking += 1
                continue
            levels.append(self._look(trail.fd))

    def _look(self, fd: int) -> t.List[str]:
        """Count a directory's files; its directories."""
        down: t.List[str] = []
        try:
            device = os.fstat(fd).st_dev
            for name, info in listing(fd)[0]:
                if stat.S_ISDIR(info.st_mode):
                    if info.st_dev == device or self._kinds(info.st_dev) not in PSEUDO:
                        down.append(name)
                elif stat.S_ISREG(info.st_mode) and self._is_first(info):
                    self.size += info.st_size
        except FileNotFoundError:
            pass
        except OSError:
            self.lacking += 1
        return down

    def _is_first(self, info: os.stat_result) -> bool:
        """Whether a file is met for the first time."""
        if info.st_nlink == 1:
            return True
        file = (info.st_dev, info.st_ino)
        known = file in self._linked
        self._linked.add(file)
        return not known
