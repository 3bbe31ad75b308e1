# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Remotes: copies of backups off the host, in a place that any number of hosts write to.

A remote keeps objects under names, and each name is written once. A *push* brings one backup: its blobs travel in *packs* of about 16 MiB, an *index*
says which blobs are in which pack, and the *commit* makes the backup exist. Nothing is overwritten, and one thing decides what counts: whether a name
can be created, because it does not exist yet. So pushes that are killed, doubled or late do no harm, and a collection on the remote can end a push by
creating its commit first.

A push never changes what is on the host, except for the note in the sidecar that the copy is there. Local backups do not wait for a remote.

Files: `transport` (what a remote must be able to do), `directory` (a remote in a directory), `s3`, `s3_client` and `s3_failures` (one in a bucket), `policy`
(the rights that a host needs there), `pace` (a limit of bandwidth), `url` (what a URL names), `declared` (remotes by name), `names` (names of objects),
`about` (what the remote is), `packs`, `indexes` and `commits` (the formats), `keys` (what is done with bytes before they leave), `sealed` (the keys of sealed
remotes), `credential` (secrets that systemd keeps), `age` and `age_program` (their format), `memory` (what the host knows of the remote), `known` (the same,
read from the remote), `look` (whether the two fit), `shared` (what other hosts have there), `vetted` and `vetting` (which of that was read and found right,
and the reading), `upload` (what is new, in packs), `push` (the order of the steps), `reading` (the backups on a remote), `structure` (whether the remote has
all that they need), `choice` (which of them is restored), `ours` (which are this host's), `origin`, `blobs`, `places` and `fetcher` (a backup as a restore
reads it, its blobs, where they are, and the packs that have them), and `remote`, the door.
"""

from __future__ import annotations
