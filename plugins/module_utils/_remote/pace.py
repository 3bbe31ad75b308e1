# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What all threads of a push share: a limit of bandwidth, and a count of the bytes that went either way."""

from __future__ import annotations

import threading
import time
import typing as t

#: Seconds of sending that one piece may stand for: servers end connections on which nothing comes for a while.
_PIECE = 0.25
#: And its least and most bytes.
_LEAST, _MOST = 1 << 10, 256 << 10


class Pace:
    """Called before bytes are sent, it counts them, and waits until they may be.

    :param rate: bytes a second; None for no limit.
    :ivar moved: bytes that were sent or received, also those of attempts that failed.
    :ivar stopped: set, once what is sent or fetched is not wanted any more: then nothing is tried again.
    """

    def __init__(self, rate: t.Optional[float] = None) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self.stopped = threading.Event()
        self._free = 0.0  # when the next byte may be sent, of time.monotonic()
        self.moved = 0
        #: How many bytes to send at once.
        self.piece = _MOST if rate is None else int(min(max(rate * _PIECE, _LEAST), _MOST))

    def __call__(self, size: int) -> None:
        with self._lock:
            self.moved += size
            now = time.monotonic()
            start = now
            if self._rate is not None:
                start = max(now, self._free)  # what was not used is not made up for: no bursts
                self._free = start + size / self._rate
        if start > now:
            time.sleep(start - now)

    def received(self, size: int) -> None:
        """Count bytes that came."""
        with self._lock:
            self.moved += size


class Body:
    """The bytes of an upload as http.client reads them from a file."""

    def __init__(self, data: bytes, pace: Pace) -> None:
        self._data, self._pace, self._at = memoryview(data), pace, 0

    def read(self, size: int = -1) -> bytes:
        piece = self._data[self._at : self._at + (min(size, self._pace.piece) if size >= 0 else self._pace.piece)]
        self._at += len(piece)
        self._pace(len(piece))
        return bytes(piece)
