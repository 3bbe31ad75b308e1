# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads found on a disk, among them ones that somebody put there to mislead."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.ids import is_workload
from ansible_collections.volt.backup.plugins.module_utils._base.errors import UsageError
from ansible_collections.volt.backup.plugins.module_utils._fs.exclusions import Exclusions
from ansible_collections.volt.backup.plugins.module_utils._schedule.job import Job
from ansible_collections.volt.backup.plugins.module_utils._workloads import find as finding
from ansible_collections.volt.backup.plugins.module_utils._workloads.find import KINDS, FindRequest, Found, find
from ansible_collections.volt.backup.plugins.module_utils._workloads.size import Measure
from hypothesis import given, settings, strategies as st

from .host_root import CONTAINERS, DOCKER, MACHINES, PODMAN, VMS, Root, everything

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def test_nothing(root: Root) -> None:
    assert root.find() == Found([], [], [])


def test_one_of_each(root: Root) -> None:
    everything(root)
    found = root.find()
    assert (found.left_out, found.warnings, found.complete) == ([], [], True)
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


def test_names_of_systemd_itself_are_not_found(root: Root) -> None:
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
    assert web["images"] == []
    assert web["schedule"].keys() == old["schedule"].keys() - {"exclude"}  # so that what a fleet excludes counts


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
        "gone": "it is a symbolic link to a missing path; perhaps it is not mounted",
        "odd.raw": "its file name has characters that cannot be written as an exclusion pattern",
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
    assert found.complete


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
    assert bool(found.warnings) != found.complete == (text.count("mode:") != 2)


def test_what_a_container_says_of_itself_is_not_its_mode(root: Root) -> None:
    root.file(f"{CONTAINERS}/a/rootfs/config.json", '{"mode": "hybrid-kvm"}')
    assert root.one()["kind"] == "container"


def test_a_container_without_a_root(root: Root) -> None:
    root.directory(f"{CONTAINERS}/a")
    root.file(f"{CONTAINERS}/b/rootfs")
    found = root.find()
    assert {item["path"]: item["reason"] for item in found.left_out} == {
        f"{CONTAINERS}/a": "it has no rootfs", f"{CONTAINERS}/b/rootfs": "it is not a directory",
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
    assert found.warnings == [f"{VMS}/a/away.qcow2 is a symbolic link: a backup contains the link, not the image."] and found.complete


def test_sparse_image_and_its_base(root: Root) -> None:
    base = b"/srv/caf\xe9.qcow2"
    path = root.path(root.file(f"{VMS}/a/disk.qcow2", b"QFI\xfb" + struct.pack(">IQI", 3, 104, len(base)) + b"\0" * 84 + base))
    os.truncate(path, 1 << 30)
    (image,) = root.one()["images"]
    assert (image["size"], image["backing_file"]) == (1 << 30, "/srv/caf\\xe9.qcow2")
    assert image["allocated"] < 1 << 20
    assert root.one()["size"] == 1 << 30


def test_words_of_a_guest_neither_steer_a_terminal_nor_fill_it(root: Root) -> None:
    base = b"/srv/\x1b[2Jx\nvolt: all is well\x7f\xc2\x9b" + b"x" * 900
    root.file(f"{VMS}/a/disk.qcow2", b"QFI\xfb" + struct.pack(">IQI", 3, 104, len(base)) + b"\0" * 84 + base)
    told = root.one()["images"][0]["backing_file"]
    assert told.startswith("/srv/\\x1b[2Jx\\x0avolt: all is well\\x7f\\x9bxxx") and told.isprintable() and len(told) < 1100
    for number in range(300):
        root.link(f"{VMS}/a/{number}\n\x1b.qcow2", "/srv/base.qcow2")
    warnings = root.find().warnings
    assert len(warnings) == 201 and "There are more" in warnings[-1] and all(text.isprintable() for text in warnings)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600))
def test_an_image_may_begin_with_anything(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as top:
        root = Root(Path(top))
        root.file(f"{VMS}/a/disk.img", b"QFI\xfb" + content)
        assert root.one()["images"][0]["format"] == "qcow2"


# Users


def test_volumes_of_users(root: Root) -> None:
    root.volume("a", "/home/ann/.local/share/docker")
    root.directory("/home/ann/.local/share/containers/storage/volumes/a/_data")
    root.directory("/home/bob/.local/share/containers/storage/volumes/a/_data")
    root.volume("a")
    assert list(root.sources()) == ["docker-a"]
    found = root.find(users=["ann", "bob", "nobody"])
    assert found.warnings == ["/home/nobody is left out: it is empty; perhaps it is not mounted."] and not found.complete
    assert [(item["workload"], item["user"]) for item in found.workloads] == [
        ("docker-a", None), ("docker.ann.a", "ann"), ("podman.ann.a", "ann"), ("podman.bob.a", "bob"),
    ]  # fmt: skip


def test_unknown_user() -> None:
    with pytest.raises(UsageError, match="User 'no such' does not exist on this host; remove it from users"):
        find(FindRequest(users=["no such"], sizes=False))
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
def test_links_are_followed_only_where_others_cannot_write(root: Root, mode: int) -> None:
    root.directory("/data/web")
    root.link(f"{MACHINES}/web", "/data/web")
    assert root.sources() == {"nspawn-web": "/data/web"}
    root.path(MACHINES).chmod(mode)
    found = root.find()
    assert found.workloads == [] and "that other users could have created" in found.warnings[0]


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
    assert found.workloads == [] and len(found.left_out) == 1 and not found.complete
    assert "choose a name and declare it yourself" in found.warnings[0]
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


def test_size_of_a_missing_directory(tmp_path: Path) -> None:
    measure = Measure().tree(str(tmp_path / "gone"))
    assert (measure.size, measure.lacking) == (0, 0)


@needs_root
def test_unreadable_directories() -> None:
    """A run without root leaves out what it cannot see, and says so."""
    with tempfile.TemporaryDirectory() as name:  # not tmp_path: each pytest that starts closes the directory which has those of all
        os.chmod(name, 0o755)
        _find_unreadable(Root(Path(name)))


def _find_unreadable(root: Root) -> None:
    root.file(f"{MACHINES}/a/f", "12345")
    root.file(f"{MACHINES}/a/private/f", "12345")
    root.file(f"{MACHINES}/a/closed/f", "12345")
    root.volume("v")
    root.path(f"{MACHINES}/a/private").chmod(0o700)
    root.path(f"{MACHINES}/a/closed").chmod(0o700)
    root.path(f"{DOCKER}/volumes").chmod(0o700)
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
        workloads, left_out, warnings, complete = json.load(file)
    os.waitpid(pid, 0)
    assert [(item["workload"], item["size"]) for item in workloads] == [("nspawn-a", 5)]
    assert not complete
    assert left_out == [{"path": f"{DOCKER}/volumes", "reason": "it cannot be read: permission denied; run as root"}]
    assert f"{MACHINES}/a has 2 directories that cannot be read and are not in its size; run as root." in warnings


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


@pytest.mark.parametrize("place", [MACHINES, CONTAINERS, VMS])
def test_places_elsewhere_that_are_not_there(root: Root, place: str) -> None:
    root.link(place, "/data/volt")
    found = root.find()
    assert not found.complete and found.warnings == [f"{place} is left out: it is a symbolic link to a missing path; perhaps it is not mounted."]


def test_two_searches_are_equal(root: Root) -> None:
    everything(root)
    assert root.find() == root.find()


DOMAIN = """<!-- WARNING: THIS IS AN AUTO-GENERATED FILE. -->
<domain type='kvm'><name>{name}</name>
  <metadata><x:x xmlns:x='http://example.org/x' volt.backup='false'/>{metadata}</metadata>
  <devices><disk type='file' device='disk'><source file='{image}'/></disk><disk type='block'><source dev='/dev/sdb'/></disk></devices></domain>
"""
#: Labels of the domains that have images in the directory of a machine, and whether it is left out, and its option `quiesce`.
OF_DOMAINS: dict[str, tuple[list[str], bool, str | None]] = {
    "no domain": ([], False, None),
    "none": ([""], False, None),
    "out": (["volt.backup='false'"], True, None),
    "one of two is out": (["volt.backup='false'", ""], False, None),
    "stop comes first": (["volt.backup.quiesce='pause'", "volt.backup.quiesce='stop'"], False, "stop"),
    "pause": (["volt.backup='true' volt.backup.quiesce='pause'"], False, "pause"),
}


def describe(root: Root, name: str, image: str, labels: str) -> None:
    metadata = f"<volt:labels xmlns:volt='urn:volt:backup' {labels}/>"
    root.file(f"/etc/libvirt/qemu/{name}.xml", DOMAIN.format(name=name, image=image, metadata=metadata))


@pytest.mark.parametrize("case", OF_DOMAINS)
def test_labels_of_domains(root: Root, case: str) -> None:
    wanted, out, way = OF_DOMAINS[case]
    root.file(f"{VMS}/db/disk.qcow2", b"QFI\xfb")
    root.file("/etc/libvirt/qemu/networks/default.xml", "<network/>")
    describe(root, "other", f"{VMS}/db2/disk.qcow2", "volt.backup.quiesce='stop'")
    for number, labels in enumerate(wanted):
        describe(root, f"d{number}", f"{VMS}/db/{number}.qcow2", labels)
    found = root.find()
    assert [item["schedule"].get("quiesce") for item in found.workloads] == ([] if out else [way])
    assert [item["reason"] for item in found.left_out] == (["its domains have the label volt.backup=false"] if out else [])
    assert found.complete and not found.warnings


def test_a_cd_of_another_domain(root: Root) -> None:
    """It says nothing about the machine whose directory it lies in."""
    root.file(f"{VMS}/shop/install.iso", b"x")
    cd = f"<disk type='file' device='cdrom'><source file='{VMS}/shop/install.iso'/><readonly/></disk>"
    labels = "<metadata><v:labels xmlns:v='urn:volt:backup' volt.backup='false'/></metadata>"
    root.file("/etc/libvirt/qemu/other.xml", f"<domain><name>other</name>{labels}<devices>{cd}</devices></domain>")
    assert [item["name"] for item in root.find().workloads] == ["shop"]


def test_domains_by_links_and_in_bad_files(root: Root) -> None:
    root.file("/srv/vms/db/disk.qcow2", b"QFI\xfb")
    root.link("/var/lib/volt/vms", "/srv/vms")
    describe(root, "db", "/srv/vms/db/disk.qcow2", "volt.backup.quiesce='later'")
    root.file("/etc/libvirt/qemu/bad.xml", "<domain>")
    found = root.find()
    assert [item["schedule"].get("quiesce") for item in found.workloads] == [None] and not found.complete
    said = "/etc/libvirt/qemu/db.xml has the label volt.backup.quiesce=later, which must be one of stop, pause, none; it does not count."
    assert found.warnings == ["/etc/libvirt/qemu/bad.xml is not XML.", said]
