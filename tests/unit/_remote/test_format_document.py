# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example of docs/remote-format.md, byte by byte: what the engine writes, and what a reader written from the document alone finds in it.

Where the format is changed on purpose, `python3 test_format_document.py` prints the example anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._remote import commits, indexes, names, packs
from ansible_collections.volt.backup.plugins.module_utils._store import codec

from .independent_reader import RemoteReader

DOCUMENT = Path(__file__).parents[3] / "docs" / "remote-format.md"
PUSH = names.Push("web1", "20261127T093154Z-dc0bc81fc2871a49")
HELLO, TAIL = b"hello\n", b"tail\n"
SIDECAR, MANIFEST = b'{"sidecar":"of the backup"}\n', b'{"manifest":"of the backup"}\n'


def digest(blob: bytes) -> bytes:
    return hashlib.sha256(blob).digest()


def objects() -> dict[str, bytes]:
    """The objects of the example by their names: two blobs in a pack, an index of it, and the commit of a backup that needs it."""
    builder = packs.Builder(packs.CONTENT)
    builder.add(packs.Segment(HELLO + TAIL, codec.NONE, 11, packs.BLOBS, [(digest(HELLO), 6), (digest(TAIL), 5)]))
    data = builder.finish()
    pack = names.Pack(PUSH, 0, False, hashlib.sha256(data).hexdigest())
    body = indexes.LINE.pack(0, digest(HELLO), 6) + indexes.LINE.pack(0, digest(TAIL), 5)
    index = indexes.encode(PUSH, 0, [(pack, body)], lambda text: text, 0)
    group = hashlib.sha256(b"app\0manual").hexdigest()
    commit = commits.Commit(PUSH, 1, None, group, [(PUSH.index_name(0), hashlib.sha256(index).hexdigest())], {PUSH: {0}})
    return {pack.name: data, PUSH.index_name(0): index, PUSH.commit: commits.encode(commit, SIDECAR, MANIFEST, False, lambda _line: None)}


def example() -> str:
    """The objects as the document has them."""
    shown = []
    for name, data in objects().items():
        lines = data.decode().splitlines() if name.startswith(names.COMMITS) else [data[at : at + 32].hex(" ", -4) for at in range(0, len(data), 32)]
        shown.append("\n".join([f"{name} ({len(data)} bytes)", "", *lines]))
    return "".join(f"```text\n{text}\n```\n\n" for text in shown)


def test_the_engine_writes_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs.secrets, "token_bytes", bytes)
    assert example() in DOCUMENT.read_text(encoding="utf-8")


def test_a_reader_finds_in_it_what_the_document_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs.secrets, "token_bytes", bytes)
    about = {"remote": 1, "id": "0" * 32, "commit": "exclusive", "sealed": False, "domain": None, "required": []}
    (tmp_path / "volt.json").write_text(json.dumps(about))
    for name, data in objects().items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(data)
    reader = RemoteReader(tmp_path)
    assert reader.commits() == [PUSH.commit]
    line, sidecar, manifest = reader.commit(PUSH.commit)
    assert (line["seq"], line["previous"], manifest) == (1, None, json.loads(MANIFEST))
    assert sidecar == {**json.loads(SIDECAR), "indexed": {digest(HELLO), digest(TAIL)}}
    assert reader.blobs == {digest(HELLO): HELLO, digest(TAIL): TAIL}


if __name__ == "__main__":
    packs.secrets.token_bytes = bytes  # type: ignore[assignment]
    print(example(), end="")
