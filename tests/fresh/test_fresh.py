# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make test` on a fresh Debian with nothing but Python, venv, make and git: as root, as a user, and in narrow places.

The machine is a directory tree that a process takes for its root, with this machine's kernel and devices. Part of `make test-long` alone:
these tests take more than an hour.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.volt.backup.tests.rigs import Unavailable, debian, need

CHECKOUT = Path(__file__).parents[2]
#: What the README asks for.
NEEDED = ("git", "make", "python3", "python3-venv")
#: How this machine reaches package registries: files of the fresh one.
ACCESS = ("etc/apt", "etc/hosts", "etc/resolv.conf", "etc/ssl/certs", "etc/pip.conf", "usr/share/keyrings", "usr/local/share/ca-certificates")
#: Variables that name such settings.
VARIABLES = re.compile(r"(?i)(https?|no)_proxy|PIP_(CERT|INDEX_URL|DEFAULT_TIMEOUT)|SSL_CERT_FILE|REQUESTS_CA_BUNDLE")
#: Makes the tree in $1 the root of a new mount namespace and runs the rest there. With $2 = memory, /tmp is in memory.
ENTER = """
set -e
root=$1 kind=$2; shift 2
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"; mount --rbind /sys "$root/sys"; mount -t proc proc "$root/proc"; mount -t tmpfs tmpfs "$root/run"
[ "$kind" != memory ] || mount -t tmpfs -o size=8g tmpfs "$root/tmp"
cd "$root"; mkdir -p .old; pivot_root . .old; umount -l .old
exec "$@"
"""


class Machine:
    """A fresh Debian that processes can enter."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ACCESS:
            source, copy = Path("/", name), root / name
            if source.exists():
                subprocess.run(["rm", "-rf", copy], check=True)
                copy.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", "--dereference", source, copy], check=True)
        self.run("useradd", "--create-home", "tester")

    def run(self, *words: str, kind: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        known = {name: value for name, value in os.environ.items() if VARIABLES.fullmatch(name)}
        environment = {**known, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        enter = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "enter", str(self.root), kind]
        done = subprocess.run([*enter, *words], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", check=False)  # fmt: skip
        if check:
            assert done.returncode == 0, done.stdout[-3000:]
        return done

    def clone(self, place: str, owner: str) -> None:
        """This checkout as it is committed."""
        subprocess.run(["git", "-C", str(CHECKOUT), "bundle", "create", "--quiet", str(self.root / "bundle"), "HEAD"], check=True)
        self.run("runuser", "-u", owner, "--", "git", "clone", "--quiet", "/bundle", place)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    try:
        need("unshare", "pivot_root", root=True)
        root = tmp_path_factory.mktemp("fresh") / "root"
        debian.copy("bookworm", root, NEEDED)
    except Unavailable as lack:
        pytest.skip(f"no fresh machine: {lack}")
    yield Machine(root)
    shutil.rmtree(root)


def made(machine: Machine, place: str, *targets: str, user: tuple[str, ...] = (), kind: str = "") -> str:
    """What `make` prints in a place; it must pass."""
    done = machine.run(*user, "make", "--no-print-directory", "-C", place, *targets, kind=kind, check=False)
    print(done.stdout[-8000:])
    assert done.returncode == 0
    return done.stdout


def counts(said: str) -> dict[str, int]:
    return {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped)", said.splitlines()[-1])}


def test_as_root_in_a_checkout_that_is_closed_to_others(machine: Machine) -> None:
    machine.run("mkdir", "-m", "0700", "/srv/closed")
    machine.clone("/srv/closed/checkout", "root")
    said = made(machine, "/srv/closed/checkout", "test")
    assert "packages: apt-get installs" in said
    assert counts(said)["failed"] == 0 and counts(said)["passed"] > 4000


@pytest.mark.parametrize("gate", ["unit", "module", "system", "crash", "rigs"])
def test_temporary_files_in_memory(machine: Machine, gate: str) -> None:
    """The gates that write files of their own, on the machine that root has furnished."""
    if not (machine.root / "memory").exists():
        machine.clone("/memory", "root")
    made(machine, "/memory", gate, kind="memory")


def test_as_a_user(tmp_path: Path) -> None:
    """A machine of its own, on which root has installed nothing."""
    root = tmp_path / "root"
    try:
        need("unshare", "pivot_root", root=True)
        debian.copy("bookworm", root, NEEDED)
        machine = Machine(root)
        machine.clone("/home/tester/checkout", "tester")
        said = made(machine, "/home/tester/checkout", "test", user=("runuser", "-u", "tester", "--", "env", "HOME=/home/tester"))
        assert "packages: missing (not root)" in said and "gates: not root" in said
        assert counts(said)["failed"] == 0 and counts(said)["skipped"] > 0
    finally:
        shutil.rmtree(root, ignore_errors=True)
