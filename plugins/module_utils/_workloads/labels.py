# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What the labels of containers of Docker and Podman, and of libvirt's domains (`libvirt`), say about their backups.

A container also has the labels of its image. Only those count that its image does not have with the same value: these were set when the container was
created. Where the image's own labels are unknown, none counts.
"""

from __future__ import annotations

import re
import typing as t

from .._base import brief, show
from .disk import Disk, inner

_BACKUP = "volt.backup"
_QUIESCE = f"{_BACKUP}.quiesce"
#: What a label can say; the first ones of quiesce have priority where containers of one workload differ.
_VALUES = {_BACKUP: ("false", "true"), _QUIESCE: ("stop", "pause", "none")}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


class Wish(t.NamedTuple):
    """What a container or domain, or all of a workload, want. `out`: no backup. `quiesce`: as the option."""

    out: bool = False
    quiesce: t.Optional[str] = None


def of_image(disk: Disk, root: str, image: t.Any) -> t.Optional[t.Dict[str, t.Any]]:
    """The labels of an image; None if no file has them. :param root: Docker's directory. :param image: its id in the description of a container."""
    place, drivers = disk.names(f"{root}/image") if isinstance(image, str) and DIGEST.match(image) else ("", [])
    for driver in drivers:
        described = disk.table(f"{place}/{driver}/imagedb/content/sha256/{image[7:]}")
        if described:
            labels = inner(described, "config", "Labels")
            return labels if isinstance(labels, dict) else {}
    return None


def of_docker(disk: Disk, root: str, container: t.Dict[str, t.Any]) -> Wish:
    """What the labels of a container say, which Docker describes so. :param root: Docker's directory."""
    return wish(disk, f"{root}/containers/{container.get('ID')}", container, lambda: of_image(disk, root, container.get("Image")))


def wish(disk: Disk, place: str, container: t.Dict[str, t.Any], labels_of_image: t.Callable[[], t.Optional[t.Dict[str, t.Any]]]) -> Wish:
    """What the labels of a container say. :param place: how warnings name it. :param labels_of_image: None where they are unknown."""
    labels = inner(container, "Config", "Labels")
    said = {name: labels[name] for name in _VALUES if name in labels} if isinstance(labels, dict) else {}
    if not said:
        return Wish()
    own = labels_of_image()
    if own is None:
        disk.warn(place, f"has the label {min(said)}, which may come from its image, whose labels are unknown; it does not count")
        return Wish()
    return checked(disk, place, {name: value for name, value in said.items() if own.get(name) != value})


def checked(disk: Disk, place: str, labels: t.Mapping[str, t.Any]) -> Wish:
    """What labels say that count, as far as they can be meant. :param place: what has them."""
    said = {name: labels[name] for name in _VALUES if name in labels}
    for name, value in list(said.items()):
        if value not in _VALUES[name]:
            disk.warn(place, f"has the label {name}={brief(show(str(value)))}, which must be one of {', '.join(_VALUES[name])}; it does not count")
            del said[name]
    return Wish(said.get(_BACKUP) == "false", said.get(_QUIESCE))


def agreed(wishes: t.Sequence[Wish]) -> Wish:
    """What the containers or domains of one workload want together: no backup only if none of them needs one."""
    asked = [one.quiesce for one in wishes]
    return Wish(bool(wishes) and all(one.out for one in wishes), next((way for way in _VALUES[_QUIESCE] if way in asked), None))


#: Why such a workload is left out.
OUT = f"its containers have the label {_BACKUP}=false"
OUT_OF_DOMAINS = f"its domains have the label {_BACKUP}=false"
