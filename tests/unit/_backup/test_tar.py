# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Members of an archive, as Python's tarfile and GNU tar read them."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tarfile

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import tar
from ansible_collections.volt.backup.plugins.module_utils._format import tree
from ansible_collections.volt.backup.plugins.module_utils._format.tree import Entry, Extra
from ansible_collections.volt.backup.plugins.module_utils._fs import acl

FILE = Entry(b"f", tree.FILE, 0o4755, 1, 2, 3, 0, 5, b"d" * 32)


def read(*pieces: bytes) -> list[tarfile.TarInfo]:
    data = b"".join(pieces)
    data += tar.end(len(data))
    assert len(data) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as archive:
        return archive.getmembers()


def test_a_plain_member_is_one_block() -> None:
    head = tar.head(tar.Member(b"./f", FILE, b"root", b"staff"), 5)
    assert len(head) == tar.BLOCK
    (found,) = read(head, b"12345", tar.padding(5))
    assert (found.name, found.mode, found.uid, found.gid, found.mtime, found.size, found.uname, found.gname) == (
        "./f", 0o4755, 1, 2, 3, 5, "root", "staff",
    )  # fmt: skip
    assert found.isreg()


@pytest.mark.parametrize("length", [99, 100, 101, 255, 985, 990, 995, 9970, 30_000])
def test_long_paths(length: int) -> None:
    """The length of a record counts its own digits."""
    name = b"./" + b"n" * (length - 2)
    (found,) = read(tar.head(tar.Member(name, FILE._replace(size=0))))
    assert found.name == name.decode()
    (found,) = read(tar.head(tar.Member(b"./s", Entry(b"s", tree.SYMLINK, 0o777, 0, 0, 0, 0, 0, b"", Extra(target=name)))))
    assert found.linkname == name.decode() and found.issym()
    (found,) = read(tar.head(tar.Member(b"./l", FILE, link=name)))
    assert found.linkname == name.decode() and found.islnk()


def test_numbers_that_a_header_cannot_hold() -> None:
    entry = FILE._replace(uid=1 << 31, gid=8**7, seconds=-2, nanos=500_000_000, size=0)
    (found,) = read(tar.head(tar.Member(b"./f", entry, b"u" * 40, b"\xc3\xa4")))
    assert (found.uid, found.gid, found.mtime, found.uname, found.gname) == (1 << 31, 8**7, -1.5, "u" * 40, "ä")
    assert tarfile.TarInfo.frombuf(tar.head(tar.Member(b"./f", FILE), 8**11 - 1), "utf-8", "strict").size == 8**11 - 1
    assert b" size=8589934592\n" in tar.head(tar.Member(b"./f", FILE), 8**11)
    (found,) = read(tar.head(tar.Member(b"./c", Entry(b"c", tree.CHARACTER, 0o600, 0, 0, 0, 0, 0, b"", Extra(device=(5, 8**7))))))
    assert (found.devmajor, found.devminor, found.ischr()) == (5, 8**7, True)


def test_attributes() -> None:
    none = 0xFFFFFFFF
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in ((1, 7, none), (2, 5, 1000), (4, 4, none), (32, 0, none)))
    xattrs = ((acl.ACCESS, value), (b"user.a=b%", b"\0\xff\n"))
    head = tar.head(tar.Member(b"./f", FILE._replace(extra=Extra(xattrs=xattrs))), 0)
    assert b" SCHILY.acl.access=user::rwx\nuser:1000:r-x\ngroup::r--\nother::---\n\n" in head and b" SCHILY.xattr.user.a%3Db%25=\0\xff\n\n" in head
    assert acl.text(value[:-1]) is None and acl.text(value[:4] + struct.pack("<HHI", 3, 7, 0)) is None
    assert b"SCHILY" not in tar.head(tar.Member(b"./l", FILE._replace(extra=Extra(xattrs=xattrs)), link=b"./f"))


def test_holes() -> None:
    """GNU tar gives back the file with its holes, also where the name is not UTF-8."""
    if shutil.which("tar") is None:
        pytest.skip("tar is not installed")
    entry = FILE._replace(size=3 << 20)
    pieces = [tar.sparse_head(tar.Member(b"./\xff", entry), [(1 << 20, 5)]), b"12345", tar.padding(5)]
    data = b"".join(pieces)
    done = subprocess.run(["tar", "-xOf", "-"], input=data + tar.end(len(data)), capture_output=True, check=True)
    assert done.stdout == bytes(1 << 20) + b"12345" + bytes((2 << 20) - 5) and done.stderr == b""
    data = tar.sparse_head(tar.Member(b"./f", entry), [])
    listed = subprocess.run(["tar", "-tvf", "-"], input=data + tar.end(len(data)), capture_output=True, check=True)
    assert b" 3145728 " in listed.stdout
