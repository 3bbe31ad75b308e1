# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of another architecture, with Debian's packages of that architecture: by QEMU, or by the kernel itself where it can.

    with foreign.machine("s390x", scratch) as there: there.run("python3", "-c", "...")

They see one directory of this machine, under its own path. QEMU translates system calls to this machine's kernel, and lacks some of them.
The kernel is told of QEMU only while the context lasts (binfmt_misc), also if the tests are killed: a process that outlives them tells it to forget.
Each context has a registration of its own, so they do not disturb each other, nor what this machine has registered itself.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

from . import Unavailable, debian, need

#: Debian's architectures, and what QEMU calls them. None: an amd64 kernel runs these programs by itself.
EMULATORS = {"s390x": "s390x", "armhf": "arm", "arm64": "aarch64", "ppc64el": "ppc64le", "i386": None}
SUITE = "bookworm"
PACKAGES = ("python3", "python3-cryptography", "coreutils", "libzstd1")

#: In mounts of its own: a root directory in memory with the packages, and one directory of this machine. $1: the root. $2: the packages. $3: the directory.
_ENTER = """
root=$1 packages=$2 scratch=$3
shift 3
mount -t tmpfs -o mode=755 volt-tests "$root"
for path in "$packages"/*; do
    name=${path##*/}
    case $name in bin | etc | lib* | sbin | usr)
        mkdir "$root/$name"
        mount --bind -o ro "$path" "$root/$name" ;;
    esac
done
mkdir "$root/dev" "$root/proc" "$root/tmp" "$root/run"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root$scratch"
mount --rbind "$scratch" "$root$scratch"
cd "$root"
exec chroot "$root" env -i PATH=/usr/bin:/bin LC_ALL=C.UTF-8 HOME=/ "$@"
"""
#: $1: where binfmt_misc is. $2: the name of the entry. $3: the entry, which stays while the standard input is open.
_REGISTER = r"""
trap '' INT TERM HUP
printf '%s' "$3" >"$1/register"
echo registered
read -r end || :
echo -1 >"$1/$2"
"""


class Machine:
    """:ivar scratch: the directory that its programs see."""

    def __init__(self, packages: Path, scratch: Path, root: Path) -> None:
        self._packages, self.scratch, self._root = packages, scratch, root

    def run(self, *command: str | os.PathLike[str], timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["unshare", "-m", "sh", "-euc", _ENTER, "sh", self._root, self._packages, self.scratch, *command], timeout=timeout,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip


@contextmanager
def machine(architecture: str, scratch: Path, packages: Sequence[str] = PACKAGES) -> Iterator[Machine]:
    need("unshare", "mount", "chroot", root=True)
    if os.uname().machine != "x86_64":
        raise Unavailable("not an amd64 machine, to which others are foreign")
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="volt-foreign-")))
        there = Machine(debian.unpacked(SUITE, architecture, packages), scratch, root)
        emulator = EMULATORS[architecture]
        if emulator is not None:
            stack.enter_context(_registered(emulator))
        tried = there.run("true")
        if "Exec format error" in tried.stderr:
            raise Unavailable(f"this kernel runs no programs of {architecture}")
        assert tried.returncode == 0, tried.stderr
        yield there


@contextmanager
def _registered(emulator: str) -> Iterator[None]:
    """Let the kernel run the programs of an architecture by QEMU. The emulator is opened now (F), so it need not be in the root of those programs."""
    only = (f"./usr/bin/qemu-{emulator}-static", f"./usr/lib/binfmt.d/qemu-{emulator}.conf")
    found = debian.unpacked(SUITE, "amd64", ["qemu-user-static"], only)
    name = f"volt-tests-{emulator}-{uuid4().hex}"
    _empty, _name, *pattern = (found / only[1]).read_text(encoding="ascii").strip().split(":")
    entry = ":".join(["", name, *pattern[:-2], str(found / only[0]), "OPF"])
    with tempfile.TemporaryDirectory(prefix="volt-binfmt-") as where:
        mounted = subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", where], stderr=subprocess.PIPE, text=True, check=False)
        if mounted.returncode:
            raise Unavailable("no programs of other architectures: " + mounted.stderr.strip())
        try:
            with subprocess.Popen(["sh", "-euc", _REGISTER, "sh", where, name, entry], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, start_new_session=True) as keeper:  # fmt: skip
                assert keeper.stdin and keeper.stdout and keeper.stderr
                if not keeper.stdout.readline():
                    raise Unavailable("no programs of other architectures: " + keeper.stderr.read().strip())
                try:
                    yield
                finally:
                    keeper.stdin.close()
                    keeper.wait()
        finally:
            subprocess.run(["umount", where], check=True)
