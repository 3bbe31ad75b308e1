# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The packs of a store as files: which there are, in which form, and whether a shard has changed."""

from __future__ import annotations

import itertools
import os
import stat
import typing as t

from .._base import Closing, StoreError, files, nfs, reason
from . import codec, layout
from .pack_tables import NOTHING, Stamp, Told


class PackFiles:
    """The directory of packs of the store at a path. StoreError where it cannot be listed."""

    def __init__(self, store: str) -> None:
        self._path = store
        self._suffixes: t.Sequence[str] = codec.SUFFIXES  # the usual one first
        self._stamps: t.Dict[str, Stamp] = {}

    def shards(self) -> t.List[str]:
        """Names of what there is in the place of shards."""
        return self._list()

    def names(self, shard: str) -> t.List[bytes]:
        """Names of the packs in a shard, whatever form they have."""
        names = map(layout.PACK_NAME.match, self._list(shard))
        return list({bytes.fromhex(match[1]) for match in names if match and match[1][:2] == shard})

    def _list(self, shard: str = "") -> t.List[str]:
        try:
            return os.listdir(os.path.join(self._path, "packs", shard))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unlistable(error) from None

    def stamp(self, shard: str) -> t.Optional[Stamp]:
        """What a shard is now, as far as we know; None where it is no directory: what lies behind a symlink is not the store's. Looked at once."""
        if shard not in self._stamps:
            path = os.path.join(self._path, "packs", shard)
            nfs.look_anew(path)
            try:
                info = os.lstat(path)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise self._unlistable(error) from None
            if not stat.S_ISDIR(info.st_mode):
                return None
            self._stamps[shard] = (info.st_ino, info.st_mtime_ns, info.st_ctime_ns)
        return self._stamps[shard]

    def unchanged(self, names: t.Iterable[bytes], lines: t.Mapping[bytes, Told]) -> t.Iterator[t.Tuple[bytes, str, layout.State, int]]:
        """Those of some packs that are there as their lines tell: (name, suffix, state, plain size). The others may be there as well.

        Each file is looked at once, from its own directory: that is most of what a list of a backup in 100,000 packs takes.

        :param names: those of a shard one behind the other.
        """
        suffix, look = self._suffixes[0], os.stat
        for shard, group in itertools.groupby(names, lambda name: name[0]):
            try:
                fd = files.open_directory(os.path.join(self._path, "packs", f"{shard:02x}"))
            except OSError:
                continue
            with Closing(fd):
                for name in group:
                    known, plain = lines.get(name, NOTHING)
                    if plain:
                        try:
                            info = look(f"{name.hex()}.pack{suffix}", dir_fd=fd, follow_symlinks=False)
                            state = info.st_size, info.st_ctime_ns
                        except OSError:
                            form = next(self.forms(name), None)
                            if form is None:
                                continue  # not SUSPECT: that is what a line tells of a pack that was false
                            suffix, state = form
                        if state == known:
                            yield name, suffix, state, plain

    def forms(self, name: bytes) -> t.Iterator[t.Tuple[str, layout.State]]:
        """(suffix, state) of the files of a pack."""
        for suffix in self._suffixes if self.stamp(name[:1].hex()) is not None else ():
            try:
                info = os.lstat(f"{self._path}/{layout.pack_path(name, suffix)}")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._unlistable(error) from None
            if suffix != self._suffixes[0]:
                self._suffixes = sorted(codec.SUFFIXES, key=lambda other: other != suffix)
            yield suffix, layout.state(info)

    def _unlistable(self, error: OSError) -> StoreError:
        """A listing that fails must never look like an empty store."""
        return StoreError(f"The packs of store {self._path} cannot be listed: {reason(error)}; fix that, then run again.")
