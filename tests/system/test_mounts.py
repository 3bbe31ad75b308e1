# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources whose file systems are not mounted: no backup is made of the empty place, and none is pushed out."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.guards import MountMissing
from ansible_collections.volt.backup.plugins.module_utils._base import NotFound
from ansible_collections.volt.backup.tests.rigs import mounts, need


@pytest.mark.parametrize("where", ["source", "below the source", "above the source"])
def test_a_missing_mount_fails_before_anything_is_read(bench: Any, disk: Any, where: str) -> None:
    place = {"source": bench.source, "below the source": bench.source / "data", "above the source": bench.top / "disk"}[where]
    source = place / "app" if where == "above the source" else bench.source
    disk.mount(place)
    (place / "app").mkdir()
    (place / "app" / "file").write_bytes(b"1")
    ids = [bench.create(source=source).backup["id"] for _turn in range(2)]
    assert bench.found()[0]["mounts"] == [str(place)]
    disk.umount(place)
    (place / "app").mkdir()
    (place / ".keep").write_bytes(b"")
    before = bench.snapshot()
    for options in ({}, {"max_age": "1d"}, {"only_if_changed": True}, {"allow_empty": True}):
        for dry in (True, False):
            with pytest.raises(MountMissing, match=f"{place} was mounted at the last backups but is not mounted now; mount it") as caught:
                bench.create(dry, source=source, **options)
            assert caught.value.code == "mount_missing" and caught.value.details["mounts"] == [str(place)]
    assert {backup["id"] for backup in bench.found()} == set(ids)
    assert {path for path in bench.snapshot() if "/objects/" in path or "/packs/" in path or "/refs/" in path} <= before.keys()
    (place / ".keep").unlink()
    (place / "app").rmdir()
    disk.mount(place)
    assert bench.create(source=source).changed


def test_a_mount_that_was_not_there_each_time_is_not_expected(bench: Any, disk: Any) -> None:
    bench.files(a=b"a")
    data = bench.source / "data"
    bench.create()
    disk.mount(data)
    bench.create()
    disk.umount(data)
    assert bench.create().changed  # two of the last ones did without
    for _turn in range(3):
        disk.mount(data)
        bench.create()
        disk.umount(data)
    with pytest.raises(MountMissing):
        bench.create()


@pytest.mark.parametrize("options", [{"one_file_system": True}, {"exclude": ["/data"]}, {"exclude": ["data/"]}])
def test_a_mount_that_is_left_out_is_not_expected(bench: Any, disk: Any, options: dict[str, Any]) -> None:
    bench.files(a=b"a")
    data = bench.source / "data"
    disk.mount(data)
    assert bench.create(**options).backup["mounts"] == []
    bench.create()
    disk.umount(data)
    assert bench.create(**options).changed


@pytest.mark.parametrize("kind", ["tmpfs", "overlay"])
def test_passing_mounts_are_not_expected(bench: Any, kind: str) -> None:
    bench.files(a=b"a")
    with mounts.mount(kind, bench.source) as where:
        assert str(where) not in bench.create().backup["mounts"]


@pytest.mark.parametrize("where", ["source", "above the source", "below the source"])
def test_a_directory_that_is_mounted_over_itself_is_not_expected(bench: Any, disk: Any, where: str) -> None:
    """As systemd does it in the unit of a schedule (ProtectHome, ReadWritePaths): a run outside of it must not miss that."""
    bench.files(data__a=b"a")
    disk.mount(bench.source / "disk")
    place = {"source": bench.source, "above the source": bench.top, "below the source": bench.source / "data"}[where]
    subprocess.run(["mount", "--rbind", place, place], check=True)
    try:
        assert bench.create().backup["mounts"] == [str(bench.source / "disk")]
    finally:
        subprocess.run(["umount", "--recursive", place], check=True)
    assert bench.create().changed


def test_a_bind_mount_of_a_file_is_expected(bench: Any) -> None:
    need("mount", root=True)
    bench.files(config=b"", original=b"1")
    subprocess.run(["mount", "--bind", bench.source / "original", bench.source / "config"], check=True)
    try:
        assert bench.create().backup["mounts"] == [str(bench.source / "config")]
    finally:
        subprocess.run(["umount", bench.source / "config"], check=True)
    with pytest.raises(MountMissing):
        bench.create()


def test_what_is_accepted_is_not_expected_any_more(bench: Any, disk: Any) -> None:
    bench.files(a=b"a")
    data = bench.source / "data"
    disk.mount(data)
    for _turn in range(4):
        bench.create()
    assert bench.manager.accept_mounts("work") == [], "nothing is missing"
    disk.umount(data)
    before = bench.snapshot()
    assert bench.manager.accept_mounts("work", dry=True) == [str(data)]
    assert bench.snapshot() == before
    assert bench.manager.accept_mounts("work") == [str(data)]
    assert bench.manager.accept_mounts("work") == []
    assert bench.create().changed and not any(backup["damaged"] for backup in bench.found())
    with pytest.raises(NotFound):
        bench.manager.accept_mounts("unknown")


def test_unknown_keys_of_a_sidecar_survive_that_it_is_accepted(bench: Any, disk: Any) -> None:
    import json

    data = bench.source / "data"
    bench.files(a=b"a")
    disk.mount(data)
    made = bench.create().backup
    path = bench.backups / f"{made['id']}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": {"x": 1}}))
    disk.umount(data)
    bench.manager.accept_mounts("work")
    assert json.loads(path.read_text())["later"] == {"x": 1}
