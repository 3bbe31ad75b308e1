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
      - Directory of the store, which contains the data of all backups of the host.
      - The default is the store of the host's schedules, which M(volt.backup.volt_backup_schedule) writes to C(/etc/volt/backup.json). If that file does
        not exist, it is C(/var/lib/volt/cas). A task fails if it is not allowed to read that file.
      - The first schedule or the first backup creates the store. No new store is created if the known store of the host is missing, for example because its
        disk is not mounted. The task then fails with the code V(store).
    type: path
  backup_dir:
    description:
      - Directory with the records of the backups, one small JSON file for each.
      - Several such directories can use one store. Backups of another directory are neither pruned nor repaired nor deleted.
      - The default is that of the host's schedules, as for O(store), else C(/var/lib/volt/backups). If only one of the two options is set, the other comes
        from C(/etc/volt/backup.json) if that file has the one that is set.
    type: path
  lock_timeout:
    description:
      - How many seconds to wait while another run has locked the store exclusively.
      - After that the task fails. The lock of the other run is never broken.
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
      - Maximum number of paths in a diff or a list of contents.
      - If there are more, the result has their number. Counts are always exact.
    type: int
    default: 1000
"""
