#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_backup_schedule
short_description: Back up workloads of a host by themselves, by systemd timers
version_added: 0.1.0
description:
  - Declares when a workload of the host is backed up. The host then does it by itself, as C(volt-backup status) on it tells.
  - A schedule is a timer and a service of systemd, C(volt-backup-<workload>), and a job file in C(/etc/volt/backup) that only root may read.
    They are compared with what is there, and nothing is written, reloaded or started where nothing differs.
  - An O(interval) has fixed times, counted in UTC from 1970. They are moved by up to O(randomized_delay), by as much for good as host and workload decide, so
    that a fleet does not start at once. Neither a reboot nor daylight saving moves or skips one. A host that was off makes up for one backup.
  - One run of a workload at a time, with its commands before and after it. C(volt-backup run WORKLOAD) on the host starts the same unit, waits, and
    tells what became of it.
  - The first schedule that is enabled makes the store. Its place and its id are written to C(/etc/volt/backup.json), which all may read, and which goes
    with the last schedule. Modules and commands that name no store mean that one. Where it is away later, for example because its disk is not mounted,
    nothing is made in its place, and declarations, runs and all else fail until it is there.
  - A host has one store. Another one can be declared once no other schedule uses the first.
  - Give one schedule by O(workload), or all of a host by O(schedules), which takes one task and one reload.
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
      - Where the command or a source is missing, this is a warning and no failure, since the task that is to make it has not done so either.
  diff_mode:
    support: full
    details:
      - Shows units, job files and C(/etc/volt/backup.json) as they are and as they are to be, and names what is made of store and directories.
        Commands are among that. The id of a store that is made is shown as C((new)).
  idempotent:
    support: full
requirements:
  - systemd 247 or newer, unless O(manage_units=false)
  - the command that M(volt.backup.volt_runner) writes
options:
  workload: &workload
    description:
      - Name of the workload, which becomes a part of the units' names.
    type: str
  source: &source
    description:
      - The directory to back up. It must exist, unless O(enabled=false), and must not lie where backups are kept.
      - Where it does not exist, this schedule stays as it is, all others are declared, and then the task fails. Check mode warns.
    type: path
  state: &state
    description:
      - With V(absent), timer, service and job file are stopped and removed, and a run that is at work is ended, with its O(post_command). Backups and the
        history of runs stay. Drop-ins of a unit that others wrote stay as well, and are warned of.
    type: str
    choices: [present, absent]
    default: present
  interval: &interval
    description:
      - How often to back up, in whole minutes, for example V(90m), V(6h) or V(1d). Give this or O(on_calendar).
    type: str
  on_calendar: &on_calendar
    description:
      - When to back up, as in systemd's C(OnCalendar=), for example V(Mon..Fri 03:00 UTC). It is taken as it is, without a delay. What never
        comes true again is refused.
    type: str
  max_keep: &max_keep
    description:
      - How many backups to keep of those that the schedule makes. V(0) keeps all. Give this or O(keep).
    type: int
    default: 0
  keep:
    description:
      - Which backups to keep of those that the schedule makes. A backup is kept if any of the suboptions keeps it. The newest complete and
        undamaged one is kept in any case. Backups of other types are neither counted nor removed. A run whose source is empty, and was not before,
        fails, since a file system that is not mounted looks like that.
      - Where the finest of the rules is coarser than the O(interval), each run would delete the backup before it. The module warns of that.
        O(keep.last) or O(keep.within) helps.
    type: dict
    suboptions: &keep
      last:
        description: Keep the newest so many.
        type: int
      hourly:
        description: Keep the newest backup of each of the newest so many hours that have one, by the clock of the managed host.
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
        description: Keep what is younger than this, counted back from the newest backup, for example V(30d).
        type: str
      tags:
        description: Keep what bears any of these tags.
        type: list
        elements: str
  randomized_delay: &randomized_delay
    description:
      - By how much the times of an O(interval) may be moved. It must be less than the interval. V(0s) for none.
    type: str
    default: 5m
  jitter_seed: &jitter_seed
    description:
      - What tells this host from others when times are moved. By default this is its machine id, which cloned hosts share, so a role or playbook
        better gives the inventory's name. V(localhost) means machine id and host name, for hosts that declare their schedules by themselves.
    type: str
  enabled: &enabled
    description:
      - With V(false), all files are kept, but the timer is disabled and stopped.
    type: bool
    default: true
  exclude: &exclude
    description: Patterns of what to leave out, as in C(.gitignore).
    type: list
    elements: str
    default: []
  exclude_caches: &exclude_caches
    description: Leave out the content of directories that hold a C(CACHEDIR.TAG).
    type: bool
    default: false
  one_file_system: &one_file_system
    description: Do not enter other file systems.
    type: bool
    default: false
  unstable_ok: &unstable_ok
    description: Patterns of files that may change while they are read, without the backup being unstable.
    type: list
    elements: str
    default: []
  fail_on_unstable: &fail_on_unstable
    description: An unstable backup is kept, and the run fails. Nothing is pruned then.
    type: bool
    default: false
  max_shrink: &max_shrink
    description:
      - Percent of files. A backup that has lost more than this is suspect. It is kept, the run fails, and nothing is pruned until a later
        backup fits again or this one is accepted. See M(volt.backup.volt_backup). V(0) turns this off.
    type: int
    default: 50
  max_churn: &max_churn
    description:
      - Percent of files. A backup in which more than this were replaced by what looks encrypted or wiped is suspect, likewise. V(0) turns this off.
    type: int
    default: 5
  tags: &tags
    description: Tags for the backups.
    type: list
    elements: str
    default: []
  workload_mode: &workload_mode
    description: What kind of workload it is, for example V(container).
    type: str
  compression: &compression
    description: How new content is compressed.
    type: str
    choices: [auto, none, zstd, zlib]
    default: auto
  pre_command: &pre_command
    description:
      - A command to run before a backup, outside of the service's hardening, as a list of words that begins with an absolute path. If it
        fails, or takes too long, the run fails and no backup is made.
      - All who may read the job file, and root's processes, can see it. Let it read its secrets from a file.
    type: list
    elements: str
    default: []
  post_command: &post_command
    description:
      - A command to run after a backup, whatever became of it. It learns that from the environment, as E(VOLT_RESULT), which is C(success) or C(failure), and
        E(VOLT_REASON). If it fails, the run counts as failed.
    type: list
    elements: str
    default: []
  command_timeout: &command_timeout
    description: After how many seconds O(pre_command) or O(post_command) is ended.
    type: int
    default: 600
  timeout: &timeout
    description:
      - How long a backup may take, with what it waits and what it prunes, for example V(6h). One that takes longer is ended, and the run fails with the code
        C(timeout). Nothing half-done is left and no backup is removed. O(pre_command) and O(post_command) have O(command_timeout) instead.
      - By default, and with V(0), it may take as long as it takes.
    type: str
  stall: &stall
    description:
      - How long a backup may stand still. Where nothing was looked at, read or written for so long, as by a disk or a server that does not answer, it is ended
        and the run fails with the code C(stalled). The reason names the path at which it stood. Nothing half-done is left and no backup is removed.
      - A large file that is being read is progress. Waiting for others that use the store is bounded by O(lock_timeout).
      - With V(0), or empty, a backup may stand still.
    type: str
    default: 15m
  nice: &nice
    description: The service's priority, from V(-20), the highest, to V(19).
    type: int
    default: 10
  io_class: &io_class
    description: The service's class of I/O scheduling. V(none) leaves it as it is for any service.
    type: str
    choices: [idle, best-effort, realtime, none]
    default: idle
  first_run: &first_run
    description:
      - When a workload that has no backup yet is backed up first, once its schedule is there and enabled. V(slot) waits for its first time, and V(now)
        does it at once. V(spread) does it within the O(interval), or a day of O(on_calendar), at a moment that host and workload decide.
      - The moment of V(spread) is forgotten when the host is started anew before. The first time is then as with V(slot).
      - With O(manage_units=false) nothing is begun, and a warning says so.
    type: str
    choices: [slot, now, spread]
    default: slot
  requires_mounts: &requires_mounts
    description:
      - Start a run only once what is to be mounted for O(source), O(store) and O(backup_dir) is mounted (C(RequiresMountsFor=)), and mount it if need be. Where
        a mount fails, no run is started, C(volt-backup status) says which it was, and people are told. Symbolic links are followed when the
        schedule is declared.
    type: bool
    default: true
  on_start_url: &on_start_url
    description:
      - An address that is called (GET) when a run begins, such as that of a service which watches for runs that do not come.
      - In it, C({workload}), C({host}), C({event}), C({backup_id}), C({reason}), C({duration}) in seconds and C({size}) in bytes stand for what is
        known. A call takes 15 seconds at most. That it does not answer makes no backup bad. It is kept in the job file, and shown nowhere.
    type: str
  on_success_url: &on_success_url
    description: An address that is called when a run has succeeded, with all that belongs to it. As O(on_start_url).
    type: str
  on_failure_url: &on_failure_url
    description: An address that is called when a run has failed, or what belongs to it. As O(on_start_url).
    type: str
  schedules:
    description:
      - Several schedules, each with the options from O(workload) to O(on_failure_url). Of these only O(jitter_seed) also counts beside it, for all that
        have none of their own.
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
      tags: *tags
      workload_mode: *workload_mode
      compression: *compression
      pre_command: *pre_command
      post_command: *post_command
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
    description: Remove the schedules of the host that O(schedules) does not name.
    type: bool
    default: false
  manage_units:
    description:
      - With V(false), files are written, but systemd is not told. For images, and for hosts on which systemd does not run.
    type: bool
    default: true
  force:
    description: Overwrite files of the same names that are not this collection's.
    type: bool
    default: false
  command:
    description:
      - The command that the service starts, as M(volt.backup.volt_runner) has written it. The service starts it by C(/usr/bin/python3), where that is
        Python 3.9 or newer, else by the interpreter that this module runs under.
    type: path
    default: /usr/local/bin/volt-backup
  metrics:
    description:
      - A file that each run writes for Prometheus' node exporter, such as C(/var/lib/prometheus/node-exporter/volt-backup.prom). It tells of all
        schedules of the host when the last run succeeded and failed, how often it failed since, and sizes. Its directory must be there.
      - A file there that this collection did not write is refused, and replaced with O(force=true). It is neither overwritten nor removed otherwise.
    type: path
  host_units:
    description:
      - Units of the host as a whole, by their names, each as its text. Names are C(volt-backup.slice), and C(volt-cas-NAME) with C(.service) or
        C(.timer). Timers are enabled and started. Units of such names that this module wrote, and that are not among these, are removed.
      - In a text, C(@PYTHON@) stands for the interpreter that the services of schedules have. C(@ANY_PYTHON@) stands for a line that finds one that works,
        should that be gone. C(@SPREAD@) stands for minute and second within an hour by O(jitter_seed), as in C(04:@SPREAD@). C(@HARDENED@) and
        C(@HARDENED_NETWORK@) stand for the lines that harden a service which works on the store, or one which speaks to servers.
      - One of them that is removed or masked later is trouble to C(volt-backup status). So is a failed run, also after a restart of the host, if the service
        has C(ExecStopPost=-+@ANY_PYTHON@ /usr/local/bin/volt-backup status --publish --ended %n).
      - The role P(volt.backup.volt_schedule#role) renders them by its templates.
    type: dict
  on_failure:
    description:
      - By which ways people are told of failures, by C(volt-backup notify), which the unit C(volt-cas-failure@.service) of O(host_units) calls.
      - On the host this is in C(/etc/volt/notify.json), for root alone. What is not given is removed.
    type: dict
    suboptions:
      command:
        description:
          - A command, as a list of words that begins with an absolute path. It gets the name of the unit as its last word, and the rest by
            environment variables from E(VOLT_TEXT) to E(VOLT_LAST_SUCCESS).
        type: list
        elements: str
        default: []
      mail:
        description: Whom to write, and how.
        type: dict
        suboptions:
          to:
            description: Addresses, with commas between them.
            type: str
            required: true
          from:
            description: The sender. By default C(volt-backup) at the host.
            type: str
          smtp:
            description: The server. Without it, the host's own C(/usr/sbin/sendmail) is called, which must be there.
            type: str
          port:
            description: The server's port. By default 25, 587 or 465, as O(on_failure.mail.security) has it.
            type: int
          security:
            description: How the connection is encrypted.
            type: str
            choices: [none, starttls, tls]
            default: none
          user:
            description: The user's name at the server.
            type: str
          password:
            description: The user's password.
            type: str
      webhook:
        description: Where to post JSON with a C(text) and what there is to know.
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
- name: Write the command that schedules start
  volt.backup.volt_runner:

- name: Back up an application every six hours, and keep a week of it
  volt.backup.volt_backup_schedule:
    workload: app
    source: /srv/app
    interval: 6h
    max_keep: 28
    jitter_seed: "{{ inventory_hostname }}"

- name: Declare all schedules of a host, and remove what was declared before
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

- name: Do not back it up by itself any more
  volt.backup.volt_backup_schedule:
    workload: app
    state: absent
"""

RETURN = r"""
units:
  description: Names of the units of the schedules that are there, or in check mode would be.
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
      description: Whether it backs up.
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
      description: When the next backup is due, in UTC. Null for one that is disabled, and for O(on_calendar) where systemd was not told yet.
      type: str
      returned: always
      sample: '2026-11-24T06:03:41.000000Z'
diff:
  description:
    - Each file as it was and as it is, which directories were made, whether the store was, and which timers were enabled, disabled, started or stopped.
  type: list
  elements: dict
  returned: success, and on failure where sources are missing
  sample: []
store_id:
  description: The id of the store that is known on the host and is away, or in whose place another one is. Null if only that there is one is known.
  returned: on failure with RV(code=store) for that reason
  type: str
  sample: 0d8f3a7c5b6e49d2a1f0c3b2e4d5f697
code:
  description:
    - What kind of failure it was, for a playbook to branch on. V(usage) for a declaration that is wrong in itself, or does not fit the host,
      V(store) for a store that is known and not there, that cannot be made or read, or for a C(/etc/volt/backup.json) that cannot be read,
      V(systemd) for what systemd refused, or where it is absent, V(error) for files that cannot be read or written.
  returned: failure
  type: str
  sample: usage
"""

import socket
import sys
import time
import typing as t

from ansible_collections.volt.backup.plugins.module_utils._backup import host
from ansible_collections.volt.backup.plugins.module_utils._backup.create import machine_id
from ansible_collections.volt.backup.plugins.module_utils._base import UsageError
from ansible_collections.volt.backup.plugins.module_utils._module import KEEP, Result, Task, run
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
    tags=dict(type="list", elements="str", default=[]),
    workload_mode=dict(type="str"),
    compression=dict(type="str", choices=["auto", "none", "zstd", "zlib"], default="auto"),
    pre_command=dict(type="list", elements="str", default=[]),
    post_command=dict(type="list", elements="str", default=[]),
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
    command=dict(type="path", default="/usr/local/bin/volt-backup"),
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
    places = HostPaths(command=params["command"])
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
        return f"{machine_id() or ''} {socket.gethostname()}"
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
