# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian root file systems, built once by debootstrap and kept outside the checkout; and trees of packages that are only unpacked.

A tree is built beside its final name and renamed, under a lock, so an interrupted build is never taken for a tree.
The mirror is the one apt uses on this machine; neither its name nor this machine's is left in the tree.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import Unavailable, need

HOST_PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "iproute2", "openssh-server")


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "volt-backup-tests" / "debian"


def suite_here() -> str:
    """The code name of this machine's own Debian."""
    match = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(encoding="utf-8"), re.M)
    if not match or not re.search(r"^ID=debian$", Path("/etc/os-release").read_text(encoding="utf-8"), re.M):
        raise Unavailable("not a Debian machine")
    return match.group(1)


def mirror(suite: str) -> str:
    """The repository that apt itself would ask for a suite."""
    need("apt-get")
    listing = _output("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    found = {}
    for line in listing.splitlines():
        release, component, uri = line.split(" ", 2)
        if component == "main":
            found.setdefault(release, uri)
    # Another suite lies on the same mirror as this machine's own.
    for release in (suite, suite_here(), "stable"):
        if release in found:
            return found[release]
    raise Unavailable("apt knows no Debian repository")


def tree(suite: str | None = None, include: Sequence[str] = ()) -> Path:
    """A minbase Debian tree with further packages. Read it, never write to it: it is shared."""
    suite = suite or suite_here()
    final = cache() / "-".join([suite, *sorted(include)])
    if not _whole(final, include):
        need("debootstrap", root=True)
        with _locked(cache() / "lock"):
            if not _whole(final, include):
                _discard(final)
                _build(suite, include, final)
    return final


def copy(suite: str | None, dest: str | os.PathLike[str], include: Sequence[str] = ()) -> None:
    """A copy of a tree, as `dest` (which must not exist)."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(tree(suite, include)), os.fspath(dest)], check=True)


def unpacked(suite: str, architecture: str, packages: Sequence[str], only: Sequence[str] = ()) -> Path:
    """Packages of any architecture and all that they need, unpacked but not configured: that would run programs of theirs. Read it, never write to it.

    :param only: patterns of paths, as tar takes them, where not all is wanted.
    """
    final = cache() / "-".join([suite, architecture, *sorted(packages), *(re.sub(r"\W+", "_", pattern) for pattern in only)])
    if final.exists():
        return final
    need("apt-get", "dpkg-deb", "tar", root=True)
    with _locked(cache() / "lock"):
        if final.exists():
            return final
        beside = final.with_name(final.name + ".building")
        _discard(beside)
        try:
            with tempfile.TemporaryDirectory() as room:
                found = _fetch(suite, architecture, packages, Path(room))
                beside.mkdir()
                for package in found:
                    _unpack(package, beside, only)
            beside.rename(final)
        finally:
            _discard(beside)
    return final


def _fetch(suite: str, architecture: str, packages: Sequence[str], room: Path) -> list[Path]:
    """By an apt that knows nothing of this machine's packages, and is told this machine's mirror."""
    for folder in ("lists/partial", "archives/partial"):
        (room / folder).mkdir(parents=True)
    (room / "status").touch()
    (room / "sources.list").write_text(f"deb {mirror(suite)} {suite} main\n", encoding="ascii")
    options = {
        "APT::Architecture": architecture, "APT::Architectures::": architecture, "APT::Sandbox::User": "root", "Acquire::Languages": "none",
        "Dir::State": room, "Dir::State::status": room / "status", "Dir::State::lists": room / "lists", "Dir::Cache": room,
        "Dir::Etc::sourcelist": room / "sources.list", "Dir::Etc::sourceparts": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
    }  # fmt: skip
    command = ["apt-get", "-qq", "-y"]
    for key, value in options.items():
        command += ["-o", f"{key}={value}"]
    for words in (["update"], ["--no-install-recommends", "--download-only", "install", *packages]):
        done = subprocess.run([*command, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"apt cannot fetch packages of {architecture}: " + done.stdout.strip()[-300:])
    return sorted((room / "archives").glob("*.deb"))


def _unpack(package: Path, into: Path, only: Sequence[str]) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as reader:
        wildcards = ["--wildcards", *only] if only else []
        done = subprocess.run(["tar", "-x", "-C", into, *wildcards], stdin=reader.stdout, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{package.name} cannot be unpacked: " + done.stderr.strip()[-300:])


def download(root: str | os.PathLike[str], packages: Sequence[str], into: Path) -> list[Path]:
    """Fetch the packages, and what they need, as the Debian tree at `root` would: from this machine's apt lists."""
    need("apt-get", root=True)
    (into / "partial").mkdir(parents=True, exist_ok=True)
    status = Path(root) / "var/lib/dpkg/status"
    command = ["apt-get", "-qq", "-y", "--download-only", "--no-install-recommends", "--reinstall"]
    options = {"Dir::State::status": status, "Dir::Cache::archives": into, "Dir::State::extended_states": "/dev/null", "APT::Sandbox::User": "root"}
    for key, value in options.items():
        command += ["-o", f"{key}={value}"]
    done = subprocess.run([*command, "install", *packages], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Unavailable("apt cannot fetch packages: " + done.stdout.strip()[-300:])
    return sorted(into.glob("*.deb"))


def _whole(path: Path, include: Sequence[str]) -> bool:
    """Is it there, and not what an interrupted removal has left?"""
    return (path / "usr/bin/dpkg").exists() and ("openssh-server" not in include or (path / "usr/sbin/sshd").exists())


def _build(suite: str, include: Sequence[str], final: Path) -> None:
    beside = final.with_name(final.name + ".building")
    _discard(beside)
    command = ["debootstrap", "--variant=minbase"]
    if include:
        command.append("--include=" + ",".join(include))
    done = subprocess.run([*command, suite, str(beside), mirror(suite)], env={**os.environ, **_proxy()},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        _discard(beside)
        raise Unavailable(f"debootstrap of {suite} failed: " + done.stdout.strip()[-300:])
    (beside / "etc/hostname").write_text("debian\n", encoding="ascii")
    for name in ("etc/resolv.conf", "etc/apt/sources.list"):
        (beside / name).write_text("", encoding="ascii")
    (beside / "var/log/bootstrap.log").unlink()
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        for entry in (beside / folder).iterdir():
            if entry.is_file() and entry.name != "lock":
                entry.unlink()
    beside.rename(final)


def _discard(path: Path) -> None:
    """Remove a half-built tree, first unmounting what an interrupted debootstrap left mounted in it."""
    for line in reversed(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()):
        mounted = line.split()[4]
        if mounted.startswith(f"{path}/"):
            subprocess.run(["umount", mounted], check=True)
    if path.exists():
        shutil.rmtree(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _proxy() -> dict[str, str]:
    """Debootstrap fetches by itself: hand it the proxy that apt has been told to use."""
    proxy = _output("apt-config", "shell", "P", "Acquire::http::Proxy").partition("=")[2].strip().strip("'\"")
    return {"http_proxy": proxy} if proxy else {}


def _output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
