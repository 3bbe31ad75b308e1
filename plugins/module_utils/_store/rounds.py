# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""How far the verification of a store's content has come, and when each part of the store was last read, in `cache/verify.json`.

::

    {"next": the first name that was not read, "since": when its shard was begun, "hashed": {shard: when}}      times in ns since 1970
"""

from __future__ import annotations

import contextlib
import json
import time
import typing as t

from .._base import store_errors
from .cache import Cache

#: How many names there are.
SPACE = 1 << 256
_FILE, _FILE_MOST = "verify.json", 65536
#: In place of a time.
_NEVER = 0


class Rounds:
    """What verifications have read.

    :ivar next: the first name that the last one with a budget did not read, as a number.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._read = False
        self._next = 0
        self._since = _NEVER
        self._hashed: t.Dict[str, int] = {}

    @property
    def next(self) -> int:
        """The first name, as a number, that the last verification with a budget did not read; 0 where that is not known."""
        self._load()
        return self._next

    def hashed(self, name: bytes) -> int:
        """Since when all files of a name's shard that were there then have been hashed, in ns since 1970; 0 for never."""
        self._load()
        return self._hashed.get(name[:1].hex(), _NEVER)

    def begin(self, at: int) -> int:
        """When the shard of a name was begun, if reading goes on from there now; 0 where a part of it was not read.

        :param at: a name, as a number.
        """
        self._load()
        if at % (1 << 248) == 0:
            return time.time_ns()
        return self._since if at == self._next else _NEVER

    def end(self, at: int, since: int) -> None:
        """Note that a shard was read up to a name. :param at: the first name that was not, as a number; 0 at the end. :param since: of `begin`."""
        if at % (1 << 248) == 0:
            if since:
                self._hashed[f"{(at - 1) % SPACE >> 248:02x}"] = since
            since = _NEVER
        self._next, self._since = at, since

    def save(self) -> None:
        """Write it down. StoreFull or StoreError where that fails."""
        value = {"next": f"{self._next:064x}", "since": self._since, "hashed": dict(sorted(self._hashed.items()))}
        with store_errors("saving the progress of the verification"):
            self._cache.write(_FILE, (json.dumps(value) + "\n").encode())

    def _load(self) -> None:
        if self._read:
            return
        self._read = True
        # if another version wrote it, or it is lost: where the round stopped, as far as that can be read, and nothing was hashed
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            value = json.loads(self._cache.read(_FILE, _FILE_MOST) or b"")
            self._next = int(value["next"], 16) % SPACE
            now = time.time_ns()
            self._since = _past(value["since"], now)
            self._hashed = {str(shard): _past(moment, now) for shard, moment in value["hashed"].items()}


def _past(moment: t.Any, now: int) -> int:
    """A time; one that has not come yet was taken by a wrong clock, and tells nothing."""
    return moment if isinstance(moment, int) and 0 < moment <= now else _NEVER
