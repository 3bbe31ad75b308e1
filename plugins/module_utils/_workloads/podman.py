# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What Podman tells of root's containers. It has that in a database, whose kind and tables differ by its version, so the program is asked.

Nothing is asked without root, where a volume is none of this host's root, and where there is no volume.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import typing as t

from .._base import process
from . import labels
from .candidate import Search
from .disk import inner

#: Seconds that it may take to answer.
_PATIENCE = 60.0
_PROGRAM = "podman"
#: How often it is asked: a container that ends between two questions is not known any more.
_TRIES = 3


class Wishes(t.NamedTuple):
    """Of a volume: the names of the containers that have it, running or not, and what each wants."""

    names: t.List[str]
    wishes: t.List[labels.Wish]


def used(search: Search) -> t.Optional[t.Dict[str, Wishes]]:
    """By the real paths of volumes' data; None if Podman was not asked, or does not answer."""
    if not search.disk.is_this_host or os.geteuid() != 0 or shutil.which(_PROGRAM) is None:
        return None
    told = None
    for number in range(_TRIES):
        ids = _ask(search, "ps", "--all", "--quiet", "--no-trunc")
        told = None if ids is None else _inspect(search, "container", ids.split(), number + 1 == _TRIES)
        if told is not None or ids is None:
            break
    if told is None:
        return None
    found: t.Dict[str, Wishes] = {}
    images: t.Dict[str, t.Optional[t.Dict[str, t.Any]]] = {}
    for container in told:
        name, image, mounts = (container.get(key) for key in ("Name", "Image", "Mounts"))
        wish = labels.wish(search.disk, f"Podman's container {name}", container, functools.partial(_of_image, search, str(image or ""), images))
        for mount in mounts if isinstance(mounts, list) else ():
            source = inner(mount, "Source")
            if inner(mount, "Type") == "volume" and isinstance(source, str):
                of_volume = found.setdefault(os.path.realpath(source), Wishes([], []))
                of_volume.names.append(str(name))
                of_volume.wishes.append(wish)
    return found


def _of_image(search: Search, image: str, known: t.Dict[str, t.Optional[t.Dict[str, t.Any]]]) -> t.Optional[t.Dict[str, t.Any]]:
    """The labels of an image; None if they are unknown. A container of a directory has no image."""
    if not image:
        return {}
    if image not in known:
        told = _inspect(search, "image", [image])
        own = told[0].get("Labels") or {} if told else None
        known[image] = own if isinstance(own, dict) else None
    return known[image]


def _inspect(search: Search, kind: str, ids: t.Sequence[str], tells: bool = True) -> t.Optional[t.List[t.Dict[str, t.Any]]]:
    """:param tells: warn if that fails."""
    said = _ask(search, "inspect", "--type", kind, *ids, tells=tells) if ids else "[]"
    try:
        found = None if said is None else json.loads(said)
    except ValueError:
        found = None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else None


def _ask(search: Search, *words: str, tells: bool = True) -> t.Optional[str]:
    """What it says; None, with a warning, if it fails."""
    try:
        done = process.run([_PROGRAM, *words], patience=_PATIENCE, capture=True)
        why = (done.errors.strip().rpartition("\n")[2] or done.how).rstrip(".") if done.status else ""
    except subprocess.TimeoutExpired:
        why = f"no answer in {_PATIENCE:.0f} seconds"
    except (OSError, ValueError) as error:
        why = str(error)
    if why and tells:
        search.disk.warn(f"podman {words[0]}", f"failed ({why}), so labels of Podman's containers do not count")
    return None if why else done.output
