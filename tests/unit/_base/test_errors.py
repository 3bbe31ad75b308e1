# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import sys

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import errors


@pytest.mark.parametrize(
    "most, words",
    [
        ((1 << 63) - 1, "value too large for defined data type"),
        ((1 << 31) - 1, "a time after 2038, or another number, is too large for programs of this 32-bit host"),
    ],
)
def test_what_is_too_large(most: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """stat(2) says that of a file whose time does not fit into 32 bits."""
    monkeypatch.setattr(sys, "maxsize", most)
    assert errors.reason(OSError(errno.EOVERFLOW, "")) == words
