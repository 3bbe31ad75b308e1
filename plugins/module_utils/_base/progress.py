# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""How far work has come, told to one who watches."""

from __future__ import annotations

import typing as t

#: Called with (files, bytes) done since the last call.
Progress = t.Callable[[int, int], None]


def unwatched(_files: int, _size: int) -> None:
    """For work that is not watched."""
