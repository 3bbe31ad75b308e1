# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A root directory of its own for finders of workloads, to be furnished with what hosts have.

The shapes of Docker's and Podman's files are those that Docker 20.10, Compose 1.29 and Podman 4.3 wrote when they were run for this.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

from ansible_collections.volt.backup.plugins.module_utils._workloads.find import FindRequest, Found, find

MACHINES, CONTAINERS, VMS = "/var/lib/machines", "/var/lib/volt/containers", "/var/lib/volt/vms"
DOCKER, PODMAN = "/var/lib/docker", "/var/lib/containers/storage/volumes"
LABEL = "com.docker.compose.project"


class Root:
    """A root directory of its own, and what is found in it."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def path(self, path: str) -> Path:
        return self.top / path.lstrip("/")

    def directory(self, path: str) -> str:
        self.path(path).mkdir(parents=True, exist_ok=True)
        return path

    def file(self, path: str, content: Any = "") -> str:
        self.directory(os.path.dirname(path))
        raw = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
        self.path(path).write_bytes(raw)
        return path

    def link(self, path: str, target: str) -> None:
        self.directory(os.path.dirname(path))
        self.path(path).symlink_to(target)

    def volume(self, name: str, root: str = DOCKER, **options: Any) -> str:
        if options:
            self.file(f"{root}/volumes/{name}/opts.json", {"MountType": "", "MountOpts": "", "MountDevice": "", "Quota": {"Size": 0}, **options})
        return self.directory(f"{root}/volumes/{name}/_data")

    def container(self, name: str, labels: Any = None, points: Any = None, root: str = DOCKER, created: str = "2026-11-24T12:54:13.1Z", **more: Any) -> str:
        if labels:  # as Compose calls the containers that it makes
            more = {"Name": f"/{labels[LABEL]}-{labels['com.docker.compose.service']}-1", **more}
        value = {"ID": name * 8, "Name": f"/{name}", "Created": created, "Config": {"Labels": labels}, "MountPoints": points, **more}
        self.file(f"{root}/volumes/metadata.db")  # which Docker makes when it starts
        return self.file(f"{root}/containers/{name * 8}/config.v2.json", value)

    def project(self, name: str, directory: str, files: str = "docker-compose.yml") -> dict[str, str]:
        made = {"com.docker.compose.service": "db", "com.docker.compose.container-number": "1"}
        return {LABEL: name, f"{LABEL}.working_dir": directory, f"{LABEL}.config_files": files, **made}

    def find(self, **request: Any) -> Found:
        def home(user: str) -> tuple[str, str]:
            return user, f"/home/{user}"

        return find(FindRequest(**request), str(self.top), home)

    def sources(self, **request: Any) -> dict[str, str]:
        return {item["workload"]: item["source"] for item in self.find(**request).workloads}

    def one(self, **request: Any) -> dict[str, Any]:
        (item,) = self.find(**request).workloads
        return item


def everything(root: Root) -> None:
    """One of each."""
    root.file(f"{MACHINES}/web/etc/hostname", "web\n")
    root.file("/etc/systemd/nspawn/web.nspawn", "[Files]\nBind=/srv/web:/data\nBindReadOnly=/usr/share/x\nBind=-/srv/more\nBind=+/inner\nBind=:/gone\n")
    root.file(f"{MACHINES}/old.raw", b"\0" * 510 + b"\x55\xaa" + b"\0" * 512)
    root.file(f"{CONTAINERS}/web/rootfs/etc/hostname", "web\n")
    root.file(f"{VMS}/db/disk.qcow2", b"QFI\xfb" + struct.pack(">IQI", 3, 0, 0) + b"\0" * 5000)
    root.file(f"{VMS}/db/vm.json", {"name": "db", "mode": "hybrid-emulated"})
    root.volume("shop_data")
    root.directory(f"{PODMAN}/shop_data/_data")
    root.file("/opt/shop/docker-compose.yml", "services:\n  db: {}\n")
    root.container("shop-db-1", root.project("shop", "/opt/shop"), {"/d": {"Type": "volume", "Name": "shop_data", "Driver": "local"}})
