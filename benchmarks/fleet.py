# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# sudo $(python3 tests/tools/environments.py tools)/bin/python benchmarks/fleet.py --hosts 1,3,10
"""What the playbooks cost on real hosts, beside ping: seconds that pass, and CPU seconds of the control node.

The hosts are systemd-nspawn machines on this one (tests/rigs/fleet.py), so all share its cores, and what passes is the sum of everybody's work: read
the columns beside each other. At last, on one host, what the module for 200 schedules takes where nothing changes, without Ansible and ssh around it.

With `--tasks N`, which benchmarks/all.py runs: what a task costs over `ping`, in plays of N more equal tasks, with pipelining and without, as JSON.
There, neither the host nor the control node keeps what tests keep of modules (tests/tools/quick.py).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent)]

from tests.rigs import fleet  # noqa: E402  # pylint: disable=wrong-import-position

MANY = 200
ROUNDS = 3


class Control:
    """A control node: Ansible with a home and an inventory of its own."""

    def __init__(self, room: Path, hosts: fleet.Fleet, workloads: int) -> None:
        self._room, self._hosts = room, hosts
        (room / "ansible.cfg").write_text("[defaults]\nnocolor = true\nforks = 20\n[connection]\npipelining = true\n", encoding="ascii")
        (room / "path/ansible_collections/volt").mkdir(parents=True)
        (room / "path/ansible_collections/volt/backup").symlink_to(HERE.parent)
        wanted = [{"workload": f"app{number}", "source": "/etc"} for number in range(workloads)]
        (room / "vars.json").write_text(json.dumps({"volt_schedule_defaults": {"interval": "1d"}, "volt_schedule_workloads": wanted}), encoding="ascii")

    def run(self, program: str, *words: str, **settings: str) -> tuple[float, float, str]:
        """Seconds that pass, CPU seconds, and what is printed."""
        self._hosts.inventory(self._room / "inventory")
        environment = {**os.environ, "ANSIBLE_HOME": str(self._room), "ANSIBLE_CONFIG": str(self._room / "ansible.cfg"), "LC_ALL": "C.UTF-8",
                       "ANSIBLE_COLLECTIONS_PATH": str(self._room / "path"), **settings}  # fmt: skip
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [str(Path(sys.executable).with_name(program))]
        if "PYTHONPATH" in settings:  # without what site directories start
            command = [sys.executable, "-S", *command]
        done = subprocess.run([*command, "-i", str(self._room / "inventory"), *words], env=environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(done.stdout)
        return time.monotonic() - began, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime, done.stdout

    def book(self, name: str, *words: str) -> tuple[float, float, str]:
        return self.run("ansible-playbook", f"volt.backup.{name}", "-e", f"@{self._room / 'vars.json'}", *words)


def steps(control: Control) -> list[tuple[str, float, float]]:
    """Each step with the shortest of several times."""
    found = []

    def step(name: str, *call: str, rounds: int = ROUNDS, changed: bool = False) -> None:
        times = []
        for _round in range(rounds):
            passed, cpu, output = control.run(*call) if call[0] == "ansible" else control.book(*call)
            if changed != bool(re.search(r"changed=[1-9]", output)):
                sys.exit(f"{name}: something else than expected has changed:\n{output}")
            times.append((passed, cpu))
        found.append((name, *min(times)))

    step("ping", "ansible", "all", "-m", "ansible.builtin.ping")
    step("schedule, first run", "schedule", rounds=1, changed=True)
    step("schedule, nothing changes", "schedule")
    step("schedule, nothing changes, check mode", "schedule", "--check")
    step("status", "status")
    return found


def many(control: Control, host: fleet.Host) -> float:
    """Seconds that the module for many schedules takes on the host where nothing changes."""
    wanted = [{"workload": f"many{number}", "source": "/etc", "interval": "1d"} for number in range(MANY)]
    call = ("ansible", host.name, "-m", "volt.backup.volt_backup_schedule", "-a", json.dumps({"schedules": wanted, "purge": True}))
    control.run(*call)
    control.run(*call, ANSIBLE_KEEP_REMOTE_FILES="1", ANSIBLE_PIPELINING="False")
    payload = host.run("sh", "-c", "ls -t /root/.ansible/tmp/*/AnsiballZ_volt_backup_schedule.py | head -n 1").stdout.strip()
    times = []
    for _round in range(ROUNDS):
        began = time.monotonic()
        output = host.run("/usr/bin/python3", payload).stdout
        times.append(time.monotonic() - began)
        if json.loads(output)["changed"]:
            sys.exit("The module for many schedules says that something has changed.")
    idle = min(_timed(host) for _round in range(ROUNDS))
    return min(times) - idle


def _timed(host: fleet.Host) -> float:
    began = time.monotonic()
    host.run("true")
    return time.monotonic() - began


#: One task each. Neither /etc nor the file of the last one changes.
TASKS = {
    "ping": {"ansible.builtin.ping": {}},
    "volt_backup_info": {"volt.backup.volt_backup_info": {"store": "/srv/none/cas", "backup_dir": "/srv/none/backups"}},
    "volt_backup": {"volt.backup.volt_backup": {"workload": "etc", "source": "/etc", "store": "/srv/cas", "backup_dir": "/srv/backups"}},
    "volt_backup, one file": {"volt.backup.volt_backup": {"workload": "one", "source": "/srv/one", "store": "/srv/cas", "backup_dir": "/srv/backups"}},
}


def overhead(room: Path, hosts: fleet.Fleet, count: int) -> dict[str, dict[str, dict[str, float]]]:
    """What a task costs, by pipelining and module: seconds that pass and CPU seconds of the host for each further one, and seconds for a run of one.

    In its first task of a module, a run of Ansible makes the archive that it sends. Medians of the rounds.
    """
    (host,) = hosts.hosts.values()
    control = Control(room, hosts, 0)
    host.run("mkdir", "-p", "/srv/none/backups", "/srv/one")
    host.run("cp", "/etc/hostname", "/srv/one")
    host.run("rm", "-r", f"/usr/lib/python3/dist-packages/{fleet.quick.NAME}.pth")
    site = str(next(Path(sys.executable).parents[1].glob("lib/python3*/site-packages")))
    found: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    dice = random.Random("order")

    def play(name: str, tasks: int, pipelining: bool) -> tuple[float, float]:
        book = room / "play.yml"
        book.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [TASKS[name]] * tasks}]), encoding="ascii")
        before = _used(host)
        passed, _cpu, _output = control.run("ansible-playbook", str(book), "-e", json.dumps({"ansible_pipelining": pipelining}), PYTHONPATH=site)
        return passed, _used(host) - before

    for installed in ("", ", command installed"):  # then modules take the engine's bytecode from it
        if installed:
            control.run("ansible", "all", "-m", "volt.backup.volt_runner")
        for number in range(ROUNDS + 1):
            for pipelining in (True, False):
                for name in dice.sample(list(TASKS), len(TASKS)):
                    one, many = play(name, 1, pipelining), play(name, 1 + count, pipelining)
                    if number:  # the first round makes the backup, and the bytecode
                        times = found.setdefault(f"pipelining {'on' if pipelining else 'off'}{installed}", {}).setdefault(name, [])
                        times.append(((many[0] - one[0]) / count, (many[1] - one[1]) / count, one[0]))

    def medians(times: list[tuple[float, float, float]]) -> dict[str, float]:
        return {kind: round(statistics.median(values), 4) for kind, values in zip(("wall", "host", "first"), zip(*times))}

    return {way: {name: medians(times) for name, times in named.items()} for way, named in found.items()}


def _used(host: fleet.Host) -> float:
    """CPU seconds of all that has run on a host."""
    return int(host.run("cat", "/sys/fs/cgroup/cpu.stat").stdout.split()[1]) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", default="1,3,10", help="how many, in turn (default: %(default)s)")
    parser.add_argument("--workloads", type=int, default=5, help="on each host (default: %(default)s)")
    parser.add_argument("--suite", default="bookworm", choices=fleet.SUITES)
    parser.add_argument("--tasks", type=int, help="measure a task over ping, in plays of so many more")
    given = parser.parse_args()
    if given.tasks:
        with tempfile.TemporaryDirectory() as name, fleet.Fleet() as hosts:
            hosts.boot("host0", given.suite)
            print(json.dumps(overhead(Path(name), hosts, given.tasks)))
        return
    counts = [int(text) for text in given.hosts.split(",")]
    table: dict[str, dict[int, tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        for count in counts:
            with fleet.Fleet() as hosts:
                for number in range(count):
                    hosts.boot(f"host{number}", given.suite)
                control = Control(room, hosts, given.workloads)
                for step, passed, cpu in steps(control):
                    table.setdefault(step, {})[count] = (passed, cpu)
                if count == counts[-1]:
                    seconds = many(control, hosts.hosts["host0"])
    print("| | " + " | ".join(f"{count} host{'s' * (count > 1)}" for count in counts) + " | a further host |")
    print("|---|" + "--:|" * (len(counts) + 1))
    for step, found in table.items():
        first, last = counts[0], counts[-1]
        further = (found[last][0] - found[first][0]) / (last - first) if last > first else 0.0
        print(f"| {step} | " + " | ".join(f"{found[count][0]:.1f} ({found[count][1]:.1f})" for count in counts) + f" | {further:.2f} |")
    print(f"\nThe module for {MANY} schedules on a host where nothing changes: {seconds:.2f} s.")


if __name__ == "__main__":
    main()
