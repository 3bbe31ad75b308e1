# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prepare the directories that the gates work in.

    scratch.py mirror CHECKOUT TARGET   a fresh copy of tracked and untracked files; ignored ones are left out
    scratch.py link CHECKOUT TARGET     a link to the checkout, to import and run what is being edited
    scratch.py home HOME                a home for tools, which then leave the real one alone; run it under the Python whose ansible-test will use it
"""

from __future__ import annotations

import ast
import configparser
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

# ansible-test fetches this script from the internet to put pip into the virtual environments it makes; it does not where a
# script of that name is cached. Python brings a pip, so we cache a script that uses it.
GET_PIP = """\
import os, subprocess, sys
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
os.execv(sys.executable, [sys.executable, "-m", "pip", "install", "--quiet"] + [
    argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")])
"""


def mirror(checkout: Path, target: Path) -> None:
    listing = ["git", "-C", str(checkout), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    shutil.rmtree(target, ignore_errors=True)
    for name in subprocess.run(listing, stdout=subprocess.PIPE, check=True).stdout.split(b"\0"):
        source, copy = checkout / os.fsdecode(name), target / os.fsdecode(name)
        if name and os.path.lexists(source):  # git also lists what was deleted and not committed yet
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)
    # A repository of its own: tools that ask git would find the checkout's otherwise, which ignores the scratch directory.
    subprocess.run(["git", "init", "--quiet", str(target)], check=True)
    subprocess.run(["git", "-C", str(target), "add", "--all"], check=True)


def link(checkout: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        target.symlink_to(os.path.relpath(checkout, target.parent))


def pip_settings(home: Path) -> None:
    """Write down pip's settings of this machine: ansible-test hands no PIP_ variable on, and the real home is out of sight."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, text=True, check=True)
    settings = configparser.RawConfigParser()
    for line in listed.stdout.splitlines():
        name, _equals, value = line.partition("=")
        section, _dot, option = name.rpartition(".")
        section = "global" if section == ":env:" else section
        if not settings.has_section(section):
            settings.add_section(section)
        settings.set(section, option, str(ast.literal_eval(value)))
    settings["install"] = {**(settings["install"] if "install" in settings else {}), "quiet": "2"}  # errors only
    path = home / ".config" / "pip" / "pip.conf"
    text = io.StringIO()
    settings.write(text)
    replace(path, text.getvalue())


def replace(path: Path, text: str) -> None:
    """Write a file at once: another run may read it now. Only its owner may read it: the address of an index may hold a password."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=path.parent)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(beside, path)


def get_pip(home: Path) -> None:
    """Cache the stand-in under the names that the installed ansible-test looks for: they carry a version of pip."""
    from ansible_test._internal.python_requirements import get_venv_packages

    cache = home / ".ansible" / "test" / "cache"
    for minor in range(9, 15):
        version = get_venv_packages(SimpleNamespace(version=f"3.{minor}"))["pip"]
        replace(cache / f"get_pip_{version.replace('.', '_')}.py", GET_PIP)


def home(place: Path) -> None:
    pip_settings(place)
    try:
        get_pip(place)
    except ModuleNotFoundError:
        pass  # an environment without ansible-test


def main() -> None:
    what, *paths = sys.argv[1:]
    {"mirror": mirror, "link": link, "home": home}[what](*(Path(path).absolute() for path in paths))


if __name__ == "__main__":
    main()
