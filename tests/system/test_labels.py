# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What real containers of Docker say of their backups, by labels of their own and of their image."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._workloads.find import FindRequest, find
from ansible_collections.volt.backup.tests.rigs import containers

OUT, STOP = "volt.backup=false", "volt.backup.quiesce=stop"
#: A volume, and the image and the labels of each of its containers; then whether it is found, and its option `quiesce`.
VOLUMES = {
    "plain": ([(containers.IMAGE, ())], (True, None)),
    "out": ([(containers.IMAGE, (OUT,))], (False, None)),
    "shared": ([(containers.IMAGE, (OUT,)), (containers.IMAGE, ())], (True, None)),
    "stopped": ([(containers.IMAGE, (STOP,))], (True, "stop")),
    "image": ([("labelled", ())], (True, None)),
    "against": ([("labelled", ("volt.backup=true", "volt.backup.quiesce=pause"))], (True, "pause")),
    "repeated": ([("labelled", (OUT, STOP))], (True, None)),
}


@pytest.fixture
def root() -> Iterator[tuple[Path, containers.Runtime]]:
    """A root directory with Docker's data where a host has it."""
    with tempfile.TemporaryDirectory(prefix="volt-containers-", dir="/var/tmp") as top:
        place = Path(top, "var/lib")
        place.mkdir(parents=True)
        with containers.docker(place) as runtime:
            changes = [f"--change=LABEL {label}" for label in (OUT, STOP)]
            runtime("import", *changes, str(place / "image.tar"), "labelled")
            yield Path(top), runtime


def test_labels_of_containers_count_and_not_those_of_images(root: tuple[Path, containers.Runtime]) -> None:
    top, runtime = root
    for volume, (made, _expected) in VOLUMES.items():
        for image, labels in made:
            runtime("create", "--network=none", f"--volume={volume}:/data", *(f"--label={label}" for label in labels), image, "/bin/busybox", "true")
    found = find(FindRequest(), str(top))
    assert {item["name"]: (True, item["schedule"].get("quiesce")) for item in found.workloads} == {
        volume: expected for volume, (_made, expected) in VOLUMES.items() if expected[0]
    }
    assert [item["path"].rpartition("/")[2] for item in found.left_out] == ["out"] and found.complete and not found.warnings
