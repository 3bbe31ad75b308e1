#!/usr/bin/python

# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volt_workload_info
short_description: Find the workloads of a host to back up
version_added: 0.1.0
description:
  - Lists the machines, containers, volumes and projects of the managed host, each with the options for a schedule or a backup.
  - It only reads files on disk. It runs no program and asks no daemon, so it also finds stopped workloads.
  - It finds machines of systemd-nspawn in C(/var/lib/machines), Volt's containers in C(/var/lib/volt/containers/<name>/rootfs), Volt's virtual
    machines in C(/var/lib/volt/vms/<name>), volumes of Docker and Podman, and projects of Docker Compose.
  - Docker's C(data-root) is read from C(/etc/docker/daemon.json), Podman's directories from C(/etc/containers/storage.conf) and C(containers.conf).
    If C(daemon.json) is invalid, Docker's data is not searched at all.
  - The name of a workload is C(<runtime>-<its name>). It does not depend on what else the host runs.
  - Symbolic links are only followed if only root can have created them. Others are left out, because a user could make them point to files of others.
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
      - What to search for.
      - V(container) is a tree of files that runs as a container, or the directory of a Compose project.
      - V(hybrid-native), V(hybrid-kvm) and V(hybrid-emulated) are machines of Volt. The setting C(mode) in a JSON, YAML, TOML or C(.conf) file of the
        machine's directory selects the kind. Without it, a container is V(container) and a virtual machine V(hybrid-kvm).
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
      - Whether to measure the size of each workload. This reads all its directories, which takes time if there are millions of files.
    type: bool
    default: true
  users:
    description:
      - Users of the host whose volumes of rootless Docker and Podman to find too, in the default directories.
      - The name of such a workload is C(<runtime>.<user>.<its name>).
    type: list
    elements: str
    default: []
  compose_dirs:
    description:
      - Directories that have a Compose file, or contain directories that have one, for example V(/opt/stacks).
      - Projects that have containers in Docker, running or not, are found without this option. For projects that are down, and for projects with Podman, no
        file has the directory.
      - An image can have labels like those of Compose. They only count if something else, such as the container's name, shows that Compose wrote them.
        Otherwise the directory is left out with a warning. List it here if it is a project.
      - The project name in the labels of its containers has priority over the name in its files, so a directory is not found under two names.
    type: list
    elements: path
    default: []
notes:
  - Run it as root. What cannot be read is left out, with a warning.
  - The workload of a project is its directory. Its volumes are separate workloads. Other paths of the host that its containers use belong to no workload.
  - Volumes with data on a network or in memory are left out. A Docker volume on its own disk is found while that disk is mounted, and left out with a
    warning while it is not. For Podman, no file has this information, so an unmounted volume is found as an empty directory.
  - A backup of such a volume while its disk is not mounted is a backup of an empty directory.
  - A volume or project of root's Docker, or a volume of root's Podman, is left out if each of its containers, running or not, has the label
    C(volt.backup=false). With the label C(volt.backup.quiesce=stop) or C(volt.backup.quiesce=pause) on one of them, its backups keep its containers still. If
    they differ, V(stop) has priority.
  - Only labels that were set when a container was created count, not those that its image has with the same value. If the image's labels are in no file, as
    with Docker's containerd image store, none counts, and there is a warning. The labels of Podman's containers are read by C(podman inspect). Those of
    containers that users run without root do not count.
  - The same labels count for machines of Volt, as attributes of the element C(labels) of the namespace C(urn:volt:backup) in the metadata of the libvirt
    domains that have disk images in the machine's directory.
  - If containers of one Compose project name different directories, none is used, with a warning, unless exactly one of them still has a Compose file.
seealso:
  - module: volt.backup.volt_backup
  - module: volt.backup.volt_backup_schedule
"""

EXAMPLES = r"""
- name: Find all workloads
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

- name: Schedule backups of all of them every six hours
  volt.backup.volt_backup_schedule:
    schedules: "{{ found.workloads | map(attribute='schedule') | map('combine', {'interval': '6h', 'max_keep': 28}) }}"
    manage_units: false # only writes files; omit it to start the timers

- name: Find only volumes, without their sizes
  volt.backup.volt_workload_info:
    kinds:
      - volume
    sizes: false
  register: volumes

- name: Show the volumes that no container uses
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
      description: Its name as a workload, C(<runtime>-<name>).
      type: str
      returned: always
      sample: docker-shop_data
    name:
      description: Its name in the runtime. For a disk image in C(/var/lib/machines) it is the name of the file.
      type: str
      returned: always
      sample: shop_data
    runtime:
      description:
        - What runs it, V(nspawn), V(docker), V(podman) or V(compose). V(volt) is a container of Volt, V(vm) a virtual machine of Volt.
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
        - The directory to back up, which is RV(workloads[].path) with symbolic links resolved. For a disk image it is the directory that contains it, and
          RV(workloads[].schedule.exclude) excludes the rest.
      type: str
      returned: always
      sample: /var/lib/docker/volumes/shop_data/_data
    size:
      description:
        - Sum of the sizes of its files in bytes, as a backup's C(total_size), but a file with several names is counted once. Mounted file systems are
          counted if they would be backed up. Null without O(sizes).
      type: int
      returned: always
      sample: 49283072
    images:
      description: The disk images of a virtual machine, or the disk image of a machine of systemd-nspawn.
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
            - V(qcow2), V(vmdk), V(vdi), V(vhd) or V(vhdx) by the start of the file.
              V(raw) for a boot sector or the file name extension C(.raw) or C(.img), else null.
            - A machine can write anything to the start of a raw image. Do not use this value to decide how to open an image.
          type: str
          returned: always
          sample: qcow2
        size:
          description: Size of the file in bytes.
          type: int
          returned: always
          sample: 4294967296
        allocated:
          description: Disk space that it uses, in bytes.
          type: int
          returned: always
          sample: 1288490188
        backing_file:
          description: The image that it is based on, as written in the image, or null. A backup only has that if it is in the same directory.
          type: str
          returned: always
          sample: null
    config:
      description: Its configuration, a C(.nspawn) file or a Compose file, or null. A C(.nspawn) file is not in the backup.
      type: str
      returned: always
      sample: null
    binds:
      description: Paths of the host that it can write according to its C(.nspawn) file. They are not in the backup.
      type: list
      elements: str
      returned: always
      sample: []
    containers:
      description: Names of the containers of root's Docker or Podman that use the volume, running or not. Null if unknown.
      type: list
      elements: str
      returned: always
      sample:
        - shop-db-1
    schedule:
      description:
        - Options for M(volt.backup.volt_backup_schedule) and M(volt.backup.volt_backup). For a schedule, add when to back up.
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
            - Patterns of other files in the source that do not belong to the workload. It is only returned for disk images, so that default exclusions apply to
              all other workloads.
          type: list
          elements: str
          returned: for a disk image
          sample: ["/*", "!/old.raw"]
        quiesce:
          description: What the labels of its containers say about O(volt.backup.volt_backup_schedule#module:quiesce).
          type: str
          returned: if a container has such a label
          sample: stop
left_out:
  description:
    - What was found, but is not a workload. There is also a warning if something should be fixed.
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
      sample: its data is on a nfs file system, which is not a local disk
complete:
  description:
    - Whether everything that can be a workload was checked and has a valid name. If V(false), a warning names each problem. Workloads that were not found
      may still exist then, so do not remove their schedules.
    - V(false) if a file or directory cannot be read or parsed, if the data of Docker or Podman is missing although its settings or its directory exist, if
      a symbolic link to moved data points to nothing, if O(users) or O(compose_dirs) contain what does not exist, and if something is left out that
      should be fixed, for example two workloads of the same name.
  returned: success
  type: bool
  sample: true
code:
  description:
    - Kind of failure, for conditions in playbooks. V(usage) for invalid options.
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
