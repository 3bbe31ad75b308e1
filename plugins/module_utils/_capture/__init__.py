# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""From a source into a store.

::

    read the streams beside the source, if there are any
    sync the source's file system, unless it suffices to write back the files that are read
    walk depth first, names in byte order; in each directory
        list it and stat every entry
        if names and stats are those of the last scan: keep its tree, read nothing
        else read new and changed files, keep the other entries
        after its subdirectories: encode the tree, save the stats for the next scan
    check hard links again that may be wrong
    check that the source is still at its path

Files: `capture` (the walk down), `file_saver` (entries of one directory), `reading` (files that may change meanwhile), `tree_saver` (trees, on
the way up), `link_check` (checks names of one file again), `databases` (files that a database writes), `stream` (what programs write
into the backup), `write_back` (dirty pages), `state` (a directory in work, and notes about the whole), `stat_cache` (what the last walk found).
"""

from __future__ import annotations
