# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases that are written all the time: each backup by a snapshot or a dump is sound, and without either many are not.

tests/fleet/test_lvm.py has the same on logical volumes.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from ansible_collections.volt.backup.tests.rigs import Unavailable, databases, ledgers, mounts, need, sample
from ansible_collections.volt.backup.tests.unit.kit import command

CELLS = [(kind, *where) for kind in ledgers.KINDS for where in (("btrfs", "snapshot"), ("ext4", "dump"))]
NUMBER = int(os.environ.get("VOLT_PROOFS") or (50 if sample.LONG else 2))


def proved(kind: str, file_system: str, way: str, number: int) -> list[str]:
    need("mkfs.btrfs", root=True)
    if databases.missing():
        raise Unavailable(f"needs {', '.join(databases.missing())}")
    with tempfile.TemporaryDirectory(prefix="volt-proof-", dir="/var/tmp") as top:
        os.chmod(top, 0o755)
        with mounts.mount(file_system, top, 2 * mounts.GIB) as place:
            for path in (place, place.parent):
                os.chmod(path, 0o755)
            archive = Path(top, "volt-backup")
            archive.write_bytes(command())
            wrong = ledgers.prove([kind], place / "proof", way, archive, number)[kind]
    print(f"proof: {kind} on {file_system} by {way}: {number} backups, {number - len(wrong)} sound", *wrong[:3], sep="\n", flush=True)
    return wrong


@pytest.mark.parametrize(("kind", "file_system", "way"), sample.some(CELLS, 2, "proofs"))
@pytest.mark.costly
def test_a_database_is_sound(kind: str, file_system: str, way: str) -> None:
    assert proved(kind, file_system, way, NUMBER) == []


if sample.LONG:  # two would show nothing

    @pytest.mark.parametrize("kind", ledgers.KINDS)
    def test_without_snapshot_or_dump(kind: str) -> None:
        """How many are torn depends on chance: only for PostgreSQL, whose many files take long to read, it is certain that some are."""
        torn = proved(kind, "ext4", "plain", NUMBER)
        assert kind != "postgresql" or torn
