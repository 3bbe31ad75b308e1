# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pushes to a remote that is not as the last push left it, or beside another push."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.query import Query
from ansible_collections.volt.backup.plugins.module_utils._base import Damaged, NoRemote, Phase, RemoteError, Standing
from ansible_collections.volt.backup.plugins.module_utils._remote import push as pushes, transport
from ansible_collections.volt.backup.plugins.module_utils._remote.directory import Directory
from ansible_collections.volt.backup.plugins.module_utils._remote.pace import Pace
from ansible_collections.volt.backup.plugins.module_utils._remote.push import Pusher
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote, Settings, Which
from ansible_collections.volt.backup.plugins.module_utils._runner import cli
from ansible_collections.volt.backup.tests.rigs import need
from ansible_collections.volt.backup.tests.unit.kit import noise

from .test_push import HOST, Place, change, made, written


@pytest.fixture
def place(bench: Any) -> Place:
    need("zstd")
    bench.files(small=b"hello\n", some__noise=noise(300_000), image=noise(2 << 20, 2))
    return made(bench)


def a_day_later(place: Place) -> None:
    """What the remote has is listed again."""
    for path in (place.bench.store / "cache").glob("remote-*.looked-*"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 24 * 3600))


def ids(place: Place) -> set[str]:
    """The backups whose copies an independent reader can read."""
    return set(place.judge())


def test_a_remote_that_was_set_back_gets_again_what_it_lost(place: Place) -> None:
    change(place.bench, 0)
    place.push()
    earlier = shutil.copytree(place.top, place.bench.top / "earlier")
    for number in (1, 2):
        change(place.bench, number)
        place.push()
    shutil.rmtree(place.top)
    shutil.copytree(earlier, place.top)
    change(place.bench, 3)
    a_day_later(place)
    remote = place.open()
    done = remote.push(Which())
    backups = {backup["id"] for backup in place.bench.found()}
    assert [pushed.lost is None for _sidecar, pushed in done] == [False, False, True] and ids(place) == backups
    assert len(remote.warnings) == 1 and "has lost 2 copies" in remote.warnings[0]
    assert place.listing().warnings == [f"Commit 2 to 3 of host {HOST} is missing on the remote; compare the list with the host's own backups."]
    assert place.push()[0] == []


def test_a_remote_that_was_emptied_gets_all_again(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    backups = {change(place.bench, number)["id"] for number in range(3)}
    place.push()
    for name in ("commits", "packs", "indexes", "heads"):
        shutil.rmtree(place.top / name)
    a_day_later(place)
    where = ["--store", str(place.bench.store), "--backup-dir", str(place.bench.backups)]
    assert cli.main(["push", "--all", "--remote", f"file://{place.top}", "--remote-host", HOST, *where]) == 0
    assert "has lost 3 copies" in capsys.readouterr().err and ids(place) == backups


def test_one_copy_that_was_deleted_is_made_again(place: Place) -> None:
    for number in range(3):
        change(place.bench, number)
        place.push()
    sorted((place.top / "commits" / HOST).iterdir())[1].unlink()
    assert place.push()[0] == []  # it was listed a moment ago
    a_day_later(place)
    ((sidecar, pushed),), _requests = place.push()
    assert pushed.lost is not None and pushed.new_blobs == 0 and ids(place) == {backup["id"] for backup in place.bench.found()}
    assert sidecar["copies"][0]["push"] == pushed.push


def test_a_copy_that_is_asked_for_is_looked_for(place: Place) -> None:
    backup = change(place.bench, 0)
    place.push()
    for name in ("commits", "packs", "indexes"):
        shutil.rmtree(place.top / name)
    ((_sidecar, pushed),) = place.open().push(Which([backup["id"]]))
    assert pushed is not None and pushed.lost is not None and ids(place) == {backup["id"]}


def set_back(place: Place, to: Path) -> None:
    shutil.rmtree(place.top)
    shutil.copytree(to, place.top)


def test_a_remote_that_was_set_back_a_moment_ago(place: Place) -> None:
    """Each push asks for the newest commit, so nothing new refers to what was lost, and that is made again at once."""
    change(place.bench, 0)
    place.push()
    earlier = shutil.copytree(place.top, place.bench.top / "earlier")
    change(place.bench, 1)
    place.push()
    set_back(place, earlier)
    for number in (2, 3):
        change(place.bench, number)
        place.push()
        assert ids(place) == {backup["id"] for backup in place.bench.found()}


@pytest.mark.parametrize("loss", ["set back", "index"])
def test_check_mode_foresees_what_is_made_again(place: Place, loss: str) -> None:
    """Each backup once, and nothing is written, not even that something is lost."""
    for number in (0, 1):
        change(place.bench, number)
        place.push()
        if number == 0:
            earlier = shutil.copytree(place.top, place.bench.top / "earlier")
    if loss == "set back":
        set_back(place, earlier)
    else:
        shutil.rmtree(place.top / "indexes")
        a_day_later(place)
    change(place.bench, 2)
    before = place.bench.snapshot()
    foreseen = place.open().push(Which(), dry=True)
    assert written(place, before) == []
    made = place.open().push(Which())
    assert len(foreseen) == len(made) > 1 and {one["id"] for one, _pushed in foreseen} == {one["id"] for one, _pushed in made}


def test_a_remote_is_set_back_between_two_backups_of_a_push(place: Place) -> None:
    change(place.bench, 0)
    place.push()
    earlier = shutil.copytree(place.top, place.bench.top / "earlier")
    for number in (1, 2, 3):
        change(place.bench, number)
    a_day_later(place)
    stopped(place, "put", "heads/", 1, lambda: set_back(place, earlier))
    a_day_later(place)
    place.push()
    assert ids(place) == {backup["id"] for backup in place.bench.found()}


def stopped(place: Place, verb: str, what: str, at: int = 1, act: Any = None) -> None:
    """Push, and stop before the request of that kind and number. :param act: is done there in place of stopping."""
    remote, seen = place.open(), []

    def stop() -> None:
        last = remote.transport.requests[-1]
        if last[0] == verb and last[1].startswith(what):
            seen.append(last)
            if len(seen) == at:
                if act is None:
                    raise RemoteError("stopped")
                act()

    remote.transport.before = dict.fromkeys(range(200), stop)
    if act is None:
        with pytest.raises(RemoteError, match="stopped"):
            remote.push(Which())
    else:
        remote.push(Which())
    assert len(seen) >= at


def test_a_remote_is_set_back_to_the_midst_of_an_unfinished_push(place: Place) -> None:
    """Its intent and a pack are there, and the packs after that are not."""
    place.bench.files(more=noise(40 << 20, 7))
    change(place.bench, 0)
    earlier, remote = place.bench.top / "earlier", place.open()

    def act() -> None:
        verb, name = remote.transport.requests[-1]
        if verb == "create" and name.startswith("packs/") and place.packs() and not earlier.exists():
            shutil.copytree(place.top, earlier)
        if verb == "create" and name.startswith("indexes/"):
            raise RemoteError("stopped")

    remote.transport.before = dict.fromkeys(range(200), act)
    with pytest.raises(RemoteError, match="stopped"):
        remote.push(Which())
    sent = len(place.packs())
    set_back(place, earlier)
    assert list((place.top / "intents" / HOST).iterdir()) and 0 < len(place.packs()) < sent
    place.push()
    assert ids(place) == {backup["id"] for backup in place.bench.found()}


@pytest.mark.parametrize("before", ["packs/", "indexes/", "commits/"])
def test_a_remote_is_set_back_while_a_push_runs(place: Place, before: str) -> None:
    """Before its second pack, before its index, and before it compares what it sent."""
    change(place.bench, 0)
    place.push()
    earlier = shutil.copytree(place.top, place.bench.top / "earlier")
    change(place.bench, 1)
    place.push()
    place.bench.files(large=noise(40 << 20, 8))
    change(place.bench, 2)
    stopped(place, "list" if before == "commits/" else "create", "indexes/" if before == "commits/" else before, 2 if before == "packs/" else 1,
            lambda: set_back(place, earlier))  # fmt: skip
    assert ids(place) == {backup["id"] for backup in place.bench.found()}


def test_an_index_of_an_unfinished_push_is_lost(place: Place) -> None:
    """The backup that it was for is deleted, and another one goes on with its packs."""
    first = change(place.bench, 0)
    remote = place.open()
    saved: list[Path] = []

    def act() -> None:
        last = remote.transport.requests[-1]
        if last[0] == "create" and last[1].startswith("indexes/") and not saved:
            saved.append(shutil.copytree(place.top, place.bench.top / "saved"))
        if last[0] == "create" and last[1].startswith("commits/"):
            raise RemoteError("stopped")

    remote.transport.before = dict.fromkeys(range(200), act)
    with pytest.raises(RemoteError, match="stopped"):
        remote.push(Which())
    set_back(place, saved[0])
    place.bench.manager.delete(first["id"])
    last = change(place.bench, 1)
    place.push()
    assert ids(place) == {last["id"]}


def test_all_workloads_get_again_what_needs_a_lost_index(place: Place) -> None:
    """One workload's push finds the loss; the next looks of the others know of it."""
    manager = place.bench.manager
    made = [manager.create(CreateRequest(name, str(place.bench.source), compression="zlib")).backup["id"] for name in ("a", "b")]
    for name in ("a", "b"):
        place.open().push(Which(workload=name))
    for path in (place.top / "indexes").rglob("*"):
        if path.is_file():
            path.unlink()
            break
    a_day_later(place)
    for name in ("a", "b"):
        place.open().push(Which(workload=name))
    pushes = {copy["push"] for listed in manager.find(Query()) for copy in listed["copies"]}
    for path in (place.top / "commits" / HOST).iterdir():
        if f"{HOST}/{path.name}" not in pushes:
            path.unlink()
    assert ids(place) == set(made)


def test_a_remote_without_its_file_is_none(place: Place) -> None:
    change(place.bench, 0)
    place.push()
    (place.top / "volt.json").unlink()
    a_day_later(place)
    change(place.bench, 1)
    with pytest.raises(NoRemote):
        place.push()


def test_a_failed_push_tells_what_was_lost(place: Place) -> None:
    for number in range(2):
        change(place.bench, number)
        place.push()
    for path in (place.top / "commits" / HOST).iterdir():
        path.unlink()
    a_day_later(place)
    remote = place.open()
    commits: list[str] = []

    def stop() -> None:
        verb, name = remote.transport.requests[-1]
        if verb == "create" and name.startswith("commits/"):
            commits.append(name)
            if len(commits) == 2:
                raise RemoteError("stopped")

    remote.transport.before = dict.fromkeys(range(200), stop)
    with pytest.raises(RemoteError, match="stopped") as caught:
        remote.push(Which())
    assert "has lost 1 copies" in caught.value.details["warnings"][0]


@pytest.mark.parametrize("how", ["missing", "altered"])
def test_what_a_lost_index_names_is_sent_again(place: Place, how: str) -> None:
    """The copies that need it are made again, and new ones do not refer to it."""
    first = change(place.bench, 0)
    place.push()
    (index,) = (path for path in (place.top / "indexes").rglob("*") if path.is_file())
    if how == "missing":
        index.unlink()
    else:
        index.write_bytes(index.read_bytes()[:-1])
    second = change(place.bench, 1)
    a_day_later(place)
    done, _requests = place.push()
    assert [sidecar["id"] for sidecar, _pushed in done] == [first["id"], second["id"]] and done[0][1].new_bytes > 2 << 20 > done[1][1].new_bytes
    for path in (place.top / "commits" / HOST).iterdir():
        if path.name not in {pushed.push.partition("/")[2] for _sidecar, pushed in done}:
            path.unlink()
    assert ids(place) == {first["id"], second["id"]}


def test_an_altered_index_ends_no_push(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is noticed when indexes are folded, and they are left out."""
    monkeypatch.setattr(pushes, "INDEXES_MOST", 4)
    for number in range(4):
        change(place.bench, number)
        place.push()
    for path in (place.top / "indexes").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    last = change(place.bench, 5)
    place.push()
    for path in sorted((place.top / "commits" / HOST).iterdir())[:-1]:
        path.unlink()
    assert ids(place) == {last["id"]}


def test_a_loss_is_noticed_also_if_nothing_is_to_be_sent(place: Place) -> None:
    """The look that finds nothing new to copy finds the indexes gone, and what comes next does not refer to them."""
    first = change(place.bench, 0)
    place.push()
    shutil.rmtree(place.top / "indexes")
    for path in (place.top / "commits" / HOST).iterdir():
        path.rename(place.bench.top / path.name)
    place.bench.manager.delete(first["id"])
    a_day_later(place)
    assert place.push()[0] == []
    last = change(place.bench, 1)
    place.push()
    assert ids(place) == {last["id"]}


def test_numbers_go_on_after_a_loss_with_an_unfinished_push(place: Place) -> None:
    change(place.bench, 0)
    place.push()
    earlier = shutil.copytree(place.top, place.bench.top / "earlier")
    change(place.bench, 1)
    place.push()
    change(place.bench, 2)
    stopped(place, "create", "commits/")
    set_back(place, earlier)
    place.push()
    assert ["Commit 2 of host" in text for text in place.listing().warnings] == [True]


def test_a_store_without_a_cache(place: Place) -> None:
    change(place.bench, 0)
    shutil.rmtree(place.bench.store / "cache")
    place.push()
    assert len(ids(place)) == 1


def test_packs_of_an_unfinished_push_that_the_remote_has_lost(place: Place) -> None:
    earlier = shutil.copytree(place.top, place.bench.top / "earlier")
    change(place.bench, 0)
    stopped(place, "create", "commits/")
    assert place.packs()
    set_back(place, earlier)
    place.push()
    assert ids(place) == {backup["id"] for backup in place.bench.found()}


def test_a_store_that_was_set_back_goes_on_after_the_newest_commit(place: Place) -> None:
    """Its memory is of an older day than the remote: no number is used twice."""
    change(place.bench, 0)
    place.push()
    earlier = shutil.copytree(place.bench.store / "cache", place.bench.top / "cache")
    change(place.bench, 1)
    place.push()
    shutil.rmtree(place.bench.store / "cache")
    shutil.copytree(earlier, place.bench.store / "cache")
    change(place.bench, 2)
    a_day_later(place)
    place.push()
    assert not place.listing().warnings and len(ids(place)) == 3


def test_another_remote_in_the_place_of_the_declared_one(place: Place) -> None:
    change(place.bench, 0)
    about = place.open().begin().about
    assert about is not None
    bench = place.bench
    known = Settings(f"file://{place.top}", HOST, id=about.id)
    assert len(Remote(bench.manager, known).push(Which())) == 1
    shutil.rmtree(place.top)
    place.top.mkdir()  # the mount is away
    with pytest.raises(NoRemote, match="check the mount"):
        Remote(bench.manager, known).begin()
    assert list(place.top.iterdir()) == []
    place.open().begin()
    for use in (lambda remote: remote.push(Which()), lambda remote: remote.begin()):
        with pytest.raises(RemoteError, match="not the remote that was declared"):
            use(Remote(bench.manager, known))


def test_an_object_of_hostile_size_is_not_read(place: Place) -> None:
    backup = change(place.bench, 0)
    place.push()
    (commit,) = (place.top / "commits" / HOST).iterdir()
    large = commit.with_name(commit.name.replace("2", "3", 1))
    large.touch()
    os.truncate(large, transport.MOST + 1)
    listing = place.listing()
    assert [copy.trouble is None for copy in listing.copies] == [False, True] and "more than 64 MiB" in str(listing.copies[0].trouble)
    large.unlink()
    with open(place.top / "tombstones-large", "wb") as stream:
        stream.truncate(1 << 40)
    (place.top / "tombstones").mkdir()
    (place.top / "tombstones-large").rename(place.top / "tombstones" / "0001")
    change(place.bench, 1)
    with pytest.raises(Damaged, match="more than 64 MiB"):
        place.open().push(Which([backup["id"], place.bench.found()[0]["id"]]))


def test_a_push_waits_for_another_and_makes_no_second_copy(place: Place) -> None:
    backup = change(place.bench, 0)
    remote, standing = place.open(), Standing()
    done: list[Any] = []
    pusher = Pusher(place.bench.manager.copies.store, pushes.PushRequest(Directory(str(place.top)), HOST), lambda *_copy: None)
    waiting = threading.Thread(target=lambda: done.extend(remote.push(Which([backup["id"]]), standing=standing)))
    with pusher.alone():
        waiting.start()
        while not standing.phase.name.startswith("waiting"):
            waiting.join(0.01)
        assert standing.phase.patience == 5 and waiting.is_alive()
        copies, push = place.bench.manager.copies, f"{HOST}/20260101T000000Z-0123456789abcdef"
        Directory(str(place.top)).create(f"commits/{push}", b"x")
        copies.note(pusher.about.id, backup["id"], copies.find(backup["id"])["manifest_sha256"], push)
    waiting.join()
    assert [pushed for _sidecar, pushed in done] == [None]


def test_bytes_are_progress(place: Place) -> None:
    """On a slow link a pack takes minutes."""
    backup = change(place.bench, 0)
    standing = Standing()
    remote = place.open()
    seen: list[tuple[Phase, object]] = []

    class Watched(Pace):
        def __call__(self, size: int) -> None:
            super().__call__(size)
            seen.append((standing.phase, standing.phase.steps()))

    remote.transport.pace = Watched(20 << 20)
    remote.push(Which([backup["id"]]), standing=standing)
    steps = [step for phase, step in seen if phase.name == "sending"]
    assert len(steps) == len(set(map(str, steps))) > 5


def test_the_command_shows_what_a_remote_has(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--store", str(place.bench.store), "--backup-dir", str(place.bench.backups)]
    url = f"file://{place.top}"
    assert cli.main(["remote", "status", url, *where]) == 0 and "No host has copies there." in capsys.readouterr().out
    change(place.bench, 0)
    for host in ("web1", "web2"):
        place.open(host=host).push(Which([change(place.bench, int(host[-1]))["id"]]))
    assert cli.main(["remote", "status", url, "--json", *where]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(host["host"], host["commits"]) for host in told["hosts"]] == [("web1", 1), ("web2", 1)] and told["sealed"] is False
    assert cli.main(["remote", "status", url, *where]) == 0 and "web2" in capsys.readouterr().out
    assert cli.main(["remote", "policy", url, *where]) == 2 and "policies are for S3" in capsys.readouterr().err
