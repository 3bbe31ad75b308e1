# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What keeps a new backup from being worse than none."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._base import SourceError, show
from .records import Sidecar


def refuse_emptied(source: bytes, newest: t.Callable[[], t.Optional[Sidecar]]) -> None:
    """SourceError for a source that is empty and was not: a file system that is not mounted looks like that. A backup of it would be green, and
    retention would push the good ones out.

    :param newest: finds the newest backup of this source, complete or not.
    """
    with contextlib.suppress(OSError):  # what cannot be listed is told of by the capture itself
        if os.listdir(source):
            return
        last = newest()
        if last is not None and last["file_count"]:
            raise SourceError(
                f"Source {show(source)} is empty, and {last['id']} of it is not; mount what belongs there. If it is meant to be empty, back it up once with"
                " allow_empty: true (on the command line --allow-empty)."
            )
