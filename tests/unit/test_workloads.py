# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads found on a disk, among them ones that somebody put there to mislead.

The shapes of Docker's and Podman's files are those that Docker 20.10, Compose 1.29 and Podman 4.3 wrote when they were run for this.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.names import is_workload
from ansible_collections.volt.backup.plugins.module_utils._schedule.job import Job
from ansible_collections.volt.backup.plugins.module_utils._store.errors import UsageError
from ansible_collections.volt.backup.plugins.module_utils._tree.exclude import Exclusions
from ansible_collections.volt.backup.plugins.module_utils._workloads import find as finding
from ansible_collections.volt.backup.plugins.module_utils._workloads.find import KINDS, Found, Request, find
from ansible_collections.volt.backup.plugins.module_utils._workloads.size import Measure
from hypothesis import given, settings, strategies as st

from .kit import within

MACHINES, CONTAINERS, VMS = "/var/lib/machines", "/var/lib/volt/containers", "/var/lib/volt/vms"
DOCKER, PODMAN = "/var/lib/docker", "/var/lib/containers/storage/volumes"
LABEL = "com.docker.compose.project"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


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

    def container(self, name: str, labels: Any = None, points: Any = None, root: str = DOCKER, created: str = "2026-11-24T12:54:13.1Z") -> str:
        value = {"ID": name * 8, "Name": f"/{name}", "Created": created, "Config": {"Labels": labels}, "MountPoints": points}
        return self.file(f"{root}/containers/{name * 8}/config.v2.json", value)

    def project(self, name: str, directory: str, files: str = "docker-compose.yml") -> dict[str, str]:
        return {LABEL: name, f"{LABEL}.working_dir": directory, f"{LABEL}.config_files": files}

    def find(self, **request: Any) -> Found:
        def home(user: str) -> tuple[str, str]:
            return user, f"/home/{user}"

        return find(Request(**request), str(self.top), home)

    def sources(self, **request: Any) -> dict[str, str]:
        return {item["workload"]: item["source"] for item in self.find(**request).workloads}

    def one(self, **request: Any) -> dict[str, Any]:
        (item,) = self.find(**request).workloads
        return item


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


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


def test_nothing(root: Root) -> None:
    assert root.find() == Found([], [], [])


def test_one_of_each(root: Root) -> None:
    everything(root)
    found = root.find()
    assert (found.left_out, found.warnings) == ([], [])
    assert [(item["workload"], item["runtime"], item["kind"], item["source"]) for item in found.workloads] == [
        ("compose-shop", "compose", "container", "/opt/shop"),
        ("docker-shop_data", "docker", "volume", f"{DOCKER}/volumes/shop_data/_data"),
        ("nspawn-old.raw", "nspawn", "container", MACHINES),
        ("nspawn-web", "nspawn", "container", f"{MACHINES}/web"),
        ("podman-shop_data", "podman", "volume", f"{PODMAN}/shop_data/_data"),
        ("vm-db", "vm", "hybrid-emulated", f"{VMS}/db"),
        ("volt-web", "volt", "container", f"{CONTAINERS}/web/rootfs"),
    ]
    by_name = {item["workload"]: item for item in found.workloads}
    assert by_name["nspawn-web"]["binds"] == ["/srv/more", "/srv/web"]
    assert by_name["nspawn-web"]["config"] == "/etc/systemd/nspawn/web.nspawn"
    assert by_name["docker-shop_data"]["containers"] == ["shop-db-1"]
    assert by_name["podman-shop_data"]["containers"] is None
    assert by_name["compose-shop"]["config"] == "/opt/shop/docker-compose.yml"
    assert [image["format"] for image in by_name["vm-db"]["images"]] == ["qcow2"]
    assert {(item["name"], item["size"]) for item in found.workloads} >= {("shop", 19), ("web", 4), ("old.raw", 1024)}


def test_what_a_schedule_gets_are_options_of_a_schedule(root: Root) -> None:
    everything(root)
    for item in root.find().workloads:
        assert item["schedule"].keys() <= set(Job._fields)
        assert (item["schedule"]["workload"], item["schedule"]["source"], item["schedule"]["workload_mode"]) == (
            item["workload"], item["source"], item["kind"],
        )  # fmt: skip
        assert is_workload(item["workload"])


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(root: Root, kind: str) -> None:
    everything(root)
    some = [item["workload"] for item in root.find(kinds=[kind]).workloads]
    assert some == [item["workload"] for item in root.find().workloads if item["kind"] == kind]
    assert root.find(kinds=[]).workloads == []


def test_what_a_thing_is_called_does_not_depend_on_the_kinds_that_are_wanted(root: Root) -> None:
    root.directory(f"{CONTAINERS}/web/rootfs")
    root.file(f"{CONTAINERS}/web/container.json", '{"mode": "hybrid-native"}')
    root.link(f"{MACHINES}/web", f"{CONTAINERS}/web/rootfs")
    assert (root.sources(kinds=["container"]), list(root.sources())) == ({}, ["volt-web"])


def test_without_sizes(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(root)
    monkeypatch.setattr(Measure, "tree", None)
    assert {item["size"] for item in root.find(sizes=False).workloads} == {None}


# Machines


def test_names_that_are_systemds_own_are_none(root: Root) -> None:
    for name in (".#web.lck", ".hidden", ".raw"):
        root.directory(f"{MACHINES}/{name}")
    root.file(f"{MACHINES}/.#x.raw")
    root.file(f"{MACHINES}/notes.txt")
    root.file(f"{MACHINES}/web.nspawn")
    assert root.find() == Found([], [], [])


def test_a_disk_image_is_backed_up_alone(root: Root) -> None:
    root.file(f"{MACHINES}/old.raw", b"x" * 100)
    root.directory(f"{MACHINES}/web")
    old, web = root.find().workloads
    excluded = Exclusions(old["schedule"]["exclude"])
    assert not excluded.excludes(b"", b"old.raw", False)
    assert excluded.excludes(b"", b"web", True) and excluded.excludes(b"", b"other.raw", False)
    assert (old["size"], old["images"][0]["path"], old["images"][0]["format"]) == (100, f"{MACHINES}/old.raw", "raw")
    assert (web["schedule"]["exclude"], web["images"]) == ([], [])


def test_a_disk_image_beside_a_directory_of_its_name(root: Root) -> None:
    root.directory(f"{MACHINES}/web")
    root.file("/etc/systemd/nspawn/web.nspawn")
    assert list(root.sources()) == ["nspawn-web"]
    root.file(f"{MACHINES}/web.raw")
    assert [(item["workload"], item["config"]) for item in root.find().workloads] == [
        ("nspawn-web", "/etc/systemd/nspawn/web.nspawn"), ("nspawn-web.raw", "/etc/systemd/nspawn/web.nspawn"),
    ]  # fmt: skip


def test_machines_elsewhere_by_links_of_the_administrator(root: Root) -> None:
    root.directory("/data/web")
    root.file("/data/disks/db@1.raw")
    root.file("/data/disks/o dd.raw")
    root.link(f"{MACHINES}/web", "../../../data/web")
    root.link(f"{MACHINES}/db.raw", "/data/disks/db@1.raw")
    root.link(f"{MACHINES}/odd.raw", "/data/disks/o dd.raw")
    root.link(f"{MACHINES}/gone", "/data/gone")
    root.link(f"{MACHINES}/loop", "loop")
    root.link(f"{MACHINES}/host", "/")
    found = root.find()
    assert [(item["workload"], item["source"], item["path"]) for item in found.workloads] == [
        ("nspawn-db.raw", "/data/disks", f"{MACHINES}/db.raw"), ("nspawn-web", "/data/web", f"{MACHINES}/web"),
    ]  # fmt: skip
    assert found.workloads[0]["schedule"]["exclude"] == ["/*", "!/db@1.raw"]
    assert {item["path"].rpartition("/")[2]: item["reason"] for item in found.left_out} == {
        "odd.raw": "its file's name holds characters that a pattern of exclusions takes for others",
        "loop": "it cannot be read: too many levels of symbolic links",
        "host": "it is the whole host",
    }


def test_a_machine_of_volt_that_systemd_lists_too_is_found_once(root: Root) -> None:
    root.directory(f"{CONTAINERS}/web/rootfs")
    root.link(f"{MACHINES}/web", f"{CONTAINERS}/web/rootfs")
    found = root.find()
    assert [item["workload"] for item in found.workloads] == ["volt-web"]
    assert (found.left_out, found.warnings) == ([{"path": f"{MACHINES}/web", "reason": "it is the same as volt-web"}], [])


def test_settings_without_a_machine(root: Root) -> None:
    root.file("/etc/systemd/nspawn/lone.nspawn", "[Exec]\nBoot=yes\n")
    found = root.find()
    assert (found.workloads, found.warnings, [item["path"] for item in found.left_out]) == ([], [], ["/etc/systemd/nspawn/lone.nspawn"])


@pytest.mark.parametrize("text", ['{"mode":"hybrid-native"}', "mode: hybrid-native\n", 'workload_mode = "hybrid-native"\n', "MODE=x\nmode=hybrid-native"])
def test_modes(root: Root, text: str) -> None:
    root.directory(f"{CONTAINERS}/a/rootfs")
    root.file(f"{CONTAINERS}/a/config.toml", text)
    assert root.one()["kind"] == "hybrid-native"


@pytest.mark.parametrize("text", ["", "mode: hybrid-nativeness", "netmode: hybrid-native", '{"mode": 7}', "\xff\xfe", "mode: hybrid-kvm\nmode: container\n"])
def test_no_modes(root: Root, text: str) -> None:
    root.directory(f"{CONTAINERS}/a/rootfs")
    root.file(f"{CONTAINERS}/a/config.yaml", text.encode("latin-1"))
    found = root.find()
    assert found.workloads[0]["kind"] == "container"
    assert bool(found.warnings) == (text.count("mode:") == 2)


def test_what_a_container_says_of_itself_is_not_its_mode(root: Root) -> None:
    root.file(f"{CONTAINERS}/a/rootfs/config.json", '{"mode": "hybrid-kvm"}')
    assert root.one()["kind"] == "container"


def test_a_container_without_a_root(root: Root) -> None:
    root.directory(f"{CONTAINERS}/a")
    root.file(f"{CONTAINERS}/b/rootfs")
    found = root.find()
    assert {item["path"]: item["reason"] for item in found.left_out} == {
        f"{CONTAINERS}/a": "it has no rootfs", f"{CONTAINERS}/b/rootfs": "it is no directory",
    }  # fmt: skip


IMAGES = {
    "a.img": (b"", "raw"), "b.raw": (b"\0" * 100, "raw"), "c.qcow2": (b"no", None), "d": (b"QFI\xfb", "qcow2"),
    "e.vdi": (b"\0" * 64 + b"\x7f\x10\xda\xbe", "vdi"), "f.vmdk": (b"KDMV", "vmdk"), "g.vhdx": (b"vhdxfile", "vhdx"),
    "h.img": (b"\0" * 512 + b"EFI PART", "raw"), "i.vhd": (b"conectix", "vhd"),
}  # fmt: skip


def test_images(root: Root) -> None:
    for name, (content, _kind) in IMAGES.items():
        root.file(f"{VMS}/a/{name}", content)
    root.file(f"{VMS}/a/bios", b"\0" * 510 + b"\x55\xaa")
    root.file(f"{VMS}/a/disks/x/deep.img")
    root.file(f"{VMS}/a/1/2/3/too-deep.img")
    root.link(f"{VMS}/a/away.qcow2", "/srv/base.qcow2")
    os.mkfifo(root.path(f"{VMS}/a/pipe.img"))
    found = root.find()
    told = {image["path"][len(VMS) + 3 :]: image["format"] for image in found.workloads[0]["images"]}
    assert told == {**{name: kind for name, (_content, kind) in IMAGES.items()}, "disks/x/deep.img": "raw"}
    assert found.warnings == [f"{VMS}/a/away.qcow2 is a symbolic link: a backup has the link, not the image."]


def test_sparse_image_and_its_base(root: Root) -> None:
    base = b"/srv/caf\xe9.qcow2"
    path = root.path(root.file(f"{VMS}/a/disk.qcow2", b"QFI\xfb" + struct.pack(">IQI", 3, 104, len(base)) + b"\0" * 84 + base))
    os.truncate(path, 1 << 30)
    (image,) = root.one()["images"]
    assert (image["size"], image["backing_file"]) == (1 << 30, "/srv/caf\\xe9.qcow2")
    assert image["allocated"] < 1 << 20
    assert root.one()["size"] == 1 << 30


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600))
def test_an_image_may_begin_with_anything(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as top:
        root = Root(Path(top))
        root.file(f"{VMS}/a/disk.img", b"QFI\xfb" + content)
        assert root.one()["images"][0]["format"] == "qcow2"


# Docker, Podman, Compose


def test_docker_elsewhere(root: Root) -> None:
    root.file("/etc/docker/daemon.json", {"data-root": "/data/docker"})
    root.volume("a", "/data/docker")
    root.volume("b", "/data/docker/100000.100000")
    root.volume("never")
    assert root.sources() == {"docker-a": "/data/docker/volumes/a/_data", "docker-b": "/data/docker/100000.100000/volumes/b/_data"}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"data-root": 7}', '{"data-root": "relative"}', "[" * 100_000, "\xff"])
def test_dockers_settings_may_be_anything(root: Root, text: str) -> None:
    root.file("/etc/docker/daemon.json", text.encode("latin-1"))
    root.volume("a")
    assert list(root.sources()) == ["docker-a"]


@pytest.mark.parametrize(
    ("path", "text", "place"),
    [
        ("storage.conf", '[storage]\ngraphroot = "/data/p"\n', "/data/p/volumes"),
        ("storage.conf", '[storage]\n# graphroot = "/data/p"\n', PODMAN),
        ("containers.conf", '[engine]\nvolume_path="/data/v"\n', "/data/v"),
        ("containers.conf.d/10.conf", "[engine]\nvolume_path = '/data/v'\n", "/data/v"),
        ("containers.conf.d/10.bak", "[engine]\nvolume_path = '/data/v'\n", PODMAN),
    ],
)
def test_podman_elsewhere(root: Root, path: str, text: str, place: str) -> None:
    root.file(f"/etc/containers/{path}", text)
    root.directory(f"{place}/a/_data")
    assert root.sources() == {"podman-a": f"{place}/a/_data"}


def test_volumes_that_are_mounts(root: Root) -> None:
    root.directory("/srv/bound")
    root.volume("bound", MountType="none", MountOpts="bind", MountDevice="/srv/bound")
    root.volume("gone", MountType="none", MountOpts="rbind,ro", MountDevice="/srv/gone")
    root.volume("limited", Quota={"Size": 1 << 30})
    root.volume("nfs", MountType="nfs", MountOpts="addr=10.0.0.1,rw", MountDevice=":/x")
    root.volume("cifs", MountType="cifs", MountOpts="username=a,password=SECRET", MountDevice="//10.0.0.1/x")
    root.volume("memory", MountType="tmpfs", MountDevice="tmpfs")
    found = root.find()
    assert {item["workload"]: item["source"] for item in found.workloads} == {
        "docker-bound": "/srv/bound", "docker-limited": f"{DOCKER}/volumes/limited/_data",
    }  # fmt: skip
    assert found.warnings == ["/srv/gone is left out: it is not there."]
    assert len(found.left_out) == 4 and "SECRET" not in json.dumps(found)


def test_files_of_dockers_own_are_no_volumes(root: Root) -> None:
    root.file(f"{DOCKER}/volumes/metadata.db")
    root.directory(f"{DOCKER}/volumes/of-a-plugin")
    os.mkfifo(root.path(f"{DOCKER}/volumes/backingFsBlockDev"))
    assert root.find() == Found([], [], [])


def test_anonymous_volumes(root: Root) -> None:
    name = "6da390cc" * 8
    root.volume(name)
    assert root.one()["workload"] == f"docker-{name}" and root.one()["containers"] == []


HOSTILE = {
    "no JSON": "{", "a list": "[]", "a number": "7", "deep": "[" * 200_000, "no UTF-8": b"\xff\xfe{", "huge": b" " * (5 << 20), "empty": b"",
    "labels are a list": {"Config": {"Labels": [1]}, "MountPoints": [1], "Name": 7},
    "labels are numbers": {"Config": {"Labels": {LABEL: 7}}, "MountPoints": {"/": 7}},
    "half a label": {"Config": {"Labels": {LABEL: "x", f"{LABEL}.working_dir": "relative"}}},
    "no name": {"MountPoints": {"/": {"Type": "volume", "Name": "a"}}},
    "bad project": {"Config": {"Labels": {LABEL: "../x", f"{LABEL}.working_dir": "/etc"}}},
}  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_descriptions_may_be_anything(root: Root, content: Any) -> None:
    root.volume("a")
    root.file(f"{DOCKER}/containers/x/config.v2.json", content)
    root.file(f"{DOCKER}/volumes/b/opts.json", content)
    with within(3):
        assert list(root.sources()) == ["docker-a"]


def test_descriptions_that_are_no_files(root: Root) -> None:
    root.volume("a")
    os.mkfifo(root.path(root.directory(f"{DOCKER}/containers/pipe")) / "config.v2.json")
    root.directory(f"{DOCKER}/containers/directory/config.v2.json")
    root.link(f"{DOCKER}/containers/device/config.v2.json", "/dev/zero")
    os.truncate(root.path(root.file(f"{DOCKER}/containers/large/config.v2.json")), 1 << 40)
    with within(3):
        found = root.find()
    assert [item["workload"] for item in found.workloads] == ["docker-a"]
    assert len(found.warnings) == 3  # in this root there is no /dev/zero


KEYS = st.sampled_from(["Config", "Labels", "MountPoints", "Name", "Type", LABEL, f"{LABEL}.working_dir", f"{LABEL}.config_files", "MountType"])
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
)


@settings(max_examples=60, deadline=None)
@given(ANY)
def test_descriptions_of_any_shape(value: Any) -> None:
    with tempfile.TemporaryDirectory() as top:
        root = Root(Path(top))
        root.volume("a")
        root.file(f"{DOCKER}/containers/x/config.v2.json", value)
        root.file(f"{DOCKER}/volumes/b/opts.json", value)
        root.directory(f"{DOCKER}/volumes/b/_data")
        root.file("/etc/docker/daemon.json", value)
        assert "docker-a" in root.sources()


def test_a_project_is_where_its_newest_container_says(root: Root) -> None:
    for place in ("/opt/old", "/opt/new"):
        root.file(f"{place}/compose.yaml", "name: shop\nservices: {}\n")
    root.container("a", root.project("shop", "/opt/new", "/opt/new/compose.yaml,/opt/new/over.yaml"), created="2026-11-24T12:00:00Z")
    root.container("b", root.project("shop", "/opt/old", "/opt/old/compose.yaml"), created="2026-11-23T12:00:00Z")
    root.container("c", root.project("shop", "/opt/gone", "/opt/gone/compose.yaml"), created="2026-11-25T12:00:00Z")
    root.container("d", root.project("moved", "/opt/gone", "compose.yaml"))
    found = root.find()
    assert [(item["workload"], item["source"]) for item in found.workloads] == [("compose-shop", "/opt/new")]
    assert found.warnings == ["/opt/gone is left out: Compose project moved has containers, but no file there."]


@pytest.mark.parametrize("files", ["passwd", "/etc/passwd", "fake.yml", "pipe.yml", "", "../etc/passwd"])
def test_labels_that_an_image_brought(root: Root, files: str) -> None:
    """An image with labels of its own would have /etc backed up; a file of Compose is not there."""
    root.file("/etc/passwd", "services:\n")
    root.file("/etc/fake.yml", "a: b\n")
    os.mkfifo(root.path("/etc/pipe.yml"))
    root.container("x", root.project("evil", "/etc", files))
    assert root.find().workloads == []


def test_projects_by_their_files(root: Root) -> None:
    root.file("/opt/stacks/My Shop/compose.yaml", "services: {}\n")
    root.file("/opt/stacks/b/docker-compose.yml", 'name: "named" # so\nservices:\n')
    root.file("/opt/stacks/c/readme.yml", "services:\n")
    root.file("/opt/stacks/___/compose.yml", "services:\n")
    root.file("/srv/lone/compose.yml", "include:\n  - x.yml\n")
    root.container("x", root.project("named", "/opt/stacks/b"))  # found by its label as well, which makes no second one
    found = root.find(compose_dirs=["/opt/stacks", "/srv/lone", "/srv/none"])
    assert {item["workload"]: item["source"] for item in found.workloads} == {
        "compose-myshop": "/opt/stacks/My Shop", "compose-named": "/opt/stacks/b", "compose-lone": "/srv/lone",
    }  # fmt: skip
    assert [item["path"] for item in found.left_out] == ["/opt/stacks/___"]


def test_one_directory_may_be_several_workloads(root: Root) -> None:
    """What comes later takes nothing away from what was there."""
    root.file("/opt/shop/docker-compose.yml", "services:\n")
    root.container("b", root.project("shop", "/opt/shop"))
    assert root.sources() == {"compose-shop": "/opt/shop"}
    root.container("a", root.project("again", "/opt/shop"))
    root.volume("bound", MountType="none", MountOpts="bind", MountDevice="/opt/shop")
    root.link(f"{MACHINES}/shop", "/opt/shop")
    assert root.sources() == dict.fromkeys(("compose-again", "compose-shop", "docker-bound", "nspawn-shop"), "/opt/shop")


def test_two_projects_of_one_name(root: Root) -> None:
    """Neither gets the other's backups; and a third one is found as ever."""
    for place in ("/opt/a/shop", "/opt/b/shop", "/opt/b/other"):
        root.file(f"{place}/compose.yaml", "services: {}\n")
    found = root.find(compose_dirs=["/opt/a", "/opt/b"])
    assert [item["workload"] for item in found.workloads] == ["compose-other"]
    assert found.warnings[0] == "/opt/a/shop is left out: /opt/a/shop and /opt/b/shop would all be workload compose-shop; rename all but one."


@pytest.mark.parametrize("text", ["relative", "", "/nul\\x00"])
def test_directories_are_absolute(root: Root, text: str) -> None:
    with pytest.raises(UsageError):
        root.find(compose_dirs=[text])


# Users


def test_volumes_of_users(root: Root) -> None:
    root.volume("a", "/home/ann/.local/share/docker")
    root.directory("/home/ann/.local/share/containers/storage/volumes/a/_data")
    root.directory("/home/bob/.local/share/containers/storage/volumes/a/_data")
    root.volume("a")
    assert list(root.sources()) == ["docker-a"]
    found = root.find(users=["ann", "bob", "nobody"])
    assert [(item["workload"], item["user"]) for item in found.workloads] == [
        ("docker-a", None), ("docker.ann.a", "ann"), ("podman.ann.a", "ann"), ("podman.bob.a", "bob"),
    ]  # fmt: skip


def test_unknown_user() -> None:
    with pytest.raises(UsageError, match="User 'no such' is not known to this host; take the name out of users"):
        find(Request(users=["no such"], sizes=False))
    assert finding._home("root") == ("root", "/root")


@needs_root
def test_a_user_cannot_have_others_files_copied(root: Root) -> None:
    """By symbolic links at any place, by options of a volume, or by labels of a container."""
    root.file("/etc/shadow", "secret")
    root.file("/etc/compose.yml", "services:\n")
    docker, podman = "/home/eve/.local/share/docker", "/home/eve/.local/share/containers/storage/volumes"
    root.directory(f"{podman}/honest/_data")
    root.link(f"{podman}/data/_data", "/etc")
    root.directory("/home/eve/etc/_data")
    root.link(f"{podman}/volume", "../../../../../etc")
    root.volume("bound", docker, MountType="none", MountOpts="bind", MountDevice="/etc")
    root.container("x", root.project("evil", "/etc", "compose.yml"), root=docker)
    for where, names, files in os.walk(root.path("/home/eve")):
        for name in (".", *names, *files):
            os.lchown(os.path.join(where, name), 1234, 1234)
    found = root.find(users=["eve"])
    assert [item["workload"] for item in found.workloads] == ["podman.eve.honest"]
    assert len(found.warnings) == 3 and all("/etc" not in item["path"] for item in found.left_out)


@needs_root
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_links_count_only_where_nobody_else_writes(root: Root, mode: int) -> None:
    root.directory("/data/web")
    root.link(f"{MACHINES}/web", "/data/web")
    assert root.sources() == {"nspawn-web": "/data/web"}
    root.path(MACHINES).chmod(mode)
    found = root.find()
    assert found.workloads == [] and "others than root may have put it there" in found.warnings[0]


# Names


def test_names_do_not_depend_on_others(root: Root) -> None:
    root.volume("web")
    before = set(root.sources())
    everything(root)
    root.directory(f"{MACHINES}/docker-web")
    root.directory(f"{PODMAN}/web/_data")
    assert before <= set(root.sources()) and len(root.sources()) == 10


def test_prefixes_cannot_meet(root: Root) -> None:
    everything(root)
    root.directory("/home/ann/.local/share/containers/storage/volumes/a/_data")
    starts = {item["workload"][: -len(item["name"])] for item in root.find(users=["ann"]).workloads}
    assert not any(one != other and one.startswith(other) for one in starts for other in starts)


@pytest.mark.parametrize("name", ["a b", "x" * 130, "caf\udce9", "new\nline", "ü", "a\\b"])
def test_names_that_no_workload_can_have(root: Root, name: str) -> None:
    root.directory(f"{MACHINES}/{name}")
    found = root.find()
    assert found.workloads == [] and len(found.left_out) == 1
    assert "choose a name and declare it by hand" in found.warnings[0]
    json.dumps(found, ensure_ascii=False).encode()
    assert "\n" not in found.warnings[0]


# Sizes, and what goes on meanwhile


def test_size(root: Root) -> None:
    root.file(f"{MACHINES}/a/one", "12345")
    root.file(f"{MACHINES}/a/sub/two", "123")
    os.link(root.path(f"{MACHINES}/a/one"), root.path(f"{MACHINES}/a/sub/again"))
    root.link(f"{MACHINES}/a/etc", "/etc")
    root.link(f"{MACHINES}/a/loop", ".")
    os.mkfifo(root.path(f"{MACHINES}/a/pipe"))
    root.file("/etc/large", "x" * 1000)
    assert root.one()["size"] == 8


def test_size_of_a_deep_tree(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _depth in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    with open(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here), "w", encoding="utf-8") as file:
        file.write("deep")
    os.close(here)
    measure = Measure().tree(str(tmp_path))
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # pytest, which cleans up, cannot
    assert (measure.size, measure.lacking) == (4, 0)


def test_size_of_what_is_gone(tmp_path: Path) -> None:
    measure = Measure().tree(str(tmp_path / "gone"))
    assert (measure.size, measure.lacking) == (0, 0)


@needs_root
def test_what_may_not_be_read(root: Root) -> None:
    """A run without root leaves out what it cannot see, and says so."""
    root.file(f"{MACHINES}/a/f", "12345")
    root.file(f"{MACHINES}/a/private/f", "12345")
    root.file(f"{MACHINES}/a/closed/f", "12345")
    root.volume("v")
    root.path(f"{MACHINES}/a/private").chmod(0o700)
    root.path(f"{MACHINES}/a/closed").chmod(0o700)
    root.path(f"{DOCKER}/volumes").chmod(0o700)
    for place in (*root.top.parents, root.top):
        if place.stat().st_uid == 0 and str(place).startswith(tempfile.gettempdir() + "/"):
            place.chmod(0o755)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
            os.write(write, json.dumps(root.find()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        workloads, left_out, warnings = json.load(file)
    os.waitpid(pid, 0)
    assert [(item["workload"], item["size"]) for item in workloads] == [("nspawn-a", 5)]
    assert left_out == [{"path": f"{DOCKER}/volumes", "reason": "it cannot be read: permission denied; run as root"}]
    assert f"{MACHINES}/a holds 2 directories that cannot be read, and its size lacks them; run as root." in warnings


def test_deleted_meanwhile(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is listed and then gone is passed over."""
    everything(root)
    real = os.listdir

    def listdir(path: Any) -> list[str]:
        return [*real(path), "ghost", "ghost.raw", "ghost.nspawn", "ghost.json"]

    before = [item["workload"] for item in root.find().workloads]
    monkeypatch.setattr(os, "listdir", listdir)
    found = root.find()
    assert [item["workload"] for item in found.workloads] == before


def test_two_looks_are_alike(root: Root) -> None:
    everything(root)
    assert root.find() == root.find()
