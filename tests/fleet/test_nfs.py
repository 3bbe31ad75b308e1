# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hosts share a store over NFS, each with a kernel of its own: neither takes away what a run on the other one relies on.

The first host is the server too. It mounts its own export, as each host must. The second one reaches it through a relay, which can be cut. No wait for the
caches of the kernels to expire: what they remember of the store is old in most of these cases, for one host has just changed what the other one has seen.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.volt.backup.tests.rigs import debian, sample, virtual
from ansible_collections.volt.backup.tests.rigs.fleet import Fleet
from ansible_collections.volt.backup.tests.unit.kit import command

STORE, BACKUPS = "/mnt/store/cas", "/mnt/store/backups"
PLACES = ("--store", STORE, "--backup-dir", BACKUPS)
MODULES = ("nfs", "nfsv3", "nfsv4", "nfsd")
PACKAGES = ("nfs-common", "nfs-kernel-server")
#: Seconds after which the server may forget a host that does not answer: no kernel takes less.
LEASE = 10
SERVE = f"""
set -e
mkdir -p /srv/export /var/lib/nfs/v4recovery
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
mount -t nfsd nfsd /proc/fs/nfsd
echo '/srv/export *(rw,no_root_squash,fsid=0,no_subtree_check,insecure)' >/etc/exports
echo {LEASE} >/proc/fs/nfsd/nfsv4leasetime
echo {LEASE} >/proc/fs/nfsd/nfsv4gracetime
exportfs -ra
echo 1 >/proc/sys/fs/nfs/nlm_grace_period
echo '_rpc:x:104:65534::/run/rpcbind:/usr/sbin/nologin' >>/etc/passwd
rpcbind
rpc.mountd --no-udp -N 2 --port 20048
rpc.nfsd -V 3 -V 4.2 --no-udp 4
"""
MOUNT = "mkdir -p /mnt/store && mount -i -t nfs4 -o vers=4.2,addr=$1,clientaddr=$2 [$1]:/ /mnt/store"
#: Version 3, in which locks can be left to each host.
MOUNT_LOCAL = """
mkdir -p /mnt/local
mount -i -t nfs -o vers=3,nolock,proto=tcp6,addr=::1,mountproto=tcp6,mountaddr=::1,mountvers=3,mountport=20048 [::1]:/srv/export /mnt/local
"""
#: Makes files of random content in a directory, so many, 20 kB each.
FURNISH = """
import os, sys
os.makedirs(sys.argv[1])
for number in range(int(sys.argv[2])):
    with open(f"{sys.argv[1]}/{number:04}", "wb") as file:
        file.write(os.urandom(20000))
"""
#: Starts a run, and stops it when it has claimed something. It does not stat the file of claims: a stat writes that to the server.
STAND_STILL = """
import os, signal, subprocess, sys, time
with open("/root/said", "w") as said:
    run = subprocess.Popen(["volt-backup", *sys.argv[1:]], stdout=said, stderr=said)
def claimed():
    try:
        for fd in os.listdir(f"/proc/{run.pid}/fd"):
            if os.readlink(f"/proc/{run.pid}/fd/{fd}").endswith("/claims"):
                with open(f"/proc/{run.pid}/fdinfo/{fd}") as info:
                    return int(info.readline().split()[1])
    except OSError:
        pass
    return 0
while run.poll() is None and not claimed():
    time.sleep(0.002)
os.kill(run.pid, signal.SIGSTOP)
with open("/root/run.beside", "w") as file:
    file.write(f"{run.pid} {claimed()}")
os.rename("/root/run.beside", "/root/run")
status = run.wait()
with open("/root/status.beside", "w") as file:
    file.write(str(status))
os.rename("/root/status.beside", "/root/status")
"""
#: Relies on the first of some objects; on the others, which the kernel has just seen, when it is told to. Says which of them are there.
RELY = """
import os, sys, time
sys.path.insert(0, "/usr/local/bin/volt-backup")
from volt_backup._store.store import Store
from volt_backup._store.transaction import Transaction
store, objects = Store(sys.argv[1]), [(bytes.fromhex(name), 200000) for name in sys.argv[2:]]
with Transaction(store) as run:
    for digest, size in objects:
        assert store.is_in_place(f"objects/{digest.hex()[:2]}/{digest.hex()}")
    first = run.objects.has(*objects[0])
    open("/root/relies", "w").close()
    while not os.path.exists("/root/go"):
        time.sleep(0.05)
    others = [run.objects.has(*one) for one in objects[1:]]
    run.check_claims()
with open("/root/found.beside", "w") as file:
    file.write(f"{first} {others}")
os.rename("/root/found.beside", "/root/found")
"""
#: Holds the locks of collections and of the backup directory until it is told to end.
HOLD = """
import os, sys, time
sys.path.insert(0, "/usr/local/bin/volt-backup")
from volt_backup._base import directory_lock
from volt_backup._store.store import Store
from volt_backup._store.trash import one_at_a_time
with one_at_a_time(Store(sys.argv[1])) as check, directory_lock(sys.argv[2], 5):
    open("/root/holds", "w").close()
    while not os.path.exists("/root/go"):
        time.sleep(0.05)
    check()
"""
#: Whether any run lives.
LIVES = """
import sys
sys.path.insert(0, "/usr/local/bin/volt-backup")
from volt_backup._store.claims import Claimed
print(Claimed(sys.argv[1]).read())
"""


class Relay:
    """What the second host takes for the server."""

    def __init__(self, address: str, server: str) -> None:
        self._server = server
        self._flows = threading.Event()
        self._flows.set()
        self._socket = socket.create_server((address, 2049), family=socket.AF_INET6)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through until `mend`, as when a cable is pulled. Neither side gets an error."""
        self._flows.clear()

    def mend(self) -> None:
        self._flows.set()

    def close(self) -> None:
        self.mend()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _peer = self._socket.accept()
                far = socket.create_connection((self._server, 2049))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flows.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Sharing:
    """The two hosts, and what is done on them."""

    def __init__(self, fleet: Fleet) -> None:
        self.server = fleet.boot("server", "bookworm", virtual.Machine)
        self.other = fleet.boot("other", "bookworm", virtual.Machine)
        room = fleet.room / "packing"
        room.mkdir()
        for host, packages in ((self.server, PACKAGES), (self.other, ())):
            stdin = _packed(room / host.name, host._tree, packages)
            host.run("sh", "-c", "base64 -d | tar xz --no-same-owner -C / && ldconfig && python3 /root/load.py /root/modules/*", stdin=stdin, timeout=300)
        self.server.run("sh", "-ec", SERVE)
        here = self.other._outside.partition("/")[0]
        self.relay = Relay(here, self.server.address)
        self.server.run("sh", "-c", MOUNT, "sh", "::1", "::1")
        self.other.run("sh", "-c", MOUNT, "sh", here, self.other.address)

    @staticmethod
    def volt(host: virtual.Machine, *words: str, fails: bool = False) -> Any:
        """Run the command, and have its results, or its message where it fails."""
        done = host.run("volt-backup", *words, *PLACES, "--json", check=False, timeout=300)
        assert bool(done.returncode) == fails, (host.name, words, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def start(self, host: virtual.Machine, program: str, *words: str) -> None:
        """Start a Python program there."""
        host.run("rm", "-f", "/root/run", "/root/status", "/root/relies", "/root/found", "/root/holds", "/root/go")
        host.run("sh", "-c", 'cat >/root/program.py; setsid python3 /root/program.py "$@" >/root/failed 2>&1 </dev/null &', "sh", *words, stdin=program)

    @staticmethod
    def read(host: virtual.Machine, path: str, patience: float = 120) -> str:
        """What a file has, once it is there."""
        until = time.monotonic() + patience
        while True:
            done = host.run("cat", path, check=False)
            if done.returncode == 0:
                return done.stdout
            assert time.monotonic() < until, host.run("cat", "/root/failed", check=False).stdout
            time.sleep(0.1)

    def stand_still(self, workload: str, source: str) -> str:
        """Let a run on the second host stand still with claims; its process."""
        self.start(self.other, STAND_STILL, "create", workload, "--source", source, *PLACES)
        process, claimed = self.read(self.other, "/root/run").split()
        assert int(claimed) > 0
        return process

    def go_on(self, process: str) -> int:
        self.other.run("kill", "-CONT", process)
        return int(self.read(self.other, "/root/status"))

    def runs(self) -> list[str]:
        """The directories of runs, as the server's disk has them."""
        return self.server.run("ls", "/srv/export/cas/tmp").stdout.split()

    def garbage(self, name: str) -> str:
        """A directory on the second host whose first files are garbage in the store, and whose others are new."""
        top = f"/srv/{name}"
        self.other.run("python3", "-c", FURNISH, f"{top}/old", "150")
        made = self.volt(self.other, "create", f"{name}-before", "--source", top)
        self.volt(self.other, "delete", made["backup"]["id"])
        self.other.run("python3", "-c", FURNISH, f"{top}/young", "300")
        return top

    def is_whole(self, host: virtual.Machine) -> set[str]:
        """The workloads that have backups, after all content was read."""
        listed = self.volt(host, "list")["backups"]
        verified = self.volt(host, "verify", "--content")
        assert verified["backup_count"] == len(listed) and not verified["damage"], verified
        assert verified["file_count"] == int(self.server.run("sh", "-c", "find /srv/export/cas/objects /srv/export/cas/packs -type f | wc -l").stdout), verified
        assert not [backup for backup in listed if backup["damaged"]]
        return {backup["workload_name"] for backup in listed}


def _packed(room: Path, tree: Path, packages: tuple[str, ...]) -> str:
    """What a host needs, as the base64 of a tar: packages, modules of its kernel, and volt-backup."""
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w:gz", compresslevel=1) as tar:
        for package in debian.download(tree, packages, room / "packages") if packages else ():
            subprocess.run(["dpkg-deb", "--extract", str(package), str(room / "layer")], check=True)
        for top in (room / "layer").glob("*"):  # what is a link in the host stays one
            for path in top.rglob("*"):
                if not path.is_dir() or path.is_symlink():
                    name = str(path.relative_to(room / "layer"))
                    tar.add(path, name if top.name in ("etc", "usr", "var") else f"usr/{name}")
        for number, module in enumerate(virtual.modules(*MODULES)):
            tar.add(module, f"root/modules/{number:02}.ko")
        for name, content in {"root/load.py": virtual.LOAD.encode(), "usr/local/bin/volt-backup": command()}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return base64.b64encode(file.getvalue()).decode()


def what_is_new_is_seen(both: Sharing) -> None:
    """The server has looked for the store a moment ago, and found none."""
    both.volt(both.server, "list", fails=True)
    both.other.run("python3", "-c", FURNISH, "/srv/app", "20")
    both.volt(both.other, "create", "app", "--source", "/srv/app")
    assert both.is_whole(both.server) == {"app"} and both.runs() == []


def claims_are_seen(both: Sharing) -> None:
    """A run that stands still: what it relies on stays, and so does its directory; then it goes on."""
    process = both.stand_still("claims", both.garbage("claims"))
    collected = both.volt(both.server, "gc", "--grace", "0s")
    both.volt(both.server, "create", "beside", "--source", "/etc/ssh")
    both.volt(both.server, "prune", "app", "--keep", "1")
    assert len(both.runs()) == 1 and collected["freed_bytes"] < 1_000_000, collected
    assert both.go_on(process) == 0, both.read(both.other, "/root/said")
    assert both.is_whole(both.server) == both.is_whole(both.other) == {"app", "beside", "claims"}


def what_is_gone_is_missed(both: Sharing) -> None:
    """A run looks for an object after the other host has deleted it: it is not taken for there because the kernel has seen it a moment ago."""
    both.other.run("sh", "-c", "mkdir /srv/large && for name in 1 2 3; do head -c 200000 /dev/urandom >/srv/large/$name; done")
    made = both.volt(both.other, "create", "large", "--source", "/srv/large", "--compression", "none")
    both.volt(both.other, "delete", made["backup"]["id"])
    objects = [line.split()[0] for line in both.other.run("sh", "-c", "sha256sum /srv/large/*").stdout.splitlines()]
    both.start(both.other, RELY, STORE, *objects)
    both.read(both.other, "/root/relies")
    both.volt(both.server, "gc", "--grace", "0s")
    both.other.run("touch", "/root/go")
    assert both.read(both.other, "/root/found") == "True [False, False]"


def locks_of_directories_are_seen(both: Sharing) -> None:
    both.start(both.other, HOLD, STORE, BACKUPS)
    both.read(both.other, "/root/holds")
    said = both.volt(both.server, "gc", "--lock-timeout", "0", fails=True)["msg"]
    assert "holds the trash of store" in said, said
    said = both.volt(both.server, "create", "app", "--source", "/etc/ssh", "--lock-timeout", "0", fails=True)["msg"]
    assert f"holds the lock of directory {BACKUPS}" in said, said
    both.other.run("touch", "/root/go")
    both.volt(both.server, "gc")


def hosts_work_side_by_side(both: Sharing) -> None:
    """Each has runs of the same workload in the same seconds, and deletes, lists and collects beside."""
    before = both.is_whole(both.server)
    kept: dict[str, list[str]] = {}

    def work(host: virtual.Machine) -> None:
        host.run("sh", "-c", "rm -rf /srv/same && cp -r /usr/lib/python3.11/email /srv/same && hostname >/srv/same/host")
        ids = []
        for _turn in range(3):
            ids.append(both.volt(host, "create", "same", "--source", "/srv/same")["backup"]["id"])
            both.volt(host, "gc", "--grace", "0s", "--lock-timeout", "100")
            both.volt(host, "list")
        both.volt(host, "delete", ids[0])
        kept[host.name] = ids[1:]

    threads = [threading.Thread(target=work, args=(host,)) for host in (both.server, both.other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 2
    for host in (both.server, both.other):
        assert both.is_whole(host) == before | {"same"}
        listed = {backup["id"] for backup in both.volt(host, "list", "same")["backups"]}
        assert listed == {*kept["server"], *kept["other"]} and len(listed) == 4
    assert both.runs() == []


def a_lost_lock_is_noticed(both: Sharing) -> None:
    """The second host does not reach the server for longer than its lease, and the other one takes its run for dead: it must not go on."""
    process = both.stand_still("cut", both.garbage("cut"))
    lives = ("python3", "-c", LIVES, STORE)
    assert both.server.run(*lives).stdout == "True\n"
    both.relay.cut()
    until = time.monotonic() + 60
    while both.server.run(*lives).stdout == "True\n":
        assert time.monotonic() < until
        time.sleep(0.5)
    assert len(both.runs()) == 1
    both.relay.mend()
    assert both.go_on(process) == 1, both.read(both.other, "/root/said")
    said = both.read(both.other, "/root/said")
    assert "was lost, because the NFS server was out of reach for too long; run again." in said, said
    assert "cut" not in both.is_whole(both.other)


def local_locks_are_told(both: Sharing) -> None:
    both.server.run("sh", "-ec", MOUNT_LOCAL)
    collected = json.loads(both.server.run("volt-backup", "gc", "--store", "/mnt/local/cas", "--backup-dir", "/mnt/local/backups", "--json").stdout)
    assert "its NFS mount has local locks" in " ".join(collected["warnings"])
    assert not both.volt(both.server, "gc")["warnings"]


def the_dead_are_swept(both: Sharing) -> None:
    """The second host loses its power: what its run left goes when the server has noticed."""
    both.stand_still("dead", both.garbage("dead"))
    both.volt(both.server, "create", "app", "--source", "/etc/ssh")
    assert len(both.runs()) == 1
    both.other.kill()
    until = time.monotonic() + 60
    while both.runs():
        assert time.monotonic() < until
        both.volt(both.server, "create", "app", "--source", "/etc/ssh")
    both.volt(both.server, "gc", "--grace", "0s")
    assert "dead" not in both.is_whole(both.server)


#: The usual mode leaves out those that take long.
CASES = (what_is_new_is_seen, claims_are_seen, what_is_gone_is_missed, locks_of_directories_are_seen, local_locks_are_told)
MORE = (hosts_work_side_by_side, a_lost_lock_is_noticed, the_dead_are_swept)


@contextlib.contextmanager
def sharing(fleet: Fleet) -> Iterator[Sharing]:
    both = Sharing(fleet)
    try:
        yield both
    finally:
        both.relay.close()


def hosts_share_a_store(fleet: Fleet) -> None:
    with sharing(fleet) as both:
        for case in (*CASES, *MORE) if sample.LONG else CASES:
            began = time.monotonic()
            case(both)
            print(f"{case.__name__}: {time.monotonic() - began:.1f} s", flush=True)


@pytest.mark.meanwhile(work=hosts_share_a_store)
@pytest.mark.costly
def test_hosts_share_a_store(outcome: Callable[[], None]) -> None:
    outcome()
