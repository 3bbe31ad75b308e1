# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The manifests of a store, as files: a name, and bytes that never change. What is in them is the business of the rooms above."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._base import StoreError, directory_lock, files, reason

#: The longest manifest: it names what a backup skipped.
MANIFEST_MOST = 256 << 20
ENDING = ".json"


class Refs:
    """The manifests of the store at a path."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._directory = os.path.join(store, "refs")

    def names(self) -> t.List[str]:
        """Names of all manifests, sorted; StoreError where they cannot be listed, for that is not the same as none."""
        try:
            found = os.listdir(self._directory)
        except FileNotFoundError:
            if os.path.lexists(os.path.join(self._store, "format.json")):
                raise StoreError(f"Store {self._store} has no refs directory; restore that directory from a copy first.") from None
            return []
        except OSError as error:
            raise StoreError(f"The manifests of store {self._store} cannot be listed: {reason(error)}; fix that, then run again.") from None
        return sorted(name[:-5] for name in found if name.endswith(".json") and not name.startswith("."))

    def held(self) -> t.Iterator[t.Tuple[str, bytes]]:
        """(name, bytes) of the manifests that runs hold, deleted or not (see `claims`). One that is still being written is not held yet."""
        tmp = os.path.join(self._store, "tmp")
        for run in files.list_stored(tmp):
            for name in files.list_stored(os.path.join(tmp, run)):
                if name.endswith(ENDING):
                    with contextlib.suppress(FileNotFoundError):
                        yield name[: -len(ENDING)], files.read_stored(os.path.join(tmp, run, name), MANIFEST_MOST)

    def written(self, name: str) -> float:
        """When a manifest was written, in seconds since 1970; FileNotFoundError where it is gone."""
        return os.stat(self._path(name)).st_mtime

    def read(self, name: str) -> bytes:
        """A manifest's bytes; FileNotFoundError where it is gone, Damaged where it cannot be had."""
        return files.read_stored(self._path(name), MANIFEST_MOST)

    def write(self, name: str, data: bytes) -> None:
        """Write a manifest, durably. What it refers to must be durable by then. FileExistsError where there is one of this name; OSError."""
        files.write_file(self._path(name), data, exclusive=True)

    def remove(self, names: t.Iterable[str]) -> int:
        """Remove manifests, durably; how many of them were there. OSError where that fails."""
        removed = sum(files.unlink(self._path(name)) for name in names)
        if removed:
            files.sync_directory(self._directory)
        return removed

    def lock(self, timeout: float, alone: bool = True) -> t.ContextManager[None]:
        """See `directory_lock`."""
        return directory_lock(self._directory, timeout, alone)

    def sweep(self, age: float) -> None:
        """Remove what dead runs left half-written, if it is older than so many seconds."""
        files.sweep(self._directory, age)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name + ENDING)
