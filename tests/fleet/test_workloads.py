# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads found on real hosts feed schedules and backups as they are; and the examples of the modules that tests/module cannot run."""

from __future__ import annotations

import importlib
import json
import re
from typing import Any, Callable, Iterator

import pytest
import yaml
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet

FOUND = ["nspawn-web", "podman-data", "vm-db", "volt-api"]
FURNISH = """
mkdir -p /var/lib/machines/web/etc /var/lib/volt/containers/api/rootfs/etc /var/lib/volt/vms/db /var/lib/containers/storage/volumes/data/_data /srv/app
echo web >/var/lib/machines/web/etc/hostname
echo api >/var/lib/volt/containers/api/rootfs/etc/hostname
echo '{"mode": "hybrid-kvm"}' >/var/lib/volt/vms/db/vm.json
truncate -s 1M /var/lib/volt/vms/db/disk.raw
echo 1 >/var/lib/containers/storage/volumes/data/_data/1
"""
REMOVE = (
    "rm -rf /var/lib/machines/web /var/lib/volt/containers /var/lib/volt/vms /var/lib/volt/cas /var/lib/volt/backups /var/lib/containers /srv/app /srv/backup"
)
PACKAGE = "ansible_collections.volt.backup.plugins.modules"


@pytest.fixture
def hosts(fleet: Fleet, ansible: Callable[..., Any]) -> Iterator[Callable[..., str]]:
    """Run a playbook of the collection, which must succeed, on hosts that have a workload of several kinds."""

    def run(name: str, *arguments: str, **variables: Any) -> str:
        done = ansible("ansible-playbook", name, "-e", json.dumps(variables), *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    for host in fleet.hosts.values():
        host.run("sh", "-c", FURNISH)
    yield run
    run("volt.backup.schedule", volt_schedule_state="absent", volt_runner_state="absent")
    for host in fleet.hosts.values():
        host.run("sh", "-c", REMOVE)


def test_what_is_found_is_scheduled_and_backed_up(fleet: Fleet, hosts: Callable[..., str]) -> None:
    given = {"volt_schedule_find": True, "volt_schedule_defaults": {"interval": "1d", "max_keep": 7}}
    hosts("volt.backup.schedule", **given)
    assert set(re.findall(r"changed=(\d+)", hosts("volt.backup.schedule", **given))) == {"0"}
    hosts("volt.backup.backup", **given)
    for host in fleet.hosts.values():
        rows = json.loads(host.run("volt-backup", "status", "--json").stdout)["schedules"]
        assert sorted(row["workload"] for row in rows) == FOUND
        backups = json.loads(host.run("volt-backup", "list", "--json").stdout)["backups"]
        assert {backup["workload_name"]: backup["workload_mode"] for backup in backups} == {
            "nspawn-web": "container", "podman-data": "volume", "vm-db": "hybrid-kvm", "volt-api": "container",
        }  # fmt: skip
        host.run("rm", "-r", "/var/lib/volt/vms/db")
    hosts("volt.backup.schedule", **given, volt_schedule_workloads=[{"workload": "volt-api", "source": "/etc"}])
    for host in fleet.hosts.values():
        rows = json.loads(host.run("volt-backup", "status", "--json").stdout)["schedules"]
        assert {row["workload"]: row["source"] for row in rows}.items() >= {"volt-api": "/etc", "nspawn-web": "/var/lib/machines/web"}.items()
        assert len(rows) == 3


@pytest.mark.parametrize("module", ["volt_backup_schedule", "volt_workload_info"])
def test_examples(hosts: Callable[..., str], tmp_path: Any, module: str) -> None:
    """As they stand in the documentation, with a check before."""
    tasks = yaml.safe_load(importlib.import_module(f"{PACKAGE}.{module}").EXAMPLES)
    first = {"name": "Write the command", "volt.backup.volt_runner": {}}
    play = tmp_path / "play.yml"
    play.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [first, *tasks]}], sort_keys=False))
    hosts(str(play), "--check", "--diff")
    output = hosts(str(play), "--diff")
    assert "[WARNING]" not in output and "[DEPRECATION" not in output, output
