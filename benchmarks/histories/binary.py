# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are no texts: what their first bytes say, and how random the rest looks."""

from __future__ import annotations

import base64
import bz2
import functools
import gzip
import hashlib
import io
import lzma
import os
import random
import sqlite3
import struct
import tempfile
import zipfile
import zlib
from typing import Callable

from . import text

#: Coded pictures and sound are not quite random: some bytes come a little more often.
_CODED = bytes(code if code % 32 else code // 2 for code in range(256))
#: Machine code: few opcodes make up most of it.
_FREQUENT = bytes.fromhex("4889e5c38b45f8e8ff0f8500488d3d4c5d415c90c74424be31d283ec1083c0740aeb")
_PAGE = 8192


def noise(dice: random.Random, size: int) -> bytes:
    return dice.randbytes(size)


def coded(dice: random.Random, size: int) -> bytes:
    return dice.randbytes(size).translate(_CODED)


@functools.lru_cache(maxsize=None)
def _machine_code() -> bytes:
    dice = random.Random("code")
    pieces = []
    for _time in range(8000):
        pieces.append(bytes(dice.choices(_FREQUENT, k=dice.randint(2, 9))) + struct.pack("<i", dice.randrange(-4096, 4096)))
    return b"".join(pieces)


def _pieces(dice: random.Random, pool: bytes, size: int) -> bytes:
    """Short pieces from all over a pool, in an order of their own."""
    made, length = [], 0
    while length < size:
        at, take = dice.randrange(len(pool) - 600), dice.randint(60, 600)
        made.append(pool[at : at + take])
        length += take
    return b"".join(made)[:size]


def elf(dice: random.Random, size: int) -> bytes:
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQ", 3, 62, 1, 0x1040, 64, size)
    strings = "\0".join(text.names(dice, size // 60)).encode()
    return head + bytes(40) + _pieces(dice, _machine_code(), size * 3 // 4) + bytes(size // 16) + strings


def compiled(dice: random.Random, size: int) -> bytes:
    """__pycache__"""
    names = "\0".join(text.names(dice, size // 20)).encode()
    head = b"\xa7\r\r\n" + bytes(4) + struct.pack("<II", 1_760_000_000 + dice.randrange(9999), size)
    return head + b"\xe3" + _pieces(dice, _machine_code(), size // 2) + names


def gz(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=0)


def bz(data: bytes) -> bytes:
    return bz2.compress(data, 1)


def zst(data: bytes) -> bytes:
    """As zstd would: its magic number, and about as much as zlib needs, without what tells of zlib."""
    return b"\x28\xb5\x2f\xfd\x64" + zlib.compress(data, 3)[8:]


def br(data: bytes) -> bytes:
    """As brotli would: nothing tells of it, and all looks random."""
    size = max(8, len(zlib.compress(data, 9)) * 9 // 10)
    return random.Random(hashlib.sha256(data).digest()).randbytes(size)


def archive(dice: random.Random, members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(zipfile.ZipInfo(name, (2025, dice.randint(1, 12), 3, 4, 5, 6)), data, zipfile.ZIP_DEFLATED, compresslevel=1)
    return file.getvalue()


def docx(dice: random.Random, size: int) -> bytes:
    members = {"[Content_Types].xml": b"<Types/>", "word/document.xml": text.html(dice, size * 2)}
    if dice.random() < 0.4:
        members["word/media/image1.jpeg"] = jpeg(dice, size // 2)
    return archive(dice, members)


def jar(dice: random.Random, size: int) -> bytes:
    count = max(1, size // 4000)
    members = {f"org/{text.word(dice)}/{number}.class": b"\xca\xfe\xba\xbe\0\0\0\x34" + _pieces(dice, _machine_code(), 6000) for number in range(count)}
    return archive(dice, {"META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\n", **members})


def jpeg(dice: random.Random, size: int, label: bytes = b"") -> bytes:
    head = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x48\x00\x48\x00\x00"
    exif = b"Exif\0\0II*\0" + label.ljust(120, b"\0") + f"2025:{dice.randint(1, 12):02d}:11 10:20:30".encode()
    tables = b"\xff\xdb\x00\x43\x00" + bytes(range(16, 80)) + b"\xff\xc0\x00\x11\x08\x04\x00\x06\x00\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
    scan = b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00" + coded(dice, size).replace(b"\xff", b"\xff\x00")
    return head + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + tables + scan + b"\xff\xd9"


def relabelled(picture: bytes, label: bytes) -> bytes:
    """A JPEG with another label in its Exif header."""
    at = picture.find(b"Exif\0\0II*\0")
    return picture if at < 0 else picture[: at + 10] + label.ljust(120, b"\0") + picture[at + 130 :]


def png(dice: random.Random, size: int) -> bytes:
    width = max(16, int((size * 1.6) ** 0.5))
    grain = dice.randbytes(width * width).translate(bytes(code % 12 for code in range(256)))
    rows = b"".join(b"\1" + grain[row * width : (row + 1) * width] for row in range(width))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, width, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def mp4(dice: random.Random, size: int) -> bytes:
    table = b"".join(struct.pack(">I", 4000 + dice.randrange(900)) for _time in range(size // 2000))
    head = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"
    return head + struct.pack(">I", len(table) + 8) + b"moov" + table + struct.pack(">I", size + 8) + b"mdat" + coded(dice, size)


def pdf(dice: random.Random, size: int) -> bytes:
    made, number = [b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n"], 0
    while sum(map(len, made)) < size:
        stream = zlib.compress(text.prose(dice, 4000)) if dice.random() < 0.6 else coded(dice, 3000)
        number += 1
        made.append(f"{number} 0 obj\n<</Filter/FlateDecode/Length {len(stream)}>>\nstream\n".encode() + stream + b"\nendstream\nendobj\n")
    return b"".join(made) + b"trailer\n<</Root 1 0 R>>\nstartxref\n9\n%%EOF\n"


def woff(dice: random.Random, size: int) -> bytes:
    return b"wOF2\0\1\0\0" + struct.pack(">IHH", size, 14, 0) + bytes(28) + noise(dice, size)


def array(dice: random.Random, size: int) -> bytes:
    """numpy"""
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({size // 8},), }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + floats(dice, size)


def floats(dice: random.Random, size: int) -> bytes:
    """Doubles: all but sign and exponent are as good as random."""
    raw = bytearray(noise(dice, size // 8 * 8))
    raw[7::8] = raw[7::8].translate(bytes(0x3F + (code & 1) * 0x80 for code in range(256)))
    raw[6::8] = raw[6::8].translate(bytes(0xB0 + code % 48 for code in range(256)))
    return bytes(raw)


def model(dice: random.Random, size: int) -> bytes:
    """A checkpoint: a zip file whose members are stored, floats of single precision."""
    # The low bits of a mantissa are random, sign and exponent are not.
    raw = bytearray(noise(dice, size // 4 * 4))
    raw[3::4] = raw[3::4].translate(bytes(0x3C + code % 3 + (code & 1) * 0x80 for code in range(256)))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr(zipfile.ZipInfo("archive/data.pkl"), b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n")
        out.writestr(zipfile.ZipInfo("archive/data/0"), bytes(raw))
    return file.getvalue()


def gpg(dice: random.Random, size: int) -> bytes:
    return b"\x85\x02\x0c\x03" + noise(dice, 8) + b"\x01\x0f\xff" + noise(dice, 512) + b"\xd2\xea\x01" + noise(dice, size)


def age(dice: random.Random, size: int) -> bytes:
    key, mac = (base64.b64encode(noise(dice, 32)).rstrip(b"=") for _time in range(2))
    return b"age-encryption.org/v1\n-> X25519 " + key + b"\n" + mac + b"\n--- " + mac + b"\n" + noise(dice, size + 16)


def salted(dice: random.Random, size: int) -> bytes:
    """openssl enc"""
    return b"Salted__" + noise(dice, 8 + size // 16 * 16 + 16)


def locked_zip(dice: random.Random, size: int, name: str = "data") -> bytes:
    """A zip file with a password: by flag 1 its member is encrypted, and nothing else tells of it."""
    head = struct.pack("<HHHHHIIIHH", 20, 1, 8, 0x6A21, 0x5B3C, dice.getrandbits(32), size + 12, size * 3, len(name), 0) + name.encode()
    return b"PK\x03\x04" + head + noise(dice, size + 12) + b"PK\x05\x06" + bytes(18)


def seven(dice: random.Random, size: int) -> bytes:
    return b"7z\xbc\xaf\x27\x1c\0\4" + noise(dice, 4) + struct.pack("<QQI", size, 90, dice.getrandbits(32)) + noise(dice, size + 90)


def segment(dice: random.Random, size: int) -> bytes:
    """Of a borg repository."""
    made = b"BORG_SEG"
    while len(made) < size:
        length = dice.randint(2000, 20_000)
        made += struct.pack("<IIB", dice.getrandbits(32), length + 41, 0) + noise(dice, length + 32)
    return made


def loose(data: bytes, kind: str = "blob") -> tuple[str, bytes]:
    """(name, content) of a git object."""
    whole = f"{kind} {len(data)}\0".encode() + data
    name = hashlib.sha1(whole).hexdigest()
    return f"{name[:2]}/{name[2:]}", zlib.compress(whole)


def git_pack(objects: list[bytes]) -> bytes:
    made = b"PACK" + struct.pack(">II", 2, len(objects))
    for data in objects:
        made += bytes([0xB0 | len(data) & 15, len(data) >> 4 & 127]) + data
    return made + hashlib.sha1(made).digest()


def relation(dice: random.Random, pages: int) -> bytes:
    """Of PostgreSQL: pages with a header, line pointers, a gap, and rows at their end."""
    made = []
    for _time in range(pages):
        rows = text.text(dice, "prose", dice.randint(2500, 7000))[:7000] + dice.randbytes(600)
        lower = 24 + 4 * dice.randint(20, 100)
        head = struct.pack("<QHHHHHHI", dice.getrandbits(40), 0, 0, lower, _PAGE - len(rows), _PAGE, 0x2004, 0)
        pointers = b"".join(struct.pack("<I", 0x9F0000 | _PAGE - 80 * number) for number in range(lower // 4 - 6))
        made.append((head + pointers).ljust(_PAGE - len(rows), b"\0") + rows)
    return b"".join(page[:_PAGE] for page in made)


def journal(dice: random.Random, size: int) -> bytes:
    made = b"LPKSHHRH\0\0\0\0\0\0\0\0" + noise(dice, 64) + bytes(160)
    for line in text.lines(dice, "prose", size // 2):
        made += struct.pack("<QQQ", dice.getrandbits(24), 0, dice.getrandbits(48)) + b"MESSAGE=" + line.encode() + bytes(24)
    return made


def disk(dice: random.Random, size: int) -> bytes:
    """qcow2: clusters of programs, texts, pictures and nothing."""
    made = [b"QFI\xfb\0\0\0\3" + bytes(504)]
    for _time in range(size // 65_536):
        part = dice.choice((elf, text.prose, text.setting, jpeg, elf))(dice, 65_536 - dice.choice((0, 9000)))
        made.append(part[:65_536].ljust(65_536, b"\0"))
    return b"".join(made)


def luks(dice: random.Random, size: int) -> bytes:
    return b"LUKS\xba\xbe\0\2" + bytes(8) + b"sha256".ljust(4080, b"\0") + noise(dice, size)


def key(dice: random.Random, _size: int = 32) -> bytes:
    return noise(dice, 32)


def database(dice: random.Random, rows: int) -> bytes:
    """SQLite's own work."""
    return altered(None, [("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, body TEXT, hash BLOB)", []), *insertion(dice, rows)])


def insertion(dice: random.Random, rows: int) -> list[tuple[str, list]]:
    values = [(text.word(dice), " ".join(text.some(dice, dice.randint(8, 40))), dice.randbytes(16)) for _time in range(rows)]
    return [("INSERT INTO items (name, body, hash) VALUES (?, ?, ?)", values)]


def altered(data: bytes | None, statements: list[tuple[str, list]]) -> bytes:
    """A SQLite database after some statements."""
    with tempfile.TemporaryDirectory(prefix="histories-") as room:
        path = os.path.join(room, "db")
        if data is not None:
            with open(path, "wb") as file:
                file.write(data)
        link = sqlite3.connect(path, isolation_level=None)
        try:
            link.execute("PRAGMA synchronous = OFF")
            link.execute("PRAGMA journal_mode = MEMORY")
            for statement, values in statements:
                if values:
                    link.execute("BEGIN")
                    link.executemany(statement, values)
                    link.execute("COMMIT")
                else:
                    link.execute(statement)
        finally:
            link.close()
        with open(path, "rb") as file:
            return file.read()


Maker = Callable[[random.Random, int], bytes]
