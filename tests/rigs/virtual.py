# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of a fleet that is a virtual machine: with a kernel of its own, and so with a clock that a test may set.

    with fleet.Fleet() as hosts:
        host = hosts.boot("clock", "bookworm", virtual.Machine)
        host.run("date", "-s", "2026-03-29 00:59:50 UTC")    # the clock jumps
        host.poweroff(); host.clock = "2026-04-05T12:00:00"; host.power_on()    # a week later

Its kernel is User-Mode Linux: a process here, which needs no help of the processor. It runs programs at their own speed, only what they ask of
the kernel takes longer. So the host is spared work that no test looks at: udev, login prompts, Debian's own timers. `Host.srv` is not shared
with it: it is reached over ssh alone. Its link goes when it ends, so it is powered off and on, and not rebooted.

Its disk is a copy of an image of the suite's cached tree, cached likewise. What makes it this host comes into the copy.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from . import Unavailable, debian, need, uml_kernel
from .fleet import APART, Fleet, Host

_GIB = 1 << 30

_MODULES = Path("/usr/lib/uml/modules")
#: A program that loads modules of the kernel, in the order of its arguments. By finit_module(2): not every machine has insmod.
LOAD = """\
import ctypes, os, sys
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    if ctypes.CDLL(None).syscall(313, fd, b"", 0):
        sys.exit(f"{path} cannot be loaded")
"""
_RUNS = "The kernel runs programs."
# The kernel hands on what it does not know itself.
_INIT = f"""#!/bin/sh
echo '{_RUNS}'
[ -z "$fleet_clock" ] || date --utc --set "$fleet_clock" >/dev/null
unset fleet_clock
exec /sbin/init
"""
_ENVIRONMENT = {
    "systemd/system.conf.d/environment.conf": f"[Manager]\nDefaultEnvironment={' '.join(uml_kernel.ENVIRONMENT)}\n",
    "ssh/sshd_config.d/environment.conf": f"SetEnv {' '.join(uml_kernel.ENVIRONMENT)}\n",
}
_MASKED = (
    "apt-daily-upgrade.timer apt-daily.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer"
    " getty.target systemd-logind.service systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service"
    " dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount"
    " kmod-static-nodes.service modprobe@.service proc-sys-fs-binfmt_misc.automount systemd-ask-password-console.path systemd-ask-password-wall.path"
    " systemd-binfmt.service systemd-initctl.socket systemd-journal-flush.service systemd-pstore.service systemd-random-seed.service"
    " systemd-sysusers.service systemd-update-utmp-runlevel.service systemd-update-utmp.service systemd-user-sessions.service"
).split()


class Machine(Host):
    """A host with a clock of its own.

    :ivar clock: what its clock shows when it is powered on, in UTC and without a zone; None for this machine's time.
    :ivar more_disks: MiB of each disk that it has besides, /dev/ubdb and further. They are made empty when it is first powered on.
    """

    link = "eth0"
    answers, boots = 60, 900
    clock: str | None = None
    more_disks: tuple[int, ...] = ()

    def __init__(self, fleet: Fleet, name: str, suite: str, number: int) -> None:
        need("linux.uml", "mkfs.ext4", "mount", root=True)
        if not Path("/dev/net/tun").exists():
            raise Unavailable("needs /dev/net/tun")
        super().__init__(fleet, name, suite, number)
        self._disk = self._room / "disk"

    def power_on(self) -> None:
        if self.on:
            raise RuntimeError(f"{self.name} is on already")
        if not self._disk.exists():
            self._make_disk()
        self._disconnect()
        link = f"ve-{self._machine}"
        more = [self._more_disk(number, size) for number, size in enumerate(self.more_disks, 1)]
        with open(self._console, "ab") as console:
            self._process = self.fleet.spawn(
                *APART, sys.executable, uml_kernel.__file__, "linux.uml", "mem=512M", f"uml_dir={self._room}", f"ubd0={self._disk}", *more,
                f"eth0=tuntap,{link}", "con0=fd:0,fd:1", "con=null", "ssl=null", "root=/dev/ubda", "rw", "quiet", "init=/fleet-init",
                f"fleet_clock={self.clock or ''}", *uml_kernel.ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)  # fmt: skip
        threading.Thread(target=self._wire, args=(link, self._process), daemon=True).start()
        self._up = False

    def _more_disk(self, number: int, size: int) -> str:
        path = self._room / f"disk{number}"
        with open(path, "ab") as disk:
            disk.truncate(size << 20)
        return f"ubd{number}={path}"

    def _ended(self) -> None:
        """Some processors and containers are not for this kernel."""
        if _RUNS not in self._console.read_text(encoding="utf-8", errors="backslashreplace"):
            raise Unavailable(f"User-Mode Linux does not run here: {self._last_words()}")
        super()._ended()

    def _wire(self, link: str, process: subprocess.Popen[bytes]) -> None:
        """The kernel makes the link when the host asks for it, and takes it away when it ends."""
        while process.poll() is None:
            up = subprocess.run(["ip", "link", "set", link, "up"], stderr=subprocess.DEVNULL, check=False).returncode == 0
            if up and subprocess.run(["ip", "address", "add", self._outside, "dev", link, "nodad"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return
            time.sleep(0.05)

    def _make_disk(self) -> None:
        """Copy the image, and put in what makes it this host. The mount is seen by the program alone that writes."""
        disks = debian.cache().parent / "disks"
        with debian._locked(disks / "lock"):
            image = _image(disks, self._tree)
            _quietly("cp", "--reflink=auto", "--sparse=always", str(image), str(self._disk))
        root, upper = self._room / "root", self._room / "upper"
        _apart('mount -o loop "$1" "$2" && cp -a "$3/." "$2"', self._disk, root, upper)


def modules(*names: str) -> list[Path]:
    """Files of modules, with those that they need, in the order in which they can be loaded."""
    top = next(_MODULES.glob("*"), None)
    if top is None:
        raise Unavailable("User-Mode Linux has no modules")
    needs = {name: others.split() for name, _colon, others in (line.partition(":") for line in (top / "modules.dep").read_text(encoding="ascii").splitlines())}
    found: dict[str, None] = {}
    for name in names:
        path = next((path for path in needs if path.endswith(f"/{name}.ko")), None)
        if path is None:
            raise Unavailable(f"the kernel of User-Mode Linux has no module {name}")
        found.update(dict.fromkeys([*reversed(needs[path]), path]))
    return [top / path for path in found]


def _image(disks: Path, tree: Path) -> Path:
    """An ext4 of a tree and what all machines have. Call it under the lock, which makes it safe to remove images of older trees."""
    parts = (tree.name, tree.stat().st_ino, (tree / "usr").stat().st_ctime_ns, _MODULES.stat().st_ctime_ns, _INIT, _ENVIRONMENT, _MASKED)
    made = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    image, beside = disks / f"{made}.ext4", disks / "building"
    if image.exists():
        return image
    for old in disks.glob("*.ext4"):
        old.unlink()
    shutil.rmtree(beside, ignore_errors=True)
    layer, units = beside / "layer", beside / "layer/etc/systemd/system"
    units.mkdir(parents=True)
    for unit in _MASKED:
        (units / unit).symlink_to("/dev/null")
    for name, text in _ENVIRONMENT.items():
        (layer / "etc" / name).parent.mkdir(parents=True)
        (layer / "etc" / name).write_text(text, encoding="ascii")
    (layer / "fleet-init").write_text(_INIT, encoding="ascii")
    (layer / "fleet-init").chmod(0o755)
    shutil.copytree(_MODULES, layer / "usr/lib/modules", ignore=shutil.ignore_patterns("drivers", "fs"))  # IPv6 is a module
    for name in ("work", "root"):
        (beside / name).mkdir()
    with open(beside / "disk", "wb") as stream:
        stream.truncate(2 * _GIB)
    merge = 'mount -t overlay -o "lowerdir=$1,upperdir=$2/layer,workdir=$2/work" overlay "$2/root"'
    # No work is left to the machine, and the copy is a copy of nothing.
    _apart(merge + ' && mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 -d "$2/root" "$2/disk"', tree, beside)
    (beside / "disk").rename(image)
    shutil.rmtree(beside)
    return image


def _apart(script: str, *words: Path) -> None:
    """Run a script whose mounts end with it."""
    _quietly("unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *map(str, words))


def _quietly(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"cannot make a disk: {done.stdout.strip()[-300:]}")
