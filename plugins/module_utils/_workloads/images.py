# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Disk images: which files are images, and of which format, by their first bytes. The name counts only if these decide nothing."""

from __future__ import annotations

import os
import struct
import typing as t

from .._base import brief, show
from .disk import Disk, Unfit

_SUFFIXES = (".img", ".raw", ".qcow2", ".qcow", ".vmdk", ".vdi", ".vhd", ".vhdx")
_MAGIC = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (512, b"EFI PART", "raw"),
    (510, b"\x55\xaa", "raw"),
)
_BEGIN = 4096
#: How deep below a machine's directory, and how many files at most, images are looked for.
_DEEP, _MANY = 2, 10_000

Image = t.Dict[str, t.Any]


def images(disk: Disk, top: str) -> t.List[Image]:
    """The disk images of a machine, by path."""
    found: t.List[Image] = []
    left = _MANY
    todo = [("", 0)]
    while todo:
        below, depth = todo.pop()
        try:
            entries = sorted(os.scandir(disk.real(top + below)), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            disk.warn(top + below, error)
            continue
        for entry in entries[:left]:
            path = f"{below}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if depth < _DEEP:
                    todo.append((path, depth + 1))
            elif entry.is_symlink():
                if path.endswith(_SUFFIXES):
                    disk.warn(top + path, "is a symbolic link: a backup contains the link, not the image")
            elif entry.is_file(follow_symlinks=False):
                image = look(disk, top + path)
                if image:
                    found.append(image)
        left -= len(entries)
        if left <= 0:
            disk.warn(top, f"has more than {_MANY} files; disk images were only searched for in the first ones")
            break
    return sorted(found, key=lambda image: image["path"])


def look(disk: Disk, path: str) -> t.Optional[Image]:
    """A disk image, or None for other files."""
    try:
        begin, info = disk.begin(path, _BEGIN)
    except FileNotFoundError:
        return None
    except (OSError, Unfit) as error:
        disk.warn(path, error)
        return None
    kind = next((kind for at, magic, kind in _MAGIC if begin[at : at + len(magic)] == magic), None)
    if kind is None or kind == "raw":
        if not path.endswith(_SUFFIXES):
            return None  # a boot sector alone makes no image: firmware has one as well
        kind = "raw" if kind == "raw" or path.endswith((".raw", ".img")) else None
    backing = _backing(begin) if kind == "qcow2" else None
    return {
        "path": show(path),
        "format": kind,
        "size": info.st_size,
        "allocated": info.st_blocks * 512,
        "backing_file": None if backing is None else brief(show(backing)),
    }


def _backing(begin: bytes) -> t.Optional[bytes]:
    """The file that a qcow2 image builds upon, as the image calls it."""
    if len(begin) < 20:
        return None
    offset, size = struct.unpack_from(">QI", begin, 8)
    name = begin[offset : offset + size]
    return name if offset and 0 < size <= 1023 and len(name) == size else None
