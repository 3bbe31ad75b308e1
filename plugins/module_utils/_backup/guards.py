# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What keeps a new backup from being worse than none."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import typing as t

from .._base import SourceError, Suspect, Unstable, UsageError, files, parse, reason, show
from .._fs.exclusions import Exclusions
from .._fs.mounts import PSEUDO, Kinds, mounts
from .catalog import trouble_of
from .records import Listed, Sidecar

#: The source path of a backup without a source.
NO_SOURCE = "/dev/stdin"


def refuse_emptied(source: bytes, newest: t.Callable[[], t.Optional[Sidecar]]) -> None:
    """SourceError for a source that is empty and was not: a file system that is not mounted looks like that. A backup of it would be green, and
    retention would push the good ones out.

    :param newest: finds the newest backup of this source, complete or not.
    """
    with contextlib.suppress(OSError):  # what cannot be listed is told of by the capture itself
        if os.listdir(source):
            return
        last = newest()
        if last is not None and last["file_count"]:
            raise SourceError(
                f"Source {show(source)} is empty, but {last['id']}, its last backup, is not; mount the missing file system. If it is meant to be empty, back"
                " it up once with `allow_empty: true`."
            )


class AskedSource:
    """The directory that is to be backed up.

    :ivar real: its real path. :ivar shown: the absolute path that was named. :ivar links: the symbolic links that this led through.
    """

    def __init__(self, text: str) -> None:
        """SourceError where there is no directory to back up."""
        if not text:
            raise UsageError("The source is an empty path; set the directory to back up.")
        path = os.path.abspath(parse(os.path.expanduser(text)))
        self.shown = show(path)
        try:
            info = os.stat(path)
        except FileNotFoundError:
            raise SourceError(f"Source {self.shown} does not exist; choose a directory on this host.") from None
        except OSError as error:
            raise SourceError(f"Source {self.shown} cannot be reached: {reason(error)}; fix that, then run again.") from None
        if not stat.S_ISDIR(info.st_mode):
            raise SourceError(f"Source {self.shown} is not a directory; choose the directory that contains it.")
        try:
            os.close(files.open_directory(path, follow=True))
        except OSError as error:
            raise SourceError(f"Source {self.shown} cannot be read: {reason(error)}; run as a user that can read it.") from None
        kind = Kinds()(info.st_dev)
        if kind in PSEUDO:
            raise UsageError(f"Source {self.shown} is on a {kind} file system, which has no data to back up; choose another source.")
        self.real = os.path.realpath(path)
        parts = path.split(b"/")
        self.links = [show(above) for above in (b"/".join(parts[:end]) for end in range(2, len(parts) + 1)) if os.path.islink(above)]


class NoSource(AskedSource):
    """In the place of a source where a backup has none, only what a program writes."""

    def __init__(self) -> None:
        self.real, self.shown, self.links = NO_SOURCE.encode(), NO_SOURCE, []


def refuse_new_links(source: AskedSource, backups: t.Iterable[Listed]) -> None:
    """SourceError where the path of a source leads through a symbolic link that was none at the workload's last backup of that path.

    One who may write above the source could turn it to anything, and root would back that up, and restore over it.

    :param backups: of the workload, the newest first.
    """
    if not source.links:
        return
    for backup in backups:
        if trouble_of(backup) is not None:
            continue
        asked, links = backup.get("source_asked"), backup.get("source_links")
        if asked is None and backup["source_path"] == source.shown:
            links = []  # of version 0.1.0: it kept the real path, and this was it
        elif asked != source.shown or links is None:
            continue
        new = [link for link in source.links if link not in links]
        if new:
            raise SourceError(
                f"Source {source.shown} contains the symbolic link {new[0]}, which was not a link at the last backup ({backup['id']}); remove the link, or"
                f" use the directory it points to ({show(source.real)}) as the source."
            )
        return


def unstable(details: t.Mapping[str, t.Any]) -> Unstable:
    """What to fail with where an unstable backup was said to be a failure. :param details: `backup`, and what else is for the result."""
    backup = details["backup"]
    kept = f"It is kept as {backup['id']}" if backup["id"] else "It would be kept"
    return Unstable(
        f"{backup['unstable_count']} file(s) changed during the backup, first {backup['unstable_paths'][0]}. {kept}; stop or dump the application, or list"
        " these files in `unstable_ok`.",
        **details,
    )


def suspect(details: t.Mapping[str, t.Any]) -> Suspect:
    """What to fail with where a backup is suspect. :param details: `backup`, and what else is for the result."""
    backup = details["backup"]
    kept = f"It is kept as {backup['id']}, and no backup is pruned" if backup["id"] else "It would be kept, and no backup pruned"
    return Suspect(
        f"Workload {backup['workload_name']}: the backup is suspect: {backup['suspect_reason']}. {kept}. If the files are correct, run"
        f" volt_backup with state: accepted and id: {backup['id'] or 'ID'}.",
        **details,
    )


class MountMissing(SourceError):
    """What was mounted at the last backups is not. `details` has `mounts`."""

    code = "mount_missing"


def witnesses(source: bytes, backups: t.Iterable[Listed]) -> t.List[Listed]:
    """The last three good backups of a source that say what was mounted; fewer, if there are no more.

    :param backups: of the workload, the newest first.
    """
    shown = show(source)
    good = (found for found in backups if trouble_of(found) is None and found["complete"] and not found["suspect"] and found["source_path"] == shown)
    return list(itertools.islice((found for found in good if found.get("mounts") is not None), 3))


def missing_mounts(source: bytes, backups: t.Iterable[Listed]) -> t.List[str]:
    """What was mounted at each of the last three good backups of a source, and is not now."""
    lists = [set(found["mounts"] or ()) for found in witnesses(source, backups)]
    if not lists:
        return []
    return sorted(set.intersection(*lists) - {show(mount.point) for mount in mounts()})


def without_mounts(gone: t.Container[str]) -> t.Callable[[Sidecar], Sidecar]:
    """A change of sidecars: they do not say any more that some mounts were there."""

    def change(sidecar: Sidecar) -> Sidecar:
        return t.cast(Sidecar, {**sidecar, "mounts": [point for point in sidecar["mounts"] or () if point not in gone]})

    return change


def refuse_missing_mounts(source: bytes, backups: t.Sequence[Listed], exclude: t.Optional[Exclusions]) -> None:
    """MountMissing before anything is read: a backup of an empty mount point would be green, and retention would push the good ones out.

    :param exclude: what is left out, and may be missing; None where all mounts below the source are.
    """
    missing = []
    for point in missing_mounts(source, backups):
        path = parse(point)
        prefix = source.rstrip(b"/") + b"/"
        if path.startswith(prefix) and (exclude is None or _is_excluded(exclude, path[len(prefix) :])):
            continue
        missing.append(point)
    if missing:
        raise MountMissing(
            f"Source {show(source)}: {', '.join(missing)} was mounted at the last backups but is not mounted now; mount it. If it was removed for good, run"
            f" volt_backup with state: accepted and workload: {backups[0]['workload_name']}.",
            mounts=missing,
        )


def _is_excluded(exclude: Exclusions, path: bytes) -> bool:
    names = path.split(b"/")
    return any(exclude.excludes(b"/".join(names[:end]), names[end], True) for end in range(len(names)))


def check_still(snapshot: str, size: t.Optional[str], quiesce: str) -> None:
    """UsageError for values of options `snapshot`, `snapshot_size` and `quiesce` that there are not."""
    if size is not None:
        from .._sources.lvm import check_size

        check_size(size, snapshot)
    for name, value, ways in (("snapshot", snapshot, ("none", "auto", "require")), ("quiesce", quiesce, ("none", "pause", "stop"))):
        if value not in ways:
            raise UsageError(f"Option {name} must be one of {', '.join(ways)} (got {value!r}).")


def refuse_inside(source: bytes, *places: str) -> None:
    """UsageError for a source that lies where backups are kept."""
    for place in places:
        real = os.path.realpath(os.fsencode(place))
        if source == real or source.startswith(real.rstrip(b"/") + b"/"):
            raise UsageError(f"Source {show(source)} is inside {show(real)}, where backups are kept; choose the directory to back up.")
