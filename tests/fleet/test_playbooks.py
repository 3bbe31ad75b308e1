# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's playbooks on real hosts, called by their full names as users call them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.volt.backup.tests.rigs import browser, model, picture
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet

pytestmark = pytest.mark.everywhere

#: The root of a container, as small as it can be: a shell with what it needs, and what the drill command asks for.
ROOT = """
cd "$1"
mkdir -p usr/bin usr/lib srv
ln -s usr/bin bin
cp /usr/lib/os-release usr/lib/
for program in /bin/sh /bin/cat; do cp -L $program usr/bin/; done
for library in $(ldd /bin/sh /bin/cat | grep -o '/lib[^ ]*' | sort -u); do mkdir -p .${library%/*}; cp -L $library .$library; done
echo good >srv/state
"""
DATABASE = "import sqlite3, sys; made = sqlite3.connect(sys.argv[1]); made.execute('CREATE TABLE orders AS SELECT 1 AS number'); made.commit()"


class Books:
    """Two workloads on each host, and the playbooks upon them."""

    def __init__(self, fleet: Fleet, ansible: Callable[..., Any], place: str) -> None:
        self.fleet, self.hosts, self._ansible, self.place = fleet, list(fleet.hosts.values()), ansible, place
        self.rooms = [host.srv / Path(place).name for host in self.hosts]
        for room in self.rooms:
            for name in ("app", "db"):
                (room / name / "below").mkdir(parents=True)
                (room / name / "below/file").write_text(name)
                (room / name / "left.tmp").write_text("x")

    def run(self, name: str, *arguments: str, status: int = 0, **variables: Any) -> str:
        given = {
            "volt_schedule_defaults": {"interval": "1d", "exclude": ["*.tmp"]},
            "volt_schedule_workloads": [{"workload": name, "source": f"{self.place}/{name}"} for name in ("app", "db")],
            "volt_schedule_store": f"{self.place}/cas",
            "volt_schedule_backup_dir": f"{self.place}/backups",
        }
        done = self._ansible("ansible-playbook", f"volt.backup.{name}", "-e", json.dumps({**given, **variables}), *arguments)
        assert done.returncode == status, done.stdout
        assert done.stdout.count("[WARNING]") == done.stdout.count("[WARNING]: Host") and "[DEPRECATION" not in done.stdout, done.stdout
        return done.stdout

    def report(self, place: Path, status: int = 0, **variables: Any) -> tuple[dict[str, Any], Path, Path]:
        """The report of drills as data; and the page of the fleet and the report, which browsers show."""
        page, report = place / "fleet.html", place / "drills.html"
        self.run("status", status=status, volt_page=str(page), **variables)
        self.run("report", volt_report=str(report), **variables)
        return json.loads(report.with_suffix(".json").read_text()), page, report

    def backups(self) -> list[int]:
        return [len(list((room / "backups").glob("[!.]*.json"))) for room in self.rooms]


@pytest.fixture
def books(fleet: Fleet, ansible: Callable[..., Any], place: str) -> Books:
    return Books(fleet, ansible, place)


def changes(output: str) -> list[int]:
    return sorted(int(number) for number in re.findall(r"changed=(\d+)", output))


@pytest.mark.costly
def test_backup_restore_verify(books: Books) -> None:
    assert changes(books.run("backup", "--check")) == [1, 1, 1] and books.backups() == [0, 0, 0]
    assert "There are no backups to restore" in books.run("verify", status=2)
    assert changes(books.run("backup", "--limit", books.hosts[0].name)) == [1] and books.backups() == [2, 0, 0]
    assert changes(books.run("backup", volt_only_if_changed=True, volt_serial=1)) == [0, 1, 1] and books.backups() == [2, 2, 2]
    before = [model.snapshot(room / "app") for room in books.rooms]
    for room in books.rooms:
        (room / "app/below/file").write_text("changed")
        (room / "app/new").write_text("new")
    restore = {"volt_workload": "app", "volt_force": True, "volt_delete": True}
    refused = books.run("restore", status=2, **restore)
    assert refused.count("This would restore on 3 hosts") >= 3 and "volt_restore" not in refused
    assert "is a backup of one host" in books.run("restore", "--limit", "all", status=2, volt_id="x")
    restore["volt_hosts"] = "all"
    assert "target_differs" in books.run("restore", "--limit", "all", status=2, volt_workload="app")
    foreseen = books.run("restore", "--check", **restore)
    assert changes(foreseen) == [1, 1, 1] and foreseen.count("would be restored to") == 3
    assert [(room / "app/new").exists() for room in books.rooms] == [True] * 3
    done = books.run("restore", volt_serial=1, **restore)
    assert changes(done) == [1, 1, 1]
    told, _play, written = done.partition("PLAY [Restore]")
    for host in books.hosts:
        assert re.search(rf"{host.name}: app-\S+-manual goes to {books.place}/app,", told), told
    assert told.count("paths are removed, first new.") == 3 and told.count("overwritten, first ") == 3
    assert "changed: [" not in told and written.count("changed: [") == 3
    assert [model.snapshot(room / "app") for room in books.rooms] == before
    assert changes(books.run("restore", **restore)) == [0, 0, 0]
    assert "No backup was chosen" in books.run("restore", status=2)
    assert "No backup was chosen" in books.run("restore", status=2, volt_id="x", **restore)
    assert "use volt_workload" in books.run("restore", status=2, volt_worklaod="app")
    proved = books.run("verify", volt_scratch_dir=f"{books.place}/scratch")
    assert proved.count('"app-') == 3 and proved.count('"db-') == 3 and changes(proved) == [0, 0, 0], proved
    assert not any((room / "scratch").exists() for room in books.rooms)
    nothing = books.run("backup", volt_schedule_workloads=[])
    assert "No workload is declared for this host" in nothing and changes(nothing) == [0, 0, 0]


@pytest.mark.costly
def test_drills_and_their_report(books: Books, tmp_path: Path) -> None:
    """Applications, the root of a container and a database are tried on each host; the month's report says what was not proved first."""
    app = {"dumps": [{"sqlite": {"path": "shop.db"}}], "drill_command": ["/bin/sh", "-c", "grep app $VOLT_DRILL_TREE/below/file"]}
    box = {"workload_mode": "container", "drill_command": ["/bin/sh", "-c", "state=$(cat /srv/state); test \"$state\" = good || { echo $state; exit 1; }"]}
    given = {"volt_schedule_workloads": [
        {"workload": "app", "source": f"{books.place}/app", **app}, {"workload": "box", "source": f"{books.place}/box", **box},
    ]}  # fmt: skip
    for host in books.hosts:
        host.run("python3", "-c", DATABASE, f"{books.place}/app/shop.db")
        host.run("sh", "-ec", f"mkdir {books.place}/box; set -- {books.place}/box; {ROOT}")
    books.run("schedule", **given)
    try:
        books.run("backup", **given)
        assert books.run("verify", **given).count('"box-') == 3
        first, page, report = books.report(tmp_path, **given)
        assert first["counts"] == {"failed": 0, "not_known": 0, "not_tried": 0, "proved": 6} and first["hosts"] == 3
        assert {(row["workload"], drill["command"], *drill["loaded"]) for row in first["rows"] for drill in row["drills"]} == {
            ("app", "passed", ".volt-dumps/sqlite-shop.db"), ("box", "passed"),
        }, first  # fmt: skip
        books.rooms[0].joinpath("app/below/file").write_text("other")
        books.rooms[1].joinpath("box/srv/state").write_text("broken")
        books.run("backup", **given)
        said = books.run("verify", status=2, **given)
        assert "it failed with exit status 1 (broken)" in said and changes(said) == [0, 0, 0], said
        second, page, report = books.report(tmp_path, status=2, **given)
        assert {(row["host"], row["workload"], len(row["drills"])) for row in second["rows"][:2] if row["state"] == "failed"} == {
            (books.hosts[0].name, "app", 2), (books.hosts[1].name, "box", 2),
        }  # fmt: skip
        with browser.started() as chromium:
            with browser.opened(chromium, report) as found:
                assert found.get_by_text("4 of 6 workloads proved").is_visible() and browser.faults(found) == []
                assert "broken" in found.get_by_role("region", name="Not proved").inner_text()
            with browser.opened(chromium, page) as found:
                assert found.get_by_text("not proved").first.is_visible() and browser.faults(found) == []
    finally:
        books.run("schedule", volt_schedule_state="absent", volt_runner_state="absent")


@pytest.mark.costly
def test_status(books: Books, tmp_path: Path) -> None:
    """One table: who is off, what failed, what was stopped; fine hosts are hidden by none of it."""
    off, first, second, third = books.fleet.boot("off", "bookworm"), *books.hosts
    try:
        books.run("schedule", "--limit", "all:!off")
        off.poweroff()
        lost = tmp_path / "lost"
        lost.write_text(f"off ansible_host={off.address}\n")
        assert "no schedules" not in books.run("status")
        books.fleet.each(lambda host: host.run("systemctl", "start", "volt-backup-app.service", "volt-backup-db.service"), books.hosts)
        fine = books.run("status")
        assert len(re.findall(r"(?:app|db) +ok ", fine)) == 6, fine
        books.run("verify")
        assert len(re.findall(r"(?:app|db) +ok +\w+ +[0-9]\w+ +[0-9]\w+", books.run("status"))) == 6, "newest, proved, next"
        page = tmp_path / "fleet.html"
        judged = books.run("status", status=2, volt_page=str(page), volt_rpo="26h", volt_drill_every="7d", volt_copy_within="1d")
        assert judged.count("No backup has a copy elsewhere, and volt_copy_within is 1d;") == 6, judged
        rows = json.loads(page.with_suffix(".json").read_text())["rows"]
        assert {(row["state"], *(row.get("missed") or ())) for row in rows} == {("not copied", "copy_within")} and len(rows) == 6
        assert all("g" in row["history"]["days"][-2:] and row["history"]["recent"]["states"].endswith("g") for row in rows)
        assert page.read_text().startswith("<!DOCTYPE html>")
        first.run("systemctl", "stop", "volt-backup-db.timer")
        second.run("sh", "-c", f"mv {books.place}/app {books.place}/away; systemctl start volt-backup-app.service", check=False)
        for serial in ("100%", "1"):
            output = books.run("status", "-i", str(lost), status=4, volt_serial=serial)
            lines = [line for line in output.splitlines() if re.search(r'^ +"\S+ +(?:app|db|-|WORKLOAD) ', line)]
            assert [tuple(line.strip(' ",').split()[:3]) for line in lines[:4]] == [
                ("HOST", "WORKLOAD", "STATE"), ("off", "-", "UNREACHABLE"), (second.name, "app", "FAILED"), (first.name, "db", "STOPPED"),
            ], output  # fmt: skip
            assert len(lines) == 8 and all(re.search("(?:app|db) +ok ", line) for line in lines[4:]) and output.count("PLAY RECAP") == 1
            # each host's trouble is its own in the recap, and its reason is told once
            recap = {line.split()[0]: dict(re.findall(r"(\w+)=(\d+)", line)) for line in output.split("PLAY RECAP")[1].splitlines() if "ok=" in line}
            assert {name: (row["unreachable"], row["failed"]) for name, row in recap.items()} == {
                "off": ("1", "0"), first.name: ("0", "1"), second.name: ("0", "1"), third.name: ("0", "0"),
            }, output  # fmt: skip
            assert output.count(f"Source {books.place}/app does not exist") == 1 and "app failed; the table above says why" in output
        # where no host answers, there are a table and a page all the same
        alone = books.run("status", "-i", str(lost), "--limit", "off", status=4, volt_page=str(page))
        assert "UNREACHABLE" in alone.partition("Show the table")[2].partition("Write the page")[0]
        assert [(row["host"], row["state"]) for row in json.loads(page.with_suffix(".json").read_text())["rows"]] == [("off", "unreachable")]
        shown = [line.strip(' ",').replace(books.place, "/srv").replace(off.address, "fd00::4") for line in lines]
        head, *recap_of = [line.rstrip() for line in output.split("PLAY RECAP")[1].splitlines() if line]
        picture.check("status", "\n".join(["$ ansible-playbook volt.backup.status", "...", *shown, "", f"PLAY RECAP{head}", *recap_of]) + "\n")
        assert "off" not in books.run("status", "--limit", third.name)
    finally:
        off.kill()
        del books.fleet.hosts["off"]
        books.run("schedule", volt_schedule_state="absent", volt_runner_state="absent")
    assert "no schedules" in books.run("status", volt_schedule_workloads=[])
    assert "app not scheduled" in books.run("status", status=2)
