# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner of the gates: what runs when, what is said of failures, and that nothing goes on after a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
#: Gates of which each is a shell script: name, lane, what it needs, script.
PROGRAM = """
import os, sys
sys.path.insert(0, {tools!r})
from pathlib import Path
import lanes, report
def gate(name, lane, needs, script):
    return lanes.Gate(name, "a gate", lane, needs, lambda: (["sh", "-c", script], dict(os.environ), Path("/")))
gates = [gate(*one) for one in {gates!r}]
outcomes = lanes.run(gates, {{"one": 1, "two": 2}}, Path({logs!r}))
sys.exit(not report.tell(outcomes, {{name: Path(path) for name, path in {reports!r}.items()}}, Path({logs!r}), 1))
"""
JUNIT = """<testsuites><testsuite><testcase classname="tests.x" name="test_good" time="1.5"/>
<testcase classname="tests.x" name="test_bad" time="0.5"><failure message="short">line 1\nassert 1 == 2</failure></testcase>
<testcase classname="tests.x" name="test_lacks" time="0"><skipped message="not installed: tool"/></testcase></testsuite></testsuites>"""


def program(top: Path, gates: list[tuple[str, str, tuple[str, ...], str]], reports: dict[str, str] | None = None) -> subprocess.Popen[str]:
    text = PROGRAM.format(tools=str(TOOLS), gates=gates, logs=str(top / "log"), reports=reports or {})
    return subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_order_needs_and_places(tmp_path: Path) -> None:
    mark = f"echo $0 >>{tmp_path}/order"
    gates = [
        ("first", "one", (), f"{mark}; sleep 0.5; echo first >>{tmp_path}/order"),
        ("second", "one", (), f"echo second >>{tmp_path}/order"),
        ("beside", "two", (), f"while ! grep -q sh {tmp_path}/order; do sleep 0.05; done; echo beside >>{tmp_path}/order"),
        ("after", "two", ("first",), f"echo after >>{tmp_path}/order"),
    ]
    with program(tmp_path, gates) as running:
        said = running.communicate(timeout=60)[0]
    assert running.returncode == 0, said
    order = (tmp_path / "order").read_text().split()
    assert order[:3] == ["sh", "beside", "first"] and sorted(order[3:]) == ["after", "second"], order
    assert "All gates passed" in said


def test_a_lane_that_is_done_lends_its_places(tmp_path: Path) -> None:
    """Three gates of a lane with two places wait for each other; the third one can only begin when the other lane is done."""
    meet = f"echo $$ >>{tmp_path}/here; until [ $(wc -l <{tmp_path}/here) = 4 ]; do sleep 0.05; done"
    gates = [("other", "one", (), f"until [ -s {tmp_path}/here ] && [ $(wc -l <{tmp_path}/here) = 2 ]; do sleep 0.05; done; echo done >>{tmp_path}/here")]
    gates += [(name, "two", (), meet) for name in ("first", "second", "third")]
    with program(tmp_path, gates) as running:
        said = running.communicate(timeout=60)[0]
    assert running.returncode == 0, said


def test_a_failure_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "tests.xml").write_text(JUNIT)
    gates = [
        ("tests", "two", (), "exit 1"),
        ("plain", "two", (), "seq 1000; echo the end; exit 3"),
        ("needy", "two", ("plain",), "echo never"),
        ("good", "two", (), "true"),
    ]
    with program(tmp_path, gates, {"tests": str(tmp_path / "tests.xml"), "none": str(tmp_path / "none.xml")}) as running:
        said = running.communicate(timeout=60)[0]
    assert running.returncode == 1
    assert "the end" in said and "\n900\n" not in said, "of a long log only the end"
    assert "needy: not run, since what it needs failed" in said and "good: passed" in said
    assert "assert 1 == 2" in said and "tests.x::test_bad" in said and "1 in tests: not installed: tool" in said
    assert "FAILED: tests, plain, needy after" in said
    assert "\n=== failed, in the order of each gate\ntests: x::test_bad: assert 1 == 2\n" in said
    assert said.splitlines()[-1] == "1 passed, 1 failed, 1 skipped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_all(tmp_path: Path, number: int) -> None:
    """Also what a gate has started in turn, and where the signal cannot be caught."""
    gates = [("long", "one", (), f"echo $$ >{tmp_path}/pid; sleep 600"), ("later", "one", (), f"touch {tmp_path}/later")]
    with program(tmp_path, gates) as running:
        until = time.monotonic() + 30
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < until
            time.sleep(0.02)
        pid = int((tmp_path / "pid").read_text())
        running.send_signal(number)
        running.communicate(timeout=60)
    while os.path.exists(f"/proc/{pid}") and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
        assert time.monotonic() < until, "it goes on"
        time.sleep(0.02)
    assert running.returncode != 0 and not (tmp_path / "later").exists()
