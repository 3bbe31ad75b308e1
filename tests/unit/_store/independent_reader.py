# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A reader of store formats 1 and 2, written from docs/store-format.md alone: the standard library, and nothing of the engine.

It is plain rather than quick: it looks into every pack, and keeps everything in memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import struct
import zlib
from typing import Any, NamedTuple


class Node(NamedTuple):
    """One thing that was backed up. `data` is None for all but regular files."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: tuple[int, int]
    size: int
    data: bytes | None
    holes: list[tuple[int, int]]
    target: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes]


def plain(path: str) -> bytes:
    """A file of the store, decompressed as the end of its name says."""
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".zz"):
        return zlib.decompress(data)
    if path.endswith(".zst"):
        raise SystemExit("this reader has no zstd")
    return data


def unescape(text: str) -> bytes:
    r"""A shown path as bytes: \xNN is a byte, \\ a backslash."""
    return re.sub(rb"\\(?:x([0-9a-f]{2})|\\)", lambda found: bytes.fromhex(found[1].decode()) if found[1] else b"\\", text.encode())


class Reader:
    def __init__(self, store: str) -> None:
        self.store = store
        with open(os.path.join(store, "format.json"), "rb") as file:
            form = json.load(file)
            if form["format"] > 2 or set(form.get("features", {}).get("required", ())) - {"claims", "cdc"}:
                raise SystemExit("another format")
        self.blobs: dict[bytes, bytes] = {}
        for kind in ("packs", "objects"):
            for top, _directories, names in os.walk(os.path.join(store, kind)):
                for name in names:
                    data = plain(os.path.join(top, name))
                    if hashlib.sha256(data).hexdigest() != name[:64] or name[:2] != os.path.basename(top):
                        continue  # damaged: it counts as missing
                    if kind == "objects":
                        self.blobs[hashlib.sha256(data).digest()] = data
                    else:
                        self.unpack(data)

    def unpack(self, data: bytes) -> None:
        magic, _kind, count = struct.unpack_from("<8sII", data)
        assert magic == b"VOLTPAK1"
        at = 16 + 36 * count
        for line in range(count):
            digest, length = struct.unpack_from("<32sI", data, 16 + 36 * line)
            self.blobs[digest] = data[at : at + length]
            at += length
        assert at == len(data)

    def blob(self, digest: bytes) -> bytes:
        blob = self.blobs[digest]
        assert hashlib.sha256(blob).digest() == digest
        return blob

    def manifest(self, sidecar: str) -> dict[str, Any]:
        with open(sidecar, "rb") as file:
            facts = json.load(file)
        with open(os.path.join(self.store, "refs", facts["manifest_ref"] + ".json"), "rb") as file:
            data = file.read()
        assert facts["format"] == 1 and hashlib.sha256(data).hexdigest() == facts["manifest_sha256"]
        assert facts["manifest_ref"] == facts["id"] + "-" + facts["manifest_sha256"][:12]
        return json.loads(data)

    def directory(self, digest: bytes) -> list[tuple[bytes, Node, bytes]]:
        """(name, node without data, digest of its content) of each entry."""
        blob = self.blob(digest)
        if blob[:8] == b"VOLTPART":
            (count,) = struct.unpack_from("<I", blob, 8)
            parts = [blob[12 + 32 * part : 44 + 32 * part] for part in range(count)]
            return [entry for part in parts for entry in self.directory(part)]
        magic, count, names_size, digests, extras_size = struct.unpack_from("<8sIIII", blob)
        assert magic == b"VOLTTREE"
        at = 24
        names = blob[at : at + names_size].split(b"\0")[:-1]
        assert len(names) == count and names == sorted(set(names))
        assert not any(name in (b"", b".", b"..") or b"/" in name for name in names)
        at += names_size
        columns = []
        for code in "BHIIqIQ":
            columns.append(struct.unpack_from(f"<{count}{code}", blob, at))
            at += struct.calcsize(f"<{count}{code}")
        extras = self.extras(blob[at + 32 * digests :])
        assert at + 32 * digests + extras_size == len(blob)
        found = []
        for line, (name, kind, mode, uid, gid, seconds, nanos, size) in enumerate(zip(names, *columns)):
            content = b""
            if chr(kind) in "Fd" or chr(kind) == "f" and size:
                content, at = blob[at : at + 32], at + 32
            extra = extras.get(line, {})
            node = Node(
                chr(kind), mode, uid, gid, (seconds, nanos), size, None, extra.get("holes", []), extra.get("target", b""),
                extra.get("device", (0, 0)), extra.get("xattrs", {}),
            )  # fmt: skip
            found.append((name, node, content))
        return found

    @staticmethod
    def extras(raw: bytes) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        at = 0
        while at < len(raw):
            (line,) = struct.unpack_from("<I", raw, at)
            at += 4
            extra: dict[str, Any] = found.setdefault(line, {})
            while raw[at]:
                tag, length = struct.unpack_from("<BI", raw, at)
                data, at = raw[at + 5 : at + 5 + length], at + 5 + length
                if tag == 1:
                    extra["target"] = data
                elif tag == 2:
                    extra["device"] = struct.unpack("<II", data)
                elif tag == 3:
                    (size,) = struct.unpack_from("<H", data)
                    extra.setdefault("xattrs", {})[data[2 : 2 + size]] = data[2 + size :]
                elif tag == 4:
                    extra["holes"] = list(struct.iter_unpack("<QQ", data))
                else:
                    raise SystemExit("an unknown field")
            at += 1
        return found

    def chunked(self, digest: bytes, size: int) -> tuple[bytes, list[tuple[int, int]]]:
        """A chunked file's bytes and holes."""
        blob = self.blob(digest)
        if blob[:8] == b"VOLTCUTS":
            pieces = list(struct.iter_unpack("<I32s", blob[16:]))
            data = b"".join(self.blob(piece) for _length, piece in pieces)
            assert struct.unpack_from("<Q", blob, 8) == (size,) and len(data) == size
            assert [len(self.blob(piece)) for _length, piece in pieces] == [length for length, _piece in pieces]
            return data, []
        magic, said, count = struct.unpack_from("<8sQI", blob)
        assert magic == b"VOLTCHNK" and said == size
        at = 20 + 16 * count
        holes = list(struct.iter_unpack("<QQ", blob[20:at]))
        data = bytearray(size)
        for start in range(0, size, 1 << 20):
            end = min(start + (1 << 20), size)
            if any(hole <= start and end <= hole + length for hole, length in holes):
                continue
            chunk, at = self.blob(blob[at : at + 32]), at + 32
            assert len(chunk) == end - start
            data[start:end] = chunk
        assert at == len(blob)
        return bytes(data), holes

    def tree(self, digest: bytes, parent: bytes = b"") -> dict[bytes, Node]:
        """Everything below a directory, by path."""
        found = {}
        for name, node, content in self.directory(digest):
            path = parent + name
            if node.kind == "F":
                data, holes = self.chunked(content, node.size)
                node = node._replace(kind="f", data=data, holes=holes)
            elif node.kind == "f":
                node = node._replace(data=self.blob(content) if node.size else b"")
                assert node.data is not None and len(node.data) == node.size
            found[path] = node
            if node.kind == "d":
                found.update(self.tree(content, path + b"/"))
        return found

    def links(self, manifest: dict[str, Any]) -> list[list[bytes]]:
        """Paths that are one file."""
        if manifest["links"] is None:
            return []
        blob = self.blob(bytes.fromhex(manifest["links"]["table"]))
        assert blob[:8] == b"VOLTLINK" and len(blob) == manifest["links"]["size"]
        (count,) = struct.unpack_from("<I", blob, 8)
        at, groups = 12, []
        for _group in range(count):
            (members,) = struct.unpack_from("<I", blob, at)
            at += 4
            group = []
            for _member in range(members):
                end = blob.index(b"\0", at)
                group.append(blob[at:end])
                at = end + 1
            groups.append(group)
        return groups

    def backup(self, sidecar: str) -> tuple[Node, dict[bytes, Node], list[list[bytes]]]:
        """(the source directory itself, everything below it, hard links) of a backup."""
        manifest = self.manifest(sidecar)
        root = manifest["root"]
        xattrs = {unescape(name): base64.b64decode(value) for name, value in root["xattrs"]}
        top = Node("d", root["mode"], root["uid"], root["gid"], tuple(root["mtime"]), 0, None, [], b"", (0, 0), xattrs)
        return top, self.tree(bytes.fromhex(root["tree"])), self.links(manifest)
