# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The live file system: directories that others change while we look at them.

Every step is one name below an open directory; no symbolic link is followed on the way, and no path is too long. What a file system
cannot tell (holes, attributes, access times) is no error.

Files: `descent` (going down and up by descriptors, opening files, finding holes), `mounts` (what is mounted where, and which stats prove
something), `metadata` (owners, attributes, modes, times), `acl` (the numbers in POSIX ACLs), `holding` (what a file system can hold of
metadata), `flags` (inode flags and projects), `exclusions` (patterns, cache directories, and what else a walk leaves out).
"""

from __future__ import annotations
