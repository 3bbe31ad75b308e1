# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-builder installs for the collection is what the controller's part of it imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml
from ansible_collections.volt.backup.plugins.module_utils._remote import sealed
from ansible_collections.volt.backup.tests.unit.test_house import OPTIONAL

TOP = Path(__file__).parents[2]
FILTERS = """
import json, sys
from ansible_collections.volt.backup.plugins.filter import fleet_status, host_keys, misspelt, variables
assert host_keys.host_keys(sys.stdin.read(), "web1")
print(json.dumps(sorted(sys.modules)))
"""


def test_its_requirements_are_what_the_filters_import() -> None:
    described = yaml.safe_load((TOP / "meta/execution-environment.yml").read_text())
    assert set(described) == {"version", "dependencies"} and set(described["dependencies"]) == {"python"}
    lines = (TOP / described["dependencies"]["python"]).read_text().splitlines()
    required = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
    done = subprocess.run([sys.executable, "-c", FILTERS], input=sealed.new_recovery().text(), capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stdout))
    assert required == {name for name in ("boto3", *OPTIONAL) if name in imported}
