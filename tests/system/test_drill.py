# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore drills: what they prove, what they refuse to call proved, and that they leave nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import NotFound, UsageError
from ansible_collections.volt.backup.plugins.module_utils._proof import trial
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.plugins.module_utils._schedule import drill, job as jobs
from ansible_collections.volt.backup.plugins.module_utils._schedule.record import RunRecord
from ansible_collections.volt.backup.plugins.module_utils._schedule.survey import survey
from ansible_collections.volt.backup.tests.rigs import need, torture

ENGINE = "ansible_collections.volt.backup.plugins.module_utils"


class Ground:
    """A bench with places for job files and records of its own."""

    def __init__(self, bench: Any) -> None:
        self.bench, self.scratch = bench, bench.top / "scratch"
        self.jobs, self.records = bench.top / "jobs", bench.top / "records"

    def declare(self, **options: Any) -> None:
        self.jobs.mkdir(exist_ok=True)
        made = jobs.Job("work", str(self.bench.source), 3600, **{"store": str(self.bench.store), "backup_dir": str(self.bench.backups), **options})
        (self.jobs / "work.json").write_text(made.text())

    def drill(self, *workloads: str, dry: bool = False, command: trial.Command | None = None) -> list[drill.Drill]:
        return drill.Driller(self.bench.manager, str(self.scratch), dry, str(self.jobs), str(self.records), command)(workloads)

    def row(self) -> Any:
        """What status says of the schedule."""
        return survey(str(self.jobs), str(self.records), str(self.bench.top / "units"), str(self.bench.top / "no-command")).schedules[0]

    def proved(self) -> Any:
        return RunRecord("work", str(self.records)).read().get("proved", {}).get("backup_id")


@pytest.fixture
def ground(bench: Any) -> Ground:
    return Ground(bench)


def test_directories_above_the_scratch_go_as_well(ground: Ground) -> None:
    ground.bench.files(a=b"1")
    ground.bench.create()
    ground.scratch = ground.bench.top / "not" / "there" / "yet"
    ground.drill()
    assert not (ground.bench.top / "not").exists()


def test_unstable_files_are_not_proved_and_that_is_said(ground: Ground, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    bench = ground.bench
    bench.files(base=b"x" * 5000, quiet=b"1")
    real, turn = os.pread, iter(range(1000))

    def pread(fd: int, size: int, offset: int) -> bytes:
        data = real(fd, size, offset)
        if size > 1000:
            (bench.source / "base").write_bytes(b"%05d" % next(turn) * 1000)
        return data

    monkeypatch.setattr(os, "pread", pread)
    ground.declare()
    bench.create()
    monkeypatch.undo()
    (done,) = ground.drill()
    assert done.reason is None and done.unstable_count == 1
    words = ["--scratch", str(ground.scratch), "--store", str(bench.store), "--backup-dir", str(bench.backups)]
    assert cli.main(["drill", *words]) == 0
    assert "proved, except 1 unstable path(s)" in capfd.readouterr().out
    bench.files(base=b"quiet now")
    bench.create()
    assert ground.drill()[0].unstable_count == 0


def test_the_newest_backup_is_proved_and_nothing_stays(ground: Ground) -> None:
    bench = ground.bench
    need(root=True)
    assert not torture.build(bench.source, entries=120, long_paths=False)
    bench.create()
    newest = bench.create().backup["id"]
    ground.declare()
    (foreseen,) = ground.drill(dry=True)
    assert (foreseen.backup_id, foreseen.reason, foreseen.noted) == (newest, None, False)
    assert not ground.scratch.exists() and ground.proved() is None
    (done,) = ground.drill()
    assert (done.workload, done.backup_id, done.reason, done.noted) == ("work", newest, None, True)
    assert done.total_size > 0 and done.duration > 0
    assert not ground.scratch.exists() and not bench.debris()
    assert ground.proved() == newest
    ground.scratch.mkdir()
    (ground.scratch / "mine").touch()
    assert ground.drill("work")[0].reason is None
    assert os.listdir(ground.scratch) == ["mine"]


def test_the_command_of_the_schedule_judges(ground: Ground) -> None:
    """A backup whose application refuses it is not proved, and that is shown until a drill succeeds."""
    need(root=True)
    bench = ground.bench
    bench.files(users=b"broken")
    broken = bench.create().backup["id"]
    words = ["/bin/sh", "-c", 'grep -q sound users && test "$VOLT_WORKLOAD" = work && test -n "$VOLT_BACKUP_ID"']
    ground.declare(drill_command=words)
    (done,) = ground.drill()
    why = "Its drill command /bin/sh: it failed with exit status 1; fix that, then run the drill again."
    assert (done.command, done.noted, done.reason) == ("failed", False, why)
    (noted,) = RunRecord("work", str(ground.records)).read()["drills"]
    assert (noted["backup_id"], noted["reason"], noted["command"]) == (broken, done.reason, "failed") and ground.proved() is None
    row = ground.row()
    assert row["state"] == "not proved" and f"failed: {done.reason}" in row["reason"]

    bench.files(users=b"sound")
    sound = bench.create().backup["id"]
    (done,) = ground.drill()
    assert (done.command, done.noted, done.reason, ground.proved()) == ("passed", True, None, sound)
    assert ground.row()["state"] != "not proved" and len(RunRecord("work", str(ground.records)).read()["drills"]) == 2
    (done,) = ground.drill(command=trial.Command(["/bin/false"], 10))
    assert (done.command, ground.proved()) == ("failed", sound)
    (done,) = ground.drill(command=trial.Command([], 10))
    assert (done.command, done.reason) == (None, None)
    assert not ground.scratch.exists() and not bench.debris()


def test_a_command_that_cannot_run_is_refused_before_anything_is_restored(ground: Ground) -> None:
    ground.bench.files(a=b"1")
    ground.bench.create()
    for words, limit, said in ((["test"], 1, "absolute path"), (["/bin/test", "a\0"], 1, "NUL"), (["/bin/true"], 0, "at least 1 second")):
        with pytest.raises(UsageError, match=said):
            ground.drill(command=trial.Command(words, limit))
    assert not ground.scratch.exists()


def test_a_record_that_cannot_be_written_keeps_no_other_from_its_turn(ground: Ground) -> None:
    """Nor does a job file that cannot be read; both are why nothing is proved."""
    bench = ground.bench
    bench.files(a=b"1")
    bench.create()
    bench.manager.create(CreateRequest("zoo", str(bench.source)))
    ground.declare()
    ground.records.write_text("not a directory")
    work, zoo = ground.drill()
    assert (work.workload, work.noted, zoo.workload, zoo.reason) == ("work", False, "zoo", None)
    assert work.reason and "cannot be written" in work.reason
    (ground.jobs / "work.json").write_text("{")
    for path in bench.store.rglob("*.pack*"):
        path.unlink()  # nothing can be restored, so only the job file can tell whose failure this is
    work, zoo = ground.drill()
    assert work.reason and zoo.reason and not work.noted


def test_a_backup_that_is_deleted_as_the_drill_begins(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    ground.bench.files(a=b"1")
    ground.bench.create()
    monkeypatch.setattr(ground.bench.manager, "find", lambda *_query: [])
    (done,) = ground.drill()
    assert done.reason and "was deleted while the drill began; run the drill again" in done.reason and not ground.scratch.exists()


def test_drills_are_remembered_for_two_months(ground: Ground) -> None:
    record = RunRecord("work", str(ground.records))
    for number in range(80):
        record.drilled({"backup_id": f"work-{number}", "reason": None if number % 2 else "broken"})
    note = record.read()
    assert [one["backup_id"] for one in note["drills"]] == [f"work-{number}" for number in range(10, 80)]
    assert note["proved"]["backup_id"] == "work-79"


@pytest.mark.parametrize("other", [{}, {"store": "/elsewhere"}, {"backup_dir": "/elsewhere"}], ids=["no schedule", "another store", "other backups"])
def test_a_proof_is_noted_for_the_schedule_that_it_is_of(ground: Ground, other: dict[str, str]) -> None:
    ground.bench.files(a=b"1")
    ground.bench.create()
    if other:
        ground.declare(**other)
    (done,) = ground.drill()
    assert (done.reason, done.noted, ground.proved()) == (None, False, None)
    assert not ground.records.exists()


def test_a_damaged_backup_is_skipped_and_one_that_fails_keeps_no_other_from_its_turn(ground: Ground) -> None:
    bench = ground.bench
    bench.files(a=b"1" * 200_000)
    old = bench.create().backup["id"]
    bench.files(b=b"2" * 200_000)
    bench.create()
    bench.manager.create(CreateRequest("alone", str(bench.source)))
    lost = [path for path in (bench.store / "objects").rglob("*") if path.is_file() and path.stat().st_mtime_ns]
    newest = max(lost, key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    results = {done.workload: done for done in ground.drill()}
    assert results["work"].backup_id == old and len(results["work"].passed_over) == 1 and results["work"].reason is None
    assert results["alone"].reason and results["alone"].backup_id is None and results["alone"].passed_over
    failure = drill.failure(list(results.values()))
    assert failure is not None and failure.code == "drill" and "The drill of workload alone failed" in failure.message and "1 of 2" in failure.message
    assert not ground.scratch.exists()


def test_content_that_is_altered_is_not_proved(ground: Ground) -> None:
    """A change that only reading tells: the object has its size and its time."""
    bench = ground.bench
    bench.files(a=os.urandom(300_000))
    bench.create(compression="none")
    ground.declare()
    (path,) = (path for path in (bench.store / "objects").rglob("*") if path.is_file())
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    (done,) = ground.drill()
    assert done.reason and not done.noted and ground.proved() is None
    assert not ground.scratch.exists()


def test_a_tree_that_comes_back_otherwise_is_not_proved(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was restored is read again: a disk that loses a write is found out."""
    bench = ground.bench
    bench.files(a=b"1" * 1000, b=b"2")
    bench.create()
    ground.declare()
    real = bench.manager.restore

    def lossy(backup: Any, request: Any, *rest: Any, dry: bool = False, reread: bool = False) -> Any:
        done = real(backup, request, *rest, dry=dry, reread=reread)
        if not dry:
            with open(os.path.join(request.target, "a"), "r+b") as file:
                status = os.fstat(file.fileno())
                file.write(b"X")
                file.flush()
                os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        return done

    monkeypatch.setattr(bench.manager, "restore", lossy)
    (done,) = ground.drill()
    assert done.reason and "differ from the backup (~a" in done.reason and not done.noted and ground.proved() is None
    assert not ground.scratch.exists()


def test_without_space_nothing_is_written(ground: Ground, bench_on: Any) -> None:
    small = bench_on("ext4", 64 << 20)
    ground.bench.files(a=os.urandom(30 << 20))
    ground.bench.create()
    ground.scratch = small.top / "scratch"
    (done,) = ground.drill()
    assert done.reason and "are free; choose a directory with more space" in done.reason
    assert not ground.scratch.exists()


def test_blocks_are_shared_where_they_can_be(bench_on: Any, tmp_path: Path) -> None:
    """Then a drill needs next to no space."""
    ground = Ground(bench_on("xfs", 400 << 20))
    ground.bench.source = tmp_path / "outside"
    ground.bench.files(a=os.urandom(220 << 20))
    ground.bench.create(compression="none")
    assert ground.drill()[0].reason is None


def test_bad_places_and_names(ground: Ground) -> None:
    with pytest.raises(NotFound, match="There are no backups to restore"):
        ground.drill()
    ground.bench.files(a=b"1")
    ground.bench.create()
    with pytest.raises(UsageError, match="is invalid"):
        ground.drill("../x")
    with pytest.raises(UsageError, match="absolute path"):
        drill.Driller(ground.bench.manager, "scratch", False)
    (unknown,) = ground.drill("nothing")
    assert unknown.reason and "has no matching backup" in unknown.reason
    for place in (ground.bench.store / "tmp", ground.bench.backups / "below"):
        ground.scratch = place
        with pytest.raises(UsageError, match="where backups are kept"):
            ground.drill()
        assert not list(ground.bench.store.rglob("volt-drill-*"))
    ground.scratch = ground.bench.source / "a"
    with pytest.raises(UsageError, match="is not a directory; choose another"):
        ground.drill()


@pytest.mark.parametrize("mode, fits", [(0o777, False), (0o1777, True), (0o700, True)])
def test_where_others_could_exchange_the_directory(ground: Ground, mode: int, fits: bool) -> None:
    ground.bench.files(a=b"1")
    ground.bench.create()
    ground.scratch.mkdir()
    ground.scratch.chmod(mode)
    (done,) = ground.drill()
    assert (done.reason is None) == fits and (fits or "Other users can write" in str(done.reason))
    assert os.listdir(ground.scratch) == []


def test_a_scratch_directory_in_another_user_s(ground: Ground) -> None:
    """He could exchange it for another one while root restores other people's secrets there."""
    need(root=True)
    ground.bench.files(a=b"1")
    ground.bench.create()
    home = ground.scratch.parent / "home"
    (home / "scratch").mkdir(parents=True)
    os.chown(home, 4242, 4242)
    ground.scratch = home / "scratch"
    (done,) = ground.drill()
    assert f"Other users can write to {home};" in str(done.reason) and os.listdir(home / "scratch") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_drill_that_is_stopped(ground: Ground, number: int) -> None:
    """SIGTERM leaves nothing; what SIGKILL leaves the next drill removes, and it touches nothing that is somebody else's."""
    need(root=True)
    bench = ground.bench
    for name in range(3000):
        bench.files(**{f"d{name % 50}__f{name}": os.urandom(500)})
    bench.create()
    ground.scratch.mkdir()
    kept = ground.scratch / "volt-drill-0123456789abcdef"
    kept.mkdir()
    os.chown(kept, 4242, 4242)
    code = (
        f"from {ENGINE}._runner import cli; import sys;"
        f"sys.exit(cli.main(['drill', '--scratch', {str(ground.scratch)!r}, '--store', {str(bench.store)!r}, '--backup-dir', {str(bench.backups)!r}]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 30
        while not list(ground.scratch.glob("volt-drill-*/*/*")):
            assert time.monotonic() < until and running.poll() is None
            time.sleep(0.001)
        running.send_signal(number)
    left = [path for path in ground.scratch.iterdir() if path != kept]
    assert bool(left) == (number == signal.SIGKILL), left
    assert ground.drill()[0].reason is None
    assert list(ground.scratch.iterdir()) == [kept]


def test_the_command(ground: Ground) -> None:
    bench = ground.bench
    bench.files(a=b"1")
    backup = bench.create().backup["id"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        code = f"from {ENGINE}._runner import cli; import sys; sys.exit(cli.main(sys.argv[1:]))"
        places = ["--scratch", str(ground.scratch), "--store", str(bench.store), "--backup-dir", str(bench.backups)]
        return subprocess.run([sys.executable, "-c", code, "drill", *words, *places], env=environment, capture_output=True, text=True, check=False)

    told = call()
    assert told.returncode == 0 and "proved" in told.stdout and backup in told.stdout
    assert "would be restored" in call("--dry-run").stdout
    assert json.loads(call("work", "--json").stdout)["drills"][0]["backup_id"] == backup
    failed = call("work", "other")
    assert failed.returncode == 1 and "The drill of workload other failed" in failed.stderr
    assert json.loads(call("work", "other", "--json").stdout)["code"] == "drill"
    assert call("other").returncode == 5


def test_the_path_of_a_drill_is_private(ground: Ground) -> None:
    """Others must not reach set-user-id programs, or files of their own, in the restored tree."""
    seen: list[int] = []
    ground.bench.files(a=b"1")
    ground.bench.create()
    real = ground.bench.manager.restore
    ground.bench.manager.restore = lambda backup, request, *rest, **more: (
        seen.append(Path(request.target).parent.stat().st_mode & 0o777),
        real(backup, request, *rest, **more),
    )[1]
    assert ground.drill()[0].reason is None
    assert set(seen) == {0o700}
