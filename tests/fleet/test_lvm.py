# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of logical volumes, on a kernel of their own: that of this machine may have no device mapper, and its volumes are none of a test's business.

The first machine is User-Mode Linux. It starts from this machine's own file system, which it cannot write to, and does nothing but what rigs/volumes.py has,
or rigs/ledgers.py.
The second one is a host with systemd, for the units of schedules. It gets lvm2 without the scripts of its package: those are for udev, which it has not.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.volt.backup.tests.rigs import Unavailable, databases, debian, ledgers, need, sample, uml_kernel, virtual, volumes
from ansible_collections.volt.backup.tests.rigs.fleet import APART, Fleet
from ansible_collections.volt.backup.tests.unit.kit import command

MODULES = Path("/usr/lib/uml/modules")
#: In the order in which they need each other.
NEEDED = "dm-mod dm-bufio dm-snapshot persistent-data/dm-persistent-data dm-bio-prison dm-thin-pool".split()
RUNS = "The kernel runs programs."
INIT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
echo '{runs}'
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/room /run/lvm.conf /run/stores
mount -t hostfs -o {room} none /run/room
mount -t tmpfs tmpfs /tmp
cp -a /etc/lvm/. /run/lvm.conf
echo 'activation {{ udev_sync = 0 udev_rules = 0 }}' >/run/lvm.conf/lvmlocal.conf
mount --bind /run/lvm.conf /etc/lvm
cp /run/room/volt-backup /run
{python} /run/room/load.py {modules} && {work}
echo o >/proc/sysrq-trigger
sleep 60
"""
TRY_VOLUMES = "{python} /run/room/volumes.py /run/volt-backup /run/room/results {kills}"
#: Proofs of databases on XFS on a thin volume. A dump as another user does not get our environment, so its programs get that of rigs/uml_kernel.py here.
PROVE = """\
{{
    mount -t tmpfs -o mode=1777 tmpfs /var/tmp && mkdir /run/bin && chmod 0755 /run/bin
    for program in pg_dump pg_dumpall psql; do
        printf '#!/bin/sh\\nexport {environment}\\nexec %s "$@"\\n' /usr/lib/postgresql/*/bin/$program >/run/bin/$program && chmod 0755 /run/bin/$program
    done
    export PATH=/run/bin:$PATH
    mkdir /dev/shm /run/proof && mount -t tmpfs tmpfs /dev/shm
    vgcreate big /dev/ubda && lvcreate --type thin-pool --extents 90%FREE --name pool big && lvcreate --virtualsize 6G --thinpool big/pool --name proof
    mkfs.xfs -q /dev/big/proof && mount /dev/big/proof /run/proof && cp -r /run/room/rigs /run && cd /run || exit 1
    {python} -m rigs.ledgers {kinds} /run/proof/all {way} /run/volt-backup {number} >/run/room/results
}}"""


def boot(room: Path, fleet: Fleet, work: str, patience: float = 900, memory: int = 512, big: int = 1500) -> None:
    """Start the machine, and wait until it has ended. Its work writes results. :param memory: in MiB. :param big: that of its first disk."""
    need("linux.uml", "lvcreate", "thin_check", "mkfs.ext4", "mkfs.xfs", "strace", root=True)
    drivers = next(MODULES.glob("*/kernel/drivers/md"), None)
    if drivers is None:
        raise Unavailable("the kernel of User-Mode Linux has no device mapper")
    for name, size in (("big", big), ("small", 64)):
        with open(room / name, "wb") as disk:
            disk.truncate(size << 20)
    (room / "volt-backup").write_bytes(command())
    (room / "load.py").write_text(virtual.LOAD, encoding="ascii")
    modules = " ".join(str(drivers / f"{name}.ko") for name in NEEDED)
    (room / "init").write_text(INIT.format(runs=RUNS, room=room, python=sys.executable, modules=modules, work=work), encoding="utf-8")
    (room / "init").chmod(0o755)
    console = room / "console"
    with open(console, "wb") as out:
        process = fleet.spawn(
            *APART, sys.executable, uml_kernel.__file__, "linux.uml", f"mem={memory}M", f"uml_dir={room}", f"ubd0={room}/big", f"ubd1={room}/small",
            "con0=fd:0,fd:1", "con=null", "ssl=null", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", f"init={room}/init",
            *uml_kernel.ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)  # fmt: skip
    process.wait(patience)
    said = console.read_text(encoding="utf-8", errors="backslashreplace")
    if RUNS not in said:
        raise Unavailable(f"User-Mode Linux does not run here: {said[-300:]}")
    assert os.path.exists(room / "results"), said


@contextlib.contextmanager
def room_of(fleet: Fleet, name: str) -> Iterator[Path]:
    """A directory that the machine sees, without its disks in the end."""
    room = fleet.room / name
    room.mkdir()
    try:
        yield room
    finally:
        for disk in ("big", "small"):
            (room / disk).unlink(missing_ok=True)


def volumes_are_kept_still(fleet: Fleet) -> None:
    with room_of(fleet, "volumes") as room:
        shutil.copy(volumes.__file__, room / "volumes.py")
        kills = 200 if sample.LONG else 4
        boot(room, fleet, TRY_VOLUMES.format(python=sys.executable, kills=kills), 900 + 20 * kills, 1024)
        print((room / "console").read_text(encoding="utf-8", errors="backslashreplace"))
        results = dict(json.loads((room / "results").read_text(encoding="utf-8")))
    failed = [f"{name}:\n{trace}" for name, trace in results.items() if trace]
    assert results and not failed, "\n".join(failed)


@pytest.mark.meanwhile(work=volumes_are_kept_still)
@pytest.mark.costly
def test_volumes_are_kept_still(outcome: Callable[[], None]) -> None:
    outcome()


def prove(fleet: Fleet, way: str) -> None:
    """As tests/system/test_proofs.py; all of them are in one snapshot, or dumped in one run."""
    if databases.missing():
        raise Unavailable(f"needs {', '.join(databases.missing())}")
    number = int(os.environ.get("VOLT_PROOFS") or (50 if sample.LONG else 1))
    with room_of(fleet, f"{way}-proofs") as room:
        (room / "rigs").mkdir()
        for module in (databases, ledgers):
            shutil.copy(module.__file__ or "", room / "rigs")
        work = PROVE.format(environment=" ".join(uml_kernel.ENVIRONMENT), kinds=",".join(ledgers.KINDS), way=way, python=sys.executable, number=number)
        boot(room, fleet, work, 600 + 180 * number, 1024, 8000)
        said = (room / "console").read_text(encoding="utf-8", errors="backslashreplace")
        wrong = json.loads((room / "results").read_text() or "null")
    for kind in wrong or ():
        print(f"proof: {kind} on LVM with XFS by {way}: {number} backups, {number - len(wrong[kind])} sound", *wrong[kind][:3], sep="\n", flush=True)
    assert wrong == {kind: [] for kind in ledgers.KINDS}, said[-3000:]


def databases_are_sound(fleet: Fleet) -> None:
    prove(fleet, "snapshot")


@pytest.mark.meanwhile(work=databases_are_sound)
@pytest.mark.costly
def test_databases_are_sound(outcome: Callable[[], None]) -> None:
    outcome()


if sample.LONG:  # a dump does not depend on the volume, so the usual mode has those of tests/system/test_proofs.py

    def dumps_are_sound(fleet: Fleet) -> None:
        prove(fleet, "dump")

    @pytest.mark.meanwhile(work=dumps_are_sound)
    @pytest.mark.costly
    def test_dumps_are_sound(outcome: Callable[[], None]) -> None:
        outcome()


PACKAGES = ("dmsetup", "libaio1", "libdevmapper-event1.02.1", "liblvm2cmd2.03", "lvm2", "thin-provisioning-tools")
#: Makes a classic and a thin volume with a source on each.
FURNISH = """\
set -e
python3 /root/load.py /root/modules/*
vgcreate group /dev/ubdb
lvcreate --yes --size 64M --name classic group
lvcreate --type thin-pool --size 100M --name pool group
lvcreate --virtualsize 64M --thinpool group/pool --name thin
mkdir -p /run/volt /var/lib/volt/schedules /srv/cas /srv/backups
for name in classic thin; do
    mkfs.ext4 -q /dev/group/$name
    mkdir /srv/$name
    mount /dev/group/$name /srv/$name
    mkdir /srv/$name/app
    echo $name >/srv/$name/app/file
done
chmod 0755 /usr/local/bin/volt-backup
"""
#: Declares a schedule of each, which no timer starts.
DECLARE = """\
import os, sys
sys.path.insert(0, "/usr/local/bin/volt-backup")
from volt_backup._schedule import job, units
os.makedirs("/etc/volt/backup", exist_ok=True)
for name in ("classic", "thin"):
    made = job.check(job.Job(name, f"/srv/{name}/app", 86400, snapshot="require", store="/srv/cas", backup_dir="/srv/backups"))
    with open(job.path(name), "w") as file:
        file.write(made.text())
    with open(f"/etc/systemd/system/{made.unit}.service", "w") as file:
        file.write(units.service(made, "/usr/bin/python3", "/usr/local/bin/volt-backup", "/var/lib/volt/schedules"))
"""
#: A program that hangs outside of a unit: to end what waits for it would not be enough.
HANG = """\
import os, sys
sys.path.insert(0, "/usr/local/bin/volt-backup")
os.environ["INVOCATION_ID"] = "0"
from volt_backup._sources import storage
storage.LIMIT = 2
try:
    storage.run(["sleep", "4321"], "coreutils", "wake it")
except OSError as error:
    print("ended" if error.strerror == "sleep did not end in 2 seconds; wake it" else error)
"""


class WithDisk(virtual.Machine):
    """A host with a disk for volumes."""

    more_disks = (400,)


def packed(room: Path, tree: Path) -> str:
    """What the host needs, as the base64 of a tar: the packages, modules of its kernel, and volt-backup."""
    drivers = next(MODULES.glob("*/kernel/drivers/md"), None)
    if drivers is None:
        raise Unavailable("the kernel of User-Mode Linux has no device mapper")
    layer = room / "layer"
    for package in debian.download(tree, PACKAGES, room / "packages"):
        if package.name.split("_")[0] in PACKAGES:
            subprocess.run(["dpkg-deb", "--extract", str(package), str(layer)], check=True)
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w:gz", compresslevel=1) as tar:
        for top in layer.iterdir():  # what is a link in the host stays one
            for path in top.rglob("*"):
                if not path.is_dir() or path.is_symlink():
                    name = str(path.relative_to(layer))
                    tar.add(path, name if top.name in ("etc", "usr") else f"usr/{name}")
        for number, module in enumerate(NEEDED):
            tar.add(drivers / f"{module}.ko", f"root/modules/{number}.ko")
        for name, content in {
            "root/load.py": virtual.LOAD.encode(),
            "usr/local/bin/volt-backup": command(),
            "etc/lvm/lvmlocal.conf": b"activation { udev_sync = 0 udev_rules = 0 }",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return base64.b64encode(file.getvalue()).decode()


def units_read_volumes(fleet: Fleet) -> None:
    """The hardening leaves room for what LVM needs, and no more: the programs run outside of it, and the unit may read devices of LVM."""
    host = fleet.boot("volumes", "bookworm", WithDisk)
    room = fleet.room / "packing"
    room.mkdir()
    host.run("sh", "-c", "base64 -d | tar xz --no-same-owner -C / && ldconfig", stdin=packed(room, host._tree), timeout=300)
    host.run("sh", "-c", FURNISH, timeout=300)
    host.run("python3", "-c", DECLARE)
    host.run("systemctl", "daemon-reload")
    host.run("volt-backup", "init", "--store", "/srv/cas", "--backup-dir", "/srv/backups")
    for name in ("classic", "thin"):
        unit = f"volt-backup-{name}.service"
        assert "DeviceAllow=block-device-mapper r\n" in host.run("cat", f"/etc/systemd/system/{unit}").stdout
        done = host.run("systemctl", "start", unit, check=False, timeout=300)
        assert not done.returncode, host.run("journalctl", "--no-pager", "--unit", unit).stdout
    made = json.loads(host.run("volt-backup", "list", "--store", "/srv/cas", "--backup-dir", "/srv/backups", "--json").stdout)["backups"]
    wanted = {(f"/srv/{name}/app", "lvm", 1) for name in ("classic", "thin")}
    assert {(part["path"], part["kind"], backup["file_count"]) for backup in made for part in backup["snapshots"]} == wanted
    assert "volt-" not in host.run("lvs").stdout
    began = time.monotonic()
    assert host.run("python3", "-c", HANG).stdout.strip() == "ended"
    assert time.monotonic() - began < 60 and "4321" not in host.run("sh", "-c", "cat /proc/[0-9]*/cmdline", check=False).stdout


@pytest.mark.meanwhile(work=units_read_volumes)
@pytest.mark.costly
def test_units_read_volumes(outcome: Callable[[], None]) -> None:
    outcome()
