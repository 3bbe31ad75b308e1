# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What all rooms share: how to fail, how to show a name, how to touch a file, how to wait.

Nothing here knows of stores, trees or backups. A rule that every room must keep has its one place here: a file that others may have put
there is opened without following a link and without waiting, read within a bound, and written whole or not at all; an error of the
system becomes a sentence; bytes become text that can be turned back.

Files: `errors` (the one family of exceptions), `text` (paths as shown, and back), `time` (moments and spans), `files` (open, read, write,
sync), `locks` (waiting for a kernel lock), `kernel` (system calls that Python lacks), `signals` (a signal as an exception),
`progress` (how far work has come).
"""

from __future__ import annotations
