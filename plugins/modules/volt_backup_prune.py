#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_backup_prune
short_description: Delete the backups of a workload that no rule keeps
version_added: 0.1.0
description:
  - Deletes the backups of a workload that O(keep) does not keep, oldest first. Data that only they use stays in the store until
    M(volt.backup.volt_cas_gc) removes it.
  - The newest complete and undamaged backup is always kept, and also the newest of them that is not unstable, and the newest one whose data did not change
    since it was last hashed (C(checked) in M(volt.backup.volt_backup_info)).
  - Incomplete and damaged backups do not count. So a good backup is never deleted because of them, and they are deleted if a good one of the same time
    would be. If no good backup is left, nothing is deleted.
  - A backup with a time in the future, because a clock was wrong, is kept, and does not count until that time. A backup with an unreadable record
    is kept if its time is unknown, or if its tags would matter.
  - Hours, days, weeks, months and years are in the managed host's time zone, including daylight saving time. The rules are those
    of C(restic forget).
author:
  - volt.backup contributors (!UNKNOWN)
extends_documentation_fragment:
  - volt.backup._attributes
  - volt.backup._attributes.actiongroup_volt
  - volt.backup._store
  - volt.backup._keep.prune
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Lists each backup with the rule that keeps it, or that it is deleted.
  idempotent:
    support: full
options:
  workload:
    description:
      - Name of the workload. If it has no backups, the task succeeds without a change.
    type: str
    required: true
    aliases:
      - workload_name
      - name
  types:
    description:
      - Only consider backups of these types, as one series. Others are neither counted nor deleted.
      - By default all types.
    type: list
    elements: str
    choices:
      - manual
      - scheduled
      - snapshot
      - pre-deploy
    default: []
seealso:
  - module: volt.backup.volt_backup
  - module: volt.backup.volt_backup_info
"""

EXAMPLES = r"""
- name: Keep daily backups for a week, weekly ones for a month and monthly ones for a year
  volt.backup.volt_backup_prune:
    workload: app
    keep:
      daily: 7
      weekly: 5
      monthly: 12

- name: Keep the newest three backups made before deploys, and all of the last 30 days
  volt.backup.volt_backup_prune:
    workload: app
    types:
      - pre-deploy
    keep:
      last: 3
      within: 30d
  register: pruned

- name: Show what is kept, and why
  ansible.builtin.debug:
    msg: "{{ item.id }}: {{ item.rule }}"
  loop: "{{ pruned.kept }}"
"""

RETURN = r"""
kept:
  description: Backups that are kept, newest first.
  type: list
  elements: dict
  returned: success
  contains: &row
    id:
      description: The backup's id.
      type: str
      returned: always
      sample: app-20261123-100000-scheduled
    created_at:
      description: When it was started, in UTC. Null if unknown.
      type: str
      returned: always
      sample: '2026-11-23T10:00:00.123456Z'
    type:
      description: What it is for.
      type: str
      returned: always
      sample: scheduled
    rule:
      description:
        - What keeps it. These are suboptions of O(keep), with the day, month or other period; or V(newest), V(newest stable) or V(newest checked),
          or V(future) for one with a time in the future, or V(time unknown) and V(tags unknown) for one whose record cannot be read,
          or V(no complete and undamaged backup is left), or V(its record changed meanwhile), or V(protected),
          V(older than a suspect backup) and V(first suspect).
        - V(no rule keeps it) for one that is deleted.
      type: str
      returned: always
      sample: last, daily 2026-11-23
    complete:
      description: Whether it is complete.
      type: bool
      returned: always
      sample: true
    damaged:
      description: Whether it is damaged. Null if O(keep) keeps all backups, because this is then not checked.
      type: bool
      returned: always
      sample: false
    unsupported:
      description: Whether a newer version wrote it. Such a backup is kept.
      type: bool
      returned: always
      sample: false
    foreign:
      description: Whether it belongs to another backup directory. Such a backup is kept.
      type: bool
      returned: always
      sample: false
    suspect:
      description: Whether it is suspect.
      type: bool
      returned: always
      sample: false
removed:
  description: Backups that are deleted, newest first.
  type: list
  elements: dict
  returned: success
  contains: *row
diff:
  description: What happened to each backup.
  returned: success
  type: dict
  contains:
    prepared:
      description: One line for each backup, newest first, which C(--diff) prints.
      type: str
      returned: always
      sample: "keep   app-20261123-100000-scheduled (last, daily 2026-11-23)\nremove app-20261023-100000-scheduled (no rule keeps it)\n"
store_id:
  description: Id of the missing store that this host's backups are in. Null if its id is unknown.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
code:
  description:
    - Kind of failure, for conditions in playbooks. V(usage) for invalid options, V(store) for a store that
      is missing, and for a store or a O(backup_dir) that cannot be read or written, V(lock_timeout) for a lock that was held by others for too long,
      V(interrupted) for a run that was interrupted.
  returned: failure
  type: str
  sample: usage
"""

from ansible_collections.volt.backup.plugins.module_utils._module import KEEP, Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager

OPTIONS = dict(
    workload=dict(type="str", required=True, aliases=["workload_name", "name"]),
    keep=dict(KEEP, required=True),
    types=dict(type="list", elements="str", choices=["manual", "scheduled", "snapshot", "pre-deploy"], default=[]),
)


def work(task: Task) -> Result:
    params = task.params
    done = task.manager.prune(params["workload"], params["keep"], params["types"], task.dry)
    return {"changed": done.changed, "kept": done.kept, "removed": done.removed, "diff": done.diff}


def main() -> None:
    run(work, OPTIONS, manager=Manager)


if __name__ == "__main__":
    main()
