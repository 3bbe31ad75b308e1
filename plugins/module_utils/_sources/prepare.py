# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""All that is done around the reading of one source: what programs write into the backup, and how the source is kept still."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._base import UsageError, show
from .._capture.capture import View
from .._capture.stream import Stream, Streams
from .._fs.exclusions import Exclusions
from . import commands, dumps
from .dumps import Dump
from .quiesce import Quiesced, quiesced
from .runtimes import LIBVIRT, Container
from .snapshot import NOT_STILL, Taken, taken


class Asked(t.NamedTuple):
    """What is asked for beside the source; names as in the contract. `stdin`: what is piped in, and its name in the backup."""

    command: t.Sequence[str] = ()
    command_file: t.Optional[str] = None
    dumps: t.Sequence[t.Mapping[str, t.Any]] = ()
    stdin: t.Optional[t.Tuple[str, t.BinaryIO]] = None
    allow_empty: bool = False


class Held(t.NamedTuple):
    """A source that is kept still. `view` is where it is read, None for where it lies; the others are for the backup's record, and its warnings."""

    view: t.Optional[View]
    snapshots: t.List[t.Dict[str, t.Optional[str]]]
    quiesced: t.List[t.Dict[str, str]]
    warnings: t.List[str]


@contextlib.contextmanager
def kept_still(
    source: bytes, place: t.Callable[[], bytes], way: str, quiesce: str, exclude: t.Optional[Exclusions], size: t.Optional[str]
) -> t.Iterator[Held]:
    """Keep a source still while it is read, by its containers, by snapshots, or by both: then the containers only wait for the snapshots.

    :param source: a real path. :param place: makes an empty directory, for the snapshots. :param way: as option `snapshot`.
    :param exclude: what is not read; None where only one file system is. :param size: as option `snapshot_size`.
    """
    with contextlib.ExitStack() as stack:
        still: t.Optional[Quiesced] = None
        containers: t.List[Container] = []
        if quiesce != "none":
            still, containers = stack.enter_context(quiesced(quiesce, source))
        found = Taken(None, [], [])
        if way != "none":
            found = stack.enter_context(taken(source, place(), way == "require", exclude, size))
            if still is not None and all(part["kind"] != NOT_STILL for part in found.parts):
                still.resume()
        told = [{"runtime": one.runtime, "name": one.name, "way": one.how(quiesce)} for one in containers]
        warnings = [_without_agent(one) for one in containers if one.runtime == LIBVIRT and one.how(quiesce) == "pause"]
        yield Held(found.view, found.parts, told, [*found.warnings, *warnings])


def _without_agent(domain: Container) -> str:
    return (
        f"{domain.what} was suspended, because no guest agent is connected: in this backup, its disks are as after a power cut. Install and start"
        " qemu-guest-agent in it, or set `quiesce: stop`."
    )


def prepare(asked: Asked, source: t.Optional[bytes]) -> t.Tuple[Streams, t.List[t.Any]]:
    """What programs are to write into a backup, and what its record says of the dumps. Nothing is started yet.

    :param source: real path of the source; None where there is none, so that files need no directory of their own beside its entries.
    :raises UsageError: what is asked for cannot be meant.
    """
    found: t.List[Stream] = []
    declared: t.List[Dump] = []
    for dump in (dump for item in asked.dumps for dump in dumps.parse(item, source)):
        if not dump.of_server or all(dump.stream.path != other.stream.path for other in declared):
            declared.append(dump)
    found += [dump.stream for dump in declared]
    above = b"" if source is None else commands.DUMPS + b"/"
    if asked.stdin is not None:
        found.append(commands.of_input(asked.stdin[1], asked.stdin[0], asked.allow_empty, above))
    if asked.command:
        found.append(commands.of_command(asked.command, asked.command_file, asked.allow_empty, above))
    elif asked.command_file is not None:
        raise UsageError("Option `command_file` has no effect without `command`; set that, or omit it.")
    _refuse_twice([stream.path for stream in found])
    return Streams(found), [_recorded(dump) for dump in declared]


def _recorded(dump: Dump) -> t.Dict[str, t.Any]:
    return {"kind": dump.kind, "path": show(dump.stream.path), "database": dump.database, **({"oplog": True} if dump.oplog else {})}


def _refuse_twice(paths: t.Sequence[bytes]) -> None:
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"Two files of the backup would be {show(path)}; give one of them another name.")


def shown_at(place: bytes, source: bytes, *paths: str) -> t.Iterator[str]:
    """Those of some paths that lie in a source, as they lie at the place that shows it."""
    for path in paths:
        below = os.path.relpath(os.path.realpath(os.fsencode(path)), source)
        if below.split(b"/", 1)[0] != b"..":
            yield os.fsdecode(os.path.join(place, below))
