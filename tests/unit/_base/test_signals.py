# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A signal that stops a run leaves no lock taken, wherever it comes."""

from __future__ import annotations

import os
import signal
import threading
import time

from ansible_collections.volt.backup.plugins.module_utils._base import Interrupted, interruptible


def test_a_condition_is_not_left_taken() -> None:
    """Signals come at any moment while one is taken and given back all the time. Without care, one in a few leaves it taken."""

    def send() -> None:
        time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    for _turn in range(100):
        condition = threading.Condition()
        sender = threading.Thread(target=send)
        try:
            with interruptible():
                sender.start()
                while True:
                    with condition:
                        pass
        except Interrupted:
            pass
        sender.join()
        free: list[bool] = []
        other = threading.Thread(target=lambda: free.append(condition.acquire(timeout=5)))  # noqa: B023  called at once
        other.start()
        other.join()
        assert free == [True]
