# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One suite for all transports of remotes: what `transport.Transport` promises, on each server that can be had here, by old and new clients."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import NoRemote, RemoteError, RemoteFull, RemoteRefused, RemoteUnreachable, UsageError
from ansible_collections.volt.backup.plugins.module_utils._remote import directory, pace, s3, s3_client
from ansible_collections.volt.backup.plugins.module_utils._remote.transport import EXCLUSIVE, TIMED, Abilities
from ansible_collections.volt.backup.tests.rigs import Unavailable, apart, http_faults, need, s3_servers, sample
from ansible_collections.volt.backup.tests.rigs.http_faults import Answer, Request

#: Debian's own Python, which has the oldest boto3 that we support.
OLD = "/usr/bin/python3"
KINDS = ("directory", "moto", "moto-old", "rclone", "ceph", *(("rclone-old", "ceph-old") if sample.LONG else ()))
BUCKET = "copies"
#: What a probe finds on each server.
FOUND = {
    "directory": Abilities(EXCLUSIVE, False, True),
    "moto": Abilities(EXCLUSIVE, False, True),
    "rclone": Abilities(TIMED, True, True),
    "ceph": Abilities(EXCLUSIVE, True, True),
}


@pytest.fixture(autouse=True, scope="module")
def no_settings_of_the_user() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.setattr(s3, "_WAIT", 0.05)
        with contextlib.suppress(ImportError):  # what each client reads from files is the same, and takes most of the time that a test takes
            import botocore.session

            patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        yield


class Servers:
    """S3 servers, each started when it is first asked for."""

    def __init__(self, room: Path) -> None:
        self._room, self._stack = room, ExitStack()
        self._known: dict[str, s3_servers.Server | Unavailable] = {}
        self._old: apart.S3 | None = None

    def __call__(self, kind: str) -> s3_servers.Server:
        if kind not in self._known:
            try:
                self._known[kind] = self._start(kind)
            except Unavailable as lack:
                self._known[kind] = lack
        found = self._known[kind]
        if isinstance(found, Unavailable):
            raise found
        return found

    def _start(self, kind: str) -> s3_servers.Server:
        room = self._room / kind
        room.mkdir()
        contexts: dict[str, Callable[[], Any]] = {"moto": s3_servers.moto, "rclone": lambda: s3_servers.rclone(room), "ceph": lambda: s3_servers.ceph(room)}
        server: s3_servers.Server = self._stack.enter_context(contexts[kind]())
        server.make_bucket(BUCKET)
        return server

    def old(self, endpoint: str, keys: dict[str, str]) -> apart.S3:
        """A remote by the old client; one process serves all tests."""
        if self._old is None:
            self._old = self._stack.enter_context(apart.S3(old_python()))
        self._old.open(url(endpoint), keys, patience=20.0)
        return self._old

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("servers"))
    yield servers
    servers.close()


def old_python() -> list[str]:
    """Debian's Python with its boto3."""
    need("setpriv")
    if not Path(OLD).exists() or subprocess.run([OLD, "-c", "import botocore"], stderr=subprocess.DEVNULL, check=False).returncode:
        raise Unavailable("not installed: python3-boto3")
    return [OLD]


def url(endpoint: str, bucket: str = BUCKET, prefix: str = "", more: str = "") -> str:
    """A place that no other test uses."""
    return f"s3://{bucket}/{prefix or uuid.uuid4().hex}?endpoint={endpoint}{more}"


def opened(place: str, keys: dict[str, str] | None, **options: Any) -> s3.S3:
    options.setdefault("patience", 20.0)
    return s3.S3(s3_client.parse_url(place), keys, **options)


def remote_of(kind: str, servers: Servers, room: Path) -> Any:
    """An empty remote. On a server that needs it, the transport knows that the server does not refuse to create a name twice."""
    if kind == "directory":
        return directory.Directory(str(room))
    server = servers(kind.partition("-")[0])
    if kind.endswith("-old"):
        remote: Any = servers.old(server.endpoint, server.keys["owner"])
        if kind == "rclone-old":
            remote.probe()
        return remote
    remote = opened(url(server.endpoint), server.keys["owner"])
    if kind == "rclone":
        remote.commit = TIMED
    return remote


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def remote(kind: str, servers: Servers, tmp_path: Path) -> Any:
    return remote_of(kind, servers, tmp_path)


def names_in(remote: Any, *arguments: str) -> list[str]:
    return [entry.name for entry in remote.list(*arguments or [""])]


# ---- what each verb promises


def test_create(remote: Any) -> None:
    assert remote.create("a/b", b"first")
    assert not remote.create("a/b", b"later")
    assert remote.get("a/b") == b"first"
    assert names_in(remote) == ["a/b"]


def test_put(remote: Any) -> None:
    remote.put("heads/h", b"first")
    remote.put("heads/h", b"and later")
    assert remote.get("heads/h") == b"and later"
    assert remote.head("heads/h").size == 9
    assert not remote.create("heads/h", b"")


def test_what_is_not_there(remote: Any) -> None:
    remote.put("a/b", b"1")
    for name in ("a/c", "x", "a"):
        assert remote.get(name) is None and remote.head(name) is None and remote.get(name, 0, 0) is None and remote.get(name, 3, 4) is None
    remote.delete(["a/c", "x"])
    assert names_in(remote) == ["a/b"]


@pytest.mark.parametrize("content", [b"", b"0123456789"], ids=["nothing", "ten"])
def test_ranges(remote: Any, content: bytes) -> None:
    assert remote.create("r", content)
    for start in (0, 1, 5, 9, 10, 11, 1000):
        for length in (None, 0, 1, 5, 9, 10, 11, 1 << 30):
            assert remote.get("r", start, length) == (content[start:] if length is None else content[start : start + length]), (start, length)


@pytest.mark.parametrize("size", [0, 1, 65537, 20 << 20])
def test_sizes(remote: Any, size: int) -> None:
    content = random.Random(size).randbytes(size)
    before = remote.now()
    assert remote.create("some/object", content)
    entry = remote.head("some/object")
    assert entry.name == "some/object" and entry.size == size and before - 2 <= entry.time <= remote.now() + 2
    assert remote.get("some/object") == content
    assert remote.get("some/object", size // 2, 1000) == content[size // 2 :][:1000]
    assert [(found.name, found.size) for found in remote.list("")] == [("some/object", size)]


ODD = (
    "0", "A", "a", "-", "_", "-.-", "a-b", "a.b", "a_b", "a0", "B/a", "b/A", "b/a", "b/a.tmp", "b-a", "b.a", "b0/x", "c/" * 30 + "deep", "e" * 200,
    "f/" + "0123456789abcdef" * 12, "g/..a".replace("..", "_.."), "packs/h/20261127T000000Z-0123456789abcdef/00000m-" + "0" * 64,
)  # fmt: skip


def test_names(remote: Any) -> None:
    for name in ODD:
        assert remote.create(name, name.encode())
    assert names_in(remote) == sorted(ODD)
    for name in ODD:
        assert remote.get(name) == name.encode() and not remote.create(name, b"")
        assert [entry.name for entry in remote.list(name)][0] == name
    remote.delete(ODD[::2])
    assert names_in(remote) == sorted(ODD[1::2])


def test_what_is_no_name(remote: Any) -> None:
    for name in ("", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/.", ".a", "a b", "a\n", "ä", "a\\b", "a?b", "a%2fb"):
        for act in (
            remote.get,
            remote.head,
            functools.partial(remote.create, data=b""),
            functools.partial(remote.put, data=b""),
            lambda name: remote.delete([name]),
        ):
            with pytest.raises(RemoteError, match="cannot be the name of an object"):
                act(name)
    assert names_in(remote) == []


def test_list(remote: Any) -> None:
    found = sorted(["a", "b-c", "b/1", "b/2", "b/c/3", "b0", "c/1", "c/2"])
    for name in found:
        remote.put(name, name.encode())
    assert names_in(remote, "") == found
    prefixes, afters = ("", "b", "b/", "b/c", "b/c/3", "b/c/3x", "c/", "x", "a/", "B"), ("", "a", "b", "b/", "b/1", "b/c/3", "b/c/4", "c/2", "zz", "b-c", "b-d")
    for prefix, after in sample.some([(prefix, after) for prefix in prefixes for after in afters], 40, "list"):
        assert names_in(remote, prefix, after) == [name for name in found if name.startswith(prefix) and name > after], (prefix, after)


@pytest.mark.costly
def test_long_listing(remote: Any) -> None:
    """More than a server lists at once."""
    many = [f"n/{number:04d}" for number in range(1003)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: remote.put(name, b"x"), many))
    assert names_in(remote) == many
    assert names_in(remote, "n/", "n/0500") == many[501:] == names_in(remote, "n/", "n/0500x")
    assert names_in(remote, "n/", "n/1000x") == many[1001:]
    listing = remote.list("")
    found = [next(listing).name for _number in range(10)]
    remote.delete([many[999]])  # the last of a page
    assert sorted({*found, *(entry.name for entry in listing), many[999]}) == many
    remote.delete([*many[:-1], "n/none"])
    assert names_in(remote) == many[-1:]


def test_delete(remote: Any) -> None:
    for name in ("a", "b/1", "b/2"):
        remote.put(name, b"x")
    remote.delete([])
    assert names_in(remote) == ["a", "b/1", "b/2"]
    remote.delete(iter(["b/1", *(f"b/none-{number}" for number in range(1200)), "a"]))
    assert names_in(remote) == ["b/2"]
    assert remote.create("a", b"again")


def test_clock(remote: Any) -> None:
    assert abs(remote.now() - time.time()) < 5
    remote.put("x", b"")
    assert abs(remote.now() - remote.head("x").time) < 5
    assert [entry.time for entry in remote.list("")] == pytest.approx([remote.head("x").time], abs=1)


def test_probe(remote: Any, kind: str) -> None:
    remote.put("kept", b"1")
    assert remote.probe() == FOUND[kind.partition("-")[0]]
    assert names_in(remote) == ["kept"]


def test_many_at_once(remote: Any, kind: str) -> None:
    line = threading.Barrier(8)

    def work(number: int) -> bool:
        content = random.Random(number).randbytes(300_000)
        line.wait()
        won = bool(remote.create("same", b"%d" % number))
        assert remote.create(f"own/{number}/a", content) and remote.get(f"own/{number}/a") == content
        assert names_in(remote, f"own/{number}/") == [f"own/{number}/a"]
        assert remote.get(f"own/{number}/a", 1000, 10) == content[1000:1010]
        remote.delete([f"own/{number}/a"])
        assert remote.head(f"own/{number}/a") is None
        return won

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(work, range(8)))
    if FOUND[kind.partition("-")[0]].commit == EXCLUSIVE:
        assert won.count(True) == 1 and remote.get("same") == b"%d" % won.index(True)
    else:
        assert won.count(True) >= 1 and won[int(remote.get("same"))]


@pytest.mark.parametrize("verb", ["create", "put", "get", "range", "head", "list", "delete", "now", "probe"])
@pytest.mark.parametrize("kind", ["directory", "moto", "rclone", "ceph"])
def test_place_that_is_not_there(kind: str, verb: str, servers: Servers, tmp_path: Path) -> None:
    if kind == "directory":
        remote: Any = directory.Directory(str(tmp_path / "none"))
    else:
        remote = opened(url(servers(kind).endpoint, "no-such-bucket"), servers(kind).keys["owner"])
    with pytest.raises(NoRemote):
        acts(remote)[verb]()


def acts(remote: Any) -> dict[str, Callable[[], Any]]:
    """Each verb, on an object that need not be there."""
    return {
        "create": lambda: remote.create("a", b""), "put": lambda: remote.put("a", b""), "get": lambda: remote.get("a"), "head": lambda: remote.head("a"),
        "range": lambda: remote.get("a", 1, 2), "list": lambda: list(remote.list("")), "delete": lambda: remote.delete(["a"]), "now": remote.now,
        "probe": remote.probe,
    }  # fmt: skip


# ---- servers and networks that fail


SECOND = sample.some(["moto-old", "ceph", "ceph-old"], 1, "between")


@pytest.fixture(params=["moto", *SECOND])
def between(request: pytest.FixtureRequest, servers: Servers) -> Iterator[tuple[http_faults.Proxy, Any]]:
    """A proxy that spoils, and a remote behind it."""
    server = servers(request.param.partition("-")[0])
    with http_faults.Proxy(server.endpoint) as proxy:
        yield proxy, servers.old(proxy.endpoint, server.keys["owner"]) if request.param.endswith("-old") else opened(url(proxy.endpoint), server.keys["owner"])


def is_put(request: Request) -> bool:
    return request.method == "PUT"


def is_read(request: Request) -> bool:
    return request.method == "GET" and "list-type" not in request.path


def is_list(request: Request) -> bool:
    return "list-type" in request.path


CONTENT = random.Random(1).randbytes(300_000)
#: What goes wrong with the first requests, and how many more of them it takes.
OVERCOME: dict[str, tuple[Callable[[], http_faults.Plan], int]] = {
    "500 twice": (lambda: http_faults.first(2, Answer(500, "InternalError"), is_put), 2),
    "502 without a body": (lambda: http_faults.first(1, Answer(502, ""), is_put), 1),
    "503": (lambda: http_faults.first(1, Answer(503, "SlowDown"), is_put), 1),
    "429": (lambda: http_faults.first(1, Answer(429, "TooManyRequests"), is_put), 1),
    "a conflict of writers": (lambda: http_faults.first(1, Answer(409, "ConditionalRequestConflict"), is_put), 1),
    "an upload that is too slow": (lambda: http_faults.first(1, Answer(400, "RequestTimeout"), is_put), 1),
    "an upload cut at its start": (lambda: http_faults.first(1, http_faults.CutUpload(0), is_put), 1),
    "an upload cut in its middle": (lambda: http_faults.first(2, http_faults.CutUpload(100_000), is_put), 2),
    "no answer to a download": (lambda: http_faults.first(2, http_faults.Refused(), is_read), 2),
    "a download cut at its start": (lambda: http_faults.first(1, http_faults.CutAnswer(0), is_read), 1),
    "a download cut in its middle": (lambda: http_faults.first(2, http_faults.CutAnswer(100_000), is_read), 2),
    "a listing cut at its start": (lambda: http_faults.first(1, http_faults.CutAnswer(0), is_list), 1),
    "a listing cut in its middle": (lambda: http_faults.first(1, http_faults.CutAnswer(120), is_list), 1),
    "an answer to delete cut at its start": (lambda: http_faults.first(1, http_faults.CutAnswer(0), lambda request: request.method == "POST"), 1),
    "an answer to delete that is lost": (lambda: http_faults.first(1, http_faults.Lost(), lambda request: request.method == "POST"), 1),
    "an answer to head that is lost": (lambda: http_faults.first(1, http_faults.Lost(), lambda request: request.method == "HEAD"), 1),
    "a delay": (lambda: http_faults.first(2, http_faults.Delay(0.3)), 0),
}


@pytest.mark.parametrize(
    ("between", "case"),
    [(kind, case) for kind in ("moto", *SECOND) for case in sample.some(list(OVERCOME), 99 if kind == "moto" else 5, kind)],
    indirect=["between"],
)
def test_what_is_overcome(case: str, between: tuple[http_faults.Proxy, Any]) -> None:
    proxy, remote = between
    plan, more = OVERCOME[case]
    proxy.plan = plan()
    assert remote.create("a", CONTENT)
    assert remote.get("a") == CONTENT
    assert remote.head("a").size == len(CONTENT)
    assert names_in(remote) == ["a"]
    remote.delete(["a"])
    assert len(proxy.seen) == 5 + more
    proxy.plan = http_faults.nothing
    assert names_in(remote) == []


def test_every_third_request_fails(between: tuple[http_faults.Proxy, Any]) -> None:
    proxy, remote = between
    proxy.plan = http_faults.every(3, Answer(503, "SlowDown"))
    found = [f"n/{number}" for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda name: remote.create(name, CONTENT), found))
    assert names_in(remote) == found and all(remote.get(name) == CONTENT for name in found)


def test_retry_after(between: tuple[http_faults.Proxy, Any]) -> None:
    proxy, remote = between
    proxy.plan = http_faults.first(1, Answer(503, "SlowDown", {"Retry-After": "2"}))
    start = time.monotonic()
    assert remote.create("a", b"1")
    assert 2 <= time.monotonic() - start < 10


def test_probe_while_answers_are_lost(between: tuple[http_faults.Proxy, Any]) -> None:
    """What a server can do does not depend on the network between."""
    proxy, remote = between
    plain = remote.probe()
    for fault in (http_faults.Lost(), http_faults.Twice(), Answer(503, "SlowDown")):
        proxy.plan = http_faults.every(3, fault, is_put)
        assert remote.probe() == plain and plain.commit == EXCLUSIVE
    proxy.plan = http_faults.nothing
    assert names_in(remote) == []


@pytest.mark.parametrize("fault", [http_faults.Lost(), http_faults.Twice(), http_faults.CutAnswer(0)], ids=["lost", "twice", "cut"])
def test_the_answer_to_create_is_lost(fault: http_faults.Fault, between: tuple[http_faults.Proxy, Any]) -> None:
    """Then the name may be said to be taken, by the same bytes."""
    proxy, remote = between
    proxy.plan = http_faults.first(1, fault, is_put)
    remote.create("a", CONTENT)
    assert remote.get("a") == CONTENT
    proxy.plan = http_faults.first(1, fault, is_put)
    remote.put("b", CONTENT)
    assert remote.get("b") == CONTENT


def test_an_upload_altered_on_its_way(servers: Servers) -> None:
    for kind in ("rclone", "ceph"):
        server = servers(kind)
        with http_faults.Proxy(server.endpoint) as proxy:
            remote = opened(url(proxy.endpoint), server.keys["owner"])
            proxy.plan = http_faults.first(2, http_faults.Altered(100), is_put)
            remote.put("a", CONTENT)
            assert remote.get("a") == CONTENT and len([request for request in proxy.seen if is_put(request)]) == 3
            proxy.plan = http_faults.on(is_put, http_faults.Altered(100))
            remote._patience = 1.0
            with pytest.raises(RemoteError, match="uploaded data arrived altered; check the network and proxies, then run again"):
                remote.create("b", CONTENT)
            assert remote.get("b") is None


def test_a_listing_that_is_late(between: tuple[http_faults.Proxy, Any]) -> None:
    proxy, remote = between
    proxy.plan = http_faults.on(is_list, http_faults.Late(30))
    assert remote.create("a", b"1") and names_in(remote) == [] and remote.get("a") == b"1"


#: What does not pass: exception, sentence, and whether it is asked only once.
FINAL: dict[str, tuple[http_faults.Fault, type[RemoteError], str, bool]] = {
    "expired": (Answer(403, "ExpiredToken"), RemoteRefused, "the credentials have expired; get new ones for this remote", True),
    "read only": (
        Answer(403, "AccessDenied"),
        RemoteRefused,
        "the credentials lack permission to write a; change the policy of their key, or use another key",
        True,
    ),
    "an unknown key": (
        Answer(403, "InvalidAccessKeyId"),
        RemoteRefused,
        "the access key is unknown to the server; correct the credentials of this remote",
        True,
    ),
    "a wrong secret": (Answer(403, "SignatureDoesNotMatch"), RemoteRefused, "the secret key does not fit the access key; correct the credentials", True),
    "403 without a body": (Answer(403, ""), RemoteRefused, "the credentials lack permission to write a; ", True),
    "401": (Answer(401, ""), RemoteRefused, "the server does not accept the credentials; correct those of this remote", True),
    "full": (Answer(507, ""), RemoteFull, "no space is left on the remote; free space there, then run again", True),
    "a quota": (Answer(403, "QuotaExceeded"), RemoteFull, "the quota of the remote is used up; raise it, or delete data there", True),
    "no bucket": (Answer(404, "NoSuchBucket"), NoRemote, "bucket copies does not exist there; create it, or correct the URL", True),
    "another region": (Answer(400, "AuthorizationHeaderMalformed"), RemoteError, "the bucket is in another region; add region=NAME to the URL", True),
    "no such ability": (Answer(501, "NotImplemented"), RemoteError, "the server does not implement what it needs to write a; use another S3 server", True),
    "an odd refusal": (Answer(400, "Weird"), RemoteError, "the server refuses to write a: Weird as the test wants; see its documentation", True),
    "503 for ever": (Answer(503, "SlowDown"), RemoteUnreachable, "the server is overloaded; run again later, with fewer `jobs`. Tried ", False),
    "500 for ever": (Answer(500, ""), RemoteUnreachable, "the server answers with HTTP 500; run again later. Tried ", False),
    "a long Retry-After": (Answer(503, "SlowDown", {"Retry-After": "3600"}), RemoteUnreachable, "the server is overloaded; run again later", True),
    "cut for ever": (http_faults.CutUpload(100), RemoteUnreachable, "breaks; check the network, then run again. Tried ", False),
}


@pytest.mark.parametrize("case", FINAL)
def test_what_is_final(case: str, servers: Servers) -> None:
    fault, error, sentence, once = FINAL[case]
    keys = servers("moto").keys["owner"]
    with http_faults.Proxy(servers("moto").endpoint) as proxy:
        remote = opened(url(proxy.endpoint), keys, patience=2.0)
        proxy.plan = http_faults.on(is_put, fault)
        start = time.monotonic()
        with pytest.raises(error) as caught:
            remote.create("a", CONTENT)
        assert time.monotonic() - start < 10
        assert sentence in caught.value.message and caught.value.message.startswith(f"{remote.where}: ")
        assert caught.value.code == error.code
        assert (len(proxy.seen) == 1) == once
        assert tells_no_secret(caught.value, keys)


def tells_no_secret(error: BaseException, keys: dict[str, str]) -> bool:
    told = "".join(traceback.format_exception(type(error), error, error.__traceback__)) + repr(error) + repr(vars(error))
    return not any(secret in told for secret in keys.values()) and error.__context__ is None


def test_why_a_head_is_refused(servers: Servers) -> None:
    """An answer to HEAD has no body, so there is no name of the error in it."""
    with http_faults.Proxy(servers("moto").endpoint) as proxy:
        remote = opened(url(proxy.endpoint), servers("moto").keys["owner"])
        proxy.plan = http_faults.on(lambda request: True, Answer(403, "ExpiredToken"))
        with pytest.raises(RemoteRefused, match="have expired"):
            remote.head("a")
        with pytest.raises(RemoteRefused, match="have expired"):
            remote.now()


def test_a_server_that_knows_no_conditions(servers: Servers) -> None:
    with http_faults.Proxy(servers("moto").endpoint) as proxy:
        remote = opened(url(proxy.endpoint), servers("moto").keys["owner"])
        proxy.plan = http_faults.on(lambda request: request.creates, Answer(501, "NotImplemented"))
        assert remote.probe().commit == TIMED
        assert remote.create("a", b"first") and not remote.create("a", b"later")
        assert names_in(remote) == ["a"] and remote.get("a") == b"first"


def test_no_answer(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "_READ", 0.5)
    with http_faults.Proxy(servers("moto").endpoint) as proxy:
        remote = opened(url(proxy.endpoint), servers("moto").keys["owner"], patience=4.0)
        proxy.plan = http_faults.first(1, http_faults.Delay(4))
        assert remote.create("a", b"1")
        proxy.plan = http_faults.on(lambda request: True, http_faults.Delay(4))
        with pytest.raises(RemoteUnreachable, match="does not answer in time; run again later"):
            remote.create("b", b"1")


# ---- what users get wrong


def refused(act: Callable[[], Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as caught:
        act()
    assert sentence in str(caught.value), str(caught.value)


@pytest.mark.parametrize("kind", ["rclone", "ceph"])
def test_wrong_keys(kind: str, servers: Servers) -> None:
    server = servers(kind)
    keys = server.keys["owner"]
    for wrong, sentence in (({**keys, "secret_key": "not" + keys["secret_key"]}, "the secret key does not fit the access key; correct the credentials"),
                            ({**keys, "access_key": "AKNONE00000000000000"}, "the access key is unknown to the server; correct the credentials")):  # fmt: skip
        remote = opened(url(server.endpoint), wrong)
        for act in acts(remote).values():
            refused(act, RemoteRefused, sentence)


def test_a_key_that_may_only_read(servers: Servers) -> None:
    server = servers("ceph")
    place = url(server.endpoint)
    opened(place, server.keys["owner"]).put("a", b"1")
    allow = {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/reader"]}, "Action": ["s3:GetObject", "s3:ListBucket"],
             "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]}  # fmt: skip
    server.client().put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
    remote = opened(place, server.keys["reader"])
    assert remote.get("a") == b"1" and names_in(remote) == ["a"] and remote.get("b") is None
    refused(lambda: remote.create("b", b""), RemoteRefused, "the credentials lack permission to write b; change the policy of their key, or use another key")
    refused(lambda: remote.delete(["a"]), RemoteRefused, "the credentials lack permission to remove a; change the policy of their key, or use another key")
    refused(remote.probe, RemoteRefused, "the credentials lack permission to write probe/")
    assert remote.get("a") == b"1"


def test_some_may_not_be_removed(servers: Servers) -> None:
    server = servers("ceph")
    server.make_bucket("guarded")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::guarded/kept/*"}
    server.client().put_bucket_policy(Bucket="guarded", Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    remote = opened(f"s3://guarded?endpoint={server.endpoint}", server.keys["owner"])
    for name in ("a", "kept/1", "kept/2"):
        remote.put(name, b"")
    refused(lambda: remote.delete(["kept/1", "a", "kept/2"]), RemoteRefused, "the credentials lack permission to remove kept/1 and 1 more; change the policy")
    assert names_in(remote) == ["kept/1", "kept/2"]


def test_a_full_store(servers: Servers) -> None:
    server = servers("ceph")
    server.make_bucket("small", "small")
    remote = opened(url(server.endpoint, "small"), server.keys["small"])
    for number in range(3):
        assert remote.create(f"n/{number}", b"1")
    refused(lambda: remote.create("n/3", b"1"), RemoteFull, "the quota of the remote is used up; raise it, or delete data there")
    assert names_in(remote) == ["n/0", "n/1", "n/2"]
    remote.delete(["n/0"])
    assert remote.create("n/3", b"1")


@pytest.mark.parametrize("python", ["new", "old"])
@pytest.mark.parametrize("kind", ["rclone", "ceph"])
def test_a_wrong_clock(kind: str, python: str, servers: Servers) -> None:
    need("faketime")
    server = servers(kind)
    command = old_python() if python == "old" else [sys.executable]
    for shift, word in (("+1h", "ahead of"), ("-1h", "behind")):
        with apart.S3(["faketime", "-f", shift, *command], FAKETIME_DONT_FAKE_MONOTONIC="1") as remote:
            remote.open(url(server.endpoint), server.keys["owner"], patience=5.0)
            refused(lambda: remote.create("a", b""), RemoteRefused, f"the clock of this host is 60 minutes {word} that of the server; set it, then run again")


def test_a_certificate_that_is_not_trusted(servers: Servers, tmp_path: Path) -> None:
    server = servers("moto")
    certificate = http_faults.certificate(tmp_path)
    with http_faults.Proxy(server.endpoint, certificate) as proxy:
        remote = opened(url(proxy.endpoint), server.keys["owner"])
        refused(lambda: remote.create("a", b"1"), RemoteError, "is not trusted: self-signed certificate; correct it there, or give its authority as `ca`")
        remote = opened(url(proxy.endpoint), server.keys["owner"], ca=str(tmp_path / "alone.pem"))
        assert remote.create("a", b"1") and remote.get("a") == b"1" and not remote.create("a", b"2")
        assert FOUND["moto"] == remote.probe()
        assert all(len(request.headers["X-Amz-Content-SHA256"]) == 64 for request in proxy.seen)  # what is sent is signed, also over TLS


def test_what_does_not_answer(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_FIRST", 1.0)
    keys, closed = s3_servers.new_keys(), s3_servers.free_port()
    for place, options, sentence in (
        (url(f"http://127.0.0.1:{closed}"), {}, f"127.0.0.1:{closed} refuses connections; check the URL, and that the server runs"),
        (url("https://store.invalid"), {}, "the host name store.invalid does not resolve; correct the URL, or check DNS on this host"),
        (url(servers("moto").endpoint), {"proxy": f"http://user:hidden@127.0.0.1:{closed}"}, "the proxy does not connect to"),
        (url(servers("moto").endpoint.replace("http:", "https:")), {}, "does not speak TLS; check the URL"),
    ):  # fmt: skip
        remote = opened(place, keys, **options)
        with pytest.raises(RemoteUnreachable) as caught:
            remote.create("a", b"")
        assert sentence in caught.value.message and "hidden" not in str(caught.value) and tells_no_secret(caught.value, keys)


def test_a_proxy(servers: Servers) -> None:
    """A request through a proxy names the whole URL."""
    server = servers("rclone")
    with http_faults.Proxy(server.endpoint) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.delenv("NO_PROXY")
        remote = opened(url("http://store.invalid"), server.keys["owner"], proxy=proxy.endpoint)
        assert remote.create("a", b"1") and remote.get("a") == b"1"
        assert all(request.path.startswith("http://store.invalid/") for request in proxy.seen)


def test_credentials_of_the_host(servers: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = servers("rclone")
    keys, place = server.keys["owner"], url(server.endpoint)
    refused(lambda: opened(place, None).get("a"), RemoteRefused, "no credentials were found on this host; give this remote `credentials`")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["access_key"])
    refused(lambda: opened(place, None).get("a"), RemoteRefused, "the credentials of this host are incomplete; complete them")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["secret_key"])
    assert opened(place, None).get("a") is None
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    profiles = tmp_path / "credentials"
    profiles.write_text(f"[backup]\naws_access_key_id = {keys['access_key']}\naws_secret_access_key = {keys['secret_key']}\n", encoding="ascii")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profiles))
    assert opened(place, {"profile": "backup"}).get("a") is None
    refused(lambda: opened(place, {"profile": "other"}), RemoteRefused, "this profile is not in the AWS configuration of this user; correct its name")


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"access_key": "AK", "secret_key": "hidden\n"}, "secret_key of the credentials contains spaces at the ends, a line break or other invalid characters"),
        ({"access_key": "AK"}, "credentials need `access_key` and `secret_key`, or else `profile`, or else `credential`; correct them"),
        ({"secret_key": "hidden"}, "credentials need `access_key` and `secret_key`"),
        ({"access_key": "AK", "secret_key": "hidden", "profile": "p"}, "credentials need `access_key` and `secret_key`, or else `profile`"),
        ({"session_token": "hidden"}, "credentials need `access_key` and `secret_key`"),
        ({"key": "hidden"}, "credentials have the unknown key key; use access_key, secret_key, session_token, profile"),
    ],
)
def test_bad_credentials(keys: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        opened("s3://bucket", keys)
    assert sentence in caught.value.message and "hidden" not in repr(caught.value)


def test_ca_that_is_not_there(tmp_path: Path) -> None:
    refused(
        lambda: opened("s3://bucket", s3_servers.new_keys(), ca=str(tmp_path / "none")), UsageError, "cannot be read: no such file or directory; correct it"
    )


def test_without_boto3() -> None:
    need("setpriv")
    sentence = "S3 needs the Python package boto3 on this host; install python3-boto3, then run again"
    with apart.S3([OLD, "-S"]) as remote:
        refused(lambda: remote.open("s3://bucket/x", s3_servers.new_keys()), RemoteError, sentence)


#: What moto says that the role of its machine has.
ROLE = {"access_key": "test-key", "secret_key": "test-secret-key"}


def test_the_role_of_the_machine(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials, a service of the machine gives those of its role. The server looks at the signature."""
    with s3_servers.rclone(tmp_path, ROLE) as server:
        server.make_bucket(BUCKET)
        place = url(server.endpoint)
        refused(lambda: opened(place, None).get("a"), RemoteRefused, "no credentials")
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", servers("moto").endpoint)
        remote = opened(place, None)
        assert remote.create("a", b"by the role") and remote.get("a") == b"by the role"


def test_session_token(servers: Servers) -> None:
    with http_faults.Proxy(servers("moto").endpoint) as proxy:
        remote = opened(url(proxy.endpoint), {**s3_servers.new_keys(), "session_token": "for-a-day"})
        remote.put("a", b"")
        assert [request.headers["X-Amz-Security-Token"] for request in proxy.seen] == ["for-a-day"]


def test_no_credentials_are_shown(servers: Servers) -> None:
    keys = s3_servers.new_keys()
    remote = opened(url(servers("moto").endpoint), keys)
    assert not any(secret in f"{remote!r}{remote.where}" for secret in keys.values())


# ---- options


def test_storage_class(servers: Servers) -> None:
    server = servers("moto")
    remote = opened(url(server.endpoint, prefix="classes"), server.keys["owner"], storage_class="STANDARD_IA")
    push = "h/20261127T000000Z-0123456789abcdef"
    expected = {f"packs/{push}/00000-{'0' * 64}": "STANDARD_IA", f"packs/{push}/00000m-{'0' * 64}": None, f"commits/{push}": None}
    for name, wanted in expected.items():
        assert remote.create(name, b"1")
        assert server.client().head_object(Bucket=BUCKET, Key=f"classes/{name}").get("StorageClass") == wanted


def test_bandwidth(servers: Servers) -> None:
    """Four threads share it."""
    server = servers("moto")
    remote = opened(url(server.endpoint), server.keys["owner"], pace=pace.Pace(400_000))
    content = random.Random(2).randbytes(100_000)
    start = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda number: remote.create(f"n/{number}", content), range(4)))
    assert 0.9 <= time.monotonic() - start < 3
    assert all(remote.get(f"n/{number}") == content for number in range(4))


def test_one_bucket_has_several_remotes(servers: Servers) -> None:
    server = servers("moto")
    one, other = (opened(url(server.endpoint, prefix=prefix), server.keys["owner"]) for prefix in ("fleet/one", "fleet/one-more"))
    one.put("a", b"1")
    other.put("b", b"2")
    assert names_in(one) == ["a"] and names_in(other) == ["b"] and one.get("b") is None


def test_a_server_that_lists_the_same_again_and_again(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not know where to go on must not be taken for one with few objects, and not be asked for ever."""
    server = servers("moto")
    monkeypatch.setattr(s3, "_PAGE", 3)
    with http_faults.Proxy(server.endpoint) as proxy:
        remote = opened(url(proxy.endpoint), server.keys["owner"])
        for number in range(7):
            remote.put(f"n/{number}", b"")
        assert len(names_in(remote)) == 7 and len([request for request in proxy.seen if is_list(request)]) == 3
        monkeypatch.setattr(remote, "_page", lambda start, place: ([(f"{remote._top}n/{number}", 0, 0.0) for number in range(3)], True))
        refused(lambda: names_in(remote), RemoteError, "the server returns listings out of order; use another S3 server")


def test_what_others_put_there(servers: Servers) -> None:
    server = servers("moto")
    remote = opened(url(server.endpoint, prefix="mixed"), server.keys["owner"])
    for key in ("mixed/", "mixed/a", "mixed/a b", "mixed/a/", "mixed/é", "mixed//x", "mixed/z"):
        server.client().put_object(Bucket=BUCKET, Key=key, Body=b"")
    assert names_in(remote) == ["a", "z"] and names_in(remote, "", "a") == ["z"]
