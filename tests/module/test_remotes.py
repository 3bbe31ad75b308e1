# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies on a remote, by the modules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._remote import about, declared
from ansible_collections.volt.backup.plugins.module_utils._remote.directory import Directory
from ansible_collections.volt.backup.plugins.module_utils._remote.keys import Keys
from ansible_collections.volt.backup.plugins.module_utils._schedule import job

from .conftest import Host


@pytest.fixture(autouse=True)
def remotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where remotes are declared."""
    monkeypatch.setattr(declared, "DIRECTORY", str(tmp_path / "remotes"))
    return tmp_path / "remotes"


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    top = tmp_path / "nas"
    top.mkdir()
    about.begin(Directory(str(top)), Keys())
    return top


def commits(nas: Path) -> list[Path]:
    return sorted(path for path in (nas / "commits").rglob("*") if path.is_file())


def test_a_backup_is_copied(host: Host, nas: Path) -> None:
    host.furnish()
    options = {"remote": f"file://{nas}", "push_to_cdn": True}
    foreseen = host.back_up(check=True, **options)
    assert foreseen["changed"] and [copy["id"] for copy in foreseen["pushed"]] == [None] and commits(nas) == []
    made = host.back_up(**options)
    backup, (pushed,) = made["backup"], made["pushed"]
    assert made["changed"] and pushed["id"] == backup["id"] and pushed["changed"] and pushed["sent_bytes"] > 0
    assert backup["pushed_to_cdn"] and [copy["push"] for copy in backup["copies"]] == [pushed["push"]] and len(commits(nas)) == 1
    assert json.loads((host.backups / f"{backup['id']}.json").read_text()) == backup
    for check in (True, False):
        again = host.back_up(check=check, only_if_changed=True, **options)
        assert not again["changed"] and again["pushed"] == [] and again["backup"]["pushed_to_cdn"]
    (listed,) = host.run("volt_backup_info", remote=f"file://{nas}")["backups"]
    assert listed["id"] == f"{pushed['push'].partition('/')[0]}/{backup['id']}" and listed["pushed_to_cdn"]
    for asked in (backup["id"], listed["id"]):
        found = host.run("volt_backup_info", remote=f"file://{nas}", id=asked)
        assert [item["id"] for item in found["backups"]] == [listed["id"]] and found["answer"] == "backups"
    assert host.run("volt_backup_info", remote=f"file://{nas}", workload="other")["answer"] == "nothing"
    searched = host.run("volt_backup_info", remote=f"file://{nas}", include=["search"], search={"pattern": "app.conf"})["search"]
    assert [(row["path"], row["last_id"]) for row in searched["matches"]] == [("conf/app.conf", listed["id"])]


def test_a_copy_is_proved(host: Host, nas: Path) -> None:
    host.furnish()
    where = f"file://{nas}"
    made = host.back_up(remote=where, push_to_cdn=True)
    scratch = str(host.top / "drill")
    for check in (True, False):
        (drill,) = host.run("volt_restore_drill", check, scratch_dir=scratch, remote=where)["drills"]
        assert (drill["remote"], drill["reason"], drill["backup_id"]) == (where, None, made["backup"]["id"])
    next(path for path in (nas / "packs").rglob("*") if path.is_file()).unlink()
    failed = host.run("volt_restore_drill", scratch_dir=scratch, remote=where)
    assert failed["code"] == "drill" and failed["drills"][0]["reason"] in failed["msg"]
    assert host.run("volt_restore_drill", scratch_dir=scratch)["drills"][0]["remote"] is None
    assert host.run("volt_restore_drill", scratch_dir=scratch, host="web1")["code"] == "usage"


def test_a_copy_that_failed_is_made_by_the_next_run(host: Host, nas: Path) -> None:
    """The local backup stands, and is pruned by, whatever the remote does."""
    host.furnish()
    options = {"remote": f"file://{nas}", "push_to_cdn": True, "keep": {"last": 2}}
    nas.rename(nas.with_name("away"))
    failed = [host.run("volt_backup", workload="app", source=str(host.tree), **options) for _time in range(3)]
    assert all(result["code"] == "no_remote" and "was made" in result["msg"] and result["backup"]["id"] for result in failed)
    assert [len(result["pruned"]["removed"]) for result in failed] == [0, 0, 1]
    assert "never copied" in str(failed[2]["warnings"])
    nas.with_name("away").rename(nas)
    made = host.back_up(**{**options, "keep": {"last": 9}})
    assert [copy["changed"] for copy in made["pushed"]] == [True] * 3 and made["pushed"][-1]["id"] == made["backup"]["id"]
    assert len(commits(nas)) == 3
    assert all(backup["pushed_to_cdn"] for backup in host.run("volt_backup_info")["backups"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"push_to_cdn": True}, "needs remote"),
        ({"remote": "file:///x"}, "no effect"),
        ({"push_to_cdn": True, "remote": "file://x"}, "is invalid"),
        ({"push_to_cdn": True, "remote": "https://user:geheim@example.org/"}, "contains credentials"),
    ],
)
def test_wrong_options_make_no_backup(host: Host, options: dict[str, object], words: str) -> None:
    host.furnish()
    failed = host.run("volt_backup", workload="app", source=str(host.tree), **options)
    assert failed["code"] == "usage" and words in failed["msg"] and "geheim" not in failed["msg"]
    assert not host.backups.exists() or host.run("volt_backup_info")["count"] == 0


def test_what_a_remote_lost_is_a_warning(host: Host, nas: Path) -> None:
    host.furnish()
    for _time in range(3):
        host.back_up(remote=f"file://{nas}", push_to_cdn=True)
    commits(nas)[1].unlink()
    found = host.run("volt_backup_info", remote=f"file://{nas}")
    assert found["count"] == 2 and "Commit 2 of host" in str(found["warnings"])


def test_a_remote_is_declared_and_used_by_its_name(host: Host, remotes: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    options = {"name": "disk", "url": f"file://{tmp_path}/disk", "init": True, "host_name": "web1", "jobs": 2, "bandwidth": "50M"}
    foreseen, made, again = host.twice("volt_remote", **options)
    assert foreseen["changed"] and made["changed"] and not again["changed"] and foreseen["diff"] == made["diff"]
    assert foreseen["id"] is None and made["id"] == again["id"] and made["commit"] == "exclusive"
    assert made["abilities"] == {"commit": "exclusive", "checks_upload": False, "ranges": True} and again["abilities"] is None
    assert (remotes / "disk.json").stat().st_mode & 0o777 == 0o600 and made["path"] == str(remotes / "disk.json")
    host.furnish()
    copied = host.back_up(remote="disk", push_to_cdn=True)
    assert copied["pushed"][0]["push"].startswith("web1/")
    assert host.run("volt_backup_info", remote="disk")["count"] == 1
    foreseen, gone, again = host.twice("volt_remote", name="disk", state="absent")
    assert foreseen["changed"] and gone["changed"] and not again["changed"] and list(remotes.iterdir()) == []
    failed = host.back_up(remote="disk", push_to_cdn=True)
    assert failed["code"] == "not_found" and "volt_remote" in failed["msg"]


def test_no_other_remote_takes_the_place_of_a_declared_one(host: Host, remotes: Path, tmp_path: Path) -> None:
    """A file system is not mounted: what is there is an empty directory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = {"name": "disk", "url": f"file://{disk}", "init": True}
    made = host.run("volt_remote", **options)
    assert json.loads((remotes / "disk.json").read_text())["id"] == made["id"] and host.run("volt_remote", **{**options, "init": False, "jobs": 2})["changed"]
    disk.rename(tmp_path / "away")
    assert host.run("volt_remote", **{**options, "url": f"file://{disk}/"})["failed"]
    disk.mkdir()
    for check in (True, False):
        assert host.run("volt_remote", check=check, **options)["code"] == "no_remote" and list(disk.iterdir()) == []
    host.furnish()
    failed = host.back_up(remote="disk", push_to_cdn=True)
    assert failed["code"] == "no_remote" and failed["changed"]
    about.begin(Directory(str(disk)), Keys())
    assert "not the remote that was declared" in host.back_up(remote="disk", push_to_cdn=True)["msg"]
    assert "not the remote that was declared" in host.run("volt_backup_info", remote="disk")["msg"]
    host.run("volt_remote", name="disk", state="absent")
    assert host.run("volt_remote", **options)["id"] != made["id"] and not host.back_up(remote="disk", push_to_cdn=True).get("failed")


def test_a_copy_that_the_remote_lost_is_made_again(host: Host, nas: Path) -> None:
    host.furnish()
    first = host.back_up(remote=f"file://{nas}", push_to_cdn=True)["pushed"][0]
    commits(nas)[0].unlink()
    for path in (host.store / "cache").glob("remote-*.looked-*"):
        path.unlink()
    made = host.back_up(remote=f"file://{nas}", push_to_cdn=True)
    assert [copy["lost"] for copy in made["pushed"]] == [first["push"], None] and "has lost 1 copies" in str(made["warnings"])


def test_secrets_of_a_remote_are_in_its_file_alone(host: Host, remotes: Path) -> None:
    options = {"name": "bucket", "url": "s3://backups/web?endpoint=http://127.0.0.1:9", "credentials": {"access_key": "AKIAX", "secret_key": "geheim/geheim"}}
    made = host.run("volt_remote", **options)
    assert "geheim" in (remotes / "bucket.json").read_text() and "geheim" not in str(made) and "AKIAX" not in str(made)
    assert made["changed"] and not host.run("volt_remote", **options)["changed"]


def test_the_rights_that_a_host_needs_are_printed(host: Host, remotes: Path) -> None:
    options = {"name": "bucket", "url": "s3://backups/web?endpoint=http://127.0.0.1:9", "credentials": {"access_key": "AKIAX", "secret_key": "geheim/geheim"}}
    assert host.run("volt_remote", **options)["policy"] is None, "the host has no name yet"
    found = host.run("volt_remote", host_name="web1", **options)["policy"]
    assert "arn:aws:s3:::backups/web/commits/web1/*" in str(found)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "../x", "url": "file:///x"}, {"name": "x", "url": "file://x"}, {"name": "x", "url": "s3://b?endpoint=ftp://x"}, {"name": "x"},
        {"name": "x", "url": "file:///x", "jobs": 0}, {"name": "x", "url": "file:///x", "bandwidth": "fast"},
        {"name": "x", "url": "file:///x", "host_name": "a/b"}, {"name": "x", "url": "s3://key:geheim@bucket/x"},
    ],
)  # fmt: skip
def test_wrong_declarations(host: Host, remotes: Path, options: dict[str, object]) -> None:
    failed = host.run("volt_remote", **options)
    assert failed["failed"] and "geheim" not in failed["msg"] and not remotes.exists()


def test_a_remote_that_a_schedule_uses_stays(host: Host, scheduling: None, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run("volt_remote", name="nas", url="file:///mnt/nas")
    assert host.declare(workload="app", source=str(host.tree), interval="1d", remote="nas", push_to_cdn=True)["changed"]
    monkeypatch.setattr(job, "DIRECTORY", str(host.top / "jobs"))
    for function in (job.declared, job.load):
        monkeypatch.setattr(function, "__defaults__", (str(host.top / "jobs"),))
    failed = host.run("volt_remote", name="nas", state="absent")
    assert failed["code"] == "usage" and "app" in failed["msg"]
    assert host.declare(workload="db", source=str(host.tree), interval="1d", remote="gone", push_to_cdn=True)["code"] == "not_found"


@pytest.mark.parametrize("credentials", [{"access_key": "AKIAX"}, {"secret_key": "geheim"}, {"access_key": "A", "secret_key": "geheim\n"}])
def test_credentials_that_can_never_work_are_not_declared(host: Host, remotes: Path, credentials: dict[str, str]) -> None:
    for url in ("s3://backups/web", "file:///mnt/nas"):
        failed = host.run("volt_remote", name="x", url=url, credentials=credentials)
        assert failed["code"] == "usage" and "geheim" not in failed["msg"] and not remotes.exists()
