# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ten hosts of three suites copy to one sealed remote on Ceph's gateway, all at the same minute, by their timers. Long mode only: it takes 10 machines."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible_collections.volt.backup.plugins.module_utils._remote import sealed
from ansible_collections.volt.backup.tests.rigs import control, s3_servers, sample, warm
from ansible_collections.volt.backup.tests.rigs.fleet import SUITES, Fleet, Host

from .test_recovery import ROLES, STORE, Equipped

COUNT = 10
SOURCE = "/usr"


class Crowd:
    """The hosts, a bucket, and what is declared on each."""

    def __init__(self, fleet: Fleet, server: s3_servers.Server, room: Path, ansible: warm.Ansible) -> None:
        self._room, self._server, self._recovery = room, server, sealed.new_recovery().text()
        server.make_bucket("copies")
        self.hosts = [fleet.boot(f"crowd-{number}", SUITES[number % len(SUITES)], Equipped) for number in range(COUNT)]
        self.node = control.Node(fleet, room / "node", ansible, self.hosts)
        variables = {
            **STORE, "volt_remote_name": "offsite", "volt_remote_init": True, "volt_remote_share": "domain", "volt_remote_packages": [],
            "volt_remote_credentials": server.keys["owner"], "volt_remote_recovery_key": self._recovery,
            "volt_remote_url": f"s3://copies/fleet?endpoint=http://gateway:{urlsplit(server.endpoint).port}&region=us-east-1",
            "volt_schedule_workloads": [
                {"workload": "docs", "source": SOURCE, "on_calendar": "*:0/1", "randomized_delay": "0", "remote": "offsite", "push_to_cdn": True}
            ],
        }  # fmt: skip
        (room / "vars.json").write_text(json.dumps(variables), encoding="utf-8")

    def play(self, playbook: str, *more: str) -> str:
        done = self.node.run("ansible-playbook", playbook, "-e", f"@{self._room / 'vars.json'}", *more)
        assert done.returncode == 0, done.stdout
        return str(done.stdout)

    def declare(self) -> None:
        for host in self.hosts:  # old versions of botocore take no address of IPv6
            host.run("sh", "-c", f"echo {ipaddress.ip_address(host.address) - 1} gateway >>/etc/hosts")
        path = self._room / "declare.yml"
        plays = [{"hosts": "all", "gather_facts": False, "roles": [f"volt.backup.{role}" for role in ROLES]}]
        path.write_text(json.dumps(plays), encoding="utf-8")
        self.play(str(path))

    def call(self, host: Host, *words: str) -> Any:
        return json.loads(host.run("volt-backup", *words, "--store", "/srv/cas", "--backup-dir", "/srv/backups", "--json").stdout)

    def stored(self) -> int:
        """Bytes of all packs."""
        pages = self._server.client().get_paginator("list_objects_v2").paginate(Bucket="copies", Prefix="fleet/packs/")
        return sum(item["Size"] for page in pages for item in page.get("Contents", []))


@pytest.fixture
def crowd(fleet: Fleet, tmp_path: Path, controller: warm.Ansible) -> Iterator[Crowd]:
    with s3_servers.ceph(tmp_path, for_hosts=True) as server:
        crowd = Crowd(fleet, server, tmp_path, controller)
        yield crowd
        for host in crowd.hosts:
            host.kill()


def ten_hosts_copy_at_once(crowd: Crowd, tmp_path: Path) -> None:
    crowd.declare()
    until = time.monotonic() + 600
    waiting = list(crowd.hosts)
    while waiting:
        assert time.monotonic() < until, waiting[0].run("journalctl", "--no-pager", "-u", "volt-backup-docs.service").stdout
        time.sleep(2)
        waiting = [host for host in waiting if not any(one["pushed_to_cdn"] for one in crowd.call(host, "list", "docs")["backups"])]
    for host in crowd.hosts:
        host.run("sh", "-c", "until ! systemctl is-active -q volt-backup-docs.service; do sleep 0.2; done")
        journal = host.run("journalctl", "--no-pager", "-u", "volt-backup-docs.service").stdout
        assert "Traceback" not in journal and "Failed" not in journal, journal
    page = tmp_path / "fleet.html"
    crowd.play("volt.backup.status", "-e", f"volt_page={page}", "-e", "volt_copy_within=1h")
    rows = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == COUNT and all(0 <= row["copied_age"] < 3600 for row in rows), rows
    sizes = {}
    for host in crowd.hosts:
        found = crowd.call(host, "remote", "status", "offsite")
        assert len(found["hosts"]) == COUNT, found
        kept = [path for kind in ("packs", "objects") for path in (host.srv / "cas" / kind).rglob("*") if path.is_file()]
        sizes[host.name] = sum(path.stat().st_size for path in kept)
    of_suites = {host.suite: sizes[host.name] for host in crowd.hosts}
    stored, one, every = crowd.stored(), sum(of_suites.values()), sum(sizes.values())
    print(f"{COUNT} hosts: {stored} bytes stored; one host of each suite has {one}, all hosts {every}")
    assert stored < 0.75 * every


if sample.LONG:

    def test_ten_hosts_copy_at_once(crowd: Crowd, tmp_path: Path) -> None:
        ten_hosts_copy_at_once(crowd, tmp_path)
