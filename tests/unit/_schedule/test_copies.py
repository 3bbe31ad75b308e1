# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules that copy their backups to a remote: what is declared, and what a run does."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import NoRemote, StoreFull, UsageError
from ansible_collections.volt.backup.plugins.module_utils._remote import about, remote
from ansible_collections.volt.backup.plugins.module_utils._remote.directory import Directory
from ansible_collections.volt.backup.plugins.module_utils._remote.keys import Keys
from ansible_collections.volt.backup.plugins.module_utils._runner import scheduled
from ansible_collections.volt.backup.plugins.module_utils._schedule import job as jobs, metrics, run, status, units

from .host import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    top = tmp_path / "nas of all hosts"
    top.mkdir()
    about.begin(Directory(str(top)), Keys())
    return top


def copying(host: Host, nas: Path, **more: Any) -> jobs.Job:
    return host.job(remote=nas.as_uri(), push_to_cdn=True, **more)


def test_a_run_copies_what_has_no_copy(host: Host, nas: Path) -> None:
    (host.source / "file").write_text("content")
    job = copying(host, nas)
    first = run._back_up(host.job())
    assert first.value["pushed"] == [] and "pushed=" not in first.line
    second = run._back_up(job)
    assert second.failure is None and "pushed=2" in second.line
    assert [copy["id"] for copy in second.value["pushed"]] == [first.value["backup"]["id"], second.value["backup"]["id"]]
    assert all(backup["pushed_to_cdn"] for backup in job.manager.find(Query()))


def test_it_is_told_how_old_the_newest_copy_is(host: Host, nas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status.systemd, "running", lambda: False)
    (host.source / "file").write_text("content")
    job = copying(host, nas)
    host.declare(job)
    copied = run._back_up(job).value["backup"]
    nas.rename(nas.with_name("away"))
    later = run._back_up(job).value["backup"]
    found = host.survey(believe=False)
    for row in (*found.schedules, *found.workloads):
        assert (row["newest_id"], row["copied_id"], row["copied_at"]) == (later["id"], copied["id"], copied["created_at"]) and 0 <= row["copied_age"] < 60
    text = metrics.text(found, host.places.records)
    assert f'volt_backup_copied_timestamp_seconds{{workload="app"}} {found.workloads[0]["copied_timestamp"]}' in text
    assert "COPIED" in scheduled._told(found.value())


def test_a_backup_stands_whatever_the_remote_does(host: Host, nas: Path) -> None:
    (host.source / "file").write_text("content")
    job = copying(host, nas, max_keep=2)
    nas.rename(nas.with_name("away"))
    ran = [run._back_up(job) for _time in range(3)]
    assert all(isinstance(one.failure, NoRemote) and "was made, but not all copies were" in one.failure.message for one in ran)
    assert [one.value["pruned"] for one in ran] == [0, 0, 1] and len(job.manager.find(Query())) == 2
    nas.with_name("away").rename(nas)
    made_up = run._back_up(job)
    assert made_up.failure is None and len(made_up.value["pushed"]) == 2, "two were kept when this one was copied"


def test_the_unit_may_write_to_the_remote_and_does_not_need_it(host: Host, nas: Path) -> None:
    text = units.service(copying(host, nas), "/usr/bin/python3", "/usr/local/bin/volt-backup", "/var/lib/volt/state")
    (writes,) = [line for line in text.splitlines() if line.startswith("ReadWritePaths=")]
    assert units.word(f"-{nas}", variables=False) in writes
    assert str(nas) not in "".join(line for line in text.splitlines() if line.startswith("RequiresMountsFor="))
    assert jobs.parse(copying(host, nas).text(), "job") == copying(host, nas)


@pytest.mark.parametrize(
    "options", [{"push_to_cdn": True}, {"remote": "file:///x"}, {"push_to_cdn": True, "remote": "file://x"}, {"push_to_cdn": True, "remote": "oci://x/y"}]
)
def test_wrong_remotes_are_not_declared(host: Host, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        host.job(**options)


def test_what_goes_wrong_with_a_copy_is_told_as_that(host: Host, nas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as if there were no backup, and beside what is wrong with the backup itself."""
    (host.source / "file").write_text("content")

    def fails(*_arguments: Any, **_named: Any) -> None:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(remote.Remote, "push", fails)
    ran = run._back_up(copying(host, nas))
    assert ran.failure is not None and "was made, but not all copies were" in ran.failure.message

    def full(*_arguments: Any) -> None:
        raise StoreFull("The store is full.")

    monkeypatch.setattr(run.Manager, "prune", full)
    ran = run._back_up(copying(host, nas, max_keep=1))
    assert isinstance(ran.failure, StoreFull) and "could not be pruned" in ran.failure.message and "not all copies were" in ran.failure.message
