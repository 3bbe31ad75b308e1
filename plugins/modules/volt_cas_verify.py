#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_cas_verify
short_description: Look whether everything that backups need is there and sound, and mend it
version_added: 0.1.0
description:
  - Looks at every backup's records and trees, and for every blob that they refer to. With O(level=content), it also reads files of the store and
    compares what they hold with the SHA-256 that is their name.
  - The task fails with RV(code=damaged) if something is damaged, and tells which backups and paths that concerns. With O(repair), it fails
    if something stays damaged.
  - What is found is remembered. From then on, the backups concerned are listed as damaged, and a backup of the same content stores it anew.
author:
  - volt.backup contributors (!UNKNOWN)
extends_documentation_fragment:
  - volt.backup._attributes
  - volt.backup._attributes.actiongroup_volt
  - volt.backup._store
  - volt.backup._store.diff_limit
attributes:
  check_mode:
    support: full
    details:
      - Verifies, remembers nothing, and with O(repair) tells which files would be taken out and which records made anew. What could be taken again
        is not known before it is tried.
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - Verifying alone is never changed.
options:
  level:
    description:
      - V(structure) reads records, trees and lists, and looks for each blob of content without reading it.
      - V(content) reads and hashes all content as well, as far as O(budget) goes.
    type: str
    choices:
      - structure
      - content
    default: structure
  budget:
    description:
      - How much content to read. A percentage such as V(5%) is a share of the store. A span of time such as V(30m) is how long to read.
      - Where it ended is remembered, and the next time goes on from there. So V(5%) every night reads everything in 20 nights.
      - Only with O(level=content), and not with O(ids). By default everything is read.
    type: str
  ids:
    description:
      - Look at these backups alone.
    type: list
    elements: str
    default: []
  repair:
    description:
      - Move damaged files to the store's C(quarantine) directory, where they stay. Take blobs that are missing from there and from the trash, as far as
        they are sound, and from the directories that were backed up, if those are on this host and still hold the same content.
      - Make records anew for manifests of this O(backup_dir) that have none, or none that can be read. The index is made anew as well.
      - Nothing is deleted.
    type: bool
    default: false
seealso:
  - module: volt.backup.volt_backup_info
  - module: volt.backup.volt_cas_gc
"""

EXAMPLES = r"""
- name: Verify a twentieth of all content, as every night
  volt.backup.volt_cas_verify:
    level: content
    budget: 5%

- name: Verify everything, and repair what can be repaired
  volt.backup.volt_cas_verify:
    level: content
    repair: true
  register: verified

- name: Say what was done
  ansible.builtin.debug:
    msg: "{{ verified.repaired.blobs }} blobs taken again, {{ verified.repaired.quarantined | length }} files taken out"

- name: Go on with a list of what is damaged
  volt.backup.volt_cas_verify:
  register: verified
  failed_when: verified is failed and verified.code != 'damaged'
"""

RETURN = r"""
damage:
  description: What is damaged, at most O(diff_limit) of it.
  type: list
  elements: dict
  returned: success, and on failure with RV(code=damaged)
  contains:
    id:
      description: The backup, or null for a file of the store.
      type: str
      returned: always
      sample: app-20261123-100000-manual
    path:
      description:
        - The path in the backup, where V(.) is its root. For a directory whose own tree is lost, it stands for everything below. Null for a
          backup's records, and for a file of the store.
      type: str
      returned: always
      sample: etc/app/app.conf
    file:
      description: The file of the store, relative to O(store), or null for a path of a backup.
      type: str
      returned: always
      sample: null
    reason:
      description: What is wrong.
      type: str
      returned: always
      sample: Blob 210fbc157b675d8d240a8d9a1aa71e3e5f3b3d9d51b21695d2fad69e312c7480 is missing or altered.
damage_count:
  description: How much is damaged in all.
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
  description: Ids of the backups that a newer version wrote, or something that they need. Only that version can judge them.
  type: list
  elements: str
  returned: success, and on failure with RV(code=damaged) or RV(code=unsupported)
  sample: []
foreign:
  description:
    - Ids of the backups in the store that belong to another backup directory, or name none and are not listed in O(backup_dir), or are of the
      original Volt command. They were not looked at, and
      O(repair) leaves them alone.
  type: list
  elements: str
  returned: success, and on failure with RV(code=damaged) or RV(code=unsupported)
  sample: []
unlisted:
  description: Manifests of this O(backup_dir) in the store that no record names. O(repair) lists them again as backups.
  type: list
  elements: str
  returned: success, and on failure with RV(code=damaged)
  sample: []
backup_count:
  description: How many backups were looked at.
  type: int
  returned: success, and on failure with RV(code=damaged)
  sample: 30
file_count:
  description: How many files of the store were read and hashed.
  type: int
  returned: success, and on failure with RV(code=damaged)
  sample: 1052
byte_count:
  description: Their size.
  type: int
  returned: success, and on failure with RV(code=damaged)
  sample: 231000000
covered:
  description: With O(budget), how far through the store the reading has come, in percent.
  type: float
  returned: success, and on failure with RV(code=damaged)
  sample: 45.0
repaired:
  description: What O(repair) did, or would do in check mode. Null without it.
  type: dict
  returned: success, and on failure with RV(code=damaged)
  contains:
    quarantined:
      description: Damaged files that were taken out, relative to O(store). In check mode, where they are.
      type: list
      elements: str
      returned: always
      sample: []
    blobs:
      description: How many blobs were taken again. 0 in check mode.
      type: int
      returned: always
      sample: 12
    sources:
      description: Directories that were read again. Empty in check mode.
      type: list
      elements: str
      returned: always
      sample:
        - /srv/app
    sidecars:
      description: Backups whose records were made anew.
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
  description: The id of the store that is known on the host and is away. Null if only that there is one is known.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
code:
  description:
    - What kind of failure it was, for a playbook to branch on. V(damaged) where something is damaged, V(unsupported) where
      only a newer version can judge some backups, V(usage) for a request that is wrong in itself,
      V(not_found) for an id that does not exist, V(store) for a store that is known and not there, or cannot be read or written,
      V(lock_timeout) where others did not let go of the store, V(lock_lost) where a repair found that the file of a lock was
      removed while a run was at work, V(interrupted) for a run that was told to stop.
  returned: failure
  type: str
  sample: damaged
"""

from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._module import DIFF_LIMIT, Result, Task, run

OPTIONS = dict(
    DIFF_LIMIT,
    level=dict(type="str", choices=["structure", "content"], default="structure"),
    budget=dict(type="str"),
    ids=dict(type="list", elements="str", default=[]),
    repair=dict(type="bool", default=False),
)


def work(task: Task) -> Result:
    found = task.manager.verify(task.pick(VerifyRequest), task.dry)
    for text in found.warnings:
        task.warn(text)
    failure = found.failure()
    if failure is not None:
        failure.details.pop("warnings")  # Ansible has been told
        raise failure
    return {key: value for key, value in found.result().items() if key != "warnings"}


def main() -> None:
    run(work, OPTIONS, manager=Manager)


if __name__ == "__main__":
    main()
