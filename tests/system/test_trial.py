# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill tries on a restored tree: what its command can see and do, that it leaves nothing, and what counts as a proof."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import kernel
from ansible_collections.volt.backup.plugins.module_utils._proof import sandbox, trial
from ansible_collections.volt.backup.tests.rigs import Unavailable, need

OF, AGAIN = "Its drill command ", "; fix that, then run the drill again."
ENGINE = "ansible_collections.volt.backup.plugins.module_utils"


@pytest.fixture
def room(tmp_path: Path) -> Path:
    need(root=True)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "data").write_text("data")
    return tmp_path


def attempt(room: Path, *words: str, limit: int = 60) -> trial.Tried:
    return trial.tried(str(room), [], trial.Command(words, limit, {"VOLT_BACKUP_ID": "app-1"}), trial.is_root(str(room / "tree")))


def python(room: Path, code: str) -> trial.Tried:
    return attempt(room, sys.executable, "-c", code)


def processes(mark: str) -> list[str]:
    """Processes of the host that have a word on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words:
            found.append(path.parent.name)
    return found


def test_a_command_is_in_the_tree_and_may_write_there(room: Path) -> None:
    script = 'test "$PWD" = "$VOLT_DRILL_TREE" && test "$VOLT_BACKUP_ID" = app-1 && grep -q data data && touch made /tmp/made /run/made'
    assert attempt(room, "/bin/sh", "-c", script) == trial.Tried([], "passed", None)
    assert (room / "tree" / "made").exists() and not Path("/run/made").exists()
    assert [path.name for path in room.iterdir()] == ["tree"]


def test_a_command_that_fails_says_why(room: Path) -> None:
    tried = attempt(room, "/bin/sh", "-c", "echo much; echo 'table users is broken' >&2; exit 7")
    assert tried == trial.Tried([], "failed", OF + "/bin/sh: it failed with exit status 7 (much table users is broken)" + AGAIN)
    assert attempt(room, "/not/there").reason == OF + "/not/there: it could not be started: no such file or directory" + AGAIN
    assert attempt(room, "/bin/sh", "-c", "kill -9 $$").reason == OF + "/bin/sh: it failed with signal 9" + AGAIN


def test_a_command_can_change_nothing_else(room: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Not even as root: neither files, nor by undoing the mounts, nor by devices, nor settings of the kernel."""
    need("mount", "mknod")
    other = tmp_path_factory.mktemp("other")
    os.mknod(room / "tree" / "disk", 0o600 | 0o060000, os.makedev(7, 0))
    for words in (f"touch {other}/x", f"mount -o remount,bind,rw {other}", "mount -o remount,rw /", "echo x >/etc/volt-evil", "mknod /tmp/d b 7 0",
                  "echo 0 >/proc/sys/kernel/sysrq", "echo h >/proc/sysrq-trigger", "head -c 1 disk", "ls /dev | grep -E 'loop|sd|vd|kmsg|mem'",
                  "umount /run", "mount -t tmpfs none /mnt", "echo x >/proc/self/comm", "echo 0 >/proc/self/oom_score_adj"):  # fmt: skip
        tried = attempt(room, "/bin/sh", "-c", f"if {words}; then exit 3; fi")
        assert tried.command == "passed", (words, tried.reason)
    assert not list(other.iterdir()) and not Path("/etc/volt-evil").exists()


#: Opens a directory of the host by its handle, through what the drill may write to (open_by_handle_at(2)), and makes a file there.
BY_HANDLE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
handle = ctypes.create_string_buffer(bytes.fromhex(sys.argv[1]))
fd = libc.open_by_handle_at(os.open(sys.argv[2], os.O_RDONLY), handle, os.O_RDONLY)
if fd < 0:
    sys.exit(0 if ctypes.get_errno() in (1, 116) else os.strerror(ctypes.get_errno()))
os.close(os.open("escaped", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
"""


@pytest.mark.parametrize("through", ["/tmp", "."])
def test_a_command_opens_nothing_of_the_host_by_its_handle(room: Path, tmp_path_factory: pytest.TempPathFactory, through: str) -> None:
    """All of the file system that the tree is on could be written to through the tree, whatever is mounted where."""
    other = tmp_path_factory.mktemp("other")
    handle, mount = ctypes.create_string_buffer(struct.pack("I132x", 128)), ctypes.c_int()
    if ctypes.CDLL(None).name_to_handle_at(-100, os.fsencode(other), handle, ctypes.byref(mount), 0):
        raise Unavailable("this file system has no handles")
    tried = attempt(room, sys.executable, "-c", BY_HANDLE, handle.raw.hex(), through)
    assert not list(other.iterdir())
    assert tried.command == "passed", tried.reason


@pytest.mark.parametrize("where", ["/run", "/var/lib"])
def test_a_command_reaches_no_service_of_the_host(room: Path, where: str) -> None:
    """Those of databases and of managers of containers often have their sockets elsewhere than in /run."""
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as local:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        path = f"{where}/volt-test-{os.getpid()}"
        local.bind(path)
        try:
            local.listen()
            refused = "import socket\ntry:\n    socket.socket({}).connect({!r})\nexcept OSError:\n    pass\nelse:\n    raise SystemExit('connected')"
            assert python(room, refused.format("", tcp.getsockname())).reason is None
            assert python(room, refused.format("socket.AF_UNIX", path)).reason is None
            own = "import socket; a = socket.create_server(('127.0.0.1', 0)); socket.create_connection(a.getsockname())"
            assert python(room, own).reason is None  # what it starts itself, it reaches
        finally:
            os.unlink(path)


def test_what_a_command_leaves_running_ends(room: Path) -> None:
    mark = f"volt-left-{os.getpid()}"
    left = (
        f"import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.execl('/bin/sh', 'sh', '-c', 'trap \"\" TERM; sleep 600; :', '{mark}')\ntime.sleep(0.2)"
    )
    assert python(room, left).command == "passed"
    assert not processes(mark)


def test_a_command_that_hangs_is_ended(room: Path) -> None:
    began = time.monotonic()
    tried = attempt(room, "/bin/sh", "-c", "trap '' TERM; sleep 600; :", limit=1)
    assert tried.reason == OF + "/bin/sh: it was not done after 1 seconds, and was ended" + AGAIN
    assert time.monotonic() - began < 30


@contextmanager
def drilling(room: Path, mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose drill command waits."""
    code = (
        f"from {ENGINE}._base import interruptible\nfrom {ENGINE}._proof import trial\n"
        f"with interruptible():\n    trial.tried({str(room)!r}, [], trial.Command(['/bin/sh', '-c', 'sleep 600; :', {mark!r}], 60), False)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 30
        while not processes(mark) and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert processes(mark)
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_drill_that_is_killed_leaves_no_process(room: Path, number: int) -> None:
    mark = f"volt-killed-{os.getpid()}-{number}"
    with drilling(room, mark) as child:
        child.send_signal(number)
        child.wait(30)
        deadline = time.monotonic() + 30
        while processes(mark) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not processes(mark)


@pytest.fixture
def container(room: Path) -> Path:
    """The root of a small system as the tree."""
    need("systemd-nspawn", "busybox")
    tree = room / "tree"
    for name in ("bin", "etc", "usr/lib", "proc", "sys", "dev", "run", "tmp", "var"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", tree / "bin/busybox")
    (tree / "usr/lib/os-release").write_text("ID=volt\n")
    (tree / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nshop:x:777:777::/:/bin/sh\n")
    for name in ("sh", "test", "grep", "touch", "ip", "mknod", "mount", "mkdir"):
        (tree / "bin" / name).symlink_to("busybox")
    return tree


def test_nothing_outlives_the_process_between(room: Path) -> None:
    """The kernel may end it for want of memory."""
    mark = f"volt-orphan-{os.getpid()}"
    with drilling(room, mark) as child:
        (guardian,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        os.kill(int(guardian), signal.SIGKILL)
        child.wait(30)
        assert not processes(mark)


def test_a_tree_without_bottom_is_removed(room: Path) -> None:
    """Deeper than Python's calls may be."""
    deep = "import os\nos.chdir('/tmp')\nfor number in range(3000):\n    os.mkdir('d')\n    os.chdir('d')"
    try:
        assert python(room, deep).command == "passed"
        assert [path.name for path in room.iterdir()] == ["tree"]
    finally:
        subprocess.run(["rm", "-rf", room], check=True)


def test_a_command_that_fills_the_disk_is_ended(room: Path) -> None:
    """Services of the host may need that space."""
    need("mount")
    small = room / "small"
    (small / "tree").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", small], check=True)
    try:
        (small / "tree").mkdir()
        tried = attempt(small, "/bin/sh", "-c", "head -c 60000000 /dev/zero >/tmp/much; sleep 600")
        assert tried.reason == OF + f"/bin/sh: less than {sandbox.LEAST} bytes were left in {small}, and it was ended" + AGAIN
    finally:
        subprocess.run(["umount", small], check=True)


def test_the_kernel_ends_a_drill_first_when_memory_runs_out(room: Path) -> None:
    assert attempt(room, "/bin/grep", "-x", "1000", "/proc/self/oom_score_adj", "/proc/1/oom_score_adj").command == "passed"


def test_in_the_root_of_a_container(room: Path, container: Path) -> None:
    """The command is the container's, and so are its users and its names."""
    script = "test -e /usr/lib/os-release && grep -q shop /etc/passwd && test $VOLT_DRILL_TREE = / && touch /tmp/x /var/y && ! ip route | grep ."
    assert attempt(room, "/bin/sh", "-c", script) == trial.Tried([], "passed", None)
    assert (container / "var/y").exists()
    failed = attempt(room, "/bin/busybox", "sh", "-c", "echo 'no such table'; exit 4")
    assert failed.reason == OF + "/bin/busybox: it failed with exit status 4 (no such table)" + AGAIN


def test_the_root_of_a_container_is_not_root_of_the_host(room: Path, container: Path) -> None:
    """It cannot make devices of disks, nor mount what has settings of the kernel."""
    for words in ("mknod /dev/d b 7 0", "mount -t proc proc /var", "mount -t tmpfs none /var", "mount -o remount,rw /proc/sys"):
        tried = attempt(room, "/bin/sh", "-c", f"if {words}; then exit 3; fi")
        assert tried.command == "passed", (words, tried.reason)
    told = re.search(r"CapBnd:\s+([0-9a-f]+)", attempt(room, "/bin/sh", "-c", "grep CapBnd /proc/self/status; exit 3").reason or "")
    assert told and not int(told[1], 16) & ~sum(1 << number for number in sandbox.CAPABILITIES)


def test_only_root_can_run_one(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, a dump is told not to be loaded, and a command fails."""
    dump = {"kind": "sqlite", "database": None, "path": "data"}

    def refuse() -> None:
        raise PermissionError(1, "")

    for where, name, value, why in ((kernel, "isolate", refuse, "this host allows none (operation not permitted)"),
                                    (kernel, "mount_proc", lambda _: refuse(), "this host allows none (operation not permitted)"),
                                    (os, "geteuid", lambda: 1000, "only root can make; run as root")):  # fmt: skip
        monkeypatch.setattr(where, name, value)
        tried = trial.tried(str(room), [dump], trial.Command(["/bin/true"], 5), False)
        assert tried.command == "failed" and tried.reason and why in tried.reason
        assert not tried.dumps[0]["loaded"] and tried.dumps[0]["reason"].endswith(why)
        monkeypatch.undo()


def test_a_bug_in_it_is_no_proof(room: Path) -> None:
    assert sandbox.run(str(room), {}.popitem, 10) == "KeyError: 'popitem(): dictionary is empty'"
    assert sandbox.run(str(room), lambda: os._exit(0), 10) == "it was ended from outside"
    assert sandbox.run(str(room), lambda: os.kill(os.getpid(), signal.SIGSEGV) or os.abort(), 10) == "it was ended from outside"
