# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A test that meets a lack of this machine is skipped, naming what is missing. Tests mount in a namespace of their own.

No test knows where the backups of this machine are, or writes to its journal.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import host
from ansible_collections.volt.backup.plugins.module_utils._base import journal
from ansible_collections.volt.backup.tests.rigs import Unavailable, mounts, sample

PRIVATE = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)  # before pytest itself chooses a directory
def pytest_configure(config: pytest.Config) -> None:
    config.stash[PRIVATE] = mounts.private()
    if config.option.basetemp is None and not hasattr(config, "workerinput"):
        have_directory(config)
    os.environ.pop("COLUMNS", None)  # pytest-xdist sets it for its workers, and tables would fit it
    config.addinivalue_line("markers", "costly: takes seconds of processor time; the usual mode runs a third of these tests, selected by the seed")
    be_interruptible()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out most of the costly tests, unless tests are asked for by their names."""
    if config.option.keyword or any("::" in argument for argument in config.args):
        return
    costly = [item for item in items if item.get_closest_marker("costly")]
    left = {*costly}.difference(sample.some(costly, -(-len(costly) // 3), "costly"))
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


def have_directory(config: pytest.Config) -> None:
    """A directory of this run alone for `tmp_path`, which goes with it; `--basetemp=DIR` keeps one.

    Runs side by side would share pytest's own choice. One that ends removes its directory and then, at its exit, the lock of the run that has taken the
    same name since; a third run takes that one for dead, and removes its files while it works.
    """
    path = tempfile.mkdtemp(prefix="volt-pytest-")
    config.option.basetemp = path
    config.add_cleanup(lambda: shutil.rmtree(path, ignore_errors=True))


def be_interruptible() -> None:
    """A run that is told to end cleans up as one does that is interrupted, also where its parent ignored both signals."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [sample.HEADER, f"mounts: {'of these tests alone' if config.stash[PRIVATE] else 'shared with other processes'}"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    be_interruptible()  # again: Ansible, where an earlier test has it in this process, sets handlers of its own
    return (yield from skip_what_lacks())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    return (yield from skip_what_lacks())


def skip_what_lacks() -> Generator[None, None, None]:
    try:
        return (yield)
    except Unavailable as lack:
        pytest.skip(str(lack))


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that other users can enter. `tmp_path` can be none: each pytest that starts closes the directory which has those of all."""
    with tempfile.TemporaryDirectory(prefix="volt-tests-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(autouse=True)
def host_file(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The host file of this test, which is not there. Nothing gets into the journal of this machine."""
    place = tmp_path_factory.getbasetemp() / f"host-{uuid4().hex}"  # `mktemp` would look at the directories of all tests before this one
    place.mkdir()
    monkeypatch.setattr(host, "PATH", str(place / "backup.json"))
    monkeypatch.setattr(journal, "SOCKET", str(place / "journal"))
    yield place / "backup.json"
    shutil.rmtree(place)
