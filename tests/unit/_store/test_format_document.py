# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/store-format.md against the engine, byte by byte: its example is a store that the engine makes, and that a reader written
from the document alone restores.

Where the format is changed on purpose, `example()` of this file prints the example anew, as the document has it.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import directory as directories, records
from ansible_collections.volt.backup.plugins.module_utils._backup.records import Manifest
from ansible_collections.volt.backup.plugins.module_utils._format import chunks, links, tree
from ansible_collections.volt.backup.plugins.module_utils._format.tree import CHUNKED, DIRECTORY, FILE, SYMLINK, Entry, Extra
from ansible_collections.volt.backup.plugins.module_utils._store.features import made
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction

from .independent_reader import Reader

DOCUMENT = Path(__file__).parents[3] / "docs" / "store-format.md"
MIB = 1 << 20
TIME = 1_700_000_000

HELLO, LARGE, SPARSE, TAIL = b"hello\n", b"A" * 131_073, bytes(4096) + b"data\n", b"tail\n"
IMAGE_SIZE, IMAGE_HOLES = 9 * MIB + 5, ((0, 9 * MIB),)


def digest(blob: bytes) -> bytes:
    return hashlib.sha256(blob).digest()


def make(directory: Path, compression: str = "none") -> Path:
    """The example's store and backup directory: what a backup of such a tree comes to, with all that varies held fast."""
    sidecars = directory / "backups"
    sidecars.mkdir(parents=True)
    hello = Entry(b"hello", FILE, 0o644, 1000, 1000, TIME, 123_456_789, 6, digest(HELLO), Extra(xattrs=((b"user.note", b"hi"),)))
    with Transaction(Store(str(directory / "cas")), compression) as run:
        run.blobs.add(digest(HELLO), HELLO)
        for large in (TAIL, LARGE):
            run.objects.save(digest(large), large)
        run.blobs.add(digest(SPARSE), SPARSE)
        assert not run.blobs.add(digest(HELLO), HELLO)
        below = tree.store(run.add_metadata, [hello])
        image = run.add_metadata(chunks.encode(IMAGE_SIZE, IMAGE_HOLES, [digest(TAIL)]))
        top = tree.store(
            run.add_metadata,
            [
                Entry(b"empty", FILE, 0o600, 0, 0, TIME, 0, 0, b""),
                hello,
                Entry(b"image", CHUNKED, 0o600, 0, 0, TIME, 0, IMAGE_SIZE, image),
                Entry(b"large", FILE, 0o4755, 0, 0, -1, 999_999_999, len(LARGE), digest(LARGE)),
                Entry(b"link", SYMLINK, 0o777, 0, 0, TIME, 0, 0, b"", Extra(target=b"hello")),
                Entry(b"sparse", FILE, 0o600, 0, 0, TIME, 0, len(SPARSE), digest(SPARSE), Extra(holes=((0, 4096),))),
                Entry(b"sub", DIRECTORY, 0o755, 0, 0, TIME, 0, 0, below),
            ],
        )
        table = links.encode([[b"sub/hello", b"hello"]])
        linked = run.add_metadata(table)
        run.commit()
    sidecar = dict.fromkeys(records.SIDECAR)
    sidecar.update(
        id="example-20231114-221320-manual", workload_name="example", type="manual", tags=["demo"], created_at="2023-11-14T22:13:20.000000Z",
        blob_count=5, total_size=9_572_375, new_blobs=run.counts.new_blobs, dedup_blobs=5 - run.counts.new_blobs,
        duration=12_345_678, pushed_to_cdn=False, source_path="/srv/example",
        format=1, host="host", complete=True, exclude=["*.tmp"], exclude_caches=False, one_file_system=False, file_count=6,
        new_bytes=run.counts.new_bytes, stored_bytes=run.counts.stored_bytes, skipped=[], skipped_count=0, changed_while_read=[], changed_while_read_count=0,
        unstable=False, unstable_paths=[], unstable_count=0, source_asked="/srv/example", source_links=[], mounts=[], suspect=False,
        lost_counts=[0], file_counts=[5], protected=False, directory_id="c4b1f2a07d6e4f0e8a9b1c2d3e4f5061", store_id="5f0c3d2e9a64e1c7b3b4d0c1f7a14a0e",
        copies=[], dumps=[], quiesced=[], snapshots=[],
    )  # fmt: skip
    manifest = Manifest(
        backup={key: sidecar[key] for key in records.REPEATED},
        root=Entry(b"", DIRECTORY, 0o755, 0, 0, TIME, 0, 0, top),
        links=linked, links_size=len(table), users={0: "root", 1000: "ada"}, groups={0: "root", 1000: "ada"}, skipped=[],
        totals={"files": 6, "directories": 1, "symlinks": 1, "others": 0, "size": 9_572_375, "blobs": 5},
    )  # fmt: skip
    store = Store(str(directory / "cas"))
    store.format = made()._replace(id=sidecar["store_id"])
    (directory / "cas" / "format.json").write_bytes(store.format.encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(directories, "new_id", lambda: sidecar["directory_id"])
        directories.claim(str(sidecars), store)
    data = records.encode_manifest(manifest)
    sidecar["manifest_ref"], sidecar["manifest_sha256"] = records.reference(sidecar["id"], data)
    (directory / "cas" / "refs" / f"{sidecar['manifest_ref']}.json").write_bytes(data)
    (sidecars / f"{sidecar['id']}.json").write_bytes(records.encode_sidecar(sidecar))
    return sidecars / f"{sidecar['id']}.json"


def lasting(directory: Path) -> dict[str, bytes]:
    """Every file that is not derived, by its path."""
    found = {}
    for top, _directories, names in os.walk(directory):
        for name in names:
            path = os.path.relpath(os.path.join(top, name), directory)
            if path.split(os.sep)[1] not in ("index", "cache", "lock", "gate"):
                found[path] = Path(top, name).read_bytes()
    return found


def dump(data: bytes) -> str:
    """As hexdump -C prints it: sixteen bytes a line, and one asterisk for lines like the one before."""
    lines, before = [], b""
    for at in range(0, len(data), 16):
        piece = data[at : at + 16]
        if piece == before and at + 16 < len(data):
            if lines[-1] != "*":
                lines.append("*")
            continue
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        lines.append(f"{at:08x}  {piece[:8].hex(' '):<23}  {piece[8:].hex(' '):<23}  |{text}|")
        before = piece
    return "\n".join([*lines, f"{len(data):08x}"])


def undump(text: str) -> bytes:
    data, repeat = bytearray(), False
    for line in text.splitlines():
        if line == "*":
            repeat = True
            continue
        at = int(line[:8], 16)
        if repeat:
            piece = bytes(data[-16:])
            while len(data) < at:
                data += piece
            repeat = False
        assert len(data) == at
        data += bytes.fromhex(line[8:].partition("|")[0])
    return bytes(data)


def example(directory: Path) -> str:
    """The example as the document has it."""
    make(directory)
    pieces = []
    for path, data in sorted(lasting(directory).items()):
        if path.endswith(".json"):
            pieces.append(f"`{path}`\n\n```json\n{data.decode()}```\n")
        else:
            pieces.append(f"`{path}`\n\n```text\n{dump(data)}\n```\n")
    return "\n".join(pieces)


BLOCK = re.compile(r"^`([^`\n]+)`\n\n```(json|text)\n(.*?)```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def told() -> dict[str, bytes]:
    """The files of the document's example."""
    found = {path: text.encode() if kind == "json" else undump(text) for path, kind, text in BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))}
    assert len(found) == 9
    return found


def test_the_engine_makes_the_document_s_store(told: dict[str, bytes], tmp_path: Path) -> None:
    make(tmp_path)
    made = lasting(tmp_path)
    assert sorted(made) == sorted(told)
    for path, data in made.items():
        assert told[path] == data, path


def test_names_are_digests(told: dict[str, bytes]) -> None:
    named = {path: data for path, data in told.items() if path.startswith(("cas/objects/", "cas/packs/"))}
    assert len(named) == 4
    for path, data in named.items():
        assert Path(path).name[:64] == hashlib.sha256(data).hexdigest() and Path(path).parent.name == Path(path).name[:2]


def expect(reader: Reader, sidecar: Path) -> None:
    root, nodes, linked = reader.backup(str(sidecar))
    assert (root.mode, root.uid, root.gid, root.mtime, root.xattrs) == (0o755, 0, 0, (TIME, 0), {})
    assert sorted(nodes) == [b"empty", b"hello", b"image", b"large", b"link", b"sparse", b"sub", b"sub/hello"]
    contents = {path: node.data for path, node in nodes.items() if node.kind == "f"}
    assert contents == {
        b"empty": b"", b"hello": HELLO, b"image": bytes(9 * MIB) + TAIL, b"large": LARGE, b"sparse": SPARSE, b"sub/hello": HELLO
    }  # fmt: skip
    assert {path: node.holes for path, node in nodes.items() if node.holes} == {b"image": [(0, 9 * MIB)], b"sparse": [(0, 4096)]}
    assert (nodes[b"link"].kind, nodes[b"link"].target, nodes[b"sub"].kind) == ("l", b"hello", "d")
    assert nodes[b"hello"] == nodes[b"sub/hello"] and nodes[b"hello"].xattrs == {b"user.note": b"hi"}
    assert (nodes[b"hello"].uid, nodes[b"hello"].mtime, nodes[b"large"].mode, nodes[b"large"].mtime) == (1000, (TIME, 123_456_789), 0o4755, (-1, 999_999_999))
    assert linked == [[b"hello", b"sub/hello"]]


def test_another_reader_restores_the_document_s_store(told: dict[str, bytes], tmp_path: Path) -> None:
    for path, data in told.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    (sidecar,) = (tmp_path / "backups").glob("example-*.json")
    expect(Reader(str(tmp_path / "cas")), sidecar)


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_another_reader_restores_the_engine_s_store(tmp_path: Path, compression: str) -> None:
    sidecar = make(tmp_path, compression)
    assert any(path.endswith(".zz") for path in lasting(tmp_path)) == (compression == "zlib")
    expect(Reader(str(tmp_path / "cas")), sidecar)


def test_another_reader_reads_parts_of_a_tree(tmp_path: Path) -> None:
    found = [Entry(b"%06d" % number, FILE, 0o600, 0, 0, number, 0, 0, b"") for number in range(40_000)]
    with Transaction(Store(str(tmp_path / "cas")), "zlib") as run:
        name = tree.store(run.add_metadata, found)
        run.commit()
    listed = Reader(str(tmp_path / "cas")).directory(name)
    assert [(path, node.mtime[0]) for path, node, _content in listed] == [(item.name, item.seconds) for item in found]


def test_the_reader_knows_nothing_of_the_engine() -> None:
    text = Path(__file__).with_name("independent_reader.py").read_text(encoding="utf-8")
    assert set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)) == {
        "__future__", "base64", "hashlib", "json", "os", "re", "struct", "typing", "zlib"
    }  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 16, b"x" * 17, b"x" * 48, b"x" * 50, bytes(4096) + b"end", b"a" * 32 + b"b" * 32])
def test_dumps_come_back(data: bytes) -> None:
    assert undump(dump(data)) == data
