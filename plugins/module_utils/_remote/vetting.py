# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Vetting: the holder of the recovery key reads the packs of all hosts, and notes those whose blobs are right (see `vetted`).

A pack is vetted by its name, which has the SHA-256 of its bytes, so each is read once. What a host has sent for a push that is under way is read as well.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import secrets
import threading
import typing as t

from .._backup.verify import Verified, VerifyRequest
from .._base import Damaged, NoRemote, RemoteError, RemoteRefused, RemoteUnreachable, Unsupported, UsageError, now
from . import about, indexes, names, packs, vetted
from .declared import Settings
from .keys import Keys
from .transport import MOST, Transport

#: A list is written when so many bytes were read since the last one, so that a vetting that is cut off need not begin anew.
_PART = 1 << 30


def verified(transport: Transport, keys: Keys, settings: Settings, request: VerifyRequest, host: t.Optional[str], dry: bool) -> Verified:
    """Vet, and give the result as that of a verification. UsageError where only a part is asked for, or the recovery key is missing."""
    if request.ids or request.budget is not None or host is not None:
        raise UsageError("All packs of a remote are vetted; omit `ids`, `budget` and `host`.")
    about.check(transport, about.read(transport), keys, settings.id)
    keys.check_opens()
    vetting = Vetting(transport, keys, settings.jobs, dry)
    vetting()
    damage = [{"id": None, "path": None, "file": name, "reason": reason} for name, reason in sorted(vetting.damage.items())]
    return Verified(
        damage=damage[: request.diff_limit], damage_count=len(damage), damaged=[], unsupported=[], foreign=[], unlisted=[], backup_count=0,
        file_count=vetting.packs, byte_count=vetting.bytes, covered=None, repaired=None, changed=vetting.right > 0, warnings=[], remote=transport.where,
        vetted={"packs": vetting.right, "before": vetting.before},
    )  # fmt: skip


class Vetting:
    """Reads the packs of all hosts that were not vetted yet. Use once.

    :param jobs: packs at once, each in memory.
    :ivar packs: how many were read, with so many `bytes`. :ivar right: how many of them were noted, or would be. :ivar before: how many had been.
    :ivar damage: by the names of the others, what is wrong.
    """

    def __init__(self, transport: Transport, keys: Keys, jobs: int, dry: bool = False) -> None:
        self._transport, self._keys, self._jobs, self._dry = transport, keys, jobs, dry
        self._unwritten: t.Dict[str, str] = {}
        self._size = 0
        self.packs = self.bytes = self.right = self.before = 0
        self.damage: t.Dict[str, str] = {}
        self._large = threading.Lock()  # one segment that decompresses to much is in memory at a time
        self._refused: t.Optional[RemoteRefused] = None

    def __call__(self) -> None:
        """Vet. RemoteError where a list cannot be written."""
        known: t.Set[str] = set()
        for entry in self._transport.list(names.VETTED):
            known.update(vetted.read(self._transport, entry.name))
        there = [pack for pack in (names.parse_pack(entry.name) for entry in self._transport.list(names.PACKS)) if pack is not None]
        new = [pack for pack in there if pack.name not in known]
        self.before = len(there) - len(new)
        self._transport.pace.stopped.clear()
        pool = concurrent.futures.ThreadPoolExecutor(self._jobs)
        try:
            for pack, judged in zip(new, pool.map(self._judge, new)):
                if judged is not None:
                    self._note(pack, *judged)
        except BaseException:
            self._transport.pace.stopped.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        self._write()
        if self._refused is not None and not self.right:
            raise self._refused

    def _note(self, pack: names.Pack, size: int, digest: str, wrong: str) -> None:
        self.packs += 1
        self.bytes += size
        if wrong:
            self.damage[pack.name] = wrong
            return
        self.right += 1
        self._unwritten[pack.name] = digest
        self._size += size
        if self._size >= _PART:
            self._write()

    def _judge(self, pack: names.Pack) -> t.Optional[t.Tuple[int, str, str]]:
        """The bytes of a pack, the digest of what an index should say, and what is wrong. None where it is not there any more."""
        data = b""
        try:
            found = self._transport.get(pack.name)
            if found is None:
                return None
            data = found
            if hashlib.sha256(data).hexdigest() != pack.sha256:
                raise Damaged("Its bytes do not have the SHA-256 that is in its name.")
            plain = self._keys.open_data(data)
            if not self._keys.seals_alike(data, len(plain)):
                raise Damaged("It is sealed in a form that no push writes.")
            return len(data), vetted.digest_of(self._list(plain)), ""
        except (NoRemote, RemoteUnreachable):
            raise
        except RemoteRefused as error:  # of a single object, too: a host may have sealed it with a key of the storage that is not ours
            self._refused = error
            return 0, "", error.message
        except (Damaged, Unsupported, RemoteError) as error:  # one host's object must not keep those of the others from being vetted
            return len(data), "", error.message

    def _list(self, data: bytes) -> bytes:
        """What an index should say of a pack; Damaged where it does not have the blobs that it says."""
        contents = packs.Contents(data)
        if contents.end != len(data):
            raise Damaged("A pack of the remote does not end where its segments do.")
        contents.check()
        lines = []
        for number in range(contents.segments):
            start, end = contents.place(number)
            with self._large if contents.length(number) > MOST else contextlib.nullcontext():
                plain, blobs = contents.open_all(number, data[start:end])
                for digest, offset, length in blobs:
                    if hashlib.sha256(plain[offset : offset + length]).digest() != digest:
                        raise Damaged(f"Blob {digest.hex()} is altered.")
                    lines.append(indexes.LINE.pack(number, self._keys.blob_id(digest), length))
                del plain
        return b"".join(lines)

    def _write(self) -> None:
        """Write a list of what is in none."""
        if self._unwritten and not self._dry:
            name = f"{names.VETTED}{now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}"
            if not self._transport.create(name, vetted.encode(self._unwritten)):
                raise RemoteError(f"{self._transport.where}: {name} already exists; run again.")
        self._unwritten, self._size = {}, 0
