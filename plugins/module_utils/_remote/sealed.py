# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Sealed remotes: which keys there are, and what each is for.

::

    recovery key (kept away from the hosts)        host key (one file on each host, 0600)
    identity of data                     ------->  its recipient
    identity of the catalog              ------->  its recipient
    domain secret                        ------->  naming key, identity of indexes, MAC key of this host

A host can write and cannot read back: packs and manifests are sealed to the data recipient, sidecars to that of the catalog. Indexes are readable for all
hosts of a domain, which find each other's blobs by them. The naming key makes ids of blobs that say nothing about content to others. The MAC key
signs the commits of its host, and no other's.

The recovery key is an identity file of age: its lines are the identities of data, catalog and indexes, and a comment has the domain secret. So `age -d -i`
opens every sealed object.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import typing as t

from .._base import Damaged, UsageError, files, newer, reason, show
from . import age, credential, names
from .keys import Keys, Parts

if t.TYPE_CHECKING:
    from . import commits

FORMAT = 1
_MOST = 1 << 20
_SECRET = re.compile(r"^# domain secret: ([0-9a-f]{64})\r?$", re.MULTILINE)
_IDENTITY = re.compile(r"^(AGE-SECRET-KEY-1\S+)\r?$", re.MULTILINE)
_HEX = re.compile(r"[0-9a-f]{64}\Z")


class HostKeys(t.NamedTuple):
    """What a host has: all as text."""

    host: str
    data: str
    catalog: str
    naming: str
    indexes: str
    mac: str

    def text(self) -> str:
        """The file's content."""
        return json.dumps({"keys": FORMAT, **self._asdict()}, indent=1) + "\n"


class Recovery(t.NamedTuple):
    """The recovery key."""

    data: str
    catalog: str
    domain: bytes

    @property
    def indexes(self) -> str:
        """The identity that opens the lists of indexes."""
        return age.identity(age.derive(self.domain, b"", b"volt.backup index"))

    def text(self) -> str:
        """The file's content."""
        return (
            "# Recovery key of volt.backup. With it, all backups of its remotes can be read; without it, none. Keep it off the hosts.\n"
            f"# domain secret: {self.domain.hex()}\n# data\n{self.data}\n# catalog\n{self.catalog}\n# indexes\n{self.indexes}\n"
        )

    def of_host(self, host: str) -> HostKeys:
        """The keys of one host. :param host: what it is called on the remote."""
        if not names.HOST.match(host):
            raise UsageError(f"Host name {host!r} cannot be used on a remote; use letters, digits, dots, underscores and dashes.")
        naming, mac = (age.derive(self.domain, b"", f"volt.backup {use}".encode()).hex() for use in ("naming", f"mac {host}"))
        return HostKeys(host, age.recipient(self.data), age.recipient(self.catalog), naming, self.indexes, mac)


def new_recovery() -> Recovery:
    """A recovery key that nothing was sealed for yet."""
    return Recovery(age.new_identity(), age.new_identity(), os.urandom(32))


def read_recovery(path: str) -> Recovery:
    """A recovery key from its file; UsageError where it is none."""
    return parse_recovery(_read(path), show(os.fsencode(path)))


def recovery_of(text: t.Optional[str]) -> t.Optional[Recovery]:
    """The recovery key that an option has, if it has one."""
    return parse_recovery(text, "Option `identity`") if text is not None else None


def parse_recovery(text: str, what: str) -> Recovery:
    """A recovery key from its text; UsageError where it is none. :param what: the text is called so."""
    secret, identities = _SECRET.search(text), _IDENTITY.findall(text)
    if secret is None or len(identities) < 2:
        raise UsageError(f"{what} is not a recovery key of volt.backup; give the file of one, or its content.")
    return Recovery(identities[0], identities[1], bytes.fromhex(secret[1]))


def read_host(path: str) -> HostKeys:
    """The keys of a host from their file, or from a credential; UsageError where they are none."""
    try:
        value = json.loads(_read(path))
        number = value.pop("keys")
        if isinstance(number, int) and not isinstance(number, bool) and number > FORMAT:
            raise newer(f"Key file {show(os.fsencode(path))}")
        found = HostKeys(**value)
        if number != FORMAT or not all(isinstance(item, str) for item in found) or not all(_HEX.match(item) for item in (found.naming, found.mac)):
            raise ValueError(number)
        return found
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{show(os.fsencode(path))} is not a file of host keys of volt.backup; name the file that was made for this host.") from None


def write(path: str, text: str) -> None:
    """Write a key file that must not exist yet, readable for its owner only."""
    try:
        files.write_file(os.path.abspath(path), text.encode(), exclusive=True)
    except FileExistsError:
        raise UsageError(f"{show(os.fsencode(path))} exists, and keys are not overwritten; choose another file.") from None
    except OSError as error:
        raise UsageError(f"{show(os.fsencode(path))} cannot be written: {reason(error)}; fix that, then try again.") from None


def _read(path: str) -> str:
    name = credential.named(path)
    if name is not None:
        return credential.read(name)
    try:
        return files.read_file(path, _MOST).decode("utf-8", "replace")
    except OSError as error:
        raise UsageError(f"Key file {show(os.fsencode(path))} cannot be read: {reason(error)}; correct the path.") from None


class Sealed(Keys):
    """What a host does with its bytes. :param own: its keys. :param recovery: what opens what hosts have sealed, if that is here."""

    sealed = True

    def __init__(self, own: HostKeys, recovery: t.Optional[Recovery] = None) -> None:
        self._own, self._recovery = own, recovery
        self._naming, self._mac = bytes.fromhex(own.naming), bytes.fromhex(own.mac)
        self._index = age.recipient(own.indexes)

    @property
    def host(self) -> str:
        """What the host of these keys is called on the remote."""
        return self._own.host

    @property
    def domain(self) -> t.Optional[str]:
        return hmac.new(self._naming, b"volt.backup domain", hashlib.sha256).hexdigest()[:32]

    def blob_id(self, digest: bytes) -> bytes:
        return hmac.digest(self._naming, digest, "sha256")

    def group(self, workload: str, kind: str) -> str:
        return hmac.new(self._naming, f"{workload}\0{kind}".encode(), hashlib.sha256).hexdigest()

    def seal_data(self, data: bytes) -> bytes:
        return age.seal(data, [self._own.data])

    def seal_catalog(self, data: bytes) -> bytes:
        return age.seal(data, [self._own.catalog])

    def check_opens(self) -> None:
        age.recipient(self._recovery_key.data)

    def open_data(self, data: bytes) -> bytes:
        return age.unseal(data, [self._recovery_key.data])

    def seals_alike(self, data: bytes, size: int) -> bool:
        return age.seals_alike(data, size)

    def stored_size(self, size: int) -> int:
        return age.stored_size(size)

    def opened(self, head: bytes) -> t.Optional[Parts]:
        return age.opened(head, [self._recovery_key.data])

    def seal_list(self, data: bytes) -> bytes:
        return age.seal(data, [self._index])

    def open_list(self, data: bytes) -> bytes:
        return age.unseal(data, [self._own.indexes])

    def open_catalog(self, data: bytes) -> bytes:
        return age.unseal(data, [self._recovery_key.catalog])

    @property
    def _recovery_key(self) -> Recovery:
        if self._recovery is None:
            how = "give it with `identity` (on the command line, `--identity FILE`)"
            raise UsageError(f"Backups on a sealed remote can only be read with the recovery key; {how}.")
        return self._recovery

    def check(self, found: commits.Read) -> None:
        push = found.commit.push
        if not found.sealed or found.mac is None:
            raise Damaged(f"Commit {push} is not sealed, although the remote is; do not use it.")
        mac = self._mac if push.host == self._own.host else self._mac_of(push.host)
        if mac is not None and not hmac.compare_digest(found.mac, hmac.new(mac, found.signed, hashlib.sha256).hexdigest()):
            raise Damaged(f"Commit {push} does not have the signature of its host; do not use it.")

    def _mac_of(self, host: str) -> t.Optional[bytes]:
        """The key of another host, which only the recovery key can make."""
        return bytes.fromhex(self._recovery.of_host(host).mac) if self._recovery is not None else None

    def sign(self, line: bytes) -> t.Optional[str]:
        return hmac.new(self._mac, line, hashlib.sha256).hexdigest()
