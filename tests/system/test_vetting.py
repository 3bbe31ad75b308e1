# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stolen host of a shared domain writes what it can below its own names. Vetting goes on, and the backups of a host with `vetted: true` stay whole."""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._base import Damaged, RemoteError, RemoteRefused, now
from ansible_collections.volt.backup.plugins.module_utils._remote import age, age_program, commits, indexes, names, packs, sealed as sealed_keys
from ansible_collections.volt.backup.plugins.module_utils._remote.directory import Directory
from ansible_collections.volt.backup.plugins.module_utils._remote.keys import Keys
from ansible_collections.volt.backup.tests.rigs import need
from ansible_collections.volt.backup.tests.unit.kit import noise

from .test_push import Place, made
from .test_push_share import Peer, Vetter

_PARTS = [noise(300_000), noise(90_000, 1), noise(3 << 20, 2)]


@pytest.fixture
def place(bench: Any) -> Place:
    need("zstd")
    bench.files(**{f"part{number}": part for number, part in enumerate(_PARTS)})
    place = made(bench)
    Peer(place, "first").push()
    return place


class Thief:
    """What a stolen host sends: packs of blobs that others have, as well."""

    def __init__(self, place: Place, name: str = "web0") -> None:
        self.push = names.new_push(name, now())
        self._remote = Directory(str(place.top))

    def send(self, data: bytes, number: int = 0) -> names.Pack:
        pack = names.Pack(self.push, number, False, hashlib.sha256(data).hexdigest())
        assert self._remote.create(pack.name, data)
        return pack

    def tell(self, *packs_: tuple[names.Pack, bytes], number: int = 0) -> None:
        """An index that says what is in packs."""
        data = indexes.encode(self.push, number, packs_, lambda body: body, 0)
        assert self._remote.create(self.push.index_name(number), data)


def segment(parts: Sequence[bytes], form: str = "", stored: bytes | None = None, more: int = 0) -> packs.Segment:
    """:param more: is added to the length of the last blob."""
    plain = b"".join(parts)
    blobs = [(hashlib.sha256(part).digest(), len(part) + more * (part is parts[-1])) for part in parts]
    return packs.Segment(plain if stored is None else stored, form, len(plain), packs.BLOBS, blobs)


def built(*segments: packs.Segment) -> tuple[bytes, bytes]:
    """A pack, and what an index should say of it."""
    builder = packs.Builder(packs.CONTENT)
    for item in segments:
        builder.add(item)
    lines = b"".join(indexes.LINE.pack(number, digest, length) for number, item in enumerate(segments) for digest, length in item.blobs)
    return builder.finish(), lines


def sound_pack() -> tuple[bytes, bytes]:
    """A pack of all content, as a push would write it."""
    return built(segment(_PARTS[:2]), segment(_PARTS[2:]))


def with_header(data: bytes, **changed: Any) -> bytes:
    fields = dict(zip(("magic", "random", "segments", "blobs", "kind"), packs._HEADER.unpack_from(data)))
    return packs._HEADER.pack(*{**fields, **changed}.values()) + data[packs.HEADER :]


def zstd(data: bytes, *options: str) -> bytes:
    """A frame that says its size, unless an option tells otherwise."""
    return subprocess.run(["zstd", "-qc", *(options or [f"--stream-size={len(data)}"])], input=data, stdout=subprocess.PIPE, check=True).stdout


def zstd_pack(*stored: bytes) -> tuple[bytes, bytes]:
    return built(segment(_PARTS[:2]), segment(_PARTS[2:], ".zst", b"".join(stored)))


def empty_segments() -> tuple[bytes, bytes]:
    """Its head takes a reader much memory."""
    data, lines = sound_pack()
    first = packs.HEADER + 2 * packs._SEGMENT.size
    return with_header(data, segments=100_002)[:first] + bytes(packs._SEGMENT.size * 100_000) + data[first:], lines


_TRICKS: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "newer": lambda: (b"VOLTRPK9" + bytes(99), b""),
    "kind": lambda: (with_header(sound_pack()[0], kind=7), sound_pack()[1]),
    "longer than it is": lambda: built(segment(_PARTS[:2], more=1), segment(_PARTS[2:], more=1)),
    "more than a restore takes": lambda: built(segment([*_PARTS, noise(20 << 20, 9)])),
    "twice": lambda: built(segment(_PARTS[:2]), segment(_PARTS[2:]), segment(_PARTS[:1])),
    "empty segments": empty_segments,
    "zstd without its size": lambda: zstd_pack(zstd(_PARTS[2], "--no-content-size")),
    "zstd and more": lambda: zstd_pack(zstd(_PARTS[2]), b"more"),
    "two frames": lambda: zstd_pack(zstd(_PARTS[2]), zstd(b"")),
}


@pytest.mark.parametrize("trick", sorted(_TRICKS))
def test_packs_that_no_push_writes(place: Place, tmp_path: Path, trick: str) -> None:
    """Their blobs are right as one reader takes them. Another one would refuse them, or need too much for them."""
    thief, vet = Thief(place), Vetter(place)
    data, lines = _TRICKS[trick]()
    pack = thief.send(data)
    thief.tell((pack, lines))
    found = vet()
    assert [item["file"] for item in found.damage] == [pack.name] and found.vetted == {"packs": 2, "before": 0}
    for kind in ("packs", "indexes", "commits"):
        shutil.rmtree(place.top / kind / "first")
    wary = Peer(place, "wary", vetted=True)
    assert wary.push() > 3 << 20 and wary.restored(tmp_path / "back") == [] and wary.sound()


def test_packs_as_a_push_writes_them(place: Place, tmp_path: Path) -> None:
    """The tricks above are of this pack."""
    for number, (data, lines) in enumerate((sound_pack(), zstd_pack(zstd(_PARTS[2])))):
        thief = Thief(place)
        thief.tell((thief.send(data), lines))
        found = Vetter(place)()
        assert found.damage == []
        for kind in ("packs", "indexes", "commits"):
            shutil.rmtree(place.top / kind / "first", ignore_errors=True)
        wary = Peer(place, f"wary{number}", vetted=True)
        assert wary.push() < 3000 and wary.restored(tmp_path / f"back{number}") == []
        for kind in ("packs", "indexes"):
            shutil.rmtree(place.top / kind / "web0")


def test_an_object_that_cannot_be_read_is_passed_over(place: Place) -> None:
    """It is too large, or the storage does not give it: a host may have sent it with a key of its own."""
    thief, vet = Thief(place), Vetter(place)
    large, refused = thief.send(b"large"), thief.send(b"refused", 1)
    os.truncate(place.top / large.name, 65 << 20)
    get = Directory.get

    def refuse(self: Directory, name: str, *words: Any) -> Any:
        if name == refused.name:
            raise RemoteRefused("refused")
        return get(self, name, *words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Directory, "get", refuse)
        found = vet()
    assert sorted(item["file"] for item in found.damage) == sorted([large.name, refused.name]) and found.vetted == {"packs": 2, "before": 0}


def test_a_long_table_is_vetted(place: Place) -> None:
    """A list of the chunks of an image, or a table of hard links, may have more bytes than any object of a remote, before it is compressed."""
    table = bytes(65 << 20)
    data, lines = built(segment([table], ".zst", zstd(table)))
    thief = Thief(place)
    thief.tell((thief.send(data), lines))
    found = Vetter(place)()
    assert found.damage == [] and found.vetted == {"packs": 3, "before": 0}


def test_credentials_that_may_not_read_packs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    get = Directory.get

    def refuse(self: Directory, name: str, *words: Any) -> Any:
        if name.startswith(names.PACKS):
            raise RemoteRefused("may not read")
        return get(self, name, *words)

    monkeypatch.setattr(Directory, "get", refuse)
    with pytest.raises(RemoteRefused, match="may not read"):
        Vetter(place)()


@pytest.mark.parametrize("number, spread", [(10**7, 1), (10**15, 1), (400_000, 3)])
def test_numbers_that_no_commit_can_name(place: Place, tmp_path: Path, number: int, spread: int) -> None:
    """A commit has a bitmap of the numbers of packs, and readers refuse one that is too long. The packs are sound."""
    for part in range(spread):
        thief = Thief(place)
        data, lines = built(segment(_PARTS[part : part + 1])) if spread > 1 else sound_pack()
        thief.tell((thief.send(data, number), lines))
    Vetter(place)()
    for kind in ("packs", "indexes", "commits"):
        shutil.rmtree(place.top / kind / "first")
    wary, trusting = Peer(place, "wary", vetted=True), Peer(place, "trusting")
    for peer in (wary, trusting):
        peer.push()
        assert peer.restored(tmp_path / f"of-{peer.name}") == [] and peer.sound()
        peer.back_up()
        peer.push()
        assert peer.sound()
        for kind in ("packs", "indexes", "commits"):
            shutil.rmtree(place.top / kind / peer.name)


def test_a_commit_that_no_reader_takes_is_not_written() -> None:
    push = names.new_push("web1", now())
    commit = commits.Commit(push, 1, None, "", [], {push: {commits.NEEDS_MOST * 8}})
    with pytest.raises(Exception, match="more packs than a commit can name"):
        commits.encode(commit, b"", b"", False, Keys().sign)


@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_an_index_that_says_wrong_things_of_packs_of_others(place: Place, name: str) -> None:
    """It is read before their own, or after it."""
    (index,) = (place.top / "indexes" / "first").iterdir()
    Thief(place, name).tell(*((pack, body[:-1] + b"x") for pack, body in indexes.parse(index.read_bytes())))
    Vetter(place)()
    assert Peer(place, "wary", vetted=True).push() == 0


@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_a_pack_that_is_never_vetted_hides_none(place: Place, tmp_path: Path, name: str) -> None:
    """The index of a thief says that it has what is in a pack of another host, before that is vetted."""
    thief, vet = Thief(place, name), Vetter(place)
    wary, first = Peer(place, "wary", vetted=True), Peer(place, "first")
    vet()
    assert wary.push() == 0
    before = {*(place.top / "indexes" / "first").iterdir()}
    place.bench.files(new=noise(200_000, 50))
    first.back_up()
    first.push()
    (index,) = {*(place.top / "indexes" / "first").iterdir()} - before
    thief.tell((thief.send(b"rubbish"), b"".join(body for _pack, body in indexes.parse(index.read_bytes()))))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_bytes(b"1")
    wary.manager.create(CreateRequest("mine", str(tmp_path / "mine"), compression="zlib"))
    assert wary.push() > 0, "it looks at what others have"
    vet()
    wary.back_up()
    assert wary.push() < 1000


def odd_files(data: bytes, recovery: sealed_keys.Recovery) -> dict[str, bytes]:
    """Files for age that hold the same: one as it should be, one with a line too many in its header, and one with an empty chunk at its end."""
    tools = age._primitives()
    assert tools is not None
    key, nonce, secret = bytes(16), bytes(16), bytes(range(32))
    public, share = tools.public(age._secret(recovery.data)), tools.public(secret)
    wrapped = tools.cipher(age.derive(tools.agree(secret, public), share + public, age._LABEL)).encrypt(bytes(12), key, None)
    stanza = age._INTRO + b"-> X25519 " + age._base64(share) + b"\n" + age._base64(wrapped) + b"\n"
    cipher = tools.cipher(age.derive(key, nonce, b"payload"))
    found = {}
    for name, line, more in (("good", b"", b""), ("a line", b"?\n", b""), ("a chunk", b"", b"\0")):
        header = stanza + line + b"---"
        mac = hmac.new(age.derive(key, b"", b"header"), header, hashlib.sha256).digest()
        last = 1 if more else 0
        body = cipher.encrypt(age._nonce(0, last), data, None) + (cipher.encrypt(age._nonce(1, 1), b"", None) if more else b"")
        found[name] = header + b" " + age._base64(mac) + b"\n" + nonce + body
    return found


def test_files_for_age_that_no_push_writes(tmp_path: Path) -> None:
    """This program opens them, and the program age does not. A host may have only that when it restores."""
    need("age")
    recovery = sealed_keys.new_recovery()
    keys = sealed_keys.Sealed(recovery.of_host("web0"), recovery)
    data = noise(64 << 10)
    for name, stored in odd_files(data, recovery).items():
        assert keys.open_data(stored) == data
        if name == "good":
            assert age_program.unseal(stored, [recovery.data]) == data and keys.seals_alike(stored, len(data))
            continue
        with pytest.raises(Damaged):
            age_program.unseal(stored, [recovery.data])
        assert not keys.seals_alike(stored, len(data))


def test_what_is_sealed_by_the_program_age_is_vetted() -> None:
    need("age")
    recovery = sealed_keys.new_recovery()
    keys = sealed_keys.Sealed(recovery.of_host("web0"), recovery)
    for size in (0, 1, 65536, 65537, 200_000):
        for seal in (age.seal, age_program.seal):
            assert keys.seals_alike(seal(bytes(size), [age.recipient(recovery.data)]), size)


def test_an_odd_file_for_age_is_not_vetted(place: Place, tmp_path: Path) -> None:
    recovery = sealed_keys.new_recovery()
    sealed = Place(place.bench, tmp_path / "sealed")
    sealed.top.mkdir()
    sealed_keys.write(str(tmp_path / "web1.key"), recovery.of_host("web1").text())
    peer = Peer(sealed, "web1", keys=str(tmp_path / "web1.key"))
    peer.remote().begin()
    peer.push()
    small, _lines = built(segment([b"small"]))
    thief = Thief(sealed)
    sent = {name: thief.send(data, number).name for number, (name, data) in enumerate(odd_files(small.ljust(64 << 10, b"-"), recovery).items())}
    found = Vetter(sealed, recovery)()
    reasons = {item["file"]: item["reason"] for item in found.damage}
    assert "segments" in reasons.pop(sent.pop("good"))
    assert reasons == dict.fromkeys(sent.values(), "It is sealed in a form that no push writes.")


@pytest.mark.parametrize("error", [RemoteRefused("refused"), RemoteError("in an archive")])
@pytest.mark.parametrize("vetted", [False, True])
def test_an_index_that_the_storage_does_not_give_out(place: Place, vetted: bool, error: RemoteError, monkeypatch: pytest.MonkeyPatch) -> None:
    """On S3 a host can send an object to an archive, or seal it with a key that others may not use. That keeps no other host from its backups."""
    thief = Thief(place, "aaa")
    data, lines = built(segment([b"something"]))
    thief.tell((thief.send(data), lines))
    Vetter(place)()
    get = Directory.get

    def refuse(self: Directory, name: str, *words: Any) -> Any:
        if name.startswith(f"{names.INDEXES}aaa/"):
            raise error
        return get(self, name, *words)

    monkeypatch.setattr(Directory, "get", refuse)
    peer = Peer(place, "wary", vetted=vetted)
    assert peer.push() == 0
    place.bench.files(more=b"1")
    peer.back_up()
    assert peer.push() > 0 and peer.sound()


def test_a_list_that_the_storage_gives_out_no_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples of an index were read, and the list of a pack is not."""
    peer, get, asked = Peer(place, "wary"), Directory.get, []

    def refuse(self: Directory, name: str, *words: Any) -> Any:
        if name.startswith(f"{names.INDEXES}first/"):
            asked.append(name)
            if len(asked) > 1:
                raise RemoteError("in an archive")
        return get(self, name, *words)

    monkeypatch.setattr(Directory, "get", refuse)
    assert peer.push() > 3 << 20 and len(asked) > 1 and peer.sound()


def test_switched_on_and_off(place: Place, tmp_path: Path) -> None:
    """What was remembered of others before counts no more than what is read now."""
    first, peer, vet = Peer(place, "first"), Peer(place, "peer"), Vetter(place)

    def sent(number: int, vetted: bool) -> int:
        """After the other host has sent something new, which is vetted later."""
        place.bench.files(**{f"new{number}": noise(200_000, 60 + number)})
        first.back_up()
        first.push()
        peer.settings = peer.settings._replace(vetted=vetted)
        peer.back_up()
        return peer.push()

    assert sent(0, vetted=False) < 3000
    assert sent(1, vetted=True) > 200_000
    vet()
    assert sent(2, vetted=False) < 3000
    assert sent(3, vetted=True) > 200_000
    place.bench.files(new4=noise(200_000, 64))
    first.back_up()
    first.push()
    vet()
    peer.back_up()
    assert peer.push() < 3000 and peer.restored(tmp_path / "back") == [] and peer.sound()
