# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The commit format: the object that makes a backup exist on a remote, and the one that prevents it.

::

    one line of JSON, then the sidecar, then the manifest of the backup

    {"commit":1,"host":"web1-3f9a2c7d","push":"<host>/<push>","seq":7,"previous":"<SHA-256 of the commit before>","group":"...",
     "indexes":[["<host>/<push>-<nnn>","<SHA-256>"],...],"needs":[["<host>/<push>","<base64>"],...],
     "sidecar":[<length>,"<SHA-256>"],"manifest":[<length>,"<SHA-256>"],"sealed":false,"mac":null}

`seq` counts the commits of a host from 1, and `previous` names the one before: what is withheld or replayed is noticed. `needs` has a bitmap of pack
numbers for each push whose packs the backup needs: pack n is bit n % 8 of byte n / 8. Together the indexes name every blob that it needs. `group` is
the same for backups of one workload and type. On a sealed remote sidecar and manifest are age files, `group` is an HMAC, and `mac` is HMAC-SHA256
with the host's key of the line up to and without `,"mac":`. The lengths and digests are of the bytes as they are stored.

A revocation has the name of a commit: {"revocation":1,"push":"<host>/<push>"} and a newline.

A head is one line, too, with a MAC that is made in the same way: {"head":1,"host":"...","seq":7,"commits":["<push>",...],"mac":null}. `seq` is that of
the last of its commits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import typing as t

from .._base import Damaged, RemoteError, newer
from . import names

FORMAT = 1
#: How many commits a head names.
HEAD_MOST = 100
_END = b',"mac":'
#: No commit has more text for its bitmaps: 750,000 packs, which have 12 TB.
NEEDS_MOST = 128 << 10


class Commit(t.NamedTuple):
    """The line of a commit."""

    push: names.Push
    seq: int
    #: SHA-256 of the commit before, in hex; None for the first of a host.
    previous: t.Optional[str]
    group: str
    #: Name and SHA-256 of each index.
    indexes: t.List[t.Tuple[str, str]]
    #: Numbers of packs by push.
    needs: t.Dict[names.Push, t.Set[int]]


class Read(t.NamedTuple):
    """A commit as it was read. The digests of sidecar and manifest were compared, the MAC was not."""

    commit: Commit
    sealed: bool
    sidecar: bytes
    manifest: bytes
    #: What the MAC is of, and the MAC in hex.
    signed: bytes
    mac: t.Optional[str]
    #: SHA-256 of the whole object, in hex.
    sha256: str


def encode(commit: Commit, sidecar: bytes, manifest: bytes, sealed: bool, sign: t.Callable[[bytes], t.Optional[str]]) -> bytes:
    """The bytes of a commit. :param sign: gives the MAC in hex, or None where there is no key."""
    needs = [[str(push), bitmap(numbers)] for push, numbers in sorted(commit.needs.items())]
    if sum(len(bits) for _push, bits in needs) > NEEDS_MOST:
        raise RemoteError("The backup needs more packs than a commit can name; divide its source among several workloads.")
    value = {
        "commit": FORMAT,
        "host": commit.push.host,
        "push": str(commit.push),
        "seq": commit.seq,
        "previous": commit.previous,
        "group": commit.group,
        "indexes": [[name[len(names.INDEXES) :], digest] for name, digest in commit.indexes],
        "needs": needs,
        "sidecar": [len(sidecar), hashlib.sha256(sidecar).hexdigest()],
        "manifest": [len(manifest), hashlib.sha256(manifest).hexdigest()],
        "sealed": sealed,
    }
    return b"".join([_signed(value, sign), sidecar, manifest])


def head(host: str, seq: int, recent: t.Sequence[str], sign: t.Callable[[bytes], t.Optional[str]]) -> bytes:
    """The bytes of a head. :param recent: the newest commits, without the host, the newest last."""
    return _signed({"head": FORMAT, "host": host, "seq": seq, "commits": list(recent)}, sign)


def _signed(value: t.Dict[str, t.Any], sign: t.Callable[[bytes], t.Optional[str]]) -> bytes:
    line = json.dumps(value, separators=(",", ":")).encode()[:-1]
    return b"".join([line, _END, json.dumps(sign(line)).encode(), b"}\n"])


def parse(name: str, data: bytes) -> t.Optional[Read]:
    """What a commit says; None for a revocation, Damaged for anything else, Unsupported for a newer format. :param name: that it was read by."""
    line, newline, rest = data.partition(b"\n")
    try:
        value = json.loads(line, object_pairs_hook=_once)
        if not newline or not isinstance(value, dict):
            raise ValueError(name)
        push = names.parse_push(value["push"])
        if push is None or push.commit != name:
            raise ValueError(value["push"])
        if _is_newer(value.get("commit", value.get("revocation"))):
            raise newer(f"Commit {name} of the remote")
        if "revocation" in value:
            return None
        (size, sidecar), (more, manifest) = value["sidecar"], value["manifest"]
        parts = rest[:size], rest[size:]
        if [len(parts[0]), len(parts[1])] != [size, more] or [hashlib.sha256(part).hexdigest() for part in parts] != [sidecar, manifest]:
            raise ValueError("sidecar or manifest")
        if sum(len(bits) for _text, bits in value["needs"]) > NEEDS_MOST:
            raise ValueError("needs")
        commit = Commit(
            push, _number(value["seq"]), _text(value["previous"]), value["group"],
            [(_index(f"{names.INDEXES}{index}"), digest) for index, digest in value["indexes"]],
            {_push(text): numbers(bits) for text, bits in value["needs"]},
        )  # fmt: skip
        signed = line[: line.index(_END)]
        if line != b"".join([signed, _END, json.dumps(_text(value["mac"])).encode(), b"}"]):
            raise ValueError("something is behind the MAC")
        return Read(commit, bool(value["sealed"]), *parts, signed, value["mac"], hashlib.sha256(data).hexdigest())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"Commit {name} of the remote is damaged.") from None


def revocation(push: names.Push) -> bytes:
    """The bytes that end a push without a backup."""
    return json.dumps({"revocation": FORMAT, "push": str(push)}, separators=(",", ":")).encode() + b"\n"


def bitmap(found: t.Iterable[int]) -> str:
    """Numbers as the base64 of a bitmap."""
    bits = bytearray(max(found, default=-1) // 8 + 1)
    for number in found:
        bits[number // 8] |= 1 << number % 8
    return base64.b64encode(bits).decode()


def bitmap_size(number: int) -> int:
    """How long a bitmap is whose largest number this is."""
    return (number // 24 + 1) * 4


def numbers(text: str) -> t.Set[int]:
    """The numbers of a bitmap; ValueError where it is none."""
    bits = base64.b64decode(text, validate=True)
    return {8 * position + bit for position, byte in enumerate(bits) if byte for bit in range(8) if byte >> bit & 1}


def _once(pairs: t.List[t.Tuple[str, t.Any]]) -> t.Dict[str, t.Any]:
    """An object whose keys are there once: of two, a reader could take another one than the MAC is of."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _is_newer(value: t.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > FORMAT


def _number(value: t.Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(value)
    return value


def _text(value: t.Any) -> t.Optional[str]:
    if value is not None and not isinstance(value, str):
        raise ValueError(value)
    return value


def _index(name: str) -> str:
    if names.parse_index(name) is None:
        raise ValueError(name)
    return name


def _push(text: str) -> names.Push:
    push = names.parse_push(text)
    if push is None:
        raise ValueError(text)
    return push
