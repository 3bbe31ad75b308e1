# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The live file system: directories that others change while they are read.

Every step is one name below an open directory. No symbolic link is followed on the way, and no path is too long. If a file system does not
support something (holes, attributes, access times), that is not an error.

Files: `descent` (going down and up by descriptors, opening files, finding holes), `mounts` (what is mounted where, and whose stats can be
trusted), `metadata` (owners, attributes, modes, times), `acl` (the numbers in POSIX ACLs), `holding` (which metadata a file system can
store), `flags` (inode flags and projects), `exclusions` (patterns, cache directories, and other paths that a walk skips).
"""

from __future__ import annotations
