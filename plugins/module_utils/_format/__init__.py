# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What blobs mean: trees, chunk lists, tables of hard links, and how to go through them. Knows no disk.

A directory is a *tree*: a blob that lists its entries and names their content by digest, and its subdirectories by the digests of their
trees. The root's digest therefore stands for everything below, and equal subtrees are one. All encodings are deterministic: the same
directory gives the same bytes on every host and every Python. Whatever is decoded is hostile until it is checked.

Blobs come from a function `(digest, limit) -> bytes`; where it finds them is not known here.

Files: `magic` (how each sort of blob begins), `tree` (one directory), `chunks` (large and sparse files), `links` (hard-link groups), `walk`
(from the top, by directories, from the leaves, to a path), `diff` (two trees compared), `reachability` (all that backups need, and which
paths lack something).
"""

from __future__ import annotations
