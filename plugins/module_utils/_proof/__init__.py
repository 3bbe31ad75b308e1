# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Proof that a restored tree is more than equal bytes: its dumps load, and a command of the user's accepts it.

::

    fork a process that isolates itself: mounts, processes, IPC and network of its own
    show the tree at one place; give it a /tmp on the disk that the tree is on; make everything else read-only
    take away the devices, the sockets of services, and the capabilities that undo such things
    in there, as the first process
        start a database server for each kind of dump, load the dumps of that kind, stop it
        run the command; for the root of a container, in systemd-nspawn
    end it: with its first process, the kernel ends all that it left

What a drill starts must not reach what runs on the host: a restored application has the addresses and the credentials of the real one.

Files: `sandbox` (the isolated process), `loads` (servers that load dumps), `trial` (all that is tried on one tree).
"""

from __future__ import annotations
