# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What the beginning of a file tells of it: whether it looks encrypted or wiped, and so lost to its owner.

Encrypted bytes are spread evenly over all values, and begin as no known format does. Pearson's chi-square test tells them from anything that a
program can read without a key; what a compressor writes is even as well, and is known by its signature. What cannot be told counts as sound.

Sources: NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.5.15 (the chi-square test); RFC 1950, RFC 1952, RFC 4880, RFC 8878; APPNOTE.TXT of
PKWARE (the flag of encrypted entries); file(1)'s list of signatures.
"""

from __future__ import annotations

import base64
import binascii
import re

#: Bytes from the start of a file that are looked at.
HEAD = 8192
_WINDOW = 4096
#: Fewer bytes tell nothing.
_LEAST = 48
#: Of 256 values, the statistic of random bytes is 255 on average, with a standard deviation of 22.6: five of these above.
_EVEN = 255 + 5 * 22.6
#: What compressors of single files write.
_COMPRESSED = (
    b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x5d\0\0", b"LZIP", b"\x89LZO", b"\x1f\x9d", b"PK\x03\x04",
)  # fmt: skip
#: Other formats that are compressed, or hold what is.
_KNOWN = (
    b"7z\xbc\xaf\x27\x1c", b"Rar!", b"MSCF", b"PK\x05\x06",
    b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"OggS", b"fLaC", b"ID3", b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"wOFF", b"wOF2",
    b"%PDF", b"\x7fELF", b"MZ", b"PACK", b"DIRC", b"\xfftOc", b"hsqs", b"QFI\xfb", b"BORG_SEG", b"!<arch>", b"\xed\xab\xee\xdb", b"SQLite format 3\0",
    b"LUKS\xba\xbe", b"\x93NUMPY", b"\x89HDF", b"PAR1", b"ORC", b"Obj\x01", b"II*\0", b"MM\0*", b"\xca\xfe\xba\xbe", b"KDMV", b"vhdxfile", b"glTF",
)  # fmt: skip
_MPEG = re.compile(rb"\xff[\xe2-\xfb]")
#: What tools that encrypt write first.
_ENCRYPTED = (b"Salted__", b"age-encryption.org/", b"-----BEGIN PGP MESSAGE", b"-----BEGIN AGE ENCRYPTED", b"$ANSIBLE_VAULT;")
_ARMOUR = re.compile(rb"[A-Za-z0-9+/_-]{64,}={0,2}\Z")
_HEX = re.compile(rb"[0-9A-Fa-f]{64,}\Z")


def is_compressed(head: bytes) -> bool:
    """Whether a file says that a compressor wrote it, and it is not encrypted. An archive of each file of a tree is made by who wants a password for it."""
    return head.startswith(_COMPRESSED) and not _is_locked_zip(head)


def is_git_pack(head: bytes) -> bool:
    """Whether a file is a pack of git's, by its signature (gitformat-pack(5))."""
    return head.startswith(b"PACK\0\0\0")


def is_lost(head: bytes) -> bool:
    """Whether a file that begins so looks encrypted, or was overwritten with one and the same byte.

    :param head: its first `HEAD` bytes.
    """
    if len(head) < _LEAST:
        return False
    if head.startswith(_ENCRYPTED) or _is_locked_zip(head):
        return True
    if head.count(head[0]) == len(head):
        return True
    if head.startswith(_COMPRESSED + _KNOWN) or head[4:8] == b"ftyp" or _MPEG.match(head) or is_zlib(head):
        return False
    if head[:_WINDOW].isascii():
        return _is_even(_decoded(head[:_WINDOW]))
    return _is_even(head[:_WINDOW]) or len(head) == HEAD and _is_even(head[_WINDOW:])


def _is_locked_zip(head: bytes) -> bool:
    return head.startswith(b"PK\x03\x04") and len(head) > 6 and bool(head[6] & 1)


def is_zlib(head: bytes) -> bool:
    """The two bytes before a zlib stream: deflate with a window of 32 KiB, and a check (RFC 1950, 2.2)."""
    return len(head) > 1 and head[0] == 0x78 and (head[0] << 8 | head[1]) % 31 == 0


def _decoded(text: bytes) -> bytes:
    """The bytes that a text of hexadecimal digits or in base64 stands for; none for other texts."""
    digits = b"".join(text.split())
    try:
        if _HEX.match(digits):
            return binascii.unhexlify(digits[: len(digits) & ~1])
        if _ARMOUR.match(digits):
            return base64.b64decode(digits[: len(digits) & ~3], b"-_" if b"-" in digits or b"_" in digits else None)
    except ValueError:
        pass
    return b""


def _is_even(data: bytes) -> bool:
    """Whether all values of a byte are about as frequent, as far as so many bytes can tell."""
    size = len(data)
    if size < _LEAST:
        return False
    squares = sum(count * count for count in map(data.count, range(256)) if count)
    return squares * 256 / size - size < _EVEN
