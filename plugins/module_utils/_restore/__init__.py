# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A backup onto a target.

::

    compare the tree with what is there; nothing else is done where they are equal
    new: everything is created in a private directory beside the target, then the two are exchanged
    in place: each file is written beside its name, completed, and renamed
    content first, then owner, attributes, mode and times; directories last, from the leaves up

What a backup left out on purpose or by necessity is preserved. Nothing outside of the target is reachable: the walk follows the tree, never
a path in it, and a directory is entered through a descriptor.

Files: `target` (where it is, and that one restore at a time has it), `compare` (a tree beside a directory), `plan` (what was asked, and the strategy),
`content` (blobs into files), `assemble` (a tree into a directory), `replace` (a new tree beside the old, exchanged), `preserve` (what a restore
leaves alone), `remove` (removing a tree without leaving it).
"""

from __future__ import annotations
