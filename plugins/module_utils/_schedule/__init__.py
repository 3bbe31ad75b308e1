# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Schedules: when a workload's backups are due, and the systemd timers that start them.

A schedule is a job file (what to back up and how) and a timer with its service (when). A *slot* is a time at which a backup is due.

::

    slots       at k x interval + phase, in UTC; the phase is a hash of seed and workload within the allowed delay, so that
                hosts and workloads are spread, and keep their times
    timer       an interval that divides a day: its slots themselves, as calendar lines; Persistent= catches up with one after downtime
                any other: ticks at gcd(interval, one day), which include all slots; the service exits if no slot began since the last run
    declare     check everything; render job, service and timer of each schedule; compare with the existing files
                write the differences, each beside and renamed; one reload; enable, start; of a removed schedule the job file goes last
    run         one at a time for each workload, with its hooks, by hand as by the timer: create, prune, record the result for `status`
    status      compares the records, what systemd says of runs that could not write any, and the existing backups

Files: `slots` (when), `job` (the job file), `units` (the units' texts), `systemd` (calls to systemd), `command` (the volt-backup file on a
host), `declare` (brings a host to the declared state), `destination` (the store of its schedules), `first` (a workload's first backup),
`leftovers` (files that a removal would leave), `run` (a scheduled backup), `apart` (the process that makes it), `watchdog` (ends one that is
too slow or stalls), `hooks` (commands and URLs around a run), `record` (results of runs), `days` (what came of each day), `ledger` (notes about
the host itself), `journal`, `status` (the state of each schedule), `held` (the existing backups), `history` (the last 90 days), `upkeep` (units
of the host itself),
`survey` (all of these), `metrics`, `public` (the status for users without root), `drill` (restores as a test), `notification` (the settings
of notifications), `notify` (sends them), `watch` (problems that no run finds), `send` (command, mail, webhook; imported only when needed).

systemd's own options do not work here: Persistent= has no effect on OnUnitActiveSec=, RandomizedDelaySec= is random each time and may skip a
slot, and cloned hosts have equal machine ids.
"""

from __future__ import annotations
