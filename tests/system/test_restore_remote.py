# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores from a remote, by a host that has nothing but it. The judge is rsync, with its friends."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._backup.restore import Restored
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import Damaged, NotFound, RemoteError, TargetDiffers, TargetError, UsageError, VoltError
from ansible_collections.volt.backup.plugins.module_utils._remote import commits, indexes, names, packs, places, sealed as sealed_keys
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Meant, Remote, Settings, Which
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.tests.rigs import need, oracle, s3_servers, sample, torture
from ansible_collections.volt.backup.tests.unit.kit import noise

from .test_push import HOST, Place, Tapped, change, ends, made
from .test_versions import Host

IMAGE = noise(9 << 20, 2)
WORK = Meant(workload="work")


class Elsewhere:
    """A host without a store, and what it restores from a remote."""

    def __init__(self, place: Place, settings: Settings | None = None, identity: Any = None) -> None:
        self.place, self.target = place, place.bench.top / "new"
        self._manager = Manager(str(place.bench.top / "none"), str(place.bench.top / "none-either"), 5)
        self._settings, self._identity = settings or Settings(f"file://{place.top}"), identity
        self.requests: list[tuple[str, str]] = []
        self.cut: int | None = None
        self.stop: Callable[[], None] = _cut

    def restore(self, meant: Meant = WORK, newest: Query | None = None, before: str | None = None, dry: bool = False, **options: Any) -> Restored:
        remote = Remote(self._manager, self._settings, self._identity)
        if self._settings.url.startswith("file:"):
            remote.transport = Tapped(str(self.place.top))
            self.requests = remote.transport.requests
            if self.cut is not None:
                remote.transport.before[self.cut] = self.stop
        options.setdefault("target", str(self.target))
        return remote.restore(meant, RestoreRequest(**options), newest, before, dry)[0]

    def packs_read(self) -> list[str]:
        return [name for verb, name in self.requests if verb == "get" and name.startswith("packs/")]

    def debris(self) -> list[str]:
        return [name for name in os.listdir(self.place.bench.top) if ".volt-" in name]


def _cut() -> None:
    raise RemoteError("The line was cut; try again.")


@pytest.fixture
def place(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Place:
    need("zstd")
    monkeypatch.setattr(packs, "SIZE", 1 << 20)  # so that there are several packs
    bench.files(small=b"hello\n", some__noise=noise(300_000), some__more=noise(90_000, 1), other__text=b"text\n" * 40_000, image=IMAGE)
    os.link(bench.source / "small", bench.source / "some/linked")
    return made(bench)


@pytest.fixture
def elsewhere(place: Place) -> Elsewhere:
    place.create()
    place.push()
    return Elsewhere(place)


def same(elsewhere: Elsewhere) -> None:
    assert oracle.differences(elsewhere.place.bench.source, elsewhere.target) == []
    assert elsewhere.debris() == []


def test_a_host_without_a_store_gets_all(place: Place) -> None:
    for number in range(3):
        change(place.bench, number)
        place.push()
    elsewhere = Elsewhere(place)
    done = elsewhere.restore()
    same(elsewhere)
    stored = sum(place.packs().values())
    assert done.restore["remote"] == f"file://{place.top}" and 0 < done.restore["fetched_bytes"] <= stored + 72_000 * len(place.packs()) and not done.warnings
    assert len(elsewhere.packs_read()) <= len(place.packs()) + 4
    again = elsewhere.restore()
    assert not again.changed and again.restore["strategy"] == "none"


@pytest.mark.costly
def test_a_difficult_tree(bench: Any) -> None:
    need("zstd", root=True)
    torture.build(bench.source, entries=500)
    place = made(bench)
    place.create()
    place.push()
    elsewhere = Elsewhere(place)
    elsewhere.restore()
    same(elsewhere)


def test_one_file_takes_little_of_the_remote(place: Place) -> None:
    place.bench.files(**{f"many__{number:04d}": noise(5000, number) for number in range(600)})
    place.create()
    place.push()
    elsewhere = Elsewhere(place)
    done = elsewhere.restore(paths=["many/0123"])
    assert {path.name for path in elsewhere.target.rglob("*") if path.is_file()} == {"0123"}
    assert (elsewhere.target / "many/0123").read_bytes() == noise(5000, 123)
    assert done.restore["fetched_bytes"] < sum(place.packs().values()) / 3


def test_a_stream_travels_like_other_content(place: Place, tmp_path: Path) -> None:
    """What a program wrote is restored from the remote alone, and pulled into a store, which gets the feature for it."""
    rows = b"".join(b"%d\t%x\n" % (row, row * 2654435761 % (1 << 32)) for row in range(200_000))
    (tmp_path / "rows").write_bytes(rows)
    place.bench.create(command=["cat", str(tmp_path / "rows")], command_file="dump.sql")
    place.push()
    elsewhere = Elsewhere(place)
    elsewhere.restore()
    assert (elsewhere.target / ".volt-dumps/dump.sql").read_bytes() == rows and elsewhere.debris() == []
    manager = Manager(str(tmp_path / "store2"), str(tmp_path / "backups2"))
    assert Remote(manager, Settings(f"file://{place.top}")).pull(WORK).changed
    assert "cdc" in json.loads((tmp_path / "store2/format.json").read_text())["features"]["required"]
    manager.restore(None, RestoreRequest(str(tmp_path / "out")), Query(workload="work"))
    assert (tmp_path / "out/.volt-dumps/dump.sql").read_bytes() == rows


@pytest.mark.costly
def test_one_file_of_a_large_backup(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large indexes, a few samples and lists are read; also where the newest of them does not have what is wanted."""
    monkeypatch.setattr(places, "_FIRST", 4 << 10)
    monkeypatch.setattr(indexes, "BLOBS", 1500)
    for number in range(3):
        place.bench.files(**{f"many{number}__{name:04d}": noise(200, (number, name)) for name in range(2000)})
        place.create()
        place.push()
    wanted = [f"many{number}/{name:04d}" for number in range(3) for name in (0, 1234, 1999)]
    elsewhere = Elsewhere(place)
    for path in wanted:
        elsewhere.restore(paths=[path], force=True)
        number, name = path[4], int(path[6:])
        assert (elsewhere.target / path).read_bytes() == noise(200, (int(number), name))
    read = sum(1 for verb, name in elsewhere.requests if name.startswith("indexes/"))
    all_of_it = sum(path.stat().st_size for path in (place.top / "indexes").rglob("*") if path.is_file())
    assert read <= 20 and all_of_it > 400_000
    shutil.rmtree(elsewhere.target)
    for path in (place.top / "indexes").rglob("*"):
        if path.is_file() and path.stat().st_size > 100_000:
            path.write_bytes(path.read_bytes()[:200] + bytes(path.stat().st_size - 200))
    done = elsewhere.restore(paths=["many1/0777"])
    assert (elsewhere.target / "many1/0777").read_bytes() == noise(200, (1, 777))
    assert any("is altered" in text for text in done.warnings)


def test_only_what_differs_is_fetched(elsewhere: Elsewhere) -> None:
    elsewhere.restore()
    (elsewhere.target / "some/more").write_bytes(b"changed")
    with pytest.raises(TargetDiffers):
        elsewhere.restore()
    done = elsewhere.restore(force=True, strategy="in_place")
    same(elsewhere)
    assert done.restore["files_copied"] == 1 and done.restore["fetched_bytes"] < 3 << 20


def test_the_store_of_the_host_spares_the_remote(elsewhere: Elsewhere) -> None:
    remote = elsewhere.place.open()
    done = remote.restore(WORK, RestoreRequest(str(elsewhere.target)))[0]
    same(elsewhere)
    assert done.restore["fetched_bytes"] == 0


def test_check_mode_writes_nothing_and_says_the_same(elsewhere: Elsewhere) -> None:
    before = elsewhere.place.bench.snapshot()
    foreseen = elsewhere.restore(dry=True)
    assert elsewhere.place.bench.snapshot() == before
    done = elsewhere.restore()
    assert foreseen.diff == done.diff and foreseen.restore["strategy"] == done.restore["strategy"]
    assert foreseen.restore["bytes_needed"] == done.restore["bytes_needed"]


def test_which_backup_is_meant(place: Place) -> None:
    first, second = change(place.bench, 0), change(place.bench, 1)
    place.push()
    elsewhere = Elsewhere(place)
    assert elsewhere.restore(Meant(backup=first["id"]), dry=True).restore["backup_id"] == first["id"]
    assert elsewhere.restore(Meant(HOST, backup=second["id"]), dry=True).restore["backup_id"] == second["id"]
    assert elsewhere.restore(dry=True).restore["backup_id"] == second["id"]
    assert elsewhere.restore(before=second["created_at"], dry=True).restore["backup_id"] == first["id"]
    for meant, newest in ((Meant(workload="other"), None), (WORK, Query(type="pre-deploy")), (WORK._replace(host="web2"), None)):
        with pytest.raises(NotFound, match="no matching backup"):
            elsewhere.restore(meant, newest, dry=True)
    with pytest.raises(NotFound, match="has no backup"):
        elsewhere.restore(Meant(backup="work-20200101-000000-manual"), dry=True)


def test_what_is_not_good_is_passed_over(place: Place) -> None:
    first = place.create().backup
    place.bench.files(small=b"other\n")
    later = place.create(tags=["x"]).backup
    place.push()
    (commit,) = [path for path in (place.top / "commits" / HOST).iterdir() if later["id"].encode() in path.read_bytes()]
    commit.write_bytes(commit.read_bytes()[:-40])
    elsewhere = Elsewhere(place)
    assert elsewhere.restore(dry=True).restore["backup_id"] == first["id"]
    with pytest.raises(NotFound, match="cannot be read, the first because: .* is damaged"):
        elsewhere.restore(Meant(backup=later["id"]), dry=True)


def test_two_hosts(place: Place) -> None:
    place.create()
    place.push()
    other = Manager(str(place.bench.top / "store2"), str(place.bench.top / "backups2"), 5)
    other.create(CreateRequest("work", str(place.bench.source)))
    Remote(other, Settings(f"file://{place.top}", "web2")).push(Which())
    elsewhere = Elsewhere(place)
    with pytest.raises(UsageError, match=rf"it has those of {HOST}, web2"):
        elsewhere.restore()
    elsewhere.restore(Meant("web2", workload="work"))
    same(elsewhere)


def test_refused_before_anything_is_fetched(elsewhere: Elsewhere) -> None:
    for options, error, sentence in (
        ({"target": str(elsewhere.place.top / "below")}, TargetError, "where backups are kept"),
        ({"link": "hardlink"}, UsageError, "cannot be linked with a remote"),
        ({"link": "reflink"}, UsageError, "cannot be linked with a remote"),
    ):
        with pytest.raises(error, match=sentence):
            elsewhere.restore(**options)
        assert not elsewhere.packs_read()


def test_what_is_in_it_is_listed(elsewhere: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    bench = elsewhere.place.bench
    (backup,) = bench.found()
    remote = Remote(Manager(str(bench.top / "none"), str(bench.top / "none")), Settings(f"file://{elsewhere.place.top}"))
    assert remote.contents(remote.meant(f"{HOST}/{backup['id']}"), None) == bench.manager.contents(backup["id"], None)
    assert remote.contents(Meant(workload="work"), 2)["more"] == bench.manager.contents(backup["id"], 2)["more"] > 0
    where = ["--store", str(bench.top / "none"), "--backup-dir", str(bench.top / "none"), "--remote", f"file://{elsewhere.place.top}"]
    assert cli.main(["show", backup["id"], "--contents", *where]) == 0
    assert "some/linked" in capsys.readouterr().out


# ---- a remote that lacks something


def _pack(place: Place, wanted: bytes) -> Path:
    """The pack that has a blob whose bytes are not compressed."""
    return next(path for path in (place.top / "packs").rglob("*") if path.is_file() and wanted in path.read_bytes())


def _rest_is_right(elsewhere: Elsewhere, done: Restored) -> None:
    source = elsewhere.place.bench.source
    files = {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert {name for name in files if not (elsewhere.target / name).exists()} == set(done.restore["lost"]) < set(files)
    assert all((elsewhere.target / name).read_bytes() == files[name] for name in files.keys() - set(done.restore["lost"]))


def test_a_lost_pack_costs_its_files(elsewhere: Elsewhere) -> None:
    os.unlink(_pack(elsewhere.place, IMAGE[-1000:]))
    with pytest.raises(Damaged, match="lacks the content of"):
        elsewhere.restore()
    assert not elsewhere.target.exists() and not [name for name in elsewhere.debris() if "fetched" not in name]
    done = elsewhere.restore(salvage=True)
    assert "image" in done.restore["lost"]
    _rest_is_right(elsewhere, done)


@pytest.mark.parametrize("harm", ["altered", "truncated", "empty"])
def test_an_altered_pack_is_told_and_nothing_is_replaced(elsewhere: Elsewhere, harm: str) -> None:
    path = _pack(elsewhere.place, IMAGE[-1000:])
    data = bytearray(path.read_bytes())
    at = data.index(IMAGE[-1000:])
    data[at : at + 10] = b"0123456789"
    path.write_bytes({"altered": data, "truncated": data[: at + 5], "empty": b""}[harm])
    elsewhere.target.mkdir()
    (elsewhere.target / "mine").write_bytes(b"mine")
    with pytest.raises(Damaged, match="remote|shorter"):
        elsewhere.restore(force=True, strategy="replace")
    assert [path.name for path in elsewhere.target.iterdir()] == ["mine"]
    done = elsewhere.restore(force=True, salvage=True)
    assert "image" in done.restore["lost"]
    _rest_is_right(elsewhere, done)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("paths", [[], ["image"]], ids=["all", "a file"])
def test_what_another_pack_has_is_taken_from_there(place: Place, paths: list[str], times: int) -> None:
    """The host forgot what it had sent, and sent it again, also twice; then all packs but the first one were altered."""
    place.create()
    place.push()
    first = set(place.packs())
    for number in range(times):
        kept = {}
        for name in ("indexes", "commits"):
            kept[name] = (place.top / name).rename(place.top.parent / f"away-{name}-{number}")
            (place.top / name).mkdir()
        shutil.rmtree(place.bench.store / "cache")
        (place.bench.source / "new").write_bytes(b"%d" % number)
        place.create()
        place.push()
        for name, path in kept.items():
            shutil.copytree(path, place.top / name, dirs_exist_ok=True)
    hurt = [path for path in (place.top / "packs").rglob("*") if path.is_file() and path.name not in first and IMAGE[-1000:] in path.read_bytes()]
    assert len(hurt) == times
    for path in hurt:
        data = bytearray(path.read_bytes())
        data[data.index(IMAGE[-1000:]) + 5] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)
    elsewhere = Elsewhere(place)
    elsewhere.restore(paths=paths)
    assert (elsewhere.target / "image").read_bytes() == IMAGE and elsewhere.debris() == []


@pytest.mark.parametrize("at", [7, packs.HEADER + 8], ids=["magic", "form"])
def test_a_rotten_head_of_a_small_pack_is_damage(bench: Any, at: int) -> None:
    """Such packs say themselves what they have. What they lack is named, and the rest is salvaged."""
    bench.files(a__tiny=noise(3000, 77))
    place = made(bench)
    place.create()
    place.push()
    small = [path for path in (place.top / "packs").rglob("*") if path.is_file()]
    bench.files(b=b"other")
    place.create()
    place.push()
    for path in small:
        data = bytearray(path.read_bytes())
        data[at] ^= 8
        path.chmod(0o600)
        path.write_bytes(data)
    elsewhere = Elsewhere(place)
    with pytest.raises(Damaged, match=r"lacks the content of 1 path\(s\): a"):
        elsewhere.restore()
    assert elsewhere.restore(salvage=True).restore["lost"] == ["a"]
    assert (elsewhere.target / "b").read_bytes() == b"other"


@pytest.mark.parametrize("paths", [[], ["a"]], ids=["all", "a path"])
def test_a_rotten_magic_of_an_index_costs_nothing(bench: Any, paths: list[str]) -> None:
    bench.files(a=noise(3000, 77), b=noise(400_000))
    place = made(bench)
    place.create()
    place.push()
    (index,) = [path for path in (place.top / "indexes").rglob("*") if path.is_file()]
    data = bytearray(index.read_bytes())
    data[7] ^= 8
    index.chmod(0o600)
    index.write_bytes(data)
    elsewhere = Elsewhere(place)
    elsewhere.restore(paths=paths)
    assert (elsewhere.target / "a").read_bytes() == noise(3000, 77)


def test_what_is_missing_for_a_path_is_known_before_a_file_is_written(elsewhere: Elsewhere) -> None:
    os.unlink(_pack(elsewhere.place, IMAGE[-1000:]))
    elsewhere.target.mkdir()
    with pytest.raises(Damaged, match="lacks the content of 1 path"):
        elsewhere.restore(paths=["other", "some", "image"], force=True)
    assert list(elsewhere.target.iterdir()) == []


@pytest.mark.parametrize("harm", ["lost", "altered"])
def test_a_lost_index_costs_nothing_but_time(elsewhere: Elsewhere, harm: str) -> None:
    for path in (elsewhere.place.top / "indexes").rglob("*"):
        if path.is_file():
            path.unlink() if harm == "lost" else path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = elsewhere.restore()
    same(elsewhere)
    assert any("/indexes/" in text or "indexes/" in text for text in done.warnings)


def test_a_copy_that_was_made_again_is_the_one(place: Place) -> None:
    """A pack was lost, and the copy made again: a restore by id takes the new one, and one of an older backup what the new one sent."""
    older, newer = change(place.bench, 0), change(place.bench, 1)
    place.push()
    os.unlink(_pack(place, IMAGE[-1000:]))
    for path in (place.top / "indexes").rglob("*-000"):
        path.unlink()
    place.open().push(Which([newer["id"]]))
    elsewhere = Elsewhere(place)
    assert elsewhere.restore(Meant(backup=newer["id"])).restore["lost"] == []
    same(elsewhere)
    shutil.rmtree(elsewhere.target)
    done = elsewhere.restore(Meant(backup=older["id"]))
    assert done.restore["lost"] == [] and (elsewhere.target / "image").read_bytes() == IMAGE


@pytest.mark.parametrize("where", ["samples", "lists"])
def test_an_index_that_rots_loses_no_file(place: Place, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Parts of an index are read without its digest: before something counts as lost, all of it is read."""
    monkeypatch.setattr(places, "_FIRST", 1 << 10)
    place.bench.files(**{f"many__{number:04d}": noise(200, number) for number in range(500)})
    place.create()
    place.push()
    (path,) = [path for path in (place.top / "indexes").rglob("*") if path.is_file()]
    data = bytearray(path.read_bytes())
    head = indexes.parse_head(bytes(data))
    start, end = (head.first_sample, head.packs[0].offset) if where == "samples" else (head.packs[0].offset, len(data))
    data[start:end] = bytes(byte ^ 1 for byte in data[start:end])
    path.write_bytes(data)
    elsewhere = Elsewhere(place)
    elsewhere.restore(paths=["many/0123"])
    assert (elsewhere.target / "many/0123").read_bytes() == noise(200, 123)


@pytest.mark.parametrize("field, value", [("samples", 1.5), ("samples", -1), ("samples", True), ("samples", 10**30), ("sample_bits", 65), ("packs", 10**30)])
def test_an_index_with_a_hostile_head(elsewhere: Elsewhere, field: str, value: Any) -> None:
    """It counts as altered: what it lists is read from the packs."""
    for path in [path for path in (elsewhere.place.top / "indexes").rglob("*") if path.is_file()]:
        data = path.read_bytes()
        size = indexes.head_size(data)
        head = json.loads(data[12:size])
        head[field] = [[name, value] for name, _size in head["packs"]] if field == "packs" else value
        text = json.dumps(head).encode()
        path.write_bytes(data[:8] + len(text).to_bytes(4, "little") + text + data[size:])
    for paths in ([], ["some/more"]):
        elsewhere.restore(paths=paths)
        assert (elsewhere.target / "some/more").read_bytes() == noise(90_000, 1)
        shutil.rmtree(elsewhere.target)


def test_a_bitmap_that_would_fill_the_memory(elsewhere: Elsewhere) -> None:
    (path,) = (elsewhere.place.top / "commits" / HOST).iterdir()
    data = path.read_bytes()
    start = data.index(b'"needs":[[') + len(b'"needs":[[')
    at = data.index(b'","', start) + 3
    path.write_bytes(data[:at] + b"/" * (4 << 20) + data[data.index(b'"', at) :])
    with pytest.raises(NotFound, match="no matching backup"):
        elsewhere.restore()


def test_a_rotten_head_of_a_pack_is_damage(elsewhere: Elsewhere) -> None:
    """Not what a newer version wrote: the name of the pack has its digest. The rest is salvaged."""
    path = _pack(elsewhere.place, IMAGE[-1000:])
    data = bytearray(path.read_bytes())
    data[packs.HEADER + 8] = 9  # the form of the first segment
    path.write_bytes(data)
    with pytest.raises(Damaged, match="is altered"):
        elsewhere.restore()
    done = elsewhere.restore(salvage=True)
    assert "image" in done.restore["lost"]
    _rest_is_right(elsewhere, done)


def test_what_was_fetched_goes_when_it_is_of_no_use(elsewhere: Elsewhere) -> None:
    elsewhere.target.mkdir()
    (elsewhere.target / "mine").write_bytes(b"mine")
    with pytest.raises(TargetDiffers):
        elsewhere.restore()
    assert elsewhere.debris() == []


def test_a_replaced_manifest_is_refused(place: Place) -> None:
    """An unsealed remote has no signatures: what its record says is compared."""
    change(place.bench, 0)
    change(place.bench, 1)
    place.push()
    first, second = sorted((place.top / "commits" / HOST).iterdir())
    read = [commits.parse(f"{names.COMMITS}{HOST}/{path.name}", path.read_bytes()) for path in (first, second)]
    assert read[0] is not None and read[1] is not None
    second.write_bytes(commits.encode(read[1].commit, read[1].sidecar, read[0].manifest, False, lambda _line: None))
    with pytest.raises(Damaged, match="is not the one that its record names"):
        Elsewhere(place).restore()


def test_hostile_segments(elsewhere: Elsewhere) -> None:
    """A pack that promises gigabytes is not unpacked."""
    for path in (elsewhere.place.top / "packs").rglob("*"):
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[packs.HEADER + 4 : packs.HEADER + 8] = (1 << 31).to_bytes(4, "little")
            path.write_bytes(data)
    with pytest.raises(Damaged):
        elsewhere.restore()


# ---- cut off


@pytest.mark.parametrize("how", ["cut", "killed"])
def test_a_restore_that_was_cut_goes_on(elsewhere: Elsewhere, how: str) -> None:
    """At each request: what is at the target is right after the next one, and no pack is fetched twice but those that were under way."""

    def cut_off(number: int) -> None:
        elsewhere.cut = number
        if how == "cut":
            with pytest.raises(RemoteError, match="was cut"):
                elsewhere.restore()
        else:
            elsewhere.stop = lambda: os._exit(9)
            assert ends(elsewhere.restore) == 9
        elsewhere.cut = None

    elsewhere.restore()
    total = len(elsewhere.requests)
    shutil.rmtree(elsewhere.target)
    whole = len(elsewhere.packs_read())
    for cut in sample.some(range(total), 6, f"requests of a restore, {how}"):
        cut_off(cut)
        assert not elsewhere.target.exists()
        before = len(elsewhere.packs_read()) if how == "cut" else 0  # a child that was killed cannot tell
        elsewhere.restore()
        same(elsewhere)
        assert before + len(elsewhere.packs_read()) <= whole + 4  # as many as there are jobs
        shutil.rmtree(elsewhere.target)


def test_what_a_power_cut_tore_is_fetched_again(elsewhere: Elsewhere) -> None:
    elsewhere.restore()
    shutil.rmtree(elsewhere.target)
    elsewhere.cut = len(elsewhere.requests) - 1
    with pytest.raises(RemoteError):
        elsewhere.restore()
    (room,) = [elsewhere.place.bench.top / name for name in elsewhere.debris()]
    torn = [path for path in room.iterdir() if path.name != "volt-restore"]
    assert torn and room.stat().st_mode & 0o777 == 0o700
    for path in torn:
        path.write_bytes(bytes(path.stat().st_size))
    elsewhere.cut = None
    elsewhere.restore()
    same(elsewhere)


def test_what_another_user_put_there_is_not_read(elsewhere: Elsewhere) -> None:
    """A directory of that name that others can write to is left alone."""
    room = elsewhere.place.bench.top / ".new.volt-fetched"
    room.mkdir(mode=0o777)
    room.chmod(0o777)
    (room / "theirs").write_bytes(b"theirs")
    elsewhere.restore()
    assert oracle.differences(elsewhere.place.bench.source, elsewhere.target) == []
    assert [path.name for path in room.iterdir()] == ["theirs"]


def test_a_local_restore_removes_what_was_fetched(elsewhere: Elsewhere) -> None:
    elsewhere.restore(dry=True)
    elsewhere.cut = len(elsewhere.requests)
    with pytest.raises(RemoteError):
        elsewhere.restore()
    assert elsewhere.debris()
    elsewhere.place.bench.restore(target=str(elsewhere.target))
    same(elsewhere)


# ---- sealed, and on S3


@pytest.fixture
def sealed(place: Place, tmp_path: Path) -> tuple[Elsewhere, Any]:
    """A sealed remote, as it is seen with the recovery key."""
    need("age")
    recovery = sealed_keys.new_recovery()
    (tmp_path / "web1").write_text(recovery.of_host("web1").text())
    there = Place(place.bench, tmp_path / "sealed")
    there.top.mkdir()
    settings = Settings(f"file://{there.top}", keys=str(tmp_path / "web1"))
    Remote(place.bench.manager, settings).begin()
    place.bench.files(**{f"many__{number:04d}": noise(5000, number) for number in range(600)})
    place.create()
    Remote(place.bench.manager, settings).push(Which())
    return Elsewhere(there, Settings(settings.url), recovery), settings


@pytest.mark.parametrize("means", ["library", "program"])
def test_a_sealed_backup(sealed: tuple[Elsewhere, Any], monkeypatch: pytest.MonkeyPatch, means: str) -> None:
    if means == "program":
        monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    elsewhere, settings = sealed
    elsewhere.restore()
    same(elsewhere)
    shutil.rmtree(elsewhere.target)
    done = elsewhere.restore(paths=["many/0123"])
    assert (elsewhere.target / "many/0123").read_bytes() == noise(5000, 123)
    if means == "library":
        assert done.restore["fetched_bytes"] < sum(elsewhere.place.packs().values()) / 3
    shutil.rmtree(elsewhere.target)
    for identity, refused, sentence in ((None, UsageError, "recovery key"), (sealed_keys.new_recovery(), VoltError, "another recovery key")):
        other = Elsewhere(elsewhere.place, settings if identity is None else Settings(settings.url), identity)
        with pytest.raises(refused, match=sentence):
            other.restore()
        assert not other.target.exists()


def test_an_altered_sealed_pack_is_told(sealed: tuple[Elsewhere, Any]) -> None:
    elsewhere, _settings = sealed
    for path in (elsewhere.place.top / "packs").rglob("*"):
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[-20] ^= 1
            path.write_bytes(data)
    with pytest.raises(Damaged, match="age file is altered"):
        elsewhere.restore()
    assert not elsewhere.target.exists()


def test_from_s3(place: Place) -> None:
    place.create()
    with s3_servers.moto() as server:
        server.make_bucket("restored")
        settings = Settings(f"s3://restored/web?endpoint={server.endpoint}", HOST, 4, credentials=server.keys["owner"])
        remote = Remote(place.bench.manager, settings)
        remote.begin()
        remote.push(Which())
        elsewhere = Elsewhere(place, settings)
        elsewhere.restore()
        same(elsewhere)
        shutil.rmtree(elsewhere.target)
        elsewhere.restore(paths=["some/more"])
        assert (elsewhere.target / "some/more").read_bytes() == noise(90_000, 1)


# ---- pull


def test_a_backup_is_pulled_into_another_store(place: Place) -> None:
    for number in range(2):
        change(place.bench, number)
        place.push()
    top = place.bench.top
    manager = Manager(str(top / "store2"), str(top / "backups2"), 5)
    remote = Remote(manager, Settings(f"file://{place.top}"))
    assert remote.pull(WORK, dry=True).changed and not (top / "store2").exists()
    done = remote.pull(WORK)
    assert done.changed and done.new_blobs > 10
    (newest,) = manager.find(Query())
    (origin, older) = place.bench.found()
    told = {"created_at", "workload_name", "host", "source_path", "file_count", "total_size", "complete"}
    assert {key: newest[key] for key in told} == {key: origin[key] for key in told} and not newest["damaged"] and not newest["foreign"]
    assert newest["copies"][0]["push"] and not remote.pull(WORK).changed and remote.push(Which()) == []
    assert manager.verify(VerifyRequest(level="content")).damage == []
    manager.restore(newest["id"], RestoreRequest(str(top / "pulled")))
    assert oracle.differences(place.bench.source, top / "pulled") == []
    more = remote.pull(Meant(backup=older["id"]))
    assert more.changed and more.new_blobs < 10 and len(manager.find(Query())) == 2
    manager.collect(grace="0s")
    assert manager.verify(VerifyRequest(level="content")).damage == []


def test_a_pull_into_a_store_of_version_0_1_0(elsewhere: Elsewhere, tmp_path: Path) -> None:
    """The first write to such a store takes its lock alone, so the pull itself may not hold it."""
    (tmp_path / "old").mkdir()
    host = Host(tmp_path / "old")
    (host.top / "cas/lock").touch()  # as each run of that version leaves it
    remote = Remote(host.manager, Settings(f"file://{elsewhere.place.top}"))
    assert remote.pull(Meant(HOST, workload="work")).changed


def test_a_pull_that_fails_leaves_no_backup(elsewhere: Elsewhere) -> None:
    os.unlink(_pack(elsewhere.place, IMAGE[-1000:]))
    top = elsewhere.place.bench.top
    where = ["--store", str(top / "store2"), "--backup-dir", str(top / "backups2")]
    remote = ["--remote", f"file://{elsewhere.place.top}"]
    assert cli.main(["pull", "work", *remote, *where]) == 1
    assert Manager(str(top / "store2"), str(top / "backups2"), 5).find(Query()) == []
    assert os.listdir(top / "store2/tmp") == []
    assert cli.main(["pull", f"{HOST}/work", *remote, "--store", str(elsewhere.place.bench.store), "--backup-dir", str(elsewhere.place.bench.backups)]) == 0


# ---- repair


def test_a_store_gets_back_what_it_has_lost(elsewhere: Elsewhere, tmp_path: Path) -> None:
    """Trees, packs and objects are gone, and the source with them. The copies have all."""
    bench = elsewhere.place.bench
    for kind in ("packs", "objects"):
        for path in (bench.store / kind).rglob("*"):
            if path.is_file():
                path.unlink()
    bench.source.rename(tmp_path / "moved")
    with elsewhere.place.open().giving() as give:
        foreseen = bench.manager.verify(VerifyRequest(repair=True), dry=True, elsewhere=give)
        assert foreseen.damage and not foreseen.changed
        done = bench.manager.verify(VerifyRequest(repair=True), elsewhere=give)
    assert done.damage == [] and done.repaired["fetched"] == done.repaired["blobs"] > 10 and done.changed
    bench.restore()
    assert oracle.differences(tmp_path / "moved", bench.target) == []
    assert cli.main(["verify", "--content", "--store", str(bench.store), "--backup-dir", str(bench.backups)]) == 0


def test_what_the_remote_lacks_stays_lost(elsewhere: Elsewhere, tmp_path: Path) -> None:
    bench = elsewhere.place.bench
    os.unlink(_pack(elsewhere.place, IMAGE[-1000:]))
    for path in (bench.store / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    bench.source.rename(tmp_path / "moved")
    where = ["--store", str(bench.store), "--backup-dir", str(bench.backups), "--remote", f"file://{elsewhere.place.top}"]
    assert cli.main(["verify", "--repair", *where]) == 1
    assert cli.main(["verify", *where]) == 1
    assert cli.main(["verify", "--content", *where]) == 2
    done = bench.manager.verify(VerifyRequest())
    assert {item["path"] for item in done.damage} == {"image"}


def test_a_repair_from_a_sealed_remote_wants_its_key_first(sealed: tuple[Elsewhere, Any]) -> None:
    elsewhere, settings = sealed
    bench = elsewhere.place.bench
    before = bench.snapshot()
    with pytest.raises(UsageError, match="recovery key"), Remote(bench.manager, settings).giving():
        raise AssertionError("it must not begin")
    assert bench.snapshot() == before


# ---- the command


def test_the_command(elsewhere: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    top = elsewhere.place.bench.top
    here = ["--store", str(top / "none"), "--backup-dir", str(top / "none")]
    for text in ("work", f"{HOST}/work", "latest", elsewhere.place.bench.found()[0]["id"]):
        shutil.rmtree(elsewhere.target, ignore_errors=True)
        assert cli.main(["restore", text, "--remote", f"file://{elsewhere.place.top}", "--target", str(elsewhere.target), *here]) == 0
        same(elsewhere)
        assert "fetched" in capsys.readouterr().out
    assert cli.main(["restore", "other", "--remote", f"file://{elsewhere.place.top}", "--target", str(elsewhere.target), *here]) == 5
