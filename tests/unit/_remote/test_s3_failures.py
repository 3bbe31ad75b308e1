# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What errors of S3 servers mean. Those that real servers give are in tests/system/test_transports.py."""

from __future__ import annotations

import email.utils
import http.client
import socket
import ssl
import time

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import NoRemote, RemoteError, RemoteFull, RemoteRefused, RemoteUnreachable
from ansible_collections.volt.backup.plugins.module_utils._remote import s3_failures
from ansible_collections.volt.backup.plugins.module_utils._remote.s3_failures import Answer, Failure


def meaning(status: int, code: str = "", text: str = "", **headers: str) -> Failure:
    return s3_failures.of_answer(Answer(status, code, text, {key.replace("_", "-"): value for key, value in headers.items()}), "write packs/x", "packs/x", "b")


def date(ahead: float) -> str:
    """The Date header of a server whose clock is that much ahead."""
    return email.utils.formatdate(time.time() + ahead, usegmt=True)


@pytest.mark.parametrize(
    ("status", "code", "kind", "again"),
    [
        (404, "NoSuchBucket", NoRemote, False),
        (403, "AccessDenied", RemoteRefused, False),
        (403, "403", RemoteRefused, False),
        (400, "ExpiredToken", RemoteRefused, False),
        (403, "QuotaExceeded", RemoteFull, False),
        (507, "", RemoteFull, False),
        (409, "ConditionalRequestConflict", RemoteUnreachable, True),
        (409, "BucketAlreadyExists", RemoteError, False),
        (429, "", RemoteUnreachable, True),
        (500, "InternalError", RemoteUnreachable, True),
        (599, "", RemoteUnreachable, True),
        (200, "InternalError", RemoteUnreachable, True),
        (0, "SlowDown", RemoteUnreachable, True),
        (501, "", s3_failures.Lacking, False),
        (400, "BadDigest", RemoteError, True),
        (418, "Teapot", RemoteError, False),
    ],
)
def test_answers(status: int, code: str, kind: type[RemoteError], again: bool) -> None:
    found = meaning(status, code)
    assert (found.kind, found.again) == (kind, again)
    what, _semicolon, advice = found.text.partition("; ")
    assert what and advice and "{" not in found.text and not found.text.endswith(".")


def test_what_a_server_says_is_one_short_line() -> None:
    text = meaning(400, "Odd", "first\nsecond\x1b[2J" + "x" * 1000).text
    assert text.startswith("the server refuses to write packs/x: Odd first\\x0asecond\\x1b[2Jxxx") and len(text) < 400


def test_braces_in_what_a_server_says() -> None:
    assert "{doing} {0}" in meaning(400, "Odd", "{doing} {0}").text


@pytest.mark.parametrize(
    ("status", "ahead", "sentence"),
    [
        (403, 3600, "the clock of this host is 60 minutes behind that of the server; set it, then run again"),
        (403, -3600, "the clock of this host is 60 minutes ahead of that of the server; set it, then run again"),
        (403, 600, "the credentials lack permission to write packs/x; change the policy of their key, or use another key"),
    ],
)
def test_clocks(status: int, ahead: float, sentence: str) -> None:
    """A server that refuses a signature because of its time may call that by another name."""
    assert meaning(status, "AccessDenied", date=date(ahead)).text == sentence


def test_a_clock_that_a_server_calls_wrong() -> None:
    assert meaning(403, "RequestTimeTooSkewed").text == "the clock of this host is wrong; set it, then run again"
    assert meaning(403, "RequestTimeTooSkewed", date="soon").text == "the clock of this host is wrong; set it, then run again"


@pytest.mark.parametrize(("said", "seconds"), [("7", 7), ("0", 0), ("", 0), ("soon", 0), ("-5", 0), ("9" * 400, 999_999_999)])
def test_retry_after(said: str, seconds: float) -> None:
    assert meaning(503, "SlowDown", retry_after=said).wait == seconds
    assert meaning(403, "AccessDenied", retry_after=said).wait == 0


def test_retry_after_a_date() -> None:
    """It is compared with the clock of the server."""
    assert meaning(503, "SlowDown", retry_after=date(-3590), date=date(-3600)).wait == pytest.approx(10, abs=1)
    assert meaning(503, "SlowDown", retry_after=date(-10)).wait == 0


def wrapped(cause: BaseException) -> Exception:
    """As libraries do it that keep a cause as an argument."""
    return RuntimeError("failed", RuntimeError(cause))


@pytest.mark.parametrize(
    ("error", "kind", "again", "sentence"),
    [
        (wrapped(ConnectionRefusedError()), RemoteUnreachable, True, "host:1 refuses connections; check the URL, and that the server runs"),
        (wrapped(socket.gaierror(-2, "unknown")), RemoteUnreachable, True, "the host name host:1 does not resolve; correct the URL"),
        (wrapped(socket.timeout()), RemoteUnreachable, True, "host:1 does not answer in time; run again later"),
        (wrapped(ConnectionResetError()), RemoteUnreachable, True, "the connection to host:1 breaks; check the network"),
        (wrapped(ssl.SSLEOFError()), RemoteUnreachable, True, "the connection to host:1 breaks; check the network"),
        (wrapped(ssl.SSLError(1, "wrong version")), RemoteUnreachable, True, "host:1 does not speak TLS; check the URL"),
        (wrapped(ssl.SSLCertVerificationError()), RemoteError, False, "the certificate of host:1 is not trusted: verification failed; "),
        (http.client.IncompleteRead(b""), RemoteUnreachable, True, "the connection to host:1 breaks; check the network"),
    ],
)
def test_exceptions(error: Exception, kind: type[RemoteError], again: bool, sentence: str) -> None:
    found = s3_failures.of_exception(error, "host:1")
    assert found is not None and (found.kind, found.again) == (kind, again) and found.text.startswith(sentence)


def test_a_fault_of_ours_is_no_failure_of_the_network() -> None:
    assert s3_failures.of_exception(KeyError("x"), "host") is None
