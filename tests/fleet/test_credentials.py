# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose keys systemd keeps: its unit copies to a sealed remote, and no file has the keys in the clear."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._remote import sealed
from ansible_collections.volt.backup.tests.rigs import control, warm
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet, Host

from .test_recovery import ROLES, STORE, Equipped

REMOTE = {"name": "vault", "url": "file:///srv/vault", "keys": "credential:vault"}
KEYS, KEPT, GIVEN = "/etc/volt/remotes/vault.keys", "/etc/credstore.encrypted/vault", "/root/given"
DROP_IN = "/etc/systemd/system/volt-backup-app.service.d/keys.conf"


@pytest.fixture
def host(fleet: Fleet) -> Iterator[Host]:
    host = fleet.boot("credentials", "bookworm", Equipped)
    host.ready()
    yield host
    host.kill()


def run(host: Host) -> tuple[bool, str]:
    """Start the unit: whether its backup was copied, and why not."""
    failed = host.run("systemctl", "start", "volt-backup-app.service", check=False).returncode != 0
    places = ("--store", STORE["volt_schedule_store"], "--backup-dir", STORE["volt_schedule_backup_dir"], "--json")
    newest: dict[str, Any] = json.loads(host.run("volt-backup", "list", "app", *places).stdout)["backups"][0]
    (row,) = json.loads(host.run("volt-backup", "status", "--json", check=False).stdout)["schedules"]
    assert failed is not newest["pushed_to_cdn"]
    return newest["pushed_to_cdn"], row["reason"] or ""


@pytest.mark.costly
def test_keys_that_systemd_keeps(host: Host, fleet: Fleet, tmp_path: Path, controller: warm.Ansible) -> None:
    node = control.Node(fleet, tmp_path / "node", controller, [host])
    host.run("mkdir", "-p", "/srv/vault", "/srv/app", str(Path(KEPT).parent), str(Path(DROP_IN).parent))
    variables = {
        **STORE, "volt_remote_name": "vault", "volt_remote_url": REMOTE["url"], "volt_remote_init": True, "volt_remote_packages": [],
        "volt_remote_recovery_key": sealed.new_recovery().text(),
        "volt_schedule_workloads": [{"workload": "app", "source": "/srv/app", "on_calendar": "2040-01-01", "remote": "vault", "push_to_cdn": True}],
    }  # fmt: skip
    encrypt = {"name": "Encrypt the keys", "ansible.builtin.command": {"cmd": f"systemd-creds encrypt --name=vault {KEYS} {KEPT}", "creates": KEPT}}
    remove = {"name": "Remove the file", "ansible.builtin.file": {"path": KEYS, "state": "absent"}}
    declare = {"name": "Declare the remote", "volt.backup.volt_remote": REMOTE}
    play = tmp_path / "play.yml"
    play.write_text(json.dumps([
        {"hosts": "all", "gather_facts": False, "roles": [f"volt.backup.{role}" for role in ROLES], "post_tasks": [encrypt]},
    ]), encoding="utf-8")  # fmt: skip
    (tmp_path / "vars.json").write_text(json.dumps(variables), encoding="utf-8")
    done = node.run("ansible-playbook", str(play), "-e", f"@{tmp_path / 'vars.json'}")
    assert done.returncode == 0, done.stdout
    secret = json.loads(host.run("cat", KEYS).stdout)["naming"]
    play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [remove, declare]}]), encoding="utf-8")
    done = node.run("ansible-playbook", str(play), "-D")
    assert done.returncode == 0 and "credential:vault" in done.stdout, done.stdout

    assert run(host) == (True, "")
    assert host.run("grep", "-rl", secret, "/etc", "/run", "/srv", "/var", "/root", check=False).stdout == ""

    host.run("sh", "-c", f"systemd-creds decrypt --name=vault {KEPT} {GIVEN}; echo damaged >{KEPT}")
    copied, reason = run(host)
    assert not copied and "Credential vault cannot be decrypted" in reason, reason

    host.run("sh", "-c", f"printf '[Service]\\nLoadCredential=vault:{GIVEN}\\n' >{DROP_IN}; systemctl daemon-reload")
    assert run(host) == (True, "")
