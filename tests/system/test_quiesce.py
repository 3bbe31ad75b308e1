# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that wait while their data is read: real ones of Docker and Podman, which write all the time."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import SourceError
from ansible_collections.volt.backup.plugins.module_utils._sources import machines, quiesce, runtimes
from ansible_collections.volt.backup.tests.rigs import containers, mounts, need, sample
from ansible_collections.volt.backup.tests.system.conftest import Bench
from ansible_collections.volt.backup.tests.unit.kit import command

#: Writes the same number into two files, one after the other.
COUNT = "n=0; trap 'exit 0' TERM; while :; do n=$((n + 1)); for f in a z; do echo $n >/data/new; /bin/busybox mv /data/new /data/$f; done; done"


@pytest.fixture(scope="module", params=["docker", "podman"])
def runtime(request: pytest.FixtureRequest) -> Iterator[containers.Runtime]:
    with tempfile.TemporaryDirectory(prefix="volt-containers-", dir="/var/tmp") as place, getattr(containers, request.param)(Path(place)) as found:
        yield found


@pytest.fixture
def shop(bench: Bench, runtime: containers.Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench whose source a container named shop writes to; another one has nothing to do with it."""
    for name, value in runtime.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(runtimes, "_RUNTIMES", (runtime.name,))
    bench.files(**{f"m__{number}": b"x" * 1000 for number in range(1500)})
    other = bench.top / "other"
    other.mkdir()
    runtime.start("shop", bench.source, COUNT)
    runtime.start("other", other, "sleep 1000")
    deadline = time.monotonic() + 30
    while not (bench.source / "z").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    yield bench
    for name in ("shop", "other"):
        subprocess.run([runtime.name, "unpause", name], capture_output=True, check=False)
        runtime("rm", "--force", name)


def numbers(bench: Bench) -> list[int]:
    return [int((bench.target / name).read_text()) for name in "az"]


def noted() -> list[Path]:
    """What is to be resumed of the containers that we see, as runs have written it down. Other tests have theirs."""
    found = []
    for path in (path for place in ("/run", quiesce._PLACE) for path in Path(place).glob(f"{quiesce._PREFIX}*")):
        with contextlib.suppress(FileNotFoundError):
            if json.loads(path.read_text())["where"] == quiesce._where():
                found.append(path)
    return found


@pytest.mark.parametrize("way", ["pause", "stop"])
def test_it_waits_and_goes_on(shop: Bench, runtime: containers.Runtime, way: str) -> None:
    states: list[str] = []
    looking = ["sh", "-c", f"{runtime.name} inspect --format '{{{{.State.Status}}}}' shop"]
    backup = shop.create(quiesce=way, command=looking, command_file="state").backup
    assert backup["quiesced"] == [{"runtime": runtime.name, "name": "shop", "way": way}] and not backup["unstable"]
    shop.restore()
    one, other = numbers(shop)
    assert 0 <= one - other <= 1, states
    assert (shop.target / ".volt-dumps/state").read_text() == "running\n"  # commands and dumps come before
    assert runtime.state("shop") == runtime.state("other") == "running"
    last = (shop.source / "a").read_text()
    deadline = time.monotonic() + 30
    while (shop.source / "a").read_text() == last and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (shop.source / "a").read_text() != last
    assert not noted()


def test_while_it_is_read_it_waits(shop: Bench, runtime: containers.Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the reading fails."""
    from ansible_collections.volt.backup.plugins.module_utils._capture import capture

    states: list[str] = []

    def fail(*_words: Any) -> None:
        states.append(runtime.state("shop"))
        raise SourceError("It failed; try again.")

    monkeypatch.setattr(capture.Capture, "_check_place", fail)
    with pytest.raises(SourceError, match="It failed"):
        shop.create(quiesce="pause")
    assert states == ["paused"] and runtime.state("shop") == "running" and shop.found() == []


def test_one_that_is_paused_stays_so(shop: Bench, runtime: containers.Runtime) -> None:
    runtime("pause", "shop")
    assert shop.create(quiesce="pause").backup["quiesced"] == []
    assert runtime.state("shop") == "paused"


def test_a_dry_run_and_other_sources_keep_nothing_still(shop: Bench, runtime: containers.Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiesce, "_attempt", lambda *_words: pytest.fail("a container was touched"))
    assert shop.create(quiesce="pause", dry=True).backup["quiesced"] == []
    elsewhere = shop.top / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x").write_text("x")
    assert shop.create(quiesce="pause", source=elsewhere).backup["quiesced"] == []


def test_what_a_killed_run_left_the_next_one_resumes(shop: Bench, runtime: containers.Runtime) -> None:
    archive = shop.top / "volt-backup"
    archive.write_bytes(command())
    places = ["--store", str(shop.store), "--backup-dir", str(shop.backups), "--json"]
    words = [sys.executable, str(archive), "create", "work", "--source", str(shop.source), "--quiesce", "pause", *places]
    before = noted()
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while noted() == before and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.001)
    child.send_signal(signal.SIGSTOP)
    while runtime.state("shop") != "paused" and time.monotonic() < deadline:  # it goes on by small steps, and stands while we look
        child.send_signal(signal.SIGCONT)
        time.sleep(0.02)
        child.send_signal(signal.SIGSTOP)
    child.kill()
    child.wait()
    assert runtime.state("shop") == "paused" and noted()
    quiesce.resume_left()
    assert runtime.state("shop") == "running"
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["backup"]["quiesced"][0]["name"] == "shop" and runtime.state("shop") == "running"


def test_a_pause_that_comes_after_the_kill(shop: Bench, runtime: containers.Runtime) -> None:
    """The program that pauses outlives its run: what resumes waits for it."""
    archive, slow = shop.top / "volt-backup", shop.top / "bin" / runtime.name
    archive.write_bytes(command())
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\nif [ "$1" = pause ]; then touch {shop.top}/begins; sleep 1; fi\nexec {shutil.which(runtime.name)} "$@"\n')
    slow.chmod(0o755)
    places = ["--store", str(shop.store), "--backup-dir", str(shop.backups)]
    words = [sys.executable, str(archive), "create", "work", "--source", str(shop.source), "--quiesce", "pause", *places]
    child = subprocess.Popen(words, env={**os.environ, "PATH": f"{slow.parent}:{os.environ['PATH']}"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (shop.top / "begins").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    quiesce.resume_left()
    time.sleep(1.5)
    assert runtime.state("shop") == "running" and not noted()


@pytest.mark.costly
def test_nothing_is_left_behind_after_kills(shop: Bench, runtime: containers.Runtime) -> None:
    """At any moment, also while the runtime pauses or resumes: once the unit's hook has run, the container runs, and nothing is noted."""
    archive = shop.top / "volt-backup"
    archive.write_bytes(command())
    places = ["--store", str(shop.store), "--backup-dir", str(shop.backups)]
    words = [sys.executable, str(archive), "create", "work", "--source", str(shop.source), "--quiesce", "pause", "--compression", "zlib", *places]
    for number in range(200 if sample.LONG else 3):
        before = noted()
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while noted() == before and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.001)
        time.sleep(sample.chance("kills", runtime.name, number).uniform(0, 0.5))
        child.kill()
        child.wait()
        quiesce.resume_left()
        assert not noted(), number
        time.sleep(0.3)  # what was under way comes
        assert runtime.state("shop") == "running", number
    assert shop.create(quiesce="pause").backup["complete"]


def test_it_is_resumed_after_a_limit(shop: Bench, runtime: containers.Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.volt.backup.plugins.module_utils._capture import capture

    monkeypatch.setattr(quiesce, "LONGEST", 0.5)
    genuine = capture.Capture._check_place

    def late(*words: Any) -> None:
        deadline = time.monotonic() + 30
        while runtime.state("shop") != "running" and time.monotonic() < deadline:
            time.sleep(0.05)
        genuine(*words)

    monkeypatch.setattr(capture.Capture, "_check_place", staticmethod(late))
    with pytest.raises(SourceError, match="was kept still for 0 seconds, which is the limit"):
        shop.create(quiesce="pause")
    assert runtime.state("shop") == "running" and shop.found() == [] and not noted()


def test_a_container_that_would_be_removed_is_not_stopped(shop: Bench, runtime: containers.Runtime) -> None:
    command_line = ("--rm", "--network=none", "--name=passing", f"--volume={shop.source}:/data", containers.IMAGE, "/bin/busybox", "sleep", "1000")
    runtime("run", "--detach", *command_line)
    try:
        with pytest.raises(SourceError, match="passing would be removed by"):
            shop.create(quiesce="stop")
        assert runtime.state("passing") == runtime.state("shop") == "running" and not noted()
        assert len(shop.create(quiesce="pause").backup["quiesced"]) == 2
    finally:
        runtime("rm", "--force", "passing")


def test_one_that_does_not_resume_keeps_no_other_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a killed run left are tried, and the note stays until the last one is up."""
    tried: list[str] = []

    def attempt(container: quiesce.Container, _word: str) -> str:
        tried.append(container.name)
        return "it is broken" if container.name == "first" else ""

    monkeypatch.setattr(quiesce, "_PLACE", str(tmp_path))
    monkeypatch.setattr(quiesce, "_is_down", lambda _container, _way: True)
    monkeypatch.setattr(quiesce, "_attempt", attempt)
    note = tmp_path / f"{quiesce._PREFIX}1"
    note.write_text(json.dumps({"way": "pause", "where": quiesce._where(), "containers": [["docker", "1", "first"], ["docker", "2", "second"]]}))
    quiesce.resume_left()
    assert tried == ["first", "second"] and note.exists()


def test_a_runtime_that_does_not_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{bench.top}/none")
    monkeypatch.setattr(runtimes, "_RUNTIMES", ("docker",))
    bench.files(a=b"a")
    with pytest.raises(SourceError, match="docker did not answer"):
        bench.create(quiesce="pause")
    assert bench.found() == []


class Machine:
    """A process with a root of its own, and what systemd-machined would write of it as a machine named box. tests/fleet/test_machines.py has real ones."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place / "machines"
        self.place.mkdir()
        (place / "root").mkdir()
        monkeypatch.setattr(machines, "_MACHINES", str(self.place))

    @contextlib.contextmanager
    def running(self, mount: str, *words: str, service: str = "systemd-nspawn") -> Iterator[None]:
        """:param mount: what mounts something at `data`, in the shell."""
        inside = "/bin/busybox umount -l /old; echo; exec /bin/busybox cat"
        script = (
            f'mount -t tmpfs none "{self.place.parent}/root"; cd "{self.place.parent}/root"; mkdir bin old data; cp /bin/busybox bin; {mount};'
            f" pivot_root . old; exec bin/busybox chroot . /bin/busybox sh -c '{inside}'"
        )
        child = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "sh", "-ec", script, "sh", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdout and child.stdout.readline() == b"\n"
        (self.place / "box").write_text(f"# This is private data.\nNAME=box\nSERVICE={service}\nLEADER={child.pid}\n")
        (self.place / "unit:machine-box.scope").symlink_to("box")
        (self.place / ".#box").write_text("half of it")
        try:
            yield
        finally:
            child.communicate()
            for path in self.place.iterdir():
                path.unlink()

    def uses(self, source: Path, way: str = "pause") -> bool:
        """Whether the machine is found: it has no control group and no service, so that is an error."""
        try:
            return bool(machines.using(os.fsencode(source), way))
        except SourceError as error:
            assert error.message.startswith(f"Machine box cannot be {'paused' if way == 'pause' else 'stopped'}: ")
            return True


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    need("unshare", "busybox", root=True)
    return Machine(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", [b"plain", b"a b\\134", b"\xff\xc3 \n"])
def test_a_machine_uses_what_it_can_write_to(machine: Machine, tmp_path: Path, name: bytes) -> None:
    shared, other = tmp_path / os.fsdecode(name), tmp_path / "other"
    (shared / "below").mkdir(parents=True)
    other.mkdir()
    bound = 'mount --bind "$1" data; mount -o "remount,bind,$2" data'
    with machine.running(bound, os.fsdecode(shared), "rw"):
        assert [machine.uses(path) for path in (shared, shared / "below", tmp_path, other)] == [True, True, True, False]
        assert machine.uses(shared, "stop")
    assert not machine.uses(shared)
    with machine.running(bound, os.fsdecode(shared), "ro"):
        assert not machine.uses(shared)
    with machine.running(bound, os.fsdecode(shared), "rw", service="libvirt-qemu"):
        assert not machine.uses(shared)


def test_a_machine_uses_its_disk_image(machine: Machine, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    mounts.make("ext4", images / "box.raw", 16 * mounts.MIB)
    with machine.running('mount -o loop "$1" data', str(images / "box.raw")):
        assert machine.uses(images) and not machine.uses(tmp_path / "machines")


def test_a_machine_uses_the_layer_that_it_writes_to(machine: Machine, tmp_path: Path) -> None:
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    with machine.running('mount -t overlay none -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" data', str(tmp_path)):
        assert machine.uses(tmp_path / "upper") and not machine.uses(tmp_path / "lower")


def test_a_machine_that_is_being_frozen_waits_already(tmp_path: Path) -> None:
    """The kernel says `frozen 1` once each process is, and one of them may wait for a disk."""
    group = tmp_path / "machine-a b.scope" / "payload"
    group.mkdir(parents=True)
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    box = runtimes.Container(runtimes.NSPAWN, "machine-a\\x20b.scope", "a b", group=str(group))
    for content, down in (("0\n", False), ("1\n", True)):
        (group / "cgroup.freeze").write_text(content)
        assert machines.is_down(box, "pause") is down
    assert machines.attempt(box, "unpause") == "" and (group / "cgroup.freeze").read_text() == "0"
    for word, words in (("unpause", ["echo", "0", f">{group}/cgroup.freeze"]), ("start", ["systemctl", "start", box.id])):
        assert shlex.split(machines.remedy(box, word)) == words


def test_an_ephemeral_machine_is_not_stopped(machine: Machine, tmp_path: Path) -> None:
    """systemd-nspawn removes the copy that it runs in."""
    shared = tmp_path / "shared"
    shared.mkdir()
    with machine.running('mount --bind "$1" data', str(shared)):
        with open(machine.place / "box", "a") as told:
            told.write("ROOT=/var/lib/machines/.#machine.box1234\n")
        with pytest.raises(SourceError, match="it is ephemeral"):
            machines.using(os.fsencode(shared), "stop")


@pytest.mark.parametrize("runtime", ["podman"], indirect=True)
def test_a_container_that_was_started_again_does_not_hold_the_note(shop: Bench, runtime: containers.Runtime) -> None:
    """What watches it lives as long as the container: the note of a run that is killed meanwhile would be that of a run which lives."""
    shop.create(quiesce="stop")
    (monitor,) = runtime("inspect", "--format", "{{.ConmonPidFile}}", "shop").split()
    fds = Path("/proc", Path(monitor).read_text(encoding="ascii").strip(), "fd")
    assert not [link for link in (os.readlink(fd) for fd in fds.iterdir()) if quiesce._PREFIX in link]


def test_the_limit_comes_while_one_is_paused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is resumed before it is down, and must not stay down for that."""
    down: set[str] = set()

    def attempt(container: runtimes.Container, word: str, _mounts: int = -1) -> str:
        time.sleep(0.3 if word == "pause" else 0.1)
        if word == "unpause" and container.id not in down:
            return "it is not paused"
        (down.add if word == "pause" else down.discard)(container.id)
        return ""

    monkeypatch.setattr(quiesce, "_attempt", attempt)
    monkeypatch.setattr(quiesce, "LONGEST", 0.4)
    monkeypatch.setattr(quiesce, "_PLACE", str(tmp_path))
    monkeypatch.setattr(runtimes, "using", lambda _source: [runtimes.Container("podman", name, name) for name in "abc"])
    monkeypatch.setattr(quiesce.machines, "using", lambda *_words: [])
    monkeypatch.setattr(quiesce.domains, "using", lambda *_words: [])
    with pytest.raises(SourceError, match="which is the limit"):
        with quiesce.quiesced("pause", b"/x"):
            pass
    time.sleep(0.5)
    assert not down and not list(tmp_path.glob(f"{quiesce._PREFIX}*"))
