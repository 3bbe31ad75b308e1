# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is **PRIVATE** to the collection. It can change at any time, also in patch releases.

from __future__ import annotations


class ModuleDocFragment:
    # The options that every member of the action group takes.
    DOCUMENTATION = r"""
options:
  store:
    description:
      - Directory of the store that holds the content of all backups of the host.
      - Without this option, it is the store of the host's schedules, which M(volt.backup.volt_backup_schedule) writes down in C(/etc/volt/backup.json).
        Where nothing is declared there, it is C(/var/lib/volt/cas). A task fails if it may not read that file.
      - The first schedule or the first backup makes the store. It is never made where one is known that is away, for example because its disk is not
        mounted. The task fails then, with the code V(store), and nothing is made.
    type: path
  backup_dir:
    description:
      - Directory that holds one small JSON file for each backup.
      - Several such directories may use one store. What belongs to another one is neither pruned nor repaired nor deleted.
      - Without this option, it is that of the host's schedules, like O(store), or else C(/var/lib/volt/backups). Where only one of the two options
        is given, the other comes from C(/etc/volt/backup.json) if that names the one that is given.
    type: path
  lock_timeout:
    description:
      - How many seconds to wait for the store while another run uses it alone.
      - After that the task fails; the lock of the other run is never broken.
    type: int
    default: 300
requirements:
  - Python 3.9 or newer on the managed host
"""

    # For modules that list paths, in a diff or in a result.
    DIFF_LIMIT = r"""
options:
  diff_limit:
    description:
      - How many paths a diff or a list of contents names at most.
      - Where there are more, it says how many. Counts are always exact.
    type: int
    default: 1000
"""
