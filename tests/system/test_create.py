# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making backups: what is seen, what is believed, what is left out, and that check mode only looks."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import host
from ansible_collections.volt.backup.plugins.module_utils._base import errors, kernel
from ansible_collections.volt.backup.plugins.module_utils._capture import write_back
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.tests.rigs import mounts, need, oracle
from ansible_collections.volt.backup.tests.system.conftest import Bench


def settle() -> None:
    """Let what was written become old enough for the stat cache."""
    time.sleep(2.1)


def test_nothing_changed_reads_nothing(trusted_bench, monkeypatch):
    bench = trusted_bench
    bench.files(a=b"1", d__b=b"2" * 200_000)
    settle()
    bench.create()
    opened = []
    from ansible_collections.volt.backup.plugins.module_utils._capture import file_saver

    real = file_saver.open_source
    monkeypatch.setattr(file_saver, "open_source", lambda name, directory: opened.append(name) or real(name, directory))
    second = bench.create()
    assert opened == []
    assert second.changed and second.backup["new_blobs"] == 0 and second.backup["stored_bytes"] == 0
    assert second.diff["counts"] == {"added": 0, "changed": 0, "removed": 0}


def test_same_size_same_mtime_is_seen(bench):
    bench.files(a=b"old")
    before = os.stat(bench.source / "a")
    settle()
    bench.create()
    (bench.source / "a").write_bytes(b"new")
    os.utime(bench.source / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert bench.create().backup["new_blobs"] == 1
    bench.restore()
    assert (bench.target / "a").read_bytes() == b"new"


def test_written_in_the_tick_of_the_scan(bench):
    """What is as young as the scan is read again next time, whatever its stat says."""
    for content in (b"aaaa", b"bbbb", b"cccc", b"dddd"):
        bench.files(a=content)
        bench.create()
        bench.restore(force=True)
        assert (bench.target / "a").read_bytes() == content


def store_through_a_map(bench):
    """The map is dirty before the first backup, so later stores fault no page in unless that one writes it back."""
    bench.files(a=b"0" * 8192)
    settle()
    with open(bench.source / "a", "r+b") as file, mmap.mmap(file.fileno(), 8192) as view:
        view[0:1] = b"1"
        settle()
        bench.create()
        view[1:2] = b"2"
        time.sleep(0.05)
        bench.create()
        bench.restore()
        assert (bench.target / "a").read_bytes()[:3] == b"120"


@pytest.mark.parametrize("few", [0, 100])
@pytest.mark.parametrize("kind", ["ext4", "tmpfs", "xfs", "btrfs"])
def test_store_through_a_memory_map(bench_on, monkeypatch, kind, few):
    """A file that is read is written back first, alone or with all others."""
    monkeypatch.setattr(write_back, "_FILES", few)
    store_through_a_map(bench_on(kind))


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EIO])
def test_where_a_file_cannot_be_written_back_all_are(bench_on, monkeypatch, number):
    """As where a filter of system calls does not know sync_file_range."""

    def refused(_fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(kernel, "write_back", refused)
    store_through_a_map(bench_on("ext4"))


@pytest.mark.parametrize(("kind", "unchanged"), [("ext4", 0), ("xfs", 0), ("btrfs", 1), ("overlay", 1), ("tmpfs", 1)])
def test_what_others_write_is_not_waited_for(bench_on, monkeypatch, kind, unchanged):
    """A sync of the source waits for all dirty pages of its file system, so there is none where nothing or little changed and it is known to be needless."""
    bench = bench_on(kind)
    bench.files(**{f"f{number}": b"%d" % number for number in range(150)})
    settle()
    synced = []
    real = kernel.syncfs
    monkeypatch.setattr(kernel, "syncfs", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd))[1])

    def syncs() -> int:
        bench.create()
        count = sum(str(bench.source) in path for path in synced)
        synced.clear()
        return count

    assert syncs() == 1, "one sync is quicker than to wait for each of many files"
    assert syncs() == unchanged
    bench.files(f1=b"other")
    assert syncs() == unchanged


def test_a_missing_pack_is_stored_again(bench):
    bench.files(a=b"precious", b=b"x" * 500_000)
    settle()
    bench.create()
    for path in [*(bench.store / "packs").rglob("*.pack*"), *(path for path in (bench.store / "objects").rglob("*") if path.is_file())]:
        path.unlink()
    assert all(backup["damaged"] for backup in bench.found())
    again = bench.create()
    assert again.backup["new_blobs"] == 2
    assert not any(backup["damaged"] for backup in bench.found()), "the same content heals the older backup as well"
    bench.restore()
    assert oracle.differences(bench.source, bench.target) == []


@pytest.mark.parametrize("where", ["packs", "objects"])
def test_an_altered_file_is_stored_again(bench, where):
    bench.files(a=b"precious", b=os.urandom(500_000))
    settle()
    bench.create()
    for path in (bench.store / where).rglob("*"):
        if path.is_file():
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
    assert bench.found()[0]["checked"] is False
    bench.create()
    assert [(backup["damaged"], backup["checked"]) for backup in bench.found()] == [(False, True)] * 2
    bench.restore()
    assert oracle.differences(bench.source, bench.target) == []


def test_lost_index_and_cache_cost_only_time(bench):
    bench.files(a=b"1", b=b"x" * 500_000)
    settle()
    first = bench.create().backup
    for name in ("index", "cache"):
        for path in (bench.store / name).iterdir():
            path.unlink()
    second = bench.create().backup
    assert second["new_blobs"] == 0 and second["blob_count"] == first["blob_count"]
    for path in (bench.store / "index").iterdir():
        path.write_bytes(os.urandom(1000))
    for path in (bench.store / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    assert bench.create().backup["new_blobs"] == 0
    bench.restore()
    assert oracle.differences(bench.source, bench.target) == []


def test_check_mode_writes_nothing(bench):
    bench.files(a=b"1", d__b=b"2" * 200_000)
    before = bench.snapshot()
    dry = bench.create(dry=True)
    assert dry.changed and dry.backup["id"] is None and dry.backup["new_blobs"] == 2 and dry.diff["counts"]["added"] == 3
    assert bench.snapshot() == before
    bench.create()
    (bench.source / "a").write_bytes(b"other")
    (bench.source / "c").write_bytes(b"new")
    before = bench.snapshot()
    dry = bench.create(dry=True)
    assert (dry.diff["added"], dry.diff["changed"]) == (["c"], ["a"])
    bench.restore(dry=True)
    assert bench.snapshot() == before
    real = bench.create()
    assert {key: real.backup[key] for key in ("new_blobs", "total_size", "blob_count")} == {
        key: dry.backup[key] for key in ("new_blobs", "total_size", "blob_count")
    }
    assert real.diff == dry.diff


def test_only_if_changed(bench):
    bench.files(a=b"1")
    first = bench.create(only_if_changed=True)
    assert first.changed
    again = bench.create(only_if_changed=True)
    assert not again.changed and again.backup["id"] == first.backup["id"]
    assert bench.create(only_if_changed=True, exclude=["*.log"]).changed, "other rules are another backup"
    os.chmod(bench.source / "a", 0o600)
    assert bench.create(only_if_changed=True, exclude=["*.log"]).changed


@pytest.mark.parametrize("options", [{"max_age": "1h"}, {"only_if_changed": True}])
def test_a_backup_of_another_host_does_not_count(bench, options, monkeypatch):
    """A host that was cloned has a backup of its own before its store counts as fresh."""
    bench.files(a=b"1")
    with monkeypatch.context() as patch:
        patch.setattr(host, "machine_id", lambda: "0" * 32)
        bench.create()
    assert bench.create(**options).changed and not bench.create(**options).changed


def test_the_stat_cache_of_another_host_is_not_believed(bench, monkeypatch, tmp_path):
    """Hosts that were cloned share a store. A file of each has the same inode, size and times, and another content."""
    need("mount", "mkfs.ext4", root=True)
    bench.source.mkdir(exist_ok=True)
    one, other = tmp_path / "one", tmp_path / "other"
    mounts.make("ext4", one, 16 << 20)
    with mounts.image(one, bench.source):
        bench.files(app__key=b"key of one" * 200)
    other.write_bytes(one.read_bytes().replace(b"key of one", b"key of two"))
    time.sleep(2.1)  # what is younger is read again in any case
    with mounts.image(one, bench.source):
        assert bench.create().backup["new_blobs"] == 1
    with monkeypatch.context() as patch, mounts.image(other, bench.source):
        patch.setattr(host, "machine_id", lambda: "0" * 32)
        assert bench.create().backup["new_blobs"] == 1


def test_max_age(bench):
    bench.files(a=b"1")
    first = bench.create(max_age="1h")
    (bench.source / "a").write_bytes(b"2")
    again = bench.create(max_age="1h")
    assert first.changed and not again.changed and again.backup["id"] == first.backup["id"]
    assert bench.create(max_age="1h", exclude=["b"]).changed
    time.sleep(1)
    assert bench.create(max_age="1s").changed
    for path in (bench.store / "packs").rglob("*.pack*"):
        path.unlink()
    third = bench.create(max_age="1h")
    assert third.changed, "a damaged backup is no reason to make none"
    assert third.skipped


def test_exclusions(bench):
    bench.files(keep=b"1", a__x__log=b"2", b__cache__deep__file=b"3", c__keep__tmp=b"4", tmp=b"5")
    (bench.source / "thumbs").mkdir()
    (bench.source / "thumbs" / "CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    (bench.source / "thumbs" / "picture").write_bytes(b"6")
    backup = bench.create(exclude=["tmp", "/b/cache/", "!c/keep/tmp"], exclude_caches=True).backup
    bench.restore()
    left = sorted(str(path.relative_to(bench.target)) for path in bench.target.rglob("*"))
    assert left == ["a", "a/x", "a/x/log", "b", "c", "c/keep", "c/keep/tmp", "keep", "thumbs", "thumbs/CACHEDIR.TAG"]
    assert backup["exclude"] == ["tmp", "/b/cache/", "!c/keep/tmp"] and backup["exclude_caches"]


def test_store_inside_the_source_is_left_out(bench):
    bench.files(a=b"1")
    from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager

    bench.store, bench.backups = bench.source / "var" / "cas", bench.source / "var" / "backups"
    bench.manager = Manager(str(bench.store), str(bench.backups), 5)
    first = bench.create().backup
    assert {(item["path"], item["reason"]) for item in first["skipped"]} == {("var/cas", "store"), ("var/backups", "store")}
    assert bench.create().diff["counts"] == {"added": 0, "changed": 0, "removed": 0}


def test_pseudo_file_systems_and_mounts(bench):
    need("mount", root=True)
    bench.files(a=b"1")
    for name, kind in (("proc", "proc"), ("sys", "sysfs"), ("data", "tmpfs")):
        (bench.source / name).mkdir()
        subprocess.run(["mount", "-t", kind, kind, bench.source / name], check=True)
    try:
        (bench.source / "data" / "inside").write_bytes(b"2")
        backup = bench.create().backup
        assert {(item["path"], item["reason"]) for item in backup["skipped"]} == {("proc", "pseudo"), ("sys", "pseudo")}
        assert backup["file_count"] == 2 and backup["complete"]
        alone = bench.create(one_file_system=True).backup
        assert ("data", "mount") in {(item["path"], item["reason"]) for item in alone["skipped"]}
        assert alone["file_count"] == 1
    finally:
        for name in ("proc", "sys", "data"):
            subprocess.run(["umount", bench.source / name], check=True)


def test_names_that_are_not_utf8(bench):
    bench.files(plain=b"1")
    odd = os.path.join(os.fsencode(bench.source), b"caf\xe9\\n\n")
    Path(os.fsdecode(odd)).write_bytes(b"2")
    made = bench.create()
    assert "caf\\xe9\\\\n\n" in made.diff["added"]
    contents = bench.manager.contents(made.backup["id"], 100)
    assert [entry["path"] for entry in contents["entries"]] == [".", "caf\\xe9\\\\n\n", "plain"]
    bench.restore(paths=["caf\\xe9\\\\n\n"])
    assert os.listdir(os.fsencode(bench.target)) == [b"caf\xe9\\n\n"]


def test_a_source_whose_name_is_not_utf8(bench):
    raw = os.path.join(os.fsencode(bench.top), b"s\xff")
    os.mkdir(raw)
    Path(os.fsdecode(raw), "a").write_bytes(b"1")
    made = bench.create(source=os.path.join(str(bench.top), "s\\xff"))
    assert made.backup["source_path"].endswith("/s\\xff") and made.backup["file_count"] == 1


def test_two_in_one_second_get_two_ids(bench):
    bench.files(a=b"1")
    ids = [bench.create().backup["id"] for _turn in range(4)]
    assert len(set(ids)) == 4 and len(bench.found()) == 4


def test_same_tree_same_names_everywhere(bench_on, tmp_path):
    """Other inode order, other access times, other file system: data packs, objects and trees have identical names."""
    names = []
    for number, kind in enumerate(("ext4", "xfs")):
        bench = bench_on(kind)
        paths = [f"d{n % 7}/f{n:04}" for n in range(3000)]
        for path in paths if number else reversed(paths):
            place = bench.source / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.encode() * (len(path) * 37 % 300) * (50 if path.endswith("00") else 1))
            os.utime(place, (number, 1_700_000_000))
        (bench.source / "image").write_bytes(bytes(9_000_000))
        os.utime(bench.source / "image", (number, 1_700_000_000))
        for directory in [bench.source, *(path for path in bench.source.iterdir() if path.is_dir())]:
            os.utime(directory, (number, 1_700_000_000))
        bench.create(compression="none" if number else "auto")
        found = {path.name.split(".")[0] for top in ("packs", "objects") for path in (bench.store / top).rglob("*") if path.is_file()}
        assert len(found) > 10
        names.append(found)
    assert names[0] == names[1]


def test_sockets_and_fifos_do_not_block(bench):
    bench.source.mkdir()
    os.mkfifo(bench.source / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bench.source / "socket"))
        assert bench.create().backup["complete"]
    bench.restore()
    assert oracle.differences(bench.source, bench.target) == []


# ---- refusals


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"source": "/nowhere/at/all"}, errors.SourceError, "does not exist"),
        ({"source": "/etc/passwd"}, errors.SourceError, "not a directory"),
        ({"source": "/proc"}, errors.UsageError, "proc file system"),
        ({"exclude": ["a[b"]}, errors.UsageError, "not a valid pattern"),
        ({"exclude": ["/"]}, errors.UsageError, "the source itself"),
        ({"type": "weekly"}, errors.UsageError, "is unknown"),
        ({"compression": "lzma"}, errors.UsageError, "Unknown compression"),
        ({"max_age": "yesterday"}, errors.UsageError, "is invalid"),
    ],
)
def test_refusals_write_nothing(bench, options, kind, words):
    bench.files(a=b"1")
    before = bench.snapshot()
    with pytest.raises(kind, match=words) as caught:
        bench.create(**options)
    assert bench.snapshot() == before
    assert caught.value.message.count(". ") == 0 and caught.value.message.endswith(".")


def test_a_source_in_the_store_is_refused(bench):
    bench.files(a=b"1")
    bench.create()
    for inside in (bench.store, bench.store / "refs", bench.backups):
        with pytest.raises(errors.UsageError, match="where backups are kept"):
            bench.create(source=inside)


@pytest.mark.parametrize("content", [b'{"format": "2"}', b"not JSON", b"{}", b"[]"])
def test_an_unknown_format_is_refused(bench, content):
    bench.files(a=b"1")
    bench.create()
    (bench.store / "format.json").write_bytes(content)
    for call in (bench.create, bench.found, bench.restore):
        with pytest.raises(errors.StoreError, match="format"):
            call()


def test_a_store_that_is_something_else(bench):
    bench.files(a=b"1")
    bench.store.write_bytes(b"a file")
    with pytest.raises(errors.StoreError, match="not a directory"):
        bench.create()
    bench.store.unlink()
    bench.store.mkdir()
    (bench.store / "letters").mkdir()
    with pytest.raises(errors.StoreError, match="it has other files"):
        bench.create()
    assert os.listdir(bench.store) == ["letters"]


def test_a_store_on_a_read_only_file_system(bench_on):
    bench = bench_on("ext4")
    bench.files(a=b"1")
    bench.create()
    subprocess.run(["mount", "-o", "remount,ro", bench.top], check=True)
    with pytest.raises(errors.StoreError, match="read-only"):
        bench.create()
    assert len(bench.found()) == 1, "reading goes on"


def test_a_file_that_cannot_be_read(public_path):
    """Not root, because nothing is unreadable to root."""
    need("setpriv", root=True)
    bench = Bench(public_path)
    bench.files(a=b"1", secret=b"2", dark__b=b"3")
    os.chmod(bench.source / "secret", 0)
    os.chmod(bench.source / "dark", 0)
    subprocess.run(["chown", "-R", "65534:65534", bench.top], check=True)
    os.chown(bench.source / "secret", 0, 0)
    os.chown(bench.source / "dark", 0, 0)
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            made = bench.create()
            good = not made.backup["complete"] and {item["path"] for item in made.backup["skipped"]} == {"secret", "dark"} and made.warnings
            os._exit(0 if good else 1)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = bench.found()[0]
    assert not found["complete"] and not found["damaged"]
    with pytest.raises(errors.NotFound) as caught:
        from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query

        bench.manager.restore(None, RestoreRequest(str(bench.target)), Query("work"))
    assert caught.value.details["skipped"][0]["reason"] == "It is incomplete."
    bench.restore(found["id"])
    (bench.target / "secret").write_bytes(b"kept")
    bench.restore(found["id"], force=True, strategy="in_place", delete=True)
    assert (bench.target / "secret").read_bytes() == b"kept", "what the backup skipped is left alone"


def test_disk_full_during_create(bench_on, tmp_path):
    bench = bench_on("ext4", 64 << 20)
    source = tmp_path / "source"
    source.mkdir()
    (source / "small").write_bytes(b"1")
    first = bench.create(source=source).backup
    for number in range(40):
        (source / f"large{number}").write_bytes(os.urandom(3 << 20))
    with pytest.raises(errors.StoreFull, match="store's file system is full"):
        bench.create(source=source)
    assert bench.debris() == []
    assert [backup["id"] for backup in bench.found()] == [first["id"]]
    for number in range(1, 40):
        (source / f"large{number}").unlink()
    assert bench.create(source=source).backup["complete"]


def test_leaving_a_mount_out_after_it_was_in(bench):
    """The stat cache knows the mount's content; a backup of one file system must not take it from there."""
    need("mount", root=True)
    bench.files(a=b"1")
    (bench.source / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", bench.source / "data"], check=True)
    try:
        (bench.source / "data" / "inside").write_bytes(b"2")
        settle()
        for one_file_system, files in ((False, 2), (False, 2), (True, 1), (True, 1), (False, 2)):
            backup = bench.create(one_file_system=one_file_system).backup
            assert backup["file_count"] == files
            assert any(entry["path"] == "data/inside" for entry in bench.manager.contents(backup["id"], 10)["entries"]) != one_file_system
    finally:
        subprocess.run(["umount", bench.source / "data"], check=True)


def test_a_full_file_system_is_left_without_half_a_store(bench_on, tmp_path):
    bench = bench_on("ext4", 16 << 20)
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"1")
    with open(bench.top / "ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    before = sorted(os.listdir(bench.top))
    with pytest.raises(errors.StoreFull):
        bench.create(source=source)
    assert sorted(os.listdir(bench.top)) == before


def test_a_clock_that_jumps_back(bench):
    need("faketime")
    import sys

    bench.files(a=b"1")
    settle()
    first = bench.create().backup["id"]
    (bench.source / "a").write_bytes(b"2")
    runner = "ansible_collections.volt.backup.plugins.module_utils._runner"
    words = ["create", "work", "--source", bench.source, "--store", bench.store, "--backup-dir", bench.backups, "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for _turn in range(2):
        subprocess.run(["faketime", "-f", "-30d", sys.executable, "-m", runner, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    found = bench.found()
    assert len(found) == 3 and found[0]["id"] == first and not any(backup["damaged"] for backup in found)
    (bench.source / "a").write_bytes(b"3")
    last = bench.create().backup["id"]
    bench.restore(last)
    assert (bench.target / "a").read_bytes() == b"3"


def test_a_file_that_keeps_changing_is_reported(bench):
    import threading

    bench.files(busy=b"0" * 100_000, large=b"0" * 600_000)
    stop = threading.Event()

    def scribble():
        number = 0
        while not stop.is_set():
            for name in ("busy", "large"):
                with open(bench.source / name, "r+b", buffering=0) as file:
                    file.write(str(number).encode())
            number += 1

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        made = bench.create()
    finally:
        stop.set()
        thread.join()
    assert made.backup["complete"]
    assert made.backup["unstable"] == bool(made.warnings) == bool(made.backup["unstable_paths"])
    bench.restore()
    again = bench.create()
    assert again.backup["changed_while_read_count"] == 0
    bench.restore(again.backup["id"], force=True)
    assert oracle.differences(bench.source, bench.target) == []


def test_a_backup_from_the_future_does_not_prevent_a_new_one(bench):
    need("faketime")
    import sys

    bench.files(a=b"1")
    words = ["create", "work", "--source", bench.source, "--store", bench.store, "--backup-dir", bench.backups, "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    runner = "ansible_collections.volt.backup.plugins.module_utils._runner"
    subprocess.run(["faketime", "-f", "+3650d", sys.executable, "-m", runner, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert bench.create(max_age="6h").changed


def test_another_file_system_in_the_same_place_is_read_again(tmp_path, bench):
    """Two images made alike down to inodes and times, one after the other at one mount point."""
    need("mount", "mkfs.ext4", root=True)
    images = []
    for number in (1, 2):
        tree = tmp_path / f"tree{number}"
        tree.mkdir()
        (tree / "conf").write_bytes(b"version=%d" % number)
        os.utime(tree / "conf", (1_600_000_000, 1_600_000_000))
        image = tmp_path / f"image{number}"
        with open(image, "wb") as file:
            file.truncate(8 << 20)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1600000000"}
        subprocess.run(["mkfs.ext4", "-q", "-d", tree, image], check=True, env=environment)
        subprocess.run(["debugfs", "-w", "-R", "set_inode_field conf ctime @1600000000", image], check=True, capture_output=True)
        images.append(image)
    bench.source.mkdir()
    for number, image in enumerate(images, 1):
        subprocess.run(["mount", "-o", "loop,ro", image, bench.source], check=True)
        try:
            made = bench.create()
        finally:
            subprocess.run(["umount", bench.source], check=True)
        bench.restore(made.backup["id"], target=str(bench.top / f"out{number}"), numeric_owner=True)
        assert (bench.top / f"out{number}" / "conf").read_bytes() == b"version=%d" % number


def test_a_pattern_that_is_not_utf8_is_refused(bench):
    """It would come back from the records as another pattern, and a restore would not know what was excluded."""
    bench.files(a=b"1")
    with pytest.raises(errors.UsageError, match="not UTF-8"):
        bench.create(exclude=["\udcff*"])
    odd = os.path.join(os.fsencode(bench.source), b"x\xff")
    Path(os.fsdecode(odd)).write_bytes(b"2")
    assert bench.create(exclude=["x?"]).backup["file_count"] == 1


@pytest.mark.parametrize("before", ["complete", "incomplete"])
def test_an_emptied_source_is_refused_by_whatever_backs_it_up(bench, monkeypatch, before):
    """It looks like a file system that is not mounted. An incomplete backup may be all that there is."""
    bench.files(a=b"1", b=b"2")
    if before == "incomplete":
        from ansible_collections.volt.backup.plugins.module_utils._capture import file_saver

        real = file_saver.open_source

        def fail(name, directory, patience):
            if name == "b":
                raise PermissionError(13, "Permission denied")
            return real(name, directory, patience)

        monkeypatch.setattr(file_saver, "open_source", fail)
    made = bench.create()
    assert made.backup["complete"] is (before == "complete")
    for name in ("a", "b"):
        (bench.source / name).unlink()
    before_it = bench.snapshot()
    for options in ({}, {"type": "scheduled"}, {"only_if_changed": True}, {"dry": True}):
        with pytest.raises(errors.SourceError, match=f"is empty, but {made.backup['id']}, its last backup, is not; .*allow_empty"):
            bench.create(**options)
    assert {path: facts for path, facts in bench.snapshot().items() if "/store/" not in path} == {
        path: facts for path, facts in before_it.items() if "/store/" not in path
    }
    assert bench.create(allow_empty=True).backup["file_count"] == 0
    assert bench.create().backup["file_count"] == 0, "it is known to be empty now"
    (bench.top / "another").mkdir()
    assert bench.create(source=bench.top / "another").changed, "another source says nothing"
