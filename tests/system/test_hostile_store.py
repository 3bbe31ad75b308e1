# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores that somebody made to harm us: whatever lies in them, every command ends with success or a sentence, in bounded time and memory, and
writes nothing outside store, backup directory and target.

Each case gets a copy of a small store, is harmed in one way, and then all commands run over it in one forked child with little memory. A sample
is taken of the plainer harms; VOLT_TESTS=long takes them all.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import create, host, records, verify
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._format import chunks, links, tree
from ansible_collections.volt.backup.plugins.module_utils._format.tree import CHARACTER, CHUNKED, DIRECTORY, FILE, SYMLINK, Entry, Extra
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._store import codec, pack
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction
from ansible_collections.volt.backup.tests.rigs import model, mounts, sample
from ansible_collections.volt.backup.tests.rigs.sample import LONG

SECONDS = 30 if LONG else 8
MIB = 1 << 20
#: Plain bytes of a decompression bomb.
BOMB = (1024 if LONG else 128) * MIB


def some(every: Iterable[Any], *told: Any, one_in: int = 10) -> list[Any]:
    """A sample, and those that are unlike all others; all in the long mode."""
    cases = list(every)
    taken = sample.some(cases, -(-len(cases) // one_in), "hostile")
    return [case for case in cases if case in taken or case in told]


class Victim:
    """A copy of the small store, with a place around it that nobody may touch."""

    def __init__(self, original: Path, top: Path) -> None:
        shutil.copytree(original, top, symlinks=True, dirs_exist_ok=True)
        self.top, self.store, self.backups, self.source, self.target = top, *(top / name for name in ("store", "backups", "source", "target"))
        self.outside = top / "outside"
        self.manager = Manager(str(self.store), str(self.backups), 3)

    def sound(self) -> list[str]:
        return sorted(backup["id"] for backup in self.manager.find(Query()) if not backup["damaged"])

    def forge(self, root: bytes | None, table: bytes = b"", facts: dict[str, object] | None = None, **edits: object) -> str:
        """A backup `evil` with matching names and digests around whatever content; its id."""
        (model_sidecar,) = self.manager.find(Query(workload="work", limit=1))
        _store, catalog = self.manager._open()
        manifest = catalog.manifest(model_sidecar)
        evil = "evil-20260101-000000-manual"
        known = {**manifest.backup, "id": evil, "workload_name": "evil", **(facts or {})}
        if root is not None:
            edits["root"] = manifest.root._replace(content=root)
        data = records.encode_manifest(manifest._replace(backup=known, links=table, links_size=2, **edits))
        name, digest = records.reference(evil, data)
        (self.store / "refs" / f"{name}.json").write_bytes(data)
        told = {key: value for key, value in model_sidecar.items() if key in records.SIDECAR}
        sidecar = {**told, **known, "manifest_ref": name, "manifest_sha256": digest}
        (self.backups / f"{evil}.json").write_bytes(records.encode_sidecar(sidecar))
        return evil

    def add(self, *blobs: bytes) -> list[bytes]:
        """Put blobs into the store as metadata is put there; their digests."""
        with Transaction(Store(str(self.store)), "zlib") as run:
            digests = [run.add_metadata(blob) for blob in blobs]
            run.commit()
        return digests

    def commands(self, wanted: str = "evil-20260101-000000-manual") -> list[model.Step]:
        """Every command, those that change the store last."""
        manager = self.manager
        newest = RestoreRequest(target=str(self.target), force=True)
        elsewhere = RestoreRequest(target=str(self.top / "in-place"), strategy="in_place", delete=True, force=True, link="copy")
        others = create.CreateRequest("work", str(self.source), only_if_changed=True)
        verified: Callable[..., object] = lambda **options: manager.verify(verify.VerifyRequest(**options))._replace(damage=[])  # noqa: E731

        def listed() -> object:
            return [(item["id"], item["damaged"]) for item in manager.find(Query())]

        return [
            ("list", listed),
            ("changes", lambda: len(manager.changes(manager.find(Query()), 10))),
            ("structure", verified),
            ("content", lambda: verified(level="content")),
            ("budget", lambda: verified(level="content", budget="50%")),
            ("info", manager.usage),
            ("show", lambda: len(manager.contents(wanted, 100)["entries"])),
            ("restore", lambda: manager.restore(wanted, newest)[0].changed),
            ("in place", lambda: manager.restore(wanted, elsewhere)[0].changed),
            ("restore newest", lambda: manager.restore(None, newest, newest=Query(workload="work"))[0].changed),
            ("dry gc", lambda: manager.collect("0s", dry=True)["trashed_files"]),
            ("create", lambda: manager.create(others).changed),
            ("create evil", lambda: manager.create(create.CreateRequest("evil", str(self.source))).changed),
            ("gc", lambda: manager.collect("0s")["trashed_files"]),
            ("repair", lambda: verified(level="content", repair=True)),
            ("gc again", lambda: manager.collect("0s")["trashed_files"]),
            ("listed at last", listed),
        ]

    def survive(self, *skip: str, memory: int = 1536 * MIB) -> dict[str, model.Outcome]:
        """All commands end well, and what is around is as it was."""
        before = model.states(self.outside)
        names = set(os.listdir(self.top))
        outcomes = model.bounded([step for step in self.commands() if step[0] not in skip], memory, SECONDS)
        bad = {name: outcome for name, outcome in outcomes.items() if not outcome.fine}
        assert not bad, "; ".join(f"{name} {outcome.how}: {outcome.value}" for name, outcome in bad.items())
        for outcome in outcomes.values():
            assert outcome.how == "done" or "\n" not in outcome.value and outcome.value.endswith("."), outcome
        assert model.states(self.outside) == before
        assert set(os.listdir(self.top)) - names <= {"target", "in-place"}
        return outcomes


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In memory where there is enough: nothing here is about disks, and all commands sync."""
    with mounts.memory() as memory:
        yield memory or tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def original(room: Path) -> Path:
    """Small files, an object in each form, a file in chunks, links, attributes; two backups of one workload and one of another."""
    top = room / "original"
    source, chance = top / "source", random.Random(5)
    for number in range(12):
        (source / f"d{number % 3}" / "deep").mkdir(parents=True, exist_ok=True)
        (source / f"d{number % 3}" / "deep" / f"f{number}").write_bytes(chance.randbytes(700 * number))
    (source / "plain").write_bytes(chance.randbytes(150_000))
    (source / "packed").write_bytes(b"words " * 50_000)
    with open(source / "chunked", "wb") as file:
        file.write(chance.randbytes(MIB))
        file.truncate(9 * MIB)
    os.link(source / "plain", source / "again")
    os.symlink("plain", source / "link")
    os.setxattr(source / "packed", "user.x", b"y")
    (top / "outside").mkdir()
    (top / "outside" / "canary").write_bytes(b"sings")
    (top / "outside" / "nest").mkdir()
    (top / "outside" / "nest" / "egg.scan").write_bytes(b"whole")
    manager = Manager(str(top / "store"), str(top / "backups"), 5)
    manager.create(create.CreateRequest("work", str(source)))
    manager.create(create.CreateRequest("other", str(source / "d1")))
    (source / "more").write_bytes(b"more")
    manager.create(create.CreateRequest("work", str(source)))
    manager.verify(verify.VerifyRequest(level="content", budget="50%"))
    return top


@pytest.fixture
def victim(original: Path, room: Path) -> Iterator[Victim]:
    made = Victim(original, room / "victim" / "v")
    yield made
    subprocess.run(["rm", "-rf", room / "victim"], check=True)  # shutil gives up on very long paths


# ---- plain harm to any file


def kinds(top: Path) -> dict[str, Path]:
    """One file of each kind."""
    store = top / "store"
    packs = sorted((path for path in (store / "packs").rglob("*.pack*")), key=lambda path: path.stat().st_size)
    objects = sorted(path for path in (store / "objects").rglob("*") if path.is_file())
    index = sorted((store / "index").iterdir())
    return {
        "format": store / "format.json",
        "tag": store / "CACHEDIR.TAG",
        "gate": store / "gate",
        "round": store / "cache" / "verify.json",
        "scan": max((store / "cache").glob("*.scan"), key=lambda path: path.stat().st_size),
        "pack table": next(path for path in index if path.name.startswith("packs")),
        "object table": next(path for path in index if path.name.startswith("objects")),
        "metadata": packs[0],
        "content": packs[-1],
        "object": next(path for path in objects if "." not in path.name),
        "packed object": next(path for path in objects if "." in path.name),
        "manifest": max((store / "refs").iterdir()),
        "sidecar": max((top / "backups").iterdir()),
    }


KINDS = ("format", "tag", "gate", "round", "scan", "pack table", "object table", "metadata", "content", "object", "packed object", "manifest",
         "sidecar")  # fmt: skip
HOWS = ("empty", "half", "short", "long", "flip first", "flip middle", "flip last", "noise", "nested", "gone", "fifo", "directory", "symlink", "device",
        "vast", "swap near", "swap far")  # fmt: skip


def harm(path: Path, how: str, every: dict[str, Path], outside: Path) -> None:
    data = path.read_bytes()
    size = len(data)
    changed = {
        "empty": b"", "half": data[: size // 2], "short": data[:-1], "long": data + b"\0", "noise": random.Random(size).randbytes(size + 7),
        "nested": b"[" * 4000,
    }  # fmt: skip
    flips = {"flip first": 0, "flip middle": size // 2, "flip last": size - 1}
    if how in changed:
        path.write_bytes(changed[how])
    elif how in flips:
        if size:
            path.write_bytes(data[: flips[how]] + bytes([data[flips[how]] ^ 0x10]) + data[flips[how] + 1 :])
    elif how == "vast":
        os.truncate(path, 900 * MIB)
    elif how.startswith("swap"):
        names = list(every.values())
        step = 1 if how == "swap near" else 5
        other = names[(names.index(path) + step) % len(names)]
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    else:
        path.unlink()
        if how == "fifo":
            os.mkfifo(path)
        elif how == "directory":
            path.mkdir()
        elif how == "symlink":
            path.symlink_to(outside / "canary")
        elif how == "device":
            path.symlink_to("/dev/zero")


TOLD = {("format", "fifo"), ("round", "fifo"), ("lock", "fifo"), ("round", "nested"), ("sidecar", "vast")}
CASES = some(((kind, how) for kind in KINDS for how in HOWS), *TOLD, one_in=18)


@pytest.mark.parametrize(("kind", "how"), CASES)
@pytest.mark.costly
def test_a_harmed_file(victim: Victim, kind: str, how: str) -> None:
    every = kinds(victim.top)
    harm(every[kind], how, every, victim.outside)
    victim.survive()


PARTS = ("objects", "packs", "refs", "index", "cache", "tmp", "trash", "quarantine")


@pytest.mark.parametrize("how", ["symlink", "fifo", "gone"] if LONG else ["symlink"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.costly
def test_a_harmed_directory(victim: Victim, part: str, how: str) -> None:
    path = victim.store / part
    # what is found false makes repair use the quarantine
    every = kinds(victim.top)
    harm(every["object"], "flip middle", every, victim.outside)
    moved = victim.top / "moved"
    path.rename(moved)
    if how == "symlink":
        path.symlink_to(victim.outside)
    elif how == "fifo":
        os.mkfifo(path)
    victim.survive()


@pytest.mark.parametrize("name", some(["0-1", "x", "99999999999999999999999999-1", "\u00b2-1"], "\u00b2-1"))
@pytest.mark.costly
def test_strange_things_in_the_trash(victim: Victim, name: str) -> None:
    (victim.store / "trash" / name).symlink_to(victim.outside)
    (victim.store / "trash" / ("0" + name)).mkdir()
    (victim.store / "trash" / ("0" + name) / "in").symlink_to(victim.outside)
    victim.survive()


# ---- forged content under true digests


def item(name: bytes, kind: int = FILE, **fields: object) -> Entry:
    known = {"mode": 0o644, "uid": 0, "gid": 0, "seconds": 1, "nanos": 0, "size": 0, "content": b"", **fields}
    return Entry(name, kind, **known)  # type: ignore[arg-type]


def raw_tree(*names: bytes) -> bytes:
    """A tree of empty files whose names nobody has looked at."""
    return tree.encode([item(name) for name in names])


ODD_TREES: dict[str, bytes] = {
    "dot dot": raw_tree(b".."),
    "absolute": raw_tree(b"/etc/passwd"),
    "below": raw_tree(b"a/../../outside/x"),
    "empty name": raw_tree(b""),
    "twice": raw_tree(b"a", b"a"),
    "nul": raw_tree(b"a\0b"),
    "300 bytes": raw_tree(b"n" * 300),
    "ours": raw_tree(b".volt-restore-0123456789abcdef", b"journal.json"),
    "device numbers": tree.encode([item(b"dev", CHARACTER, extra=Extra(device=(0xFFFFFFFF, 0xFFFFFFFF)))]),
    "large minor": tree.encode([item(b"dev", CHARACTER, extra=Extra(device=(1, 0x80000000)))]),
    "owners": tree.encode([item(b"o", uid=0xFFFFFFFF, gid=0xFFFFFFFE)]),
    "times": tree.encode([item(b"t", seconds=(1 << 63) - 1), item(b"u", seconds=-(1 << 63))]),
    "long target": tree.encode([item(b"l", SYMLINK, extra=Extra(target=b"t" * 5000))]),
    "attributes": tree.encode([item(b"x", extra=Extra(xattrs=((b"user." + b"n" * 300, b""), (b"nonsense", b"\0" * 70_000))))]),
    "capability": tree.encode([item(b"c", extra=Extra(xattrs=((b"security.capability", b"junk"), (b"system.posix_acl_access", b"junk"))))]),
    "attribute not utf-8": tree.encode([item(b"x", extra=Extra(xattrs=((b"\xff\xfe", b""),)))]),
    "sockets with size": tree.encode([item(b"s", ord("s"), size=(1 << 64) - 1)]),
    "missing": tree.encode([item(b"d", DIRECTORY, content=b"\1" * 32), item(b"f", size=5, content=b"\2" * 32)]),
    "huge": tree.encode([item(b"f", size=1 << 63, content=b"\2" * 32), item(b"g", size=(1 << 64) - 1, content=b"\3" * 32)]),
    "count": b"VOLTTREE" + struct.pack("<IIII", 0xFFFFFFFF, 0, 0, 0),
    "sizes": b"VOLTTREE" + struct.pack("<IIII", 1, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
    "parts": b"VOLTPART" + struct.pack("<I", 0xFFFFFFFF) + b"\1" * 32,
    "nothing": b"",
    "text": b"not a tree",
}


@pytest.mark.parametrize("name", some(ODD_TREES, "device numbers", "missing", "300 bytes", "absolute"))
@pytest.mark.costly
def test_an_odd_tree(victim: Victim, name: str) -> None:
    sound = victim.sound()
    victim.forge(victim.add(ODD_TREES[name])[0])
    outcomes = victim.survive()
    assert outcomes["restore newest"].how == "done" and outcomes["create"].how == "done", outcomes
    assert set(sound) <= {backup for backup, damaged in outcomes["listed at last"].value if not damaged}


def chunked(size: int, holes: chunks.Holes = (), digests: tuple[bytes, ...] = ()) -> tuple[int, bytes]:
    return size, chunks.encode(size, holes, digests)


LISTS = {
    "all hole": chunked(1 << 62, ((0, 1 << 62),)),
    "2^63 hole": chunked(1 << 63, ((0, 1 << 63),)),
    "2^64 hole": chunked((1 << 64) - 1, ((0, (1 << 64) - 1),)),
    "hole beyond": chunked(MIB, ((0, 1 << 63),)),
    "no digests": chunked(1 << 50),
    "missing": chunked(9 * MIB, (), (b"\1" * 32,) * 9),
    "count of holes": (9 * MIB, b"VOLTCHNK" + struct.pack("<QI", 9 * MIB, 0xFFFFFFFF)),
    "another size": (9 * MIB, chunked(10 * MIB, ((0, 10 * MIB),))[1]),
    "many holes": chunked(3 << 20, tuple((2 * at, 1) for at in range(1_500_000 if LONG else 150_000)), (b"\1" * 32,) * 3),
}


@pytest.mark.parametrize("name", some(LISTS, "2^63 hole", "many holes"))
@pytest.mark.costly
def test_an_invalid_list_of_chunks(victim: Victim, name: str) -> None:
    size, blob = LISTS[name]
    (digest,) = victim.add(blob)
    victim.forge(*victim.add(tree.encode([item(b"f", CHUNKED, size=size, content=digest)])))
    outcomes = victim.survive()
    assert outcomes["restore newest"].how == "done"


@pytest.mark.parametrize("size", [1, 100, 200_000, 1 << 40, 1 << 63] if LONG else [200_000, 1 << 63])
@pytest.mark.parametrize("kind", ["small", "plain", "packed"] if LONG else ["small", "packed"])
@pytest.mark.costly
def test_a_wrong_size(victim: Victim, kind: str, size: int) -> None:
    """The tree says that a blob is longer or shorter than it is: damaged, and no restore gives the wrong bytes."""
    content = {"small": b"d1/deep/f4", "plain": b"plain", "packed": b"packed"}[kind]
    data = (victim.source / os.fsdecode(content)).read_bytes()
    victim.forge(*victim.add(tree.encode([item(b"f", size=size, content=hashlib.sha256(data).digest())])))
    outcomes = victim.survive()
    assert outcomes["restore"].how == outcomes["in place"].how == "refused"
    if kind == "small":  # what is compressed tells its size to those alone who unpack it
        assert dict(outcomes["list"].value)["evil-20260101-000000-manual"], "a backup that cannot be restored is listed as sound"


TABLES = {
    "outside": links.encode([[b"../outside/canary", b"d0/x"]]),
    "absolute": links.encode([[b"/etc/hostname", b"d0/x"]]),
    "deep outside": links.encode([[b"d0/../../outside/canary", b"plain"]]),
    "unlike files": links.encode([[b"plain", b"packed", b"d0", b"link"]]),
    "not there": links.encode([[b"plain", b"no/such"], [b"no/such", b"packed"]]),
    "in two groups": links.encode([[b"again", b"plain"], [b"packed", b"plain"]]),
    "through a link": links.encode([[b"link/x", b"plain"]]),
    "count": b"VOLTLINK" + struct.pack("<I", 0xFFFFFFFF),
    "members": b"VOLTLINK" + struct.pack("<II", 1, 0xFFFFFFFF) + b"a\0" * 50,
    "junk": b"junk",
}


@pytest.mark.parametrize("name", some(TABLES, "deep outside"))
@pytest.mark.costly
def test_a_table_of_links_that_leads_astray(victim: Victim, name: str) -> None:
    victim.forge(None, victim.add(TABLES[name])[0])
    assert victim.survive()["restore newest"].how == "done"


MANIFESTS: dict[str, dict[str, object]] = {
    "source with nul": {"source_path": "/tmp/a\0b"},
    "source with escapes": {"source_path": "\\x2e\\x2e/\\xff"},
    "source that is none": {"source_path": "\\"},
    "root": {"source_path": "/"},
    "host": {"host": "\x1b[31m\n"},
    "exclude": {"exclude": ["[", "!", "\\", "a\0b", "/" * 5000, "**/" * 200 + "x"]},
    "workload": {"workload_name": "../../outside"},
    "far past": {"created_at": "0001-01-01T00:00:00+14:00"},
    "far future": {"created_at": "9999-12-31T23:59:59-14:00"},
    "no seconds": {"created_at": "2026-01-01"},
}


@pytest.mark.parametrize("name", some(MANIFESTS, "workload"))
@pytest.mark.costly
def test_facts_that_are_forged(victim: Victim, name: str) -> None:
    evil = victim.forge(None, facts=MANIFESTS[name])
    victim.survive()
    if name != "root":
        steps = [("to its source", lambda: victim.manager.restore(evil, RestoreRequest(force=False))),
                 ("prune", lambda: victim.manager.prune("evil", {"last": 1}, dry=True))]  # fmt: skip
        assert all(outcome.fine for outcome in model.bounded(steps).values())


# ---- blow-ups


def dag(victim: Victim, levels: int, bottom: bytes) -> bytes:
    """Each level lists the next one twice: 2^levels paths in a few hundred bytes a level."""
    blobs = [bottom]
    for _level in range(levels):
        digest = hashlib.sha256(blobs[-1]).digest()
        blobs.append(tree.encode([item(name, DIRECTORY, mode=0o755, content=digest) for name in (b"a", b"b")]))
    return victim.add(*blobs)[-1]


ENDLESS = ("restore", "in place")  # these make every path that the backup holds: only their user knows when it is too much


@pytest.mark.costly
def test_a_tree_that_refers_to_itself_exponentially(victim: Victim) -> None:
    victim.forge(dag(victim, 40, raw_tree(b"x")))
    outcomes = victim.survive(*ENDLESS, "create evil")
    assert sum(outcome.seconds for outcome in outcomes.values()) < 20
    shutil.rmtree(victim.target)
    stuck = model.bounded([step for step in victim.commands() if step[0] in ENDLESS], seconds=5)
    assert stuck["restore"].how in ("refused", "stuck") and not (victim.top / "target").exists(), "it is still comparing, and has written nothing"


@pytest.mark.costly
def test_an_exponential_tree_that_lacks_something(victim: Victim) -> None:
    """Verification names paths: not 2^40 of them."""
    victim.forge(dag(victim, 40, tree.encode([item(b"f", size=5, content=b"\2" * 32)])))
    victim.survive(*ENDLESS, "create evil")


@pytest.mark.costly
def test_a_new_backup_after_an_exponential_one(victim: Victim) -> None:
    """The new backup tells what changed since the last one of its workload, which is the hostile one."""
    victim.forge(dag(victim, 40, raw_tree(b"x")))
    outcomes = model.bounded([step for step in victim.commands() if step[0] == "create evil"], seconds=8)
    assert outcomes["create evil"].how == "done", outcomes


@pytest.mark.costly
def test_a_deep_tree(victim: Victim) -> None:
    blobs = [raw_tree(b"x")]
    for _level in range(3000):
        blobs.append(tree.encode([item(b"d", DIRECTORY, mode=0o755, content=hashlib.sha256(blobs[-1]).digest())]))
    evil = victim.forge(victim.add(*blobs)[-1])
    outcomes = victim.survive("create evil")
    assert outcomes["restore"].value and outcomes["in place"].value
    again = model.bounded([("same", lambda: victim.manager.restore(evil, RestoreRequest(target=str(victim.target)))[0].changed),
                           ("backup", lambda: victim.manager.create(create.CreateRequest("deep", str(victim.target))).backup["complete"])])  # fmt: skip
    assert (again["same"].value, again["backup"].value) == (False, True), again


@pytest.mark.costly
def test_a_wide_tree_in_a_few_bytes(victim: Victim) -> None:
    """The longest tree blob that is read, of very many very equal entries."""
    count = 100_000 if not LONG else 1_400_000
    names = [b"%07d" % number for number in range(count)]
    blob = tree.encode([item(name) for name in names])
    assert len(blob) < tree.BLOB_LIMIT
    victim.forge(victim.add(blob)[0])
    victim.survive(*ENDLESS, "create evil")


def zeros(suffix: str, size: int, head: bytes = b"") -> bytes:
    """A compressed form of very many zeros."""
    if suffix == codec.ZLIB:
        worker = zlib.compressobj(9)
        pieces = [worker.compress(head)] + [worker.compress(bytes(16 * MIB)) for _part in range(size // (16 * MIB))] + [worker.flush()]
        return b"".join(pieces)
    zstandard = pytest.importorskip("zstandard")
    worker = zstandard.ZstdCompressor(level=3).compressobj(size=size // (16 * MIB) * 16 * MIB + len(head))
    return b"".join([worker.compress(head)] + [worker.compress(bytes(16 * MIB)) for _part in range(size // (16 * MIB))] + [worker.flush()])


@pytest.fixture(scope="module")
def bombs() -> dict[str, tuple[bytes, bytes]]:
    """Suffix -> (very many zeros, the same as a table of links)."""
    return {suffix: (zeros(suffix, BOMB), zeros(suffix, BOMB - 16 * MIB, b"VOLTLINK" + struct.pack("<I", 0xFFFFFFFF))) for suffix in
            ((codec.ZLIB, codec.ZSTD) if LONG else (codec.ZSTD,))}  # fmt: skip


@pytest.mark.parametrize("suffix", [codec.ZLIB, codec.ZSTD] if LONG else [codec.ZSTD])
@pytest.mark.parametrize("place", ["pack", "object", "tree", "links"])
@pytest.mark.costly
def test_a_bomb(victim: Victim, bombs: dict[str, tuple[bytes, bytes]], place: str, suffix: str) -> None:
    data, table = bombs[suffix]
    name = hashlib.sha256(data).digest()  # its own, as no one can tell without unpacking it
    kind = "packs" if place == "pack" else "objects"
    shelf = victim.store / kind / name.hex()[:2]
    shelf.mkdir(exist_ok=True)
    (shelf / (name.hex() + (".pack" if place == "pack" else "") + suffix)).write_bytes(table if place == "links" else data)
    if place == "tree":
        victim.forge(name)
    elif place == "links":
        victim.forge(None, name)
    else:
        victim.forge(*victim.add(tree.encode([item(b"f", size=BOMB, content=name)])))
    outcomes = victim.survive()
    assert outcomes["restore newest"].how == "done"
    assert outcomes["restore"].how == "refused"


@pytest.mark.costly
def test_very_many_links_in_a_few_bytes(victim: Victim) -> None:
    """A table of tens of thousands of stored bytes that says millions of groups."""
    groups = 100_000 if not LONG else 40_000_000
    blob = b"VOLTLINK" + struct.pack("<I", groups) + (struct.pack("<I", 2) + b"a\0a\0") * groups
    victim.forge(None, victim.add(blob)[0])
    del blob
    victim.survive(*(() if LONG else ENDLESS))


@pytest.mark.costly
def test_changes_since_a_damaged_backup_spoil_no_others(victim: Victim) -> None:
    victim.forge(victim.add(ODD_TREES["missing"])[0])
    after = victim.manager.create(create.CreateRequest("evil", str(victim.source))).backup["id"]
    found = victim.manager.changes(victim.manager.find(Query()), 10)
    assert found[after] is None and any(found.values()), "None, as for damaged ones, and all others are told"


# ---- packs and derived files under true digests and checksums


@pytest.mark.parametrize("lie", some(["swapped digests", "zero lengths", "length beyond", "twice", "kind"], "length beyond"))
@pytest.mark.costly
def test_a_pack_with_a_wrong_table(victim: Victim, lie: str) -> None:
    path = kinds(victim.top)["metadata"]
    match = codec.NONE if path.suffix == ".pack" else path.suffix
    data = bytearray(codec.decompress(path.read_bytes(), match, pack.PACK_MOST))
    _magic, _kind, count = pack.HEADER.unpack_from(data)
    entries = [pack.ENTRY.unpack_from(data, pack.HEADER.size + at * pack.ENTRY.size) for at in range(count)]
    if lie == "swapped digests":
        entries = [(entries[(at + 1) % count][0], length) for at, (_digest, length) in enumerate(entries)]
    elif lie == "zero lengths":
        entries = [(digest, 0) for digest, _length in entries]
    elif lie == "length beyond":
        entries = [(digest, 0xFFFFFFFF) for digest, _length in entries]
    elif lie == "twice":
        entries = [(entries[0][0], length) for _digest, length in entries]
    else:
        data[8] ^= 1
    for at, entry in enumerate(entries):
        pack.ENTRY.pack_into(data, pack.HEADER.size + at * pack.ENTRY.size, *entry)
    path.unlink()
    name = hashlib.sha256(data).hexdigest()
    (victim.store / "packs" / name[:2]).mkdir(exist_ok=True)
    (victim.store / "packs" / name[:2] / f"{name}.pack").write_bytes(data)
    victim.survive()


def sealed(data: bytearray) -> bytes:
    """An index table with a true checksum again."""
    struct.pack_into("=I", data, 8, zlib.crc32(data[12:]))
    return bytes(data)


TABLE_LIES = {
    "no slot is empty": lambda data, slots: data[: -4 * slots] + struct.pack("=I", 1) * slots,
    "slots beyond": lambda data, slots: data[: -4 * slots] + struct.pack("=I", 0x7FFFFFFF) * (slots - 1) + bytes(4),
    "numbers beyond": lambda data, slots: data.replace(struct.pack("=I", 0), struct.pack("=I", 9999999)),
    "appendix of odd length": lambda data, slots: data[:28] + struct.pack("=I", struct.unpack_from("=I", data, 28)[0] + 4) + data[32:] + bytes(4),
    "rubbish records": lambda data, slots: data[:32] + bytes(b ^ 0x55 for b in data[32 : -4 * slots]) + data[-4 * slots :],
}


@pytest.mark.parametrize("lie", some(TABLE_LIES, "numbers beyond", "appendix of odd length"))
@pytest.mark.parametrize("kind", ["pack table", "object table"])
@pytest.mark.costly
def test_a_wrong_index_table_with_a_correct_checksum(victim: Victim, kind: str, lie: str) -> None:
    path = kinds(victim.top)[kind]
    data = path.read_bytes()
    slots = struct.unpack_from("=I", data, 20)[0]
    path.write_bytes(sealed(bytearray(TABLE_LIES[lie](data, slots))))
    victim.survive()


@pytest.mark.parametrize("field", some(range(3, 11), 5))
@pytest.mark.costly
def test_a_wrong_stat_cache_with_a_correct_checksum(victim: Victim, field: int) -> None:
    """Counts of a record that do not fit it; all other fields are as they were."""
    path = kinds(victim.top)["scan"]
    path = path.rename(path.parent / create.scan_name(os.fsencode(victim.source), host.machine_id()))  # the original's source was elsewhere
    data = bytearray(path.read_bytes())
    record, trailer = struct.Struct("=IIQ8I32s6Q"), struct.Struct("=QQII8s")
    root = trailer.unpack_from(data, len(data) - trailer.size)[0]
    fields = list(record.unpack_from(data, root))
    fields[field] += 3
    record.pack_into(data, root, *fields)
    length = fields[1]
    struct.pack_into("=I", data, root, zlib.crc32(data[root + 4 : root + length]))
    path.write_bytes(data)
    outcomes = victim.survive()
    assert outcomes["create"].how == "done", outcomes["create"]
