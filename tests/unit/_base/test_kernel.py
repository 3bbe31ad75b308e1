# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers that differ between machines. test_architecture.py uses them on some of these."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import kernel

#: FICLONE, FS_IOC_GETFLAGS of 64 bits, and BTRFS_IOC_GET_SUBVOL_ROOTREF, of the kernel's headers.
IOCTLS = ((False, True, 0x94, 9, 4), (True, False, ord("f"), 1, 8), (True, True, 0x94, 61, 4096))


@pytest.mark.parametrize(
    "machines, numbers",
    [
        (("x86_64", "i686", "aarch64", "armv7l", "s390x", "riscv64", "loongarch64"), (0x40049409, 0x80086601, 0xD000943D)),
        (("ppc64le", "ppc64", "mips64", "sparc64", "alpha"), (0x80049409, 0x40086601, 0xD000943D)),
    ],
)
def test_ioctls(machines: tuple[str, ...], numbers: tuple[int, ...]) -> None:
    for machine in machines:
        assert tuple(kernel.ioctl_number(*parts, machine) for parts in IOCTLS) == numbers, machine


@pytest.mark.parametrize(
    "machine, narrow, wide",
    [
        ("x86_64", 353, 316), ("i686", 353, 316), ("aarch64", 382, 276), ("armv7l", 382, 276), ("armv8l", 382, 276), ("ppc64le", 357, 357),
        ("s390x", 347, 347), ("riscv64", 276, 276), ("ia64", -1, -1),
    ],
)  # fmt: skip
def test_a_64_bit_kernel_runs_programs_of_32_bits(machine: str, narrow: int, wide: int) -> None:
    """They have the numbers of 32 bits, under a machine's name of 64."""
    assert (kernel.renameat2_number(machine, False), kernel.renameat2_number(machine, True)) == (narrow, wide)


def test_renaming_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a C library that does not know renameat2."""
    if kernel.renameat2_number(os.uname().machine, sys.maxsize > 1 << 32) < 0:
        pytest.skip("its number is not known here")

    class Old:
        syscall = ctypes.CDLL(None, use_errno=True).syscall

    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(kernel, "_libc", Old())
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        kernel.exchange("a", "b", here, here)
        with pytest.raises(FileExistsError):
            kernel.rename_new("a", "b", here, here)
    finally:
        os.close(here)
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("b", "a")
