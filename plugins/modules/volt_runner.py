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
  - The command has the functions of these modules in one executable file, for timers and for use by hand. It needs only Python, and not Ansible.
  - It is built from the files that Ansible sends to the host to run this module. So nothing is downloaded, and the command has the version of the
    collection. An older or newer command is replaced.
  - The file is the same on every host, with every version of Python.
  - A file of that name that this module did not write is neither replaced nor removed. The task fails instead.
  - If O(path) is named C(volt-backup) and is in a directory C(bin) or C(sbin), the manual page and the completion for bash, zsh and fish are written too,
    such as C(/usr/local/share/man/man8/volt-backup.8). They are removed with the command, unless the other of the two directories
    has the command, too. A file there that this module did not write is not changed, and the task warns.
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
      - Whether the command is installed. It is not removed while units of schedules use it, because a running backup needs it to end. Remove the schedules
        with M(volt.backup.volt_backup_schedule) first. Check mode only warns, because an earlier task may remove them.
    type: str
    choices: [present, absent]
    default: present
  path:
    description:
      - The file. Its directory must exist.
    type: path
    default: /usr/local/bin/volt-backup
seealso:
  - module: volt.backup.volt_backup_schedule
"""

EXAMPLES = r"""
- name: Write the command
  volt.backup.volt_runner:

- name: Write it to another directory
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
  description: Version of the command after the task, or in check mode after a real run. Null with O(state=absent).
  type: str
  returned: success
  sample: 0.1.0
job_format:
  description: Format of job files that it supports. Null with O(state=absent).
  type: int
  returned: success
  sample: 1
features:
  description: Required features of stores that it supports. Null with O(state=absent).
  type: list
  elements: str
  returned: success
  sample: []
diff:
  description: What changed, or would change in check mode. A text is empty if there is no file.
  returned: success
  type: dict
  contains:
    before:
      description: The command before the task.
      type: str
      returned: always
      sample: "version: 0.0.9\njob_format: 1\nsha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\nmode: 0755\n"
    after:
      description: The command after the task.
      type: str
      returned: always
      sample: "version: 0.1.0\njob_format: 1\nsha256: fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9\nmode: 0755\n"
code:
  description:
    - Kind of failure, for conditions in playbooks. V(usage) for a path that cannot be used, such as that of a file that
      this module did not write, V(error) for one that cannot be read or written, V(interrupted) for a run that was interrupted.
  returned: failure
  type: str
  sample: usage
"""

import os

from ansible_collections.volt.backup.plugins.module_utils._module import Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._base import UsageError, parse, show
from ansible_collections.volt.backup.plugins.module_utils._runner import archive, beside
from ansible_collections.volt.backup.plugins.module_utils._schedule import command, systemd, units

OPTIONS = dict(
    state=dict(type="str", choices=["present", "absent"], default="present"),
    path=dict(type="path", default="/usr/local/bin/volt-backup"),
)


def work(task: Task) -> Result:
    path = os.fsdecode(parse(task.params["path"]))
    around = beside.Beside(path, leaves=task.params["state"] == "absent")
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
