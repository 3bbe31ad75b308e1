# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The alerts and the dashboard, held against the metrics that are really written. Prometheus' own promtool is the judge."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest
import yaml
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._base import VoltError
from ansible_collections.volt.backup.plugins.module_utils._schedule import metrics, status
from ansible_collections.volt.backup.plugins.module_utils._schedule.held import Problem, take_stock
from ansible_collections.volt.backup.plugins.module_utils._schedule.survey import Survey
from ansible_collections.volt.backup.tests.rigs import need, sample
from ansible_collections.volt.backup.tests.unit._schedule.host import Host

TOP = Path(__file__).parents[2]
RULES, DASHBOARD, DOCUMENT = TOP / "monitoring/prometheus-rules.yml", TOP / "monitoring/grafana-dashboard.json", TOP / "docs/monitoring.md"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
DAY = 86400
#: What a healthy workload has; times are relative to the start of a test.
HEALTHY = {
    "overdue": 0, "trouble": 0, "enabled": 1, "has_remote": 1, "failures": 0, "damaged": 0, "suspect": 0, "drill_failed": 0, "interval_seconds": 21600,
    "declared_timestamp_seconds": -90 * DAY, "newest_timestamp_seconds": 0, "copied_timestamp_seconds": 0, "last_proved_timestamp_seconds": -20 * DAY,
}  # fmt: skip
HOST = {"host_trouble": None, "written_timestamp_seconds": 0, "valid_until_timestamp_seconds": 5 * 3600, "store_size_bytes": 1000, "store_free_bytes": 500}
LABELS = {"host_trouble": ',what="volt-cas-gc.service"', "store_size_bytes": ',store="/cas"', "store_free_bytes": ',store="/cas"'}


def promtool(*words: object, **more: Any) -> str:
    need("promtool")
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, check=False, **more)
    said = done.stdout + done.stderr
    assert not done.returncode, said
    return said


def series(values: dict[str, Any]) -> list[dict[str, str]]:
    """For promtool; a number stays as it is for four hours, None is not there."""
    found = []
    for name, value in values.items():
        own = LABELS.get(name, "") if name in HOST else ',workload="app"'
        shown = value if isinstance(value, str) else f"{value}+0x240"
        found += [] if value is None else [{"series": f'volt_backup_{name}{{instance="web1"{own}}}', "values": shown}]
    return found


def firing(tmp_path: Path, changed: dict[str, Any], at: str, expected: set[str]) -> None:
    """These alerts and no others fire, with such metrics, after such a time."""
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(expected)]
    asked = {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": at, "exp_samples": samples}
    test = {"interval": "1m", "input_series": series({**HEALTHY, **HOST, **changed}), "promql_expr_test": [asked]}
    path = tmp_path / "rules.test.yml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "tests": [test]}))
    assert "SUCCESS" in promtool("test", "rules", path)


CASES = {
    "overdue, told by the host": ({"overdue": 1, "trouble": 1, "interval_seconds": None}, {"VoltBackupOverdue"}),
    "overdue, seen from outside": ({"newest_timestamp_seconds": -13 * 3600}, {"VoltBackupOverdue"}),
    "never backed up": ({"newest_timestamp_seconds": None}, {"VoltBackupOverdue"}),
    "declared a moment ago": ({"newest_timestamp_seconds": None, "declared_timestamp_seconds": 0, "copied_timestamp_seconds": None}, set()),
    "declared again after a long time": ({"newest_timestamp_seconds": -90 * DAY, "declared_timestamp_seconds": 0}, set()),
    "disabled": ({"newest_timestamp_seconds": -90 * DAY, "copied_timestamp_seconds": -90 * DAY, "last_proved_timestamp_seconds": None, "enabled": 0}, set()),
    "failed, and disabled since": ({"failures": 2, "enabled": 0}, set()),
    "failed": ({"failures": 2, "trouble": 1}, {"VoltBackupFailed"}),
    "suspect": ({"suspect": 1}, {"VoltBackupSuspect"}),
    "damaged": ({"damaged": 3, "trouble": 1}, {"VoltBackupDamaged"}),
    "proved long ago": ({"last_proved_timestamp_seconds": -36 * DAY}, {"VoltBackupUnproved"}),
    "never proved": ({"last_proved_timestamp_seconds": None}, {"VoltBackupUnproved"}),
    "a drill failed": ({"drill_failed": 1, "trouble": 1}, {"VoltBackupDrillFailed"}),
    "copied long ago": ({"copied_timestamp_seconds": -13 * 3600}, {"VoltBackupNotCopied"}),
    "never copied": ({"copied_timestamp_seconds": None}, {"VoltBackupNotCopied"}),
    "without a remote": ({"copied_timestamp_seconds": None, "has_remote": 0}, set()),
    "by calendar, copied a day ago": ({"interval_seconds": None, "copied_timestamp_seconds": -DAY}, set()),
    "by calendar, copied long ago": ({"interval_seconds": None, "copied_timestamp_seconds": -2 * DAY}, {"VoltBackupNotCopied"}),
    "almost full": ({"store_free_bytes": 99}, {"VoltBackupStoreAlmostFull"}),
    "filling": ({"store_free_bytes": "490-1x240"}, {"VoltBackupStoreFilling"}),
    "filling slowly": ({"store_free_bytes": "490-0.01x240"}, set()),
    "out of date": ({"valid_until_timestamp_seconds": 3 * 3600}, {"VoltBackupMetricsStale"}),
    "trouble of the host": ({"host_trouble": 1}, {"VoltBackupHostTrouble"}),
    "trouble of another kind": ({"trouble": 1}, {"VoltBackupTrouble"}),
    "all is well": ({}, set()),
}


@pytest.mark.parametrize("case", sample.some(list(CASES), 10, "alerts"))
def test_an_alert_fires(case: str, tmp_path: Path) -> None:
    changed, expected = CASES[case]
    firing(tmp_path, changed, "4h", expected)


def test_metrics_that_are_gone(tmp_path: Path) -> None:
    gone = dict.fromkeys({**HEALTHY, **HOST})
    firing(tmp_path, {**gone, "written_timestamp_seconds": "0+0x120"}, "25h30m", {"VoltBackupMetricsMissing"})
    firing(tmp_path, {**gone, "written_timestamp_seconds": "0+0x120"}, "27h", set())
    firing(tmp_path, {**gone, "written_timestamp_seconds": "0+0x1600"}, "25h30m", set())


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert(name: str) -> None:
    """It waits before it fires, says what is wrong and what to do, and a case above has it."""
    rule = ALERTS[name]
    assert rule["for"] and rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"} and "{{ $labels.instance }}" in rule["annotations"]["summary"]
    assert any(name in expected for _changed, expected in CASES.values()) or name == "VoltBackupMetricsMissing"
    assert f"`{name}`" in DOCUMENT.read_text()


def test_promtool_takes_the_rules() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", RULES)


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for panel in board()["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_the_dashboard_can_be_imported() -> None:
    """It names no data source of its own, its panels have ids and places of their own."""
    found = board()
    assert found["uid"] == "volt-backup" and found["id"] is None
    assert [variable["name"] for variable in found["templating"]["list"]] == ["datasource", "instance", "workload"]
    assert "${DS_" not in DASHBOARD.read_text()
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        for thing in (panel, *panel["targets"]):
            assert thing["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        if panel["type"] == "table":  # which merges rows that have the same labels, and the name of a metric is one
            assert all(target["expr"].startswith("max by (instance, ") for target in panel["targets"])
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _y in cells) < 24, panel["title"]
        taken |= cells


def test_the_dashboard_s_expressions_parse(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    rules = [{"record": f"panel:{number}", "expr": expression} for number, (_title, expression) in enumerate(expressions())]
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", path)


def written() -> set[str]:
    text = metrics.text(Survey([], [], [], [], 0.0, 0.0, [], [], take_stock([])))
    return set(re.findall(r"^# TYPE (\S+) gauge$", text, re.MULTILINE))


def test_the_same_metrics_everywhere() -> None:
    """Alerts and dashboard use what is written and nothing else; the document has all of it."""
    names = r"\bvolt_backup_\w+"
    used = set(re.findall(names, " ".join(rule["expr"] for rule in ALERTS.values())))
    shown = set(re.findall(names, " ".join(text for _title, text in expressions()) + json.dumps(board()["templating"])))
    assert used <= written() and shown <= written()
    assert written() == used | shown
    assert set(re.findall(r"^\| `(volt_backup_\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)) == written()


def test_promtool_takes_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of schedules with and without backups, by interval and by calendar, of a store whose path has every character, and of a host in trouble."""
    monkeypatch.setattr(status.systemd, "running", lambda: False)
    host = Host(tmp_path)
    (host.source / "file").write_bytes(os.urandom(1000))
    host.declare(host.job(), host.job("failed"), host.job("new", interval=None, on_calendar="daily"))
    job = host.job()
    for note in ("app", "hand"):
        host.record(note).begin()
        made = job.manager.create(CreateRequest(workload=note, source=str(host.source))).backup
        host.record(note).succeed({"backup_id": made["id"], **{key: made[key] for key in ("duration", "total_size", "new_bytes", "unstable_count")}}, "")
    host.record("app").drilled({"backup_id": made["id"], "reason": None, "remote": "file:///mnt/nas"})
    host.record("failed").begin()
    host.record("failed").fail(VoltError("It broke."), "")
    odd = tmp_path / 'a "quoted"\\ \n place'
    odd.mkdir()
    found = host.survey(believe=False)
    found = found._replace(problems=[Problem("volt-cas-gc.service", "failed", "It failed.")], places=[*found.places, (str(odd), "")])
    text = metrics.text(found, host.places.records)
    assert promtool("check", "metrics", input=text) == ""
    values = dict(re.findall(r"^(volt_backup_\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE))
    assert {name.partition("{")[0] for name in values} == written() - {"volt_backup_copied_timestamp_seconds"}
    assert values['volt_backup_failures{workload="failed"}'] == "1" and values['volt_backup_suspect{workload="hand"}'] == "0"
    assert values[f'volt_backup_store_size_bytes{{store="{host.top}/cas"}}'] == str(os.statvfs(host.top).f_blocks * os.statvfs(host.top).f_frsize)
    assert sum(name.startswith("volt_backup_store_free_bytes") for name in values) == 2
