# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling of failures: real servers on loopback get what they should, secrets stay where they are, and no way hides another's failure."""

from __future__ import annotations

import http.server
import json
import socket
import socketserver
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import VoltError
from ansible_collections.volt.backup.plugins.module_utils._schedule import journal, notification, notify, send
from ansible_collections.volt.backup.plugins.module_utils._schedule.record import RunRecord

from .. import kit

FACTS = {
    "text": "Backup of app failed on node1: Source /srv/app\ndoes not exist.", "event": "failure", "host": "node1", "unit": "volt-backup-app",
    "workload": "app", "reason": "Source does not exist.", "failures": 3, "last_success": None,
}  # fmt: skip


class Hook(http.server.BaseHTTPRequestHandler):
    """A webhook that keeps what it is sent, and answers as its path says."""

    got: list[tuple[str, dict[str, str], Any]] = []

    def do_POST(self) -> None:
        self.got.append((self.path, dict(self.headers), json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        status = int(self.path.rsplit("/", 1)[-1])
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/200")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


class Mailbox(socketserver.StreamRequestHandler):
    """A mail server, as much of one as a letter needs. RFC 5321."""

    letters: list[str] = []

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        for line in self.rfile:
            word = line.split()[0].upper() if line.split() else b""
            if word == b"DATA":
                self.wfile.write(b"354 go\r\n")
                letter = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.letters.append(letter.decode())
            if word == b"AUTH":
                self.wfile.write(b"535 no\r\n")
            elif word == b"EHLO":
                self.wfile.write(b"250-here\r\n250 AUTH PLAIN\r\n")
            else:
                self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


@pytest.fixture
def servers() -> Iterator[tuple[int, int]]:
    """Ports of a webhook and of a mail server."""
    Hook.got, Mailbox.letters = [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as hook, socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox) as mail:
        for server in (hook, mail):
            threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield hook.server_address[1], mail.server_address[1]
        for server in (hook, mail):
            server.shutdown()


def test_every_channel_is_used(servers: tuple[int, int], tmp_path: Path) -> None:
    hook, mail = servers
    command = [sys.executable, "-c", f"import os, sys; open({str(tmp_path / 'told')!r}, 'w').write(sys.argv[1] + os.environ['VOLT_REASON'])"]
    used = {
        "command": command,
        "mail": {"to": "admin@example.org, other@example.org", "smtp": "127.0.0.1", "port": mail},
        "webhook": {"url": f"http://127.0.0.1:{hook}/secret/204", "headers": {"Authorization": "Bearer secret"}},
    }
    notify.tell(used, FACTS)
    assert (tmp_path / "told").read_text() == "volt-backup-appSource does not exist."
    ((path, headers, sent),) = Hook.got
    assert (path, headers["Authorization"], sent) == ("/secret/204", "Bearer secret", FACTS)
    (letter,) = Mailbox.letters
    assert "Subject: Backup of app failed on node1: Source /srv/app does not" in letter and "To: admin@example.org, other@example.org" in letter
    assert "reason: Source does not exist." in letter and "failures: 3" in letter


@pytest.mark.parametrize(
    "way, says",
    [
        ({"command": ["/bin/false"]}, "command: exit status 1"),
        ({"command": ["/nowhere"]}, "command: no such file"),
        ({"webhook": {"url": "http://127.0.0.1:{hook}/secret/500"}}, "webhook: the server answered 500"),
        ({"webhook": {"url": "http://127.0.0.1:{hook}/secret/302"}}, "webhook: the server answered 302"),
        ({"webhook": {"url": "http://127.0.0.1:1/secret"}}, "webhook: connection refused"),
        ({"webhook": {"url": "http://127.0.0.1:secret/x"}}, "webhook: "),
        ({"webhook": {"url": "http://127.0.0.1:{hook}/200", "headers": {"X": "secret\nY: z"}}}, "webhook: the settings are wrong"),
        ({"mail": {"to": "a@example.org", "smtp": "127.0.0.1", "port": 1}}, "mail: connection refused"),
        ({"mail": {"to": "a@example.org", "smtp": "127.0.0.1", "port": "{mail}", "user": "me", "password": "secret"}}, "mail: the server rejected the user"),
        ({"mail": {"to": "a@example.org", "smtp": "127.0.0.1", "port": "{mail}", "security": "starttls"}}, "mail: the server refused"),
        ({"mail": {"to": "a@example.org\nBcc: secret@example.org", "smtp": "127.0.0.1", "port": "{mail}"}}, "mail: the settings are wrong"),
    ],
)
def test_a_failed_channel_is_named_without_secrets_and_hides_no_other(servers: tuple[int, int], way: dict[str, Any], says: str) -> None:
    hook, mail = servers
    used = json.loads(json.dumps(way).replace("{hook}", str(hook)).replace('"{mail}"', str(mail)))
    other = {"webhook": {"url": f"http://127.0.0.1:{hook}/200"}} if "webhook" not in used else {}
    with pytest.raises(notify.NotTold) as caught:
        notify.tell({**used, **other}, FACTS)
    assert says in caught.value.message and "secret" not in caught.value.message and FACTS["text"] in caught.value.message
    assert bool(other) == any(path == "/200" for path, _headers, _sent in Hook.got) or "302" in json.dumps(way)
    assert not (Hook.got and "302" in json.dumps(way) and len(Hook.got) > 1)  # a redirection is not followed


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "x", '{"mail": {"to": 5}}', '{"mail": {"from": "x"}}', '{"mail": ["x"]}', '{"webhook": {"headers": {}}}', '{"webhook": {"url": "file:///x"}}',
        '{"command": "rm -rf /"}', '{"command": ["a", 5]}', '{"mail": {"to": "x", "secret": "y"}}', '{"mail": {"to": "x", "security": "maybe"}}',
    ],
)  # fmt: skip
def test_invalid_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "notify.json").write_text(text)
    with pytest.raises(VoltError, match="has no valid notification settings"):
        notification.load(str(tmp_path / "notify.json"))


class Drip(socketserver.BaseRequestHandler):
    """A server that answers for five seconds: what it sends is within every timeout of a socket."""

    def handle(self) -> None:
        try:
            for byte in b"HTTP/1.1 100 go\r\nX: " if self.server.speaks == "http" else b"220-":  # type: ignore[attr-defined]
                self.request.sendall(bytes([byte]))
            for _turn in range(250):
                self.request.sendall(b"x")
                time.sleep(0.02)
        except OSError:
            pass


@pytest.mark.parametrize("way", ["url", "webhook", "mail", "a name that is looked up"])
def test_no_server_holds_its_caller(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "_SHORT", 0.4)
    monkeypatch.setattr(send, "_PATIENCE", 0.4)
    if way == "a name that is looked up":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_named: time.sleep(5))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Drip) as server:
        server.speaks = "smtp" if way == "mail" else "http"  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        port = server.server_address[1]
        began = time.monotonic()
        try:
            with pytest.raises(send.NotSent) as caught:
                if way == "webhook":
                    send.send({"webhook": {"url": f"http://127.0.0.1:{port}/"}}, "webhook", FACTS)
                elif way == "mail":
                    send.send({"mail": {"to": "a@example.org", "smtp": "127.0.0.1", "port": port}}, "mail", FACTS)
                else:
                    send.call(f"http://127.0.0.1:{port}/", FACTS)
            took = time.monotonic() - began
        finally:
            server.shutdown()
    assert took < 3 and str(caught.value) == "the server did not answer within 0.4 s"


def test_no_settings(tmp_path: Path) -> None:
    assert notification.load(str(tmp_path / "none")) == {}
    notify.tell({"command": [], "mail": {}, "webhook": {}}, FACTS)


def test_programs_and_servers_are_called_apart(servers: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that need rights by the one line of the unit, those that need the network by the other, and each once."""
    ways = {"command": ["/bin/sh", "-c", f"echo $VOLT_UNIT >>{tmp_path}/told"], "webhook": {"url": f"http://127.0.0.1:{servers[0]}/200"}}
    (tmp_path / "notify.json").write_text(json.dumps(ways))
    monkeypatch.setattr(notify.notification, "load", lambda: notification.check(ways))
    monkeypatch.setattr(notify.public, "publish", lambda _complain: None)
    monkeypatch.setattr(notify.systemd, "running", lambda: False)
    noted: list[str] = []
    monkeypatch.setattr(notify.watch, "note_told", lambda unit, _workload, _invocation: noted.append(unit))
    assert notify.notify("volt-cas-gc", print, [notify.NETWORK])[1] == ["webhook"] and not (tmp_path / "told").exists() and len(Hook.got) == 1
    facts, used = notify.notify("volt-cas-gc", print, [notify.PROGRAMS])
    assert used == ["command"] and (tmp_path / "told").read_text() == "volt-cas-gc\n" and len(Hook.got) == 1
    assert (facts["unit"], facts["workload"], facts["source"]) == ("volt-cas-gc", None, None)
    assert notify.notify(None, print)[1] == ["command", "webhook"] and len(Hook.got) == 2
    assert noted == ["volt-cas-gc"] * 2
    ways["command"] = ["/bin/false"]
    with pytest.raises(notify.NotTold):
        notify.notify("volt-cas-gc", print, [notify.PROGRAMS])
    assert noted == ["volt-cas-gc"] * 2
    with pytest.raises(notify.NotTold):
        notify.notify("volt-cas-verify", print)
    assert noted[2:] == ["volt-cas-verify"]  # one of two ways
    ways.clear()
    assert notify.notify("volt-cas-gc", print, [notify.NETWORK])[1] == [] and noted[3:] == ["volt-cas-gc"]  # nobody is to be told


def test_facts_are_one_line_each_of_limited_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths and words of a program that failed may be in them; a letter must not get lines of theirs."""
    (tmp_path / "schedules").mkdir()
    record = RunRecord("app", str(tmp_path / "schedules"))
    record.fail(VoltError("It said:\n\x1b[31mhost: other\0" + "x" * 9000), "")
    monkeypatch.setattr(notify, "RunRecord", lambda _workload: record)
    facts = notify.facts_of("volt-backup-app")
    assert facts["reason"].startswith("It said:\\x0a\\x1b[31mhost: other\\x00xxx") and len(facts["reason"]) == 4000 and facts["text"].isprintable()


def test_an_entry_of_a_run(log: kit.Journal) -> None:
    assert journal.send("failure", "line one", {"workload": "app", "seconds": 1.5, "backup": "app-1", "new": 5})
    (entry,) = log.taken()
    assert entry["MESSAGE_ID"] == ["b3b4d0c1f7a14a0e9d1e6c2f58a97d43"] and entry["PRIORITY"] == ["3"] and entry["VOLT_RESULT"] == ["failure"]
    assert (entry["VOLT_ACTION"], entry["VOLT_BACKUP_ID"], entry["VOLT_NEW_BYTES"], entry["VOLT_SECONDS"]) == (["run"], ["app-1"], ["5"], ["1.5"])


@pytest.mark.parametrize("stream", [None, "", "1", "1:2", "x:y"])
def test_output_that_is_not_the_journals(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if stream is not None:
        monkeypatch.setenv("JOURNAL_STREAM", stream)
    assert not journal.connected()
