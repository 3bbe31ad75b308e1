# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A history of backups, each pushed after it was made, on each kind of remote. The judge is the reader that was written from the format's document alone.

Usually a small tree on a directory and on one server; in the long mode 30 backups of a Debian root on all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._remote import push as pushes
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote, Settings, Which
from ansible_collections.volt.backup.tests.rigs import debian, need, s3_servers, sample
from ansible_collections.volt.backup.tests.unit._remote.independent_reader import RemoteReader
from ansible_collections.volt.backup.tests.unit._store.independent_reader import Reader
from ansible_collections.volt.backup.tests.unit.kit import noise

HOST, BUCKET = "web1-3f9a2c7d", "copies"
SERVERS = {"moto": lambda _room: s3_servers.moto(), "rclone": s3_servers.rclone, "ceph": s3_servers.ceph}
KINDS = ("directory", *sample.some(list(SERVERS), 1, "servers of a history"))
BACKUPS = 30 if sample.LONG else 6


@contextmanager
def remote_of(kind: str, room: Path) -> Iterator[tuple[Settings, Callable[[], Path]]]:
    """A place for a remote, and what mirrors it in a directory."""
    if kind == "directory":
        (room / "nas").mkdir()
        yield Settings(f"file://{room}/nas", HOST), lambda: room / "nas"
        return
    (room / "server").mkdir()
    with SERVERS[kind](room / "server") as server:
        server.make_bucket(BUCKET)

        def mirror() -> Path:
            client = server.client()
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="web/"):
                for entry in page["Contents"]:
                    target = room / "mirror" / entry["Key"]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    client.download_file(BUCKET, entry["Key"], str(target))
            return room / "mirror/web"

        yield Settings(f"s3://{BUCKET}/web?endpoint={server.endpoint}", HOST, credentials=server.keys["owner"]), mirror


def fill(bench: Any) -> None:
    if sample.LONG:
        debian.copy(None, bench.source, debian.HOST_PACKAGES)
    else:
        bench.files(**{f"etc__{number:03d}": noise(50 + 97 * number, number) for number in range(200)}, large=noise(9 << 20))


def change(bench: Any, number: int) -> None:
    """One in a hundred files gets other bytes; some are new, some gone, and one is called otherwise."""
    dice = random.Random(f"change {number}")
    files = sorted(path for path in bench.source.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1)
    for path in dice.sample(files, len(files) // 100 + 2):
        with open(path, "r+b") as stream:
            stream.write(dice.randbytes(min(path.stat().st_size, 1 << 20)))
    gone, renamed = dice.sample(files, 2)
    gone.unlink()
    renamed.rename(renamed.with_name(f"{renamed.name}.{number}"))
    bench.files(**{f"srv__{number}__{name}": dice.randbytes(2000) for name in "abc"})


@pytest.mark.parametrize("kind", KINDS)
def test_every_copy_of_a_history_can_be_read(bench: Any, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each commit has all that it needs, and it hashes right: what the judge reads there is what it reads in the local store."""
    need("zstd", root=sample.LONG)
    if not sample.LONG:
        monkeypatch.setattr(pushes, "INDEXES_MOST", BACKUPS // 2)  # in the long mode there are enough of them
    fill(bench)
    with remote_of(kind, tmp_path) as (settings, mirror):
        assert Remote(bench.manager, settings).begin().changed
        made = []
        for number in range(BACKUPS):
            if number:
                change(bench, number)
            made.append(bench.create(compression="zlib").backup["id"])
            ((_sidecar, pushed),) = Remote(bench.manager, settings).push(Which())
            assert pushed.new_blobs
        listed, warnings = Remote(bench.manager, settings).find(Query())
        assert [backup["id"] for backup in listed] == [f"{HOST}/{backup}" for backup in reversed(made)] and not warnings
        local, copies = Reader(str(bench.store)), RemoteReader(mirror())
    found = []
    for name in copies.commits():
        sidecar, nodes, linked = copies.read(name)
        assert (nodes, linked) == local.backup(str(bench.backups / f"{sidecar['id']}.json"))[1:]
        found.append(sidecar["id"])
    assert found == made
