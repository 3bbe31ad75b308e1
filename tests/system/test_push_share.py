# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that share: what one has sent is not sent by another. The judge is a reader that was written from the format's document alone."""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import Verified, VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import RemoteError, RemoteRefused, UsageError, VoltError, now
from ansible_collections.volt.backup.plugins.module_utils._remote import (
    commits,
    indexes,
    names,
    packs,
    push as pushes,
    sealed as sealed_keys,
    shared,
    upload,
    vetting,
)
from ansible_collections.volt.backup.plugins.module_utils._remote.keys import Keys
from ansible_collections.volt.backup.plugins.module_utils._remote.memory import Memory
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Meant, Remote, Settings, Which
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.tests.rigs import need, oracle
from ansible_collections.volt.backup.tests.unit._remote.independent_reader import RemoteReader
from ansible_collections.volt.backup.tests.unit.kit import noise

from .test_push import Place, Tapped, made


@pytest.fixture
def place(bench: Any) -> Place:
    need("zstd")
    bench.files(small=b"hello\n", some__noise=noise(300_000), some__more=noise(90_000, 1), image=noise(3 << 20, 2))
    return made(bench)


class Peer:
    """Another host: a store of its own, with a backup of the same source."""

    def __init__(self, place: Place, name: str, **settings: Any) -> None:
        self.place, self.name, self.top = place, name, place.bench.top / name
        self.settings = Settings(f"file://{place.top}", name, 1, **{"share": "domain", **settings})
        self.manager = Manager(str(self.top / "cas"), str(self.top / "backups"), 5)
        self.back_up()

    def back_up(self) -> None:
        self.manager.create(CreateRequest("work", str(self.place.bench.source), compression="zlib"))

    def remote(self) -> Remote:
        remote = Remote(self.manager, self.settings)
        remote.transport = Tapped(str(self.place.top))
        return remote

    def push(self) -> int:
        """How many bytes of packs it sends."""
        return sum(pushed.sent_bytes for _sidecar, pushed in self.remote().push(Which()) if pushed is not None)

    def restored(self, target: Path) -> list[str]:
        """What a restore from the remote alone does not give back."""
        remote = Remote(Manager(str(self.top / "empty"), str(self.top / "none")), self.settings)
        remote.restore(Meant(self.name, workload="work"), RestoreRequest(str(target)), alone=True)
        return oracle.differences(self.place.bench.source, target)

    def sound(self) -> bool:
        """Whether all that its copies need is there, and nothing counts as unreferenced."""
        found = self.remote().verify(VerifyRequest(level="structure"))
        assert found.warnings == [] and found.unreferenced == []
        return found.damage_count == 0 and found.backup_count > 0


def change(place: Place, number: int) -> None:
    place.bench.files(**{f"new{number}": noise(200_000, number)})


def readable(place: Place, count: int) -> None:
    reader = RemoteReader(place.top)
    assert len([reader.read(name) for name in reader.commits()]) == count


def test_content_is_sent_by_one_host(place: Place, tmp_path: Path) -> None:
    first, second, third, apart = (Peer(place, name) for name in ("web1", "web2", "web3", "apart"))
    apart.settings = apart.settings._replace(share="host")
    assert first.push() > 3 << 20
    assert second.push() == 0, "a backup of what is there needs no pack"
    change(place, 10)
    for peer in (second, third):
        peer.back_up()
    assert 200_000 < second.push() < 300_000 and third.push() < 2000, "its own tree has other times"
    assert apart.push() > 3 << 20, "hosts share only where that is declared"
    readable(place, 6)
    for peer in (second, third):
        assert peer.restored(tmp_path / f"back-{peer.name}") == []
    for peer in (first, second, third, apart):
        assert peer.sound()


def test_a_host_without_its_cache_knows_what_it_uses(place: Place) -> None:
    first, second = Peer(place, "web1"), Peer(place, "web2")
    first.push()
    second.push()
    for path in (second.top / "cas" / "cache").glob("remote-*"):
        path.unlink()
    change(place, 11)
    second.back_up()
    assert 200_000 < second.push() < 300_000
    readable(place, 3)


def test_indexes_are_read_once(place: Place) -> None:
    first, second = Peer(place, "web1"), Peer(place, "web2")
    first.push()
    second.push()
    change(place, 12)
    second.back_up()
    remote = second.remote()
    remote.push(Which())
    foreign = [request for request in remote.transport.requests if request[0] == "get" and "/web1/" in request[1]]
    assert foreign == [] and len(remote.transport.requests) <= 14, remote.transport.requests


def test_a_pack_that_is_gone_is_sent(place: Place) -> None:
    first, second = Peer(place, "web1"), Peer(place, "web2")
    first.push()
    for path in (place.top / "packs" / "web1").rglob("00000-*"):
        path.unlink()
    assert second.push() > 3 << 20
    assert second.sound()


def test_what_other_hosts_write_wrong_costs_sharing_alone(place: Place) -> None:
    first, second, third, fourth, fifth = (Peer(place, f"web{number}") for number in range(1, 6))
    first.push()
    (index,) = (place.top / "indexes" / "web1").iterdir()
    good = index.read_bytes()
    other = names.new_push("web0", names.moment("20260101T000000Z-0000000000000000"))
    stray = names.Pack(other, 0, False, "0" * 64)
    samples = indexes.encode(other, 0, [(stray, indexes.LINE.pack(0, bytes(range(32)), 5))], lambda body: body, 0)
    for peer, data in ((second, b""), (third, b"VOLTRIX9" + good[8:]), (fourth, good[:-100]), (fifth, samples)):
        index.write_bytes(data)
        assert peer.push() >= 0 and peer.sound()
        index.write_bytes(good)
    assert first.sound()


def test_an_index_that_lies_is_not_believed(place: Place) -> None:
    """Its samples say that a pack has blobs, and the list of the pack has others."""
    first, second = Peer(place, "web1"), Peer(place, "web2")
    first.push()
    (index,) = (place.top / "indexes" / "web1").iterdir()
    data = index.read_bytes()
    head = indexes.parse_head(data)
    end = head.first_sample + head.samples * indexes.SAMPLE_SIZE
    lists = b"".join(indexes.LINE.pack(0, os.urandom(32), 10) for _number in range((len(data) - end) // indexes.LINE.size))
    index.write_bytes(data[:end] + lists)
    assert second.push() > 3 << 20
    assert second.sound()


def test_packs_of_a_push_that_was_never_committed(place: Place) -> None:
    """Another host uses them, so they are not unreferenced. The rest of that push is."""
    place.bench.files(**{f"part{number}": noise(9 << 20, 20 + number) for number in range(6)})
    first, second = Peer(place, "web1"), Peer(place, "web2")
    remote = first.remote()
    create = remote.transport.create

    def stop(name: str, data: bytes) -> bool:
        if name.startswith(names.COMMITS):
            raise RemoteError("stopped")
        return bool(create(name, data))

    remote.transport.create = stop  # type: ignore[method-assign]
    with pytest.raises(RemoteError, match="stopped"):
        remote.push(Which())
    for number in range(4):
        (place.bench.source / f"part{number}").unlink()
    second.manager.create(CreateRequest("less", str(place.bench.source), compression="zlib"))
    ((_sidecar, pushed),) = second.remote().push(Which(workload="less"))
    assert pushed is not None and pushed.sent_bytes < 10_000
    for path in (*(place.top / "intents").rglob("*Z-*"), *(first.top / "cas" / "cache").glob("remote-*")):
        path.unlink()
    place.bench.files(**{"part0": noise(100, 1)})
    first.manager.create(CreateRequest("new", str(place.bench.source), compression="zlib"))
    time.sleep(1.1)  # names of pushes have seconds, and a later one is what shows that the first has ended
    apart = first.remote()
    apart._settings = apart._settings._replace(share="host")
    apart.push(Which(workload="new"))
    found = first.remote().verify(VerifyRequest(level="structure"))
    used = {pack for name in RemoteReader(place.top).commits() if "/web2/" in name for pack in packs_of(place, name)}
    assert found.warnings == [] and used and not used & set(found.unreferenced)
    assert any(name.startswith("packs/") for name in found.unreferenced), "the pack of the files that the second host does not have"
    assert second.sound()


def packs_of(place: Place, commit: str) -> set[str]:
    """The packs that a commit needs."""
    read = commits.parse(commit, (place.top / commit).read_bytes())
    assert read is not None
    packs = (names.parse_pack(str(path.relative_to(place.top))) for path in (place.top / "packs").rglob("*") if path.is_file())
    return {pack.name for pack in packs if pack is not None and pack.number in read.commit.needs.get(pack.push, ())}


def test_hosts_at_once(place: Place) -> None:
    """Equal hosts begin together: each looks at what the others have, after each pack."""
    place.bench.files(**{f"part{number}": noise(9 << 20, 20 + number) for number in range(8)})
    peers = [Peer(place, f"web{number}") for number in range(4)]
    children = []
    for peer in peers:
        child = os.fork()
        if not child:
            status = 1
            try:
                peer.push()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    readable(place, 4)
    stored, one = sum(place.packs().values()), 75 << 20
    assert stored < 2 * one, f"{stored / one:.2f} times what one host needs"
    for peer in peers:
        assert peer.sound()


def test_more_samples_than_are_remembered(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.bench.files(**{f"tiny{number}": b"%d" % number for number in range(500)})
    first, second = Peer(place, "web1"), Peer(place, "web2")
    first.push()
    monkeypatch.setattr(shared, "MOST", 100)
    assert second.push() < 100_000, "what is not remembered is in the lists of packs, except for the few blobs of a pack without any that is"
    readable(place, 2)


def test_in_a_crowd_all_indexes_are_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushes, "INDEXES_MOST", 4)
    monkeypatch.setattr(upload, "_IN_A_CROWD", 100_000)
    place.bench.files(**{f"part{number}": noise(150_000, 30 + number) for number in range(60)})
    peer = Peer(place, "web1")
    remote = peer.remote()
    remote.transport.create(names.new_push("web2", now()).intent, b"{}")
    remote.push(Which())
    (commit,) = RemoteReader(place.top).commits()
    named = RemoteReader(place.top).commit(commit)[0]["indexes"]
    assert 8 < len(named) < 40 and len(named) == len(list((place.top / "indexes" / "web1").iterdir()))
    assert peer.sound()


def test_an_old_intent_is_of_no_push(place: Place) -> None:
    peer = Peer(place, "web1")
    remote = peer.remote()
    looking = shared.Shared(remote.transport, Keys(), "web1", Memory(peer.manager.copies.store, "0" * 32, "web1"))
    assert not looking.is_crowded
    for age, crowded in ((2, False), (0, True)):
        push = names.new_push("web2", now() - datetime.timedelta(days=age))
        remote.transport.create(push.intent, b"{}")
        assert looking.is_crowded == crowded


def test_sealed_hosts_share(place: Place, tmp_path: Path) -> None:
    need("age")
    recovery = sealed_keys.new_recovery()
    sealed_keys.write(str(tmp_path / "recovery.key"), recovery.text())
    sealed = Place(place.bench, tmp_path / "sealed")
    sealed.top.mkdir()
    peers = []
    for name in ("web1", "web2"):
        sealed_keys.write(str(tmp_path / f"{name}.key"), recovery.of_host(name).text())
        peers.append(Peer(sealed, name, keys=str(tmp_path / f"{name}.key")))
    peers[0].remote().begin()
    assert peers[0].push() > 3 << 20 and peers[1].push() == 0
    reader = RemoteReader(sealed.top, tmp_path / "recovery.key")
    assert len([reader.read(name) for name in reader.commits()]) == 2


def test_a_push_after_one_that_only_used_what_others_have(place: Place) -> None:
    """The index of a host that only borrows has no samples: it is learned all the same."""
    first, second, third = (Peer(place, f"web{number}") for number in range(1, 4))
    for peer in (first, second, third):
        peer.push()
    change(place, 13)
    second.back_up()
    assert 200_000 < second.push() < 300_000
    assert not (place.top / "intents").is_dir() or not [path for path in (place.top / "intents").rglob("*") if path.is_file()]
    assert second.sound()


def test_rights_to_read_the_commits_of_others_are_not_needed(place: Place) -> None:
    first, second = Peer(place, "web1"), Peer(place, "web2")
    first.push()
    second.push()
    stray = names.Pack(names.new_push("web1", names.moment("20260101T000000Z-0000000000000000")), 0, False, "0" * 64)
    (place.top / stray.name).parent.mkdir(parents=True)
    (place.top / stray.name).write_bytes(b"rest")
    remote = first.remote()
    get = remote.transport.get

    def refuse(name: str, *words: Any) -> Any:
        if name.startswith(f"{names.COMMITS}web2/"):
            raise RemoteRefused("refused")
        return get(name, *words)

    assert first.remote().verify(VerifyRequest(level="structure")).unreferenced == [stray.name]
    remote.transport.get = refuse  # type: ignore[method-assign]
    found = remote.verify(VerifyRequest(level="structure"))
    assert found.damage_count == 0 and found.unreferenced == [], "another host may need it"


def test_a_pack_that_is_dead_is_learned_anew(place: Place) -> None:
    first, second, third = (Peer(place, f"web{number}") for number in range(1, 4))
    third.settings = third.settings._replace(share="host")
    first.push()
    second.push()
    dead = [str(path.relative_to(place.top / "packs")) for path in (place.top / "packs" / "web1").rglob("*") if path.is_file()]
    (place.top / "tombstones").mkdir()
    (place.top / "tombstones" / "0001").write_text("\n".join(['{"tombstones":1}', *dead, ""]), encoding="ascii")
    third.push()
    change(place, 14)
    second.back_up()
    assert second.push() < 300_000, "the third host has all that the first one had"
    readable(place, 4)


class Vetter:
    """The controller: it has the recovery key if there is one, and no store."""

    def __init__(self, place: Place, recovery: sealed_keys.Recovery | None = None) -> None:
        self.place, self._recovery = place, recovery

    def __call__(self, dry: bool = False, **request: Any) -> Verified:
        manager = Manager(str(self.place.top / "none"), str(self.place.top / "none"))
        return Remote(manager, Settings(f"file://{self.place.top}"), self._recovery).verify(VerifyRequest(vet=True, **request), dry=dry)

    def lists(self) -> list[Path]:
        return sorted((self.place.top / "vetted").iterdir()) if (self.place.top / "vetted").is_dir() else []


def test_packs_are_used_once_they_were_vetted(place: Place, tmp_path: Path) -> None:
    first, second, third = Peer(place, "web1"), Peer(place, "web2", vetted=True), Peer(place, "web3", vetted=True)
    vet = Vetter(place)
    first.push()
    assert second.push() > 3 << 20, "nothing was vetted"
    dry = vet(dry=True)
    assert dry.changed and dry.vetted == {"packs": len(place.packs()), "before": 0} and vet.lists() == []
    found = vet()
    assert found._replace(damage=[]) == dry._replace(damage=[]) and found.failure() is None and len(vet.lists()) == 1
    assert (found.file_count, found.byte_count) == (len(place.packs()), sum(place.packs().values()))
    assert third.push() == 0
    again = vet()
    assert not again.changed and again.vetted == {"packs": 0, "before": len(place.packs())} and len(vet.lists()) == 1
    change(place, 15)
    for peer in (first, third):
        peer.back_up()
    first.push()
    assert third.push() > 200_000, "what came since was not vetted"
    assert vet().vetted == {"packs": 2, "before": found.file_count}
    change(place, 16)
    second.back_up()
    assert 200_000 < second.push() < 300_000, "of what is new, the others have one part"
    third.back_up()
    third.push()
    assert second.restored(tmp_path / "back2") == [] and third.restored(tmp_path / "back3") == []
    for peer in (first, second, third):
        assert peer.sound()


def test_what_a_stolen_host_sends_is_not_used(place: Place, tmp_path: Path) -> None:
    """A pack with other bytes than it says, and an index that says more of a pack than is in it; a host that trusts the others is harmed by both."""
    honest = Peer(place, "web1")
    honest.push()
    (index,) = (place.top / "indexes" / "web1").iterdir()
    lists = [(pack, body) for pack, body in indexes.parse(index.read_bytes()) if not pack.metadata]
    lines = b"".join(body for _pack, body in lists)
    for path in (index, *(path for path in (place.top / "packs" / "web1").rglob("*") if path.is_file())):
        path.unlink()
    thief = names.new_push("web0", now())
    blobs = [(digest, length) for _segment, digest, length in indexes.LINE.iter_unpack(lines)]
    rubbish = packs.Builder(packs.CONTENT)
    stored = b"".join(bytes(length) for _digest, length in blobs)
    rubbish.add(packs.Segment(stored, "", len(stored), packs.BLOBS, blobs))
    small = packs.Builder(packs.CONTENT)
    small.add(packs.Segment(b"x", "", 1, packs.BLOBS, [(hashlib.sha256(b"x").digest(), 1)]))
    remote = honest.remote()
    false = []
    for number, data in enumerate((rubbish.finish(), small.finish())):
        pack = names.Pack(thief, number, False, hashlib.sha256(data).hexdigest())
        remote.transport.create(pack.name, data)
        false.append((pack, b"".join(indexes.LINE.pack(0, *blob) for blob in blobs)))
    vet = Vetter(place)
    found = vet()
    assert [item["file"] for item in found.damage] == [false[0][0].name] and found.vetted == {"packs": 1, "before": 0}
    assert str(found.failure()).startswith("Packs of the remote are damaged, and were not vetted (1 in all, first packs/web0/")
    for number, item in enumerate(false):
        name = thief.index_name(number)
        remote.transport.create(name, indexes.encode(thief, number, [item], lambda body: body, 0))
        wary, trusting = Peer(place, f"wary{number}", vetted=True), Peer(place, f"trusting{number}")
        assert wary.push() > 3 << 20 and wary.restored(tmp_path / f"of-wary{number}") == []
        for path in [*(place.top / "indexes").glob("wary*"), *(place.top / "packs").glob("wary*"), *(place.top / "commits").glob("wary*")]:
            shutil.rmtree(path)
        assert trusting.push() < 100_000
        with pytest.raises(VoltError):
            trusting.restored(tmp_path / f"of-trusting{number}")
        (place.top / name).unlink()
        for kind in ("indexes", "packs", "commits"):
            shutil.rmtree(place.top / kind / trusting.name)


def test_a_list_of_vetted_packs_that_is_none(place: Place) -> None:
    first, vet = Peer(place, "web1"), Vetter(place)
    first.push()
    vet()
    (good,) = vet.lists()
    for number, text in enumerate(("", "{", "[]", '{"vetted": 2}\n', '{"vetted": 1}\n\nx\n')):
        good.with_name(f"20990101T000000Z-{number:016x}").write_text(text)
    assert Peer(place, "web2", vetted=True).push() == 0
    good.unlink()
    assert Peer(place, "web3", vetted=True).push() > 3 << 20
    assert vet().vetted == {"packs": len(place.packs()), "before": 0}


def test_sealed_packs_are_vetted_with_the_recovery_key(place: Place, tmp_path: Path) -> None:
    recovery = sealed_keys.new_recovery()
    sealed = Place(place.bench, tmp_path / "sealed")
    sealed.top.mkdir()
    peers = []
    for name in ("web1", "web2"):
        sealed_keys.write(str(tmp_path / f"{name}.key"), recovery.of_host(name).text())
        peers.append(Peer(sealed, name, keys=str(tmp_path / f"{name}.key"), vetted=True))
    peers[0].remote().begin()
    peers[0].push()
    with pytest.raises(RemoteError, match="is sealed, and no key was given; set `keys`, or `identity`"):
        Vetter(sealed)()
    with pytest.raises(UsageError, match="recovery key"):
        peers[0].remote().verify(VerifyRequest(vet=True))
    assert Vetter(sealed, recovery)().vetted == {"packs": len(sealed.packs()), "before": 0}
    assert peers[1].push() == 0


def test_vetting_that_is_cut_off_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.bench.files(**{f"part{number}": noise(9 << 20, 20 + number) for number in range(6)})
    Peer(place, "web1").push()
    monkeypatch.setattr(vetting, "_PART", 1)
    judge, judged = vetting.Vetting._judge, []

    def fail(self: vetting.Vetting, pack: names.Pack) -> Any:
        judged.append(pack)
        if len(judged) == 3:
            raise RemoteError("cut off")
        return judge(self, pack)

    monkeypatch.setattr(vetting.Vetting, "_judge", fail)
    vet = Vetter(place)
    with pytest.raises(RemoteError, match="cut off"):
        vet()
    assert 0 < len(vet.lists()) < len(place.packs())
    before = len(vet.lists())
    assert vet().vetted == {"packs": len(place.packs()) - before, "before": before}


@pytest.mark.parametrize("request_", [{"ids": ["a"]}, {"budget": "5%"}])
def test_all_packs_are_vetted(place: Place, request_: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="omit `ids`, `budget` and `host`"):
        Vetter(place)(**request_)
    with pytest.raises(UsageError, match="Only packs of a remote are vetted"):
        place.bench.manager.verify(VerifyRequest(vet=True))
    with pytest.raises(UsageError, match="Only packs of other hosts are vetted"):
        Peer(place, "web1", share="host", vetted=True).remote()
