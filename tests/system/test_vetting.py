# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stolen host of a shared domain writes what it can below its own names. Vetting goes on, and the backups of a host with `vetted: true` stay whole."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._base import now
from ansible_collections.volt.backup.plugins.module_utils._remote import commits, indexes, names, packs
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
