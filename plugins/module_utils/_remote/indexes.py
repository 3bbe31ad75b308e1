# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The index format: which blobs are in which pack.

::

    8 bytes    "VOLTRIX1"
    u32        length of the head
    ...        head, JSON: {"push", "number", "packs": [[<name of a pack behind "packs/">, <length of its list>], ...], "samples", "sample_bits"}
    samples x  32 bytes id, u32 number of the pack in the head; ascending
    ...        the list of each pack, in the order of the head: u32 segment, 32 bytes id, u32 length for each blob

Integers are little-endian. The id of a blob is its digest; on a sealed remote it is HMAC-SHA256(naming key, digest), and each list is an age file of
its own, so that one list can be read by a range. Samples are the ids whose first 8 bytes, big-endian, are below 2^(64 - sample_bits): all of them
where `sample_bits` is 0, none where it is null. Hosts that share a remote find blobs of each other by samples.
"""

from __future__ import annotations

import json
import struct
import typing as t

from .._base import Damaged, newer
from . import names

_START = struct.Struct("<8sI")
_SAMPLE = struct.Struct("<32sI")
#: No index has more bytes, or more of anything.
_MOST = 64 << 20
#: Bytes of a sample.
SAMPLE_SIZE = _SAMPLE.size
#: A line of a list: segment, id, length.
LINE = struct.Struct("<I32sI")
_MAGIC, _OURS = b"VOLTRIX1", b"VOLTRIX"
#: An index ends with the pack that reaches this many blobs.
BLOBS = 100_000
#: Bytes of an index that has so many, at least.
FULL = BLOBS * (_SAMPLE.size + LINE.size)


def encode(push: names.Push, number: int, packs: t.Sequence[t.Tuple[names.Pack, bytes]], seal: t.Callable[[bytes], bytes], bits: t.Optional[int]) -> bytes:
    """The bytes of an index.

    :param packs: each with its list. :param seal: makes what is stored of a list. :param bits: `sample_bits`.
    """
    lists = [seal(body) for _pack, body in packs]
    samples = [
        (blob, position)
        for position, (_pack, body) in enumerate(packs)
        for _segment, blob, _length in LINE.iter_unpack(body)
        if bits is not None and int.from_bytes(blob[:8], "big") < 1 << (64 - bits)
    ]
    head = json.dumps(
        {
            "push": str(push),
            "number": number,
            "packs": [[pack.name[len(names.PACKS) :], len(body)] for (pack, _body), body in zip(packs, lists)],
            "samples": len(samples),
            "sample_bits": bits,
        },
        separators=(",", ":"),
    ).encode()
    return b"".join([_START.pack(_MAGIC, len(head)), head, *(_SAMPLE.pack(*sample) for sample in sorted(samples)), *lists])


class Place(t.NamedTuple):
    """Where the list of a pack is in an index."""

    pack: names.Pack
    offset: int
    length: int


class Head(t.NamedTuple):
    """What the head of an index says."""

    packs: t.List[Place]
    #: How many samples there are, where the first one is, and which ids are samples.
    samples: int
    first_sample: int
    sample_bits: t.Optional[int]


def head_size(data: bytes) -> int:
    """How many bytes are before the samples, by the first bytes of an index; Damaged where it is none, Unsupported where a newer version wrote it."""
    if len(data) < _START.size:
        raise Damaged("An index of the remote is shorter than its header.")
    magic, length = _START.unpack_from(data)
    if magic != _MAGIC:
        raise newer("An index of the remote") if magic.startswith(_OURS) else Damaged("An index of the remote has an invalid header.")
    return _START.size + t.cast(int, length)


def parse_head(data: bytes) -> Head:
    """The head of an index. :param data: its first bytes, with all of the head. Damaged and Unsupported as of `head_size`."""
    first = head_size(data)
    try:
        head = json.loads(data[_START.size : first])
        offset = first + _SAMPLE.size * _number(head["samples"])
        bits = head["sample_bits"]
        if bits is not None and _number(bits) > 64:
            raise ValueError(bits)
        places = []
        for name, size in head["packs"]:
            pack = names.parse_pack(f"{names.PACKS}{name}")
            if pack is None:
                raise ValueError(name)
            places.append(Place(pack, offset, _number(size)))
            offset += size
        return Head(places, head["samples"], first, bits)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged("An index of the remote has an invalid head.") from None


def _number(value: t.Any) -> int:
    """A count or a length that an object can have; ValueError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise ValueError(value)
    return value


def parse(data: bytes) -> t.List[t.Tuple[names.Pack, bytes]]:
    """The packs of an index, each with its list as it is stored; Damaged where it is no index, Unsupported where a newer version wrote it."""
    found = [(place.pack, data[place.offset : place.offset + place.length], place.length) for place in parse_head(data).packs]
    if any(len(body) != length for _pack, body, length in found):
        raise Damaged("An index of the remote has an invalid head.")
    return [(pack, body) for pack, body, _length in found]


def samples(data: bytes) -> t.List[t.Tuple[bytes, int]]:
    """Samples: id of a blob, position of its pack. Damaged where these are none."""
    if len(data) % _SAMPLE.size:
        raise Damaged("An index of the remote is shorter than it should be.")
    return list(_SAMPLE.iter_unpack(data))


def check(body: bytes) -> bytes:
    """An opened list; Damaged where it is none."""
    if len(body) % LINE.size:
        raise Damaged("An index of the remote has an invalid list.")
    return body
