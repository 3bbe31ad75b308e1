# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Snapshots of ZFS data sets, by the program `zfs` of OpenZFS.

::

    which data sets: the sources of the mounts, as the kernel names them, also after one was renamed
    look whether their pools work: everything would wait for one that is suspended
    one run at a time: write what programs wrote through memory maps, which ZFS keeps apart from its own cache; remove the snapshots that killed runs left;
        make those of each pool with one command, so that they are of one moment
    mount each where only this run sees it; refuse if a data set got another name or was unmounted meanwhile
    read them
    unmount and remove them, whatever happened

A data set that is not mounted is no part of a source. A mount of a snapshot stands still already. The kernel mounts a snapshot by mount(2), with legacy mount
points too, and without a look at .zfs, whose mounts come and go, are seen by all, and can be switched off.

A snapshot that is mounted cannot be removed ("dataset is busy"), so a sweep only removes what was left by a run that was killed: its mounts ended with it.
One that another program holds is removed when it is released (`zfs destroy -d`). The programs that make and remove snapshots by a schedule, such as sanoid,
zfs-auto-snapshot, zrepl and pyznap, only remove snapshots with names of their own. Sources: zfs-snapshot(8), zfs-destroy(8), zfs-hold(8), mount.zfs(8).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
import typing as t

from .._base import VoltError, held, reason, show, tolerated
from .._fs.mounts import Mount, mounts
from . import storage

KIND = "zfs"
_NAME = re.compile(r"[^@]+@volt-[0-9a-f]{16}\Z")
#: The states of a pool in which it can be written to.
_WORKING = ("ONLINE", "DEGRADED")
_LOOK = "check `zpool status` and the kernel's messages for a pool that is suspended"


class Snapshots:
    """The snapshots of a run, one of each data set, however often it is mounted.

    :param stack: at its end they are removed. :param place: an empty directory of ours, in mounts of our own.
    :ivar taken: when, in ns, by the devices: all that was written before is in the snapshot. :ivar lacks: why there is none, by the devices.
    """

    def __init__(self, stack: contextlib.ExitStack, place: bytes) -> None:
        self._stack, self._place = stack, place
        self._roots: t.Dict[int, int] = {}
        self.taken: t.Dict[int, int] = {}
        self.lacks: t.Dict[int, str] = {}

    def take(self, seen: t.Iterable[Mount]) -> None:
        """Make and mount those of all data sets among mounts. A pool in which that fails costs no other."""
        pools: t.Dict[str, t.Dict[int, Mount]] = {}
        for mount in seen:
            if mount.kind == KIND and not is_still(mount):
                pools.setdefault(_data_set(mount).split("/")[0], {}).setdefault(mount.device, mount)
        for pool, of_pool in pools.items():
            try:
                health = _run("zpool", "list", "-H", "-o", "health", pool).strip()
                if health not in _WORKING:
                    raise OSError(errno.EIO, f"pool {pool} is {health}; check `zpool status {pool}`")
                self._take(list(of_pool.values()))
            except OSError as error:
                self.lacks.update(dict.fromkeys(of_pool, storage.why(error)))

    def root(self, mount: Mount) -> t.Optional[int]:
        """A descriptor of the root of a data set as it was; None for a mount that is none, stands still, or has no snapshot."""
        return None if mount.device in self.lacks else self._roots.get(mount.device)

    def _take(self, of_pool: t.Sequence[Mount]) -> None:
        name = f"volt-{os.urandom(8).hex()}"
        made = [f"{_data_set(mount)}@{name}" for mount in of_pool]
        with held(), storage.turn(KIND):
            storage.run(["sync", "-f", "--", *(os.fsdecode(mount.point) for mount in of_pool)], "coreutils", _LOOK, apart=False)
            _sweep(_data_set(mount) for mount in of_pool)
            self._stack.callback(_remove, made)
            moment = time.time_ns()
            _run("zfs", "snapshot", *made)
            self.taken.update((mount.device, moment) for mount in of_pool)
            for mount, snapshot in zip(of_pool, made):
                try:
                    self._roots[mount.device] = storage.mounted(self._stack, snapshot, KIND, self._place)
                except OSError as error:
                    raise OSError(error.errno, f"snapshot {snapshot} cannot be mounted: {reason(error)}") from None
        now = {mount.id: mount.source for mount in mounts()}
        for mount in of_pool:
            if now.get(mount.id) != mount.source:
                raise OSError(errno.ESTALE, f"data set {_data_set(mount)} got another name or was unmounted meanwhile; run again")


def is_still(mount: Mount) -> bool:
    """Whether a mount shows a snapshot."""
    return mount.kind == KIND and b"@" in mount.source


def tidy(seen: t.Iterable[Mount]) -> None:
    """Remove what killed runs left of the data sets among mounts."""
    names = {_data_set(mount) for mount in seen if mount.kind == KIND and not is_still(mount)}
    if names:
        with tolerated(OSError, VoltError), storage.turn(KIND):
            _sweep(sorted(names))


def _data_set(mount: Mount) -> str:
    return show(mount.source)


def _sweep(names: t.Iterable[str]) -> None:
    """Remove the snapshots that killed runs left. Those of a run that lives are mounted, and stay."""
    for snapshot in _run("zfs", "list", "-H", "-o", "name", "-t", "snapshot", "-d", "1", *names).splitlines():
        _destroy(snapshot)


def _remove(made: t.Sequence[str]) -> None:
    """Remove snapshots. If that fails, the next run does."""
    with held(), tolerated(OSError, VoltError), storage.turn(KIND):
        for snapshot in made:
            _destroy(snapshot)


def _destroy(snapshot: str) -> None:
    if _NAME.match(snapshot):  # whatever `zfs` lists: without the name of a snapshot, it would destroy the data set
        with contextlib.suppress(OSError):
            _run("zfs", "destroy", "-d", snapshot)


def _run(*words: str) -> str:
    return storage.run(words, "the programs of OpenZFS", _LOOK, told=0)
