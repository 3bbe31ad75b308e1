# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module says that it returns is what it returns."""

from __future__ import annotations

import importlib
from typing import Any

import yaml
from ansible_collections.volt.backup.plugins.module_utils._backup.records import COPY, SIDECAR, STATE

from .conftest import PACKAGE, Host

MODULES = ("volt_backup", "volt_backup_info", "volt_backup_prune", "volt_cas_gc", "volt_cas_verify", "volt_restore", "volt_restore_drill", "volt_runner",
           "volt_workload_info")


def returns(module: str) -> dict[str, Any]:
    return yaml.safe_load(importlib.import_module(f"{PACKAGE}.{module}").RETURN)


def undocumented(value: Any, documented: dict[str, Any], where: str = "") -> list[str]:
    """Keys of a result that the documentation does not have."""
    missing = []
    for key, item in value.items():
        path = f"{where}.{key}" if where else key
        if key not in documented:
            missing.append(path)
            continue
        for inner in item if isinstance(item, list) else [item]:
            if isinstance(inner, dict) and "contains" in documented[key]:
                missing += undocumented(inner, documented[key]["contains"], path)
    return missing


def test_every_key_of_a_backup_is_documented() -> None:
    assert tuple(returns("volt_backup")["backup"]["contains"]) == SIDECAR
    assert tuple(returns("volt_backup_info")["backups"]["contains"]) == (*SIDECAR, *STATE, *COPY)


def test_every_returned_key_is_documented(host: Host) -> None:
    made = host.back_up()
    results = {
        "volt_backup": [made, host.back_up(check=True), host.back_up(only_if_changed=True), host.back_up(state="gone"),
                        *(host.back_up(check, keep={"last": 2}) for check in (True, False))],
        "volt_backup_info": [host.info(id=made["backup"]["id"], include=["contents", "changes", "store"])],
        "volt_backup_prune": [host.run("volt_backup_prune", check, workload="app", keep={"last": 1}) for check in (True, False)],
        "volt_cas_gc": [host.run("volt_cas_gc", check, grace="0s") for check in (True, False)],
        "volt_cas_verify": [
            host.run("volt_cas_verify", check, level="content", **more)
            for more in ({"budget": "5%"}, {"repair": True}, {"ids": [made["backup"]["id"]]})
            for check in (True, False)
        ],
        "volt_restore": [
            host.restore(id=made["backup"]["id"], target=str(host.top / "new")),
            host.restore(check=True, id=None),
            host.restore(id=made["backup"]["id"], target=str(host.tree / "conf")),
        ],
        "volt_restore_drill": [host.run("volt_restore_drill", check, scratch_dir=str(host.top / "drill")) for check in (True, False)],
        "volt_runner": [
            host.run("volt_runner", path=str(host.top / name), state=state) for name in ("volt-backup", "tree") for state in ("present", "absent")
        ],
        "volt_workload_info": [host.run("volt_workload_info", sizes=False)],
    }
    for path in (host.store / "packs").rglob("*.pack*"):
        path.write_bytes(b"x")
    results["volt_cas_gc"].append(host.run("volt_cas_gc"))
    results["volt_cas_verify"] += [host.run("volt_cas_verify", check, repair=True) for check in (True, False)]
    results["volt_restore_drill"].append(host.run("volt_restore_drill", scratch_dir=str(host.top / "drill")))
    results["volt_backup"].append(host.back_up(state="absent", id=made["backup"]["id"]))
    of_ansible = dict.fromkeys(("invocation", "changed", "failed", "msg", "warnings"), {})
    of_files = dict.fromkeys(("uid", "gid", "owner", "group", "mode", "size", "state", "secontext"), {})  # what Ansible adds to a `path`
    assert set(results) == set(MODULES)
    for module, made_by_it in results.items():
        known = {**of_ansible, **(of_files if module == "volt_runner" else {}), **returns(module)}
        assert [key for result in made_by_it for key in undocumented(result, known)] == [], module
