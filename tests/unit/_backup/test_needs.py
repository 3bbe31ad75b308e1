# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lists of what backups need: never less than the trees say, quick to ask, and worth nothing where they are not what they should be."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import needs as needs_module
from ansible_collections.volt.backup.plugins.module_utils._backup.catalog import Catalog
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.needs import Needs
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._format.reachability import Reachability
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store

from ..kit import noise

KIB, MIB = 1 << 10, 1 << 20


class Shop:
    """A workload, its store, and what is asked of them."""

    def __init__(self, room: Path) -> None:
        self.room, self.source = room, room / "source"
        self.source.mkdir()
        self.chance = random.Random(4)
        for number in range(60):
            self.write(number)

    def manager(self) -> Manager:
        return Manager(str(self.room / "cas"), str(self.room / "backups"))

    def write(self, number: int) -> None:
        """Give a file new content: most are packed, some are objects, one has chunks."""
        size = 9 * MIB if number == 0 else 300 * KIB if number % 10 == 0 else 20 * KIB
        path = self.source / f"d{number % 7}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(noise(size, (number, self.chance.random())))

    def back_up(self, changes: int = 6) -> str:
        for number in self.chance.sample(range(60), changes):
            self.write(number)
        created = self.manager().create(CreateRequest("shop", str(self.source), max_churn=0, max_shrink=0))
        return str(created.backup["id"])

    def states(self) -> dict[str, bool]:
        """Whether each backup is damaged."""
        return {found["id"]: bool(found["damaged"]) for found in self.manager().find(Query())}

    def cache(self, ending: str) -> list[Path]:
        return sorted((self.room / "cas/cache").glob(f"*{ending}"))

    def files(self, kind: str) -> list[Path]:
        return sorted(path for path in (self.room / "cas" / kind).rglob("*") if path.is_file())

    @staticmethod
    def exact(store: Store, manifest: Any) -> set[bytes]:
        """The packs and objects that the trees of a backup refer to."""
        found: set[bytes] = set()

        def add(digest: bytes, size: int = -1) -> None:
            found.add(store.pack_of(digest, size) or digest)

        Reachability(store.read, add, add)(manifest.root.content, manifest.links)
        return found

    def check_lists(self) -> None:
        """Each backup has a list, and that lacks nothing that its trees refer to."""
        store = Store(str(self.room / "cas"))
        catalog = Catalog(store, str(self.room / "backups"))
        for sidecar in catalog.list():
            exact = self.exact(store, catalog.manifest(sidecar))
            needs = Needs(store)
            named: set[bytes] = set()
            for name in needs._parts(sidecar["manifest_sha256"]) or ():
                part: Any = needs._read(name)
                named.update(part.packs)
                named.update(digest for digest, _size in part.each_object())
            assert exact <= named, f"{sidecar['id']}: {len(exact - named)} of {len(exact)} are not listed"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def no_trees(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """From the call on, reading a blob is a failure."""

    def forbidden(*_arguments: object) -> bytes:
        raise AssertionError("a tree was read")

    return lambda: monkeypatch.setattr(Store, "read", forbidden)


def test_listing_reads_no_tree(shop: Shop, no_trees: Callable[[], Any]) -> None:
    made = [shop.back_up() for _number in range(5)]
    no_trees()
    assert shop.states() == dict.fromkeys(made, False)


def test_what_is_missing_is_seen_by_the_backups_that_need_it(shop: Shop) -> None:
    """Each pack and each object in turn; and no other backup is damaged."""
    made = [shop.back_up() for _number in range(3)]
    for path in [*shop.files("packs"), *shop.files("objects")]:
        aside = shop.room / "aside"
        os.rename(path, aside)
        by_list = shop.states()
        lists, parts = shop.cache(".needs"), shop.cache(".part")
        for file in [*lists, *parts]:
            file.rename(shop.room / file.name)
        assert shop.states() == by_list
        assert True in by_list.values()
        for file in [*lists, *parts]:
            (shop.room / file.name).rename(file)
        os.rename(aside, path)
    assert shop.states() == dict.fromkeys(made, False)


@pytest.mark.parametrize("kind", ["packs", "objects"])
def test_what_is_cut_short_is_seen(shop: Shop, kind: str) -> None:
    shop.back_up()
    for path in shop.files(kind)[::7]:
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        assert set(shop.states().values()) == {True}
        path.write_bytes(data)
    assert set(shop.states().values()) == {False}


def test_lists_last_through_a_year(shop: Shop) -> None:
    """Backups, deletions and collections that rewrite packs: at no time does a list lack anything."""
    made: list[str] = []
    for step in range(40):
        made.append(shop.back_up(shop.chance.choice([0, 1, 6, 20])))
        if step % 5 == 4:
            for backup in shop.chance.sample(made, len(made) // 2):
                shop.manager().delete(backup)
                made.remove(backup)
            shop.manager().collect("0s")
            assert not (shop.room / "cas/cache/collection-under-way").exists()
        shop.check_lists()
    assert shop.states() == dict.fromkeys(made, False)


def test_after_a_collection_no_tree_is_read(shop: Shop, no_trees: Callable[[], Any]) -> None:
    made = [shop.back_up(20) for _number in range(6)]
    for backup in made[:4]:
        shop.manager().delete(backup)
    before = {path.name for path in shop.files("packs")}
    collected = shop.manager().collect("0s")
    assert collected["repacked_packs"] and before - {path.name for path in shop.files("packs")}
    assert len(shop.cache(".needs")) == 2
    no_trees()
    assert shop.states() == dict.fromkeys(made[4:], False)


def test_a_blob_that_comes_back_while_it_is_collected(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the part that a new backup would share, and is taken out of that part after the new backup was made."""
    first = (shop.source / "d3/f10").read_bytes()
    assert len(first) == 300 * KIB
    going = shop.back_up(0)
    (shop.source / "d3/f10").write_bytes(b"other")
    shop.back_up(0)
    shop.manager().delete(going)
    end = Needs.end

    def late(self: Needs, *arguments: Any) -> None:
        (shop.source / "d3/f10").write_bytes(first)
        shop.back_up(0)
        end(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Needs, "end", late)
        shop.manager().collect("0s", False)
    shop.check_lists()


def test_a_collection_that_dies_leaves_lists_that_are_right(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [shop.back_up(20) for _number in range(4)]
    shop.manager().delete(made.pop(0))

    def dies(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Needs, "end", dies)
        shop.manager().collect("0s")
    made.append(shop.back_up())
    assert shop.states() == dict.fromkeys(made, False)
    shop.check_lists()
    shop.manager().collect("0s")
    made.append(shop.back_up())
    shop.check_lists()
    assert not (shop.room / "cas/cache/collection-under-way").exists()


def _missing(path: Path, _other: Path) -> None:
    path.unlink()


def _empty(path: Path, _other: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path, _other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _altered(path: Path, _other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _anothers(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def _directory(path: Path, _other: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [_missing, _empty, _cut, _altered, _anothers, _directory])
@pytest.mark.parametrize("ending", [".needs", ".part"])
def test_bad_files_are_not_believed(shop: Shop, harm: Callable[[Path, Path], None], ending: str) -> None:
    """With a bad list or part, what is missing is found all the same, and what is there is not called missing."""
    made = [shop.back_up(30) for _number in range(2)]
    for file in shop.cache(ending):
        other = next(path for path in shop.cache(ending) if path != file)
        harm(file, other)
        assert shop.states() == dict.fromkeys(made, False)
    for path in [*shop.files("packs"), *shop.files("objects")]:
        path.unlink()
    assert shop.states() == dict.fromkeys(made, True)


def test_a_part_that_names_nothing_proves_nothing(shop: Shop) -> None:
    """A list with a sound checksum and no part: nothing that we wrote."""
    made = shop.back_up()
    (file,) = shop.cache(".needs")
    store = Store(str(shop.room / "cas"))
    digest = Catalog(store, str(shop.room / "backups")).sidecar(made)["manifest_sha256"]
    file.write_bytes(needs_module._sealed(needs_module._LIST_MAGIC, bytes.fromhex(digest)))
    for path in shop.files("packs"):
        path.unlink()
    assert shop.states() == {made: True}


def test_old_backups_get_lists_when_they_are_listed(shop: Shop, no_trees: Callable[[], Any]) -> None:
    """Those of version 0.1.0, or of a cache that was lost: the first listing walks their trees, and the next one does not."""
    made = [shop.back_up() for _number in range(4)]
    for path in (shop.room / "cas/cache").iterdir():
        path.unlink()
    shop.states()
    shop.check_lists()
    no_trees()
    assert shop.states() == dict.fromkeys(made, False)


def test_lists_of_old_backups_share_parts_within_their_workload(shop: Shop) -> None:
    """A lost object of one workload must not make the trees of the other be read."""
    other = shop.room / "other"
    other.mkdir()
    for number in range(4):
        shop.back_up()
        (other / "f").write_bytes(noise(300 * KIB, number))
        shop.manager().create(CreateRequest("other", str(other), max_churn=0))
    for path in (shop.room / "cas/cache").iterdir():
        path.unlink()
    shop.states()
    store = Store(str(shop.room / "cas"))
    needs, parts = Needs(store), dict[str, set[bytes]]()
    for sidecar in Catalog(store, str(shop.room / "backups")).list():
        parts.setdefault(str(sidecar["workload_name"]), set()).update(needs._parts(sidecar["manifest_sha256"]) or ())
    assert len(parts) == 2 and not parts["shop"] & parts["other"]


def test_a_cache_that_cannot_be_written(shop: Shop) -> None:
    """A full disk or a store that may only be read: everything is right, and slower."""
    made = [shop.back_up()]
    cache = shop.room / "cas/cache"
    shutil.rmtree(cache)
    cache.write_text("no directory")
    assert shop.states() == dict.fromkeys(made, False)
    shop.manager().collect("0s")
    cache.unlink()


def test_a_first_backup_of_content_that_the_store_has(shop: Shop) -> None:
    """Another workload of the same content: its list names what the store had, and it was not read again."""
    shop.back_up()
    copy = shop.room / "copy"
    shutil.copytree(shop.source, copy)
    (copy / "more").write_bytes(noise(300 * KIB, "more"))
    assert shop.manager().create(CreateRequest("other", str(copy))).backup["new_blobs"] == 1
    shop.check_lists()
    shutil.copytree(shop.source, shop.room / "again")
    assert shop.manager().create(CreateRequest("third", str(shop.room / "again"))).backup["new_blobs"] == 0
    shop.check_lists()
    assert len(shop.states()) == 3 and not any(shop.states().values())


def test_check_mode_notes_nothing(shop: Shop) -> None:
    made = [shop.back_up() for _number in range(3)]
    for path in (shop.room / "cas/cache").iterdir():
        path.unlink()
    manager, request = shop.manager(), CreateRequest("shop", str(shop.source), max_age="1d")
    assert manager.prune("shop", {"last": 1}, dry=True).removed
    assert not manager.create(request, dry=True).changed
    assert manager.delete(made[0], dry=True)
    assert manager.restore(None, RestoreRequest(target=str(shop.room / "target")), Query(workload="shop"), dry=True)
    assert manager.protect(made[0], dry=True).changed
    manager.collect("0s", dry=True)
    assert not list((shop.room / "cas/cache").iterdir())


def test_many_parts_become_one(shop: Shop) -> None:
    for _number in range(needs_module._MOST + 3):
        shop.back_up(1)
    shop.check_lists()
    lists = [len(Needs(Store(str(shop.room / "cas")))._names(file.name) or ()) for file in shop.cache(".needs")]
    assert max(lists) == needs_module._MOST and lists.count(1) == 2
