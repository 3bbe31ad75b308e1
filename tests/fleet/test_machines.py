# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines of systemd-nspawn on real hosts wait while the unit of a schedule reads what they write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.volt.backup.tests.fleet.test_schedule import GONE, Schedules
from ansible_collections.volt.backup.tests.rigs import sample
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet, Host

#: Writes the same number into two files of /data, one after the other. There are many files between them.
COUNT = r'n=0; trap "exit 0" TERM; while :; do n=$((n + 1)); for f in a z; do echo $n >/data/new; mv /data/new /data/$f; done; sleep 0.002; done'
#: The root of a machine with a shell, and a directory that it shares with its host.
FURNISH = """
mkdir -p /var/lib/machines/box {place}/data && cd /var/lib/machines/box && mkdir -p usr/bin usr/lib usr/lib64 etc data
for name in bin lib lib64; do ln -s usr/$name $name; done
cp /usr/lib/os-release usr/lib
for program in dash sleep mv; do
    cp "$(readlink -f "$(command -v $program)")" usr/bin/$program
    for file in $(ldd usr/bin/$program | grep -o '/[^ ]*'); do mkdir -p ".$(dirname $file)" && cp -L $file .$file; done
done
ln -s dash usr/bin/sh
for number in $(seq 1500); do head -c 1000 /dev/zero >{place}/data/m__$number; done
head -c 80M /dev/zero >{place}/data/large
systemctl start systemd-machined
"""
NSPAWN = "systemd-nspawn --quiet -M box -D /var/lib/machines/box --private-network --as-pid2 --link-journal=no --bind={place}/data:/data"
#: As systemd's own unit for machines, whose watchdog systemd-nspawn must not miss; and as anyone may write one.
KEPT = "Type=notify\nWatchdogSec=2\nKillMode=mixed\nSlice=machine.slice\nDelegate=yes\nExecStart={nspawn} --keep-unit -- /bin/sh -c {script}\n"
PLAIN = "ExecStart={nspawn} -- /bin/sh -c {script}\n"
REMOVE = """
systemctl stop box made
rm -rf /var/lib/machines/box /etc/systemd/system/box.service
systemctl daemon-reload
systemctl reset-failed
"""
#: Prints what is noted to be resumed.
NOTED = "ls /run/volt | grep ^quiesced- || :"


class Boxes:
    """A machine named box on each host, which writes to `data`."""

    def __init__(self, schedules: Schedules) -> None:
        self.schedules, self.data = schedules, f"{schedules.place}/data"
        self.nspawn = NSPAWN.format(place=schedules.place)

    def start(self, host: Host, service: str) -> None:
        script = json.dumps(COUNT.replace("$", "$$").replace("%", "%%"))
        text = "[Service]\n" + service.format(nspawn=self.nspawn, script=script)
        host.run("sh", "-ec", "cat >/etc/systemd/system/box.service; systemctl daemon-reload; systemctl start box", stdin=text)
        self.goes_on(host)

    def goes_on(self, host: Host) -> None:
        """It writes, from now on."""
        wait = f'last=$(cat {self.data}/a); until [ "$(cat {self.data}/a)" != "$last" ]; do sleep 0.05; done'
        assert not host.run("timeout", "60", "sh", "-c", wait, check=False).returncode, host.run("systemctl", "status", "box", check=False).stdout

    def backup(self, host: Host, workload: str) -> dict[str, Any]:
        """Start the unit of a workload; the record of the backup. Both files have the same number in it, save that the second one was not yet written."""
        done = host.run("systemctl", "start", f"volt-backup-{workload}.service", check=False)
        assert not done.returncode, host.run("journalctl", "--no-pager", "-u", f"volt-backup-{workload}").stdout
        out = f"{self.schedules.place}/{workload}"
        found: dict[str, Any] = self.schedules.call(host, "list", workload)["backups"][0]
        self.schedules.call(host, "restore", found["id"], "--target", out, "--force")
        one, other = (int(host.run("cat", f"{out}/{name}").stdout) for name in "az")
        assert 0 <= one - other <= 1 and not found["unstable"]
        assert host.run("sh", "-c", NOTED).stdout == ""
        self.goes_on(host)
        return found


@pytest.fixture
def boxes(fleet: Fleet, hosts: list[Host], play: Callable[..., Any], place: str, tmp_path: Path) -> Iterator[Boxes]:
    schedules = Schedules(fleet, hosts, play, place, tmp_path)
    schedules.each(lambda host: host.run("sh", "-ec", FURNISH.replace("{place}", place)))
    yield Boxes(schedules)
    schedules.declare(**GONE)
    schedules.each(lambda host: host.run("sh", "-c", REMOVE, check=False))


@pytest.mark.costly
def test_a_machine_is_paused(boxes: Boxes) -> None:
    """Longer than the watchdog of its service allows; in the group of its service, or of a scope. What a killed run left paused goes on."""
    schedules = boxes.schedules
    shared = {"workload": "shared", "source": boxes.data, "interval": "1d", "quiesce": "pause"}
    slow = {**shared, "workload": "slow"}
    schedules.declare(shared, slow, {**shared, "workload": "root", "source": "/var/lib/machines/box"}, {**shared, "workload": "other", "source": "/etc"})

    @schedules.each
    def waits(host: Host) -> None:
        for service in (KEPT, PLAIN):
            boxes.start(host, service)
            was = host.run("systemctl", "show", "--property=MainPID", "box").stdout
            assert boxes.backup(host, "shared")["quiesced"] == [{"runtime": "nspawn", "name": "box", "way": "pause"}]
            kill_while_paused(boxes, host)
            assert host.run("systemctl", "show", "--property=MainPID", "box").stdout == was
            for workload, names in (("root", ["box"]), ("other", [])):
                host.run("systemctl", "start", f"volt-backup-{workload}.service")
                found = schedules.call(host, "list", workload)["backups"][0]
                assert [item["name"] for item in found["quiesced"]] == names
            host.run("systemctl", "stop", "box")


#: Kills the run of a unit while the machine is frozen, after the watchdog of the machine's service would have ended that. Prints whether it is still frozen.
KILL = r"""
import glob, os, signal, subprocess, sys, time
unit = "volt-backup-slow.service"
show = lambda name: subprocess.run(["systemctl", "show", "--value", "-p", name, unit], capture_output=True, text=True).stdout.strip()
(events,) = glob.glob("/sys/fs/cgroup/**/payload/cgroup.events", recursive=True)
frozen = lambda: "frozen 1" in open(events).read()
run = subprocess.Popen(["systemctl", "start", unit])
while not frozen():
    assert run.poll() is None
(note,) = glob.glob("/run/volt/quiesced-*")
pid = int(note.split("-")[1])
os.kill(pid, signal.SIGSTOP)
assert frozen()
time.sleep(float(sys.argv[1]))
assert frozen()
for one in (int(show("MainPID")), pid):
    os.kill(one, signal.SIGKILL)
run.wait()
while show("ActiveState") == "deactivating":
    time.sleep(0.05)
print(frozen())
"""


def kill_while_paused(boxes: Boxes, host: Host) -> None:
    for number in range(100 if sample.LONG else 1):
        wait = sample.chance("kill", number).uniform(0, 0.5) if number else 6
        assert host.run("python3", "-c", KILL, str(wait)).stdout == "False\n", number
        assert host.run("sh", "-c", NOTED).stdout == "", number
        boxes.goes_on(host)


@pytest.mark.costly
def test_a_machine_is_stopped(boxes: Boxes) -> None:
    """And started again by its service; where there is none that can start it, nothing is stopped."""
    schedules = boxes.schedules
    schedules.declare({"workload": "shared", "source": boxes.data, "interval": "1d", "quiesce": "stop"})

    @schedules.each
    def stops(host: Host) -> None:
        for service in (KEPT, PLAIN):
            boxes.start(host, service)
            was = host.run("systemctl", "show", "--property=MainPID", "box").stdout
            assert boxes.backup(host, "shared")["quiesced"] == [{"runtime": "nspawn", "name": "box", "way": "stop"}]
            assert host.run("systemctl", "show", "--property=MainPID", "box").stdout != was
            host.run("systemctl", "stop", "box")
        host.run("systemd-run", "--unit=made", *boxes.nspawn.split(), "--", "/bin/sh", "-c", COUNT.replace("$", "$$"))
        boxes.goes_on(host)
        was = host.run("systemctl", "show", "--property=MainPID", "made").stdout
        assert host.run("systemctl", "start", "volt-backup-shared.service", check=False).returncode
        assert "Machine box cannot be stopped: no service that can start it again" in schedules.states(host)["shared"]["reason"]
        assert host.run("systemctl", "show", "--property=MainPID", "made").stdout == was
        boxes.goes_on(host)
