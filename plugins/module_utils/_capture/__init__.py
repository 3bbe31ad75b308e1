# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A source into a store.

::

    sync the source's file system
    walk depth first, names in byte order; in each directory
        list it and stat every entry
        if names and stats are those of the last scan: keep its tree, read nothing
        else read what is new or different, keep the entries that are not
        after its subdirectories: encode the tree, remember the stats for the next scan
    look again at hard links that may be none
    see that the source is still where it was

Files: `capture` (the walk down), `file_saver` (entries of one directory), `reading` (files that others may be writing), `tree_saver` (trees,
on the way up), `link_check` (names of one file, looked at again), `databases` (files that a database writes), `state` (a directory under
way, and notes about the whole), `stat_cache` (what the last walk saw).
"""

from __future__ import annotations
