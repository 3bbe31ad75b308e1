# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that stand still or take too long: they end, say where they stood, and the next one works. The file system that hangs is a real one."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._schedule.job import Job
from ansible_collections.volt.backup.plugins.module_utils._schedule.record import RunRecord
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.tests.rigs import need

_LOOKUP, _GETATTR, _STATFS, _OPEN, _READ, _OPENDIR, _READDIR, _INIT = 1, 3, 17, 14, 15, 27, 28, 26
_SILENT = (2, 36, 42)  # forget, interrupt: nobody waits for an answer
_ENDS = (18, 25, 29)  # release, flush, releasedir
NAME = b"disk.img"


class OneFile:
    """A FUSE file system with one file of zeros. Each piece takes so many seconds to be read; None: it is never read."""

    def __init__(self, fd: int, size: int, seconds: float | None) -> None:
        self._fd, self._size, self._seconds = fd, size, seconds
        self._withheld: list[int] = []

    def serve(self) -> None:
        """Answer until the mount is gone."""
        while True:
            try:
                asked = os.read(self._fd, 1 << 20)
            except OSError:
                return
            _length, number, unique, node = struct.unpack_from("<IIQQ", asked)
            if number == _READ and self._seconds is None:
                self._withheld.append(unique)  # the kernel waits for it, and no signal ends that
                continue
            answer = None if number in _SILENT else self._answer(number, node, asked[40:])
            if answer is not None:
                error, data = answer if isinstance(answer, tuple) else (0, answer)
                with suppress(FileNotFoundError):  # nobody waits for it any more
                    os.write(self._fd, struct.pack("<IiQ", 16 + len(data), -error, unique) + data)

    def let_go(self) -> None:
        """Answer all that was withheld: an error."""
        self._seconds = 0.0
        for unique in self._withheld:
            os.write(self._fd, struct.pack("<IiQ", 16, -5, unique))

    def _attributes(self, node: int) -> bytes:
        mode, size = (0o40755, 0) if node == 1 else (0o100644, self._size)
        return struct.pack("<6Q10I", node, size, -(-size // 512), 10**9, 10**9, 10**9, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _answer(self, number: int, node: int, rest: bytes) -> Any:
        if number == _INIT:
            return struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 16, 12, 1 << 16, 1, 0, 0, *[0] * 8)[:64]
        if number == _LOOKUP:
            known = rest.rstrip(b"\0") == NAME
            return struct.pack("<4Q2I", 2, 0, 60, 60, 0, 0) + self._attributes(2) if known else (2, b"")
        if number == _GETATTR:
            return struct.pack("<Q2I", 60, 0, 0) + self._attributes(node)
        if number in (_OPEN, _OPENDIR):
            return struct.pack("<Q2I", 0, int(number == _OPEN), 0)  # without the page cache
        if number == _STATFS:
            return struct.pack("<5Q10I", 1, 0, 0, 2, 0, 4096, 255, *[0] * 8)
        offset, size = struct.unpack_from("<QI", rest, 8) if number in (_READ, _READDIR) else (0, 0)
        if number == _READDIR:
            return b"" if offset else struct.pack("<QQII", 2, 1, len(NAME), 8) + NAME.ljust(-(-len(NAME) // 8) * 8, b"\0")
        if number == _READ:
            time.sleep(self._seconds or 0)
            return bytes(max(0, min(size, self._size - offset)))
        return b"" if number in _ENDS else (38, b"")


@contextmanager
def one_file(where: Path, size: int, seconds: float | None) -> Iterator[None]:
    """Such a file system, mounted. The processes that it holds have ended by the end of the context."""
    need("mount", root=True)
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"no FUSE: {error}")
    system = OneFile(fd, size, seconds)
    server = threading.Thread(target=system.serve)
    try:
        options = b"fd=%d,rootmode=40000,user_id=0,group_id=0,max_read=131072" % fd
        where.mkdir(parents=True)
        assert ctypes.CDLL(None, use_errno=True).mount(b"slow", os.fsencode(where), b"fuse", ctypes.c_ulong(6), options) == 0
        server.start()  # not before: nothing can be read of what is not mounted
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", where], check=True)
            system.let_go()
            server.join(10)  # the last descriptor of the mount is gone by then: else what is waited for has not ended
            assert not server.is_alive()
    finally:
        os.close(fd)


RUN = """
import json, sys
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.plugins.module_utils._schedule import hooks, job, record, run, systemd, watchdog
place, records, watchdog._GRACE = sys.argv[1], sys.argv[2], float(sys.argv[3])
hooks.load_job = lambda workload, _record: job.load(workload, place)
run.RunRecord = lambda workload: record.RunRecord(workload, records)
systemd.running = lambda: False
sys.exit(cli.main(["run", "work", "--json"]))
"""


class Scheduled:
    """A job of a bench, run in a process of its own, as by hand on a host without systemd."""

    def __init__(self, bench: Any) -> None:
        self.bench, self.log = bench, bench.top / "log"
        self.record = RunRecord("work", str(bench.top / "records"))

    def run(self, grace: float = 1, **options: Any) -> dict[str, Any]:
        note = f'echo "$VOLT_RESULT $VOLT_REASON" >> {self.log}'
        given = {"store": str(self.bench.store), "backup_dir": str(self.bench.backups), "keep": {"last": 9}, "post_command": ["/bin/sh", "-c", note], **options}
        jobs = self.bench.top / "jobs"
        jobs.mkdir(exist_ok=True)
        (jobs / "work.json").write_text(Job("work", str(self.bench.source), 3600, **given).text())
        words = [sys.executable, "-c", RUN, str(jobs), str(self.bench.top / "records"), str(grace)]
        done = subprocess.run(words, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=subprocess.PIPE, check=False, timeout=120)
        found = json.loads(done.stdout)
        assert done.returncode == int(found.get("failed", False))
        return found


@pytest.fixture
def scheduled(bench: Any) -> Scheduled:
    bench.files(a=b"1", b__c=b"2")
    return Scheduled(bench)


@pytest.mark.parametrize("size", [1000, 1 << 20, 20 << 20], ids=["read by the walk", "read by a worker", "read in chunks"])
def test_a_read_that_never_returns_ends_the_run(scheduled: Scheduled, size: int) -> None:
    bench = scheduled.bench
    good = scheduled.run()["backup"]["id"]
    with one_file(bench.source / "mnt" / "nfs", size, None):
        (failure, began) = scheduled.run(stall=1, keep={"last": 1}), time.monotonic()
        assert failure["code"] == "stalled" and failure["seconds"] >= 1
        assert failure["path"] == str(bench.source / "mnt/nfs/disk.img") and failure["path"] in failure["msg"]
    assert time.monotonic() - began < 20
    note = scheduled.record.read()
    assert (note["failure"]["code"], note["failures"], note["failure"]["reason"]) == ("stalled", 1, failure["msg"])
    assert scheduled.log.read_text().splitlines() == ["success ", f"failure {failure['msg']}"]
    assert [backup["id"] for backup in bench.found()] == [good]
    assert not scheduled.run().get("failed") and bench.debris() == [], "what was left in the store is swept"
    assert len(bench.found()) == 2 and scheduled.record.read()["failures"] == 0


def test_a_file_that_is_read_slowly_is_progress(scheduled: Scheduled) -> None:
    with one_file(scheduled.bench.source / "slow", 20 << 20, 0.05):
        made = scheduled.run(stall=4)
    assert made["backup"]["complete"] and made["backup"]["total_size"] == (20 << 20) + 2 and made["backup"]["duration"] > 6e9


def test_a_run_that_takes_too_long_ends_and_cleans_up(scheduled: Scheduled) -> None:
    """What is not stuck takes back what it has begun: the process is not killed."""
    bench = scheduled.bench
    with one_file(bench.source / "slow", 64 << 20, 0.05):
        failure = scheduled.run(grace=60, timeout=2, stall=0)
    assert failure["code"] == "timeout" and failure["path"] == str(bench.source / "slow/disk.img") and failure["seconds"] == 2
    assert scheduled.record.read()["failure"]["code"] == "timeout" and scheduled.log.read_text().startswith("failure Workload work: the backup took longer")
    assert bench.debris() == [] and bench.found() == []
    (bench.source / "slow").rmdir()
    assert not scheduled.run(timeout=60).get("failed")


def test_waiting_for_the_store_is_no_stall(scheduled: Scheduled) -> None:
    scheduled.run()
    with Store(str(scheduled.bench.store), 5).gate():
        failure = scheduled.run(stall=1, lock_timeout=4)
    assert failure["code"] == "lock_timeout"


def test_a_stopped_process_has_not_stalled(scheduled: Scheduled) -> None:
    """A host that slept, a process that a debugger held."""
    stop = "(sleep 1; it=$(cat /proc/$PPID/task/$PPID/children); kill -STOP $it; sleep 6; kill -CONT $it) &"
    with one_file(scheduled.bench.source / "slow", 8 << 20, 0.05):
        made = scheduled.run(stall=3, pre_command=["/bin/sh", "-c", stop])
    assert made["backup"]["complete"] and made["backup"]["duration"] > 6e9
