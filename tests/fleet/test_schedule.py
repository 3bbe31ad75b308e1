# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules on real hosts, declared by the playbook: timers fire by themselves, failures are told, and removal leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.volt.backup.plugins.module_utils._remote import sealed
from ansible_collections.volt.backup.tests.rigs import mounts
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet, Host

PLAYBOOK = Path(__file__).parents[2] / "playbooks" / "schedule.yml"
DOCUMENT = Path(__file__).parents[2] / "docs" / "monitoring.md"
PLACES = (
    "/etc/volt /etc/systemd/system/volt-* /etc/systemd/system/timers.target.wants/volt-* /var/lib/systemd/timers/stamp-volt-backup-*"
    " /usr/local/bin/volt-backup /var/lib/volt/schedules/*.lock /run/volt"
)
# Keeps what is posted to it, a line each.
WEBHOOK = """
import http.server, sys
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        with open(sys.argv[1], "ab") as file:
            file.write(self.rfile.read(int(self.headers["Content-Length"])) + b"\\n")
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8642), Hook).serve_forever()
"""
#: Kills the post hook of a run, as soon as it is there. The hosts have no pkill.
KILL_POST = """
import os, signal, subprocess, time
start = subprocess.Popen(["systemctl", "start", "volt-backup-daily.service"])
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\\0")
        except OSError:
            continue
        if words[-4:-1] == [b"hook", b"post", b"daily"]:
            os.kill(int(pid), signal.SIGKILL)
            start.wait()
            raise SystemExit
    time.sleep(0.02)
"""
#: Waits until no unit that tells of a failure is to start or runs.
TOLD = """
while [ -n "$(systemctl list-jobs --no-legend 'volt-*'; systemctl list-units --no-legend --state=active,activating,deactivating 'volt-cas-failure@*')" ]; do
    sleep 0.1
done
"""
UNITS = "systemctl list-units --all --no-legend --plain 'volt-*'"


RECOVERY = sealed.new_recovery().text()

#: Takes away all that is declared, and the command.
GONE = {"volt_schedule_state": "absent", "volt_runner_state": "absent"}


class Schedules:
    """What is declared for the hosts of a test, and how it fares."""

    def __init__(self, fleet: Fleet, hosts: list[Host], play: Callable[..., Any], place: str, tmp_path: Path) -> None:
        self._fleet, self.hosts, self._play, self.place, self._vars = fleet, hosts, play, place, tmp_path / "vars.json"
        self.gone = False

    def each(self, work: Callable[[Host], object]) -> None:
        """Do something with all hosts at once."""
        self._fleet.each(work, self.hosts)

    def declare(self, *workloads: dict[str, Any], arguments: tuple[str, ...] = (), **variables: Any) -> str:
        """Run the playbook; what it printed."""
        given = {"volt_schedule_workloads": workloads, "volt_schedule_store": f"{self.place}/cas", "volt_schedule_backup_dir": f"{self.place}/backups"}
        self._vars.write_text(json.dumps({**given, **variables}))
        done = self._play(PLAYBOOK, "-e", f"@{self._vars}", "-D", *arguments)
        assert done.returncode == 0, done.stdout
        self.gone = variables == GONE
        return done.stdout

    def remotes(self, state: str, nas: str, *arguments: str) -> str:
        """Play the role for one remote in a directory and a sealed one; what that printed."""
        remotes = {"nas": {"volt_remote_url": f"file://{nas}", "volt_remote_init": True},
                   "vault": {"volt_remote_url": "file:///srv/vault", "volt_remote_recovery_key": RECOVERY, "volt_remote_packages": []}}  # fmt: skip
        roles = [{"role": "volt.backup.volt_remote", "volt_remote_state": state, "volt_remote_name": name, **given} for name, given in remotes.items()]
        path = self._vars.with_name("remotes.yml")
        path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": roles}]))
        done = self._play(path, "-D", *arguments)
        assert done.returncode == 0, done.stdout
        assert "AGE-SECRET-KEY" not in done.stdout and "naming" not in done.stdout
        return str(done.stdout)

    def call(self, host: Host, *words: str) -> Any:
        where = ["--store", f"{self.place}/cas", "--backup-dir", f"{self.place}/backups", "--json"]
        return json.loads(host.run("volt-backup", *words, *where, check=False).stdout)

    def unmount(self, host: Host, path: str) -> None:
        """What tells of a failure begins by itself, after `systemctl start` has answered, and keeps each mount busy for a moment."""
        host.run("sh", "-c", f"{TOLD}umount {path}")

    def states(self, host: Host) -> dict[str, dict[str, Any]]:
        return {row["workload"]: row for row in self.call(host, "status")["schedules"]}


@pytest.fixture
def schedules(fleet: Fleet, hosts: list[Host], play: Callable[..., Any], place: str, tmp_path: Path) -> Iterator[Schedules]:
    made = Schedules(fleet, hosts, play, place, tmp_path)
    for host in made.hosts:
        host.run("sh", "-c", f"mkdir -p {place}/app && echo 1 >{place}/app/a")
    yield made
    if not made.gone:  # what a removal does where nothing is left, the scenarios of Molecule ask
        made.declare(**GONE)


def recap(output: str) -> list[str]:
    return [line.split("changed=")[1].split()[0] for line in output.splitlines() if "changed=" in line]


@pytest.mark.everywhere
def test_from_the_declaration_to_nothing(schedules: Schedules) -> None:
    """Check mode writes nothing; timers fire by themselves; a second run changes nothing; removal leaves no file and no unit behind."""
    app = {"workload": "app", "source": f"{schedules.place}/app", "interval": "1m", "randomized_delay": "0s", "max_keep": 1}
    checked = schedules.declare(app, arguments=("--check",))
    assert "+OnCalendar=*-*-* *:*:00 UTC" in checked, checked

    @schedules.each
    def nothing_yet(host: Host) -> None:
        assert host.run("sh", "-c", f"ls -d {PLACES} 2>/dev/null", check=False).stdout == ""

    schedules.declare(app)

    @schedules.each
    def declared(host: Host) -> None:
        found = schedules.states(host)["app"]
        assert found["state"] in ("waiting", "running", "ok") and not found["overdue"] and found["next_elapse"], found

    again = schedules.declare(app)
    assert recap(again) == ["0"] * len(schedules.hosts), again
    until = time.monotonic() + 300

    @schedules.each
    def is_backed_up_by_itself(host: Host) -> None:
        # The host waits for the file: to ask the command all the time costs more than all else here.
        host.run("timeout", "300", "sh", "-c", f"until ls {schedules.place}/backups/*.json; do sleep 0.3; done", check=False, timeout=330)
        while schedules.states(host)["app"]["state"] != "ok":
            assert time.monotonic() < until, host.run("journalctl", "--no-pager", "-u", "volt-backup-app.service").stdout
            time.sleep(0.3)
        found = schedules.states(host)["app"]
        assert host.run("date", "-u", "-d", found["last_success"], "+%S").stdout.strip() in {f"{second:02d}" for second in range(20)}
        (backup,) = schedules.call(host, "list", "app")["backups"]
        assert (backup["id"], backup["type"], backup["complete"]) == (found["backup_id"], "scheduled", True)
        assert f"backup={backup['id']} complete=true" in host.run("journalctl", "--no-pager", "-o", "cat", "-u", "volt-backup-app.service").stdout
        host.run("systemctl", "stop", "volt-backup-app.timer")
        assert schedules.states(host)["app"]["state"] == "stopped"
        assert host.run("volt-backup", "status", "--check", check=False).returncode == 1

    started = schedules.declare(app)
    assert recap(started) == ["1"] * len(schedules.hosts), started
    gone = schedules.declare(**GONE)
    assert recap(gone) != ["0"] * len(schedules.hosts)

    @schedules.each
    def nothing_is_left(host: Host) -> None:
        assert host.run("sh", "-c", f"ls -d {PLACES} 2>/dev/null", check=False).stdout == ""
        assert host.run("sh", "-c", UNITS).stdout == ""


@pytest.mark.everywhere
@pytest.mark.costly
def test_a_unit_sees_what_a_run_outside_of_it_sees(schedules: Schedules) -> None:
    """Hardening hides nothing: trusted.* attributes, /tmp, /home, /dev, files that root may read by capability alone."""
    sources = {"tree": f"{schedules.place}/tree", "tmp": "/tmp", "home": "/home", "dev": "/dev", "etc": "/etc"}

    @schedules.each
    def furnish(host: Host) -> None:
        host.run(
            "sh", "-c",
            f"mkdir -p {sources['tree']} /home/someone && cd {sources['tree']} && echo x >a && echo y >theirs && chown 4242:4242 theirs . && chmod 0600 theirs"
            " && chmod 4755 a && mkfifo pipe && mknod device c 1 3 && ln -s nowhere link && echo z >/tmp/there && echo z >/home/someone/file"
            """ && python3 -c 'import os; os.setxattr("a", "trusted.volt", b"1"); os.setxattr("a", "user.volt", b"2")'""",
        )  # fmt: skip

    schedules.declare(*({"workload": name, "source": path, "interval": "1d", "one_file_system": True} for name, path in sources.items()))

    @schedules.each
    def same_within(host: Host) -> None:
        for name, path in sources.items():
            outside = schedules.call(host, "create", name, "--source", path, "--one-file-system")["backup"]
            host.run("systemctl", "start", f"volt-backup-{name}.service")
            inside = schedules.states(host)[name]["backup_id"]
            diff = schedules.call(host, "diff", outside["id"], inside)
            assert sum(diff["diff"]["counts"].values()) == 0, (host.name, name, diff)
        shown = schedules.call(host, "show", schedules.states(host)["tree"]["backup_id"], "--contents")["contents"]["entries"]
        assert ["trusted.volt", "user.volt"] in [sorted(entry["xattrs"]) for entry in shown]
        level = host.run("sh", "-c", "systemd-analyze security volt-backup-tree.service | tail -n 1").stdout
        assert float(level.split(":")[1].split()[0]) <= 3.0, level


#: Makes a SQLite database with rows.
DATABASE = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA journal_mode=wal'); c.execute('CREATE TABLE t AS SELECT 1'); c.commit()"
#: Prints what SQLite says of one.
SOUND = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('PRAGMA integrity_check').fetchone())"


def init_of(host: Host) -> int:
    """The process id, here, of the first process of a host."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            numbers = re.search(r"^NSpid:.*\t1$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            if numbers and os.path.samefile(f"/proc/{pid}/root/srv", host.srv):
                return int(pid)
    raise AssertionError(host.name)


@pytest.mark.costly
def test_dumps_and_snapshots_in_a_unit(schedules: Schedules, tmp_path: Path) -> None:
    """The hardening leaves room for them: a database of another user, a program, a subvolume on a file system that is read-only to the run."""
    app, disk = f"{schedules.place}/app", f"{schedules.place}/disk"
    workloads = [
        {"workload": "app", "source": app, "interval": "1d", "dumps": [{"sqlite": {"path": "app.db"}}], "command": ["sh", "-c", "id -u"], "command_file": "id"},
        {"workload": "snap", "source": f"{disk}/sub", "interval": "1d", "snapshot": "require"},
    ]

    @schedules.each
    def furnish(host: Host) -> None:
        host.run("sh", "-c", f"mkdir -p {app} {disk} && python3 -c \"{DATABASE}\" {app}/app.db && chown -R 4242:4242 {app} && chmod 0700 {app}")
        image = tmp_path / host.name
        mounts.make("btrfs", image, 120 * mounts.MIB)
        device = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True).stdout.strip()
        inside = ["nsenter", "-t", str(init_of(host)), "-m", "sh", "-ec"]
        number = os.stat(device).st_rdev
        steps = f"mknod /volt-disk b {os.major(number)} {os.minor(number)}; mount /volt-disk {disk}; rm /volt-disk"
        subprocess.run([*inside, steps], check=True)
        subprocess.run(["losetup", "--detach", device], check=True)  # it ends with its mount
        subprocess.run(["btrfs", "subvolume", "create", f"/proc/{init_of(host)}/root{disk}/sub"], check=True, capture_output=True)
        host.run("sh", "-c", f"echo x >{disk}/sub/file")

    schedules.declare(*workloads)

    @schedules.each
    def works(host: Host) -> None:
        try:
            for name in ("app", "snap"):
                done = host.run("systemctl", "start", f"volt-backup-{name}.service", check=False)
                assert not done.returncode, host.run("journalctl", "--no-pager", "-u", f"volt-backup-{name}").stdout
            schedules.call(host, "restore", "app", "--target", f"{schedules.place}/out")
            assert host.run("python3", "-c", SOUND, f"{schedules.place}/out/.volt-dumps/sqlite-app.db").stdout == "ok\n"
            assert host.run("cat", f"{schedules.place}/out/.volt-dumps/id").stdout == "0\n"
            found = json.loads(host.run("volt-backup", "list", "snap", "--json").stdout)["backups"][0]
            assert [(part["path"], part["kind"]) for part in found["snapshots"]] == [(f"{disk}/sub", "btrfs")] and found["file_count"] == 1
            assert host.run("ls", "-A", f"{disk}/sub/.volt-snapshots").stdout == "" == host.run("sh", "-c", "ls /var/tmp | grep volt-dump || :").stdout
            for name, most in (("app", 4.0), ("snap", 3.5)):
                level = host.run("sh", "-c", f"systemd-analyze security volt-backup-{name}.service | tail -n 1").stdout
                assert float(level.split(":")[1].split()[0]) <= most, level
        finally:
            schedules.unmount(host, disk)


def changes(output: str) -> list[str]:
    """The lines of a play's diffs."""
    return [line for line in output.splitlines() if re.match("[+-]", line)]


@pytest.mark.costly
def test_a_schedule_of_dumps_alone(schedules: Schedules) -> None:
    """It has no source: it is declared, its timer fires, its dump is restored and proved, and its status is that of any other."""
    data, out = f"{schedules.place}/data", f"{schedules.place}/out"

    @schedules.each
    def furnish(host: Host) -> None:
        host.run("sh", "-c", f"mkdir -p {data} && python3 -c \"{DATABASE}\" {data}/app.db && chown -R 4242:4242 {data} && chmod 0700 {data}")

    dumped = {"workload": "db", "interval": "1m", "randomized_delay": "0s", "max_keep": 1, "dumps": [{"sqlite": {"path": f"{data}/app.db"}}]}
    foreseen = schedules.declare(dumped, arguments=("--check",))

    @schedules.each
    def nothing_yet(host: Host) -> None:
        assert host.run("sh", "-c", f"ls -d {PLACES} 2>/dev/null", check=False).stdout == ""

    assert changes(schedules.declare(dumped)) == changes(foreseen) != []
    again = schedules.declare(dumped)
    assert recap(again) == ["0"] * len(schedules.hosts), again
    until = time.monotonic() + 300

    @schedules.each
    def ticks_and_comes_back(host: Host) -> None:
        host.run("timeout", "300", "sh", "-c", f"until ls {schedules.place}/backups/*.json; do sleep 0.3; done", check=False, timeout=330)
        while schedules.states(host)["db"]["state"] != "ok":
            assert time.monotonic() < until, host.run("journalctl", "--no-pager", "-u", "volt-backup-db.service").stdout
            time.sleep(0.3)
        restored = schedules.call(host, "restore", "db", "--target", out)
        assert restored["restore"]["dumps"][0]["load"].endswith(f"cp {out}/.volt-dumps/sqlite-app.db {data}/app.db"), restored
        assert host.run("python3", "-c", SOUND, f"{out}/.volt-dumps/sqlite-app.db").stdout == "ok\n"
        (drill,) = schedules.call(host, "drill", "db")["drills"]
        assert drill["noted"] and [dump["loaded"] for dump in drill["dumps"]] == [True], drill
        found = schedules.states(host)["db"]
        assert (found["state"], found["source"], found["proved_id"]) == ("ok", None, drill["backup_id"]), found
        assert host.run("volt-backup", "status", "--check", check=False).returncode == 0


def entries(host: Host, *query: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.run("journalctl", "--no-pager", "-o", "json", *query).stdout.splitlines()]


def tells_who_did_what(schedules: Schedules, host: Host, backup: str, began: int) -> None:
    """The journal has what a unit and what the command did; each query of the document is one."""
    for words in (("restore", backup, "--target", f"{schedules.place}/restored"), ("delete", backup)):
        assert schedules.call(host, *words)["changed"]
    host.run("journalctl", "--sync")
    made, gone = (entries(host, f"--since=@{began}", f"VOLT_ACTION={action}", f"VOLT_BACKUP_ID={backup}") for action in ("create", "delete"))
    assert [(entry["VOLT_RESULT"], entry["VOLT_WORKLOAD"], entry["VOLT_STORE"]) for entry in (*made, *gone)] == [
        ("success", "good", f"{schedules.place}/cas")
    ] * 2
    assert gone[0]["VOLT_ACTOR"] == "root" and gone[0]["PRIORITY"] == "6" and gone[0]["MESSAGE"] == f"delete {backup}: success"
    assert [entry["VOLT_CODE"] for entry in entries(host, f"--since=@{began}", "VOLT_ACTION=create", "VOLT_WORKLOAD=vanished")] == ["source"]
    queries = re.findall(r"^\$ (journalctl .*)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(queries) > 3
    for query in queries:
        query = re.sub(r"VOLT_BACKUP_ID=app-\S+", f"VOLT_BACKUP_ID={backup}", query).replace("VOLT_WORKLOAD=app", "VOLT_WORKLOAD=bad")
        found = host.run("sh", "-c", f"{query} --no-pager").stdout
        assert "VOLT_" in found or "volt-backup" in found, query


@pytest.mark.costly
def test_hooks_and_what_they_are_told(schedules: Schedules) -> None:
    """A pre command that fails or hangs fails the run; the post command runs in any case and learns how it went; somebody is told."""
    told, began = f"{schedules.place}/told", int(time.time())
    after = ["/bin/sh", "-c", f'echo "$VOLT_WORKLOAD $VOLT_RESULT" >>{told}']
    app = {"source": f"{schedules.place}/app", "interval": "1d", "post_command": after, "command_timeout": 2}

    @schedules.each
    def furnish_alarms(host: Host) -> None:
        host.run("sh", "-c", f"printf '%s\\n' '#!/bin/sh' 'exec cat >>{schedules.place}/letters' >/usr/sbin/sendmail; chmod 0755 /usr/sbin/sendmail")
        host.run("systemd-run", "--unit=webhook", "python3", "-c", WEBHOOK, f"{schedules.place}/posted")

    schedules.declare(
        {**app, "workload": "good", "pre_command": ["/bin/sh", "-c", f"echo dumped >{schedules.place}/app/dump"]},
        {**app, "workload": "bad", "pre_command": ["/bin/sh", "-c", "exit 3"]},
        {**app, "workload": "slow", "pre_command": ["/bin/sleep", "600"]},
        {**app, "workload": "vanished"},
        {**app, "workload": "after", "post_command": ["/bin/false"]},
        volt_schedule_on_failure=["/bin/sh", "-c", f'echo "alarm $0" >>{schedules.place}/alarm'],
        volt_schedule_on_failure_mail={"to": "admin@example.org"},
        volt_schedule_on_failure_webhook={"url": "http://127.0.0.1:8642/SeCrEt"},
        volt_schedule_metrics=f"{schedules.place}/volt.prom",
    )

    @schedules.each
    def fares_and_tells(host: Host) -> None:
        host.run("systemctl", "start", "volt-backup-good.service")
        host.run("sh", "-c", f"mv {schedules.place}/app {schedules.place}/elsewhere")
        for name in ("bad", "slow", "vanished"):
            assert host.run("systemctl", "start", f"volt-backup-{name}.service", check=False).returncode == 1
        host.run("sh", "-c", f"mv {schedules.place}/elsewhere {schedules.place}/app")
        states = schedules.states(host)
        assert {name: states[name]["state"] for name in states} == {
            "good": "ok", "bad": "failed", "slow": "failed", "vanished": "failed", "after": "waiting",
        }  # fmt: skip
        assert "exit status 3" in states["bad"]["reason"] and "did not end within 2 s" in states["slow"]["reason"], states
        assert "does not exist" in states["vanished"]["reason"]
        assert all(states[name]["failures"] == 1 and not states[name]["last_success"] for name in ("bad", "slow", "vanished"))
        assert host.run("cat", told).stdout == "good success\nbad failure\nslow failure\nvanished failure\n"
        shown = schedules.call(host, "show", states["good"]["backup_id"], "--contents")["contents"]["entries"]
        assert "dump" in [entry["path"] for entry in shown]
        until = time.monotonic() + 120
        while host.run("cat", f"{schedules.place}/alarm", check=False).stdout.count("alarm") < 3 and time.monotonic() < until:
            time.sleep(0.2)
        alarms = host.run("cat", f"{schedules.place}/alarm").stdout
        assert sorted(alarms.splitlines()) == [f"alarm volt-backup-{name}" for name in ("bad", "slow", "vanished")]
        while not host.run("systemctl", "list-units", "--state=active,activating", "--no-legend", "volt-cas-failure@*").stdout == "":
            assert time.monotonic() < until
            time.sleep(0.2)
        letters = host.run("cat", f"{schedules.place}/letters").stdout
        assert letters.count("To: admin@example.org") == 3 and f"Subject: Backup of bad failed on {host.name}: The pre_command" in letters
        posted = [json.loads(line) for line in host.run("cat", f"{schedules.place}/posted").stdout.splitlines()]
        assert {(one["workload"], one["host"], one["failures"]) for one in posted} == {(name, host.name, 1) for name in ("bad", "slow", "vanished")}
        host.run("systemctl", "stop", "webhook")
        tested = host.run("volt-backup", "notify", "--test", check=False)
        assert tested.returncode == 1 and "webhook: connection refused" in tested.stderr
        assert "SeCrEt" not in host.run("sh", "-c", "journalctl --no-pager; cat /etc/systemd/system/volt-*; volt-backup status --json").stdout + tested.stderr
        assert host.run("stat", "-c", "%a", "/etc/volt/notify.json").stdout == "600\n"
        metrics = host.run("cat", f"{schedules.place}/volt.prom").stdout
        if shutil.which("promtool"):
            assert subprocess.run(["promtool", "check", "metrics"], input=metrics, capture_output=True, text=True, check=True).stdout == ""
        assert 'last_success_timestamp_seconds{workload="good"}' in metrics and 'failures{workload="bad"} 1' in metrics
        assert not any(f'success_timestamp_seconds{{workload="{name}"}}' in metrics for name in ("bad", "slow", "vanished")), metrics
        host.run("journalctl", "--sync")
        units = set()
        for name, result in (("good", "success"), ("bad", "failure"), ("slow", "failure"), ("vanished", "failure")):
            unit = f"volt-backup-{name}.service"
            (entry,) = entries(host, f"--since=@{began}", "VOLT_ACTION=run", f"VOLT_WORKLOAD={name}")
            # The journal asks whose process it was. On a busy machine one may have ended by then, but not all.
            assert (entry["VOLT_RESULT"], entry.get("_SYSTEMD_UNIT", unit)) == (result, unit), entry
            units.add(entry.get("_SYSTEMD_UNIT"))
        assert units - {None}, "no entry in the journal names its unit"
        for start in (["systemctl", "start", "volt-backup-after.service"], ["volt-backup", "run", "after"]):
            host.run(*start, check=False)
            after = schedules.states(host)["after"]
            assert after["state"] == "failed" and after["last_success"] is None and "post_command" in after["reason"], after
            assert 'success_timestamp_seconds{workload="after"}' not in host.run("cat", f"{schedules.place}/volt.prom").stdout
        assert host.run("volt-backup", "run", "good").returncode == 0  # by hand, hooks and all
        assert host.run("tail", "-n", "1", told).stdout == "good success\n"
        assert host.run("volt-backup", "run", "bad", check=False).returncode == 1
        tells_who_did_what(schedules, host, states["good"]["backup_id"], began)


@pytest.mark.costly
def test_a_changed_schedule_starts_nothing_at_once_and_if_due_waits_for_a_slot(schedules: Schedules) -> None:
    app = {"workload": "app", "source": f"{schedules.place}/app", "randomized_delay": "0s"}
    schedules.declare({**app, "interval": "1d"})

    @schedules.each
    def was_missed(host: Host) -> None:
        host.run("sh", "-c", "touch -d '3 days ago' /var/lib/systemd/timers/stamp-volt-backup-app.timer")

    schedules.declare({**app, "interval": "5h"})

    @schedules.each
    def starts_nothing_at_once(host: Host) -> None:
        assert schedules.states(host)["app"]["state"] == "waiting"
        host.run("systemctl", "start", "volt-backup-app.service")
        first = schedules.states(host)["app"]["backup_id"]
        assert first is not None
        host.run("systemctl", "start", "volt-backup-app.service")  # no new slot: left alone, and no failure
        assert schedules.states(host)["app"]["backup_id"] == first
        assert host.run("volt-backup", "run", "app", "--if-due").stdout == "Workload app is not due yet.\n"


@pytest.mark.costly
def test_a_host_that_was_off_makes_up_for_one_run(schedules: Schedules, fleet: Fleet) -> None:
    """Off past a slot: systemd starts one run when the host is back. The stamp is what it remembers, and stands for the time it was off."""
    schedules.declare({"workload": "app", "source": f"{schedules.place}/app", "interval": "1d"})

    @schedules.each
    def be_off(host: Host) -> None:
        host.run("sh", "-c", "systemctl stop volt-backup-app.timer && touch -d '7 days ago' /var/lib/systemd/timers/stamp-volt-backup-app.timer")
        host.reboot()

    @schedules.each
    def one_run_made_up_for(host: Host) -> None:
        host.ready()
        until = time.monotonic() + 120
        while schedules.states(host)["app"]["state"] != "ok":
            assert time.monotonic() < until, host.run("journalctl", "--no-pager", "-u", "volt-backup-app.service").stdout
            time.sleep(0.5)
        time.sleep(2)
        assert len(schedules.call(host, "list", "app")["backups"]) == 1


@pytest.mark.costly
def test_a_run_by_hand_and_one_of_the_unit_do_not_mix(schedules: Schedules) -> None:
    """Each is between its own hooks: what one stops, the other does not start under it."""
    told, state = f"{schedules.place}/told", f"{schedules.place}/app/state"
    before = ["/bin/sh", "-c", f"echo stopped >{state}; echo pre >>{told}; sleep 1"]
    after = ["/bin/sh", "-c", f"echo running >{state}; echo post >>{told}; sleep 1"]
    schedules.declare({"workload": "db", "source": f"{schedules.place}/app", "interval": "1d", "pre_command": before, "post_command": after})
    both = "volt-backup run db & systemctl start volt-backup-db.service & wait; systemctl start volt-backup-db.service & sleep 0.3; volt-backup run db; wait"

    @schedules.each
    def by_hand_and_by_unit(host: Host) -> None:
        host.run("sh", "-c", both)
        backups = schedules.call(host, "list", "db")["backups"]
        assert host.run("cat", told).stdout == "pre\npost\n" * len(backups) and len(backups) in (3, 4)
        for backup in backups:
            schedules.call(host, "restore", backup["id"], "--target", f"{schedules.place}/{backup['id']}")
            assert host.run("cat", f"{schedules.place}/{backup['id']}/state").stdout == "stopped\n"


@pytest.mark.costly
def test_runs_that_cannot_say_how_they_fared_have_failed(schedules: Schedules) -> None:
    """A full disk, a command that is gone, a hook that is killed: told, and the post command runs wherever it can."""
    told = f"{schedules.place}/told"
    app = {"source": f"{schedules.place}/app", "post_command": ["/bin/sh", "-c", f"echo $VOLT_WORKLOAD $VOLT_RESULT >>{told}; sleep 2"]}
    prom = f"{schedules.place}/volt.prom"
    schedules.declare({**app, "workload": "daily", "interval": "1d"}, {**app, "workload": "ticking", "interval": "36h"}, volt_schedule_metrics=prom)

    @schedules.each
    def all_ways_to_fail(host: Host) -> None:
        for name in ("daily", "ticking"):
            host.run("systemctl", "start", f"volt-backup-{name}.service")
        assert {row["state"] for row in schedules.states(host).values()} == {"ok"}
        # by hand, and somebody stops it when the backup is made: the answer comes when the post command has ended, and is true
        stop = f"volt-backup run daily --json & until [ $(grep -c daily {told}) = 2 ]; do sleep 0.1; done;"
        stop += " systemctl stop --no-block volt-backup-daily.service; wait $!"
        began = time.monotonic()
        stopped = host.run("sh", "-c", stop, check=False)
        assert stopped.returncode == 0 and json.loads(stopped.stdout)["backup"]["complete"] and time.monotonic() - began > 2, stopped
        assert schedules.states(host)["daily"]["state"] == "ok"
        records = "/var/lib/volt/schedules"
        host.run("sh", "-ec", f"cp -r {records} /root/kept; mount -t tmpfs -o size=64k none {records}; cp /root/kept/* {records}/")
        try:
            assert "No space" in host.run("sh", "-c", f"cat /dev/zero >{records}/full", check=False).stderr
            assert host.run("systemctl", "start", "volt-backup-daily.service", check=False).returncode == 1
            assert host.run("tail", "-n", "1", told).stdout == "daily failure\n"
            assert schedules.states(host)["daily"]["state"] == "failed"
        finally:
            schedules.unmount(host, records)
        assert host.run("volt-backup", "run", "daily").returncode == 0 and schedules.states(host)["daily"]["state"] == "ok"
        host.run("mv", "/usr/local/bin/volt-backup", "/root/away")
        for name in ("daily", "ticking"):
            assert host.run("systemctl", "start", f"volt-backup-{name}.service", check=False).returncode == 1
        host.run("sh", "-c", TOLD)  # by the command that is gone, and so in vain
        host.run("mv", "/root/away", "/usr/local/bin/volt-backup")
        states = schedules.states(host)
        assert {(row["state"], row["reason"].partition(";")[0]) for row in states.values()} == {
            ("failed", f"volt-backup-{name}.service failed (exit-code)") for name in states
        }, states  # fmt: skip
        assert host.run("volt-backup", "run", "ticking").returncode == 0
        host.run("python3", "-c", KILL_POST)
        assert schedules.states(host)["daily"]["state"] == "failed"
        until = time.monotonic() + 120
        while 'failures{workload="daily"} 1' not in host.run("cat", prom).stdout:  # noted by who tells people
            assert time.monotonic() < until, host.run("cat", prom).stdout
            time.sleep(0.3)
        assert host.run("volt-backup", "run", "daily", "--json").returncode == 0 and schedules.states(host)["daily"]["state"] == "ok"


@pytest.mark.costly
def test_a_pre_command_that_fails_waits_for_the_next_slot_and_runs_within_runs_have_their_hooks(schedules: Schedules) -> None:
    told = f"{schedules.place}/told"

    def say(word: str, then: str = "true") -> list[str]:
        return ["/bin/sh", "-c", f"echo {word} >>{told}; {then}"]

    app = {"source": f"{schedules.place}/app"}
    schedules.declare(
        {**app, "workload": "ticking", "interval": "36h", "pre_command": say("pre", "false"), "post_command": say("post")},
        {**app, "workload": "outer", "interval": "1d", "post_command": say("outer", "volt-backup run inner")},
        {**app, "workload": "itself", "interval": "1d", "post_command": ["/usr/local/bin/volt-backup", "run", "itself"]},
        {**app, "workload": "inner", "interval": "1d", "pre_command": say("inner-pre"), "post_command": say("inner-post")},
    )

    @schedules.each
    def each_has_its_hooks(host: Host) -> None:
        for _number in range(3):  # as at three ticks
            host.run("systemctl", "start", "volt-backup-ticking.service", check=False)
        assert host.run("cat", told).stdout == "pre\npost\n"
        assert schedules.states(host)["ticking"]["failures"] == 1
        host.run("systemctl", "start", "volt-backup-outer.service")
        assert host.run("cat", told).stdout == "pre\npost\nouter\ninner-pre\ninner-post\n"
        assert host.run("systemctl", "start", "volt-backup-itself.service", check=False).returncode == 1
        assert schedules.states(host)["itself"]["state"] == "failed"  # at once, and not after the time that a command may take
        # a unit that does not know of hooks, of an older version or somebody's own, does not wait for itself
        host.run("sh", "-c", "mkdir /run/systemd/system/volt-backup-inner.service.d && printf '[Service]\\nEnvironment=VOLT_BACKUP_HOOKS=\\n'"
                 " >/run/systemd/system/volt-backup-inner.service.d/x.conf && systemctl daemon-reload")  # fmt: skip
        host.run("systemctl", "start", "volt-backup-inner.service")
        host.run("sh", "-c", "rm -r /run/systemd/system/volt-backup-inner.service.d && systemctl daemon-reload")


@pytest.mark.costly
def test_a_declaration_that_died_before_systemd_heard_of_it(schedules: Schedules) -> None:
    """The next one starts nothing at once, and no timer stays without a time to come. What never comes is refused."""
    app = {"workload": "app", "source": f"{schedules.place}/app", "randomized_delay": "0s"}
    schedules.declare({**app, "on_calendar": "*-01-01"})

    @schedules.each
    def was_missed(host: Host) -> None:
        host.run("sh", "-c", "systemctl stop volt-backup-app.timer; touch -d '3 days ago' /var/lib/systemd/timers/stamp-volt-backup-app.timer;"
                 " systemctl start volt-backup-app.timer")  # fmt: skip

    schedules.declare({**app, "interval": "12h"}, volt_schedule_manage_units=False)
    assert recap(schedules.declare({**app, "interval": "12h"})) == ["1"] * len(schedules.hosts)
    assert recap(schedules.declare({**app, "interval": "12h"})) == ["0"] * len(schedules.hosts)
    time.sleep(2)

    @schedules.each
    def waits(host: Host) -> None:
        assert schedules.states(host)["app"]["state"] == "waiting" and schedules.call(host, "list", "app")["backups"] == []
        assert host.run("systemctl", "show", "--value", "-p", "NextElapseUSecRealtime", "volt-backup-app.timer").stdout.strip()

    with pytest.raises(AssertionError, match="has no future time"):
        schedules.declare({**app, "on_calendar": "2020-01-01"})


@pytest.mark.costly
def test_a_disk_that_is_away(schedules: Schedules) -> None:
    """The unit of a backup and that of gc start all the same and say so, a play fails, nothing is made; and all goes on once the disk is back."""
    disk, app = f"{schedules.place}/disk", {"workload": "app", "source": f"{schedules.place}/app", "interval": "1d"}
    where = {"volt_schedule_store": f"{disk}/cas", "volt_schedule_backup_dir": f"{disk}/backups"}
    schedules.each(lambda host: host.run("sh", "-c", f"mkdir {schedules.place}/real {disk} && mount --bind {schedules.place}/real {disk}"))
    schedules.declare(app, **where)
    assert recap(schedules.declare(app, **where)) == ["0"] * len(schedules.hosts)
    nothing = dict.fromkeys(where)  # as where the variables are not set: the host knows its store, and so does what its units call
    schedules.declare(app, **nothing)
    assert recap(schedules.declare(app, **nothing)) == ["0"] * len(schedules.hosts)

    @schedules.each
    def says_so(host: Host) -> None:
        known = json.loads(host.run("cat", "/etc/volt/backup.json").stdout)
        assert (known["store"], known["backup_dir"]) == (f"{disk}/cas", f"{disk}/backups") and known["store_id"]
        host.run("systemctl", "start", "volt-backup-app.service", "volt-cas-gc.service")
        schedules.unmount(host, disk)
        assert schedules.states(host)["app"]["state"] == "store missing"
        for unit in ("volt-backup-app", "volt-cas-gc"):
            assert host.run("systemctl", "start", f"{unit}.service", check=False).returncode == 1
            assert f"There is no store at {disk}/cas" in host.run("journalctl", "--no-pager", "-u", unit).stdout
        found = schedules.states(host)["app"]
        assert found["state"] == "failed" and found["reason"].startswith(f"There is no store at {disk}/cas") and known["store_id"] in found["reason"]
        for words in (["run", "app"], ["list"], ["status", "--check"]):
            done = host.run("volt-backup", *words, check=False)
            assert done.returncode == (4 if words == ["list"] else 1) and f"There is no store at {disk}/cas" in done.stdout + done.stderr, done

    with pytest.raises(AssertionError, match=f"There is no store at {disk}/cas"):
        schedules.declare(app, **nothing)

    @schedules.each
    def goes_on(host: Host) -> None:
        assert host.run("ls", "-A", disk).stdout == ""
        host.run("mount", "--bind", f"{schedules.place}/real", disk)
        host.run("systemctl", "start", "volt-backup-app.service")
        assert schedules.states(host)["app"]["state"] == "ok"
        assert json.loads(host.run("volt-backup", "list", "--json").stdout)["count"] == 2
        schedules.unmount(host, disk)


#: Has a lease of a file, and does not give it back when it is asked to.
LEASE = "import fcntl, os, signal, sys; signal.signal(signal.SIGIO, signal.SIG_IGN); fd = os.open(sys.argv[1], os.O_RDWR)"
LEASE += "; fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK); print('held', flush=True); signal.pause()"


@pytest.mark.costly
def test_a_run_that_stands_still_fails_its_unit(schedules: Schedules) -> None:
    app = {"workload": "app", "source": f"{schedules.place}/app", "interval": "1d", "stall": "3s", "timeout": "10m"}
    app["post_command"] = ["/bin/touch", "/run/post"]
    schedules.declare(app, volt_schedule_on_failure=["/bin/touch"])

    @schedules.each
    def ends(host: Host) -> None:
        host.run("systemctl", "start", "volt-backup-app.service")
        assert "TimeoutStartUSec=25min" in host.run("systemctl", "show", "-p", "TimeoutStartUSec", "volt-backup-app.service").stdout
        host.run("sh", "-c", f"rm /run/post; echo 2 >>{schedules.place}/app/a")
        hold = f'python3 -c "{LEASE}" {schedules.place}/app/a >/run/lease 2>&1 </dev/null & echo $! >/run/holder; until [ -s /run/lease ]; do sleep 0.1; done'
        assert host.run("sh", "-c", f"{hold}; cat /run/lease").stdout == "held\n"
        assert host.run("systemctl", "start", "volt-backup-app.service", check=False).returncode == 1
        host.run("sh", "-c", f"kill $(cat /run/holder); {TOLD}")
        found = schedules.states(host)["app"]
        assert found["state"] == "failed" and f"while reading, at {schedules.place}/app/a; check" in found["reason"], found
        host.run("test", "-e", "/run/post")
        assert host.run("sh", "-c", f"ls -A {schedules.place}/cas/tmp").stdout == ""
        host.run("systemctl", "start", "volt-backup-app.service")
        assert schedules.states(host)["app"]["state"] == "ok" and schedules.call(host, "list")["count"] == 2


@pytest.mark.costly
def test_backups_are_copied_by_their_unit(schedules: Schedules) -> None:
    """Within the hardened unit, to a directory that need not be there: then the backup is made, the unit fails, and the next run makes up for it."""
    nas = f"{schedules.place}/nas"
    schedules.each(lambda host: host.run("mkdir", nas))
    schedules.remotes("present", nas, "--check")
    assert set(recap(schedules.remotes("present", nas))) == {"4"} and set(recap(schedules.remotes("present", nas))) == {"0"}
    app = {"workload": "app", "source": f"{schedules.place}/app", "on_calendar": "2040-01-01", "remote": "nas", "push_to_cdn": True}
    schedules.declare(app)

    @schedules.each
    def copied(host: Host) -> None:
        start = ("systemctl", "start", "volt-backup-app.service")
        keys = json.loads(host.run("cat", "/etc/volt/remotes/vault.keys").stdout)
        assert keys["host"] and host.run("stat", "-c", "%a %U", "/etc/volt/remotes/vault.keys").stdout.split() == ["600", "root"]
        host.run("systemctl", "daemon-reload")
        host.run(*start)
        assert [backup["pushed_to_cdn"] for backup in schedules.call(host, "list", "app")["backups"]] == [True]
        host.run("mv", nas, f"{nas}-away")
        assert host.run(*start, check=False).returncode
        assert [backup["pushed_to_cdn"] for backup in schedules.call(host, "list", "app")["backups"]] == [False, True]
        assert "not all copies were" in schedules.states(host)["app"]["reason"]
        host.run("mv", f"{nas}-away", nas)
        host.run(*start)
        assert [backup["pushed_to_cdn"] for backup in schedules.call(host, "list", "app")["backups"]] == [True] * 3
        assert schedules.call(host, "list", "--remote", "nas")["count"] == 3 and schedules.states(host)["app"]["state"] == "ok"

    schedules.declare(**GONE)
    assert set(recap(schedules.remotes("absent", nas))) == {"3"}
    schedules.each(lambda host: host.run("rmdir", "/etc/volt/remotes", "/etc/volt"))
