# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A transport of remotes in a process of its own: with another Python and another boto3, or another clock.

    with apart.S3(["/usr/bin/python3"]) as remote:
        remote.open(url, credentials)
        remote.create("a", b"1")

Calls go there and back as pickles; several threads may call at once, and do so there as well. What is raised there is raised here.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from .fleet import MORTAL

_TOP = Path(__file__).absolute().parents[5]


class S3:
    """:param python: the command of a Python. :param environment: further variables."""

    def __init__(self, python: Sequence[str], **environment: str) -> None:
        env = {**{key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}, "PYTHONPATH": str(_TOP), **environment}
        self._process = subprocess.Popen([*MORTAL, *python, "-m", __name__], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock, self._count = threading.Condition(), 0
        self._answers: dict[int, tuple[bool, Any]] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def open(self, url: str, credentials: dict[str, str] | None, **options: Any) -> None:
        """:param options: of the transport's constructor."""
        self.where = self._call("open", url, credentials, options)

    def __enter__(self) -> S3:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:  # faketime runs the Python as its child, which ends with its input
            self._process.stdin.close()

    def create(self, name: str, data: bytes) -> bool:
        return bool(self._call("create", name, data))

    def put(self, name: str, data: bytes) -> None:
        self._call("put", name, data)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes | None:
        data: bytes | None = self._call("get", name, start, length)
        return data

    def head(self, name: str) -> Any:
        return self._call("head", name)

    def list(self, prefix: str, after: str = "") -> Iterator[Any]:
        return iter(self._call("list", prefix, after))

    def delete(self, names: Iterable[str]) -> None:
        self._call("delete", list(names))

    def now(self) -> float:
        return float(self._call("now"))

    def probe(self) -> Any:
        return self._call("probe")

    def _call(self, verb: str, *arguments: Any) -> Any:
        with self._lock:
            self._count += 1
            number = self._count
            _send(self._process.stdin, (number, verb, arguments))
            while number not in self._answers:
                if self._process.poll() is not None:
                    raise RuntimeError(f"the transport apart ended with {self._process.returncode}")
                self._lock.wait(0.5)
            good, value = self._answers.pop(number)
        if good:
            return value
        raise value

    def _listen(self) -> None:
        while True:
            answer = _receive(self._process.stdout)
            with self._lock:
                if answer is not None:
                    self._answers[answer[0]] = answer[1:]
                self._lock.notify_all()
            if answer is None:
                return


def _send(stream: BinaryIO | None, value: Any) -> None:
    data = pickle.dumps(value)
    if stream is not None:
        stream.write(struct.pack(">Q", len(data)) + data)
        stream.flush()


def _receive(stream: BinaryIO | None) -> Any:
    """What was sent; None at the end."""
    head = stream.read(8) if stream is not None else b""
    return pickle.loads(stream.read(struct.unpack(">Q", head)[0])) if stream is not None and len(head) == 8 else None


def _serve() -> None:
    from ansible_collections.volt.backup.plugins.module_utils._remote import s3, s3_client

    lock, remote = threading.Lock(), None
    s3._WAIT = 0.05  # tests need not be kind to servers
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints is no answer

    def answer(number: int, verb: str, arguments: Sequence[Any]) -> None:
        nonlocal remote
        try:
            if verb == "open":
                url, credentials, options = arguments
                remote = s3.S3(s3_client.parse_url(url), credentials, **options)
                value: Any = remote.where
            else:
                value = getattr(remote, verb)(*arguments)
            reply = (number, True, list(value) if verb == "list" else value)
        except Exception as error:
            reply = (number, False, error)
        with lock:
            _send(out, reply)

    while True:
        call = _receive(sys.stdin.buffer)
        if call is None:
            return
        threading.Thread(target=answer, args=call, daemon=True).start()


if __name__ == "__main__":
    _serve()
