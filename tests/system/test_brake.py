# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup that has lost far more than its history shows is suspect: it is kept, it is told, and it pushes nothing good out."""

from __future__ import annotations

import gzip
import json
import os
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup import brake, content as heads, retention
from ansible_collections.volt.backup.plugins.module_utils._backup.catalog import Catalog
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import errors
from ansible_collections.volt.backup.plugins.module_utils._restore.plan import RestoreRequest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.plugins.module_utils._schedule.drill import Driller
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.tests.rigs.sample import LONG
from hypothesis import HealthCheck, given, settings, strategies as st

from .conftest import Bench

FILES = 100
Damage = Callable[[Path, int], object]


def text(number: int) -> bytes:
    return b"".join(b"%d: a line of the file %d, as people write them\n" % (line, number) for line in range(20))


def noise(number: int, size: int = 900) -> bytes:
    return random.Random(number).randbytes(size)


@pytest.fixture
def work(bench: Bench) -> Bench:
    """A workload with two good backups."""
    for number in range(FILES):
        bench.files(**{f"d{number % 7}__f{number}.txt": text(number)})
    for _run in range(2):
        (bench.source / "d0" / "log").write_bytes(text(_run) * 3)
        assert not bench.create().backup["suspect"]
    return bench


def each(bench: Bench, damage: Damage, part: float = 1.0) -> None:
    """Do something to a part of the files."""
    paths = sorted(bench.source.rglob("f*.txt"))
    for number, path in enumerate(paths[: int(part * len(paths))]):
        damage(path, number)


def lock(path: Path, number: int) -> None:
    path.write_bytes(noise(number))


def lock_and_rename(path: Path, number: int) -> None:
    path.with_name(f"{path.name}.locked").write_bytes(noise(number))
    path.unlink()


def swap(path: Path, number: int) -> None:
    """Under a name that tells nothing."""
    path.with_name(f"{zlib.crc32(path.name.encode()):08x}").write_bytes(noise(number))
    path.unlink()


HOSTILE: dict[str, Damage] = {
    "under the same names": lock,
    "with an ending": lock_and_rename,
    "under other names": swap,
    "the first 4 KiB alone": lambda path, number: path.write_bytes(noise(number, 4096) + text(number) * 5),
    "behind a header": lambda path, number: path.write_bytes(b"Salted__" + noise(number)),
    "as hexadecimal digits": lambda path, number: path.write_text(noise(number).hex()),
    "by a name alone": lambda path, number: (path.with_name(f"{path.name}.enc").write_bytes(b"," * 500 + text(number + 1)), path.unlink()),
    "overwritten": lambda path, _number: path.write_bytes(bytes(path.stat().st_size)),
    "emptied": lambda path, _number: path.write_bytes(b""),
    "deleted": lambda path, _number: path.unlink(),
    "put into a locked archive": lambda path, number: path.write_bytes(b"PK\3\4\x14\0\1\0" + noise(number)),
}
BENIGN: dict[str, Damage] = {
    "edited": lambda path, number: path.write_bytes(text(number + 1)),
    "compressed": lambda path, number: (path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text(number))), path.unlink()),
    "renamed": lambda path, number: path.rename(path.with_name(f"n{number}")),
    "exchanged": lambda path, number: (path.with_name(f"build.{number:x}.js").write_bytes(text(number + 5)), path.unlink()),
    "touched": lambda path, _number: os.utime(path, (1, 1)),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_backup_with_losses_is_suspect(work: Bench, how: str) -> None:
    good = work.found()[0]["id"]
    each(work, HOSTILE[how], 0.7)
    foreseen = work.create(dry=True).backup
    backup = work.create().backup
    assert foreseen["suspect"] and foreseen["suspect_reason"] == backup["suspect_reason"], "a dry run says the same"
    assert backup["suspect"] and good in backup["suspect_reason"] and ("max_shrink: 50" in backup["suspect_reason"]) == (how in ("deleted", "emptied"))
    again = work.create()
    assert again.backup["suspect"], "each run that differs so"
    assert {item["id"]: item["reason"] for item in again.skipped} == {backup["id"]: f"It is suspect: {backup['suspect_reason']}."}
    done = work.manager.prune("work", {"last": 1})
    rules = {row["id"]: row["rule"] for row in done.kept}
    assert rules[good] == retention.HELD and rules[backup["id"]] == retention.FIRST_SUSPECT and not done.removed
    work.restore(good)
    assert (work.target / "d1" / "f1.txt").read_bytes() == text(1)


@pytest.mark.parametrize("how", BENIGN)
def test_normal_changes_are_not_suspect(work: Bench, how: str) -> None:
    each(work, BENIGN[how])
    backup = work.create().backup
    assert not backup["suspect"] and backup["suspect_reason"] is None and backup["lost_counts"][0] == 0


@pytest.mark.parametrize(("damage", "part"), [(lock, 0.02), (swap, 0.02), (lambda path, _number: path.unlink(), 0.05)])
def test_slow_loss_adds_up(work: Bench, damage: Damage, part: float) -> None:
    """No run by itself is beyond a limit, and retention keeps fewer backups than it takes to lose half."""
    for run in range(4):
        (work.source / "d0" / "log").write_bytes(text(run) * 4)
        work.create()
    runs = 0
    for _run in range(20):
        runs += 1
        each(work, damage, part)
        for path in sorted(work.source.rglob("f*.txt"))[: int(part * 100)] if damage is lock else ():
            path.rename(path.with_name(f"x{path.name}"))  # the next run takes others
        backup = work.create().backup
        if backup["suspect"]:
            break
        work.manager.prune("work", {"last": 7})
    assert backup["suspect"] and runs > 2
    assert work.manager.prune("work", {"last": 7}).removed == []


def test_small_workloads_and_settings(bench: Bench) -> None:
    for number in range(60):
        bench.files(**{f"f{number}.txt": text(number)})
    assert bench.create().backup["file_counts"] == []
    assert bench.create().backup["file_counts"] == [60, 60], "they are counted once there is something to compare"
    each(bench, lock)
    assert not bench.create(dry=True, max_churn=0).backup["suspect"] and bench.create(dry=True, max_churn=99).backup["suspect"]
    each(bench, lambda path, _number: path.unlink(), 0.8)
    assert not bench.create(dry=True, max_shrink=0, max_churn=0).backup["suspect"] and not bench.create(dry=True, max_shrink=80, max_churn=0).backup["suspect"]
    assert bench.create(dry=True, max_shrink=79, max_churn=0).backup["suspect"]
    for limits in ({"max_shrink": -1}, {"max_churn": 101}):
        with pytest.raises(errors.UsageError, match="percentage from 0"):
            bench.create(**limits)
    for path in sorted(bench.source.iterdir())[1:]:
        path.unlink()
    small = bench.create(max_shrink=0, max_churn=0).backup
    each(bench, lock)
    assert not small["suspect"] and not bench.create().backup["suspect"], "a few files are no measure"


def test_a_first_backup_that_is_empty_and_one_that_is_meant_to_be(work: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert work.create(source=other).backup["file_counts"] == []
    (other / "a").write_bytes(b"1")
    assert not work.create(source=other).backup["suspect"]
    each(work, lambda path, _number: path.unlink())
    (work.source / "d0" / "log").unlink()
    for path in work.source.iterdir():
        path.rmdir()
    assert not work.create(allow_empty=True).backup["suspect"]


def test_usual_changes_are_not_suspect(bench: Bench) -> None:
    """An application that seals what comes in: many of its files are replaced by what looks encrypted, in each run."""
    for number in range(60):
        bench.files(**{f"keep{number}": text(number)})
    alarms = 0
    for run in range(8):
        for number in range(9):
            bench.files(**{f"inbox__{run}-{number}": text(run * 100 + number)})
            sealed = bench.source / "inbox" / f"{run - 1}-{number}"
            if run:
                sealed.with_name(f"s{run}-{number}").write_bytes(noise(run * 100 + number))
                sealed.unlink()
        backup = bench.create().backup
        alarms += backup["suspect"]
        if backup["suspect"]:
            bench.manager.accept(backup["id"])
    assert alarms <= 3, "until three backups show it"


def test_a_run_that_fits_again_ends_the_hold(work: Bench) -> None:
    good = [found["id"] for found in work.found()]
    whole = {path: path.read_bytes() for path in work.source.rglob("f*.txt")}
    each(work, lock)
    suspect = [work.create().backup["id"] for _run in range(4)]
    kept = {row["id"]: row["rule"] for row in work.manager.prune("work", {"last": 1}).kept}
    assert kept == {suspect[3]: "last", suspect[0]: "first suspect", **dict.fromkeys(good, "older than a suspect backup")}, "suspect ones are thinned"
    for path, content in whole.items():
        path.write_bytes(content)
    fits = work.create().backup
    assert not fits["suspect"]
    assert next(found for found in work.found() if found["id"] == suspect[0])["suspect"], "only accept takes the mark away"
    assert [row["id"] for row in work.manager.prune("work", {"last": 1}).kept] == [fits["id"]]


def test_a_fitting_run_of_another_source_ends_nothing(work: Bench, tmp_path: Path) -> None:
    good = [found["id"] for found in work.found()]
    each(work, lock)
    work.create()
    other = tmp_path / "other"
    other.mkdir()
    (other / "a").write_bytes(b"1")
    for dry in (True, False):
        assert [text for text in work.create(dry, source=other).warnings if "2 backup(s) are kept regardless of retention" in text], "a green run says so"
    work.create(exclude=["*.log"], type="scheduled")
    assert set(good) <= {row["id"] for row in work.manager.prune("work", {"last": 1}).kept}
    assert set(good) <= {row["id"] for row in work.manager.prune("work", {"last": 1}, ["manual"]).kept}


def test_a_suspect_one_of_another_type_holds_as_well(work: Bench) -> None:
    good = [found["id"] for found in work.found()]
    each(work, lock)
    assert work.create(type="pre-deploy").backup["suspect"]
    assert [row["id"] for row in work.manager.prune("work", {"last": 1}, ["manual"]).kept] == good


# ---- what people say


def test_accept(work: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    sound = work.found()[0]["id"]
    each(work, lock)
    first, second = (work.create().backup["id"] for _run in range(2))
    assert not work.manager.accept(sound).changed, "a sound one"
    with pytest.raises(errors.NotFound):
        work.manager.accept("work-20200101-000000-manual")
    foreseen = work.manager.accept(second, dry=True)
    assert foreseen.changed and not foreseen.backup["suspect"] and next(found for found in work.found() if found["id"] == second)["suspect"]
    done = work.manager.accept(second)
    assert done.changed and not done.backup["suspect"] and done.backup["accepted_by"] and done.backup["accepted_at"] and done.backup["suspect_reason"]
    assert not work.manager.accept(second).changed
    assert not work.create().backup["suspect"], "what comes after is compared with it"
    kept = {row["id"] for row in work.manager.prune("work", {"last": 2}).kept}
    assert second in kept and not {sound, first} & kept


def test_acceptance_is_of_one_source(work: Bench, tmp_path: Path) -> None:
    """What was accepted of another source does not take this one's history away."""
    other = tmp_path / "other"
    other.mkdir()
    for number in range(60):
        (other / f"f{number}").write_bytes(text(number))
    work.create(source=other)
    for path in sorted(other.iterdir())[:50]:
        path.unlink()
    work.manager.accept(work.create(source=other).backup["id"])
    each(work, lock)
    assert work.create().backup["suspect"]


def test_accept_of_a_damaged_backup(work: Bench) -> None:
    each(work, lock)
    backup = work.create().backup
    manifest = work.manifest(backup["id"])
    manifest.rename(work.top / "away")
    with pytest.raises(errors.Damaged, match="cannot be used"):
        work.manager.accept(backup["id"])


def test_what_cannot_be_marked_says_what_to_do(work: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    each(work, lock)
    backup = work.create().backup["id"]
    record = work.backups / f"{backup}.json"
    value = json.loads(record.read_bytes())
    record.write_text(json.dumps({**value, "complete": False}))
    with pytest.raises(errors.UsageError, match="is incomplete and cannot be accepted; make a complete backup"):
        work.manager.accept(backup)
    record.write_bytes(b"{")
    for call in (work.manager.accept, work.manager.protect):
        with pytest.raises(errors.Damaged, match="record cannot be read .*; run volt_cas_verify with repair: true"):
            call(backup)
    record.write_text(json.dumps(value))

    def manifest_of_a_newer_version(*_arguments: object) -> None:
        raise errors.newer("The manifest")

    monkeypatch.setattr(Catalog, "manifest", manifest_of_a_newer_version)
    for call in (work.manager.accept, work.manager.protect):
        with pytest.raises(errors.Unsupported, match="newer version"):
            call(backup)


def test_nothing_deletes_a_protected_backup(work: Bench) -> None:
    old, new = (found["id"] for found in reversed(work.found()))
    assert work.manager.protect(old, dry=True).changed and work.manager.protect(old).changed and not work.manager.protect(old).changed
    assert work.found()[1]["protected"] and work.found()[1]["protected_by"]
    with pytest.raises(errors.Protected, match="state: unprotected and id: "):
        work.manager.delete(old)
    with pytest.raises(errors.Protected):
        work.manager.delete(old, dry=True)
    work.create()
    assert {row["id"]: row["rule"] for row in work.manager.prune("work", {"last": 1}).kept}[old] == retention.PROTECTED
    work.manager.collect("0s")
    work.manager.verify(_repair())
    work.restore(old)
    work.manifest(old).unlink()
    assert old in {row["id"] for row in work.manager.prune("work", {"last": 1}).kept}, "a damaged one as well"
    assert work.manager.protect(old, False).changed and not work.manager.protect(old, False).changed
    assert work.manager.delete(old) is not None


def _repair() -> Any:
    from ansible_collections.volt.backup.plugins.module_utils._backup.verify import VerifyRequest

    return VerifyRequest(repair=True)


@pytest.fixture
def during_a_prune(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Do something between a prune's list and its first deletion."""

    def plan(act: Callable[[], object]) -> None:
        real = retention.decide

        def decide(*arguments: Any) -> Any:
            verdicts = real(*arguments)
            act()
            return verdicts

        monkeypatch.setattr(retention, "decide", decide)

    return plan


def test_one_that_is_protected_while_it_is_pruned_stays(work: Bench, during_a_prune: Callable[..., None]) -> None:
    old = work.found()[1]["id"]
    during_a_prune(lambda: work.manager.protect(old))
    done = work.manager.prune("work", {"last": 1})
    assert old in {row["id"] for row in done.kept} and old in {found["id"] for found in work.found()}


# ---- what is said


def test_the_newest_is_one_that_fits(work: Bench) -> None:
    good = work.found()[0]["id"]
    each(work, lock)
    suspect = work.create().backup["id"]
    done, passed = work.manager.restore(None, RestoreRequest(str(work.target)), Query(workload="work"))
    assert done.restore["backup_id"] == good and [item["id"] for item in passed] == [suspect]
    (drill,) = Driller(work.manager, str(work.top / "drill"), False)([])
    assert drill.backup_id == good and [item["id"] for item in drill.passed_over] == [suspect]
    assert work.create(only_if_changed=True).changed and work.create(max_age="1h").backup["id"] == good


def test_the_command_says_so(work: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*words: str) -> tuple[int, Any]:
        status = cli.main([*words, "--store", str(work.store), "--backup-dir", str(work.backups)])
        return status, capsys.readouterr().out

    each(work, lock)
    status, told = call("create", "work", "--source", str(work.source), "--json")
    assert status == 6 and json.loads(told)["code"] == "suspect" and "accept" in json.loads(told)["msg"]
    backup = json.loads(told)["backup"]["id"]
    assert "SUSPECT: about 100 of the" in call("list")[1] and "SUSPECT" in call("show", backup)[1]
    assert call("protect", backup) == (0, f"Protected {backup}.\n") and ", protected" in call("list")[1]
    assert call("delete", backup)[0] == 1
    assert call("unprotect", backup) == (0, f"Unprotected {backup}.\n")
    assert call("accept", backup, "--dry-run") == (0, f"Would accept {backup}.\n")
    assert call("accept", backup) == (0, f"Accepted {backup}.\n")
    assert call("accept", backup) == (0, f"Nothing to accept: {backup} is not suspect.\n")
    assert "accepted" in call("show", backup)[1]
    assert call("accept", "work-20200101-000000-manual")[0] == 5
    assert call("accept", "work") == (0, "Nothing to accept: no mount is missing.\n")
    assert call("create", "work", "--source", str(work.source))[0] == 0


def test_a_full_disk_takes_nothing_and_says_what_is_held(bench_on: Callable[..., Bench], tmp_path: Path) -> None:
    bench = bench_on("ext4", 64 << 20)
    bench.source = tmp_path / "source"
    for number in range(60):
        bench.files(**{f"f{number}.txt": text(number)})
    good = bench.create().backup
    each(bench, lock)
    assert bench.create().backup["suspect"]
    for number in range(40):
        bench.files(**{f"large{number}": os.urandom(3 << 20)})
    with pytest.raises(errors.StoreFull, match=rf"1 backup\(s\) that added {good['stored_bytes']} bytes are kept because a later one is suspect"):
        bench.create()
    assert good["id"] in {found["id"] for found in bench.found()}


def test_a_lost_record_does_not_lose_the_mark(work: Bench) -> None:
    each(work, lock)
    backup = work.create().backup
    (work.backups / f"{backup['id']}.json").unlink()
    work.manager.verify(_repair())
    again = next(found for found in work.found() if found["id"] == backup["id"])
    assert again["suspect"] and again["suspect_reason"] == backup["suspect_reason"]


# ---- any sequence

STEP = st.sampled_from(["run", "run", "edit", "lock", "shrink", "heal", "prune", "prune", "collect", "exclude"])


@settings(max_examples=1000 if LONG else 25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(STEP, min_size=4, max_size=16), keep=st.sampled_from([{"last": 1}, {"last": 2}, {"daily": 1}, {"within": "1m"}, {"tags": ["x"]}]))
@pytest.mark.costly
def test_no_sequence_deletes_the_newest_good_one_from_before(tmp_path_factory: pytest.TempPathFactory, steps: list[str], keep: dict[str, Any]) -> None:
    """Runs, prunes and collections in any order: the newest good backup from before a suspect one stays whole until a run by the same rules fits."""
    bench = Bench(tmp_path_factory.mktemp("sequence"))
    for number in range(brake.LEAST_FILES + 5):
        bench.files(**{f"f{number}.txt": text(number)})
    newest, held = bench.create().backup["id"], {}
    rules: tuple[str, ...] = ()
    for number, step in enumerate(steps):
        if step == "edit":
            bench.files(**{"f0.txt": text(1000 + number)})
        elif step == "lock":
            each(bench, lambda path, index, base=number: lock(path, 1000 * base + index))
        elif step == "shrink":
            each(bench, lambda path, _number: path.unlink(), 0.6)
        elif step == "heal":
            for index in range(brake.LEAST_FILES + 5):
                bench.files(**{f"f{index}.txt": text(index)})
        elif step == "exclude":
            rules = () if rules else ("*.none",)
        elif step == "prune":
            bench.manager.prune("work", keep)
        elif step == "collect":
            bench.manager.collect("0s")
        else:
            made = bench.create(exclude=list(rules)).backup
            if made["suspect"]:
                held.setdefault(rules, newest)
            else:
                held.pop(rules, None)
                newest = made["id"]
        found = {item["id"]: item["damaged"] for item in bench.found()}
        assert {found.get(backup) for backup in (newest, *held.values())} == {False}, steps
    for backup in held.values():
        bench.restore(backup, force=True)


# ---- what a review found


def test_a_damaged_newest_backup_is_no_measure_and_others_are(work: Bench) -> None:
    """Neither a lost manifest nor lost trees of the newest switch the brake off."""
    for harm in ("manifest", "trees"):
        (work.source / "d0" / harm).write_bytes(text(5))
        newest = work.create().backup
        if harm == "manifest":
            work.manifest(newest["id"]).unlink()
        else:
            store = Store(str(work.store))
            with store.lock():
                place = store.index.find(Catalog(store, str(work.backups)).manifest(newest).root.content)
            next((work.store / "packs").rglob(f"{place[0].hex()}.pack*")).unlink()
        assert next(found for found in work.found() if found["id"] == newest["id"])["damaged"]
    each(work, lock)
    assert work.create().backup["suspect"]


def test_empty_files_are_no_files(bench: Bench) -> None:
    for number in range(100):
        bench.files(**{f"f{number}.txt": text(number), f"e{number}": b"", f"more{number}": b""})
    bench.create()
    filled = bench.create()
    assert filled.backup["file_counts"] == [100, 100]
    each(bench, lambda path, _number: path.unlink())
    assert bench.create(dry=True).backup["suspect"]
    for number in range(100):
        bench.files(**{f"e{number}": text(number)})
    assert not bench.create().backup["suspect"], "others have been filled in their place"


def test_shrinking_in_a_few_large_steps(bench: Bench) -> None:
    for number in range(400):
        bench.files(**{f"f{number}.txt": b"x%d" % number})
    seen = []
    for _step in range(5):
        seen.append(bench.create().backup["suspect"])
        each(bench, lambda path, _number: path.unlink(), 0.48)
    assert seen[:2] == [False, False] and True in seen


def test_acceptance_excuses_no_more_than_it_says(work: Bench) -> None:
    for _run in range(4):
        work.create()
    each(work, lock, 0.4)
    work.manager.accept(work.create().backup["id"])
    assert not work.create().backup["suspect"]
    for number, path in enumerate(sorted(work.source.rglob("f*.txt"))[40:]):
        path.write_bytes(noise(1000 + number))
    assert work.create().backup["suspect"]


def test_objects_that_git_packed_are_not_lost(bench: Bench) -> None:
    """Other files are lost, whatever archive comes on the same day: a dump comes every day."""
    held = b"".join(text(number) for number in range(FILES))
    for number in range(FILES):
        bench.files(**{f"f{number}.txt": text(number)})
    for number in range(300):
        bench.files(**{f"objects__{number % 16:02x}__{number:038x}": zlib.compress(b"blob %d" % number)})
    assert not bench.create().backup["suspect"]
    for path in (bench.source / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    (bench.source / "old").write_bytes(b"7z\xbc\xaf\x27\x1c" + noise(1, len(held)))
    assert bench.create(dry=True).backup["suspect"]
    (bench.source / "old").write_bytes(b"PACK\0\0\0\2" + noise(1, 300))
    assert not bench.create(dry=True).backup["suspect"]
    (bench.source / "old").unlink()
    each(bench, lambda path, _number: path.unlink())
    (bench.source / "dump.sql.gz").write_bytes(gzip.compress(noise(3, 2 * len(held))))
    assert bench.create().backup["suspect"]


def test_one_text_over_all_files(work: Bench) -> None:
    each(work, lambda path, _number: path.write_bytes(b"pay us"))
    assert "max_churn" in work.create().backup["suspect_reason"]


def test_other_exclusions_do_not_bypass_the_check(work: Bench) -> None:
    each(work, lock)
    assert work.create().backup["suspect"]
    assert work.create(exclude=["*.log"]).backup["suspect"], "the same source is a measure where there is none of the same rules"


def test_with_only_if_changed_a_suspect_one_is_followed_by_one_that_fits(work: Bench) -> None:
    whole = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in work.source.rglob("f*.txt")}
    times = {path: path.stat().st_mtime_ns for path in [work.source, *work.source.rglob("*")] if path.is_dir()}
    each(work, lock)
    work.create()
    for path, (content, moment) in whole.items():
        path.write_bytes(content)
        os.utime(path, ns=(moment, moment))
    for path, moment in times.items():
        os.utime(path, ns=(moment, moment))
    made = work.create(only_if_changed=True)
    assert made.changed and not made.backup["suspect"]
    assert not work.create(only_if_changed=True).changed
    assert len(work.manager.prune("work", {"last": 1}).kept) == 1


def test_one_that_is_accepted_while_it_is_pruned_stays(work: Bench, during_a_prune: Callable[..., None]) -> None:
    whole = {path: path.read_bytes() for path in work.source.rglob("f*.txt")}
    each(work, lock)
    suspect = work.create().backup["id"]
    for path, content in whole.items():
        path.write_bytes(content)
    work.create()
    during_a_prune(lambda: work.manager.accept(suspect))
    work.manager.prune("work", {"last": 1})
    assert suspect in {found["id"] for found in work.found()}


def test_a_suspect_one_whose_record_cannot_be_read_holds_all_the_same(work: Bench) -> None:
    good = [found["id"] for found in work.found()]
    each(work, lock)
    suspect = work.create().backup["id"]
    (work.backups / f"{suspect}.json").write_bytes(b"{")
    kept = {row["id"] for row in work.manager.prune("work", {"last": 1}).kept}
    assert {suspect, *good} <= kept


def test_white_space_costs_no_time(work: Bench) -> None:
    began = time.monotonic()
    assert not any(heads.is_lost(head) for head in (b"\n" * 8191 + b"x", b" " * 4000 + b"!" * 4192, (b"A" * 63 + b"\n") * 128) for _turn in range(50))
    assert time.monotonic() - began < 2
