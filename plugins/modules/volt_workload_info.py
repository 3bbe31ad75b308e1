#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_workload_info
short_description: Find what a host runs, ready to be backed up
version_added: 0.1.0
description:
  - Lists the machines, containers, volumes and projects of the managed host, each with all that a schedule or a backup of it needs.
  - Everything is read from files on disk. No program is run and no daemon is asked, so what is stopped is found as well.
  - Found are machines of systemd-nspawn in C(/var/lib/machines), Volt's containers in C(/var/lib/volt/containers/<name>/rootfs), Volt's virtual
    machines in C(/var/lib/volt/vms/<name>), volumes of Docker and Podman, and projects of Docker Compose.
  - Docker's C(data-root) is taken from C(/etc/docker/daemon.json), Podman's places from C(/etc/containers/storage.conf) and C(containers.conf).
    Where C(daemon.json) is not understood, Docker's data is not looked for at all.
  - A workload is called C(<runtime>-<its name>), whatever else the host has, so its name stays when others come and go.
  - A symbolic link is followed where only root can have put it. Elsewhere it could be a user's way to other people's files, and is left out.
  - In results, paths are UTF-8. A byte that is not valid UTF-8 appears as C(\xNN), a backslash as C(\\).
author:
  - volt.backup contributors (!UNKNOWN)
extends_documentation_fragment:
  - volt.backup._attributes
  - volt.backup._attributes.info_module
  - volt.backup._attributes.actiongroup_volt
  - volt.backup._store
options:
  kinds:
    description:
      - What to look for.
      - V(container) is a tree of files that runs as a container, or the directory of a Compose project.
      - V(hybrid-native), V(hybrid-kvm) and V(hybrid-emulated) are Volt's. Which of them a machine is, is told by a C(mode) in the JSON, YAML, TOML
        or C(.conf) files of its directory. Without that, a container is V(container) and a virtual machine V(hybrid-kvm).
      - V(volume) is a volume of Docker or Podman.
    type: list
    elements: str
    choices:
      - container
      - hybrid-native
      - hybrid-kvm
      - hybrid-emulated
      - volume
    default:
      - container
      - hybrid-native
      - hybrid-kvm
      - hybrid-emulated
      - volume
  sizes:
    description:
      - Whether to tell how large each workload is. All its directories are read for that, which takes a while where there are millions of files.
    type: bool
    default: true
  users:
    description:
      - Users of the host whose volumes to find as well, of Docker and Podman without root, where these have them by default.
      - Such a workload is called C(<runtime>.<user>.<its name>).
    type: list
    elements: str
    default: []
  compose_dirs:
    description:
      - Directories that have a file of Compose, or contain directories that have one, for example V(/opt/stacks).
      - Projects that have containers in Docker, running or not, are found without this. Of those that are down, and of those under Podman, no
        file tells the directory.
      - An image can bring labels like those of Compose. They count where something else shows that Compose wrote them, such as the container's name. Where
        nothing does, the directory is left out with a warning; name it here if it is a project's.
      - What its containers call a project counts before what its files suggest, so a directory is not found under both names.
    type: list
    elements: path
    default: []
notes:
  - Run it as root. What may not be read is left out, with a warning.
  - A project's workload is its directory. Its volumes are workloads of their own, and other paths of the host that its containers use
    belong to none.
  - A volume whose data is on a network or in memory is left out. One of Docker's whose data is on a disk of its own is found while that is mounted, and
    left out with a warning while it is not. Of Podman's no file tells that, so one that is not mounted at the moment is found as an empty directory.
  - A backup of either that is made while the disk is not mounted is one of an empty directory.
  - Containers of one Compose project that name different directories count for none of them, with a warning, unless but one still has a file of Compose.
seealso:
  - module: volt.backup.volt_backup
  - module: volt.backup.volt_backup_schedule
"""

EXAMPLES = r"""
- name: Find all that there is
  volt.backup.volt_workload_info:
  register: found

- name: Back it all up
  volt.backup.volt_backup:
    workload: "{{ item.workload }}"
    source: "{{ item.source }}"
    workload_mode: "{{ item.workload_mode }}"
    exclude: "{{ item.exclude | default(omit) }}"
    only_if_changed: true
  loop: "{{ found.workloads | map(attribute='schedule') }}"
  loop_control:
    label: "{{ item.workload }}"

- name: Have it backed up every six hours
  volt.backup.volt_backup_schedule:
    schedules: "{{ found.workloads | map(attribute='schedule') | map('combine', {'interval': '6h', 'max_keep': 28}) }}"
    manage_units: false # leave this out to have systemd start it

- name: Find volumes alone, and do not measure them
  volt.backup.volt_workload_info:
    kinds:
      - volume
    sizes: false
  register: volumes

- name: Name those that no container uses
  ansible.builtin.debug:
    msg: "{{ volumes.workloads | selectattr('containers', 'eq', []) | map(attribute='name') }}"
"""

RETURN = r"""
workloads:
  description:
    - What was found, sorted by RV(workloads[].workload).
  returned: success
  type: list
  elements: dict
  contains:
    workload:
      description: Its name as a workload, C(<runtime>-<name>). It depends on nothing else.
      type: str
      returned: always
      sample: docker-shop_data
    name:
      description: What its runtime calls it. For a disk image in C(/var/lib/machines) it is the name of the file.
      type: str
      returned: always
      sample: shop_data
    runtime:
      description:
        - What runs or keeps it, V(nspawn), V(docker), V(podman) or V(compose). V(volt) is a container of Volt, V(vm) a virtual machine of Volt.
      type: str
      returned: always
      sample: docker
    user:
      description: The user who runs it without root, or null.
      type: str
      returned: always
      sample: null
    kind:
      description: What it is, one of O(kinds).
      type: str
      returned: always
      sample: volume
    path:
      description: Where it was found.
      type: str
      returned: always
      sample: /var/lib/docker/volumes/shop_data/_data
    source:
      description:
        - The directory to back up, which is RV(workloads[].path) with symbolic links resolved. For a disk image it is the directory that holds it, and
          RV(workloads[].schedule.exclude) leaves out the rest.
      type: str
      returned: always
      sample: /var/lib/docker/volumes/shop_data/_data
    size:
      description:
        - Sum of the sizes of its files in bytes, as a backup's C(total_size), but a file with several names is counted once. What is mounted
          there is counted, as it is backed up. Null unless O(sizes).
      type: int
      returned: always
      sample: 49283072
    images:
      description: The disk images of a virtual machine, or the one that a machine of systemd-nspawn consists of.
      type: list
      elements: dict
      returned: always
      sample: []
      contains:
        path:
          description: Where it is.
          type: str
          returned: always
          sample: /var/lib/volt/vms/db/disk.qcow2
        format:
          description:
            - V(qcow2), V(vmdk), V(vdi), V(vhd) or V(vhdx) by how the file begins, V(raw) for a boot sector or a name that ends in C(.raw) or C(.img), or null.
            - A machine can write anything to the beginning of a raw image. Do not let this decide how to open one.
          type: str
          returned: always
          sample: qcow2
        size:
          description: Size of the file in bytes.
          type: int
          returned: always
          sample: 4294967296
        allocated:
          description: How much of the disk it occupies, in bytes.
          type: int
          returned: always
          sample: 1288490188
        backing_file:
          description: The image that it builds upon, in its own words, or null. A backup has that only if it is in the same directory.
          type: str
          returned: always
          sample: null
    config:
      description: The file that describes it, a C(.nspawn) file or one of Compose, or null. The first is not in the backup.
      type: str
      returned: always
      sample: null
    binds:
      description: Paths of the host that its C(.nspawn) file lets it write. They are not in the backup.
      type: list
      elements: str
      returned: always
      sample: []
    containers:
      description: Names of Docker's containers that use the volume, running or not. Null where no file tells.
      type: list
      elements: str
      returned: always
      sample:
        - shop-db-1
    schedule:
      description:
        - Options for M(volt.backup.volt_backup_schedule) and M(volt.backup.volt_backup), and nothing else. Add when to back up.
      type: dict
      returned: always
      contains:
        workload:
          description: RV(workloads[].workload).
          type: str
          returned: always
          sample: docker-shop_data
        source:
          description: RV(workloads[].source).
          type: str
          returned: always
          sample: /var/lib/docker/volumes/shop_data/_data
        workload_mode:
          description: RV(workloads[].kind).
          type: str
          returned: always
          sample: volume
        exclude:
          description:
            - Patterns of what else is in the source and not a part of it. Only a disk image has any, for its source is the directory that holds it. With
              everything else this is not here, so that exclusions which are given as defaults count.
          type: list
          elements: str
          returned: for a disk image
          sample: ["/*", "!/old.raw"]
left_out:
  description:
    - What was found and is no workload. Where it should be mended, there is a warning as well.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Where it was found.
      type: str
      returned: always
      sample: /var/lib/docker/volumes/remote
    reason:
      description: Why it is left out.
      type: str
      returned: always
      sample: its data is on a file system of its own, of type nfs, which is no disk of this host
complete:
  description:
    - Whether all that could be a workload was looked at and could be named. Where not, there is a warning for each lack, and what was not found may be
      there all the same, so nothing should be purged for that.
    - V(false) where a file or directory cannot be read or understood, where Docker or Podman has no data although settings say where it is or its directory is
      there, where a link by which the administrator moved something leads nowhere, where O(users) or O(compose_dirs) name what is not there, and where
      a thing is left out that should be mended, such as one of two of the same name.
  returned: success
  type: bool
  sample: true
code:
  description:
    - What kind of failure it was, for a playbook to branch on. V(usage) for a request that is wrong in itself.
  returned: failure
  type: str
  sample: usage
"""

from ansible_collections.volt.backup.plugins.module_utils._module import Result, Task, run
from ansible_collections.volt.backup.plugins.module_utils._workloads.find import FindRequest, find

KINDS = ["container", "hybrid-native", "hybrid-kvm", "hybrid-emulated", "volume"]
OPTIONS = dict(
    kinds=dict(type="list", elements="str", choices=KINDS, default=KINDS),
    sizes=dict(type="bool", default=True),
    users=dict(type="list", elements="str", default=[]),
    compose_dirs=dict(type="list", elements="path", default=[]),
)


def work(task: Task) -> Result:
    found = find(task.pick(FindRequest))
    for text in found.warnings:
        task.warn(text)
    return {"changed": False, "workloads": found.workloads, "left_out": found.left_out, "complete": found.complete}


def main() -> None:
    run(work, OPTIONS)


if __name__ == "__main__":
    main()
