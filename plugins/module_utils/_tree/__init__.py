# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""File trees in and out of a store; no idea of what a backup is.

A directory is a *tree*: a blob that lists its entries and names their content by digest, and its subdirectories by the digests
of their trees. The root's digest therefore stands for everything below, and equal subtrees are one.

Backing up (`capture`)::

    sync the source's file system
    walk depth first, names in byte order; in each directory
        list it and stat every entry
        if names and stats are those of the last scan: keep its tree, read nothing
        else read what is new or different, keep the entries that are not
        after its subdirectories: encode the tree, remember the stats for the next scan

Restoring (`assemble`)::

    walk the tree, never the paths in it: a directory is entered through a descriptor, symlinks are never followed
    content first, then owner, attributes, mode and times; directories last, from the leaves up

Rooms: `entry` (the tree format), `chunks` (large and sparse files), `links` (hard-link groups), `names` (bytes on the way to a screen),
`walk` (listing directories safely), `mounts`, `exclude`, `scan` (the stat cache), `capture`, `metadata` (owners, attributes,
times), `compare` (two trees, or a tree and a directory), `content` (blobs into files), `assemble`, `remove`.
"""

from __future__ import annotations
