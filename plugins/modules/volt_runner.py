#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_runner
short_description: Write the command C(volt-backup) to a host
version_added: 0.1.0
description:
  - The command is the engine of these modules in one executable file, for timers and for people. It needs Python and nothing else, not even Ansible.
  - It is made of what Ansible sends to the host to run this module, so nothing is downloaded, and it is of the same version as the collection.
    An older or newer one is replaced.
  - The file is the same on every host, whichever Python made it.
  - A file of that name that this module did not write is neither replaced nor removed; the task fails.
  - If O(path) is called C(volt-backup) and is in a directory C(bin) or C(sbin), the manual page and completion for bash, zsh and fish are written beside it,
    such as C(/usr/local/share/man/man8/volt-backup.8). A file there that this module did not write is left alone, with a warning.
    They are removed with the command.
author:
  - volt.backup contributors (!UNKNOWN)
extends_documentation_fragment:
  - volt.backup._attributes
  - volt.backup._attributes.actiongroup_volt
  - volt.backup._store
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows version and checksums of the files, not their content.
  idempotent:
    support: full
options:
  state:
    description:
      - Whether the command is there. It is not removed while units of schedules start it, for a run that is at work needs it to end. Remove these by
        M(volt.backup.volt_backup_schedule) first. In check mode that is a warning, since the task that removes them removed nothing either.
    type: str
    choices: [present, absent]
    default: present
  path:
    description:
      - The file. Its directory must be there.
    type: path
    default: /usr/local/bin/volt-backup
seealso:
  - module: volt.backup.volt_backup_schedule
"""

EXAMPLES = r"""
- name: Write the command
  volt.backup.volt_runner:

- name: Write it to a directory of its own
  volt.backup.volt_runner:
    path: /srv/backup/volt-backup

- name: Remove it
  volt.backup.volt_runner:
    path: /srv/backup/volt-backup
    state: absent
"""

RETURN = r"""
path:
  description: The file. Ansible adds its owner, mode and size to the result.
  type: str
  returned: success
  sample: /usr/local/bin/volt-backup
version:
  description: Version of the command that is there now, or in check mode would be. It is null with O(state=absent).
  type: str
  returned: success
  sample: 0.1.0
job_format:
  description: Format of the job files of schedules that it understands. It is null with O(state=absent).
  type: int
  returned: success
  sample: 1
features:
  description: Required features of stores that it knows. It is null with O(state=absent).
  type: list
  elements: str
  returned: success
  sample: []
diff:
  description: What has changed, or in check mode would. Both are empty where there is no file.
  returned: success
  type: dict
  contains:
    before:
      description: The command that was there.
      type: str
      returned: always
      sample: "version: 0.0.9\njob_format: 1\nsha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\nmode: 0755\n"
    after:
      description: The command that is there now.
      type: str
      returned: always
      sample: "version: 0.1.0\njob_format: 1\nsha256: fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9\nmode: 0755\n"
code:
  description:
    - What kind of failure it was, for a playbook to branch on. V(usage) for a path that cannot be used, such as that of a file that
      this module did not write, V(error) for one that cannot be read or written, V(interrupted) for a run that was told to stop.
  returned: failure
  type: str
  sample: usage
"""

import os

from ansible_collections.volt.backup.plugins.module_utils._base import UsageError, parse, show
from ansible_collections.volt.backup.plugins.module_utils._module import Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._runner import archive, beside
from ansible_collections.volt.backup.plugins.module_utils._schedule import command, systemd, units

OPTIONS = dict(
    state=dict(type="str", choices=["present", "absent"], default="present"),
    path=dict(type="path", default="/usr/local/bin/volt-backup"),
)


def work(task: Task) -> Result:
    path = os.fsdecode(parse(task.params["path"]))
    around = beside.Beside(path)
    for warning in around.warnings:
        task.warn(warning)
    installed = command.state(path)
    before = installed + around.before
    if task.params["state"] == "absent":
        _check_unused(path, task)
        if installed:
            (command.foresee if task.dry else command.remove)(path)
        if not task.dry:
            around.remove()
        return {"changed": bool(before), "path": show(path), "version": None, "job_format": None, "features": None, "diff": {"before": before, "after": ""}}
    _check_directory(os.path.dirname(path), task)
    made, described = archive.stamp(), archive.describe()
    if installed != described and task.dry:
        command.foresee(path)
    elif installed != described:
        command.write(path, archive.build())
    if not task.dry:
        around.write()
    after = described + around.after
    return {"changed": before != after, "path": show(path), **made._asdict(), "features": sorted(made.features), "diff": {"before": before, "after": after}}


def _check_unused(path: str, task: Task) -> None:
    users = units.users(systemd.UNITS, path)
    if users:
        used = f"{show(os.fsencode(path))} is used by {', '.join(users)}; remove the schedules first."
        if not task.dry:
            raise UsageError(used)
        task.warn(used)


def _check_directory(directory: str, task: Task) -> None:
    if not os.path.isdir(directory):
        raise UsageError(f"{directory} is not a directory; create it, or choose another path.")
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        task.warn(f"The file system of {directory} is mounted noexec, so start the command there with python3; timers do that already.")


def main() -> None:
    run(work, OPTIONS)


if __name__ == "__main__":
    main()
