# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""format.json: what a store is, and what a program must know to use it.

::

    {"format": 1, "id": "<32 hex digits>", "features": {"required": [], "optional": []}, "made_by": "volt.backup"}

`id` is random and never changes. A *required* feature changes what is in the store so that a program that does not know it would harm it or
misread it; an *optional* one can be ignored. A store with a required feature says `format: 2`, so that version 0.1.0, which knew no features,
refuses it. What this version does not know is unsupported, never damaged.

The feature `claims` says that runs write down what they rely on (see `claims`), and hold no lock. Version 0.1.0 relied on that lock.

Stores of version 0.1.0 have neither id nor features. They get both with the next write.
"""

from __future__ import annotations

import json
import os
import re
import stat
import typing as t

from .._base import StoreError, check_format, files, newer, reason

NAME = "format.json"
#: The format of a store without required features, and of one with some.
PLAIN, WITH_FEATURES = 1, 2
#: Required features that this version knows, and that each store has which it made or wrote to.
CLAIMS = "claims"
#: Of stores with chunk lists of streams, whose chunks have different lengths.
CDC = "cdc"
KNOWN = frozenset({CLAIMS, CDC})
_MOST = 65536
_ID = re.compile(r"[0-9a-f]{32}|")
_FEATURE = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class Format(t.NamedTuple):
    """A store's format.json. `id` is empty in a store of version 0.1.0; `more` are keys that this version does not know."""

    id: str = ""
    required: t.Tuple[str, ...] = ()
    optional: t.Tuple[str, ...] = ()
    more: t.Mapping[str, t.Any] = {"made_by": "volt.backup"}

    @property
    def number(self) -> int:
        return WITH_FEATURES if self.required else PLAIN

    def encode(self) -> bytes:
        """The file's content."""
        features = {"required": list(self.required), "optional": list(self.optional)}
        return (json.dumps({"format": self.number, "id": self.id, "features": features, **self.more}, indent=1) + "\n").encode()


def new_id() -> str:
    """An id that no other store has."""
    return os.urandom(16).hex()


def read(store: str) -> Format:
    """The format of the store at a path, whether this version knows it or not (see `check`).

    FileNotFoundError where there is none, StoreError where it cannot be read or is not one.
    """
    try:
        text = files.read_file(os.path.join(store, NAME), _MOST)
    except FileNotFoundError:
        raise
    except files.Unsuitable:
        text = b""
    except OSError as error:
        raise StoreError(f"Store {store} cannot be read: {reason(error)}; choose a directory that this user can read.") from None
    try:
        value = json.loads(text)
        check_format(value.pop("format"), WITH_FEATURES, f"Store {store}")
        features = value.pop("features", {})
        required, optional = (_names(features.get(key, [])) for key in ("required", "optional"))
        identity = value.pop("id", "")
        if not _ID.fullmatch(identity):
            raise ValueError(identity)
        return Format(identity, required, optional, value)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StoreError(f"{store}/{NAME} was not written by volt.backup; restore the original, or choose another store.") from None


def _names(value: t.Any) -> t.Tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and _FEATURE.fullmatch(name) for name in value):
        raise ValueError(value)
    return tuple(value)


def check(store: str, found: Format) -> None:
    """Unsupported where a store has a required feature that this version does not know."""
    unknown = sorted(set(found.required) - KNOWN)
    if unknown:
        raise newer(f"Store {store} (feature {', '.join(unknown)})", features=unknown)


def made() -> Format:
    """The format of a new store."""
    return Format(new_id(), (CLAIMS,))


def upgrade(store: str, found: Format, *more: str) -> Format:
    """Write the format anew, with an id and features. The first is for a store that no other program uses. OSError where that fails.

    :param more: further required features.
    """
    found = found._replace(id=found.id or new_id(), required=tuple(sorted({*found.required, CLAIMS, *more})))
    path = os.path.join(store, NAME)
    info = os.stat(path)
    files.write_file(path, found.encode(), mode=stat.S_IMODE(info.st_mode), owner=(info.st_uid, info.st_gid))
    return found
