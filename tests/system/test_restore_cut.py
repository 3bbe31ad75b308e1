# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores from a remote that are killed at a request on S3, whose remote goes away for a day, or whose target or host is another than the backup knew."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import NoRemote, RemoteUnreachable, TargetFull, VoltError
from ansible_collections.volt.backup.plugins.module_utils._fs import metadata
from ansible_collections.volt.backup.plugins.module_utils._remote import age, packs, s3, s3_client, sealed as sealed_keys
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote, Settings, Which
from ansible_collections.volt.backup.plugins.module_utils._restore import spool
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.tests.rigs import http_faults, mounts, need, oracle, s3_servers, sample
from ansible_collections.volt.backup.tests.unit.kit import noise

from .test_push import HOST, Place, made
from .test_restore_remote import WORK, Elsewhere

JOBS = 4


@pytest.fixture
def place(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Place:
    need("zstd")
    monkeypatch.setattr(packs, "SIZE", 1 << 20)  # so that there are several packs
    bench.files(
        small=b"hello\n", some__noise=noise(300_000), other__text=b"text\n" * 40_000, **{f"image{number}": noise(900_000, number) for number in range(7)}
    )
    os.link(bench.source / "small", bench.source / "some/linked")
    return made(bench)


class Counting(http_faults.Proxy):
    """Counts the bytes of packs that are sent, also those that do not arrive."""

    passed = 0
    _count = threading.Lock()

    def forward(self, request: http_faults.Request) -> tuple[int, list[tuple[str, str]], bytes]:
        answer = super().forward(request)
        if request.method == "GET" and "/packs/" in request.path:
            with self._count:
                self.passed += len(answer[2])
        return answer


class Far:
    """A remote on S3 behind a proxy, and a host that restores from it by the command."""

    def __init__(self, place: Place, proxy: Counting, server: s3_servers.Server) -> None:
        self.place, self.proxy, self.keys = place, proxy, server.keys["owner"]
        self.url = f"s3://cut/web?endpoint={proxy.endpoint}"
        self.target = place.bench.top / "new"
        remote = Remote(place.bench.manager, Settings(self.url, HOST, JOBS, credentials=self.keys))
        remote.begin()
        place.create()
        remote.push(Which())
        self.largest = max(entry.size for entry in s3.S3(s3_client.parse_url(self.url), self.keys).list("packs/"))

    def start(self) -> subprocess.Popen[bytes]:
        nothing = str(self.place.bench.top / "none")
        program = "from ansible_collections.volt.backup.plugins.module_utils._runner import cli; import sys; sys.exit(cli.main(sys.argv[1:]))"
        words = ["restore", f"{HOST}/work", "--remote", self.url, "--target", str(self.target), "--store", nothing, "--backup-dir", nothing, "--quiet"]
        keys = dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), self.keys.values()))
        return subprocess.Popen([sys.executable, "-c", program, *words], env={**os.environ, **keys, "AWS_EC2_METADATA_DISABLED": "true"})

    def restore(self) -> tuple[int, int]:
        """One that nothing disturbs: requests, and bytes of packs."""
        self.proxy.plan, self.proxy.passed = http_faults.nothing, 0
        self.proxy.seen.clear()
        assert self.start().wait(120) == 0
        assert oracle.differences(self.place.bench.source, self.target) == []
        assert [name for name in os.listdir(self.place.bench.top) if ".volt-" in name] == []
        shutil.rmtree(self.target)
        return len(self.proxy.seen), self.proxy.passed

    def killed(self, number: int, late: bool) -> int:
        """One that is killed at a request, before the server has it or before the answer comes; the bytes of packs."""
        started, ended = threading.Event(), threading.Event()
        process: list[subprocess.Popen[bytes]] = []
        counted = iter(range(1 << 30))

        def plan(_request: http_faults.Request) -> http_faults.Fault | None:
            now = next(counted)
            if now == number:
                started.wait()
                process[0].kill()
                ended.set()
            return (http_faults.Lost() if late else http_faults.Refused()) if now >= number else None

        self.proxy.plan, self.proxy.passed = plan, 0
        process.append(self.start())
        started.set()
        process[0].wait(120)
        assert ended.is_set(), "it was killed at that request"
        return self.proxy.passed


@pytest.fixture(scope="module")
def server() -> Iterator[s3_servers.Server]:
    with s3_servers.moto() as server:
        server.make_bucket("cut")
        yield server


@pytest.fixture
def far(place: Place, server: s3_servers.Server) -> Iterator[Far]:
    with Counting(server.endpoint) as proxy:
        yield Far(place, proxy, server)
    owner = s3.S3(s3_client.parse_url(f"s3://cut/web?endpoint={server.endpoint}"), server.keys["owner"])
    owner.delete([entry.name for entry in owner.list("")])


def test_killed_at_a_request(far: Far) -> None:
    """Then again: the target is right, and no more is fetched twice than the packs that were being fetched."""
    requests, whole = far.restore()
    for number, late in sample.some([(number, late) for number in range(requests) for late in (False, True)], 3, "killed restores on S3"):
        before = far.killed(number, late)
        assert not far.target.exists()
        _requests, after = far.restore()
        assert before + after - whole <= JOBS * far.largest, (number, late, before, after, whole)


def test_gone_for_a_day(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half way, the server does not answer any more. The restore says so and ends; on the next day it goes on."""
    _requests, whole = far.restore()
    monkeypatch.setattr(s3, "_WAIT", 0.02)
    lock, fetches = threading.Lock(), iter(range(1 << 30))
    away = threading.Event()

    def plan(request: http_faults.Request) -> http_faults.Fault | None:
        with lock:
            if "/packs/" in request.path and request.method == "GET" and next(fetches) == 4:
                away.set()
        return http_faults.Refused() if away.is_set() else None

    nothing = str(far.place.bench.top / "none")
    remote = Remote(Manager(nothing, nothing, 5), Settings(far.url, credentials=far.keys))
    remote.transport._patience = 1.0
    far.proxy.plan, far.proxy.passed = plan, 0
    with pytest.raises(RemoteUnreachable):
        remote.restore(WORK, RestoreRequest(str(far.target)))
    before = far.proxy.passed
    assert not far.target.exists()
    _requests, after = far.restore()
    assert 0 < before and before + after - whole <= JOBS * far.largest


def test_a_mount_that_goes_away(place: Place) -> None:
    """The NAS is gone half way: said, the target is as it was, and the next restore goes on."""
    place.create()
    place.push()
    elsewhere = Elsewhere(place)
    elsewhere.restore()
    shutil.rmtree(elsewhere.target)
    elsewhere.cut = len(elsewhere.requests) - 3
    away = place.top.with_name("away")

    def go() -> None:
        place.top.rename(away)

    elsewhere.stop = go
    with pytest.raises(NoRemote):
        elsewhere.restore()
    assert not elsewhere.target.exists() and not place.top.exists()
    elsewhere.cut = None
    away.rename(place.top)
    elsewhere.restore()
    assert oracle.differences(place.bench.source, elsewhere.target) == [] and elsewhere.debris() == []


@pytest.mark.parametrize("strategy", ["replace", "in_place"])
def test_a_target_without_space(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    """What was there is there still; with more space, the same command ends it. What is fetched takes no space that the restore needs."""
    monkeypatch.setattr(spool, "_SPARE", 1 << 20)
    place.create()
    place.push()
    with mounts.mount("ext4", tmp_path, 24 << 20) as where:
        elsewhere = Elsewhere(place)
        elsewhere.target = where / "app"
        elsewhere.target.mkdir()
        (elsewhere.target / "mine").write_bytes(b"mine")
        (where / "ballast").write_bytes(bytes(17 << 20))
        with pytest.raises(TargetFull, match="file system is full"):
            elsewhere.restore(force=True, strategy=strategy)
        assert (elsewhere.target / "mine").read_bytes() == b"mine"
        (where / "ballast").unlink()
        elsewhere.restore(force=True, strategy=strategy, delete=strategy == "in_place")
        assert oracle.differences(place.bench.source, elsewhere.target) == []
        assert sorted(os.listdir(where)) == ["app", "lost+found"]


def test_a_target_that_keeps_no_attributes(place: Place, tmp_path: Path) -> None:
    """A ramfs knows no extended attributes, so no ACLs and no capabilities: the content is right, and each path is told; `strict` refuses."""
    need("setfacl", "setcap", root=True)
    bench = place.bench
    subprocess.run(["setfacl", "-m", "u:daemon:rw", bench.source / "small"], check=True)
    subprocess.run(["setcap", "cap_net_raw=ep", bench.source / "image1"], check=True)
    os.setxattr(bench.source / "image2", "user.note", b"x")
    place.create()
    place.push()
    elsewhere = Elsewhere(place)
    where = tmp_path / "ramfs"
    where.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", where], check=True)
    try:
        elsewhere.target = where / "app"
        done = elsewhere.restore()
        assert any("were restored without some attributes" in text for text in done.warnings)
        files = {path.relative_to(bench.source): path for path in bench.source.rglob("*") if path.is_file()}
        assert all((elsewhere.target / name).read_bytes() == path.read_bytes() for name, path in files.items())
        elsewhere.target = where / "strict"
        with pytest.raises(VoltError, match="attributes"):
            elsewhere.restore(attributes="strict")
    finally:
        subprocess.run(["umount", where], check=True)


def test_a_host_with_other_users(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners follow their names, or with `numeric_owner` their numbers."""
    need("chown", root=True)
    daemon = pwd.getpwnam("daemon").pw_uid
    os.chown(place.bench.source / "small", daemon, 0)
    place.create()
    place.push()
    real = metadata._lookup
    monkeypatch.setattr(metadata, "_lookup", lambda find, name, number: 4001 if name == "daemon" else real(find, name, number))
    elsewhere = Elsewhere(place)
    elsewhere.restore()
    assert (elsewhere.target / "small").stat().st_uid == 4001
    shutil.rmtree(elsewhere.target)
    elsewhere.restore(numeric_owner=True)
    assert (elsewhere.target / "small").stat().st_uid == daemon


@pytest.mark.parametrize("lost", [["data"], ["catalog"], ["data", "catalog"]], ids="+".join)
def test_a_recovery_key_that_lost_an_identity(place: Place, tmp_path: Path, lost: list[str]) -> None:
    """Of its two, one is another one, or both are: refused with a sentence before anything is written."""
    need("age")
    recovery = sealed_keys.new_recovery()
    (tmp_path / "web1").write_text(recovery.of_host("web1").text(), encoding="utf-8")
    there = Place(place.bench, tmp_path / "sealed")
    there.top.mkdir()
    settings = Settings(f"file://{there.top}", keys=str(tmp_path / "web1"))
    Remote(place.bench.manager, settings).begin()
    place.create()
    Remote(place.bench.manager, settings).push(Which())
    maimed = recovery._replace(**{name: age.new_identity() for name in lost})
    elsewhere = Elsewhere(there, Settings(settings.url), maimed)
    with pytest.raises(VoltError) as caught:
        elsewhere.restore()
    said = [caught.value.message, *(item["reason"] for item in caught.value.details.get("skipped", []))]
    assert any("not for this identity" in text for text in said), said
    assert not elsewhere.target.exists()
    listed, _warnings = Remote(Manager("/nonexistent", "/nonexistent"), Settings(settings.url), maimed).find(Query())
    assert [item["damaged"] for item in listed] == ["catalog" in lost]
    Elsewhere(there, Settings(settings.url), recovery).restore()
    assert oracle.differences(place.bench.source, elsewhere.target) == []
