# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A test that meets a lack of this machine is skipped, naming what is missing."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from ansible_collections.volt.backup.tests.rigs import Unavailable


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    try:
        return (yield)
    except Unavailable as lack:
        pytest.skip(str(lack))
