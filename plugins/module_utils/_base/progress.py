# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""How far work has come, told to one who watches; and where it stands, for one who looks on."""

from __future__ import annotations

import typing as t

#: Called with (files, bytes) done since the last call.
Progress = t.Callable[[int, int], None]


def unwatched(_files: int, _size: int) -> None:
    """For work that is not watched."""


class Phase(t.NamedTuple):
    """A part of some work. Another thread calls `steps` and `path`, so that the work itself need not tell anything.

    `name`: what is being done, as in "while reading". `steps`: gives another value once the work has moved on. `path`: where it stands.
    `patience`: seconds more than usual for which it may stand still, since it waits for others.
    """

    name: str
    steps: t.Callable[[], object] = lambda: None
    path: t.Callable[[], bytes] = lambda: b""
    patience: float = 0.0


class Standing:
    """Where work stands, for one who looks on from another thread.

    :ivar phase: the present one. Work sets another when it comes to it.
    """

    def __init__(self) -> None:
        self.phase = Phase("beginning")
