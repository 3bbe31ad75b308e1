# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real Debian hosts that Ansible reaches over ssh: systemd, timers, journal, and each suite's own Python.

    with fleet.Fleet() as hosts:
        old, new = hosts.boot("old", "bullseye"), hosts.boot("new", "trixie")    # both boot at once
        old.run("systemctl", "list-timers")                                      # waits until `old` is up
        hosts.inventory(path)

A host is an overlay on its suite's cached tree (debian.py), booted by systemd-nspawn. Its `/srv` is no overlay but a directory of
this machine's file system, for what wants to exchange trees or share blocks; `Host.srv` is the same seen from outside.

All of a host lives in a process namespace of its own, with mounts and a /run that nobody else sees. The kernel ends it as one, and does
so too when whoever booted it dies, even by SIGKILL. Nothing is ever looked up by name. What can stay after SIGKILL (a directory, empty
control groups) goes when the next fleet starts.

Commands and Ansible reach a host over one ssh connection that they share: to log in costs more than most commands do. It ends with the host.

Each host has a network link of its own, with IPv6 addresses below a prefix that every fleet draws at random (RFC 4193): fleets do not meet.
There is no way out of it, to other hosts or to the world.

Containers share the kernel's clock and may not set it. A host with a clock of its own is a virtual machine, see virtual.py.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, TypeVar

from ..tools import quick
from . import Unavailable, debian, need

SUITES = ("bullseye", "bookworm", "trixie")
_NO_MOUNT = 77

#: Kills a command when the thread that started it dies.
MORTAL = ["setpriv", "--pdeathsig", "KILL"]
#: Runs a command in a process namespace, with mounts of its own: all that it started dies with it.
APART = [*MORTAL, "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]

# The machine around a host: it wires the link at each start, and starts again what ended by a reboot (which nspawn tells by 133).
# systemd above 255 wants the unified hierarchy of control groups, whatever this machine has.
_MACHINE = f"""
link=$1 address=$2 layers=$3 root=$4 groups=$5
shift 5
for group in $groups; do echo 0 >"$group/cgroup.procs"; done
mount -t tmpfs tmpfs /run && mount -t overlay -o "$layers" overlay "$root" || exit {_NO_MOUNT}
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
status=133
while [ $status = 133 ]; do
    {{
        until ip link set "$link" up; do sleep 0.05; done
        ip address add "$address" dev "$link" nodad
    }} 2>/dev/null &
    systemd-nspawn -q -D "$root" "$@"
    status=$?
    ip link delete "$link" 2>/dev/null # the kernel is late to
done
exit $status
"""

_LINK_UNIT = """[Unit]
Description=The link to the tests
DefaultDependencies=no
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=60
ExecStart=/bin/sh -c 'until ip link set {link} up; do sleep 0.1; done'
ExecStart=/bin/ip address add {address}/64 dev {link} nodad
"""


_SSHD = """HostKey /etc/ssh/fleet_host_key
PermitRootLogin prohibit-password
UseDNS no
MaxStartups 100
MaxSessions 100
"""


class Host:
    """One machine of a fleet. Whatever talks to it waits until it is up."""

    #: What its tree has beside Debian's smallest base.
    packages: tuple[str, ...] = (*debian.HOST_PACKAGES, "rsync", "systemd-container")
    #: What its end of the link is called.
    link = "host0"
    #: Seconds that it may take to answer one try to connect, and to be up.
    answers, boots = 5, 180

    def __init__(self, fleet: Fleet, name: str, suite: str, number: int) -> None:
        self.fleet, self.name, self.suite = fleet, name, suite
        # In the one form that ssh looks for among the known hosts: no zeros in front.
        self.address = str(ipaddress.ip_address(f"{fleet.prefix}:{number:x}::2"))
        self._outside = f"{fleet.prefix}:{number:x}::1/64"
        self._machine = f"{fleet.id}-{number:x}"
        self._room = fleet.room / name
        self.srv = self._room / "srv"
        self._console = self._room / "console"
        self._process: subprocess.Popen[bytes] | None = None
        self._shared: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._up = False
        self._tree = debian.tree(suite, self.packages)
        self._furnish()

    @property
    def on(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ssh_options(self) -> list[str]:
        """How to reach it: over the shared connection while there is one, else over one of its own."""
        return [*self.fleet.ssh_options, "-oControlMaster=no", f"-oControlPath={self._socket()}"]

    def run(self, *argv: str, check: bool = True, stdin: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command there as root, over ssh."""
        self.ready()
        done = self._ssh(shlex.join(argv), stdin, timeout)
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {shlex.join(argv)} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def power_on(self) -> None:
        """Start it and return at once."""
        if self.on:
            raise RuntimeError(f"{self.name} is on already")
        self._disconnect()
        groups = [top / self._machine for top in _groups()]
        for group in groups:
            group.mkdir(exist_ok=True)
        layers = f"lowerdir={self._tree},upperdir={self._room / 'upper'},workdir={self._room / 'work'}"
        machine = ["sh", "-c", _MACHINE, "machine", f"ve-{self._machine}", self._outside, layers, str(self._room / "root"), " ".join(map(str, groups))]
        nspawn = ["-M", self._machine, f"--hostname={self.name}", "--boot", "--register=no", "--keep-unit", "--network-veth", f"--bind={self.srv}:/srv",
                  "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--settings=no"]
        with open(self._console, "ab") as console:
            self._process = self.fleet.spawn(*APART, *machine, *nspawn, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)
        self._up = False

    def ready(self, timeout: float = 0, after: str = "") -> None:
        """Wait until systemd has started everything; of a host that reboots, in another boot than `after`."""
        until = time.monotonic() + (timeout or self.boots)
        state = "unreachable"
        while not self._up:
            if not self.on:
                self._ended()
            if time.monotonic() > until:
                raise RuntimeError(f"{self.name} is not up in time, but {state}: {self._last_words()}")
            done = self._ssh("cat /proc/sys/kernel/random/boot_id; systemctl is-system-running --wait", timeout=self.boots)
            answer = done.stdout.split()
            boot, state = answer if len(answer) == 2 else ("", f"unreachable ({done.stderr.strip()})")
            if not boot or boot == after or state in ("offline", "initializing", "starting", "stopping", "unknown"):
                time.sleep(0.1)
            elif state == "running":
                self._up = True
            else:
                raise RuntimeError(f"{self.name} is {state}: {self._ssh('systemctl --failed --no-legend').stdout.strip()}")

    def reboot(self) -> None:
        """Shut it down in good order, and wait until it is up again."""
        boot = self.run("cat", "/proc/sys/kernel/random/boot_id").stdout.strip()
        self.run("systemctl", "reboot", check=False)  # the connection may end first
        self._up = False
        self.ready(after=boot)

    def poweroff(self) -> None:
        """Shut it down in good order. Its files stay."""
        self.run("systemctl", "poweroff", check=False)
        assert self._process
        self._process.wait(self.boots)
        self._disconnect()
        self._up = False

    def kill(self) -> None:
        """End it as when power fails, except that what it wrote is kept: the file system is this machine's."""
        self._up = False
        if self._process and self.on:
            # The first process of the namespace: once it is gone, all are, and `unshare` has seen it off. Before there is one, unshare itself.
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            first = children.read_text(encoding="ascii").split() if children.exists() else []
            os.kill(int(first[0]) if first else self._process.pid, signal.SIGKILL)
            self._process.wait(self.boots)
        self._disconnect()
        subprocess.run(["ip", "link", "delete", f"ve-{self._machine}"], stderr=subprocess.DEVNULL, check=False)

    def _furnish(self) -> None:
        """Write what makes it this host and no other: name, identity, keys, address."""
        upper = self._room / "upper"
        for name, mode in {"": 0o755, "etc": 0o755, "etc/ssh": 0o755, "etc/ssh/sshd_config.d": 0o755, "etc/systemd": 0o755, "etc/systemd/system": 0o755,
                           "etc/systemd/system/multi-user.target.wants": 0o755, "root": 0o700, "root/.ssh": 0o700}.items():
            (upper / name).mkdir(parents=True)
            (upper / name).chmod(mode)
        for name in ("work", "root", "srv"):
            (self._room / name).mkdir()
        _keygen(upper / "etc/ssh/fleet_host_key", self.name)
        public = (upper / "etc/ssh/fleet_host_key.pub").read_text(encoding="ascii")
        with open(self.fleet.known_hosts, "a", encoding="ascii") as stream:
            stream.write(f"{self.address} {public}")
        site = upper / "usr/lib/python3/dist-packages"
        site.mkdir(parents=True)
        quick.install(str(site), "/var/cache/volt-tests-quick")
        unit = upper / "etc/systemd/system/fleet-link.service"
        for path, text in {
            upper / "etc/machine-id": uuid.uuid4().hex + "\n",
            upper / "etc/hostname": self.name + "\n",
            upper / "etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n{self.address} {self.name}\n",
            upper / "etc/ssh/sshd_config.d/fleet.conf": _SSHD,
            upper / "root/.ssh/authorized_keys": (self.fleet.room / "key.pub").read_text(encoding="ascii"),
            unit: _LINK_UNIT.format(address=self.address, link=self.link),
        }.items():
            path.write_text(text, encoding="ascii")
        (unit.parent / "multi-user.target.wants/fleet-link.service").symlink_to("../fleet-link.service")

    def _ssh(self, command: str, stdin: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command_line = ["ssh", *self.ssh_options, f"root@{self.address}", command]
        refused = self._connect()
        if refused:
            return subprocess.CompletedProcess(command_line, 255, "", refused)
        return subprocess.run(command_line, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="backslashreplace",
                              timeout=timeout, check=False)

    def _socket(self) -> Path:
        return self._room / "ssh"

    def _connect(self) -> str:
        """Make the shared connection, unless there is one. Why that failed, else nothing."""
        with self._lock:
            if self._shared and self._shared.poll() is None and self._socket().exists():
                return ""
            self._disconnect()
            # The first line tells that it stands.
            shared = self.fleet.spawn(
                *MORTAL, "ssh", "-M", "-S", str(self._socket()), f"-oConnectTimeout={self.answers}", *self.fleet.ssh_options, f"root@{self.address}",
                "echo && exec cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
            assert shared.stdout
            if shared.stdout.readline():
                self._shared = shared
                return ""
            return shared.communicate()[1].decode("utf-8", "backslashreplace").strip() or "no connection"

    def _disconnect(self) -> None:
        """End the shared connection: a host that lost its power would not tell."""
        if self._shared:
            self._shared.kill()
            self._shared.communicate()
            self._shared = None
        self._socket().unlink(missing_ok=True)

    def _ended(self) -> None:
        status = self._process.returncode if self._process else None
        if status == _NO_MOUNT:
            raise Unavailable(f"cannot mount an overlay: {self._last_words()}")
        raise RuntimeError(f"{self.name} is off (status {status}): {self._last_words()}")

    def _last_words(self) -> str:
        return self._console.read_text(encoding="utf-8", errors="backslashreplace")[-600:] if self._console.exists() else ""


AnyHost = TypeVar("AnyHost", bound=Host)


class Fleet:
    """Hosts of one run of the tests."""

    def __init__(self) -> None:
        need("systemd-nspawn", "setpriv", "unshare", "ip", "ssh", "ssh-keygen", root=True)
        if not Path("/proc/net/if_inet6").exists():
            raise Unavailable("needs IPv6")
        self.hosts: dict[str, Host] = {}
        self.id = "vb" + secrets.token_hex(3)  # short: it is part of an interface's name
        drawn = "fd" + secrets.token_hex(5)
        self.prefix = ":".join((drawn[:4], drawn[4:8], drawn[8:]))
        # Not in TMPDIR, which may be of a kind that no overlay can write to; the trees lie on this file system too.
        top = debian.cache().parent / "fleet"
        self.room = top / self.id
        with debian._locked(top / "lock"):
            _sweep(top)
            self.room.mkdir(mode=0o700)
            self._claim = os.open(self.room, os.O_RDONLY)
            fcntl.flock(self._claim, fcntl.LOCK_EX)
        self._spawner = ThreadPoolExecutor(1)
        self._term: Any = None
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._term = signal.signal(signal.SIGTERM, _interrupt)
        self.known_hosts = self.room / "known_hosts"
        self.known_hosts.touch()
        _keygen(self.room / "key", self.id)
        settings = {"BatchMode": "yes", "IdentitiesOnly": "yes", "IdentityFile": self.room / "key", "UserKnownHostsFile": self.known_hosts,
                    "GlobalKnownHostsFile": "none", "StrictHostKeyChecking": "yes", "ConnectTimeout": 30, "LogLevel": "ERROR"}
        # Nothing of the user's, and no master process that stays when Ansible has ended.
        self.ssh_options = ["-F", "none", *(f"-o{name}={value}" for name, value in settings.items())]

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def boot(self, name: str, suite: str, kind: type[AnyHost] = Host) -> AnyHost:
        """Start a host and return at once (but for building its suite's tree, once and for all); it is waited for when it is used."""
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name) or name in self.hosts:
            raise ValueError(f"not a new host's name: {name}")
        host = self.hosts[name] = kind(self, name, suite, len(self.hosts) + 1)
        host.power_on()
        return host

    def spawn(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command that dies with this process, or with the fleet: its parent is a thread that lives as long.

        It has a session of its own: Ctrl-C is for the tests, which then close the fleet.
        """
        return self._spawner.submit(subprocess.Popen, command, start_new_session=True, **options).result()

    def inventory(self, path: str | os.PathLike[str], hosts: Iterable[Host] | None = None) -> None:
        """Write an Ansible inventory of all hosts that are on, or of some, once they are up. The variable `suite` tells their suites."""
        lines = []
        for host in self.hosts.values() if hosts is None else hosts:
            if host.on:
                host.ready()
                common = shlex.quote(shlex.join(host.ssh_options))
                lines.append(f"{host.name} ansible_host={host.address} suite={host.suite} ansible_ssh_common_args={common}")
        lines += ["[all:vars]", "ansible_user=root", "ansible_python_interpreter=/usr/bin/python3", f"ansible_ssh_private_key_file={self.room / 'key'}",
                  "ansible_ssh_args=''", "ansible_pipelining=true"]
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def each(self, work: Callable[[Any], object], hosts: Iterable[Host] | None = None) -> None:
        """Do something with all hosts at once, as far as it waits for them. What fails first, in their order, is raised."""
        hosts = list(self.hosts.values() if hosts is None else hosts)
        with ThreadPoolExecutor(len(hosts)) as pool:
            done = [pool.submit(work, host) for host in hosts]
        for one in done:
            one.result()

    def close(self) -> None:
        """End all hosts, and leave nothing of them behind. Once is enough, twice does no harm."""
        if self._claim < 0:
            return
        for host in self.hosts.values():
            host.kill()
        self._spawner.shutdown()
        _remove(self.room)
        os.close(self._claim)
        self._claim = -1
        if self._term is not None:
            signal.signal(signal.SIGTERM, self._term)


def _groups() -> list[Path]:
    """Where control groups have names: without one of its own, each host's systemd would take the processes of all others for its own."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, right = line.split(" - ")
        kind, _device, options = right.split(" ", 2)
        if kind == "cgroup2" or kind == "cgroup" and "name=systemd" in options.split(","):
            found.append(Path(left.split(" ")[4]))
    return found


def _sweep(top: Path) -> None:
    """Remove what a fleet left whose owner was killed: its claim is void then."""
    for room in top.glob("vb*"):
        claim = os.open(room, os.O_RDONLY)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(room)
        except BlockingIOError:
            pass
        finally:
            os.close(claim)


def _remove(room: Path) -> None:
    """Remove a fleet's directory and its control groups, which the kernel may need a moment to see empty."""
    until = time.monotonic() + 10
    for group in [group for top in _groups() for group in top.glob(f"{room.name}-*")]:
        for path, _directories, _files in os.walk(group, topdown=False):
            while True:
                try:
                    os.rmdir(path)
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.02)
    shutil.rmtree(room)


def _keygen(path: Path, comment: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)], stdin=subprocess.DEVNULL, check=True)


def _interrupt(*_signal: object) -> None:
    raise KeyboardInterrupt("SIGTERM")
