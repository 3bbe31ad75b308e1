# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Domains of a libvirt of a test's own, with a guest that has a guest agent and writes to its disk all the time.

    with domains.daemon(place) as libvirt:
        shop = libvirt.domain("shop", image)

The daemon has a process namespace and a network of its own, and its directories are in memory, in the mounts of these tests alone: nothing of it stays.
QEMU emulates the processor, because /dev/kvm often cannot be used in a virtual machine. The guest is a Debian kernel that is fetched once and not
installed, busybox, and qemu-ga: it boots in two seconds of CPU.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from . import Unavailable, debian, mounts, need
from .fleet import APART

_PATIENCE = 60
#: Where libvirt has its sockets, and all that it keeps.
_SOCKETS = "/run/libvirt"
_PLACES = ("/etc/libvirt", _SOCKETS, "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")
_QEMU = 'user = "root"\ngroup = "root"\ndynamic_ownership = 0\nsecurity_driver = "none"\nstdio_handler = "file"\ncgroup_controllers = []\nnamespaces = []\n'
#: libvirt wants to know these even where it does not use them.
_ACCOUNTS = """\
for name in passwd group; do cp /etc/$name {place}/$name; done
echo libvirt-qemu:x:64055:64055::/:/bin/false >>{place}/passwd; echo libvirt-qemu:x:64055: >>{place}/group
for name in passwd group; do mount --bind {place}/$name /etc/$name; done
unshare --net libvirtd --config {place}/libvirtd.conf --pid-file {place}/pid &
wait # the first process of a namespace has to, for all that lose their parent; libvirtd does not
"""
_MODULES = ["virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci", "block/virtio_blk",
            "char/virtio_console"]  # fmt: skip
#: Writes the same number into two files of the disk, one after the other. /run/mood is what happens when it freezes; /run/deaf makes it ignore a shutdown.
_FILES = {
    "init": """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
for module in {modules}; do insmod /lib/modules/$module.ko; done
mount -t ext4 /dev/vda /data
n=0
while :; do
    n=$((n + 1))
    for file in a z; do echo $n >/data/new; mv /data/new /data/$file; done
    usleep 50000
done &
port=$(ls /sys/class/virtio-ports)
while :; do [ -e /run/no-agent ] || qemu-ga -m virtio-serial -p /dev/$port -t /run -f /run/pid -F/sbin/hook; sleep 1; done
""",
    "sbin/hook": "#!/bin/sh\n[ ! -e /run/mood ] || . /run/mood\n",
    "sbin/shutdown": "#!/bin/sh\n[ -e /run/deaf ] || { sync; poweroff -f; }\n",
}
_DOMAIN = """\
<domain type='qemu'>
 <name>{name}</name><memory unit='MiB'>96</memory><vcpu>1</vcpu>
 <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>quiet panic=-1</cmdline></os>
 <features><acpi/></features>
 <devices>
  <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{image}'/><target dev='vda' bus='virtio'/></disk>
  <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  <memballoon model='none'/><controller type='usb' model='none'/>
 </devices>
</domain>
"""


class Domain:
    """A domain, which runs."""

    def __init__(self, libvirt: Libvirt, name: str) -> None:
        self.libvirt, self.name = libvirt, name

    def state(self) -> str:
        return self.libvirt("domstate", self.name)

    def run(self) -> str:
        """The number of its run."""
        return self.libvirt("domid", self.name)

    def frozen(self) -> bool:
        return "frozen" in self.libvirt("qemu-agent-command", self.name, '{"execute":"guest-fsfreeze-status"}')

    def guest(self, script: str) -> None:
        """Start a script of the shell in the guest."""
        quoted = script.replace("\\", "\\\\").replace('"', '\\"')
        self.libvirt("qemu-agent-command", self.name, '{"execute":"guest-exec","arguments":{"path":"/bin/sh","arg":["-c","%s"]}}' % quoted)

    def agent(self, there: bool = True) -> None:
        """Wait until the agent is connected, or is not."""
        until(lambda: ("state='connected'" in self.libvirt("dumpxml", self.name)) is there)


class Libvirt:
    """The words of virsh."""

    def __init__(self, kernel: Path, initrd: Path) -> None:
        self._kernel, self._initrd = kernel, initrd

    def __call__(self, *words: str) -> str:
        done = subprocess.run(["virsh", "--connect", "qemu:///system", *words], capture_output=True, text=True, check=False, timeout=_PATIENCE)
        if done.returncode:
            raise AssertionError(done.stderr)
        return done.stdout.strip()

    def domain(self, name: str, image: Path) -> Domain:
        """Define a domain whose disk is a new image, and start it."""
        mounts.make("ext4", image, 32 * mounts.MIB)
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(_DOMAIN.format(name=name, kernel=self._kernel, initrd=self._initrd, image=image))
            file.flush()
            self("define", file.name)
        self("start", name)
        domain = Domain(self, name)
        domain.agent()
        return domain


def until(holds: Callable[[], bool], patience: float = _PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)


@contextmanager
def daemon(place: Path) -> Iterator[Libvirt]:
    """Only where tests have mounts of their own.

    :param place: an empty directory. The sockets of the daemon lie in its `run`, where a host that shares the directory can reach them.
    """
    need("libvirtd", "virsh", "qemu-system-x86_64", "busybox", "cpio", "unshare", root=True)
    mounts.need_private()
    libvirt = Libvirt(*guest())
    with ExitStack() as stack:
        stack.enter_context(mounts.places(_cache() / "users", _PLACES))
        (place / "run").mkdir()
        for path in _PLACES:
            what = ["--bind", str(place / "run")] if path == _SOCKETS else ["-t", "tmpfs", "volt-test"]
            subprocess.run(["mount", *what, path], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", path], check=True)
        (place / "libvirtd.conf").write_text('auth_unix_ro = "none"\nauth_unix_rw = "none"\n')
        Path("/etc/libvirt/qemu.conf").write_text(_QEMU)
        log = stack.enter_context(open(place / "log", "wb"))
        words = [*APART, "sh", "-ec", _ACCOUNTS.format(place=place)]
        child = stack.enter_context(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        stack.callback(child.kill)  # and with it all of its processes, and so the domains
        until(lambda: child.poll() is not None or not subprocess.run(["virsh", "-c", "qemu:///system", "list"], capture_output=True, check=False).returncode)
        if child.poll() is not None:
            raise AssertionError((place / "log").read_text()[-2000:])
        yield libvirt


def _cache() -> Path:
    place = debian.cache().parent / "guest"
    place.mkdir(parents=True, exist_ok=True)
    return place


def guest() -> tuple[Path, Path]:
    """The kernel and the initial file system of the guest, built once."""
    place = _cache()
    with debian._locked(place / "lock"):
        if not (place / "vmlinuz").exists():
            _fetch(place)
        with tempfile.TemporaryDirectory(dir=place) as room:
            _pack(place, Path(room) / "root", place / "initrd")
    return place / "vmlinuz", place / "initrd"


def _fetch(place: Path) -> None:
    need("apt-get", "apt-cache", "dpkg-deb")
    told = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True, check=False).stdout
    kernel = re.search(r"linux-image-[0-9]\S*", told)
    if kernel is None:
        raise Unavailable("apt knows no kernel for a guest")
    with tempfile.TemporaryDirectory(dir=place) as room:
        words = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", kernel[0], "qemu-guest-agent"]
        done = subprocess.run(words, cwd=room, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"apt cannot fetch packages: {done.stdout.strip()[-300:]}")
        for package in Path(room).glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", str(package), f"{room}/tree"], check=True)
        for name in _MODULES:
            path = next(Path(room, "tree/lib/modules").glob(f"*/kernel/drivers/{name}.ko"))
            shutil.copy(path, place / path.name)
        shutil.copy(Path(room, "tree/usr/sbin/qemu-ga"), place / "qemu-ga")
        shutil.copy(next(Path(room, "tree/boot").glob("vmlinuz-*")), place / "vmlinuz")


def _pack(place: Path, root: Path, into: Path) -> None:
    for name in ("bin", "sbin", "proc", "sys", "dev", "run", "data", "lib/modules", "var"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin")
    shutil.copy(place / "qemu-ga", root / "sbin")
    names = [os.path.basename(name) for name in _MODULES]
    for name in names:
        shutil.copy(place / f"{name}.ko", root / "lib/modules")
    told = subprocess.run(["ldd", str(place / "qemu-ga")], capture_output=True, text=True, check=True).stdout
    if "not found" in told:
        raise Unavailable("a library of qemu-ga is missing")
    for library in re.findall(r"/\S+", told):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])
    for name, content in _FILES.items():
        (root / name).write_text(content.replace("{modules}", " ".join(names)))
        (root / name).chmod(0o755)
    with open(f"{into}.new", "wb") as file:
        subprocess.run("find . | cpio --quiet -o -H newc", shell=True, cwd=root, stdout=file, check=True)
    os.rename(f"{into}.new", into)
