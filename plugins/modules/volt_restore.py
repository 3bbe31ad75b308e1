#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_restore
short_description: Restore a backup
version_added: 0.1.0
description:
  - Restores a backup that M(volt.backup.volt_backup) made, all of it or some paths, to where it came from or elsewhere.
  - Backup and target are compared first. Where type, mode, owner, size, modification time, links, extended attributes and content of everything
    agree, the task is unchanged, whatever O(force) says. Content is hashed, but for files that a restore or a comparison has hashed before and whose
    inode, size, modification time and change time are the same since. With O(verify=false) size and modification time suffice.
  - A restore never destroys what the backup does not hold, unless it is told to by O(strategy=replace) or O(delete). What the backup excluded or
    skipped stays in the target in any case, and so does what is mounted there.
  - Missing or altered content in the store fails the task before the target is touched, or with O(strategy=in_place) before the file in
    question is. O(paths) that are whole can be restored all the same, and O(salvage) restores all that is whole.
  - What the target cannot hold (an extended attribute, an owner, the fraction of a second of a time) is counted and named, and the rest is restored. See
    O(attributes). Inode flags and project ids are no part of a backup; a file that is replaced hands them on.
  - Owners, groups and the users and groups in ACLs are restored by name, and by number where this host does not know the name. Numbers are kept with
    O(numeric_owner), for a backup with O(volt.backup.volt_backup#module:workload_mode=container), and for a tree that has C(etc/passwd) of its own.
  - Without root, owners stay those of the user, and directories of the user that are read-only are opened up while they are written to.
  - In results, paths are UTF-8. A byte that is no part of UTF-8 appears as C(\xNN), a backslash as C(\\). Options that take paths accept
    this form.
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
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  id:
    description:
      - The backup to restore.
      - In check mode it may be null, and only there, because a backup that the same playbook would have made has no id yet. The task then reports
        a change. An empty text counts as null, since ansible-core 2.18 makes it of a template that gives null.
      - Exactly one of O(id) and O(workload) is required.
    type: str
  workload:
    description:
      - Restore the newest complete and undamaged backup of this workload that O(type), O(tags) and O(before) match.
    type: str
  type:
    description:
      - With O(workload), only backups of this type.
    type: str
    choices:
      - manual
      - scheduled
      - snapshot
      - pre-deploy
  tags:
    description:
      - With O(workload), only backups that have all of these tags.
    type: list
    elements: str
    default: []
  before:
    description:
      - With O(workload), only backups begun before this time, for example V(2026-11-23) or V(2026-11-23T10:00:00+01:00).
        Without a zone it is UTC.
    type: str
  target:
    description:
      - Where to restore to, as an absolute path. The default is the directory that was backed up. Where a symbolic link has come into its
        path since, the task fails, for that may lead to what no backup is of.
      - Its parent must exist. It must not be in the store or in O(backup_dir), nor hold them. A symbolic link of another user in its path is not
        followed.
    type: path
    aliases:
      - target_dir
      - dest
  force:
    description:
      - Overwrite a target that exists and differs. Without it the task fails with RV(code=target_differs), in check mode too.
    type: bool
    default: false
  strategy:
    description:
      - V(replace) builds the new tree beside the target and exchanges the two in one step, so that the target is never half restored. What the
        backup lacks and has not excluded or skipped is gone then. It is refused while anything is mounted below the target.
        It works in place, and warns, where trees cannot be exchanged (the target is a mount point or a Btrfs subvolume, a file system such as
        overlayfs, no space for two trees, a directory above that is not ours to write).
      - V(in_place) writes each file that differs beside the old one and renames it. What the backup lacks stays, unless O(delete).
      - V(auto) is V(replace) where nothing can be lost by it, else V(in_place).
    type: str
    choices:
      - auto
      - replace
      - in_place
    default: auto
  delete:
    description:
      - Remove what the backup lacks. What it excluded or skipped, and what is mounted, is left alone.
      - With O(strategy=auto) the tree may then be replaced. With O(strategy=replace) this option is refused, for it would say nothing.
    type: bool
    default: false
  paths:
    description:
      - Restore only these paths, relative to the top of the backup or with the source in front, with what is below them. Implies O(strategy=in_place).
    type: list
    elements: str
    default: []
  link:
    description:
      - How content gets from the store to the target.
      - V(auto) shares data blocks with the store where the file system can (reflinks), else copies. V(reflink) fails where it cannot.
      - V(hardlink) links files to the store where it can, and copies the rest. Such a file must never be written to in place, for that
        would alter the store.
      - V(copy) always copies.
    type: str
    choices:
      - auto
      - reflink
      - hardlink
      - copy
    default: auto
  verify:
    description:
      - Hash the content of files that seem equal, and of those that share blocks or inodes with the store. What is copied is hashed in any case.
      - V(false) is faster where much is shared or equal. RV(restore.verified) says so.
    type: bool
    default: true
  salvage:
    description:
      - Restore what is whole of a damaged backup, in place, and leave everything else as it is. RV(restore.lost) names what is lost.
      - It is refused with O(strategy=replace), which would take away what the backup lost.
    type: bool
    default: false
  attributes:
    description:
      - What happens where the target cannot hold all attributes. V(best_effort) restores the rest and warns. V(strict) fails with RV(code=attributes)
        before anything is written.
    type: str
    choices:
      - best_effort
      - strict
    default: best_effort
  allow_in_use:
    description:
      - Restore although a process has its root directory in the target, as a container has, another mount namespace has something mounted below it, or
        an overlay uses it. By default that fails with RV(code=in_use), for what runs there would lose its files and mounts.
      - A process that only works in the target, or has files of it open, is no reason to fail. A warning names it.
      - With V(true) it is not looked for at all.
    type: bool
    default: false
  numeric_owner:
    description:
      - Restore owners, groups and ACLs by number.
    type: bool
    default: false
  keep_previous:
    description:
      - Keep the old tree beside the target. RV(restore.previous) tells its name.
      - The target is then replaced as a whole also where the backup lacks something of it, for nothing is lost by that. Where it can only be
        restored in place, this is refused.
    type: bool
    default: false
seealso:
  - module: volt.backup.volt_backup
  - module: volt.backup.volt_backup_info
"""

EXAMPLES = r"""
- name: Back up an application's data
  volt.backup.volt_backup:
    workload: app
    source: /srv/app
  register: made

- name: Restore the newest backup to where it came from
  volt.backup.volt_restore:
    workload: app
    force: true

- name: Restore a certain backup elsewhere
  volt.backup.volt_restore:
    id: "{{ made.backup.id }}"
    target: /srv/app-restored

- name: Restore one directory of it, and remove what came in since
  volt.backup.volt_restore:
    id: "{{ made.backup.id }}"
    paths:
      - conf
    delete: true
    force: true

- name: Restore what is whole of a damaged backup beside what is there now
  volt.backup.volt_restore:
    id: "{{ made.backup.id }}"
    target: /srv/app-salvaged
    salvage: true
  register: salvaged

- name: Say what is lost
  ansible.builtin.debug:
    var: salvaged.restore.lost

- name: Restore what there was at noon, and keep what is there now beside it
  volt.backup.volt_restore:
    workload: app
    type: manual
    before: "2026-11-23T12:00:00"
    strategy: replace
    keep_previous: true
    force: true
  register: restored

- name: Say where that is
  ansible.builtin.debug:
    msg: "{{ restored.restore.previous | default('Nothing had to be replaced', true) }}"
"""

RETURN = r"""
restore:
  description: What was done, or in check mode what would be. The numbers of files are 0 in check mode.
  returned: success
  type: dict
  contains:
    backup_id:
      description: The backup that was restored. Null in check mode if O(id) is null.
      type: str
      returned: always
      sample: app-20261123-100000-manual
    target_dir:
      description: Where it was restored to. In check mode with O(id=null) it is O(target).
      type: str
      returned: always
      sample: /srv/app
    strategy:
      description: How it was done, V(replace) or V(in_place). V(none) where nothing had to be done. Null in check mode if O(id) is null.
      type: str
      returned: always
      sample: replace
    files_linked:
      description: Files that share their content with the store.
      type: int
      returned: always
      sample: 0
    files_copied:
      description: Files of which the content was written.
      type: int
      returned: always
      sample: 8711
    files_unchanged:
      description: Files that were equal already.
      type: int
      returned: always
      sample: 0
    files_removed:
      description: Paths that were removed, because the backup lacks them.
      type: int
      returned: always
      sample: 0
    total_size:
      description: Sum of the sizes of all files in the backup in bytes.
      type: int
      returned: always
      sample: 485123456
    duration:
      description: How long it took, in nanoseconds.
      type: int
      returned: always
      sample: 1734000000
    paths_staying:
      description: Paths that the backup lacks and that stay in the target.
      type: int
      returned: always
      sample: 0
    bytes_needed:
      description: Bytes that the restore writes at most. Hard links count once, holes and blocks that are shared with the store not at all.
      type: int
      returned: always
      sample: 485123456
    verified:
      description: Whether content was hashed, that of the target and what is shared with the store included. It is what O(verify) says.
      type: bool
      returned: always
      sample: true
    partly:
      description: Whether O(paths) asked for a part of the backup.
      type: bool
      returned: always
      sample: false
    attributes_skipped:
      description: Paths that could not have all of their attributes. In check mode only known with O(attributes=strict).
      type: int
      returned: always
      sample: 1
    attributes_skipped_names:
      description: What they lack, and how many lack it. C(owner), C(mode), C(mtime), C(flags), C(project), an extended attribute's name, or
        all, as C(symlink), C(fifo), C(socket) or C(device).
      type: dict
      returned: always
      sample:
        btrfs.compression: 1
    attributes_skipped_paths:
      description: The first 1000 of these paths.
      type: list
      elements: str
      returned: always
      sample:
        - var/log/journal
    lost:
      description: With O(salvage), paths that could not be restored. Of a directory, what is in it.
      type: list
      elements: str
      returned: always
      sample: []
    in_use:
      description: What a restore would take the ground from, as sentences. See O(allow_in_use). It is told of an equal target as well.
      type: list
      elements: str
      returned: always
      sample: []
    previous:
      description: >-
        Where the old tree is, with O(keep_previous), and where it holds something that the backup leaves alone and that had no place in the new tree
        (a warning says so); else null.
      type: str
      returned: always
      sample: /srv/app.previous-20261123-100000
diff:
  description: What leads from the target as it was to the backup.
  returned: success but in check mode with O(id=null), and on failure with RV(code=target_differs)
  type: dict
  contains:
    added:
      description: Paths that were not there, relative to the target.
      type: list
      elements: str
      returned: always
      sample: []
    changed:
      description: Paths of which content or attributes differed. V(.) is the target itself.
      type: list
      elements: str
      returned: always
      sample:
        - etc/app/app.conf
    removed:
      description: Paths that were removed.
      type: list
      elements: str
      returned: always
      sample: []
    counts:
      description: Exact numbers.
      type: dict
      returned: always
      contains:
        added:
          description: Number of paths that were not there.
          type: int
          returned: always
          sample: 0
        changed:
          description: Number of paths that differed.
          type: int
          returned: always
          sample: 1
        removed:
          description: Number of paths that were removed.
          type: int
          returned: always
          sample: 0
    more:
      description: How many paths are not listed because of O(diff_limit).
      type: int
      returned: always
      sample: 0
    prepared:
      description: The same as text, which C(--diff) prints.
      type: str
      returned: always
      sample: "~etc/app/app.conf\n"
passed_over:
  description:
    - Backups that are newer than the one that was restored, but are damaged, incomplete, of the future (the clock was wrong) or of another backup
      directory. Empty if O(id) is given.
    - It is not named C(skipped), because Ansible takes a task that returns something under that name for one that did not run.
  returned: success but in check mode with O(id=null), and on failure with RV(code=not_found)
  type: list
  elements: dict
  sample: []
  contains:
    id:
      description: The backup's id.
      type: str
      returned: always
      sample: app-20261122-100000-manual
    reason:
      description: What is wrong with it, as a sentence.
      type: str
      returned: always
      sample: It is incomplete.
store_id:
  description: The id of the store that is known on the host and is away. Null if only that there is one is known.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
code:
  description:
    - What kind of failure it was, for a playbook to branch on. V(usage) for a request that is wrong in itself, V(not_found) where there is no
      such backup, V(damaged) where something in the store is missing or altered, V(unsupported) where a newer
      version wrote something that it needs, V(target_differs) for a target that needs O(force),
      V(target) and V(target_full) for a target that is unsuitable or full, V(in_use) for one that something runs on, V(attributes) for one that cannot
      hold all with O(attributes=strict), V(store) for a store that is known and not there, or cannot be read,
      V(lock_timeout) where others used the store alone for too long, V(interrupted) for a run that was told to stop.
  returned: failure
  type: str
  sample: target_differs
mounts:
  description: What is mounted below the target, relative to it.
  returned: failure, if O(strategy=replace) was refused for it
  type: list
  elements: str
  sample:
    - data
in_use:
  description: What stands on the target, as sentences.
  returned: on failure with RV(code=in_use)
  type: list
  elements: str
  sample:
    - systemd (process 4711) has its root directory in it
attributes_skipped:
  description: How many paths could not have all of their attributes.
  returned: on failure with RV(code=attributes)
  type: int
  sample: 1
attributes:
  description: What they could not have, and how many of them.
  returned: on failure with RV(code=attributes)
  type: dict
  sample:
    btrfs.compression: 1
paths:
  description:
    - The paths that a failure is about. Those of O(paths) that the backup does not have, paths of which the content is lost, directories of the target
      that are in the way of something else in the backup, immutable files, or paths that could not have all of their attributes.
  returned: failure, if it is about such paths
  type: list
  elements: str
  sample:
    - etc/app
"""

import typing as t

from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Query
from ansible_collections.volt.backup.plugins.module_utils._base import UsageError
from ansible_collections.volt.backup.plugins.module_utils._module import DIFF_LIMIT, Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest

OPTIONS = dict(
    DIFF_LIMIT,
    id=dict(type="str"),
    workload=dict(type="str"),
    type=dict(type="str", choices=["manual", "scheduled", "snapshot", "pre-deploy"]),
    tags=dict(type="list", elements="str", default=[]),
    before=dict(type="str"),
    target=dict(type="path", aliases=["target_dir", "dest"]),
    force=dict(type="bool", default=False),
    strategy=dict(type="str", choices=["auto", "replace", "in_place"], default="auto"),
    delete=dict(type="bool", default=False),
    paths=dict(type="list", elements="str", default=[]),
    link=dict(type="str", choices=["auto", "reflink", "hardlink", "copy"], default="auto"),
    verify=dict(type="bool", default=True),
    salvage=dict(type="bool", default=False),
    attributes=dict(type="str", choices=["best_effort", "strict"], default="best_effort"),
    allow_in_use=dict(type="bool", default=False),
    numeric_owner=dict(type="bool", default=False),
    keep_previous=dict(type="bool", default=False),
)
NUMBERS = (
    "files_linked", "files_copied", "files_unchanged", "files_removed", "paths_staying", "bytes_needed", "attributes_skipped", "total_size", "duration",
)  # fmt: skip
#: An explicit null counts as given.
ONE_OF = [("id", "workload")]


def work(task: Task) -> Result:
    params = task.params
    if params["workload"] is None:
        for name in ("type", "tags", "before"):
            if params[name]:
                raise UsageError(f"Option {name} only applies with workload; omit it when id is set.")
        if not params["id"]:
            return unknown_yet(task)
    newest = None if params["workload"] is None else Query(params["workload"], params["type"], params["tags"])
    done, passed = task.manager.restore(params["id"], task.pick(RestoreRequest), newest, params["before"], task.dry)
    for text in done.warnings:
        task.warn(text)
    return {"changed": done.changed, "restore": done.restore, "diff": done.diff, "passed_over": passed}


def unknown_yet(task: Task) -> Result:
    """A playbook in check mode restores the backup that it would have made before."""
    if not task.dry:
        raise UsageError("The id is null, which only check mode accepts; check that the backup was made.")
    restore = dict.fromkeys(("backup_id", "strategy", "previous"))
    numbers = dict.fromkeys(NUMBERS, 0)
    lists: t.Dict[str, t.Any] = {name: [] for name in ("attributes_skipped_paths", "lost", "in_use")}
    params = {"target_dir": task.params["target"], "verified": task.params["verify"], "partly": bool(task.params["paths"])}
    return {"changed": True, "restore": {**restore, **numbers, **lists, **params, "attributes_skipped_names": {}}}


def main() -> None:
    run(work, OPTIONS, mutually_exclusive=ONE_OF, required_one_of=ONE_OF)


if __name__ == "__main__":
    main()
