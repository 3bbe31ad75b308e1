# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks measure and show: programs start as they do elsewhere, and the documents show what was measured."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as xml
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.volt.backup.benchmarks import measure, report

TOP = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
TELL = "import os, sys; sys.stdout.write(os.environ.get('PYTHONDONTWRITEBYTECODE', 'unset'))"


def peer(store: Path) -> SimpleNamespace:
    return SimpleNamespace(name="it", store=store, env={}, discard=False)


def test_bytecode_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert measure.run([sys.executable, "-c", TELL], tmp_path).output == "unset"


def test_a_record_has_costs_sizes_and_failures(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    results: dict = {}
    record = measure.Record(results, tmp_path)
    work = f"sum(range(3_000_000)); open({str(tmp_path / 'store/file')!r}, 'wb').write(bytes(5000))"
    run, _output = record.step(peer(tmp_path / "store"), "works", [sys.executable, "-c", work], tmp_path, sizes=True)
    assert run and run["cpu"] > 0.01 and run["memory"] > 1 << 20
    assert run["new"]["apparent"] == 5000
    failed, _output = record.step(peer(tmp_path / "store"), "fails", ["sh", "-c", f"echo no {tmp_path}/x >&2; exit 3"], tmp_path)
    assert failed is None
    assert results["steps"]["fails"]["it"] == {"runs": [], "failed": "status 3: no .../x"}


@pytest.mark.parametrize("most", [0.0004, 0.19, 1, 7.3, 250, 98_000])
def test_a_chart_holds_its_lines(most: float) -> None:
    series = {"a": [(number, most * number / 100) for number in range(1, 101)], "b": [(number, most / 2) for number in range(1, 101)]}
    chart = xml.fromstring(report.chart("Memory & time", series))
    wide, high = float(chart.attrib["width"]), float(chart.attrib["height"])
    lines = [[tuple(map(float, point.split(","))) for point in line.attrib["points"].split()] for line in chart.iter(f"{SVG}polyline")]
    assert [len(line) for line in lines] == [100, 100]
    assert all(0 < x < wide and 0 < y < high for line in lines for x, y in line)
    assert lines[0][0][1] > lines[0][-1][1] and lines[1][0][1] == lines[1][-1][1]
    texts = [text.text or "" for text in chart.iter(f"{SVG}text")]
    assert {"Memory & time", "a", "b", "0", "100"} <= set(texts)
    marks = [float((text.text or "").replace(",", "")) for text in chart.iter(f"{SVG}text") if text.get("text-anchor") == "end"]
    assert marks[0] == 0 and most <= marks[-1] < 2 * most and 3 <= len(marks) <= 6


def test_the_documents_show_what_was_measured(tmp_path: Path) -> None:
    shown = re.search(r"<!-- benchmarks/all.py writes this -->\n\n(.*?)\n<!-- to here -->", (TOP / "docs/benchmarks.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown
    name = re.search(r"\(\.\./benchmarks/results/([\d-]+)\.md\)", shown[1])
    assert name
    outcome = json.loads((TOP / f"benchmarks/results/{name[1]}.json").read_text(encoding="utf-8"))
    assert shown[1] == report.docs(outcome, tmp_path), "python3 benchmarks/all.py --publish RESULT.json writes them anew"
    charts = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert len(charts) == 3 and all((TOP / "docs/pictures" / name).read_text(encoding="utf-8") == text for name, text in charts.items())
