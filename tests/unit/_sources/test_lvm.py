# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a snapshot's size, and which devices are logical volumes. Real volumes are in tests/fleet/test_lvm.py."""

from __future__ import annotations

import os

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import UsageError
from ansible_collections.volt.backup.plugins.module_utils._sources import lvm


@pytest.mark.parametrize("size", ["1%", "20%", "100%", "500M", "10G", "1T"])
def test_sizes(size: str) -> None:
    lvm.check_size(size, "auto")


@pytest.mark.parametrize("size", ["", "20", "0%", "101%", "0G", "-1G", "10GB", "10 G", "1.5G", "10G\n", "ten", "9" * 10 + "G"])
def test_no_sizes(size: str) -> None:
    with pytest.raises(UsageError, match="snapshot_size.*20% or 10G"):
        lvm.check_size(size, "require")


def test_a_size_needs_a_snapshot() -> None:
    with pytest.raises(UsageError, match="snapshot_size.*no effect without"):
        lvm.check_size("10G", "none")


def test_other_devices_are_no_volumes() -> None:
    assert lvm.group_of(os.stat("/proc").st_dev) is None and lvm.group_of(os.stat("/dev/null").st_rdev) is None
