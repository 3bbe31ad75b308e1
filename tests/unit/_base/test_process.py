# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that the engine starts: what they print, how they end, and that a late one takes along what it started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import SourceError, process


def test_what_it_prints_and_reads() -> None:
    done = process.run(["sh", "-c", "cat; echo \"$WORD\"; printf '\\377' >&2"], {**os.environ, "WORD": "two"}, stdin=b"one\n", capture=True)
    assert done == (0, "one\ntwo\n", "\ufffd")
    assert process.run(["cat"], capture=True) == (0, "", "")


@pytest.mark.parametrize("script, how", [("exit 3", "exit status 3"), ("kill -KILL $$", "signal 9"), ("exit 0", "exit status 0")])
def test_how_it_ends(script: str, how: str) -> None:
    done = process.run(["sh", "-c", script])
    assert done.how == how and (done.output, done.errors) == ("", "")


def test_what_cannot_be_started() -> None:
    with pytest.raises(FileNotFoundError):
        process.run(["/does/not/exist"])


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("traps", ["", "trap '' TERM; "])
def test_a_late_one_is_ended_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traps: str, capture: bool) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.2)
    script = f"{traps}sh -c '{traps}echo $$ >{tmp_path}/inner; while :; do sleep 0.1; done' & wait; while :; do sleep 0.1; done"
    with pytest.raises(subprocess.TimeoutExpired):
        process.run(["sh", "-c", script], patience=0.5, capture=capture)
    inner = int((tmp_path / "inner").read_text())
    until = time.monotonic() + 10
    while time.monotonic() < until:  # the kernel hands it to init, which reaps it in its own time
        try:
            if Path(f"/proc/{inner}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
            os.kill(inner, 0)
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.02)
    os.kill(inner, signal.SIGKILL)
    pytest.fail("what it started goes on")


def output(script: str, **more: Any) -> bytes:
    """All that a script writes."""
    found = b""
    with process.Output("Dump of x", ["sh", "-c", script], **more) as read:
        while True:
            data = read(1 << 16)
            if not data:
                return found
            found += data


def test_output_as_it_comes() -> None:
    assert output("echo one; echo two >&2; echo $WORD", environment={"WORD": "three"}) == b"one\nthree\n"
    assert len(output("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2")) == 3000000  # neither pipe fills up


@pytest.mark.parametrize("script, said", [
    ("echo half; echo first >&2; echo no room >&2; exit 3", r"sh failed with exit status 3 \(first no room\); "),
    ("echo half; kill -9 $$", "sh failed with signal 9; "),
    ("exit 1", "sh failed with exit status 1; "),
    ("exec sleep 60", "wrote nothing for 0 seconds; "),
    ("exec >&-; exec sleep 60", "sh did not end; "),
])  # fmt: skip
def test_output_of_a_program_that_fails(script: str, said: str) -> None:
    patience = 0.3 if "sleep" in script else 900
    with pytest.raises(SourceError, match=f"^Dump of x: .*{said}"):
        output(script, patience=patience)


def test_output_of_a_program_that_is_not_there() -> None:
    with pytest.raises(SourceError, match="Dump of x: the program /does/not/exist is not installed; "):
        process.Output("Dump of x", ["/does/not/exist"]).__enter__()


def test_a_reader_that_fails_ends_the_program(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), process.Output("Dump of x", ["sh", "-c", f"echo $$ >{tmp_path}/pid; echo x; exec sleep 60"]) as read:
        assert read(5) == b"x\n"
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
