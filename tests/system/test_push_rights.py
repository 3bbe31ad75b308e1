# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy for the credentials of a host: a real S3 server allows all that a push asks for, and nothing that would harm another host or an older copy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest
from ansible_collections.volt.backup.plugins.module_utils._base import RemoteError, RemoteRefused
from ansible_collections.volt.backup.plugins.module_utils._remote import names, policy, s3, s3_client
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Meant, Remote, Settings, Which
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.tests.rigs import need, oracle, s3_servers
from ansible_collections.volt.backup.tests.unit.kit import noise

REMOTES = (Path(__file__).parents[2] / "docs/remotes.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_servers.Server]:
    with s3_servers.ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


def granted(server: s3_servers.Server, bucket: str, place: str, host: str, share: bool = False, without: str = "?") -> None:
    """The policy of a host, as one of the bucket for the user `small`; and the document's statement for who recovers hosts, which is `owner` here.

    :param without: what an older version did not grant.
    """
    wanted = policy.of_host(s3_client.parse_url(place), host, share)
    for statement in wanted["Statement"]:
        statement["Resource"] = [resource for resource in statement["Resource"] if without not in resource]
        statement["Principal"] = {"AWS": ["arn:aws:iam:::user/small"]}
    (recover,) = re.findall(r"```json\n(\{\n  \"Sid\": \"Recover\".*?)```", REMOTES, re.DOTALL)
    wanted["Statement"].append(json.loads(recover.replace("user/recovery", "user/owner").replace(":::backups", f":::{bucket}")))
    server.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(wanted))


def test_a_host_can_push_and_do_nothing_else(bench: Any, server: s3_servers.Server, tmp_path: Path) -> None:
    need("zstd")
    bench.files(small=b"hello\n", image=noise(2 << 20, 2))
    server.make_bucket("copies")
    place = f"s3://copies/web?endpoint={server.endpoint}"
    Remote(bench.manager, Settings(place, "web1", credentials=server.keys["owner"])).begin()
    granted(server, "copies", place, "web1")
    remote = Remote(bench.manager, Settings(place, "web1", credentials=server.keys["small"]))
    for _time in range(2):
        bench.create()
        ((_sidecar, pushed),) = remote.push(Which())
    ((_sidecar, first), (_other, second)) = remote.push(Which([backup["id"] for backup in bench.found()]))
    assert pushed.push is not None and (first, second) == (None, None)
    assert [found.host for found in remote.look()[1]] == ["web1"]
    recovering = Remote(bench.manager, Settings(place, credentials=server.keys["owner"]))
    assert len(recovering.find(Query())[0]) == 2, "what a host wrote is not the bucket owner's, who reads it all the same"

    other = Remote(bench.manager, Settings(place, "web2", credentials=server.keys["small"]))
    with pytest.raises(RemoteRefused):
        other.push(Which([bench.create().backup["id"]]))
    owner = s3.S3(s3_client.parse_url(place), server.keys["owner"])
    there = {entry.name: entry.size for entry in owner.list("")}
    assert not [name for name in there if "web2" in name]
    owner.put("packs/web2/x", b"secret")
    kept = [name for name in there if not name.startswith(("heads/", "intents/"))]
    for name in kept:
        with pytest.raises(RemoteRefused):
            remote.transport.delete([name])
    for refused in (
        lambda: remote.transport.put("volt.json", b"{}"),
        lambda: remote.transport.create("tombstones/0001", b"x"),
        lambda: remote.transport.create("vetted/20260101T000000Z-0000000000000000", b"x"),
        lambda: remote.transport.create("commits/web2/x", b"x"),
        lambda: remote.transport.get("packs/web2/x"),
    ):
        with pytest.raises(RemoteError):
            refused()
    assert {entry.name: entry.size for entry in owner.list("")} == {**there, "packs/web2/x": 6}


def test_a_host_that_shares_reads_what_others_have(bench: Any, server: s3_servers.Server, tmp_path: Path) -> None:
    need("zstd")
    bench.files(small=b"hello\n", image=noise(2 << 20, 2))
    server.make_bucket("shared")
    place = f"s3://shared/web?endpoint={server.endpoint}"
    first = Remote(bench.manager, Settings(place, "web1", credentials=server.keys["owner"]))
    first.begin()
    first.push(Which([bench.create().backup["id"]]))
    second = Remote(bench.manager, Settings(place, "web2", credentials=server.keys["small"], share="domain"))
    (bench.source / "small").write_bytes(b"changed\n")
    backup = bench.create().backup["id"]
    granted(server, "shared", place, "web2")
    with pytest.raises(RemoteRefused, match="share: host"):
        second.push(Which([backup]))
    granted(server, "shared", place, "web2", share=True)
    ((_sidecar, pushed),) = second.push(Which([backup]))
    assert pushed is not None and pushed.sent_bytes < 10_000
    second.restore(Meant(workload="work"), RestoreRequest(str(tmp_path / "back")), alone=True)
    assert oracle.differences(bench.source, tmp_path / "back") == []


def test_a_host_reads_which_packs_were_vetted(bench: Any, server: s3_servers.Server) -> None:
    need("zstd")
    bench.files(small=b"hello\n", image=noise(2 << 20, 2))
    server.make_bucket("wary")
    place = f"s3://wary/web?endpoint={server.endpoint}"
    first = Remote(bench.manager, Settings(place, "web1", credentials=server.keys["owner"]))
    first.begin()
    backup = bench.create().backup["id"]
    first.push(Which([backup]))
    granted(server, "wary", place, "web2", share=True)
    assert first.verify(VerifyRequest(vet=True)).vetted == {"packs": 2, "before": 0}
    second = Remote(bench.manager, Settings(place, "web2", credentials=server.keys["small"], share="domain", vetted=True))
    (bench.source / "small").write_bytes(b"changed\n")
    backup = bench.create().backup["id"]
    granted(server, "wary", place, "web2", share=True, without=names.VETTED)
    with pytest.raises(RemoteRefused, match="remote policy"):
        second.push(Which([backup]))
    granted(server, "wary", place, "web2", share=True)
    ((_sidecar, pushed),) = second.push(Which([backup]))
    assert pushed is not None and pushed.sent_bytes < 10_000
    (listed,) = first.transport.list(names.VETTED)
    before = first.transport.get(listed.name)
    for write in (second.transport.create, second.transport.put):
        for name in (listed.name, f"{names.VETTED}20990101T000000Z-0000000000000000"):
            with pytest.raises(RemoteError):
                write(name, b"x")
    assert [entry.name for entry in first.transport.list(names.VETTED)] == [listed.name] and first.transport.get(listed.name) == before


def test_on_aws_new_names_alone_can_be_written() -> None:
    """The condition that demands it is known there."""
    statements = {one["Sid"]: one for one in policy.of_host(s3_client.parse_url("s3://copies/web"), "web1")["Statement"]}
    assert statements["CreateOwn"]["Condition"] == {"Null": {"s3:if-none-match": "false"}}
    assert "arn:aws:s3:::copies/web/commits/web1/*" in statements["CreateOwn"]["Resource"] and "Condition" not in statements["ReplaceHead"]
    assert statements["EndIntent"]["Resource"] == ["arn:aws:s3:::copies/web/intents/web1/*"]


def test_on_aws_a_host_locks_for_no_longer_than_declared() -> None:
    statements = {one["Sid"]: one for one in policy.of_host(s3_client.parse_url("s3://copies/web"), "web1", lock=30)["Statement"]}
    assert statements["LockOwn"]["Action"] == "s3:PutObjectRetention"
    assert statements["LockOwn"]["Condition"] == {"NumericLessThanEquals": {"s3:object-lock-remaining-retention-days": "30"}}
    assert "LockOwn" not in {one["Sid"] for one in policy.of_host(s3_client.parse_url("s3://copies/web"), "web1")["Statement"]}
