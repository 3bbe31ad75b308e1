# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Notes about the host itself, beside the records of runs: one small file that survives a reboot.

::

    told, pending    problems that were notified, and that are being notified: the parts of each
    units            units of the host itself that were declared
    ended            how the last run of each of these ended, if one did
    metrics          metrics that could not be written, by path: why

A damaged file counts as empty, and is rewritten.
"""

from __future__ import annotations

import json
import os
import typing as t

from .._base import files
from .command import remove
from .record import DIRECTORY, noting, writing

#: No workload has a name that begins with a dot.
_NAME = ".host.json"
_MOST = 16 << 20

Parts = t.Dict[str, t.List[str]]


class Notes(t.NamedTuple):
    """The file's content."""

    told: Parts = {}
    pending: Parts = {}
    units: t.List[str] = []
    ended: t.Dict[str, t.Dict[str, str]] = {}
    metrics: t.Dict[str, str] = {}


class Ledger:
    """The notes of a host."""

    def __init__(self, directory: str = DIRECTORY) -> None:
        self._directory, self._path = directory, os.path.join(directory, _NAME)

    def read(self) -> Notes:
        """What is noted; who may not read it learns nothing."""
        try:
            value = json.loads(files.read_file(self._path, _MOST))
        except (OSError, ValueError, RecursionError):
            return Notes()
        found = {name: value[name] for name in Notes._fields if isinstance(value, dict) and isinstance(value.get(name), type(Notes._field_defaults[name]))}
        return Notes(**found)

    def change(self, how: t.Callable[[Notes], Notes]) -> None:
        """Change the notes, one process at a time; they are written if they differ.

        :param how: makes the new notes of those that are there; it may be called twice.
        """
        if how(self.read()) == self.read():
            return
        with writing(self._path), noting(self._directory):
            before = self.read()
            after = how(before)
            if after != before:
                files.write_file(self._path, (json.dumps(after._asdict(), indent=1, sort_keys=True) + "\n").encode())

    def forget(self) -> None:
        """Nothing of the host is declared any more."""
        remove(self._path)
