# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The parts of `--help` and of the manual page that are not options: examples of each command, and the exit statuses."""

from __future__ import annotations

import argparse
import typing as t

NAME = "volt-backup"
SHORT = "back up directory trees into a content-addressed store, and restore them"
#: What says that a file beside the command is ours.
WRITTEN = "Written by the Ansible module volt.backup.volt_runner; changes to it are lost."
#: Of the manual page, a line each paragraph.
DESCRIPTION = """\
A backup holds one directory tree, the source, as it was at one time. Backups belong to a workload, which is a name. Content that is equal is stored once.
A backup is named by its id, or by the start of its id if no other id starts with it. Where a workload can be given, its newest good backup is used."""
ENVIRONMENT = {
    "COLUMNS": "How wide tables are. Without it they fit the terminal; in a pipe each row is one line.",
    "NO_COLOR": "Always respected: nothing is printed in colour.",
}

#: By command, the first ones for the command as a whole.
EXAMPLES: t.Dict[str, t.Sequence[str]] = {
    "": ("create app --source /srv/app", "list app", "restore app --dry-run", "status"),
    "create": ("create app --source /srv/app --tag before-upgrade", "create app --source /srv/app --exclude '*.tmp' --only-if-changed"),
    "list": ("list", "list app --since 2026-11-01", "list --json"),
    "show": ("show app-20261123-10", "show app-20261123-10 --contents"),
    "diff": ("diff app", "diff app-20261122 app-20261123", "diff app-20261122 /srv/app --path conf"),
    "restore": (
        "restore app --dry-run", "restore app --force", "restore app-20261123-10 --target /srv/app-restored", "restore app --path /srv/app/conf --force",
        "restore web1/app --remote offsite --target /srv/app",
    ),
    "ls": ("ls app", "ls app-20261123-10 conf", "ls web1/app /srv/app/conf --recursive --remote offsite"),
    "cat": ("cat app conf/app.conf", "cat app-20261122 /srv/app/data/app.db"),
    "export": ("export app --tar --output /srv/app.tar", "export app-20261122 --tar --path conf --output /tmp/conf.tar"),
    "find": ("find '*.conf'", "find /srv/app/conf/app.conf --workload app --since 2026-11-01", "find '*.sql' --remote offsite"),
    "history": ("history conf/app.conf", "history /srv/app/conf/app.conf --workload app --json"),
    "delete": ("delete app-20261123-10 --dry-run",),
    "accept": ("accept app-20261123-10", "accept app"),
    "protect": ("protect app-20261123-10",),
    "unprotect": ("unprotect app-20261123-10",),
    "init": ("init", "init --replace --dry-run"),
    "prune": ("prune app --keep-daily 7 --keep-weekly 5 --dry-run",),
    "gc": ("gc --dry-run", "gc --grace 0s"),
    "verify": ("verify", "verify --content --budget 5%", "verify --content --repair", "verify --repair --remote offsite"),
    "push": ("push --all --remote file:///mnt/nas/backup", "push app-20261123-10 --remote file:///mnt/nas/backup --dry-run"),
    "pull": ("pull web1/app --remote offsite --dry-run",),
    "remote": (
        "remote init file:///mnt/nas/backup", "remote keys --new recovery.key", "remote keys --from recovery.key --host web1 --out web1.key",
        "remote init file:///mnt/nas/sealed --keys web1.key", "remote status file:///mnt/nas/backup", "remote policy s3://backups/web --remote-host web1",
    ),
    "adopt": ("adopt --dry-run",),
    "import-volt": ("import-volt --dry-run",),
    "run": ("run app",),
    "hook": ("hook pre app",),
    "status": ("status", "status --check"),
    "drill": ("drill", "drill app --scratch /srv/scratch"),
    "notify": ("notify --test",),
    "help": ("help restore", "help --man"),
    "completion": ("completion bash",),
    "version": ("version", "version --json"),
}  # fmt: skip
#: How it begins.
FIRST = "examples:"
#: As the constants of `upkeep`.
STATUSES = {
    0: "success, also if the list is empty", 1: "failed", 2: "wrong usage", 3: "incomplete: something could not be read or restored", 4: "there is no store",
    5: "unknown backup, workload or path", 6: "the backup is suspect", 7: "written by a newer version", 130: "interrupted",
}  # fmt: skip


def epilog(command: str = "") -> str:
    """What follows the options of a command."""
    examples = "".join(f"  volt-backup {example}\n" for example in EXAMPLES[command])
    statuses = "".join(f"  {number:3d}  {meaning}\n" for number, meaning in STATUSES.items())
    return f"{FIRST}\n{examples}\nexit status:\n{statuses}"


def meaning(action: argparse.Action) -> str:
    """The help text of an argument, as argparse prints it."""
    return (action.help or "") % {**vars(action), "prog": NAME}
