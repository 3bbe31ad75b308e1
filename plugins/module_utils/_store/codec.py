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

from .._base import Damaged, UsageError

NONE, ZSTD, ZLIB = "", ".zst", ".zz"
SUFFIXES = (NONE, ZSTD, ZLIB)
#: Measured on Debian trees in packs of 1 MiB: two thirds of level 3's time, and 4% more bytes.
_ZSTD_LEVEL = 2
_ZLIB_LEVEL = 4
#: Below this gain a compressed form is not worth the reader's time.
_WORTH = 0.97

#: Room for decompression up to this size is kept by each thread for the next time.
_KEEP = 32 << 20

Pair = t.Tuple[t.Callable[[bytes], bytes], t.Callable[[bytes, int], bytes]]


def _standard_zstd() -> Pair:
    from compression import zstd  # Python 3.14 and newer

    def decompress(data: bytes, limit: int) -> bytes:
        worker = zstd.ZstdDecompressor()
        out = worker.decompress(data, max_length=limit + 1)
        if not worker.eof:
            raise ValueError("truncated or larger than expected")
        return out

    return (lambda data: zstd.compress(data, level=_ZSTD_LEVEL)), decompress


def _package_zstd() -> Pair:
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

    return compress, decompress


def _system_zstd() -> Pair:
    lib = ctypes.CDLL("libzstd.so.1")
    for name in ("ZSTD_compressBound", "ZSTD_compressCCtx", "ZSTD_decompress"):
        getattr(lib, name).restype = ctypes.c_size_t
    lib.ZSTD_createCCtx.restype = ctypes.c_void_p
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

    return compress, decompress


def _find_zstd() -> t.Optional[Pair]:
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
        small = _zstd[0](data)
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
        plain = _zstd[1](data, limit) if suffix == ZSTD and _zstd is not None else _zlib_decompress(data, limit)
    except Exception as error:  # each library has its own family of errors, and all mean the same here
        raise Damaged(f"Stored data does not decompress: {error}.") from None
    if len(plain) > limit:
        raise Damaged("Stored data is larger than expected.")
    return plain
