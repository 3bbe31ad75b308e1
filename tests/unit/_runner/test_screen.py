# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is printed fits the screen and loses nothing; a locale, a pipe that closes and Ctrl-C make no traceback."""

from __future__ import annotations

import datetime
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import show_time
from ansible_collections.volt.backup.plugins.module_utils._runner import scheduled, screen, upkeep

from .. import kit

HEAD = ("WORKLOAD", "STATE", "NEWEST", "TAGS", "WHY")
ROWS = [
    ("app", "FAILED", "2h5m", "", "Source /srv/app is empty, and app-20261123-100000-scheduled of it is not; mount what belongs there."),
    ("a-longer-name", "ok", "3d", "", ""),
]
#: Seven columns as `status` has them for a workload whose name is long.
WIDE = [(f"workload-{'x' * 20}", "STOPPED", "2h5m", "in 3h55m", "The timer is not active; start it, or declare the schedule again.")]


@pytest.mark.parametrize("columns", [40, 60, 80, 300])
@pytest.mark.parametrize("rows", [ROWS, WIDE], ids=["names", "wide"])
def test_a_table_fits_and_loses_nothing(rows: Any, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = screen.fitted(HEAD, rows)
    widest = max(len(word) for row in rows for cell in row for word in cell.split())
    fixed = max(len("  ".join(row[:4])) for row in [HEAD, *rows]) + 2
    assert all(len(line) <= max(columns, widest + 4, fixed) for line in text.splitlines()), text
    assert all(word in text for row in rows for cell in row for word in cell.split())
    assert ("TAGS" in text) == any(row[3] for row in rows), "an empty column is left out"
    if columns == 300:
        assert len(text.splitlines()) == len(rows) + 1
    if columns == 80 and rows is ROWS:
        assert all(len(line) <= 80 for line in text.splitlines()) and text.splitlines()[0].startswith("WORKLOAD       STATE")


def test_a_row_is_one_line_without_a_terminal(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """So that what is piped can be searched by lines."""
    monkeypatch.delenv("COLUMNS", raising=False)
    text = screen.fitted(HEAD, ROWS)
    monkeypatch.setenv("COLUMNS", "40")
    assert len(screen.table(HEAD, ROWS).splitlines()) == 3, "what is no screen's has no width"
    monkeypatch.delenv("COLUMNS")
    assert len(text.splitlines()) == 3 and ROWS[0][4] in text
    healthy = [("app-20261123-100000-pre-deploy", "12h34m", "123.4 MiB", "12.3 MiB", "", "ok")]
    assert all(len(line) <= 80 for line in screen.fitted(("ID", "AGE", "SIZE", "NEW", "TAGS", "STATE"), healthy).splitlines())


def test_a_name_in_the_last_column_is_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert "a b  c " * 20 + "d" in screen.fitted(("SIZE", "PATH"), [("1", "a b  c " * 20 + "d")], wrap=False)


def test_a_table_of_one_column(monkeypatch: pytest.MonkeyPatch) -> None:
    assert screen.fitted(("ID",), [("a",), ("b",)]) == "ID\na\nb\n" == screen.fitted(("ID", "X"), [("a", ""), ("b", "")])


@pytest.mark.parametrize("seconds, said", [(0, "0s"), (59, "59s"), (60, "1m"), (3725, "1h2m"), (3600, "1h"), (90061, "1d1h"), (86400 * 400, "400d")])
def test_times_are_counted_from_now(seconds: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime.datetime(2026, 11, 23, 10, tzinfo=datetime.timezone.utc)
    monkeypatch.setattr(screen, "now", lambda: moment)
    assert screen.ago(show_time(moment - datetime.timedelta(seconds=seconds))) == said
    assert not seconds or screen.ago(show_time(moment + datetime.timedelta(seconds=seconds))) == f"in {said}"
    assert screen.ago(None) == "-" and screen.ago("odd") == "odd"


def test_status_fits_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    times = dict.fromkeys(("newest_at", "last_success", "last_failure", "last_proved"), "2026-11-01T10:00:00.000000Z")
    row = {"workload": "application", "state": "failed", "scheduled": True, "next_elapse": "2027-11-01T10:00:00Z", "reason": ROWS[0][4], **times}
    text = scheduled._told({"schedules": [row], "workloads": [], "problems": [{"what": "volt-cas-verify.service", "state": "failed", "reason": "x " * 80}]})
    assert all(len(line) <= 80 for line in text.splitlines()), text


# ---- as a process


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("command") / "volt-backup"
    path.write_bytes(kit.command())
    return str(path)


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    return ["--store", str(tmp_path / "store"), "--backup-dir", str(tmp_path / "backups")]


def call(runner: str, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, runner, *words], env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)


#: Locales without UTF-8, and what Python makes of them.
NARROW = [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}]


@pytest.mark.parametrize("locale", NARROW, ids=[" ".join(one.values()) for one in NARROW])
def test_names_of_any_letters_are_printed_in_any_locale(runner: str, places: list[str], tmp_path: Path, locale: dict[str, str]) -> None:
    source = tmp_path / "sóurce"
    source.mkdir()
    for name in ("käse", "日本", "caf\udce9"):
        (source / name).write_text("x")
    made = call(runner, "create", "app", "--source", str(source), "--tag", "käse", *places, **locale)
    assert made.returncode == upkeep.DONE, made.stderr
    for words in (["list"], ["show", "app", "--contents"], ["restore", "app", "--dry-run", "--target", str(tmp_path / "target")]):
        done = call(runner, *words, *places, **locale)
        assert (done.returncode, done.stderr) == (upkeep.DONE, b""), (words, done)
        assert words == ["list"] or b"caf\\xe9" in done.stdout
    for words in (["list", "--tag", "käse"], ["restore", "app", "--dry-run", "--target", str(tmp_path / "target"), "--path", "käse"],
                  ["diff", "app", str(source), "--path", "日本"], ["diff", "app", f"{source}/", "--path", "caf\udce9"]):  # fmt: skip
        done = call(runner, *words, *places, **locale)
        assert (done.returncode, done.stderr) == (upkeep.DONE, b"") and b"app" in done.stdout, (words, done)
    done = call(runner, "create", "app", "--source", str(source / "日"), *places, **locale)
    assert done.returncode == upkeep.FAILED and len(done.stderr.splitlines()) == 1 and b"does not exist" in done.stderr or b"reached" in done.stderr, done


@pytest.mark.parametrize("words", [["help"], ["--help"], ["list"], ["show", "app", "--contents"], ["show", "app", "--contents", "--json"]])
def test_a_pipe_that_closes_is_no_failure(runner: str, places: list[str], tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "source").mkdir()
    for number in range(3000):
        (tmp_path / "source" / f"a-name-of-some-length-{number}").touch()
    assert call(runner, "create", "app", "--source", str(tmp_path / "source"), *places).returncode == upkeep.DONE
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run([sys.executable, runner, *words, *(places if words[0] != "--help" else [])], stdout=output, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (upkeep.DONE, b"")


def test_a_full_disk_behind_the_output_is_a_failure(runner: str) -> None:
    with open("/dev/full", "wb") as output:
        done = subprocess.run([sys.executable, runner, "help"], stdout=output, stderr=subprocess.PIPE, check=False)
    assert done.returncode == upkeep.FAILED and done.stderr.count(b"\n") == 1 and b"The output cannot be written: no space left" in done.stderr, done


@pytest.mark.parametrize("words", [["show", "app"], ["list", "--json"], ["--help"], ["show", "none"], ["nothing"]])
def test_streams_that_are_closed_are_no_failure(runner: str, places: list[str], tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "source").mkdir()
    assert call(runner, "create", "app", "--source", str(tmp_path / "source"), *places).returncode == upkeep.DONE
    expected = call(runner, *words, *(places if words[0] in ("list", "show") else []))
    for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
        line = " ".join(shlex.quote(word) for word in (sys.executable, runner, *words, *(places if words[0] in ("list", "show") else [])))
        done = subprocess.run(["sh", "-c", f"exec {line} {closed}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        assert done.returncode == expected.returncode
        assert done.stdout == (b"" if ">&-" in closed.split() else expected.stdout)
        assert done.stderr == (b"" if "2>&-" in closed.split() else expected.stderr)


def test_no_file_of_the_store_takes_the_place_of_a_closed_stream(runner: str, places: list[str], tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a").write_bytes(b"a")
    line = " ".join(shlex.quote(word) for word in (sys.executable, runner, "create", "app", "--source", str(tmp_path / "source"), *places))
    assert subprocess.run(["sh", "-c", f"exec {line} <&- >&- 2>&-"], check=False).returncode == upkeep.DONE
    assert call(runner, "verify", "--content", *places).returncode == upkeep.DONE


@pytest.mark.parametrize("after", [0.1, 0.2, None], ids=["while it starts", "a little later", "while it works"])
def test_ctrl_c_answers_at_once(runner: str, places: list[str], tmp_path: Path, after: float | None) -> None:
    """No traceback of ours, and a status that says so. Before it can say anything it ends as programs do."""
    (tmp_path / "source").mkdir()
    for number in range(400):
        (tmp_path / "source" / f"{number}").write_bytes(os.urandom(300_000))
    child = subprocess.Popen([sys.executable, runner, "create", "app", "--source", str(tmp_path / "source"), *places], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))  # fmt: skip
    while after is None and not any((tmp_path / "store").glob("tmp/*")):
        time.sleep(0.01)
    time.sleep(after or 0)
    child.send_signal(signal.SIGINT)
    began = time.monotonic()
    errors = child.communicate(timeout=60)[1]
    assert time.monotonic() - began < 3 and b"volt_backup/" not in errors, errors
    if after is None:
        assert child.returncode == upkeep.INTERRUPTED, errors
    if child.returncode == upkeep.INTERRUPTED:
        assert errors == b"volt-backup: Interrupted by SIGINT; no partial result was left.\n"
        assert not (tmp_path / "backups").exists() or not list((tmp_path / "backups").glob("*.json"))


@pytest.mark.parametrize("setting", [{}, {"NO_COLOR": "1"}])
def test_a_terminal_gets_no_colours(runner: str, places: list[str], tmp_path: Path, setting: dict[str, str]) -> None:
    """None are printed, so NO_COLOR has nothing to turn off."""
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, runner, "list", *places], env={**os.environ, **setting}, stdin=theirs, stdout=theirs, stderr=theirs, check=False)
    os.close(theirs)
    said = os.read(ours, 1 << 16)
    os.close(ours)
    assert done.returncode == upkeep.NO_STORE and b"There is no store" in said and b"\x1b" not in said
