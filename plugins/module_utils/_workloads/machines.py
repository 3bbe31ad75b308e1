# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Finders of whole machines: of systemd-nspawn, and of Volt."""

from __future__ import annotations

import os
import re
import typing as t

from .._base import show
from . import labels, libvirt
from .candidate import CONTAINER, Candidate, Search
from .disk import LEADS_NOWHERE, Disk, Unfit

MACHINES = "/var/lib/machines"
CONTAINERS = "/var/lib/volt/containers"
VMS = "/var/lib/volt/vms"
#: Where settings may grant access to the host's files; those beside an image may not, so they tell nothing.
SETTINGS = ("/etc/systemd/nspawn", "/run/systemd/nspawn")

MODES = (CONTAINER, "hybrid-native", "hybrid-kvm", "hybrid-emulated")
_MODE = re.compile(rf"(?<![\w-])[\"']?(?:workload_)?mode[\"']?\s*[:=]\s*[\"']?({'|'.join(MODES)})(?![\w-])")
_SAYS_MODE = (".json", ".yaml", ".yml", ".toml", ".conf")
_BIND = re.compile(r"^Bind=-?(/[^:\n]*)", re.MULTILINE)


def nspawn(search: Search) -> t.Iterator[Candidate]:
    """A directory or a disk image of each machine, or a symbolic link to one. Names with a dot in front are systemd's own.

    An image is named like its file, including .raw, so an image and a directory beside it do not get the same name.
    """
    disk = search.disk
    place, names = disk.names(MACHINES)
    found = set()
    for name in names:
        path = f"{place}/{name}"
        if name.startswith(".") or name.endswith(".nspawn"):
            continue
        try:
            is_directory = disk.is_directory(disk.reach(path))
        except FileNotFoundError:
            if os.path.islink(disk.real(path)):
                disk.leave(path, LEADS_NOWHERE)
            continue  # or deleted meanwhile
        except (OSError, Unfit) as error:
            disk.leave(path, error)
            continue
        if is_directory or name.endswith(".raw"):
            machine = name if is_directory else name[:-4]
            found.add(machine)
            config, binds = settings(disk, machine)
            yield Candidate("nspawn", name, CONTAINER, path, config=config, binds=binds, is_image=not is_directory)
    known = found | set(disk.names(CONTAINERS)[1])
    for place in SETTINGS:
        where, names = disk.names(place)
        for name in names:
            if name.endswith(".nspawn") and not name.startswith(".") and name[:-7] not in known:
                disk.leave(f"{where}/{name}", f"its machine is not in {MACHINES}, so its directory is unknown", trouble=False)


def settings(disk: Disk, machine: str) -> t.Tuple[t.Optional[str], t.List[str]]:
    """A machine's settings file, and the host's paths that it may write through them."""
    for place in SETTINGS:
        path = f"{place}/{machine}.nspawn"
        if os.path.lexists(disk.real(path)):
            return path, sorted({show(source) for source in _BIND.findall(disk.text(path))})
    return None, []


def volt_containers(search: Search) -> t.Iterator[Candidate]:
    """<name>/rootfs. Files beside it may set the mode hybrid."""
    disk = search.disk
    place, names = disk.names(CONTAINERS)
    for name in names:
        if name.startswith("."):
            continue
        path = f"{place}/{name}/rootfs"
        if not os.path.lexists(disk.real(path)):
            disk.leave(f"{place}/{name}", "it has no rootfs", trouble=False)
            continue
        config, binds = settings(disk, name)
        yield Candidate("volt", name, mode(disk, f"{place}/{name}", CONTAINER), path, config=config, binds=binds)


def volt_vms(search: Search) -> t.Iterator[Candidate]:
    """<name>, with the disk images in it. libvirt's domains of these have labels."""
    disk = search.disk
    place, names = disk.names(VMS)
    domains = libvirt.described(disk) if names else []
    for name in names:
        path = f"{place}/{name}"
        if name.startswith("."):
            continue
        wish = labels.agreed(libvirt.wishes(disk, domains, path))
        if wish.out:
            disk.leave(path, labels.OUT_OF_DOMAINS, trouble=False)
        else:
            yield Candidate("vm", name, mode(disk, path, "hybrid-kvm"), path, has_images=True, quiesce=wish.quiesce)


def mode(disk: Disk, path: str, default: str) -> str:
    """The mode in the files that describe a machine; the default if they have none, or different ones."""
    said = set()
    place, names = disk.names(path)
    for name in names:
        if name.endswith(_SAYS_MODE):
            said |= set(_MODE.findall(disk.text(f"{place}/{name}")))
    if len(said) > 1:
        disk.miss(path, f"has files of different modes ({', '.join(sorted(said))}); {default} was chosen")
    return said.pop() if len(said) == 1 else default
