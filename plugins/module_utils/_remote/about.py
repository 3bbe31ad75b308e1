# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""`volt.json`, which says what a remote is. It is created once and never changed.

::

    {"remote": 1, "id": "<32 hexadecimal digits>", "commit": "exclusive" or "timed", "sealed": false, "domain": null, "locked": false,
     "required": []}

`commit` is what a probe found the store to do. `domain` is the same for all hosts whose keys are of one recovery key. `locked`: in a bucket that keeps
versions, the oldest one of a name counts, and a deletion of a name deletes nothing (see `s3`). `required` names features without which a remote must not be
read or written.
"""

from __future__ import annotations

import json
import re
import secrets
import typing as t

from .._base import Damaged, NoRemote, RemoteError, Unsupported, newer
from . import names
from .keys import Keys
from .transport import EXCLUSIVE, TIMED, Abilities, Transport

FORMAT = 1
ID = re.compile(r"[0-9a-f]{32}\Z")


class About(t.NamedTuple):
    """What a remote is."""

    id: str
    commit: str
    sealed: bool
    domain: t.Optional[str] = None
    locked: bool = False

    def tell(self, transport: Transport) -> None:
        """Tell a transport what it must know of the remote."""
        transport.commit, transport.oldest = self.commit, self.locked


class Begun(t.NamedTuple):
    """A remote that is there now, or would be. `abilities`: None where it was there already and was not probed."""

    about: t.Optional[About]
    abilities: t.Optional[Abilities]
    changed: bool


def find(transport: Transport) -> t.Optional[About]:
    """What a remote is; None where there is none, Damaged where that cannot be read, Unsupported where a newer version made it."""
    data = transport.get(names.ABOUT)
    if data is None:
        return None
    about = _parse(transport, data)
    about.tell(transport)
    return about


def _parse(transport: Transport, data: bytes) -> About:
    try:
        value = json.loads(data)
        number, required = value["remote"], value.get("required", [])
        if isinstance(number, int) and not isinstance(number, bool) and number > FORMAT or required:
            raise newer(f"Remote {transport.where}")
        if number != FORMAT or not ID.match(value["id"]) or value["commit"] not in (EXCLUSIVE, TIMED) or not isinstance(value["sealed"], bool):
            raise ValueError(value)
        return About(value["id"], value["commit"], value["sealed"], value.get("domain"), value.get("locked", False) is True)
    except Unsupported:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"{transport.where}: {names.ABOUT} is damaged, so what the remote is cannot be known; restore that file from a copy.") from None


def read(transport: Transport) -> About:
    """The same; NoRemote where there is none."""
    about = find(transport)
    if about is None:
        lack = f"it has no {names.ABOUT}"
        raise NoRemote(f"{transport.where} is not a remote of volt.backup: {lack}; check the URL and the mount, or run `volt-backup remote init`.")
    return about


def check(transport: Transport, about: About, keys: t.Optional[Keys], wanted: t.Optional[str] = None) -> None:
    """RemoteError unless these keys, or their lack, fit a remote. :param keys: None where none are needed. :param wanted: the id that it must have."""
    if wanted not in (None, about.id):
        raise RemoteError(
            f"{transport.where} is not the remote that was declared: its id is {about.id}, not {wanted}; check the mount and the URL. "
            "To use this one, remove its file in /etc/volt/remotes and declare it again."
        )
    if keys is None:
        return
    if about.sealed and not keys.sealed:
        raise RemoteError(f"{transport.where} is sealed, and no key was given; set `keys`, or `identity` to read backups.")
    if keys.sealed and not about.sealed:
        raise RemoteError(f"{transport.where} is not sealed, and a key was given; omit `keys` and `identity`, or choose another remote.")
    if about.domain != keys.domain:
        raise RemoteError(f"{transport.where} is sealed with another recovery key than these keys are of; give the keys that were made for it.")


def check_lock(transport: Transport, about: About, lock: t.Optional[int]) -> None:
    """RemoteError unless a host that writes locks its objects where the remote has locks, and only there. :param lock: days."""
    if about.locked and lock is None:
        raise RemoteError(f"{transport.where} was made with a lock, and none was given; declare the remote with `lock`, such as 30d.")
    if lock is not None and not about.locked:
        raise RemoteError(f"{transport.where} was made without a lock, and one was given; omit `lock`, or make another remote.")


def begin(transport: Transport, keys: Keys, wanted: t.Optional[str] = None, dry: bool = False) -> Begun:
    """Make a remote, unless there is one. :param wanted: the id of the one that was there before, which is not made again."""
    about = find(transport)
    if about is not None:
        check(transport, about, keys, wanted)
        return Begun(about, None, False)
    if wanted is not None:
        raise NoRemote(
            f"{transport.where}: remote {wanted} was there when it was declared, and is not now; check the mount and the URL. "
            "If it is gone for good, remove its file in /etc/volt/remotes and declare it again."
        )
    if any(not entry.name.startswith("probe/") for entry in transport.list("")):
        raise NoRemote(f"{transport.where} is not empty and has no {names.ABOUT}; choose an empty directory or prefix.")
    if dry:
        return Begun(None, None, True)
    abilities = transport.probe()
    value = {
        "remote": FORMAT, "id": secrets.token_hex(16), "commit": abilities.commit, "sealed": keys.sealed, "domain": keys.domain, "locked": transport.oldest,
        "required": [],
    }  # fmt: skip
    changed = transport.create(names.ABOUT, json.dumps(value).encode() + b"\n")
    return Begun(read(transport), abilities, changed)
