# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The version of the collection, for what cannot read galaxy.yml: a module's payload, and the command. A test holds the two equal.

And where the command is on a host, unless a playbook says otherwise.
"""

from __future__ import annotations

VERSION = "0.1.0"
COMMAND = "/usr/local/bin/volt-backup"
