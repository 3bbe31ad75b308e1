# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that share: what one has sent is not sent by another. The judge is a reader that was written from the format's document alone."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import RemoteError, RemoteRefused, now
from ansible_collections.volt.backup.plugins.module_utils._remote import commits, indexes, names, push as pushes, sealed as sealed_keys, shared, upload
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
