# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What a backup left out on purpose or by necessity, and a restore therefore leaves alone."""

from __future__ import annotations

import stat
import typing as t

from .._fs.exclusions import CACHEDIR_TAG, PARTLY, Exclusions, Skipped, is_cache

#: Of these only the content is missing from the backup; the directory itself is in it.
_HOLLOW = ("mount", "pseudo", "unlisted")


class Preserve:
    """Rules by which the backup did not look at something."""

    def __init__(self, exclude: Exclusions, caches: bool, skipped: t.Iterable[Skipped]) -> None:
        self._exclude, self._caches = exclude, caches
        skipped = [item for item in skipped if item.reason not in PARTLY]  # of these the backup has all else
        self._whole = {item.path for item in skipped if item.reason not in _HOLLOW}
        self._hollow = {item.path for item in skipped if item.reason in _HOLLOW}

    def __bool__(self) -> bool:
        return bool(self._exclude or self._caches or self._whole or self._hollow)

    def covers(self, parent: bytes, name: bytes, is_directory: bool) -> bool:
        """Whether `name` in the directory `parent` (itself not covered) is none of the backup's business."""
        if self._whole and (parent + b"/" + name if parent else name) in self._whole:
            return True
        return bool(self._exclude) and self._exclude.excludes(parent, name, is_directory)

    def covers_extraneous(self, parent: bytes, name: bytes, mode: int) -> bool:
        """The same for what the backup does not have. A symlink may stand where a directory was that the backup left out."""
        return self.covers(parent, name, stat.S_ISDIR(mode)) or stat.S_ISLNK(mode) and self.covers(parent, name, True)

    def covers_inside(self, path: bytes, directory: int, names: t.Container[bytes], tagged: bool = False) -> bool:
        """Whether what is in this directory (save a cache's tag) is none of the backup's business.

        :param directory: a descriptor of it; `names`: what is in it. :param tagged: the backup has the directory with a cache's tag.
        """
        if path in self._hollow or path in self._whole:
            return True
        return self._caches and path != b"" and (tagged or CACHEDIR_TAG in names and is_cache(directory))

    def is_tagged(self, directory: int) -> bool:
        """Whether a directory, were it the backup's, is a cache of which only the tag was taken."""
        return self._caches and is_cache(directory)
