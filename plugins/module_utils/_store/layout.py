# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Where things lie in a store, and how a store begins.

::

    format.json          what the store is (see `features`); written last when a store is made, so it marks a finished one
    objects/ab/<hex>[.zst|.zz]        large blobs
    packs/ab/<hex>.pack[.zst|.zz]     small blobs
    refs/                manifests
    index/  cache/       derived: safe to delete
    tmp/  trash/  quarantine/  lock  gate  CACHEDIR.TAG
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import typing as t

from .._base import Damaged, Interrupted, StoreError, StoreFull, VoltError, files, nfs, reason, store_failure
from . import features, original
from .refs import MANIFEST_MOST

#: Ends the name of a directory in the trash while its collection is under way, and after that was killed: what it holds may be needed.
OPEN = ".open"
DIRECTORIES = ("objects", "packs", "refs", "index", "cache", "tmp", "trash", "quarantine")
_OURS = frozenset(DIRECTORIES + ("lock", "gate", "CACHEDIR.TAG"))
_CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# A volt.backup store: backups of this host need not contain its backups.\n"
)
OBJECT_NAME = re.compile(r"([0-9a-f]{64})(|\.zst|\.zz)\Z")
PACK_NAME = re.compile(r"([0-9a-f]{64})\.pack(|\.zst|\.zz)\Z")


class Missing(Damaged):
    """A pack or object is not where it was looked for: lost, or moved by a collection."""


State = t.Tuple[int, int]
#: Times of file systems are as of the last tick of the kernel, in ns; of some, as of the last second.
_RACY, _WHOLE = 20_000_000, 2_000_000_000


def state(info: os.stat_result) -> State:
    """What tells one state of a file of the store from another: size in bytes and ctime in ns."""
    return info.st_size, info.st_ctime_ns


def is_plausible(known: t.Optional[State], now: State) -> bool:
    """Whether a file that is not as it was when last hashed may be the same: its size is. :param known: its state then, if that is known."""
    return now[0] > 0 and (known is None or known[0] == now[0])


def object_path(digest: bytes, suffix: str) -> str:
    name = digest.hex()
    return f"objects/{name[:2]}/{name}{suffix}"


def pack_path(digest: bytes, suffix: str) -> str:
    name = digest.hex()
    return f"packs/{name[:2]}/{name}.pack{suffix}"


def read_blob_file(path: str, limit: int) -> bytes:
    """The bytes of an object or pack, at most `limit`; Damaged where it is missing, larger, or cannot be read."""
    try:
        return files.read_stored(path, limit)
    except FileNotFoundError:
        raise Missing(f"{path} is missing from the store.") from None


def trash_files(store: str, ending: str = "") -> t.Dict[str, str]:
    """What lies in the trash: path by the file's name, of the last one that was moved there."""
    found: t.Dict[str, str] = {}
    for directory in _trash_directories(store, ending):
        for name in files.list_stored(directory):
            found.setdefault(name, os.path.join(directory, name))
    return found


def in_trash(store: str, name: str) -> t.Optional[str]:
    """The path of a pack or object in the trash; None where it is not there."""
    for directory in _trash_directories(store, OPEN):
        path = os.path.join(directory, name)
        if os.path.lexists(path):
            return path
    return None


def _trash_directories(store: str, ending: str) -> t.List[str]:
    trash = os.path.join(store, "trash")
    names = sorted((name for name in files.list_stored(trash) if name.endswith(ending)), reverse=True)
    return [os.path.join(trash, name, kind) for name in names for kind in ("objects", "packs")]


def trash_stamp(store: str) -> t.Optional[t.Tuple[t.Tuple[str, int], ...]]:
    """Something that is another once a collection has moved a file to the trash or out of it. None where it may have done so a moment ago, within the
    precision of the file system's times."""
    found = []
    for directory in [os.path.join(store, "trash"), *_trash_directories(store, OPEN)]:
        try:
            found.append((directory, os.stat(directory).st_mtime_ns))
        except OSError:
            continue
    return None if any(map(may_have_changed, (moment for _directory, moment in found))) else tuple(found)


def may_have_changed(moment: int) -> bool:
    """Whether something may have happened after a directory's time without making it another. One of the future was made by another clock."""
    racy = _WHOLE if moment % 1_000_000_000 == 0 else _RACY
    return -_WHOLE < time.time_ns() - moment < racy


def shard_names(store: str, kind: str, shard: str) -> t.List[str]:
    """What a shard of objects or packs holds; nothing where there is none, StoreError where it cannot be listed: that is not the same as none."""
    path = os.path.join(store, kind, shard)
    nfs.look_anew(path)
    return [] if os.path.islink(path) else files.list_stored(path)  # what lies behind a symlink is not the store's


def look(path: str, again: bool = False) -> t.Optional[features.Format]:
    """The format of the store at `path`, None where there is none.

    StoreError where something else is there, Unsupported for a store that only a newer version can use. An empty or absent directory is no
    store, nor is one in which making a store was cut short.

    :param again: whether this is the second look.
    """
    for directory in (path, os.path.join(path, "refs")):  # the store may be a mount point
        nfs.look_anew(directory)
    try:
        found = features.read(path)
    except FileNotFoundError:
        try:
            _check_vacant(path)
        except StoreError:
            if not again and os.path.lexists(os.path.join(path, features.NAME)):
                return look(path, again=True)  # another run has made the store at this moment
            raise
        return None
    for name in DIRECTORIES:
        if os.path.islink(os.path.join(path, name)):
            raise StoreError(f"{path}/{name} is a symbolic link, which a store must not contain; replace it with the directory itself.")
    features.check(path, found)
    return found


def look_anew(path: str) -> features.Format:
    """The format of a store that was there a moment ago; StoreError where it is gone."""
    found = look(path)
    if found is None:
        raise StoreError(f"Store {path} no longer exists; mount it, or restore it, then run again.")
    return found


def _check_vacant(path: str) -> None:
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise StoreError(f"Store {path} is not a directory; choose a directory, or a path that does not exist yet.") from None
    except OSError as error:
        raise StoreError(f"Store {path} cannot be read: {reason(error)}; fix that, then run again.") from None
    # what a run left that was killed while it made a store is ours as well
    strange = sorted(name for name in set(names) - _OURS - {"lost+found"} if not files.LEFTOVER_NAME.match(name))
    if strange:
        raise StoreError(f"{path} is not a store: it has other files ({strange[0]}) and no format.json; choose an empty directory, or a store.")
    for part in ("objects", "packs", "refs"):
        if part in names and _has_data(path, part):
            raise StoreError(f"Store {path} has data but no format.json; create it ({{\"format\": 1}}) to use the store.")


def _has_data(store: str, part: str) -> bool:
    """Whether there are files of ours below a directory. Those of the original Volt command are no hindrance."""
    place = os.path.join(store, part)
    for top, _directories, names in os.walk(place):
        for name in names:
            if top != place or not _is_original(part, os.path.join(top, name)):
                return True
    return False


def _is_original(part: str, path: str) -> bool:
    if part != "refs":
        return part == "objects" and original.is_object(os.path.basename(path))
    try:
        return original.is_manifest(files.read_stored(path, MANIFEST_MOST))
    except Interrupted:
        raise
    except (VoltError, FileNotFoundError):
        return False


def make(path: str) -> None:
    """Make a store, or finish one whose making was cut short; StoreError with nothing left behind where that fails."""
    made = _first_missing(path)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        for name in DIRECTORIES:
            os.makedirs(os.path.join(path, name), mode=0o700, exist_ok=True)
        files.write_file(os.path.join(path, "CACHEDIR.TAG"), _CACHEDIR_TAG.encode())
        with contextlib.suppress(FileExistsError):  # another run has made the store at this moment, and its id counts
            files.write_file(os.path.join(path, features.NAME), features.made().encode(), exclusive=True)
    except BaseException as error:
        _undo(path, made)
        if not isinstance(error, OSError):
            raise
        failure = store_failure(f"making it at {path}", error)
        raise failure if isinstance(failure, StoreFull) else StoreError(
            f"A store cannot be created at {path}: {reason(error)}; fix that, or choose another directory."
        ) from None


def _first_missing(path: str) -> t.Optional[str]:
    """The topmost directory that making `path` would make."""
    missing = None
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        missing, path = path, os.path.dirname(path)
    return missing


def _undo(path: str, made: t.Optional[str]) -> None:
    leftovers = [name for name in files.names_in(path) if files.LEFTOVER_NAME.match(name)]
    for name in ("format.json", "CACHEDIR.TAG", *leftovers):
        files.quietly(os.unlink, os.path.join(path, name))
    for name in DIRECTORIES:
        files.quietly(os.rmdir, os.path.join(path, name))
    while made is not None and len(path) >= len(made):
        files.quietly(os.rmdir, path)
        path = os.path.dirname(path)
