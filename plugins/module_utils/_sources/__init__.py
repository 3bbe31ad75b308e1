# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What a backup reads, made to stand still: snapshots of the source, and dumps of databases beside it.

::

    check what is asked for before anything is started
    for each dump and command, in the order given
        start the program; its output goes into the store as it comes, and becomes a file of the backup
        it fails, hangs, or writes nothing: the run fails, and there is no backup
    pause or stop the containers, machines and domains that use the source, if asked for
    make snapshots of the file systems of the source, if asked for, and show them together at a private place
    resume them, if all of the source is in snapshots
    read the source, or the snapshots in its place
    resume them in any case
    remove the snapshots, whatever happened; the next run removes those of one that was killed

Dumps come first, because they are of the moment at which their program began, and the source is read from then on.

Files: `commands` (the output of a command as a file), `dumps` (which dumps there are, as users declare them), `databases` (the programs that write them),
`mongodb` (archives of MongoDB), `sqlite` (copies of SQLite databases), `loading` (how a dump is loaded), `prepare` (all that programs write into one backup),
`snapshot` (a source at one moment), `btrfs` (snapshots of Btrfs subvolumes), `zfs` (snapshots of data sets of ZFS), `lvm` (snapshots of logical volumes),
`storage` (what the last two have in common), `quiesce` (containers and machines that wait), `runtimes` (those of Docker and Podman), `machines` (those of
systemd-nspawn), `domains` (those of libvirt).
"""

from __future__ import annotations
