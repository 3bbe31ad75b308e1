# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of a fleet that is a virtual machine: with a kernel of its own, and so with a clock that a test may set.

    with fleet.Fleet() as hosts:
        host = hosts.boot("clock", "bookworm", virtual.Machine)
        host.run("date", "-s", "2026-03-29 00:59:50 UTC")    # the clock jumps
        host.poweroff(); host.clock = "2026-04-05T12:00:00"; host.power_on()    # a week later

QEMU runs it by software alone: slower than by the help of the processor, but the same wherever the tests run. Its disk is an image of
the suite's cached tree, with that suite's kernel. `Host.srv` is not shared with it: it is reached over ssh alone.
"""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

from . import Unavailable, need
from .debian import HOST_PACKAGES
from .fleet import Fleet, Host

_GIB = 1 << 30


class Machine(Host):
    """A host with a clock of its own.

    :ivar clock: what its clock shows when it is powered on, in UTC and without a zone; None for this machine's time.
    """

    packages = (*HOST_PACKAGES, "rsync", "linux-image-cloud-amd64")
    link = "eth0"
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
        boot = self._tree / "boot"
        (kernel,), (initrd,) = boot.glob("vmlinuz-*"), boot.glob("initrd.img-*")
        link = f"ve-{self._machine}"
        with open(self._console, "ab") as console:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio",
                 "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "768", "-rtc", f"clock=vm,base={self.clock or 'utc'}",
                 "-kernel", str(kernel), "-initrd", str(initrd), "-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=-1",
                 "-drive", f"file={self._disk},format=raw,if=virtio,discard=unmap", "-netdev", f"tap,id=link,ifname={link},script=no,downscript=no",
                 "-device", "virtio-net-pci,netdev=link", "-device", "virtio-rng-pci"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        threading.Thread(target=self._wire, args=(link, self._process), daemon=True).start()
        self._up = False

    def ready(self, timeout: float = 180, after: str = "") -> None:
        """As of other hosts, with more patience."""
        super().ready(timeout, after)

    def kill(self) -> None:
        self._up = False
        if self._process and self.on:
            self._process.kill()
            self._process.wait(30)

    def _wire(self, link: str, process: subprocess.Popen[bytes]) -> None:
        """QEMU makes the link when it starts, and takes it away when it ends."""
        while process.poll() is None:
            up = subprocess.run(["ip", "link", "set", link, "up"], stderr=subprocess.DEVNULL, check=False).returncode == 0
            if up and subprocess.run(["ip", "address", "add", self._outside, "dev", link, "nodad"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return
            time.sleep(0.05)

    def _make_disk(self) -> None:
        """An ext4 of the suite's tree and what makes it this host, merged by an overlay that only the program that reads it sees."""
        upper = self._room / "upper"
        with open(self._disk, "wb") as stream:
            stream.truncate(2 * _GIB)
        merge = f"mount -t overlay -o lowerdir={self._tree},upperdir={upper},workdir={self._room / 'work'} overlay {self._room / 'root'}"
        make = f"mkfs.ext4 -q -F -d {self._room / 'root'} {self._disk}"
        done = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{merge} && {make}"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip
        if done.returncode:
            raise Unavailable(f"cannot make a disk: {done.stdout.strip()[-300:]}")
