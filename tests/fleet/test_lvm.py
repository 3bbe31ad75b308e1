# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of logical volumes, on a kernel of their own: that of this machine may have no device mapper, and its volumes are none of a test's business.

The machine is User-Mode Linux. It starts from this machine's own file system, which it cannot write to, and does nothing but what rigs/volumes.py has.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.volt.backup.tests.rigs import Unavailable, need, uml_kernel, volumes
from ansible_collections.volt.backup.tests.rigs.fleet import APART, Fleet
from ansible_collections.volt.backup.tests.unit.kit import command

MODULES = Path("/usr/lib/uml/modules")
#: In the order in which they need each other.
NEEDED = "dm-mod dm-bufio dm-snapshot persistent-data/dm-persistent-data dm-bio-prison dm-thin-pool".split()
RUNS = "The kernel runs programs."
#: finit_module(2): this machine may have no insmod.
LOAD = """\
import ctypes, os, sys
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    if ctypes.CDLL(None).syscall(313, fd, b"", 0):
        sys.exit(f"{path} cannot be loaded")
"""
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
cp /run/room/volt-backup /run/room/volumes.py /run
{python} /run/room/load.py {modules} && {python} /run/volumes.py /run/volt-backup /run/room/results
echo o >/proc/sysrq-trigger
sleep 60
"""


def boot(room: Path, fleet: Fleet) -> dict[str, str]:
    """Start the machine, and have its results when it has ended."""
    need("linux.uml", "lvcreate", "thin_check", "mkfs.ext4", "mkfs.xfs", "strace", root=True)
    drivers = next(MODULES.glob("*/kernel/drivers/md"), None)
    if drivers is None:
        raise Unavailable("the kernel of User-Mode Linux has no device mapper")
    for name, size in (("big", 1500), ("small", 64)):
        with open(room / name, "wb") as disk:
            disk.truncate(size << 20)
    (room / "volt-backup").write_bytes(command())
    shutil.copy(volumes.__file__, room / "volumes.py")
    (room / "load.py").write_text(LOAD, encoding="ascii")
    modules = " ".join(str(drivers / f"{name}.ko") for name in NEEDED)
    (room / "init").write_text(INIT.format(runs=RUNS, room=room, python=sys.executable, modules=modules), encoding="utf-8")
    (room / "init").chmod(0o755)
    console = room / "console"
    with open(console, "wb") as out:
        process = fleet.spawn(
            *APART, sys.executable, uml_kernel.__file__, "linux.uml", "mem=512M", f"uml_dir={room}", f"ubd0={room}/big", f"ubd1={room}/small",
            "con0=fd:0,fd:1", "con=null", "ssl=null", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", f"init={room}/init",
            *uml_kernel.ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)  # fmt: skip
    process.wait(900)
    said = console.read_text(encoding="utf-8", errors="backslashreplace")
    if RUNS not in said:
        raise Unavailable(f"User-Mode Linux does not run here: {said[-300:]}")
    assert os.path.exists(room / "results"), said
    return dict(json.loads((room / "results").read_text(encoding="utf-8")))


def volumes_are_kept_still(fleet: Fleet) -> None:
    room = fleet.room / "volumes"
    room.mkdir()
    try:
        results = boot(room, fleet)
    finally:
        for name in ("big", "small"):
            (room / name).unlink(missing_ok=True)
    failed = [f"{name}:\n{trace}" for name, trace in results.items() if trace]
    assert results and not failed, "\n".join(failed)


@pytest.mark.meanwhile(work=volumes_are_kept_still)
def test_volumes_are_kept_still(outcome: Callable[[], None]) -> None:
    outcome()
