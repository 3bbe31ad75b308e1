# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each row of the table "lost | what to do" of docs/recovery.md: the loss happens, what stands there is done, and a restore ends it. rsync is the judge."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import RemoteError
from ansible_collections.volt.backup.plugins.module_utils._remote import declared, names
from ansible_collections.volt.backup.plugins.module_utils._remote.declared import Settings
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.tests.rigs import need, oracle, s3_servers, sample, torture, warm

GUIDE = (Path(__file__).parents[2] / "docs/recovery.md").read_text(encoding="utf-8")
ROWS = ("the host", "the store, and the host is alive", "the recovery key, and the hosts are alive", "the recovery key and a host", "the bucket or the NAS")


def steps(title: str) -> list[list[str]]:
    """The commands of a section, in words."""
    (section,) = re.findall(rf"^#+ {re.escape(title)}\n(.*?)^##", GUIDE, re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for line in re.findall(r"^[$#] (.*)$", "".join(re.findall(r"```console\n(.*?)```", section, re.DOTALL)), re.M)]


def on(where: str) -> Any:
    """On a directory or on S3; in the long mode on each, and on Ceph."""
    return pytest.mark.parametrize("site", ["directory", "moto", "ceph"] if sample.LONG else [where], indirect=True)


class Site:
    """A host with a difficult tree, a place for remotes, and a controller."""

    def __init__(self, room: Path, place: str, monkeypatch: pytest.MonkeyPatch, server: s3_servers.Server | None) -> None:
        need("zstd", root=True)
        self.room, self._place, self._server = room, place, server
        self.source, self.kept = room / "srv/app", room / "kept"
        self.source.parent.mkdir()
        self.store, self.records = room / "cas", room / "records"
        self.host = self.old = ""
        torture.build(self.source, entries=120)
        self.places = {"/run/recovery.key": room / "run.key", "/etc/volt": room, "/var/lib/volt/backups": self.records}
        monkeypatch.setattr(declared, "DIRECTORY", str(room / "remotes"))
        monkeypatch.chdir(room)
        if server is not None:
            for name, value in zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), server.keys["owner"].values()):
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
            monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")

    @property
    def manager(self) -> Manager:
        return Manager(str(self.store), str(self.records), 5)

    def url(self, text: str) -> str:
        """Ours, in place of that of the guide; empty and ready for `remote init`."""
        name = text.rpartition("/")[2]
        if self._server is not None:
            return self._place.replace("PREFIX", name)
        (self.room / "nas" / name).mkdir(parents=True, exist_ok=True)
        return f"file://{self.room}/nas/{name}"

    def lose_remote(self, text: str) -> None:
        if self._server is None:
            shutil.rmtree(self.room / "nas")
            return
        client, bucket = self._server.client(), self._place.split("/")[2]
        for entry in client.list_objects_v2(Bucket=bucket)["Contents"]:
            client.delete_object(Bucket=bucket, Key=entry["Key"])

    def lose_store(self) -> None:
        shutil.rmtree(self.store)

    def lose_host(self) -> None:
        """All but what is compared with."""
        self.lose_store()
        shutil.rmtree(self.records)
        self.source.rename(self.kept)

    def back_up(self) -> str:
        return str(self.manager.create(CreateRequest("app", str(self.source))).backup["id"])

    def words(self, line: list[str], sealed: bool = True) -> list[str]:
        """A line of the guide, for this site. :param sealed: with the key that it names."""
        found = [self.url(word) if word.startswith("file://") else word for word in line]
        found = [word.replace("web1-3f9a2c7d", self.host).replace("app-20261123-100000-manual", self.old) for word in found]
        for old, new in self.places.items():
            found = [word.replace(old, str(new)) for word in found]
        if not sealed and "--identity" in found:
            del found[found.index("--identity") : found.index("--identity") + 2]
        return found if sealed or found[0] != "rm" or found[1] != str(self.places["/run/recovery.key"]) else ["true"]

    def run(self, line: list[str], sealed: bool = True, status: int = 0) -> None:
        program, *words = self.words(line, sealed)
        if program == "rm":
            Path(words[0]).unlink()
            return
        if program == "true":
            return
        assert program == "volt-backup"
        here = ["--store", str(self.store), "--backup-dir", str(self.records)]
        assert cli.main(words + here) == status, line

    def same(self) -> None:
        assert oracle.differences(self.kept, self.source) == []

    def restored(self, url: str, *words: str) -> None:
        """The last copy on a remote is what the source was: restored by a host that has nothing else."""
        target, here = self.room / "judged", str(self.room / "nothing")
        assert cli.main(["restore", f"{self.host}/app", "--remote", url, "--target", str(target), *words, "--store", here, "--backup-dir", here]) == 0
        assert oracle.differences(self.source, target) == []


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    if request.param == "directory":
        yield Site(tmp_path, "", monkeypatch, None)
        return
    server = request.getfixturevalue(request.param)
    bucket = f"drill-{uuid.uuid4().hex}"
    server.make_bucket(bucket)
    yield Site(tmp_path, f"s3://{bucket}/PREFIX?endpoint={server.endpoint}", monkeypatch, server)


@pytest.fixture(scope="module")
def moto() -> Iterator[s3_servers.Server]:
    with s3_servers.moto() as server:
        yield server


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_servers.Server]:
    with s3_servers.ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


def pushed(site: Site, sealed: bool) -> str:
    """A remote as docs/remotes.md has it, with the copies of a host; its URL."""
    url = site.url("file:///mnt/nas/backup")
    keys = []
    if sealed:
        for line in ("--new recovery.key", "--from recovery.key --host web1 --out web1.key"):
            site.run(["volt-backup", "remote", "keys", *line.split()])
        keys = ["--keys", str(site.room / "web1.key")]
        shutil.copy(site.room / "recovery.key", site.places["/run/recovery.key"])
    site.old = site.back_up()
    site.run(["volt-backup", "remote", "init", url, *keys])
    site.run(["volt-backup", "push", "--all", "--remote", url, *keys])
    store = site.manager.check_store()
    assert store is not None
    site.host = "web1" if sealed else names.host_name(socket.gethostname(), store[:8])
    return url


def test_the_table_has_these_rows() -> None:
    (table,) = re.findall(r"^\| lost \| what to do \|\n\|---\|---\|\n((?:\|.*\n)+)", GUIDE, re.M)
    assert tuple(line.split(" | ")[0].strip("| ") for line in table.splitlines()) == ROWS


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warm.Ansible]:
    room = tmp_path_factory.mktemp("controller")
    with warm.Ansible(room, HOME=str(room / "home"), ANSIBLE_REMOTE_TMP=str(room / "remote")) as ansible:
        yield ansible


@on("moto")
@pytest.mark.costly
def test_the_host_by_the_playbook(site: Site, controller: warm.Ansible) -> None:
    """With --check first, as it stands there, then without."""
    url = pushed(site, True)
    site.lose_host()
    (line,) = [words for words in steps("The host and its store are lost") if words[0] == "ansible-playbook"]
    (identity,) = [shlex.split(text) for text in re.findall(r"`(-e '\{\"volt_recover_identity\".*?)`", GUIDE, re.DOTALL)]
    (site.room / "inventory").write_text(f"web1 ansible_connection=local ansible_python_interpreter={sys.executable}\n", encoding="utf-8")
    more = {
        "vault_recovery_key": (site.room / "recovery.key").read_text(encoding="utf-8"), "ansible_become": False,
        "volt_store": str(site.store), "volt_backup_dir": str(site.records), "volt_recover_seen": str(site.room / "seen.json"),
    }  # fmt: skip
    if site._server is not None:
        more["volt_recover_remote_credentials"] = dict(site._server.keys["owner"])
    program, *words = [word.replace("file:///mnt/nas/backup", url).replace("web1-3f9a2c7d", site.host) for word in line]
    words = ["-i", str(site.room / "inventory"), *words, *identity, "-e", json.dumps(more)]
    assert "--check" in words
    for arguments in (words, [word for word in words if word != "--check"]):
        done = controller.run(program, *arguments, timeout=300)
        assert done.returncode == 0, done.stdout
        assert site.source.exists() is ("--check" not in arguments)
    site.same()
    assert json.loads((site.room / "seen.json").read_text(encoding="utf-8"))[site.host]["seq"] == 1


@on("directory")
@pytest.mark.parametrize("sealed", sample.some([True, False], 1, "commands"), ids=str)
@pytest.mark.costly
def test_the_host_by_commands(site: Site, sealed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    pushed(site, sealed)
    site.lose_host()
    for line in steps("A lost host by commands"):
        capsys.readouterr()
        site.run(line, sealed)
        said = capsys.readouterr().out
        if line[1] in ("remote", "list"):
            assert site.host in said
    site.same()
    assert not site.places["/run/recovery.key"].exists()


@on("directory")
@pytest.mark.parametrize("sealed", sample.some([True, False], 1, "store"), ids=str)
@pytest.mark.costly
def test_the_store(site: Site, sealed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    url = pushed(site, sealed)
    identity = ["--identity", str(site.room / "recovery.key")] if sealed else []
    site.manager.restore(None, RestoreRequest(str(site.kept)), Query(workload="app"))
    (site.source / "later").write_bytes(b"written after the backup")
    site.lose_store()
    for line in steps("The store is lost, and its host is alive"):
        site.run([*line, *identity] if "--remote" in line else line)
    assert site.host in capsys.readouterr().out
    site.run(["volt-backup", "verify", "--content"])
    (pulled,) = [backup["id"] for backup in site.manager.find(Query())]
    new = site.back_up()
    keys = ["--keys", str(site.room / "web1.key")] if sealed else []
    site.run(["volt-backup", "push", "--all", "--remote", url, *keys])
    for backup, truth in ((pulled, site.kept), (new, site.source)):
        site.run(["volt-backup", "restore", backup, "--target", str(site.room / backup)])
        assert oracle.differences(truth, site.room / backup) == []
    site.run(["volt-backup", "restore", f"{site.host}/{site.old}", "--remote", url, *identity, "--target", str(site.room / "older")])
    assert oracle.differences(site.kept, site.room / "older") == []
    store = site.manager.check_store()
    assert store is not None
    site.host = "web1" if sealed else names.host_name(socket.gethostname(), store[:8])  # as the guide says: without keys, it is a new one
    site.restored(url, *identity)


@on("directory")
@pytest.mark.costly
def test_the_recovery_key(site: Site) -> None:
    pushed(site, True)
    (site.room / "recovery.key").unlink()
    lines = steps("The recovery key is lost")
    assert [line[1:3] for line in lines] == [["remote", "keys"]] * 2 + [["remote", "init"], ["push", "--all"], ["verify", "--remote"]]
    for line in lines:
        site.run(line)
    site.restored(site.url("file:///mnt/nas/sealed-2"), "--identity", str(site.room / "recovery-2.key"))


@on("directory")
@pytest.mark.costly
def test_the_recovery_key_and_a_host(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither another recovery key nor the keys of a host open anything."""
    url = pushed(site, True)
    site.lose_host()
    (site.room / "recovery.key").unlink()
    site.run(["volt-backup", "remote", "keys", "--new", "other.key"])
    for key in ("other.key", "web1.key"):
        for command in (["list"], ["restore", "web1/app"]):
            site.run(["volt-backup", *command, "--remote", url, "--identity", str(site.room / key)], status=2 if key == "web1.key" else 1)
    assert not site.source.exists()


@on("directory")
@pytest.mark.parametrize("sealed", sample.some([True, False], 1, "bucket"), ids=str)
@pytest.mark.costly
def test_the_bucket_or_the_nas(site: Site, sealed: bool) -> None:
    url = pushed(site, sealed)
    identity = ["--identity", str(site.room / "recovery.key")] if sealed else []
    keys = ["--keys", str(site.room / "web1.key")] if sealed else []
    settings = Settings(url, keys=keys[1] if keys else None)
    declared.write("offsite", settings._replace(id=Remote(site.manager, settings).begin().about.id))  # type: ignore[union-attr]
    site.lose_remote(url)
    for line in steps("The bucket or the NAS is lost"):
        site.run([*line, *(identity if line[1] == "list" else keys)])
    site.restored(url, *identity)
    there = declared.read("offsite")
    assert there is not None
    with pytest.raises(RemoteError, match="is not the remote that was declared.*remove its file in /etc/volt/remotes and declare it again"):
        Remote(site.manager, there).begin()
    declared.remove("offsite")
    declared.write("offsite", settings)
    site.run(["volt-backup", "push", "--all", "--remote", "offsite"])
