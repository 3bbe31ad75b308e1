# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The progress of work, for a progress bar; and its current step, for a watchdog."""

from __future__ import annotations

import typing as t

#: Called with (files, bytes) done since the last call.
Progress = t.Callable[[int, int], None]


def unwatched(_files: int, _size: int) -> None:
    """For work that is not watched."""


class Phase(t.NamedTuple):
    """A part of some work. Another thread calls `steps` and `path`, so that the work does not have to report.

    `name`: the activity, as in "while reading". `steps`: returns another value after progress. `path`: the current path.
    `patience`: additional seconds without progress that are allowed, because it waits for others.
    """

    name: str
    steps: t.Callable[[], object] = lambda: None
    path: t.Callable[[], bytes] = lambda: b""
    patience: float = 0.0


class Standing:
    """The current part of the work, for a watchdog in another thread.

    :ivar phase: the present one. Work sets another when it comes to it.
    """

    def __init__(self) -> None:
        self.phase = Phase("beginning")
