# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""POSIX ACLs in the kernel's form: extended attributes that name users and groups by number (acl(5), linux/posix_acl_xattr.h)."""

from __future__ import annotations

import struct
import typing as t

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_USER, _GROUP = 0x02, 0x08
_WORDS = {0x01: "user", _USER: "user", 0x04: "group", _GROUP: "group", 0x10: "mask", 0x20: "other"}
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")  # tag, permissions, id

Xattrs = t.Tuple[t.Tuple[bytes, bytes], ...]


def ids(xattrs: Xattrs) -> t.Tuple[t.Set[int], t.Set[int]]:
    """The users and the groups that the ACLs among some attributes name."""
    users: t.Set[int] = set()
    groups: t.Set[int] = set()
    for name, value in xattrs:
        if name in (ACCESS, DEFAULT) and _is_acl(value):
            for tag, _permissions, number in _ENTRY.iter_unpack(value[4:]):
                if tag in (_USER, _GROUP):
                    (users if tag == _USER else groups).add(number)
    return users, groups


def text(value: bytes) -> t.Optional[bytes]:
    """An ACL as text with numbers, an entry a line; None for what does not read as an ACL. Source: acl(5), LONG TEXT FORM."""
    if not _is_acl(value):
        return None
    lines = []
    for tag, permissions, number in _ENTRY.iter_unpack(value[4:]):
        if tag not in _WORDS or permissions > 7:
            return None
        letters = "".join(letter if permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        lines.append(f"{_WORDS[tag]}:{number if tag in (_USER, _GROUP) else ''}:{letters}\n")
    return "".join(lines).encode()


def renumbered(xattrs: Xattrs, user: t.Callable[[int], int], group: t.Callable[[int], int]) -> Xattrs:
    """The same attributes with other numbers in their ACLs. What does not read as an ACL stays as it is."""
    return tuple((name, _renumbered(value, user, group) if name in (ACCESS, DEFAULT) and _is_acl(value) else value) for name, value in xattrs)


def _renumbered(value: bytes, user: t.Callable[[int], int], group: t.Callable[[int], int]) -> bytes:
    entries = []
    for tag, permissions, number in _ENTRY.iter_unpack(value[4:]):
        if tag == _USER:
            number = user(number)
        elif tag == _GROUP:
            number = group(number)
        entries.append(_ENTRY.pack(tag, permissions, number))
    return _VERSION + b"".join(entries)


def _is_acl(value: bytes) -> bool:
    return value[:4] == _VERSION and (len(value) - 4) % _ENTRY.size == 0
