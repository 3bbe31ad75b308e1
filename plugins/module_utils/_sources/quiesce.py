# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Containers that use a source, paused or stopped while it is read, or for the moment of its snapshot.

::

    wait for other runs that keep containers still
    ask Docker and Podman which running containers have something of the source mounted, or lie in it
    write down which ones, so that they can be resumed if this process is killed
    pause or stop each; if one fails, resume those before it, and the run fails
    resume all, whatever happened in between; forget what was written down

A container that is paused already is left alone. What a killed run left paused is resumed by its unit at once, else by the next run. Which container
uses a source is told by the mounts that the runtime made, not by labels, which an image can bring. In a unit of systemd, the programs run in a
transient service, outside of the unit's hardening: Podman writes to many places. Sources: docker-pause(1), podman-pause(1), systemd-run(1).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import threading
import time
import typing as t

from .._base import SourceError, create_file, files, held, lock_file, open_file, process, reason

#: Where it is written down what is to be resumed, and how the names of these files begin. It does not outlast the host, as a pause does not.
_PLACE, _PREFIX = "/run/volt", "quiesced-"
_RUNTIMES = ("docker", "podman")
_SOCKET = "/var/run/docker.sock"
_UP = {"pause": "unpause", "stop": "start"}
#: Seconds that a program may take, and for which containers may be kept still.
_PATIENCE, LONGEST = 300.0, 3600.0
_MOST = 1 << 20


class Container(t.NamedTuple):
    """A running container: its runtime, id and name. `passing`: its runtime removes it once it stops."""

    runtime: str
    id: str
    name: str
    passing: bool = False


class Quiesced:
    """Containers that are kept still, one after the other.

    :param mounts: a descriptor of the mount namespace to resume them in: what is started must not live in mounts of a run.
    :ivar failed: why some did not resume.
    """

    def __init__(self, way: str, mounts: int) -> None:
        self._way, self._mounts = way, mounts
        self.failed: t.List[str] = []
        self._down: t.List[Container] = []
        self._lock = threading.Lock()
        self._late = ""
        self._timer = threading.Timer(LONGEST, self._end)
        self._timer.daemon = True

    def keep(self, container: Container) -> None:
        """SourceError if it goes on running."""
        if self._way == "stop" and container.passing:
            raise SourceError(f"Container {container.name} would be removed by {container.runtime} when it stops; set `quiesce: pause`.")
        if not self._down:
            self._timer.start()
        self._down.insert(0, container)  # before: a signal may come while it is under way
        why = _attempt(container, self._way)
        if why:
            raise SourceError(f"Container {container.name} cannot be kept still: {why}; correct that, or set `quiesce: none`.")

    def resume(self) -> None:
        """Resume all that are kept still. SourceError if one does not, or if it took so long that they were resumed before."""
        self._timer.cancel()
        self._up()
        if self.failed:
            raise SourceError(self.failed[0])
        if self._late:
            raise SourceError(f"Container {self._late} was kept still for {LONGEST:.0f} seconds, which is the limit; set `snapshot`.")

    def _end(self) -> None:
        self._late = self._down[-1].name if self._down else ""
        self._up()

    def _up(self) -> None:
        """Resume what is still down. The timer's thread may do the same."""
        with self._lock:
            while self._down:
                container = self._down[0]
                why = _attempt(container, _UP[self._way], self._mounts)
                del self._down[0]
                if why:
                    self.failed.append(f"Container {container.name} does not resume: {why}; run {container.runtime} {_UP[self._way]} {container.name}.")


@contextlib.contextmanager
def quiesced(way: str, source: bytes) -> t.Iterator[t.Tuple[Quiesced, t.List[Container]]]:
    """Keep the containers still that use a source. SourceError where one cannot be, or does not resume. :param source: a real path."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_turn())
        resume_left()
        containers = using(source)
        if not containers:
            stack.close()  # others need not wait
            yield Quiesced(way, -1), []
            return
        mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, mounts)
        still = Quiesced(way, mounts)
        done = stack.enter_context(_noted(way, containers))
        try:
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
    path = os.path.join(_PLACE if os.path.isdir(_PLACE) else "/run", "quiesce.lock")
    fd = lock_file(path, fcntl.LOCK_EX, time.monotonic() + LONGEST, "a backup that keeps containers still")
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)


def using(source: bytes) -> t.List[Container]:
    """Running containers that can write to a directory of the source, or to one above it, or whose root lies in it; not those that are paused."""
    found: t.List[Container] = []
    for runtime in filter(_is_used, _RUNTIMES):
        ids = _ask([runtime, "ps", "--quiet", "--no-trunc"]).split()
        for told in json.loads(_ask([runtime, "inspect", "--type", "container", *ids])) if ids else ():
            state = told.get("State") or {}
            if state.get("Paused") or str(state.get("Status")).lower() not in ("running", "up"):
                continue
            layers = (told.get("GraphDriver") or {}).get("Data") or {}
            paths = [mount.get("Source") for mount in told.get("Mounts") or () if mount.get("RW")] + [layers.get("MergedDir"), layers.get("UpperDir")]
            known = any(container.id == told["Id"] for container in found)  # docker may be another name of podman
            if not known and any(_meet(os.path.realpath(os.fsencode(path)), source) for path in paths if path):
                passing = bool((told.get("HostConfig") or {}).get("AutoRemove"))
                found.append(Container(runtime, told["Id"], str(told["Name"]).lstrip("/"), passing))
    return found


def _is_used(runtime: str) -> bool:
    """Whether a runtime is here. Docker's command may be installed without its daemon, which has a socket."""
    daemon = runtime != "docker" or "DOCKER_HOST" in os.environ or os.path.lexists(_SOCKET)
    return daemon and shutil.which(runtime) is not None


def _meet(path: bytes, source: bytes) -> bool:
    return path == source or path.startswith(source.rstrip(b"/") + b"/") or source.startswith(path.rstrip(b"/") + b"/")


def resume_left() -> None:
    """Resume what runs kept still that were killed. What does not resume stays noted, for the next time."""
    for place in (_PLACE, "/run"):
        for path in (os.path.join(place, name) for name in files.names_in(place) if name.startswith(_PREFIX)):
            _resume_noted(path)


def _resume_noted(path: str) -> None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, SourceError):
        fd = open_file(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # or its run lives
            noted = json.loads(files.read_file(path, _MOST))
            if noted["where"] != _where():
                return  # other containers, which this process does not see
            containers = [Container(*item) for item in noted["containers"]]
            left = [container for container in containers if _is_down(container) and _attempt(container, _UP[noted["way"]])]
            if not left:
                os.unlink(path)
        finally:
            os.close(fd)


def _where() -> t.List[str]:
    """What in our environment tells the programs which containers there are."""
    return [os.environ.get(name, "") for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINERS_STORAGE_CONF", "CONTAINER_HOST")]


def _is_down(container: Container) -> bool:
    """Whether a container is there and does not run. SourceError where its runtime does not answer."""
    if container.id not in _ask([container.runtime, "ps", "--all", "--quiet", "--no-trunc"]).split():
        return False
    state = json.loads(_ask([container.runtime, "inspect", "--type", "container", container.id]))[0]["State"]
    return bool(state.get("Paused")) or not state.get("Running")


@contextlib.contextmanager
def _noted(way: str, containers: t.Sequence[Container]) -> t.Iterator[t.Callable[[], None]]:
    """Written down until what is yielded is called: all are resumed. Locked for as long as the context lasts, so at most as long as this process."""
    place = _PLACE if os.path.isdir(_PLACE) else "/run"
    path = os.path.join(place, f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}")
    beside = os.path.join(place, f".{os.path.basename(path)}")
    try:
        fd = create_file(beside)
    except OSError as error:
        raise SourceError(f"{beside} cannot be written: {reason(error)}; run as root.") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        files.write_all(fd, json.dumps({"way": way, "where": _where(), "containers": containers}).encode())
        os.rename(beside, path)  # locked, so that no other run takes it for one of a dead process
        yield lambda: os.unlink(path)
    finally:
        os.close(fd)


def _ask(words: t.Sequence[str]) -> str:
    try:
        done = process.run([*_apart(), *words], patience=_PATIENCE, capture=True)
    except (OSError, subprocess.TimeoutExpired):
        raise SourceError(f"{words[0]} did not answer; start it, or set `quiesce: none`.") from None
    if done.status:
        raise SourceError(f"{words[0]} did not answer ({_last(done)}); start it, or set `quiesce: none`.")
    return done.output


def _attempt(container: Container, word: str, mounts: int = -1) -> str:
    """Why something could not be done with a container; empty where it could. :param mounts: a descriptor of the namespace to do it in; -1 for ours."""
    within = _apart()
    if not within and mounts >= 0 and shutil.which("nsenter"):
        within = ["nsenter", f"--mount=/proc/{os.getpid()}/fd/{mounts}", "--"]
    try:
        done = process.run([*within, container.runtime, word, container.id], patience=_PATIENCE, capture=True)
    except subprocess.TimeoutExpired:
        return f"{container.runtime} {word} did not end in {_PATIENCE:.0f} seconds"
    except OSError as error:
        return reason(error)
    return _last(done) if done.status else ""


def _last(done: process.Ended) -> str:
    return done.errors.strip().rpartition("\n")[2] or done.how


def _apart() -> t.List[str]:
    """In a unit of systemd: what starts a program outside of it."""
    within = "INVOCATION_ID" in os.environ and os.geteuid() == 0 and os.path.isdir("/run/systemd/system") and shutil.which("systemd-run")
    return ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--"] if within else []
