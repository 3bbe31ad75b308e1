# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host is lost with its store and all else. A new one has Python and an empty disk; the playbook recover brings back what the first one did.

The usual mode takes a directory as the remote, and one new host. The long mode takes Ceph's gateway and sealed copies as well, has two hosts recover at
once, and waits until the timers of the new hosts have made backups by themselves.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible_collections.volt.backup.plugins.module_utils._remote import sealed
from ansible_collections.volt.backup.tests.rigs import control, oracle, s3_servers, sample, warm
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet, Host

SHOP = "/srv/shop"
#: A service, and files of each kind that a host has, with what belongs to them.
FURNISH = """
import os, socket, struct
os.makedirs("/srv/shop/www/empty")
os.chdir("/srv/shop")
unit = "[Service]\\nExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 --directory /srv/shop/www 8088\\n[Install]\\nWantedBy=multi-user.target\\n"
for name, data in {"shop.service": unit, "www/index.html": "the shop is open\\n", "theirs": "x", "tool": "#!/bin/sh\\n"}.items():
    with open(name, "w") as file:
        file.write(data)
for number in range(300):
    with open(f"www/page-{number:03d}", "wb") as file:
        file.write(b"%d\\n" % number * (number + 1))
with open("noise", "wb") as file:
    file.write(os.urandom(3 << 20))
with open("sparse", "wb") as file:
    file.write(b"begin")
    file.seek(5 << 20)
    file.write(b"end")
os.link("theirs", "linked")
os.symlink("nowhere", "symbolic")
os.mkfifo("pipe", 0o640)
socket.socket(socket.AF_UNIX).bind("socket")
os.mknod("device", 0o020600, os.makedev(1, 3))
os.chown("theirs", 4242, 4343)
os.chmod("theirs", 0o4751)
os.setxattr("theirs", "user.volt", b"\\0\\xff")
os.setxattr("www", "system.posix_acl_default", struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry) for entry in ((1, 7, 0xFFFFFFFF), (2, 5, 4242), (4, 5, 0xFFFFFFFF), (16, 5, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))))
os.setxattr("tool", "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
for number, name in enumerate(sorted(os.listdir("."))):
    os.utime(name, ns=(0, 1_700_000_000_123_456_789 + number), follow_symlinks=False)
"""
STORE = {"volt_schedule_store": "/srv/cas", "volt_schedule_backup_dir": "/srv/backups"}
#: What declares all of a host, in their order.
ROLES = ("volt_remote", "volt_runner", "volt_schedule")
ASK = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8088/').read().decode())"


class Equipped(Host):
    """A host with what its remotes require."""

    packages = (*Host.packages, "python3-boto3", "age")


class Away:
    """A remote, which outlives the host. Subclasses say where it is."""

    kind: type[Host] = Host
    identity: dict[str, Any] = {}

    def declared(self, host: Host) -> dict[str, Any]:
        """Variables of the role volt_remote on a host."""
        raise NotImplementedError

    def survives(self, lost: Host, anew: Host) -> None:
        """A host was destroyed; the other one reaches the remote."""


class Nas(Away):
    """A directory, which is mounted by the one host and then by the other."""

    def declared(self, host: Host) -> dict[str, Any]:
        (host.srv / "nas").mkdir(exist_ok=True)
        return {"volt_remote_url": "file:///srv/nas", "volt_remote_init": True}

    def survives(self, lost: Host, anew: Host) -> None:
        (lost.srv / "nas").rename(anew.srv / "nas")


class Bucket(Away):
    """A bucket of a real store, sealed."""

    kind = Equipped

    def __init__(self, server: s3_servers.Server) -> None:
        server.make_bucket("copies")
        self._server, self._recovery = server, sealed.new_recovery().text()
        self.identity = {"volt_recover_identity": self._recovery, "volt_recover_remote_credentials": server.keys["owner"]}

    def declared(self, host: Host) -> dict[str, Any]:
        near = f"{ipaddress.ip_address(host.address) - 1}"  # the other end of the link of this host
        return {
            "volt_remote_url": f"s3://copies/fleet?endpoint=http://[{near}]:{urlsplit(self._server.endpoint).port}&region=us-east-1",
            "volt_remote_init": True, "volt_remote_credentials": self._server.keys["owner"], "volt_remote_recovery_key": self._recovery,
            "volt_remote_packages": [],
        }  # fmt: skip


@pytest.fixture(params=["directory", "s3"] if sample.LONG else ["directory"])
def away(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Away]:
    if request.param == "directory":
        yield Nas()
    else:
        with s3_servers.ceph(tmp_path, for_hosts=True) as server:
            yield Bucket(server)


class Stage:
    """Hosts of one test, and what is played on each."""

    def __init__(self, fleet: Fleet, away: Away, room: Path, ansible: warm.Ansible) -> None:
        self._fleet, self._away, self._room, self._ansible = fleet, away, room, ansible

    def boot(self, name: str) -> Host:
        return self._fleet.boot(f"{name}-{len(self._fleet.hosts)}", "bookworm", self._away.kind)

    def play(self, host: Host, playbook: str, **variables: Any) -> str:
        """Play on one host; what it printed."""
        node = control.Node(self._fleet, self._room / host.name, self._ansible, [host])
        path = self._room / host.name / "vars.json"
        path.write_text(json.dumps({**STORE, **self.wanted(host), **variables}), encoding="utf-8")
        done = node.run("ansible-playbook", playbook, "-e", f"@{path}")
        assert done.returncode == 0, done.stdout
        assert "AGE-SECRET-KEY" not in done.stdout
        return str(done.stdout)

    def wanted(self, host: Host) -> dict[str, Any]:
        """What the inventory says of a host: a remote, and schedules that copy to it, one of them without a source."""
        copied = {"on_calendar": "*:0/1" if sample.LONG else "2040-01-01", "remote": "offsite", "push_to_cdn": True}
        workloads = [{"workload": "shop", "source": SHOP, **copied}, {"workload": "words", "command": ["/bin/echo", "word"], **copied}]
        return {"volt_schedule_workloads": workloads, "volt_remote_name": "offsite", **self._away.declared(host)}

    def call(self, host: Host, *words: str) -> Any:
        return json.loads(host.run("volt-backup", *words, "--store", "/srv/cas", "--backup-dir", "/srv/backups", "--json").stdout)

    def copies(self, host: Host) -> list[dict[str, Any]]:
        """The backups on the remote. For sealed ones, the recovery key is in memory meanwhile."""
        key = self._away.identity.get("volt_recover_identity")
        if not key:
            return list(self.call(host, "list", "--remote", "offsite")["backups"])
        host.run("sh", "-c", "umask 077; cat >/run/recovery.key", stdin=key)
        try:
            return list(self.call(host, "list", "--remote", "offsite", "--identity", "/run/recovery.key")["backups"])
        finally:
            host.run("rm", "/run/recovery.key")

    def kill(self) -> None:
        for host in self._fleet.hosts.values():
            if host.name.partition("-")[0] in ("lost", "anew"):
                host.kill()


@pytest.fixture
def stage(fleet: Fleet, away: Away, tmp_path: Path, controller: warm.Ansible) -> Iterator[Stage]:
    made = Stage(fleet, away, tmp_path, controller)
    yield made
    made.kill()


def attributes(top: Path) -> list[str]:
    """What getfattr and getcap say of all below a directory, a text for each file."""
    extended, capable = (
        subprocess.run(argv, cwd=top, check=True, capture_output=True, text=True).stdout
        for argv in (["getfattr", "-h", "-d", "-m", "-", "-R", "."], ["getcap", "-r", "."])
    )
    return sorted([*extended.split("\n\n"), *capable.splitlines()])


def test_a_lost_host_comes_back_on_another_one(stage: Stage, away: Away, tmp_path: Path) -> None:
    lost = stage.boot("lost")
    lost.run("python3", "-", stdin=FURNISH)
    path = tmp_path / "declare.yml"
    path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": [f"volt.backup.{role}" for role in ROLES]}]), encoding="utf-8")
    stage.play(lost, str(path))
    lost.run("systemctl", "start", "volt-backup-shop.service", "volt-backup-words.service")
    (name,) = {backup["id"].partition("/")[0] for backup in stage.copies(lost)}
    was = lost.srv / "shop"
    told = attributes(was)
    assert all(word in "".join(told) for word in ("cap_net_bind_service", "posix_acl_default", "user.volt"))
    lost.kill()
    for directory in ("cas", "backups"):
        shutil.rmtree(lost.srv / directory)

    hosts = [stage.boot("anew") for _number in range(2 if sample.LONG and away.identity else 1)]
    away.survives(lost, hosts[0])
    given = {"volt_recover_host": name, **away.identity}

    def recover(host: Host) -> str:
        return stage.play(host, "volt.backup.recover", volt_recover_remote=away.declared(host)["volt_remote_url"], **given)

    with ThreadPoolExecutor() as pool:
        list(pool.map(recover, hosts))
    for host in hosts:
        found = host.srv / "shop"
        rsync = ["rsync", "-nciaHAXS", "--delete", "--devices", "--specials", f"{was}/", f"{found}/"]
        assert subprocess.run(rsync, check=True, capture_output=True, text=True).stdout == ""
        assert oracle.differences(was, found) == [] and attributes(found) == told
        host.run("systemctl", "enable", "--now", f"{SHOP}/shop.service")
        assert host.run("timeout", "60", "sh", "-c", f'until python3 -c "{ASK}" 2>/dev/null; do sleep 0.2; done').stdout.strip() == "the shop is open"
        host.run("systemctl", "disable", "--now", "shop.service")
        assert host.run("systemctl", "is-active", "volt-backup-shop.timer", "volt-backup-words.timer").stdout.split() == ["active", "active"]
        assert host.run("cat", "/var/lib/volt/recovered/words/echo").stdout == "word\n"
        copies = stage.copies(host)
        pushed = {backup["id"].partition("/")[0] for backup in copies}
        assert name in pushed and len(pushed) == len(hosts) + 1 and not any(backup["damaged"] for backup in copies), copies
        states = {row["workload"]: row["state"] for row in stage.call(host, "status")["schedules"]}
        assert states["shop"] == "ok" and (sample.LONG or states["words"] == "waiting"), "what is to be loaded first is not backed up by the playbook"
    if sample.LONG:
        for host in hosts:
            ticks(stage, host)


def ticks(stage: Stage, host: Host) -> None:
    """The timer makes a backup by itself, and copies it."""
    before = {backup["id"] for backup in stage.call(host, "list", "shop")["backups"]}
    until = time.monotonic() + 180
    while all(backup["id"] in before or not backup["pushed_to_cdn"] for backup in stage.call(host, "list", "shop")["backups"]):
        assert time.monotonic() < until, host.run("journalctl", "--no-pager", "-u", "volt-backup-shop.service").stdout
        time.sleep(1)
