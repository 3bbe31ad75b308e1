#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_backup_info
short_description: List backups and their contents
version_added: 0.1.0
description:
  - Lists the backups of the managed host, newest first. Backups must match all given filters.
  - For each backup, it checks that all content is in the store. It does not read the content; M(volt.backup.volt_cas_verify) does that.
  - In results, paths are UTF-8. A byte that is not valid UTF-8 appears as C(\xNN), a backslash as C(\\).
author:
  - volt.backup contributors (!UNKNOWN)
extends_documentation_fragment:
  - volt.backup._attributes
  - volt.backup._attributes.info_module
  - volt.backup._attributes.actiongroup_volt
  - volt.backup._store
  - volt.backup._store.diff_limit
  - volt.backup._remote
  - volt.backup._remote.identity
options:
  workload:
    description:
      - Only backups of this workload.
    type: str
  type:
    description:
      - Only backups of this type.
    type: str
    choices:
      - manual
      - scheduled
      - snapshot
      - pre-deploy
  tags:
    description:
      - Only backups that have all of these tags.
    type: list
    elements: str
    default: []
  id:
    description:
      - Only the backup of this id. An id that does not exist gives an empty list.
    type: str
  host:
    description:
      - Only backups made by the host of this name.
    type: str
  since:
    description:
      - Only backups started at this time or later, for example V(2026-11-23) or V(2026-11-23T10:00:00+01:00). Without a time zone, it is UTC.
    type: str
  until:
    description:
      - Only backups started at this time or earlier.
    type: str
  limit:
    description:
      - Maximum number of backups to list. V(0) lists all.
    type: int
    default: 0
  remote:
    description:
      - List the backups of this remote, a declared name or a URL such as C(file:///mnt/nas/backup), in place of those of this host. Their ids are
        C(<host>/<id>).
      - O(host) is then the name of a host on the remote. O(id) may be with or without the host.
      - What a remote lost, or what was replaced there, is a warning, and in RV(faults).
      - Of O(include), only V(contents), V(schedules), V(history), V(drills) and V(search) are possible.
    type: str
  include:
    description:
      - What to return in addition to the backups.
      - V(contents) lists the contents of the backup O(id), which is then required.
      - V(changes) has for each backup the differences from the previous one of the same workload.
      - V(store) has statistics of the store.
      - V(schedules) has the schedules of the host and their state.
      - V(history) has the last 90 days of each workload, in brief.
      - V(drills) has the recorded drills of each schedule, at most the last 70.
      - V(search) has what O(search) finds in the backups.
    type: list
    elements: str
    choices:
      - contents
      - changes
      - store
      - schedules
      - history
      - drills
      - search
    default: []
  search:
    description:
      - What to search in all backups that match the filters, whatever O(limit) is. Needs V(search) in O(include).
      - Exactly one of O(search.pattern) and O(search.path) is required.
      - Of what is found, the first O(diff_limit) versions are returned.
    type: dict
    suboptions:
      pattern:
        description:
          - Find what matches this pattern, for example V(*.conf) or V(/conf/app.conf). Patterns are those of O(volt.backup.volt_backup#module:exclude). The
            source may be in front.
        type: str
      path:
        description:
          - List the versions of this path, relative to the source or with the source in front.
        type: str
seealso:
  - module: volt.backup.volt_backup
  - module: volt.backup.volt_restore
"""

EXAMPLES = r"""
- name: Back up an application's data
  volt.backup.volt_backup:
    workload: app
    source: /srv/app
  register: made

- name: List all backups of this host
  volt.backup.volt_backup_info:
  register: all_backups

- name: List what a NAS has of all hosts
  volt.backup.volt_backup_info:
    remote: file:///mnt/nas/backup
  register: copies

- name: Find the newest complete and undamaged backup of the application
  volt.backup.volt_backup_info:
    workload: app
  register: app_backups

- name: Show its id
  ansible.builtin.debug:
    msg: >-
      {{ app_backups.backups | rejectattr('damaged') | rejectattr('future') | selectattr('complete') | map(attribute='id') | first | default('none') }}

- name: Show what changed from one backup to the next in the last days
  volt.backup.volt_backup_info:
    workload: app
    since: "2026-11-20"
    include:
      - changes

- name: List the contents of one backup, and the size of the store
  volt.backup.volt_backup_info:
    id: "{{ made.backup.id }}"
    include:
      - contents
      - store
  register: looked_into
  when: not ansible_check_mode # no backup was made, so there is no id

- name: Find the dumps of the last days
  volt.backup.volt_backup_info:
    since: "2026-11-20"
    include:
      - search
    search:
      pattern: "*.sql"
  register: dumps

- name: List the versions of a file
  volt.backup.volt_backup_info:
    workload: app
    include:
      - search
    search:
      path: conf/app.conf
  register: versions

- name: Fail if a backup is damaged
  ansible.builtin.assert:
    that: all_backups.backups | selectattr('damaged') | length == 0
"""

RETURN = r"""
backups:
  description:
    - The backups, newest first, each with all keys of its record. Backups with an unreadable record come last, with most keys null.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The backup's id, C(<workload>-<YYYYMMDD-HHMMSS>-<type>) in UTC, followed by a number if that id was in use.
      type: str
      returned: always
      sample: app-20261123-100000-manual
    workload_name:
      description: Name of the workload.
      type: str
      returned: always
      sample: app
    workload_mode:
      description: How the workload runs, or null.
      type: str
      returned: always
      sample: container
    type:
      description: Purpose of the backup.
      type: str
      returned: always
      sample: manual
    manifest_ref:
      description: Name of the backup's manifest in the store.
      type: str
      returned: always
      sample: app-20261123-100000-manual-90a8f0f0c8d1
    tags:
      description: Labels.
      type: list
      elements: str
      returned: always
      sample: []
    created_at:
      description: When the backup was started, in UTC.
      type: str
      returned: always
      sample: '2026-11-23T10:00:00.123456Z'
    blob_count:
      description: Number of blobs of all file content. A small file is one blob, a large file one per MiB, without holes.
      type: int
      returned: always
      sample: 9021
    total_size:
      description: Sum of the sizes of all files in bytes.
      type: int
      returned: always
      sample: 485123456
    new_blobs:
      description: How many of these blobs were new to the store.
      type: int
      returned: always
      sample: 12
    dedup_blobs:
      description: How many of these blobs were already in the store, or are in the backup more than once.
      type: int
      returned: always
      sample: 9009
    duration:
      description: How long it took, in nanoseconds.
      type: int
      returned: always
      sample: 734000000
    pushed_to_cdn:
      description: Whether a copy was pushed to a remote.
      type: bool
      returned: always
      sample: false
    source_path:
      description: The directory that was backed up, with symbolic links resolved.
      type: str
      returned: always
      sample: /srv/app
    notes:
      description: The notes, or null.
      type: str
      returned: always
      sample: Before release 42
    format:
      description: Version of the record's format.
      type: int
      returned: always
      sample: 1
    host:
      description: Name of the host that made the backup.
      type: str
      returned: always
      sample: node1
    host_id:
      description: Machine id of that host, or null if it had none.
      type: str
      returned: always
      sample: 8e1f6a2c5d4b4f7d9a0b1c2d3e4f5a6b
    manifest_sha256:
      description: SHA-256 of the manifest.
      type: str
      returned: always
      sample: 90a8f0f0c8d1a0f3a0c7f6f1d5b1c3e4d2a19f8e7d6c5b4a39281706f5e4d3c2
    complete:
      description: Whether all selected files could be read.
      type: bool
      returned: always
      sample: true
    exclude:
      description: Patterns of what was excluded.
      type: list
      elements: str
      returned: always
      sample:
        - /tmp/
        - '*.log'
    exclude_caches:
      description: Whether the content of cache directories was excluded.
      type: bool
      returned: always
      sample: false
    one_file_system:
      description: Whether other file systems below the source were excluded.
      type: bool
      returned: always
      sample: false
    file_count:
      description: Number of files. Directories, links and special files are not counted.
      type: int
      returned: always
      sample: 8711
    new_bytes:
      description: Size in bytes of the content that was new to the store, before compression.
      type: int
      returned: always
      sample: 104211
    stored_bytes:
      description: Bytes that the backup added to the store, compressed and with metadata.
      type: int
      returned: always
      sample: 39022
    skipped:
      description:
        - Paths that were skipped, other than by a pattern, at most 100.
      type: list
      elements: dict
      returned: always
      sample: []
      contains:
        path:
          description: The path, relative to the source.
          type: str
          returned: always
          sample: proc
        reason:
          description:
            - V(unreadable) if it could not be read, which makes the backup incomplete.
            - V(attributes) if its extended attributes could not be stored, V(links) if it has too many hard links. The path itself is in the backup, which
              is incomplete.
            - V(pseudo) for a pseudo file system, V(mount) for another file system, of which the directory itself is kept.
            - V(mount_point) for a single file of another file system, and for a mount that is served over a network or by FUSE, if these were left out.
            - V(store) for the store and the backup directory.
          type: str
          returned: always
          sample: pseudo
        detail:
          description: Details, or an empty string.
          type: str
          returned: always
          sample: ''
    skipped_count:
      description: Total number of skipped paths.
      type: int
      returned: always
      sample: 0
    changed_while_read:
      description: Files that changed while they were read, at most 100. Files that only grew are stored with their initial size.
      type: list
      elements: str
      returned: always
      sample: []
    changed_while_read_count:
      description: Number of files that changed while they were read.
      type: int
      returned: always
      sample: 0
    unstable:
      description: Whether files were written while they were read, so that they may be inconsistent. Back up databases with a dump or a snapshot.
      type: bool
      returned: always
      sample: false
    unstable_paths:
      description: These files, at most 100, and names whose hard links were lost because the files changed during the walk.
      type: list
      elements: str
      returned: always
      sample: []
    unstable_count:
      description: Number of these files.
      type: int
      returned: always
      sample: 0
    source_asked:
      description: The absolute path that was given as the source. It is null in backups of version 0.1.0.
      type: str
      returned: always
      sample: /srv/app
    source_links:
      description: Symbolic links in this path. It is null in backups of version 0.1.0.
      type: list
      elements: str
      returned: always
      sample: []
    mounts:
      description: Mount points whose content is in the backup. The next run fails if one is missing. It is null in backups of version 0.1.0.
      type: list
      elements: str
      returned: always
      sample: []
    suspect:
      description:
        - Whether far more files were lost or rewritten than in the good backups before it, see options C(max_shrink) and C(max_churn) of
          M(volt.backup.volt_backup), and the backup was not accepted since. A suspect backup never counts as the newest one. While it is the last one,
          retention keeps all backups from before it.
      type: bool
      returned: always
      sample: false
    suspect_reason:
      description: Why it is suspect, or null. It is kept after the backup was accepted.
      type: str
      returned: always
      sample: null
    lost_counts:
      description:
        - About how many files of the previous backup look encrypted or wiped, for this backup and the good ones before it, newest first. At most 64 numbers.
      type: list
      elements: int
      returned: always
      sample: [0, 0]
    file_counts:
      description: Number of files with content, for this backup and the good ones before it, newest first. At most 64 numbers.
      type: list
      elements: int
      returned: always
      sample: [8711, 8702]
    accepted_by:
      description: User that accepted the suspect backup, or null.
      type: str
      returned: always
      sample: null
    accepted_at:
      description: When that was, or null.
      type: str
      returned: always
      sample: null
    protected:
      description: Whether the backup is protected from deletion.
      type: bool
      returned: always
      sample: false
    protected_by:
      description: User that last protected or unprotected it, or null.
      type: str
      returned: always
      sample: null
    protected_at:
      description: When that was, or null.
      type: str
      returned: always
      sample: null
    directory_id:
      description:
        - Id of the backup directory that it belongs to. Null in records of version 0.1.0, and in check mode.
      type: str
      returned: always
      sample: c4b1f2a07d6e4f0e8a9b1c2d3e4f5061
    store_id:
      description: Id of the store that has its content. Null in records of version 0.1.0, and in check mode.
      type: str
      returned: always
      sample: 5f0c3d2e9a64e1c7b3b4d0c1f7a14a0e
    copies:
      description: Copies of the backup on remotes, each with the id of the remote, its name there (V(push)), and when it was made (V(copied_at)).
      type: list
      elements: dict
      returned: always
      sample: []
    dumps:
      description:
        - Dumps of databases in the backup, each with the database system (V(kind)), its path in the backup, and the V(database), null for all of them.
        - V(oplog) is true for one of MongoDB that contains the oplog.
      type: list
      elements: dict
      returned: always
      sample:
        - kind: postgresql
          path: .volt-dumps/postgresql-shop.sql
          database: shop
    quiesced:
      description:
        - Containers, machines and domains that were kept still, each with its V(runtime) (V(docker), V(podman), V(nspawn) or V(libvirt)), its V(name), and
          how (V(way)), V(pause), V(stop), or V(freeze) for the file systems of a domain.
      type: list
      elements: dict
      returned: always
      sample: []
    snapshots:
      description:
        - The file systems and subvolumes that were read, each with its path and how it was kept still (V(kind)). V(none) is one that was read while it
          was in use. All that was written before V(taken_at) is in its snapshot. Empty unless a snapshot was asked for.
      type: list
      elements: dict
      returned: always
      sample:
        - path: /srv/shop
          kind: btrfs
          taken_at: "2026-11-23T01:00:02.318024Z"
    checked:
      description:
        - Whether the files of the store that it needs are as they were when they were last hashed. After a store was copied to another disk, this is V(false)
          until C(volt-backup verify --content) or M(volt.backup.volt_cas_verify) with O(volt.backup.volt_cas_verify#module:level=content) has hashed them.
        - Null if the backup is damaged, unsupported or foreign.
      type: bool
      returned: always
      sample: true
    checked_at:
      description:
        - All data that it needs has been hashed at this time or later, in UTC. Data is hashed when it is stored, and by
          M(volt.backup.volt_cas_verify) with O(volt.backup.volt_cas_verify#module:level=content). Null if it is not checked.
      type: str
      returned: always
      sample: '2026-11-23T10:00:00.123456Z'
    damaged:
      description: Whether data of the backup is missing or altered, so that it cannot be restored completely.
      type: bool
      returned: always
      sample: false
    damage:
      description: What is wrong with it, as a sentence, or null.
      type: str
      returned: always
      sample: null
    unsupported:
      description: Whether a newer version wrote it, or data that it needs. Only that version can read it.
      type: bool
      returned: always
      sample: false
    unsupported_reason:
      description: What a newer version wrote, as a sentence, or null.
      type: str
      returned: always
      sample: null
    future:
      description:
        - Whether its time is in the future. The clock was wrong when it was made, or is wrong now. Such a backup never counts as the newest one.
      type: bool
      returned: always
      sample: false
    foreign:
      description:
        - Whether it belongs to another backup directory, and not to O(backup_dir), or is a file of the original Volt command. Such a backup is listed as
          far as it can be read, but never changed. C(volt-backup adopt) adopts those of another backup directory.
      type: bool
      returned: always
      sample: false
    foreign_reason:
      description: Where it belongs, as a sentence, or null.
      type: str
      returned: always
      sample: null
    seq:
      description: Number of its commit among those of its host, from 1. Null if the commit cannot be read.
      type: int
      returned: with O(remote)
      sample: 7
    commit_sha256:
      description: SHA-256 of its commit. The next commit of the host names it, so no commit can be replaced unnoticed. Null if the commit cannot be read.
      type: str
      returned: with O(remote)
      sample: d663729b03896a049fa1e9e751d4b0d408c3d3478023ef9fcb449bbbeeb6f378
count:
  description: How many backups are listed.
  returned: success
  type: int
  sample: 3
contents:
  description:
    - Contents of the backup O(id), or null if it does not exist or is too damaged.
  returned: O(include) has V(contents)
  type: dict
  contains:
    entries:
      description: The first O(diff_limit) entries, depth first, names sorted as bytes. The first is the source itself.
      type: list
      elements: dict
      returned: always
      contains:
        path:
          description: The path, relative to the source. V(.) is the source itself.
          type: str
          returned: always
          sample: etc/app/app.conf
        type: &entry_type
          description: One of V(file), V(directory), V(symlink), V(fifo), V(socket), V(character) and V(block).
          type: str
          returned: always
          sample: file
        mode: &entry_mode
          description: Permissions, in octal.
          type: str
          returned: always
          sample: '0644'
        uid: &entry_uid
          description: Number of the owner.
          type: int
          returned: always
          sample: 0
        gid: &entry_gid
          description: Number of the group.
          type: int
          returned: always
          sample: 0
        user: &entry_user
          description: Name of the owner when the backup was made, or null if there was none.
          type: str
          returned: always
          sample: root
        group: &entry_group
          description: Name of the group when the backup was made, or null if there was none.
          type: str
          returned: always
          sample: root
        size: &entry_size
          description: Size of a file in bytes.
          type: int
          returned: always
          sample: 1204
        mtime: &entry_mtime
          description: Time of the last modification, in UTC to the nanosecond. Beyond the years 1 to 9999 V(@) and the seconds since 1970.
          type: str
          returned: always
          sample: '2026-11-20T08:15:00.000000000Z'
        target: &entry_target
          description: What a symbolic link points to, else null.
          type: str
          returned: always
          sample: null
        xattrs: &entry_xattrs
          description: Names of extended attributes.
          type: list
          elements: str
          returned: always
          sample: []
    count:
      description: Total number of entries.
      type: int
      returned: always
      sample: 9876
    more:
      description: How many of them are not listed because of O(diff_limit).
      type: int
      returned: always
      sample: 8876
search:
  description:
    - What O(search) found. A version is what backups have in common with the same content, size and time of modification.
  returned: O(include) has V(search)
  type: dict
  contains:
    matches:
      description: The first O(diff_limit) versions of what the pattern matches, by path, the newest version of each path first.
      type: list
      elements: dict
      returned: with O(search.pattern)
      contains:
        path: &search_path
          description: The path, relative to the source.
          type: str
          returned: always
          sample: conf/app.conf
        type: *entry_type
        mode: *entry_mode
        uid: *entry_uid
        gid: *entry_gid
        user: *entry_user
        group: *entry_group
        size: *entry_size
        mtime: *entry_mtime
        target: *entry_target
        xattrs: *entry_xattrs
        workload_name: &search_workload
          description: Workload of the backups.
          type: str
          returned: always
          sample: app
        host: &search_host
          description: Host of the backups, with O(remote) by its name there.
          type: str
          returned: always
          sample: web1
        first_id: &search_first_id
          description: Id of the first backup that has this version.
          type: str
          returned: always
          sample: app-20261123-100000-manual
        first_at: &search_first_at
          description: When that backup was started.
          type: str
          returned: always
          sample: '2026-11-23T10:00:00.123456Z'
        last_id: &search_last_id
          description: Id of the last backup that has this version.
          type: str
          returned: always
          sample: app-20261124-100000-manual
        last_at: &search_last_at
          description: When that backup was started.
          type: str
          returned: always
          sample: '2026-11-24T10:00:00.123456Z'
        count: &search_count
          description: How many backups have this version.
          type: int
          returned: always
          sample: 2
    history:
      description:
        - The first O(diff_limit) versions of the path, the newest of each workload first. Here, owner, mode and attributes make a version, too.
        - If RV(search.history[].present) is false, no backup from the first to the last one has the path, and what describes it is null.
      type: list
      elements: dict
      returned: with O(search.path)
      contains:
        path: *search_path
        type: *entry_type
        mode: *entry_mode
        uid: *entry_uid
        gid: *entry_gid
        user: *entry_user
        group: *entry_group
        size: *entry_size
        mtime: *entry_mtime
        target: *entry_target
        xattrs: *entry_xattrs
        present:
          description: Whether the backups have the path.
          type: bool
          returned: always
          sample: true
        changes:
          description:
            - What differs from the version before. V(new), V(gone) and V(type), or some of V(content), V(size), V(mtime), V(mode), V(owner), V(target),
              V(device) and V(attributes).
          type: list
          elements: str
          returned: always
          sample:
            - content
            - mtime
        workload_name: *search_workload
        host: *search_host
        first_id: *search_first_id
        first_at: *search_first_at
        last_id: *search_last_id
        last_at: *search_last_at
        count: *search_count
    count:
      description: Total number of versions.
      type: int
      returned: always
      sample: 3
    more:
      description: How many of them are not returned because of O(diff_limit).
      type: int
      returned: always
      sample: 0
    searched:
      description: How many backups were searched.
      type: int
      returned: always
      sample: 100
    not_searched:
      description: Backups that could not be searched completely, because they are damaged or a newer version wrote them.
      type: list
      elements: dict
      returned: always
      contains:
        id:
          description: Id of the backup.
          type: str
          returned: always
          sample: app-20261122-100000-manual
        reason:
          description: Why, as a sentence.
          type: str
          returned: always
          sample: Manifest app-20261122-100000-manual-1f0c3b2e4d5f is missing from the store.
changes:
  description:
    - For each backup's id, the differences from the previous one of the same workload.
    - Null for the first one of a workload, and for damaged ones, and for those with a time in the future.
  returned: O(include) has V(changes)
  type: dict
  sample:
    app-20261123-100000-manual:
      since: app-20261122-100000-manual
      added: []
      changed:
        - etc/app/app.conf
      removed: []
      counts:
        added: 0
        changed: 1
        removed: 0
      more: 0
      prepared: "~etc/app/app.conf\n"
store:
  description:
    - Statistics of the store.
  returned: O(include) has V(store)
  type: dict
  contains:
    path:
      description: Where it is.
      type: str
      returned: always
      sample: /var/lib/volt/cas
    format:
      description: Version of its format.
      type: int
      returned: always
      sample: 2
    exists:
      description: Whether it has been created.
      type: bool
      returned: always
      sample: true
    id:
      description: Id of the store. Null for a store of version 0.1.0 that was not written to since.
      type: str
      returned: always
      sample: 5f0c3d2e9a64e1c7b3b4d0c1f7a14a0e
    features:
      description: Features of the store.
      type: dict
      returned: always
      contains:
        required:
          description: Features that a program must support to use the store.
          type: list
          elements: str
          returned: always
          sample: [claims]
        optional:
          description: Features that a program can ignore.
          type: list
          elements: str
          returned: always
          sample: []
    backups:
      description: How many backups have readable records.
      type: int
      returned: always
      sample: 30
    blobs:
      description: Distinct blobs of file content that these backups refer to.
      type: int
      returned: always
      sample: 10211
    logical_bytes:
      description: Sum of the sizes of all files in these backups.
      type: int
      returned: always
      sample: 14553703680
    unique_bytes:
      description: Size of the distinct content, before compression.
      type: int
      returned: always
      sample: 512000000
    metadata_bytes:
      description: Size of the distinct trees and lists, before compression.
      type: int
      returned: always
      sample: 1200000
    stored_bytes:
      description: Size of all files with content in the store, referenced or not.
      type: int
      returned: always
      sample: 231000000
    dedup_ratio:
      description: RV(store.logical_bytes) divided by RV(store.unique_bytes), or null for nothing.
      type: float
      returned: always
      sample: 28.43
    compression_ratio:
      description: Plain bytes of what backups refer to, divided by the bytes that this occupies in the store, or null for nothing.
      type: float
      returned: always
      sample: 2.22
    unreferenced_bytes:
      description: How much of RV(store.stored_bytes) no backup refers to. M(volt.backup.volt_cas_gc) frees most of it.
      type: int
      returned: always
      sample: 3100000
    ratio:
      description: RV(store.logical_bytes) divided by RV(store.stored_bytes), or null for an empty store.
      type: float
      returned: always
      sample: 63.0
    objects:
      description: Files with one large blob each.
      type: int
      returned: always
      sample: 812
    packs:
      description: Files with many small blobs each.
      type: int
      returned: always
      sample: 240
    trash_bytes:
      description: Size of files in the trash, which garbage collection deletes later.
      type: int
      returned: always
      sample: 0
    quarantine_bytes:
      description: Size of damaged files in quarantine, moved there by a repair.
      type: int
      returned: always
      sample: 0
    damaged:
      description: Whether something could not be read and is missing in these numbers.
      type: bool
      returned: always
      sample: false
    unsupported:
      description: Whether a newer version wrote something that is missing in these numbers.
      type: bool
      returned: always
      sample: false
    workloads:
      description:
        - Statistics of each workload, by name. Shared content is counted for each workload.
      type: list
      elements: dict
      returned: always
      contains:
        workload_name:
          description: Name of the workload.
          type: str
          returned: always
          sample: app
        backups:
          description: How many backups have readable records.
          type: int
          returned: always
          sample: 30
        blobs:
          description: Distinct blobs of file content that these backups refer to.
          type: int
          returned: always
          sample: 10211
        logical_bytes:
          description: Sum of the sizes of all files in these backups.
          type: int
          returned: always
          sample: 14553703680
        unique_bytes:
          description: Size of the distinct content, before compression.
          type: int
          returned: always
          sample: 512000000
        metadata_bytes:
          description: Size of the distinct trees and lists, before compression.
          type: int
          returned: always
          sample: 1200000
        stored_bytes:
          description: How much of the store the workload's backups occupy.
          type: int
          returned: always
          sample: 231000000
        dedup_ratio:
          description: RV(store.workloads[].logical_bytes) divided by RV(store.workloads[].unique_bytes), or null for nothing.
          type: float
          returned: always
          sample: 28.43
        compression_ratio:
          description: Plain bytes of what the workload's backups refer to, divided by the bytes that this occupies in the store, or null for nothing.
          type: float
          returned: always
          sample: 2.22
schedules:
  description:
    - The schedules that are declared on the host, those in trouble first, as C(volt-backup status --json) on the host prints them.
    - The filters for backups do not apply to schedules. If O(store) or O(backup_dir) is set, the backups there are checked in addition to those of the
      schedules, and problems with them are trouble.
  returned: O(include) has V(schedules); also on failure with RV(code=store)
  type: list
  elements: dict
  contains:
    workload:
      description: Name of the workload.
      type: str
      returned: always
      sample: app
    state:
      description:
        - State of the schedule. In trouble are V(failed), V(overdue), V(stopped), V(unreadable), V(unsupported), V(store missing),
          V(records missing) if the record of its runs is lost, V(source missing), V(damaged) if any backup of the workload is damaged, and
          V(not proved) if the last drill failed.
        - Not in trouble are V(running), V(ok), V(waiting) for a first backup that is not overdue yet, and V(disabled).
      type: str
      returned: always
      sample: ok
    overdue:
      description: Whether a backup was due, the time allowed for it has passed, and no good backup was made since, scheduled or manual.
      type: bool
      returned: always
      sample: false
    reason:
      description: What is wrong, in sentences, the worst first. Null if there is nothing to report.
      type: str
      returned: always
      sample: null
    enabled:
      description: Whether it is enabled.
      type: bool
      returned: always
      sample: true
    failures:
      description: How many runs have failed since the last success.
      type: int
      returned: always
      sample: 0
    source:
      description:
        - The directory that is backed up. Null for a schedule without a source, which only backs up dumps or the output of a command.
        - Also null if the job file cannot be read, and then so is all that follows.
      type: str
      returned: always
      sample: /srv/app
    interval:
      description: Seconds from one backup to the next, or null for a schedule by calendar.
      type: int
      returned: always
      sample: 21600
    on_calendar:
      description: When backups are made, as a calendar expression of systemd, or null for a schedule by interval.
      type: str
      returned: always
      sample: null
    remote:
      description: The remote that its backups are copied to, or null.
      type: str
      returned: always
      sample: offsite
    declared_at:
      description: When the schedule was declared, or its times were last changed, in UTC, or null.
      type: str
      returned: always
      sample: '2026-11-02T08:00:00.000000Z'
    last_success:
      description: When the last successful run ended, in UTC, or null.
      type: str
      returned: always
      sample: '2026-11-24T00:03:44.000000Z'
    last_failure:
      description: When the last failed run ended, in UTC, or null.
      type: str
      returned: always
      sample: null
    last_proved:
      description: When M(volt.backup.volt_restore_drill) last restored a backup and found no difference, in UTC, or null.
      type: str
      returned: always
      sample: '2026-11-22T09:12:00.000000Z'
    newest_id: &newest_id
      description: The newest good backup of the workload, scheduled or not, or null.
      type: str
      returned: always
      sample: app-20261124-000341-scheduled
    newest_at: &newest_at
      description: When that was made, in UTC, or null.
      type: str
      returned: always
      sample: '2026-11-24T00:03:41.000000Z'
    newest_type: &newest_type
      description: Its type, or null.
      type: str
      returned: always
      sample: scheduled
    newest_age: &newest_age
      description: Its age in seconds, or null.
      type: int
      returned: always
      sample: 5400
    copied_id: &copied_id
      description: The newest good backup of the workload that has a copy on any remote, as far as its record says, or null.
      type: str
      returned: always
      sample: app-20261123-180341-scheduled
    copied_at: &copied_at
      description: When that backup was made, in UTC, or null.
      type: str
      returned: always
      sample: '2026-11-23T18:03:41.000000Z'
    copied_age: &copied_age
      description: Its age in seconds, or null.
      type: int
      returned: always
      sample: 27000
    backup_count: &backup_count
      description: How many backups the workload has. Null if the store cannot be read.
      type: int
      returned: always
      sample: 28
    damaged_count: &damaged_count
      description: How many of them are damaged. Null if the store cannot be read.
      type: int
      returned: always
      sample: 0
    proved_id:
      description: Which backup that was, or null.
      type: str
      returned: always
      sample: app-20261122-060341-scheduled
    copy_proved_at:
      description: When M(volt.backup.volt_restore_drill) last did the same with the copy on a remote, in UTC, or null.
      type: str
      returned: always
      sample: '2026-11-01T09:40:00.000000Z'
    next_elapse:
      description: When the next backup is due, in UTC, or null if there is none.
      type: str
      returned: always
      sample: '2026-11-24T06:03:41.000000Z'
    backup_id:
      description: The id of the last backup that succeeded, or null.
      type: str
      returned: always
      sample: app-20261124-000341-scheduled
    duration:
      description: How long that took, in nanoseconds, or null.
      type: int
      returned: always
      sample: 412000000
    new_bytes:
      description: Size of its content that was new, or null.
      type: int
      returned: always
      sample: 1048576
    total_size:
      description: Size of its content, or null.
      type: int
      returned: always
      sample: 49283072
    unstable_count:
      description: How many files of that backup may be inconsistent, because they changed while it was made. It is also in the reason.
      type: int
      returned: always
      sample: 0
workloads:
  description: Workloads that have backups, with a schedule or without one.
  returned: as RV(schedules)
  type: list
  elements: dict
  contains:
    workload:
      description: Name of the workload.
      type: str
      returned: always
      sample: app
    scheduled:
      description: Whether it has a schedule.
      type: bool
      returned: always
      sample: true
    state:
      description: V(damaged) if any of its backups is, which is trouble. Else V(no schedule), even if it has one.
      type: str
      returned: always
      sample: no schedule
    reason:
      description: What is wrong, as a sentence. Null if there is no trouble.
      type: str
      returned: always
      sample: null
    newest_id: *newest_id
    newest_at: *newest_at
    newest_type: *newest_type
    newest_age: *newest_age
    newest_timestamp:
      description: RV(workloads[].newest_at) in seconds since 1970, or null.
      type: float
      returned: always
      sample: 1795478621.0
    copied_id: *copied_id
    copied_at: *copied_at
    copied_age: *copied_age
    copied_timestamp:
      description: RV(workloads[].copied_at) in seconds since 1970, or null.
      type: float
      returned: always
      sample: 1795457021.0
    backup_count: *backup_count
    damaged_count: *damaged_count
    suspect_count:
      description: How many suspect backups are newer than the newest good one.
      type: int
      returned: always
      sample: 0
problems:
  description:
    - Trouble of the host itself. This is a unit for garbage collection, verification or notifications that failed or was stopped, a store or records
      that are missing, or metrics that cannot be written.
  returned: as RV(schedules)
  type: list
  elements: dict
  contains:
    what:
      description: The unit or thing.
      type: str
      returned: always
      sample: volt-cas-verify.service
    state:
      description: V(failed), V(stopped), V(store missing), V(records missing), V(unreadable) or V(damaged).
      type: str
      returned: always
      sample: failed
    reason:
      description: What is wrong, as a sentence.
      type: str
      returned: always
      sample: volt-cas-verify.service failed (exit-code); see journalctl -u volt-cas-verify, fix it, then start volt-cas-verify.service.
history:
  description: The last 90 days of each workload that has a schedule or backups.
  returned: O(include) has V(history); also on failure with RV(code=store)
  type: list
  elements: dict
  contains:
    workload:
      description: Name of the workload.
      type: str
      returned: always
      sample: app
    day:
      description: The last of the 90 days, which is today in UTC.
      type: str
      returned: always
      sample: '2026-11-24'
    days:
      description:
        - A letter for each of the 90 days, oldest first. V(g) is a good backup, V(u) only an unstable one, V(s) only one that is suspect, incomplete or
          damaged, V(f) only failed runs, and V(-) nothing that is known.
        - It counts backups that exist, and results of runs, also of those whose backups were deleted since.
      type: str
      returned: always
      sample: '-----------------------------------------------------------------------------------ggfugg'
    kept:
      description: The same for the backups that exist.
      type: str
      returned: always
      sample: '--------------------------------------------------------------------------------------u-gg'
    recent:
      description: The last 30 backups that exist, oldest first. Each list has one value for each of them.
      type: dict
      returned: always
      contains:
        created_at:
          description: When they were started, in UTC.
          type: list
          elements: str
          returned: always
          sample: ['2026-11-23T18:03:41Z', '2026-11-24T00:03:41Z']
        states:
          description: Their letters, as in RV(history[].kept).
          type: str
          returned: always
          sample: ug
        total_size:
          description: Sizes of their content in bytes. Null if unknown.
          type: list
          elements: int
          returned: always
          sample: [49283072, 49283072]
        new_bytes:
          description: Sizes of the content that was new. Null if unknown.
          type: list
          elements: int
          returned: always
          sample: [1048576, 524288]
drills:
  description: The recorded drills of each schedule, as made by M(volt.backup.volt_restore_drill) or C(volt-backup drill).
  returned: O(include) has V(drills); also on failure with RV(code=store)
  type: list
  elements: dict
  contains:
    workload:
      description: Name of the workload.
      type: str
      returned: always
      sample: app
    failure:
      description: >-
        Which failures stand, as sentences, or null. The failure of a place, which is the store or a remote, stands until a drill of that place succeeds.
        That of a remote also ends if the schedule does not copy to it any more and another drill has ended.
      type: str
      returned: always
      sample: null
    drills:
      description: The last 70 drills, oldest first, and before them the last one of each place that has none among these.
      type: list
      elements: dict
      returned: always
      contains:
        at:
          description: When it ended, in UTC.
          type: str
          returned: always
          sample: '2026-11-24T02:00:41.000000Z'
        backup_id:
          description: The backup that was restored, or null if there was none to restore.
          type: str
          returned: always
          sample: app-20261123-100000-scheduled
        reason:
          description: Why it is not proved, as a sentence. Null if it is proved.
          type: str
          returned: always
          sample: null
        command:
          description: The outcome of the command, V(passed) or V(failed). Null if none ran.
          type: str
          returned: always
          sample: passed
        loaded:
          description: The dumps that were loaded, at most 20 of them.
          type: list
          elements: str
          returned: always
          sample: [.volt-dumps/postgresql-shop.sql]
        not_loaded:
          description: Dumps for which the host has no server, as a sentence, or null.
          type: str
          returned: always
          sample: null
        remote:
          description: The URL of the remote that the backup was restored from, or null for the store.
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
        unstable_count:
          description: How many files were unstable, and are not proved.
          type: int
          returned: always
          sample: 0
answer:
  description:
    - V(backups) if the list is not empty. For an empty list the reason, V(no_store) if there is no store, V(unknown_workload) if O(workload) has neither
      backups nor a schedule on this host, or V(nothing) if nothing matches.
  returned: success
  type: str
  sample: backups
faults:
  description: What is wrong with the commits of the hosts on the remote, as sentences. Something was lost, withheld, replaced or added there.
  returned: success, with O(remote)
  type: list
  elements: str
  sample:
    - Commit 7 of host web1-3f9a2c7d is missing on the remote; compare the list with the host's own backups.
read:
  description: The directories that were read. With O(remote), both are its URL.
  returned: success
  type: dict
  contains:
    store:
      description: Directory of the store.
      type: str
      returned: always
      sample: /var/lib/volt/cas
    backup_dir:
      description: Directory of the backups' records.
      type: str
      returned: always
      sample: /var/lib/volt/backups
store_id:
  description: Id of the missing store that this host's backups are in. Null if its id is unknown.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
code:
  description:
    - Kind of failure, for conditions in playbooks. V(usage) for invalid options, V(store) for
      a store that is missing, and for a store or a backup directory that cannot be read, V(lock_timeout) for a lock that was held by others for too
      long.
  returned: failure
  type: str
  sample: usage
"""

import typing as t

from ansible_collections.volt.backup.plugins.module_utils._module import CREDENTIALS, DIFF_LIMIT, Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import Damaged, Foreign, NoStore, NotFound, StoreError, Unsupported, UsageError
from ansible_collections.volt.backup.plugins.module_utils._schedule import history, job as jobs, survey

if t.TYPE_CHECKING:
    from ansible_collections.volt.backup.plugins.module_utils._backup.search import Search

OPTIONS = dict(
    DIFF_LIMIT,
    workload=dict(type="str"),
    type=dict(type="str", choices=["manual", "scheduled", "snapshot", "pre-deploy"]),
    tags=dict(type="list", elements="str", default=[]),
    id=dict(type="str"),
    host=dict(type="str"),
    since=dict(type="str"),
    until=dict(type="str"),
    limit=dict(type="int", default=0),
    remote=dict(type="str"),
    remote_credentials=CREDENTIALS,
    identity=dict(type="str", no_log=True),
    include=dict(type="list", elements="str", choices=["contents", "changes", "store", "schedules", "history", "drills", "search"], default=[]),
    search=dict(
        type="dict", options=dict(pattern=dict(type="str"), path=dict(type="str")), mutually_exclusive=[("pattern", "path")],
        required_one_of=[("pattern", "path")],
    ),  # fmt: skip
)


#: What an empty list means.
_ANSWERS = {NoStore: "no_store", NotFound: "unknown_workload", type(None): "nothing"}


def work(task: Task) -> Result:
    manager, params = task.manager, task.params
    if "contents" in params["include"] and params["id"] is None:
        raise UsageError("`include: contents` needs one backup; set `id`.")
    if ("search" in params["include"]) != (params["search"] is not None):
        raise UsageError("A search needs `include: search` and what to search; set both, or none.")
    schedules = _schedules(task) if {"schedules", "history", "drills"} & set(params["include"]) else {}
    if params["remote"] is not None:
        return {**_on_remote(task), **schedules}
    try:
        found = manager.find(task.pick(Query), task.dry)
    except StoreError as error:
        error.details.update(schedules)  # which say that, too, each for itself
        raise
    lack = None if found else manager.lack(params["workload"], jobs.is_declared)
    answer = "backups" if found else _ANSWERS[type(lack)]
    store, backup_dir = manager.shown
    result = {"changed": False, "backups": found, "count": len(found), "answer": answer, "read": {"store": store, "backup_dir": backup_dir}, **schedules}
    if "contents" in params["include"]:
        result["contents"] = contents(task) if found else None
    if "changes" in params["include"]:
        result["changes"] = manager.changes(found, params["diff_limit"])
    if "store" in params["include"]:
        result["store"] = manager.usage()
    if "search" in params["include"]:
        with manager.searched(task.pick(Query), task.dry) as searched:
            result["search"] = _search(task, searched)
    return result


def _search(task: Task, searched: Search, told: t.Sequence[str] = ()) -> Result:
    """What is asked for. A path that no backup has gives an empty list, as an unknown id does. :param told: what was warned of."""
    params, limit = task.params["search"], task.params["diff_limit"]
    try:
        found = searched.find(params["pattern"], limit) if params["pattern"] is not None else searched.history(params["path"], limit)
    except NotFound:
        return {"history": [], "count": 0, "more": 0, "searched": searched.count, "not_searched": []}
    for text in found.pop("warnings"):
        if text not in told:
            task.warn(text)
    return found


def _on_remote(task: Task) -> Result:
    from ansible_collections.volt.backup.plugins.module_utils._remote.declared import resolve  # a third of a start, and rarely needed
    from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote
    from ansible_collections.volt.backup.plugins.module_utils._remote.sealed import recovery_of

    if {"changes", "store"} & set(task.params["include"]):
        raise UsageError("Option `include` cannot be changes or store with `remote`; omit these, or omit `remote`.")
    host, _slash, backup = (task.params["id"] or "").rpartition("/")
    query = task.pick(Query)._replace(id=backup or None)
    settings = resolve(task.params["remote"], task.params["remote_credentials"])
    remote = Remote(task.manager, settings, recovery_of(task.params["identity"]))
    query = query._replace(host=host) if host else query
    found, faults = remote.find(query)
    for text in faults:
        task.warn(text)
    read = {"store": remote.transport.where, "backup_dir": remote.transport.where}
    result = {"changed": False, "backups": found, "count": len(found), "answer": "backups" if found else "nothing", "read": read, "faults": faults}
    if "contents" in task.params["include"]:
        result["contents"] = remote.contents(remote.meant(found[0]["id"]), task.params["diff_limit"]) if found else None
    if "search" in task.params["include"]:
        from ansible_collections.volt.backup.plugins.module_utils._backup.search import reads_all

        with remote.searched(query, reads_all(task.params["search"]["pattern"])) as searched:
            result["search"] = _search(task, searched, faults)
    return result


def _schedules(task: Task) -> Result:
    found = survey.survey(named=task.manager)
    for text in found.warnings:
        task.warn(text)
    told = found.value()
    include = task.params["include"]
    asked = {name: told[name] for name in ("schedules", "workloads", "problems")} if "schedules" in include else {}
    if "history" in include:
        asked["history"] = history.history(found.known, found.stock)
    if "drills" in include:
        asked["drills"] = history.drills(found.known)
    return asked


def contents(task: Task) -> Result | None:
    """Of a damaged backup, as long as its trees can be read."""
    try:
        return task.manager.contents(task.params["id"], task.params["diff_limit"])
    except (Damaged, Foreign, Unsupported) as error:
        task.warn(f"The contents of {task.params['id']} cannot be listed: {error.message}")
        return None


def main() -> None:
    run(work, OPTIONS, manager=Manager)


if __name__ == "__main__":
    main()
