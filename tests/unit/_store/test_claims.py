# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims, between real processes: what a collection sees of the runs that live, and what a run does where its claims cannot be written or seen."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import files as base_files
from ansible_collections.volt.backup.plugins.module_utils._base.errors import LockLost, LockTimeout, NotFound, StoreError, StoreFull
from ansible_collections.volt.backup.plugins.module_utils._store import claims, features
from ansible_collections.volt.backup.plugins.module_utils._store.claims import Claimed
from ansible_collections.volt.backup.plugins.module_utils._store.lock import taken
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction

from ..kit import Child
from .test_transaction import LARGE, SMALL, digest, files, put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def seen(path: Path) -> tuple[bool, set[bytes], set[bytes]]:
    """Whether any run lives, and the packs and objects that are claimed."""
    found = Claimed(str(path))
    lives = found.read()
    return lives, *({table.digest(at) for at in range(len(table))} for table in (found.packs, found.objects))


def work(pipe: Any, path: str, commit: bool) -> None:
    """Rely on a pack and an object, bring one of each, and wait at the end."""
    with Transaction(Store(path, 5), "none") as run:
        assert run.blobs.has(digest(SMALL[0])) and run.objects.has(digest(LARGE[0]), len(LARGE[0]))
        run.blobs.add(digest(b"new"), b"new")
        run.objects.save(digest(LARGE[1]), LARGE[1])
        run.finish()
        if commit:
            run.commit()
        pipe.send("ready")
        pipe.recv()
    pipe.send("done")


def names(path: Path, kind: str) -> set[bytes]:
    return {bytes.fromhex(Path(name).name[:64]) for name in files(path, kind)}


@pytest.mark.parametrize("commit", [False, True])
@pytest.mark.parametrize("end", ["exit", "kill"])
def test_what_a_run_relies_on_and_brings_is_claimed_while_it_lives(path: Path, commit: bool, end: str) -> None:
    put(path, SMALL[0], LARGE[0])
    before = names(path, "packs")
    assert seen(path) == (False, set(), set())
    with Child(work, str(path), commit) as child:
        assert child.hear() == "ready"
        lives, packs, objects = seen(path)
        assert lives and objects == {digest(LARGE[0]), digest(LARGE[1])}
        assert packs == (names(path, "packs") if commit else before)
        if end == "kill":
            child.kill()
        else:
            child.tell()
            assert child.hear() == "done"
        assert seen(path) == (False, set(), set())


def test_what_was_claimed_once_stays_claimed_and_a_torn_claim_is_read_when_it_is_whole(path: Path) -> None:
    put(path, SMALL[0])
    with Transaction(Store(str(path))) as run:
        found = Claimed(str(path))
        (directory,) = (path / "tmp").iterdir()
        for _turn in range(2):
            with open(directory / claims.NAME, "ab") as file:
                file.write(b"p" + bytes(31))
            found.read()
            assert len(found.packs) == _turn
            with open(directory / claims.NAME, "ab") as file:
                file.write(b"\0")
            found.read()
            assert len(found.packs) == 1
        run.blobs.has(digest(SMALL[0]))
        found.read()
        assert len(found.packs) == 2
    found.read()
    assert len(found.packs) == 2


def test_a_pack_that_went_is_stored_anew(path: Path) -> None:
    """A run has listed the packs; a collection moves one before the run relies on it."""
    put(path, SMALL[0])
    (name,) = files(path, "packs")
    with Transaction(Store(str(path))) as run:
        (path / name).unlink()
        assert not run.blobs.has(digest(SMALL[0]))
        assert run.blobs.add(digest(SMALL[0]), SMALL[0])
        run.finish()
        run.commit()
    assert Store(str(path)).read(digest(SMALL[0]), 1 << 20) == SMALL[0]


@pytest.mark.parametrize("sort", ["packs", "objects"])
def test_what_lies_in_the_trash_is_read_and_not_relied_on(path: Path, sort: str) -> None:
    blob = SMALL[0] if sort == "packs" else LARGE[0]
    put(path, blob)
    (name,) = files(path, sort)
    trash = path / "trash" / "00000000000000000001-1.open" / sort
    trash.mkdir(parents=True)
    reader = Store(str(path))
    reader.index.load()
    os.rename(path / name, trash / Path(name).name)
    assert reader.read(digest(blob), 1 << 20) == blob
    reader.look_again()
    assert reader.has(digest(blob), len(blob))
    with Transaction(Store(str(path))) as run:
        run.store.look_again()
        if sort == "packs":
            assert run.blobs.add(digest(blob), blob)
        else:
            assert not run.objects.has(digest(blob), len(blob))
            run.objects.save(digest(blob), blob)
        run.finish()
        run.commit()
    assert len(files(path, sort)) == 1


@pytest.mark.parametrize("moment", ["relying", "publishing"])
def test_claims_on_a_full_disk_end_the_run(path: Path, monkeypatch, moment: str) -> None:
    put(path, SMALL[0])
    before = files(path)

    def full(_fd: int, data: bytes) -> None:
        if len(data) % 33 == 0 and data[:1] in (claims.PACK, claims.OBJECT):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.write(_fd, data)

    with pytest.raises(StoreFull, match="full"), Transaction(Store(str(path))) as run:
        if moment == "relying":
            monkeypatch.setattr(base_files, "write_all", full)
            run.blobs.has(digest(SMALL[0]))
        run.blobs.add(digest(b"new"), b"new")
        run.finish()
        monkeypatch.setattr(base_files, "write_all", full)
        run.commit()
    assert files(path) == before


def test_a_run_whose_directory_was_removed_writes_no_reference(path: Path) -> None:
    put(path, SMALL[0])
    with pytest.raises(LockLost, match="was removed during this run"), Transaction(Store(str(path))) as run:
        run.blobs.has(digest(SMALL[0]))
        (directory,) = (path / "tmp").iterdir()
        real = run._write_tables

        def write(*arguments: Any) -> Any:
            result = real(*arguments)
            shutil.rmtree(directory)
            return result

        run._write_tables = write  # type: ignore[method-assign]
        run.commit()


def test_a_manifest_that_is_held_stays_until_the_end(path: Path) -> None:
    put(path)
    store = Store(str(path))
    (path / "refs" / "a-0.json").write_bytes(b"{}")
    with store.holding("a-0"):
        (path / "refs" / "a-0.json").unlink()
        assert list(store.refs.held()) == [("a-0", b"{}")]
    assert list(store.refs.held()) == [] and files(path, "tmp") == []
    with pytest.raises(NotFound, match="deleted a moment ago"), store.holding("a-0"):
        pass
    assert files(path, "tmp") == []


def test_a_store_that_cannot_be_written_to_is_read_without_holding(path: Path, monkeypatch) -> None:
    put(path)

    def refuse(*_arguments: Any, **_more: Any) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refuse)
        with Store(str(path)).holding("a-0"):  # its reader finds out whether it is there
            assert files(path, "tmp") == []


# ---- stores of version 0.1.0


def make_old(path: Path) -> None:
    put(path, SMALL[0])
    (path / "format.json").write_text('{"format": 1, "made_by": "volt.backup"}\n')
    (path / "lock").touch()


def test_an_old_store_is_used_with_its_lock_until_it_is_written_to(path: Path) -> None:
    make_old(path)
    store = Store(str(path), 0)
    assert not store.has_claims
    with store.lock(), pytest.raises(LockTimeout, match="the lock of store"):  # a reader of this version, beside one that would upgrade
        put(path, SMALL[1], timeout=0)
    with taken(str(path), "lock", 0), pytest.raises(LockTimeout), store.lock():  # a collection of version 0.1.0
        pass
    assert json.loads((path / "format.json").read_text())["format"] == 1
    put(path, SMALL[1], timeout=0)
    found = json.loads((path / "format.json").read_text())
    assert (found["format"], found["features"]["required"]) == (2, [features.CLAIMS]) and found["id"]
    with Store(str(path), 0).lock(), taken(str(path), "lock", 0):
        with pytest.raises(LockTimeout, match="the lock of store"):  # version 0.1.0 had opened the store before, and collects
            put(path, SMALL[2], timeout=0)
    with Transaction(Store(str(path), 0)), pytest.raises(LockTimeout), taken(str(path), "lock", 0):
        pass


def old_run(pipe: Any, path: str) -> None:
    """A run of version 0.1.0, which had opened the store before it got claims."""
    directory = os.path.join(path, "tmp", "00000000000000000001-1")
    os.mkdir(directory)
    fd = os.open(directory, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    pipe.send("begun")
    pipe.recv()


def test_no_collection_beside_a_run_that_claims_nothing(path: Path) -> None:
    make_old(path)
    put(path, SMALL[1])
    with Child(old_run, str(path)) as child:
        assert child.hear() == "begun"
        with pytest.raises(LockTimeout, match="version 0.1.0"):
            Claimed(str(path)).read()
        child.kill()
    assert Claimed(str(path)).read() is False


def test_a_run_that_begins_while_it_is_looked_at_is_none_of_version_0_1_0(path: Path, monkeypatch) -> None:
    """Its directory has no claims at the first look, and is locked at the second."""
    put(path, SMALL[0])
    real = claims.open_claims

    def early(run: str) -> int:
        monkeypatch.setattr(claims, "open_claims", real)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    with Transaction(Store(str(path))):
        monkeypatch.setattr(claims, "open_claims", early)
        assert Claimed(str(path)).read() is False
        assert Claimed(str(path)).read() is True


def test_runs_that_cannot_be_looked_at_are_not_none(path: Path, monkeypatch) -> None:
    """A user who collects in his own store, and a run of root's in it."""
    put(path, SMALL[0])
    with Transaction(Store(str(path))):
        for name in ("open_claims", "is_locked"):
            with monkeypatch.context() as patch, pytest.raises(StoreError, match="checking for other runs"):
                patch.setattr(claims, name, fails)
                Claimed(str(path)).read()


def fails(*_arguments: Any) -> int:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
