# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of Ansible that a server forks do what programs of their own do, and leave nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.tests.rigs import warm

PLAY = [{"hosts": "all", "gather_facts": False, "tasks": [
    {"ansible.builtin.debug": {"msg": "{{ lookup('ansible.builtin.env', 'TOLD') }} {{ lookup('ansible.builtin.pipe', 'pwd') }} {{ asked | default('') }}"}},
    {"volt.backup.volt_backup_info": {"include": ["store"], "store": "{{ playbook_dir }}/none"}, "ignore_errors": True},
    {"ansible.builtin.fail": {"msg": "it ends here"}, "when": "asked is defined"},
]}]  # fmt: skip


@pytest.fixture
def ansible(tmp_path: Path) -> Iterator[warm.Ansible]:
    with warm.Ansible(tmp_path / "room", TOLD="so it is") as server:
        yield server


def test_a_run_is_that_of_the_program(ansible: warm.Ansible, tmp_path: Path) -> None:
    """The same output and status, of runs one after the other: none has variables, a working directory or a temporary directory of another."""
    (tmp_path / "play.yml").write_text(json.dumps(PLAY), encoding="utf-8")
    own = {"ANSIBLE_HOME": str(tmp_path / "own"), "ANSIBLE_CONFIG": str(tmp_path / "room/ansible.cfg"), "LC_ALL": "C.UTF-8"}
    environment = {**os.environ, "TOLD": "so it is", **own}
    for status, place, more in ((2, "room", ["-e", "asked=twice"]), (0, ".", []), (1, ".", ["none.yml"]), (0, ".", ["--list-tasks"])):
        words = ["-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}", *more, f"{tmp_path}/play.yml"]
        done = ansible.run("ansible-playbook", *words, cwd=tmp_path / place)
        alone = subprocess.run([str(Path(sys.executable).with_name("ansible-playbook")), *words], env=environment, cwd=tmp_path / place,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip
        assert (done.returncode, done.stdout) == (alone.returncode, alone.stdout) and done.returncode == status
    assert "so it is" in ansible.run("ansible", "localhost", "-m", "ansible.builtin.debug", "-a", "msg={{ lookup('ansible.builtin.env', 'TOLD') }}").stdout
    (own,) = (tmp_path / "room/tmp").iterdir()  # the server's
    assert sorted(os.listdir(tmp_path)) == ["own", "play.yml", "room"] and sorted(os.listdir(tmp_path / "room")) == ["ansible.cfg", "tmp"]
    ansible.close()
    assert not own.exists()


def test_a_server_does_not_need_the_output_of_its_starter(tmp_path: Path) -> None:
    """Ansible in this process, as pytest-ansible runs it, keeps it from being inherited."""
    os.set_inheritable(1, False)
    try:
        with warm.Ansible(tmp_path / "room") as server:
            done = server.run("ansible-playbook", "--version")
    finally:
        os.set_inheritable(1, True)
    assert done.returncode == 0 and done.stdout.startswith("ansible-playbook [core")


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    with warm.Ansible(tmp_path / "room", PYTHONHOME="/nonexistent") as server:
        with pytest.raises(RuntimeError, match="was not run: its server ended with 1: (.|\n)*nonexistent"):
            server.run("ansible-playbook", "--version")


def test_what_runs_too_long_is_ended(ansible: warm.Ansible, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    play: list[dict[str, Any]] = [{"hosts": "localhost", "gather_facts": False, "tasks": [{"ansible.builtin.command": f"cat {pipe}"}]}]
    (tmp_path / "play.yml").write_text(json.dumps(play), encoding="utf-8")
    with pytest.raises(subprocess.TimeoutExpired):
        ansible.run("ansible-playbook", str(tmp_path / "play.yml"), timeout=1)
    with pytest.raises(OSError, match="descriptor"):
        ansible.run("ansible-playbook", "--version")
