# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pushes to a remote in a directory. The judge is a reader that was written from the format's document alone."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import Damaged, NoRemote, NotFound, RemoteError, StoreFull, Unsupported, UsageError
from ansible_collections.volt.backup.plugins.module_utils._remote import commits, memory, names, push as pushes, reading, sealed as sealed_keys, upload
from ansible_collections.volt.backup.plugins.module_utils._remote.directory import Directory
from ansible_collections.volt.backup.plugins.module_utils._remote.keys import Keys
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote, Settings, Which
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.tests.rigs import need, s3_servers, sample
from ansible_collections.volt.backup.tests.unit._remote.independent_reader import RemoteReader
from ansible_collections.volt.backup.tests.unit._store.independent_reader import Reader
from ansible_collections.volt.backup.tests.unit.kit import digest, noise

HOST = "web1-3f9a2c7d"
_VERBS = ("create", "put", "get", "head", "list", "delete", "now", "probe")


class Tapped(Directory):
    """A directory that counts requests, and can do something before or after one of them."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.requests: list[tuple[str, str]] = []
        self.before: dict[int, Any] = {}
        self.after: dict[int, Any] = {}
        for verb in _VERBS:
            setattr(self, verb, self._tapped(verb, getattr(self, verb)))

    def _tapped(self, verb: str, call: Any) -> Any:
        def tapped(*arguments: Any, **named: Any) -> Any:
            number = len(self.requests)
            self.requests.append((verb, str(arguments[0]) if arguments else ""))
            self.before.get(number, lambda: None)()
            result = call(*arguments, **named)
            if verb == "list":
                result = iter(list(result))
            self.after.get(number, lambda: None)()
            return result

        return tapped


class Place:
    """A bench and a remote beside it."""

    def __init__(self, bench: Any, top: Path) -> None:
        self.bench, self.top = bench, top

    def create(self, **options: Any) -> Any:
        """A backup that the independent reader can read, too."""
        return self.bench.create(**{"compression": "zlib", **options})

    def open(self, host: str = HOST, jobs: int = 1) -> Remote:
        remote = Remote(self.bench.manager, Settings(f"file://{self.top}", host, jobs))
        remote.transport = Tapped(str(self.top))
        return remote

    def push(self, **options: Any) -> tuple[list[Any], list[tuple[str, str]]]:
        remote = self.open(**options)
        return remote.push(Which()), remote.transport.requests

    def listing(self, host: str | None = None) -> reading.Listing:
        return reading.listing(Directory(str(self.top)), Keys(), host)

    def judge(self) -> dict[str, Any]:
        """All backups of the remote, read from it and compared with the local ones. By id."""
        reader, found = RemoteReader(self.top), {}
        for name in reader.commits():
            sidecar, nodes, linked = reader.read(name)
            local = self.bench.backups / f"{sidecar['id']}.json"
            if local.exists():
                assert (nodes, linked) == Reader(str(self.bench.store)).backup(str(local))[1:]
            assert sidecar["id"] not in found
            found[sidecar["id"]] = nodes
        return found

    def packs(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in (self.top / "packs").rglob("*") if path.is_file()}


@pytest.fixture
def place(bench: Any) -> Place:
    need("zstd")
    bench.files(small=b"hello\n", some__noise=noise(300_000), some__more=noise(90_000, 1), image=noise(9 << 20, 2))
    return made(bench)


def made(bench: Any) -> Place:
    """A new remote beside the store of a bench."""
    place = Place(bench, bench.top / "nas")
    place.top.mkdir()
    place.open().begin()
    return place


def change(bench: Any, number: int) -> dict[str, Any]:
    """A backup of a source that has changed."""
    bench.files(**{f"new{number}": noise(50_000, number), "small": b"%d\n" % number, "some__more": noise(90_000, 1) + b"%d" % number})
    return bench.create(compression="zlib").backup


def test_what_is_pushed_can_be_read(place: Place) -> None:
    made = [place.create().backup, *(change(place.bench, number) for number in range(3))]
    done, _requests = place.push(jobs=4)
    assert [sidecar["id"] for sidecar, _pushed in done] == [backup["id"] for backup in made]
    assert place.judge().keys() == {backup["id"] for backup in made}
    for backup in place.bench.found():
        assert backup["pushed_to_cdn"] and [copy["push"].split("/")[0] for copy in backup["copies"]] == [HOST]
    listing = place.listing()
    assert [copy.sidecar["id"] for copy in listing.copies] == [backup["id"] for backup in reversed(made)] and not listing.warnings
    sent = [pushed.sent_bytes for _sidecar, pushed in done]
    assert max(sent[1:]) < 200_000 < 9_000_000 < sent[0]  # what was there is not sent again
    assert not (place.top / "intents").is_dir() or not [path for path in (place.top / "intents").rglob("*") if path.is_file()]
    assert not list((place.top / ".tmp").iterdir()) and place.bench.debris() == []


def test_a_second_push_has_nothing_to_do(place: Place) -> None:
    backup = place.create().backup
    place.push()
    remote = place.open()
    assert [pushed for _sidecar, pushed in remote.push(Which([backup["id"]]))] == [None]
    before = place.bench.snapshot()
    assert [pushed for _sidecar, pushed in place.open().push(Which([backup["id"]]))] == [None]
    assert place.push()[0] == [] and place.bench.snapshot() == before


def test_requests_are_few(place: Place) -> None:
    place.create()
    place.push()
    place.create()
    _done, unchanged = place.push()
    change(place.bench, 1)
    _done, small = place.push()
    assert len(unchanged) <= 6 and len(small) <= 10, (unchanged, small)


def test_a_copy_of_unchanged_content_reads_no_tree(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packs that the copy before needs have all of it."""
    needs = []
    reads: list[bytes] = []
    real = Store.read
    monkeypatch.setattr(Store, "read", lambda self, digest, limit: reads.append(digest) or real(self, digest, limit))
    for changed in (False, False, True):
        if changed:
            place.bench.files(small=b"2")
        backup = place.create().backup
        reads.clear()
        place.push()
        needs.append((RemoteReader(place.top).commit(f"commits/{place.bench.manager.copies.find(backup['id'])['copies'][0]['push']}")[0]["needs"], len(reads)))
    assert needs[1] == (needs[0][0], 0) and needs[2][0] != needs[1][0] and needs[2][1] > 0
    assert len(place.judge()) == 3


def test_a_state_that_names_no_numbers_is_not_believed(place: Place) -> None:
    workload = place.create().backup["workload_name"]
    place.push()
    (path,) = (place.bench.store / "cache").glob("remote-*.state")
    state = json.loads(path.read_text())
    ids, ((push, _numbers),) = state["contents"][workload]
    for needs in ([["x", "AQ=="]], [[push, "?"]], [[push, "/////w=="]]):
        path.write_text(json.dumps({**state, "contents": {workload: [ids, needs]}}))
        place.create()
        ((_sidecar, pushed),) = place.open().push(Which())
        assert pushed.new_blobs == 0
        state = json.loads(path.read_text())
    assert len(place.judge()) == 4


def written(place: Place, before: dict[str, Any]) -> list[str]:
    """The paths that are not as they were, without the directory that readers say in what they hold."""
    after = place.bench.snapshot()
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path) and path != str(place.bench.store / "tmp"))


def test_check_mode_writes_nothing(place: Place) -> None:
    backup = place.create().backup
    before = place.bench.snapshot()
    remote = place.open()
    ((_sidecar, would),) = remote.push(Which([backup["id"]]), dry=True)
    assert {verb for verb, _name in remote.transport.requests} <= {"get", "head", "list"}
    assert written(place, before) == [] and would.push is None
    ((_sidecar, did),) = remote.push(Which([backup["id"]]))
    assert (would.new_blobs, would.new_bytes) == (did.new_blobs, did.new_bytes) and did.new_bytes > 9 << 20


def ends(call: Any) -> int:
    """Run something in a child process; its exit status."""
    child = os.fork()
    if not child:
        status = 1
        try:
            call()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kills() -> Iterator[tuple[bool, int]]:
    return ((after, number) for number in range(16) for after in (False, True))


@pytest.mark.parametrize(("after", "number"), sample.some(list(kills()), 8, "killed pushes"))
def test_a_push_is_killed_at_a_request(place: Place, after: bool, number: int) -> None:
    """Before the request, or after the server did its work and before the answer came."""
    place.create()
    place.push()
    backup = change(place.bench, 1)

    def killed() -> None:
        remote = place.open()
        (remote.transport.after if after else remote.transport.before)[number] = lambda: os._exit(9)
        remote.push(Which())

    status = ends(killed)
    assert status in (9, 0)
    place.judge()  # whatever has a commit is whole
    sent = sum(place.packs().values())
    done, _requests = place.push()
    assert backup["id"] in place.judge()
    again = sum(place.packs().values()) - sent
    assert again <= 16 << 20 and [copy.trouble for copy in place.listing().copies] == [None, None] and not place.listing().warnings
    assert [sidecar["id"] for sidecar, _pushed in done] in ([], [backup["id"]]) and place.push()[0] == []


def test_packs_of_a_killed_push_are_taken_up(place: Place) -> None:
    place.bench.files(more=noise(40 << 20, 7))
    place.bench.create(compression="none")

    def killed() -> None:
        remote = place.open()
        creates = 0

        def fourth() -> None:
            nonlocal creates
            creates += remote.transport.requests[-1][1].startswith("packs/")
            if creates == 3:
                os._exit(9)

        remote.transport.before = dict.fromkeys(range(99), fourth)
        remote.push(Which())

    assert ends(killed) == 9
    there = place.packs()
    assert len(there) == 2
    ((_sidecar, pushed),), _requests = place.push()
    assert there.items() <= place.packs().items() and pushed.sent_packs == len(place.packs()) - 2
    assert len(place.judge()) == 1


def test_a_collection_ends_a_push(place: Place) -> None:
    """It creates the commit first; what the push relied on may be gone by then, so all of it is sent again."""
    place.create()
    remote = place.open()
    revoked = []

    def revoke() -> None:
        verb, name = remote.transport.requests[-1]
        if verb == "create" and name.startswith("commits/") and not revoked:
            revoked.append(name)
            Directory(str(place.top)).create(name, commits.revocation(names.parse_commit(name)))
            shutil.rmtree(place.top / "packs")

    remote.transport.before = dict.fromkeys(range(99), revoke)
    ((_sidecar, pushed),) = remote.push(Which())
    assert revoked and f"commits/{pushed.push}" != revoked[0] and len(place.judge()) == 1
    assert len(place.listing().copies) == 1


def test_tombstones_are_not_relied_on(place: Place) -> None:
    """A pack that a collection is about to delete is no longer used, though the host knows that it is there."""
    place.create()
    place.push()
    named = [path.relative_to(place.top / "packs") for path in (place.top / "packs").rglob("*") if path.is_file()]
    remote = place.open()
    Directory(str(place.top)).create("tombstones/0001", b"".join([b'{"tombstones":1}\n', *(b"%s\n" % os.fsencode(name) for name in named)]))
    backup = place.create().backup
    remote.push(Which())
    line, _sidecar, _manifest = RemoteReader(place.top).commit(f"commits/{place.bench.manager.copies.find(backup['id'])['copies'][0]['push']}")
    assert [push for push, _bits in line["needs"]] == [line["push"]]
    place.judge()


def test_tombstones_are_read_after_the_intent(place: Place) -> None:
    """The order is the proof: a collection that did not see the intent has written its tombstones before they are read."""
    place.create()
    _done, requests = place.push()
    steps = [(verb, name.strip("['").split("/")[0]) for verb, name in requests]
    intent, tombstones, commit, end = map(steps.index, [("create", "intents"), ("list", "tombstones"), ("create", "commits"), ("delete", "intents")])
    packs = [at for at, step in enumerate(steps) if step == ("create", "packs")]
    assert intent < tombstones < min(packs) and max(packs) < steps.index(("create", "indexes")) < commit < end


def test_a_host_that_lost_its_cache_knows_what_it_has_there(place: Place) -> None:
    place.create()
    place.push()
    sent = place.packs()
    shutil.rmtree(place.bench.store / "cache")
    (place.bench.store / "cache").mkdir()
    place.create()
    place.push()
    assert place.packs() == sent and len(place.judge()) == 2 and not place.listing().warnings
    place.create()
    _done, requests = place.push()
    assert len(requests) <= 6, "what was read anew is written down, also where nothing was sent"


def test_indexes_are_folded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushes, "INDEXES_MOST", 4)
    for number in range(8):
        change(place.bench, number)
        place.push()
    reader = RemoteReader(place.top)
    assert len(place.judge()) == 8 and all(len(reader.commit(name)[0]["indexes"]) <= 4 for name in reader.commits())


def test_a_large_push_writes_indexes_of_what_it_has_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take no memory until the end. One names only packs that are there: a push that is killed then does not send these again."""
    monkeypatch.setattr(upload.indexes, "BLOBS", 1)
    monkeypatch.setattr(upload.packs, "SIZE", 1 << 20)
    place.create()
    _done, requests = place.push(jobs=2)
    made = [name.partition("/")[0] for verb, name in requests if verb == "create"]
    assert made.count("indexes") > 2 and made.index("indexes") < len(made) - made[::-1].index("packs") - 1
    there: set[str] = set()
    for verb, name in requests:
        if verb == "create" and name.startswith("packs/"):
            there.add(name)
        elif verb == "create" and name.startswith("indexes/"):
            assert {pack.name for pack, _body in pushes.indexes.parse((place.top / name).read_bytes())} <= there
    assert len(place.judge()) == 1


def test_full_indexes_are_left_as_they_are(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each push of a host with millions of blobs would write most of its indexes again."""
    monkeypatch.setattr(pushes, "INDEXES_MOST", 2)
    monkeypatch.setattr(pushes.indexes, "FULL", 1)
    for number in range(4):
        change(place.bench, number)
        _done, requests = place.push()
    assert not [name for verb, name in requests if verb == "get" and name.startswith("indexes/")]
    reader = RemoteReader(place.top)
    assert [len(reader.commit(name)[0]["indexes"]) for name in reader.commits()] == [1, 2, 3, 4] and len(place.judge()) == 4


def test_only_what_the_backup_needs_leaves_the_host(place: Place) -> None:
    """Packs of the local store have blobs of several backups. Those of others do not go with this one's."""
    place.create()
    backup = change(place.bench, 1)
    place.open().push(Which([backup["id"]]))
    reader = RemoteReader(place.top)
    (name,) = reader.commits()
    reader.read(name)
    assert set(reader.blobs) == reader.touched and digest(b"hello\n") not in reader.blobs


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (shutil.rmtree, NoRemote, "no such directory"),
        (lambda top: (top / "volt.json").unlink(), NoRemote, "remote init"),
        (lambda top: (top / "volt.json").write_text("{"), Damaged, "is damaged"),
        (lambda top: (top / "volt.json").write_text('{"remote": 2, "id": "x"}'), Unsupported, "newer version"),
        (lambda top: (top / "volt.json").write_text('{"remote": 1, "required": ["x"]}'), Unsupported, "newer version"),
        (
            lambda top: (top / "volt.json").write_text('{"remote":1,"id":"%s","commit":"exclusive","sealed":true}' % ("0" * 32)),
            RemoteError,
            "is sealed",
        ),
    ],
)
def test_what_is_no_remote_is_refused(place: Place, spoil: Any, kind: type, words: str) -> None:
    place.create()
    spoil(place.top)
    before = place.bench.snapshot()
    with pytest.raises(kind, match=words):
        place.push()
    assert place.bench.snapshot() == before


@pytest.mark.parametrize("url", ["file://host/x", "file:relative", "s3//x", "https://example.org/x", "ftp://x/y", "file://user:secret@/x"])
def test_wrong_urls(place: Place, url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Remote(place.bench.manager, Settings(url))
    assert "secret" not in str(caught.value)


def test_what_a_remote_lost_is_told(place: Place) -> None:
    for number in range(3):
        change(place.bench, number)
        place.push()
    _first, second, third = sorted((place.top / "commits" / HOST).iterdir())
    data = second.read_bytes()
    second.unlink()
    assert ["Commit 2 of host" in text for text in place.listing().warnings] == [True]
    second.write_bytes(data.replace(b'"seq":2', b'"seq":3'))
    assert any("two commits" in text for text in place.listing().warnings)
    second.write_bytes(data[:-1])
    listing = place.listing()
    assert [copy.trouble is None for copy in listing.copies] == [True, False, True]
    third.write_bytes(third.read_bytes().replace(b'"previous":"', b'"previous":"0', 1))
    assert place.listing().copies[0].trouble is None


def test_a_backup_that_is_deleted_meanwhile(place: Place) -> None:
    backup = place.create().backup
    remote = place.open()
    remote.transport.before[1] = lambda: (place.bench.manager.delete(backup["id"]), place.bench.manager.collect("0s"))
    try:
        remote.push(Which([backup["id"]]))
    except NotFound:
        pass
    assert len(place.judge()) <= 1 and place.bench.debris() == []


def test_two_pushes_at_once(place: Place) -> None:
    for number in range(3):
        change(place.bench, number)
    others = []
    for _push in range(2):
        child = os.fork()
        if not child:
            status = 1
            try:
                place.push()
                status = 0
            finally:
                os._exit(status)
        others.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in others] == [0, 0]
    listing = place.listing()
    assert {copy.sidecar["id"] for copy in listing.copies} == {backup["id"] for backup in place.bench.found()} and not listing.warnings


def test_hosts_share_a_remote(place: Place) -> None:
    backup = place.create().backup
    place.open(host="web1").push(Which([backup["id"]]))
    assert list(reading.hosts(Directory(str(place.top)))) == ["web1"]
    manager = Manager(str(place.bench.top / "second" / "cas"), str(place.bench.top / "second" / "backups"))
    manager.create(CreateRequest("work", str(place.bench.source)))
    Remote(manager, Settings(f"file://{place.top}", "web10")).push(Which())
    assert list(reading.hosts(Directory(str(place.top)))) == ["web1", "web10"]
    assert len(place.listing().copies) == 2 and len(place.listing("web1").copies) == 1


def test_a_push_to_s3_can_be_read(place: Place, tmp_path: Path) -> None:
    """The same in a bucket: each request of a push once, and the same judge over a copy of the bucket."""
    backups = [place.create().backup, change(place.bench, 1)]
    with s3_servers.moto() as server:
        server.make_bucket("copies")
        settings = Settings(f"s3://copies/web?endpoint={server.endpoint}", HOST, 4, credentials=server.keys["owner"])
        remote = Remote(place.bench.manager, settings)
        assert remote.begin().changed and not remote.begin().changed
        assert [sidecar["id"] for sidecar, _pushed in remote.push(Which())] == [backup["id"] for backup in backups]
        assert [copy["id"] for copy in remote.find(Query())[0]] == [f"{HOST}/{backup['id']}" for backup in reversed(backups)]
        mirror = Place(place.bench, tmp_path / "mirror")
        for entry in remote.transport.list(""):
            target = mirror.top / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(remote.transport.get(entry.name) or b"")
        assert mirror.judge().keys() == {backup["id"] for backup in backups}


@pytest.mark.parametrize("means", ["library", "program"])
def test_a_sealed_remote(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, means: str) -> None:
    """age, and a reader that derives its keys by the document, open all that a host has sealed; the host itself opens nothing."""
    need("age")
    if means == "program":
        monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    recovery, key, other = (tmp_path / name for name in ("recovery.key", "web1.key", "other.key"))
    for words in (["--new", str(recovery)], ["--from", str(recovery), "--host", "web1", "--out", str(key)], ["--new", str(other)]):
        assert cli.main(["remote", "keys", *words]) == 0
    assert {path.stat().st_mode & 0o777 for path in (recovery, key, other)} == {0o600}
    sealed = Place(place.bench, tmp_path / "sealed")
    sealed.top.mkdir()
    settings = Settings(f"file://{sealed.top}", keys=str(key))
    assert Remote(place.bench.manager, settings).begin().changed
    backups = [place.create().backup, change(place.bench, 1)]
    assert [sidecar["id"] for sidecar, _pushed in Remote(place.bench.manager, settings).push(Which())] == [backup["id"] for backup in backups]
    reader = RemoteReader(sealed.top, recovery)
    assert [reader.read(name)[0]["id"] for name in reader.commits()] == [backup["id"] for backup in backups]
    stored = b"".join(path.read_bytes() for path in sealed.top.rglob("*") if path.is_file())
    assert b"web1" in stored and not any(text in stored for text in (b"hello\n", b'"work"', os.fsencode(backups[0]["id"]), digest(b"hello\n")))
    with pytest.raises(UsageError, match="recovery key"):
        Remote(place.bench.manager, settings).find(Query())
    found, warnings = Remote(place.bench.manager, Settings(settings.url), sealed_keys.read_recovery(str(recovery))).find(Query())
    assert [item["id"] for item in found] == [f"web1/{backup['id']}" for backup in reversed(backups)] and not warnings
    for wrong in (Settings(settings.url), Settings(f"file://{place.top}", keys=str(key))):
        with pytest.raises(RemoteError, match="sealed"):
            Remote(place.bench.manager, wrong).push(Which())
    with pytest.raises(RemoteError, match="another recovery key"):
        Remote(place.bench.manager, Settings(settings.url), sealed_keys.read_recovery(str(other))).find(Query())


def test_a_forged_commit_is_told(place: Place, tmp_path: Path) -> None:
    """Another host of the same domain, and the owner of the remote, cannot write in the name of a host."""
    recovery = sealed_keys.new_recovery()
    (tmp_path / "recovery").write_text(recovery.text())
    (tmp_path / "web1").write_text(recovery.of_host("web1").text())
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    settings = Settings(f"file://{sealed}", keys=str(tmp_path / "web1"))
    Remote(place.bench.manager, settings).begin()
    place.create()
    Remote(place.bench.manager, settings).push(Which())
    (commit,) = (sealed / "commits/web1").iterdir()
    line, rest = commit.read_bytes().split(b"\n", 1)
    signed = line[: line.rindex(b',"mac":')]
    forged = sealed_keys.Sealed(recovery.of_host("web2")).sign(signed)
    for mac in (b"null", b'"%s"' % str(forged).encode(), b'"' + b"0" * 64 + b'"'):
        commit.write_bytes(signed + b',"mac":' + mac + b"}\n" + rest)
        found, _warnings = Remote(place.bench.manager, Settings(settings.url), sealed_keys.read_recovery(str(tmp_path / "recovery"))).find(Query())
        assert [item["damaged"] for item in found] == [True] and "do not use it" in found[0]["damage"]


def test_a_damaged_backup_keeps_no_other_from_being_copied(place: Place) -> None:
    first = place.create().backup
    (reference,) = (place.bench.store / "refs").iterdir()
    second = change(place.bench, 1)
    reference.write_bytes(b"{}")
    with pytest.raises(Damaged, match="1 of 2 backups") as caught:
        place.push()
    assert [copy["id"] for copy in caught.value.details["pushed"]] == [second["id"]]
    assert [backup["pushed_to_cdn"] for backup in place.bench.found()] == [True, False] and first["id"] in caught.value.message


def test_a_host_with_a_new_name_begins_a_chain_of_its_own(place: Place) -> None:
    place.create()
    place.push()
    place.create()
    place.push(host="web2")
    place.create()
    place.push()
    assert not place.listing().warnings and [len(place.listing(host).copies) for host in (HOST, "web2")] == [2, 1]
    place.judge()


def test_a_full_disk_here(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal cannot be written: nothing has a commit, and the next push goes on."""
    place.create()

    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(memory.files, "write_all", full)
        with pytest.raises(StoreFull):
            place.push()
    assert RemoteReader(place.top).commits() == []
    place.push()
    assert len(place.judge()) == 1


def test_nothing_counts_that_the_mac_is_not_of(place: Place) -> None:
    """Of two keys, JSON takes the last: what is behind the MAC could say anything in the name of a host."""
    place.create()
    place.push()
    (commit,) = (place.top / "commits" / HOST).iterdir()
    line, rest = commit.read_bytes().split(b"\n", 1)
    for forged in (line[:-1] + b',"seq":9}', line.replace(b'"mac":', b'"seq":9,"mac":'), line.replace(b'"mac":', b'"mac":"x","mac":')):
        commit.write_bytes(forged + b"\n" + rest)
        assert [copy.seq for copy in place.listing().copies] == [None]
    commit.write_bytes(line + b"\n" + rest)
    assert [copy.seq for copy in place.listing().copies] == [1]


def test_tombstones_of_any_name_are_read(place: Place) -> None:
    """Also those that come later under a lower name, and where the push sends nothing."""
    place.create()
    place.push()
    packs = [path.relative_to(place.top / "packs") for path in (place.top / "packs").rglob("*") if path.is_file()]
    remote = Directory(str(place.top))
    remote.create("tombstones/zzzz", b'{"tombstones":1}\n')
    place.create()
    place.push()
    remote.create("tombstones/0001", b"".join([b'{"tombstones":1}\n', *(b"%s\n" % os.fsencode(name) for name in packs)]))
    place.create()
    ((_sidecar, pushed),), _requests = place.push()
    assert pushed.sent_packs
    place.create()
    ((_sidecar, pushed),), _requests = place.push()
    assert not pushed.sent_packs
    shutil.rmtree(place.top / "packs" / packs[0].parent)
    reader = RemoteReader(place.top)
    assert [len(reader.read(name)[1]) > 3 for name in reader.commits()[2:]] == [True, True]


def test_a_state_that_cannot_be_written_is_not_believed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit is there, and this host could not note it: the next one has the next number."""
    place.create()
    place.push()
    place.create()

    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(memory.Memory, "save", full)
        place.push()
    place.create()
    place.push()
    assert not place.listing().warnings and len(place.judge()) == 3


def test_a_collection_here_moves_what_is_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its packs are away for a moment, while the backup is walked and while they are read: each blob is sent once, and counted once."""
    place.create()
    would = place.open().push(Which(), dry=True)
    real, gone = upload.outgoing.of_pack, []

    def away(store: Any, name: bytes) -> Any:
        if name not in gone:
            gone.append(name)
            return None
        return real(store, name)

    monkeypatch.setattr(upload.outgoing, "of_pack", away)
    ((_sidecar, pushed),), _requests = place.push()
    assert gone and pushed.new_blobs == would[0][1].new_blobs and len(place.judge()) == 1
