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
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet, Host

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
    "rm -rf /etc/docker /var/lib/machines/web /var/lib/volt/containers /var/lib/volt/vms /var/lib/volt/cas /var/lib/volt/backups /var/lib/containers"
    " /srv/app /srv/backup"
)
PACKAGE = "ansible_collections.volt.backup.plugins.modules"


@pytest.fixture
def playbook(fleet: Fleet, hosts: list[Host], ansible: Callable[..., Any]) -> Iterator[Callable[..., str]]:
    """Run a playbook of the collection, which must succeed, on hosts that have a workload of several kinds."""

    def run(name: str, *arguments: str, **variables: Any) -> str:
        done = ansible("ansible-playbook", name, "-e", json.dumps(variables), *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    fleet.each(lambda host: host.run("sh", "-c", FURNISH), hosts)
    yield run
    run("volt.backup.schedule", volt_schedule_state="absent", volt_runner_state="absent")
    fleet.each(lambda host: host.run("sh", "-c", REMOVE), hosts)


@pytest.mark.costly
def test_what_is_found_is_scheduled_and_backed_up(fleet: Fleet, hosts: list[Host], playbook: Callable[..., str]) -> None:
    defaults = {"interval": "1d", "max_keep": 7, "exclude": ["*.tmp"]}
    given = {"volt_schedule_find": True, "volt_schedule_defaults": defaults}
    for host in hosts:
        host.run("touch", "/var/lib/machines/web/x.tmp")
    playbook("volt.backup.schedule", **given)
    assert set(re.findall(r"changed=(\d+)", playbook("volt.backup.schedule", **given))) == {"0"}
    playbook("volt.backup.backup", **given)

    def all_is_backed_up(host: Host) -> None:
        rows = json.loads(host.run("volt-backup", "status", "--json").stdout)["schedules"]
        assert sorted(row["workload"] for row in rows) == FOUND
        backups = json.loads(host.run("volt-backup", "list", "--json").stdout)["backups"]
        assert {backup["workload_name"]: backup["workload_mode"] for backup in backups} == {
            "nspawn-web": "container", "podman-data": "volume", "vm-db": "hybrid-kvm", "volt-api": "container",
        }  # fmt: skip
        (web,) = [backup["id"] for backup in backups if backup["workload_name"] == "nspawn-web"]
        assert "x.tmp" not in host.run("volt-backup", "show", web, "--contents").stdout
        assert {json.loads(host.run("cat", f"/etc/volt/backup/{name}.json").stdout)["exclude"][0] for name in FOUND} == {"*.tmp"}
        host.run("rm", "-r", "/var/lib/volt/vms/db")

    fleet.each(all_is_backed_up, hosts)
    own = {"workload": "volt-api", "source": "/etc", "on_calendar": "daily", "keep": {"weekly": 3}}
    playbook("volt.backup.schedule", **given, volt_schedule_workloads=[own])

    def what_is_declared_comes_first(host: Host) -> None:
        job = json.loads(host.run("cat", "/etc/volt/backup/volt-api.json").stdout)
        assert (job["interval"], job["on_calendar"], job["keep"]) == (None, "daily", {"weekly": 3})
        rows = json.loads(host.run("volt-backup", "status", "--json").stdout)["schedules"]
        assert {row["workload"]: row["source"] for row in rows}.items() >= {"volt-api": "/etc", "nspawn-web": "/var/lib/machines/web"}.items()
        assert len(rows) == 3

    fleet.each(what_is_declared_comes_first, hosts)


@pytest.mark.costly
def test_what_was_not_looked_at_keeps_its_schedule(hosts: list[Host], playbook: Callable[..., str], ansible: Callable[..., Any]) -> None:
    given = {"volt_schedule_find": True, "volt_schedule_defaults": {"interval": "1d"}}
    for host in hosts:
        host.run("sh", "-c", "mkdir -p /etc/docker && echo '{}' >/etc/docker/daemon.json")
    assert "No schedule was removed" not in playbook("volt.backup.schedule", **given)

    def scheduled() -> list[list[str]]:
        return [sorted(host.run("ls", "/etc/volt/backup").stdout.split()) for host in hosts]

    before = scheduled()
    for host in hosts:
        host.run("sh", "-c", "rm -r /var/lib/volt/vms/db && echo '{\"data-root\": \"/data\",}' >/etc/docker/daemon.json")
    for check in ("--diff", "--check"):
        output = playbook("volt.backup.schedule", check, **given)
        assert set(re.findall(r"changed=(\d+)", output)) == {"0"} and scheduled() == before
        assert output.count("named and may still exist. /etc/docker/daemon.json is not JSON.") == len(before)
    playbook("volt.backup.schedule", **given, volt_schedule_purge=False)
    # Started in the middle, or with a path that systemd does not understand, the role fails and touches nothing.
    for said, variables, arguments in (
        ("the task that finds what the host runs was skipped", {}, ["--start-at-task", "Declare the schedules and the host's own units"]),
        ("must be absolute paths", {"volt_schedule_store": "~/cas"}, []),
    ):
        done = ansible("ansible-playbook", "volt.backup.schedule", "-e", json.dumps({**given, **variables}), *arguments)
        assert done.returncode == 2 and done.stdout.count(said) >= len(before) and scheduled() == before, done.stdout
    for host in hosts:
        host.run("rm", "-r", "/etc/docker")
    playbook("volt.backup.schedule", **given)
    assert scheduled() == [[name for name in names if name != "vm-db.json"] for names in before]


@pytest.mark.costly
def test_the_command_may_be_elsewhere(hosts: list[Host], playbook: Callable[..., str]) -> None:
    given = {"volt_runner_path": "/srv/app/volt-backup", "volt_schedule_workloads": [{"workload": "app", "source": "/srv/app", "interval": "1d"}]}
    playbook("volt.backup.schedule", **given)
    for host in hosts:
        assert "/srv/app/volt-backup" in host.run("systemctl", "cat", "volt-backup-app.service").stdout
        assert "/srv/app/volt-backup" in host.run("systemctl", "cat", "volt-cas-gc.service").stdout
    playbook("volt.backup.schedule", **given, volt_schedule_state="absent", volt_runner_state="absent")


@pytest.mark.parametrize("module", ["volt_backup_schedule", "volt_workload_info"])
@pytest.mark.costly
def test_examples(playbook: Callable[..., str], tmp_path: Any, module: str) -> None:
    """As they stand in the documentation, with a check before."""
    tasks = yaml.safe_load(importlib.import_module(f"{PACKAGE}.{module}").EXAMPLES)
    first = {"name": "Write the command", "volt.backup.volt_runner": {}}
    play = tmp_path / "play.yml"
    play.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [first, *tasks]}], sort_keys=False))
    playbook(str(play), "--check", "--diff")
    output = playbook(str(play), "--diff")
    assert "[WARNING]" not in output and "[DEPRECATION" not in output, output
