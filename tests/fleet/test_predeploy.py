# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployments that fail on real hosts: what they did is undone, what they must not touch is untouched, and the play fails."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.volt.backup.tests.rigs import model, sample

PLAYBOOK = Path(__file__).parents[2] / "playbooks" / "predeploy.yml"
ROLE = """
- hosts: all
  gather_facts: false
  roles:
    - role: volt.backup.volt_predeploy
"""
HALVES = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: volt.backup.volt_predeploy
        tasks_from: backup
    - block:
        - ansible.builtin.include_tasks: "{{ volt_predeploy_tasks }}"
      rescue:
        - ansible.builtin.include_role:
            name: volt.backup.volt_predeploy
            tasks_from: restore
"""
# Changes, adds, removes; alters a file's content under its old size and time; and there are new uploads when it fails.
BREAKS = """
- name: Break it
  ansible.builtin.shell: |
    cd {{ place }}/app
    echo broken >config
    touch -d 2001-01-01 library.orig -r library
    printf 2222 >library
    touch -r library.orig library
    rm -rf library.orig kept
    mkdir -p added/deep && echo x >added/deep/file
    echo later >uploads/later
- name: Start the service
  ansible.builtin.command: /bin/false
"""
WORKS = """
- name: Deploy
  ansible.builtin.copy:
    content: new
    dest: "{{ place }}/app/config"
    mode: '0644'
"""


class Deployment:
    """A workload on each host, and plays upon it."""

    def __init__(self, hosts: list[Any], play: Callable[..., Any], place: str, tmp_path: Path) -> None:
        self.hosts, self._play, self.place, self._tmp = hosts, play, place, tmp_path
        self.rooms = {host.name: host.srv / Path(place).name for host in self.hosts}
        for room in self.rooms.values():
            top = room / "app"
            (top / "uploads").mkdir(parents=True)
            (top / "kept").mkdir()
            for name, text in {"config": "old", "library": "1111", "kept/file": "kept", "uploads/early": "early"}.items():
                (top / name).write_text(text)
            os.link(top / "kept/file", top / "again")
            (top / "link").symlink_to("kept/nowhere")
            os.setxattr(top / "config", "user.volt", b"1")
        self.before = {name: self.guarded(room) for name, room in self.rooms.items()}

    @staticmethod
    def guarded(room: Path) -> model.Snapshot:
        """What the backup is of."""
        return model.snapshot(room / "app", lambda name: name == b"uploads")

    def as_before(self) -> bool:
        return self.before == {name: self.guarded(room) for name, room in self.rooms.items()}

    def run(self, playbook: str | Path, tasks: str, *arguments: str, **variables: Any) -> Any:
        deploy = self._tmp / "deploy.yml"
        deploy.write_text(tasks)
        given = {
            "place": self.place,
            "volt_predeploy_tasks": str(deploy),
            "volt_predeploy_workloads": [{"workload": "app", "source": f"{self.place}/app/", "exclude": ["/uploads/"]}],
            "volt_predeploy_store": f"{self.place}/cas",
            "volt_predeploy_backup_dir": f"{self.place}/backups",
        }
        return self.play(playbook, {**given, **variables}, *arguments)

    def play(self, playbook: str | Path, variables: dict[str, Any], *arguments: str) -> Any:
        return self._play(playbook, "-e", json.dumps(variables), *arguments)

    def backups(self) -> dict[str, list[str]]:
        return {name: sorted(path.stem for path in (room / "backups").glob("[!.]*.json")) for name, room in self.rooms.items()}


@pytest.fixture
def deployment(hosts: list[Any], play: Callable[..., Any], place: str, tmp_path: Path) -> Deployment:
    return Deployment(hosts, play, place, tmp_path)


@pytest.mark.everywhere
@pytest.mark.parametrize("playbook", [PLAYBOOK, HALVES], ids=["role", "halves"])
@pytest.mark.costly
def test_a_deployment_that_breaks_a_workload_is_undone(deployment: Deployment, playbook: str | Path) -> None:
    done = deployment.run(playbook, BREAKS)
    assert done.returncode == 2, done.stdout
    assert done.stdout.count("failed=1") == 3 and "rescued=1" in done.stdout, done.stdout
    made = deployment.backups()
    assert [len(ids) for ids in made.values()] == [1, 1, 1]
    for name, (backup,) in made.items():
        assert backup.endswith("-pre-deploy") and f"{backup} is restored" in done.stdout, (name, done.stdout)
    assert "Start the service" in done.stdout
    assert deployment.as_before()
    for room in deployment.rooms.values():
        assert sorted(path.name for path in (room / "app/uploads").iterdir()) == ["early", "later"]
        assert (room / "app/library").read_text() == "1111"


@pytest.mark.everywhere
@pytest.mark.costly
def test_a_deployment_that_works_stays(deployment: Deployment) -> None:
    checked = deployment.run(PLAYBOOK, WORKS, "--check")
    assert checked.returncode == 0, checked.stdout
    assert deployment.as_before() and deployment.backups() == {host.name: [] for host in deployment.hosts}
    failing = deployment.run(PLAYBOOK, WORKS + "- ansible.builtin.fail:\n", "--check")
    assert failing.returncode == 2, failing.stdout
    assert deployment.as_before()
    done = deployment.run(PLAYBOOK, WORKS)
    assert done.returncode == 0, done.stdout
    assert [(room / "app/config").read_text() for room in deployment.rooms.values()] == ["new"] * len(deployment.hosts)


@pytest.mark.costly
def test_no_older_backup_is_the_guard(deployment: Deployment) -> None:
    """Each deployment has a backup of its own, also where nothing has changed since the last; and it goes back to that one."""
    assert deployment.run(ROLE, WORKS, volt_predeploy_keep={"last": 2}).returncode == 0
    first = deployment.backups()
    before = {name: Deployment.guarded(room) for name, room in deployment.rooms.items()}
    assert deployment.run(ROLE, BREAKS, volt_predeploy_keep={"last": 2}).returncode == 2
    assert before == {name: Deployment.guarded(room) for name, room in deployment.rooms.items()}
    assert all(len(ids) == 2 and set(first[name]) < set(ids) for name, ids in deployment.backups().items())


@pytest.mark.everywhere
@pytest.mark.costly
def test_where_the_backup_fails_nothing_is_deployed(deployment: Deployment) -> None:
    """On the host where it fails; the others are deployed to."""
    lost = deployment.hosts[0]
    deployment.rooms[lost.name].joinpath("app").rename(deployment.rooms[lost.name] / "elsewhere")
    for variables in ({}, {"volt_predeploy_workloads": []}, {"volt_predeploy_workloads": [{"workload": "../x", "source": deployment.place}]}):
        done = deployment.run(ROLE, WORKS, **variables)
        assert done.returncode == 2, done.stdout
        assert not (deployment.rooms[lost.name] / "app").exists()
        assert "rescued=0" in done.stdout and "rescued=1" not in done.stdout
    for host in deployment.hosts[1:]:
        assert (deployment.rooms[host.name] / "app/config").read_text() == "new"


def test_where_it_could_not_be_taken_back_nothing_is_deployed(deployment: Deployment) -> None:
    """A service has something mounted in the source, which the host's own list of mounts does not show."""
    (host,) = deployment.hosts[:1]
    unit = f"volt-test-{Path(deployment.place).name}"
    mounted = f"{deployment.place}/app/kept"
    script = f"mount -t tmpfs none {mounted} && touch {mounted}/up && sleep 600"
    host.run("systemd-run", "--quiet", f"--unit={unit}", "--property=PrivateMounts=yes", "sh", "-c", script)
    try:
        host.run("sh", "-c", f"until nsenter -t $(systemctl show -P MainPID {unit}) -m test -e {mounted}/up; do sleep 0.1; done")
        done = deployment.run(ROLE, WORKS, "--limit", host.name)
        assert done.returncode == 2 and "is in use: " in done.stdout and "volt_predeploy_allow_in_use" in done.stdout, done.stdout
        assert (deployment.rooms[host.name] / "app/config").read_text() == "old"
        done = deployment.run(ROLE, WORKS, "--limit", host.name, volt_predeploy_allow_in_use=True)
        assert done.returncode == 0, done.stdout
        assert (deployment.rooms[host.name] / "app/config").read_text() == "new"
    finally:
        host.run("systemctl", "stop", unit)


@pytest.mark.parametrize("how", sample.some(["gone", "a link", "a file", "a full directory"], 1, "in the place"))
def test_whatever_is_in_the_place_of_the_source(deployment: Deployment, how: str) -> None:
    """A release that the deployment puts in its place stays as it is."""
    breaks = {
        "gone": "rm -r app",
        "a link": "mkdir release && echo new >release/file && mv app old && ln -s release app",
        "a file": "mv app old && echo new >app",
        "a full directory": "rm -r app/*/ && mkdir app/config.d && echo x >app/config.d/x && mv app/config.d app/library.d && rm app/link && mkdir app/link",
    }
    tasks = f"- ansible.builtin.shell: cd {{{{ place }}}} && {breaks[how]}\n- ansible.builtin.fail:\n"
    done = deployment.run(ROLE, tasks)
    assert done.returncode == 2, done.stdout
    if how == "a file":
        assert "AND NOT ALL WAS RESTORED" in done.stdout and "is not a directory" in done.stdout, done.stdout
        return
    assert "is restored" in done.stdout, done.stdout
    assert deployment.as_before()
    for room in deployment.rooms.values():
        assert how != "a link" or (room / "release/file").read_text() == "new\n"


@pytest.mark.parametrize("name", sample.some(["deploy.yml", "backup.yml", "guarded.yml"], 1, "relative"))
@pytest.mark.costly
def test_a_relative_path_is_one_below_the_playbook(deployment: Deployment, tmp_path: Path, name: str) -> None:
    """And not a file of the role that has the same name."""
    (tmp_path / name).write_text(WORKS)
    (tmp_path / "restore.yml").write_text("- ansible.builtin.debug: {msg: started again}\n")
    done = deployment.run(ROLE, WORKS, volt_predeploy_tasks=name)
    assert done.returncode == 0, done.stdout
    assert [(room / "app/config").read_text() for room in deployment.rooms.values()] == ["new"] * len(deployment.hosts)
    (tmp_path / name).write_text(BREAKS)
    failed = deployment.run(ROLE, BREAKS, volt_predeploy_tasks=name, volt_predeploy_after_restore="restore.yml")
    assert failed.returncode == 2 and failed.stdout.count("started again") == len(deployment.hosts), failed.stdout
    assert [(room / "app/config").read_text() for room in deployment.rooms.values()] == ["new"] * len(deployment.hosts)


def test_nobody_gets_around_the_backup(deployment: Deployment) -> None:
    for words in (("--start-at-task", "volt.backup.volt_predeploy : Deploy"), ("--tags", "never"), ("--skip-tags", "all")):
        deployment.run(PLAYBOOK, WORKS, *words)
        assert deployment.as_before(), words


def test_a_source_behind_a_link_is_refused(deployment: Deployment) -> None:
    for room in deployment.rooms.values():
        (room / "current").symlink_to("app")
    done = deployment.run(ROLE, WORKS, volt_predeploy_workloads=[{"workload": "app", "source": f"{deployment.place}/current"}])
    assert done.returncode == 2 and "symbolic link" in done.stdout, done.stdout
    assert deployment.as_before()


@pytest.mark.costly
def test_what_cannot_be_restored_is_named(deployment: Deployment) -> None:
    """A backup that the deployment itself destroyed: the other workload is restored, and the play says which is not."""
    for room in deployment.rooms.values():
        (room / "other").mkdir()
        (room / "other/file").write_text("old")
    workloads = [{"workload": name, "source": f"{deployment.place}/{name}"} for name in ("other", "app")]
    breaks = BREAKS.replace("echo broken >config", "rm {{ place }}/backups/other-*; rm {{ place }}/cas/refs/other-*; echo broken >config")
    done = deployment.run(ROLE, breaks, volt_predeploy_workloads=workloads)
    assert done.returncode == 2 and "AND NOT ALL WAS RESTORED" in done.stdout and "rescued=1" in done.stdout, done.stdout
    for room in deployment.rooms.values():
        assert (room / "app/config").read_text() == "old"


def test_halves_without_a_backup(deployment: Deployment) -> None:
    done = deployment.run(HALVES.replace("tasks_from: backup", "tasks_from: restore"), BREAKS)
    assert done.returncode == 2 and "no backup of volt_predeploy_workloads was made before it" in done.stdout, done.stdout
    assert deployment.as_before()


@pytest.mark.parametrize("inner_ends", sample.some(["as a role", "early", "as halves"], 1, "inner"))
@pytest.mark.costly
def test_a_guard_within_a_guard(deployment: Deployment, tmp_path: Path, inner_ends: str) -> None:
    """A deployment that calls on one that works, with a guard of its own, and then fails, goes back to its own backup."""
    for room in deployment.rooms.values():
        (room / "other").mkdir()
        (room / "other/file").write_text("old")
    inner = "- ansible.builtin.copy: {content: new, dest: '{{ place }}/other/file', mode: '0644'}\n"
    (tmp_path / "inner.yml").write_text(inner + ("- ansible.builtin.meta: end_role\n" if inner_ends == "early" else ""))
    halves = "tasks_from: backup" if inner_ends == "as halves" else "tasks_from: main"
    outer = f"""
- ansible.builtin.copy: {{content: broken, dest: '{{{{ place }}}}/app/config', mode: '0644'}}
- ansible.builtin.include_role: {{name: volt.backup.volt_predeploy, {halves}}}
  vars:
    volt_predeploy_tasks: {tmp_path}/inner.yml
    volt_predeploy_workloads: [{{workload: other, source: '{{{{ place }}}}/other'}}]
- ansible.builtin.include_tasks: {tmp_path}/inner.yml
  when: {inner_ends == "as halves"}
- ansible.builtin.fail:
"""
    (tmp_path / "outer.yml").write_text(outer)
    book = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: volt.backup.volt_predeploy}
      vars:
        volt_predeploy_tasks: "{{ outer }}"
        volt_predeploy_workloads: [{workload: app, source: "{{ place }}/app", exclude: [/uploads/]}]
"""
    given = {"place": deployment.place, "outer": f"{tmp_path}/outer.yml", "volt_predeploy_store": f"{deployment.place}/cas",
             "volt_predeploy_backup_dir": f"{deployment.place}/backups"}  # fmt: skip
    done = deployment.play(book, given)
    assert done.returncode == 2 and "rescued=1" in done.stdout, done.stdout
    assert deployment.as_before()
    assert [(room / "other/file").read_text() for room in deployment.rooms.values()] == ["new"] * len(deployment.hosts)


@pytest.mark.costly
def test_no_guard_of_an_earlier_play_is_taken(deployment: Deployment) -> None:
    """What an earlier play deployed stays, where a later one breaks something and has no backup of its own."""
    second = HALVES.replace("tasks_from: backup\n", "tasks_from: backup\n      when: false\n").replace("- hosts", "- name: Again\n  hosts")
    second = second.replace('"{{ volt_predeploy_tasks }}"', '"{{ volt_predeploy_tasks }}.second"')
    deployment._tmp.joinpath("deploy.yml.second").write_text(BREAKS)
    for first in (ROLE, HALVES):
        done = deployment.run(first + second, WORKS)
        assert done.returncode == 2 and "no backup of volt_predeploy_workloads was made before it" in done.stdout, done.stdout
        assert [(room / "app/config").read_text() for room in deployment.rooms.values()] == ["broken\n"] * len(deployment.hosts)
        for room in deployment.rooms.values():
            (room / "app/library.orig").touch()


@pytest.mark.parametrize("setting", sample.some(["ignore_errors: true", "ignore_unreachable: true", "any_errors_fatal: true"], 1, "settings"))
@pytest.mark.costly
def test_no_setting_of_a_play_gets_around_the_guard(deployment: Deployment, setting: str) -> None:
    book = ROLE.replace("  gather_facts: false\n", f"  gather_facts: false\n  {setting}\n")
    done = deployment.run(book, BREAKS)
    assert done.returncode == 2 and deployment.as_before(), done.stdout
    lost = {"volt_predeploy_workloads": [{"workload": "app", "source": f"{deployment.place}/none"}]}
    done = deployment.run(book, WORKS, **lost)
    assert done.returncode == 2 and deployment.as_before(), done.stdout


def test_halves_with_tags(deployment: Deployment) -> None:
    """A run by tags backs up and goes back where both halves have the tag `always`, without `apply`."""
    book = HALVES
    for old, new in {
        "tasks_from: backup\n": "tasks_from: backup\n      tags: always\n",
        "tasks_from: restore\n": "tasks_from: restore\n          tags: always\n",
        'include_tasks: "{{ volt_predeploy_tasks }}"\n': "include_tasks: {file: '{{ volt_predeploy_tasks }}', apply: {tags: deploy}}\n          tags: deploy\n",
    }.items():
        assert old in book
        book = book.replace(old, new)
    done = deployment.run(book, BREAKS, "--tags", "deploy")
    assert done.returncode == 2 and "is restored" in done.stdout and deployment.as_before(), done.stdout


@pytest.mark.costly
def test_workloads_within_workloads_whatever_their_order(deployment: Deployment) -> None:
    workloads: list[dict[str, Any]] = [
        {"workload": "inner", "source": f"{deployment.place}/app/kept"},
        {"workload": "app", "source": f"{deployment.place}//app", "exclude": ["/kept/"]},
    ]
    done = deployment.run(ROLE, "- ansible.builtin.shell: rm -rf {{ place }}/app\n- ansible.builtin.fail:\n", volt_predeploy_workloads=workloads)
    assert done.returncode == 2 and "are restored" in done.stdout, done.stdout
    for room in deployment.rooms.values():
        assert (room / "app/kept/file").read_text() == "kept" and (room / "app/config").read_text() == "old"
    twice = deployment.run(ROLE, WORKS, volt_predeploy_workloads=[workloads[0], {**workloads[1], "workload": "inner"}])
    assert twice.returncode == 2 and "listed twice" in twice.stdout, twice.stdout


BEYOND = ["a parent becomes a link", "a parent becomes a link to one with a link", "something is mounted over it", "what it is on is unmounted"]


@pytest.mark.parametrize("how", sample.some(BEYOND, 1, "beyond"))
@pytest.mark.costly
def test_what_was_never_backed_up_is_left_alone(deployment: Deployment, how: str) -> None:
    """Wherever the path leads after the deployment: the other workload is restored, and the play says which is not."""
    for room in deployment.rooms.values():
        for name in ("above/data", "innocent/data"):
            (room / name).mkdir(parents=True)
            (room / name / "precious").write_text(name)
    for host in deployment.hosts if how.startswith("what") else ():
        host.run("sh", "-c", f"rm -r {deployment.place}/above/data && mount -t tmpfs none {deployment.place}/above && mkdir {deployment.place}/above/data")
    breaks = {
        "a parent becomes a link": "mv above away && ln -s innocent above",
        "a parent becomes a link to one with a link": "mv above away && mv innocent/data shared && ln -s ../shared innocent/data && ln -s innocent above",
        "what it is on is unmounted": "umount above",
        "something is mounted over it": "mount -t tmpfs none above/data && echo new >above/data/precious",
    }
    workloads = [
        {"workload": "data", "source": f"{deployment.place}/above/data"},
        {"workload": "app", "source": f"{deployment.place}/app", "exclude": ["/uploads/"]},
    ]
    tasks = BREAKS.replace("cd {{ place }}/app\n", f"cd {{{{ place }}}} && {breaks[how]} && cd app || exit 1\n")
    done = deployment.run(ROLE, tasks, volt_predeploy_workloads=workloads)
    assert done.returncode == 2 and "AND NOT ALL WAS RESTORED" in done.stdout, done.stdout
    assert deployment.as_before()
    for host in deployment.hosts:
        if how.startswith("what"):
            assert host.run("ls", f"{deployment.place}/above").stdout == ""
            continue
        seen = host.run("cat", f"{deployment.place}/above/data/precious").stdout
        assert seen == ("innocent/data" if "link" in how else "new\n")
        host.run("umount", f"{deployment.place}/above/data", check="mounted" in how)


def test_what_no_log_keeps_is_not_told(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "after.yml").write_text("- name: Start again\n  ansible.builtin.command: /bin/false\n")
    tasks = "- name: Log in\n  ansible.builtin.fail: {msg: TOPSECRET}\n  no_log: true\n"
    done = deployment.run(ROLE, tasks, "-v", volt_predeploy_after_restore="after.yml")
    assert done.returncode == 2 and "Log in: its message is hidden by no_log" in done.stdout, done.stdout
    assert not [line for line in done.stdout.split("Restore, and fail")[1].splitlines() if "TOPSECRET" in line], done.stdout
    assert "after the restore Start again failed" in done.stdout and "is restored" in done.stdout
