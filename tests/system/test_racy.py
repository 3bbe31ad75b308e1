# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Edits that leave as little trace as Linux allows: the next backup has them all the same.

Where the stat cache is to be believed at once, its two seconds of doubt are taken away, and the kernel's clock of file times is let tick between
what is seen and what is edited: what is left is what size, mtime, ctime and inode can tell.
"""

from __future__ import annotations

import hashlib
import itertools
import mmap
import os
import random
import time
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import kernel
from ansible_collections.volt.backup.plugins.module_utils._capture import capture, file_saver, reading, stat_cache
from ansible_collections.volt.backup.tests.rigs import model
from ansible_collections.volt.backup.tests.rigs.sample import LONG

TURNS = 1500 if LONG else 21
#: Packed, an object, in chunks: each is read in another way.
SIZES = {"packed": 50, "object": 200_000, "chunked": (8 << 20) + 5}


def content(seed: int, size: int) -> bytes:
    return (b"%09d." % seed * (size // 10 + 1))[:size]


def put(path: Path, data: bytes) -> None:
    """Other bytes under the same size and mtime, in the same inode."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


def digests(bench, backup: str) -> dict[str, str]:
    """What a backup has under each name of small files: SHA-256 of content, read from the trees alone."""
    from ansible_collections.volt.backup.plugins.module_utils._format import tree

    store, catalog = bench.manager._open()
    manifest = catalog.manifest(catalog.sidecar(backup))
    found, todo = {}, [("", manifest.root)]
    while todo:
        path, item = todo.pop()
        for child in tree.load(store.read, item.content):
            here = os.path.join(path, os.fsdecode(child.name))
            if child.kind == tree.DIRECTORY:
                todo.append((here, child))
            else:
                found[here] = child.content.hex()
    return found


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def bench(trusted_bench):
    return trusted_bench


@pytest.fixture
def believing(bench, monkeypatch):
    """The stat cache believes what is older than the scan by a tick. `believing()` waits for it."""
    monkeypatch.setattr(stat_cache, "RACY", 0)
    return lambda: model.tick(bench.top)


def test_the_cache_is_trusted_in_these_tests(bench, believing, monkeypatch):
    bench.files(a=b"1", object=b"2" * 200_000)
    believing()
    bench.create()
    opened = []
    real = file_saver.open_source
    monkeypatch.setattr(file_saver, "open_source", lambda *arguments: opened.append(arguments) or real(*arguments))
    bench.create()
    assert opened == []


@pytest.mark.parametrize("kind", ["packed", "object"])
def test_rewritten_in_the_tick_of_the_scan(bench, kind):
    """As fast as can be: right before the scan, and right behind it."""
    chance, size = random.Random(1), SIZES[kind]
    bench.files(a=content(0, size), still=b"s")
    for turn in range(1, TURNS, 2):
        put(bench.source / "a", content(turn, size))
        first = bench.create().backup["id"]
        put(bench.source / "a", content(turn + 1, size))
        second = bench.create().backup["id"]
        assert [digests(bench, backup)["a"] for backup in (first, second)] == [sha(content(number, size)) for number in (turn, turn + 1)]
        bench.manager.delete(first)
        bench.manager.delete(second)
        time.sleep(chance.choice([0, 0.0007, 0.003]))


def edits_once(bench, turn: int):
    """Writes both files anew when it is called first."""
    done: list[int] = []

    def edit() -> None:
        if not done:
            done.append(turn)
            for name in ("a", "d/b"):
                put(bench.source / name, content(turn, 50))

    return edit


def test_rewritten_while_the_scan_runs(bench, monkeypatch):
    """Right after its directory was listed, and right after it was read: in the same tick as often as not."""
    bench.files(a=content(0, 50), d__b=content(0, 50))
    for turn, moment in zip(range(1, TURNS), itertools.cycle(["listing", "read_small", "after"])):
        edit = edits_once(bench, turn)
        module = capture if moment == "listing" else reading
        with monkeypatch.context() as patch:
            if moment != "after":
                real = getattr(module, moment)

                def then(*arguments, real=real, edit=edit, **options):
                    result = real(*arguments, **options)
                    edit()
                    return result

                patch.setattr(module, moment, then)
            bench.manager.delete(bench.create().backup["id"])
        edit()
        found = digests(bench, bench.create().backup["id"])
        assert found == {name: sha(content(turn, 50)) for name in ("a", "d/b")}, moment
        bench.manager.delete(bench.found()[0]["id"])


@pytest.mark.parametrize("kind", SIZES)
def test_mtime_set_back_under_a_trusting_cache(bench, believing, kind):
    size = SIZES[kind]
    bench.files(a=content(0, size))
    for turn in range(1, max(4, TURNS // 10)):
        believing()
        bench.create()
        put(bench.source / "a", content(turn, size))
        believing()
        made = bench.create().backup["id"]
        bench.restore(made, target=str(bench.top / f"out{turn}"))
        assert (bench.top / f"out{turn}" / "a").read_bytes() == content(turn, size)


@pytest.mark.parametrize("kind", ["ext4", "tmpfs", "xfs", "btrfs"])
def test_an_inode_that_is_used_again(bench_on, monkeypatch, kind):
    """Removed and made anew, with the same number, size and mtime."""
    bench = bench_on(kind)
    monkeypatch.setattr(stat_cache, "RACY", 0)
    path, moment = bench.source / "a", (1_600_000_000_000_000_000,) * 2
    again = 0
    bench.files(a=content(0, 50))
    os.utime(path, ns=moment)
    for turn in range(1, TURNS // 3):
        model.tick(bench.top)
        bench.manager.delete(bench.create().backup["id"])
        number = path.stat().st_ino
        for attempt in range(20):
            path.unlink()
            path.write_bytes(content(turn, 50))
            if path.stat().st_ino == number:
                again += 1
                break
            (bench.source / f"other{attempt}").touch() if attempt % 2 else None
        os.utime(path, ns=moment)
        model.tick(bench.top)
        made = bench.create().backup["id"]
        assert digests(bench, made)["a"] == sha(content(turn, 50))
        bench.manager.delete(made)
        for other in bench.source.glob("other*"):
            other.unlink()
    assert again or kind != "ext4", "no inode was ever used again"


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_stores_through_a_map_that_is_never_synced(bench_on, monkeypatch, kind):
    """Backups on end while the map stays open: each store that came before one is in it."""
    bench = bench_on(kind)
    monkeypatch.setattr(stat_cache, "RACY", 0)
    bench.files(a=bytes(8192), b=b"still")
    with open(bench.source / "a", "r+b") as file, mmap.mmap(file.fileno(), 8192) as view:
        for turn in range(1, TURNS // 3):
            view[turn % 8192] = turn % 256
            model.tick(bench.top)
            made = bench.create().backup["id"]
            assert digests(bench, made)["a"] == sha(bytes(view)), f"store {turn} is missing"
            bench.manager.delete(made)


def test_two_files_that_change_places(bench, believing):
    """Same size, same mtime, and renaming moves only the ctimes of the two, or of none where it is their directories that move."""
    for number, name in enumerate(("d1__a", "d1__b", "d2__a", "d2__b")):
        bench.files(**{name: content(number, 50)})
    for path in bench.source.rglob("*"):
        os.utime(path, ns=(1_600_000_000_000_000_000,) * 2)
    wanted = {f"{top}/{name}": sha((bench.source / top / name).read_bytes()) for top in ("d1", "d2") for name in "ab"}
    fd = os.open(bench.source, os.O_RDONLY)
    try:
        for turn in range(TURNS // 3):
            believing()
            assert digests(bench, bench.create().backup["id"]) == wanted
            pair = [("d1/a", "d1/b"), ("d1", "d2"), ("d1/a", "d2/a"), ("d1/a", "d2/b")][turn % 4]
            kernel.exchange(*pair, fd, fd)
            for path in bench.source.rglob("*"):
                os.utime(path, ns=(1_600_000_000_000_000_000,) * 2)
            wanted = {f"{top}/{name}": sha((bench.source / top / name).read_bytes()) for top in ("d1", "d2") for name in "ab"}
            believing()
    finally:
        os.close(fd)


def test_an_edit_through_a_name_outside_the_source(bench, believing):
    bench.files(a=content(0, 50))
    os.link(bench.source / "a", bench.top / "elsewhere")
    for turn in range(1, 10):
        believing()
        bench.create()
        put(bench.top / "elsewhere", content(turn, 50))
        believing()
        assert digests(bench, bench.create().backup["id"])["a"] == sha(content(turn, 50))


@pytest.mark.parametrize("shift", [-86400, -3, -1, 1, 3, 86400])
def test_a_clock_that_is_stepped(bench, monkeypatch, shift):
    """Ours is another than that of the file times, as on a network file system, or as between two steps of a clock that is being set."""
    real = time.time_ns
    bench.files(a=content(0, 50))
    for turn in range(1, max(10, TURNS // 10)):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda turn=turn: real() + shift * 1_000_000_000 * (turn % 2))
            bench.create()
        put(bench.source / "a", content(turn, 50))
        model.tick(bench.top)
        assert digests(bench, bench.create().backup["id"])["a"] == sha(content(turn, 50))


def test_attributes_and_modes_alone(bench, believing):
    """They move nothing but the ctime."""
    bench.files(a=b"1", d__b=b"2")
    for turn in range(1, 20):
        believing()
        bench.create()
        for name in ("a", "d"):
            os.setxattr(bench.source / name, "user.turn", str(turn).encode())
            os.chmod(bench.source / name, 0o700 + turn)
        believing()
        made = bench.create().backup["id"]
        found = {item["path"]: item["mode"] for item in bench.manager.contents(made, 10)["entries"]}
        assert found["a"] == found["d"] == f"{0o700 + turn:04o}"
