# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The two records of a backup, sidecar and manifest, as JSON.

The manifest has what a restore needs, and a copy of the facts that cannot be computed again, so that a lost backup directory can be
made anew from a store. It is never changed. The sidecar has what people ask about; outside its first keys, which are those of the original
system, keys may be added.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import typing as t

from .._base import Damaged, Foreign, UsageError, newer, parse, parse_time, show
from .._capture.stat_cache import Stats
from .._format.tree import DIRECTORY, NOTHING, Entry, Extra
from .._fs.exclusions import Skipped
from .._store import original

FORMAT = 1
#: Why a file is none of ours.
ORIGINAL = "It was made by the original Volt command; volt.backup does not change it."
_U32 = (1 << 32) - 1


class SkippedPath(t.TypedDict):
    """A path that is not in a backup: the form of it that a sidecar has."""

    path: str
    reason: str
    detail: str


class CopyRecord(t.TypedDict):
    """A copy of a backup on a remote."""

    remote: str  # id of the remote
    push: str  # its name there: <host>/<push>
    copied_at: str


class DumpRecord(t.TypedDict):
    """A dump in a backup: its database system, its path there, and the database; null for all of them."""

    kind: str
    path: str
    database: t.Optional[str]


class QuiescedRecord(t.TypedDict):
    """A container that was kept still: its runtime, its name, and how: "pause" or "stop"."""

    runtime: str
    name: str
    way: str


class SnapshotRecord(t.TypedDict):
    """A file system of the source, by its path, and how it was kept still: "btrfs", "zfs", "lvm", or "none" where it was not.

    `taken_at`: all that was written before is in its snapshot; null without one.
    """

    path: str
    kind: str
    taken_at: t.Optional[str]


class Sidecar(t.TypedDict, total=False):
    """What people ask about a backup; the keys of its file in their order. Where a record cannot be read, all but `id` may be null."""

    id: str  # null, as manifest_ref, of one that only a real run would make
    workload_name: str
    workload_mode: t.Optional[str]
    type: str
    manifest_ref: str
    tags: t.List[str]
    created_at: str
    blob_count: int
    total_size: int  # bytes, as all sizes
    new_blobs: int
    dedup_blobs: int
    duration: int  # ns
    pushed_to_cdn: bool
    source_path: str
    notes: t.Optional[str]
    format: int
    host: str
    host_id: t.Optional[str]
    manifest_sha256: str
    complete: bool
    exclude: t.List[str]
    exclude_caches: bool
    one_file_system: bool
    file_count: int
    new_bytes: int
    stored_bytes: int
    skipped: t.List[SkippedPath]
    skipped_count: int
    changed_while_read: t.List[str]
    changed_while_read_count: int
    unstable: bool
    unstable_paths: t.List[str]
    unstable_count: int
    source_asked: t.Optional[str]  # the absolute path that was named; null where version 0.1.0 made the backup
    source_links: t.Optional[t.List[str]]  # the symbolic links that it led through
    mounts: t.Optional[t.List[str]]  # what was mounted there, and is to be there at the next run
    suspect: bool  # it has lost far more than the workload's history shows
    suspect_reason: t.Optional[str]  # why; it stays where the backup was accepted
    lost_counts: t.List[int]  # files of the backup before that were replaced by what looks encrypted or wiped: this one's, and of those before it
    file_counts: t.List[int]  # of files with content: this backup's, and those of the good ones before it, the newest first
    accepted_by: t.Optional[str]  # who said that a suspect backup is as it should be
    accepted_at: t.Optional[str]
    protected: bool  # nothing deletes it
    protected_by: t.Optional[str]  # who said so, or took that back
    protected_at: t.Optional[str]
    directory_id: t.Optional[str]  # of the backup directory that it belongs to; null in sidecars of version 0.1.0
    store_id: t.Optional[str]  # of the store that its content is in; likewise
    copies: t.List[CopyRecord]  # where else it is
    dumps: t.List[DumpRecord]  # what databases wrote into it
    quiesced: t.List[QuiescedRecord]  # the containers that were kept still
    snapshots: t.List[SnapshotRecord]  # of which file systems it has one moment; empty where none was asked for


class Listed(Sidecar, total=False):
    """A sidecar with the state of its backup."""

    checked: t.Optional[bool]  # all that it needs is as it was when last hashed; null where that is not known, as of a damaged one
    checked_at: t.Optional[str]  # since when all that it needs has been hashed; null where it is not checked

    damaged: bool
    damage: t.Optional[str]  # what is wrong
    unsupported: bool  # a newer version wrote it, or something that it needs
    unsupported_reason: t.Optional[str]
    future: bool  # made at a time that has not come yet: the clock was wrong then, or is wrong now
    foreign: bool  # it belongs to another backup directory, and is left alone here
    foreign_reason: t.Optional[str]
    seq: t.Optional[int]  # of a copy on a remote: the number of its commit
    commit_sha256: t.Optional[str]  # likewise: the digest of its commit


#: Keys of a sidecar's file, in order.
SIDECAR = tuple(Sidecar.__annotations__)
#: Keys that are found out and never read from a file.
STATE = ("checked", "checked_at", "damaged", "damage", "unsupported", "unsupported_reason", "future", "foreign", "foreign_reason")
#: Keys that are found out of a copy on a remote.
COPY = ("seq", "commit_sha256")
#: Keys that records of version 0.1.0 lack, with what stands for them.
LATER: t.Dict[str, t.Any] = {
    "unstable": False, "unstable_paths": [], "unstable_count": 0, "source_asked": None, "source_links": None, "mounts": None,
    "suspect": False, "suspect_reason": None, "lost_counts": [], "file_counts": [], "accepted_by": None, "accepted_at": None,
    "protected": False, "protected_by": None, "protected_at": None, "directory_id": None, "store_id": None, "copies": [],
    "dumps": [], "quiesced": [], "snapshots": [],
}  # fmt: skip
#: Keys that a manifest repeats.
REPEATED = (
    "id", "workload_name", "workload_mode", "type", "tags", "created_at", "source_path", "notes", "host", "host_id", "complete",
    "exclude", "exclude_caches", "one_file_system", "unstable", "unstable_paths", "unstable_count", "source_asked", "source_links", "mounts",
    "suspect", "suspect_reason", "lost_counts", "file_counts", "directory_id", "dumps", "quiesced", "snapshots",
)  # fmt: skip
#: Paths that a sidecar names; the manifest has them all.
NAMED = 100
#: The longest sidecar.
SIDECAR_MOST = 256 << 20
_MOST = (1 << 63) - 1
_RANDOM = re.compile(r"[0-9a-f]{32}\Z")
_MANIFEST_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)-[0-9a-f]{12}\Z")


class Manifest(t.NamedTuple):
    """A decoded manifest. `root` is the entry of the source directory itself, under an empty name."""

    backup: t.Dict[str, t.Any]
    root: Entry
    links: bytes
    links_size: int
    users: t.Dict[int, str]
    groups: t.Dict[int, str]
    skipped: t.List[Skipped]
    totals: t.Dict[str, int]


def encode_manifest(manifest: Manifest) -> bytes:
    root = manifest.root
    value = {
        "format": FORMAT,
        "backup": {key: manifest.backup[key] for key in REPEATED},
        "root": {
            "tree": root.content.hex(),
            "mode": root.mode,
            "uid": root.uid,
            "gid": root.gid,
            "mtime": [root.seconds, root.nanos],
            "xattrs": [[show(name), base64.b64encode(data).decode()] for name, data in root.extra.xattrs],
        },
        "links": {"table": manifest.links.hex(), "size": manifest.links_size} if manifest.links else None,
        "users": {str(number): name for number, name in sorted(manifest.users.items())},
        "groups": {str(number): name for number, name in sorted(manifest.groups.items())},
        "skipped": [[show(item.path), item.reason, item.detail] for item in manifest.skipped],
        "totals": manifest.totals,
    }
    return (json.dumps(utf8(value), sort_keys=True, indent=1) + "\n").encode()


def decode_manifest(data: bytes) -> Manifest:
    """Damaged for anything but a manifest; Unsupported for one of a newer format, Foreign for one of the original Volt command."""
    if original.is_manifest(data):
        raise Foreign(ORIGINAL)
    value = _load(data, "manifest")
    try:
        root, table = value["root"], value["links"]
        facts = {**{key: LATER[key] for key in REPEATED if key in LATER}, **value["backup"]}
        seconds, nanos = root["mtime"]
        wrong = [key for key in REPEATED if not KINDS[key](facts[key])]
        if wrong:
            raise ValueError(f"{wrong[0]} has an invalid value")
        if any(name in ("", None) or "\0" in name for name, _text in root["xattrs"]):
            raise ValueError("an attribute has an invalid name")
        xattrs = tuple((parse(name), base64.b64decode(text, validate=True)) for name, text in root["xattrs"])
        entry = Entry(
            b"", DIRECTORY, _int(root["mode"], 0o7777), _int(root["uid"], _U32), _int(root["gid"], _U32), _seconds(seconds), _int(nanos, 999_999_999), 0,
            _digest(root["tree"]), Extra(xattrs=xattrs) if xattrs else NOTHING,
        )  # fmt: skip
        return Manifest(
            backup={key: facts[key] for key in REPEATED},
            root=entry,
            links=_digest(table["table"]) if table else b"",
            links_size=_int(table["size"]) if table else 0,
            users={int(number): _str(name) for number, name in value["users"].items()},
            groups={int(number): _str(name) for number, name in value["groups"].items()},
            skipped=[Skipped(parse(path), _str(why), _str(detail)) for path, why, detail in value["skipped"]],
            totals={key: _int(value["totals"][key]) for key in {**dict.fromkeys(Stats._fields), **value["totals"]}},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, UsageError) as error:
        raise Damaged(f"The manifest is invalid: {error!r}.") from None


def _int(value: t.Any, most: int = _MOST) -> int:
    if not _number(value) or value > most:
        raise ValueError("a number is invalid or out of range")
    return value


def _seconds(value: t.Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a time is invalid")
    return value


def _str(value: t.Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is invalid")
    return value


def _text(value: t.Any) -> bool:
    return isinstance(value, str)


def _text_or_none(value: t.Any) -> bool:
    return value is None or isinstance(value, str)


def _absolute(value: t.Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _number(value: t.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _flag(value: t.Any) -> bool:
    return isinstance(value, bool)


def _texts(value: t.Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _paths(value: t.Any) -> bool:
    """Paths that were skipped, and why."""
    keys = ("path", "reason", "detail")
    return isinstance(value, list) and all(isinstance(item, dict) and all(_text(item.get(key)) for key in keys) for item in value)


def _objects(*keys: str) -> t.Callable[[t.Any], bool]:
    """Whether a value is a list of objects that have texts under these keys."""
    return lambda value: isinstance(value, list) and all(isinstance(item, dict) and all(_text(item.get(key)) for key in keys) for item in value)


def _id_or_none(value: t.Any) -> bool:
    return value is None or isinstance(value, str) and _RANDOM.match(value) is not None


def _time(value: t.Any) -> bool:
    try:
        parse_time(value)
    except Exception:  # each Python has its own words for what is no time
        return False
    return True


#: Of each key of a sidecar, whether a value can be its.
KINDS: t.Dict[str, t.Callable[[t.Any], bool]] = {
    **dict.fromkeys(SIDECAR, _number),
    **dict.fromkeys(("id", "workload_name", "type", "manifest_ref", "source_path", "host", "manifest_sha256"), _text),
    **dict.fromkeys(("workload_mode", "notes", "host_id", "source_asked", "suspect_reason", "accepted_by", "protected_by"), _text_or_none),
    **dict.fromkeys(("tags", "exclude", "changed_while_read", "unstable_paths"), _texts),
    **dict.fromkeys(("pushed_to_cdn", "complete", "exclude_caches", "one_file_system", "unstable", "suspect", "protected"), _flag),
    **dict.fromkeys(("source_links", "mounts"), lambda value: value is None or _texts(value)),
    "created_at": _time,
    **dict.fromkeys(("accepted_at", "protected_at"), lambda value: value is None or _time(value)),
    **dict.fromkeys(("file_counts", "lost_counts"), lambda value: isinstance(value, list) and all(map(_number, value))),
    "source_path": _absolute,  # where a restore goes by itself must not depend on where it is started
    "skipped": _paths,
    "copies": _objects(*CopyRecord.__annotations__),
    "dumps": lambda value: _objects("kind", "path")(value) and all(_text_or_none(item.get("database")) for item in value),
    "quiesced": _objects("runtime", "name", "way"),
    "snapshots": lambda value: _objects("path", "kind")(value) and all(_text_or_none(item.get("taken_at")) for item in value),
    **dict.fromkeys(("directory_id", "store_id"), _id_or_none),
}


def _digest(text: str) -> bytes:
    digest = bytes.fromhex(text)
    if len(digest) != 32:
        raise ValueError("a digest is invalid")
    return digest


def reference(backup: str, data: bytes) -> t.Tuple[str, str]:
    """(manifest_ref, SHA-256 in hex) of an encoded manifest."""
    digest = hashlib.sha256(data).hexdigest()
    return f"{backup}-{digest[:12]}", digest


def owner(name: str) -> str:
    """The id of the backup that a manifest's name says it is of; empty where it is no such name."""
    match = _MANIFEST_NAME.match(name)
    return match[1] if match else ""


def rebuilt_sidecar(manifest: Manifest, name: str, digest: str, directory: str, store: str) -> Sidecar:
    """A sidecar made from a manifest alone. What only the lost one told (what was new, how long it took) is 0.

    :param directory: id of the directory that it is for. :param store: id of the store.
    """
    totals = manifest.totals
    found = dict(
        manifest.backup,
        manifest_ref=name,
        manifest_sha256=digest,
        blob_count=totals["blobs"],
        dedup_blobs=totals["blobs"],
        total_size=totals["size"],
        new_blobs=0,
        duration=0,
        file_count=totals["files"],
        new_bytes=0,
        stored_bytes=0,
        pushed_to_cdn=False,
        format=FORMAT,
        skipped=[{"path": show(item.path), "reason": item.reason, "detail": item.detail} for item in manifest.skipped[:NAMED]],
        skipped_count=len(manifest.skipped),
        changed_while_read=[],
        changed_while_read_count=0,
        directory_id=directory,
        store_id=store,
        copies=[],
    )
    return t.cast(Sidecar, {**_later(found), **found})


def encode_sidecar(sidecar: Sidecar) -> bytes:
    """The bytes of a sidecar's file. Keys that we do not know follow ours."""
    value = t.cast("t.Dict[str, t.Any]", sidecar)
    others = (key for key in value if key not in SIDECAR and key not in STATE)
    return (json.dumps(utf8({key: value[key] for key in (*SIDECAR, *others)}), indent=1) + "\n").encode()


def decode_sidecar(data: bytes) -> Sidecar:
    """Damaged for anything but a sidecar, Unsupported for one of a newer format, Foreign for one of the original Volt command; keys that we do not
    know are kept."""
    if original.sidecar(data) is not None or original.schedule(data) is not None:
        raise Foreign(ORIGINAL)
    value = _load(data, "sidecar")
    for key in STATE:
        value.pop(key, None)
    value = {**_later(value), **value}
    for key in SIDECAR:
        if key not in value:
            raise Damaged(f"The sidecar has no field {key}.")
        if not KINDS[key](value[key]):
            raise Damaged(f"The sidecar's field {key} has an invalid value.")
    return t.cast(Sidecar, value)


def _later(old: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """What a sidecar of version 0.1.0 lacks, as far as the rest of it tells."""
    count = old.get("changed_while_read_count")
    return {**LATER, "unstable": bool(count), "unstable_paths": old.get("changed_while_read"), "unstable_count": count}


def original_sidecar(backup: str, data: bytes) -> t.Optional[Listed]:
    """What can be read of a record of the original Volt command; None where it is none, or not of this name."""
    found = original.sidecar(data)
    if found is not None and found["id"] != backup:
        return None
    if found is None:
        found = original.schedule(data)
        if found is None or backup != f"schedule-{found['workload_name']}":
            return None
    sidecar: t.Dict[str, t.Any] = {**dict.fromkeys(SIDECAR), **{key: item for key, item in found.items() if key in SIDECAR}, "id": backup}
    if not _time(sidecar["created_at"]):
        sidecar["created_at"] = None
    sidecar.update(tags=sidecar["tags"] or [], exclude=[], skipped=[], changed_while_read=[], complete=False)
    state = {**dict.fromkeys(STATE), **dict.fromkeys(("damaged", "unsupported", "future"), False), "foreign": True, "foreign_reason": ORIGINAL}
    return t.cast(Listed, {**sidecar, **state})


def utf8(value: t.Any) -> t.Any:
    """The same with all text fit to be read again: host and owner names, too, come from the system as any bytes."""
    if isinstance(value, str) and not value.isascii():
        try:
            return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:
            return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: utf8(item) for key, item in value.items()}
    if isinstance(value, list):
        return [utf8(item) for item in value]
    return value


def _load(data: bytes, what: str) -> t.Dict[str, t.Any]:
    try:
        value = json.loads(data.decode(), parse_constant=_finite, parse_float=_finite)
        if b"\\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError, MemoryError):
        raise Damaged(f"The {what} is not JSON.") from None
    if not isinstance(value, dict) or "format" not in value:
        raise Damaged(f"The {what} was not written by volt.backup.")
    if not _number(value["format"]) or not value["format"]:
        raise Damaged(f"The {what} has an invalid format: {value['format']!r}.")
    if value["format"] > FORMAT:
        raise newer(f"The {what} (format {value['format']})")
    return value


def _finite(text: str) -> float:
    """Numbers that JSON has; ValueError for NaN, and for what is beyond all numbers."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
