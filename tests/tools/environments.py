# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The virtual environments of the tests. They lie in the user's cache, so that a fresh clone finds them made.

    tools      linters, pytest, Molecule, on the oldest Python that serves: Debian's own, built for speed
    newest     ansible-test of the newest supported ansible-core that runs on a Python here
    oldest     ansible-test of the oldest supported ansible-core, on the oldest Python here that it runs on
    site       Sphinx and antsibull-docs, for the documentation as a site
    importer   galaxy-importer, which wants other versions of some packages than the tools do

`python3 environments.py NAME` makes one if it is missing and prints its directory. Its name there carries a hash of its requirements and
its Python: a change of either makes a new one. One that was not made to its end is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple

import pythons
import quick

REQUIREMENTS = Path(__file__).parents[1] / "requirements"


class Sort(NamedTuple):
    """A sort of environment. `minors`: what its ansible-core runs on, of CPython 3."""

    requirements: str
    core: str
    minors: range
    oldest: bool = False


SORTS = {
    "tools": Sort("tools.txt", "", range(11, 15), oldest=True),
    "newest": Sort("ansible-test.txt", "ansible-core >=2.19, <2.22", range(11, 15)),
    "oldest": Sort("ansible-test.txt", "ansible-core >=2.18, <2.19", range(11, 14), oldest=True),
    "site": Sort("site.txt", "", range(11, 15), oldest=True),
    "importer": Sort("importer.txt", "", range(11, 13)),
}
#: Those in which Ansible runs again and again.
QUICK = ("tools", "newest", "oldest")


def cache() -> Path:
    """The directory that all checkouts of this user share; tests/rigs/debian.py keeps its trees below it as well."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()).absolute() / "volt-backup-tests"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, for as long as it takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def interpreter(sort: Sort) -> Path:
    """The Python of an environment: the newest here, or the oldest. SystemExit where none serves."""
    minors = sorted(sort.minors, reverse=not sort.oldest)
    for path in (pythons.find(minor) for minor in minors):
        # Debian's python3 makes no environments without python3-venv
        if path and subprocess.run([path, "-I", "-c", "import ensurepip, venv"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return Path(path)
    raise SystemExit(f"environments: no CPython 3.{sort.minors[0]} to 3.{sort.minors[-1]} with venv is here; install python3-venv")


def environment(name: str) -> Path:
    """The directory of an environment, which is made if it is missing. SystemExit where it cannot be made."""
    sort = SORTS[name]
    python = interpreter(sort)
    version = subprocess.run([python, "-I", "-VV"], stdout=subprocess.PIPE, text=True, check=True).stdout
    listed = [sort.core] if sort.core else []
    identity = "\n".join([str(python), version, *listed, (REQUIREMENTS / sort.requirements).read_text(encoding="utf-8")])
    place = cache() / "venv" / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    done = place / ".made"
    with locked(place.with_name(f"{place.name}.lock")):
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)
            subprocess.run([python, "-m", "venv", place], stdin=subprocess.DEVNULL, check=True)
            pip = [place / "bin" / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r", REQUIREMENTS / sort.requirements, *listed]
            if subprocess.run(pip, stdin=subprocess.DEVNULL, check=False).returncode:
                raise SystemExit(f"environments: pip could not install the packages of {name}; look at what it said, then try again")
            done.touch()
        if name in QUICK:
            for site in place.glob("lib/python3*/site-packages"):
                quick.install(str(site), str(cache() / "quick"))
    return place


if __name__ == "__main__":
    print(environment(sys.argv[1]))
