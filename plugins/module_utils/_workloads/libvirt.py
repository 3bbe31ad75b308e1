# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What libvirt's domains say about the backups of the directories that their disk images lie in.

libvirt keeps a file of each domain that it has defined. A program's own data is in its `metadata`, one element for each namespace: ours has the labels
as attributes. Source: formatdomain of libvirt, "General metadata".
"""

from __future__ import annotations

import os
import typing as t
from xml.etree import ElementTree

from .disk import Disk, Unfit
from .labels import Wish, checked

DOMAINS = "/etc/libvirt/qemu"
#: The namespace of our element, see docs/databases.md.
NAMESPACE = "urn:volt:backup"


class Described(t.NamedTuple):
    """A domain: the file that describes it, those of its disks, without symbolic links, and its labels."""

    config: str
    images: t.List[str]
    labels: t.Dict[str, str]


def described(disk: Disk) -> t.List[Described]:
    """The domains of a host, by the names of their files."""
    place, names = disk.names(DOMAINS)
    found = []
    for name in names:
        text = disk.text(f"{place}/{name}") if name.endswith(".xml") else ""
        if not text:
            continue
        try:
            top = ElementTree.fromstring(text)
        except ElementTree.ParseError:
            disk.miss(f"{place}/{name}", "is not XML")
            continue
        labels = top.find(f"metadata/{{{NAMESPACE}}}labels")
        disks = [one for one in top.iterfind("devices/disk") if one.find("readonly") is None]  # not a CD that several domains may have
        files = [source.get("file", "") for one in disks for source in one.iterfind("source")]
        images = [_reached(disk, file) for file in files if file.startswith("/")]
        found.append(Described(f"{place}/{name}", images, dict(labels.attrib) if labels is not None else {}))
    return found


def wishes(disk: Disk, domains: t.Sequence[Described], directory: str) -> t.List[Wish]:
    """What the domains want that have disk images below a directory, each."""
    top = f"{_reached(disk, directory).rstrip('/')}/"
    return [checked(disk, domain.config, domain.labels) for domain in domains if any(image.startswith(top) for image in domain.images)]


def _reached(disk: Disk, path: str) -> str:
    """A path without symbolic links, as far as there is one."""
    try:
        return disk.reach(path)
    except (OSError, Unfit):
        return os.path.normpath(path)
