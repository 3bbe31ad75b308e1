# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests stand on: hard inputs, file systems, faults, and judges nobody here wrote.

torture.py   a tree with every kind of file, and edits to it
fleet.py     real hosts with a systemd of their own, reached over ssh; virtual.py, one with a clock of its own, whose kernel uml_kernel.py runs
control.py   Ansible to play on them
debian.py    a real Debian root file system, cached outside the checkout
foreign.py   programs of another architecture
ledgers.py   databases that are written while they are backed up; databases.py, their servers
mongodb.py   FerretDB, a server that speaks the protocol of MongoDB
domains.py   virtual machines of libvirt, with a guest agent
mounts.py    file systems on loop devices, putting them back to how they were, and cutting their power
zfs_fuse.py  pools of ZFS in user space
sample.py    which of many like cases a run takes
images.py    makes the trees before they are asked for
forks.py     running a command many times without Python's start each time
strace.py    killing or failing such a command at a chosen system call
s3_servers.py   S3 servers: moto, rclone's, Ceph's gateway
http_faults.py  a proxy in front of one, that spoils what passes
apart.py     a transport of remotes in a process of its own: with an old client, or another clock
oracle.py    are two trees the same?
fleet_answers.py   what volt_backup_info would return from hosts that are not there
browser.py   Chromium, and axe-core in it
picture.py   pictures of a terminal in docs/pictures, and whether programs still print that

Where the machine lacks a tool or a right, `Unavailable` is raised: a test turns it into a skip that names what is missing.
"""

from __future__ import annotations

import os
import shutil


class Unavailable(Exception):
    """This machine cannot do it; the message says what is missing."""


def need(*tools: str, root: bool = False) -> None:
    """Raise Unavailable unless all tools are installed (and we are root)."""
    if root and os.geteuid() != 0:
        raise Unavailable("needs root")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise Unavailable("not installed: " + ", ".join(missing))
