# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of the house, held against its files: imports run downward, the engine knows no Ansible, every file opens as files do."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
ENGINE = PLUGINS / "module_utils"
HEADER = [
    "# Copyright (c) 2026, volt.backup contributors",
    "# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)",
    "# SPDX-License-" + "Identifier: GPL-3.0-or-later",  # in two pieces: reuse would take it for this file's own
]
MOST = 500
#: Lines of a function: a screen.
LONGEST = 60

#: Floors from the ground up: a file may import from its own room, and from floors below its own.
FLOORS = {
    "_version": -1, "_base": 0, "_store": 1, "_format": 2, "_fs": 3, "_capture": 4, "_restore": 4, "_sources": 5, "_backup": 6, "_remote": 7, "_proof": 7,
    "_schedule": 8, "_workloads": 8, "_runner": 9, "_payload": 0, "_module": 10, "modules": 11, "doc_fragments": 11, "plugin_utils": 11, "filter": 12,
}  # fmt: skip
KNOWS_ANSIBLE = {"_module", "modules", "doc_fragments", "filter"}
OUTSIDE = ("ansible", "ansible_collections")
#: Beyond the standard library, and only where it may be missing.
OPTIONAL = {"botocore", "zstandard", "cryptography"}
#: `compression` is that of Python 3.14; Python 3.9 does not list its modules, and then this rule is not tested.
STANDARD = frozenset(getattr(sys, "stdlib_module_names", ())) | {"compression", "__future__"}


def sources() -> list[Path]:
    return sorted(path for path in PLUGINS.rglob("*.py") if "__pycache__" not in path.parts)


def room(path: Path) -> str:
    """The package below module_utils, or the sort of plugin, that a file belongs to."""
    base = ENGINE if ENGINE in path.parents else PLUGINS
    return path.relative_to(base).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that a file imports, wherever in it; relative ones from plugins/ downward."""
    package = list(path.relative_to(PLUGINS).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            if node.level and node.level > len(package):
                yield node.lineno, "outside"
            for alias in node.names:
                yield node.lineno, ".".join([*base, *([node.module] if node.module else []), alias.name])


def target(name: str) -> str | None:
    """The room that a dotted name leads to; None for what is not ours."""
    parts = name.split(".")
    if parts[:3] == ["ansible_collections", "volt", "backup"]:
        parts = parts[4:]
    if parts[0] == "module_utils":
        parts = parts[1:]
    return parts[0] if parts and parts[0] in FLOORS else None


def faults(path: Path) -> list[str]:
    """What a file imports and must not."""
    here, found = room(path), []
    engine = ENGINE in path.parents and here not in KNOWS_ANSIBLE
    for line, name in imports(path):
        there, top = target(name), name.split(".")[0]
        if there is not None and there != here and FLOORS[there] >= FLOORS[here]:
            found.append(f"{line}: {here} is not above {there}")
        if engine and top in OUTSIDE:
            found.append(f"{line}: the engine imports {name}; use relative imports, and no Ansible")
        if engine and there is None and top not in {*OUTSIDE, "module_utils", *OPTIONAL, *STANDARD} and len(STANDARD) > 2:
            found.append(f"{line}: {name} is not in the standard library")
        if name == "outside":
            found.append(f"{line}: leads out of plugins/")
    return found


def sent_with(path: Path) -> set[Path]:
    """All files that Ansible sends to a host with a file: those that it imports, wherever in it, and that these import."""
    found: set[Path] = set()
    todo = [path]
    while todo:
        here = todo.pop()
        for _line, name in imports(here):
            parts = name.split(".")[4:] if name.startswith("ansible_collections.volt.backup.plugins") else name.split(".")
            for end in (parts, parts[:-1]):
                for file in (PLUGINS.joinpath(*end).with_suffix(".py"), PLUGINS.joinpath(*end, "__init__.py")):
                    if end and file.is_file() and file not in found:
                        found.add(file)
                        todo.append(file)
    return found


def test_what_finds_workloads_is_sent_without_a_store() -> None:
    rooms = {room(path) for path in sent_with(PLUGINS / "modules/volt_workload_info.py")}
    assert "_workloads" in rooms and not rooms & {"_store", "_capture", "_restore", "_schedule", "_runner"}
    assert "_store" in {room(path) for path in sent_with(PLUGINS / "modules/volt_backup_info.py")}


def test_unit_tests_are_in_the_directory_of_their_package() -> None:
    rooms = {path.name for path in Path(__file__).parent.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms and rooms <= FLOORS.keys()


SOURCES = {str(path.relative_to(PLUGINS)): path for path in sources()}


def test_there_are_sources() -> None:
    assert {"module_utils/_store/pack.py", "module_utils/_format/tree.py", "module_utils/_backup/records.py"} <= SOURCES.keys()
    assert {room(path) for path in SOURCES.values()} <= FLOORS.keys()


def test_imports_run_downward() -> None:
    assert [f"{name}:{fault}" for name, path in SOURCES.items() for fault in faults(path)] == []


def test_a_filter_is_quick_to_load() -> None:
    """To find one filter, Ansible loads all of a collection, and does so for each task and host: the engine is imported when a filter is called."""
    filters = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items() if name.startswith("filter/")}
    named = [(name, node.module or "") for name, tree in filters.items() for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert not [one for one in named if one[1].split(".")[-1].startswith("_") and one[1] != "__future__" or "_utils" in one[1]]


def test_opening() -> None:
    """The licence's three lines first; then a docstring, for which modules have their DOCUMENTATION; and no room too large to see."""
    for name, path in SOURCES.items():
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        assert [line for line in lines[:6] if line and not line.startswith("#!")][:3] == HEADER, name
        if ENGINE in path.parents:
            assert ast.get_docstring(ast.parse(text)), name
            assert len(lines) <= MOST, name


def test_functions_fit_a_screen() -> None:
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items() if ENGINE in path.parents}
    functions = [(name, node) for name, tree in trees.items() for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert [f"{name}: {node.name}" for name, node in functions if (node.end_lineno or 0) - node.lineno >= LONGEST] == []


def passing_over(tree: ast.AST) -> Iterator[ast.Call]:
    """Where `contextlib.suppress` is told to pass over errors of ours: a signal that asks to stop is one of them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            if {"VoltError", "Interrupted", "Exception", "BaseException"} & {ast.unparse(kind) for kind in node.args}:
                yield node


def test_no_signal_is_passed_over() -> None:
    """`tolerated` is for that."""
    assert list(passing_over(ast.parse("with held(), contextlib.suppress(OSError, VoltError): pass")))
    found = [f"{name}:{node.lineno}" for name, path in SOURCES.items() for node in passing_over(ast.parse(path.read_text(encoding="utf-8")))]
    assert found == []


ROOMS = sorted({path.parent for path in SOURCES.values() if path.parent.parent == ENGINE})


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: path.name)
def test_the_text_of_a_room_names_its_files(path: Path) -> None:
    text = ast.get_docstring(ast.parse((path / "__init__.py").read_text(encoding="utf-8"))) or ""
    files = {file.stem for file in path.glob("*.py")} - {"__init__", "__main__"}
    named = set(re.findall(r"`([a-z0-9_]+)`", text.rpartition("Files:")[2]))
    assert named == files


#: How a path inside a store would be built, or its index be touched, from outside.
INSIDE = {
    "a path in a store": r"\bfull_path\b|\blayout\b|store\.path\s*[+/]|join\([^)\n]*store",
    "a name in a store": r"""["'](?:refs|objects|packs|index|cache|trash|quarantine|tmp)/""",
    "a store's index": r"store\.index\b",
}
OUTSIDE_THE_STORE = [name for name, path in SOURCES.items() if ENGINE in path.parents and path.parent.name != "_store"]


def trespasses(text: str) -> list[str]:
    """What a file does that is the store's alone; comments and docstrings may speak of it."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body[0] = ast.Pass()
    return [f"{what}: {line.strip()}" for line in ast.unparse(tree).splitlines() for what, pattern in INSIDE.items() if re.search(pattern, line)]


def test_only_the_store_knows_its_paths() -> None:
    assert [f"{name}: {one}" for name in OUTSIDE_THE_STORE for one in trespasses(SOURCES[name].read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "line", ['os.path.join(store.path, "refs")', "store.full_path(name)", "store.index.find(digest)", 'open("packs/ab")', "layout.object_path(digest, suffix)"]
)
def test_which_imports_are_forbidden(line: str) -> None:
    assert trespasses(line + "\n")
    assert not trespasses(f"x = 1  # {line}\n") and not trespasses(f"def f():\n    \"\"\"See {line.replace(chr(34), '')}\"\"\"\n")


UPWARD = {
    "from .._format import tree": ("_store/x.py", True),
    "from .._format.tree import Entry": ("_store/x.py", True),
    "from .._restore import compare": ("_capture/x.py", True),
    "def f():\n    from .._backup import ids": ("_format/x.py", True),
    "from .. import _runner": ("_backup/x.py", True),
    "from .._schedule import slots": ("_backup/x.py", True),
    "from ansible.module_utils.basic import AnsibleModule": ("_runner/x.py", True),
    "import ansible.module_utils.common": ("_store/x.py", True),
    "from ansible_collections.volt.backup.plugins.module_utils._store import pack": ("_base/x.py", True),
    "import requests": ("_remote/x.py", sys.version_info >= (3, 10)),
    "from .._store import pack": ("_format/x.py", False),
    "from . import pack": ("_store/x.py", False),
    "from .._backup import manager": ("_runner/x.py", False),
    "import zstandard": ("_store/x.py", False),
    "from ansible.module_utils.basic import AnsibleModule\nfrom ._backup import manager": ("_module.py", False),
}


@pytest.mark.parametrize("text", UPWARD)
def test_the_judge_sees(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong = UPWARD[text]
    monkeypatch.setitem(globals(), "PLUGINS", tmp_path)
    monkeypatch.setitem(globals(), "ENGINE", tmp_path / "module_utils")
    path = tmp_path / "module_utils" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert bool(faults(path)) == wrong
