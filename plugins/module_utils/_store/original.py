# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Files of the original Volt command, which used the same directories: how to tell them from ours. They are foreign: shown, and left alone.

::

    <store>/objects/<sha256>          a whole file; ours lie one directory deeper
    <store>/refs/<name>-<12 hex>.json a manifest: a map `objects` from path to digest (from what is known of its source)
    <backup_dir>/<id>.json            a sidecar: the first keys of ours, and no `format`
    <backup_dir>/schedule-<workload>.json

Only what reads so in full is the original's. Anything else that does not read as ours is damaged.
"""

from __future__ import annotations

import errno
import json
import os
import re
import typing as t

from .._base import files

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
#: Keys of its sidecars; those that may be left out.
_SIDECAR = {
    "id": str, "workload_name": str, "workload_mode": str, "type": str, "manifest_ref": str, "tags": list, "created_at": str, "blob_count": int,
    "total_size": int, "new_blobs": int, "dedup_blobs": int, "duration": int, "pushed_to_cdn": bool, "source_path": str, "notes": str,
}  # fmt: skip
_OPTIONAL = {"workload_mode", "tags", "pushed_to_cdn", "source_path", "notes"}
_SCHEDULE = {"workload_name": str, "interval": int, "max_keep": int}

Record = t.Dict[str, t.Any]


def _load(data: bytes) -> Record:
    """A JSON object without a format; empty for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and "format" not in value else {}


def _is(value: t.Any, kind: type) -> bool:
    return isinstance(value, kind) and (kind is not int or not isinstance(value, bool))


def sidecar(data: bytes) -> t.Optional[Record]:
    """A sidecar of the original's, or None."""
    value = _load(data)
    fits = all(key in _SIDECAR and (_is(item, _SIDECAR[key]) or item is None and key in _OPTIONAL) for key, item in value.items())
    if not value or not fits or not _SIDECAR.keys() - _OPTIONAL <= value.keys() or not all(isinstance(tag, str) for tag in value.get("tags") or ()):
        return None
    return value


def schedule(data: bytes) -> t.Optional[Record]:
    """A schedule of the original's, or None."""
    value = _load(data)
    return value if value and all(_is(value.get(key), kind) for key, kind in _SCHEDULE.items()) else None


def is_manifest(data: bytes) -> bool:
    """Whether a file is a manifest of the original's."""
    objects = _load(data).get("objects")
    return isinstance(objects, dict) and all(isinstance(digest, str) and _DIGEST.match(digest) for digest in objects.values())


def objects(data: bytes) -> t.Dict[str, str]:
    """path -> digest in hex, of the files that a manifest of the original's names."""
    return t.cast("t.Dict[str, str]", _load(data)["objects"])


def open_object(store: str, digest: str) -> int:
    """A descriptor of one of its objects, which is a regular file; OSError for anything else."""
    fd = files.open_file(os.path.join(store, "objects", digest))
    if files.is_regular(fd):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is not a regular file")


def is_object(name: str) -> bool:
    """Whether a name directly below objects/ is one of the original's."""
    return _DIGEST.match(name) is not None
