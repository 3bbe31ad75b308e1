# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What is done with bytes before they leave the host: on a remote that is not sealed, nothing."""

from __future__ import annotations

import hashlib
import typing as t

from .._base import Damaged

if t.TYPE_CHECKING:
    from . import commits


class Parts:
    """A pack of which parts are read: what is stored is what it was."""

    def first(self, data: bytes, _complete: bool) -> bytes:
        """The first bytes of the pack, as far as they can be told from the first bytes of what is stored. :param _complete: that is all."""
        return data

    def stored(self, start: int, end: int) -> t.Tuple[int, int]:
        """The range that is to be read for a range of the pack."""
        return start, end

    def open(self, start: int, data: bytes) -> t.Tuple[int, bytes]:
        """Where in the pack that range begins, and its bytes. Damaged where they were altered."""
        return start, data

    def pieces(self, data: bytes) -> t.Iterator[bytes]:
        """The whole pack, in pieces. :param data: all that is stored."""
        yield data


class Keys:
    """The keys of a remote without keys. A sealed one has the same methods."""

    sealed = False

    @property
    def host(self) -> t.Optional[str]:
        """What the host of the keys is called on the remote; None where they are of no host."""
        return None

    @property
    def domain(self) -> t.Optional[str]:
        """What tells hosts with one recovery key from others, in hex; None without keys."""
        return None

    def blob_id(self, digest: bytes) -> bytes:
        """What a blob is called in indexes."""
        return digest

    def group(self, workload: str, kind: str) -> str:
        """What backups of one workload and type have in common, in hex."""
        return hashlib.sha256(f"{workload}\0{kind}".encode()).hexdigest()

    def seal_data(self, data: bytes) -> bytes:
        """What is stored of a pack or a manifest."""
        return data

    def check_opens(self) -> None:
        """UsageError unless what hosts have stored can be opened."""

    def open_data(self, data: bytes) -> bytes:
        """A pack or a manifest as it was before; Damaged where it was altered."""
        return data

    def seals_alike(self, _data: bytes, _size: int) -> bool:
        """Whether `seal_data` gives such bytes for `_size` bytes. Programs differ in what else they open."""
        return True

    def stored_size(self, size: int) -> int:
        """How many bytes of a stored pack have its first `size` bytes, at most."""
        return size

    def opened(self, _head: bytes) -> t.Optional[Parts]:
        """A pack that is read in parts. None where it can only be read as a whole. :param _head: its first bytes, 4 KiB or more."""
        return Parts()

    def seal_catalog(self, data: bytes) -> bytes:
        """What is stored of a sidecar."""
        return data

    def seal_list(self, data: bytes) -> bytes:
        """What is stored of a list of an index."""
        return data

    def open_list(self, data: bytes) -> bytes:
        """A list of an index as it was before."""
        return data

    def open_catalog(self, data: bytes) -> bytes:
        """A sidecar as it was before."""
        return data

    def check(self, found: commits.Read) -> None:
        """Damaged unless a commit is of this remote's kind, and its MAC is that of the host."""
        if found.sealed:
            raise Damaged(f"Commit {found.commit.push} is sealed, and the remote is not: it is of another remote.")

    def sign(self, line: bytes) -> t.Optional[str]:
        """The MAC of a commit's line, in hex; None without a key."""
        return None
