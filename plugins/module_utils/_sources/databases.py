# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The programs that write dumps, and how they log in: by a socket as a user of the host, or with a password from a file.

A password goes by the environment of the program, which only root and its user can read; never by its command line. Sources: pg_dump(1),
pg_dumpall(1), mariadb-dump(1), redis-cli(1).
"""

from __future__ import annotations

import os
import pwd
import shutil
import typing as t

from .._base import SourceError, UsageError, files, parse, process, reason
from .._capture.stream import Read

_PASSWORD_MOST = 4096
Options = t.Mapping[str, t.Any]
Open = t.Callable[[], t.ContextManager[Read]]


def postgresql(options: Options, database: t.Optional[str]) -> Open:
    """Plain SQL, which has equal parts in equal order on each day. :param database: None for roles and tablespaces."""
    if database is not None and ("=" in database or "://" in database):
        raise UsageError("Option database of postgresql in `dumps` must be the name of a database, not a connection string.")
    words = ["pg_dumpall", "--globals-only"] if database is None else ["pg_dump", "--format=plain", f"--dbname={database}"]
    words += ["--no-password", *_given(options, "host", "port"), *([f"--username={options['user']}"] if options["user"] else [])]
    what = f"Dump of PostgreSQL {'roles' if database is None else f'database {database}'}"
    run_as = options["run_as"] or (None if options["host"] or options["password_file"] or os.geteuid() else "postgres")

    def start() -> t.ContextManager[Read]:
        login = _password(what, options, "PGPASSWORD")
        return process.Output(what, words, {"PGCONNECT_TIMEOUT": "30", "PGAPPNAME": "volt-backup", "LC_ALL": "C.UTF-8", **login}, _account(what, run_as))

    return start


def mariadb(options: Options) -> Open:
    """SQL of one database, or of all. Tables of engines with transactions are of one moment.

    With a statement for each row, a changed row costs its own chunk: 14 days take 40% of what statements of many rows take, which are grouped anew
    behind each change (benchmarks/results/20261127-dumps.md).
    """
    database = options["database"]
    which = ["--all-databases"] if database is None else ["--databases", "--", database]
    words = [
        *("--single-transaction", "--quick", "--skip-extended-insert", "--skip-dump-date", "--routines", "--events", "--triggers", "--hex-blob"),
        *_given(options, "socket", "host", "port", "user"),
        *which,
    ]
    what = f"Dump of MariaDB {'databases' if database is None else f'database {database}'}"

    def start() -> t.ContextManager[Read]:
        program = "mariadb-dump" if shutil.which("mariadb-dump") or not shutil.which("mysqldump") else "mysqldump"
        return process.Output(what, [program, *words], _password(what, options, "MYSQL_PWD"))

    return start


def redis(options: Options) -> Open:
    """The data as the server sends it to a replica: an RDB file of one moment."""
    flags = {"socket": "-s", "host": "-h", "port": "-p", "user": "--user"}
    words = ["redis-cli", *(word for name, flag in flags.items() if options[name] for word in (flag, str(options[name]))), "--rdb", "-"]
    what = "Dump of Redis"
    return lambda: process.Output(what, words, _password(what, options, "REDISCLI_AUTH"))


def _given(options: Options, *names: str) -> t.List[str]:
    return [f"--{name}={options[name]}" for name in names if options[name]]


def _account(what: str, name: t.Optional[str]) -> t.Optional[process.Account]:
    if name is None:
        return None
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise SourceError(f"{what}: there is no user {name} on this host; set `run_as` to the user of the database server.") from None
    return process.Account(found.pw_uid, found.pw_gid)


def _password(what: str, options: Options, variable: str) -> t.Dict[str, str]:
    """The environment that has the password, if there is a file with one."""
    text = password(what, options)
    return {} if text is None else {variable: text}


def password(what: str, options: Options) -> t.Optional[str]:
    """The password, if there is a file with one."""
    path = options["password_file"]
    if path is None:
        return None
    try:
        text = files.read_file(parse(path), _PASSWORD_MOST)
    except OSError as error:
        raise SourceError(f"{what}: {path}, its `password_file`, cannot be read: {reason(error)}; correct that, then run again.") from None
    return os.fsdecode(text).rstrip("\n")
