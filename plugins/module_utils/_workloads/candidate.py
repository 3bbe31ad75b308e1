# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What finders get and return."""

from __future__ import annotations

import typing as t

from .._fs.mounts import mounts
from .disk import Disk

CONTAINER = "container"
VOLUME = "volume"


class Candidate(t.NamedTuple):
    """A finder's result. Whether `path` can be a source is decided later."""

    runtime: str
    #: What its runtime calls it.
    name: str
    kind: str
    path: str
    #: Of what a user runs without root.
    user: t.Optional[str] = None
    #: The file that describes it.
    config: t.Optional[str] = None
    #: The host's paths outside of it that it may write.
    binds: t.Sequence[str] = ()
    #: Names of the containers that have it mounted; None where no file tells.
    containers: t.Optional[t.Sequence[str]] = None
    #: The path is a disk image, not a directory.
    is_image: bool = False
    #: The directory is one of disk images.
    has_images: bool = False
    #: How the labels of its containers or domains want it kept still during a backup.
    quiesce: t.Optional[str] = None

    @property
    def workload(self) -> str:
        """Its name as a workload. A user's has dots, root's has a dash, and user names have no dots, so no two of them are equal."""
        return f"{self.runtime}-{self.name}" if self.user is None else f"{self.runtime}.{self.user}.{self.name}"


class Search:
    """One search of a host: the disk, the request, and what several finders need."""

    def __init__(self, disk: Disk, homes: t.Mapping[str, str], projects: t.Sequence[str]) -> None:
        """:param homes: of the users whose volumes are wanted. :param projects: directories in which Compose projects may be."""
        self.disk, self.homes, self.projects = disk, homes, projects
        self._described: t.Dict[str, t.List[t.Dict[str, t.Any]]] = {}
        self._mounted: t.Optional[t.Dict[str, str]] = None

    def described(self, root: str) -> t.List[t.Dict[str, t.Any]]:
        """The descriptions of Docker's containers, the oldest first."""
        if root not in self._described:
            place, names = self.disk.names(f"{root}/containers")
            values = [self.disk.table(f"{place}/{name}/config.v2.json") for name in names]
            self._described[root] = sorted((value for value in values if value), key=lambda value: str(value.get("Created")))
        return self._described[root]

    def mounted(self, path: str) -> str:
        """The type of the file system that is mounted exactly here, or nothing."""
        if self._mounted is None:
            self._mounted = {_text(mount.point): mount.kind for mount in mounts()}
        return self._mounted.get(self.disk.real(path), "")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
