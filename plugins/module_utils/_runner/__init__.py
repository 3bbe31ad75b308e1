# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The volt-backup command: what timers call and people type.

`cli` says which words there are and what each calls in the engine; `screen` is all that prints: tables, sizes, the progress bar. With
`--json` a command prints what the module of that name returns. Exit status: 0 done, 1 failed, 2 wrong usage, 3 backup incomplete.
"""

from __future__ import annotations
