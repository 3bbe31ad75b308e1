# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Molecule scenarios of the roles are tests that pytest-ansible collects; this looks that none is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SCENARIOS = sorted(path.parent.name for path in CHECKOUT.glob("extensions/molecule/*/molecule.yml"))


def test_each_role_has_a_scenario() -> None:
    assert SCENARIOS == sorted(path.name for path in (CHECKOUT / "roles").iterdir())


def test_each_scenario_is_a_test(request: pytest.FixtureRequest) -> None:
    found = sorted(item.path.parent.name for item in request.session.items if item.get_closest_marker("molecule"))
    if not found and not request.config.getoption("molecule", False):
        pytest.skip("scenarios left out: pytest-ansible runs them, with `--molecule` and the path extensions/molecule")
    assert found == SCENARIOS
