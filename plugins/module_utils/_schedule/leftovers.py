# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What a removal would leave: empty directories, units that systemd remembers as failed, and files that others added to our units."""

from __future__ import annotations

import contextlib
import os
import typing as t

from . import systemd

#: Below the directory that has units, and beside it, where `systemctl set-property` writes.
_BESIDE = (".control", "")


def drop_ins(directory: str, names: t.Iterable[str]) -> t.List[str]:
    """A sentence for each directory of drop-ins of these units."""
    said = []
    for name in names:
        for more in _BESIDE:
            path = os.path.join(f"{directory}{more}", f"{name}.d")
            if os.path.isdir(path):
                files = ", ".join(sorted(os.listdir(path))) or "nothing"
                said.append(f"{path} ({files}) was not written by volt.backup and stays, although {name} is removed; remove it if it is not needed.")
    return said


def sweep(directories: t.Iterable[str]) -> None:
    """Remove directories that are empty: others may use them by now."""
    for path in directories:
        with contextlib.suppress(OSError):  # not empty, or not there
            os.rmdir(path)


def forget_failures() -> None:
    """There is one instance of the notifier for each unit that failed."""
    systemd.attempt("systemctl", "reset-failed", "--", "volt-cas-failure@*.service")
