# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trouble on real hosts: mounts that fail, flipped bits, units that were stopped, an interpreter that is gone. Each is told, to those who may know it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.volt.backup.tests.fleet.test_schedule import GONE, PLACES, UNITS, Host, Schedules, schedules

__all__ = ["schedules"]  # the fixture

#: A mount that fails at once, where no disk is.
MOUNT = "[Mount]\nWhat=tmpfs\nWhere={where}\nType=tmpfs\nOptions=nonsense=1\n"
ALARM = ["/bin/sh", "-c", 'echo "$0: $VOLT_REASON" >>{place}/alarm']
#: Flips a bit in the middle of each object of a store.
FLIP = """
import os, sys
for top, _directories, names in os.walk(sys.argv[1] + "/objects"):
    for name in names:
        path = os.path.join(top, name)
        data = bytearray(open(path, "rb").read())
        data[len(data) // 2] ^= 1
        os.chmod(path, 0o600)
        open(path, "wb").write(data)
"""


def wait_for(host: Host, path: str, text: str) -> str:
    """What is in a file, once it has this text."""
    until = time.monotonic() + 60
    while text not in (found := host.run("cat", path, check=False).stdout):
        if time.monotonic() > until:
            raise AssertionError(f"{host.name}: {found}\n{host.run('journalctl', '--no-pager', '-n', '60').stdout}")
        time.sleep(0.3)
    return found


def problems(schedules: Schedules, host: Host) -> dict[str, Any]:
    return {one["what"]: one for one in schedules.call(host, "status")["problems"]}


@pytest.mark.costly
def test_all_trouble_is_told(schedules: Schedules) -> None:
    """By status with its exit status, by what is sent, by metrics, and to a user who is not root."""
    place = schedules.place
    app = {"source": f"{place}/app", "interval": "1d", "randomized_delay": "0s"}

    @schedules.each
    def furnish(host: Host) -> None:
        host.run("sh", "-c", f"mkdir -p {place}/disk/data; head -c 400000 /dev/urandom >{place}/app/blob; : >{place}/alarm")

    schedules.declare(
        {**app, "workload": "app"},
        {**app, "workload": "mounted", "source": f"{place}/disk/data"},
        {**app, "workload": "hook", "pre_command": ["/bin/sh", "-c", "echo fine; echo the database is locked >&2; exit 3"]},
        volt_schedule_on_failure=[word.format(place=place) for word in ALARM],
        volt_schedule_metrics=f"{place}/volt.prom",
        volt_schedule_verify_budget="100%",
    )

    @schedules.each
    def is_told(host: Host) -> None:
        check = ["volt-backup", "status", "--check"]
        for kind in ("volt-backup-app", "volt-cas-gc", "volt-cas-verify", "volt-cas-status", "volt-cas-failure@x"):
            level = host.run("sh", "-c", f"systemd-analyze security {kind}.service | tail -n 1").stdout
            assert float(level.split(":")[1].split()[0]) <= 3.0, (kind, level)
        assert "ExecStart=/usr/bin/python3 " in host.run("cat", "/etc/systemd/system/volt-backup-app.service").stdout
        host.run("systemctl", "start", "volt-backup-app.service", "volt-cas-gc.service", "volt-cas-verify.service")
        assert problems(schedules, host) == {} and host.run(*check).returncode == 0
        # who is not root, and in the group
        public = ["setpriv", "--reuid=65534", "--clear-groups"]
        group = host.run("getent", "group", "volt").stdout.split(":")[2]
        assert host.run(*public, f"--regid={group}", *check, check=False).returncode == 0
        assert "join the group volt" in host.run(*public, "--regid=65534", *check, check=False).stderr
        assert host.run("stat", "-c", "%a %U %G", "/run/volt/status.json").stdout == "640 root volt\n"
        assert place not in host.run("cat", "/run/volt/status.json").stdout
        # a hook that fails: the last line of what it said
        host.run("systemctl", "start", "volt-backup-hook.service", check=False)
        assert "volt-backup-hook: The pre_command of workload hook failed" in wait_for(host, f"{place}/alarm", "the database is locked")
        # a mount that fails: systemd starts no run
        unit = host.run("systemd-escape", "--path", "--suffix=mount", f"{place}/disk").stdout.strip()
        host.run("sh", "-c", f"cat >/run/systemd/system/{unit} && systemctl daemon-reload", stdin=MOUNT.format(where=f"{place}/disk"))
        host.run("systemctl", "start", "volt-backup-mounted.service", check=False)
        wait_for(host, f"{place}/alarm", f"Mount {place}/disk failed")
        by_hand = host.run("volt-backup", "run", "mounted", check=False)
        assert by_hand.returncode == 1 and f"Mount {place}/disk failed" in by_hand.stderr
        found = schedules.states(host)["mounted"]
        assert found["state"] == "failed" and found["reason"].startswith(f"Mount {place}/disk failed") and found["failures"] >= 1, found
        assert host.run("sh", "-c", f"rm /run/systemd/system/{unit} && systemctl daemon-reload && systemctl reset-failed").returncode == 0
        # flipped bits, found by the unit that verifies: the backup is damaged, the unit failed, and its words are sent
        host.run("python3", "-c", FLIP, f"{place}/cas")
        host.run("systemctl", "start", "volt-cas-verify.service", check=False)
        assert "backup(s) are damaged" in wait_for(host, f"{place}/alarm", "volt-cas-verify: ")
        host.run("systemctl", "stop", "volt-cas-gc.timer")
        host.run("systemctl", "start", "volt-cas-status.service", check=False)  # what no run finds is told once
        told = wait_for(host, f"{place}/alarm", "Also: volt-cas-gc.timer is stopped.")
        assert host.run("systemctl", "start", "volt-cas-status.service", check=False).returncode == 0
        assert host.run("cat", f"{place}/alarm").stdout == told and "app is damaged" in told
        found = problems(schedules, host)
        assert {name: one["state"] for name, one in found.items()} == {"volt-cas-verify.service": "failed", "volt-cas-gc.timer": "stopped"}, found
        assert "are damaged" in found["volt-cas-verify.service"]["reason"]
        assert schedules.states(host)["app"]["state"] == "damaged" and host.run(*check, check=False).returncode == 1
        wait_for(host, f"{place}/volt.prom", 'volt_backup_host_trouble{what="volt-cas-verify.service"} 1')
        assert 'volt_backup_damaged{workload="app"} 1' in host.run("cat", f"{place}/volt.prom").stdout
        assert host.run(*public, f"--regid={group}", *check, check=False).returncode == 1
        # systemd forgets what failed, as at a restart; a timer is removed, and a unit that tells is masked
        timer, teller = (f"/etc/systemd/system/{name}" for name in ("volt-cas-gc.timer", "volt-cas-failure@.service"))
        host.run("systemctl", "reset-failed", "volt-cas-verify.service")
        host.run("sh", "-c", f"cp {timer} {teller} /root/; rm {timer}; ln -sf /dev/null {teller}; systemctl daemon-reload")
        reasons = {name: one["reason"] for name, one in problems(schedules, host).items()}
        assert "are damaged" in reasons["volt-cas-verify.service"] and "is missing" in reasons["volt-cas-gc.timer"], reasons
        assert "is masked" in reasons["volt-cas-failure@.service"], reasons
        host.run("sh", "-c", f"rm {teller}; cp /root/volt-cas-* /etc/systemd/system/; systemctl daemon-reload")
        # an interpreter that is gone: the alarm finds another
        host.run("sh", "-c", "sed -i 's:ExecStart=/usr/bin/python3 :ExecStart=/usr/bin/python3.0 :; s:=+/usr/bin/python3 :=+/usr/bin/python3.0 :;"
                 " s:1\" /usr/bin/python3 :1\" /usr/bin/python3.0 :' /etc/systemd/system/volt-*.service && systemctl daemon-reload")  # fmt: skip
        host.run("systemctl", "start", "volt-backup-app.service", check=False)
        assert "without recording a reason" in wait_for(host, f"{place}/alarm", "volt-backup-app: ")
        # nobody can be told
        host.run("sh", "-c", f"rm -r {place}/alarm && mkdir {place}/alarm")
        host.run("systemctl", "start", "volt-backup-hook.service", check=False)
        until = time.monotonic() + 60
        while not any(name.startswith("volt-cas-failure@volt-backup-hook") for name in problems(schedules, host)):
            assert time.monotonic() < until, host.run("journalctl", "--no-pager", "-n", "60").stdout
        host.run("sh", "-c", f"rmdir {place}/alarm")
        host.run("volt-backup", "notify", "--test")
        assert not any(name.startswith("volt-cas-failure@") for name in problems(schedules, host))


@pytest.mark.costly
def test_a_removal_ends_what_runs(schedules: Schedules) -> None:
    """Its post_command runs, for something may be stopped; a command that units start is not removed; nothing is left."""
    place = schedules.place
    state = f"{place}/state"
    app = {"workload": "app", "source": f"{place}/app", "interval": "1d", "randomized_delay": "0s", "first_run": "now"}
    commands = {"pre_command": ["/bin/sh", "-c", f"echo stopped >{state}; sleep 100"], "post_command": ["/bin/sh", "-c", f"echo started >{state}"]}
    later = {**app, "workload": "later", "first_run": "spread"}
    declared = schedules.declare({**app, **commands}, later)
    assert "start volt-backup-app.service" in declared and "start volt-backup-later.service in " in declared

    @schedules.each
    def runs(host: Host) -> None:
        assert wait_for(host, state, "stopped") == "stopped\n"
        assert "volt-first-later.timer" in host.run("sh", "-c", UNITS).stdout
        host.run("sh", "-c", "mkdir /etc/systemd/system/volt-backup-app.service.d; echo '[Unit]' >/etc/systemd/system/volt-backup-app.service.d/50-mine.conf")

    gone = schedules.declare(**GONE)
    assert "volt-backup-app.service.d (50-mine.conf) was not written by volt.backup and stays" in gone

    @schedules.each
    def has_ended(host: Host) -> None:
        assert host.run("cat", state).stdout == "started\n"
        host.run("rm", "-r", "/etc/systemd/system/volt-backup-app.service.d")
        assert host.run("sh", "-c", f"ls -d {PLACES} 2>/dev/null", check=False).stdout == ""
        host.run("systemctl", "daemon-reload")
        assert host.run("sh", "-c", UNITS).stdout == ""
