# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Capture: a directory tree into a run of the store. This is the walk down; `intake` reads, `settle` makes trees on the way up.

Files of a directory come before its subdirectories. Each directory is compared with the last scan: if names and stats are equal and the
content is still stored, nothing in it is opened.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import typing as t

from .._base import Progress, SourceError, open_real, reason, show
from .._format import links, tree
from .._format.walk import join
from .._fs import metadata
from .._fs.descent import Item, Moved, Trail, listing
from .._fs.exclusions import CACHEDIR_TAG, Exclusions, Skipped, is_cache
from .._fs.mounts import PSEUDO, SNAPSHOTS, SUBVOLUME, Kinds, Mount, MountsBelow, answers
from .._store.transaction import Transaction
from . import stat_cache
from .file_saver import FileSaver, count_chunks
from .link_check import LinkCheck
from .state import Directory, Notes, describe, numbers_of
from .stream import Streams
from .tree_saver import TreeSaver
from .write_back import WriteBack

#: Seconds that a mount may take to answer the first look.
_ANSWER = 60.0


class SourceMoved(SourceError):
    """What was walked is not what the source's path leads to any more."""


class View(t.NamedTuple):
    """Where a source is read, if not where it lies: snapshots, shown together.

    :ivar place: a directory that shows them. :ivar mounts: of the source itself. :ivar identities: of the file systems, by the devices of the snapshots.
    :ivar moment: before the first snapshot, in ns.
    """

    place: bytes
    mounts: MountsBelow
    identities: t.Mapping[int, int]
    moment: int


class Options(t.NamedTuple):
    """What to leave out. `apart` are (st_dev, st_ino) of the store and the backup directory. `streams` come instead of what has their names."""

    exclude: Exclusions
    caches: bool = False
    one_file_system: bool = False
    apart: t.FrozenSet[t.Tuple[int, int]] = frozenset()
    streams: Streams = Streams()
    view: t.Optional[View] = None


class Captured(t.NamedTuple):
    """A tree in the store. `root` describes the source directory itself, under an empty name.

    `links` is the digest of the table of hard links, empty if there are none; `rescanned`: whether a new scan file was written.
    """

    root: tree.Entry
    links: bytes
    links_size: int
    stats: stat_cache.Stats
    notes: Notes
    rescanned: bool


class Capture:
    """One walk. Use once.

    :param old: the last scan of the same source.
    :param new: path of the next one; None to write none (a dry run).
    :param progress: called with (files, bytes) taken in since the last call.
    """

    def __init__(self, run: Transaction, options: Options, old: stat_cache.Scan, new: t.Optional[t.BinaryIO], progress: Progress) -> None:
        self._run, self._options, self._old, self._progress = run, options, old, progress
        self._new = new
        self._notes = Notes()
        self._view = options.view
        self._kinds = Kinds(self._view.identities if self._view is not None else None)
        self._write_back = WriteBack(self._kinds)
        self._file_saver = FileSaver(run, self._notes, progress, self._write_back)
        self._mounts: t.Optional[MountsBelow] = None
        self._check: t.Optional[LinkCheck] = None
        self._all_packs = run.blobs.rely_on(old.packs)

    def __call__(self, source: bytes) -> Captured:
        """:param source: a real path. :raises SourceMoved: it leads elsewhere by the time the walk has ended."""
        view = self._view
        place = source if view is None else view.place
        try:
            trail = Trail(open_real(place))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise SourceMoved(f"Source {show(source)}: a symbolic link was created in its path; find out who created it, then run again.") from None
            raise SourceError(f"Source {show(source)} cannot be opened: {reason(error)}; fix that, then run again.") from None
        with trail:
            info = os.fstat(trail.fd)
            self._mounts = MountsBelow(source, info.st_dev) if view is None else view.mounts
            self._notes.mounts.update(self._mounts.own())
            self._write_back.enter(trail.fd, info.st_dev)
            writer = stat_cache.Writer(self._new, time.time_ns() if view is None else view.moment) if self._new is not None else None
            tree_saver = TreeSaver(self._run, self._notes, writer, self._options.streams)
            root = Directory(b"", None, self._old.root(), info.st_dev, self._kinds.identity(trail.fd, info.st_dev))
            entry = describe(info, tree.DIRECTORY, b"", self._root_attributes(trail.fd))
            self._walk(root, trail, tree_saver)
            tree_saver.finish()
            entry = entry._replace(content=root.digest)
            with LinkCheck(self._run, self._notes, self._file_saver, trail.fd) as check:
                self._check = check
                groups, entry, grown = check.settle(entry)
            self._check_place(source, place, trail.fd)
        self._notes.add_owners([entry])
        groups, long = links.fitting(groups)
        for group in long:
            why = f"its {len(group)} names are too long for the table of hard links; each is kept as a separate file"
            self._notes.skipped.append(Skipped(group[0], "links", why))
        table = links.encode(groups) if groups else b""
        digest = self._run.add_metadata(table) if groups else b""
        rescanned = writer is not None and isinstance(root.known, stat_cache.Written)
        if rescanned:
            self._run.finish()
            still = self._run.store.known_packs(self._old.packs)
            t.cast(stat_cache.Writer, writer).end(t.cast(stat_cache.Written, root.known), {*still, *self._run.blobs.relied_on()})
        self._old.rest()
        self._run.rest()
        return Captured(entry, digest, len(table), tree_saver.stats + grown, self._notes, rescanned)

    def steps(self) -> object:
        """Another value after progress of the walk. Another thread calls this, so that the walk does not have to report."""
        saver, here = self._file_saver, self._file_saver.here
        looked = self._check.at if self._check is not None else b""
        return here, saver.at, len(here.items) if here is not None else 0, looked, len(self._notes.skipped), self._run.counts.steps

    @property
    def path(self) -> bytes:
        """The current path below the source: a file that a worker has not read yet, or else that of the walk. For another thread."""
        saver = self._file_saver
        here, position = next(iter(list(saver.reading.values())), (saver.here, saver.at))
        if self._check is not None and not saver.reading:
            return self._check.at
        if here is None:
            return b""
        return here.path_of(position) if 0 <= position < len(here.names) else here.path

    def _root_attributes(self, fd: int) -> metadata.Xattrs:
        try:
            return metadata.read_xattrs(fd)
        except OSError as error:
            self._notes.skipped.append(Skipped(b"", "attributes", reason(error)))
            return ()

    @staticmethod
    def _check_place(source: bytes, place: bytes, fd: int) -> None:
        """SourceMoved if the directory that was walked is not the source any more: a deployment replaced or removed it meanwhile."""
        try:
            if os.path.samestat(os.fstat(fd), os.lstat(place)):
                return
            what = "another directory took its place"
        except OSError as error:
            what = reason(error)
        raise SourceMoved(f"Source {show(source)} was replaced or removed during the backup ({what}); run the backup again.")

    def _walk(self, root: Directory, trail: Trail, tree_saver: TreeSaver) -> None:
        here: t.Optional[Directory] = root
        self._visit(root, trail.fd)
        while here is not None:
            if len(here.children) < len(here.subdirectories):
                child = self._enter(here, trail)
                here.children.append(child)
                here = child or here
                continue
            tree_saver.add(here)
            here = here.parent
            if here is not None:
                try:
                    trail.leave()
                except Moved as error:
                    here = self._give_up(here, trail, error.depth, tree_saver)

    def _give_up(self, here: Directory, trail: Trail, depth: int, tree_saver: TreeSaver) -> Directory:
        """Go up to the last directory that can still be reached. What was not visited yet in those below it is unreadable."""
        todo = [here]
        while todo[-1].parent is not None:
            todo.append(todo[-1].parent)
        for lost in todo[: len(todo) - depth]:
            self._suspect(lost)
            for position in lost.subdirectories[len(lost.children) :]:
                self._notes.unreadable(lost, position, "a parent directory was moved during the backup")
                lost.slots[position] = None
                lost.children.append(None)
            tree_saver.add(lost)
        return todo[len(todo) - depth]

    def _stand(self, here: Directory, position: int) -> None:
        """The walk has come to a directory, or to an entry of it."""
        saver = self._file_saver
        saver.at = -1  # one who looks on must not take the old position for one in the new directory
        saver.here = here
        saver.at = position

    # ---- going down

    def _enter(self, parent: Directory, trail: Trail) -> t.Optional[Directory]:
        """Go into the next subdirectory; None if it is missing or not to be entered."""
        place = len(parent.children)
        position = parent.subdirectories[place]
        name, listed = parent.items[position]
        self._stand(parent, position)
        try:
            info = self._descend(trail, name)
        except OSError as error:
            self._suspect(parent)
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # gone, or a symlink by now
                parent.suspect.append(position)
                parent.slots[position] = None
            else:
                self._notes.unreadable(parent, position, reason(error))
                self._leave_empty(parent, position, listed)
            return None
        why = self._stays_out(parent, position, info)
        if why:
            self._suspect(parent)
            parent.suspect.append(position)
            parent.slots[position] = None  # its old entry may have had content
        if not parent.same:
            self._complete(parent, position, info, trail.fd, why == "pseudo")
        if why:
            trail.leave()
            return None
        self._write_back.enter(trail.fd, info.st_dev)
        system = parent.system if info.st_dev == parent.device else self._kinds.identity(trail.fd, info.st_dev)
        child = Directory(parent.names[position], parent, self._record_below(parent, place, position), info.st_dev, system)
        self._visit(child, trail.fd)
        return child

    def _descend(self, trail: Trail, name: str) -> os.stat_result:
        """Enter without changing the access time, if that is allowed."""
        try:
            return trail.enter(name, os.O_NOATIME)
        except PermissionError:
            return trail.enter(name)

    def _stays_out(self, parent: Directory, position: int, info: os.stat_result) -> str:
        """Why a directory that can be entered is not: "pseudo", "mount", or nothing."""
        if info.st_dev == parent.device:
            return ""
        kind = self._kinds(info.st_dev)
        why = "pseudo" if kind in PSEUDO else "mount" if self._options.one_file_system else ""
        if why:
            self._notes.skipped.append(Skipped(parent.path_of(position), why, kind or "another file system"))
        return why

    def _complete(self, parent: Directory, position: int, info: os.stat_result, fd: int, pseudo: bool) -> None:
        """The entry of a subdirectory, now that it is open: from the last scan if its stats were equal, else with its attributes."""
        slot = parent.slots[position]
        if isinstance(slot, tree.Entry) and numbers_of([("", info)], parent.system) == parent.numbers[32 * position : 32 * position + 32]:
            return
        try:
            xattrs = () if pseudo else metadata.read_xattrs(fd)
        except OSError as error:
            self._notes.no_attributes(parent, position, reason(error))
            xattrs = ()
        self._leave_empty(parent, position, info, xattrs, pseudo)

    def _leave_empty(
        self, parent: Directory, position: int, info: os.stat_result, xattrs: metadata.Xattrs = (), pseudo: bool = False
    ) -> None:
        """An entry without a tree, which settling gives it. The times of a pseudo file system change at every boot: none."""
        entry = describe(info, tree.DIRECTORY, parent.names[position], xattrs)
        parent.slots[position] = entry._replace(seconds=0, nanos=0) if pseudo else entry

    def _suspect(self, here: Directory) -> None:
        """Take back the belief that a directory is as the last scan saw it: something below it is not."""
        if not here.same:
            return
        here.same = False
        facts = t.cast(stat_cache.DirectoryRecord, here.record).facts
        entries = {entry.name: entry for entry in tree.load(self._run.store.read, facts.tree)}
        here.slots = [entries.get(name) for name in here.names]
        here.linked = list(facts.linked)

    @staticmethod
    def _record_below(parent: Directory, place: int, position: int) -> t.Optional[stat_cache.DirectoryRecord]:
        if parent.record is None:
            return None
        if not parent.same:
            place = parent.record.place_of(parent.names[position])
        return parent.record.child(place) if place >= 0 else None

    # ---- one directory

    def _visit(self, here: Directory, fd: int) -> None:
        """List a directory and take in all that is in it, save its subdirectories."""
        self._stand(here, -1)
        options = self._options
        mounts = t.cast(MountsBelow, self._mounts)
        path = here.path if mounts or options.exclude else b""
        mounted = mounts.at(path)
        taken = options.streams.names if here.parent is None else frozenset()

        def omit(found: os.DirEntry[str]) -> bool:
            return bool(taken) and os.fsencode(found.name) in taken or self._is_omitted(path, found, mounted)

        def failed(name: bytes, error: OSError) -> None:
            self._notes.skipped.append(Skipped(join(here.path, name), "unreadable", reason(error)))

        try:
            items, names = listing(fd, omit if options.exclude or mounted or taken else None, failed, here.items)
        except OSError as error:
            self._notes.skipped.append(Skipped(here.path, "unreadable", reason(error)))
            items, names = [], []
            here.record = None
        if options.caches or options.apart:
            items, names = self._wanted(here, fd, items, names)
        here.items, here.names, here.numbers = items, names, numbers_of(items, here.system)
        here.untrusted = self._kinds.untrusted(here.device)
        if here.record is not None and self._all_packs and not taken and self._unchanged(here, here.record.facts):
            facts = here.record.facts
            here.same = True
            here.subdirectories = list(facts.subdirectories)
            for position in facts.linked:
                self._notes.link(here, fd, position)
            self._progress(facts.stats.files, facts.stats.size)
        else:
            self._file_saver(here, fd)

    def _is_omitted(self, path: bytes, found: os.DirEntry[str], mounted: t.Mapping[bytes, Mount]) -> bool:
        """Whether an entry is skipped before any access: an access to a dead mount may never return."""
        name = os.fsencode(found.name)
        mount = mounted.get(name)
        if self._options.exclude:
            try:
                directory = found.is_dir(follow_symlinks=False)
            except OSError:  # the listing has no type, and it cannot be read
                directory = True
            if self._options.exclude.excludes(path, name, directory):
                return True
        return mount is not None and self._stays_away(join(path, name), found, mount)

    def _stays_away(self, path: bytes, found: os.DirEntry[str], mount: Mount) -> bool:
        """Whether a mount point is skipped, with a note. Directories of local file systems are read: they are kept, empty."""
        other = t.cast(MountsBelow, self._mounts).is_other(mount)
        if self._options.one_file_system and other and (mount.is_remote or not found.is_dir(follow_symlinks=False)):
            self._notes.skipped.append(Skipped(path, "mount_point", mount.kind))
            return True
        if mount.is_remote and not answers(mount.point, _ANSWER):
            self._notes.skipped.append(Skipped(path, "unreadable", f"this {mount.kind} mount does not respond"))
            return True
        if mount.lasts and not (other and self._options.one_file_system):
            self._notes.mounts.add(mount.point)
        return False

    def _wanted(self, here: Directory, fd: int, items: t.List[Item], names: t.List[bytes]) -> t.Tuple[t.List[Item], t.List[bytes]]:
        options = self._options
        if options.caches and here.parent is not None and CACHEDIR_TAG in names and is_cache(fd):
            keep = [names.index(CACHEDIR_TAG)]
        else:
            keep = []
            ours = SNAPSHOTS if SNAPSHOTS in names and os.fstat(fd).st_ino == SUBVOLUME else b"/"
            for position, (_name, info) in enumerate(items):
                if stat.S_ISDIR(info.st_mode) and ((info.st_dev, info.st_ino) in options.apart or names[position] == ours):
                    self._notes.skipped.append(Skipped(join(here.path, names[position]), "store", ""))
                    continue
                keep.append(position)
        if len(keep) == len(items):
            return items, names
        return [items[position] for position in keep], [names[position] for position in keep]

    def _unchanged(self, here: Directory, facts: stat_cache.DirectoryFacts) -> bool:
        """Whether names and numbers are those of the last scan, and all content is still stored."""
        return (
            here.numbers == facts.numbers
            and b"\0".join(here.names) == facts.names
            and self._run.blobs.has(facts.tree)
            and all(self._run.objects.has(digest, size) for digest, size in facts.objects)
            and all(count_chunks(self._run, digest, size) >= 0 for digest, size in facts.chunked)
        )


def only_streams(run: Transaction, streams: Streams) -> Captured:
    """A tree of streams alone, where there is no source."""
    digest = tree.store(run.add_metadata, sorted(streams.entries, key=lambda entry: entry.name))
    latest = max((entry.seconds for entry in streams.entries), default=0)
    root = tree.Entry(b"", tree.DIRECTORY, 0o700, os.geteuid(), os.getegid(), latest, 0, 0, digest, tree.NOTHING)
    notes = Notes()
    notes.add_owners([root, *streams.entries])
    return Captured(root, b"", 0, streams.stats, notes, False)
