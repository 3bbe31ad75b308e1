# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Programs that the engine starts: those of systemd, of databases, commands of the user, sendmail. One that times out is ended with all processes that
it started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import time
import typing as t

from .errors import SourceError, reason
from .text import excerpt

#: Seconds between SIGTERM and SIGKILL.
_GRACE = 10.0
#: Bytes of an error output that are kept, from its end.
_SAID = 16384
_PIPE_SIZE = 1 << 20
#: What another user's program may know of our environment, which may have secrets.
_PLAIN = frozenset(("PATH", "LANG", "LC_ALL", "TZ"))
#: Descriptors that programs get, see `inherited`.
_inherited: t.List[int] = []


class Ended(t.NamedTuple):
    """How a program ended. `status` is negative for a signal; `output` and `errors` are empty unless they were captured."""

    status: int
    output: str
    errors: str

    @property
    def how(self) -> str:
        """The status in words."""
        return f"exit status {self.status}" if self.status >= 0 else f"signal {-self.status}"


class Account(t.NamedTuple):
    """A user that a program runs as."""

    uid: int
    gid: int


class _Process(subprocess.Popen[bytes]):
    """A program in a session of its own, so that its process group is that of all it starts."""

    def __init__(
        self,
        words: t.Sequence[str],
        environment: t.Mapping[str, str],
        stdin: t.Union[bytes, int],
        capture: t.Union[bool, int],
        errors: t.Optional[int],
        account: t.Optional[Account] = None,
    ) -> None:
        pipe = (subprocess.PIPE if capture else None) if isinstance(capture, bool) else capture
        source = stdin if isinstance(stdin, int) else subprocess.PIPE if stdin else subprocess.DEVNULL
        errors = pipe if errors is None else errors
        more: t.Dict[str, t.Any] = {}
        if account is not None and account.uid != os.geteuid():
            more = {"user": account.uid, "group": account.gid, "extra_groups": [], "cwd": "/"}
        more["pass_fds"] = tuple(_inherited)
        super().__init__(list(words), stdin=source, stdout=pipe, stderr=errors, env=environment, start_new_session=True, **more)

    def end(self) -> None:
        """End the whole group, if the program has not ended. One that even SIGKILL does not end, since the kernel waits for a disk, is left behind."""
        for number in (signal.SIGTERM, signal.SIGKILL) if self.poll() is None else ():
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
    stdin: t.Union[bytes, int] = b"",
    patience: t.Optional[float] = None,
    capture: bool = False,
    errors: t.Optional[int] = None,
    account: t.Optional[Account] = None,
) -> Ended:
    """Run a program to its end. OSError or ValueError if it cannot be started, subprocess.TimeoutExpired if it timed out.

    :param stdin: what it reads, or a descriptor of it. :param patience: seconds; None for no limit. :param capture: else its output goes to ours.
    :param errors: a descriptor for its error output instead. :param account: the user that it runs as; None for ours.
    """
    child = _Process(words, os.environ if environment is None else environment, stdin, capture, errors, account)
    try:
        output, complaints = child.communicate((None if isinstance(stdin, int) else stdin) or None, patience)
    except BaseException:
        child.end()
        raise
    return Ended(child.returncode, *((text or b"").decode("utf-8", "replace") for text in (output, complaints)))


def start(words: t.Sequence[str], environment: t.Mapping[str, str], log: int, account: t.Optional[Account] = None) -> _Process:
    """Start a program that goes on until its `end` is called. :param log: a descriptor for all its output."""
    return _Process(words, environment, b"", log, log, account)


@contextlib.contextmanager
def inherited(fd: int) -> t.Iterator[None]:
    """Programs that are started meanwhile get a descriptor too, so a lock on it lasts until they have ended, also if this process is killed."""
    _inherited.append(fd)
    try:
        yield
    finally:
        _inherited.remove(fd)


def apart(limit: t.Optional[float] = None) -> t.List[str]:
    """In a unit of systemd: what starts a program outside of the unit's hardening, and waits for it (systemd-run(1)). Else nothing.

    :param limit: seconds after which systemd ends it; to end what waits for it does not.
    """
    within = "INVOCATION_ID" in os.environ and os.geteuid() == 0 and os.path.isdir("/run/systemd/system") and shutil.which("systemd-run")
    ends = [] if limit is None else [f"--property=RuntimeMaxSec={limit:.0f}", f"--property=TimeoutStopSec={_GRACE:.0f}"]
    return ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", *ends, "--"] if within else []


class Output:
    """What a program writes, as it writes it. Use as a context: at its end, the program has ended well, or SourceError tells why not.

    :param what: what it is for, to begin a message with. :param patience: seconds without a byte after which it is ended.
    :param account: the user that it runs as; None for ours.
    """

    def __init__(
        self,
        what: str,
        words: t.Sequence[str],
        environment: t.Optional[t.Mapping[str, str]] = None,
        account: t.Optional[Account] = None,
        patience: float = 900,
    ) -> None:
        self._what, self._words, self._patience = what, words, patience
        self._environment, self._account = environment, account
        self._said = b""
        self._ended = False

    def __enter__(self) -> Output:
        if shutil.which(self._words[0]) is None:
            raise SourceError(f"{self._what}: the program {self._words[0]} is not installed; install it, or correct its name.")
        user = self._account
        others = user is not None and user.uid != os.geteuid()
        try:
            inherited = {name: value for name, value in os.environ.items() if not others or name in _PLAIN or name.startswith("PG")}
            self._child = _Process(self._words, {**inherited, **(self._environment or {})}, b"", True, None, user)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise SourceError(f"{self._what}: {self._words[0]} could not be started: {why}; correct that, then run again.") from None
        self._out, self._err = (t.cast(t.IO[bytes], pipe).fileno() for pipe in (self._child.stdout, self._child.stderr))
        os.set_blocking(self._err, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ if hasattr(fcntl, "F_SETPIPE_SZ") else 1031, _PIPE_SIZE)
        return self

    def __call__(self, most: int) -> bytes:
        """Up to `most` bytes; none at the end."""
        watched = [self._out, self._err]
        deadline = time.monotonic() + self._patience
        while True:
            ready = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ready:
                raise SourceError(f"{self._what}: {self._words[0]} wrote nothing for {self._patience:.0f} seconds; find out what it waits for.")
            if self._err in ready and not self._hear():
                watched = [self._out]
            if self._out in ready:
                data = os.read(self._out, most)
                self._ended = not data
                return data

    def _hear(self) -> bool:
        """Read the error output; False where it has ended."""
        try:
            data = os.read(self._err, _PIPE_SIZE)
        except BlockingIOError:
            return True
        self._said = (self._said + data)[-_SAID:]
        return bool(data)

    def __exit__(self, kind: t.Optional[t.Type[BaseException]], *_rest: object) -> None:
        done = None
        try:
            if kind is None and self._ended:
                deadline = time.monotonic() + self._patience
                done = self._child.poll()
                while done is None and time.monotonic() < deadline:  # a full pipe would keep it from ending
                    if not (select.select([self._err], [], [], 0.05)[0] and self._hear()):
                        time.sleep(0.01)
                    done = self._child.poll()
                while select.select([self._err], [], [], 0)[0] and self._hear():
                    pass
        finally:
            self._child.end()
        if kind is None and done != 0:
            how = "did not end" if done is None else f"failed with {Ended(done, '', '').how}"
            said = excerpt(self._said.decode("utf-8", "replace"))
            raise SourceError(f"{self._what}: {self._words[0]} {how}{f' ({said})' if said else ''}; correct that, then run again.")
