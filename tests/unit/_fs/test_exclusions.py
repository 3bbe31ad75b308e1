# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exclusions against git itself: `git check-ignore` judges a tree by the same patterns. Where we differ on purpose stands in DIFFERENT."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import UsageError
from ansible_collections.volt.backup.plugins.module_utils._fs.exclusions import Exclusions, Pattern
from hypothesis import given, settings, strategies as st

from ..kit import within

NAMES = [b"a", b"b", b"ab", b"foo", b"b.o", b"a b", b"\xc3\xa9", b"\xff", b"[ab]", b"a*", b"A", b"-", b"a ", b"]", b"a\\", b"#a", b"!a", b"+"]
DIRECTORIES = {b"a", b"b", b"foo"}

Judge = Callable[[list[str]], set[bytes]]


def plant(root: bytes) -> list[tuple[bytes, bool]]:
    """Make a tree in which each name is there at several depths; (path, whether it is a directory), parents first."""
    found = []

    def fill(parent: bytes, depth: int) -> None:
        for name in NAMES if depth < 2 else NAMES[:5]:
            path = os.path.join(parent, name) if parent else name
            directory = name in DIRECTORIES and depth < 3
            found.append((path, directory))
            if directory:
                os.mkdir(os.path.join(root, path))
                fill(path, depth + 1)
            else:
                Path(os.fsdecode(os.path.join(root, path))).touch()

    fill(b"", 0)
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[bytes, bool]]]:
    root = tmp_path_factory.mktemp("tree")
    return root, plant(os.fsencode(root))


@pytest.fixture(scope="module")
def git(tree: tuple[Path, list[tuple[bytes, bool]]]) -> Judge:
    """Which paths git ignores by some patterns."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root, paths = tree
    environment = {**os.environ, "HOME": str(root), "XDG_CONFIG_HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "--quiet", str(root)], check=True, env=environment)
    asked = b"".join(path + b"\0" for path, _directory in paths)
    command = ["git", "-C", str(root), "check-ignore", "--no-index", "--verbose", "--non-matching", "-z", "--stdin"]

    def judge(patterns: list[str]) -> set[bytes]:
        (root / ".git/info/exclude").write_bytes(b"".join(os.fsencode(pattern) + b"\n" for pattern in patterns))
        out = subprocess.run(command, input=asked, stdout=subprocess.PIPE, env=environment, check=False).stdout.split(b"\0")
        # four fields a path: source, line, pattern, path
        return {path for pattern, path in zip(out[2::4], out[3::4]) if pattern and not pattern.startswith(b"!")}

    return judge


@pytest.fixture(scope="module")
def ours(tree: tuple[Path, list[tuple[bytes, bool]]]) -> Judge:
    """Which paths a walk of ours leaves out: what lies below an excluded directory is never asked about."""

    def judge(patterns: list[str]) -> set[bytes]:
        rules, out = Exclusions(patterns), set()
        for path, directory in tree[1]:
            parent, _slash, name = path.rpartition(b"/")
            if parent in out or rules.excludes(parent, name, directory):
                out.add(path)
        return out

    return judge


SAME: dict[str, list[str]] = {
    "nothing": [],
    "comment, blank": ["#a", "", "   "],
    "name at every level": ["a"],
    "several": ["a", "b.o"],
    "anchored by a slash before": ["/a"],
    "anchored by a slash within": ["a/b"],
    "directories only": ["a/"],
    "anchored directory": ["/foo/"],
    "deep directory": ["a/foo/"],
    "star": ["*"],
    "star does not match a slash": ["a*b"],
    "star in a path": ["a/*"],
    "star between": ["a/*/b"],
    "star for all in the root": ["/*"],
    "ending": ["*.o"],
    "question mark is one byte": ["?"],
    "two bytes": ["??"],
    "leading double star": ["**/b"],
    "leading double star, deep": ["**/a/b"],
    "double star between": ["a/**/b"],
    "double star twice": ["a/**/**/b"],
    "trailing double star": ["foo/**"],
    "double star alone": ["**"],
    "double star as a name's part": ["a**"],
    "anchored double star": ["/**/b"],
    "only double stars": ["**/**"],
    "double star directories": ["**/"],
    "class": ["[ab]"],
    "range": ["[a-c]"],
    "negated class": ["[!a]"],
    "negated with a caret": ["[^a]"],
    "bracket first": ["[]a]"],
    "bracket first, negated": ["[!]a]"],
    "dash last": ["[a-]"],
    "dash first": ["[-a]"],
    "dash as the end of a range": ["[+--]"],
    "posix classes": ["[[:upper:]]", "[[:digit:][:punct:]]"],
    "an unclosed posix class is a plain one": ["[[:alpha]"],
    "escape in a class": [r"[\]a]", r"[\a-b]"],
    "a class matches no slash": ["a[/]b", "a[!x]b"],
    "escaped star": [r"a\*"],
    "escaped letter": [r"\a"],
    "escaped bracket": [r"\[ab\]"],
    "escaped comment": [r"\#a"],
    "escaped exclamation": [r"\!a"],
    "escaped backslash": ["a\\\\"],
    "space within": ["a b"],
    "trailing space is dropped": ["a "],
    "trailing spaces are dropped": ["a   "],
    "escaped trailing space": ["a\\ "],
    "escaped, then plain trailing spaces": ["a\\   "],
    "an escaped backslash does not escape a space": ["a\\\\ "],
    "space before a slash": ["a /"],
    "take back": ["*", "!a"],
    "take back in the root": ["/*", "!/a"],
    "the last one counts": ["a", "!a", "a"],
    "take back first": ["!a", "a"],
    "nothing comes back from an excluded directory": ["a/", "!a/b"],
    "its content may": ["a/*", "!a/b"],
    "take back a directory only": ["*", "!*/"],
    "take back a comment": ["*", "!#a"],
    "take back what begins so": ["*", "!!a"],
    "bytes of UTF-8": ["é", "[é]"],
    "case counts": ["A"],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SAME)
def test_as_git_does(git: Judge, ours: Judge, name: str) -> None:
    assert ours(SAME[name]) == git(SAME[name])


#: What we do otherwise, on purpose: (patterns, what git's pattern would have to be for the same result).
DIFFERENT: dict[str, tuple[list[str], list[str]]] = {
    # git takes "**/" behind a beginning without wildcards for a leading one; gitignore(5) says "regular asterisks", and so do we
    "double star glued to a name": (["foo**/a"], ["foo*/a"]),
    # git takes three stars for two there; gitignore(5) knows two only
    "three stars": (["***/a"], ["*/a"]),
    # git never matches these; nobody means that
    "slashes before": (["//a"], ["/a"]),
    "slashes behind": (["a//"], ["a/"]),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_otherwise_on_purpose(git: Judge, ours: Judge, name: str) -> None:
    patterns, meant = DIFFERENT[name]
    assert ours(patterns) == git(meant) != git(patterns)


#: Patterns that git takes in silence, and that never match anything there. A pattern that cannot be meant is refused here.
REFUSED = ["/", "!", "!/", "[ab", "[", "[!", "[a-", "a\\", "\\", "[[:foo:]]", "[[:alpha", "[c-a]", "[a\\"]


@pytest.mark.parametrize("pattern", REFUSED)
def test_refused_where_git_never_matches(git: Judge, pattern: str) -> None:
    assert git([pattern]) == set()
    with pytest.raises(UsageError):
        Exclusions([pattern])


@pytest.mark.parametrize("pattern", ["a\nb", "a\n", "\0", "a\0b"])
def test_refused_for_their_bytes(pattern: str) -> None:
    with pytest.raises(UsageError):
        Exclusions(["fine", pattern])


PIECES = ["a", "b", "foo", "A", ".", "o", "é", "*", "**", "?", "[ab]", "[!a]", "[a-c]", "[^b-c]", "[[:alpha:]]", "[]a]"]
PIECES += [r"\*", r"\a", r"\ ", " ", "/", "#", "!", "-", "+"]
PATTERN = st.lists(st.sampled_from([*PIECES, "/", "/", "a", "b", "*"]), min_size=1, max_size=5).map("".join)


def comparable(pattern: str) -> bool:
    """Not one of DIFFERENT or REFUSED."""
    body = pattern[1:] if pattern.startswith("!") else pattern
    return "//" not in body and "***" not in body and body.rstrip(" ") not in ("", "/") and not any(
        part.endswith("**") and part != "**" for part in body.split("/")[:-1]
    )


@settings(max_examples=150)
@given(patterns=st.lists(st.builds(str.__add__, st.sampled_from(["", "", "!", "/"]), PATTERN).filter(comparable), min_size=1, max_size=4))
def test_generated_as_git_does(git: Judge, ours: Judge, patterns: list[str]) -> None:
    assert ours(patterns) == git(patterns)


@settings(max_examples=150)
@given(text=st.builds(str.__add__, st.sampled_from(["", "/"]), PATTERN))
def test_a_pattern_finds_what_it_would_exclude(text: str) -> None:
    try:
        pattern, rules = Pattern(text), Exclusions([text])
    except UsageError:
        return
    for parent in (b"", b"a", b"b", b"a/b", b"a/b/foo"):
        for name in NAMES:
            for is_directory in (False, True):
                found = pattern.matches(parent, name, is_directory)
                assert found == rules.excludes(parent, name, is_directory)
                path = [*parent.split(b"/"), name] if parent else [name]
                assert not found or path[: len(pattern.above)] == pattern.above and (pattern.depth is None or len(path) <= pattern.depth)


@pytest.mark.parametrize("text", ["!a", "#a", "", " ", *REFUSED, "a\nb", "a\0b"])
def test_a_pattern_that_finds_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Pattern(text)


def test_bytes_as_paths_are_shown() -> None:
    assert Pattern(r"a\xff*").matches(b"", b"a\xffb", False) and not Pattern(r"a\xff*").matches(b"", b"axffb", False)
    assert Pattern(r"[\xfe-\xff]").matches(b"", b"\xff", False) and Pattern("\udcff").matches(b"a", b"\xff", False)
    assert Pattern(r"a\\b").matches(b"", b"a\\b", False) and Pattern(r"\xf").matches(b"", b"xf", False)
    for text in (r"a\x2fb", r"\x00", r"[\x2f]"):
        with pytest.raises(UsageError, match="not a valid pattern"):
            Exclusions([text])


def test_truth() -> None:
    assert not Exclusions([]) and not Exclusions(["# only", ""]) and Exclusions(["a"])


def test_patterns_are_kept_as_given() -> None:
    given_ = ["# why", "", "a "]
    assert Exclusions(given_).patterns == given_


def test_slow_patterns_are_bounded() -> None:
    rules = Exclusions(["*a*a*b", "**/x/**/y/**/z", "[ab]*[ab]*c"])
    with within(1, 50):
        for number in range(20):
            assert not rules.excludes(b"x/" * 30 + b"x%d" % number, b"a" * 100, False)
