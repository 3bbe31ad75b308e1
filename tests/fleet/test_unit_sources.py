# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of schedules reach what makes their sources consistent: libvirt freezes a domain, and ZFS makes a snapshot. Each has a host of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.tests.fleet.test_machines import NOTED
from ansible_collections.volt.backup.tests.fleet.test_schedule import Schedules, init_of
from ansible_collections.volt.backup.tests.rigs import control, debian, domains, warm, zfs_fuse
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet, Host
from ansible_collections.volt.backup.tests.system.test_domains import features, goes_on, sound

#: The images and the sockets of a libvirt beside the host are where that has them.
REACH = """
mkdir -p {images} /run/libvirt
mount --bind /srv/images {images}
mount --bind /srv/libvirt/run /run/libvirt
"""
#: A pool on a file, with a data set that it mounts, and one below it.
POOL = """
systemd-run --quiet --unit=pools zfs-fuse --no-daemon --no-kstat-mount
until [ -e /run/zfs/zfs_socket ]; do sleep 0.05; done
mkdir -p /srv/pools /run/zfs-shared
truncate -s 128M /srv/disk
zpool create -m /srv/pools/tank tank /srv/disk
zfs create tank/below
echo 1 >/srv/pools/tank/a
echo 1 >/srv/pools/tank/below/b
"""
#: zfs-fuse differs from OpenZFS on Linux, see its rig.
WRAPPER = '#!/bin/sh\nexec python3 /root/zfs_fuse.py zfs "$@"\n'
DROP_IN = """\
[Service]
ExecStart=
ExecStart=/usr/bin/python3 /root/zfs_fuse.py command /usr/local/bin/volt-backup run work
Environment=ZFS_FUSE_SHARED=/run/zfs-shared
ReadWritePaths=/run/zfs-shared
"""


class Own:
    """A host of a test's own, and what is declared for it. Packages are there, but not configured: nothing of them starts."""

    def __init__(self, host: Host, schedules: Schedules) -> None:
        self.host, self.schedules = host, schedules

    def unpack(self, package: str) -> None:
        debian.download(debian.tree(self.host.suite, self.host.packages), [package], self.host.srv / "packages")
        self.host.run("sh", "-ec", "dpkg --unpack --force-depends /srv/packages/*.deb")

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        self.host.run("sh", "-ec", f"mkdir -p {Path(path).parent}; cat >{path}; chmod {mode} {path}", stdin=text)

    def backup(self, workload: str) -> dict[str, Any]:
        """Start the unit; the record of what it made."""
        done = self.host.run("systemctl", "start", f"volt-backup-{workload}.service", check=False)
        assert not done.returncode, self.host.run("journalctl", "--no-pager", "-u", f"volt-backup-{workload}").stdout
        found: dict[str, Any] = self.schedules.call(self.host, "list", workload)["backups"][0]
        assert not found["unstable"], found
        return found


@pytest.fixture
def own(fleet: Fleet, controller: warm.Ansible, tmp_path: Path) -> Iterator[Own]:
    host = fleet.boot(f"own-{len(fleet.hosts)}", debian.suite_here())
    try:
        host.ready()
        node = control.Node(fleet, tmp_path / "node", controller, [host])
        yield Own(host, Schedules(fleet, [host], node.play, "/srv", tmp_path))
    finally:
        host.kill()


@pytest.mark.costly
def test_a_domain_is_frozen(own: Own) -> None:
    """The daemon and QEMU run beside the host, and share its files and sockets."""
    images = own.host.srv / "images"
    for name in ("images", "libvirt"):
        (own.host.srv / name).mkdir()
    own.unpack("libvirt-clients")
    with domains.daemon(own.host.srv / "libvirt") as libvirt:
        own.host.run("sh", "-ec", REACH.format(images=images))
        own.schedules.declare({"workload": "shop", "source": str(images), "interval": "1d", "quiesce": "pause"})
        domain = libvirt.domain("shop", images / "shop.img")
        found = own.backup("shop")
        assert found["quiesced"] == [{"runtime": "libvirt", "name": "shop", "way": "freeze"}]
        assert own.host.run("sh", "-c", NOTED).stdout == "" and not domain.frozen()
        goes_on(domain, images / "shop.img")
    own.schedules.call(own.host, "restore", found["id"], "--target", "/srv/out")
    restored = own.host.srv / "out/shop.img"
    assert "needs_recovery" not in features(restored) and sound(restored)


@pytest.mark.costly
def test_data_sets_are_read_from_snapshots(own: Own) -> None:
    subprocess.run(["nsenter", "-t", str(init_of(own.host)), "-m", "mknod", "/dev/fuse", "c", "10", "229"], check=True)
    own.unpack("zfs-fuse")
    own.write("/root/zfs_fuse.py", Path(zfs_fuse.__file__).read_text(encoding="utf-8"))
    own.write("/usr/local/sbin/zfs", WRAPPER, "0755")
    own.write("/etc/systemd/system/volt-backup-work.service.d/zfs-fuse.conf", DROP_IN)
    own.host.run("sh", "-ec", POOL)
    own.schedules.declare({"workload": "work", "source": "/srv/pools/tank", "interval": "1d", "snapshot": "require"})
    found = own.backup("work")
    assert [(part["path"], part["kind"]) for part in found["snapshots"]] == [("/srv/pools/tank", "zfs"), ("/srv/pools/tank/below", "zfs")], found
    assert own.host.run("zfs", "list", "-H", "-o", "name", "-t", "snapshot").stdout == ""
    own.schedules.call(own.host, "restore", found["id"], "--target", "/srv/out")
    assert own.host.run("diff", "--recursive", "/srv/pools/tank", "/srv/out").stdout == ""
    level = own.host.run("sh", "-c", "systemd-analyze security volt-backup-work.service | tail -n 1").stdout
    assert float(level.split(":")[1].split()[0]) <= 3.5, level
