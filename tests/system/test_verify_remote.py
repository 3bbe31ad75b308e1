# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The structure of copies on a remote: what is missing, altered, of another key or needed by nothing, by backup and path, without reading content."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import Verified, VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import Damaged, NotFound, RemoteError, UsageError
from ansible_collections.volt.backup.plugins.module_utils._remote import packs, sealed as sealed_keys
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote, Settings, Which
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.tests.rigs import need
from ansible_collections.volt.backup.tests.unit.kit import noise

from .test_push import HOST, Place, Tapped, change, made


class Judge:
    """A remote with three backups of one host, and what is said of it."""

    def __init__(self, place: Place) -> None:
        self.place, self.requests = place, []  # type: ignore[var-annotated]

    def __call__(self, *ids: str, host: str | None = None, limit: int = 1000) -> Verified:
        remote = Remote(self.place.bench.manager, Settings(f"file://{self.place.top}"))
        remote.transport = Tapped(str(self.place.top))
        self.requests = remote.transport.requests
        return remote.verify(VerifyRequest(ids=ids, diff_limit=limit), host)

    def objects(self, kind: str) -> list[Path]:
        return sorted((path for path in (self.place.top / kind).rglob("*") if path.is_file()), key=lambda path: path.name)

    def data(self) -> list[Path]:
        """Packs of content, the largest first."""
        found = [path for path in self.objects("packs") if "m-" not in path.name]
        return sorted(found, key=lambda path: path.stat().st_size, reverse=True)


@pytest.fixture
def judge(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Judge:
    need("zstd")
    monkeypatch.setattr(packs, "SIZE", 1 << 20)
    bench.files(small=b"hello\n", some__noise=noise(300_000), image=noise(9 << 20, 2))
    place = made(bench)
    for number in range(3):
        change(bench, number)
        place.push()
    return Judge(place)


def rot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    path.chmod(0o600)
    path.write_bytes(data)


def name(judge: Judge, path: Path) -> str:
    return str(path.relative_to(judge.place.top))


def test_what_is_whole(judge: Judge) -> None:
    found = judge()
    assert (found.damage, found.damaged, found.backup_count, found.unreferenced, found.warnings) == ([], [], 3, [], [])
    assert found.failure() is None and found.remote == f"file://{judge.place.top}"
    read = {name for verb, name in judge.requests if verb == "get" and name.startswith("packs/")}
    assert not read & {name(judge, path) for path in judge.data() if path.stat().st_size > 1 << 20}, "no content is fetched"
    assert judge(host=HOST).backup_count == 3


@pytest.mark.parametrize("harm", ["missing", "cut"])
def test_a_lost_pack_is_told_by_backup_and_path(judge: Judge, harm: str) -> None:
    lost = judge.data()[1]  # of the image alone
    os.chmod(lost, 0o600)
    lost.unlink() if harm == "missing" else lost.write_bytes(b"")
    found = judge()
    assert found.damage_count == len(found.damage) > 0 and {item["path"] for item in found.damage} == {"image"}
    assert all(name(judge, lost) in item["reason"] for item in found.damage) and len(found.damaged) == 3
    assert found.damaged == sorted({item["id"] for item in found.damage}) and all(backup.startswith(f"{HOST}/") for backup in found.damaged)
    failure = found.failure()
    assert isinstance(failure, Damaged) and "older version in its bucket" in failure.message
    assert len(judge(limit=1).damage) == 1
    assert judge(found.damaged[0]).backup_count == 1


def test_metadata_that_rots_costs_its_directory(judge: Judge) -> None:
    for pack in judge.objects("packs"):
        if "m-" in pack.name:
            rot(pack)
    found = judge()
    assert found.damaged and "altered" in found.damage[0]["reason"]


@pytest.mark.parametrize("kind", ["indexes", "commits"])
@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_objects_of_a_backup(judge: Judge, kind: str, harm: str) -> None:
    hurt = judge.objects(kind)[1]
    rot(hurt) if harm == "altered" else hurt.unlink()
    found = judge()
    if (kind, harm) == ("commits", "missing"):
        assert found.backup_count == 2 and "Commit 2 of host" in found.warnings[0]
        return
    (item,) = found.damage
    assert item["file"] == name(judge, hurt) and item["path"] is None
    if kind == "indexes":
        assert item["id"] is None and harm in item["reason"] and found.damaged == []
    else:
        assert found.damaged == [item["id"]] == [str(hurt.relative_to(judge.place.top / "commits"))] and found.backup_count == 3


def test_what_no_backup_needs(judge: Judge) -> None:
    """What a push that was cut off left is told, and what one that is under way has sent is not."""
    sent = judge.objects("packs")[0]
    push = sent.parent.name
    cut = push[:-16] + "0" * 16
    left = []
    for path in (sent, *(path for path in judge.objects("indexes") if path.name.startswith(push))):
        copy = Path(str(path).replace(push, cut))
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
        left.append(name(judge, copy))
    found = judge()
    assert found.unreferenced == sorted(left) and found.unreferenced_count == len(left) >= 2 and found.warnings == []
    assert found.failure() is None and judge(limit=1).unreferenced == sorted(left)[:1]
    intent = judge.place.top / "intents" / HOST / cut
    intent.parent.mkdir(parents=True, exist_ok=True)
    intent.write_bytes(b"")
    assert judge().unreferenced == []


@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_a_lost_commit_needs_is_not_called_unneeded(judge: Judge, which: int) -> None:
    lost = judge.objects("commits")[which]
    lost.unlink()
    found = judge()
    assert found.unreferenced == [] and found.backup_count == 2 and len(found.warnings) == 1
    assert lost.name in found.warnings[0] if which == 2 else f"Commit {which + 1} of host" in found.warnings[0]


def test_altered_packs_are_not_taken_for_a_newer_version(judge: Judge) -> None:
    """Also where their heads alone say what they have."""
    judge.objects("indexes")[0].unlink()
    for path in judge.objects("packs"):
        data = bytearray(path.read_bytes())
        data[7] ^= 8
        path.chmod(0o600)
        path.write_bytes(data)
    found = judge()
    assert found.unsupported == [] and len(found.damaged) == 3


def test_a_blob_that_a_second_pack_has_is_not_lost(judge: Judge) -> None:
    """A push that forgot what the remote has sent all of it again."""
    for path in (judge.place.bench.store / "cache").glob("remote-*"):
        path.unlink()
    first = judge.data()
    for path in judge.objects("indexes"):
        path.unlink()
    change(judge.place.bench, 7)
    judge.place.push()
    again = [path for path in judge.data() if path not in first]
    assert sum(path.stat().st_size for path in again) > 9 << 20
    found = judge()
    assert found.damaged == [] and {item["file"].partition("/")[0] for item in found.damage} == {"indexes"}
    first[1].unlink()  # of the image alone
    assert judge().damaged == []


def test_ids_and_hosts(judge: Judge) -> None:
    backup = judge().damaged or [copy["id"] for copy in judge.place.bench.manager.find(_all())]
    assert judge(backup[0]).backup_count == 1 == judge(f"{HOST}/{backup[0]}").backup_count
    with pytest.raises(NotFound, match="has no backup"):
        judge("work-20200101-000000-manual")
    with pytest.raises(UsageError, match="one host"):
        judge(f"a/{backup[0]}", f"b/{backup[0]}")
    with pytest.raises(NotFound, match=f"has no copies of host web2-00000000; it has those of {HOST}; set `host` to one of them"):
        judge(host="web2-00000000")
    with pytest.raises(UsageError, match="omit `level` and `budget`"):
        Remote(judge.place.bench.manager, Settings(f"file://{judge.place.top}")).verify(VerifyRequest(budget="5%"))
    assert cli.main(["verify", "--store", str(judge.place.bench.store), "--backup-dir", str(judge.place.bench.backups), "--host", "web1"]) == 2


def _all() -> Any:
    from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query

    return Query()


def test_what_is_of_another_key(judge: Judge, tmp_path: Path, capsys: Any) -> None:
    need("age")
    recovery, other = sealed_keys.new_recovery(), sealed_keys.new_recovery()
    (tmp_path / "keys").write_text(recovery.of_host("web1").text())
    sealed_keys.write(str(tmp_path / "recovery"), recovery.text())
    top = tmp_path / "sealed"
    top.mkdir()
    remote = Remote(judge.place.bench.manager, Settings(f"file://{top}", keys=str(tmp_path / "keys")))
    remote.begin()
    remote.push(Which())
    settings = Settings(f"file://{top}")
    assert Remote(judge.place.bench.manager, settings, recovery).verify(VerifyRequest()).backup_count == 3
    with pytest.raises(RemoteError, match="another recovery key"):
        Remote(judge.place.bench.manager, settings, other).verify(VerifyRequest())
    with pytest.raises(UsageError, match="recovery key"):
        Remote(judge.place.bench.manager, settings._replace(keys=str(tmp_path / "keys"))).verify(VerifyRequest())
    commit = sorted(path for path in (top / "commits").rglob("*") if path.is_file())[1]
    text = commit.read_bytes()
    at = text.index(b',"mac":"') + 8
    commit.chmod(0o600)
    commit.write_bytes(text[:at] + (b"0" * 64) + text[at + 64 :])
    found = Remote(judge.place.bench.manager, settings, recovery).verify(VerifyRequest())
    assert found.damaged == [f"web1/{commit.name}"] and "signature" in found.damage[0]["reason"]
    assert cli.main(["verify", "--remote", f"file://{top}", "--host", "web1", "--identity", str(tmp_path / "recovery")]) == 1
    assert "signature of its host" in "".join(capsys.readouterr())


def test_the_command_needs_no_store(judge: Judge, tmp_path: Path, capsys: Any) -> None:
    shutil.rmtree(judge.place.bench.store)
    where = ["--remote", f"file://{judge.place.top}", "--host", HOST]
    assert cli.main(["verify", *where, "--store", str(tmp_path / "none"), "--backup-dir", str(tmp_path / "none-either")]) == 0
    assert "3" in capsys.readouterr().out
    assert cli.main(["verify", *where, "--content"]) == 2
