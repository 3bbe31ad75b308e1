# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Domains of libvirt wait while their disk images are read: a real guest, which writes all the time. Its own file system's checker judges the image."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import SourceError
from ansible_collections.volt.backup.plugins.module_utils._capture import capture
from ansible_collections.volt.backup.plugins.module_utils._sources import domains as engine, quiesce, runtimes
from ansible_collections.volt.backup.tests.rigs import domains, need, sample
from ansible_collections.volt.backup.tests.system.conftest import Bench
from ansible_collections.volt.backup.tests.system.test_quiesce import noted
from ansible_collections.volt.backup.tests.unit.kit import command


@pytest.fixture(scope="module")
def images() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="volt-domains-", dir="/var/tmp") as place:
        Path(place, "images").mkdir()
        yield Path(place, "images")


@pytest.fixture(scope="module")
def domain(images: Path) -> Iterator[domains.Domain]:
    """A domain named shop. All tests use it: each leaves it running, and thawed."""
    need("e2fsck", "debugfs", "dumpe2fs")
    with domains.daemon(images.parent) as libvirt:
        yield libvirt.domain("shop", images / "shop.img")


@pytest.fixture
def shop(bench: Bench, domain: domains.Domain, images: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench whose source has the image of the domain."""
    monkeypatch.setattr(runtimes, "_RUNTIMES", ())
    monkeypatch.setenv("DOCKER_CONTEXT", str(images))  # tests beside this one leave its notes alone, as those of other containers
    bench.source = images
    before = noted()
    assert domain.state() == "running" and not domain.frozen()
    yield bench
    assert noted() == before


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[Any]:
    """What `act` returns while the source is read."""
    found: list[Any] = []
    genuine = capture.Capture._check_place

    def look(*words: Any) -> None:
        found.append(act())
        genuine(*words)

    monkeypatch.setattr(capture.Capture, "_check_place", staticmethod(look))
    return found


def features(image: Path) -> str:
    return subprocess.run(["dumpe2fs", "-h", str(image)], capture_output=True, text=True, check=True).stdout


def sound(image: Path) -> bool:
    """Whether a file system is whole, after its journal if it has one to replay, and has what was written in its order."""
    subprocess.run(["e2fsck", "-fy", "-E", "journal_only", str(image)], capture_output=True, check=False)
    if subprocess.run(["e2fsck", "-fn", str(image)], capture_output=True, check=False).returncode:
        return False
    one, other = (int(subprocess.run(["debugfs", "-R", f"cat /{name}", str(image)], capture_output=True, text=True, check=True).stdout or 0) for name in "az")
    return 0 <= one - other <= 1


def goes_on(domain: domains.Domain, image: Path) -> None:
    """The guest writes: its disk changes."""
    was = image.stat().st_mtime_ns
    domains.until(lambda: image.stat().st_mtime_ns != was)


def test_it_freezes(shop: Bench, domain: domains.Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    states = meanwhile(monkeypatch, lambda: (domain.frozen(), domain.state()))
    for _run in range(50 if sample.LONG else 2):
        made = shop.create(quiesce="pause")
        assert made.backup["quiesced"] == [{"runtime": "libvirt", "name": "shop", "way": "freeze"}] and not made.warnings and not made.backup["unstable"]
        assert states.pop() == (True, "running") and not domain.frozen()
        shop.restore(made.backup["id"], force=True)
        assert "needs_recovery" not in features(shop.target / "shop.img") and sound(shop.target / "shop.img")
    goes_on(domain, shop.source / "shop.img")


@pytest.mark.costly
def test_it_shuts_down_and_starts(shop: Bench, domain: domains.Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    was, states = domain.run(), meanwhile(monkeypatch, domain.state)
    made = shop.create(quiesce="stop")
    assert made.backup["quiesced"] == [{"runtime": "libvirt", "name": "shop", "way": "stop"}] and not made.warnings
    assert states == ["shut off"] and domain.state() == "running" and domain.run() != was
    shop.restore()
    assert sound(shop.target / "shop.img")
    domain.agent()


@pytest.mark.costly
def test_what_does_not_lie_in_the_source(shop: Bench, domain: domains.Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiesce, "_attempt", lambda *_words: pytest.fail("a domain was touched"))
    elsewhere = shop.top / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x").write_text("x")
    assert shop.create(quiesce="pause", source=elsewhere).backup["quiesced"] == []
    assert shop.create(quiesce="pause", dry=True).backup["quiesced"] == []
    domain.libvirt("suspend", "shop")
    assert shop.create(quiesce="pause").backup["quiesced"] == [] and domain.state() == "paused"  # one that waits already is left alone
    domain.libvirt("resume", "shop")


@pytest.mark.costly
def test_layers_of_an_image(shop: Bench, domain: domains.Domain) -> None:
    """What a domain writes to counts, and its backing file does not; while a job merges them, neither can be read."""
    above = shop.top / "above"
    above.mkdir()
    domain.libvirt("snapshot-create-as", "shop", "x", "--disk-only", "--no-metadata", "--diskspec", f"vda,file={above}/top.qcow2")
    try:
        assert engine.using(bytes(shop.source), "pause") == []
        (found,) = engine.using(bytes(above), "pause")
        assert (found.name, found.agent, found.how("pause"), found.how("stop")) == ("shop", True, "freeze", "freeze")
        domain.libvirt("blockcommit", "shop", "vda", "--active")
        for place in (shop.source, above):
            with pytest.raises(SourceError, match=r"^Domain shop has a block job that merges layers of /.*/top\.qcow2; run the backup when it has ended\.$"):
                engine.using(bytes(place), "pause")
        domain.libvirt("blockjob", "shop", "vda", "--pivot")
    finally:
        assert [one.name for one in engine.using(bytes(shop.source), "pause")] == ["shop"]


@pytest.mark.costly
def test_one_that_refuses_to_freeze(shop: Bench, domain: domains.Domain) -> None:
    domain.guest("echo '[ $1 = thaw ]' >/run/mood")
    try:
        with pytest.raises(SourceError, match=r"^Domain shop cannot be kept still: .*hook has failed.*; correct that, or set `quiesce: none`\.$"):
            shop.create(quiesce="pause")
    finally:
        domain.guest("rm /run/mood")
    assert not domain.frozen() and shop.found() == []


@pytest.mark.costly
def test_one_that_another_program_has_frozen(shop: Bench, domain: domains.Domain) -> None:
    """It is not thawed: that program needs it so."""
    domain.libvirt("domfsfreeze", "shop")
    try:
        with pytest.raises(SourceError, match="^Domain shop cannot be kept still: another program has frozen it; "):
            shop.create(quiesce="pause")
        assert domain.frozen()
    finally:
        domain.libvirt("domfsthaw", "shop")


@pytest.mark.costly
def test_an_agent_that_hangs(shop: Bench, domain: domains.Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    """The freeze may come later, so it is noted until the domain has thawed."""
    domain.guest("echo 'rm /run/mood; sleep 6' >/run/mood")
    said = "^Domain shop does not resume: virsh did not end in 2 seconds; run virsh --connect qemu:///system domfsthaw shop.$"
    with monkeypatch.context() as patch:
        patch.setattr(runtimes, "PATIENCE", 1.5)
        with pytest.raises(SourceError, match=said):
            shop.create(quiesce="pause")
    assert len(noted()) == 1 and shop.found() == []
    quiesce.resume_left()
    assert not noted() and not domain.frozen()


def test_a_freeze_that_comes_after_its_limit(shop: Bench, domain: domains.Domain) -> None:
    """libvirt gives up where the domain has a limit for its agent, which freezes all the same."""
    domain.libvirt("guest-agent-timeout", "shop", "--timeout", "1")
    domain.guest("echo 'rm /run/mood; sleep 4' >/run/mood")
    try:
        time.sleep(0.5)
        with pytest.raises(SourceError, match="^Domain shop does not resume: error: Guest agent is not responding: .*; run virsh .* domfsthaw shop.$"):
            shop.create(quiesce="pause")
        assert len(noted()) == 1
    finally:
        domain.libvirt("guest-agent-timeout", "shop", "--timeout", "-2")
    domains.until(domain.frozen)
    quiesce.resume_left()
    assert not noted() and not domain.frozen()


@pytest.mark.parametrize("way", ["pause", "stop"])
@pytest.mark.costly
def test_what_a_killed_run_left_goes_on(shop: Bench, domain: domains.Domain, way: str) -> None:
    """Wherever it was killed, and at once, as the unit does it."""
    archive, programs = shop.top / "volt-backup", shop.top / "bin"
    archive.write_bytes(command())
    programs.mkdir()
    (programs / "virsh").symlink_to(shutil.which("virsh") or "")  # and no docker or podman
    places = ["--store", str(shop.store), "--backup-dir", str(shop.backups)]
    words = [sys.executable, str(archive), "create", "work", "--source", str(shop.source), "--quiesce", way, *places]
    steps = 100 if sample.LONG else 2
    for step in range(steps):
        environment = {**os.environ, "PATH": str(programs)}
        child = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        domains.until(lambda child=child: bool(noted()) or child.poll() is not None)
        time.sleep(sample.chance("kill", way, step).uniform(0, 0.4))
        child.send_signal(signal.SIGKILL)
        child.wait()
        quiesce.resume_left()
        assert not noted()
        domains.until(lambda: domain.state() == "running")  # a start may be under way that the killed run began
        domain.agent()
        assert not domain.frozen()
    assert shop.create(quiesce="pause").backup["complete"]


@pytest.mark.costly
def test_one_without_an_agent(shop: Bench, domain: domains.Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is suspended, and a warning says what that means. It ignores a shutdown; once it is off, it is started again."""
    domain.guest("touch /run/no-agent; kill $(pidof qemu-ga)")
    domain.agent(there=False)
    states = meanwhile(monkeypatch, domain.state)
    for _run in range(50 if sample.LONG else 2):
        made = shop.create(quiesce="pause")
        assert made.backup["quiesced"] == [{"runtime": "libvirt", "name": "shop", "way": "pause"}] and not made.backup["unstable"]
        (warning,) = made.warnings
        assert warning.startswith("Domain shop was suspended, because no guest agent is connected: in this backup, its disks are as after a power cut.")
        assert states.pop() == "paused" and domain.state() == "running"
        shop.restore(made.backup["id"], force=True)
        assert "needs_recovery" in features(shop.target / "shop.img") and sound(shop.target / "shop.img")
    monkeypatch.setattr(engine, "SHUTDOWN", 1.0)
    monkeypatch.setattr(engine, "LATER", 0.5)
    said = "^Domain shop does not resume: it was asked to shut down, and still runs; run virsh --connect qemu:///system start shop once it is shut off.$"
    with pytest.raises(SourceError, match=said):
        shop.create(quiesce="stop")
    was = domain.run()
    quiesce.resume_left()
    assert noted() and domain.run() == was
    domain.libvirt("destroy", "shop")  # as if it had shut down at last
    quiesce.resume_left()
    assert domain.state() == "running" and not noted()
    domain.agent()


@pytest.mark.costly
def test_a_transient_domain_is_not_stopped(shop: Bench, domain: domains.Domain) -> None:
    described = shop.top / "shop.xml"
    described.write_text(domain.libvirt("dumpxml", "shop", "--inactive"))
    domain.libvirt("undefine", "shop")
    try:
        with pytest.raises(SourceError, match="^Domain shop would be removed by libvirt when it stops; set `quiesce: pause`.$"):
            shop.create(quiesce="stop")
    finally:
        domain.libvirt("define", str(described))
    assert domain.state() == "running"
