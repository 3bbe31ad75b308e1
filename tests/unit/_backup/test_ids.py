# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names as users give them."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import ids
from ansible_collections.volt.backup.plugins.module_utils._base.errors import UsageError

UTC = datetime.timezone.utc
MOMENT = datetime.datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize("name", ["a", "A", "0", "web", "web-1", "a.b_c-D", "a" * 128, "9..9", "a--", "CON"])
def test_workloads(name: str) -> None:
    assert ids.check_workload(name) == name


HOSTILE = ["", "/", "..", ".", "a/b", "../a", "a\nb", "a\n", "\na", "a" * 129, "-a", "_a", ".a", " a", "a ", "a b"]
HOSTILE += ["ä", "a\0", "a\\b", "a;b", "a%b", "$a", "*", "٣"]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_workloads(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        ids.check_workload(name)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "a" * 129] + ["a" * 202])
def test_no_ids(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        ids.check_id(name)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("kind", ids.TYPES)
@pytest.mark.parametrize("number", [1, 2, 1000])
def test_new_ids_are_ids(kind: str, number: int) -> None:
    made = ids.new_id("w" * 128, MOMENT, kind, number)
    assert ids.check_id(made) == made
    assert made == f"{'w' * 128}-20261123-100000-{kind}" + (f"-{number}" if number > 1 else "")
    assert len(f"{made}-{'0' * 12}.json") <= 255  # a manifest's file name


@pytest.mark.parametrize("kind", ["manual", "scheduled", "snapshot", "pre-deploy"])
def test_types(kind: str) -> None:
    assert ids.check_type(kind) == kind


@pytest.mark.parametrize("kind", ["", "Manual", "manual ", "pre_deploy", "weekly", "manual\n"])
def test_no_types(kind: str) -> None:
    with pytest.raises(UsageError, match="pre-deploy"):
        ids.check_type(kind)


@pytest.mark.parametrize(
    ("tags", "wanted", "matches"),
    [([], [], True), (["a"], [], True), ([], ["a"], False), (["a", "b"], ["b"], True), (["a", "b"], ["b", "a", "b"], True),
     (["a"], ["a", "b"], False), (["ab"], ["a"], False)],
)  # fmt: skip
def test_tags(tags: list[str], wanted: list[str], matches: bool) -> None:
    assert ids.matches_tags(tags, wanted) is matches
