# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup came before which: against the definition, on histories of several workloads and equal moments."""

from __future__ import annotations

from typing import Any

from ansible_collections.volt.backup.plugins.module_utils._backup import catalog as catalogs
from hypothesis import given, settings, strategies as st

MOMENTS = [f"2026-01-{day:02d}T00:00:00.000000Z" for day in range(1, 6)]


class Owner:
    @staticmethod
    def foreign(_sidecar: Any) -> None:
        return None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(MOMENTS), st.booleans()), max_size=12))
def test_the_last_one_made_before(history: list[tuple[str, str, bool]]) -> None:
    listed = [
        {"id": f"{number:02d}", "workload_name": workload, "created_at": moment, "damage": "lost" if damaged else None}
        for number, (workload, moment, damaged) in enumerate(history)
    ]
    listed.sort(key=lambda one: (one["created_at"], one["id"]), reverse=True)  # as `list` has it
    catalog = catalogs.Catalog.__new__(catalogs.Catalog)
    catalog.owner = Owner()  # type: ignore[assignment]
    catalog.list = lambda *_rest: listed  # type: ignore[method-assign,assignment,return-value]
    found = catalog.earlier()
    sound = [one for one in listed if not one["damage"]]
    for one in sound:
        before = [other for other in sound if other["workload_name"] == one["workload_name"] and str(other["created_at"]) < str(one["created_at"])]
        assert found.get(str(one["id"])) == (before[0] if before else None)
