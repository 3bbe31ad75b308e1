# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Where a restore reads blobs: the store of this host, or a remote. `Store` has all of these methods."""

from __future__ import annotations

import typing as t

from .._base import Damaged


class Blobs(t.Protocol):
    """Blobs by their digests. What `read` and its like give is hashed."""

    @property
    def exists(self) -> bool:
        """Whether there are files that a target may share."""

    def has(self, digest: bytes, size: int) -> bool:
        """Whether a blob of this size is here, as far as is known."""

    def read(self, digest: bytes, limit: int) -> bytes:
        """A blob's bytes; Damaged where it is missing, altered, or longer than `limit`."""

    def read_object_first(self, digest: bytes, limit: int) -> bytes:
        """The same, for blobs that share their file with no other as a rule."""

    def unpack(self, digest: bytes) -> t.Iterator[t.Tuple[bytes, memoryview]]:
        """(digest, bytes) of the blobs that lie beside this one, itself included; not hashed. None where they cannot be read: `read` tells why."""

    def open_plain(self, digest: bytes, size: int, verify: bool) -> int:
        """A descriptor of a file that has just this blob, for a target to share; -1 where there is none. :param verify: hash it in any case."""

    def is_plain(self, digest: bytes, size: int) -> bool:
        """Whether there is such a file."""

    def open_sample(self) -> int:
        """A descriptor of some file beside these, to try with it what a target's file system can do."""


def exactly(read: t.Callable[[bytes, int], bytes], digest: bytes, size: int) -> bytes:
    """A blob of so many bytes; Damaged where it has others."""
    data = read(digest, size)
    if len(data) != size:
        raise Damaged(f"Blob {digest.hex()} does not have the size of its file.")
    return data
