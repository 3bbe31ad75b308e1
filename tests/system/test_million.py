# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One file out of a million, from a remote that the host knows nothing of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Meant, Remote, Settings
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.tests.rigs import need, sample

from .test_push import HOST, Tapped, made

FILES = 1_000_000 if sample.LONG else 20_000


def test_one_file_out_of_a_million(bench: Any, tmp_path: Path) -> None:
    """At most 12 requests and 2 MiB, whatever the size of the backup. The usual mode has fewer files, the same bounds."""
    need("zstd")
    for top in range(FILES // 1000):
        path = bench.source / f"{top // 100:02d}" / f"{top % 100:02d}"
        path.mkdir(parents=True)
        for number in range(1000):
            with open(path / f"{number:03d}", "wb", buffering=0) as file:
                file.write(b"%d %d\n" % (top, number))
    place = made(bench)
    bench.create()
    place.push(jobs=2)
    wanted = f"{FILES // 100_000 // 2:02d}/17/417"
    remote = Remote(Manager(str(tmp_path / "none"), str(tmp_path / "none"), 5), Settings(f"file://{place.top}"))
    remote.transport = Tapped(str(place.top))
    remote.restore(Meant(HOST, workload="work"), RestoreRequest(str(tmp_path / "target"), paths=[wanted]))
    assert (tmp_path / "target" / wanted).read_bytes() == (bench.source / wanted).read_bytes()
    assert sum(len(names) for _top, _directories, names in os.walk(tmp_path / "target")) == 1
    requests, received = remote.transport.requests, remote.transport.pace.moved
    assert len(requests) <= 12 and received <= 2 << 20, (requests, received)
