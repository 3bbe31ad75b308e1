# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources in which something cannot be looked at, or that are not what they were: what cannot be read is named, and costs itself alone."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import SourceError
from ansible_collections.volt.backup.plugins.module_utils._capture import capture, link_check
from ansible_collections.volt.backup.plugins.module_utils._format import chunks, links
from ansible_collections.volt.backup.plugins.module_utils._fs import descent
from ansible_collections.volt.backup.tests.rigs import mounts, need

noise = os.urandom


# ---- entries that cannot be looked at


def test_a_linked_file_in_chunks_that_is_written_between_its_names_in_a_directory_that_is_as_it_was(trusted_bench, meanwhile) -> None:
    """The directory of one name is not read, so its chunks were never counted."""
    bench = trusted_bench
    bench.files(a__base=noise(9 << 20), m__middle=noise(1000), z__zero=b"0")
    os.link(bench.source / "a" / "base", bench.source / "z" / "base")
    for directory in ("a", "m", "z", "."):
        os.utime(bench.source / directory, ns=(10**18, 10**18))
    time.sleep(2.2)
    for _turn in range(2):
        bench.create()
    (bench.source / "m" / "middle").write_bytes(noise(1000))

    def write(turn: int) -> None:
        if turn == 1:
            with open(bench.source / "a" / "base", "r+b") as file:
                file.write(b"new")

    meanwhile(bench.source / "m" / "middle", write)
    made = bench.create()
    assert not made.backup["unstable"] and made.backup["blob_count"] == 20
    bench.restore()
    assert (bench.target / "a/base").samefile(bench.target / "z/base") and (bench.target / "a/base").read_bytes()[:3] == b"new"


@pytest.mark.parametrize("why", ["attributes", "content"])
def test_a_second_look_that_fails_loses_the_link_and_says_so(bench, meanwhile, monkeypatch, why: str) -> None:
    bench.files(a__log=b"one", m__middle=noise(1000), z__zero=b"0")
    os.link(bench.source / "a" / "log", bench.source / "z" / "log")

    def fail(*_arguments: Any, **_options: Any) -> Any:
        raise OSError(5, "Input/output error")

    def act(turn: int) -> None:
        if turn == 1:
            (bench.source / "a" / "log").write_bytes(b"two")
            if why == "content":
                monkeypatch.setattr(link_check.reading, "read_file", fail)
            else:
                real = link_check.metadata.read_xattrs
                monkeypatch.setattr(link_check.metadata, "read_xattrs", lambda place, **options: fail() if options else real(place))

    meanwhile(bench.source / "m" / "middle", act)
    made = bench.create()
    assert made.backup["unstable_paths"] == ["a/log", "z/log"]
    bench.restore()
    assert [(bench.target / name).read_bytes() for name in ("a/log", "z/log")] == [b"one", b"two"]


def test_special_files_keep_their_attributes_in_a_second_look(bench, meanwhile) -> None:
    need(root=True)
    bench.files(a__x=b"1", m__middle=noise(1000), z__zero=b"0")
    os.mkfifo(bench.source / "a" / "pipe")
    os.symlink("target", bench.source / "a" / "link")
    for name in ("pipe", "link"):
        os.setxattr(bench.source / "a" / name, "trusted.note", b"kept", follow_symlinks=False)
        os.link(bench.source / "a" / name, bench.source / "z" / name, follow_symlinks=False)
    meanwhile(bench.source / "m" / "middle", lambda turn: turn == 1 and [os.lchown(bench.source / "a" / name, 1000, 1000) for name in ("pipe", "link")])
    made = bench.create()
    assert not made.backup["unstable"]
    bench.restore()
    for name in ("pipe", "link"):
        for directory in ("a", "z"):
            path = bench.target / directory / name
            assert os.getxattr(path, "trusted.note", follow_symlinks=False) == b"kept" and path.lstat().st_uid == 1000


def test_many_names_of_one_file_are_looked_at_in_linear_time(bench, meanwhile) -> None:
    bench.files(a__log=b"one", m__middle=noise(1000), z__zero=b"0")
    for number in range(4000):
        os.link(bench.source / "a" / "log", bench.source / "a" / f"l{number}")

    def replace(turn: int) -> None:
        if turn == 1:
            for number in range(4000):
                os.unlink(bench.source / "a" / f"l{number}")
                (bench.source / "a" / f"l{number}").write_bytes(b"")

    meanwhile(bench.source / "m" / "middle", replace)
    with open(bench.source / "z" / "zero", "ab") as file:
        file.write(b"1")
    os.link(bench.source / "a" / "log", bench.source / "z" / "log")
    looked: list[int] = []
    real = link_check.LinkCheck._inode_of
    link_check.LinkCheck._inode_of = lambda self, path: looked.append(1) or real(self, path)
    try:
        made = bench.create()
    finally:
        link_check.LinkCheck._inode_of = real
    assert made.backup["unstable_count"] == 4000 and len(looked) < 9000


@contextmanager
def fuse(where: Path, user: int) -> Iterator[None]:
    """A FUSE mount that never answers; with another user's number, the kernel itself says no to root."""
    need("mount", root=True)
    try:
        fd = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no FUSE: {error}")
    options = b"fd=%d,rootmode=40000,user_id=%d,group_id=%d" % (fd, user, user)
    try:
        assert ctypes.CDLL(None, use_errno=True).mount(b"dead", os.fsencode(where), b"fuse", ctypes.c_ulong(6), options) == 0
        try:
            yield
        finally:
            os.close(fd)
            fd = -1
            subprocess.run(["umount", "-l", where], check=True)
    finally:
        if fd >= 0:
            os.close(fd)


@pytest.mark.parametrize("one_file_system", [True, False])
def test_a_mount_that_is_closed_to_root_costs_itself_alone(bench, one_file_system: bool) -> None:
    bench.files(home__key=b"k", home__papers__thesis=b"t")
    (bench.source / "home" / "mnt").mkdir()
    with fuse(bench.source / "home" / "mnt", 1000):
        made = bench.create(one_file_system=one_file_system)
        assert made.backup["complete"] is one_file_system
        assert [(item["path"], item["reason"]) for item in made.backup["skipped"]] == [("home/mnt", "mount_point" if one_file_system else "unreadable")]
        assert bench.create(exclude=["/home/mnt"]).backup["complete"]
    bench.restore()
    assert (bench.target / "home/papers/thesis").read_bytes() == b"t" and (bench.target / "home/key").read_bytes() == b"k"


def test_a_mount_that_never_answers_is_unreadable_and_skipped_where_it_is_left_out(bench, monkeypatch) -> None:
    monkeypatch.setattr(capture, "_ANSWER", 0.5)
    bench.files(a=b"a", sub__b=b"b")
    (bench.source / "sub" / "mnt").mkdir()
    with fuse(bench.source / "sub" / "mnt", 0):
        began = time.monotonic()
        made = bench.create()
        assert time.monotonic() - began < 20
        assert [(item["path"], item["reason"], item["detail"]) for item in made.backup["skipped"]] == [
            ("sub/mnt", "unreadable", "this fuse mount does not respond")
        ]
        for options in ({"one_file_system": True}, {"exclude": ["mnt"]}):
            assert bench.create(**options).backup["complete"]
    bench.restore()
    assert (bench.target / "sub/b").read_bytes() == b"b"


def test_the_child_that_asks_a_mount_holds_nothing_of_ours(bench, monkeypatch) -> None:
    """It may outlive the run: with the store's lock, or with the pipe that the caller reads to its end, everything would wait for it."""
    monkeypatch.setattr(capture, "_ANSWER", 0.3)
    bench.files(a=b"a")
    (bench.source / "mnt").mkdir()
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    monkeypatch.setattr(os, "kill", lambda _pid, _signal: None)
    with fuse(bench.source / "mnt", 0):
        made = bench.create()
        os.close(writer)
        assert os.read(reader, 1) == b"", "the child has the pipe"
        assert not made.backup["complete"]
    os.close(reader)


def test_ignored_children_cost_nothing(bench, monkeypatch) -> None:
    bench.files(a=b"a")
    (bench.source / "mnt").mkdir()
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with fuse(bench.source / "mnt", 1000):
            made = bench.create()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert [item["path"] for item in made.backup["skipped"]] == ["mnt"] and made.backup["file_count"] == 1


def test_one_corrupt_inode_costs_itself_alone(tmp_path: Path, bench) -> None:
    need("debugfs", "mkfs.ext4", root=True)
    image = tmp_path / "image"
    mounts.make("ext4", image, 64 << 20)
    bench.source.mkdir()
    with mounts.image(image, bench.source):
        bench.files(a=b"1", bad=b"2", photos__p=b"3")
        inode = (bench.source / "bad").stat().st_ino
    subprocess.run(["debugfs", "-w", "-R", f"set_inode_field <{inode}> checksum 0x1234", image], check=True, capture_output=True)
    with mounts.image(image, bench.source):
        made = bench.create(exclude=["lost+found"])
    assert [(item["path"], item["reason"]) for item in made.backup["skipped"]] == [("bad", "unreadable")]
    bench.restore()
    assert sorted(os.listdir(bench.target)) == ["a", "photos"] and (bench.target / "photos/p").read_bytes() == b"3"


def test_a_single_file_of_another_file_system_is_left_out_with_one_file_system(bench) -> None:
    need("mount", root=True)
    bench.files(secret=b"", same=b"", a=b"a", original=b"original")
    with mounts.mount("tmpfs", bench.top) as other:
        (other / "secret").write_bytes(b"secret")
        subprocess.run(["mount", "--bind", other / "secret", bench.source / "secret"], check=True)
        subprocess.run(["mount", "--bind", bench.source / "original", bench.source / "same"], check=True)
        try:
            made = bench.create(one_file_system=True)
        finally:
            for name in ("same", "secret"):
                subprocess.run(["umount", bench.source / name], check=True)
    assert [(item["path"], item["reason"]) for item in made.backup["skipped"]] == [("secret", "mount_point")]
    bench.restore()
    assert sorted(os.listdir(bench.target)) == ["a", "original", "same"]


LEASE = """
import fcntl, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR)
signal.signal(signal.SIGIO, lambda *_: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK))
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
while sys.stdin.buffer.raw.read(1):
    pass
"""


def test_a_leased_file_is_read_once_its_holder_gives_it_back(bench) -> None:
    bench.files(doc=b"shared")
    holder = subprocess.Popen([sys.executable, "-c", LEASE, bench.source / "doc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        made = bench.create()
        holder.stdin.close()
    assert made.backup["complete"]
    bench.restore()
    assert (bench.target / "doc").read_bytes() == b"shared"


@pytest.mark.parametrize("where", ["file", "directory", "root"])
@pytest.mark.parametrize("many", ["names", "bytes"])
def test_attributes_that_cannot_be_kept_cost_themselves_alone(bench_on, where: str, many: str) -> None:
    bench = bench_on("xfs")
    bench.files(sub__f=b"content", g=b"other")
    path = {"file": bench.source / "sub" / "f", "directory": bench.source / "sub", "root": bench.source}[where]
    number, value = (300, b"1") if many == "names" else (270, b"x" * 65536)
    for at in range(number):
        os.setxattr(path, "user.%04d" % at + "x" * 240 * (many == "names"), value)
    made = bench.create()
    name = {"file": "sub/f", "directory": "sub", "root": ""}[where]
    assert [(item["path"], item["reason"]) for item in made.backup["skipped"]] == [(name, "attributes")] and not made.backup["complete"]
    bench.restore()
    assert (bench.target / "sub/f").read_bytes() == b"content" and (bench.target / "g").read_bytes() == b"other"


# ---- the place of the source


@pytest.mark.parametrize("how", ["exchange", "remove", "link"])
def test_a_source_that_is_another_by_the_end_of_the_walk(bench, meanwhile, how: str) -> None:
    bench.files(a=b"a", m=noise(1000))
    other = bench.top / "other"
    other.mkdir()
    (other / "a").write_bytes(b"new")

    def act(turn: int) -> None:
        if turn > 1:
            return
        bench.source.rename(bench.top / "old")
        if how == "exchange":
            other.rename(bench.source)
        elif how == "remove":
            shutil.rmtree(bench.top / "old")
        else:
            bench.source.symlink_to(other)

    meanwhile(bench.source / "m", act)
    if how == "exchange":
        bench.create()
        bench.restore()
        assert [(path.name, path.read_bytes()) for path in bench.target.iterdir()] == [("a", b"new")]
    else:
        with pytest.raises(SourceError) as caught:
            bench.create()
        assert caught.value.code == "source" and bench.found() == []


def test_a_link_that_has_come_into_the_path_is_refused(bench) -> None:
    real = bench.top / "user" / "data"
    real.mkdir(parents=True)
    (real / "thesis").write_bytes(b"thesis")
    (bench.top / "root").mkdir()
    bench.create(source=real)
    real.rename(bench.top / "user" / "data2")
    real.symlink_to(bench.top / "root")
    with pytest.raises(SourceError, match="contains the symbolic link .*user/data, which was not a link at the last backup"):
        bench.create(source=real)
    real.unlink()
    (bench.top / "user" / "data2").rename(real)
    assert bench.create(source=real).backup["source_links"] == []
    (bench.top / "user").rename(bench.top / "elsewhere")
    (bench.top / "user").symlink_to(bench.top / "elsewhere")
    with pytest.raises(SourceError, match=r"link .*/user, which"):
        bench.create(source=real)
    assert bench.create(source=bench.top / "elsewhere" / "data").changed, "the directory itself may be named"


def test_a_last_name_that_was_a_link_may_lead_elsewhere(bench) -> None:
    for number in (1, 2):
        (bench.top / f"release-{number}").mkdir()
        (bench.top / f"release-{number}" / "a").write_bytes(b"%d" % number)
    current = bench.top / "current"
    for number in (1, 2):
        current.unlink(missing_ok=True)
        current.symlink_to(f"release-{number}")
        made = bench.create(source=current)
        assert made.backup["source_asked"] == str(current) and made.backup["source_links"] == [str(current)]
        assert made.backup["source_path"] == str(bench.top / f"release-{number}")


def test_a_directory_that_is_moved_costs_what_was_not_read_of_it(bench, meanwhile) -> None:
    """Deeper than descriptors are kept."""
    deep = bench.source / "user"
    path = deep
    for _level in range(descent._KEEP + 10):
        path = path / "d"
    path.mkdir(parents=True)
    (path / "f").write_bytes(noise(1000))
    (deep / "d" / "d" / "later").mkdir()
    (deep / "d" / "d" / "later" / "g").write_bytes(b"g")
    bench.files(a=b"a", z__z=b"z")

    def move(turn: int) -> None:
        if turn == 1:
            (deep / "d" / "d" / "d").rename(bench.top / "moved")
            (deep / "d").rename(bench.top / "moved too")

    meanwhile(path / "f", move)
    made = bench.create()
    assert not made.backup["complete"]
    assert [(item["path"], item["detail"]) for item in made.backup["skipped"]] == [("user/d/d/later", "a parent directory was moved during the backup")]
    bench.restore()
    assert (bench.target / "a").read_bytes() == b"a" and (bench.target / "z/z").read_bytes() == b"z"


@pytest.mark.parametrize("layers", ["squashfs below", "tmpfs above"])
def test_an_overlay_is_trusted_no_more_than_its_layers(bench, tmp_path: Path, layers: str) -> None:
    need("mksquashfs", "mount", root=True)
    for name in ("lower", "empty", "work"):
        (tmp_path / name).mkdir()
    bench.source.mkdir()
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "tool").write_bytes(b"version-%d" % number)
        for path in (tmp_path / str(number) / "tool", tmp_path / str(number)):
            os.utime(path, ns=(1_600_000_000_000_000_000,) * 2)
        made = ["mksquashfs", str(tmp_path / str(number)), str(tmp_path / f"{number}.img"), "-quiet", "-no-progress", "-mkfs-time", "1600000000"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    for number in (1, 2):
        with mounts.mount("tmpfs", tmp_path) as memory, mounts.image(tmp_path / f"{number}.img", tmp_path / "lower", "ro"):
            for name in ("upper", "work"):
                (memory / name).mkdir()
            upper = f",upperdir={memory}/upper,workdir={memory}/work" if layers == "tmpfs above" else f":{tmp_path}/empty"
            subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={tmp_path}/lower{upper}", bench.source], check=True)
            try:
                assert bench.create(only_if_changed=True).changed
            finally:
                subprocess.run(["umount", bench.source], check=True)
    bench.restore()
    assert (bench.target / "tool").read_bytes() == b"version-2"


# ---- limits of what can be read back


def test_a_list_of_chunks_beyond_its_limit_costs_the_file(bench, monkeypatch) -> None:
    bench.files(other=b"x", image=b"")
    with open(bench.source / "image", "wb") as file:
        for number in range(40):
            file.seek(number << 20)
            file.write(b"x")
    monkeypatch.setattr(chunks, "LIST_LIMIT", 1000)
    made = bench.create()
    assert [(item["path"], item["reason"]) for item in made.backup["skipped"]] == [("image", "unreadable")]
    assert not bench.found()[0]["damaged"]
    bench.restore()
    assert os.listdir(bench.target) == ["other"]


def test_links_beyond_the_table_s_limit_are_files_of_their_own(bench, monkeypatch) -> None:
    bench.files(a=b"a", few=b"few")
    os.link(bench.source / "few", bench.source / "fewer")
    for number in range(50):
        os.link(bench.source / "a", bench.source / ("l%d" % number + "x" * 200))
    monkeypatch.setattr(links, "LIMIT", 5000)
    made = bench.create()
    assert [(item["path"], item["reason"]) for item in made.backup["skipped"]] == [("a", "links")] and not made.backup["complete"]
    assert not bench.found()[0]["damaged"]
    bench.restore()
    assert len(os.listdir(bench.target)) == 53 and (bench.target / "few").stat().st_nlink == 2 and (bench.target / "a").stat().st_nlink == 1


DEEP = """
import re, sys
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
status = cli.main(sys.argv[1:])
print(int(re.search("VmHWM:\\s*([0-9]+)", open("/proc/self/status").read())[1]) >> 10)  # of this program alone, unlike ru_maxrss
sys.exit(status)
"""


def test_memory_does_not_grow_with_the_square_of_the_depth(bench) -> None:
    depth, name = 2500, "d" * 250  # all paths together: 780 MB
    bench.source.mkdir()
    here = os.getcwd()
    os.chdir(bench.source)
    try:
        for _level in range(depth):
            os.mkdir(name)
            os.chdir(name)
    finally:
        os.chdir(here)
    words = ["create", "work", "--source", str(bench.source), "--store", str(bench.store), "--backup-dir", str(bench.backups), "--quiet", "--diff-limit", "1"]
    done = subprocess.run([sys.executable, "-c", DEEP, *words], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=subprocess.PIPE, check=True)
    subprocess.run(["rm", "-rf", bench.source], check=True)  # pytest's own clearing does not go so deep
    assert int(done.stdout) < 100
