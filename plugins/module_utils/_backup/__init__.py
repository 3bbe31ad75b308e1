# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Named backups: what one is, which there are, making, restoring and deleting them. Knows nothing of Ansible.

A backup is two small files over a store: the *manifest* (in the store's refs/: root tree, tables, totals; named by its own digest) and the
*sidecar* (in the backup directory: what people ask about). The sidecar is written last and deleted first, so whatever is listed has its
manifest, and whatever has a manifest has its data.

Files: `ids` (names of workloads, backups and types), `names` (which backup people mean), `records` (sidecar and manifest), `directory` (whose a backup
is), `host` (which store is meant), `presence` (whether it is there), `adopt` (taking a backup over), `import_original` (taking in one of the original
Volt command), `query` (filters), `catalog` (listing, the newest, damage), `needs` (which packs and objects a backup needs), `create`, `publish` (its last
step), `guards` (what keeps a new backup from being worse than none), `brake` (what has lost too much is suspect), `replacement` and `content` (what took
the place of files, and how lost ones look), `listing` (what is in a backup), `dump` (the content of a file), `export` and `tar` (a backup as an archive),
`search` (files in many backups), `marks` (what people say of a backup), `copies` (on remotes), `pull` (a copy comes back), `origin` (a backup as a
restore sees it), `restore` (the target is compared, a strategy chosen), `differ` (what changed between backups, or since one), `text_diff` (what changed
in a file), `retention` (what a policy keeps), `prune` (deleting the rest), `garbage` (what collection must keep), `verify`, `repair`, `usage`, `acts`
(what was done, for the journal), and `manager`, the door through which modules and the command come.
"""

from __future__ import annotations
