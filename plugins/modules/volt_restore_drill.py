#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_restore_drill
short_description: Prove that backups can be restored
version_added: 0.1.0
description:
  - Restores the newest backup of each workload that is complete, not damaged and not suspect to a directory of its own, reads that tree again,
    compares it byte by byte with what the store says it must be, and removes it.
  - Where the workload has a schedule, it is noted when and by which backup that was proved. M(volt.backup.volt_backup_info) with
    O(volt.backup.volt_backup_info#module:include=schedules) and C(volt-backup status) tell it.
  - The task fails with RV(code=drill) if a workload is not proved, after all others have had their turn.
author:
  - volt.backup contributors (!UNKNOWN)
extends_documentation_fragment:
  - volt.backup._attributes
  - volt.backup._attributes.actiongroup_volt
  - volt.backup._store
attributes:
  check_mode:
    support: full
    details:
      - Looks whether everything is there that would be restored, and writes nothing.
  diff_mode:
    support: N/A
    details:
      - This module leaves the host as it was.
  idempotent:
    support: full
    details:
      - It is never changed. The note is no part of what is declared.
options:
  workloads:
    description:
      - Of these workloads. By default, of all that have backups in O(backup_dir).
    type: list
    elements: str
    default: []
  scratch_dir:
    description:
      - Where to restore to, in a new directory that only the user of the task can enter. A directory that is not there is made, and removed again.
      - It needs space for the largest workload, unless it shares blocks with the store (Btrfs, XFS). Without that space nothing is written.
    type: path
    default: /var/lib/volt/drill
seealso:
  - module: volt.backup.volt_restore
  - module: volt.backup.volt_cas_verify
"""

EXAMPLES = r"""
- name: Back up an application's data
  volt.backup.volt_backup:
    workload: app
    source: /srv/app

- name: Prove that it can be restored
  volt.backup.volt_restore_drill:
    workloads:
      - app
  when: not ansible_check_mode # where no backup was made

- name: Prove it of every workload of the host, where there is space
  volt.backup.volt_restore_drill:
    scratch_dir: /var/tmp
  when: not ansible_check_mode
"""

RETURN = r"""
drills:
  description: How it went with each workload. It is there after a failure as well, if any workload had its turn.
  returned: success
  type: list
  elements: dict
  contains:
    workload:
      description: Name of the workload.
      type: str
      returned: always
      sample: app
    backup_id:
      description: The backup that was restored, or null where there is none that could be.
      type: str
      returned: always
      sample: app-20261123-100000-scheduled
    reason:
      description: Why it is not proved, as a sentence. Null where it is.
      type: str
      returned: always
      sample: null
    total_size:
      description: Sum of the sizes of all files in bytes.
      type: int
      returned: always
      sample: 485123456
    duration:
      description: How long it took, in nanoseconds.
      type: int
      returned: always
      sample: 1834000000
    noted:
      description: Whether it was noted as the last proof of the workload's schedule.
      type: bool
      returned: always
      sample: true
    unstable_count:
      description: How many files of the backup are unstable. They were written while it was made, so they are not proved.
      type: int
      returned: always
      sample: 0
    passed_over:
      description: >-
        Newer backups that were passed over, since they are incomplete, damaged, suspect, of the future (the clock was wrong) or of another backup directory.
        They are not proved. A warning names each.
      type: list
      elements: dict
      returned: always
      sample: []
      contains:
        id:
          description: The backup.
          type: str
          returned: always
          sample: app-20261123-110000-scheduled
        reason:
          description: Why.
          type: str
          returned: always
          sample: incomplete
store_id:
  description: The id of the store that is known on the host and is away. Null if only that there is one is known.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
code:
  description:
    - What kind of failure it was, for a playbook to branch on. V(drill) for backups that are not proved, V(not_found) where there are none at all,
      V(usage) for options that are wrong, V(store) for a store that is known and not there.
  returned: failure
  type: str
  sample: drill
"""

from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._module import Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._schedule import drill

OPTIONS = dict(
    workloads=dict(type="list", elements="str", default=[]),
    scratch_dir=dict(type="path", default=drill.SCRATCH),
)


def work(task: Task) -> Result:
    done = drill.Driller(task.manager, task.params["scratch_dir"], task.dry)(task.params["workloads"])
    failure = drill.failure(done)
    if failure is not None:
        raise failure
    for one in done:
        if one.passed_over:
            task.warn(f"Workload {one.workload}: {drill.passed_over(one)}.")
    return {"changed": False, "drills": [one._asdict() for one in done]}


def main() -> None:
    run(work, OPTIONS, manager=Manager)


if __name__ == "__main__":
    main()
