# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of gates ends with: times, the slowest tests, what was skipped and why, and of each failure its last lines.

Where many fail, the first one is the cause of most others. So the end names all of them in their order, in a line each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from lanes import Outcome

#: Lines of a failing test, lines of a failing gate's log, and how many failing tests of a gate are shown.
_TEST, _LOG, _SHOWN = 40, 60, 10
#: How many failing tests the end names, and the longest line of one.
_NAMED, _NAME = 15, 240
_SLOWEST = 10
#: What ansible-test and the maker of images say of what they leave out.
_LACKS = re.compile(r"^WARNING: .*(not found|could not be found|[Ss]kipping|[Ee]xcluding)|^no (tree of|integration tests)")


class Case(NamedTuple):
    """A test as JUnit's format has it. `state` is passed, failed or skipped; `text` says why it did not pass."""

    name: str
    seconds: float
    state: str
    text: str


def cases(path: Path) -> Iterator[Case]:
    """The tests in a report, or in all reports that a pattern such as `junit/*-units.xml` finds. A report that cannot be read is a failure."""
    for file in sorted(path.parent.glob(path.name)):
        try:
            nodes = list(ElementTree.parse(file).iter("testcase"))
        except ElementTree.ParseError as error:
            yield Case(file.name, 0, "failed", f"The report cannot be read: {error}")
            continue
        for node in nodes:
            name = f"{node.get('classname', '')}::{node.get('name', '')}"
            bad = [child for child in node if child.tag in ("failure", "error")]
            skipped = node.find("skipped")
            state = "failed" if bad else "passed" if skipped is None else "skipped"
            text = (bad[0].text or bad[0].get("message", "")) if bad else "" if skipped is None else skipped.get("message", "")
            yield Case(name, float(node.get("time", 0)), state, text or "")


def tell(outcomes: Sequence[Outcome], reports: Mapping[str, Path], logs: Path, wall: float) -> bool:
    """Print it; whether all gates passed. The last line counts the tests."""
    found = {gate: list(cases(path)) for gate, path in reports.items()}
    outcomes = [_with_report(outcome, found) for outcome in outcomes]
    everything = [case for some in found.values() for case in some]
    print("\n=== skipped")
    for (text, gate), number in sorted(Counter((case.text, gate) for gate, some in found.items() for case in some if case.state == "skipped").items()):
        print(f"{number} in {gate}: {text}")
    for outcome in outcomes:
        for line in sorted(set(filter(_LACKS.search, _log(outcome, logs)))):
            print(f"in {outcome.gate.name}: {line}")
    print("\n=== slowest tests")
    for case in sorted(everything, key=lambda case: -case.seconds)[:_SLOWEST]:
        print(f"{case.seconds:7.1f} s  {case.name}")
    print("\n=== gates")
    for outcome in outcomes:
        result = "not run" if outcome.status is None else "FAILED" if outcome.status else "passed"
        print(f"{outcome.gate.name:20} {result:8} {outcome.wall:6.0f} s {outcome.cpu:6.0f} s CPU")
    bad = [outcome for outcome in outcomes if outcome.status != 0]
    for outcome in bad:
        _failure(outcome, found.get(outcome.gate.name, []), logs)
    _names(found)
    counts = Counter(case.state for case in everything)
    print(f"\n{'FAILED: ' + ', '.join(outcome.gate.name for outcome in bad) if bad else 'All gates passed'} after {wall / 60:.1f} minutes.")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped", flush=True)
    return not bad


def _with_report(outcome: Outcome, found: Mapping[str, Sequence[Case]]) -> Outcome:
    """A gate that runs tests has failed where it reports none that passed or was skipped."""
    silent = outcome.gate.name in found and not any(case.state != "failed" for case in found[outcome.gate.name])
    return outcome._replace(status=1) if outcome.status == 0 and silent else outcome


def _log(outcome: Outcome, logs: Path) -> list[str]:
    path = logs / f"{outcome.gate.name}.log"
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def _failure(outcome: Outcome, found: Sequence[Case], logs: Path) -> None:
    if outcome.status is None:
        return
    failed = [case for case in found if case.state == "failed"]
    for case in failed[:_SHOWN]:
        print(f"\n=== {outcome.gate.name}: {case.name}")
        print("\n".join(case.text.splitlines()[-_TEST:]))
    if not failed:
        print(f"\n=== {outcome.gate.name}: the last lines of its log")
        print("\n".join(_log(outcome, logs)[-_LOG:]))
    if len(failed) > _SHOWN:
        print(f"\n=== {outcome.gate.name}: {len(failed) - _SHOWN} more tests failed; see its log")


def _names(found: Mapping[str, Sequence[Case]]) -> None:
    """A line for each of the first failing tests: its gate, its name, and what pytest takes for its error."""
    failed = [(gate, case) for gate, some in found.items() for case in some if case.state == "failed"]
    if failed:
        print("\n=== failed, in the order of each gate")
    for gate, case in failed[:_NAMED]:
        said = [line[1:].strip() for line in case.text.splitlines() if re.match(r"E\s+\S", line)] or case.text.split("\n")[-1:]
        print(f"{gate}: {case.name.rpartition('.')[2]}: {said[0]}"[:_NAME])
