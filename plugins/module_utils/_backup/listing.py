# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What is in a backup: its entries, all of them or those of one directory, and the entry at a path."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import typing as t

from .._base import Damaged, NotFound, parse, show
from .._format import walk
from .._format.tree import DIRECTORY, Entry
from .._restore.compare import Selection
from .origin import Origin
from .records import Manifest

_KINDS = {"f": "file", "F": "file", "d": "directory", "l": "symlink", "p": "fifo", "s": "socket", "c": "character", "b": "block"}


class Place(t.NamedTuple):
    """An entry of a backup, and where it is: a path relative to the source, empty for the source itself."""

    path: bytes
    entry: Entry


def inside(load: walk.Load, manifest: t.Callable[[], Manifest], source: str, path: bytes) -> bytes:
    """A path of a backup, which may be given with the source in front of it. What the backup has under that very name counts first."""
    below = os.path.relpath(b"/" + path.lstrip(b"/"), parse(source)) if path and b".." not in path.split(b"/") else b".."
    if below.partition(b"/")[0] == b"..":
        return path
    with contextlib.suppress(Damaged):
        if walk.find(load, manifest().root, Selection.clean(path)) is not None:
            return path
    return below


def place(origin: Origin, text: t.Optional[str]) -> Place:
    """What is at a path, which may have the source in front of it. NotFound where the backup has no such path.

    :param text: as `show` prints paths; None for the source itself.
    """
    root = origin.manifest().root
    if text is None:
        return Place(b"", root)
    path = Selection.clean(inside(origin.load, origin.manifest, origin.sidecar["source_path"], parse(text)))
    entry = walk.find(origin.load, root, path)
    if entry is None:
        raise NotFound(f"Backup {origin.sidecar['id']} has no path {show(path)}; list its contents.", path=show(path))
    return Place(path, entry)


def listed(origin: Origin, text: t.Optional[str], recursive: bool) -> t.Dict[str, t.Any]:
    """What is in a directory of a backup, or below it; of a path that is no directory, that itself. :param text: as of `place`."""
    path, entry = place(origin, text)
    if entry.kind != DIRECTORY:
        found: t.Iterable[t.Tuple[bytes, Entry]] = [(path, entry)]
    elif recursive:
        found = itertools.islice(walk.walk(origin.load, entry, path), 1, None)
    else:
        found = [(walk.join(path, child.name), child) for child in origin.load(entry.content)]
    manifest = origin.manifest()
    entries = [describe(here, item, manifest) for here, item in found]
    return {"backup_id": origin.sidecar["id"], "path": show(path) or ".", "entries": entries, "count": len(entries)}


def contents(manifest: Manifest, load: walk.Load, limit: t.Optional[int]) -> t.Dict[str, t.Any]:
    """What is in a backup: at most `limit` entries (None: all) in walk order, and how many more there are."""
    total = 1 + sum(manifest.totals[key] for key in ("files", "directories", "symlinks", "others"))
    entries = [describe(path, item, manifest) for path, item in itertools.islice(walk.walk(load, manifest.root), limit)]
    return {"entries": entries, "count": total, "more": total - len(entries)}


def describe(path: bytes, item: Entry, manifest: Manifest) -> t.Dict[str, t.Any]:
    """An entry for JSON."""
    return {
        "path": show(path) or ".",
        "type": kind(item),
        "mode": f"{item.mode:04o}",
        "uid": item.uid,
        "gid": item.gid,
        "user": manifest.users.get(item.uid),
        "group": manifest.groups.get(item.gid),
        "size": item.size,
        "mtime": moment(item),
        "target": show(item.extra.target) if item.extra.target else None,
        "xattrs": [show(name) for name, _value in item.extra.xattrs],
    }


def kind(item: Entry) -> str:
    """The type of an entry, in a word."""
    return _KINDS[chr(item.kind)]


def moment(item: Entry) -> str:
    """The modification time as text: a year that datetime does not know is given in seconds."""
    try:
        at = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=item.seconds)
        return f"{at:%Y-%m-%dT%H:%M:%S}.{item.nanos:09d}Z"
    except OverflowError:
        return f"@{item.seconds}.{item.nanos:09d}"
