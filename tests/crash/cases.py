# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands that are put to the test, and what must be true of each after a fault, whatever the fault was."""

from __future__ import annotations

import copy
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Optional

from ansible_collections.volt.backup.plugins.module_utils._backup.create import CreateRequest
from ansible_collections.volt.backup.plugins.module_utils._backup.directory import OtherStore
from ansible_collections.volt.backup.plugins.module_utils._base.errors import VoltError
from ansible_collections.volt.backup.tests.crash.scene import COLLECTS, PRUNES, VERIFIES, Scene, Snapshot, snapshot, unlike
from ansible_collections.volt.backup.tests.rigs import forks


class Case:
    """A command. One is made for each scene, and `prepare` called once in it."""

    exists = True
    #: How the command ends where nothing is wrong.
    status = 0

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def prepare(self) -> None:
        """Bring the scene into the state that the command begins with."""

    def words(self) -> list[str]:
        raise NotImplementedError

    def place(self, line: str) -> str:
        """Whose fault it is when the call in a line of strace's fails: the first part of the error's code."""
        return "store"

    def after(self, result: Optional[forks.Result]) -> None:
        """What must hold after a run that was cut short or failed (None: cut short, nobody knows where)."""
        self.scene.holds()

    def again(self, result: forks.Result) -> None:
        """What must hold after the next, undisturbed run."""
        assert result.status == self.status, result
        self.after(result)

    def debris(self, living: bool = False) -> list[str]:
        """What is left of runs; with `living` also what only a killed one may leave."""
        return self.scene.debris(living) + (self.scene.leftovers() if living else [])

    def at_last(self) -> None:
        """And after a collection without grace."""
        self.scene.collect()
        self.after(None)


class Create(Case):
    def prepare(self) -> None:
        self.newest = snapshot(self.scene.source)

    def words(self) -> list[str]:
        return self.scene.words("create", "work", "--source", str(self.scene.source))

    def after(self, result: Optional[forks.Result]) -> None:
        more = self.scene.holds(newest=self.newest)
        if result is not None and result.status == 0:
            assert result.value["backup"]["id"] in more


class First(Case):
    """Also makes the store."""

    def prepare(self) -> None:
        (self.scene.top / "fresh").mkdir()
        self.newest = snapshot(self.scene.other)
        self.fresh = copy.copy(self.scene)
        self.fresh.store, self.fresh.backups = self.scene.top / "fresh" / "store", self.scene.top / "fresh" / "backups"
        self.fresh.promises, self.fresh.wanted = {}, {}

    def words(self) -> list[str]:
        return self.fresh.words("create", "other", "--source", str(self.scene.other))

    def after(self, result: Optional[forks.Result]) -> None:
        if (self.fresh.store / "format.json").exists():
            more = self.fresh.holds(newest=self.newest)
            assert result is None or result.status != 0 or result.value["backup"]["id"] in more
        else:
            assert self.fresh.found() == {} and (result is None or result.status != 0)

    def debris(self, living: bool = False) -> list[str]:
        if not self.fresh.store.exists():
            return []
        return self.fresh.debris(living) + (self.fresh.leftovers() if living else [])

    def at_last(self) -> None:
        self.fresh.collect()
        self.after(None)
        self.scene.holds()


class BeginAnew(First):
    """Its store is lost, and an empty one is made in its place. What is listed of the lost one stays."""

    def prepare(self) -> None:
        super().prepare()
        self.lost = self.create()
        self.fresh.store.rename(self.fresh.store.parent / "lost")

    def create(self) -> str:
        return self.fresh.manager.create(CreateRequest("other", str(self.scene.other))).backup["id"]

    def words(self) -> list[str]:
        return self.fresh.words("init", "--replace")

    def after(self, result: Optional[forks.Result]) -> None:
        assert (self.fresh.backups / f"{self.lost}.json").exists()
        if (self.fresh.store / "format.json").exists():
            try:
                assert self.fresh.found()[self.lost]
            except OtherStore:  # it was cut short before the directory named the new store
                assert result is None or result.status != 0
        elif result is not None:
            assert result.status != 0

    def again(self, result: forks.Result) -> None:
        assert result.status == 0 or result.value["code"] == "usage", "it is there already"
        self.after(result)
        made = self.create()
        assert not self.fresh.found()[made]

    def at_last(self) -> None:
        self.scene.holds()


class Removal(Case):
    """A command after which some promises are void."""

    def void(self) -> list[str]:
        raise NotImplementedError

    def after(self, result: Optional[forks.Result]) -> None:
        self.scene.holds(but=self.void())
        if result is not None and result.status == 0:
            assert not set(self.void()) & set(self.scene.found())


class Delete(Removal):
    def void(self) -> list[str]:
        return self.scene.smalls[:1]

    def words(self) -> list[str]:
        return self.scene.words("delete", *self.void())

    def again(self, result: forks.Result) -> None:
        assert result.status == 0 or result.value["code"] == "not_found", result
        self.after(result)
        assert not set(self.void()) & set(self.scene.found())


class Prune(Removal):
    exists = PRUNES

    def void(self) -> list[str]:
        return self.scene.smalls[:-1]

    def words(self) -> list[str]:
        return self.scene.words("prune", "other", "--keep", "1")

    def after(self, result: Optional[forks.Result]) -> None:
        self.scene.holds(but=self.void())
        if result is not None and result.status == 0:
            # One that could not be read at that moment may stay, or another in its place, if it is told.
            told = {row["id"] for row in result.value["kept"]}
            assert not (set(self.void()) & set(self.scene.found())) - told


class Collect(Case):
    """Garbage collection, all at once: repacks, merges, moves to the trash, and empties that."""

    exists = COLLECTS

    def words(self) -> list[str]:
        return self.scene.words("gc", "--grace", "0s")


class CollectToTrash(Collect):
    """With its usual grace: nothing leaves the trash."""

    def words(self) -> list[str]:
        return self.scene.words("gc")


class EmptyTrash(Collect):
    """What an earlier collection put there."""

    def prepare(self) -> None:
        self.scene.manager.collect()


class Verify(Case):
    exists = VERIFIES

    def words(self) -> list[str]:
        return self.scene.words("verify", "--content")


class Repair(Case):
    """With damage in the store, some of which can be mended: what was sound stays so, what one run can mend the next one can."""

    exists = VERIFIES

    def prepare(self) -> None:
        scene = self.scene
        self.broken: set[str] = set()
        scene.damage()
        self.broken = set(scene.promises) - self._whole()
        assert self.broken and self.broken != set(scene.promises), "the damage hits some backups, and not all"
        scene.disk.keep("damaged")
        self._run()
        self.mended = self._whole() & self.broken
        assert self.mended, "some of it can be mended"
        scene.reset("damaged")

    def _run(self) -> None:
        from ansible_collections.volt.backup.plugins.module_utils._backup import verify

        self.status = 1 if self.scene.manager.verify(verify.VerifyRequest(level="content", repair=True)).damage else 0

    def _whole(self) -> set[str]:
        found = set()
        for backup, wanted in self.scene.wanted.items():
            with suppress(VoltError), self.scene.restored(backup) as tree:
                assert snapshot(tree) == wanted, f"{backup} is restored with other content, and nobody noticed"
                found.add(backup)
        return found

    def words(self) -> list[str]:
        return self.scene.words("verify", "--content", "--repair")

    def after(self, result: Optional[forks.Result]) -> None:
        found = self.scene.found()
        assert set(found) == set(self.scene.promises), "nothing is deleted"
        assert self._whole() >= set(self.scene.promises) - self.broken

    def again(self, result: forks.Result) -> None:
        # What it could mend may be mended already by the run before it, and then it finds less that is wrong.
        assert result.status in (0, self.status) and "Traceback" not in result.errors, result
        assert self._whole() >= (set(self.scene.promises) - self.broken) | self.mended

    def at_last(self) -> None:
        with suppress(VoltError):  # rightly refused, where damage is left
            self.scene.collect()
        assert self._whole() >= (set(self.scene.promises) - self.broken) | self.mended


class Adopt(Case):
    """The backup directory is lost; the next run takes over what a killed one has left."""

    def prepare(self) -> None:
        for path in list(self.scene.backups.iterdir()):
            path.unlink()

    def words(self) -> list[str]:
        return self.scene.words("adopt", "--unlisted")

    def after(self, result: Optional[forks.Result]) -> None:
        self.scene.holds(but=self.scene.promises)
        if result is not None and result.status == 0:
            self.scene.holds(but=[row["id"] for row in result.value["left"]])  # each with a reason


PRECIOUS = b"the backup leaves it alone"


class Restore(Case):
    """To a target that does not exist."""

    def prepare(self) -> None:
        self.new = self.scene.wanted[self.scene.new]

    def words(self) -> list[str]:
        return self.scene.words("restore", self.scene.new, "--target", str(self.scene.target), *self.options())

    def options(self) -> list[str]:
        return []

    def place(self, line: str) -> str:
        return "store" if f"{self.scene.store}/" in line or f"{self.scene.backups}/" in line else "target"

    def after(self, result: Optional[forks.Result]) -> None:
        self.store_holds()
        if self.scene.target.exists():
            self.equals(self.new)
        else:
            assert result is None or result.status != 0

    def store_holds(self) -> None:
        """A restore leaves the store alone: a quick look is enough until the end."""
        assert not any(self.scene.found().values())

    def equals(self, *wanted: Snapshot) -> None:
        found = self.trimmed(snapshot(self.scene.target))
        assert found in [self.trimmed(tree) for tree in wanted], [unlike(self.trimmed(tree), found) for tree in wanted]

    def trimmed(self, tree: Snapshot) -> Snapshot:
        return tree

    def at_last(self) -> None:
        super().at_last()
        self.scene.holds()


#: Who uses the target is not looked for: how many calls that takes hangs on what runs on this machine, and a point is a call by its number.
FORCED = ("--force", "--allow-in-use")


class Replace(Restore):
    """A tree that exists, and in which something lies that the backup excluded.

    :ivar told: the old tree, where a result tells that this stays there.
    """

    told = Path("/nonexistent")

    def debris(self, living: bool = False) -> list[str]:
        return [name for name in super().debris(living) if name != self.told.name]

    def prepare(self) -> None:
        super().prepare()
        scene = self.scene
        subprocess.run(["cp", "-a", scene.promises[scene.old], scene.target], check=True)
        (scene.target / "uploads").mkdir()
        (scene.target / "uploads" / "u").write_bytes(PRECIOUS)
        self.old = scene.wanted[scene.old]

    def options(self) -> list[str]:
        return [*FORCED, "--strategy", "replace"]

    def after(self, result: Optional[forks.Result]) -> None:
        self.store_holds()
        self.precious()
        if result is not None and result.status == 0:
            self.equals(self.new)
            if any("could not be moved into the new tree" in warning for warning in result.value["warnings"]):
                self.told = Path(result.value["restore"]["previous"])
            place = self.told if (self.told / "uploads").exists() else self.scene.target  # told by the run before this one, too
            assert (place / "uploads" / "u").read_bytes() == PRECIOUS
        else:
            self.halfway()

    def halfway(self) -> None:
        self.equals(self.old, self.new)

    def precious(self) -> None:
        places = [Path(top) / "u" for top, _directories, files in os.walk(self.scene.top) if top.endswith("/uploads") and "u" in files]
        assert [place.read_bytes() for place in places] == [PRECIOUS], f"what the backup excluded is somewhere, once: {places}"

    def trimmed(self, tree: Snapshot) -> Snapshot:
        """Without the uploads, and without the top's time, which their coming changes."""
        kept = {path: value for path, value in tree.items() if not path.startswith("./uploads")}
        kept["."] = (*tree["."][:3], 0, *tree["."][4:])
        return kept


class KeepPrevious(Replace):
    """And the old tree stays beside it."""

    def options(self) -> list[str]:
        return [*super().options(), "--keep-previous"]


class InPlace(Replace):
    """File by file: each one is the old or the new one at any time."""

    tells_room = False  # of the restore itself, which it could not remove

    def options(self) -> list[str]:
        return [*FORCED, "--strategy", "in_place", "--delete"]

    def after(self, result: Optional[forks.Result]) -> None:
        self.tells_room = result is not None and result.status == 0 and any(".volt-restore-" in warning for warning in result.value["warnings"])
        super().after(result)

    def trimmed(self, tree: Snapshot) -> Snapshot:
        return {path: value for path, value in super().trimmed(tree).items() if not (self.tells_room and path.startswith("./.volt-restore-"))}

    def halfway(self) -> None:
        for path, value in snapshot(self.scene.target).items():
            if path != "hard links" and value[0].startswith("-") and not path.startswith("./uploads") and "/.volt-restore-" not in path:
                contents = [tree[path][4] for tree in (self.old, self.new) if path in tree]
                assert value[4] in contents, f"{path} is neither the old nor the new one"


ALL = (Create, First, BeginAnew, Delete, Prune, Collect, CollectToTrash, EmptyTrash, Verify, Repair, Adopt, Restore, Replace, KeepPrevious, InPlace)
