# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three real hosts for all tests of a run, one a suite, and Ansible to play on them.

They boot when the first test asks for them, and are told apart by their suites' names. Tests share them: each works in a directory of
its own (`place`), and whoever must break a host boots one of its own: `fleet.boot(name, suite)`, to be ended by `Host.kill()`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Callable, Iterator

import pytest
from ansible_collections.volt.backup.tests.rigs import Unavailable
from ansible_collections.volt.backup.tests.rigs.fleet import SUITES, Fleet

Play = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    try:
        with Fleet() as hosts:
            for suite in SUITES:
                hosts.boot(suite, suite)
            for host in list(hosts.hosts.values()):
                host.ready()
            yield hosts
    except Unavailable as lack:  # fixtures run outside the hook that turns this into a skip
        pytest.skip(f"no real hosts: {lack}")


@pytest.fixture
def place(fleet: Fleet) -> Iterator[str]:
    """The path, on every host, of a new directory that is no overlay; from outside it is `host.srv / Path(place).name`."""
    name = uuid.uuid4().hex[:8]
    for host in fleet.hosts.values():
        (host.srv / name).mkdir()
    yield f"/srv/{name}"


@pytest.fixture
def ansible(fleet: Fleet, tmp_path: Path) -> Play:
    """Run a program of Ansible against the fleet: `ansible("ansible", "all", "-m", "ping")`."""
    room = tmp_path / "ansible"
    room.mkdir()
    config = room / "ansible.cfg"  # nobody else's
    config.write_text("[defaults]\nnocolor = true\n[connection]\npipelining = true\n", encoding="ascii")

    def run(program: str, *args: str) -> subprocess.CompletedProcess[str]:
        fleet.inventory(room / "inventory")  # anew: a test may have booted a host of its own
        settings = {"ANSIBLE_HOME": str(room), "ANSIBLE_CONFIG": str(config), "LC_ALL": "C.UTF-8"}
        return subprocess.run([str(Path(sys.executable).with_name(program)), "-i", str(room / "inventory"), *args], env={**os.environ, **settings},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False)

    return run


@pytest.fixture
def play(ansible: Play, tmp_path: Path) -> Play:
    """Run a playbook, given as its text or its path, with further arguments of ansible-playbook. What comes back is not judged."""

    def run(playbook: str | Path, *args: str) -> subprocess.CompletedProcess[str]:
        if isinstance(playbook, str):
            path = tmp_path / f"{uuid.uuid4().hex[:8]}.yml"
            path.write_text(playbook, encoding="utf-8")
            playbook = path
        return ansible("ansible-playbook", str(playbook), *args)

    return run
