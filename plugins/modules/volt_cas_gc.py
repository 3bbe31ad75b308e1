#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_cas_gc
short_description: Remove from a store what no backup refers to
version_added: 0.1.0
description:
  - Deleting a backup removes its record. This module removes what only deleted backups referred to, and what runs that were killed
    left in the store.
  - What is not referred to goes to the store's trash, and is deleted when it has lain there for O(grace). So a module call frees what earlier ones have
    moved to the trash, unless O(grace) is zero.
  - Backups and restores may run meanwhile. The store is held alone for less than five seconds at a time, and restores wait for nothing else.
  - Nothing is removed if the record of any backup, or a tree that it refers to, cannot be read, since what it needs is then unknown. See
    M(volt.backup.volt_cas_verify) with O(volt.backup.volt_cas_verify#module:repair), or delete that backup.
  - A manifest without a record in O(backup_dir) keeps its content as any other does.
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
      - Counts what a run would remove, also what rewriting packs would take and free.
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - A call is changed when it moves something to the trash, and when it deletes something from there.
options:
  grace:
    description:
      - How long what is removed lies in the trash, for example V(24h) or V(7d). V(0s) frees the space at once.
    type: str
    default: 24h
  repack:
    description:
      - Rewrite packs of which less than half is referred to, and merge those under 256 KiB. This takes time and, until the old ones are deleted, space.
    type: bool
    default: true
seealso:
  - module: volt.backup.volt_backup_prune
  - module: volt.backup.volt_cas_verify
"""

EXAMPLES = r"""
- name: Collect garbage, as once a week
  volt.backup.volt_cas_gc:

- name: Free all the space that can be had, now
  volt.backup.volt_cas_gc:
    grace: 0s
  register: collected

- name: Say how much that was
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
  description: Packs whose content in use was written anew, before they were moved to the trash.
  type: int
  returned: success
  sample: 3
written_bytes:
  description: Size of the packs that were written in their place.
  type: int
  returned: success
  sample: 1048611
live_blobs:
  description: Blobs that backups refer to, trees and lists among them.
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
      sample: "trash 120 file(s), 31200112 bytes\ndelete 214 file(s), 48103731 bytes\n"
store_id:
  description: The id of the store that is known on the host and is away. Null if only that there is one is known.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
code:
  description:
    - What kind of failure it was, for a playbook to branch on. V(damaged) where something could not be read and so nothing was removed,
      V(unsupported) where only a newer version can read something,
      V(usage) for a request that is wrong in itself, V(store) for a store that is known and not there, or cannot be read or written,
      V(lock_timeout) where others did not let go of the store, V(lock_lost) where the file of a lock was removed while a run was
      at work, V(interrupted) for a run that was told to stop.
  returned: failure
  type: str
  sample: damaged
runs:
  description: The runs that are at work without the store's lock, as names of directories in C(tmp) of the store.
  returned: failure with RV(code=lock_lost)
  type: list
  elements: str
  sample:
    - 01795604400123456789-4711
backup_id:
  description: The backup that could not be read.
  returned: failure with RV(code=damaged) or RV(code=unsupported)
  type: str
  sample: app-20261123-100000-manual
"""

from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._module import Result, Task, run

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
