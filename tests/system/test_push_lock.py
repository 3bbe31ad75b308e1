# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remotes in buckets with object lock: nothing is removed, and what hides objects hides nothing from us."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import RemoteError, UsageError
from ansible_collections.volt.backup.plugins.module_utils._remote import names, policy, s3_client
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Meant, Remote, Settings, Which
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.tests.rigs import need, oracle, s3_servers
from ansible_collections.volt.backup.tests.unit.kit import noise


@pytest.fixture(scope="module", params=["moto", "ceph"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_servers.Server]:
    with s3_servers.moto() if request.param == "moto" else s3_servers.ceph(tmp_path_factory.mktemp("ceph")) as server:
        server.client().create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        server.make_bucket("plain")
        yield server


class Vault:
    """A locked remote with two copies of a bench's backups."""

    def __init__(self, bench: Any, server: s3_servers.Server, prefix: str) -> None:
        self.bench, self.server, self.client, self.prefix = bench, server, server.client(), prefix
        self.settings = Settings(f"s3://locked/{prefix}?endpoint={server.endpoint}", "web1", credentials=server.keys["owner"], lock=1)
        self.begun = self.remote().begin()
        for number in range(2):
            bench.files(small=b"%d\n" % number, image=noise(2 << 20, 2))
            bench.create()
            self.remote().push(Which())

    def remote(self, **other: Any) -> Remote:
        return Remote(self.bench.manager, self.settings._replace(**other))

    def kept(self) -> list[dict[str, Any]]:
        """The versions of all objects that are written once."""
        found = self.client.list_object_versions(Bucket="locked", Prefix=f"{self.prefix}/")["Versions"]
        return [item for item in found if item["Key"][len(self.prefix) + 1 :].startswith(names.KEPT)]

    def is_right(self, room: Path) -> None:
        """Someone with a bare host, who knows the URL alone, gets everything back."""
        bare = Remote(Manager(str(room / "store"), str(room / "backups")), Settings(self.settings.url, "web1", credentials=self.server.keys["owner"]))
        found, warnings = bare.find(Query())
        assert len(found) == 2 and not warnings and not any(item.get("damaged") for item in found)
        bare.restore(Meant(workload="work"), RestoreRequest(str(room / "back")), alone=True)
        assert oracle.differences(self.bench.source, room / "back") == []
        checked = self.remote().verify(VerifyRequest(level="structure"))
        assert (checked.damage_count, checked.backup_count, checked.warnings) == (0, 2, [])


@pytest.fixture
def vault(bench: Any, server: s3_servers.Server, tmp_path: Path) -> Vault:
    need("zstd")
    return Vault(bench, server, tmp_path.name.replace("_", "-"))


def test_nothing_can_be_removed(vault: Vault, tmp_path: Path) -> None:
    assert vault.begun.changed and vault.begun.about is not None and vault.begun.about.locked
    assert len(vault.kept()) >= 7
    for item in vault.kept():
        kept = vault.client.head_object(Bucket="locked", Key=item["Key"], VersionId=item["VersionId"])
        assert kept["ObjectLockMode"] == "COMPLIANCE"
        with pytest.raises(vault.client.exceptions.ClientError, match="AccessDenied|forbidden"):
            vault.client.delete_object(Bucket="locked", Key=item["Key"], VersionId=item["VersionId"], BypassGovernanceRetention=True)
    vault.is_right(tmp_path)


def test_what_hides_copies_hides_nothing(vault: Vault, tmp_path: Path) -> None:
    for number, item in enumerate(vault.kept()):
        if item["Key"].endswith("volt.json"):
            continue
        if number % 3:
            vault.client.put_object(Bucket="locked", Key=item["Key"], Body=b"rubbish")
        if number % 3 != 1:
            vault.client.delete_object(Bucket="locked", Key=item["Key"])
    vault.is_right(tmp_path)
    vault.bench.files(more=b"more\n")
    vault.bench.create()
    ((_sidecar, pushed),) = vault.remote().push(Which())
    assert pushed is not None and pushed.sent_bytes < 1 << 20, "what is hidden is not sent again"


def test_lock_and_bucket_must_fit(vault: Vault, server: s3_servers.Server, bench: Any) -> None:
    plain = f"s3://plain/{vault.prefix}?endpoint={server.endpoint}"
    with pytest.raises(RemoteError, match="no object lock"):
        vault.remote(url=plain).begin()
    with pytest.raises(RemoteError, match="made with a lock"):
        vault.remote(lock=None).push(Which())
    vault.remote(url=plain, lock=None).begin()
    for call in (lambda: vault.remote(url=plain).push(Which()), lambda: vault.remote(url=plain).begin()):
        with pytest.raises(RemoteError, match="made without a lock"):
            call()
    for days in (0, 367):
        with pytest.raises(UsageError, match="1d to 366d"):
            vault.remote(lock=days)
    with pytest.raises(UsageError, match="only for S3"):
        vault.remote(url="file:///srv/nas", credentials=None)


def test_a_host_needs_no_more_than_its_policy(vault: Vault, server: s3_servers.Server) -> None:
    if "small" not in server.keys:
        return  # moto asks for no rights
    wanted = policy.of_host(s3_client.parse_url(vault.settings.url), "web2", lock=1)
    for statement in wanted["Statement"]:
        statement["Principal"] = {"AWS": ["arn:aws:iam:::user/small"]}
    vault.client.put_bucket_policy(Bucket="locked", Policy=json.dumps(wanted))
    host = vault.remote(host="web2", credentials=server.keys["small"])
    done = host.push(Which([backup["id"] for backup in vault.bench.found()]))
    assert len(done) == 2


def test_a_name_that_was_taken_and_hidden_is_not_created(vault: Vault) -> None:
    """To the server, an object behind the marker of a deletion is none. The oldest version would be what others wrote."""
    remote = vault.remote().transport
    remote.oldest = True
    name = "commits/web1/20260101T000000Z-0123456789abcdef"
    vault.client.put_object(Bucket="locked", Key=f"{vault.prefix}/{name}", Body=b"rubbish")
    vault.client.delete_object(Bucket="locked", Key=f"{vault.prefix}/{name}")
    assert not remote.create(name, b"a commit") and remote.get(name) == b"rubbish"
    assert remote.create(f"{name[:-1]}0", b"a commit") and remote.get(f"{name[:-1]}0") == b"a commit"
