# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A reader of remotes, written from docs/remote-format.md alone: the standard library, and nothing of the engine.

What blobs contain is read by the reader of local stores, which was written in the same way.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

from .._store.independent_reader import Node, Reader


def plain(data: bytes, form: int) -> bytes:
    if form == 1:
        return zlib.decompress(data)
    if form == 2:
        return subprocess.run(["zstd", "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout
    assert form == 0
    return data


class RemoteReader(Reader):
    """The backups of a remote in a directory."""

    def __init__(self, top: Path, recovery: Path | None = None) -> None:
        self.top, self.recovery = top, recovery
        about = json.loads(self.get("volt.json"))
        assert about["remote"] == 1 and not about["required"] and about["sealed"] == (recovery is not None)
        self.secret = bytes.fromhex(recovery.read_text().split("domain secret: ")[1].split()[0]) if recovery is not None else b""
        assert about["domain"] == (self.mac(self.derived("naming"), b"volt.backup domain").hex()[:32] if recovery is not None else None)
        self.blobs: dict[bytes, bytes] = {}
        self.packs: dict[str, set[bytes]] = {}

    @staticmethod
    def mac(key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, hashlib.sha256).digest()

    def derived(self, use: str) -> bytes:
        """HKDF-SHA256 of the domain secret."""
        return self.mac(self.mac(bytes(32), self.secret), f"volt.backup {use}".encode() + b"\1")

    def opened(self, data: bytes) -> bytes:
        """What was sealed, by the program age."""
        if self.recovery is None:
            return data
        return subprocess.run(["age", "-d", "-i", str(self.recovery)], input=data, stdout=subprocess.PIPE, check=True).stdout

    def named(self, digest: bytes) -> bytes:
        """The id of a blob."""
        return digest if self.recovery is None else self.mac(self.derived("naming"), digest)

    def get(self, name: str) -> bytes:
        return (self.top / name).read_bytes()

    def names(self, prefix: str) -> list[str]:
        found = [os.path.relpath(os.path.join(top, name), self.top) for top, _below, names in os.walk(self.top / prefix) for name in names]
        return sorted(found)

    def commits(self) -> list[str]:
        """The names of all commits, without revocations."""
        return [name for name in self.names("commits") if "revocation" not in json.loads(self.get(name).partition(b"\n")[0])]

    def commit(self, name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """(line, sidecar, manifest) of a commit, after its indexes and packs were checked; its blobs can be read then."""
        line, newline, rest = self.get(name).partition(b"\n")
        value = json.loads(line)
        assert newline and value["commit"] == 1 and f"commits/{value['push']}" == name and value["push"].startswith(f"{value['host']}/")
        assert value["sealed"] == (self.recovery is not None)
        signed = line[: line.rindex(b',"mac":')]
        assert value["mac"] == (self.mac(self.derived(f"mac {value['host']}"), signed).hex() if self.recovery is not None else None)
        (size, digest), (more, other) = value["sidecar"], value["manifest"]
        sidecar, manifest = rest[:size], rest[size:]
        assert len(manifest) == more and hashlib.sha256(sidecar).hexdigest() == digest and hashlib.sha256(manifest).hexdigest() == other
        self.blobs = {}
        for push, bits in value["needs"]:
            data = base64.b64decode(bits)
            for number in range(8 * len(data)):
                if data[number // 8] >> number % 8 & 1:
                    self.pack(push, number)
        named = set()
        for index, digest in value["indexes"]:
            named |= self.index(index, digest)
        record = json.loads(self.opened(sidecar))
        record["indexed"] = named
        return value, record, json.loads(self.opened(manifest))

    def pack(self, push: str, number: int) -> None:
        (path,) = [path for path in (self.top / "packs" / push).iterdir() if path.name.split("-")[0].rstrip("m") == f"{number:05d}"] or [None]
        assert path is not None, f"pack {number} of {push} is missing"
        data = path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == path.name.split("-")[1]
        data = self.opened(data)
        magic, _random, segments, count, kind = struct.unpack_from("<8s16sIII", data)
        assert magic == b"VOLTRPK1" and (kind == 1) == ("m-" in path.name)
        at, table = 36 + 16 * segments + 36 * count, 36 + 16 * segments
        own = set()
        for segment in range(segments):
            stored, length, form, sort, zero, blobs = struct.unpack_from("<IIBBHI", data, 36 + 16 * segment)
            whole = plain(data[at : at + stored], form)
            assert len(whole) == length and not zero
            at += stored
            offset = 16 + 36 * blobs if sort == 1 else 0
            for _blob in range(blobs):
                digest, size = struct.unpack_from("<32sI", data, table)
                table += 36
                blob = whole[offset : offset + size]
                assert hashlib.sha256(blob).digest() == digest
                self.blobs[digest] = blob
                own.add(self.named(digest))
                offset += size
            assert offset == length
        assert at == len(data) and table == 36 + 16 * segments + 36 * count
        self.packs[f"{push}/{path.name}"] = own

    def index(self, name: str, digest: str) -> set[bytes]:
        """The ids that an index names."""
        data = self.get(f"indexes/{name}")
        assert hashlib.sha256(data).hexdigest() == digest
        magic, length = struct.unpack_from("<8sI", data)
        head = json.loads(data[12 : 12 + length])
        assert magic == b"VOLTRIX1" and f"{head['push']}-{head['number']:03d}" == name
        at = 12 + length
        samples = [struct.unpack_from("<32sI", data, at + 36 * sample) for sample in range(head["samples"])]
        at += 36 * head["samples"]
        named = set()
        for position, (pack, size) in enumerate(head["packs"]):
            body = self.opened(data[at : at + size])
            own = {struct.unpack_from("<I32sI", body, line)[1] for line in range(0, len(body), 40)}
            assert pack not in self.packs or own == self.packs[pack], "an index and a pack differ"
            assert head["sample_bits"] is None or own == {blob for blob, where in samples if where == position}
            named |= own
            at += size
        assert at == len(data) and samples == sorted(samples)
        return named

    def read(self, name: str) -> tuple[dict[str, Any], dict[bytes, Node], list[list[bytes]]]:
        """(sidecar, everything below the source, hard links) of a commit."""
        _line, sidecar, manifest = self.commit(name)
        found = self.tree(bytes.fromhex(manifest["root"]["tree"]))
        assert sidecar["indexed"] >= set(map(self.named, self.touched)), "a blob that is needed is in no index"
        return sidecar, found, self.links(manifest)

    def tree(self, digest: bytes, parent: bytes = b"") -> dict[bytes, Node]:
        if not parent:
            self.touched: set[bytes] = set()
        return super().tree(digest, parent)

    def blob(self, digest: bytes) -> bytes:
        self.touched.add(digest)
        return super().blob(digest)
