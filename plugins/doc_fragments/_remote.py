# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is **PRIVATE** to the collection. It can change at any time, also in patch releases.

from __future__ import annotations


class ModuleDocFragment:
    # For a module that uses a remote.
    DOCUMENTATION = r"""
options:
  remote_credentials:
    description:
      - Credentials for a remote on S3, as in O(volt.backup.volt_remote#module:credentials). They are used for this task and are not stored.
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
"""

    # For a module that reads what is on a remote.
    IDENTITY = r"""
requirements:
  - python3-boto3 (1.26 or newer) on the managed host, for a remote on S3
  - python3-cryptography or age on the managed host, for a sealed remote
options:
  identity:
    description:
      - The recovery key, to read a sealed O(remote). This is the content of its file, not the path, so that the file can stay on the controller.
      - It is used for this task, and does not appear in logs and results. With pipelining (C(ansible_pipelining=true)) it is not written to the host.
        Without it, Ansible writes the arguments of a module to a file, which it removes after the task.
    type: str
"""
