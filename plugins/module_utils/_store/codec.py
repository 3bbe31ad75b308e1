# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Compression: which there is, and how a file's name says which was used.

zstd comes from the standard library (Python 3.14), from the `zstandard` package, or straight from the system's libzstd, which
dpkg, rpm and systemd bring to almost every host; zlib is always there. All give the same files: a name ends in
`.zst` or `.zz`, or in nothing where compression would not have helped.
"""

from __future__ import annotations

import ctypes
import threading
import typing as t
import zlib

from .._base import Damaged, UsageError, tolerated

NONE, ZSTD, ZLIB = "", ".zst", ".zz"
SUFFIXES = (NONE, ZSTD, ZLIB)
#: Measured on Debian trees in packs of 1 MiB: two thirds of level 3's time, and 4% more bytes.
_ZSTD_LEVEL = 2
_ZLIB_LEVEL = 4
#: Below this gain a compressed form is not worth the reader's time.
_WORTH = 0.97

#: Room for decompression up to this size is kept by each thread for the next time.
_KEEP = 32 << 20

#: The magic number of a zstd frame, and the largest window that all libraries take (RFC 8878).
_FRAME, _WINDOW_LOG_MOST = b"\x28\xb5\x2f\xfd", 27
#: Bytes of a damaged form that are decompressed at once: an error costs what the last of them gave, and 512 bytes give at most 16 MiB.
_PIECE = 512


class Zstd(t.NamedTuple):
    """`begin` starts a stream: it gives a function from the next bytes of a form to the plain bytes that they complete."""

    compress: t.Callable[[bytes], bytes]
    decompress: t.Callable[[bytes, int], bytes]
    begin: t.Callable[[], t.Callable[[bytes], bytes]]


def _standard_zstd() -> Zstd:
    from compression import zstd  # Python 3.14 and newer

    def decompress(data: bytes, limit: int) -> bytes:
        worker = zstd.ZstdDecompressor()
        out = worker.decompress(data, max_length=limit + 1)
        if not worker.eof:
            raise ValueError("truncated or larger than expected")
        return out

    return Zstd(lambda data: zstd.compress(data, level=_ZSTD_LEVEL), decompress, lambda: zstd.ZstdDecompressor().decompress)


def _package_zstd() -> Zstd:
    import zstandard

    own = threading.local()  # contexts are costly to make and must not be shared between threads

    def compress(data: bytes) -> bytes:
        try:
            context = own.compressor
        except AttributeError:
            context = own.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        return context.compress(data)

    def decompress(data: bytes, limit: int) -> bytes:
        size = zstandard.frame_content_size(data)
        if size > limit:
            raise ValueError("larger than expected")
        try:
            context = own.decompressor
        except AttributeError:
            context = own.decompressor = zstandard.ZstdDecompressor()
        if size == 0:
            return b""
        return context.decompress(data, max_output_size=limit if size < 0 else 0)

    return Zstd(compress, decompress, lambda: zstandard.ZstdDecompressor().decompressobj().decompress)


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer of zstd.h."""

    _fields_ = [("start", ctypes.c_char_p), ("size", ctypes.c_size_t), ("place", ctypes.c_size_t)]


def _system_zstd() -> Zstd:
    lib = ctypes.CDLL("libzstd.so.1")
    for name in ("ZSTD_compressBound", "ZSTD_compressCCtx", "ZSTD_decompress", "ZSTD_decompressStream", "ZSTD_freeDCtx"):
        getattr(lib, name).restype = ctypes.c_size_t
    lib.ZSTD_createCCtx.restype = lib.ZSTD_createDCtx.restype = ctypes.c_void_p
    lib.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong
    own = threading.local()

    def compress(data: bytes) -> bytes:
        try:
            context, buffer = own.compressor
        except AttributeError:
            context, buffer = own.compressor = ctypes.c_void_p(lib.ZSTD_createCCtx()), bytearray()
        bound = lib.ZSTD_compressBound(ctypes.c_size_t(len(data)))
        if len(buffer) < bound:
            buffer = bytearray(bound)
            own.compressor = (context, buffer)
        room = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        size = lib.ZSTD_compressCCtx(
            context, room, ctypes.c_size_t(len(buffer)), bytes(data), ctypes.c_size_t(len(data)), ctypes.c_int(_ZSTD_LEVEL)
        )
        del room
        if lib.ZSTD_isError(ctypes.c_size_t(size)):
            raise ValueError("libzstd could not compress")
        return bytes(memoryview(buffer)[:size])

    def decompress(data: bytes, limit: int) -> bytes:
        size = lib.ZSTD_getFrameContentSize(data, ctypes.c_size_t(len(data)))
        if size > limit:  # also the two largest numbers, which mean "unknown" and "not zstd": we always write the size
            raise ValueError("not a zstd frame, or larger than expected")
        try:
            room = own.room
        except AttributeError:
            room = ctypes.create_string_buffer(1 << 20)
        if len(room) < size:
            room = ctypes.create_string_buffer(size)
        if size <= _KEEP:
            own.room = room
        got = lib.ZSTD_decompress(room, ctypes.c_size_t(len(room)), data, ctypes.c_size_t(len(data)))
        if lib.ZSTD_isError(ctypes.c_size_t(got)) or got != size:
            raise ValueError("corrupt zstd frame")
        return ctypes.string_at(room, size)

    return Zstd(compress, decompress, lambda: _system_stream(lib))


def _system_stream(lib: ctypes.CDLL) -> t.Callable[[bytes], bytes]:
    """A stream of libzstd: ZSTD_decompressStream of zstd.h."""
    import weakref  # only here: a start should not wait for what it brings

    context = ctypes.c_void_p(lib.ZSTD_createDCtx())
    room = ctypes.create_string_buffer(1 << 17)

    def more(data: bytes) -> bytes:
        source, found = _Buffer(data, len(data), 0), bytearray()
        while True:
            into = _Buffer(ctypes.cast(room, ctypes.c_char_p), len(room), 0)
            left = lib.ZSTD_decompressStream(context, ctypes.byref(into), ctypes.byref(source))
            if lib.ZSTD_isError(ctypes.c_size_t(left)):
                raise ValueError("corrupt zstd frame")
            found += room.raw[: into.place]
            if into.place < into.size and source.place == source.size:
                return bytes(found)

    weakref.finalize(more, lib.ZSTD_freeDCtx, context)
    return more


def _find_zstd() -> t.Optional[Zstd]:
    for source in (_standard_zstd, _package_zstd, _system_zstd):
        try:
            return source()
        except (ImportError, OSError, AttributeError):
            continue
    return None


_zstd = _find_zstd()


def _zlib_decompress(data: bytes, limit: int) -> bytes:
    worker = zlib.decompressobj()
    out = worker.decompress(data, limit + 1)
    if not worker.eof or len(out) > limit:
        raise ValueError("truncated or larger than expected")
    return out


def choose(compression: str) -> str:
    """The suffix that `auto`, `none`, `zstd` or `zlib` means on this host; UsageError where zstd was named and is missing."""
    if compression == "none":
        return NONE
    if compression == "zlib":
        return ZLIB
    if compression == "zstd" and _zstd is None:
        raise UsageError("Compression zstd needs python3-zstandard (or libzstd.so.1) on this host; install it or use auto.")
    if compression not in ("auto", "zstd"):
        raise UsageError(f"Unknown compression {compression!r}; use auto, none, zstd or zlib.")
    return ZLIB if _zstd is None else ZSTD


def compress(data: bytes, suffix: str) -> t.Tuple[str, bytes]:
    """The form to store `data` in: (suffix, bytes); the plain form where compression would not help."""
    if suffix == NONE or len(data) < 64:
        return NONE, data
    if suffix == ZSTD and _zstd is not None:
        small = _zstd.compress(data)
    else:
        small = zlib.compress(data, _ZLIB_LEVEL)
    return (suffix, small) if len(small) < len(data) * _WORTH else (NONE, data)


def decompress(data: bytes, suffix: str, limit: int) -> bytes:
    """The plain bytes of a stored form, at most `limit` of them; Damaged for anything that is not such a form."""
    if suffix == NONE:
        if len(data) > limit:
            raise Damaged("Stored data is larger than expected.")
        return data
    if suffix == ZSTD and _zstd is None:
        raise UsageError("This store contains zstd data; install python3-zstandard (or libzstd.so.1) on this host to read it.")
    try:
        plain = _zstd.decompress(data, limit) if suffix == ZSTD and _zstd is not None else _zlib_decompress(data, limit)
    except Exception as error:  # each library has its own family of errors, and all mean the same here
        raise Damaged(f"Stored data does not decompress: {error}.") from None
    if len(plain) > limit:
        raise Damaged("Stored data is larger than expected.")
    return plain


def is_one_frame(data: bytes, size: int) -> bool:
    """Whether a zstd form is one frame that says how many plain bytes it has, with nothing behind it, as `compress` makes it.

    Libraries differ in what else they decompress. The bytes themselves are not looked at. :param size: of the plain bytes.
    """
    if data[:4] != _FRAME or len(data) < 6:
        return False
    flags = data[4]
    single, checked = flags >> 5 & 1, flags >> 2 & 1
    place, width = 5 + (not single), (single, 2, 4, 8)[flags >> 6]
    window_log = (size - 1).bit_length() if single else 10 + (data[5] >> 3) + bool(data[5] & 7)
    said = int.from_bytes(data[place : place + width], "little") + (256 if width == 2 else 0)
    if flags & 0b1011 or not width or said != size or window_log > _WINDOW_LOG_MOST:  # a reserved bit, or a dictionary
        return False
    place += width
    last = 0
    while not last and place < len(data):
        header = int.from_bytes(data[place : place + 3], "little")
        last, kind = header & 1, header >> 1 & 3
        place += 3 + (1 if kind == 1 else header >> 3)  # a run of one byte
    return bool(last) and place + 4 * checked == len(data)


def beginning(data: bytes, suffix: str, limit: int) -> bytes:
    """The plain bytes of a damaged form up to the damage, at most `limit`. They may be false: each blob in them is to be hashed."""
    if suffix == NONE or (suffix == ZSTD and _zstd is None):
        return data[:limit] if suffix == NONE else b""
    more = _zstd.begin() if suffix == ZSTD and _zstd is not None else zlib.decompressobj().decompress
    plain = bytearray()
    with tolerated(Exception):  # the damage; each library has its own family of errors
        for start in range(0, len(data), _PIECE):
            plain += more(data[start : start + _PIECE])
            if len(plain) >= limit:
                break
    return bytes(plain[:limit])
