# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Finds what a host runs, from the files that machines, volumes and projects have on its disk.

It asks no daemon, and no program but `podman`, for labels. So it finds stopped workloads too, and nothing has to be installed.

::

    disk        safe reading: plain files up to a limit; a symbolic link is followed only if only an administrator can have created it;
                what cannot be read is noted, not raised, and the search is then not complete
    machines    finders of nspawn machines, Volt containers, Volt virtual machines     a finder yields candidates: what it is,
    engines     finders of Docker and Podman volumes, Compose projects                 its name, its directory
    find        all finders, one after the other; each candidate is resolved, named, compared with those before it, measured

Backups belong to a name, so a name depends only on the thing itself: `<runtime>-<its own name>`. No runtime's prefix is the start of another
one, so two runtimes never produce the same name. If a name is invalid, or two things have it, they are left out and reported: a guess could
add one thing's backups to another's history.

Data that a container can write is not trusted. Only what its host wrote about it decides what is backed up.

Files: `disk`, `candidate` (what a finder yields, and what it gets), `machines`, `engines`, `labels` (what containers and domains say of their backups),
`podman` (what Podman tells of its containers), `libvirt` (domains of virtual machines), `images` (disk images of these), `find`, `size` (measures workloads).
"""

from __future__ import annotations
