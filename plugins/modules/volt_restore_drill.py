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
  - For each workload, restores the newest backup that is complete, undamaged and not suspect to a scratch directory. It then reads that tree, compares
    it byte by byte with the backup, and removes it.
  - Before that, it loads the dumps of databases in it into servers of their own, and runs the command of O(command) or of the workload's schedule on the
    tree. Both happen in a sandbox, which needs root.
  - With O(remote), it restores the copy there, and reads nothing from the store. This proves that the host can be recovered without its own disk.
  - If the workload has a schedule, the time and the backup are recorded. M(volt.backup.volt_backup_info) with
    O(volt.backup.volt_backup_info#module:include=schedules) and C(volt-backup status) show them.
  - The task fails with RV(code=drill) if the backup of any workload is not proved. The other workloads are tested before it fails.
author:
  - volt.backup contributors (!UNKNOWN)
extends_documentation_fragment:
  - volt.backup._attributes
  - volt.backup._attributes.actiongroup_volt
  - volt.backup._store
  - volt.backup._remote
  - volt.backup._remote.identity
attributes:
  check_mode:
    support: full
    details:
      - Checks that all data to restore is present, and writes nothing.
  diff_mode:
    support: N/A
    details:
      - This module does not change the host.
  idempotent:
    support: full
    details:
      - The task is never changed. The record of the proof does not count as a change.
options:
  workloads:
    description:
      - Only test these workloads. By default all that have backups in O(backup_dir).
      - With O(remote), by default all that have copies there, and for copies of this host also those that had some by the records of this host, or whose
        schedules copy to it and have succeeded. A commit that cannot be read and is of none of these is a failure.
    type: list
    elements: str
    default: []
  scratch_dir:
    description:
      - Directory to restore to. In it, a new directory is created that only the user of the task can enter. If O(scratch_dir) does not exist, it is created
        and removed again.
      - It needs space for the largest workload, unless it shares blocks with the store (Btrfs, XFS). Without enough space nothing is written. With
        O(remote), fetched packs take space in it as well, if there is any.
    type: path
    default: /var/lib/volt/drill
  command:
    description:
      - A command that checks each restored tree, as a list of words that starts with an absolute path. The backup is only proved if it succeeds. The default
        is the O(volt.backup.volt_backup_schedule#module:drill_command) of the workload's schedule. An empty list runs none.
      - It runs as root in a sandbox, in the directory of the restored tree. It can write to the tree, to C(/tmp) and to C(/run), which are removed afterwards.
        Everything else is read-only. It has no network but a loopback interface of its own, no devices and none of the sockets in C(/run), so it cannot
        reach the services of the host. Processes that it leaves are ended.
      - If it fails, the end of its output is in the reason, which is recorded and shown. So it should print no secrets.
      - For a workload whose O(volt.backup.volt_backup#module:workload_mode) is V(container) and whose tree is the root of a system (it has
        C(etc/os-release) or C(usr/lib/os-release)), it runs inside, in C(systemd-nspawn) without network.
      - Its environment has E(VOLT_DRILL_TREE), the tree, E(VOLT_WORKLOAD) and E(VOLT_BACKUP_ID).
    type: list
    elements: str
  command_timeout:
    description: How many seconds O(command) may take.
    type: int
    default: 600
  remote:
    description:
      - Restore from this remote, a declared name or a URL such as C(file:///mnt/nas/backup). Nothing is read from the store, even if it has the same data.
      - Everything that the backup needs is fetched, so on S3 this costs requests and traffic.
    type: str
  host:
    description:
      - With O(remote), the name of the host there whose copies are restored. By default this host, by the name under which it pushes. No other host is taken
        instead, even if it is the only one.
      - The copies of another host can be proved too. That is not recorded.
    type: str
seealso:
  - module: volt.backup.volt_restore
  - module: volt.backup.volt_cas_verify
"""

EXAMPLES = r"""
- name: Back up an application's data, and copy the backup to a NAS
  volt.backup.volt_backup:
    workload: app
    source: /srv/app
    remote: file:///mnt/nas/backup
    push_to_cdn: true

- name: Prove that it can be restored
  volt.backup.volt_restore_drill:
    workloads:
      - app
  when: not ansible_check_mode # no backup was made

- name: Prove that a file of it came back with something in it
  volt.backup.volt_restore_drill:
    workloads:
      - app
    command: [/usr/bin/test, -s, app.conf]
  when: not ansible_check_mode

- name: Prove that the copy on a remote can be restored
  volt.backup.volt_restore_drill:
    workloads:
      - app
    remote: file:///mnt/nas/backup
  when: not ansible_check_mode

- name: Prove it for every workload of the host, in a directory with more space
  volt.backup.volt_restore_drill:
    scratch_dir: /var/tmp
  when: not ansible_check_mode
"""

RETURN = r"""
drills:
  description: Result of each workload. It is also returned after a failure, if any workload was tested.
  returned: success
  type: list
  elements: dict
  contains:
    workload:
      description: >-
        Name of the workload. Null for a failure of commits on O(remote) that cannot be read and may be of workloads that were not tested.
      type: str
      returned: always
      sample: app
    backup_id:
      description: The backup that was restored, or null if there is none to restore.
      type: str
      returned: always
      sample: app-20261123-100000-scheduled
    reason:
      description: Why it is not proved, as a sentence. Null if it is proved.
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
      description:
        - Whether it was recorded as the last proof of the workload's schedule. A failure is recorded, too, and M(volt.backup.volt_backup_info) shows it.
      type: bool
      returned: always
      sample: true
    unstable_count:
      description: How many files of the backup are unstable. They changed during the backup, so they are not proved.
      type: int
      returned: always
      sample: 0
    dumps:
      description: The dumps of databases in the backup. A dump for which the host has no server is not loaded, with a warning.
      type: list
      elements: dict
      returned: always
      sample: []
      contains:
        kind:
          description: The database system.
          type: str
          returned: always
          sample: postgresql
        database:
          description: The database, or null for all, or for what belongs to the server.
          type: str
          returned: always
          sample: shop
        oplog:
          description: True for a dump of MongoDB that contains the oplog.
          type: bool
          returned: for such a dump
          sample: true
        path:
          description: The dump, below the restored tree.
          type: str
          returned: always
          sample: .volt-dumps/postgresql-shop.sql
        loaded:
          description: Whether it was loaded.
          type: bool
          returned: always
          sample: true
        reason:
          description: Why it was not loaded. Null if it was.
          type: str
          returned: always
          sample: null
    command:
      description: The outcome of the command, V(passed) or V(failed). Null if none ran.
      type: str
      returned: always
      sample: passed
    remote:
      description: The URL of the remote that it was restored from, or null for the store.
      type: str
      returned: always
      sample: file:///mnt/nas/backup
    host:
      description: The name on the remote of the host whose copy was restored, or null for the store.
      type: str
      returned: always
      sample: web1-3f9a2c7d
    passed_over:
      description: >-
        Newer backups that were skipped because they are incomplete, damaged, suspect, have a time in the future (the clock was wrong) or belong to another
        backup directory. They are not proved. A warning lists them.
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
  description: Id of the missing store that this host's backups are in. Null if its id is unknown.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
code:
  description:
    - Kind of failure, for conditions in playbooks. V(drill) for backups that are not proved, V(not_found) if there are no backups,
      V(usage) for invalid options, V(store) for a store that is missing, V(remote), V(no_remote), V(remote_refused) and V(remote_unreachable) for a remote
      that cannot be used, V(damaged) if the remote cannot be identified. A remote that fails while a workload is tested is a V(drill) failure.
  returned: failure
  type: str
  sample: drill
"""

import typing as t

from ansible_collections.volt.backup.plugins.module_utils._module import CREDENTIALS, Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._base import UsageError
from ansible_collections.volt.backup.plugins.module_utils._proof import trial
from ansible_collections.volt.backup.plugins.module_utils._schedule import drill

OPTIONS = dict(
    workloads=dict(type="list", elements="str", default=[]),
    scratch_dir=dict(type="path", default=drill.SCRATCH),
    command=dict(type="list", elements="str"),
    command_timeout=dict(type="int", default=600),
    remote=dict(type="str"),
    host=dict(type="str"),
    identity=dict(type="str", no_log=True),
    remote_credentials=CREDENTIALS,
)


def work(task: Task) -> Result:
    words = task.params["command"]
    command = None if words is None else trial.Command(words, task.params["command_timeout"])
    done = drill.Driller(task.manager, task.params["scratch_dir"], task.dry, command=command, copies=copies(task))(task.params["workloads"])
    failure = drill.failure(done)
    if failure is not None:
        raise failure
    for one in done:
        if one.passed_over:
            task.warn(f"Workload {one.workload}: {drill.passed_over(one)}.")
        if drill.unloaded(one):
            task.warn(f"Workload {one.workload}: {drill.unloaded(one)}.")
    return {"changed": False, "drills": [one._asdict() for one in done]}


def copies(task: Task) -> t.Optional[drill.Copies]:
    params = task.params
    if params["remote"] is None:
        for name in ("host", "identity", "remote_credentials"):
            if params[name] is not None:
                raise UsageError(f"Option {name} only applies with remote; omit it.")
        return None
    from ansible_collections.volt.backup.plugins.module_utils._remote.declared import resolve  # only here: it takes time to import
    from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote
    from ansible_collections.volt.backup.plugins.module_utils._remote.sealed import recovery_of

    remote = Remote(task.manager, resolve(params["remote"], params["remote_credentials"]), recovery_of(params["identity"]))
    return drill.Copies(remote, params["host"])


def main() -> None:
    run(work, OPTIONS, manager=Manager)


if __name__ == "__main__":
    main()
