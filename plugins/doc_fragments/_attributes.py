# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is **PRIVATE** to the collection. It can change at any time, also in patch releases.

from __future__ import annotations


class ModuleDocFragment:
    # What each attribute means. A module that uses this adds its own support of each.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Check mode reports what would happen, and writes nothing.
  diff_mode:
    description: Diff mode lists what changed, or in check mode what would change.
  idempotent:
    description:
      - A second run with the same options changes nothing, unless something else changed the host in between.
  platform:
    description: The systems on the managed host that this module works on.
    support: full
    platforms: linux
"""

    # Together with the standard fragment, for modules that only read.
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This module changes nothing.
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    support: full
    details:
      - This module changes nothing.
"""

    # For every member of the action group in meta/runtime.yml.
    ACTIONGROUP_VOLT = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/volt.backup.volt) in C(module_defaults) to set options for all members of the group at once.
    support: full
    membership:
      - volt.backup.volt
"""
