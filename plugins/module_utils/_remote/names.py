# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The names of objects on a remote.

::

    volt.json                                     what the remote is; written once
    intents/<host>/<push>                         a push is under way
    packs/<host>/<push>/<nnnnn>[m]-<sha256>       data; with `m`: metadata (trees, lists)
    indexes/<host>/<push>-<nnn>                   which blobs are in which pack
    commits/<host>/<push>                         a backup, or the revocation of a push
    heads/<host>                                  the newest commits; replaced, and never trusted
    tombstones/<generation>   samples/<generation>/<nn>   pruned/<time>-<hex>      written by maintenance
    vetted/<time>-<hex>                           packs that were read and found right

`<host>` is the second part of each name that a host writes, so that one rule in a policy is enough. `<push>` is the time of its start and 16 random
hexadecimal digits. The SHA-256 in a pack's name is that of its bytes as they are stored.
"""

from __future__ import annotations

import datetime
import re
import secrets
import typing as t

ABOUT = "volt.json"
INTENTS, PACKS, INDEXES, COMMITS, HEADS, TOMBSTONES = (f"{kind}/" for kind in ("intents", "packs", "indexes", "commits", "heads", "tombstones"))
VETTED = "vetted/"
#: How the names begin of what is written once. Intents are removed, and heads replaced.
KEPT = (ABOUT, PACKS, INDEXES, COMMITS, TOMBSTONES, VETTED, "samples/", "pruned/")
#: What a host is called on a remote.
HOST = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}\Z")
_PUSH = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]{0,127})/(\d{8}T\d{6}Z-[0-9a-f]{16})\Z")
_PACK = re.compile(r"(\d{5,})(m?)-([0-9a-f]{64})\Z")
_INDEX = re.compile(r"(.+)-(\d{3,})\Z")
_NOT_HOST = re.compile(r"[^A-Za-z0-9._-]")


class Push(t.NamedTuple):
    """An attempt to bring one backup of a host."""

    host: str
    id: str

    def __str__(self) -> str:
        return f"{self.host}/{self.id}"

    @property
    def intent(self) -> str:
        return f"{INTENTS}{self}"

    @property
    def commit(self) -> str:
        return f"{COMMITS}{self}"

    def index_name(self, number: int) -> str:
        return f"{INDEXES}{self}-{number:03d}"


class Pack(t.NamedTuple):
    """A pack by its name: of which push, its number there, whether it has metadata alone, and the SHA-256 of its stored bytes in hex."""

    push: Push
    number: int
    metadata: bool
    sha256: str

    @property
    def name(self) -> str:
        return f"{PACKS}{self.push}/{self.number:05d}{'m' if self.metadata else ''}-{self.sha256}"


def new_push(host: str, begun: datetime.datetime) -> Push:
    """A push that nothing else is called."""
    return Push(host, f"{begun:%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}")


def parse_push(text: str) -> t.Optional[Push]:
    """`<host>/<push>`; None for anything else."""
    match = _PUSH.match(text)
    try:
        return Push(match[1], match[2]) if match and moment(match[2]).year < datetime.MAXYEAR else None
    except ValueError:
        return None


def moment(push: str) -> datetime.datetime:
    """When a push says that it began. :param push: without the host."""
    return datetime.datetime.strptime(push[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)


def parse_commit(name: str) -> t.Optional[Push]:
    """The push of a commit's name; None for any other name."""
    return parse_push(name[len(COMMITS) :]) if name.startswith(COMMITS) else None


def parse_index(name: str) -> t.Optional[t.Tuple[Push, int]]:
    """Push and number of an index's name; None for any other name."""
    match = _INDEX.match(name[len(INDEXES) :]) if name.startswith(INDEXES) else None
    push = parse_push(match[1]) if match else None
    return (push, int(match[2])) if match and push else None


def parse_pack(name: str) -> t.Optional[Pack]:
    """What a pack's name says; None for any other name."""
    above, _slash, last = name.rpartition("/")
    push = parse_push(above[len(PACKS) :]) if above.startswith(PACKS) else None
    match = _PACK.match(last)
    return Pack(push, int(match[1]), bool(match[2]), match[3]) if push and match else None


def host_name(text: str, tail: str) -> str:
    """What a host is called: its name with what no name may have replaced, and a tail that tells it from another host of that name."""
    return f"{_NOT_HOST.sub('-', text).lstrip('.')[:100] or 'host'}-{tail}"
