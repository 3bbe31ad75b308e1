# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""URLs of remotes: which kind of remote they name. Nothing of a remote is imported to read one."""

from __future__ import annotations

import os
import typing as t
import urllib.parse

from .._base import UsageError
from . import s3_client

DIRECTORY, S3 = "file", "s3"
#: Kinds that are planned.
_LATER = ("https", "rclone", "oci")


class Place(t.NamedTuple):
    """What a URL names. `path`: of a directory, else empty."""

    kind: str
    path: str


def same(one: str, other: str) -> bool:
    """Whether two URLs mean one place."""
    first, second = parse(one), parse(other)
    if first.kind == S3 == second.kind:
        places = (s3_client.parse_url(one), s3_client.parse_url(other))
        return len({(place.bucket, place.prefix, place.endpoint.rstrip("/")) for place in places}) == 1
    return first.kind == second.kind and len({os.path.normpath("/" + place.path.lstrip("/")) for place in (first, second)}) == 1


def parse(url: str) -> Place:
    """The remote that a URL names; UsageError where it names none that can be used. The message has no credentials."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        raise UsageError("The URL of the remote is invalid; write file:///path or s3://bucket/prefix.") from None
    if parts.username or parts.password:
        raise UsageError("The URL of the remote contains credentials; remove them from it.")
    if parts.scheme == DIRECTORY:
        path = urllib.parse.unquote(parts.path)
        if parts.netloc or not path.startswith("/") or parts.query or parts.fragment or "\0" in path:
            raise UsageError(f"Remote {url!r} is invalid; write an absolute path, such as file:///mnt/backup.")
        return Place(DIRECTORY, path)
    if parts.scheme == S3:
        s3_client.parse_url(url)
        return Place(S3, "")
    if parts.scheme in _LATER:
        raise UsageError(f"Remotes of the kind {parts.scheme}: are not supported yet; use a directory or S3.")
    raise UsageError(f"Remote {url!r} is invalid; write file:///path or s3://bucket/prefix.")
