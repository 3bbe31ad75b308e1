# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles and playbooks by ansible-playbook, on names that all mean this machine: what they refuse, and what they hand to the modules."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.tests.rigs import sample, warm


class Node:
    """A control node whose hosts `one` and `two` are this machine."""

    def __init__(self, room: Path, ansible: warm.Ansible) -> None:
        self.room, self._ansible = room, ansible
        local = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
        (room / "inventory").write_text(f"one {local}\ntwo {local}\n", encoding="utf-8")
        for name in ("app", "db"):
            (room / name).mkdir()
            (room / name / "file").write_text(name, encoding="utf-8")

    def run(self, playbook: str, *arguments: str, status: int = 0, **variables: Any) -> str:
        """Run one that ends with this status; its output."""
        words = ["-i", str(self.room / "inventory"), playbook, "-e", json.dumps(variables)]
        done = self._ansible.run("ansible-playbook", *words, *arguments, timeout=300)
        assert done.returncode == status, done.stdout
        return done.stdout

    def role(self, role: str, *arguments: str, status: int = 0, variables: dict[str, Any] | None = None, **play: Any) -> str:
        path = self.room / "play.yml"
        roles = [{"role": f"volt.backup.{role}", **(variables or {})}]
        path.write_text(json.dumps([{"hosts": "one", "gather_facts": False, "roles": roles, **play}]), encoding="utf-8")
        return self.run(str(path), *arguments, status=status)

    def stores(self) -> list[str]:
        """The stores that there are."""
        return sorted(path.parent.name for path in self.room.glob("*/format.json"))

    def guard(self, tasks: str, **variables: Any) -> dict[str, Any]:
        """Variables of volt_predeploy."""
        return {"volt_predeploy_tasks": tasks, "volt_predeploy_workloads": [{"workload": "app", "source": f"{self.room}/app"}], **variables}


@pytest.fixture
def node(tmp_path: Path, controller: warm.Ansible) -> Node:
    return Node(tmp_path, controller)


@pytest.mark.parametrize("role", ["volt_schedule", "volt_runner", "volt_predeploy"])
def test_no_role_begins_with_a_misspelt_variable(node: Node, role: str) -> None:
    """A group_vars with one wrong letter stops the role before its first task; one's own names do not."""
    (node.room / "group_vars").mkdir()
    given = {"volt_schedule_workload": [], "volt_runnerpath": "/", "volt_hostname": 1, "volt_known_variables": ["volt_hosts_all"], "volt_hosts_all": 1}
    (node.room / "group_vars/all.yml").write_text(json.dumps(given), encoding="utf-8")
    said = node.role(role, status=2)
    assert "use volt_schedule_workloads" in said and "use volt_runner_path" in said and f"TASK [volt.backup.{role} :" not in said
    assert "[WARNING]: volt.backup has no variable volt_hostname" in said and "volt_hosts_all" not in said


@pytest.mark.parametrize("name", ["backup", "restore", "verify"])
def test_no_playbook_goes_on_with_a_misspelt_variable(node: Node, name: str) -> None:
    said = node.run(f"volt.backup.{name}", status=2, volt_srial=1)
    assert said.count("use volt_serial") >= 2 and "volt_workload_info" not in said and "TASK [Check that the hosts" not in said


def test_nothing_is_scheduled_or_backed_up_where_nothing_says_so(node: Node) -> None:
    assert "No schedules are declared for this host" in node.role("volt_schedule", "--check", status=2)
    assert "No workload is declared for this host" in node.run("volt.backup.backup", status=2)
    assert "use volt_workloads" in node.run("volt.backup.backup", status=2, volt_workload="app"), "that is a variable of another playbook"


def test_a_key_of_a_workload_is_not_misspelt(node: Node) -> None:
    workload = {"workload": "app", "source": f"{node.room}/app"}
    places = {"volt_store": f"{node.room}/cas", "volt_backup_dir": f"{node.room}/list"}
    said = node.run("volt.backup.backup", "--limit", "one", status=2, volt_workloads=[{**workload, "exlude": ["*.tmp"]}], **places)
    assert "Unknown key exlude; use exclude." in said and node.stores() == []
    given = {**places, "volt_workloads": [{**workload, "interval": "6h", "owner": "me"}], "volt_only_if_changed": True}
    assert re.search(r"app: would be backed up, [\d.]+ Bytes, [\d.]+ Bytes new", node.run("volt.backup.backup", "--check", "--limit", "one", **given))
    assert node.stores() == []
    assert re.search(r"app: app-[-\d]+-manual, [\d.]+ Bytes, [\d.]+ Bytes new", node.run("volt.backup.backup", "--limit", "one", **given))
    assert re.search(r"app: unchanged since app-[-\d]+-manual, [\d.]+ Bytes", node.run("volt.backup.backup", "--limit", "one", **given))
    assert node.stores() == ["cas"]


def test_what_a_backup_refuses_is_allowed_by_variables(node: Node) -> None:
    """Of the play before those of the workload; messages name them."""
    places = {"volt_store": f"{node.room}/cas", "volt_backup_dir": f"{node.room}/list"}
    workload = {"workload": "app", "source": f"{node.room}/app", "max_shrink": 101}
    said = node.run("volt.backup.backup", "--limit", "one", status=2, volt_workloads=[workload], **places)
    assert "max_shrink" in said and "101" in said and node.stores() == []
    node.run("volt.backup.backup", "--limit", "one", volt_workloads=[workload], volt_max_shrink=0, **places)
    (node.room / "app/file").unlink()
    given = {"volt_workloads": [workload], "volt_max_shrink": 0, **places}
    assert "volt_allow_empty: true" in node.run("volt.backup.backup", "--limit", "one", status=2, **given)
    node.run("volt.backup.backup", "--limit", "one", volt_allow_empty=True, volt_lock_timeout=5, **given)


def test_module_defaults_count_where_a_role_sets_nothing(node: Node) -> None:
    """And what a role sets counts before them."""
    (node.room / "deploy.yml").write_text(f"- ansible.builtin.file: {{path: {node.room}/app/file, state: absent}}\n- ansible.builtin.fail:\n", encoding="utf-8")
    defaults = {"group/volt.backup.volt": {"store": f"{node.room}/of-play", "backup_dir": f"{node.room}/list-of-play"}}
    said = node.role("volt_predeploy", status=2, variables=node.guard("deploy.yml"), module_defaults=defaults)
    assert node.stores() == ["of-play"] and "is restored" in said and (node.room / "app/file").exists()
    places = {"volt_predeploy_store": f"{node.room}/of-role", "volt_predeploy_backup_dir": f"{node.room}/list-of-role"}
    said = node.role("volt_predeploy", status=2, variables=node.guard("deploy.yml", **places), module_defaults=defaults)
    assert node.stores() == ["of-play", "of-role"] and "is restored" in said and (node.room / "app/file").exists()


@pytest.mark.parametrize("which", ["tasks", "after_restore"])
def test_a_missing_file_with_tasks_is_found_before_the_backup(node: Node, which: str) -> None:
    (node.room / "there.yml").write_text("- ansible.builtin.meta: noop\n", encoding="utf-8")
    given = node.guard("there.yml", volt_predeploy_store=f"{node.room}/cas", volt_predeploy_backup_dir=f"{node.room}/list")
    said = node.role("volt_predeploy", status=2, variables={**given, f"volt_predeploy_{which}": "missing.yml"})
    assert f"File {node.room}/missing.yml does not exist on the control node" in said and f"correct volt_predeploy_{which}" in said
    assert node.stores() == []
    node.role("volt_predeploy", variables={**given, "volt_predeploy_after_restore": "there.yml"})
    assert node.stores() == ["cas"]


def test_a_file_that_cannot_be_included_is_no_fault_of_another_host(node: Node) -> None:
    (node.room / "deploy.yml").write_text("- ansible.builtin.include_tasks: missing.yml\n", encoding="utf-8")
    given = node.guard("deploy.yml", volt_predeploy_store=f"{node.room}/cas", volt_predeploy_backup_dir=f"{node.room}/list")
    said = node.role("volt_predeploy", status=2, variables=given)
    assert "The deployment failed (a file that cannot be included: see above)" in said and "another host" not in said


def test_a_restore_says_where_it_goes(node: Node) -> None:
    """In the variables of the playbook; on more than one host it wants to be told; what is lost comes before the first write."""
    places = {"volt_store": f"{node.room}/cas", "volt_backup_dir": f"{node.room}/list"}
    node.run("volt.backup.backup", "--limit", "one", volt_workloads=[{"workload": "app", "source": f"{node.room}/app"}], **places)
    (node.room / "app/file").write_text("changed", encoding="utf-8")
    (node.room / "app/more").touch()
    wanted = {**places, "volt_workload": "app", "volt_force": True, "volt_delete": True}
    assert "This would restore on 2 hosts" in node.run("volt.backup.restore", status=2, **wanted)
    assert "is a backup of one host" in node.run("volt.backup.restore", status=2, volt_hosts="all", volt_id="app-20260101-000000-manual", **places)
    assert (node.room / "app/more").exists()
    differs = node.run("volt.backup.restore", "--limit", "two", status=2, **{**wanted, "volt_force": False})
    assert "use volt_force: true to overwrite it" in differs
    said = node.run("volt.backup.restore", volt_hosts="two", **wanted)
    told = [said.index(text) for text in (f"goes to {node.room}/app,", "first more", "PLAY [Restore]", "changed: [two]", f"restored to {node.room}/app")]
    assert told == sorted(told) and not (node.room / "app/more").exists(), said
    assert "The restore would change nothing" in node.run("volt.backup.restore", volt_hosts="two", **wanted)


def test_start_at_task_restores_nothing(node: Node) -> None:
    """Hosts that the inventory chooses, a play that begins in its middle, and a variable whose value is undefined."""
    places = {"volt_store": f"{node.room}/cas", "volt_backup_dir": f"{node.room}/list"}
    node.run("volt.backup.backup", "--limit", "one", volt_workloads=[{"workload": "app", "source": f"{node.room}/app"}], **places)
    (node.room / "app/file").write_text("changed", encoding="utf-8")
    wanted = {**places, "volt_workload": "app", "volt_force": True}
    (node.room / "group_vars").mkdir()
    (node.room / "group_vars/all.yml").write_text("volt_hosts: all\n", encoding="utf-8")
    assert "This would restore on 2 hosts" in node.run("volt.backup.restore", status=2, **wanted)
    for task in ("Plan the restore", "Restore"):
        node.run("volt.backup.restore", "--limit", "one", "--start-at-task", task, status=2, **wanted)
    node.run("volt.backup.restore", "--limit", "one", "--start-at-task", "Restore", status=2, **{**wanted, "volt_id": "app-20260101-000000-manual"})
    undefined = node.run("volt.backup.restore", "--limit", "one", status=2, volt_target="{{ nowhere }}", **wanted)
    assert "'nowhere' is undefined" in undefined and "goes to" not in undefined
    assert (node.room / "app/file").read_text(encoding="utf-8") == "changed"


def test_what_a_host_is_meant_to_have_is_known(node: Node) -> None:
    """Or the host fails, and no other one."""
    (node.room / "host_vars").mkdir()
    (node.room / "host_vars/two.yml").write_text("volt_schedule_workloads: []\n", encoding="utf-8")
    for wrong in sample.some(["[{workload: app, source: '{{ nowhere }}'}]", "'{{ nowhere }}'", "[app]", "app", "", "[{workload: app}]"], 3, "meant"):
        (node.room / "host_vars/one.yml").write_text(f"volt_schedule_workloads: {wrong}\n", encoding="utf-8")
        said = node.run("volt.backup.status", status=2)
        assert re.search(r"one +: .*failed=1", said) and re.search(r"two +: .*failed=0", said), (wrong, said)


def test_a_report_of_drills(node: Node) -> None:
    """In the end there is a file, also of hosts that have nothing to tell; none in check mode."""
    page = node.room / "drills.html"
    node.run("volt.backup.report", "--check", volt_report=str(page))
    assert not page.exists()
    node.run("volt.backup.report", "--diff", volt_report=str(page), volt_report_days="7")
    told = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert (told["format"], told["hosts"], told["days"], told["drills"]) == (1, 2, 7, 0)
    assert page.stat().st_mode & 0o777 == 0o640 and page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    for wrong in ({}, {"volt_report": f"{node.room}/drills.txt"}, {"volt_report": f"{node.room}/nowhere/drills.html"}):
        assert "set a file whose name ends in .html, in a directory that exists on the controller" in node.run("volt.backup.report", status=2, **wrong)
    assert "a number of days from 1 to 3660" in node.run("volt.backup.report", status=2, volt_report=str(page), volt_report_days="none")


def test_a_page_of_the_fleet(node: Node) -> None:
    """Beside it the same as JSON, for those who own it; nothing in check mode, and nothing where it cannot be."""
    page, data = node.room / "fleet.html", node.room / "fleet.json"
    (node.room / "host_vars").mkdir()
    given = "volt_rpo: 1d\nvolt_schedule_workloads:\n  - {workload: !unsafe '{{ 6 * 7 }}<b>', source: /srv}\n"
    (node.room / "host_vars/two.yml").write_text(given, encoding="utf-8")
    node.run("volt.backup.status", "--check", "--limit", "one", volt_page=str(page))
    assert not page.exists() and not data.exists()
    said = node.run("volt.backup.status", "-v", "--diff", status=2, volt_page=str(page))
    assert "not scheduled; the table above says why" in said and "<!DOCTYPE" not in said
    assert page.stat().st_mode & 0o777 == data.stat().st_mode & 0o777 == 0o640
    text, told = page.read_text(encoding="utf-8"), json.loads(data.read_text(encoding="utf-8"))
    assert text.startswith("<!DOCTYPE html>") and "{{ 6 * 7 }}&lt;b&gt;" in text and "42&lt;b" not in text
    assert told["format"] == 1 and told["hosts"] == 2 and [row["workload"] for row in told["rows"] if row["trouble"]] == ["{{ 6 * 7 }}<b>"]
    for wrong in (f"{node.room}/fleet.txt", f"{node.room}/nowhere/fleet.html", f"{node.room}/.html"):
        assert "set a file whose name ends in .html, in a directory that exists on the controller" in node.run("volt.backup.status", status=2, volt_page=wrong)
    assert "destination directory '/proc' is not writable" in node.run("volt.backup.status", "--limit", "one", status=2, volt_page="/proc/fleet.html")
    (node.room / "host_vars/two.yml").write_text("volt_rpo: soon\n", encoding="utf-8")
    assert "volt_rpo: Duration 'soon' is invalid; write it like 90m" in node.run("volt.backup.status", status=2)
    assert "use volt_page" in node.run("volt.backup.status", status=2, volt_pag="x.html")
