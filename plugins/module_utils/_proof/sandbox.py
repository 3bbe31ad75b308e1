# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A process that can change nothing but one tree, and leaves no other behind.

Everything that it sees is read-only, but the tree, /tmp and /run, which are its own. It has no network but its own loopback interface, no devices of
hardware, no sockets of services, and lacks the capabilities to undo this. What it starts ends with it. It is ended before it fills the disk, and the
kernel ends it first when memory runs out.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import stat
import tempfile
import time
import typing as t

from .._base import VoltError, brief, files, forked, held, kernel, open_directory, reason, show, tolerated
from .._fs.mounts import is_within, mounts
from .._restore.remove import Remover

#: Where the tree is, for what runs inside.
TREE = "/run/volt-drill"
#: The environment of what runs inside: nothing of ours, which may have secrets.
PLAIN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
#: Bytes that stay free on the disk, and seconds between two looks.
LEAST, _LOOK = 32 << 20, 0.1
#: Bytes that the process may say.
_SAID = 4096
#: What it says first where it could not be made.
_NONE = b"\1"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
#: What a container's manager writes to.
_CGROUPS = ("cgroup", "cgroup2")
#: To own, read and write any file of the tree, to change users, to end processes; capabilities(7). Not CAP_DAC_READ_SEARCH: with open_by_handle_at(2),
#: it opens any file of the file system that the tree is on, and writes to it through the tree.
CAPABILITIES = frozenset((0, 1, 3, 4, 5, 6, 7, 8, 10, 14, 15, 18, 31))


class NoSandbox(Exception):
    """This host, or this user, cannot have one; the text tells why."""


class Failed(Exception):
    """Work in a sandbox failed; the text tells why."""


def run(room: str, work: t.Callable[[], None], patience: float, nested: bool = False) -> str:
    """Do some work in a sandbox. Why it failed, as the text of Failed, or of what else was raised; empty if it did not. NoSandbox if there can be none.

    :param room: a private directory with the restored `tree`; /tmp of the sandbox is beside it. :param patience: seconds.
    :param nested: the work starts a container, which takes away capabilities by itself.
    """
    if os.geteuid() != 0:
        raise NoSandbox("it needs a sandbox, which only root can make; run as root")
    tmp = tempfile.mkdtemp(prefix="tmp-", dir=room)
    os.chmod(tmp, 0o1777)
    services = _services()
    reader, writer = os.pipe()
    us, child = os.getpid(), 0
    try:
        with held():  # a signal that comes now must end the process as well
            child = os.fork()
            if not child:
                forked()
                _guardian(us, writer, lambda: _first(room, tmp, work, nested, services))
            os.close(writer)
        return _hear(reader, patience, room)
    finally:
        if os.getpid() != us:
            os._exit(1)  # whatever happened there must not happen twice
        os.close(reader)
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
        _remove(tmp)


def _services() -> t.Set[bytes]:
    """The sockets of this network that have a path: another network does not keep them away."""
    with open("/proc/self/net/unix", "rb") as file:
        return {fields[7] for fields in (line.rstrip(b"\n").split(None, 7) for line in file) if len(fields) == 8 and fields[7].startswith(b"/")}


def _remove(tmp: str) -> None:
    """Space for the next; what cannot be removed goes with the room."""
    room = open_directory(os.path.dirname(tmp), follow=True)
    try:
        with tolerated(VoltError, OSError):
            Remover(None).remove(room, os.fsencode(os.path.basename(tmp)), b"")
    finally:
        os.close(room)


def _hear(reader: int, patience: float, room: str) -> str:
    """What the process says until it ends, or why it must end."""
    said, deadline = b"", time.monotonic() + patience
    while len(said) < _SAID:
        disk = os.statvfs(room)
        if disk.f_bavail * disk.f_frsize < LEAST:
            return f"less than {LEAST} bytes were left in {show(os.fsencode(room))}, and it was ended"
        if time.monotonic() > deadline:
            return f"it was not done after {patience:.0f} seconds, and was ended"
        if not select.select([reader], [], [], _LOOK)[0]:
            continue
        more = os.read(reader, _SAID)
        if not more:
            break
        said += more
    if said[:1] == _NONE:
        raise NoSandbox(f"it needs a sandbox, and this host allows none ({said[1:].decode()})")
    if said[-1:] != b"\0":
        return brief(said.decode("utf-8", "replace"), 400) or "it was ended from outside"
    return brief(said[:-1].decode("utf-8", "replace"), 400)


def _guardian(parent: int, writer: int, first: t.Callable[[], None]) -> None:
    """The process between: it starts the first process of the new namespaces, and ends it when it is told to, or when our own process has ended."""
    status = 1
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        gc.freeze()  # a file that our parent no longer needs must not be closed by its number, which is another's by then
        files.close_all_but(writer)  # no lock and no pipe of ours
        os.setsid()
        kernel.end_with_parent(parent)
        try:
            kernel.isolate()
            inside = os.fork()
        except OSError as error:
            os.write(writer, _NONE + reason(error).encode())
            return
        if not inside:
            _inside(writer, first)
        signal.signal(signal.SIGTERM, lambda *_: os.kill(inside, signal.SIGKILL))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        os.close(writer)
        os.waitpid(inside, 0)  # its last: the kernel has ended all others by then
        status = 0
    finally:
        os._exit(status)


def _inside(writer: int, first: t.Callable[[], None]) -> None:
    try:
        kernel.end_with_parent(0, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        why = ""
        try:
            first()
        except NoSandbox as error:
            os.write(writer, _NONE + str(error).encode("utf-8", "replace")[: _SAID - 1])
            return
        except Failed as error:
            why = str(error)
        except OSError as error:
            why = f"{error.filename or 'a system call'}: {reason(error)}"
        except Exception as error:  # a bug must not look like a proof
            why = f"{type(error).__name__}: {error}"
        os.write(writer, why.encode("utf-8", "replace")[: _SAID - 1] + b"\0")
    finally:
        os._exit(0)


def _first(room: str, tmp: str, work: t.Callable[[], None], nested: bool, services: t.Iterable[bytes]) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.umask(0o022)
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
        _furnish(os.path.join(room, "tree"), tmp, services, nested)
    except OSError as error:
        raise NoSandbox(f"{error.filename}: {reason(error)}" if error.filename else reason(error)) from None
    if not nested:
        kernel.drop_capabilities(CAPABILITIES)
    os.chdir(TREE)
    work()


def _furnish(top: str, space: str, services: t.Iterable[bytes], nested: bool) -> None:
    """Mount what is to be seen: the tree, and a place for /tmp."""
    tree, tmp = open_directory(top, follow=True), open_directory(space, follow=True)
    kernel.mount_tmpfs(b"/run")
    os.chmod("/run", 0o755)
    os.mkdir(TREE)
    own = [os.fsencode(TREE), b"/tmp", *([b"/var/tmp"] if os.path.isdir("/var/tmp") else [])]
    for target, shown in zip(own, (tree, tmp, tmp)):
        kernel.bind(b"/proc/self/fd/%d" % shown, os.path.realpath(target))
    kernel.forbid_devices(own[0])
    os.close(tree)
    os.close(tmp)
    _protect_all_but([b"/run", *map(os.path.realpath, own)], ("autofs", *(_CGROUPS if nested else ())))
    _dev()
    kernel.mount_proc(b"/proc")
    if not nested:
        kernel.make_read_only(b"/proc")  # also what is of the whole host: sys, sysrq-trigger, scsi
    for path in map(os.path.realpath, services):
        if stat.S_ISSOCK(_mode(path)) and not any(is_within(path, top) for top in own):
            kernel.bind(b"/dev/null", path)


def _protect_all_but(own: t.Sequence[bytes], kinds: t.Sequence[str]) -> None:
    """Make every mount read-only, but our own and those of some types. Those of other hosts go: they may not answer."""
    for mount in mounts():
        if mount.point in own:
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # hidden by another mount
            if mount.is_remote and mount.point != b"/":
                _away(mount.point)
            elif mount.kind not in kinds:
                try:
                    kernel.make_read_only(mount.point)
                except OSError as error:
                    if error.errno != errno.EINVAL:  # hidden, too
                        raise
    for mount in mounts():
        if mount.kind not in kinds and not any(is_within(mount.point, path) for path in own):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if not os.statvfs(mount.point).f_flag & os.ST_RDONLY:
                    raise NoSandbox(f"{show(mount.point)} cannot be made read-only")


def _away(point: bytes) -> None:
    try:
        kernel.unmount(point)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _dev() -> None:
    """A /dev without hardware."""
    kept = {name: os.open(f"/dev/{name}", os.O_PATH) for name in _DEVICES if stat.S_ISCHR(_mode(f"/dev/{name}"))}
    kernel.mount_tmpfs(b"/dev")
    os.chmod("/dev", 0o755)
    for name, fd in kept.items():
        os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_WRONLY, 0o666))
        kernel.bind(b"/proc/self/fd/%d" % fd, os.fsencode(f"/dev/{name}"))
        os.close(fd)
    os.mkdir("/dev/shm")
    os.chmod("/dev/shm", 0o1777)
    for name, leads in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(leads, f"/dev/{name}")


def _mode(path: t.Union[str, bytes]) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0
