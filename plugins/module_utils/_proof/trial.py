# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""All that is tried on one restored tree: its dumps are loaded, then the user's command runs on it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
import threading
import typing as t

from .._base import UsageError, brief, parse, process, reason
from . import loads, sandbox

#: What the root of a container could undo its walls with: devices, mounts, settings of the kernel. All numbers of Linux 3.16, as any systemd-nspawn(1).
_LOST = ",".join(str(number) for number in range(38) if number not in sandbox.CAPABILITIES)
#: Seconds that loading the dumps of one kind may take.
_LONGEST = 6 * 3600
_SAID = 300


class Command(t.NamedTuple):
    """A command that judges a restored tree: its words, seconds that it may take, and what it may know besides."""

    words: t.Sequence[str]
    limit: int
    environment: t.Mapping[str, str] = {}


class Tried(t.NamedTuple):
    """The outcomes. `dumps`: `kind`, `database`, `path` in the backup, `loaded`, and `reason` if it was not. `command`: passed, failed, or None.
    `reason`: why the tree is not proved; None if nothing failed."""

    dumps: t.List[t.Dict[str, t.Any]]
    command: t.Optional[str]
    reason: t.Optional[str]


def check(words: t.Sequence[str], option: str) -> None:
    """UsageError for a command that cannot run."""
    if words and not os.path.isabs(words[0]):
        raise UsageError(f"Option {option} must start with the absolute path of a program (got {words[0]!r}).")
    if any("\0" in word for word in words):
        raise UsageError(f"Option {option} contains a NUL character; remove it.")


def tried(room: str, dumps: t.Sequence[t.Mapping[str, t.Any]], command: t.Optional[Command], is_root: bool) -> Tried:
    """Load the dumps, then run the command. Dumps that this host cannot load are no failure, and are told.

    :param room: a private directory that has the restored tree as `tree`. :param dumps: of the backup's record.
    :param is_root: the tree is the root of a container; the command runs in it.
    """
    found, reasons = [], []
    for kind in dict.fromkeys(dump["kind"] for dump in dumps):
        ours = [dump for dump in dumps if dump["kind"] == kind]
        top = os.fsencode(sandbox.TREE)
        copies = [loads.Copy(dump["database"], os.path.join(top, parse(dump["path"])), bool(dump.get("oplog"))) for dump in ours]
        why = loads.lack(kind)
        try:
            failed = "" if why else sandbox.run(room, lambda kind=kind, copies=copies: loads.load(kind, copies), _LONGEST)  # type: ignore[misc]
        except sandbox.NoSandbox as error:
            why, failed = str(error), ""
        if failed:
            why = f"Its dumps of {kind} cannot be loaded: {failed}; find out why, a restore would fail there too."
            reasons.append(why)
        found += [{**dump, "loaded": why is None, "reason": why} for dump in ours]
    if command is None or not command.words:
        return Tried(found, None, " ".join(reasons) or None)
    failed = _command(room, command, is_root)
    if failed:
        reasons.append(f"Its drill command {command.words[0]}: {failed}; fix that, then run the drill again.")
    return Tried(found, "failed" if failed else "passed", " ".join(reasons) or None)


def _command(room: str, command: Command, is_root: bool) -> str:
    given = {"VOLT_DRILL_TREE": "/" if is_root else sandbox.TREE, **command.environment}
    words = [*command.words]
    if is_root:
        nspawn = shutil.which("systemd-nspawn")
        if nspawn is None:
            return "it runs in the root of a container by systemd-nspawn, which is missing; install the package systemd-container"
        words = [
            *(nspawn, "--quiet", f"--directory={sandbox.TREE}", "--private-network", "--register=no", "--keep-unit", "--pipe", "--as-pid2"),
            *("--link-journal=no", "--resolv-conf=off", "--timezone=off", f"--drop-capability={_LOST}"),
            *(f"--setenv={name}={value}" for name, value in given.items()),
            *("--", *words),
        ]
    environment = {**sandbox.PLAIN, "HOME": "/root", **given}
    try:
        return sandbox.run(room, lambda: _run(words, environment), command.limit, nested=is_root)
    except sandbox.NoSandbox as error:
        return str(error)
    finally:
        if is_root:
            _remove_cgroups()


def _remove_cgroups() -> None:
    """Those that systemd-nspawn made in ours and does not remove."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        ours = {line.rstrip("\n").split(":", 2)[2] for line in file if line.startswith("0::") or ":name=systemd:" in line}
    for top, path, name in itertools.product(("", "/unified", "/systemd"), ours, ("payload", "supervisor")):
        with contextlib.suppress(OSError):  # none, or not ours: it has processes
            os.rmdir(f"/sys/fs/cgroup{top}{path}/{name}")


def _run(words: t.Sequence[str], environment: t.Mapping[str, str]) -> None:
    """In the sandbox. What the command leaves running is not waited for; only the last that it said is kept."""
    reader, writer = os.pipe()
    said, end = bytearray(), os.urandom(16)

    def hear() -> None:
        while end not in said:
            said[:] = said[-_SAID - len(end) :] + os.read(reader, 1 << 16)

    hearing = threading.Thread(target=hear, daemon=True)
    hearing.start()
    for number in (1, 2):
        os.dup2(writer, number)
    try:
        ended = process.run(words, environment)
    except (OSError, ValueError) as error:
        raise sandbox.Failed(f"it could not be started: {reason(error) if isinstance(error, OSError) else error}") from None
    os.write(writer, end)  # after all that the command said itself
    hearing.join()
    if ended.status:
        last = brief(" ".join(bytes(said).partition(end)[0][-_SAID:].decode("utf-8", "replace").split()), _SAID)
        raise sandbox.Failed(f"it failed with {ended.how}{f' ({last})' if last else ''}")


def is_root(tree: str) -> bool:
    """Whether a directory is the root of a system, which a container can be started from."""
    try:
        return any(stat.S_ISREG(os.stat(os.path.join(tree, name), follow_symlinks=False).st_mode) for name in ("usr/lib/os-release", "etc/os-release"))
    except OSError:
        return False
