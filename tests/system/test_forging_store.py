# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A remote that lies, and a host that was stolen: whatever they do to any object is named by a recovery, and no wrong byte is restored.

The recovery is that of the playbook: the list of the lost host's backups, with what is wrong with them and what the controller has seen before, then
a restore of each backup.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import RemoteRefused, UsageError, VoltError
from ansible_collections.volt.backup.plugins.module_utils._remote import age, commits, names, packs, s3, s3_client, sealed as sealed_keys
from ansible_collections.volt.backup.plugins.module_utils._remote.directory import Directory
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Meant, Remote, Settings, Which
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.tests.rigs import need, s3_servers, sample
from ansible_collections.volt.backup.tests.unit.kit import noise

from .test_push_rights import granted

LOST, OTHER = "web1", "web2"
#: How many backups each host has.
BACKUPS = {LOST: 3, OTHER: 2}


class Seen(NamedTuple):
    """What the controller knows of the newest commit, as `volt_recover_seen` keeps it."""

    seq: int
    sha256: str


class Found(NamedTuple):
    """What a recovery told and restored."""

    #: All that was said to be wrong.
    named: list[str]
    #: The files of each backup that was restored, by its id.
    restored: dict[str, dict[str, bytes]]


class Fleet:
    """Two hosts with backups on one remote, the controller with their recovery key, and what was really in each backup."""

    def __init__(self, room: Path, keys: bool) -> None:
        need("zstd", *(["age"] if keys else []))
        self.room = room
        self.recovery = sealed_keys.new_recovery() if keys else None
        self.truth: dict[tuple[str, str], dict[str, bytes]] = {}
        self.ids: dict[str, list[str]] = {host: [] for host in BACKUPS}
        self.seen: dict[str, Seen] = {}

    def settings(self, place: str, host: str, credentials: Any = None) -> Settings:
        """Those of a host."""
        if self.recovery is None:
            return Settings(place, host, credentials=credentials)
        path = self.room / f"{host}.keys"
        path.write_text(self.recovery.of_host(host).text(), encoding="utf-8")
        return Settings(place, host, keys=str(path), credentials=credentials)

    def push(self, host: str, settings: Settings) -> None:
        """One more backup of a host. Some of its content is in all of them, some in none but this one."""
        number = len(self.ids[host])
        source = self.room / host / "source"
        source.mkdir(parents=True, exist_ok=True)
        for name, data in {
            "small": f"{host} {number}\n".encode(), "same": noise(150_000, host), f"new{number}": noise(80_000, (host, number)),
            "grows": noise(120_000, (host, "grows")) + noise(10_000, (host, number)),
        }.items():  # fmt: skip
            (source / name).write_bytes(data)
        manager = Manager(str(self.room / host / "store"), str(self.room / host / "records"), 5)
        backup = manager.create(CreateRequest("work", str(source))).backup
        Remote(manager, settings).push(Which())
        self.truth[host, backup["id"]] = files(source)
        self.ids[host].append(backup["id"])

    def remember(self, place: str, credentials: Any = None) -> None:
        """The controller sees the newest commit of each host."""
        for host in BACKUPS:
            found, faults = self.controller(place, credentials).find(Query(host=host))
            assert not faults and len(found) == BACKUPS[host]
            self.seen[host] = max(Seen(item["seq"], item["commit_sha256"]) for item in found)  # type: ignore[typeddict-item]

    def controller(self, place: str, credentials: Any = None) -> Remote:
        """The remote as a new host sees it, which has nothing."""
        nothing = str(self.room / "nothing")
        return Remote(Manager(nothing, nothing, 5), Settings(place, credentials=credentials), self.recovery)

    def recover(self, place: str, host: str = LOST, credentials: Any = None) -> Found:
        """List, compare with what was seen, restore the newest and each other one. What fails is restored again with salvage."""
        named: list[str] = []
        restored: dict[str, dict[str, bytes]] = {}
        try:
            named += self._faults(self.controller(place, credentials), host)
            for meant in [Meant(host, workload="work"), *(Meant(host, backup=backup) for backup in self.ids[host])]:
                self._restore(self.controller(place, credentials), meant, named, restored)
        except VoltError as error:
            named.append(error.message)
        return Found(named, restored)

    def _faults(self, remote: Remote, host: str) -> list[str]:
        listed, faults = remote.find(Query(host=host))
        readable: list[Any] = [item for item in listed if item["commit_sha256"]]  # type: ignore[typeddict-item]
        faults = [*faults, *(item["damage"] for item in listed if item["damage"])]
        newest, seen = max((item["seq"] for item in readable), default=0), self.seen[host]
        if newest < seen.seq:
            faults.append(f"the remote was set back: the newest commit is {newest}")
        if [item for item in readable if item["seq"] == seen.seq and item["commit_sha256"] != seen.sha256]:
            faults.append(f"commit {seen.seq} was replaced")
        return faults

    def _restore(self, remote: Remote, meant: Meant, named: list[str], restored: dict[str, dict[str, bytes]]) -> None:
        for salvage in (False, True):
            target = self.room / "target"
            try:
                done = remote.restore(meant, RestoreRequest(str(target), salvage=salvage))[0]
                named += done.warnings
                named += [f"lost: {path}" for path in done.restore["lost"]]
                restored[done.restore["backup_id"]] = files(target)
                self.judge(str(meant.host), done.restore["backup_id"], files(target), done.restore["lost"])
                return
            except VoltError as error:
                named += [error.message, *(item["reason"] for item in error.details.get("skipped", []))]
                assert salvage or not target.exists(), "what cannot be restored as a whole is not begun"
            finally:
                for path in [target, *self.room.glob(".target.volt-*")]:
                    shutil.rmtree(path, ignore_errors=True)

    def judge(self, host: str, backup: str, found: dict[str, bytes], lost: list[str]) -> None:
        """Each restored file has the content of that backup, and each missing file was named."""
        truth = self.truth[host, backup]
        assert found == {name: data for name, data in truth.items() if name not in lost}


def files(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def made(room: Path, keys: bool, begin: Callable[[Settings], None], place: str, credentials: dict[str, Any] | None = None) -> Fleet:
    """A fleet whose hosts push in turn."""
    fleet = Fleet(room, keys)
    given = {host: fleet.settings(place, host, (credentials or {}).get(host)) for host in BACKUPS}
    begin(given[OTHER])
    for number in range(max(BACKUPS.values())):
        for host, settings in given.items():
            if number < BACKUPS[host]:
                fleet.push(host, settings)
    return fleet


# ---- a store that lies


class Remotes:
    """A remote in a directory, and copies of it to harm."""

    def __init__(self, room: Path, keys: bool) -> None:
        self.top = room / "nas"
        self.top.mkdir()
        self.older = room / "older"  # after the first push of each host
        self.fleet = made(room, keys, self._begin, f"file://{self.top}")
        self.fleet.remember(f"file://{self.top}")

    def _begin(self, settings: Settings) -> None:
        Remote(Manager("/nonexistent", "/nonexistent"), settings).begin()

    def harmed(self) -> Path:
        """A fresh copy."""
        copy = self.fleet.room / "harmed"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.top, copy)
        return copy

    def objects(self, host: str = LOST) -> list[str]:
        """The names of what a host has there, heads apart, and of what the remote is."""
        return [entry.name for entry in Directory(str(self.top)).list("") if entry.name.split("/")[1:2] == [host] and not entry.name.startswith("heads/")]


@pytest.fixture(scope="module", params=["sealed", "plain"])
def remotes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remotes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "SIZE", 128 << 10)  # so that a push has several packs
        yield Remotes(tmp_path_factory.mktemp(request.param), request.param == "sealed")


def _like(name: str, others: list[str], step: int) -> str | None:
    """Another object of the same kind."""
    kind = [other for other in others if other.split("/")[0] == name.split("/")[0] and other != name]
    return kind[step % len(kind)] if kind else None


HARMS = ("dropped", "emptied", "truncated", "first bit", "some bit", "last bit", "by a later one", "by an older one", "by one of the other host")


def harm(remotes: Remotes, top: Path, name: str, how: str) -> bool:
    """Do it to an object; False where that changes nothing."""
    path = top / name
    data = bytearray(path.read_bytes())
    if how == "dropped":
        path.unlink()
        return True
    if how.endswith("bit"):
        at = {"first bit": 0, "last bit": 8 * len(data) - 1}.get(how, sample.chance(name.split("/")[0], len(data)).randrange(8 * len(data)))
        data[at // 8] ^= 1 << at % 8
    elif how in ("emptied", "truncated"):
        del data[0 if how == "emptied" else len(data) // 2 :]
    else:
        own = remotes.objects()
        later = own[own.index(name) + 1 :] + own[: own.index(name)]
        chosen = {"by a later one": _like(name, later, 0), "by an older one": _like(name, later, -1)}.get(how, _like(name, remotes.objects(OTHER), 0))
        if chosen is None:
            return False
        data = bytearray((remotes.top / chosen).read_bytes())
        if how.endswith("host"):  # the two change places
            (top / chosen).write_bytes(path.read_bytes())
    changed = bytes(data) != path.read_bytes()
    path.write_bytes(data)
    return changed


def told(remotes: Remotes, name: str) -> list[str]:
    """Any of these texts names an object: a commit may be named by its push, or by its number."""
    kind, _slash, rest = name.partition("/")
    own = [other for other in remotes.objects() if other.startswith("commits/")]
    if kind != "commits":
        return [name]
    number = own.index(name) + 1
    return [name, f"Commit {rest} ", f"Commit {number} of", *([f"commit {number} was replaced", "the remote was set back"] if number == len(own) else [])]


@pytest.mark.costly
def test_every_object_harmed_in_every_way(remotes: Remotes) -> None:
    """What the lost host has there: the recovery names it, and what is restored is right. Of a pack, bits that nothing reads may be any."""
    cases = [(name, how) for name in remotes.objects() for how in HARMS]
    assert len(cases) > 90
    unnoticed = []
    for name, how in sample.some(cases, 24, "harmed objects"):
        top = remotes.harmed()
        if harm(remotes, top, name, how):
            found = remotes.fleet.recover(f"file://{top}")
            harmless = name.startswith("packs/") and how == "some bit" and found.named == [] and found.restored.keys() == set(remotes.fleet.ids[LOST])
            if not harmless and not any(what in text for what in told(remotes, name) for text in found.named):
                unnoticed.append(f"{name}: {how}: {found.named}")
    assert unnoticed == []


@pytest.mark.parametrize("how", HARMS[:6])
@pytest.mark.costly
def test_what_the_remote_is_harmed(remotes: Remotes, how: str) -> None:
    """`volt.json`: told, unless it still says the same."""
    top = remotes.harmed()
    harm(remotes, top, names.ABOUT, how)
    found = remotes.fleet.recover(f"file://{top}")
    assert any(names.ABOUT in text or str(top) in text for text in found.named) or found.restored.keys() == set(remotes.fleet.ids[LOST])


def _older_head(top: Path) -> bytes:
    head = json.loads((top / names.HEADS / LOST).read_bytes())
    return json.dumps({**head, "seq": 1, "commits": head["commits"][:1]}, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize("how", ["gone", "rubbish", "older", "of the other host"])
@pytest.mark.costly
def test_a_head_is_never_believed(remotes: Remotes, how: str) -> None:
    top = remotes.harmed()
    path = top / names.HEADS / LOST
    content = {"rubbish": b"rubbish", "older": _older_head(top), "of the other host": (top / names.HEADS / OTHER).read_bytes()}
    path.unlink() if how == "gone" else path.write_bytes(content[how])
    found = remotes.fleet.recover(f"file://{top}")
    assert found.named == [] and found.restored.keys() == set(remotes.fleet.ids[LOST])


# ---- what a store does to many objects, or makes up


def _commits(top: Path, host: str = LOST) -> list[Path]:
    return sorted((top / names.COMMITS / host).iterdir())


def set_back(top: Path) -> None:
    """All is as it was after the first push."""
    first, *later = _commits(top)
    for path in later:
        path.unlink()
        for kind in (names.PACKS, names.INDEXES):
            for other in (top / kind / LOST).glob(f"{path.name}*"):
                shutil.rmtree(other) if other.is_dir() else other.unlink()
    (top / names.HEADS / LOST).write_bytes(_older_head(top))
    assert _commits(top) == [first]


def withheld(top: Path) -> None:
    shutil.rmtree(top / names.COMMITS / LOST)


def exchanged(top: Path) -> None:
    """Each host's objects have the name of the other."""
    for kind in (names.PACKS, names.INDEXES, names.COMMITS):
        (top / kind / LOST).rename(top / kind / "between")
        (top / kind / OTHER).rename(top / kind / LOST)
        (top / kind / "between").rename(top / kind / OTHER)


def replayed(top: Path) -> None:
    """An old commit, as the newest."""
    (top / names.COMMITS / LOST / "20990101T000000Z-0123456789abcdef").write_bytes(_commits(top)[0].read_bytes())


MANY = {
    "set back": (set_back, "the remote was set back"), "withheld": (withheld, "the remote was set back"),
    "exchanged": (exchanged, "is damaged"), "replayed": (replayed, "20990101T000000Z-0123456789abcdef of the remote is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("how", MANY)
@pytest.mark.costly
def test_many_objects_at_once(remotes: Remotes, how: str) -> None:
    top = remotes.harmed()
    act, sentence = MANY[how]
    act(top)
    found = remotes.fleet.recover(f"file://{top}")
    assert any(sentence in text for text in found.named), found.named
    assert len(found.restored) == {"set back": 1, "replayed": 3}.get(how, 0)


def forged(remotes: Remotes, how: str) -> bytes:
    """A commit of the lost host that would be its newest. It has the manifest of the other host's backup."""
    recovery = remotes.fleet.recovery
    assert recovery is not None
    newest = commits.parse(f"{names.COMMITS}{LOST}/{_commits(remotes.top)[-1].name}", _commits(remotes.top)[-1].read_bytes())
    theirs = commits.parse(f"{names.COMMITS}{OTHER}/{_commits(remotes.top, OTHER)[-1].name}", _commits(remotes.top, OTHER)[-1].read_bytes())
    assert newest is not None and theirs is not None
    line = theirs.commit._replace(push=names.Push(LOST, FORGED), seq=newest.commit.seq + 1, previous=newest.sha256)
    signs: dict[str, Callable[[bytes], str | None]] = {
        "no signature": lambda _line: None,
        "any signature": lambda _line: os.urandom(32).hex(),
        "the signature of another commit": lambda _line: newest.mac,
        "the signature of another host": sealed_keys.Sealed(recovery.of_host(OTHER)).sign,
        "the signature of another fleet": sealed_keys.Sealed(sealed_keys.new_recovery().of_host(LOST)).sign,
        "no seal": lambda _line: None,
    }
    return commits.encode(line, theirs.sidecar, theirs.manifest, how != "no seal", signs[how])


FORGED = "20990101T000000Z-0123456789abcdef"


@pytest.mark.parametrize("remotes", ["sealed"], indirect=True)
@pytest.mark.parametrize(
    "how",
    ["no signature", "any signature", "the signature of another commit", "the signature of another host", "the signature of another fleet", "no seal"],
)  # fmt: skip
@pytest.mark.costly
def test_an_invented_commit(remotes: Remotes, how: str) -> None:
    """By a store that has the keys of another host: named, and the newest true backup is restored."""
    top = remotes.harmed()
    (top / names.COMMITS / LOST / FORGED).write_bytes(forged(remotes, how))
    found = remotes.fleet.recover(f"file://{top}")
    assert any(FORGED in text and "do not use it" in text for text in found.named), found.named
    assert found.restored.keys() == set(remotes.fleet.ids[LOST])


@pytest.mark.parametrize("remotes", ["sealed"], indirect=True)
@pytest.mark.costly
def test_an_unsealed_remote_in_place_of_a_sealed_one(remotes: Remotes) -> None:
    """All of it is new and fits together; but the recovery key is not of it."""
    room = remotes.fleet.room / "false"
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    false = Remotes(room, False)
    found = remotes.fleet.recover(f"file://{false.top}")
    assert found.restored == {} and any("is not sealed, and a key was given" in text for text in found.named)


# ---- a stolen host


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_servers.Server]:
    with s3_servers.ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


class Stolen:
    """A host on a sealed remote on Ceph, with the credentials and the keys that it has: those of the user `small`, under the printed policy."""

    BUCKET = "stolen"

    def __init__(self, server: s3_servers.Server, room: Path) -> None:
        self.server = server
        self.place = f"s3://{self.BUCKET}/fleet?endpoint={server.endpoint}"
        server.make_bucket(self.BUCKET)
        owner, small = server.keys["owner"], server.keys["small"]
        self.fleet = made(room, True, self._begin, self.place, {LOST: small, OTHER: owner})
        self.fleet.remember(self.place, owner)
        self.owner, self.own = (s3.S3(s3_client.parse_url(self.place), keys, patience=10.0) for keys in (owner, small))
        self.client = server.client("small")
        self.before = {entry.name: self.owner.get(entry.name) for entry in self.owner.list("")}

    def _begin(self, settings: Settings) -> None:
        Remote(Manager("/nonexistent", "/nonexistent"), settings).begin()
        granted(self.server, self.BUCKET, self.place, LOST)

    def named(self, kind: str, host: str) -> list[str]:
        return [name for name in self.before if name.startswith(f"{kind}/{host}")]

    def changed(self) -> set[str]:
        """What is not as it was."""
        now = {entry.name: self.owner.get(entry.name) for entry in self.owner.list("")}
        return {name for name in now.keys() | self.before.keys() if now.get(name) != self.before.get(name)}

    def recover(self, host: str = LOST) -> Found:
        return self.fleet.recover(self.place, host, self.server.keys["owner"])

    def mend(self) -> None:
        for name in self.changed():
            data = self.before.get(name)
            self.owner.delete([name]) if data is None else self.owner.put(name, data)


@pytest.fixture(scope="module")
def stolen(server: s3_servers.Server, tmp_path_factory: pytest.TempPathFactory) -> Stolen:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "SIZE", 128 << 10)
        return Stolen(server, tmp_path_factory.mktemp("stolen"))


def _refused(act: Callable[[], Any]) -> bool:
    from botocore.exceptions import ClientError

    try:
        act()
    except RemoteRefused:
        return True
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    return False


@pytest.mark.costly
def test_what_is_of_another_host_is_out_of_reach(stolen: Stolen) -> None:
    """Each verb, on each object of the other host and of the remote; and the copies, versions and rights that S3 has beside these."""
    allowed = []
    bucket = {"Bucket": stolen.BUCKET}
    for name in [*(name for kind in ("packs", "indexes", "commits", "heads") for name in stolen.named(kind, OTHER)), names.ABOUT]:
        key = f"fleet/{name}"
        given, copied = {**bucket, "Key": key}, f"fleet/packs/{LOST}/copied"
        acts: dict[str, Callable[[], Any]] = {
            "put": lambda name=name: stolen.own.put(name, b"x"),
            "create": lambda name=name: stolen.own.create(f"{name}0", b"x"),
            "delete": lambda name=name: stolen.own.delete([name]),
            "tags": lambda given=given: stolen.client.get_object_tagging(**given),
            "public": lambda given=given: stolen.client.put_object_acl(**given, ACL="public-read"),
            "upload in parts": lambda given=given: stolen.client.create_multipart_upload(**given),
        }
        if name != names.ABOUT:
            acts["get"] = lambda name=name: stolen.own.get(name)
            acts["copy here"] = lambda key=key, copied=copied: stolen.client.copy_object(**bucket, Key=copied, CopySource={**bucket, "Key": key})
        acts["copy over"] = lambda given=given: stolen.client.copy_object(
            **given, CopySource={**bucket, "Key": f"fleet/{stolen.named('commits', LOST)[0]}"}, MetadataDirective="REPLACE"
        )
        allowed += [f"{verb} {name}" for verb, act in acts.items() if not _refused(act)]
    rules = {"Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]}
    of_the_bucket: dict[str, Callable[[], Any]] = {
        "policy": lambda: stolen.client.put_bucket_policy(**bucket, Policy="{}"),
        "remove the policy": lambda: stolen.client.delete_bucket_policy(**bucket),
        "read the policy": lambda: stolen.client.get_bucket_policy(**bucket),
        "lifecycle": lambda: stolen.client.put_bucket_lifecycle_configuration(**bucket, LifecycleConfiguration=rules),
        "versioning": lambda: stolen.client.put_bucket_versioning(**bucket, VersioningConfiguration={"Status": "Suspended"}),
        "versions": lambda: stolen.client.list_object_versions(**bucket),
        "public": lambda: stolen.client.put_bucket_acl(**bucket, ACL="public-read-write"),
        "remove": lambda: stolen.client.delete_bucket(**bucket),
        "uploads of others": lambda: stolen.client.list_multipart_uploads(**bucket),
    }
    allowed += [what for what, act in of_the_bucket.items() if not _refused(act)]
    assert allowed == [] and stolen.changed() == set()
    found = stolen.recover(OTHER)
    assert found.named == [] and found.restored.keys() == set(stolen.fleet.ids[OTHER])


@pytest.mark.costly
def test_its_own_copies_cannot_be_removed_or_read(stolen: Stolen) -> None:
    own = [name for kind in ("packs", "indexes", "commits", "heads") for name in stolen.named(kind, LOST)]
    assert [name for name in own if not _refused(lambda name=name: stolen.own.delete([name]))] == []
    objects = {"Objects": [{"Key": f"fleet/{name}"} for name in own]}
    assert _refused(lambda: stolen.client.delete_objects(Bucket=stolen.BUCKET, Delete=objects))
    _refused(lambda: stolen.client.put_object_acl(Bucket=stolen.BUCKET, Key=f"fleet/{own[0]}", ACL="private"))  # it may, and that hides nothing
    assert stolen.changed() == set() and stolen.recover().named == []
    assert stolen.fleet.recovery is not None
    keys = stolen.fleet.recovery.of_host(LOST)
    for name in own:
        data = stolen.own.get(name)
        assert data is not None
        start = data.find(b"age-encryption.org/v1")
        if name.startswith(("packs/", "commits/")):
            with pytest.raises(VoltError):  # the one identity that it has opens lists of indexes alone
                age.unseal(data[start:], [keys.indexes])
    with pytest.raises(UsageError, match="recovery key"):
        settings = stolen.fleet.settings(stolen.place, LOST, stolen.server.keys["small"])
        Remote(Manager("/nonexistent", "/nonexistent"), settings).restore(Meant(LOST, workload="work"), RestoreRequest(str(stolen.fleet.room / "x")))


@pytest.mark.costly
def test_a_commit_of_another_host_is_not_forged(stolen: Stolen) -> None:
    """It has no name for it there; and what it makes under its own name is never taken for the other's."""
    sign = sealed_keys.Sealed(stolen.fleet.recovery.of_host(LOST)).sign  # type: ignore[union-attr]
    theirs = commits.parse(stolen.named("commits", OTHER)[-1], stolen.before[stolen.named("commits", OTHER)[-1]] or b"")
    assert theirs is not None
    for host in (OTHER, LOST):
        push = names.Push(host, FORGED)
        line = theirs.commit._replace(push=names.Push(OTHER, FORGED), seq=theirs.commit.seq + 1, previous=theirs.sha256)
        data = commits.encode(line, theirs.sidecar, theirs.manifest, True, sign)
        assert _refused(lambda push=push, data=data: stolen.own.create(push.commit, data)) is (host == OTHER)
    try:
        assert stolen.changed() == {names.Push(LOST, FORGED).commit}
        assert stolen.recover(OTHER).named == []
        found = stolen.recover()
        assert any(FORGED in text for text in found.named) and found.restored.keys() == set(stolen.fleet.ids[LOST])
    finally:
        stolen.mend()


def _again(stolen: Stolen, position: int) -> tuple[str, bytes]:
    """A commit of its own, written anew with its own signature: of the first backup, in the place of another one."""
    sign = sealed_keys.Sealed(stolen.fleet.recovery.of_host(LOST)).sign  # type: ignore[union-attr]
    own = stolen.named("commits", LOST)
    first, there = (commits.parse(name, stolen.before[name] or b"") for name in (own[0 if position else 1], own[position]))
    assert first is not None and there is not None
    line = first.commit._replace(push=there.commit.push, seq=there.commit.seq, previous=there.commit.previous)
    return own[position], commits.encode(line, first.sidecar, first.manifest, True, sign)


def _overwrites(stolen: Stolen) -> dict[str, tuple[str, bytes, str]]:
    """What a stolen host overwrites of its own, where the server knows no condition that forbids it; and what a recovery says then."""
    recovery = stolen.fleet.recovery
    assert recovery is not None
    first, second = stolen.named("packs", LOST)[:2]
    index, *_others = stolen.named("indexes", LOST)
    commit = stolen.named("commits", LOST)[0]
    return {
        "an old commit": (*_again(stolen, 0), "Commit 2 of host web1 does not follow commit 1"),
        "a commit in the midst": (*_again(stolen, 1), "Commit 3 of host web1 does not follow commit 2"),
        "the newest commit": (*_again(stolen, 2), "commit 3 was replaced"),
        "a commit by a revocation": (commit, commits.revocation(names.parse_commit(commit)), "Commit 1 of host web1 is missing"),  # type: ignore[arg-type]
        "a commit by rubbish": (commit, b"x", f"Commit {commit} of the remote is damaged"),
        "a pack by rubbish": (first, b"x", first),
        "a pack by another one": (first, stolen.before[second] or b"", first),
        "a pack by a sealed one": (first, age.seal(bytes(100_000), [recovery.of_host(LOST).data]), first),
        "an index": (index, stolen.before[index][:-1] + b"x", f"{index} is altered"),  # type: ignore[index,operator]
    }


@pytest.mark.costly
def test_what_it_overwrites_of_its_own_is_noticed(stolen: Stolen) -> None:
    """It can do that on a server that does not know the condition of the policy. A recovery names each, and restores what is right, or nothing."""
    unnoticed = []
    for what, (name, data, sentence) in sample.some(list(_overwrites(stolen).items()), 3, "overwritten"):
        try:
            stolen.own.put(name, data)
            assert stolen.changed() == {name}
            found = stolen.recover()
            if not any(sentence in text for text in found.named):
                unnoticed.append(f"{what}: {found.named}")
        finally:
            stolen.mend()
    assert unnoticed == []


@pytest.mark.costly
def test_a_head_that_goes_backwards(stolen: Stolen) -> None:
    """The one name that it may replace: nothing is restored by it."""
    (head,) = stolen.named("heads", LOST)
    value = json.loads(stolen.before[head] or b"")
    stolen.own.put(head, json.dumps({**value, "seq": 1, "commits": value["commits"][:1]}).encode() + b"\n")
    try:
        found = stolen.recover()
        assert found.named == [] and found.restored.keys() == set(stolen.fleet.ids[LOST])
    finally:
        stolen.mend()


@pytest.mark.costly
def test_what_it_pushes_later_pushes_nothing_out(stolen: Stolen) -> None:
    """It goes on as itself, with rubbish: the older backups are there as they were, and `before` restores one of them."""
    settings = stolen.fleet.settings(stolen.place, LOST, stolen.server.keys["small"])
    good = list(stolen.fleet.ids[LOST])
    manager = Manager(str(stolen.fleet.room / LOST / "store"), str(stolen.fleet.room / LOST / "records"), 5)
    rubbish = stolen.fleet.room / "rubbish"
    rubbish.mkdir()
    (rubbish / "small").write_bytes(b"rubbish")
    made_then = manager.create(CreateRequest("work", str(rubbish))).backup
    Remote(manager, settings).push(Which())
    try:
        assert all(name not in stolen.before or name.startswith("heads/") for name in stolen.changed())
        target = stolen.fleet.room / "target"
        remote = stolen.fleet.controller(stolen.place, stolen.server.keys["owner"])
        done = remote.restore(Meant(LOST, workload="work"), RestoreRequest(str(target)), None, made_then["created_at"])[0]
        assert done.restore["backup_id"] in good
        stolen.fleet.judge(LOST, done.restore["backup_id"], files(target), [])
        shutil.rmtree(target)
    finally:
        stolen.mend()
