# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy that spoils: each fault does what its name says, and no more."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ansible_collections.volt.backup.tests.rigs import http_faults
from ansible_collections.volt.backup.tests.rigs.http_faults import Fault, Proxy


class Keeper(BaseHTTPRequestHandler):
    """Keeps what is put, and counts it."""

    protocol_version = "HTTP/1.1"
    kept: dict[str, bytes] = {}
    count = 0

    def do_PUT(self) -> None:
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size)
        Keeper.count += 1
        if len(body) == size:
            Keeper.kept[self.path] = body
        self._answer(b"kept")

    def do_GET(self) -> None:
        self._answer(Keeper.kept.get(self.path, b""))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    Keeper.kept, Keeper.count = {}, 0
    server = HTTPServer(("127.0.0.1", 0), Keeper)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    with Proxy(f"http://127.0.0.1:{server.server_address[1]}") as proxy:
        yield proxy
    server.shutdown()
    thread.join()
    server.server_close()


def ask(proxy: Proxy, method: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of an answer."""
    connection = http.client.HTTPConnection(proxy.endpoint.partition("//")[2], timeout=10)
    try:
        connection.request(method, "/x", body or None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_nothing(proxy: Proxy) -> None:
    assert ask(proxy, "PUT", b"0123456789") == (200, b"kept") and ask(proxy, "GET") == (200, b"0123456789")
    assert [(request.method, request.path, request.body) for request in proxy.seen] == [("PUT", "/x", b"0123456789"), ("GET", "/x", b"")]


@pytest.mark.parametrize(
    ("fault", "kept", "count"),
    [
        (http_faults.Lost(), b"0123456789", 1),
        (http_faults.Refused(), None, 0),
        (http_faults.CutUpload(4), None, 1),
        (http_faults.CutAnswer(2), b"0123456789", 1),
    ],
)
def test_what_breaks_the_connection(fault: Fault, kept: bytes | None, count: int, proxy: Proxy) -> None:
    proxy.plan = http_faults.on(lambda request: True, fault)
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(proxy, "PUT", b"0123456789")
    proxy.plan = http_faults.nothing
    ask(proxy, "GET")  # the server answers one request after the other, so it is done with the first
    assert (Keeper.kept.get("/x"), Keeper.count) == (kept, count)


def test_answers_of_its_own(proxy: Proxy) -> None:
    proxy.plan = http_faults.first(1, http_faults.Answer(503, "SlowDown", {"Retry-After": "1"}))
    status, body = ask(proxy, "PUT", b"0123456789")
    assert status == 503 and b"<Code>SlowDown</Code>" in body and Keeper.count == 0


def test_twice_and_altered(proxy: Proxy) -> None:
    proxy.plan = http_faults.first(1, http_faults.Twice())
    assert ask(proxy, "PUT", b"0123456789") == (200, b"kept") and Keeper.count == 2
    proxy.plan = http_faults.first(1, http_faults.Altered(3))
    assert ask(proxy, "PUT", b"0123456789") == (200, b"kept") and Keeper.kept["/x"] == b"0122456789"


def test_delay(proxy: Proxy) -> None:
    proxy.plan = http_faults.first(1, http_faults.Delay(0.3))
    start = time.monotonic()
    assert ask(proxy, "GET")[0] == 200 and time.monotonic() - start >= 0.3


def test_every_third(proxy: Proxy) -> None:
    proxy.plan = http_faults.every(3, http_faults.Answer(500, ""), lambda request: request.method == "GET")
    assert [ask(proxy, "GET")[0] for _number in range(6)] == [200, 200, 500, 200, 200, 500]


def test_it_ends(proxy: Proxy) -> None:
    with Proxy("http://127.0.0.1:9") as other:
        address = other.endpoint.partition("//")[2].split(":")
    with pytest.raises(OSError):
        socket.create_connection((address[0], int(address[1])), timeout=5)
