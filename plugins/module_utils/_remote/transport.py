# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What a remote must be able to do: eight verbs over named objects. Everything else about a remote is built on them.

An object is at most a few times 16 MiB, so its bytes are passed as a whole. A name is text of `a-z A-Z 0-9 . _ - /`, without empty parts, and
no part begins with a dot. A transport tries again by itself where a server is busy or a connection breaks (5xx, 429, with Retry-After and jitter);
what it raises is final. The answer to a request can be lost after the work was done: then `create` may say that a name is taken by what it
wrote itself, and the caller compares.

Any thread may call any verb.
"""

from __future__ import annotations

import re
import typing as t

from .._base import Damaged
from .pace import Pace

#: What a name may be.
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*\Z")
#: Bytes that an object may have. More are never read.
MOST = 64 << 20
#: How a commit is decided: by the store, which lets one writer create a name; or, where it cannot, by waiting.
EXCLUSIVE, TIMED = "exclusive", "timed"


class Entry(t.NamedTuple):
    """An object in a listing."""

    name: str
    size: int
    #: When it arrived, by the store's clock: seconds since 1970.
    time: float


def too_large(where: str, name: str) -> Damaged:
    """The error for an object of more than MOST bytes."""
    return Damaged(f"{where}: {name} has more than {MOST >> 20} MiB, which no object of a remote has; find out what else writes to the remote.")


class Abilities(t.NamedTuple):
    """What a probe found that a store does, whatever it says."""

    #: EXCLUSIVE if of several writers who create a name only one succeeds, and its bytes stay; else TIMED.
    commit: str
    #: Whether bytes that do not have the checksum sent with them are refused. False where it was not tested.
    checks_upload: bool
    #: Whether a range of an object can be read, and not only all of it.
    ranges: bool


class Transport(t.Protocol):
    """A place that keeps objects.

    All verbs raise NoRemote where the bucket or directory does not exist, RemoteRefused where the credentials do not allow it or are wrong or
    expired, RemoteFull, RemoteUnreachable after the last attempt, and RemoteError for everything else. A message has no credentials.
    `get` raises Damaged for an object that is too large to be one of a remote.
    """

    #: Where it is, as shown to users: a URL without credentials.
    where: str
    #: EXCLUSIVE or TIMED, as volt.json says of this remote.
    commit: str
    #: Whether of several versions of an object the oldest counts, as volt.json says of this remote.
    oldest: bool
    #: Limits how fast objects are sent, and counts the bytes of all.
    pace: Pace

    def create(self, name: str, data: bytes) -> bool:
        """Write an object that does not exist yet. False where the name is taken; then nothing was written.

        When it returns, the object is complete and will outlive a crash of the server. It is never seen in part. On a TIMED store an object
        may be replaced if two create it at once.
        """

    def put(self, name: str, data: bytes) -> None:
        """Write an object, whether it exists or not. Readers see the old bytes or the new ones."""

    def get(self, name: str, start: int = 0, length: t.Optional[int] = None) -> t.Optional[bytes]:
        """The bytes of an object, or a range of them; None where there is no such object.

        A range that reaches past the end gives what there is. The number of bytes is checked: what was cut off on its way is fetched again.
        """

    def head(self, name: str) -> t.Optional[Entry]:
        """Size and time of an object; None where there is none."""

    def list(self, prefix: str, after: str = "") -> t.Iterator[Entry]:
        """All objects whose name begins with a prefix, in the order of the bytes of their names.

        :param after: only names that come after this one.
        """

    def delete(self, names: t.Iterable[str]) -> None:
        """Remove objects. One that does not exist is no error."""

    def now(self) -> float:
        """The store's clock: seconds since 1970. Never that of this host, unless the two are the same."""

    def probe(self) -> Abilities:
        """Find out what the store does, by trying it below `probe/`. Nothing is left there."""
