#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_backup
short_description: Back up a directory tree, or delete a backup
version_added: 0.1.0
description:
  - Backs up a directory tree of the managed host, a I(workload), into a content-addressed store on that host. Content that is already in the store, from
    any backup, is not stored again.
  - A backup keeps everything that a root file system can contain. This includes modes, owners, times to the nanosecond, symbolic and hard links,
    extended attributes, ACLs, file capabilities, holes in sparse files, device nodes, named pipes, sockets, and names of any bytes.
  - Pseudo file systems such as C(/proc) and C(/sys) are never backed up. The store and O(backup_dir) are excluded if they are inside the source.
  - In results, paths are UTF-8. A byte that is not valid UTF-8 appears as C(\xNN), a backslash as C(\\). Options that take paths accept
    this form.
author:
  - volt.backup contributors (!UNKNOWN)
extends_documentation_fragment:
  - volt.backup._attributes
  - volt.backup._attributes.actiongroup_volt
  - volt.backup._store
  - volt.backup._store.diff_limit
  - volt.backup._keep.create
  - volt.backup._remote
attributes:
  check_mode:
    support: full
    details:
      - Reads the source as a backup does, so that the result shows what would be new. Nothing is written.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - With O(state=present), each run makes a backup. With O(only_if_changed) or O(max_age), it only makes one if needed.
      - With all other states the module is idempotent.
requirements:
  - python3-boto3 (1.26 or newer) on the managed host, for a remote on S3
  - python3-zstandard on the managed host for the best compression, or the system's libzstd in its place; without either, zlib is used
options:
  state:
    description:
      - V(present) makes a backup.
      - V(absent) deletes the backup O(id), damaged or not. Its data stays in the store until M(volt.backup.volt_cas_gc) removes what no other backup needs.
      - V(accepted) with O(id) accepts a suspect backup as correct. It counts as good from then on, and later backups are compared with it.
      - V(accepted) with O(workload) accepts that a file system mounted at the last backups is no longer mounted; see RV(code=mount_missing).
      - V(protected) protects the backup O(id) from deletion, and V(unprotected) removes that protection. User and time are recorded.
    type: str
    choices:
      - present
      - absent
      - accepted
      - protected
      - unprotected
    default: present
  workload:
    description:
      - Name of the workload. All backups of one name form a series, even if their sources differ.
      - 1 to 128 letters, digits, dots, dashes and underscores, starting with a letter or a digit.
      - Required with O(state=present), and with O(state=accepted) without O(id).
    type: str
    aliases:
      - workload_name
      - name
  source:
    description:
      - The directory to back up, as an absolute path. A symbolic link to a directory is followed.
      - Required with O(state=present), unless O(command) or O(dumps) is set.
    type: path
    aliases:
      - source_path
      - path
  type:
    description:
      - Purpose of the backup. It is a label, and part of the backup's id.
    type: str
    choices:
      - manual
      - scheduled
      - snapshot
      - pre-deploy
    default: manual
    aliases:
      - backup_type
  workload_mode:
    description:
      - How the workload runs, as a label, for example V(container), V(hybrid-native), V(hybrid-kvm), V(hybrid-emulated),
        or any other text.
    type: str
  tags:
    description:
      - Labels to find the backup by.
    type: list
    elements: str
    default: []
  notes:
    description:
      - Notes about the backup.
    type: str
  exclude:
    description:
      - Patterns to exclude, as in V(.gitignore). A pattern with a slash at its start or in its middle is relative to O(source). One without a slash
        matches a name at any depth. One that ends with a slash matches directories only. V(!) at the start includes again what an earlier pattern excluded.
        C(\xNN) is the byte of that number, as in paths of results.
      - A restore does not change paths in its target that match these patterns.
    type: list
    elements: str
    default: []
  exclude_caches:
    description:
      - Exclude the content of directories with a valid C(CACHEDIR.TAG).
    type: bool
    default: false
  one_file_system:
    description:
      - Stay on the file system of O(source). Mount points of other file systems are backed up as empty directories.
    type: bool
    default: false
  compression:
    description:
      - How to store new content.
      - V(auto) uses zstd if available, else zlib. Larger files are cloned instead of compressed if the file system supports reflinks, for example XFS or Btrfs.
      - V(zstd) fails if zstd is not available. Content that is already stored is not changed.
    type: str
    choices:
      - auto
      - none
      - zstd
      - zlib
    default: auto
  only_if_changed:
    description:
      - Skip the backup if the newest complete and undamaged one of this workload has the same source, exclusions, content and attributes. The task is then
        unchanged and returns that backup.
      - Dumps of Redis, of MongoDB, and of PostgreSQL since August 2025, differ without any change, so with one of these in O(dumps) each run makes a backup.
    type: bool
    default: false
  max_age:
    description:
      - Skip the backup if the newest complete and undamaged one of this workload with the same source and exclusions is younger than this,
        for example V(90m), V(6h) or V(1d12h). The task is then unchanged and returns that backup, without reading the source.
    type: str
  unstable_ok:
    description:
      - Patterns, as for O(exclude), of files that may change during the backup without making it unstable. They are still listed in
        RV(backup.changed_while_read).
    type: list
    elements: str
    default: []
  fail_on_unstable:
    description:
      - Fail with RV(code=unstable) if files changed during the backup. The backup is kept and marked as unstable, and no backup is pruned.
    type: bool
    default: false
  max_shrink:
    description:
      - Percentage of files. A backup with more files lost than this, at once or gradually, is suspect. It is kept, the task fails with RV(code=suspect),
        and no backup is pruned.
      - Only files with content count, and only workloads with at least 50 files are checked. V(0) turns this off.
    type: int
    default: 50
  max_churn:
    description:
      - Percentage of files. A backup is suspect if more files than this look encrypted or wiped compared with the newest or the tenth newest good backup.
        It is kept, the task fails with RV(code=suspect), and no backup is pruned.
      - This only applies if it is more than three times as much as in the last five good backups, and only to workloads with at least 50 files.
        V(0) turns this off.
    type: int
    default: 5
  snapshot:
    description:
      - Read O(source) as it was at one moment. Btrfs makes read-only snapshots of the subvolume and of those below it,
        OpenZFS snapshots of the data sets, LVM snapshots of the logical volumes (ext4 and XFS). They are removed after the backup.
      - V(auto) uses snapshots where they are possible, and warns of file systems that were read while they were in use. V(require) fails for these.
      - Check mode makes no snapshot.
    type: str
    choices:
      - none
      - auto
      - require
    default: none
  snapshot_size:
    description:
      - Space that a classic snapshot of LVM takes in the volume group, as a percentage of the volume or in M, G or T. What is overwritten on the volume
        during the backup must fit into it, or there is no backup.
      - The default is 20% of the volume, or what is free in the volume group, if that is less.
      - Thin volumes, whose snapshots take their space from the pool, Btrfs and ZFS have no use for it.
    type: str
  quiesce:
    description:
      - Pause or stop the containers of Docker and Podman and the machines of systemd-nspawn that have O(source), something in it, or a directory above it
        mounted read-write, and the domains of libvirt that have a disk image in O(source). They are resumed after the backup, or, if all of the source is in
        snapshots, after these.
      - Dumps and O(command) run before that. If one cannot be paused or stopped, or does not resume, there is no backup.
      - A machine is paused by control groups of version 2, and stopped only if a service that systemd has a file of, such as C(systemd-nspawn@.service),
        runs it.
      - V(pause) freezes the file systems of a domain by its guest agent. A domain in which no agent is connected is suspended, with a warning. V(stop) shuts
        a domain down and starts it again. One that does not shut down in five minutes is left running, and there is no backup.
    type: str
    choices:
      - none
      - pause
      - stop
    default: none
  command:
    description:
      - A program with its arguments. Its output becomes the file O(command_file) in the directory C(.volt-dumps) of the backup, or, without
        O(source), at the top of it. It is stored as it comes, so it needs no space elsewhere.
      - If the program fails, or writes nothing, there is no backup.
    type: list
    elements: str
    default: []
  command_file:
    description: Name of the file in the backup that has the output of O(command). By default that of the program.
    type: str
  dumps:
    description:
      - Dumps of databases. Each becomes a file in the directory C(.volt-dumps) of the backup. A directory of that name in O(source) is left out.
      - Each item has one key, the database system.
      - Dumps are made before O(source) is read. If one fails, there is no backup.
      - A restore returns how to load them.
    type: list
    elements: dict
    default: []
    suboptions:
      postgresql:
        description: A database of PostgreSQL, as plain SQL by C(pg_dump), and the roles and tablespaces of the server by C(pg_dumpall).
        type: dict
        suboptions:
          database:
            description: Name of the database.
            type: str
            required: true
          globals:
            description: Also dump the roles, with their password hashes, and the tablespaces of the server. This needs a superuser.
            type: bool
            default: true
          host:
            description: Host name of the server, or the directory of its socket. By default, the socket where the client looks for it.
            type: str
          port:
            description: Port of the server.
            type: int
          user:
            description: Role to log in as.
            type: str
          run_as:
            description:
              - User of this host that C(pg_dump) runs as, for servers that check it (peer authentication). By default V(postgres), if neither
                O(dumps[].postgresql.host) nor O(dumps[].postgresql.password_file) is set.
            type: str
          password_file:
            description: File on the host that contains the password, and that only root can read.
            type: path
          name:
            description: Name of the file in the backup. By default C(postgresql-DATABASE.sql).
            type: str
      mariadb:
        description: A database of MariaDB or MySQL, or all of them, as SQL by C(mariadb-dump) or C(mysqldump). Tables of InnoDB are of one moment.
        type: dict
        suboptions:
          database:
            description: Name of the database. By default all databases of the server.
            type: str
          socket:
            description: Socket of the server.
            type: path
          host:
            description: Host name of the server.
            type: str
          port:
            description: Port of the server.
            type: int
          user:
            description: User to log in as.
            type: str
          password_file:
            description: File on the host that contains the password, and that only root can read.
            type: path
          name:
            description: Name of the file in the backup. By default C(mariadb-DATABASE.sql), or C(mariadb-all.sql).
            type: str
      sqlite:
        description: A SQLite database, as a copy that SQLite's backup interface makes, running as the owner of the file.
        type: dict
        suboptions:
          path:
            description: File of the database. A relative path is relative to O(source). Without that, the path must be absolute.
            type: str
            required: true
          name:
            description: Name of the file in the backup. By default C(sqlite-) and the name of the file.
            type: str
      redis:
        description: The data of a Redis server as an RDB file, by C(redis-cli).
        type: dict
        suboptions:
          socket:
            description: Socket of the server.
            type: path
          host:
            description: Host name of the server.
            type: str
          port:
            description: Port of the server.
            type: int
          user:
            description: User to log in as.
            type: str
          password_file:
            description: File on the host that contains the password, and that only root can read.
            type: path
          name:
            description: Name of the file in the backup. By default C(redis.rdb).
            type: str
      mongodb:
        description:
          - A database of MongoDB, or all of them, as an archive by C(mongodump).
          - The documents are of several moments, unless O(dumps[].mongodb.oplog) is set.
        type: dict
        suboptions:
          database:
            description: Name of the database. By default all databases of the server.
            type: str
          oplog:
            description:
              - Also dump what is written meanwhile, so the dump is of one moment when it is loaded.
              - Only for all databases of a replica set.
            type: bool
            default: false
          uri:
            description: Connection string of the server, without a password, such as V(mongodb://db1,db2/?replicaSet=rs0&tls=true).
            type: str
          socket:
            description: Socket of the server.
            type: path
          host:
            description: Host name of the server, or a replica set, such as V(rs0/db1,db2). By default this host.
            type: str
          port:
            description: Port of the server.
            type: int
          user:
            description: User to log in as.
            type: str
          password_file:
            description: File on the host that contains the password, and that only root can read.
            type: path
          auth_database:
            description: Database that has the user. By default the database of the dump, or V(admin).
            type: str
          name:
            description: Name of the file in the backup. By default C(mongodb-DATABASE.archive), or C(mongodb-all.archive).
            type: str
  allow_incomplete:
    description:
      - Only warn if something could not be read. By default the task then fails with RV(code=incomplete). In both cases the backup is kept and marked as
        incomplete.
    type: bool
    default: false
  allow_empty:
    description:
      - Back up an empty source even if its newest backup is not empty. By default the task then fails, because the file system is probably not mounted,
        and empty backups would replace the good ones.
      - After one backup with this option, later backups of the empty source do not need it.
    type: bool
    default: false
  new_store:
    description:
      - Start with an empty store if the known store of this host is missing. By default the task then fails, because its disk is probably not mounted.
      - Backups of the missing store stay listed as damaged. If the store exists, this option has no effect.
    type: bool
    default: false
  remote:
    description:
      - A remote, a place off this host that keeps copies. It is a name that M(volt.backup.volt_remote) declared, or a URL such as
        C(file:///mnt/nas/backup).
      - Needs O(push_to_cdn=true).
    type: str
  push_to_cdn:
    description:
      - Copy the backup to O(remote), and with it all backups of this workload and type that have no copy there, the oldest first. So a copy that failed is
        made by a later run.
      - The backup stands, and O(keep) is applied, even if the copy fails. The task then fails.
    type: bool
    default: false
  id:
    description:
      - The backup to delete, to accept or to protect. With O(state=absent), an id that does not exist is not an error.
      - Required with O(state=absent), O(state=protected) and O(state=unprotected). Not allowed with O(state=present).
    type: str
    aliases:
      - backup_id
seealso:
  - module: volt.backup.volt_backup_info
  - module: volt.backup.volt_backup_prune
  - module: volt.backup.volt_restore
"""

EXAMPLES = r"""
- name: Back up an application's data
  volt.backup.volt_backup:
    workload: app
    source: /srv/app
    exclude:
      - /tmp/
      - "*.log"

- name: Back up a container's root file system, unless nothing in it has changed
  volt.backup.volt_backup:
    workload: web
    source: /var/lib/machines/web
    workload_mode: container
    tags:
      - nightly
    one_file_system: true
    only_if_changed: true

- name: Make sure that there is a backup from the last six hours
  volt.backup.volt_backup:
    workload: web
    source: /var/lib/machines/web
    one_file_system: true
    max_age: 6h

- name: Accept that a disk mounted at the last backups was removed for good
  volt.backup.volt_backup:
    workload: app
    state: accepted

- name: Accept a suspect backup as correct
  volt.backup.volt_backup:
    id: "{{ suspect_backup }}"
    state: accepted
  when: suspect_backup is defined

- name: Start with an empty store after the disk with the store was lost
  volt.backup.volt_backup:
    workload: app
    source: /srv/app
    new_store: true

- name: Back up every night, and keep daily backups for a week, monthly ones for a year, and those with the tag release
  volt.backup.volt_backup:
    workload: app
    source: /srv/app
    type: scheduled
    keep:
      daily: 7
      monthly: 12
      tags:
        - release

- name: Back up, and copy the backup to a NAS that is mounted on the host
  volt.backup.volt_backup:
    workload: app
    source: /srv/app
    remote: file:///mnt/nas/backup
    push_to_cdn: true

- name: Back up before a deploy
  volt.backup.volt_backup:
    workload: app
    source: /srv/app
    type: pre-deploy
    notes: Before release 42
  register: before_deploy

- name: Show what the backup stored
  ansible.builtin.debug:
    msg: >-
      {{ before_deploy.backup.id }}: {{ before_deploy.backup.new_blobs }} of {{ before_deploy.backup.blob_count }} blobs were new,
      {{ before_deploy.backup.stored_bytes }} bytes were written, {{ before_deploy.diff.counts.changed }} paths had changed

- name: Delete this backup
  volt.backup.volt_backup:
    state: absent
    id: "{{ before_deploy.backup.id }}"
  when: not ansible_check_mode # no backup was made, so there is no id
"""

RETURN = r"""
backup:
  description:
    - The backup that was made. In check mode the one that would be made, with RV(backup.id), RV(backup.manifest_ref) and
      RV(backup.manifest_sha256) null. The matching one if no backup was needed.
    - With O(state=accepted), O(state=protected) and O(state=unprotected) the backup as it is marked now.
    - With O(state=absent) the deleted backup. If its own record could not be read, most of its keys are null.
  returned: success, and on failure with RV(code=incomplete), RV(code=suspect) or RV(code=unstable); with O(state=absent) if there was such a backup
  type: dict
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
            - V(mount_point) with O(one_file_system) for a single file of another file system, and for a mount that is served over a network or by FUSE.
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
        - Whether far more files were lost or rewritten than in the good backups before it, see O(max_shrink) and O(max_churn), and the backup was not
          accepted since. A suspect backup never counts as the newest one. While it is the last one, retention keeps all backups from before it.
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
      description: Dumps of databases in the backup, each with the database system (V(kind)), its path in the backup, and the V(database), null for all of them.
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
diff:
  description:
    - Differences from the newest complete and undamaged backup of the workload. Without such a backup, everything is added.
    - With O(state=absent) it has C(before) and C(after), which hold the id.
  returned: success, and on failure with RV(code=incomplete), RV(code=suspect) or RV(code=unstable)
  type: dict
  contains:
    added:
      description: Paths that are new, relative to the source.
      type: list
      elements: str
      returned: O(state=present)
      sample:
        - etc/app/new.conf
    changed:
      description: Paths whose content or attributes have changed. V(.) is the source itself.
      type: list
      elements: str
      returned: O(state=present)
      sample:
        - etc/app/app.conf
    removed:
      description: Paths that were removed.
      type: list
      elements: str
      returned: O(state=present)
      sample: []
    counts:
      description: Exact numbers.
      type: dict
      returned: O(state=present)
      contains:
        added:
          description: Number of paths that are new.
          type: int
          returned: always
          sample: 1
        changed:
          description: Number of paths that have changed.
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
      returned: O(state=present)
      sample: 0
    prepared:
      description: The same as text, which C(--diff) prints.
      type: str
      returned: O(state=present)
      sample: "+etc/app/new.conf\n~etc/app/app.conf\n"
    before:
      description: The id of the backup and a line break, or an empty string if there was none.
      type: str
      returned: O(state=absent)
      sample: "app-20261123-100000-manual\n"
    after:
      description: An empty text.
      type: str
      returned: O(state=absent)
      sample: ''
pruned:
  description: What O(keep) did, or would do in check mode. The backup that would be made then has no id.
  returned: O(state=present), if O(keep) is given and the task succeeded
  type: dict
  contains:
    kept:
      description: Backups that are kept, newest first.
      type: list
      elements: dict
      returned: always
      contains: &row
        id:
          description: The backup's id. Null in check mode for the one that would be made.
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
            - What keeps it. These are suboptions of O(keep), with the day, month or other period; or V(newest), or V(future) for one
              with a time in the future, or V(time unknown) and V(tags unknown) for one whose record cannot be read,
              or V(no complete and undamaged backup is left), or V(protected), V(older than a suspect backup) and V(first suspect).
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
      returned: always
      contains: *row
passed_over:
  description:
    - Newer backups that were not used because they are damaged, incomplete, suspect, have a time in the future (the clock was
      wrong) or belong to another backup directory.
    - It is not named C(skipped), because Ansible treats a task with a result of that name as skipped.
  returned: O(state=present) and success, and on failure with RV(code=incomplete), RV(code=suspect) or RV(code=unstable)
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
mounts:
  description:
    - Mount points that were accepted as missing with O(state=accepted) and O(workload), and on failure with RV(code=mount_missing) those that are missing.
  returned: O(state=accepted) and O(workload), and on failure with RV(code=mount_missing)
  type: list
  elements: str
  sample: [/srv/data]
store_id:
  description: Id of the store that this host's backups are in, if it is missing or another one is in its place. Null if its id is unknown.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
pushed:
  description: What was copied to O(remote), the oldest backup first.
  returned: on success with O(push_to_cdn), and on failure of a copy
  type: list
  elements: dict
  contains:
    id:
      description: Id of the backup. Null in check mode for the one that would be made.
      type: str
      returned: always
      sample: app-20261123-101500-manual
    changed:
      description: Whether a copy was made. It is not if the remote has one.
      type: bool
      returned: always
      sample: true
    push:
      description: Name of the copy on the remote. Null in check mode, and if none was made.
      type: str
      returned: always
      sample: web1-3f9a2c7d/20261123T101501Z-dc0bc81fc2871a49
    new_blobs:
      description: Pieces of content and metadata that the remote did not have.
      type: int
      returned: always
      sample: 812
    new_bytes:
      description: Size of the content among them before compression, in bytes.
      type: int
      returned: always
      sample: 73400320
    sent_bytes:
      description: Bytes of the packs that were sent. 0 in check mode.
      type: int
      returned: always
      sample: 21000000
    sent_packs:
      description: How many packs were sent.
      type: int
      returned: always
      sample: 2
    lost:
      description: Name of an earlier copy of the backup that O(remote) does not have any more. Null if there is none.
      type: str
      returned: always
      sample: null
code:
  description:
    - Kind of failure, for conditions in playbooks. V(usage) for invalid options, V(source) for a source that does
      not exist, is not a directory, or is empty but was not before, V(mount_missing) if a file system that was mounted at each of the last three good
      backups is not mounted, V(incomplete) for a backup that was kept although something could not be read, V(suspect) for a backup that was kept
      although too many files were lost or rewritten, see O(max_shrink) and O(max_churn), V(unstable) for a backup that was kept although files changed,
      with O(fail_on_unstable), V(protected) for a backup that is protected from deletion, V(not_found) for a backup to accept or protect that does not
      exist, V(store) for a store that is missing or cannot be used, V(store_full) for a full one, V(lock_timeout) for a lock that was held by others for
      too long, V(damaged) for a store in which something is missing or altered, V(unsupported) for data that a newer version wrote,
      V(remote), V(no_remote), V(remote_refused), V(remote_unreachable) and V(remote_full) for a backup that was made and not copied,
      V(foreign) for a backup that is not deleted because it belongs to another backup directory or store, V(interrupted) for a run that was interrupted.
  returned: failure
  type: str
  sample: incomplete
"""

import typing as t

from ansible_collections.volt.backup.plugins.module_utils._module import CREDENTIALS, DIFF_LIMIT, DUMPS, KEEP, Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.guards import suspect, unstable
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.marks import Marked
from ansible_collections.volt.backup.plugins.module_utils._backup.retention import parse_policy
from ansible_collections.volt.backup.plugins.module_utils._base import Incomplete, UsageError, VoltError

if t.TYPE_CHECKING:
    from ansible_collections.volt.backup.plugins.module_utils._remote.declared import Settings

OPTIONS = dict(
    DIFF_LIMIT,
    state=dict(type="str", choices=["present", "absent", "accepted", "protected", "unprotected"], default="present"),
    workload=dict(type="str", aliases=["workload_name", "name"]),
    source=dict(type="path", aliases=["source_path", "path"]),
    type=dict(type="str", choices=["manual", "scheduled", "snapshot", "pre-deploy"], default="manual", aliases=["backup_type"]),
    workload_mode=dict(type="str"),
    tags=dict(type="list", elements="str", default=[]),
    notes=dict(type="str"),
    exclude=dict(type="list", elements="str", default=[]),
    exclude_caches=dict(type="bool", default=False),
    one_file_system=dict(type="bool", default=False),
    compression=dict(type="str", choices=["auto", "none", "zstd", "zlib"], default="auto"),
    only_if_changed=dict(type="bool", default=False),
    max_age=dict(type="str"),
    unstable_ok=dict(type="list", elements="str", default=[]),
    fail_on_unstable=dict(type="bool", default=False),
    remote=dict(type="str"),
    remote_credentials=CREDENTIALS,
    push_to_cdn=dict(type="bool", default=False),
    max_shrink=dict(type="int", default=50),
    max_churn=dict(type="int", default=5),
    command=dict(type="list", elements="str", default=[]),
    command_file=dict(type="str"),
    dumps=DUMPS,
    snapshot=dict(type="str", choices=["none", "auto", "require"], default="none"),
    snapshot_size=dict(type="str"),
    quiesce=dict(type="str", choices=["none", "pause", "stop"], default="none"),
    allow_incomplete=dict(type="bool", default=False),
    allow_empty=dict(type="bool", default=False),
    new_store=dict(type="bool", default=False),
    keep=KEEP,
    id=dict(type="str", aliases=["backup_id"]),
)
RULES = [
    ("state", "present", ["workload"]),
    ("state", "absent", ["id"]),
    ("state", "protected", ["id"]),
    ("state", "unprotected", ["id"]),
]


def work(task: Task) -> Result:
    states = {"absent": delete, "accepted": accept, "present": create, "protected": protect, "unprotected": protect}
    return states[task.params["state"]](task)


def accept(task: Task) -> Result:
    backup, workload = task.params["id"], task.params["workload"]
    if (backup is None) == (workload is None):
        raise UsageError("State accepted needs either id (of a suspect backup) or workload (with a missing mount).")
    if backup is not None:
        return mark(task.manager.accept(backup, task.dry), "suspect")
    forgotten = task.manager.accept_mounts(workload, task.dry)
    return {"changed": bool(forgotten), "mounts": forgotten, "diff": {"before": "".join(f"{point}\n" for point in forgotten), "after": ""}}


def protect(task: Task) -> Result:
    return mark(task.manager.protect(task.params["id"], task.params["state"] == "protected", task.dry), "protected")


def mark(marked: Marked, key: str) -> Result:
    """What became of a mark: the backup as it is now, and the mark before and after."""
    after = marked.backup[key]
    before = not after if marked.changed else after
    return {"changed": marked.changed, "backup": marked.backup, "diff": {"before": f"{key}: {before}\n", "after": f"{key}: {after}\n"}}


def delete(task: Task) -> Result:
    gone = task.manager.delete(task.params["id"], task.dry)
    found = {} if gone is None else {"backup": gone}
    before = "" if gone is None else f"{gone['id']}\n"
    return {"changed": gone is not None, "diff": {"before": before, "after": ""}, **found}


def create(task: Task) -> Result:
    if task.params["id"] is not None:
        raise UsageError("Option id does not apply to state present, because a new backup gets a new id; omit it.")
    if task.params["keep"] is not None:
        parse_policy(task.params["keep"])  # what is wrong with it is said before there is a backup
    push = copier(task)
    made = task.manager.create(task.pick(CreateRequest), task.dry, new_store=task.params["new_store"])
    result = {"changed": made.changed, "backup": made.backup, "diff": made.diff, "passed_over": made.skipped}
    for text in made.warnings:
        task.warn(text)
    if made.changed and made.backup["suspect"]:
        raise suspect(result)
    if not made.backup["complete"] and not task.params["allow_incomplete"]:
        kept = f"It is kept as {made.backup['id']}" if made.backup["id"] else "It would be kept"
        raise Incomplete(f"{made.warnings[-1]} {kept}; use `allow_incomplete: true` if that is acceptable.", **result)
    if result["changed"] and made.backup["unstable"] and task.params["fail_on_unstable"]:
        raise unstable(result)
    candidates = task.manager.copies.candidates(task.params["workload"], task.params["type"]) if push is not None else []
    uncopied = {item["id"] for item in candidates if not item["copies"]}
    result = result if task.params["keep"] is None else retain(task, result)
    if push is None:
        return result
    lost = sorted(uncopied & {gone["id"] for gone in result.get("pruned", {}).get("removed", ())})
    if lost:
        task.warn(f"{', '.join(lost)}: pruned, and never copied off this host; raise `keep`, or make copies more often.")
    return push(result)


def copier(task: Task) -> t.Callable[[Result], Result] | None:
    """What makes copies on the remote after a backup; None where there are none to be made. What is wrong with the options is raised before there is one."""
    url = task.params["remote"]
    if not task.params["push_to_cdn"]:
        if url is not None:
            raise UsageError("Option `remote` has no effect without `push_to_cdn: true`; set that, or omit `remote`.")
        return None
    if url is None:
        raise UsageError("Option `push_to_cdn` needs `remote`; set the URL of the remote.")
    from ansible_collections.volt.backup.plugins.module_utils._remote.declared import resolve  # only here: it takes time to import

    settings = resolve(url, task.params["remote_credentials"])
    return lambda result: copied(task, settings, result)


def copied(task: Task, settings: Settings, result: Result) -> Result:
    """Copy the backup, and all of its workload and type that have no copy yet."""
    from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Pushed, Remote, Which, told

    backup = result["backup"]
    try:
        remote = Remote(task.manager, settings)
        done = remote.push(Which(workload=task.params["workload"], type=task.params["type"]), task.dry)
    except VoltError as error:
        made = f"Backup {backup['id']} was made" if result["changed"] else "No backup was needed"
        raise type(error)(f"{made}, but not all copies were: {error.message}", **{**error.details, **result}) from None
    for text in remote.warnings:
        task.warn(text)
    pushed = told(done)
    if backup["id"] is None:
        pushed += told([(backup, Pushed(None, backup["new_blobs"], backup["new_bytes"], 0, 0))])
    now = {sidecar["id"]: sidecar for sidecar, _pushed in done}.get(backup["id"], backup)
    backup = {**backup, "copies": now["copies"], "pushed_to_cdn": now["pushed_to_cdn"]}
    return {**result, "backup": backup, "pushed": pushed, "changed": result["changed"] or any(copy["changed"] for copy in pushed)}


def retain(task: Task, result: Result) -> Result:
    """Delete what is not to be kept beside the backup that was made, or that made another one needless."""
    params, backup = task.params, result["backup"]
    try:
        coming = backup if backup["id"] is None else None
        done = task.manager.prune(params["workload"], params["keep"], [params["type"]], task.dry, coming, task.dry and params["new_store"])
    except VoltError as error:
        made = f"Backup {backup['id']} was made" if result["changed"] else "No backup was needed"
        raise type(error)(f"{made}, but older ones could not be pruned: {error.message}", **{**error.details, **result}) from None
    diff = {**result["diff"], "prepared": result["diff"]["prepared"] + done.diff["prepared"]}
    return {**result, "changed": result["changed"] or done.changed, "diff": diff, "pruned": {"kept": done.kept, "removed": done.removed}}


def main() -> None:
    run(work, OPTIONS, manager=Manager, required_if=RULES)


if __name__ == "__main__":
    main()
