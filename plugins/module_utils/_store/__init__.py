# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The store: bytes and digests, and nothing else.

A *blob* is a run of bytes, named by the SHA-256 of its content. Small blobs travel together in *packs*; a large blob is
an *object*, a file of its own. A caller that asks for a digest need not know which. Nothing here knows what a blob means:
trees, manifests and backups are the business of the packages above.

How bytes come in (a *transaction*)::

    sweep what dead runs left in tmp/; make tmp/<run>/ there, at the gate
    for each blob: is it known? then claim the file that it is in, and look whether that is there; else:
        small: add it to the open pack; when the content says "cut here", a worker compresses and writes the pack
        large: a worker compresses (or clones) it into an object file
    sync the file system, claim all new files, rename them into place, sync again
    write the index of what is new; it can be lost, packs describe themselves
    the caller writes its references; only then the claims go, with tmp/<run>/

How bytes come out::

    find the digest in the index (or, for an object, in its directory)
    read, decompress within a bound, hash; a wrong hash is never returned

Files: `layout` (where files lie), `features` (format.json), `original` (files of the original Volt command), `codec` (compression), `pack` (the pack format),
`table` (digests to values, as a file), `pack_tables`, `object_states` and `pack_files` (what is known of packs and objects, and what there is), `index`
(where a blob is), `lock` (the gate, and the lock of version 0.1.0), `claims` (what runs rely on), `store` (reading), `refs` (manifests, as files), `cache`
(files that may be lost), `rounds` (when each part was last read), `transaction` (writing: the whole), `workspace` (its directory), `workers` (its threads),
`blob_writer` (small blobs), `object_writer` (large ones), `outgoing` (files for a copy elsewhere), `gc` (garbage collection), `trash` (where it moves files),
`scrub` (reading everything to see whether it is sound), `quarantine` (false files, and what is still good in them).
"""

from __future__ import annotations
