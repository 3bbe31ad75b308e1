#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_backup_schedule
short_description: Schedule backups of a host's workloads with systemd timers
version_added: 0.1.0
description:
  - Declares when a workload of the host is backed up. The host then runs these backups itself. C(volt-backup status) on the host shows their state.
  - A schedule consists of a systemd timer and service, C(volt-backup-<workload>), and a job file in C(/etc/volt/backup) that only root can read. Files are
    only written, and systemd is only reloaded, if something differs.
  - An O(interval) has fixed times, counted in UTC from 1970. They are delayed by up to O(randomized_delay), so that not all hosts of a fleet start at
    once. The delay is constant for a host and workload. Reboots and daylight saving time do not move or skip a run. A host that was off catches up with
    one backup.
  - Only one run of a workload is active at a time, including its commands before and after the backup. C(volt-backup run WORKLOAD) on the host starts the
    same unit, waits for it, and shows the result.
  - The first enabled schedule creates the store. Its path and id are written to C(/etc/volt/backup.json), which all users can read and which is removed
    with the last schedule. Modules and commands use that store by default. If it is missing later, for example because its disk is not mounted, no new
    store is created, and all tasks and runs fail until it is back.
  - All schedules of a host use one store. Another store can be declared once no schedule uses the first.
  - Declare one schedule with O(workload), or all schedules of a host with O(schedules), in one task with one reload of systemd.
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
      - If the command or a source is missing, check mode only warns, because an earlier task may create it.
  diff_mode:
    support: full
    details:
      - Shows units, job files and C(/etc/volt/backup.json) before and after, including commands, and lists the store and directories that are created. The
        id of a new store is shown as C((new)).
  idempotent:
    support: full
requirements:
  - systemd 247 or newer, unless O(manage_units=false)
  - the command that M(volt.backup.volt_runner) writes
options:
  workload: &workload
    description:
      - Name of the workload. It is part of the names of the units.
    type: str
  source: &source
    description:
      - The directory to back up. It must exist, unless O(enabled=false), and must not be inside the store or O(backup_dir).
      - Required, unless O(command) or O(dumps) is set. Without it, only these are backed up, and O(snapshot) and O(quiesce) cannot be set.
      - If it does not exist, this schedule is not changed, all others are declared, and then the task fails. Check mode only warns.
    type: path
  state: &state
    description:
      - With V(absent), timer, service and job file are stopped and removed, and a running backup is stopped after its O(post_command). Backups and the
        history of runs are kept. Drop-ins that others added to a unit are kept too, with a warning.
    type: str
    choices: [present, absent]
    default: present
  interval: &interval
    description:
      - How often to back up, in whole minutes, for example V(90m), V(6h) or V(1d). Give this or O(on_calendar).
    type: str
  on_calendar: &on_calendar
    description:
      - When to back up, as in systemd's C(OnCalendar=), for example V(Mon..Fri 03:00 UTC). No delay is added. An expression without a future time is an error.
    type: str
  max_keep: &max_keep
    description:
      - How many backups made by this schedule to keep. V(0) keeps all. Give this or O(keep).
    type: int
    default: 0
  keep:
    description:
      - Which backups made by this schedule to keep. A backup is kept if any of the suboptions keeps it. The newest complete and undamaged one is always
        kept. Backups of other types are neither counted nor removed. A run fails if its source is empty but was not before, because the file system is
        probably not mounted.
      - If the finest rule is coarser than the O(interval), each run deletes the backup before it. The module warns about that. Add O(keep.last) or
        O(keep.within).
    type: dict
    suboptions: &keep
      last:
        description: Keep this many of the newest backups.
        type: int
      hourly:
        description: Keep the newest backup of each hour, for this many of the last hours that have one, in the time zone of the managed host.
        type: int
      daily:
        description: The same with days.
        type: int
      weekly:
        description: The same with weeks, from Monday to Sunday.
        type: int
      monthly:
        description: The same with months.
        type: int
      yearly:
        description: The same with years.
        type: int
      within:
        description: Keep backups younger than this, counted back from the newest backup, for example V(30d).
        type: str
      tags:
        description: Keep backups with any of these tags.
        type: list
        elements: str
  randomized_delay: &randomized_delay
    description:
      - Maximum delay of the times of an O(interval). It must be less than the interval. V(0s) means no delay.
    type: str
    default: 5m
  jitter_seed: &jitter_seed
    description:
      - Seed for the delay of this host. The default is its machine id. Cloned hosts share that, so set the inventory name in roles and playbooks.
        V(localhost) means machine id and host name, for hosts that run the module on themselves.
    type: str
  enabled: &enabled
    description:
      - With V(false), the timer is disabled and stopped. All files are kept.
    type: bool
    default: true
  exclude: &exclude
    description: Patterns to exclude, as in C(.gitignore).
    type: list
    elements: str
    default: []
  exclude_caches: &exclude_caches
    description: Exclude the content of directories that contain a C(CACHEDIR.TAG).
    type: bool
    default: false
  one_file_system: &one_file_system
    description: Do not enter other file systems.
    type: bool
    default: false
  unstable_ok: &unstable_ok
    description: Patterns of files that may change during the backup without making it unstable.
    type: list
    elements: str
    default: []
  fail_on_unstable: &fail_on_unstable
    description: Let the run fail if the backup is unstable. The backup is kept, and no backup is pruned.
    type: bool
    default: false
  max_shrink: &max_shrink
    description:
      - Percentage of files. A backup with more files lost than this is suspect. It is kept, the run fails, and no backup is pruned until a later backup is
        normal again or this one is accepted. See M(volt.backup.volt_backup). V(0) turns this off.
    type: int
    default: 50
  max_churn: &max_churn
    description:
      - Percentage of files. A backup is suspect, as above, if more files than this look encrypted or wiped. V(0) turns this off.
    type: int
    default: 5
  snapshot: &snapshot
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
  snapshot_size: &snapshot_size
    description:
      - Space that a classic snapshot of LVM takes in the volume group, as a percentage of the volume or in M, G or T. What is overwritten on the volume
        during the backup must fit into it, or there is no backup.
      - The default is 20% of the volume, or what is free in the volume group, if that is less.
      - Thin volumes, whose snapshots take their space from the pool, Btrfs and ZFS have no use for it.
    type: str
  quiesce: &quiesce
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
  command: &output_command
    description:
      - A program with its arguments. Its output becomes the file O(command_file) in the directory C(.volt-dumps) of the backup. It is stored as it
        comes, so it needs no space elsewhere.
      - If the program fails, or writes nothing, there is no backup.
    type: list
    elements: str
    default: []
  command_file: &command_file
    description: Name of the file in the backup that has the output of O(command). By default that of the program.
    type: str
  dumps: &dumps
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
  remote: &remote
    description:
      - A remote, a place off this host that keeps copies. It is a name that M(volt.backup.volt_remote) declared, or a URL such as
        C(file:///mnt/nas/backup).
      - Needs O(push_to_cdn=true).
    type: str
  push_to_cdn: &push_to_cdn
    description:
      - After each backup, copy it to O(remote), and with it all scheduled backups of this workload that have no copy there.
      - If that fails, the backup stands, the unit fails, and the next run makes up for it. The directory need not be mounted for a backup to be made.
    type: bool
    default: false
  tags: &tags
    description: Tags for the backups.
    type: list
    elements: str
    default: []
  workload_mode: &workload_mode
    description: How the workload runs, as a label, for example V(container).
    type: str
  compression: &compression
    description: How to compress new content.
    type: str
    choices: [auto, none, zstd, zlib]
    default: auto
  pre_command: &pre_command
    description:
      - A command to run before a backup, outside of the service's hardening, as a list of words that starts with an absolute path. If it fails or times
        out, the run fails and no backup is made.
      - It is visible to everyone who can read the job file or the process list. Keep secrets in a file that the command reads.
    type: list
    elements: str
    default: []
  post_command: &post_command
    description:
      - A command to run after a backup, whether it succeeded or failed. The environment variables E(VOLT_RESULT), which is C(success) or C(failure), and
        E(VOLT_REASON) have the result. If the command fails, the run counts as failed.
    type: list
    elements: str
    default: []
  drill_command: &drill_command
    description:
      - A command that checks the tree that a drill restored, as a list of words that starts with an absolute path. M(volt.backup.volt_restore_drill) and
        C(volt-backup drill) run it, never the schedule itself. The backup is only proved if it succeeds.
      - See O(volt.backup.volt_restore_drill#module:command) for the rights of the command.
    type: list
    elements: str
    default: []
  command_timeout: &command_timeout
    description: Timeout of O(pre_command), O(post_command) and O(drill_command) in seconds.
    type: int
    default: 600
  timeout: &timeout
    description:
      - How long a backup may take, including waiting and pruning, for example V(6h). A longer one is stopped, and the run fails with the code C(timeout).
        No partial backup is left, and no backup is removed. O(pre_command) and O(post_command) have O(command_timeout) instead.
      - By default, and with V(0), there is no limit.
    type: str
  stall: &stall
    description:
      - How long a backup may make no progress. If nothing was read or written for this long, for example because a disk or server does not respond, the
        backup is stopped and the run fails with the code C(stalled). The reason has the path. No partial backup is left, and no backup is removed.
      - Reading a large file counts as progress. Waiting for a lock on the store is limited by O(lock_timeout).
      - With V(0), or empty, there is no limit.
    type: str
    default: 15m
  nice: &nice
    description: The service's priority, from V(-20), the highest, to V(19).
    type: int
    default: 10
  io_class: &io_class
    description: I/O scheduling class of the service. V(none) uses systemd's default.
    type: str
    choices: [idle, best-effort, realtime, none]
    default: idle
  first_run: &first_run
    description:
      - When to make the first backup of a workload that has none yet. V(slot) waits for the first scheduled time, V(now) starts it at once. V(spread)
        starts it within the O(interval), or within a day with O(on_calendar), at a time that is fixed for the host and workload.
      - If the host reboots before the time of V(spread), the first backup is made as with V(slot).
      - With O(manage_units=false), no backup is started, and the module warns.
    type: str
    choices: [slot, now, spread]
    default: slot
  requires_mounts: &requires_mounts
    description:
      - Mount the file systems of O(source), O(store) and O(backup_dir) before a run if needed (C(RequiresMountsFor=)). If a mount fails, the run does not
        start, C(volt-backup status) shows the mount, and a notification is sent. Symbolic links are followed when the schedule is declared.
    type: bool
    default: true
  on_start_url: &on_start_url
    description:
      - A URL that is called (GET) when a run starts, for example of a service that monitors for missing runs.
      - In it, C({workload}), C({host}), C({event}), C({backup_id}), C({reason}), C({duration}) in seconds and C({size}) in bytes are replaced by their
        values. A call times out after 15 seconds. A failed call does not fail the backup. The URL is kept in the job file and never shown.
    type: str
  on_success_url: &on_success_url
    description: A URL that is called when a run has succeeded, including its commands and pruning. As O(on_start_url).
    type: str
  on_failure_url: &on_failure_url
    description: A URL that is called when a run has failed, including its commands or pruning. As O(on_start_url).
    type: str
  schedules:
    description:
      - Several schedules, each with the options from O(workload) to O(on_failure_url). Of these options, only O(jitter_seed) can also be set beside this
        list, as the default of all schedules.
    type: list
    elements: dict
    suboptions:
      workload:
        <<: *workload
        required: true
      source: *source
      state: *state
      interval: *interval
      on_calendar: *on_calendar
      max_keep: *max_keep
      keep:
        description: As O(keep).
        type: dict
        suboptions: *keep
      randomized_delay: *randomized_delay
      jitter_seed: *jitter_seed
      enabled: *enabled
      exclude: *exclude
      exclude_caches: *exclude_caches
      one_file_system: *one_file_system
      unstable_ok: *unstable_ok
      fail_on_unstable: *fail_on_unstable
      max_shrink: *max_shrink
      max_churn: *max_churn
      command: *output_command
      command_file: *command_file
      dumps: *dumps
      snapshot: *snapshot
      snapshot_size: *snapshot_size
      quiesce: *quiesce
      remote: *remote
      push_to_cdn: *push_to_cdn
      tags: *tags
      workload_mode: *workload_mode
      compression: *compression
      pre_command: *pre_command
      post_command: *post_command
      drill_command: *drill_command
      command_timeout: *command_timeout
      timeout: *timeout
      stall: *stall
      nice: *nice
      io_class: *io_class
      first_run: *first_run
      requires_mounts: *requires_mounts
      on_start_url: *on_start_url
      on_success_url: *on_success_url
      on_failure_url: *on_failure_url
  purge:
    description: Remove the schedules of the host that are not in O(schedules).
    type: bool
    default: false
  manage_units:
    description:
      - With V(false), files are written, but systemd is not called. For images, and for hosts without systemd.
    type: bool
    default: true
  force:
    description: Overwrite files of the same names that this collection did not write.
    type: bool
    default: false
  runner:
    description:
      - The command that the service starts, as installed by M(volt.backup.volt_runner). The service runs it with C(/usr/bin/python3) if that is Python 3.9
        or newer, else with the interpreter of this module.
    type: path
    default: /usr/local/bin/volt-backup
  metrics:
    description:
      - A file that each run writes for Prometheus' node exporter, such as C(/var/lib/prometheus/node-exporter/volt-backup.prom). It has, for all schedules
        of the host, the times of the last success and failure, the number of failures since, and sizes. Its directory must exist.
      - An existing file that this collection did not write is an error. It is only overwritten with O(force=true).
    type: path
  host_units:
    description:
      - Units of the whole host, as a dictionary of names and contents. Names are C(volt-backup.slice), and C(volt-cas-NAME) with C(.service) or
        C(.timer). Timers are enabled and started. Other units with such names that this module wrote are removed.
      - In a text, C(@PYTHON@) is replaced by the interpreter that the services of schedules use. C(@ANY_PYTHON@) is replaced by a command that finds
        another one if that is missing. C(@SPREAD@) is replaced by a minute and second that depend on O(jitter_seed), as in C(04:@SPREAD@). C(@HARDENED@)
        and C(@HARDENED_NETWORK@) are replaced by the hardening of a service that uses the store, or of one that connects to servers.
      - If one of them is removed or masked later, C(volt-backup status) shows trouble. It also shows a failed run, even after a reboot, if the service
        has C(ExecStopPost=-+@ANY_PYTHON@ /usr/local/bin/volt-backup status --publish --ended %n).
      - The role P(volt.backup.volt_schedule#role) renders them from its templates.
    type: dict
  on_failure:
    description:
      - How to send notifications of failures. C(volt-backup notify) sends them, called by the unit C(volt-cas-failure@.service) of O(host_units).
      - On the host, this is stored in C(/etc/volt/notify.json), which only root can read. Settings that are not given are removed.
    type: dict
    suboptions:
      command:
        description:
          - A command, as a list of words that starts with an absolute path. Its last argument is the name of the unit. Details are in environment variables
            such as E(VOLT_TEXT) and E(VOLT_LAST_SUCCESS), see P(volt.backup.volt_schedule#role).
        type: list
        elements: str
        default: []
      mail:
        description: How to send mail about failures.
        type: dict
        suboptions:
          to:
            description: Addresses, separated by commas.
            type: str
            required: true
          from:
            description: The sender. The default is C(volt-backup) at the host's name.
            type: str
          smtp:
            description: The server. Without it, the host's own C(/usr/sbin/sendmail) is called, which must exist.
            type: str
          port:
            description: The server's port. The default is 25, 587 or 465, depending on O(on_failure.mail.security).
            type: int
          security:
            description: How the connection is encrypted.
            type: str
            choices: [none, starttls, tls]
            default: none
          user:
            description: User name for the server.
            type: str
          password:
            description: Password for the server.
            type: str
      webhook:
        description: Where to post JSON with a C(text) and details.
        type: dict
        suboptions:
          url:
            description: The address.
            type: str
            required: true
          headers:
            description:
              - Headers to send, for example C(Authorization). Their values are hidden in results.
            type: dict
seealso:
  - module: volt.backup.volt_runner
  - module: volt.backup.volt_backup
"""

EXAMPLES = r"""
- name: Install the command that schedules use
  volt.backup.volt_runner:

- name: Back up an application every six hours, and keep a week of backups
  volt.backup.volt_backup_schedule:
    workload: app
    source: /srv/app
    interval: 6h
    max_keep: 28
    jitter_seed: "{{ inventory_hostname }}"

- name: Declare all schedules of a host, and remove all others
  volt.backup.volt_backup_schedule:
    schedules:
      - workload: app
        source: /srv/app
        interval: 6h
        keep:
          last: 8
          daily: 7
          weekly: 4
      - workload: etc
        source: /etc
        on_calendar: '*-*-* 03:30:00 UTC'
    purge: true

- name: Back up only the dump of a database, every hour
  volt.backup.volt_backup_schedule:
    workload: shop-db
    interval: 1h
    dumps:
      - postgresql:
          database: shop

- name: Remove a schedule
  volt.backup.volt_backup_schedule:
    workload: app
    state: absent
"""

RETURN = r"""
units:
  description: Names of the units of the declared schedules, in check mode too.
  type: list
  elements: str
  returned: success
  sample: [volt-backup-app.service, volt-backup-app.timer]
schedules:
  description: The schedules that were declared present.
  type: list
  elements: dict
  returned: success
  contains:
    workload:
      description: Name of the workload.
      type: str
      returned: always
      sample: app
    enabled:
      description: Whether it is enabled.
      type: bool
      returned: always
      sample: true
    calendar:
      description: The timer's calendar lines.
      type: list
      elements: str
      returned: always
      sample: ['*-*-* 00,06,12,18:03:41 UTC']
    next_elapse:
      description: When the next backup is due, in UTC. Null if it is disabled, and for O(on_calendar) if systemd does not know the timer yet.
      type: str
      returned: always
      sample: '2026-11-24T06:03:41.000000Z'
diff:
  description:
    - Each file before and after, the directories and the store that were created, and the timers that were enabled, disabled, started or stopped.
  type: list
  elements: dict
  returned: success, and on failure if sources are missing
  sample: []
store_id:
  description: Id of the store that this host's backups are in, if it is missing or another one is in its place. Null if its id is unknown.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
code:
  description:
    - Kind of failure, for conditions in playbooks. V(usage) for invalid options, or options that do not fit the host,
      V(store) for a store that is missing, that cannot be created or read, or for a C(/etc/volt/backup.json) that cannot be read,
      V(systemd) for an error of systemd, or if it does not run, V(error) for files that cannot be read or written.
  returned: failure
  type: str
  sample: usage
"""

import sys
import time
import typing as t

from ansible_collections.volt.backup.plugins.module_utils._module import DUMPS, KEEP, Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._backup import host
from ansible_collections.volt.backup.plugins.module_utils._backup.host import machine_id
from ansible_collections.volt.backup.plugins.module_utils._base import UsageError
from ansible_collections.volt.backup.plugins.module_utils._schedule import command, job as jobs, notification, systemd
from ansible_collections.volt.backup.plugins.module_utils._schedule.declare import Declaration, HostPaths, HostWide
from ansible_collections.volt.backup.plugins.module_utils._schedule.record import RunRecord
from ansible_collections.volt.backup.plugins.module_utils._schedule.status import next_elapse

#: Names by which any host calls itself.
_SELF = ("localhost", "127.0.0.1", "::1")

SCHEDULE = dict(
    workload=dict(type="str"),
    source=dict(type="path"),
    state=dict(type="str", choices=["present", "absent"], default="present"),
    interval=dict(type="str"),
    on_calendar=dict(type="str"),
    max_keep=dict(type="int", default=0),
    keep=KEEP,
    randomized_delay=dict(type="str", default="5m"),
    jitter_seed=dict(type="str"),
    enabled=dict(type="bool", default=True),
    exclude=dict(type="list", elements="str", default=[]),
    exclude_caches=dict(type="bool", default=False),
    one_file_system=dict(type="bool", default=False),
    unstable_ok=dict(type="list", elements="str", default=[]),
    fail_on_unstable=dict(type="bool", default=False),
    max_shrink=dict(type="int", default=50),
    max_churn=dict(type="int", default=5),
    command=dict(type="list", elements="str", default=[]),
    command_file=dict(type="str"),
    dumps=DUMPS,
    snapshot=dict(type="str", choices=["none", "auto", "require"], default="none"),
    snapshot_size=dict(type="str"),
    quiesce=dict(type="str", choices=["none", "pause", "stop"], default="none"),
    remote=dict(type="str"),
    push_to_cdn=dict(type="bool", default=False),
    tags=dict(type="list", elements="str", default=[]),
    workload_mode=dict(type="str"),
    compression=dict(type="str", choices=["auto", "none", "zstd", "zlib"], default="auto"),
    pre_command=dict(type="list", elements="str", default=[]),
    post_command=dict(type="list", elements="str", default=[]),
    drill_command=dict(type="list", elements="str", default=[]),
    command_timeout=dict(type="int", default=600),
    timeout=dict(type="str"),
    stall=dict(type="str", default="15m"),
    nice=dict(type="int", default=10),
    io_class=dict(type="str", choices=["idle", "best-effort", "realtime", "none"], default="idle"),
    first_run=dict(type="str", choices=["slot", "now", "spread"], default="slot"),
    requires_mounts=dict(type="bool", default=True),
    on_start_url=dict(type="str", no_log=True),
    on_success_url=dict(type="str", no_log=True),
    on_failure_url=dict(type="str", no_log=True),
)
OPTIONS = dict(
    SCHEDULE,
    schedules=dict(type="list", elements="dict", options=dict(SCHEDULE, workload=dict(type="str", required=True))),
    purge=dict(type="bool", default=False),
    manage_units=dict(type="bool", default=True),
    force=dict(type="bool", default=False),
    runner=dict(type="path", default="/usr/local/bin/volt-backup"),
    metrics=dict(type="path"),
    host_units=dict(type="dict"),
    on_failure=dict(
        type="dict",
        options=dict(
            command=dict(type="list", elements="str", default=[]),
            mail=dict(
                type="dict",
                options={
                    "to": dict(type="str", required=True),
                    "from": dict(type="str"),
                    "smtp": dict(type="str"),
                    "port": dict(type="int"),
                    "security": dict(type="str", choices=["none", "starttls", "tls"], default="none"),
                    "user": dict(type="str"),
                    "password": dict(type="str", no_log=True),
                },
            ),
            webhook=dict(type="dict", options=dict(url=dict(type="str", required=True, no_log=True), headers=dict(type="dict", no_log=True))),
        ),
    ),
)


def work(task: Task) -> Result:
    params = task.params
    if params["purge"] and params["schedules"] is None:
        raise UsageError("Option purge needs schedules; set the list of all schedules of this host.")
    given = [params] if params["schedules"] is None else params["schedules"]
    seed = _seed(params["jitter_seed"])
    wanted = [one for one in given if one["state"] == "present"]
    store, backup_dir = host.resolve(params["store"], params["backup_dir"]) if wanted else ("", "")
    shared = dict(store=store, backup_dir=backup_dir, lock_timeout=params["lock_timeout"], metrics=params["metrics"])
    present = [jobs.from_options(dict(one, jitter_seed=_seed(one["jitter_seed"]) if one["jitter_seed"] else seed), **shared) for one in wanted]
    absent = [jobs.check_workload(one["workload"]) for one in given if one["state"] == "absent"]
    manage = params["manage_units"]
    places = HostPaths(command=params["runner"])
    interpreter = command.interpreter(sys.executable)
    declaration = Declaration(present, absent, params["purge"], interpreter, manage, params["force"], places, _host_wide(params, seed))
    for text in declaration.plan(task.dry):
        task.warn(text)
    for text in [] if task.dry else declaration.apply():
        task.warn(text)
    failure = declaration.failure()
    if failure is not None and task.dry:
        task.warn(failure.message)
    elif failure is not None:
        raise UsageError(failure.message, changed=declaration.changed, diff=declaration.diff())
    names = [f"{job.unit}.timer" for job in present] if manage and not task.dry else []
    timers = systemd.show(names, "ActiveState", "SubState", "NextElapseUSecRealtime")
    return {
        "changed": declaration.changed,
        "diff": declaration.diff(),
        "units": [f"{job.unit}.{kind}" for job in present for kind in ("service", "timer")],
        "schedules": [
            {
                "workload": job.workload,
                "enabled": job.enabled,
                "calendar": job.slots.calendar() if job.slots else [job.on_calendar],
                "next_elapse": _next(job, timers.get(f"{job.unit}.timer")) if job.enabled else None,
            }
            for job in present
        ],
    }


def _next(job: jobs.Job, timer: t.Optional[t.Dict[str, str]]) -> t.Optional[str]:
    return next_elapse(job, timer, RunRecord(job.workload).read(), time.time())


def _seed(given: t.Optional[str]) -> str:
    """What tells this host from others. Where hosts declare for themselves, as by ansible-pull, all have the same name in the inventory."""
    if given in _SELF:
        return f"{machine_id() or ''} {host.name()}"
    return given or machine_id() or ""


def _host_wide(params: Result, seed: str) -> t.Optional[HostWide]:
    """What belongs to the host as a whole, where anything of that was given."""
    texts, told = params["host_units"], params["on_failure"]
    if texts is None:
        if told is not None:
            raise UsageError("Option `on_failure` needs `host_units`; set both, with the notification unit in the list.")
        return None
    for name, text in texts.items():
        if not isinstance(text, str):
            raise UsageError(f"Unit {name} of `host_units` must be a string.")
    return HostWide(texts, notification.check(told or {}), seed)


def plain(params: Result) -> set[str]:
    """Values of headers. Such as `app` may be words of any text, so they are hidden where they are given, and not blotted out wherever they appear."""
    told = params["on_failure"] or {}
    mail, webhook = told.get("mail") or {}, told.get("webhook") or {}
    return {str(value) for value in (webhook.get("headers") or {}).values()} - {mail.get("password"), webhook.get("url")}


def main() -> None:
    run(work, OPTIONS, signed=["nice"], plain=plain, required_one_of=[("workload", "schedules")], mutually_exclusive=[("workload", "schedules")])


if __name__ == "__main__":
    main()
