# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Dumps as users declare them: one mapping each, whose only key is the database system."""

from __future__ import annotations

import re
import typing as t

from .._base import UsageError, parse as parse_text, show
from .._capture.stream import Read, Stream
from . import commands, databases, mongodb, sqlite

_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")


class Dump(t.NamedTuple):
    """A dump: its system, the database (None for all, or where the system has only one), and what writes it.

    `of_server`: several items may mean it. `oplog`: it contains the oplog of MongoDB.
    """

    kind: str
    database: t.Optional[str]
    stream: Stream
    of_server: bool
    oplog: bool


def parse(item: t.Mapping[str, t.Any], source: t.Optional[bytes]) -> t.Iterator[Dump]:
    """The dumps that one declaration means. UsageError for one that cannot be meant.

    :param source: real path of the source, where relative paths begin; None where there is none.
    """
    given = {kind: value for kind, value in item.items() if value is not None}
    if len(given) != 1 or not set(given) <= set(_KINDS):
        raise UsageError(f"Each item of `dumps` must have one key, and that one of {', '.join(_KINDS)} (got {', '.join(given) or 'nothing'}).")
    ((kind, options),) = given.items()
    if not isinstance(options, t.Mapping):
        raise UsageError(f"Option {kind} of `dumps` must be a mapping of options.")
    known, make = _KINDS[kind]
    unknown = sorted(set(options) - {*known, "name"})
    if unknown:
        raise UsageError(f"Option {unknown[0]} of {kind} in `dumps` is unknown; use one of {', '.join((*known, 'name'))}.")
    made = list(make({**dict.fromkeys(known), **options}, source))
    made = [one._replace(file=_UNFIT.sub("_", one.file)) for one in made]
    if options.get("name") is not None:
        made[0] = made[0]._replace(file=options["name"])
    for one in made:
        name = commands.check_name("name", one.file)
        stream = Stream(commands.DUMPS + b"/" + name, one.open, only_reads=kind != "sqlite")  # SQLite tidies up what a crash left
        yield Dump(kind, one.database, stream, kind == "postgresql" and one.database is None, one.oplog)


class Made(t.NamedTuple):
    """`file`: its name in the backup, which need not be fit for one."""

    file: str
    database: t.Optional[str]
    open: t.Callable[[], t.ContextManager[Read]]
    oplog: bool = False


Options = t.Mapping[str, t.Any]


def _postgresql(options: Options, _source: t.Optional[bytes]) -> t.Iterator[Made]:
    database = options["database"]
    if not database:
        raise UsageError("Option postgresql of `dumps` needs `database`; add an item for each database.")
    yield Made(f"postgresql-{database}.sql", database, databases.postgresql(options, database))
    if options["globals"] is None or options["globals"]:  # one file for each server, which several items may name
        server = "".join(f"-{options[key]}" for key in ("host", "port") if options[key])
        yield Made(f"postgresql-globals{server}.sql", None, databases.postgresql(options, None))


def _mariadb(options: Options, _source: t.Optional[bytes]) -> t.Iterator[Made]:
    yield Made(f"mariadb-{options['database'] or 'all'}.sql", options["database"], databases.mariadb(options))


def _redis(options: Options, _source: t.Optional[bytes]) -> t.Iterator[Made]:
    yield Made("redis.rdb", None, databases.redis(options))


def _sqlite(options: Options, source: t.Optional[bytes]) -> t.Iterator[Made]:
    if not options["path"]:
        raise UsageError("Option sqlite of `dumps` needs `path`, the file of the database.")
    path = parse_text(options["path"])
    if not path.startswith(b"/"):
        if source is None:
            raise UsageError(f"Option path of sqlite in `dumps` must be an absolute path, because there is no `source` (got {options['path']!r}).")
        path = source + b"/" + path
    yield Made(f"sqlite-{show(path.rpartition(b'/')[2])}", show(path), lambda: sqlite.copied(path))


def _mongodb(options: Options, _source: t.Optional[bytes]) -> t.Iterator[Made]:
    yield Made(f"mongodb-{options['database'] or 'all'}.archive", options["database"], mongodb.dumped(options), bool(options["oplog"]))


#: The options of each system, and what makes its dumps.
_KINDS: t.Dict[str, t.Tuple[t.Tuple[str, ...], t.Callable[[Options, t.Optional[bytes]], t.Iterator[Made]]]] = {
    "postgresql": (("database", "globals", "host", "port", "user", "run_as", "password_file"), _postgresql),
    "mariadb": (("database", "socket", "host", "port", "user", "password_file"), _mariadb),
    "sqlite": (("path",), _sqlite),
    "redis": (("socket", "host", "port", "user", "password_file"), _redis),
    "mongodb": (("database", "oplog", "uri", "socket", "host", "port", "user", "password_file", "auth_database"), _mongodb),
}
