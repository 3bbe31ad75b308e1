# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A target that is not ours alone: mounts that come while a restore runs, containers that live on it, users who exchange names in it."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import restore
from ansible_collections.volt.backup.plugins.module_utils._base import errors, files, kernel
from ansible_collections.volt.backup.plugins.module_utils._restore import assemble, in_use, replace, rooms, target
from ansible_collections.volt.backup.tests.rigs import need, sample
from ansible_collections.volt.backup.tests.system.conftest import Bench

WAYS = ("replace", "in_place")
USER = 65534


@pytest.fixture(params=["openat2", "mount ids"])
def descent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the kernel's own check of mounts, and as on a kernel without it."""
    monkeypatch.setattr(files, "_openat2", True)
    if request.param == "mount ids":

        def refused(*_arguments: object) -> int:
            raise OSError(38, "no such call")

        monkeypatch.setattr(kernel, "open_on_mount", refused)
    return str(request.param)


@pytest.fixture
def bound() -> Iterator[Callable[[Path, Path], None]]:
    """`bound(what, where)` binds a directory to another place, until the end of the test."""
    need("mount", root=True)
    with ExitStack() as stack:

        def bind(what: Path, where: Path) -> None:
            subprocess.run(["mount", "--bind", what, where], check=True)
            stack.callback(subprocess.run, ["umount", "-l", where], check=False, stderr=subprocess.DEVNULL)

        yield bind


@pytest.fixture
def made(bench: Any) -> Any:
    bench.files(a=b"1", data__b=b"2", data__deep__c=b"3", z=b"4")
    bench.create()
    bench.restore()
    (bench.target / "a").write_bytes(b"changed")
    (bench.target / "data" / "new").write_bytes(b"new")
    (bench.top / "foreign").mkdir()
    (bench.top / "foreign" / "treasure").write_bytes(b"treasure")
    return bench


# ---- mounts that come while a restore runs


@pytest.mark.parametrize("moment", ["while the tree is built", "right before the exchange"])
def test_what_is_mounted_meanwhile_is_not_deleted_by_replace(
    made: Any, bound: Any, descent: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = made.target / "data"
    if moment == "while the tree is built":
        real = assemble.Assembler.fresh
        monkeypatch.setattr(assemble.Assembler, "fresh", lambda self, *rest: (real(self, *rest), bound(made.top / "foreign", place)))
    else:
        exchange, mounted = kernel.exchange, []

        def late(*arguments: Any) -> None:
            if not mounted:
                mounted.append(bound(made.top / "foreign", place))
            exchange(*arguments)

        monkeypatch.setattr(kernel, "exchange", late)
    with pytest.raises(errors.TargetError, match="mounted below target .* nothing was changed"):
        made.restore(force=True, strategy="replace")
    assert (place / "treasure").read_bytes() == b"treasure" and (made.target / "a").read_bytes() == b"changed"
    assert made.debris() == []


@pytest.mark.parametrize("keep", [False, True])
def test_mounts_that_cannot_be_read_after_the_exchange_cost_nothing(made: Any, keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether something was mounted in that moment is not known, so the trees are exchanged back."""
    below = replace.mounts.below

    def unreadable(path: bytes) -> Any:
        if b".volt-" in path:
            raise errors.SourceError("/proc/self/mountinfo cannot be read: input/output error; mount /proc first.")
        return below(path)

    monkeypatch.setattr(replace.mounts, "below", unreadable)
    before = made.snapshot()
    with pytest.raises(errors.SourceError, match="mountinfo"):
        made.restore(force=True, strategy="replace", keep_previous=keep)
    assert (made.target / "a").read_bytes() == b"changed" and (made.target / "data" / "new").read_bytes() == b"new"
    assert {path for path in made.snapshot() if str(made.target) in path} == {path for path in before if str(made.target) in path}
    assert made.debris() == []


def test_what_is_mounted_meanwhile_is_not_entered_in_place(made: Any, bound: Any, descent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rooms.Rooms.enter

    def enter(self: Any, path: bytes, fd: int) -> None:
        if path == b"data":
            bound(made.top / "foreign", made.target / "data" / "deep")
        real(self, path, fd)

    monkeypatch.setattr(rooms.Rooms, "enter", enter)
    with pytest.raises(errors.TargetError, match="data/deep in the target was mounted during the restore"):
        made.restore(force=True, strategy="in_place", delete=True)
    assert os.listdir(made.top / "foreign") == ["treasure"]


def test_a_mount_that_is_exchanged_for_another_is_not_entered(made: Any, bound: Any, descent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agreed to was the one that was there at the first look."""
    (made.top / "agreed").mkdir()
    bound(made.top / "agreed", made.target / "data")
    real = assemble.Assembler.in_place

    def exchanged(self: Any, *rest: Any) -> None:
        bound(made.top / "foreign", made.target / "data")
        real(self, *rest)

    monkeypatch.setattr(assemble.Assembler, "in_place", exchanged)
    with pytest.raises(errors.TargetError, match="data in the target was mounted during the restore"):
        made.restore(force=True, delete=True)
    assert os.listdir(made.top / "foreign") == ["treasure"] and os.listdir(made.top / "agreed") == []


@pytest.mark.parametrize("delete", [True, False])
def test_a_bind_mount_of_the_same_file_system_is_no_part_of_the_target(made: Any, bound: Any, descent: str, delete: bool) -> None:
    (made.target / "extra").mkdir()
    bound(made.top / "foreign", made.target / "extra")
    done = made.restore(force=True, delete=delete)
    assert done.restore["strategy"] == "in_place" and (made.top / "foreign" / "treasure").exists()
    assert (made.target / "data" / "new").exists() is not delete


def test_the_old_tree_goes_without_what_was_mounted_in_it_elsewhere(made: Any, bound: Any, descent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounted in the moment between the last look and the removal: it stays, and that is told."""
    real = replace.Stage._remove_old

    def late(self: Any) -> Any:
        bound(made.top / "foreign", made.top / os.fsdecode(self._own) / "tree" / "data")
        return real(self)

    monkeypatch.setattr(replace.Stage, "_remove_old", late)
    done = made.restore(force=True, strategy="replace")
    assert os.listdir(made.top / "foreign") == ["treasure"]
    assert any("of the old tree could not be removed, first data" in warning for warning in done.warnings)


# ---- what lives on the target


@pytest.fixture
def live() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`live(script, namespace=True)`: a shell, in a mount namespace of its own as a rule, that has said it is ready."""
    need("unshare", "mount", root=True)
    running: list[subprocess.Popen[bytes]] = []

    def start(script: str, namespace: bool = True) -> subprocess.Popen[bytes]:
        apart = ["unshare", "-m", "--propagation", "private"] if namespace else []
        process = subprocess.Popen([*apart, "bash", "-c", script + "; echo; read -r"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        return process

    yield start
    for process in running:
        process.communicate(b"\n", timeout=10)


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("mount -t tmpfs none {0}/data", "has {0}/data mounted in it"),
        ("mount --bind {1}/foreign {0}/data", "has {0}/data mounted in it"),
        ("mount --bind {0} {1}/root; cd {1}/root; mkdir -p old; pivot_root . old; umount -l old", "has its root directory in it"),
        ("mount -t overlay none -o lowerdir={1}/foreign,upperdir={0}/data,workdir={0}/work {1}/root", "the overlay at {1}/root"),
    ],
    ids=["tmpfs", "bind", "container", "overlay"],
)
def test_a_container_on_the_target_keeps_it(made: Any, live: Any, what: str, why: str, strategy: str) -> None:
    for name in ("root", "target/work", "target/old"):
        (made.top / name).mkdir(exist_ok=True)
    live(what.format(made.target, made.top))
    before = made.snapshot()
    for dry in (True, False):
        with pytest.raises(errors.TargetInUse, match="is in use: ") as caught:
            made.restore(force=True, strategy=strategy, dry=dry)
        assert caught.value.code == "in_use" and why.format(made.target, made.top) in caught.value.details["in_use"][0]
    assert made.snapshot() == before
    assert made.restore(force=True, strategy=strategy, allow_in_use=True).changed
    assert (made.target / "a").read_bytes() == b"1"


def test_a_process_in_a_chroot_keeps_its_target(made: Any) -> None:
    need("chroot", root=True)
    child = os.fork()
    if not child:
        os.chroot(made.target)
        time.sleep(60)
        os._exit(0)
    try:
        while os.readlink(f"/proc/{child}/root") == "/":
            time.sleep(0.01)
        with pytest.raises(errors.TargetInUse, match=rf"\(process {child}\) has its root directory in it"):
            made.restore(force=True)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    made.restore(force=True)
    again = made.restore()
    assert not again.changed and again.restore["in_use"] == []


def test_a_chroot_in_another_namespace_keeps_its_target(made: Any) -> None:
    """As a service has it that systemd keeps apart: no mount shows it, and the first process there may see little of the mounts."""
    need("unshare", root=True)
    child = os.fork()
    if not child:
        libc = ctypes.CDLL(None)
        assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
        os.chroot(made.target)
        time.sleep(60)
        os._exit(0)
    try:
        while os.stat(f"/proc/{child}/root").st_ino != made.target.stat().st_ino:
            time.sleep(0.01)
        with pytest.raises(errors.TargetInUse, match=rf"\(process {child}\) has its root directory in it"):
            made.restore(force=True)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.parametrize("namespace", [False, True])
@pytest.mark.parametrize("script", ["cd {0}", "exec 9<{0}/a"])
def test_who_only_has_files_open_is_named(made: Any, live: Any, script: str, namespace: bool) -> None:
    process = live(script.format(made.target), namespace)
    done = made.restore(force=True)
    (warning,) = [text for text in done.warnings if "open before the restore" in text]
    assert f"bash (process {process.pid})" in warning


def test_a_service_with_a_mount_over_itself_is_no_reason(made: Any, live: Any) -> None:
    """As systemd makes for ReadWritePaths= and the like: it shows what is there anyway."""
    live("mount --bind {0}/data {0}/data".format(made.target))
    assert made.restore(force=True).changed


def test_what_is_mounted_here_as_well_is_no_reason(made: Any, live: Any, bound: Any) -> None:
    """Each service with a namespace of its own has a copy of all our mounts."""
    bound(made.top / "foreign", made.target / "data")
    live(":")
    done = made.restore(force=True)
    assert done.restore["strategy"] == "in_place" and done.restore["in_use"] == []


def test_an_equal_target_reports_who_uses_it(made: Any, live: Any) -> None:
    """So that a deployment can ask beforehand whether it could be rolled back."""
    made.restore(force=True, delete=True)
    live(f"mount -t tmpfs none {made.target}/data")
    done = made.restore(dry=True)
    assert not done.changed and "data mounted in it" in done.restore["in_use"][0]
    assert in_use.users_of(os.fsencode(made.top / "foreign")).blocking == []


# ---- users who exchange names


def swap_for_ever(*names: Path) -> int:
    """A process of another user that exchanges two names as fast as it can; its id. Kill it."""
    child = os.fork()
    if child:
        return child
    try:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
        rename = ctypes.CDLL(None).renameat2
        first, second = map(os.fsencode, names)
        while True:
            rename(-100, first, -100, second, 2)
            if os.getppid() == 1:
                break
    finally:
        os._exit(0)


@pytest.fixture
def swapping() -> Iterator[Callable[..., None]]:
    need(root=True)
    children: list[int] = []
    yield lambda *names: children.append(swap_for_ever(*names))
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.fixture
def user_bench() -> Iterator[Any]:
    """A user's home with an application in it, and a directory of root's outside. Where pytest keeps its own, no other user may come."""
    top = Path(tempfile.mkdtemp(dir="/var/tmp"))
    os.chmod(top, 0o755)
    yield _user_bench(Bench(top))
    shutil.rmtree(top)


def _user_bench(bench: Any) -> Any:
    bench.home, bench.victim = bench.top / "home", bench.top / "victim"
    (bench.home / "app" / "etc").mkdir(parents=True)
    (bench.home / "app" / "etc" / "ld.so.preload").write_bytes(b"evil")
    (bench.victim / "etc").mkdir(parents=True)
    (bench.victim / "etc" / "secret").write_bytes(b"secret")
    os.chmod(bench.victim / "etc" / "secret", 0o600)
    (bench.home / "link").symlink_to(bench.victim)
    for top, directories, names in os.walk(bench.home):
        for path in (top, *(os.path.join(top, name) for name in directories + names)):
            os.chown(path, USER, USER, follow_symlinks=False)
    return bench


def outside(bench: Any) -> list[tuple[str, int, int]]:
    return [(str(path), path.lstat().st_uid, path.lstat().st_mode) for path in (bench.victim, *sorted(bench.victim.rglob("*")))]


@pytest.mark.parametrize("strategy", WAYS)
def test_a_parent_that_is_swapped_for_a_link_leads_nowhere(user_bench: Any, swapping: Any, descent: str, strategy: str) -> None:
    bench = user_bench
    backup = bench.create(source=bench.home / "app" / "etc").backup["id"]
    (bench.home / "app" / "etc" / "ld.so.preload").write_bytes(b"other")
    before = outside(bench)
    swapping(bench.home / "app", bench.home / "link")
    outcomes = set()
    for _attempt in range(10_000 if sample.LONG else 60):
        try:
            bench.restore(backup, target=None, force=True, strategy=strategy)
            outcomes.add("restored")
        except errors.VoltError as error:
            outcomes.add(error.code)
    assert outside(bench) == before
    assert "target" in outcomes, "he was quick enough to be met"


def test_another_user_s_link_is_not_followed(user_bench: Any) -> None:
    bench = user_bench
    backup = bench.create(source=bench.home / "app").backup["id"]
    for path in (bench.home / "link" / "etc", bench.home / "link"):
        with pytest.raises(errors.TargetError, match="a symbolic link of another user"):
            bench.restore(backup, target=str(path), force=True)
    (bench.top / "ours").symlink_to(bench.top / "elsewhere")
    (bench.top / "elsewhere").mkdir()
    assert bench.restore(backup, target=str(bench.top / "ours"), force=True).changed


def _renamed(old: Path, new: Path) -> bool:
    try:
        os.rename(old, new)
        return True
    except OSError:
        return False


def test_no_file_of_root_is_given_away(user_bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user puts a file of root's, that lies in his own directory, in the place of what root has just made for him."""
    bench = user_bench
    etc = bench.home / "app" / "etc"
    (etc / "link").symlink_to("nowhere")
    os.mkfifo(etc / "fifo")
    (etc / "sub").mkdir()
    for name in ("link", "fifo", "sub"):
        os.chown(etc / name, USER, USER, follow_symlinks=False)
    backup = bench.create(source=etc).backup["id"]
    for name in ("link", "fifo"):
        (etc / name).unlink()
    (etc / "sub").rmdir()
    secret = etc / "secret"
    secret.write_bytes(b"root's")
    os.chmod(secret, 0o600)
    tried = []
    done = ("secret", "ld.so.preload", "fifo", "link")

    def attack() -> None:
        """What the user may do at this moment: rename his own names over others in his own directories."""
        child = os.fork()
        if not child:
            code = 2
            try:
                os.setgroups([])
                os.setgid(USER)
                os.setuid(USER)
                code = int(any(_renamed(secret, Path(top, name)) for top, _below, names in os.walk(etc) for name in names if name not in done))
            finally:
                os._exit(code)
        tried.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    for name in ("symlink", "mknod"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *rest, _real=real, **more: (_real(*rest, **more), attack())[0])
    bench.restore(backup, target=None, force=True, strategy="in_place")
    assert tried == [0, 0], "what grows is out of his reach"
    assert secret.stat().st_uid == 0 and stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_no_file_of_a_user_gets_another_s_name(user_bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first member of a group of hard links lies in the user's directory, who exchanges it before the next is linked with it."""
    bench = user_bench
    app = bench.home / "app"
    (app / "bin").mkdir()
    (app / "etc" / "tool").write_bytes(b"tool")
    os.link(app / "etc" / "tool", app / "usr-tool")
    backup = bench.create(source=app).backup["id"]
    (app / "usr-tool").unlink()
    (app / "etc" / "evil").write_bytes(b"evil")
    os.chown(app / "etc" / "evil", USER, USER)
    real = assemble.Links.link

    def exchanged(self: Any, path: bytes, *rest: Any) -> bool:
        if path == b"usr-tool":
            os.replace(app / "etc" / "evil", app / "etc" / "tool")
        return real(self, path, *rest)

    monkeypatch.setattr(assemble.Links, "link", exchanged)
    bench.restore(backup, target=None, force=True, strategy="in_place")
    assert (app / "usr-tool").read_bytes() == b"tool" and (app / "usr-tool").stat().st_uid == 0


def test_no_file_that_was_just_exchanged_is_taken_over(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the old tree, in which its user may rename what he likes until the exchange."""
    real, done = os.link, []

    def link(source: Any, *rest: Any, **more: Any) -> None:
        if source == b"z" and not done:
            done.append((made.target / "new").write_bytes(b"evil"))
            (made.target / "new").replace(made.target / "z")
        real(source, *rest, **more)

    monkeypatch.setattr(os, "link", link)
    made.restore(force=True, strategy="replace")
    assert done and (made.target / "z").read_bytes() == b"4"


@pytest.mark.parametrize("strategy", WAYS)
def test_a_target_that_is_moved_aside_is_not_written_to(made: Any, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody saves it while the restore gets ready: what he saved stays as it is."""
    real = restore.Restorer._carry_out

    def moved(self: Any, *rest: Any) -> Any:
        made.target.rename(made.top / "saved")
        made.target.mkdir()
        (made.target / "new").write_bytes(b"new")
        return real(self, *rest)

    monkeypatch.setattr(restore.Restorer, "_carry_out", moved)
    with pytest.raises(errors.TargetError, match="was moved or replaced during the restore"):
        made.restore(force=True, strategy=strategy)
    assert (made.top / "saved" / "a").read_bytes() == b"changed" and os.listdir(made.target) == ["new"]


def test_directories_that_come_and_go_end_no_restore(made: Any) -> None:
    """Any user with a directory in the target makes and removes others in it all the time."""
    child = os.fork()
    if not child:
        try:
            while os.getppid() != 1:
                for number in range(40):
                    os.mkdir(made.target / "data" / f"t{number}")
                for number in range(40):
                    os.rmdir(made.target / "data" / f"t{number}")
        finally:
            os._exit(0)
    try:
        for turn in range(12):
            (made.target / "a").write_bytes(b"changed")
            made.restore(force=True, strategy="in_place", delete=bool(turn % 2))
            assert (made.target / "a").read_bytes() == b"1"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_lock_of_another_user_does_not_block(user_bench: Any) -> None:
    need("flock", "setpriv", root=True)
    bench = user_bench
    backup = bench.create(source=bench.home / "app").backup["id"]
    app = bench.home / "app"
    os.chmod(app, 0o755)
    holder = subprocess.Popen(
        ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "flock", app, "sh", "-c", "echo; read -r x"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"\n"
        (app / "etc" / "ld.so.preload").write_bytes(b"other")
        for strategy in WAYS:
            (app / "etc" / "ld.so.preload").write_bytes(strategy.encode())
            assert bench.restore(backup, target=None, force=True, strategy=strategy).changed
    finally:
        holder.communicate(b"\n", timeout=10)


def test_locks_are_in_a_private_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(root=True)
    directory = target._lock_directory()
    assert directory is not None
    info = os.stat(directory)
    assert info.st_uid == 0 and not info.st_mode & 0o077
    place = tmp_path / "place"
    place.mkdir()
    with target.Target(os.fsencode(place)) as held:
        held.lock()
        assert len(os.listdir(directory)) >= 2
    assert not [name for name in os.listdir(directory) if f"-{place.stat().st_ino:x}" in name]


def test_a_room_that_a_dead_restore_left_is_removed_and_a_user_s_directory_is_not(made: Any) -> None:
    left, own = made.target / "data" / ".volt-restore-0123456789abcdef", made.target / ".volt-restore-0123456789abcdef"
    left.mkdir(0o700)
    (left / "volt-restore").touch()
    (left / "1").write_bytes(b"half")
    own.mkdir(0o700)
    (own / "mine").write_bytes(b"mine")
    for turn, options in enumerate(({"strategy": "in_place"}, {"strategy": "replace"}, {}, {"dry": True})):
        if turn:
            left.mkdir(0o700)
            (left / "volt-restore").touch()
            made.top.joinpath("target", "a").write_bytes(b"1" if turn > 1 else b"changed")
            os.utime(made.target / "a", ns=(0, (made.source / "a").stat().st_mtime_ns))
        made.restore(force=True, **options)
        assert left.exists() is (options == {"dry": True})
        assert turn == 1 or (own / "mine").read_bytes() == b"mine"
        own.mkdir(0o700, exist_ok=True)
        (own / "mine").write_bytes(b"mine")


def test_names_of_users_are_theirs(made: Any) -> None:
    """A probe for links must not take a name in the target."""
    (made.target / "probe").write_bytes(b"mine")
    made.restore(force=True, link="hardlink", strategy="in_place")
    with pytest.raises(errors.TargetError):
        (made.target / "a").write_bytes(b"again")
        made.restore(force=True, link="reflink", strategy="in_place")
    assert (made.target / "probe").read_bytes() == b"mine"


def test_a_kernel_without_openat2_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and then not asked again."""
    (tmp_path / "d").mkdir()
    asked: list[int] = []

    def refused(*_arguments: object) -> int:
        asked.append(1)
        raise PermissionError(1, "filtered")

    monkeypatch.setattr(files, "_openat2", True)
    monkeypatch.setattr(kernel, "open_on_mount", refused)
    top = os.open(tmp_path, os.O_RDONLY)
    try:
        for _turn in range(2):
            os.close(files.open_on_mount(b"d", top))
    finally:
        os.close(top)
    assert asked == [1]
