# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Domains of libvirt: which running ones write to disk images of a source, and how they are frozen, suspended, shut down and started.

::

    a guest agent is connected     pause  freezes the file systems of the guest (virsh domfsfreeze): they are clean, and the guest runs on
    there is none                  pause  stops the processors of the guest (virsh suspend): its disks are as after a power cut; a warning says so
                                   stop   shuts the guest down, and starts it again; one that does not shut down is never destroyed

An agent counts as connected if libvirt says so of its channel. QEMU writes what it has cached of an image when it stops the processors, and when the guest
flushes its disk, as it does before it freezes (shown by the tests: the image is read without QEMU). Backing files of an image change only while
a block job merges layers. That goes on in a frozen domain, so there is no backup meanwhile.

An operation can outlast the program that asked for it. A freeze that did not end in time may still freeze the guest, and a guest that was asked to shut
down may do so later. So a domain counts as kept still until it has thawed or started, or runs anew: libvirt numbers the runs of its domains.

Only what virsh prints for programs is read, because the rest of it is translated. Sources: virsh(1), formatdomain of libvirt, qemu-ga-ref(7).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
import typing as t
from xml.etree import ElementTree

from .._base import SourceError
from .._fs.mounts import mounts, place_of
from . import runtimes
from .machines import plain, read_spots
from .runtimes import LIBVIRT, Container, meet

_VIRSH = ("virsh", "--connect", "qemu:///system")
#: Of libvirt's daemon, or of that for QEMU alone.
_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
_AGENT = "org.qemu.guest_agent.0"
_WORDS = {"freeze": "domfsfreeze", "thaw": "domfsthaw", "pause": "suspend", "unpause": "resume", "stop": "shutdown", "start": "start"}
#: What the agent says if another program has frozen the guest.
_FROZEN = "in frozen state"
#: Seconds that a domain may take to shut down; and that one may take more which did not in time, or whose run was killed.
SHUTDOWN, LATER = 300.0, 60.0
#: Seconds in which one may end whose shutdown is said to have failed: that is said if the agent ends with its guest before it has answered (measured).
AFTER_ALL = 10.0


class Refused(SourceError):
    """Nothing was done to the domain, so there is nothing to undo."""


def using(source: bytes, way: str) -> t.List[Container]:
    """Running domains that can write to a file of the source; not those that are suspended. SourceError if one cannot be kept still in this way."""
    if not (shutil.which("virsh") and any(map(os.path.lexists, _SOCKETS))):
        return []
    running = _listed("--state-running")
    seen = mounts() if running else []
    read = read_spots(source, seen)

    def lies_in(path: str) -> bool:
        device, inner = place_of(os.path.realpath(os.fsencode(path)), seen)
        return any(device == other[0] and meet(plain(inner), other[1]) for other in read)

    found = []
    for uuid in running:
        top = _described(uuid)
        if top is None or not _writes(uuid, top, lies_in):
            continue
        passing = uuid in _listed("--all", "--transient")
        agent = way == "pause" and top.find(f"devices/channel/target[@name='{_AGENT}'][@state='connected']") is not None
        found.append(Container(LIBVIRT, uuid, top.findtext("name", uuid), passing, top.get("id", ""), agent))
    return found


def keep(domain: Container, way: str) -> str:
    """Why a domain could not be paused or stopped, but may be later on; empty where it is. Refused if it will not be."""
    word = "freeze" if domain.agent else way
    try:
        why = _try(word, domain)
    except subprocess.TimeoutExpired:
        return f"virsh {_WORDS[word]} did not end in {runtimes.PATIENCE:.0f} seconds"
    if why and way == "pause" and _FROZEN not in why and is_down(domain, way):
        return why  # it is done, or will be: an answer was lost, the agent has ended, or it has a limit of time (virsh guest-agent-timeout)
    if why and not (way == "stop" and _is_off_in(domain, AFTER_ALL)):
        why = "another program has frozen it" if _FROZEN in why else why
        raise Refused(f"{domain.what} cannot be kept still: {why}; correct that, or set `quiesce: none`.")
    return "" if way == "pause" or _is_off_in(domain, SHUTDOWN) else f"it has not shut down in {SHUTDOWN:.0f} seconds"


def resume(domain: Container, word: str) -> str:
    """Why a domain does not go on; empty where it does. :param word: unpause or start."""
    try:
        if word == "start" and not _is_off_in(domain, LATER):
            return "it was asked to shut down, and still runs"
        why = _try("thaw" if domain.agent else word, domain)
        return why if why and is_down(domain, "pause" if word == "unpause" else "stop") else ""
    except subprocess.TimeoutExpired:
        return f"virsh did not end in {runtimes.PATIENCE:.0f} seconds"
    except SourceError as error:
        return error.message


def is_down(domain: Container, way: str) -> bool:
    """Whether a domain waits, or may do so yet. SourceError where libvirt does not answer."""
    if way == "pause" and not domain.agent:
        return domain.id in _listed("--state-paused")
    if _is_same_run(domain):
        return True
    # One that is being started is active, but its state is still "shut off".
    return way == "stop" and domain.id not in _listed() and domain.id in _listed("--all")


def remedy(domain: Container, word: str) -> str:
    """What a user runs to resume a domain."""
    name = domain.name if domain.name[:1].isalpha() else domain.id  # others could be numbers of runs, or options
    words = shlex.join([*_VIRSH, _WORDS["thaw" if domain.agent else word], name])
    return f"{words} once it is shut off" if word == "start" else words


def _writes(uuid: str, top: ElementTree.Element, lies_in: t.Callable[[str], bool]) -> bool:
    """Whether a domain writes to a file of the source: a disk image, also one that it is being copied to, or the variables of its firmware."""
    found = any(lies_in(text) for text in (top.findtext("os/nvram") or "", *_sources(top.find("os/nvram"))) if text.startswith("/"))
    for disk in top.iterfind("devices/disk"):
        files = list(_sources(disk))
        layers = [path for layer in disk.iter("backingStore") for path in _sources(layer)]
        target = disk.find("target")
        if disk.find("readonly") is None:
            found = any(map(lies_in, [*files, *_sources(disk.find("mirror"))])) or found
        if layers and target is not None and any(map(lies_in, files + layers)) and _ask("blockjob", uuid, target.get("dev", ""), "--raw").strip():
            name, image = top.findtext("name", uuid), files[0] if files else target.get("dev")
            raise SourceError(f"Domain {name} has a block job that merges layers of {image}; run the backup when it has ended.")
    return found


def _sources(element: t.Optional[ElementTree.Element]) -> t.Iterator[str]:
    """The file that an element says it has its data in."""
    source = None if element is None else element.find("source")
    if source is not None and source.get("file"):
        yield source.get("file", "")
    elif source is not None and source.get("pool") and source.get("volume"):
        yield _ask("vol-path", "--pool", source.get("pool", ""), "--vol", source.get("volume", "")).strip()


def _described(uuid: str) -> t.Optional[ElementTree.Element]:
    """How libvirt describes a domain that runs; None if it has ended."""
    try:
        return ElementTree.fromstring(_ask("dumpxml", uuid))
    except ElementTree.ParseError as error:
        raise SourceError(f"virsh describes domain {uuid} in XML that cannot be read ({error}); update libvirt, or set `quiesce: none`.") from None
    except SourceError:
        if uuid in _listed("--state-running"):
            raise
        return None


def _listed(*which: str) -> t.List[str]:
    return _ask("list", "--uuid", *which).split()


def _ask(*words: str) -> str:
    return runtimes.ask([*_VIRSH, *words])


def _try(word: str, domain: Container) -> str:
    """Why virsh could not do something; empty where it could. subprocess.TimeoutExpired if it does not end."""
    return runtimes.tried([*_VIRSH, _WORDS[word], domain.id])


def _is_same_run(domain: Container) -> bool:
    """Whether a domain has not ended since it was found."""
    return domain.id in _listed() and _ask("domid", domain.id).strip() == domain.group


def _is_off_in(domain: Container, patience: float) -> bool:
    """Whether a run of a domain ends in some seconds."""
    deadline = time.monotonic() + patience
    while _is_same_run(domain):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
