# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lists of what backups need, beside collections that die, that meet each other, and that meet a backup; and where they cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.catalog import Catalog
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.needs import Needs
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import VoltError
from ansible_collections.volt.backup.plugins.module_utils._store.cache import Cache
from ansible_collections.volt.backup.plugins.module_utils._store.gc import Collector
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store

from .test_needs import KIB, Shop, shop

__all__ = ["shop"]


def test_a_pack_whose_blobs_are_in_another_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection that is killed leaves packs beside their replacements. The next one takes them away, and the lists must not forget the blobs."""
    made = [shop.back_up() for _number in range(3)]
    rewrite = Collector._rewrite_packs

    def dies(self: Collector, *arguments: Any) -> None:
        rewrite(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Collector, "_rewrite_packs", dies)
        shop.manager().collect("0s")
    assert shop.manager().collect("0s", False)["trashed_files"]
    for path in shop.files("packs"):
        aside = shop.room / "aside"
        path.rename(aside)
        by_list = shop.states()
        cache = shop.room / "cas/cache"
        cache.rename(shop.room / "cache")
        cache.mkdir()
        assert shop.states() == by_list
        shutil.rmtree(cache)
        (shop.room / "cache").rename(cache)
        aside.rename(path)
    assert shop.states() == dict.fromkeys(made, False)


def _one_of_the_first(shop: Shop) -> tuple[bytes, str]:
    """The bytes of an object that only one backup needs, and the backup; a part of the other one names that object too."""
    first = (shop.source / "d3/f10").read_bytes()
    assert len(first) == 300 * KIB
    going = shop.back_up(0)
    (shop.source / "d3/f10").write_bytes(b"other")
    shop.back_up(0)
    return first, going


def test_a_collection_that_ends_while_a_backup_reads_the_parts(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    first, going = _one_of_the_first(shop)
    shop.manager().delete(going)
    end, read = Needs.end, Needs._read
    late: list[Any] = []

    def read_then_end(self: Needs, name: bytes) -> Any:
        part = read(self, name)
        while late:
            late.pop()()
        return part

    def meet(self: Needs, *arguments: Any) -> None:
        late.append(lambda: end(self, *arguments))
        (shop.source / "d3/f10").write_bytes(first)
        shop.back_up(0)

    with monkeypatch.context() as patch:
        patch.setattr(Needs, "end", meet)
        patch.setattr(Needs, "_read", read_then_end)
        shop.manager().collect("0s", False)
    while late:
        late.pop()()
    shop.check_lists()


def test_a_collection_that_removes_the_parts_while_a_backup_reads_them(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the backup before this one is deleted at this moment."""
    before = shop.back_up()
    read = Needs._read
    late = [before]

    def read_then_lose(self: Needs, name: bytes) -> Any:
        part = read(self, name)
        while late:
            shop.manager().delete(late.pop())
            shop.manager().collect("0s", False)
        return part

    with monkeypatch.context() as patch:
        patch.setattr(Needs, "_read", read_then_lose)
        made = shop.back_up()
    assert not late and not shop.cache(".part")
    assert shop.states() == {made: False}
    shop.check_lists()


def test_two_collections(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits for another one to end: that end is not its own."""
    first, going = _one_of_the_first(shop)
    begin, end = Needs.begin, Needs.end

    def another(self: Needs) -> None:
        begin(self)
        with monkeypatch.context() as patch, contextlib.suppress(VoltError):
            patch.setattr(Needs, "begin", begin)
            patch.setattr(Needs, "end", end)
            Manager(str(shop.room / "cas"), str(shop.room / "backups"), 0.2).collect("0s", False)
        shop.manager().delete(going)

    def late(self: Needs, *arguments: Any) -> None:
        (shop.source / "d3/f10").write_bytes(first)
        shop.back_up(0)
        end(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Needs, "begin", another)
        patch.setattr(Needs, "end", late)
        shop.manager().collect("0s", False)
    shop.check_lists()


def test_a_file_that_is_not_ours(shop: Shop) -> None:
    """As what copies the store leaves it."""
    made = shop.back_up()
    for name in ("something.part", "x.needs", "0123.part"):
        (shop.room / "cas/cache" / name).write_bytes(b"")
    shop.manager().collect("0s")
    assert shop.states() == {made: False}


def test_a_directory_where_a_file_had_its_very_bytes(shop: Shop) -> None:
    """A list names what is below the directory, although the backup before it had the same digest at this place."""
    twin = shop.source / "twin"
    twin.mkdir()
    (twin / "inner").write_bytes(b"found only here")
    shop.back_up(0)
    store = Store(str(shop.room / "cas"))
    catalog = Catalog(store, str(shop.room / "backups"))
    (sidecar,) = catalog.list()
    root = catalog.load(catalog.manifest(sidecar).root.content)
    listing = store.read(next(entry for entry in root if entry.name == b"twin").content, 1 << 20)
    shop.manager().delete(sidecar["id"])
    twin.rename(shop.room / "twin")
    twin.write_bytes(listing)
    shop.manager().collect("0s")
    shop.back_up(0)
    twin.unlink()
    (shop.room / "twin").rename(twin)
    shop.back_up(0)
    shop.check_lists()


def test_a_store_that_may_only_be_read_is_walked_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be noted is kept in memory, so that each backup is looked at once, and only for what it does not share with another one."""
    made = [shop.back_up() for _number in range(5)]
    for path in (shop.room / "cas/cache").iterdir():
        path.unlink()
    learn, learned = Needs._learn, []

    def counted(self: Needs, *arguments: Any) -> None:
        learned.append(arguments[0])
        learn(self, *arguments)

    def refuses(*_arguments: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Needs, "_learn", counted)
    monkeypatch.setattr(Cache, "write", refuses)
    assert shop.states() == dict.fromkeys(made, False)
    assert len(learned) == len(set(learned)) == 5


def test_a_collection_that_is_refused_leaves_no_mark(shop: Shop) -> None:
    """With the mark, no backup shares parts, and each walks its trees to its end."""
    made = shop.back_up()
    junk = shop.room / "cas/refs/junk.json"
    junk.write_text("{}")
    with pytest.raises(VoltError, match="refused"):
        shop.manager().collect("0s")
    assert not (shop.room / "cas/cache/collection-under-way").exists()
    junk.unlink()
    assert shop.states() == {made: False}


def test_a_listing_in_check_mode_notes_nothing(shop: Shop) -> None:
    made = shop.back_up()
    for path in (shop.room / "cas/cache").iterdir():
        path.unlink()
    assert [found["id"] for found in shop.manager().find(Query(), dry=True)] == [made]
    assert not list((shop.room / "cas/cache").iterdir())
