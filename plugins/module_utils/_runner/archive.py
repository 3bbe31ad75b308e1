# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The command as one file: a zip archive of the engine's sources and their bytecode, which Python runs as it is.

::

    #!/usr/bin/env python3
    __main__.py                 refuses a Python that is too old, in words that every Python understands; then cli.main
    volt_backup/_runner/...     the engine's packages as they are, whose imports are relative; beside each `x.py` its bytecode, `x.pyc`

Where the sources come from is for the import system to say: a source tree, an installed collection, or the archive that Ansible sends to a
host for one module. That one holds no more than what the module imports, so all of the packages must be imported from here: `cli` leads
to most of it, and `declare`, which the command does not need, is named for that alone. Entries are in order, not compressed, without the
dates and modes of files.

Two thirds of a start were spent on compiling, so the Python that builds the archive leaves its bytecode there. Another Python passes over
bytecode that is not its own and takes the sources. Source: zipimport, PEP 552.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import pkgutil
import struct
import typing as t
import zipfile
from importlib.machinery import ModuleSpec

from .. import _backup, _base, _capture, _format, _fs, _proof, _remote, _restore, _runner, _schedule, _sources, _store, _version
from .._base import VoltError
from .._schedule import command, declare, history, job
from .._store import features
from . import cli

_PACKAGES = (_backup, _base, _capture, _format, _fs, _proof, _remote, _restore, _runner, _schedule, _sources, _store)
#: Their imports lead to all of those packages: what the command can do, what it is told by, and what only modules return.
_ROOTS = (cli, declare, history)
_TOP = "volt_backup"
#: Flags of bytecode that names its source by a hash, and is taken without a look at that source.
_UNCHECKED = 0b01
_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = """\
# The volt-backup command, GPL-3.0-or-later. Written by the Ansible module volt.backup.volt_runner; changes to it are lost.
import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command can say that it was stopped
if sys.version_info < (3, 9):
    sys.stderr.write("volt-backup needs Python 3.9 or newer, and this is %d.%d; start it with a newer one.\\n" % sys.version_info[:2])
    raise SystemExit(1)

if __name__ == "__main__":
    import os

    # An upgrade may replace this file before all of it is imported: what comes later comes from the same file, by its descriptor.
    held = "/proc/self/fd/%d" % os.open(__loader__.archive, os.O_RDONLY)
    if os.path.exists(held):
        sys.path[0] = held
    from {module} import main

    raise SystemExit(main())
"""


def stamp() -> command.CommandStamp:
    """What the command says of itself."""
    return command.CommandStamp(_version.VERSION, job.FORMAT, features.KNOWN)


def build() -> bytes:
    """The file's content."""
    file = io.BytesIO()
    file.write(_SHEBANG)
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in _with_bytecode(True):
            entry = zipfile.ZipInfo(name)  # which dates it 1980, and does not compress it
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
        archive.comment = command.stamp(stamp())
    return file.getvalue()


def describe() -> str:
    """What `command.describe` says of the file's content, found without compiling anything: that takes most of the time."""
    return command.describe_entries(stamp(), _SHEBANG, _with_bytecode(False))


def _with_bytecode(whole: bool) -> t.Iterator[t.Tuple[str, bytes]]:
    """All entries, in order. `__main__` stays source alone: a Python that is too old must be able to read it.

    :param whole: False for no more than the heads of bytecode.
    """
    for name, source in sorted(_entries()):
        yield name, source
        if name.startswith(_TOP):
            head = importlib.util.MAGIC_NUMBER + struct.pack("<L", _UNCHECKED) + importlib.util.source_hash(source)
            yield f"{name}c", head + (marshal.dumps(compile(source, name, "exec", dont_inherit=True)) if whole else b"")


def _entries() -> t.Iterator[t.Tuple[str, bytes]]:
    """Name and content of each source."""
    room, module = cli.__name__.split(".")[-2:]
    yield "__main__.py", _MAIN.format(module=f"{_TOP}.{room}.{module}").encode("ascii")
    yield f"{_TOP}/__init__.py", b""
    yield f"{_TOP}/_version.py", _source(_version.__spec__)
    for package in _PACKAGES:
        directory = f"{_TOP}/{package.__name__.rpartition('.')[2]}"
        yield f"{directory}/__init__.py", _source(package.__spec__)
        for found in pkgutil.iter_modules(package.__path__):
            if found.name != "__main__":  # by which the engine starts from a source tree, and only there
                yield f"{directory}/{found.name}.py", _source(importlib.util.find_spec(f"{package.__name__}.{found.name}"))


def _source(spec: t.Optional[ModuleSpec]) -> bytes:
    """A module's source, as it was imported from wherever that is."""
    try:
        return t.cast(bytes, t.cast(t.Any, spec).loader.get_data(t.cast(ModuleSpec, spec).origin))
    except (AttributeError, OSError):
        raise VoltError("The sources of volt.backup cannot be read where this module runs; run it with Ansible's own executor.") from None
