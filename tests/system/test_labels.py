# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What real containers of Docker and Podman say of their backups, by labels of their own and of their image."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._workloads.find import FindRequest, Found, find
from ansible_collections.volt.backup.tests.rigs import containers, mounts

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
def docker() -> Iterator[tuple[str, containers.Runtime]]:
    """A root directory with Docker's data where a host has it."""
    with tempfile.TemporaryDirectory(prefix="volt-containers-", dir="/var/tmp") as top:
        place = Path(top, "var/lib")
        place.mkdir(parents=True)
        with containers.docker(place) as runtime:
            yield top, runtime


@pytest.fixture
def podman(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, containers.Runtime]]:
    """This host, with data of Podman where a host has it, for this test alone."""
    mounts.need_private()
    usual = Path("/var/lib/containers")
    with tempfile.TemporaryDirectory(prefix="volt-containers-", dir="/var/tmp") as place, containers.podman(Path(place)) as runtime, ExitStack() as stack:
        if not usual.exists():
            usual.mkdir()
            stack.callback(usual.rmdir)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", str(usual)], check=True)
        stack.callback(subprocess.run, ["umount", str(usual)], check=True)
        (usual / "storage").symlink_to(Path(place, "podman"))
        for name, value in runtime.env.items():
            monkeypatch.setenv(name, value)
        yield "/", runtime


def furnish(runtime: containers.Runtime, image: str) -> None:
    runtime("import", *(f"--change=LABEL {label}" for label in (OUT, STOP)), image, "labelled")
    for volume, (made, _expected) in VOLUMES.items():
        for number, (of, labels) in enumerate(made):
            options = [f"--name={volume}-{number}", "--network=none", f"--volume={volume}:/data", *(f"--label={label}" for label in labels)]
            runtime("create", *options, of, "/bin/busybox", "true")


def check(found: Found, runtime: str) -> None:
    wanted = {volume: (expected[1], [f"{volume}-{number}" for number in range(len(made))]) for volume, (made, expected) in VOLUMES.items() if expected[0]}
    assert {item["name"]: (item["schedule"].get("quiesce"), item["containers"]) for item in found.workloads if item["runtime"] == runtime} == wanted
    assert [item["path"].rpartition("/")[2] for item in found.left_out if f"/{runtime}/volumes/" in item["path"]] == ["out"]
    assert not [text for text in found.warnings if "label" in text]


def test_labels_of_containers_count_and_not_those_of_images(docker: tuple[str, containers.Runtime]) -> None:
    top, runtime = docker
    furnish(runtime, f"{top}/var/lib/image.tar")
    found = find(FindRequest(), top)
    check(found, "docker")
    assert found.complete and not found.warnings


def test_podman_is_asked_for_labels(podman: tuple[str, containers.Runtime], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    top, runtime = podman
    furnish(runtime, str(Path(runtime.env["CONTAINERS_CONF"]).with_name("image.tar")))
    runtime("volume", "create", "unused")
    found = find(FindRequest(sizes=False), top)
    check(found._replace(workloads=[item for item in found.workloads if item["name"] != "unused"]), "podman")
    assert [item["containers"] for item in found.workloads if item["name"] == "unused"] == [[]]
    wrong = tmp_path / "podman"
    wrong.write_text("#!/bin/sh\necho Error: database is locked >&2\nexit 125\n", encoding="ascii")
    wrong.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = find(FindRequest(sizes=False), top)
    assert {item["name"] for item in found.workloads if item["runtime"] == "podman"} == {*VOLUMES, "unused"}
    assert "podman ps failed (Error: database is locked), so labels of Podman's containers do not count." in found.warnings


def test_a_container_that_ends_meanwhile(podman: tuple[str, containers.Runtime], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As those of `podman run --rm` do all the time: the labels of the others count."""
    top, runtime = podman
    furnish(runtime, str(Path(runtime.env["CONTAINERS_CONF"]).with_name("image.tar")))
    runtime("create", "--name=passing", "--network=none", containers.IMAGE, "/bin/busybox", "true")
    real = shutil.which("podman")
    front = tmp_path / "podman"
    front.write_text(f'#!/bin/sh\n[ "$1" = inspect ] && {real} rm --force passing >/dev/null 2>&1\nexec {real} "$@"\n', encoding="ascii")
    front.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    check(find(FindRequest(sizes=False), top), "podman")
