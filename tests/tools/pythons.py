# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print the CPython interpreters of this machine that the engine supports, one for each version, colon separated.

The tests run the engine under each of them, and ansible-test finds them on PATH. A machine with one Python is fine.
The system's interpreters come first, since managed hosts use theirs. Of pyenv the real binaries are taken: its shims
change their meaning with the environment.
"""

from __future__ import annotations

import os
import subprocess

MINORS = range(9, 15)
PROBE = "import sys; print('%s %d.%d' % ((sys.implementation.name,) + sys.version_info[:2]))"


def directories() -> list[str]:
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    found = ["/usr/bin", "/usr/local/bin"]
    found += [path for path in os.environ.get("PATH", "").split(os.pathsep) if path and not path.endswith("/shims")]
    versions = os.path.join(pyenv, "versions")
    if os.path.isdir(versions):
        found += sorted(os.path.join(versions, name, "bin") for name in os.listdir(versions))
    return found


def works(path: str, version: str) -> bool:
    if not os.access(path, os.X_OK):
        return False
    # -I: whatever PYTHONPATH or the working directory hold must not decide.
    probe = subprocess.run([path, "-I", "-c", PROBE], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return probe.stdout.strip() == f"cpython {version}"


def find(minor: int) -> str | None:
    """The interpreter of a version, if it is here."""
    candidates = (os.path.join(directory, f"python3.{minor}") for directory in directories())
    return next((path for path in candidates if works(path, f"3.{minor}")), None)


def found() -> list[str]:
    """All of them, oldest first."""
    return [path for path in map(find, MINORS) if path]


if __name__ == "__main__":
    print(":".join(found()))
