# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure commands in a store of 100,000 packs beside the same in an empty store. benchmarks/all.py runs this.

The store is made by one backup of as many files of 10 bytes, by an engine that closes a pack after each blob; all else is as shipped.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import measure
import peers as tools

_MAKE = """import sys
from volt_backup._runner import cli
from volt_backup._store import pack
pack._LEAST, pack._MOST = 0, 1
sys.exit(cli.main(sys.argv[1:]))
"""
STEPS = {"list of one workload": ["list", "one"], "list of everything": ["list"], "backup of one changed file": []}


def measured(room: Path, packs: int, rounds: int) -> dict:
    """What each step costs in both stores."""
    dice = random.Random("packs")
    small, large = room / "one", room / "many"
    small.mkdir()
    for number in range(packs):
        path = large / f"{number // 1000:04d}"
        path.mkdir(parents=True, exist_ok=True)
        (path / str(number)).write_bytes(dice.randbytes(10))
    results: dict = {"title": f"a store of {packs:,} packs", "packs": packs}
    record = measure.Record(results, room)
    peers = []
    for name in (f"{packs:,} packs", "empty store"):
        where = room / name.replace(",", "").replace(" ", "-")
        where.mkdir()
        peer = tools.Volt(where, small)
        peer.name = name
        peer.prepare()
        peers.append(peer)
    environment = {**os.environ, "PYTHONPATH": str(peers[0].command[-1])}
    made = ["create", "many", "--source", str(large), *peers[0].places]
    subprocess.run([tools.PYTHON, "-c", _MAKE, *made], env=environment, stdout=subprocess.DEVNULL, check=True)
    for number in range(rounds + 1):
        (small / "file").write_bytes(dice.randbytes(100))
        time.sleep(2.2)
        for peer in dice.sample(peers, 2):
            create = peer.word("create", "one", "--source", str(small))
            if not number:  # the first backup of the file, and a first look at the store
                peer.run(*create)
                peer.run(*peer.listing())
                continue
            for step, words in STEPS.items():
                record.step(peer, step, peer.word(*words) if words else create, room)
    return results
