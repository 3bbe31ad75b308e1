# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The first eight bytes of each type of metadata, by which a version knows what it can read.

The digest of a blob is checked before it is decoded, so its content was written that way: other first bytes of ours come from a newer version.
"""

from __future__ import annotations

from .._base import newer

TREE, PARTS, CHUNKS, CUTS, LINKS = b"VOLTTREE", b"VOLTPART", b"VOLTCHNK", b"VOLTCUTS", b"VOLTLINK"
_OURS = b"VOLT"
_KNOWN = (TREE, PARTS, CHUNKS, CUTS, LINKS)


def check(blob: bytes, magic: bytes, what: str) -> None:
    """ValueError for a blob with another start; Unsupported if only a newer version can have written it.

    :param what: the sort of metadata, at the beginning of a sentence.
    """
    begins = blob[: len(magic)]
    if begins == magic:
        return
    if begins[:4] == _OURS and len(begins) == len(magic) and begins not in _KNOWN:
        raise newer(what)
    raise ValueError(f"it begins with {begins!r}")
