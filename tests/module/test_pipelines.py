# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pipelines of docs/predeploy.md: their lines run as a runner of GitLab or GitHub would run them, and AWX's playbook as AWX would, on this machine.

Only `pip` is not real, and requirements.yml, the project's own, names this checkout instead of a git server.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.volt.backup.tests.rigs import sample

TOP = Path(__file__).parents[2]
COMMIT = "3f2a9c1"
#: GitLab joins the lines of before_script and script, and stops at the first that fails.
SHELL = ["bash", "-e", "-o", "pipefail", "-c"]


def pipelines() -> dict[str, Any]:
    """The examples by what is said before them."""
    text = (TOP / "docs/predeploy.md").read_text(encoding="utf-8").partition("## In a pipeline")[2]
    found = re.findall(r"^(GitLab|GitHub|AWX)\b.*?```yaml\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert [name for name, _text in found] == ["GitLab", "GitHub", "AWX"]
    return {name: yaml.safe_load(block) for name, block in found}


def lines(name: str) -> list[str]:
    """The commands of a pipeline."""
    pipeline = pipelines()[name]
    if name == "GitLab":
        return [*pipeline["deploy"]["before_script"], *pipeline["deploy"]["script"]]
    return [step["run"] for step in pipeline["jobs"]["deploy"]["steps"] if "run" in step]


class Project:
    """A checkout of a project in a runner, with an inventory of one host: this machine."""

    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "app").mkdir()
        (top / "app/file").write_text("release 41")
        (top / "bin").mkdir()
        (top / "bin/pip").write_text(f'#!/bin/sh\necho "$@" >> {top}/pip.log\n')
        (top / "bin/pip").chmod(0o755)
        (top / "requirements.yml").write_text(json.dumps({"collections": [{"name": str(TOP), "type": "dir"}]}))
        variables = {
            "ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable,
            "volt_predeploy_workloads": [{"workload": "app", "source": f"{top}/app"}],
            "volt_predeploy_store": f"{top}/cas", "volt_predeploy_backup_dir": f"{top}/records",
        }  # fmt: skip
        (top / "inventory").mkdir()
        (top / "inventory/hosts.yml").write_text(json.dumps({"all": {"hosts": {"web1": variables}}}))
        self.deploys("ansible.builtin.copy", content="release 42", dest=f"{top}/app/file", mode="0644")

    def deploys(self, module: str, **options: Any) -> None:
        (self.top / "deploy.yml").write_text(json.dumps([{"name": "Deploy", module: options}]))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        own = {
            "PATH": f"{self.top}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(self.top / "home"), "LC_ALL": "C.UTF-8",
            "ANSIBLE_HOME": str(self.top / "ansible"), "ANSIBLE_COLLECTIONS_PATH": str(self.top / "collections"), "ANSIBLE_NOCOLOR": "1",
            "CI_PROJECT_DIR": str(self.top), "CI_COMMIT_SHORT_SHA": COMMIT, "GITHUB_WORKSPACE": str(self.top), "GITHUB_SHA": COMMIT,
        }  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
        return subprocess.run(words, cwd=self.top, env={**kept, **own}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=300, check=False)  # fmt: skip

    def backups(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((self.top / "records").glob("[!.]*.json"))]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("name", sample.some(["GitLab", "GitHub"], 1, "pipelines"))
@pytest.mark.costly
def test_the_lines_of_a_pipeline_run(project: Project, name: str) -> None:
    script = "\n".join(lines(name))
    done = project.run(*SHELL, script)
    assert done.returncode == 0 and "[WARNING]" not in done.stdout, done.stdout
    assert "ansible-core" in (project.top / "pip.log").read_text()
    assert (project.top / "app/file").read_text() == "release 42"
    (backup,) = project.backups()
    assert (backup["type"], backup["notes"]) == ("pre-deploy", COMMIT)
    (project.top / "app/file").write_text("release 41")
    project.deploys("ansible.builtin.shell", cmd=f"echo broken > {project.top}/app/file; false")
    done = project.run(*SHELL, lines(name)[-1])
    assert done.returncode == 2, done.stdout
    assert (project.top / "app/file").read_text() == "release 41"


@pytest.mark.costly
def test_the_playbook_of_awx_runs(project: Project) -> None:
    (project.top / "collections").mkdir()
    (project.top / "collections/requirements.yml").write_text((project.top / "requirements.yml").read_text())
    (project.top / "guard.yml").write_text(yaml.safe_dump(pipelines()["AWX"]))
    installed = project.run("ansible-galaxy", "collection", "install", "-r", "collections/requirements.yml", "-p", f"{project.top}/collections")
    assert installed.returncode == 0, installed.stdout
    done = project.run("ansible-playbook", "-i", "inventory", "guard.yml")
    assert done.returncode == 0 and "[WARNING]" not in done.stdout, done.stdout
    assert (project.top / "app/file").read_text() == "release 42" and len(project.backups()) == 1


@pytest.mark.costly
def test_pipelines_stop_at_what_fails_before_the_deploy(project: Project) -> None:
    """Neither runner deploys without the collection."""
    (project.top / "requirements.yml").write_text("collections: [{name: /nowhere, type: dir}]\n")
    for name in ("GitLab", "GitHub"):
        assert project.run(*SHELL, "\n".join(lines(name))).returncode != 0
    assert (project.top / "app/file").read_text() == "release 41" and project.backups() == []
