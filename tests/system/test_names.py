# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people type on the command line: a beginning of an id, a workload, `latest`; paths with and without the source in front."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import create
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._base import now
from ansible_collections.volt.backup.plugins.module_utils._runner import cli, upkeep

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(bench: Any, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command: its exit status, and all that it printed."""

    def call(*words: str) -> tuple[int, str]:
        status = cli.main([*words, "--store", str(bench.store), "--backup-dir", str(bench.backups)])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return call


@pytest.fixture
def ids(bench: Any) -> list[str]:
    """Backups of workload `app`, oldest first, and one of `app-2`."""
    made = []
    for number in range(3):
        bench.files(a=str(number).encode(), conf__b=b"b", conf__c=b"c")
        made.append(bench.manager.create(CreateRequest("app", str(bench.source))).backup["id"])
    return [*made, bench.manager.create(CreateRequest("app-2", str(bench.source))).backup["id"]]


def test_a_workload_without_backups_is_no_other_workload(run: Run, bench: Any) -> None:
    """`delete app` and `restore app` do not mean the backup of app-db, even if no other id starts with app."""
    bench.files(a=b"a")
    made = bench.manager.create(CreateRequest("app-db", str(bench.source))).backup["id"]
    for words in (["delete"], ["protect"], ["accept"], ["show"], ["verify", "--id"], ["diff"], ["restore", "--target", str(bench.target)]):
        status, said = run(*words, "app")
        assert status == upkeep.UNKNOWN and "app" in said, (words, said)
    assert [backup["id"] for backup in bench.found()] == [made] and not bench.target.exists()
    assert run("show", "app-db-2")[0] == run("show", "app-d")[0] == run("show", "ap")[0] == upkeep.DONE


def test_a_beginning_of_an_id_is_enough(run: Run, ids: list[str], bench: Any) -> None:
    """Everywhere an id is taken. One of several is refused with their names, and nothing is done."""
    first, short = ids[0], ids[3][: len("app-2-") + 2]
    for words in (["show"], ["protect", "--dry-run"], ["unprotect", "--dry-run"], ["delete", "--dry-run"], ["verify", "--id"],
                  ["restore", "--dry-run", "--target", str(bench.target)], ["diff", first]):  # fmt: skip
        status, said = run(*words, short)
        assert status == upkeep.DONE, (words, said)
        status, said = run(*words, "app-2")
        if words[0] not in ("restore", "diff"):  # for which that is the workload
            assert status == upkeep.USAGE, (words, said)
            assert all(name in said for name in ids) and "matches 4 backups" in said, said
        status, said = run(*words, "app-19")
        assert status == upkeep.UNKNOWN and "no backup" in said and "app-19" in said, (words, said)
        assert run(*words, first)[0] == upkeep.DONE, "a whole id is that one, although others begin with it"
    assert json.loads(run("show", short, "--json")[1])["backups"][0]["id"] == ids[3]
    assert run("delete", short)[1] == f"Deleted {ids[3]}.\n" and len(bench.found()) == 3


def test_a_whole_id_means_itself(run: Run, bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backups of one second have numbers behind the same id."""
    bench.files(a=b"a")
    moment = now()
    monkeypatch.setattr(create, "now", lambda: moment)
    made = [bench.create().backup["id"] for _number in range(2)]
    assert made[1] == f"{made[0]}-2"
    assert run("delete", made[0])[0] == upkeep.DONE and run("delete", made[0])[0] == upkeep.UNKNOWN
    assert run("restore", made[0], "--target", str(bench.target))[0] == upkeep.UNKNOWN
    assert [found["id"] for found in bench.found()] == [made[1]]


def test_a_workload_means_its_newest(run: Run, ids: list[str], bench: Any) -> None:
    def restored(*words: str) -> Any:
        shutil.rmtree(bench.target, ignore_errors=True)
        status, said = run("restore", *words, "--target", str(bench.target), "--json")
        assert status == upkeep.DONE, said
        return json.loads(said)["restore"]["backup_id"]

    assert restored("app") == ids[2] and restored("app-2") == ids[3] and restored(ids[0]) == ids[0]
    status, said = run("restore", "latest", "--target", str(bench.target))
    assert status == upkeep.USAGE and "app, app-2" in said
    status, said = run("restore", "ap-p", "--target", str(bench.target))
    assert status == upkeep.UNKNOWN and "There is no backup or workload ap-p" in said
    run("delete", ids[3])
    assert restored("latest") == ids[2]
    for name in ids[:3]:
        run("delete", name)
    assert run("restore", "latest", "--target", str(bench.target))[0] in (upkeep.UNKNOWN, upkeep.NO_STORE)


def test_a_damaged_newest_is_skipped(run: Run, ids: list[str], bench: Any) -> None:
    (bench.backups / f"{ids[2]}.json").write_text("damaged")
    status, said = run("restore", "app", "--target", str(bench.target), "--json")
    result = json.loads(said)
    assert status == upkeep.DONE and result["restore"]["backup_id"] == ids[1] and result["passed_over"][0]["id"] == ids[2]


@pytest.mark.parametrize("spell", ["conf", "/conf", "conf/", "./conf", "{source}/conf", "{bare}/conf/", "{source}//./conf"])
def test_a_path_may_have_the_source_in_front(run: Run, ids: list[str], bench: Any, spell: str) -> None:
    path = spell.format(source=bench.source, bare=str(bench.source).lstrip("/"))
    status, said = run("restore", ids[0], "--target", str(bench.target), "--path", path)
    assert status == upkeep.DONE, said
    assert sorted(str(one.relative_to(bench.target)) for one in bench.target.rglob("*")) == ["conf", "conf/b", "conf/c"]


@pytest.mark.parametrize("spell", ["{source}/none", "{source}/../x", "..", "{source}x/conf", "none", ""])
def test_invalid_paths(run: Run, ids: list[str], bench: Any, spell: str) -> None:
    status, said = run("restore", ids[0], "--target", str(bench.target), "--path", spell.format(source=bench.source))
    assert status == upkeep.USAGE and not list(bench.target.parent.glob("target/*")), said


def test_what_the_backup_has_counts_before_the_source_in_front(run: Run, bench: Any) -> None:
    inner = f"{str(bench.source).lstrip('/')}/conf"
    bench.files(conf__b=b"b")
    deep = bench.source / inner / "deep"
    deep.parent.mkdir(parents=True)
    deep.write_bytes(b"deep")
    made = bench.create().backup["id"]
    assert run("restore", made, "--target", str(bench.target), "--path", f"/{inner}")[0] == upkeep.DONE
    assert (bench.target / inner / "deep").exists() and not (bench.target / "conf").exists()


def test_the_source_itself_is_everything(run: Run, ids: list[str], bench: Any) -> None:
    assert run("restore", ids[0], "--target", str(bench.target), "--path", str(bench.source))[0] == upkeep.DONE
    assert (bench.target / "a").read_bytes() == b"0" and (bench.target / "conf/b").exists()


def test_bytes_that_are_no_text(run: Run, bench: Any) -> None:
    bench.source.mkdir(exist_ok=True)
    Path(f"{bench.source}/caf\udce9").write_bytes(b"x")
    made = bench.create().backup["id"]
    for spell in ("caf\udce9", f"{bench.source}/caf\udce9", r"caf\xe9"):
        shutil.rmtree(bench.target, ignore_errors=True)
        status, said = run("restore", made, "--target", str(bench.target), "--path", spell)
        assert status == upkeep.DONE and len(list(bench.target.iterdir())) == 1, (spell, said)


def test_a_dry_run_lists_paths(run: Run, ids: list[str], bench: Any) -> None:
    run("restore", ids[0], "--target", str(bench.target))
    (bench.target / "a").write_bytes(b"other")
    (bench.target / "conf/b").unlink()
    (bench.target / "more").touch()
    before = bench.snapshot()
    status, said = run("restore", ids[0], "--target", str(bench.target), "--force", "--delete", "--strategy", "in_place", "--dry-run")
    assert status == upkeep.DONE and said.endswith("\n\n+conf/b\n~.\n~a\n~conf\n-more\n"), said
    limited = run("restore", ids[0], "--target", str(bench.target), "--force", "--delete", "--dry-run", "--diff-limit", "1")[1]
    assert "more" in limited.splitlines()[-1] and "..." in limited
    bench.files(new=b"new")
    said = run("create", "app", "--source", str(bench.source), "--dry-run")[1]
    assert "+new" in said.splitlines()
    assert set(before) <= set(bench.snapshot()) and "+new" not in run("create", "app", "--source", str(bench.source))[1]
