# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Workloads found, not typed: what a host runs, read from the files that machines, volumes and projects leave on its disk.

No program is asked and no daemon: what is stopped is found as well as what runs, and nothing has to be installed.

::

    disk        looking without being led astray: bounded reads of plain files; a symbolic link is followed only where no one but the
                administrator can have put it; what cannot be read is noted, not raised, and the look is then not complete
    machines    finders of nspawn machines, Volt containers, Volt virtual machines     a finder yields candidates: what it is,
    engines     finders of Docker and Podman volumes, Compose projects                 what it is called, where it lies
    find        all finders, one after the other; each candidate is resolved, named, compared with those before it, measured

Names decide whose backups are whose, so a name comes from the thing alone: `<runtime>-<its own name>`, whatever else the host has. No
prefix begins another one, so that two runtimes never mean the same name. Where a name cannot be a workload's, or two things claim
it, they are left out and reported: a guess could send one thing's backups to another's history.

What a container can write is not believed. Only what its host wrote about it decides what is backed up.

Files: `disk`, `candidate` (what a finder yields, and what it is given), `machines`, `engines`, `images` (disk images of virtual machines), `find`,
`size` (how much there is).
"""

from __future__ import annotations
