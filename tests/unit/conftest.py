# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hypothesis as these tests want it: no clocks to fail by on a busy machine, the same examples in every run.

ansible-test forks for each test, and lets no Python keep what it compiles. What is made once a process is made before the forks then.
"""

from __future__ import annotations

import gc
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from ansible_collections.volt.backup.plugins import module_utils
from ansible_collections.volt.backup.plugins.module_utils._base import journal

from . import kit

hypothesis.settings.register_profile("volt", deadline=None, derandomize=True, max_examples=60, database=None)
hypothesis.settings.load_profile("volt")


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.pluginmanager.has_plugin("ansible_forked"):
        return
    for found in pkgutil.walk_packages(module_utils.__path__, f"{module_utils.__name__}."):
        if not found.name.endswith(".__main__"):
            importlib.import_module(found.name)
    for make in [kit.command, *(make for module in {item.module for item in session.items} for make in getattr(module, "ONCE", ()))]:
        try:
            make()
        except Exception:  # the tests that need it will tell
            pass
    gc.collect()
    gc.freeze()  # or each fork's first collection would copy all that there is


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[kit.Journal]:
    """The journal that entries go to."""
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "journal"))
    with kit.Journal(journal.SOCKET) as end:
        yield end
