# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes on their way to a screen and back: nothing lost, nothing ambiguous, always UTF-8."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import UsageError
from ansible_collections.volt.backup.plugins.module_utils._base.text import excerpt, one_line, parse, show
from hypothesis import given, strategies as st


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"", ""),
        (b"plain/path.txt", "plain/path.txt"),
        ("käse/日本".encode(), "käse/日本"),
        (b"\xff", r"\xff"),
        (b"a\\b", r"a\\b"),
        (b"\\xff", r"\\xff"),
        (b"\\\xff", r"\\\xff"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),  # a lone surrogate is not UTF-8
        (b"\xc0\x80", r"\xc0\x80"),  # nor is an overlong NUL
        (b"caf\xe9", r"caf\xe9"),
        (b"line\nbreak\ttab\x1b[0m", "line\nbreak\ttab\x1b[0m"),
    ],
)
def test_table(raw: bytes, shown: str) -> None:
    assert show(raw) == shown
    assert parse(shown) == raw


#: Any bytes that a path can have.
PATHS = st.binary(max_size=60).map(lambda raw: raw.replace(b"\0", b"\1"))


@given(PATHS)
def test_round_trip(raw: bytes) -> None:
    shown = show(raw)
    assert parse(shown) == raw
    assert parse(json.loads(json.dumps(shown).encode("utf-8"))) == raw


@given(st.lists(st.sampled_from([b"\\", b"x", b"\xff", b"f", b"4", b"1", b"\xc3", b"\xa9"]), max_size=12).map(b"".join))
def test_round_trip_around_backslashes(raw: bytes) -> None:
    assert parse(show(raw)) == raw


@given(PATHS, PATHS)
def test_different_names_look_different(one: bytes, two: bytes) -> None:
    assert (show(one) == show(two)) == (one == two)


@given(st.text("\\x4fF0a é日😀\n/\x7f", max_size=40))
def test_any_text_that_a_user_types_is_some_path(text: str) -> None:
    assert parse(show(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("typed", "raw"), [(r"\xFF", b"\xff"), (r"\x4", rb"\x4"), (r"\xgg", rb"\xgg"), ("\\", b"\\"), (r"\n", rb"\n"), (r"a\b", rb"a\b"), (r"\\\\", rb"\\")]
)
def test_other_backslashes_stand_for_themselves(typed: str, raw: bytes) -> None:
    assert parse(typed) == raw


def test_names_as_python_lists_them() -> None:
    """os.listdir gives text with surrogates for such bytes."""
    assert show(os.fsdecode(b"a\xff\\")) == r"a\xff\\"


@pytest.mark.parametrize("typed", ["\0", "a\0b", r"a\x00b"])
def test_no_path_has_a_nul(typed: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(typed)
    assert "\0" not in caught.value.message


@given(st.text("a\n\r\t\x1b\x7f\x85\x9b\\é日", max_size=20))
def test_one_line(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1 and "\x1b" not in line and "\x9b" not in line
    assert one_line(line) == line


@pytest.mark.parametrize(("value", "shown"), [(None, ""), (5, "5"), ("a\nb", r"a\x0ab"), ("käse", "käse")])
def test_one_line_of(value: object, shown: str) -> None:
    assert one_line(value) == shown


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", ""),
        ("first\n  second\x1b \n", r"first second\x1b"),
        ("a" * 31, "a" * 12 + " … " + "a" * 15),
        # as pg_dump: what it could live with, the cause, and a query of many lines
        ("warning: x\nhint: " + 30 * "y" + "\ndump: error: down\ndetail: SELECT\n" + 40 * "z", "dump: error: … " + 15 * "z"),
        ("warning: x\n" + 30 * "y" + "\nFATAL: down\n", "FATAL: down"),
        ("no error: 1\nfatal: 2", "no error: 1 fatal: 2"),
    ],
)
def test_excerpt(said: str, told: str) -> None:
    assert excerpt(said, 30) == told
