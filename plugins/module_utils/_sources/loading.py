# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""How a dump that was restored is loaded: the commands that the database systems document."""

from __future__ import annotations

import shlex
import typing as t

_HOW: t.Dict[str, str] = {
    "postgresql": "runuser -u postgres -- createdb {database} && runuser -u postgres -- psql --no-psqlrc --set=ON_ERROR_STOP=1 --dbname={database} < {path}",
    "mariadb": "mariadb < {path}",
    "sqlite": "stop the application, then: rm -f {database}-wal {database}-shm {database}-journal && cp {path} {database}",
    "redis": "stop the server, then copy {path} to the file that its settings dir and dbfilename name (without an append-only file)",
    "mongodb": "mongorestore --stopOnError --archive={path}",
}
#: Of all databases of a server, where that is another way.
_HOW_ALL: t.Dict[str, str] = {"postgresql": "runuser -u postgres -- psql --no-psqlrc --dbname=postgres < {path}"}
#: Of a server, with what was written during the dump.
_HOW_OPLOG = "mongorestore --stopOnError --oplogReplay --archive={path}"


def of_restore(dumps: t.Iterable[t.Mapping[str, t.Any]], target: str) -> t.List[t.Dict[str, t.Any]]:
    """The dumps of a restored backup: `path` below the target, and `load`, how to load it. :param dumps: of the backup's record."""
    return [{**dump, "path": f"{target}/{dump['path']}", "load": _load(dump, f"{target}/{dump['path']}")} for dump in dumps]


def _load(dump: t.Mapping[str, t.Any], path: str) -> str:
    kind, database = dump["kind"], dump["database"]
    how = _HOW_OPLOG if dump.get("oplog") else (_HOW_ALL if database is None else {}).get(kind) or _HOW.get(kind, "")
    return how.format(path=shlex.quote(path), database=shlex.quote(database or ""))
