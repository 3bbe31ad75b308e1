# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Molecule scenarios of the roles, on the fleet. The fleet ends with the tests, whatever becomes of a scenario."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet

CHECKOUT = Path(__file__).parents[2]
SCENARIOS = sorted(path.parent.name for path in CHECKOUT.glob("extensions/molecule/*/molecule.yml"))


def test_each_role_has_a_scenario() -> None:
    assert SCENARIOS == sorted(path.name for path in (CHECKOUT / "roles").iterdir())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(fleet: Fleet, tmp_path: Path, scenario: str) -> None:
    fleet.inventory(tmp_path / "inventory")
    programs = Path(sys.executable).parent
    own = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "MOLECULE_EPHEMERAL_DIRECTORY": str(tmp_path / "ephemeral"),
        "VOLT_MOLECULE_INVENTORY": str(tmp_path / "inventory"),
        "ANSIBLE_PIPELINING": "true",
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        [str(programs / "molecule"), "test", "--scenario-name", scenario], cwd=CHECKOUT, env={**os.environ, **own}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "converge" in done.stdout and "verify" in done.stdout, done.stdout
