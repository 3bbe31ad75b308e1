# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Docker and Podman: which of their containers use a source. And how programs are run that keep containers and machines still.

In a unit of systemd, the programs run in a transient service, outside of the unit's hardening: Podman writes to many places. Sources: docker-pause(1),
podman-pause(1), systemd-run(1).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import typing as t

from .._base import SourceError, process, reason
from .._fs.mounts import is_within

#: How records call the runtimes of machines.
NSPAWN, LIBVIRT = "nspawn", "libvirt"
_RUNTIMES = ("docker", "podman")
_SOCKET = "/var/run/docker.sock"
#: Seconds that a program may take.
PATIENCE = 300.0


class Container(t.NamedTuple):
    """A running container, machine or domain: its runtime, id and name. `passing`: its runtime removes it once it stops.

    Of a machine, the id is its service to be stopped, or the unit to be paused, and `group` the directory of the control group of its processes.
    Of a domain, `group` is the number of its run, and `agent` says that its guest agent freezes its file systems.
    """

    runtime: str
    id: str
    name: str
    passing: bool = False
    group: str = ""
    agent: bool = False

    @property
    def what(self) -> str:
        """As messages call it."""
        return f"{'Machine' if self.runtime == NSPAWN else 'Domain' if self.runtime == LIBVIRT else 'Container'} {self.name}"

    def how(self, way: str) -> str:
        """How it is kept still, as records call it."""
        return "freeze" if self.agent else way


def using(source: bytes) -> t.List[Container]:
    """Running containers that can write to a directory of the source, or to one above it, or whose root lies in it; not those that are paused."""
    found: t.List[Container] = []
    for runtime in filter(_is_used, _RUNTIMES):
        ids = ask([runtime, "ps", "--quiet", "--no-trunc"]).split()
        for told in json.loads(ask([runtime, "inspect", "--type", "container", *ids])) if ids else ():
            state = told.get("State") or {}
            if state.get("Paused") or str(state.get("Status")).lower() not in ("running", "up"):
                continue
            layers = (told.get("GraphDriver") or {}).get("Data") or {}
            paths = [mount.get("Source") for mount in told.get("Mounts") or () if mount.get("RW")] + [layers.get("MergedDir"), layers.get("UpperDir")]
            known = any(container.id == told["Id"] for container in found)  # docker may be another name of podman
            if not known and any(meet(os.path.realpath(os.fsencode(path)), source) for path in paths if path):
                passing = bool((told.get("HostConfig") or {}).get("AutoRemove"))
                found.append(Container(runtime, told["Id"], str(told["Name"]).lstrip("/"), passing))
    return found


def meet(one: bytes, other: bytes) -> bool:
    """Whether two normalized paths are equal, or one of them is below the other."""
    return is_within(one, other) or is_within(other, one)


def _is_used(runtime: str) -> bool:
    """Whether a runtime is here. Docker's command may be installed without its daemon, which has a socket."""
    daemon = runtime != "docker" or "DOCKER_HOST" in os.environ or os.path.lexists(_SOCKET)
    return daemon and shutil.which(runtime) is not None


def is_down(container: Container, way: str) -> bool:
    """Whether a container is there and waits. SourceError where its runtime does not answer. :param way: in which it was made to wait: pause or stop."""
    if container.id not in ask([container.runtime, "ps", "--all", "--quiet", "--no-trunc"]).split():
        return False
    state = json.loads(ask([container.runtime, "inspect", "--type", "container", container.id]))[0]["State"]
    return bool(state.get("Paused")) if way == "pause" else not state.get("Running")


def ask(words: t.Sequence[str]) -> str:
    """The output of a program. SourceError if it fails."""
    try:
        done = process.run([*process.apart(), *words], patience=PATIENCE, capture=True)
    except (OSError, subprocess.TimeoutExpired):
        raise SourceError(f"{words[0]} did not answer; start it, or set `quiesce: none`.") from None
    if done.status:
        raise SourceError(f"{words[0]} did not answer ({_last(done)}); start it, or set `quiesce: none`.")
    return done.output


def attempt(words: t.Sequence[str], mounts: int = -1, stdin: bytes = b"") -> str:
    """Run a program; why it failed, empty where it did not. :param mounts: a descriptor of the namespace to run it in; -1 for ours."""
    try:
        return tried(words, mounts, stdin)
    except subprocess.TimeoutExpired:
        return f"{' '.join(words[:2])} did not end in {PATIENCE:.0f} seconds"


def tried(words: t.Sequence[str], mounts: int = -1, stdin: bytes = b"") -> str:
    """As `attempt`. subprocess.TimeoutExpired if the program does not end."""
    within = process.apart()
    if not within and mounts >= 0 and shutil.which("nsenter"):
        within = ["nsenter", f"--mount=/proc/{os.getpid()}/fd/{mounts}", "--"]
    try:
        done = process.run([*within, *words], stdin=stdin, patience=PATIENCE, capture=True)
    except OSError as error:
        return reason(error)
    return _last(done) if done.status else ""


def _last(done: process.Ended) -> str:
    return done.errors.strip().rpartition("\n")[2] or done.how
