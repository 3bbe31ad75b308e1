# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The age format: bytes sealed to recipients, which only an identity opens. `age -d` opens what this writes.

::

    age-encryption.org/v1
    -> X25519 <ephemeral share>      once for each recipient:
    <wrapped file key>               the file key, sealed with what share and recipient agree on
    --- <MAC of the header>
    16 bytes nonce, then the payload in chunks of 64 KiB, each sealed by itself

The primitives are those of python3-cryptography: X25519, HKDF, ChaCha20-Poly1305. Where that is missing, the program age does the same. Source:
age-encryption.org/v1 (C2SP), BIP 173 for the text of keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import io
import os
import re
import typing as t

from .._base import Damaged, RemoteError, UsageError
from . import age_program
from .keys import Parts

_INTRO = b"age-encryption.org/v1\n"
_LABEL = b"age-encryption.org/v1/X25519"
_CHUNK, _TAG = 64 << 10, 16
#: Chunks that are opened at once.
_PIECE = 16
_RECIPIENT, _IDENTITY = "age", "age-secret-key-"
_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
#: The header for one recipient, with the nonce, is not longer.
_HEADER = 256
_OWN_HEADER = re.compile(rb"age-encryption\.org/v1\n-> X25519 ([A-Za-z0-9+/]{43})\n([A-Za-z0-9+/]{43})\n--- ([A-Za-z0-9+/]{43})\n")
#: The longest header that is read: some hundred recipients.
_HEADER_MOST = 64 << 10


class _Primitives(t.NamedTuple):
    #: (secret, public of another) -> 32 bytes that both can compute
    agree: t.Callable[[bytes, bytes], bytes]
    #: secret -> public
    public: t.Callable[[bytes], bytes]
    #: key -> an object with encrypt and decrypt (nonce, data, None)
    cipher: t.Callable[[bytes], t.Any]
    #: what `decrypt` raises for bytes that were altered, and `agree` for a share that is none
    errors: t.Tuple[t.Type[Exception], ...]


def _primitives() -> t.Optional[_Primitives]:
    """Those of the library; None where it is missing and the program age takes its place."""
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    except ImportError:
        if age_program.is_there():
            return None
        raise RemoteError("Sealed remotes need the Python package cryptography, or age; install python3-cryptography on this host, then run again.") from None
    try:
        ChaCha20Poly1305(bytes(32))
    except Exception:  # a host in FIPS mode; each version has another error for it
        raise RemoteError("Sealed remotes need ChaCha20-Poly1305, which this host does not allow (FIPS mode); push from another host.") from None

    def agree(secret: bytes, share: bytes) -> bytes:
        return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(share))

    def public(secret: bytes) -> bytes:
        return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    return _Primitives(agree, public, ChaCha20Poly1305, (InvalidTag, ValueError))


def derive(key: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869), 32 bytes."""
    extracted = hmac.new(salt or bytes(32), key, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\1", hashlib.sha256).digest()


# ---- keys as text


def new_identity() -> str:
    """A new identity as text, which opens what is sealed to its recipient."""
    return identity(os.urandom(32))


def identity(secret: bytes) -> str:
    """The text of an identity. :param secret: 32 bytes."""
    return _encode(_IDENTITY, secret).upper()


def recipient(text: str) -> str:
    """The recipient of an identity, as text."""
    tools, secret = _primitives(), _secret(text)
    return _encode(_RECIPIENT, tools.public(secret)) if tools is not None else age_program.recipient(identity(secret))


def _secret(text: str) -> bytes:
    return _decode(_IDENTITY, text.lower() if text.isupper() else text)


def _encode(prefix: str, data: bytes) -> str:
    """BIP 173."""
    values = _regroup(data, 8, 5, True)
    check = _polymod([*_expanded(prefix), *values, *[0] * 6]) ^ 1
    return prefix + "1" + "".join(_CHARSET[value] for value in [*values, *((check >> 5 * (5 - place)) & 31 for place in range(6))])


def _decode(prefix: str, text: str) -> bytes:
    """The 32 bytes of a key; UsageError, which does not quote it, for anything else."""
    found, _one, data = text.rpartition("1")
    values = [_CHARSET.find(letter) for letter in data]
    if found != prefix or len(values) < 6 or min(values) < 0 or _polymod([*_expanded(prefix), *values]) != 1:
        raise UsageError(f"A key is not one of age (it should begin with {prefix.upper() if prefix == _IDENTITY else prefix}1); correct the key file.")
    key = bytes(_regroup(values[:-6], 5, 8, False))
    if len(key) != 32:
        raise UsageError("A key of age has the wrong length; correct the key file.")
    return key


def _expanded(prefix: str) -> t.List[int]:
    return [*(ord(letter) >> 5 for letter in prefix), 0, *(ord(letter) & 31 for letter in prefix)]


def _polymod(values: t.Iterable[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, number in enumerate(_GENERATOR):
            if top >> bit & 1:
                check ^= number
    return check


def _regroup(data: t.Iterable[int], size: int, wanted: int, pad: bool) -> t.List[int]:
    """Numbers of `size` bits as numbers of `wanted` bits."""
    value = bits = 0
    found = []
    for item in data:
        value = value << size | item
        bits += size
        while bits >= wanted:
            bits -= wanted
            found.append(value >> bits & (1 << wanted) - 1)
    if pad and bits:
        found.append(value << (wanted - bits) & (1 << wanted) - 1)
    return found


# ---- files


def seal(data: bytes, recipients: t.Sequence[str]) -> bytes:
    """An age file with these bytes, for each of the recipients."""
    tools, key, nonce = _primitives(), os.urandom(16), os.urandom(16)
    keys = [_decode(_RECIPIENT, text) for text in recipients]
    if tools is None:
        return age_program.seal(data, recipients)
    header = bytearray(_INTRO)
    for public in keys:
        ephemeral = os.urandom(32)
        share = tools.public(ephemeral)
        wrapped = tools.cipher(derive(tools.agree(ephemeral, public), share + public, _LABEL)).encrypt(bytes(12), key, None)
        header += b"-> X25519 " + _base64(share) + b"\n" + _base64(wrapped) + b"\n"
    header += b"---"
    mac = hmac.new(derive(key, b"", b"header"), header, hashlib.sha256).digest()
    cipher, view = tools.cipher(derive(key, nonce, b"payload")), memoryview(data)
    last = max(len(data) - 1, 0) // _CHUNK
    sealed = io.BytesIO()  # not a list of chunks, which would be there beside the whole
    sealed.write(bytes(header) + b" " + _base64(mac) + b"\n" + nonce)
    for number in range(last + 1):
        sealed.write(cipher.encrypt(_nonce(number, last), bytes(view[number * _CHUNK : (number + 1) * _CHUNK]), None))
    return sealed.getvalue()


def unseal(data: bytes, identities: t.Sequence[str]) -> bytes:
    """The bytes of an age file; Damaged where it was altered, or is for none of the identities."""
    tools, secrets = _primitives(), [_secret(text) for text in identities]
    if tools is None:
        return age_program.unseal(data, [identity(secret) for secret in secrets])
    opened = Opened(data, secrets, tools)
    return opened.chunks(memoryview(data)[opened.start :], 0, True)


def seals_alike(data: bytes, size: int) -> bool:
    """Whether a file has the form that `seal` gives to `size` bytes for one recipient. Programs differ in what else they open."""
    header = _OWN_HEADER.match(data)
    if header is None or any(_base64(_plain(text)) != text for text in header.groups()):
        return False
    return len(data) == header.end() + 16 + size + _TAG * max(-(-size // _CHUNK), 1)


def opened(head: bytes, identities: t.Sequence[str]) -> t.Optional[Opened]:
    """An age file that is read in parts; Damaged as of `unseal`. None where only the program age is there, which opens whole files.

    :param head: its first bytes, with all of its header.
    """
    tools = _primitives()
    return Opened(head, [_secret(text) for text in identities], tools) if tools is not None else None


def stored_size(size: int) -> int:
    """How many bytes of an age file for one recipient have its first `size` plain bytes, at most."""
    return _HEADER + -(-size // _CHUNK) * (_CHUNK + _TAG)


class Opened(Parts):
    """An age file whose header was read. Each chunk is opened by itself.

    :ivar start: where its payload starts.
    """

    def __init__(self, head: bytes, secrets: t.Sequence[bytes], tools: _Primitives) -> None:
        end = head.find(b"\n---", 0, _HEADER_MOST)
        line_end = head.find(b"\n", end + 1)
        if not head.startswith(_INTRO) or end < 0 or line_end < 0:
            raise Damaged("What should be sealed is not an age file.")
        key = _file_key(head[len(_INTRO) : end].split(b"\n"), secrets, tools)
        mac = hmac.new(derive(key, b"", b"header"), head[: end + 4], hashlib.sha256).digest()
        if not hmac.compare_digest(b" " + _base64(mac), head[end + 4 : line_end]):
            raise Damaged("The header of an age file is altered.")
        self.start = line_end + 17
        self._tools, self._cipher = tools, tools.cipher(derive(key, head[line_end + 1 : self.start], b"payload"))

    def first(self, data: bytes, complete: bool) -> bytes:
        """The plain bytes of all chunks that are in the first bytes of the file."""
        size = _CHUNK + _TAG
        body = memoryview(data)[self.start :]
        return self.chunks(body if complete else body[: len(body) // size * size], 0, complete)

    def stored(self, start: int, end: int) -> t.Tuple[int, int]:
        """The bytes of the file that have a range of the plain bytes, which is not empty: whole chunks. The last one may be shorter."""
        size = _CHUNK + _TAG
        return self.start + start // _CHUNK * size, self.start + (end + _CHUNK - 1) // _CHUNK * size

    def open(self, start: int, data: bytes) -> t.Tuple[int, bytes]:
        """Where in the plain bytes a range of the file begins, and its plain bytes. :param start: of the range, from `stored`. Damaged where it is altered."""
        first = (start - self.start) // (_CHUNK + _TAG)
        try:
            return first * _CHUNK, self.chunks(memoryview(data), first, False)
        except Damaged:
            return first * _CHUNK, self.chunks(memoryview(data), first, True)

    def pieces(self, data: bytes) -> t.Iterator[bytes]:
        """All plain bytes of the file, a MiB at a time: a pack is not in memory twice."""
        step = _PIECE * (_CHUNK + _TAG)
        for start in range(self.start, max(len(data), self.start + 1), step):
            yield self.chunks(memoryview(data)[start : start + step], (start - self.start) // (_CHUNK + _TAG), start + step >= len(data))

    def chunks(self, body: memoryview, first: int, ends: bool) -> bytes:
        """The plain bytes of some chunks, from number `first` on. :param ends: the last of them is the last of the file."""
        size = _CHUNK + _TAG
        count = max(len(body) - 1, 0) // size + 1
        last = first + count - 1 if ends else -1
        plain = io.BytesIO()  # not a list of chunks, which would be there beside the whole
        try:
            for number in range(count):
                plain.write(self._cipher.decrypt(_nonce(first + number, last), bytes(body[number * size : (number + 1) * size]), None))
        except self._tools.errors:
            raise Damaged("An age file is altered or truncated.") from None
        return plain.getvalue()


def _file_key(lines: t.List[bytes], secrets: t.Sequence[bytes], tools: _Primitives) -> bytes:
    for secret in secrets:
        public = tools.public(secret)
        for stanza, wrapped in zip(lines, lines[1:]):
            words = stanza.split(b" ")
            if words[:2] != [b"->", b"X25519"] or len(words) != 3:
                continue
            try:
                share = _plain(words[2])
                return t.cast(bytes, tools.cipher(derive(tools.agree(secret, share), share + public, _LABEL)).decrypt(bytes(12), _plain(wrapped), None))
            except tools.errors:
                continue
    raise Damaged("An age file is not for this identity, or is altered.")


def _nonce(number: int, last: int) -> bytes:
    return number.to_bytes(11, "big") + bytes([number == last])


def _base64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _plain(text: bytes) -> bytes:
    """ValueError for anything but base64 without padding."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
