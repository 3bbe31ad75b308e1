# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `find` and `history` tell of many backups."""

from __future__ import annotations

import os
import re
import shutil
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._format import tree
from ansible_collections.volt.backup.plugins.module_utils._runner import upkeep

from .test_look import ODD, SHOWN, Run, run

__all__ = ["run"]


def made(bench: Any, **options: Any) -> str:
    return str(bench.create(**options).backup["id"])


@pytest.fixture
def four(bench: Any) -> list[str]:
    """Four backups, oldest first: conf/app is there, changed, gone, and there again."""
    bench.files(conf__app=b"one\n", conf__db=b"db\n", data__app=b"other\n", data__deep__er__app__x=b"x")
    (bench.source / os.fsdecode(ODD)).write_bytes(b"odd")
    ids = [made(bench, compression="none")]
    (bench.source / "conf/app").write_bytes(b"second\n")
    ids.append(made(bench))
    kept = (bench.source / "conf/app").stat()
    (bench.source / "conf/app").unlink()
    ids.append(made(bench))
    (bench.source / "conf/app").write_bytes(b"second\n")
    os.utime(bench.source / "conf/app", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    (bench.source / "conf/app").chmod(0o600)
    return [*ids, made(bench)]


def rows(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(row["path"], row["size"], row["count"], row["first_id"], row["last_id"]) for row in found["matches"]]


def test_find_groups_the_backups_of_a_version(bench: Any, run: Run, four: list[str]) -> None:
    one, two, _three, last = four
    found = run.json("find", "app")
    assert rows(found) == [("conf/app", 7, 2, two, last), ("conf/app", 4, 1, one, one), ("data/app", 6, 4, one, last), ("data/deep/er/app", 0, 4, one, last)]
    assert (found["count"], found["more"], found["searched"], found["not_searched"]) == (4, 0, 4, [])
    assert [row["type"] for row in found["matches"]] == ["file"] * 3 + ["directory"] and found["matches"][0]["workload_name"] == "work"
    text = run("find", "app")[1].decode().splitlines()
    assert text[0].split() == "SIZE MODIFIED (UTC) BACKUPS FIRST BACKUP (UTC) NEWEST BACKUP PATH".split() and len(text) == 5
    assert text[1].endswith(f"{last}  conf/app")


def test_patterns_are_those_of_exclusions(bench: Any, run: Run, four: list[str]) -> None:
    everything = {"conf", "conf/app", "conf/db", "data", "data/app", "data/deep", "data/deep/er", "data/deep/er/app", "data/deep/er/app/x"}
    odd = SHOWN.replace("\\x0a", "\n").replace("\\x1b", "\x1b")
    wanted: dict[str, set[str]] = {
        "*": {*everything, odd}, "app/": {"data/deep/er/app"}, "conf/*": {"conf/app", "conf/db"}, "/app": set(), "/conf": {"conf"},
        "**/app": {"conf/app", "data/app", "data/deep/er/app"}, "data/**/x": {"data/deep/er/app/x"}, "[cd]*": {"conf", "conf/db", "data", "data/deep"},
        f"{bench.source}/conf/app": {"conf/app"}, f"{bench.source}/*/app": {"conf/app", "data/app"}, "a\\xff*": {odd}, SHOWN.replace("[", "\\["): {odd},
        "*/deep/er": {"data/deep/er"}, "deep/er": set(),
    }  # fmt: skip
    for pattern, paths in wanted.items():
        assert {row["path"] for row in run.json("find", pattern)["matches"]} == paths, pattern
    for pattern in ("!app", "#app", "", "[a", "/", "a\nb"):
        assert run("find", pattern)[0] == upkeep.USAGE, pattern
    assert run("find", "none") == (upkeep.DONE, b"Nothing found in 4 backups.\n", "")
    assert run.json("find", "*", "--diff-limit", "3")["count"] == run.json("find", "*")["count"] == len(run.json("find", "*")["matches"])
    assert run("find", "*", "--diff-limit", "0")[1] == b"... and 11 more (--diff-limit)\n"
    assert run("find", "*", "--diff-limit", "3")[1].endswith(b"... and 8 more (--diff-limit)\n")


def test_which_backups_are_searched(bench: Any, run: Run, four: list[str]) -> None:
    made_at = [backup["created_at"] for backup in reversed(bench.found())]
    assert rows(run.json("find", "conf/app", "--until", made_at[0])) == [("conf/app", 4, 1, four[0], four[0])]
    assert rows(run.json("find", "conf/app", "--since", made_at[3])) == [("conf/app", 7, 1, four[3], four[3])]
    assert run.json("find", "app", "--workload", "work")["count"] == 4
    assert run("find", "app", "--workload", "other")[0] == run("history", "app", "--workload", "other")[0] == upkeep.UNKNOWN
    assert run("find", "app", "--since", "never")[0] == upkeep.USAGE


def test_a_shared_tree_is_read_once(bench: Any, run: Run, four: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    real = tree.pick

    def pick(blob: bytes, names: re.Pattern[bytes]) -> tree.Picked:
        read.append(blob)
        return real(blob, names)

    monkeypatch.setattr(tree, "pick", pick)
    assert run.json("find", "x")["count"] == 1
    assert len(read) == len(set(read)) == 4 + 4 + 4, "four roots, four of conf, and data with what is below it once"
    read.clear()
    assert run.json("find", "/conf/app")["count"] == 2
    assert len(read) == 4 + 4, "a pattern of a path reads no directory beside it"


def test_a_directory_in_parts(bench: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that two backups share are read once; what is found is the same."""
    monkeypatch.setattr(tree, "_PART_SIZE", 500)
    bench.files(**{f"many__{number:03d}": b"%d" % number for number in range(60)})
    first = made(bench)
    bench.files(many__000=b"changed")
    second = made(bench)
    found = rows(run.json("find", "0*"))
    assert len(found) == 61 and found[:2] == [("many/000", 7, 1, second, second), ("many/000", 1, 1, first, first)]
    assert all(number == 2 for _path, _size, number, _first, _last in found[2:])
    assert [path for path, *_rest in rows(run.json("find", "many/05?"))] == [f"many/05{number}" for number in range(10)]


def test_history(bench: Any, run: Run, four: list[str]) -> None:
    one, two, three, last = four
    for path in ("conf/app", f"{bench.source}/conf/app", "./conf//app"):
        found = run.json("history", path)
        told = [(row["first_id"], row["last_id"], row["count"], row["present"], row["size"], row["changes"]) for row in found["history"]]
        assert told == [(last, last, 1, True, 7, ["new"]), (three, three, 1, False, None, ["gone"]), (two, two, 1, True, 7, ["content", "size", "mtime"]),
                        (one, one, 1, True, 4, [])], path  # fmt: skip
    assert [row["count"] for row in run.json("history", "data/app")["history"]] == [4]
    assert [row["mode"] for row in run.json("history", SHOWN)["history"]] == ["0644"]
    text = run("history", "conf/app")[1].decode().splitlines()
    assert len(text) == 5 and text[2].split() == [three, "1", "gone"] and text[3].endswith("content, size, mtime")
    assert run("history", "conf/none") == (upkeep.UNKNOWN, b"", "volt-backup: No backup has path conf/none; search for its name with a pattern.\n")
    assert run("history", "../conf")[0] == run("history", "")[0] == upkeep.USAGE
    (bench.source / "conf/app").unlink()
    (bench.source / "conf/app").mkdir()
    bench.create()
    assert run.json("history", "conf/app")["history"][0]["changes"] == ["type"]


def test_workloads_are_told_apart(bench: Any, run: Run, four: list[str]) -> None:
    """Their trees are the same, and what is found in them counts for each."""
    bench.manager.create(CreateRequest("other", str(bench.source)))
    found = run.json("find", "data/app")["matches"]
    assert sorted((row["workload_name"], row["count"]) for row in found) == [("other", 1), ("work", 4)]
    assert [row["workload_name"] for row in run.json("history", "data/app")["history"]] == ["other", "work"]


def test_damaged_backups_are_named_and_stop_nothing(bench: Any, run: Run, four: list[str]) -> None:
    one, two, three, last = four
    (bench.backups / f"{one}.json").write_bytes(b"{}")
    bench.manifest(two).write_bytes(b"{}")
    found = run.json("find", "data/app", status=upkeep.INCOMPLETE)
    assert rows(found) == [("data/app", 6, 2, three, last)] and found["searched"] == 2
    assert sorted(item["id"] for item in found["not_searched"]) == [one, two]
    status, _out, error = run("history", "conf/app")
    assert status == upkeep.INCOMPLETE and f"Backup {two} was not searched completely: Manifest" in error and error.count("\n") == 2
    assert run.json("history", "conf/none", status=upkeep.INCOMPLETE)["history"] == []


def test_a_directory_that_is_lost(bench: Any, run: Run, four: list[str]) -> None:
    """Its backups are named; what is beside it is found."""
    pack = next(path for path in (bench.store / "packs").glob("*/*") if b"VOLTTREE" in path.read_bytes() and b"deep" in path.read_bytes())
    pack.unlink()
    found = run.json("find", "app", status=upkeep.INCOMPLETE)
    assert rows(found) == [("conf/app", 7, 2, four[1], four[3])]
    reasons = {item["id"]: item["reason"].partition(" cannot be listed: Blob ")[0] for item in found["not_searched"]}
    assert reasons == {four[0]: "The source", **dict.fromkeys(four[1:], "data")}


def test_a_remote_is_searched_as_the_store_is(bench: Any, run: Run, four: list[str]) -> None:
    place = bench.top / "remote"
    place.mkdir()
    where = f"file://{place}"
    assert run("remote", "init", where)[0] == run("push", four[3], "--remote", where)[0] == run("push", "--all", "--remote", where)[0] == upkeep.DONE
    host = next((place / "commits").iterdir()).name
    wanted, history, listed = run.json("find", "app"), run.json("history", "conf/app"), run.json("ls", four[0], "--recursive")
    shutil.move(bench.store, bench.top / "away")
    for words in (["find", "app"], ["find", "app", "--host", host]):
        found = run.json(*words, "--remote", where)
        assert [(path, size, number, first.partition("/")[2], last.partition("/")[2]) for path, size, number, first, last in rows(found)] == rows(wanted)
        assert {row["host"] for row in found["matches"]} == {host} and found["searched"] == 4 and found["warnings"] == []
    found = run.json("history", "conf/app", "--remote", where)
    assert [(row["changes"], row["first_id"]) for row in found["history"]] == [(row["changes"], f"{host}/{row['first_id']}") for row in history["history"]]
    assert run.json("ls", f"{host}/{four[0]}", "--recursive", "--remote", where) == listed
    assert run("cat", "work", "conf/db", "--remote", where) == (upkeep.DONE, b"db\n", "")
    assert run("cat", "work", "conf/none", "--remote", where)[0] == run("history", "conf/none", "--remote", where)[0] == upkeep.UNKNOWN
    commit = sorted((place / "commits" / host).iterdir())[0]
    commit.write_bytes(commit.read_bytes()[:-1])
    found = run.json("find", "app", "--remote", where, status=upkeep.INCOMPLETE)
    assert found["searched"] == 3 and [item["id"] for item in found["not_searched"]] == [f"{host}/{commit.name}"]
