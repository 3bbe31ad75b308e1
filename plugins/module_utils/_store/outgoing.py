# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Files of a store as they are stored, for a copy elsewhere. Each is hashed before it goes: what is damaged is not spread."""

from __future__ import annotations

import hashlib
import typing as t

from .._base import Damaged
from . import codec, layout, pack
from .object_states import OBJECT_MOST
from .store import Store


class Outgoing(t.NamedTuple):
    """A pack or an object."""

    #: The bytes of the file, and how they are compressed (a suffix of `codec`).
    stored: bytes
    form: str
    plain: bytes
    #: Where its blobs are in the plain bytes: (digest, offset, length).
    blobs: t.List[t.Tuple[bytes, int, int]]
    #: Whether it is a pack, whose table comes first; and whether it has trees and lists and no content.
    is_pack: bool
    is_metadata: bool


def of_pack(store: Store, name: bytes) -> t.Optional[Outgoing]:
    """A pack; None where it is missing, which a collection may have caused, and Damaged where it is altered."""
    found = store.index.pack(name)
    if found is None:
        return None
    try:
        stored = store.index.read_stored(name, found.suffix)
    except layout.Missing:
        return None
    try:
        plain = codec.decompress(stored, found.suffix, pack.PACK_MOST)
        entries = pack.check(plain, name)
    except Damaged as error:
        store.index.condemn(name, error.message)
        raise
    start = pack.first_blob(plain)
    blobs = [(digest, start + offset, length) for digest, offset, length in entries]
    return Outgoing(stored, found.suffix, plain, blobs, True, pack.kind(plain) == pack.METADATA)


def of_object(store: Store, digest: bytes, is_metadata: bool) -> t.Optional[Outgoing]:
    """An object; None where it is missing, and Damaged where it is altered. :param is_metadata: what it is: its file does not tell."""
    trouble: t.Optional[Damaged] = None
    for path, suffix in store.object_files(digest):
        try:
            stored = layout.read_blob_file(path, OBJECT_MOST)
            plain = codec.decompress(stored, suffix, OBJECT_MOST)
            if hashlib.sha256(plain).digest() == digest:
                return Outgoing(stored, suffix, plain, [(digest, 0, len(plain))], False, is_metadata)
            trouble = Damaged(f"Object {digest.hex()} is altered.")
        except layout.Missing:
            continue
        except Damaged as error:
            trouble = error  # another form of it may be sound
    if trouble is not None:
        raise trouble
    return None
