# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Import the engine from what Ansible sent to a host, without compiling it more often than needed.

Ansible sends a module and its utilities as one zip archive of sources, the payload. Python's zipimport compiles each of them twice, once to find
it and once to run it, and cannot keep bytecode. For a module of this collection that was more than half of its time.

::

    install     put the finder before Python's own, if this file itself came from a payload
    _Finder     finds what belongs to the engine, by reading the payload
    _Loader     takes the bytecode from the installed command, or compiles the source

The command (see _runner/archive.py) holds bytecode, each with the hash of its source. It is used if the hash is that of the payload's source, if the same
Python wrote it, and if only root, or who runs this, can write to the command. Sources: zipimport, PEP 451, PEP 552.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import stat
import sys
import typing as t
import zipfile
import zipimport
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType

from . import _version

#: What the names of the engine's packages and modules begin with, and what stands in its place in the command.
_ENGINE, _TOP = __name__.rpartition(".")[0] + ".", "volt_backup/"
#: Bytecode that names its source by a hash, and is taken without a look at that source.
_UNCHECKED = b"\x01\0\0\0"


def install() -> None:
    """Import the engine's modules from the payload from now on. Without effect where they do not come from one."""
    payload = globals().get("__loader__")
    if isinstance(payload, zipimport.zipimporter):
        sys.meta_path.insert(0, t.cast(t.Any, _Finder(payload, _command())))


class _Finder:
    def __init__(self, payload: zipimport.zipimporter, command: t.Optional[zipfile.ZipFile]) -> None:
        self._payload, self._command = payload, command

    def find_spec(self, name: str, path: t.Any = None, target: t.Any = None) -> t.Optional[ModuleSpec]:
        """Where a package or a module is; None if the payload does not have it, or it is not the engine's."""
        if not name.startswith(_ENGINE):
            return None
        base = os.path.join(self._payload.archive, *name.split("."))
        for file, inside in ((os.path.join(base, "__init__.py"), [base]), (f"{base}.py", None)):
            try:
                source = self._payload.get_data(file)
            except OSError:
                continue
            loader = _Loader(name, file, source, self._payload, self._command)
            return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=inside)
        return None


class _Loader(SourceFileLoader):
    """Of one package or module, whose source was read already."""

    def __init__(self, name: str, file: str, source: bytes, payload: zipimport.zipimporter, command: t.Optional[zipfile.ZipFile]) -> None:
        super().__init__(name, file)
        self._source, self._payload, self._command = source, payload, command

    def get_data(self, path: t.Any) -> bytes:
        """The bytes of a file of the payload."""
        return self._payload.get_data(path)

    def get_code(self, fullname: str) -> t.Optional[CodeType]:
        """What runs when the module is imported."""
        return self._bytecode() or t.cast(CodeType, self.source_to_code(self._source, self.path))

    def _bytecode(self) -> t.Optional[CodeType]:
        """From the command; None if that has none which fits."""
        if self._command is None:
            return None
        inside = self.name[len(_ENGINE) :].replace(".", "/") + ("/__init__" if self.is_package(self.name) else "")
        head = importlib.util.MAGIC_NUMBER + _UNCHECKED + importlib.util.source_hash(self._source)
        try:
            found = self._command.read(f"{_TOP}{inside}.pyc")
            return t.cast(CodeType, marshal.loads(found[len(head) :])) if found.startswith(head) else None
        except Exception:  # zipfile has another one for each field that is not as it should be
            return None  # another version has other files, and a damaged command is for others to tell of


def _command() -> t.Optional[zipfile.ZipFile]:
    """The installed command; None if there is none, or if other users can write to it."""
    try:
        file = open(os.open(_version.COMMAND, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        about = os.fstat(file.fileno())
        if stat.S_ISREG(about.st_mode) and about.st_uid in (0, os.geteuid()) and not about.st_mode & 0o022:
            return zipfile.ZipFile(file)
        file.close()
    except Exception:  # as above: no module may fail for it, least of all the one that installs it anew
        pass
    return None
