# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make what tests boot and back up before they ask for it: a gate of its own, beside others. What cannot be made here is named; its tests skip."""

from __future__ import annotations

from . import Unavailable, debian
from .fleet import SUITES, Host


def main() -> None:
    for suite, packages in [*((suite, Host.packages) for suite in SUITES), (None, ())]:
        try:
            print(debian.tree(suite, packages), flush=True)
        except Unavailable as lack:
            print(f"no tree of {suite or 'this suite'}: {lack}", flush=True)


if __name__ == "__main__":
    main()
