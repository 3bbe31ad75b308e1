# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packed blobs for a restore: each pack is read once, what is kept is bounded, and nothing altered is given out."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._restore.supply import Supply, Uses
from ansible_collections.volt.backup.plugins.module_utils._store import layout
from ansible_collections.volt.backup.plugins.module_utils._store.index import Index
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction

from ..kit import digest, noise

BLOBS = [noise(40_000, number) for number in range(60)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store in which neighbours lie in different packs: each run has stored every third blob."""
    path = tmp_path / "store"
    for first in range(3):
        with Transaction(Store(str(path), 5), "zlib") as run:
            for blob in BLOBS[first::3]:
                run.blobs.add(digest(blob), blob)
            run.commit()
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each pack is read."""
    counter: Counter[bytes] = Counter()
    original = Index.read_pack

    def counted(self: Index, name: bytes, suffix: str) -> bytes:
        counter[name] += 1
        return original(self, name, suffix)

    monkeypatch.setattr(Index, "read_pack", counted)
    return counter


def expected(*blobs: bytes) -> Uses:
    uses = Uses()
    for blob in blobs:
        uses.expect(digest(blob))
    return uses


def test_each_pack_is_read_once(path: Path, reads: Counter[bytes]) -> None:
    supply = Supply(Store(str(path)), expected(*BLOBS, BLOBS[7]))
    for blob in [*BLOBS, BLOBS[7]]:
        assert supply.read(digest(blob), len(blob)) == blob
    assert len(reads) >= 3 and set(reads.values()) == {1}
    assert not supply._kept and supply._size == 0  # nothing is kept beyond its last use


def test_what_is_kept_is_bounded(path: Path, reads: Counter[bytes]) -> None:
    supply = Supply(Store(str(path)), expected(*BLOBS), room=200_000)
    for blob in BLOBS:
        assert supply.read(digest(blob), len(blob)) == blob
        assert supply._size == sum(map(len, supply._kept.values())) <= 200_000
    assert max(reads.values()) > 1


def test_a_room_for_nothing_still_gives_blobs(path: Path) -> None:
    supply = Supply(Store(str(path)), expected(*BLOBS), room=0)
    assert [supply.read(digest(blob), len(blob)) for blob in BLOBS] == BLOBS


def test_blobs_that_were_not_expected(path: Path) -> None:
    supply = Supply(Store(str(path)), expected(BLOBS[0]))
    assert [supply.read(digest(blob), len(blob)) for blob in BLOBS[:5] + BLOBS[:5]] == BLOBS[:5] + BLOBS[:5]


def test_a_second_attempt_is_as_good_as_the_first(path: Path, reads: Counter[bytes]) -> None:
    supply = Supply(Store(str(path)), expected(*BLOBS))
    for _attempt in range(2):
        assert [supply.read(digest(blob), len(blob)) for blob in BLOBS] == BLOBS
        supply.renew()
    assert set(reads.values()) == {2}


def test_an_altered_blob_is_not_given_out_and_costs_no_other(path: Path) -> None:
    """The bytes of one blob are altered: it is missing, and its neighbours in the pack are not."""
    store = Store(str(path))
    name = store.index.find(digest(BLOBS[3]))[0]  # type: ignore[index]
    neighbours = [blob for blob in BLOBS if store.index.find(digest(blob))[0] == name]  # type: ignore[index]
    original = Index.read_pack

    def altered(self: Index, wanted: bytes, suffix: str) -> bytes:
        data = original(self, wanted, suffix)
        return data.replace(BLOBS[3], b"?" * len(BLOBS[3])) if wanted == name else data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Index, "read_pack", altered)
        supply = Supply(store, expected(*BLOBS))
        supply.read(digest(neighbours[0]), 40_000)
        with pytest.raises(Damaged):
            supply.read(digest(BLOBS[3]), 40_000)
        assert [supply.read(digest(blob), 40_000) for blob in neighbours if blob not in (BLOBS[3], neighbours[0])]


def test_a_pack_that_cannot_be_read(path: Path) -> None:
    store = Store(str(path))
    place = store.index.find(digest(BLOBS[0]))
    assert place is not None
    os.unlink(store.full_path(layout.pack_path(place[0], store.index.packs[place[0]].suffix)))
    with pytest.raises(Damaged):
        Supply(store, expected(*BLOBS)).read(digest(BLOBS[0]), 40_000)


def test_the_newest_of_many_backups_reads_each_pack_once(tmp_path: Path, reads: Counter[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the packs in memory are far fewer than those that one directory's files are spread over."""
    source, chance = tmp_path / "source", random.Random(1)
    for number in range(400):
        (source / f"d{number % 20}").mkdir(parents=True, exist_ok=True)
        (source / f"d{number % 20}/f{number}").write_bytes(noise(30_000, number))
    manager = Manager(str(tmp_path / "cas"), str(tmp_path / "backups"))
    backup: Any = None
    for backup_number in range(12):
        for number in chance.sample(range(400), 60):
            (source / f"d{number % 20}/f{number}").write_bytes(noise(30_000, (backup_number, number)))
        backup = manager.create(CreateRequest("shop", str(source), max_churn=0)).backup
    reads.clear()
    manager = Manager(str(tmp_path / "cas"), str(tmp_path / "backups"))
    manager.restore(backup["id"], RestoreRequest(target=str(tmp_path / "target")))
    assert len(reads) > 12 and max(reads.values()) == 1
    for file in source.rglob("f*"):
        assert (tmp_path / "target" / file.relative_to(source)).read_bytes() == file.read_bytes()


def test_what_was_not_counted_unpacks_nothing(path: Path, reads: Counter[bytes]) -> None:
    """As files that could have been linked from the old tree, were they not linked elsewhere as well: each would unpack its pack once more."""
    supply = Supply(Store(str(path)), expected())
    for blob in BLOBS[::3]:
        assert supply.read(digest(blob), len(blob)) == blob
    assert set(reads.values()) == {1}
