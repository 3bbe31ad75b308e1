# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Containers, machines and domains that use a source, paused or stopped while it is read, or for the moment of its snapshot.

::

    wait for other runs that keep containers still
    ask Docker and Podman which running containers have something of the source mounted, or lie in it
    look which machines of systemd-nspawn and domains of libvirt use it
    write down which ones, so that they can be resumed if this process is killed
    pause or stop each; if one fails, resume those before it, and the run fails
    resume all, whatever happened in between; forget what was written down

One that is paused already is left alone. What a killed run left paused is resumed by its unit at once, else by the next run. Which container
uses a source is told by the mounts that the runtime made, not by labels, which an image can bring.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
import typing as t

from .._base import SourceError, create_file, files, held, lock_file, open_file, process, reason
from . import domains, machines, runtimes
from .runtimes import Container

#: Where it is written down what is to be resumed, and how the names of these files begin. It does not outlast the host, as a pause does not.
_PLACE, _PREFIX = "/run/volt", "quiesced-"
_UP = {"pause": "unpause", "stop": "start"}
#: Seconds for which containers may be kept still.
LONGEST = 3600.0
#: Seconds to wait for programs of a run that was killed.
_PROGRAMS = 60.0
_MOST = 1 << 20


class Quiesced:
    """Containers that are kept still, one after the other.

    :param mounts: a descriptor of the mount namespace to resume them in: what is started must not live in mounts of a run.
    :ivar failed: why some did not resume, by the container.
    """

    def __init__(self, way: str, mounts: int) -> None:
        self._way, self._mounts = way, mounts
        self.failed: t.Dict[Container, str] = {}
        self._down: t.List[Container] = []
        self._lock = threading.Lock()
        self._late = ""
        self._timer = threading.Timer(LONGEST, self._end)
        self._timer.daemon = True

    def keep(self, container: Container) -> None:
        """SourceError if it goes on running."""
        if self._way == "stop" and container.passing:
            raise SourceError(f"{container.what} would be removed by {container.runtime} when it stops; set `quiesce: pause`.")
        if not self._down:
            self._timer.start()
        self._down.insert(0, container)  # before: a signal may come while it is under way
        try:
            why = _attempt(container, self._way)
        except domains.Refused:
            self._down.remove(container)
            raise
        if why:
            raise SourceError(f"{container.what} cannot be kept still: {why}; correct that, or set `quiesce: none`.")
        with self._lock:
            if self._late and container not in self._down:
                self._down.insert(0, container)  # the limit came meanwhile: it was resumed before it was kept still
        if self._late:
            raise self._too_long()

    def resume(self) -> None:
        """Resume all that are kept still. SourceError if one does not, or if it took so long that they were resumed before."""
        self._timer.cancel()
        self._up()
        if self.failed:
            raise SourceError(next(iter(self.failed.values()), ""))
        if self._late:
            raise self._too_long()

    def _too_long(self) -> SourceError:
        return SourceError(f"{self._late} was kept still for {LONGEST:.0f} seconds, which is the limit; set `snapshot`.")

    def _end(self) -> None:
        self._late = self._down[-1].what if self._down else ""
        self._up()

    def _up(self) -> None:
        """Resume what is still down. The timer's thread may do the same."""
        with self._lock:
            while self._down:
                container = self._down[0]
                why = _attempt(container, _UP[self._way], self._mounts)
                self._down.remove(container)  # another one may have come before it
                self.failed.pop(container, None)  # at the limit it may not have been kept still yet
                if why:
                    self.failed[container] = f"{container.what} does not resume: {why}; run {_remedy(container, _UP[self._way])}."


@contextlib.contextmanager
def quiesced(way: str, source: bytes) -> t.Iterator[t.Tuple[Quiesced, t.List[Container]]]:
    """Keep the containers still that use a source. SourceError where one cannot be, or does not resume. :param source: a real path."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_turn())
        resume_left()
        containers = [*runtimes.using(source), *machines.using(source, way), *domains.using(source, way)]
        if not containers:
            stack.close()  # others need not wait
            yield Quiesced(way, -1), []
            return
        mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, mounts)
        still = Quiesced(way, mounts)
        lock, done = stack.enter_context(_noted(way, containers))
        try:
            with process.inherited(lock):  # not while they are resumed: what is started then would hold the lock for as long as it runs
                for container in containers:
                    still.keep(container)
            yield still, containers
        finally:
            with held():
                try:
                    still.resume()
                finally:
                    if not still.failed:
                        done()


@contextlib.contextmanager
def _turn() -> t.Iterator[None]:
    """One run at a time keeps containers still: a second one would take those of the first for paused by others."""
    path = f"{_PLACE}/quiesce.lock" if os.path.isdir(_PLACE) else "/run/volt-quiesce.lock"
    fd = lock_file(path, fcntl.LOCK_EX, time.monotonic() + LONGEST, "a backup that keeps containers still")
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)


def resume_left() -> None:
    """Resume what runs kept still that were killed. What does not resume stays noted, for the next time."""
    for place in (_PLACE, "/run"):
        for path in (os.path.join(place, name) for name in files.names_in(place) if name.startswith(_PREFIX)):
            _resume_noted(path)


def _resume_noted(path: str) -> None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, SourceError):
        fd = open_file(path)
        try:
            if not _has_ended(fd, path):
                return
            noted = json.loads(files.read_file(path, _MOST))
            if noted["where"] != _where():
                return  # other containers, which this process does not see
            containers = [Container(*item) for item in noted["containers"]]
            left = [container for container in containers if _is_down(container, noted["way"]) and _attempt(container, _UP[noted["way"]])]
            if not left:
                os.unlink(path)
        finally:
            os.close(fd)


def _has_ended(fd: int, path: str) -> bool:
    """Whether the run of a note has ended, and each program that it had started: one that still pauses a container would do so after we have looked."""
    deadline = time.monotonic() + _PROGRAMS
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if os.path.lexists(f"/proc/{os.path.basename(path)[len(_PREFIX):].partition('-')[0]}"):
            return False
        if time.monotonic() > deadline:
            return True  # what holds it now was started to stay, such as a container
        time.sleep(0.02)


def _where() -> t.List[str]:
    """What in our environment tells the programs which containers there are."""
    return [os.environ.get(name, "") for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINERS_STORAGE_CONF", "CONTAINER_HOST")]


@contextlib.contextmanager
def _noted(way: str, containers: t.Sequence[Container]) -> t.Iterator[t.Tuple[int, t.Callable[[], None]]]:
    """Written down until the function that is yielded is called: all are resumed.

    Locked while the context lasts, at most as long as this process, and programs that have got the descriptor.
    """
    place = _PLACE if os.path.isdir(_PLACE) else "/run"
    path = os.path.join(place, f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}")
    beside = os.path.join(place, f".{os.path.basename(path)}")
    try:
        fd = create_file(beside)
        try:
            files.write_all(fd, json.dumps({"way": way, "where": _where(), "containers": containers}).encode())
        finally:
            os.close(fd)
        fd = open_file(beside)  # to read: programs get it, too
    except OSError as error:
        raise SourceError(f"{beside} cannot be written: {reason(error)}; run as root.") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.rename(beside, path)  # locked, so that no other run takes it for one of a dead process
        yield fd, lambda: os.unlink(path)
    finally:
        os.close(fd)


def _is_down(container: Container, way: str) -> bool:
    """Whether it is there and waits. SourceError where that cannot be known."""
    if container.runtime == runtimes.LIBVIRT:
        return domains.is_down(container, way)
    return machines.is_down(container, way) if container.runtime == runtimes.NSPAWN else runtimes.is_down(container, way)


def _attempt(container: Container, word: str, mounts: int = -1) -> str:
    """Why something could not be done with a container, machine or domain; empty where it could. :param mounts: see `runtimes.attempt`."""
    if container.runtime == runtimes.LIBVIRT:
        return domains.keep(container, word) if word in _UP else domains.resume(container, word)
    if container.runtime == runtimes.NSPAWN:
        return machines.attempt(container, word)
    return runtimes.attempt([container.runtime, word, container.id], mounts)


def _remedy(container: Container, word: str) -> str:
    """What a user runs to resume one."""
    if container.runtime == runtimes.LIBVIRT:
        return domains.remedy(container, word)
    return machines.remedy(container, word) if container.runtime == runtimes.NSPAWN else f"{container.runtime} {word} {container.name}"
