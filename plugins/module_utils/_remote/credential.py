# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Credentials of systemd: secrets that lie encrypted on the disk, or that a service is given.

A service finds those that its unit loads in a directory of its own. Units of schedules load none: one that cannot be opened would keep the unit from
starting, and a backup must not depend on its remote. So any other is opened by systemd-creds(1) when it is needed, outside of the unit's hardening, which
keeps the TPM away. Source: systemd.exec(5), section "Credentials".
"""

from __future__ import annotations

import os
import re
import subprocess
import typing as t

from .._base import RemoteError, UsageError, brief, files, process, reason, show

#: Where systemd looks for credentials without a path, and whether they are encrypted there.
PLACES = tuple((f"{top}/credstore{ending}", bool(ending)) for ending in (".encrypted", "") for top in ("/etc", "/run", "/usr/lib"))
_PREFIX = "credential:"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_MOST = 1 << 20
_PATIENCE = 60.0


def named(text: str) -> t.Optional[str]:
    """The name in `credential:NAME`; None for any other text, such as a path."""
    return text[len(_PREFIX) :] if text.startswith(_PREFIX) else None


def check_name(name: t.Any) -> None:
    """UsageError for a text that can be no name of a credential."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise UsageError(f"Credential name {show(str(name))} is invalid; use letters, digits, dots, underscores and dashes.")


def read(name: str) -> str:
    """What a credential holds. RemoteError where there is none of this name, or it cannot be opened."""
    check_name(name)
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    for place, encrypted in [(given, False), *PLACES] if given else PLACES:
        path = os.path.join(place, name)
        try:
            if not encrypted:
                return files.read_file(path, _MOST).decode("utf-8", "replace")
            os.stat(path)
            return _decrypted(name, path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RemoteError(f"Credential {name} cannot be read from {place}: {reason(error)}; run as root.") from None
    raise RemoteError(f"There is no credential {name} in {' or '.join(place for place, _encrypted in PLACES[::3])}; make it with systemd-creds encrypt.")


def _decrypted(name: str, path: str) -> str:
    try:
        done = process.run([*process.apart(_PATIENCE), "systemd-creds", "decrypt", f"--name={name}", path, "-"], patience=_PATIENCE, capture=True)
    except FileNotFoundError:
        raise RemoteError(f"Credential {name} cannot be decrypted: this host has no systemd-creds, which comes with systemd 250; use a key file.") from None
    except subprocess.TimeoutExpired:
        raise RemoteError(f"Credential {name} was not decrypted within {_PATIENCE:.0f} seconds; run systemd-creds decrypt {path} to see why.") from None
    if done.status:
        raise RemoteError(f"Credential {name} cannot be decrypted ({brief(done.errors) or done.how}); encrypt it again on this host.")
    return done.output
