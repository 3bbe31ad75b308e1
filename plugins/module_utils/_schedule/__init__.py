# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Schedules: when a workload's backups are due, and the systemd timers that start them.

A schedule is a job file, which says what to back up and how, and a timer with its service, which say when. Terms: a *slot* is a moment
at which a backup is due.

::

    slots       at k x interval + phase, in UTC; the phase is a hash of seed and workload within the delay that may be had, so that
                hosts and workloads spread, and stay where they are for good
    timer       an interval that divides a day: its slots themselves, as calendar lines; Persistent= makes up for one while off
                any other: ticks at gcd(interval, one day), which meet all slots; the unit leaves where no slot began since the last run
    declare     check everything; render job, service, timer of each schedule; compare with what lies there
                write what differs, each beside and renamed; one reload; enable, start; of what is removed the job file goes last
    run         one of a workload at a time with its hooks, by hand as by the timer: create, prune, note the outcome for `status`
    status      what the notes say, what systemd says of runs that could not make any, and which backups there are

Files: `slots` (when), `job` (the job file), `units` (what systemd reads), `systemd` (what it is asked), `command` (the volt-backup file on a host),
`declare` (making a host what is declared), `destination` (where its schedules back up to), `first` (a workload's first backup), `leftovers` (what a
removal would leave), `run` (a scheduled backup), `apart` (the process that makes it), `watchdog` (ending one that takes too long or stands still), `hooks`
(what belongs to a run and is no backup), `record` (what became of runs), `ledger` (what is noted of the host as a whole), `journal`, `process` (programs
that are started), `status` (how each schedule fares), `held` (which backups there are), `upkeep` (units of the host as a whole), `survey` (all of these),
`metrics`, `public` (what those learn who are not root), `drill` (restoring to see that it can be done), `notification` (the settings by which people are
told), `notify` (telling them), `watch` (of what no run finds), `send` (command, mail, webhook; loaded only there).

systemd's own ways do not serve: Persistent= does nothing for OnUnitActiveSec=, RandomizedDelaySec= draws anew each round and may
skip one, and machine ids of cloned hosts are equal.
"""

from __future__ import annotations
