# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Programs that the engine starts: those of systemd, commands of the user, sendmail. One that times out is ended with all processes that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import typing as t

#: Seconds between SIGTERM and SIGKILL.
_GRACE = 10.0


class Ended(t.NamedTuple):
    """How a program ended. `status` is negative for a signal; `output` and `errors` are empty unless they were captured."""

    status: int
    output: str
    errors: str

    @property
    def how(self) -> str:
        """The status in words."""
        return f"exit status {self.status}" if self.status >= 0 else f"signal {-self.status}"


class _Process(subprocess.Popen[bytes]):
    """A program in a session of its own, so that its process group is that of all it starts."""

    def __init__(self, words: t.Sequence[str], environment: t.Mapping[str, str], stdin: bool, capture: bool, errors: t.Optional[int]) -> None:
        pipe = subprocess.PIPE if capture else None
        source = subprocess.PIPE if stdin else subprocess.DEVNULL
        super().__init__(list(words), stdin=source, stdout=pipe, stderr=pipe if errors is None else errors, env=environment, start_new_session=True)

    def end(self) -> None:
        """End the whole group. One that even SIGKILL does not end, since the kernel waits for a disk, is left behind."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(_GRACE)
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()


def run(
    words: t.Sequence[str],
    environment: t.Optional[t.Mapping[str, str]] = None,
    stdin: bytes = b"",
    patience: t.Optional[float] = None,
    capture: bool = False,
    errors: t.Optional[int] = None,
) -> Ended:
    """Run a program to its end. OSError or ValueError if it cannot be started, subprocess.TimeoutExpired if it timed out.

    :param patience: seconds; None for no limit. :param capture: else its output goes to ours.
    :param errors: a descriptor for its error output instead.
    """
    child = _Process(words, os.environ if environment is None else environment, bool(stdin), capture, errors)
    try:
        output, complaints = child.communicate(stdin or None, patience)
    except BaseException:
        child.end()
        raise
    return Ended(child.returncode, *((text or b"").decode("utf-8", "replace") for text in (output, complaints)))
