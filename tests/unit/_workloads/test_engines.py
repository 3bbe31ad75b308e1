# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes of Docker and Podman and projects of Compose found on a disk, among them ones that somebody put there to mislead."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import UsageError
from ansible_collections.volt.backup.plugins.module_utils._fs.mounts import Mount
from ansible_collections.volt.backup.plugins.module_utils._workloads import candidate
from ansible_collections.volt.backup.plugins.module_utils._workloads.find import Found
from hypothesis import given, settings, strategies as st

from ..kit import within
from .host_root import DOCKER, LABEL, MACHINES, PODMAN, Root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def test_docker_elsewhere(root: Root) -> None:
    root.file("/etc/docker/daemon.json", {"data-root": "/data/docker"})
    root.volume("a", "/data/docker")
    root.volume("b", "/data/docker/100000.100000")
    root.volume("never")
    assert root.sources() == {"docker-a": "/data/docker/volumes/a/_data", "docker-b": "/data/docker/100000.100000/volumes/b/_data"}


@pytest.mark.parametrize("text", ["[]", "{", '{"data-root": "/data/docker",}', '{"data-root": 7}', '{"data-root": "relative"}', "[" * 100_000, "\xff"])
def test_dockers_settings_that_are_not_understood(root: Root, text: str) -> None:
    """Docker would not start with them. Where it usually is, there may be what it was before."""
    root.file("/etc/docker/daemon.json", text.encode("latin-1"))
    root.volume("a")
    root.directory(f"{PODMAN}/a/_data")
    found = root.find()
    assert [item["workload"] for item in found.workloads] == ["podman-a"]
    assert not found.complete and len(found.warnings) == 1 and "/etc/docker/daemon.json" in found.warnings[0]


@pytest.mark.parametrize("text", ["", " \n", "{}", '{"data-root": ""}', '\ufeff{"data-root": null}'])
def test_dockers_settings_that_say_nothing(root: Root, text: str) -> None:
    root.file("/etc/docker/daemon.json", text)
    root.volume("a")
    assert (list(root.sources()), root.find().complete) == (["docker-a"], True)


def test_dockers_data_that_is_not_there(root: Root) -> None:
    """Not mounted, in all likelihood."""
    root.file("/etc/docker/daemon.json", {"data-root": "/data/docker"})
    why = "it should contain Docker's data, but its volumes directory is empty; perhaps it is not mounted"
    for furnish in (lambda: None, lambda: root.directory("/data/docker/lost+found"), lambda: root.directory("/data/docker/volumes")):
        furnish()
        found = root.find()
        assert not found.complete and found.warnings == [f"/data/docker is left out: {why}."]
    root.file("/data/docker/100000.100000/volumes/metadata.db")
    assert root.find() == Found([], [], [])


def test_where_docker_usually_is(root: Root) -> None:
    """Without settings it need not be there; what is there, or is said to be elsewhere by a link, has to hold something."""
    root.directory("/var/lib")
    assert root.find().complete
    root.link(DOCKER, "/data/docker")
    assert not root.find().complete
    root.directory("/data/docker/volumes")
    assert not root.find().complete
    root.file("/data/docker/volumes/metadata.db")
    assert root.find() == Found([], [], [])


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


def test_podmans_data_that_is_not_there(root: Root) -> None:
    root.file("/etc/containers/storage.conf", '[storage]\ngraphroot = "/var/lib/containers/storage"\n')
    assert root.find() == Found([], [], [])  # as distributions have it, whether or not Podman ever ran
    for path, place in (("storage.conf", "/data/p"), ("containers.conf", "/data/v")):
        root.file(f"/etc/containers/{path}", f'graphroot = "{place}"\nvolume_path = "{place}"\n')
        for furnish in (lambda: None, lambda place=place: root.directory(place)):
            furnish()
            found = root.find()
            assert found.warnings == [f"{place} is left out: it should contain Podman's data, but is empty; perhaps it is not mounted."]
            assert not found.complete
        root.directory(f"{place}/overlay")
        assert root.find() == Found([], [], [])


def test_options_that_are_not_understood(root: Root) -> None:
    """They may say that the data is elsewhere. What lies here then would take the place of it in its history."""
    root.file(f"{DOCKER}/volumes/a/opts.json", "{")
    root.volume("a")
    found = root.find()
    assert (found.workloads, found.complete, [item["path"] for item in found.left_out]) == ([], False, [f"{DOCKER}/volumes/a"])


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
    assert found.warnings == ["/srv/gone is left out: it does not exist."]
    assert len(found.left_out) == 4 and "SECRET" not in json.dumps(found)


def test_volumes_of_local_disks(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker mounts them while a container uses them."""
    mounted: list[Mount] = []
    monkeypatch.setattr(candidate, "mounts", lambda: mounted)
    root.volume("disk", MountType="ext4", MountDevice="/dev/sdb1")
    root.volume("plain", MountType="none", MountDevice="/dev/sdc1")
    root.volume("nfs", MountType="nfs", MountOpts="addr=10.0.0.1", MountDevice=":/x")
    places = [f"{DOCKER}/volumes/{name}" for name in ("disk", "plain")]
    found = root.find()
    assert (found.workloads, found.complete) == ([], False)
    assert found.warnings == [f"{place} is left out: its data is on a disk that is only mounted while it is in use." for place in places]
    mounted += [Mount(1, os.fsencode(root.path(f"{place}/_data")), "ext4") for place in places]
    mounted.append(Mount(2, os.fsencode(root.path(f"{DOCKER}/volumes/nfs/_data")), "nfs4"))
    found = root.find()
    assert {item["workload"]: item["source"] for item in found.workloads} == {
        "docker-disk": f"{DOCKER}/volumes/disk/_data", "docker-plain": f"{DOCKER}/volumes/plain/_data",
    }  # fmt: skip
    assert (found.complete, found.warnings, [item["path"] for item in found.left_out]) == (True, [], [f"{DOCKER}/volumes/nfs"])


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
    assert not found.complete  # any of them may be of a project
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
        assert "docker-a" in root.sources()
        root.file("/etc/docker/daemon.json", value)
        assert ("docker-a" in root.sources()) or not root.find().complete


def test_a_project_that_moved_is_where_its_file_is(root: Root) -> None:
    root.file("/opt/new/compose.yaml", "name: shop\nservices: {}\n")
    root.directory("/opt/old")
    root.link("/opt/current", "new")
    root.container("a", root.project("shop", "/opt/new", "/opt/new/compose.yaml,/opt/new/over.yaml"), created="2026-11-24T12:00:00Z")
    root.container("b", root.project("shop", "/opt/old", "/opt/old/compose.yaml"), created="2026-11-23T12:00:00Z")
    root.container("c", root.project("shop", "/opt/gone", "/opt/gone/compose.yaml"), created="2026-11-25T12:00:00Z")
    root.container("d", root.project("shop", "/opt/current", "compose.yaml"))  # which is the same
    assert (root.sources(), root.find().complete) == ({"compose-shop": "/opt/new"}, True)
    root.container("e", root.project("moved", "/opt/gone", "compose.yaml"))
    found = root.find()
    assert [item["workload"] for item in found.workloads] == ["compose-shop"] and not found.complete
    assert found.warnings == ["/opt/gone is left out: Compose project moved has containers, but no Compose file was found."]


def test_a_container_moves_no_project(root: Root) -> None:
    """An image can have labels of its own, and containers come and go."""
    for name in ("shop", "evil"):
        root.file(f"/opt/{name}/compose.yaml", "services: {}\n")
    root.container("a", root.project("shop", "/opt/shop", "compose.yaml"), created="2026-11-23T12:00:00Z")
    root.container("b", root.project("shop", "/opt/evil", "compose.yaml"), created="2026-11-24T12:00:00Z")
    found = root.find()
    assert (found.workloads, found.complete) == ([], False)
    assert [item["path"] for item in found.left_out] == ["/opt/evil", "/opt/shop"]
    assert "/opt/evil and /opt/shop would all be named workload compose-shop" in found.warnings[0]


@pytest.mark.parametrize("name", ["docker-compose.yml", "compose.yaml", "/opt/shop/prod.yml"])
@pytest.mark.parametrize("text", ["\ufeffservices:\n", '{"version": "3", "services": {}}', "{services: {}}", '"services": {}\n', "\ufeff{\n  services: {}}\n"])
def test_forms_of_projects_files(root: Root, name: str, text: str) -> None:
    root.file(os.path.join("/opt/shop", name), text)
    root.container("a", root.project("shop", "/opt/shop", name))
    assert root.sources() == {"compose-shop": "/opt/shop"}


@pytest.mark.parametrize("text", ["db:\n  image: postgres\n", "", "\ufffe"])
def test_files_of_projects_usual_names_may_have_any_form(root: Root, text: str) -> None:
    root.file("/opt/shop/docker-compose.yml", text)
    root.container("a", root.project("shop", "/opt/shop"))
    assert root.sources() == {"compose-shop": "/opt/shop"}
    assert root.sources(compose_dirs=["/opt"]) == {"compose-shop": "/opt/shop"}


def test_what_labels_call_a_project_counts_before_its_files(root: Root) -> None:
    root.file("/opt/prod/compose.yaml", "name: ${STACK:-prod}\nservices: {}\n")
    root.file("/opt/prod/.env", "COMPOSE_PROJECT_NAME=shop\n")
    root.link("/opt/link", "prod")
    root.container("a", root.project("shop", "/opt/link", "compose.yaml"))
    assert root.sources(compose_dirs=["/opt", "/opt/prod"]) == {"compose-shop": "/opt/prod"}


@pytest.mark.parametrize("files", ["passwd", "/etc/passwd", "fake.yml", "pipe.yml", "", "../etc/passwd"])
def test_labels_that_an_image_brought(root: Root, files: str) -> None:
    """An image with labels of its own would have /etc backed up; a file of Compose is not there."""
    root.file("/etc/passwd", "services:\n")
    root.file("/etc/fake.yml", "a: b\n")
    os.mkfifo(root.path("/etc/pipe.yml"))
    root.container("x", root.project("evil", "/etc", files))
    found = root.find()
    assert (found.workloads, found.complete) == ([], False)


#: An image's digest, and how Docker keeps what the image says of itself.
IMAGE = "sha256:" + "ab" * 32
KEPT = f"{DOCKER}/image/overlay2/imagedb/content/sha256/{IMAGE[7:]}"


@pytest.mark.parametrize("project", ["shop", "evil"])
@pytest.mark.parametrize("kept", [True, False], ids=["image is kept", "image is elsewhere"])
@pytest.mark.parametrize("directory", ["/etc", "/opt/other"])
def test_labels_of_an_image_are_no_labels_of_compose(root: Root, project: str, kept: bool, directory: str) -> None:
    """All that Compose would write, and files of Compose where the image says: it takes no project away, and chooses nothing to back up."""
    for place in ("/opt/shop", "/opt/other", "/etc"):
        root.file(f"{place}/compose.yaml", "services: {}\n")
    root.container("a", root.project("shop", "/opt/shop", "/opt/shop/compose.yaml"))
    labels = {**root.project(project, directory, f"{directory}/compose.yaml"), "com.docker.compose.oneoff": "False", "com.docker.compose.image": "sha256:0"}
    root.container("b", labels, Name="/innocent_turing", Image=IMAGE)
    if kept:
        root.file(KEPT, {"config": {"Labels": labels}})
        root.container("c", {**labels, f"{LABEL}.project": "x"}, Name=f"/{project}-db-1", Image=IMAGE)
    assert root.sources() == {"compose-shop": "/opt/shop"}
    found = root.find()
    assert not found.complete and len(found.warnings) == 1 and "may come from its image" in found.warnings[0]
    assert root.sources(compose_dirs=["/opt/other"]).get("compose-other") == "/opt/other", "an administrator's word counts"


@pytest.mark.parametrize("why", ["digest", "image", "name", "container_name", "old name"])
def test_labels_that_compose_wrote(root: Root, why: str) -> None:
    root.file("/opt/shop/compose.yaml", "services:\n  db:\n    container_name: 'database'\n")
    labels = root.project("shop", "/opt/shop", "/opt/shop/compose.yaml")
    names = {"name": "/shop-db-1", "old name": "/shop_db_1", "container_name": "/database"}
    root.container("a", {**labels, "com.docker.compose.image": IMAGE if why == "digest" else "x"}, Name=names.get(why, "/mine"), Image=IMAGE)
    if why == "image":
        root.file(KEPT, {"config": {"Labels": {"maintainer": "x", LABEL: "other"}}})
    assert root.sources() == {"compose-shop": "/opt/shop"} and root.find().complete


LEFT_OUT = "its containers have the label volt.backup=false"
#: Labels of the containers of a workload, those of their image, and what comes of them: whether it is left out, and the option `quiesce`.
LABELLED: dict[str, tuple[list[dict[str, Any]], dict[str, str], bool, str | None]] = {
    "none": ([{}], {}, False, None),
    "out": ([{"volt.backup": "false"}], {}, True, None),
    "one of two is out": ([{"volt.backup": "false"}, {}], {}, False, None),
    "both are out": ([{"volt.backup": "false"}, {"volt.backup": "false"}], {}, True, None),
    "of the image": ([{"volt.backup": "false", "volt.backup.quiesce": "stop"}], {"volt.backup": "false", "volt.backup.quiesce": "stop"}, False, None),
    "against the image": ([{"volt.backup": "true", "volt.backup.quiesce": "none"}], {"volt.backup": "false", "volt.backup.quiesce": "stop"}, False, "none"),
    "stop comes first": ([{"volt.backup.quiesce": "pause"}, {"volt.backup.quiesce": "stop"}, {"volt.backup.quiesce": "none"}], {}, False, "stop"),
    "pause": ([{"volt.backup.quiesce": "pause"}, {}], {"volt.backup.quiesce": "stop"}, False, "pause"),
}


@pytest.mark.parametrize("case", LABELLED)
@pytest.mark.parametrize("kind", ["volume", "project"])
def test_labels_about_backups(root: Root, case: str, kind: str) -> None:
    wanted, of_image, out, way = LABELLED[case]
    root.file(KEPT, {"config": {"Labels": of_image or None}})
    place = root.volume("data") if kind == "volume" else root.file("/opt/shop/compose.yaml", "services: {}\n").rpartition("/")[0]
    project = root.project("shop", place, f"{place}/compose.yaml") if kind == "project" else {}
    points = {"/data": {"Type": "volume", "Name": "data"}} if kind == "volume" else {}
    for number, labels in enumerate(wanted):
        root.container(str(number), points=points, Config={"Labels": {**project, **labels}}, Image=IMAGE)
    found = root.find(compose_dirs=["/opt"] if kind == "project" else [])
    assert [item["schedule"].get("quiesce") for item in found.workloads] == ([] if out else [way])
    assert [item["reason"] for item in found.left_out] == ([LEFT_OUT] if out else [])
    assert found.complete and not found.warnings


@pytest.mark.parametrize(
    ("labels", "kept", "told"),
    [
        ({"volt.backup": "false"}, False, "which may come from its image"),
        ({"volt.backup": "no"}, True, "volt.backup=no, which must be one of false, true"),
        ({"volt.backup.quiesce": ["stop", "\n"]}, True, "it does not count"),
        ({"volt.backup.quiesce": "stop\nExecStart=/bin/false"}, True, "must be one of stop, pause, none"),
    ],
)
def test_labels_about_backups_that_do_not_count(root: Root, labels: Any, kept: bool, told: str) -> None:
    if kept:
        root.file(KEPT, {"config": {}})
    root.volume("data")
    root.container("a", points={"/data": {"Type": "volume", "Name": "data"}}, Config={"Labels": labels}, Image=IMAGE)
    found = root.find()
    assert [item["schedule"].get("quiesce", "not") for item in found.workloads] == ["not"]
    (warning,) = found.warnings
    assert told in warning and "\n" not in warning and found.complete


def test_a_container_whose_project_is_doubtful_wants_a_backup(root: Root) -> None:
    """Others of its project cannot leave it out."""
    root.file("/opt/shop/compose.yaml", "services: {}\n")
    labels = root.project("shop", "/opt/shop", "/opt/shop/compose.yaml")
    root.file(KEPT, {"config": {"Labels": None}})
    root.container("a", Config={"Labels": {**labels, "volt.backup": "false"}}, Image=IMAGE)
    assert root.find().workloads == []
    root.container("b", labels, Name="/other", Image="sha256:" + "cd" * 32)
    assert [item["workload"] for item in root.find().workloads] == ["compose-shop"]


def test_labels_of_a_users_docker_do_not_count(root: Root) -> None:
    place = "/home/jo/.local/share/docker"
    root.file(f"{place}{KEPT[len(DOCKER):]}", {"config": {}})
    root.volume("data", place)
    root.container("a", points={"/data": {"Type": "volume", "Name": "data"}}, root=place, Config={"Labels": {"volt.backup": "false"}}, Image=IMAGE)
    assert root.sources(users=["jo"]) == {"docker.jo.data": f"{place}/volumes/data/_data"}


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
    assert [item["path"] for item in found.left_out] == ["/srv/none", "/opt/stacks/___"]
    assert found.warnings[0] == "/srv/none is left out: it is empty; perhaps it is not mounted."


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
    assert not found.complete
    assert found.warnings[0] == "/opt/a/shop is left out: /opt/a/shop and /opt/b/shop would all be named workload compose-shop; rename all but one."


@pytest.mark.parametrize("text", ["relative", "", "/nul\\x00"])
def test_directories_are_absolute(root: Root, text: str) -> None:
    with pytest.raises(UsageError):
        root.find(compose_dirs=[text])
