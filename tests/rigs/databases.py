# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Database servers of a test's own: PostgreSQL, MariaDB and Redis, each in a directory, on a socket there."""

from __future__ import annotations

import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_PATIENCE = 60
#: For User-Mode Linux, which cannot map as much as a buffer pool could ever have, and spoils what is written past its cache (measured).
_INNODB = ("--loose-innodb-buffer-pool-size-max=128M", "--innodb-flush-method=fsync", "--innodb-use-native-aio=0")


class Server:
    """A server that runs. `socket`: its socket, or the directory of it. `user`: the user of the host that it runs as."""

    def __init__(self, socket: Path, user: str, client: list[str]) -> None:
        self.socket, self.user, self._client = socket, user, client

    def __call__(self, text: str, *words: str) -> str:
        """What its client prints for some statements."""
        done = subprocess.run([*self._client, *words], input=text, capture_output=True, text=True, check=False, cwd="/")
        if done.returncode:
            raise AssertionError(done.stderr)
        return done.stdout


def missing() -> list[str]:
    """Debian packages that a test of all servers lacks."""
    needed = {"postgresql": _postgresql_bin() / "initdb", "mariadb-server": Path("/usr/sbin/mariadbd"), "redis-server": Path("/usr/bin/redis-server")}
    return [package for package, path in needed.items() if not path.exists()]


def _postgresql_bin() -> Path:
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nonexistent"), key=lambda path: int(path.parent.name))


def _as(user: str) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]


def _until(ready: list[str], child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while subprocess.run(ready, capture_output=True, check=False, cwd="/").returncode:
        if child.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"The server does not answer: {log.read_text(errors='replace')[-500:]}")
        time.sleep(0.05)


@contextmanager
def _running(words: list[str], ready: list[str], log: Path) -> Iterator[None]:
    with open(log, "wb") as file:
        child = subprocess.Popen(words, stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd="/")
    try:
        _until(ready, child, log)
        yield
    finally:
        child.terminate()
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _owned(place: Path, user: str) -> None:
    place.mkdir(parents=True)
    shutil.chown(place, user, pwd.getpwnam(user).pw_gid)


@contextmanager
def postgresql(place: Path, data: Path | None = None, more: Sequence[str] = ()) -> Iterator[Server]:
    """A server without synchronous writes.

    :param place: a directory to be made, which its user can reach. :param data: where there are data already. :param more: further options.
    """
    _owned(place, "postgres")
    programs = _postgresql_bin()
    if data is None:
        data = place / "data"
        subprocess.run([*_as("postgres"), str(programs / "initdb"), "-D", str(data), "-A", "peer", "-N", "--no-locale", "-E", "UTF8"],
                       check=True, capture_output=True, cwd="/")  # fmt: skip
    client = [*_as("postgres"), str(programs / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(place)]
    words = [*_as("postgres"), str(programs / "postgres"), "-D", str(data), "-k", str(place), "-c", "listen_addresses=", "-c", "fsync=off", *more]
    with _running(words, [*client, "-d", "postgres", "-c", "SELECT 1"], place / "log"):
        yield Server(place, "postgres", client)


@contextmanager
def mariadb(place: Path, data: Path | None = None) -> Iterator[Server]:
    """As `postgresql`."""
    _owned(place, "mysql")
    socket = place / "socket"
    if data is None:
        data = place / "data"
        words = ["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--skip-test-db", *_INNODB]
        made = subprocess.run(words, capture_output=True, text=True, check=False)
        assert not made.returncode, made.stdout[-1000:] + made.stderr[-1000:]
    client = ["mariadb", "--no-defaults", f"--socket={socket}", "--batch", "--skip-column-names"]
    words = ["/usr/sbin/mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}", f"--socket={socket}", "--skip-networking", *_INNODB,
             "--innodb-flush-log-at-trx-commit=0", f"--pid-file={place}/pid"]  # fmt: skip
    with _running(words, [*client, "-e", "SELECT 1"], place / "log"):
        yield Server(socket, "mysql", client)


@contextmanager
def redis(place: Path, data: Path | None = None, password: str = "", more: Sequence[str] = ()) -> Iterator[Server]:
    """As `postgresql`. :param more: further options."""
    _owned(place, "redis")
    socket = place / "socket"
    data = place if data is None else data
    words = [*_as("redis"), "redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(data), "--save", "", "--repl-diskless-sync-delay", "0"]
    words += [*(["--requirepass", password] if password else []), *more]
    login = ["env", f"REDISCLI_AUTH={password}"] if password else []
    client = [*login, "redis-cli", "-s", str(socket)]
    with _running(words, [*client, "-e", "PING"], place / "log"):
        yield Server(socket, "redis", client)
