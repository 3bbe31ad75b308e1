# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every example that a user may copy runs as it stands: those in the modules' documentation, and the playbooks of the guides.

Nothing but their paths and times is changed: /srv and /var/lib lie in a temporary directory here, and so does the store; what was at noon
is taken for the future.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.volt.backup.plugins.module_utils._remote import about
from ansible_collections.volt.backup.plugins.module_utils._remote.directory import Directory
from ansible_collections.volt.backup.plugins.module_utils._remote.keys import Keys
from ansible_collections.volt.backup.tests.rigs import warm

from .conftest import PACKAGE

MODULES = ("volt_backup", "volt_backup_info", "volt_backup_prune", "volt_cas_gc", "volt_cas_verify", "volt_restore", "volt_restore_drill", "volt_runner")
TOP = Path(__file__).parents[2]
GUIDES = ("README.md", "docs/first-steps.md", "docs/schedules.md", "docs/predeploy.md", "docs/restore.md")
_YAML = re.compile(r"(?P<mark><!-- not run: [^>]* -->\n)?```yaml\n(?P<text>.*?)```", re.DOTALL)
DEPLOYS = {
    "good": "- ansible.builtin.copy: {dest: /srv/app/app.conf, content: 'release 42', mode: '0644'}\n",
    "bad": "- ansible.builtin.copy: {dest: /srv/app/new, content: 'release 42', mode: '0644'}\n- ansible.builtin.command: 'false'\n",
}


class Machine:
    """A place where the paths of the examples are."""

    def __init__(self, top: Path, ansible: warm.Ansible) -> None:
        self.top, self._ansible = top, ansible
        for name in ("srv/app/conf", "srv/app/tmp", "var/lib/machines/web/etc", "srv/backup", "bin", "mnt/nas/backup"):
            (top / name).mkdir(parents=True)
        about.begin(Directory(f"{top}/mnt/nas/backup"), Keys())
        (top / "srv/app/app.conf").write_text("release 41")
        (top / "srv/app/conf/old").write_text("x")
        (top / "var/lib/machines/web/etc/hostname").write_text("web\n")

    def move(self, text: str) -> str:
        text = text.replace("file:///mnt/", f"file://{self.top}/mnt/")
        return re.sub(r"(?<![\w./}])/(srv|var/lib)/", rf"{self.top}/\1/", text).replace("2026-11-23T12:00:00", "2999-11-23T12:00:00")

    def play(self, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        plays = yaml.safe_load(self.move(text))
        for play in plays:
            play.setdefault("module_defaults", {}).setdefault(
                "group/volt.backup.volt", {"store": f"{self.top}/cas", "backup_dir": f"{self.top}/backups"}
            )
            play["module_defaults"].setdefault("volt.backup.volt_runner", {"path": f"{self.top}/bin/volt-backup"})
            play["module_defaults"].setdefault("volt.backup.volt_restore_drill", {"scratch_dir": f"{self.top}/drill"})
        (self.top / "play.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
        (self.top / "inventory").write_text(
            f"[app]\nnode1 ansible_connection=local ansible_become=false ansible_python_interpreter={sys.executable} release=42\n"
        )
        return self._ansible.run("ansible-playbook", "-i", "inventory", "play.yml", "-D", *arguments, cwd=self.top)

    def files(self) -> dict[str, Any]:
        """What is below the paths of the examples."""
        return {
            str(path): (path.read_bytes() if path.is_file() else None, path.lstat().st_mtime_ns)
            for part in ("srv", "var", "cas", "backups", "bin")
            for path in (self.top / part).rglob("*")
        }


@pytest.fixture
def machine(tmp_path: Path, controller: warm.Ansible) -> Machine:
    return Machine(tmp_path, controller)


def guides() -> list[str]:
    return [match["text"] for name in GUIDES for match in _YAML.finditer((TOP / name).read_text(encoding="utf-8")) if not match["mark"]]


def playbook(about: str) -> str:
    (found,) = (text for text in guides() if text.startswith(about))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_module(machine: Machine, module: str) -> None:
    tasks = yaml.safe_load(importlib.import_module(f"{PACKAGE}.{module}").EXAMPLES)
    if module.startswith("volt_cas"):  # which are for stores that are there, and copies
        copied = {"remote": "file:///mnt/nas/backup", "push_to_cdn": True}
        made = {"volt.backup.volt_backup": {"workload": "app", "source": "/srv/app", "max_age": "1h", **copied}}
        assert machine.play(yaml.safe_dump([{"hosts": "app", "gather_facts": False, "tasks": [made]}])).returncode == 0
    play = yaml.safe_dump([{"hosts": "app", "gather_facts": False, "tasks": tasks}], sort_keys=False)
    played = machine.play(play)
    assert played.returncode == 0, played.stdout
    assert "[WARNING]" not in played.stdout and "[DEPRECATION" not in played.stdout, played.stdout
    before = machine.files()
    checked = machine.play(play, "--check")
    assert checked.returncode == 0, checked.stdout
    assert machine.files() == before


def test_every_example_of_the_guides_is_known() -> None:
    kinds = [yaml.safe_load(text) for text in guides()]
    assert [kind[0]["name"] if isinstance(kind, list) else list(kind) for kind in kinds] == [
        ["collections"], ["volt_schedule_workloads"], "Back up every host's workloads", "Use another store for all modules", "Deploy, or restore",
    ]  # fmt: skip


@pytest.mark.costly
def test_every_hosts_workloads(machine: Machine) -> None:
    (machine.top / "host_vars").mkdir()
    (machine.top / "host_vars" / "node1.yml").write_text(machine.move(playbook("volt_schedule_workloads:")))
    play = playbook("- name: Back up every host's workloads")
    before = machine.files()
    for arguments, count in ((["--check"], "changed=1"), ([], "changed=1"), (["--check"], "changed=0"), ([], "changed=0")):
        played = machine.play(play, *arguments)
        assert played.returncode == 0 and count in played.stdout, played.stdout
        if arguments and count == "changed=1":
            assert machine.files() == before
            assert "+app.conf" in played.stdout and "+tmp" not in played.stdout


@pytest.mark.parametrize("deploy", DEPLOYS)
@pytest.mark.costly
def test_deploy(machine: Machine, deploy: str) -> None:
    (machine.top / "deploy.yml").write_text(machine.move(DEPLOYS[deploy]))
    play = playbook("- name: Deploy, or restore")
    before = machine.files()
    checked = machine.play(play, "--check")
    assert checked.returncode == 0, checked.stdout  # a command is skipped in check mode
    assert machine.files() == before
    played = machine.play(play)
    conf, new = machine.top / "srv/app/app.conf", machine.top / "srv/app/new"
    if deploy == "good":
        assert played.returncode == 0, played.stdout
        assert conf.read_text() == "release 42"
    else:
        assert played.returncode == 2, played.stdout
        assert re.search(r"The deploy of 42 failed; app-\d{8}-\d{6}-pre-deploy is restored", played.stdout), played.stdout
        assert conf.read_text() == "release 41" and not new.exists()


def test_restore_of_the_unknown_in_check_mode(machine: Machine) -> None:
    """The deploy fails in check mode already: the restore of a backup that was not made is planned, not refused."""
    (machine.top / "deploy.yml").write_text("- ansible.builtin.fail: {msg: no such release}\n")
    checked = machine.play(playbook("- name: Deploy, or restore"), "--check")
    assert checked.returncode == 2 and "rescued=1" in checked.stdout, checked.stdout
    assert "The id is null" not in checked.stdout and "Restore that backup" in checked.stdout


@pytest.mark.costly
def test_operations(machine: Machine) -> None:
    """The play of docs/operations.md, on what the play of first steps has backed up; then once more, with something damaged."""
    (machine.top / "host_vars").mkdir()
    (machine.top / "host_vars" / "node1.yml").write_text(machine.move(playbook("volt_schedule_workloads:")))
    assert machine.play(playbook("- name: Back up every host's workloads")).returncode == 0
    text = (TOP / "docs" / "operations.md").read_text(encoding="utf-8")
    (match,) = (found for found in _YAML.finditer(text) if found["text"].startswith("- name:"))
    for arguments, count in ((["--check"], "changed=1"), ([], "changed=1"), ([], "changed=0")):  # two workloads' tiny packs are merged
        played = machine.play(match["text"], *arguments)
        assert played.returncode == 0 and count in played.stdout, played.stdout
    for path in (machine.top / "cas" / "packs").rglob("*.pack*"):
        path.write_bytes(b"x")
    played = machine.play(match["text"])
    assert played.returncode == 2 and "backup(s) are damaged" in played.stdout and "Free what" not in played.stdout, played.stdout


def test_another_store(machine: Machine) -> None:
    played = machine.play(playbook("- name: Use another store"))
    assert played.returncode == 0, played.stdout
