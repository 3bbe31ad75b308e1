# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A control node: the programs of Ansible, with a configuration and a home of their own.

    node = control.Node(fleet, tmp_path, ansible)              # a directory and a warm.Ansible; or with some hosts of the fleet alone
    node.run("ansible-playbook", "volt.backup.status")
    node.play("- hosts: all\\n  tasks: [...]\\n", "--check")    # a playbook's text or path

A program runs in a process namespace of its own: when the tests die, so do its workers.
"""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

from .fleet import Fleet, Host
from .warm import Ansible


class Node:
    def __init__(self, fleet: Fleet, room: Path, ansible: Ansible, hosts: list[Host] | None = None) -> None:
        self._fleet, self._room, self._ansible, self._hosts = fleet, room, ansible, hosts
        self._inventory = room / "inventory"
        room.mkdir(parents=True, exist_ok=True)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of Ansible against its hosts that are on. What comes back is not judged."""
        self._fleet.inventory(self._inventory, self._hosts)  # anew: a test may have booted a host of its own
        return self._ansible.run(program, "-i", str(self._inventory), *arguments)

    def play(self, playbook: str | Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        if isinstance(playbook, str):
            path = self._room.parent / f"{uuid.uuid4().hex[:8]}.yml"
            path.write_text(playbook, encoding="utf-8")
            playbook = path
        return self.run("ansible-playbook", str(playbook), *arguments)
