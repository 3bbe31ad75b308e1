# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy in front of an HTTP server that spoils what passes, and a certificate for one that speaks TLS.

    with http_faults.Proxy(server.endpoint) as proxy:
        proxy.plan = http_faults.first(2, http_faults.Answer(503, "SlowDown", {"Retry-After": "1"}))
        ...                        # requests to proxy.endpoint
        proxy.seen                 # what came

A plan looks at a request and says what goes wrong with it, or None. Requests keep their Host, so signatures stay valid. Each
connection has a thread, in this process.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Optional, Union

from . import need


@dataclass
class Request:
    method: str
    #: With the query.
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    #: Of the peer: each connection has its own.
    port: int = 0

    @property
    def creates(self) -> bool:
        return self.method == "PUT" and self.headers.get("If-None-Match") == "*"


@dataclass
class Answer:
    """The proxy answers by itself, as S3 tells errors. The server does not get the request."""

    status: int
    code: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Delay:
    """The request waits, in seconds."""

    seconds: float


@dataclass
class CutUpload:
    """The connection breaks after so many bytes of the request's body."""

    at: int


@dataclass
class CutAnswer:
    """The connection breaks after so many bytes of the answer's body; its head is whole."""

    at: int


@dataclass
class Altered:
    """One byte of the request's body is another one."""

    at: int


class Lost:
    """The server does what it is asked to, and the answer does not come."""


class Twice:
    """The server gets the request twice; the second answer comes."""


class Refused:
    """The connection breaks before anything is answered, and the server gets nothing."""


@dataclass
class Late:
    """A listing has nothing that was written in the last seconds."""

    seconds: float


Fault = Union[Answer, Delay, CutUpload, CutAnswer, Altered, Lost, Twice, Refused, Late]
Plan = Callable[[Request], Optional[Fault]]


def nothing(_request: Request) -> None:
    """The plan of a proxy that spoils nothing."""


def on(match: Callable[[Request], object], fault: Fault) -> Plan:
    """Each request that matches."""
    return lambda request: fault if match(request) else None


def first(number: int, fault: Fault, match: Callable[[Request], object] = lambda _request: True) -> Plan:
    """The first of those that match."""
    return _counted(lambda count: count <= number, fault, match)


def every(number: int, fault: Fault, match: Callable[[Request], object] = lambda _request: True) -> Plan:
    """Each n-th of those that match."""
    return _counted(lambda count: count % number == 0, fault, match)


def _counted(which: Callable[[int], bool], fault: Fault, match: Callable[[Request], object]) -> Plan:
    lock, count = threading.Lock(), 0

    def plan(request: Request) -> Fault | None:
        nonlocal count
        if not match(request):
            return None
        with lock:
            count += 1
            return fault if which(count) else None

    return plan


class Proxy:
    """:param certificate: a file with certificate and key: then it speaks TLS."""

    def __init__(self, upstream: str, certificate: Path | None = None) -> None:
        parts = urllib.parse.urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self.plan: Plan = nothing
        self.seen: list[Request] = []
        #: When each path was written, of time.monotonic().
        self.written: dict[str, float] = {}
        self._server = _Server(("127.0.0.1", 0), self)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.endpoint = f"{'https' if certificate else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def forward(self, request: Request) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body of the server's answer."""
        connection = http.client.HTTPConnection(*self._upstream, timeout=60)
        try:
            path = re.sub(r"\Ahttp://[^/]*", "", request.path)  # of a client that has this as its proxy
            connection.putrequest(request.method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in ("expect", "connection", "transfer-encoding"):
                    connection.putheader(name, value)
            connection.endheaders(request.body or None)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def forward_cut(self, request: Request, at: int) -> None:
        """The head of a request and the beginning of its body, and then no more."""
        lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items() if name.lower() != "expect")]
        with socket.create_connection(self._upstream, timeout=60) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + request.body[:at])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that breaks is what tests are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def handle_expect_100(self) -> bool:
        return True  # said when it is known that the body is wanted

    def _serve(self) -> None:
        proxy = self.server.proxy
        request = Request(self.command, self.path, dict(self.headers.items()), port=self.client_address[1])
        proxy.seen.append(request)
        fault = proxy.plan(request)
        if isinstance(fault, Refused):
            self.close_connection = True
            return
        if isinstance(fault, Delay):
            time.sleep(fault.seconds)
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        size = int(self.headers.get("Content-Length") or 0)
        if isinstance(fault, CutUpload):
            request.body = self.rfile.read(min(size, fault.at))
            proxy.forward_cut(request, fault.at)
            self.close_connection = True
            return
        request.body = self.rfile.read(size)
        if isinstance(fault, Answer):
            self._tell(fault)
            return
        if isinstance(fault, Altered):
            at = fault.at
            request.body = request.body[:at] + bytes([request.body[at] ^ 1]) + request.body[at + 1 :]
        if isinstance(fault, Twice):
            proxy.forward(request)
        status, headers, body = proxy.forward(request)
        if request.method == "PUT" and status == 200:
            proxy.written[request.path] = time.monotonic()
        if isinstance(fault, Lost):
            self.close_connection = True
            return
        if isinstance(fault, Late):
            body = self._late(body, fault.seconds)
            headers = [(name, str(len(body)) if name.lower() == "content-length" else value) for name, value in headers]
        self._pass_on(status, headers, body, fault.at if isinstance(fault, CutAnswer) else None)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _tell(self, answer: Answer) -> None:
        body = f'<?xml version="1.0"?><Error><Code>{answer.code}</Code><Message>as the test wants</Message></Error>'.encode() if answer.code else b""
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/xml", "Content-Length": str(len(body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _pass_on(self, status: int, headers: list[tuple[str, str]], body: bytes, cut: int | None) -> None:
        self.send_response_only(status)
        sized = any(name.lower() == "content-length" for name, _value in headers)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if not sized and status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True

    def _late(self, body: bytes, seconds: float) -> bytes:
        """A listing without what is new. Keys are below the bucket, which is the first part of a path."""
        bucket = self.path.split("?")[0].strip("/")
        now = time.monotonic()
        new = {path.split("?")[0][len(bucket) + 2 :].encode() for path, when in self.server.proxy.written.items() if now - when < seconds}
        keys = re.compile(rb"<Contents>(?:(?!</Contents>).)*?<Key>(.*?)</Key>.*?</Contents>", re.S)  # some servers quote the slashes in them
        return keys.sub(lambda item: b"" if urllib.parse.unquote_to_bytes(item[1]) in new else item[0], body)


def certificate(room: Path) -> Path:
    """A file with a key and a certificate of 127.0.0.1, which is its own authority."""
    need("openssl")
    path = room / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(path), "-days", "2",
               "-out", str(room / "alone.pem"), "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]  # fmt: skip
    subprocess.run(command, stderr=subprocess.DEVNULL, check=True)
    with open(path, "ab") as stream:
        stream.write((room / "alone.pem").read_bytes())
    return path
