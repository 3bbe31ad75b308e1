# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Lists of packs that were vetted: all of their blobs were read, and have the digests that the pack says.

Hosts that share rely on indexes of each other. A host with `vetted: true` uses a pack of another host only if it is in such a list, and only if an index
says of the pack what the list says. So a stolen host that sends false indexes or damaged packs harms no backup of the others.

A list is a line of JSON, {"vetted": 1}, and a line for each pack: its name behind `packs/`, a space, and the SHA-256, in hex, of what an index says of the
pack, before that is sealed. It is written once. The storage must not let hosts write below `vetted/`: the rights in `policy` do not.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

from .._base import Damaged
from . import names
from .transport import Transport

_FORMAT = 1


def read(transport: Transport, name: str) -> t.Dict[str, str]:
    """Names of packs, each with the digest of what an index says. Empty for what is no list of this format: that costs sharing, and nothing else."""
    try:
        first, *lines = (transport.get(name) or b"").decode("utf-8", "replace").split("\n")
        if json.loads(first)["vetted"] != _FORMAT:
            return {}
    except (Damaged, ValueError, KeyError, TypeError, RecursionError):
        return {}
    parted = (line.rpartition(" ") for line in lines)
    return {f"{names.PACKS}{pack}": digest for pack, _space, digest in parted if pack}


def encode(found: t.Mapping[str, str]) -> bytes:
    """The bytes of a list. :param found: names of packs, each with its digest."""
    lines = [json.dumps({"vetted": _FORMAT}), *(f"{name[len(names.PACKS) :]} {digest}" for name, digest in sorted(found.items())), ""]
    return "\n".join(lines).encode()


def digest_of(body: bytes) -> str:
    """The digest of what an index says of a pack. :param body: its list, see `indexes`."""
    return hashlib.sha256(body).hexdigest()
