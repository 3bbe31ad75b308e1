# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut the power: what was reported as done is there afterwards, and the next backup of the same source is whole in content.

The moments: right after the command has reported, at one of its system calls, at any time.
"""

from __future__ import annotations

import time

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import create
from ansible_collections.volt.backup.tests.crash.cases import ALL, InPlace, Repair, Verify
from ansible_collections.volt.backup.tests.rigs import mounts, sample, strace

CASES = [kind for kind in ALL if kind is not Verify]
#: Of each command.
ROUNDS = 24 if sample.LONG else 2


@pytest.mark.parametrize("kind", CASES, ids=[kind.__name__ for kind in CASES])
@pytest.mark.costly
def test_power_cut(worlds, count, kind):
    world = worlds["ext4"]
    scene = world.scene
    case = world.case(kind)
    points = world.points(kind)
    began = time.monotonic()
    world.server.run(case.words())
    length = time.monotonic() - began
    chance = sample.chance("power", kind.__name__)
    for turn in range(ROUNDS):
        world.reset(kind)
        if turn % 3 == 0:
            what, result = "after its end", world.server.run(case.words())
            mounts.shut_down(scene.disk.where)
        elif turn % 3 == 1:
            point = chance.choice(points)
            what = world.explain(kind, point)
            # A process that is killed at a call has done to the disk what one had by then whose power went.
            result = strace.run(world.server, case.words(), point, "signal=KILL")
            mounts.shut_down(scene.disk.where)
        else:
            moment = chance.uniform(0, 1.1) * length
            what = f"after {moment:.3f} of {length:.3f} seconds"
            worker = world.server.start(case.words())
            time.sleep(moment)
            done = worker.poll() is not None
            mounts.shut_down(scene.disk.where)
            result = worker.end()
            result = result if done else None
        mounts.remount(scene.disk.where)
        count("power cuts")
        try:
            if kind is InPlace and (result is None or result.killed):
                case.store_holds()  # a file that was not synced yet may be cut short: the next run must see that
                case.precious()
            else:
                case.after(result if result is not None and not result.killed else None)
            case.again(world.server.run(case.words()))
            assert case.debris() == []
            if kind is not Repair:
                made = scene.manager.create(create.CreateRequest("work", str(scene.source))).backup
                assert made["complete"]
                scene.whole()
            case.at_last()
        except Exception as error:
            error.add_note(f"the power was cut {what}\n{result}")
            raise
    if kind is not Repair:
        scene.judged_by_others()
