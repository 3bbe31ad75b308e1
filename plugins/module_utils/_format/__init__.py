# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What blobs mean: trees, chunk lists, tables of hard links, and walks over them. Knows no disk.

A directory is a *tree*: a blob that lists its entries, with the digests of their content and of the trees of its subdirectories. So the
root's digest covers everything below, and equal subtrees are one blob. All encodings are deterministic: the same directory gives the same
bytes on every host and with every Python. Decoded data is not trusted until it is checked.

Blobs come from a function `(digest, limit) -> bytes`.

Files: `magic` (how each type of blob starts), `tree` (one directory), `chunks` (large and sparse files), `cuts` (where streams are
cut into chunks), `links` (groups of hard links), `walk` (from the top, by directories, from the leaves, to a path), `diff` (compares two trees),
`reachability` (all blobs that backups need, and which paths lack some).
"""

from __future__ import annotations
