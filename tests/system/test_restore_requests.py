# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many requests a restore from a remote makes, which is what it costs on S3 and what it waits for on a slow line."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import UsageError
from ansible_collections.volt.backup.plugins.module_utils._remote import places, reading
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Meant
from ansible_collections.volt.backup.tests.rigs import need, sample
from ansible_collections.volt.backup.tests.unit.kit import noise

from .test_push import HOST, Place, Tapped, made
from .test_restore_remote import Elsewhere, same


def text(number: int) -> bytes:
    """Something that is half as large when it is compressed."""
    return noise(1500, number).hex().encode()


@pytest.fixture
def place(bench: Any) -> Place:
    """Six backups, of which the first sent nearly all."""
    need("zstd")
    bench.files(etc__conf=b"text\n", image=noise(12 << 20, 2), **{f"many__{number:04d}": text(number) for number in range(1000)})
    place = made(bench)
    for number in range(6):
        again(place, number)
    return place


def again(place: Place, number: int) -> None:
    place.bench.files(**{f"new{number}": noise(500, number)})
    place.create()
    place.push()


def test_a_whole_host(place: Place) -> None:
    elsewhere = Elsewhere(place)
    elsewhere.restore()
    same(elsewhere)
    stored = place.packs()
    small = sum(size <= 72 << 10 for size in stored.values())
    assert small >= 5
    lists = [name for verb, name in elsewhere.requests if verb == "list"]
    assert lists == ["commits/", f"packs/{HOST}/"], "the commits come with the list of hosts"
    assert len(elsewhere.packs_read()) == len(stored), "each pack is one request"
    assert len([name for verb, name in elsewhere.requests if name.startswith("indexes/")]) == 1, "small packs have their own lists"
    assert len(elsewhere.requests) == len(stored) + 4 + _commits(elsewhere), "volt.json, two lists, a commit and an index besides"


def _commits(elsewhere: Elsewhere) -> int:
    """Commits that were read; more than one, where several were made in one second."""
    return len([name for verb, name in elsewhere.requests if verb == "get" and name.startswith("commits/")])


def test_one_file(place: Place) -> None:
    elsewhere = Elsewhere(place)
    done = elsewhere.restore(paths=["etc/conf"])
    assert (elsewhere.target / "etc/conf").read_bytes() == b"text\n"
    assert len(elsewhere.requests) <= 11 + _commits(elsewhere) and done.restore["fetched_bytes"] <= 2 << 20


def test_one_file_of_many_indexes(place: Place) -> None:
    """The indexes are not read one after the other."""
    for number in range(6, 12):
        again(place, number)
    elsewhere = Elsewhere(place)
    elsewhere.restore(paths=["many/0007"])
    assert (elsewhere.target / "many/0007").read_bytes() == text(7)
    assert len([name for verb, name in elsewhere.requests if name.startswith("indexes/")]) <= places._FEW
    assert len(elsewhere.requests) <= 11 + _commits(elsewhere)


@pytest.mark.costly
def test_one_file_of_a_million(bench: Any) -> None:
    """Of a pack of tiny files, the head is what costs: it names each of them."""
    need("zstd")
    count = 1_000_000 if sample.LONG else 40_000
    for number in range(count):
        directory = bench.source / f"{number // 1000:03d}"
        if number % 1000 == 0:
            directory.mkdir(parents=True)
        (directory / f"{number % 1000:03d}").write_bytes(b"file %d\n" % number * 16)
    place = made(bench)
    bench.create(compression="zlib")
    place.push()
    elsewhere = Elsewhere(place)
    done = elsewhere.restore(paths=["017/123"])
    assert (elsewhere.target / "017/123").read_bytes() == b"file 17123\n" * 16
    assert len(elsewhere.requests) <= 12 and done.restore["fetched_bytes"] <= 2 << 20


def test_hosts_are_found_in_few_requests(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others put there costs no request each, and neither does a commit."""
    top = place.top / "commits"
    source = next(path for path in (top / HOST).iterdir())
    for name in ("a-00000000", "web2-00000000", "zz-00000000"):
        (top / name).mkdir()
        for number in range(5):
            shutil.copy(source, top / name / f"20260101T00000{number}Z-{number:016x}")
    for number in range(300):
        (top / f"stray-{number}").write_bytes(b"")
    transport = Tapped(str(place.top))
    there = reading.hosts(transport)
    assert [*there] == ["a-00000000", HOST, "web2-00000000", "zz-00000000"] and len(transport.requests) == 1
    assert [len(pushes or ()) for pushes in there.values()] == [5, 6, 5, 5]
    monkeypatch.setattr(reading, "_PAGE", 3)
    skipped = reading.hosts(Tapped(str(place.top)))
    assert [*skipped] == [*there] and None in skipped.values() and all(pushes in (None, there[host]) for host, pushes in skipped.items())
    elsewhere = Elsewhere(place)
    with pytest.raises(UsageError, match="was not named"):
        elsewhere.restore()
    elsewhere.restore(Meant(HOST, workload="work"))
    same(elsewhere)
