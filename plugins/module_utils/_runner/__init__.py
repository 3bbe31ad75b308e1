# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The volt-backup command, for timers and for use by hand.

It parses arguments and prints results; the engine does the work. With `--json` a command prints what the module of that name returns. Exit status: 0 done, 1
failed, 2 wrong usage, 3 backup incomplete, 4 no store, 5 unknown workload, id or path, 6 backup suspect, 7 written by a newer version, 130 interrupted.

Files: `cli` (the command line), `manual` (examples and exit statuses), `page` (the manual page), `completion` (for shells), `backups` (commands about
backups), `look` (commands that look into backups), `upkeep` (prune, gc, verify), `remotes` (push), `scheduled` (run, hook, status, drill, notify),
`screen` (all that prints: tables, sizes, the progress bar), `archive` (the command as one file), `beside` (what is installed beside it).
"""

from __future__ import annotations
