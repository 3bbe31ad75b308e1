# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker and Podman of a test's own: their data in a scratch directory, an image of busybox alone, no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import need

IMAGE = "volt-test"
_PATIENCE = 60
_STORAGE = '[storage]\ndriver = "vfs"\ngraphroot = "{place}/podman"\nrunroot = "{place}/podman-run"\n'
#: Where cgroups are of both versions, runc is the runtime that works. Limits are those of the test itself.
_CONTAINERS = """\
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "none"
[containers]
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
"""


class Runtime:
    """One of the two. `env`: what its command needs in its environment."""

    def __init__(self, name: str, env: dict[str, str]) -> None:
        self.name, self.env = name, env

    def __call__(self, *words: str) -> str:
        done = subprocess.run([self.name, *words], env={**os.environ, **self.env}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(done.stderr)
        return done.stdout.strip()

    def start(self, name: str, mounted: Path, script: str) -> None:
        """A container that runs a script of the shell, with a directory as /data."""
        self("run", "--detach", "--network=none", f"--name={name}", f"--volume={mounted}:/data", IMAGE, "/bin/busybox", "sh", "-c", script)

    def state(self, name: str) -> str:
        return self("inspect", "--type=container", "--format={{.State.Status}}", name)


def _image(place: Path) -> Path:
    path = place / "image.tar"
    with tarfile.open(path, "w") as file:
        file.add("/bin/busybox", "bin/busybox")
    return path


@contextmanager
def docker(place: Path) -> Iterator[Runtime]:
    """A daemon on a socket below a directory."""
    need("dockerd", "containerd", "runc", "docker", "busybox", root=True)
    socket = f"unix://{place}/docker.sock"
    words = ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", f"--data-root={place}/docker", f"--exec-root={place}/docker-run",
             f"--host={socket}", f"--pidfile={place}/docker.pid", "--storage-driver=vfs"]  # fmt: skip
    with open(place / "log", "wb") as log:
        daemon = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    runtime = Runtime("docker", {"DOCKER_HOST": socket})
    try:
        deadline = time.monotonic() + _PATIENCE
        while subprocess.run(["docker", "version"], env={**os.environ, **runtime.env}, capture_output=True, check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((place / "log").read_text()[-2000:])
            time.sleep(0.1)
        runtime("import", str(_image(place)), IMAGE)
        yield runtime
    finally:
        _remove(runtime)
        daemon.terminate()
        daemon.wait(_PATIENCE)


@contextmanager
def podman(place: Path) -> Iterator[Runtime]:
    """Without a daemon."""
    need("podman", "runc", "busybox", root=True)
    (place / "storage.conf").write_text(_STORAGE.format(place=place))
    (place / "containers.conf").write_text(_CONTAINERS)
    runtime = Runtime("podman", {"CONTAINERS_STORAGE_CONF": str(place / "storage.conf"), "CONTAINERS_CONF": str(place / "containers.conf")})
    try:
        runtime("import", str(_image(place)), IMAGE)
        yield runtime
    finally:
        _remove(runtime)
        shutil.rmtree(place, ignore_errors=True)


def _remove(runtime: Runtime) -> None:
    """All containers, also paused ones."""
    for name in runtime("ps", "--all", "--quiet").split():
        subprocess.run([runtime.name, "unpause", name], env={**os.environ, **runtime.env}, capture_output=True, check=False)
        subprocess.run([runtime.name, "rm", "--force", name], env={**os.environ, **runtime.env}, capture_output=True, check=False)
