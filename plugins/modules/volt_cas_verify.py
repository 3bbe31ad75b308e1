#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_cas_verify
short_description: Check that the data of all backups is present and undamaged, and repair it
version_added: 0.1.0
description:
  - Reads the records and trees of all backups, and checks that every blob they refer to exists. With O(level=content), it also reads the files of the
    store and compares their content with the SHA-256 in their names.
  - The task fails with RV(code=damaged) if something is damaged, and lists the affected backups and paths. With O(repair), it fails
    if something is still damaged after the repair.
  - With O(remote) and without O(repair), it does the same with the copies of a host on a remote. It reads commits, indexes, trees and lists there, and checks
    that each blob of content is in a pack that exists.
  - Damage of the store is recorded. From then on, the affected backups are listed as damaged, and the next backup of the same content stores it again.
author:
  - volt.backup contributors (!UNKNOWN)
extends_documentation_fragment:
  - volt.backup._attributes
  - volt.backup._attributes.actiongroup_volt
  - volt.backup._store
  - volt.backup._store.diff_limit
  - volt.backup._remote
  - volt.backup._remote.identity
attributes:
  check_mode:
    support: full
    details:
      - Verifies and records nothing. With O(repair), it lists the files that would be moved to quarantine and the records that would be created again.
        It cannot predict which blobs can be recovered. With O(vet), it reads the packs and notes nothing.
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - Without O(repair) and O(vet), the task is never changed.
options:
  level:
    description:
      - V(structure) reads records, trees and lists, and checks that each blob of content exists, without reading it.
      - V(content) also reads and hashes all content, or as much as O(budget) allows.
    type: str
    choices:
      - structure
      - content
    default: structure
  budget:
    description:
      - How much content to read. A percentage such as V(5%) is a share of the store. A span of time such as V(30m) is how long to read.
      - The next call continues where this one ended. So V(5%) every night reads everything in 20 nights.
      - Only with O(level=content), and not with O(ids). By default everything is read.
    type: str
  ids:
    description:
      - Check only these backups.
    type: list
    elements: str
    default: []
  repair:
    description:
      - Move damaged files to the store's C(quarantine) directory, where they stay. Recover missing blobs from undamaged copies in the quarantine and the
        trash, and from the directories that were backed up, if those are on this host and still have the same content.
      - Create records again for manifests of this O(backup_dir) that have none, or an unreadable one. Rebuild the index.
      - Nothing is deleted.
    type: bool
    default: false
  vet:
    description:
      - Read all packs that hosts have sent to O(remote) since the last vetting, and note on the remote which are undamaged. Hosts with
        O(volt.backup.volt_remote#module:vetted=true) use packs of other hosts only if they are noted.
      - All packs are read once, whatever O(level) is. The store and the structure of the remote are not checked.
      - The credentials must allow to list the remote, to read all packs, and to write below C(vetted/). No host needs that right, so run this on the
        controller. A sealed remote needs O(identity).
    type: bool
    default: false
  remote:
    description:
      - A remote, a declared name or a URL. Without O(repair), the copies on it are checked, and the store is not read. O(level) must be V(structure) then.
        M(volt.backup.volt_restore_drill) checks the content of a copy.
      - With O(repair), it has copies of this host's backups. What the store has lost and its remains do not have is
        fetched from there, before the directories that were backed up are read.
    type: str
  host:
    description:
      - With O(remote) and without O(repair), the name of the host there whose copies are checked. By default this host, by the name under which it pushes. No
        other host is taken instead, even if it is the only one.
    type: str
seealso:
  - module: volt.backup.volt_backup_info
  - module: volt.backup.volt_cas_gc
"""

EXAMPLES = r"""
- name: Verify a twentieth of all content, for example every night
  volt.backup.volt_cas_verify:
    level: content
    budget: 5%

- name: Verify everything, and repair what can be repaired
  volt.backup.volt_cas_verify:
    level: content
    repair: true
  register: verified

- name: Check that a remote has all that the copies of this host need
  volt.backup.volt_cas_verify:
    remote: file:///mnt/nas/backup

- name: Repair with the copies on a NAS as well
  volt.backup.volt_cas_verify:
    repair: true
    remote: file:///mnt/nas/backup

- name: Vet what hosts that share have sent since the last time
  volt.backup.volt_cas_verify:
    remote: file:///mnt/nas/backup
    vet: true

- name: Show what was repaired
  ansible.builtin.debug:
    msg: "{{ verified.repaired.blobs }} blobs recovered, {{ verified.repaired.quarantined | length }} files moved to quarantine"

- name: Verify, and continue with a list of what is damaged
  volt.backup.volt_cas_verify:
  register: verified
  failed_when: verified is failed and verified.code != 'damaged'
"""

RETURN = r"""
damage:
  description: What is damaged, at most O(diff_limit) items.
  type: list
  elements: dict
  returned: success, and on failure with RV(code=damaged)
  contains:
    id:
      description:
        - The backup, or null for a file of the store. On a remote C(<host>/<id>), or C(<host>/<push>) for a commit that cannot be read.
      type: str
      returned: always
      sample: app-20261123-100000-manual
    path:
      description:
        - The path in the backup. V(.) is its root. A directory whose own tree is lost includes everything below it. Null for a
          backup's records, and for a file of the store.
      type: str
      returned: always
      sample: etc/app/app.conf
    file:
      description: The file of the store, relative to O(store), or the object of the remote. Null for a path of a backup.
      type: str
      returned: always
      sample: null
    reason:
      description: What is wrong.
      type: str
      returned: always
      sample: Blob 210fbc157b675d8d240a8d9a1aa71e3e5f3b3d9d51b21695d2fad69e312c7480 is missing or altered.
damage_count:
  description: Total number of damaged items.
  type: int
  returned: success, and on failure with RV(code=damaged)
  sample: 1
damaged:
  description: Ids of the backups that are damaged.
  type: list
  elements: str
  returned: success, and on failure with RV(code=damaged)
  sample:
    - app-20261123-100000-manual
unsupported:
  description: Ids of backups that a newer version wrote, or that need data which it wrote. Only that version can check them.
  type: list
  elements: str
  returned: success, and on failure with RV(code=damaged) or RV(code=unsupported)
  sample: []
foreign:
  description:
    - Ids of the backups in the store that belong to another backup directory, that have no directory id and are not listed in O(backup_dir), or that the
      original Volt command made. They are not checked, and O(repair) does not change them.
  type: list
  elements: str
  returned: success, and on failure with RV(code=damaged) or RV(code=unsupported)
  sample: []
unlisted:
  description: Manifests of this O(backup_dir) in the store that have no record. O(repair) lists them again as backups.
  type: list
  elements: str
  returned: success, and on failure with RV(code=damaged)
  sample: []
backup_count:
  description: How many backups were checked.
  type: int
  returned: success, and on failure with RV(code=damaged)
  sample: 30
file_count:
  description: How many files of the store were read and hashed. With O(vet), packs of the remote.
  type: int
  returned: success, and on failure with RV(code=damaged)
  sample: 1052
byte_count:
  description: Their size.
  type: int
  returned: success, and on failure with RV(code=damaged)
  sample: 231000000
covered:
  description: With O(budget), how much of the store has been read, in percent.
  type: float
  returned: success, and on failure with RV(code=damaged)
  sample: 45.0
remote:
  description: The URL of the remote whose copies were checked. Null for the store.
  type: str
  returned: success, and on failure with RV(code=damaged)
  sample: null
host:
  description: The name on the remote of the host whose copies were checked. Null for the store.
  returned: success, and on failure with RV(code=damaged)
  type: str
  sample: null
unreferenced:
  description:
    - With O(remote), packs and indexes of the host there that no backup needs, at most O(diff_limit) names. Pushes that were cut off or ended by others leave
      such objects, they do no harm. Empty if something is damaged, if commits may have been lost, and with O(ids).
  type: list
  elements: str
  returned: success, and on failure with RV(code=damaged)
  sample: []
unreferenced_count:
  description: How many these are in all.
  type: int
  returned: success, and on failure with RV(code=damaged)
  sample: 0
vetted:
  description: What O(vet) did, or would do in check mode. Null without it.
  type: dict
  returned: success, and on failure with RV(code=damaged)
  contains:
    packs:
      description: How many packs were read and noted. Those in RV(damage) are not.
      type: int
      returned: always
      sample: 12
    before:
      description: How many packs of the remote were noted before.
      type: int
      returned: always
      sample: 2310
repaired:
  description: What O(repair) did, or would do in check mode. Null without it.
  type: dict
  returned: success, and on failure with RV(code=damaged)
  contains:
    quarantined:
      description: Damaged files that were moved to quarantine, relative to O(store). In check mode, their current paths.
      type: list
      elements: str
      returned: always
      sample: []
    blobs:
      description: How many blobs were recovered. 0 in check mode.
      type: int
      returned: always
      sample: 12
    fetched:
      description: How many of these blobs came from O(remote). 0 in check mode.
      type: int
      returned: always
      sample: 0
    sources:
      description: Source directories that were read again to recover blobs. Empty in check mode.
      type: list
      elements: str
      returned: always
      sample:
        - /srv/app
    sidecars:
      description: Backups whose records were created again.
      type: list
      elements: str
      returned: always
      sample: []
diff:
  description: What was done.
  returned: success, and on failure with RV(code=damaged)
  type: dict
  contains:
    prepared:
      description: The same as text, which C(--diff) prints.
      type: str
      returned: always
      sample: "blobs 12\n"
store_id:
  description: Id of the missing store that this host's backups are in. Null if its id is unknown.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
code:
  description:
    - Kind of failure, for conditions in playbooks. V(damaged) if something is damaged, V(unsupported) if only a newer version can check some backups,
      V(usage) for invalid options, V(not_found) for an id that does not exist, or a host without copies on the remote, V(remote), V(no_remote),
      V(remote_refused) and V(remote_unreachable) for a remote that cannot be used, V(store) for a store that is missing, or cannot be read or written,
      V(lock_timeout) for a lock that was held by others for too long, V(lock_lost) if a repair found that the file of a lock was removed while a run used
      it, V(interrupted) for a run that was interrupted.
  returned: failure
  type: str
  sample: damaged
"""

import contextlib
import typing as t

from ansible_collections.volt.backup.plugins.module_utils._module import CREDENTIALS, DIFF_LIMIT, Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import UsageError

if t.TYPE_CHECKING:
    from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote

OPTIONS = dict(
    DIFF_LIMIT,
    level=dict(type="str", choices=["structure", "content"], default="structure"),
    budget=dict(type="str"),
    ids=dict(type="list", elements="str", default=[]),
    repair=dict(type="bool", default=False),
    vet=dict(type="bool", default=False),
    remote=dict(type="str"),
    host=dict(type="str"),
    remote_credentials=CREDENTIALS,
    identity=dict(type="str", no_log=True),
)


def work(task: Task) -> Result:
    request = task.pick(VerifyRequest)
    if task.params["host"] is not None and (task.params["remote"] is None or request.repair):
        raise UsageError("Option host only applies with remote and without repair; omit it.")
    if task.params["remote"] is not None and not request.repair:
        found = _remote(task).verify(request, task.params["host"], task.dry)
    else:
        with _remote(task).giving() if request.repair and task.params["remote"] is not None else contextlib.nullcontext() as elsewhere:
            found = task.manager.verify(request, task.dry, elsewhere=elsewhere)
    for text in found.warnings:
        task.warn(text)
    failure = found.failure()
    if failure is not None:
        failure.details.pop("warnings")  # Ansible has been told
        raise failure
    return {key: value for key, value in found.result().items() if key != "warnings"}


def _remote(task: Task) -> Remote:
    params = task.params
    from ansible_collections.volt.backup.plugins.module_utils._remote.declared import resolve  # only here: it takes time to import
    from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote
    from ansible_collections.volt.backup.plugins.module_utils._remote.sealed import recovery_of

    return Remote(task.manager, resolve(params["remote"], params["remote_credentials"]), recovery_of(params["identity"]))


def main() -> None:
    run(work, OPTIONS, manager=Manager)


if __name__ == "__main__":
    main()
