# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A backup onto a target.

::

    compare the tree with what is there; nothing else is done where they are equal
    new: everything is created in a private directory beside the target, then the two are exchanged
    in place: each file grows in a private room, complete, and is renamed to its name
    content first, then owner, attributes, mode and times; directories last, from the leaves up

What a backup left out on purpose or by necessity is preserved. Nothing outside of the target is reachable: the walk follows the tree, never
a path in it, and a directory is entered through a descriptor, on the mounts that were there at the first look. What the target cannot hold is
counted and named, and the rest restored.

Files: `target` (where it is, and that one restore at a time has it), `in_use` (who else uses it), `equal` (one entry beside what is at a place),
`compare` (a tree beside a directory), `known` (the stat cache of a target), `plan` (what was asked, and the strategy), `space` (what will be
written), `salvage` (the sound rest of a damaged backup), `blobs` (where they are read), `supply` (packed blobs, each pack read once), `spool` (what was fetched
from a remote), `content` (blobs into files), `assemble` (a tree into a directory), `hard_links` (files with several names), `rooms` (where new files
grow), `replace` (a new tree beside the old, exchanged), `preserve` (what a restore leaves alone), `remove` (removing a tree without leaving it).
"""

from __future__ import annotations
