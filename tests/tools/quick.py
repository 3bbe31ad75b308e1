# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Ansible works out anew at each start of each module is kept for the next start: that was half of the time of all tests with Ansible.

    install(site, kept)     every Python that takes packages from the directory `site` keeps such things in the directory `kept`
    quick.py HOME KEPT      the same for all environments that ansible-test has made in a home

Two things are kept: what was compiled of a source in an archive, as those of a module are, or in a collection, by that source; and the archive that
ansible-core makes of a module, by the place, size and times of all files that it is made from. What runs is the same. Where nothing can be kept or
read, all is as before.
"""

from __future__ import annotations

import _frozen_importlib_external
import _imp
import marshal
import os
import sys
import zipimport

TYPE_CHECKING = False  # as type checkers take it: to import typing would cost something at each start of a Python
if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "volt_tests_quick"
#: Seconds. A kept file that was not read for so long is removed.
_AGE = 7 * 24 * 3600
#: Where ansible-test has them, below a home.
_MADE = ".ansible/test/venv/*/*/*/lib/python3*/site-packages"


def install(site: str, kept: str) -> None:
    """Let the Pythons of a site directory use this file. What is there already is replaced where it differs."""
    with open(__file__, encoding="utf-8") as stream:
        text = stream.read()
    for name, content in ((f"{NAME}.py", text), (f"{NAME}.pth", f"import {NAME}; {NAME}.start({kept!r})\n")):
        path = os.path.join(site, name)
        try:
            with open(path, encoding="utf-8") as stream:
                if stream.read() == content:
                    continue
        except FileNotFoundError:
            pass
        _keep(path, content.encode())


def sweep(kept: str, now: float) -> None:
    """Remove what was not read for a week."""
    for top, _directories, names in os.walk(kept):
        for name in names:
            path = os.path.join(top, name)
            try:
                info = os.stat(path)
                if max(info.st_atime, info.st_mtime) < now - _AGE:
                    os.unlink(path)
            except FileNotFoundError:  # another run sweeps too
                pass


def start(kept: str) -> None:
    """At the start of a Python: it costs next to nothing where nothing is used."""
    real = zipimport._compile_source  # type: ignore[attr-defined]
    shelf = os.path.join(kept, "code")
    zipimport._compile_source = lambda path, source, *more: _code(shelf, source, path, lambda: real(path, source, *more))  # type: ignore[attr-defined]
    sys.meta_path.insert(0, _Waiting(kept))  # type: ignore[arg-type]


def _code(shelf: str, source: bytes, path: str, make: Callable[[], object]) -> object:
    """What was compiled from a source, with the path that it has today."""
    magic = _frozen_importlib_external.MAGIC_NUMBER
    digest = _imp.source_hash(int.from_bytes(magic, "little"), source).hex()
    place = os.path.join(shelf, f"{magic.hex()}-{sys.flags.optimize}-{len(source)}-{digest}")
    code = None
    try:
        with open(place, "rb") as stream:
            code = marshal.loads(stream.read())
        _imp._fix_co_filename(code, path)
    except (OSError, EOFError, ValueError, TypeError):
        pass
    if code is None:  # not in the handler: an error of the source has no other error before it
        code = make()
        _try_to_keep(place, marshal.dumps(code))
    return code


class _Waiting:
    """Waits for the parts of ansible-core that compile, or that make archives."""

    def __init__(self, kept: str) -> None:
        self._parts = {
            "ansible.executor.module_common": lambda part: _keep_payloads(part, kept),
            "ansible.utils.collection_loader._collection_finder": lambda part: _keep_collection(part, kept),
        }
        self._looks = False

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> object:
        if name not in self._parts or self._looks:
            return None
        import importlib.util

        self._looks = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looks = False
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: object) -> None:
                load(module)  # type: ignore[arg-type]
                self._parts[name](module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _keep_collection(finder: object, kept: str) -> None:
    """ansible-core compiles what it imports from a collection, and looks for no file with what was compiled."""
    loader = finder._AnsibleCollectionPkgLoaderBase  # type: ignore[attr-defined]
    real, shelf = loader.get_code, os.path.join(kept, "code")

    def get_code(self: object, name: str) -> object:
        source = self.get_source(name)  # type: ignore[attr-defined]
        if self._compiled_code or not source:  # type: ignore[attr-defined]
            return real(self, name)
        content = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source
        self._compiled_code = _code(shelf, content, self.get_filename(name) or "<string>", lambda: real(self, name))  # type: ignore[attr-defined]
        return self._compiled_code  # type: ignore[attr-defined]

    loader.get_code = get_code


def _keep_payloads(common: object, kept: str) -> None:
    """ansible-core looks for archives in a directory of each process; put there what is kept, and keep what it makes."""
    import hashlib
    import shutil

    from ansible import constants
    from ansible.release import __version__

    real = common.modify_module  # type: ignore[attr-defined]

    def modify_module(*positional: object, **named: object) -> object:
        path = os.path.abspath(str(named.get("module_path") or positional[1]))
        parts = path.split(os.sep)
        if parts[-4:-1] == ["backup", "plugins", "modules"]:
            prefix = f"ansible_collections.volt.backup.plugins.modules.{parts[-1][:-3]}-"
            tops = [os.sep.join(parts[:-2])]
        elif os.path.dirname(path) == os.path.join(os.path.dirname(constants.__file__), "modules"):
            prefix, tops = f"ansible.modules.{parts[-1][:-3]}-", []
        else:
            return real(*positional, **named)
        digest = hashlib.sha256(repr((__version__, constants.__file__, tops)).encode())
        for top in tops:
            for place, directories, names in os.walk(top):
                directories.sort()
                for name in sorted(names):
                    if name.endswith(".py"):
                        info = os.stat(os.path.join(place, name))
                        digest.update(repr((place, name, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)).encode())
        shelf = os.path.join(kept, "payload", digest.hexdigest()[:32])
        work = os.path.join(constants.DEFAULT_LOCAL_TMP, "ansiballz_cache")
        before = _payloads(work, prefix)
        for name in set(_payloads(shelf, prefix)) - set(before):
            os.makedirs(work, exist_ok=True)
            beside = os.path.join(work, f"{name}.{os.getpid()}.kept")
            try:
                shutil.copyfile(os.path.join(shelf, name), beside)
                os.rename(beside, os.path.join(work, name))
            except OSError:
                pass
        before = _payloads(work, prefix)
        done = real(*positional, **named)
        for name in set(_payloads(work, prefix)) - set(before):
            with open(os.path.join(work, name), "rb") as stream:
                _try_to_keep(os.path.join(shelf, name), stream.read())
        return done

    common.modify_module = modify_module  # type: ignore[attr-defined]


def _payloads(directory: str, prefix: str) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if name.startswith(prefix) and not name.endswith((".lock", "-part", ".kept"))]
    except OSError:
        return []


def _try_to_keep(path: str, content: bytes) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _keep(path, content)
    except OSError:
        pass


def _keep(path: str, content: bytes) -> None:
    """Write a file at once: others may read it now."""
    beside = f"{path}.{os.getpid()}.part"
    with open(beside, "wb") as stream:
        stream.write(content)
    os.rename(beside, path)


if __name__ == "__main__":
    import glob

    for directory in glob.glob(os.path.join(glob.escape(sys.argv[1]), _MADE)):
        install(directory, sys.argv[2])
