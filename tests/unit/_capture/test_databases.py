# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of databases, by signature and by name."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._capture.databases import HEAD, kind_of


def test_sqlite_itself(tmp_path: Path) -> None:
    base = sqlite3.connect(tmp_path / "any.name")
    base.execute("create table t (x)")
    base.commit()
    base.close()
    content = (tmp_path / "any.name").read_bytes()
    assert kind_of(b"any.name", content[:HEAD]) == "SQLite"


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [(b"data.mdb", bytes(16) + b"\xde\xc0\xef\xbe", "LMDB"), (b"x", bytes(16) + b"\xbe\xef\xc0\xde", "LMDB"), (b"data.mdb", bytes(32), ""),
     (b"aliases.db", bytes(12) + b"\x62\x31\x05\0", "Berkeley DB"), (b"x", bytes(12) + b"\0\x06\x15\x61", "Berkeley DB"),
     (b"t.ibd", b"", "InnoDB"), (b"ibdata1", b"", "InnoDB"), (b"ibdata", b"", ""), (b"undo_001", b"", "InnoDB"), (b"#ib_redo12", b"", "InnoDB"),
     (b"pg_control", b"", "PostgreSQL"), (b"000000010000000A000000FF", b"", "PostgreSQL"), (b"000000010000000A000000fg", b"", ""),
     (b"MANIFEST-000005", b"", "RocksDB"), (b"000012.sst", b"", "RocksDB"), (b"12.sst", b"", ""), (b"notes.txt", b"SQLite", ""), (b"\xff\n.ibd", b"", ""),
     (b"\xff.ibd", b"", "InnoDB")],
)  # fmt: skip
def test_kinds(name: bytes, head: bytes, kind: str) -> None:
    assert kind_of(name, head) == kind
