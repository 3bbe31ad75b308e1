# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Finders for the data of Docker and Podman: volumes, and the projects of Compose.

Docker describes each container in a JSON file: its labels, in which Compose writes the project and its directory, and its mounts. Podman
has the same in a database, and is asked what containers of root have a volume, and their labels; projects are found only below given directories.

A container also has the labels of its image, so the image's author may have written them. They are trusted if something that no image can
write shows that Compose wrote them (`_wrote_labels`): it names the image by its digest, the image has no such labels, or the container has the
name that Compose gives.
"""

from __future__ import annotations

import os
import re
import typing as t

from . import labels as labels_of, podman
from .candidate import CONTAINER, VOLUME, Candidate, Search
from .disk import AWAY, Disk, Unfit, inner

DOCKER = "/var/lib/docker"
PODMAN = "/var/lib/containers/storage"
#: A setting of TOML, at the beginning of its line; the tables that have these know no second one of the name.
_TOML = r"^\s*{}\s*=\s*[\"']([^\"'\n]+)[\"']"
#: With userns-remap, Docker keeps all in a directory named by ids.
_REMAPPED = re.compile(r"\d+\.\d+\Z")
#: File systems whose content is not this host's, or is gone when it is off.
_ELSEWHERE = frozenset("nfs nfs4 cifs smb3 smbfs ceph glusterfs fuse.sshfs fuse.glusterfs 9p tmpfs ramfs".split())

_SETTINGS = "/etc/docker/daemon.json"
_LABEL = "com.docker.compose.project"
#: What follows that, of labels that say which directory is whose.
_ENDS = ("", ".working_dir", ".config_files")
_SERVICE, _NUMBER, _IMAGE = "com.docker.compose.service", "com.docker.compose.container-number", "com.docker.compose.image"
#: What a file of Compose calls a container, where it does.
_CONTAINER = r"^\s+[\"']?container_name[\"']?\s*:\s*[\"']?([A-Za-z0-9][A-Za-z0-9_.-]*)"
_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")
#: What a file of Compose says on its uppermost level, as people or programs write YAML.
_PROJECTS = re.compile(rb"(?:^(?:\xef\xbb\xbf)?|[{,]\s*)[\"']?(?:services|include)[\"']?\s*:", re.MULTILINE)
_NAMED = re.compile(r"^name:\s*[\"']?([a-z0-9][a-z0-9_-]*)[\"']?\s*(?:#.*)?$", re.MULTILINE)


def docker_roots(search: Search) -> t.Iterator[t.Tuple[t.Optional[str], str]]:
    """(user or None, directory) of Docker's data.

    Invalid settings do not mean the default directory: it may have old data.
    """
    disk = search.disk
    settings = disk.table(_SETTINGS, blank=True)
    root = None if settings is None else settings.get("data-root") or DOCKER
    if isinstance(root, str) and root.startswith("/"):
        place, names = disk.names(root)
        roots = [root, *(f"{place}/{name}" for name in names if _REMAPPED.match(name))]
        # Among the volumes Docker has a database, even if there is none.
        if _is_due(disk, root, DOCKER) and all(disk.is_bare(f"{one}/volumes") for one in roots):
            disk.leave(root, f"it should contain Docker's data, but its volumes directory is empty; {AWAY}")
        yield from ((None, one) for one in roots)
    elif settings is not None:
        disk.miss(_SETTINGS, "has a data-root that is not an absolute path")
    yield from ((user, f"{home}/.local/share/docker") for user, home in search.homes.items())


def _is_due(disk: Disk, place: str, usual: str) -> bool:
    """Whether there has to be something: what settings name is there, save that distributions may name the usual place."""
    return place != usual or os.path.lexists(disk.real(place))


def podman_places(search: Search) -> t.Iterator[t.Tuple[t.Optional[str], str]]:
    """(user or None, directory) of Podman's volumes."""
    disk = search.disk
    storage = _setting(disk, "graphroot", ["/etc/containers/storage.conf"]) or PODMAN
    drop_ins, names = disk.names("/etc/containers/containers.conf.d")
    files = ["/etc/containers/containers.conf", *(f"{drop_ins}/{name}" for name in names if name.endswith(".conf"))]
    place = _setting(disk, "volume_path", files)
    root = place or storage
    if _is_due(disk, root, PODMAN) and disk.is_bare(root):  # volumes have a directory only once there is one
        disk.leave(root, f"it should contain Podman's data, but is empty; {AWAY}")
    yield None, place or f"{storage}/volumes"
    yield from ((user, f"{home}/.local/share/containers/storage/volumes") for user, home in search.homes.items())


def _setting(disk: Disk, name: str, files: t.Iterable[str]) -> t.Optional[str]:
    """An absolute path that a setting has, in the last file that has it."""
    found = None
    for path in files:
        for value in re.findall(_TOML.format(name), disk.text(path), re.MULTILINE):
            found = value if value.startswith("/") else found
    return found


def docker_volumes(search: Search) -> t.Iterator[Candidate]:
    for user, root in docker_roots(search):
        used = _used(search, root)
        for name, place in _volumes(search, f"{root}/volumes"):
            users = used.get(name, {})
            wish = labels_of.agreed([labels_of.of_docker(search.disk, root, value) for value in users.values()] if user is None else ())
            path = None if _is_out(search, place, wish) else _docker_data(search, place)
            if path is not None and _is_here(search, path):
                yield Candidate("docker", name, VOLUME, path, user=user, containers=sorted(users), quiesce=wish.quiesce)


def _is_out(search: Search, path: str, wish: labels_of.Wish) -> bool:
    if wish.out:
        search.disk.leave(path, labels_of.OUT, trouble=False)
    return wish.out


def podman_volumes(search: Search) -> t.Iterator[Candidate]:
    for user, place in podman_places(search):
        found = list(_volumes(search, place))
        used = podman.used(search) if found and user is None else None  # without root, the user wrote the labels
        for name, volume in found:
            path = f"{volume}/_data"
            of_volume = None if used is None else used.get(os.path.realpath(path), podman.Wishes([], []))
            wish = labels_of.agreed(of_volume.wishes if of_volume else ())
            if not _is_out(search, volume, wish) and _is_here(search, path):
                yield Candidate("podman", name, VOLUME, path, user=user, containers=sorted(of_volume.names) if of_volume else None, quiesce=wish.quiesce)


def _volumes(search: Search, place: str) -> t.Iterator[t.Tuple[str, str]]:
    """(name, directory) of the volumes of the local driver; those of other drivers have no _data here."""
    here, names = search.disk.names(place)
    for name in names:
        path = search.disk.real(f"{here}/{name}")
        if os.path.islink(path) or os.path.lexists(f"{path}/_data"):  # who created a link is checked later
            yield name, f"{here}/{name}"


def _docker_data(search: Search, place: str) -> t.Optional[str]:
    """The data directory of a volume. Its options may mount a file system there whenever a container runs."""
    disk = search.disk
    options = disk.table(f"{place}/opts.json")
    if options is None:
        disk.leave(place, "its options could not be parsed, so its data may be elsewhere")
        return None
    kind, device, how = (options.get(key) or "" for key in ("MountType", "MountDevice", "MountOpts"))
    if not (kind or device):
        return f"{place}/_data"
    try:
        here = disk.reach(place)
        if not disk.is_hosts(here):
            raise Unfit("its options can be changed by other users than root")
    except (OSError, Unfit) as error:
        disk.leave(place, error)
        return None
    if isinstance(how, str) and isinstance(device, str) and device.startswith("/") and {"bind", "rbind"} & set(how.split(",")):
        return device
    if str(kind) in _ELSEWHERE:
        # The options may contain a password: not shown.
        disk.leave(place, f"its data is on a {kind} file system, which is not a local disk", trouble=False)
    elif search.mounted(f"{here}/_data"):
        return f"{place}/_data"
    else:
        disk.leave(place, "its data is on a disk that is only mounted while it is in use")
    return None


def _is_here(search: Search, path: str) -> bool:
    kind = search.mounted(path)
    if kind not in _ELSEWHERE:
        return True
    search.disk.leave(path, f"{kind} is mounted there, which is not a local disk", trouble=False)
    return False


def _used(search: Search, root: str) -> t.Dict[str, t.Dict[str, t.Dict[str, t.Any]]]:
    """Which containers have a volume mounted, running or not: their descriptions by their names."""
    used: t.Dict[str, t.Dict[str, t.Dict[str, t.Any]]] = {}
    for value in search.described(root):
        points, name = value.get("MountPoints"), value.get("Name")
        for point in points.values() if isinstance(points, dict) else ():
            volume = inner(point, "Name")
            if inner(point, "Type") == "volume" and isinstance(volume, str) and isinstance(name, str):
                used.setdefault(volume, {})[name.lstrip("/")] = value
    return used


def compose(search: Search) -> t.Iterator[Candidate]:
    """Projects by the labels of their containers; then by their files, in directories that the user names and no label does.

    The name of a project may come from Compose's environment at that time, which is in no file.
    """
    labelled = set()
    for candidate, wish in _labelled(search):
        labelled.add(_reached(search.disk, candidate.path))
        if not _is_out(search, candidate.path, wish):
            yield candidate._replace(quiesce=wish.quiesce)
    yield from _filed(search, labelled)


def _labelled(search: Search) -> t.List[t.Tuple[Candidate, labels_of.Wish]]:
    """The directories of a project in its containers' labels that have its file, and what these want. `find` rejects more than one.

    Nor does the newest container decide: it could send another directory to the project's history.
    """
    found: t.Dict[t.Tuple[str, str], Candidate] = {}
    wishes: t.Dict[t.Tuple[str, str], t.List[labels_of.Wish]] = {}
    gone: t.Dict[str, str] = {}
    doubtful: t.Dict[t.Tuple[str, str], str] = {}
    for user, root in docker_roots(search):
        for value in search.described(root) if user is None else ():  # without root, the user wrote the labels
            labels = inner(value, "Config", "Labels")
            project, directory, files = (inner(labels, _LABEL + end) for end in _ENDS)
            if not (isinstance(project, str) and isinstance(directory, str) and _PROJECT.match(project) and directory.startswith("/")):
                continue
            config = _compose_file(search.disk, directory, files.split(",") if isinstance(files, str) else [])
            if not _wrote_labels(search, root, value, config):
                doubtful[project, directory] = str(value.get("Name")).lstrip("/")
                wishes.setdefault((project, directory), []).append(labels_of.Wish())
            elif config is None:
                gone[project] = directory
            else:
                found[project, directory] = Candidate("compose", project, CONTAINER, directory, config=config)
                wishes.setdefault((project, directory), []).append(labels_of.of_docker(search.disk, root, value))
    for project in sorted(gone.keys() - {project for project, _directory in found}):
        search.disk.leave(gone[project], f"Compose project {project} has containers, but no Compose file was found")
    for project, directory in sorted(doubtful.keys() - found.keys()):
        container = doubtful[project, directory]
        search.disk.leave(
            directory,
            f"container {container} has the labels of Compose project {project}, which may come from its image; if it is a project, list its directory in"
            " `compose_dirs`, or declare it yourself",
        )
    return [(found[key], labels_of.agreed(wishes[key])) for key in sorted(found)]


def _wrote_labels(search: Search, root: str, value: t.Dict[str, t.Any], config: t.Optional[str]) -> bool:
    """Whether Compose wrote the labels of a container, as far as what no image can write shows that.

    Compose 2 names the image by its digest, which no image can contain itself. Otherwise the image's own labels decide, if Docker has them in a file.
    Else the container's name, and that the project's file is in the project's directory.
    """
    labels = t.cast("t.Dict[str, t.Any]", inner(value, "Config", "Labels"))
    image = value.get("Image")
    if isinstance(image, str) and labels_of.DIGEST.match(image):
        if labels.get(_IMAGE) == image:
            return True
        own = labels_of.of_image(search.disk, root, image)
        if own is not None:
            return all(own.get(_LABEL + end) != labels.get(_LABEL + end) for end in _ENDS)
    project, directory, service, number = (labels.get(key) for key in (_LABEL, _LABEL + ".working_dir", _SERVICE, _NUMBER))
    name = str(value.get("Name")).lstrip("/")
    if config is not None and config.rpartition("/")[0] != t.cast(str, directory).rstrip("/"):
        return False
    if name in (f"{project}-{service}-{number}", f"{project}_{service}_{number}"):
        return True
    said = re.findall(_CONTAINER, search.disk.text(config), re.MULTILINE) if config is not None else []
    return name in said


def _compose_file(disk: Disk, directory: str, names: t.Iterable[str]) -> t.Optional[str]:
    """The first of these files that is a Compose file: by its usual name, or else by its content."""
    for name in names:
        path = name if name.startswith("/") else f"{directory}/{name}"
        try:
            if path.endswith((".yml", ".yaml")):
                content = disk.read(path)
                if path.rpartition("/")[2] in _FILES or _PROJECTS.search(content):
                    return path
        except (OSError, Unfit):
            pass
    return None


def _reached(disk: Disk, path: str) -> str:
    try:
        return disk.reach(path)
    except (OSError, Unfit):
        return path  # which `find` reports


def _filed(search: Search, labelled: t.Container[str]) -> t.Iterator[Candidate]:
    """Directories with a Compose file: those that are given, and those in them."""
    for given in search.projects:
        here, names = search.disk.names(given)
        for directory in (here, *(f"{here}/{name}" for name in names)):
            config = _compose_file(search.disk, directory, _FILES)
            if config is None or _reached(search.disk, directory) in labelled:
                continue
            said = _NAMED.search(search.disk.text(config))
            name = said[1] if said else re.sub(r"[^a-z0-9_-]", "", directory.rpartition("/")[2].lower()).lstrip("_-")
            if name:
                yield Candidate("compose", name, CONTAINER, directory, config=config)
            else:
                search.disk.leave(directory, "its name has no letter or digit; set name: in its Compose file")
