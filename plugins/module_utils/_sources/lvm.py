# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Snapshots of logical volumes, by the programs of lvm2.

::

    the file systems lie on logical volumes, which the kernel tells (/sys/dev/block/MAJOR:MINOR/dm)
    one run at a time: remove the snapshots that killed runs left, make one of each volume, in a row, and mount them at a place of our own
    read them
    a snapshot that became full meanwhile is invalid, and the run fails
    unmount and remove them, whatever happened

A thin snapshot takes its space from the pool. A classic one gets a size; what is written to the volume while the snapshot exists must fit into it.

LVM freezes the file system for the moment of the snapshot. To freeze all of them by FIFREEZE before, so that they are of one moment, does not work: the kernel
refuses to suspend a volume whose file system is frozen (EBUSY, tried on Linux 6.1), and a program that is killed leaves it frozen.

The mount recovers what the log of the file system still has, such as files that were deleted while they were open. It may write to the snapshot for that, and
to nothing else.

A snapshot of a run that lives is mounted, and LVM removes none that is in use; so one of ours that is not in use was left by a run that was killed.
Its mount was in mounts of the run's own, which ended with it. Each has a tag: lvcreate makes a classic one as a plain volume at first, and stays one if it
is ended then.

While lvcreate and lvremove work, the volume is suspended: what writes to it waits. If one of them hangs, it is ended, and the volume may stay so (tried by
killing lvcreate). Then it is resumed: by `lvchange --refresh`, which waits for other programs that work on the group, and by `dmsetup resume`, if that does
not help. Only the devices that the program had to do with are: those of the volume, its snapshot, and their pool. Other devices
that are suspended stay so. Sources: lvcreate(8), lvchange(8), dmsetup(8), lvs(8), lvmthin(7), xfs(5).
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import time
import typing as t

from .._base import SourceError, UsageError, VoltError, held, show, tolerated
from .._fs.mounts import Mount
from . import storage

#: How much a classic snapshot can take of what is overwritten meanwhile, where nothing is said: a share of the volume, and of the group's free space
#: what there is.
USUAL = "20%"
_SIZE = re.compile(r"([0-9]{1,9})(%|[MGT])\Z")
_UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_NAME = re.compile(r"volt-[0-9a-f]{16}\Z")
#: How a snapshot is mounted: XFS beside the one that it is a snapshot of, ext4 so that one that becomes full never ends the host (errors=panic, as its
#: superblock may say). Btrfs has snapshots of its own, and must not see the same file system twice.
_OPTIONS = {"ext2": b"errors=continue", "ext3": b"errors=continue", "ext4": b"errors=continue", "xfs": b"nouuid"}
#: No copies of the metadata are kept for what exists so shortly, and dmeventd, if it does not run, is not started for it.
_CONFIG = ("--config", "activation/monitoring=0 backup/archive=0 backup/backup=0")
_LOOK = "check `dmsetup info` and the kernel's messages for a device that is suspended or fails"
_TAG = "volt.backup"
#: What LVM adds to the name of a volume for the devices that the volume is made of: its own content, what is kept for a snapshot, a pool.
_LAYERS = ("", "-real", "-cow", "-tpool")
_FIELDS = (
    "vg_name,lv_name,lv_tags,segtype,origin,pool_lv,lv_size,vg_extent_size,vg_free_count,data_percent,metadata_percent,lv_snapshot_invalid,lv_device_open,"
    "lv_kernel_major,lv_kernel_minor"
)


class Volume(t.NamedTuple):
    """A logical volume, as lvs describes it. Sizes are in bytes; `free`: extents of its group."""

    group: str
    name: str
    tags: str
    kind: str
    origin: str
    pool: str
    size: int
    extent: int
    free: int
    full: float
    metadata_full: float
    is_invalid: bool
    is_open: bool
    device: int

    @property
    def path(self) -> str:
        return f"{self.group}/{self.name}"


class _Plan(t.NamedTuple):
    """A snapshot to make, of what a mount shows: of which volume, by which name, and the words for lvcreate that say where it has its space."""

    mount: Mount
    origin: Volume
    name: str
    words: t.List[str]


def check_size(text: str, way: str) -> None:
    """UsageError unless a text is the size of a snapshot: 20%, 500M, 10G or 1T. :param way: as option `snapshot`."""
    found = _SIZE.match(text)
    if way == "none":
        raise UsageError("Option `snapshot_size` has no effect without `snapshot`; set that, or omit it.")
    if found is None or not int(found[1]) or (found[2] == "%" and int(found[1]) > 100):
        raise UsageError(f"Option `snapshot_size` must be a percentage or a number with M, G or T, such as 20% or 10G (got {text!r}).")


def group_of(device: int) -> t.Optional[str]:
    """The volume group of a block device; None where it is no logical volume. :param device: as of stat."""
    top = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/dm"
    try:
        return _group(_read(f"{top}/name")) if _read(f"{top}/uuid").startswith("LVM-") else None
    except OSError:
        return None


def _group(name: str) -> str:
    """The volume group in the name of a device, where hyphens of names are doubled."""
    return name.replace("--", "\0").split("-")[0].replace("\0", "-")


class Snapshots:
    """The snapshots of a run, one of each volume, however often it is mounted.

    :param stack: at its end they are removed. :param place: an empty directory of ours, in mounts of our own. :param size: of classic ones; None for USUAL.
    :ivar taken: when, in ns, by the devices: all that was written before is in the snapshot. :ivar lacks: why there is none, by the devices.
    """

    def __init__(self, stack: contextlib.ExitStack, place: bytes, size: t.Optional[str]) -> None:
        self._stack, self._place, self._size = stack, place, size
        self._roots: t.Dict[int, int] = {}
        self.taken: t.Dict[int, int] = {}
        self.lacks: t.Dict[int, str] = {}

    def take(self, seen: t.Iterable[Mount]) -> None:
        """Make those of all volumes with a known file system among mounts, one right after the other, and mount them. One that fails costs no other."""
        wanted: t.Dict[int, t.Tuple[str, Mount]] = {}
        for mount in seen:
            group = group_of(mount.device) if mount.kind in _OPTIONS else None
            if group is not None:
                wanted.setdefault(mount.device, (group, mount))
        try:
            if wanted:
                with held(), storage.turn("lvm"):  # LVM is never interrupted: the volume could stay suspended
                    self._take(list(wanted.values()))
        except OSError as error:  # one that hangs: the next one would
            self.lacks.update(dict.fromkeys(wanted, storage.why(error)))

    def _take(self, wanted: t.Sequence[t.Tuple[str, Mount]]) -> None:
        todo: t.List[_Plan] = []
        for group in dict.fromkeys(group for group, _mount in wanted):
            seen = [mount for one, mount in wanted if one == group]
            with self._lacking(*seen):
                volumes = _sweep(_volumes(group))
                todo += self._planned(volumes, seen)
        for mount, origin, name, words in todo:
            with self._lacking(mount):
                self._stack.callback(_remove, origin, name)
                self.taken[mount.device] = time.time_ns()
                _change(origin, name, "lvcreate", "--yes", "--snapshot", "--name", name, "--addtag", _TAG, *words, origin.path)
        for mount, origin, name, _words in todo:
            with self._lacking(mount):
                if mount.device not in self.lacks:
                    device = f"/dev/mapper/{_doubled(origin.group)}-{_doubled(name)}"
                    root = storage.mounted(self._stack, device, mount.kind, self._place, _OPTIONS[mount.kind])
                    self._stack.enter_context(_whole(origin.group, name, mount))
                    self._roots[mount.device] = root

    def _planned(self, volumes: t.Sequence[Volume], seen: t.Iterable[Mount]) -> t.List[_Plan]:
        """The snapshots to make in a group, as far as there is room for them. :param volumes: all of the group."""
        found, free = [], volumes[0].free if volumes else 0
        for mount in seen:
            with self._lacking(mount):
                origin = next((volume for volume in volumes if volume.device == mount.device), None)
                if origin is None:
                    raise OSError(errno.ENOENT, f"lvs does not show the volume of {show(mount.point)}")
                words, extents = _room(origin._replace(free=free), volumes, self._size)
                free -= extents
                found.append(_Plan(mount, origin, f"volt-{os.urandom(8).hex()}", words))
        return found

    @contextlib.contextmanager
    def _lacking(self, *seen: Mount) -> t.Iterator[None]:
        """What fails here is why some mounts have no snapshot. What hangs is raised."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.ETIMEDOUT:
                raise
            self.lacks.update({mount.device: storage.why(error) for mount in seen})

    def root(self, mount: Mount) -> t.Optional[int]:
        """A descriptor of the root of the file system as it was; None where it is on no logical volume, of a kind that is not supported, or has none."""
        return None if mount.device in self.lacks else self._roots.get(mount.device)


@contextlib.contextmanager
def _whole(group: str, name: str, mount: Mount) -> t.Iterator[None]:
    """SourceError at the end if the snapshot became full meanwhile, or if that cannot be found out."""
    try:
        yield
    except (VoltError, OSError):
        with contextlib.suppress(OSError):
            _refuse_full(group, name, mount)  # which is the cause, then
        raise
    try:
        _refuse_full(group, name, mount)
    except OSError as error:
        why = storage.why(error)
        what_to_do = "" if ";" in why else "; correct that, then run again"
        raise SourceError(f"The snapshot of {show(mount.point)} may have become full while it was read, so nothing is stored: {why}{what_to_do}.") from None


def tidy(devices: t.Iterable[int]) -> None:
    """Remove what killed runs left in the volume groups of block devices, of those that are of one."""
    for group in {group_of(device) for device in devices} - {None}:
        with tolerated(OSError, VoltError), storage.turn("lvm"):
            _sweep(_volumes(t.cast(str, group)))


def _room(origin: Volume, volumes: t.Sequence[Volume], size: t.Optional[str]) -> t.Tuple[t.List[str], int]:
    """The words for lvcreate that say where a snapshot has its space, and how many extents of the group that takes. OSError where there is none."""
    if origin.kind == "thin":
        pool = next((volume for volume in volumes if volume.name == origin.pool), origin)
        if pool.full >= 100 or pool.metadata_full >= 100:  # the volume would be suspended until LVM gives up
            raise OSError(errno.ENOSPC, f"thin pool {pool.path} is full")
        return ["--setactivationskip", "y", "--ignoreactivationskip", "--activate", "y"], 0  # after a crash of the host, it need not be active
    if not origin.free:
        raise OSError(errno.ENOSPC, f"volume group {origin.group} has no free space")
    number, unit = t.cast("re.Match[str]", _SIZE.match(size or USUAL)).groups()
    wanted = origin.size * int(number) // 100 if unit == "%" else int(number) * _UNITS[unit]
    extents = max(1, -(-wanted // origin.extent))
    if size is not None and extents > origin.free:
        raise OSError(errno.ENOSPC, f"volume group {origin.group} has {origin.free * origin.extent >> 20} MiB free, less than `snapshot_size`")
    extents = min(extents, origin.free)
    return ["--extents", str(extents)], extents


def _refuse_full(group: str, name: str, mount: Mount) -> None:
    """SourceError if a classic snapshot became full: what was read after that moment is wrong."""
    found = next((volume for volume in _volumes(group) if volume.name == name), None)
    if found is None or found.is_invalid or (found.kind != "thin" and found.full >= 100):
        raise SourceError(
            f"The snapshot of {show(mount.point)} became full while it was read, so nothing is stored; raise `snapshot_size`, or run when less is written."
        )


def _remove(origin: Volume, name: str) -> None:
    """Remove a snapshot. If that fails, the next run does."""
    with held(), tolerated(OSError, VoltError), storage.turn("lvm"):
        _change(origin, name, "lvremove", "--yes", f"{origin.group}/{name}")


def _sweep(volumes: t.Sequence[Volume]) -> t.List[Volume]:
    """Remove the snapshots that killed runs left; the other volumes."""
    left = [volume for volume in volumes if _NAME.match(volume.name) and (volume.origin or _TAG in volume.tags.split(",")) and not volume.is_open]
    for volume in left:
        origin = next((one for one in volumes if one.name == volume.origin), volume)
        with contextlib.suppress(OSError):
            _change(origin, volume.name, "lvremove", "--yes", volume.path)
    return _volumes(left[0].group) if left else list(volumes)


def _change(origin: Volume, name: str, *words: str) -> None:
    """Run a program that suspends a volume, and resume that if the program cannot. :param name: of the snapshot that it makes or removes."""
    try:
        _lvm(*words)
    except OSError:
        if _suspended(origin, name):
            with contextlib.suppress(OSError):
                _lvm("lvchange", "--refresh", origin.path)
        for device in _suspended(origin, name):
            with contextlib.suppress(OSError):
                storage.run(["dmsetup", "resume", device], "lvm2", _LOOK)
        raise


def _suspended(origin: Volume, name: str) -> t.List[str]:
    """The devices of a volume, of its snapshot and of their pool that let what writes to them wait."""
    ours = {f"{_doubled(origin.group)}-{_doubled(one)}{layer}" for one in (origin.name, name, origin.pool) if one for layer in _LAYERS}
    found = []
    for top in glob.glob("/sys/block/dm-*/dm"):
        with contextlib.suppress(OSError):  # it is gone
            device = _read(f"{top}/name")
            if device in ours and _read(f"{top}/suspended") == "1" and _read(f"{top}/uuid").startswith("LVM-"):
                found.append(device)
    return found


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def _volumes(group: str) -> t.List[Volume]:
    said = _lvm("lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "--binary", "--options", _FIELDS, group)
    try:
        return [_volume(row) for row in json.loads(said)["report"][0]["lv"]]
    except (ValueError, LookupError, TypeError) as error:
        raise OSError(errno.EPROTO, f"lvs answers in an unknown form ({type(error).__name__})") from None


def _volume(row: t.Mapping[str, str]) -> Volume:
    major, minor = int(row["lv_kernel_major"]), int(row["lv_kernel_minor"])
    return Volume(
        row["vg_name"],
        row["lv_name"],
        row["lv_tags"],
        row["segtype"],
        row["origin"],
        row["pool_lv"],
        int(row["lv_size"]),
        int(row["vg_extent_size"]),
        int(row["vg_free_count"]),
        float(row["data_percent"] or 0),
        float(row["metadata_percent"] or 0),
        row["lv_snapshot_invalid"] == "1",
        row["lv_device_open"] == "1",
        os.makedev(major, minor) if major >= 0 else 0,
    )


def _doubled(name: str) -> str:
    return name.replace("-", "--")


def _lvm(program: str, *words: str) -> str:
    return storage.run([program, *_CONFIG, *words], "lvm2", _LOOK)
