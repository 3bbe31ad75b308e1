# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Dumps of MongoDB: an archive, as mongodump writes it.

Each document is whole. Documents are not of one moment together, unless the dump has the oplog, which mongorestore replays. Sources: mongodump and
mongorestore (their documentation, and what they did in tests), and the format of MongoDB's connection strings.
"""

from __future__ import annotations

import contextlib
import os
import typing as t
import urllib.parse

from .._base import SourceError, UsageError, process
from .._capture.stream import Read
from .databases import Open, Options, password

_SCHEMES = ("mongodb://", "mongodb+srv://")
#: What an archive begins with, and what ends its list of collections.
_MAGIC, _END = b"\x6d\xe2\x99\x81", b"\xff" * 4
_FLAGS = {"database": "db", "host": "host", "port": "port", "user": "username", "auth_database": "authenticationDatabase"}


def dumped(options: Options) -> Open:
    """An archive of one database, or of all. UsageError for options that cannot be meant.

    Collections are written one after the other. At once, they would be mixed in pieces of 16 MiB, in another order on each day: a second dump of 98 MiB
    that had not changed then cost 19 MiB of chunks, and none this way.
    """
    _check(options)
    database = options["database"]
    given = [f"--{flag}={options[name]}" for name, flag in _FLAGS.items() if options[name]]
    words = ["mongodump", "--archive", "--numParallelCollections=1", *given, *(["--oplog"] if options["oplog"] else [])]
    what = f"Dump of MongoDB {'databases' if database is None else f'database {database}'}"
    # only a connection string can name a socket
    uri = f"mongodb://{urllib.parse.quote(options['socket'], safe='')}/" if options["socket"] else options["uri"]

    @contextlib.contextmanager
    def start() -> t.Iterator[Read]:
        settings = {"uri": uri, "password": password(what, options)}
        with contextlib.ExitStack() as stack:
            with _file_of({key: value for key, value in settings.items() if value is not None}) as arguments:
                output = stack.enter_context(process.Output(what, [*words, *arguments]))
            yield _of_something(what, output)

    return start


def _check(options: Options) -> None:
    if options["oplog"] and options["database"] is not None:
        raise UsageError("Option oplog of mongodb in `dumps` is for a dump of all databases; omit `database`, or `oplog`.")
    if bool(options["uri"]) + bool(options["socket"]) + bool(options["host"] or options["port"]) > 1:
        raise UsageError("Options uri, socket, and host with port, of mongodb in `dumps` are three ways to name a server; use one of them.")
    uri = options["uri"] or _SCHEMES[0]
    if not uri.startswith(_SCHEMES):
        raise UsageError(f"Option uri of mongodb in `dumps` must begin with {' or '.join(_SCHEMES)}.")
    if ":" in uri.partition("://")[2].rpartition("@")[0]:
        raise UsageError("Option uri of mongodb in `dumps` must not contain a password; write that into a file, and set `password_file`.")


@contextlib.contextmanager
def _file_of(settings: t.Mapping[str, str]) -> t.Iterator[t.List[str]]:
    """The argument that names a file with these settings. It is in memory, so it is gone with the program, even if we are killed."""
    if not settings:
        yield []
        return
    fd = os.memfd_create("mongodump")
    try:
        os.fchmod(fd, 0o600)
        os.write(fd, "".join(f'{key}: "{_escaped(value)}"\n' for key, value in settings.items()).encode())
        with process.inherited(fd):
            yield [f"--config=/proc/self/fd/{fd}"]
    finally:
        os.close(fd)


def _escaped(text: str) -> str:
    """As YAML has it between double quotes, whatever characters there are."""
    return "".join(f"\\U{ord(character):08x}" for character in text)


def _of_something(what: str, output: Read) -> Read:
    """What a program writes, unless that is an archive without any collection: mongodump also succeeds for a database that does not exist."""
    head = _head(output)
    end = 4 + int.from_bytes(head[4:8], "little")
    if head[:4] == _MAGIC and head[end:] == _END:
        raise SourceError(f"{what}: the server shows no collections; correct `database`, or the rights of `user`.")

    def read(most: int) -> bytes:
        nonlocal head
        if not head:
            return output(most)
        first, head = head[:most], head[most:]
        return first

    return read


def _head(output: Read) -> bytes:
    """The head of an archive, and the four bytes behind it; what there is, if that is less."""
    head, wanted = b"", 8
    while len(head) < wanted:
        more = output(wanted - len(head))
        if not more:
            break
        head += more
        if len(head) == 8:
            wanted = 8 + min(int.from_bytes(head[4:], "little"), 1 << 20)
    return head
