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
  - Restores a backup made by M(volt.backup.volt_backup), completely or only some paths, to its original path or to another one.
  - The target is compared with the backup first. If type, mode, owner, size, modification time, links, extended attributes and content of all paths are
    equal, the task is unchanged, even with O(force=true). Content is compared by hash. Files hashed by an earlier restore or comparison are not hashed
    again while their inode, size, modification time and change time are the same. With O(verify=false), files with the same size and modification time
    count as equal.
  - Files that are not in the backup are only removed with O(strategy=replace) or O(delete=true). Paths that the backup excluded or skipped, and file
    systems mounted in the target, are always kept.
  - If content in the store is missing or damaged, the task fails before the target is changed, or with O(strategy=in_place) before that file is changed.
    Intact files can still be restored with O(paths) or O(salvage).
  - Attributes that the target cannot store, such as an extended attribute or an owner, are counted and listed, and the rest is restored. See
    O(attributes). Inode flags and project ids are not part of a backup; a replaced file keeps those of the old file.
  - Owners, groups and the users and groups in ACLs are restored by name, or by number if the name does not exist on this host. They are restored by number
    with O(numeric_owner), for a backup with O(volt.backup.volt_backup#module:workload_mode=container), and for a tree with its own C(etc/passwd).
  - Without root, restored files belong to the current user, and read-only directories of that user are made writable during the restore.
  - In results, paths are UTF-8. A byte that is not valid UTF-8 appears as C(\xNN), a backslash as C(\\). Options that take paths accept
    this form.
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
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  id:
    description:
      - The backup to restore.
      - It may be null in check mode only, because a backup that the same playbook would make has no id yet. The task then reports a change. An empty
        string counts as null, because ansible-core 2.18 turns a null template result into one.
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
      - With O(workload), only backups started before this time, for example V(2026-11-23) or V(2026-11-23T10:00:00+01:00).
        Without a time zone, it is UTC.
    type: str
  remote:
    description:
      - Restore from this remote, a declared name or a URL such as C(file:///mnt/nas/backup). No store is needed on this host. If there is one, content that
        it has is taken from there.
      - Fetched packs are kept beside the target until the restore ends well, if there is space. A restore that was cut off then continues where it was.
      - Files cannot be linked with a remote, so O(link) must be V(auto) or V(copy).
    type: str
  host:
    description:
      - With O(remote), the name of the host there whose backup is to be restored. The default is the name in the declaration of the remote, else that of
        this host. If only one host has backups there, it is that one.
    type: str
  target:
    description:
      - The absolute path to restore to. The default is the directory that was backed up. If its path contains a symbolic link that was not there at the
        time of the backup, the task fails.
      - The parent directory must exist. The target must not be inside the store or O(backup_dir), nor contain them. Symbolic links of other users in its
        path are not followed.
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
      - V(replace) builds the new tree beside the target and swaps both in one step, so that the target is never partially restored. Files that are not in
        the backup are removed, except excluded and skipped paths. It fails while anything is mounted below the target. It restores in place, with a
        warning, if the trees cannot be swapped, because the target is a mount point or a Btrfs subvolume, its file system does not support it (such as
        overlayfs), there is not enough space for a second copy, or the parent directory is not writable.
      - V(in_place) writes each changed file beside the old one and renames it. Files that are not in the backup are kept, unless O(delete=true).
      - V(auto) uses V(replace) if no file would be lost, else V(in_place).
    type: str
    choices:
      - auto
      - replace
      - in_place
    default: auto
  delete:
    description:
      - Remove files that are not in the backup. Excluded and skipped paths, and mounted file systems, are kept.
      - With O(strategy=auto), the tree may then be replaced. This option cannot be used with O(strategy=replace), which removes these files anyway.
    type: bool
    default: false
  paths:
    description:
      - Restore only these paths and all paths below them. A path is relative to the top of the backup, or starts with the source. Implies O(strategy=in_place).
    type: list
    elements: str
    default: []
  link:
    description:
      - How file content is transferred from the store to the target.
      - V(auto) shares data blocks with the store (reflinks) if the file system supports it, else copies. V(reflink) fails if it is not supported.
      - V(hardlink) creates hard links to files in the store where possible, and copies the rest. Such a file must never be changed in place, because that
        damages the store.
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
      - Hash the content of existing files that look equal, and of files that share blocks or inodes with the store. Copied content is always hashed.
      - V(false) is faster if many files are shared or equal. RV(restore.verified) is then false.
    type: bool
    default: true
  salvage:
    description:
      - Restore the intact files of a damaged backup in place, and leave all others unchanged. RV(restore.lost) lists the lost paths.
      - It cannot be used with O(strategy=replace), which would remove the lost files from the target.
    type: bool
    default: false
  attributes:
    description:
      - What to do if the target cannot store all attributes. V(best_effort) restores the rest and warns. V(strict) fails with RV(code=attributes)
        before anything is written.
    type: str
    choices:
      - best_effort
      - strict
    default: best_effort
  allow_in_use:
    description:
      - Restore even if the target is in use, that is if a process such as a container has its root directory in it, another mount namespace has a mount
        below it, or an overlay uses it. By default the task then fails with RV(code=in_use), because these processes would lose their files and mounts.
      - A process that only has its working directory or open files in the target causes a warning, not a failure.
      - With V(true), this is not checked at all.
    type: bool
    default: false
  numeric_owner:
    description:
      - Restore owners, groups and ACLs by number.
    type: bool
    default: false
  keep_previous:
    description:
      - Keep the old tree beside the target. RV(restore.previous) is its path.
      - The target is then replaced as a whole even if it has files that are not in the backup, because the old tree is kept. The task fails if it can only
        be restored in place.
    type: bool
    default: false
seealso:
  - module: volt.backup.volt_backup
  - module: volt.backup.volt_backup_info
  - module: volt.backup.volt_remote
"""

EXAMPLES = r"""
- name: Back up an application's data
  volt.backup.volt_backup:
    workload: app
    source: /srv/app
  register: made

- name: Restore the newest backup to its original path
  volt.backup.volt_restore:
    workload: app
    force: true

- name: Restore a certain backup to another directory
  volt.backup.volt_restore:
    id: "{{ made.backup.id }}"
    target: /srv/app-restored

- name: Restore one directory of that backup, and remove files that were added since
  volt.backup.volt_restore:
    id: "{{ made.backup.id }}"
    paths:
      - conf
    delete: true
    force: true

- name: Restore the intact files of a damaged backup beside the current files
  volt.backup.volt_restore:
    id: "{{ made.backup.id }}"
    target: /srv/app-salvaged
    salvage: true
  register: salvaged

- name: Show what is lost
  ansible.builtin.debug:
    var: salvaged.restore.lost

- name: Restore the state at noon, and keep the current files beside it
  volt.backup.volt_restore:
    workload: app
    type: manual
    before: "2026-11-23T12:00:00"
    strategy: replace
    keep_previous: true
    force: true
  register: restored

- name: Show where that is
  ansible.builtin.debug:
    msg: "{{ restored.restore.previous | default('Nothing had to be replaced', true) }}"

- name: Copy a backup to a NAS
  volt.backup.volt_backup:
    workload: app
    source: /srv/app
    remote: file:///mnt/nas/backup
    push_to_cdn: true

- name: Restore the newest copy beside the current files
  volt.backup.volt_restore:
    workload: app
    remote: file:///mnt/nas/backup
    target: /srv/app-from-nas
"""

RETURN = r"""
restore:
  description: What was done, or would be done in check mode. The numbers of files are 0 in check mode.
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
      description: The strategy used, V(replace) or V(in_place). V(none) if nothing had to be done. Null in check mode if O(id) is null.
      type: str
      returned: always
      sample: replace
    files_linked:
      description: Files that share their content with the store.
      type: int
      returned: always
      sample: 0
    files_copied:
      description: Files whose content was written.
      type: int
      returned: always
      sample: 8711
    files_unchanged:
      description: Files that were equal already.
      type: int
      returned: always
      sample: 0
    files_removed:
      description: Paths that were removed because they are not in the backup.
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
      description: Paths that are not in the backup and were kept in the target.
      type: int
      returned: always
      sample: 0
    bytes_needed:
      description: Maximum number of bytes that the restore writes. Hard links count once; holes and blocks shared with the store do not count.
      type: int
      returned: always
      sample: 485123456
    verified:
      description: Whether all content was hashed, including that of the target and of files shared with the store. It equals O(verify).
      type: bool
      returned: always
      sample: true
    remote:
      description: URL of the remote that it was restored from. Null without O(remote).
      type: str
      returned: always
      sample: null
    fetched_bytes:
      description: Bytes of packs that were fetched from the remote, as they are stored there.
      type: int
      returned: always
      sample: 0
    partly:
      description: Whether only a part of the backup was selected with O(paths).
      type: bool
      returned: always
      sample: false
    attributes_skipped:
      description: Number of paths restored without some attributes. In check mode only known with O(attributes=strict).
      type: int
      returned: always
      sample: 1
    attributes_skipped_names:
      description: The missing attributes, each with the number of paths. C(owner), C(mode), C(mtime), C(flags), C(project), an extended attribute's name, or
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
      description: With O(salvage), paths that could not be restored. A directory includes all paths in it.
      type: list
      elements: str
      returned: always
      sample: []
    in_use:
      description: What uses the target, as sentences. See O(allow_in_use). It is returned for an equal target as well.
      type: list
      elements: str
      returned: always
      sample: []
    dumps:
      description:
        - Dumps of databases in the backup, each with the database system (V(kind)), its V(path) on the host, the V(database), null for all of them,
          and V(load), how to load it. With O(paths), they may not be among what was restored.
        - V(oplog) is true for one of MongoDB that contains the oplog.
      type: list
      elements: dict
      returned: always
      sample:
        - kind: postgresql
          path: /srv/app/.volt-dumps/postgresql-shop.sql
          database: shop
          load: >-
            runuser -u postgres -- createdb shop && runuser -u postgres -- psql --no-psqlrc --set=ON_ERROR_STOP=1 --dbname=shop
            < /srv/app/.volt-dumps/postgresql-shop.sql
    previous:
      description: >-
        Path of the old tree. It is kept with O(keep_previous), and, with a warning, if it has excluded paths that could not be moved into the new tree.
        Else null.
      type: str
      returned: always
      sample: /srv/app.previous-20261123-100000
diff:
  description: The differences between the target before the restore and the backup.
  returned: success but in check mode with O(id=null), and on failure with RV(code=target_differs)
  type: dict
  contains:
    added:
      description: Paths that were missing, relative to the target.
      type: list
      elements: str
      returned: always
      sample: []
    changed:
      description: Paths whose content or attributes differed. V(.) is the target itself.
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
          description: Number of paths that were missing.
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
    - Newer backups that were not used because they are damaged, incomplete, have a time in the future (the clock was wrong) or belong to another backup
      directory. Empty if O(id) is set.
    - It is not named C(skipped), because Ansible treats a task with a result of that name as skipped.
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
  description: Id of the missing store that this host's backups are in. Null if its id is unknown.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
code:
  description:
    - Kind of failure, for conditions in playbooks. V(usage) for invalid options, V(not_found) if there is no such backup, V(damaged) if something in
      the store is missing or altered, V(unsupported) if a newer version wrote something that it needs, V(target_differs) for a target that differs and
      needs O(force), V(target) and V(target_full) for a target that is unsuitable or full, V(in_use) for one that is in use, V(attributes) for one that
      cannot store all attributes with O(attributes=strict), V(remote), V(no_remote), V(remote_refused) and V(remote_unreachable) for a remote that cannot
      be used, V(store) for a store that is missing or cannot be read, V(lock_timeout) for a lock that was held by others for too long, V(interrupted) for a
      run that was interrupted.
  returned: failure
  type: str
  sample: target_differs
mounts:
  description: What is mounted below the target, relative to it.
  returned: failure, if O(strategy=replace) was refused because of it
  type: list
  elements: str
  sample:
    - data
in_use:
  description: What uses the target, as sentences.
  returned: on failure with RV(code=in_use)
  type: list
  elements: str
  sample:
    - systemd (process 4711) has its root directory in it
attributes_skipped:
  description: Number of paths that cannot have all of their attributes.
  returned: on failure with RV(code=attributes)
  type: int
  sample: 1
attributes:
  description: The missing attributes, each with the number of paths.
  returned: on failure with RV(code=attributes)
  type: dict
  sample:
    btrfs.compression: 1
paths:
  description:
    - The paths that caused the failure. These are paths of O(paths) that are not in the backup, paths whose content is lost, directories of the target
      where the backup has another type of file, immutable files, or paths that cannot have all of their attributes.
  returned: failure, if it is about such paths
  type: list
  elements: str
  sample:
    - etc/app
"""

import typing as t

from ansible_collections.volt.backup.plugins.module_utils._module import CREDENTIALS, DIFF_LIMIT, Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import UsageError
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest

if t.TYPE_CHECKING:
    from ansible_collections.volt.backup.plugins.module_utils._backup.restore import Restored

OPTIONS = dict(
    DIFF_LIMIT,
    id=dict(type="str"),
    workload=dict(type="str"),
    type=dict(type="str", choices=["manual", "scheduled", "snapshot", "pre-deploy"]),
    tags=dict(type="list", elements="str", default=[]),
    before=dict(type="str"),
    remote=dict(type="str"),
    remote_credentials=CREDENTIALS,
    identity=dict(type="str", no_log=True),
    host=dict(type="str"),
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
    "fetched_bytes",
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
    if params["remote"] is None:
        for name in ("host", "identity", "remote_credentials"):
            if params[name] is not None:
                raise UsageError(f"Option {name} only applies with remote; omit it.")
        done, passed = task.manager.restore(params["id"], task.pick(RestoreRequest), newest, params["before"], task.dry)
    else:
        done, passed = from_remote(task, newest)
    for text in done.warnings:
        task.warn(text)
    return {"changed": done.changed, "restore": done.restore, "diff": done.diff, "passed_over": passed}


def from_remote(task: Task, newest: t.Optional[Query]) -> t.Tuple[Restored, t.List[t.Dict[str, str]]]:
    from ansible_collections.volt.backup.plugins.module_utils._remote.declared import resolve  # only here: it takes time to import
    from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Meant, Remote
    from ansible_collections.volt.backup.plugins.module_utils._remote.sealed import recovery_of

    params = task.params
    host, _slash, backup = (params["id"] or "").rpartition("/")
    meant = Meant(params["host"] or host or None, backup or None, params["workload"])
    remote = Remote(task.manager, resolve(params["remote"], params["remote_credentials"]), recovery_of(params["identity"]))
    return remote.restore(meant, task.pick(RestoreRequest), newest, params["before"], task.dry)


def unknown_yet(task: Task) -> Result:
    """A playbook in check mode restores the backup that it would have made before."""
    if not task.dry:
        raise UsageError("The id is null, which only check mode accepts; check that the backup was made.")
    restore = dict.fromkeys(("backup_id", "strategy", "previous"))
    numbers = dict.fromkeys(NUMBERS, 0)
    lists: t.Dict[str, t.Any] = {name: [] for name in ("attributes_skipped_paths", "lost", "in_use")}
    params = {"target_dir": task.params["target"], "remote": task.params["remote"], "verified": task.params["verify"], "partly": bool(task.params["paths"])}
    return {"changed": True, "restore": {**restore, **numbers, **lists, **params, "attributes_skipped_names": {}}}


def main() -> None:
    run(work, OPTIONS, manager=Manager, mutually_exclusive=ONE_OF, required_one_of=ONE_OF)


if __name__ == "__main__":
    main()
