# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifest and sidecar: what is written is read, what is hostile is Damaged."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import records
from ansible_collections.volt.backup.plugins.module_utils._backup.records import Manifest
from ansible_collections.volt.backup.plugins.module_utils._base import files
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, Unsupported
from ansible_collections.volt.backup.plugins.module_utils._capture.stat_cache import Stats
from ansible_collections.volt.backup.plugins.module_utils._format.tree import DIRECTORY, NOTHING, Entry, Extra
from ansible_collections.volt.backup.plugins.module_utils._fs.exclusions import Skipped
from hypothesis import given, strategies as st

from ..kit import Child, cuts, descriptors, within

ID = "web-20261123-100000-manual"


def backup(**more: Any) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(records.REPEATED)
    values.update(id=ID, workload_name="web", type="manual", tags=["a"], created_at="2026-11-23T10:00:00.000000Z", source_path="/srv",
                  host="h", complete=True, exclude=[], exclude_caches=False, one_file_system=False,
                  **{key: value for key, value in records.LATER.items() if key in values})  # fmt: skip
    return {**values, **more}


def manifest(**more: Any) -> Manifest:
    root = Entry(b"", DIRECTORY, 0o2755, 1000, 4294967295, -5, 999_999_999, 0, b"t" * 32, Extra(xattrs=((b"user.\xff", b"\0\xff"),)))
    values: dict[str, Any] = {
        "backup": backup(), "root": root, "links": b"l" * 32, "links_size": 40, "users": {0: "root", 1000: "käthe"}, "groups": {},
        "skipped": [Skipped(b"a\xff\\b\n", "unreadable", "permission denied")], "totals": {**dict.fromkeys(Stats._fields, 0), "files": 1},
    }  # fmt: skip
    return Manifest(**{**values, **more})


def sidecar(**more: Any) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(records.SIDECAR, 0)
    values.update(backup(), format=1, manifest_ref=f"{ID}-{'0' * 12}", manifest_sha256="0" * 64, skipped=[], changed_while_read=[],
                  workload_mode=None, notes=None, host_id=None, pushed_to_cdn=False, **records.LATER)  # fmt: skip
    return {**values, **more}


# ---- manifest


@pytest.mark.parametrize(
    "change",
    [{}, {"links": b"", "links_size": 0}, {"skipped": []}, {"root": Entry(b"", DIRECTORY, 0, 0, 0, 0, 0, 0, b"t" * 32, NOTHING)},
     {"backup": backup(notes="line\nbreak \u2028 \\xff", tags=[])}],
)  # fmt: skip
def test_manifest_round_trip(change: dict[str, Any]) -> None:
    held = manifest(**change)
    assert records.decode_manifest(records.encode_manifest(held)) == held


TEXT = st.text("a\\\"\n\0é日😀\u2028", max_size=5)
PATHS = st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b"\1"))


@given(st.lists(st.tuples(PATHS, TEXT), max_size=4), st.dictionaries(st.integers(0, 2**32 - 1), TEXT, max_size=4))
def test_any_path_and_owner(paths: list[tuple[bytes, str]], users: dict[int, str]) -> None:
    held = manifest(skipped=[Skipped(path, why, "") for path, why in paths], users=users)
    assert records.decode_manifest(records.encode_manifest(held)) == held


def test_manifest_is_the_same_bytes_for_the_same_facts() -> None:
    one = manifest(users={1: "a", 0: "b"})
    two = manifest(users={0: "b", 1: "a"}, backup=dict(reversed(list(backup().items()))))
    assert records.encode_manifest(one) == records.encode_manifest(two)


def test_reference() -> None:
    data = b"manifest"
    name, full = records.reference(ID, data)
    assert full == hashlib.sha256(data).hexdigest() and name == f"{ID}-{full[:12]}"


def edited(edit: Callable[[dict[str, Any]], None]) -> bytes:
    value = json.loads(records.encode_manifest(manifest()))
    edit(value)
    return json.dumps(value).encode()


def put(*way: Any) -> Callable[[dict[str, Any]], None]:
    """Set the value at the end of a way of keys."""

    def edit(value: dict[str, Any]) -> None:
        for key in way[:-2]:
            value = value[key]
        value[way[-2]] = way[-1]

    return edit


INFINITY, NOT_A_NUMBER = float("inf"), float("nan")
BAD_MANIFESTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "format text": put("format", "1"),
    "no format": lambda value: value.pop("format"),
    "no root": lambda value: value.pop("root"),
    "no totals": lambda value: value.pop("totals"),
    "root a list": put("root", []),
    "root a number": put("root", 5),
    "tree too short": put("root", "tree", "ab" * 31),
    "tree not hex": put("root", "tree", "xy" * 32),
    "tree a number": put("root", "tree", 5),
    "mode negative": put("root", "mode", -1),
    "mode text": put("root", "mode", "755"),
    "mode of a whole stat": put("root", "mode", 0o40755),
    "mode huge": put("root", "mode", 1 << 70),
    "uid huge": put("root", "uid", 1 << 32),
    "gid huge": put("root", "gid", 1 << 70),
    "uid none": put("root", "uid", None),
    "uid fraction": put("root", "uid", 1.5),
    "time one number": put("root", "mtime", [1]),
    "time huge": put("root", "mtime", [1 << 64, 0]),
    "time infinite": put("root", "mtime", [INFINITY, 0]),
    "time no number": put("root", "mtime", [NOT_A_NUMBER, 0]),
    "a second of nanoseconds": put("root", "mtime", [0, 1_000_000_000]),
    "attribute not base64": put("root", "xattrs", [["user.x", "*"]]),
    "attribute alone": put("root", "xattrs", [["user.x"]]),
    "attribute with a NUL": put("root", "xattrs", [["user.\0x", ""]]),
    "attribute without a name": put("root", "xattrs", [["", ""]]),
    "links too short": put("links", "table", "ab"),
    "links without size": put("links", {"table": "ab" * 32}),
    "links negative": put("links", "size", -1),
    "users a list": put("users", ["root"]),
    "users not numbered": put("users", {"root": "root"}),
    "skipped one alone": put("skipped", [["a"]]),
    "skipped a surrogate that is none": put("skipped", [["\ud800", "", ""]]),
    "skipped with a NUL": put("skipped", [["a\0", "", ""]]),
    "totals text": put("totals", {"files": "many"}),
    "totals infinite": put("totals", {"files": INFINITY}),
    "totals of some": lambda value: value["totals"].pop("files"),
    "totals true": put("totals", "files", True),
    "format true": put("format", True),
    "mode true": put("root", "mode", True),
    "users numbered": put("users", {"0": 5}),
    "users half of a pair": put("users", {"0": "\ud800"}),
    "notes half of a pair": put("backup", "notes", "\ud800"),
    "an unknown key without a number": put("later", NOT_A_NUMBER),
    "created at no time": put("backup", "created_at", "20261399"),
    "host a list": put("backup", "host", ["h"]),
    "skipped for numbers": put("skipped", [["a", 1, 2]]),
    "backup without its id": lambda value: value["backup"].pop("id"),
    "backup none": put("backup", None),
    "exclusions a number": put("backup", "exclude", 5),
    "exclusions of numbers": put("backup", "exclude", [5]),
}


@pytest.mark.parametrize("number", [2, 99])
def test_records_of_a_newer_version(number: int) -> None:
    """They are neither damaged nor read, whatever else is in them."""
    for decode, data in (
        (records.decode_manifest, edited(put("format", number))),
        (records.decode_manifest, json.dumps({"format": number}).encode()),
        (records.decode_sidecar, json.dumps(sidecar(format=number)).encode()),
        (records.decode_sidecar, json.dumps({"format": number, "id": ["another", "shape"]}).encode()),
    ):
        with pytest.raises(Unsupported, match="written by a newer version; update volt.backup"):
            decode(data)


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_bad_manifests(name: str) -> None:
    with pytest.raises(Damaged):
        records.decode_manifest(edited(BAD_MANIFESTS[name]))


RUBBISH = {
    "empty": b"",
    "null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "an empty object": b"{}",
    "not UTF-8": b'{"format": "\xff"}',
    "zeros, as after a power cut": bytes(4096),
    "deeply nested": b"[" * 1_000_000,
    "deeply nested objects": b'{"a":' * 500_000,
    "a number of many digits": b'{"format": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("decode", [records.decode_manifest, records.decode_sidecar])
@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish(decode: Callable[[bytes], Any], name: str) -> None:
    with within(1, 100), pytest.raises(Damaged):
        decode(RUBBISH[name])


@pytest.mark.parametrize(
    ("decode", "good"), [(records.decode_manifest, records.encode_manifest(manifest())), (records.decode_sidecar, records.encode_sidecar(sidecar()))]
)
def test_cut_short(decode: Callable[[bytes], Any], good: bytes) -> None:
    decode(good)
    for cut in cuts(good[:-2]):
        with pytest.raises(Damaged):
            decode(cut)


# ---- sidecar


def test_sidecar_keys_are_in_the_order_of_the_original_system() -> None:
    data = records.encode_sidecar(sidecar())
    assert list(json.loads(data)) == list(records.SIDECAR)
    assert list(json.loads(data))[:15] == [
        "id", "workload_name", "workload_mode", "type", "manifest_ref", "tags", "created_at", "blob_count", "total_size", "new_blobs",
        "dedup_blobs", "duration", "pushed_to_cdn", "source_path", "notes",
    ]  # fmt: skip


def test_sidecar_round_trip_and_unknown_keys() -> None:
    data = json.dumps({**sidecar(), "later": {"x": 1}}).encode()
    held = records.decode_sidecar(data)
    assert held == {**sidecar(), "later": {"x": 1}}
    assert json.loads(records.encode_sidecar({**held, "damaged": True})) == held, "what a newer version added is kept, a state is not written"


@pytest.mark.parametrize("key", records.LATER)
def test_records_of_version_0_1_0_lack_some_keys(key: str) -> None:
    value = sidecar()
    del value[key]
    assert records.decode_sidecar(json.dumps(value).encode()) == sidecar()
    held = json.loads(records.encode_manifest(manifest()))
    held["backup"].pop(key, None)
    assert records.decode_manifest(json.dumps(held).encode()) == manifest()


@pytest.mark.parametrize("key", [key for key in records.SIDECAR if key not in records.LATER])
def test_each_key_is_needed(key: str) -> None:
    value = sidecar()
    del value[key]
    with pytest.raises(Damaged):
        records.decode_sidecar(json.dumps(value).encode())


@pytest.mark.parametrize("changed", [0, 2])
def test_a_sidecar_of_the_first_version(changed: int) -> None:
    value = sidecar(changed_while_read=["a", "b"][:changed], changed_while_read_count=changed)
    for key in records.LATER:
        del value[key]
    later = {**records.LATER, "unstable": changed > 0, "unstable_paths": ["a", "b"][:changed], "unstable_count": changed}
    assert records.decode_sidecar(json.dumps(value).encode()) == {**value, **later}


OTHER_KINDS: list[Any] = [
    None, True, 5, -1, 1 << 63, 1.5, "text", "2026-11-23T10:00:00Z", "2026-13-99T00:00:00Z", [], ["text"], [5], [{}], {},
    [{"path": "p", "reason": "r"}], [{"path": "p", "reason": "r", "detail": 5}], [{"path": "p", "reason": "r", "detail": "d"}], "0123456789abcdef" * 2,
]  # fmt: skip
TEXTS, NUMBERS, FLAGS, LISTS = (6, 7, 8, 17), (2,), (1,), (9, 10)
FITTING = {
    **dict.fromkeys(records.SIDECAR, NUMBERS),
    **dict.fromkeys(("id", "workload_name", "type", "manifest_ref", "source_path", "host", "manifest_sha256"), TEXTS),
    **dict.fromkeys(("workload_mode", "notes", "host_id", "source_asked", "suspect_reason", "accepted_by", "protected_by"), (0, *TEXTS)),
    **dict.fromkeys(("tags", "exclude", "changed_while_read", "unstable_paths"), LISTS),
    **dict.fromkeys(("pushed_to_cdn", "complete", "exclude_caches", "one_file_system", "unstable", "suspect", "protected"), FLAGS),
    "source_links": (0, *LISTS), "mounts": (0, *LISTS), "created_at": (7,), "skipped": (9, 16), "format": (), "source_path": (), "directory_id": (0, 17),
    "store_id": (0, 17), "accepted_at": (0, 7), "protected_at": (0, 7), "file_counts": (9, 11), "lost_counts": (9, 11),
    **dict.fromkeys(("copies", "dumps", "quiesced", "snapshots"), (9,)),
}  # fmt: skip


@pytest.mark.parametrize("key", records.SIDECAR)
def test_each_key_has_its_kind(key: str) -> None:
    """Everybody who gets a sidecar may take its values for what they are."""
    fits = []
    for number, value in enumerate(OTHER_KINDS):
        try:
            records.decode_sidecar(json.dumps(sidecar(**{key: value})).encode())
            fits.append(number)
        except (Damaged, Unsupported):
            continue
    assert tuple(fits) == FITTING[key]


HALF, WHOLE = "\ud800", "\U0001f600"


@pytest.mark.parametrize(
    "change",
    [{"notes": HALF}, {"tags": ["\udcff"]}, {"later": {HALF: 1}}, {"later": [HALF]}, {"skipped": [{"path": HALF, "reason": "", "detail": ""}]},
     {"later": float("nan")}, {"duration": float("inf")}, {"later": [-float("inf")]}],
)  # fmt: skip
@pytest.mark.parametrize("ascii", [True, False])
def test_values_that_json_cannot_hold(change: dict[str, Any], ascii: bool) -> None:
    data = json.dumps(sidecar(**change), ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    with pytest.raises(Damaged):
        records.decode_sidecar(data)


def test_a_number_beyond_all_numbers() -> None:
    with pytest.raises(Damaged):
        records.decode_sidecar(json.dumps({**sidecar(), "later": 1}).replace('"later": 1', '"later": 1e999').encode())


def test_characters_in_two_halves_are_whole() -> None:
    assert records.decode_sidecar(records.encode_sidecar(sidecar(notes=WHOLE)))["notes"] == WHOLE


def test_what_the_system_calls_by_no_text_is_kept_as_text() -> None:
    """Names of hosts, users and groups are bytes to the system: a backup must not be damaged by them from its first day."""
    held = manifest(users={5: "k\udce4the"}, backup=backup(host="h\udcff"))
    assert records.decode_manifest(records.encode_manifest(held)).users == {5: "k\\xe4the"}
    assert records.decode_sidecar(records.encode_sidecar(sidecar(host="h\udcff", notes=HALF)))["host"] == "h\\xff"


# ---- files


def read(pipe: Any, path: str) -> None:
    try:
        pipe.send(files.read_stored(path, records.SIDECAR_MOST))
    except Damaged:
        pipe.send("damaged")
    except FileNotFoundError:
        pipe.send("missing")


@pytest.mark.parametrize(
    ("plant", "expected"),
    [("file", b"data"), ("nothing", "missing"), ("directory", "damaged"), ("symlink", "damaged"), ("sparse giant", "damaged"), ("fifo", "damaged")],
)
def test_read_record(tmp_path: Path, plant: str, expected: object) -> None:
    path = tmp_path / "record.json"
    if plant == "directory":
        path.mkdir()
    elif plant == "symlink":
        (tmp_path / "there").write_bytes(b"data")
        path.symlink_to("there")
    elif plant == "fifo":
        os.mkfifo(path)  # nobody writes: it must not be waited for
    elif plant != "nothing":
        path.write_bytes(b"data")
        if plant == "sparse giant":
            os.truncate(path, 1 << 40)
    with Child(read, str(path)) as child:
        assert child.hear(5) == expected


def test_a_directory_in_a_record_s_place_costs_no_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    for _time in range(3):
        with pytest.raises(Damaged):
            files.read_stored(str(tmp_path), 1 << 20)
    assert descriptors() == before
