# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of a fleet that is a virtual machine: with a kernel of its own, and so with a clock that a test may set.

    with fleet.Fleet() as hosts:
        host = hosts.boot("clock", "bookworm", virtual.Machine)
        host.run("date", "-s", "2026-03-29 00:59:50 UTC")    # the clock jumps
        host.poweroff(); host.clock = "2026-04-05T12:00:00"; host.power_on()    # a week later

QEMU runs it by software alone: slower than by the help of the processor, but the same wherever the tests run. So it is spared all work
that no test looks at: an initial RAM disk, udev, login prompts, Debian's own timers. And it goes before other work: what takes it a minute
is soon done elsewhere. `Host.srv` is not shared with it: it is reached over ssh alone.

Its disk is a copy of an image of the suite's cached tree, cached likewise. What makes it this host comes into the copy.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
import time
from pathlib import Path

from . import Unavailable, debian, need
from .fleet import MORTAL, Fleet, Host

_GIB = 1 << 30

# The kernel can mount its root by itself from NVMe alone; for the network it loads modules, and no udev is needed for that.
_MODULES = "virtio_pci\nvirtio_net\n"
_MASKED = (
    "apt-daily-upgrade.timer apt-daily.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer"
    " getty.target systemd-logind.service systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service"
    " dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount"
    " kmod-static-nodes.service modprobe@.service proc-sys-fs-binfmt_misc.automount systemd-ask-password-console.path systemd-ask-password-wall.path"
    " systemd-binfmt.service systemd-initctl.socket systemd-journal-flush.service systemd-pstore.service systemd-random-seed.service"
    " systemd-sysusers.service systemd-update-utmp-runlevel.service systemd-update-utmp.service systemd-user-sessions.service"
).split()
_KERNEL = "root=/dev/nvme0n1 rw console=ttyS0 quiet panic=-1 edd=off mitigations=off nokaslr selinux=0 audit=0 init_on_alloc=0 8250.nr_uarts=1"
# Where the kernel shares time out among sessions first, the niceness of a session is another than that of its processes.
_FIRST = '[ ! -e /proc/self/autogroup ] || echo -10 >/proc/self/autogroup; exec nice -n -10 "$@"'


class Machine(Host):
    """A host with a clock of its own.

    :ivar clock: what its clock shows when it is powered on, in UTC and without a zone; None for this machine's time.
    """

    packages = (*debian.HOST_PACKAGES, "rsync", "linux-image-cloud-amd64")
    link = "eth0"
    answers, boots = 60, 900
    clock: str | None = None

    def __init__(self, fleet: Fleet, name: str, suite: str, number: int) -> None:
        need("qemu-system-x86_64", "mkfs.ext4", "mount", root=True)
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
        (kernel,) = (self._tree / "boot").glob("vmlinuz-*")
        link = f"ve-{self._machine}"
        with open(self._console, "ab") as console:
            self._process = self.fleet.spawn(
                *MORTAL, "sh", "-c", _FIRST, "first",
                "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio",
                "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "512", "-rtc", f"clock=vm,base={self.clock or 'utc'}",
                "-kernel", str(kernel), "-append", _KERNEL,
                "-drive", f"file={self._disk},format=raw,if=none,id=disk,cache=unsafe", "-device", "nvme,drive=disk,serial=disk",
                "-netdev", f"tap,id=link,ifname={link},script=no,downscript=no", "-device", "virtio-net-pci,netdev=link,romfile=",
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)  # fmt: skip
        threading.Thread(target=self._wire, args=(link, self._process), daemon=True).start()
        self._up = False

    def kill(self) -> None:
        self._up = False
        if self._process and self.on:
            self._process.kill()
            self._process.wait(self.boots)
        self._disconnect()

    def _wire(self, link: str, process: subprocess.Popen[bytes]) -> None:
        """QEMU makes the link when it starts, and takes it away when it ends."""
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


def _image(disks: Path, tree: Path) -> Path:
    """An ext4 of a tree and what all machines have. Call it under the lock, which makes it safe to remove images of older trees."""
    made = hashlib.sha256(repr((tree.name, tree.stat().st_ino, (tree / "usr").stat().st_ctime_ns, _MODULES, _MASKED)).encode()).hexdigest()[:16]
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
    (layer / "etc/modules-load.d").mkdir()
    (layer / "etc/modules-load.d/fleet.conf").write_text(_MODULES, encoding="ascii")
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
