# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Threads that compress, hash and write for a transaction, and what it counts on the way."""

from __future__ import annotations

import os
import threading
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor

COUNT = max(2, min(4, os.cpu_count() or 2))
#: Finished packs and large files that may wait for a worker: bounds the memory, keeps the workers busy.
_WAITING = 2 * COUNT


class Workers:
    """A few threads with a bounded queue."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(COUNT, thread_name_prefix="volt")
        self._slots = threading.Semaphore(_WAITING)

    def submit(self, call: t.Callable[..., t.Any], *arguments: t.Any) -> Future[t.Any]:
        """Hand work to a thread; waits while too much is under way, so that memory stays bounded."""
        self._slots.acquire()
        try:
            future = self._pool.submit(call, *arguments)
        except BaseException:
            self._slots.release()
            raise
        future.add_done_callback(lambda _done: self._slots.release())
        return future

    def stop(self) -> None:
        """Wait for what is under way; what is not begun is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Counts:
    """What a transaction adds to its store; any thread.

    :ivar new_blobs: blobs of content that were not in the store before. :ivar new_bytes: their plain size.
    :ivar stored_bytes: bytes that are added to the store, metadata included, as written.
    :ivar steps: another number once something was done, for one who looks on.
    """

    def __init__(self) -> None:
        self.new_blobs = self.new_bytes = self.stored_bytes = self.steps = 0
        self._mutex = threading.Lock()

    def step(self) -> None:
        """Something was done, be it new or not."""
        self.steps += 1  # two threads at once may make it one: no matter, it is another number

    def add_new(self, size: int) -> None:
        with self._mutex:
            self.new_blobs += 1
            self.new_bytes += size

    def add_stored(self, size: int) -> None:
        with self._mutex:
            self.stored_bytes += size
        self.step()

    def take_back(self, size: int, stored: int) -> None:
        """What an object added that this transaction does not bring after all."""
        with self._mutex:
            self.new_blobs -= 1
            self.new_bytes -= size
            self.stored_bytes -= stored
