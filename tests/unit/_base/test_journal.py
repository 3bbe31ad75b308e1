# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries in the journal: what a value says is never another field, and no journal keeps anyone waiting."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import journal

from .. import kit

KIND = "0" * 32


def test_an_entry(log: kit.Journal) -> None:
    assert journal.send("said", KIND, journal.WARNING, {"workload": "app", "size": 0, "remote": None, "backup_id": ["a", ""]})
    assert log.taken()[0] == {
        "MESSAGE": ["said"], "MESSAGE_ID": [KIND], "PRIORITY": ["4"], "SYSLOG_IDENTIFIER": ["volt-backup"],
        "VOLT_WORKLOAD": ["app"], "VOLT_SIZE": ["0"], "VOLT_BACKUP_ID": ["a", ""],
    }  # fmt: skip


@pytest.mark.parametrize("text", ["x\nVOLT_RESULT=success", "x\nVOLT_RESULT\n\x07\0\0\0\0\0\0\0success\n", "\n", "=\n=", "a\0b", "\x1b[31m", "\udcff\ud800"])
def test_a_value_is_no_other_field(log: kit.Journal, text: str) -> None:
    """Nor is it more than one line, or what controls a terminal."""
    assert journal.send(text, KIND, journal.ERROR, {"target": text, "result": "failure"})
    entry = log.taken()[0]
    assert set(entry) == {"MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER", "VOLT_TARGET", "VOLT_RESULT"}
    assert entry["VOLT_RESULT"] == ["failure"] and entry["MESSAGE"] == entry["VOLT_TARGET"]
    assert entry["VOLT_TARGET"][0].isprintable()


def test_an_entry_has_a_limit(log: kit.Journal) -> None:
    """One datagram takes it, whatever is put in: as many names as a prune deletes, all as long as can be."""
    huge = "\N{GRINNING FACE}" * 100_000
    assert journal.send(huge, KIND, journal.INFO, {"reason": huge, "target": huge, "backup_id": ["x" * 255] * 100_000})
    entry = log.taken()[0]
    assert len(entry["VOLT_BACKUP_ID"]) == 100 and len(entry["MESSAGE"][0]) == len(entry["VOLT_REASON"][0]) == 2000


def test_a_journal_that_is_busy_is_not_waited_for(log: kit.Journal) -> None:
    sent = 0
    while journal.send("x", KIND, journal.INFO, {}):
        sent += 1
        assert sent < 100_000
    assert sent and log.taken()[0]["MESSAGE"] == ["x"]


@pytest.mark.parametrize("what", ["nothing", "a file", "a directory", "a dead socket", "a link to itself", "a stream"])
def test_without_a_journal_there_is_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    path = tmp_path / "socket"
    monkeypatch.setattr(journal, "SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if what == "a stream" else socket.SOCK_DGRAM) as taken:
        if what == "a file":
            path.touch()
        elif what == "a directory":
            path.mkdir()
        elif what == "a link to itself":
            os.symlink(path, path)
        elif what != "nothing":
            taken.bind(str(path))
        if what == "a dead socket":
            taken.close()
        assert not journal.send("x", KIND, journal.INFO, {})
