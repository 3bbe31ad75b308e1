#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_cas_gc
short_description: Remove data that no backup needs from a store
version_added: 0.1.0
description:
  - Deleting a backup only removes its record. This module removes data that only deleted backups used, and files that killed runs left in the store.
  - Unused data is moved to the store's trash, and deleted by a later call after O(grace). So a call frees the space of data that earlier calls moved to
    the trash, unless O(grace) is zero.
  - Backups and restores can run at the same time. The store is locked exclusively for less than five seconds at a time, and restores wait for nothing else.
  - Nothing is removed if the record of any backup, or a tree that it refers to, cannot be read, because it is then unknown what the backup needs. Run
    M(volt.backup.volt_cas_verify) with O(volt.backup.volt_cas_verify#module:repair), or delete that backup.
  - The data of a manifest without a record in O(backup_dir) is kept too.
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
      - Counts what a run would remove, including the space that rewriting packs would need and free.
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - A call is changed if it moves files to the trash, or deletes files from there.
options:
  grace:
    description:
      - How long files stay in the trash, for example V(24h) or V(7d). V(0s) frees the space at once.
    type: str
    default: 24h
  repack:
    description:
      - Rewrite packs of which less than half is used, and merge those smaller than 256 KiB. This needs time, and space until the old packs are deleted.
    type: bool
    default: true
seealso:
  - module: volt.backup.volt_backup_prune
  - module: volt.backup.volt_cas_verify
"""

EXAMPLES = r"""
- name: Collect garbage, for example once a week
  volt.backup.volt_cas_gc:

- name: Free as much space as possible now
  volt.backup.volt_cas_gc:
    grace: 0s
  register: collected

- name: Show how much that was
  ansible.builtin.debug:
    msg: "{{ (collected.freed_bytes - collected.written_bytes) | human_readable }} freed"
"""

RETURN = r"""
freed_files:
  description: Files that were deleted.
  type: int
  returned: success
  sample: 214
freed_bytes:
  description: Their size.
  type: int
  returned: success
  sample: 48103731
trashed_files:
  description: Files that were moved to the trash. With O(grace=0s) they are among RV(freed_files).
  type: int
  returned: success
  sample: 120
trashed_bytes:
  description: Their size.
  type: int
  returned: success
  sample: 31200112
repacked_packs:
  description: Packs whose used content was written to new packs, before they were moved to the trash.
  type: int
  returned: success
  sample: 3
written_bytes:
  description: Size of these new packs.
  type: int
  returned: success
  sample: 1048611
live_blobs:
  description: Blobs that backups refer to, including trees and lists.
  type: int
  returned: success
  sample: 10422
diff:
  description: What happened.
  returned: success
  type: dict
  contains:
    prepared:
      description: The same as text, which C(--diff) prints.
      type: str
      returned: always
      sample: "move 120 file(s) to the trash, 31200112 bytes\ndelete 214 file(s), 48103731 bytes\n"
store_id:
  description: Id of the missing store that this host's backups are in. Null if its id is unknown.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
code:
  description:
    - Kind of failure, for conditions in playbooks. V(damaged) if something could not be read and so nothing was removed,
      V(unsupported) if only a newer version can read something, V(usage) for invalid options, V(store) for a store that is missing, or cannot be read
      or written, V(lock_timeout) for a lock that was held by others for too long, V(lock_lost) if the file of a lock was removed while a run used it,
      V(interrupted) for a run that was interrupted.
  returned: failure
  type: str
  sample: damaged
backup_id:
  description: The backup that could not be read.
  returned: failure with RV(code=damaged) or RV(code=unsupported)
  type: str
  sample: app-20261123-100000-manual
"""

from ansible_collections.volt.backup.plugins.module_utils._module import Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager

OPTIONS = dict(
    grace=dict(type="str", default="24h"),
    repack=dict(type="bool", default=True),
)


def work(task: Task) -> Result:
    result = task.manager.collect(task.params["grace"], task.params["repack"], task.dry)
    for text in result.pop("warnings"):
        task.warn(text)
    return result


def main() -> None:
    run(work, OPTIONS, manager=Manager)


if __name__ == "__main__":
    main()
