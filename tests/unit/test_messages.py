# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every text that a user can see, listed once in messages.txt to be read side by side, and the rules for such texts.

`VOLT_PICTURES=write` writes the list anew.
"""

from __future__ import annotations

import ast
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).with_name("messages.txt")
_WRITE = os.environ.get("VOLT_PICTURES") == "write"
#: The quick one, where PyYAML has it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: What AnsibleModule, the documentation and shells read, which is no message.
_DOCUMENTS = ("DOCUMENTATION", "EXAMPLES", "RETURN", "_BASH", "_ZSH", "_FISH")
#: A text has two words at least, one of them of small letters; a name, a key, a format of time has not.
_TEXT = re.compile(r"[A-Za-z{}'`][\w{}'`.,:;()/-]* +(?:[^ ]+ +)*?[`(]?[a-z]{2,}")

_TEMPLATE = re.compile(r"{{.*?}}|{%.*?%}", re.DOTALL)
#: What stands between two texts of a template.
_CODE = re.compile(r"[|~]|^if ")


def texts_of(source: str) -> Iterator[str]:
    """The texts in a Python file, with {} for what is filled in. Comments, docstrings and documents are none."""
    tree = ast.parse(source)
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in _DOCUMENTS:
            node.value = ast.Constant(None)
    yield from filter(_TEXT.search, _literals(tree))


def _literals(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield " ".join(node.value.split())
    elif isinstance(node, ast.JoinedStr):
        yield " ".join("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values).split())
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from _literals(part.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _literals(child)


def tasks_of(node: object) -> Iterator[str]:
    """What tasks say: every `msg`, `fail_msg` and `success_msg` in a file of YAML, with {} for templates, and the texts in all templates."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("msg", "fail_msg", "success_msg") and isinstance(value, str):
                yield " ".join(_TEMPLATE.sub("{}", value).split())
            yield from tasks_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from tasks_of(value)
    elif isinstance(node, str):
        quoted = (" ".join(text.split()) for template in _TEMPLATE.findall(node) for text in re.findall(r"'([^']+)'", template))
        yield from (text for text in quoted if _TEXT.search(text) and not _CODE.search(text))


@functools.cache
def messages() -> list[str]:
    """A line a text: its file and the text."""
    found = set()
    for folder in ("module_utils", "modules", "plugin_utils", "filter"):
        for path in (ROOT / "plugins" / folder).rglob("*.py"):
            found.update(f"{path.relative_to(ROOT / 'plugins')}: {text}" for text in texts_of(path.read_text(encoding="utf-8")))
    for folder in ("roles", "playbooks"):
        for path in (ROOT / folder).rglob("*.yml"):
            for document in yaml.load_all(path.read_text(encoding="utf-8"), _LOADER):
                found.update(f"{path.relative_to(ROOT)}: {text}" for text in tasks_of(document) if _TEXT.search(text))
    return sorted(found)


def kinds() -> set[str]:
    """The names of the exceptions that end in front of a user."""
    found = {"VoltError"}
    classes = [
        (node.name, {last_name(base) for base in node.bases})
        for path in (ROOT / "plugins" / "module_utils").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    while more := {name for name, bases in classes if bases & found} - found:
        found |= more
    return found


def last_name(node: ast.AST) -> str:
    """What stands behind the last point of a name; nothing where it is no name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def errors_of(source: str, names: set[str]) -> Iterator[tuple[str, str]]:
    """(kind, text) of the errors that a file raises with a text of its own."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and last_name(node.func) in names:
            if isinstance(node.args[0], (ast.Constant, ast.JoinedStr)):
                yield last_name(node.func), list(_literals(node.args[0]))[0]


@functools.cache
def errors() -> list[tuple[str, str, str]]:
    """(file, kind, text) of every such error."""
    names, folder = kinds(), ROOT / "plugins"
    paths = [*(folder / "module_utils").rglob("*.py"), *(folder / "modules").rglob("*.py")]
    return sorted((str(path.relative_to(folder)), *error) for path in paths for error in errors_of(path.read_text(encoding="utf-8"), names))


#: What is made once, before the first test where each test has a process of its own; see conftest.py.
ONCE = (messages, errors)


def test_the_list_is_that_of_the_sources() -> None:
    text = "\n".join([*messages(), ""])
    if _WRITE:
        KEPT.write_text(text, encoding="utf-8")
    assert KEPT.read_text(encoding="utf-8") == text, "VOLT_PICTURES=write makes messages.txt anew; read what has changed in it"


#: Words of a manner, and words that the field does not use, each with what to write.
MANNERED = {
    r"\bmend": "fix, repair",
    r"\banew\b": "again",
    r"\bnobody\b|\bno one\b|\bwhoever\b": "name the thing",
    r"\b(and|which|that) (\S+ ){0,2}is none\b": "is not a ..., (got ...)",
    r"(?<![Tt]here )\b(is|are) no (?!longer)[a-z]": "is not a ...",
    r"\btold\b|\btells?\b": "notify, notification, show",
    r"\bis said\b|\bbelieved\b|\bno saying\b": "is set, is used, is unknown",
    r"\bsay (?:`|which|what|--)": "use `option: value`, set ...",
    r"\bof its kind\b|\bof that kind\b": "name the kind",
    r"\blet go of\b|\btaken? away\b": "remove",
    r"\btook? (in|over)\b|\btaken in\b": "import, adopt",
    r"\blies? (in|there)\b": "is inside",
    r"\brel(y|ied) on\b": "good, used",
    r"\bexchanged?\b": "replace, swap",
    r"\bcut short\b": "truncated, interrupted",
    r"\blook(ed)? (at|whether)\b": "check, inspect",
    r"\bunder way\b": "running",
    r", for (it|its|no|some) ": "because",
    r"\bis not there\b|\bis there\b": "is missing, exists",
    r"\bnot understood\b": "invalid",
    r"\bas (it|they) should be\b": "correct, undamaged",
    r"\bperhaps that\b|\bkin\b|\bfare\b": "plain words",
    r"\bpassed? over\b|\bpassing over\b": "skip",
    r"\bfurther path": "other path",
    r"\bis what is\b|\bwhat is (not )?(in|there|so)\b": "name the thing",
    r"\bof (?:whose|which backups)\b|\bof this one\b|\bof the future\b": "the ... of the ...",
    r"\bbegun\b|\bbeginning of (it|one)\b": "started, start",
    r"\b(alone|alike)$|\bby \S+ and \S+ alone\b": "only, both",
    r"\bin spite of\b|\balthough it is\b": "even if",
    r"\bto begin with\b": "first, older",
    r"\bis had\b|\bhad by\b|\bstands? (in|for|at)\b": "is, means",
    r"\bsound\b": "undamaged",
    r"\bMake sure that it was said\b|\bit was said\b": "is set",
    r"\bholds (the|a|an|data|zstd)\b(?! lock)": "contains",
    r"\bis not known\b": "is unknown",
}  # fmt: skip


def test_messages_are_in_plain_words() -> None:
    found = [f"{line} ({plain})" for line in messages() for words, plain in MANNERED.items() if re.search(words, line.partition(": ")[2])]
    assert found == []


def names_of(node: object) -> Iterator[str]:
    """The names of plays and tasks in a file of YAML, which ansible-playbook prints, at any depth."""
    if isinstance(node, dict):
        if isinstance(node.get("name"), str) and node.keys() & {"hosts", "block"} | {key for key in node if "." in str(key)}:
            yield node["name"]
        for value in node.values():
            yield from names_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from names_of(value)


#: Verbs of names of tasks, each with what to write.
_VERBS = {r"^Make sure\b": "Check that", r"^Tell\b": "Show, report", r"^Look\b": "Read, check", r"^See\b": "Check", r", for ": "because"}


def test_tasks_have_plain_names() -> None:
    paths = [path for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*.yml")]
    names = [name for path in paths for document in yaml.load_all(path.read_text(encoding="utf-8"), _LOADER) for name in names_of(document)]
    assert len(names) > 50
    assert [(name, plain) for name in names for words, plain in {**MANNERED, **_VERBS}.items() if re.search(words, name)] == []


#: More for documents, which have longer sentences.
_IN_DOCUMENTS = {
    r", for (what|then|which|their|it|they|there) ": "because",
    r"\bneedless\b|\btorn\b|\bbesides\b": "unnecessary, inconsistent, in addition to",
    r"\bwhat (it|they|has|had|cannot|could|must|only)\b": "name the thing",
    r"\bwhere (one|there|nothing|something|no|not|these|those|only|others) ": "if, when",
}


def documents() -> Iterator[tuple[str, str]]:
    """(file, line) of the documentation of modules, filters, roles and playbooks."""
    for folder in ("modules", "filter", "doc_fragments"):
        for path in (ROOT / "plugins" / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
                    yield from ((path.name, line) for line in node.value.splitlines())
    for path in [*(ROOT / "roles").glob("*/meta/*.yml"), *(ROOT / "playbooks").glob("*.yml"), *(ROOT / "roles").glob("*/*/main.yml")]:
        yield from ((str(path.relative_to(ROOT)), line) for line in path.read_text(encoding="utf-8").splitlines() if "#" in line or "meta" in path.parts)


def test_documents_are_in_plain_words() -> None:
    rules = {**MANNERED, **_IN_DOCUMENTS}
    assert [(name, line.strip(), plain) for name, line in documents() for words, plain in rules.items() if re.search(words, line)] == []


#: What tells what to do: a second clause or sentence, or what a value must be.
_ADVICE = re.compile(r"; |\. [A-Z`]|\bmust\b|\bneeds\b")
#: The store's own findings, which reach a user inside a sentence of `verify`, `restore` or `gc` that advises.
_FINDINGS = {"Damaged", "Missing", "Found"}
#: Pieces that another message is put into, or that are put into another.
_PARTS = re.compile(r"{}\.?$|^The run has ended\.$|^it has no time to run\.$|^{} is unknown\.$|^{}, or set `force|^{} is {} but all of the following")


def test_errors_tell_what_to_do() -> None:
    bare = [error for error in errors() if error[1] not in _FINDINGS and not _ADVICE.search(error[2]) and not _PARTS.search(error[2])]
    assert bare == []


def test_messages_end_as_sentences_do() -> None:
    """What is two sentences, or has advice, is a sentence; what ends in another's message ends as that does."""
    open_ended = [error for error in errors() if not error[2].endswith((".", "}"))]
    assert open_ended == []


def warnings_of(source: str) -> Iterator[str]:
    """The texts that a file hands to the user as a warning. (A call with two arguments puts the text into another message.)"""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and len(node.args) == 1 and isinstance(node.args[0], (ast.Constant, ast.JoinedStr)):
            if re.search(r"(^|\.|_)warn$|warnings\.append$", ast.unparse(node.func)):
                yield list(_literals(node.args[0]))[0]


def test_warnings_end_as_sentences_do() -> None:
    paths = list((ROOT / "plugins").rglob("*.py"))
    found = [text for path in paths for text in warnings_of(path.read_text(encoding="utf-8"))]
    assert len(found) > 20
    assert [text for text in found if not text.endswith((".", "}"))] == []


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("raise VoltError(f'Store {path} is away; mount it.')", ["Store {} is away; mount it."]),
        ("warnings.append('one two' f' and {len(found):d}')", ["one two and {}"]),
        ("x = f'{a} as {\"the other one\" if b else c}'", ["{} as {}", "the other one"]),
        ('"""A docstring of words."""\nDOCUMENTATION = "some more words"', []),
        ("x = 'word'\ny = '%Y-%m-%d %H:%M'", []),
    ],
)
def test_what_is_a_message(source: str, texts: list[str]) -> None:
    assert list(texts_of(source)) == texts


def test_what_a_task_says() -> None:
    tasks = [{"block": [{"ansible.builtin.fail": {"msg": "Host {{ inventory_hostname }}\n is away; {{ 'start it again' if x }}."}}]}]
    assert list(tasks_of(tasks)) == ["Host {} is away; {}.", "start it again"]


@pytest.mark.parametrize(
    "text",
    [
        "mend that",
        "that is none",
        "{} is no directory",
        "for it is so",
        "say `force: true`",
        "nobody was asked",
        "2 newer ones were passed over",
        "{} is what is in {}",
        "begun at this time",
    ],
)
def test_what_is_mannered(text: str) -> None:
    assert any(re.search(words, f", {text}") for words in MANNERED)


@pytest.mark.parametrize("text", ["There is no store at {}; mount it.", "{} is no longer a directory.", "use `force: true`", "wait for it to end"])
def test_what_is_plain(text: str) -> None:
    assert not any(re.search(words, text) for words in MANNERED)
