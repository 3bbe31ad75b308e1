#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_remote
short_description: Declare a remote, a place off the host that keeps copies of backups
version_added: 0.1.0
description:
  - Gives a remote a name on the managed host. Other modules, schedules and the command C(volt-backup) then take that name as a remote.
  - The declaration is in C(/etc/volt/remotes), readable for root only.
  - Removing a declaration changes nothing on the remote.
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
      - With O(init), the remote is read. Nothing is written there.
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - python3-cryptography, or the program age, on the managed host, for O(keys)
  - python3-boto3 (1.26 or newer) on the managed host, for S3
options:
  name:
    description:
      - Name of the remote on this host.
    type: str
    required: true
  state:
    description:
      - Whether the remote is declared. It is not removed while a schedule of the host uses it.
    type: str
    choices: [present, absent]
    default: present
  url:
    description:
      - Where the remote is, such as C(file:///mnt/nas/backup) or C(s3://bucket/prefix?endpoint=https://s3.example.org&region=eu-central-1). Without an
        endpoint, it is AWS. Required with O(state=present).
    type: str
  init:
    description:
      - Make the remote, unless it exists. Its directory must exist and be empty.
      - The declaration keeps the id of the remote. If the remote is missing later, for example because its file system is not mounted, the task fails,
        and makes no other in its place.
      - A test on the remote then shows whether it can create a name only if that does not exist, see RV(commit).
    type: bool
    default: false
  host_name:
    description:
      - What this host is called on the remote. Two hosts must not have one name.
      - By default, the name of the host and the first 8 digits of its store's id.
    type: str
  jobs:
    description:
      - How many packs are sent at once. A pack has about 16 MiB.
    type: int
    default: 4
  bandwidth:
    description:
      - How many bytes to send each second at most, such as V(20M). K, M and G are powers of 1024. By default, there is no limit.
    type: str
  keys:
    description:
      - File on the host with its keys, for a sealed remote. C(volt-backup remote keys) makes the keys of all hosts from one recovery key, on the controller.
      - With O(init), the remote is made a sealed one. What a host copies there, it cannot read back.
      - V(credential:NAME) reads the content of the file from a credential of systemd, see O(credentials.credential).
    type: str
  ca:
    description:
      - A file of certificates on the host. The server's is checked against these, in place of those of the system.
    type: path
  storage_class:
    description:
      - Storage class of the packs with content on S3, such as V(STANDARD_IA). All other objects stay in the standard class of the server.
    type: str
  lock:
    description:
      - How long objects are locked on S3, such as V(30d). Until then, the server refuses to remove them, also for the owner of the bucket. The bucket must
        have been made with object lock.
      - Such a bucket keeps versions. On a remote with a lock, the oldest version of an object counts. A deletion or a newer version hides nothing.
      - The lock of an object is not renewed. Choose a time in which you notice an attack.
    type: str
  share:
    description:
      - With V(domain), a push uses packs that other hosts have sent to the remote, so that the remote stores common content once. On a sealed remote, these
        are the hosts with keys of one recovery key. With V(host), each host sends all that it needs.
      - A host that shares needs more rights on S3, see RV(policy). It relies on the packs of the others. If a host sends a false index, backups of other
        hosts that use its packs are damaged. A restore or a drill detects the damage.
    type: str
    choices: [host, domain]
    default: host
  vetted:
    description:
      - With O(share=domain), use packs of other hosts only if they were vetted, so that a stolen host cannot damage backups of
        this one. See O(volt.backup.volt_cas_verify#module:vet).
      - What this host has used before is not vetted later. Set this before the first push.
    type: bool
    default: false
  credentials:
    description:
      - Credentials for S3. Without them, those of the host are used. These are variables such as E(AWS_ACCESS_KEY_ID), the files of the user who runs the
        backup, or the role of the machine.
    type: dict
    suboptions:
      access_key:
        description: Id of the key.
        type: str
      secret_key:
        description: The key.
        type: str
      session_token:
        description: Token of temporary credentials.
        type: str
      profile:
        description: A profile of the host's files, in place of a key.
        type: str
      credential:
        description:
          - Name of a credential of systemd on the host, in place of a key. It contains a JSON object with the keys above, and lies encrypted in
            C(/etc/credstore.encrypted), so that no file has the key in the clear. See C(systemd-creds) of systemd 250 or newer.
        type: str
seealso:
  - module: volt.backup.volt_backup
  - module: volt.backup.volt_backup_schedule
"""

EXAMPLES = r"""
- name: Copy backups to a NAS that is mounted on the host
  volt.backup.volt_remote:
    name: nas
    url: file:///mnt/nas/backup
    init: true

- name: Copy backups to a bucket
  volt.backup.volt_remote:
    name: offsite
    url: s3://backups/web?endpoint=https://s3.example.org
    credentials:
      access_key: "{{ vault_access_key }}"
      secret_key: "{{ vault_secret_key }}"
    bandwidth: 20M
  when: vault_access_key is defined

- name: Back up an application, and copy the backup to the NAS
  volt.backup.volt_backup:
    workload: app
    source: /srv/app
    remote: nas
    push_to_cdn: true

- name: Remove the declaration
  volt.backup.volt_remote:
    name: nas
    state: absent
"""

RETURN = r"""
path:
  description: The file with the declaration.
  type: str
  returned: success
  sample: /etc/volt/remotes/nas.json
id:
  description: Id of the remote. Null without O(init), and in check mode for a remote that does not exist yet.
  type: str
  returned: success
  sample: 0b5f3c2e9a64e1c7b3b4d0c1f7a14a0e
commit:
  description:
    - V(exclusive) if the remote can create a name only if that does not exist, so that nothing can be lost when hosts push at the same time. Otherwise
      V(timed). Null if RV(id) is.
  type: str
  returned: success
  sample: exclusive
abilities:
  description: What the test on the remote found. Null if the task did not make the remote.
  type: dict
  returned: success
  contains:
    commit:
      description: As RV(commit).
      type: str
      returned: always
      sample: exclusive
    checks_upload:
      description: Whether it refuses bytes that do not have the checksum sent with them. V(false) for a directory.
      type: bool
      returned: always
      sample: true
    ranges:
      description: Whether a part of an object can be read.
      type: bool
      returned: always
      sample: true
policy:
  description:
    - The rights that O(credentials) of this host need on S3, as a policy to paste. Making the remote needs more rights.
    - Null for a directory, with O(state=absent), and if the host cannot use the remote yet, because it has neither a store nor O(host_name), or no C(boto3).
  type: dict
  returned: success
  sample:
    Version: '2012-10-17'
    Statement:
      - Sid: List
        Effect: Allow
        Action: s3:ListBucket
        Resource:
          - arn:aws:s3:::backups
diff:
  description: The declaration before and after, without the id of a remote that the task makes. Secrets are hidden.
  type: dict
  returned: success
  contains:
    before:
      description: The file before. Empty if there was none.
      type: str
      returned: always
      sample: ""
    after:
      description: The file after. Empty if there is none.
      type: str
      returned: always
      sample: |
        {
         "bandwidth": null,
         "ca": null,
         "credentials": null,
         "format": 1,
         "host": null,
         "jobs": 4,
         "keys": null,
         "storage_class": null,
         "url": "file:///mnt/nas/backup"
        }
code:
  description:
    - Kind of failure, for conditions in playbooks. V(usage) for invalid options and for a remote that a schedule uses, V(no_remote) for a directory that
      does not exist, has other files, or does not have the remote any more, V(remote_refused), V(remote_unreachable), V(remote_full) and V(remote) for a
      remote that cannot be used, V(damaged) for one whose C(volt.json) cannot be read, V(unsupported) for one of a newer version, V(error) for a file that
      cannot be written.
  type: str
  returned: failure
  sample: usage
"""

from ansible_collections.volt.backup.plugins.module_utils._module import CREDENTIALS, Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._base import UsageError, VoltError
from ansible_collections.volt.backup.plugins.module_utils._remote import declared, url
from ansible_collections.volt.backup.plugins.module_utils._remote.declared import Settings
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote
from ansible_collections.volt.backup.plugins.module_utils._schedule import job as jobs

OPTIONS = dict(
    name=dict(type="str", required=True),
    state=dict(type="str", choices=["present", "absent"], default="present"),
    url=dict(type="str"),
    init=dict(type="bool", default=False),
    host_name=dict(type="str"),
    jobs=dict(type="int", default=4),
    bandwidth=dict(type="str"),
    keys=dict(type="str", no_log=False),
    ca=dict(type="path"),
    storage_class=dict(type="str"),
    lock=dict(type="str"),
    share=dict(type="str", choices=[*declared.SHARES], default=declared.HOST),
    vetted=dict(type="bool", default=False),
    credentials=CREDENTIALS,
)


def work(task: Task) -> Result:
    params = task.params
    before = declared.read(params["name"])
    if params["state"] == "absent":
        return remove(task, before)
    rate = None if params["bandwidth"] is None else declared.parse_rate(params["bandwidth"])
    lock = None if params["lock"] is None else declared.parse_lock(params["lock"])
    places = {name: params[name] for name in ("url", "jobs", "ca", "storage_class", "share", "vetted")}
    keys, credentials = declared.check_keys(params["keys"]), declared.given(params["credentials"])
    wanted = declared.check(Settings(host=params["host_name"], bandwidth=rate, lock=lock, keys=keys, credentials=credentials, **places))
    if before is not None and url.same(before.url, wanted.url):
        wanted = wanted._replace(id=before.id)
    begun = Remote(task.manager, wanted).begin(task.dry) if params["init"] else None
    if begun is not None and begun.about is not None:
        wanted = wanted._replace(id=begun.about.id)
    if before != wanted and not task.dry:
        declared.write(params["name"], wanted)
    about = begun.about if begun is not None else None
    return {
        "policy": policy(task, wanted),
        "changed": before != wanted or begun is not None and begun.changed,
        "path": declared.path(params["name"]),
        "id": about.id if about is not None else None,
        "commit": about.commit if about is not None else None,
        "abilities": begun.abilities._asdict() if begun is not None and begun.abilities is not None else None,
        "diff": {"before": declared.shown(before), "after": declared.shown(wanted, made=begun is not None and begun.changed)},
    }


def policy(task: Task, settings: Settings) -> dict[str, object] | None:
    try:
        return Remote(task.manager, settings).policy()
    except VoltError:  # the host has no store and so no name yet, or lacks a package: what uses the remote says so
        return None


def remove(task: Task, before: Settings | None) -> Result:
    name = task.params["name"]
    users = [workload for workload in jobs.declared() if jobs.load(workload).remote == name]
    if users and before is not None:
        raise UsageError(f"Remote {name} is used by the schedules of {', '.join(users)}; change these first.")
    if before is not None and not task.dry:
        declared.remove(name)
    return {
        "changed": before is not None,
        "path": declared.path(name),
        "id": None,
        "commit": None,
        "abilities": None,
        "policy": None,
        "diff": {"before": declared.shown(before), "after": ""},
    }


def main() -> None:
    run(work, OPTIONS, manager=Manager, required_if=[("state", "present", ["url"])])


if __name__ == "__main__":
    main()
