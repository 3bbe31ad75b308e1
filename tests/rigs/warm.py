# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of Ansible that start quickly: a process that has imported Ansible forks for each run.

    with warm.Ansible(tmp_path, HOME=str(tmp_path / "home")) as ansible:
        done = ansible.run("ansible-playbook", "-i", "localhost,", "play.yml", cwd=tmp_path)

To start a program takes 0.7 s of CPU time otherwise, a fourth of a test's plays. Settings of Ansible are read once, so all runs have the environment
of the first one. Nothing of the collection is imported before.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType

from .fleet import APART, MORTAL

_SERVER = Path(__file__).with_name("warm_server.py")
#: Seconds that the server has to end by itself once there are no more requests.
_GRACE = 10


class Ansible:
    """:param room: a directory for Ansible's home and configuration. :param settings: variables of the environment beside those of the tests."""

    def __init__(self, room: Path, **settings: str) -> None:
        room.mkdir(parents=True, exist_ok=True)
        (room / "ansible.cfg").write_text("[defaults]\nnocolor = true\n", encoding="ascii")  # nothing of the user's
        self._room = room
        own = {"ANSIBLE_HOME": str(room), "ANSIBLE_CONFIG": str(room / "ansible.cfg"), "LC_ALL": "C.UTF-8", **settings}
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._complaints = tempfile.TemporaryFile(dir=room)
        with theirs:
            prefix = APART if os.geteuid() == 0 else MORTAL
            # With an output of its own: while Ansible runs in this process, in another thread, that of this process is not inherited.
            self._process = subprocess.Popen(
                [*prefix, sys.executable, str(_SERVER), str(theirs.fileno())], env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=self._complaints,
                stderr=self._complaints, pass_fds=[theirs.fileno()])  # fmt: skip

    def __enter__(self) -> Ansible:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End it, and what still runs."""
        self._requests.close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def run(self, program: str, *words: str, cwd: str | os.PathLike[str] = ".", timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        """Run a program to its end. What comes back is not judged. After a timeout, nothing more can be run."""
        request = json.dumps({"program": program, "words": words, "cwd": os.path.abspath(cwd)}).encode()
        end, theirs = os.pipe()
        with tempfile.TemporaryFile(dir=self._room) as output, open(end, "rb") as answer:
            with self._lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a server that has ended gives no status
                socket.send_fds(self._requests, [request], [output.fileno(), theirs])
            os.close(theirs)
            if not select.select([answer], [], [], timeout)[0]:
                self.close()
                raise subprocess.TimeoutExpired([program, *words], timeout)
            status = answer.read()
            output.seek(0)
            text = output.read().decode("utf-8")
        if not status:
            raise RuntimeError(f"{program} was not run: {self._how()}")
        return subprocess.CompletedProcess([program, *words], int(status), text)

    def _how(self) -> str:
        """What became of the server."""
        try:
            ended = f"its server ended with {self._process.wait(_GRACE)}"
        except subprocess.TimeoutExpired:
            ended = "its server's child ended"
        self._complaints.seek(0)
        return f"{ended}: {self._complaints.read().decode('utf-8', 'replace')[-4000:]}"
