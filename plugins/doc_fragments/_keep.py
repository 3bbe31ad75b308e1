# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is **PRIVATE** to the collection. It can change at any time, also in patch releases.

from __future__ import annotations

_SUBOPTIONS = r"""
    type: dict
    suboptions:
      last:
        description: Keep this many of the newest backups.
        type: int
      hourly:
        description: Keep the newest backup of each hour, for this many of the last hours that have one, in the time zone of the managed host.
        type: int
      daily:
        description: Keep the newest backup of each day, for this many of the last days that have one, in the time zone of the managed host.
        type: int
      weekly:
        description: The same with weeks, from Monday to Sunday.
        type: int
      monthly:
        description: The same with months.
        type: int
      yearly:
        description: The same with years.
        type: int
      within:
        description:
          - Keep backups younger than this, for example V(12h), V(30d) or V(8w).
          - It is counted back from the newest backup, not from now. So no backup is deleted only because no new ones are made.
            Days and weeks are those of the calendar, at the same time of day.
        type: str
      tags:
        description: Keep backups with any of these tags.
        type: list
        elements: str
"""


class ModuleDocFragment:
    # Both have a type annotation, because ansible-test's yamllint expects every other assignment to be a single string.

    # For a module that makes backups.
    CREATE: str = (
        r"""
options:
  keep:
    description:
      - Which backups of this O(workload) and this O(type) to keep, after the task has otherwise succeeded. The others are deleted, as by
        M(volt.backup.volt_backup_prune). They are also deleted if O(only_if_changed) or O(max_age) made a new backup unnecessary.
      - A backup is kept if any of the suboptions keeps it. The newest complete and undamaged one is always kept.
"""
        + _SUBOPTIONS.lstrip("\n")
    )

    # For a module that only prunes.
    PRUNE: str = (
        r"""
options:
  keep:
    description:
      - What to keep. A backup is kept if any of the suboptions keeps it. A number that is V(0) or not set keeps nothing.
      - The task fails if all of them are empty.
    required: true
"""
        + _SUBOPTIONS.lstrip("\n")
    )
