# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts are what they say; the modules do their work on them over ssh; and nothing of a fleet outlives it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.volt.backup.tests.rigs import debian, oracle, torture
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet, _groups

pytestmark = pytest.mark.everywhere
EXPECTED = {"bullseye": ("247", "3.9"), "bookworm": ("252", "3.11"), "trixie": ("257", "3.13")}


def in_this_process(test):
    """A test in whose process Ansible plays: it forks beside its threads, and sets up an importer that is there."""
    for warning in ("This process .* is multi-threaded, use of fork:DeprecationWarning", "AnsibleCollectionFinder has already been configured:UserWarning"):
        test = pytest.mark.filterwarnings(f"ignore:{warning}")(test)
    return test


ANOTHER_FLEET = """
import signal, time
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have it ignored
with Fleet() as fleet:
    fleet.boot("own", "trixie").run("true")
    print(fleet.id, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("suite", EXPECTED)
def test_each_is_its_suite(fleet, suite):
    host = fleet.hosts[suite]
    systemd, python = EXPECTED[suite]
    assert host.run("systemctl", "is-system-running").stdout.strip() == "running"
    assert host.run("systemctl", "--version").stdout.split()[1] == systemd
    assert host.run("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip() == python
    assert host.run("hostname").stdout.strip() == suite
    assert host.run("cat", stdin="a word").stdout == "a word"


def test_none_is_another(fleet):
    for question in ("cat /etc/machine-id", "cat /etc/ssh/fleet_host_key.pub", "cat /proc/sys/kernel/random/boot_id"):
        assert len({host.run(*question.split()).stdout for host in fleet.hosts.values()}) == len(fleet.hosts), question
    # Each sees its own processes as control groups' members, and nobody else's.
    started = ["systemd-run", "--quiet", "--unit=only-here", "sleep", "600"]
    one, other, *_rest = fleet.hosts.values()
    one.run(*started)
    other.run(*started)
    one.run("systemctl", "stop", "only-here")
    other.run("systemctl", "is-active", "only-here")
    other.run("systemctl", "stop", "only-here")


@in_this_process
def test_ping(fleet, modules):
    answers = modules.ping()
    assert {name: answers[name].get("ping") for name in answers} == dict.fromkeys(fleet.hosts, "pong")
    assert not [name for name in answers if answers[name].get("warnings")]


@in_this_process
def test_backup_and_restore(fleet, modules, place):
    rooms = [host.srv / Path(place).name for host in fleet.hosts.values()]
    for room in rooms:
        assert not torture.build(room / "source", entries=100)
    where = {"store": f"{place}/store", "backup_dir": f"{place}/backups", "workload": "odd"}

    def call(name, **arguments):
        results = getattr(modules, f"volt.backup.{name}")(**where, **arguments)
        assert sorted(results) == sorted(fleet.hosts) and all(result.is_successful for result in results.values()), dict(results.items())
        return results

    first = call("volt_backup", source=f"{place}/source", only_if_changed=True)
    restored = call("volt_restore", target=f"{place}/target", verify=True)
    second = call("volt_backup", source=f"{place}/source", only_if_changed=True)
    again = call("volt_restore", target=f"{place}/target", verify=True)
    for name in fleet.hosts:
        assert first[name].is_changed and first[name]["backup"]["complete"] is True
        assert restored[name].is_changed
        assert second[name].is_ok and second[name]["backup"]["id"] == first[name]["backup"]["id"]
        assert again[name].is_ok
    for room in rooms:
        assert oracle.differences(room / "source", room / "target") == []


@pytest.mark.costly
def test_power(fleet):
    """Files outlast a reboot and a time without power; the journal and the machine's identity are the same after it."""
    with Fleet() as own:
        host = own.boot("power", "bookworm")
        machine = host.run("sh", "-c", "echo kept >/root/kept; cat /etc/machine-id").stdout
        host.reboot()
        host.poweroff()
        with pytest.raises(RuntimeError, match="is off"):
            host.run("true")
        host.power_on()
        assert host.run("cat", "/root/kept", "/etc/machine-id").stdout == "kept\n" + machine
        host.kill()
        host.power_on()
        assert host.run("cat", "/root/kept").stdout == "kept\n"


@pytest.mark.parametrize("end", ["close", "interrupt", "terminate", "kill"])
@pytest.mark.costly
def test_nothing_stays(fleet, end):
    if end == "close":
        with Fleet() as own:
            own.boot("own", "trixie").run("true")
            assert all(_traces(own.id).values())
        assert not any(_traces(own.id).values())
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", ANOTHER_FLEET], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as another:
        name = another.stdout.readline().strip()
        assert name and all(_traces(name).values())
        another.send_signal({"interrupt": signal.SIGINT, "terminate": signal.SIGTERM, "kill": signal.SIGKILL}[end])
    if end == "kill":
        until = time.monotonic() + 120
        while _traces(name)["processes"] or _traces(name)["links"]:
            assert time.monotonic() < until, _traces(name)
            time.sleep(0.1)
        Fleet().close()  # sweeps
    assert not any(_traces(name).values())
    fleet.hosts["trixie"].run("true")  # sweeping is for those that are gone


def _traces(name: str) -> dict[str, list[str]]:
    """What there is of a fleet on this machine. Mounts are its processes' own, so they are no trace that could ever be there."""
    assert name not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    processes = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if name in path.read_text(encoding="utf-8"):
                processes.append(str(path))
        except OSError:
            pass
    return {
        "processes": processes,
        "links": [link for link in os.listdir("/sys/class/net") if name in link],
        "groups": [str(path) for top in _groups() for path in top.glob(f"*{name}*")],
        "directories": [str(path) for path in (debian.cache().parent / "fleet").glob(f"*{name}*")],
    }
