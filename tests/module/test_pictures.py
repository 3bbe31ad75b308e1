# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the README shows is what the programs print. (The picture of a fleet is made on real hosts, by tests/fleet.)"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.volt.backup.tests.rigs import picture

README = Path(__file__).parents[2] / "README.md"
SETTINGS = "[defaults]\nnocolor = true\ndisplay_ok_hosts = false\ndisplay_skipped_hosts = false\ncallback_result_format = yaml\n"
DEPLOY = """
- name: Write the new release
  ansible.builtin.copy:
    content: release 42
    dest: {room}/app/release
    mode: "0644"

- name: Start it
  ansible.builtin.command: {room}/app/start
"""
START = "#!/bin/sh\necho 'release 42 does not start' >&2\nexit 1\n"


def test_deploy(tmp_path: Path) -> None:
    """A deploy that fails, and the tree is as before."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/release").write_text("release 41", encoding="utf-8")
    (tmp_path / "app/start").write_text(START, encoding="utf-8")
    (tmp_path / "app/start").chmod(0o755)
    (tmp_path / "deploy.yml").write_text(DEPLOY.format(room=tmp_path), encoding="utf-8")
    (tmp_path / "ansible.cfg").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / "inventory").write_text("web1 ansible_connection=local\n", encoding="utf-8")
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/web1.yml").write_text(json.dumps({
        "ansible_become": False, "ansible_python_interpreter": sys.executable,
        "volt_predeploy_store": f"{tmp_path}/cas", "volt_predeploy_backup_dir": f"{tmp_path}/list",
        "volt_predeploy_workloads": [{"workload": "app", "source": f"{tmp_path}/app", "interval": "6h", "keep": {"last": 8}}],
    }), encoding="utf-8")  # fmt: skip
    own = {"ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"), "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_INVENTORY": "inventory", "LC_ALL": "C.UTF-8"}
    words = [str(Path(sys.executable).with_name("ansible-playbook")), "volt.backup.predeploy", "-e", f"volt_predeploy_tasks={tmp_path}/deploy.yml"]
    done = subprocess.run(words, cwd=tmp_path, env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 2 and "pre-deploy" in done.stdout and (tmp_path / "app/release").read_text(encoding="utf-8") == "release 41", done.stdout
    # where it lies on this machine, and what Ansible prints only in some versions
    shown = re.sub(rf"\S*{tmp_path}", "/srv", re.sub(r"/\S+(/roles/\S+)", r"...\1", done.stdout))
    shown = re.sub(r"\[ERROR\].*?(?=fatal)", "", shown, flags=re.DOTALL)
    picture.check("deploy", f"$ ansible-playbook volt.backup.predeploy -e volt_predeploy_tasks=/srv/deploy.yml\n{shown.rstrip()}\n")


@pytest.mark.parametrize("name, playbook", [("deploy", "predeploy"), ("status", "status")])
def test_the_readme_shows_it(name: str, playbook: str) -> None:
    """Lines of it in their order, with "..." for those that are left out."""
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (shown,) = (block for block in blocks if block.startswith(f"$ ansible-playbook volt.backup.{playbook}"))
    lines = iter(picture.lasting((picture.PICTURES / f"{name}.txt").read_text(encoding="utf-8")).splitlines())
    assert [line for line in picture.lasting(shown).splitlines() if line not in ("...", "") and line not in lines] == []


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    """Without Ansible, from a checkout, as a user who copies them."""
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    (block,) = (block for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) if block.startswith("$ volt()"))
    script = "set -e\n" + re.sub(r"^\$ ", "", block, flags=re.MULTILINE).replace("/tmp/volt", str(tmp_path)).replace("python3", sys.executable)
    done = subprocess.run(["bash", "-c", script], cwd=README.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "docs/design.md").read_bytes() == (README.parent / "docs/design.md").read_bytes()


def playbooks() -> str:
    """docs/playbooks.md, from the head of each playbook."""
    made = [
        "# Playbooks\n\nCall them by their full names, such as `ansible-playbook volt.backup.backup`. All take `--limit`, `--check` and `--diff`. "
        "Set variables in the\ninventory or by `-e`. A misspelt variable fails the host before anything is changed there. "
        "The defaults are in parentheses.\n"
    ]
    for path in sorted((README.parent / "playbooks").glob("*.yml")):
        head = re.search(r"^(?:# .*\n|#\n)+", path.read_text(encoding="utf-8").split("SPDX", 1)[1].split("\n\n", 1)[1], re.MULTILINE)
        assert head
        text, rows, rest = [], [], []
        for line in head[0].splitlines():
            name = re.match(r"#   (volt_\w+) +(.*)", line)
            if name:
                rows.append([name[1], name[2]])
            elif line.startswith("#    "):
                rows[-1][1] += f" {line[1:].strip()}"
            else:
                (rest if rows else text).append(line[1:].strip())
        first, _colon, call = text[0].partition(": ansible-playbook ")
        shown = [f"## volt.backup.{path.stem}", "", f"{first}.", "", "```console", f"$ ansible-playbook {call}", "```", ""]
        more = " ".join(filter(None, text[1:]))
        shown += [more, ""] if more else []
        shown += ["| variable | |", "|---|---|", *(f"| `{name}` | {about.replace('|', '/')} |" for name, about in rows), ""]
        shown += [f"And {' '.join(rest).partition('and ')[2]}.", ""] if rest else []
        made.append("\n".join(shown))
    return "\n".join(made)


def test_the_list_of_playbooks() -> None:
    path = README.parent / "docs/playbooks.md"
    if os.environ.get("VOLT_PICTURES") == "write":
        path.write_text(playbooks(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == playbooks(), "VOLT_PICTURES=write makes it anew"
