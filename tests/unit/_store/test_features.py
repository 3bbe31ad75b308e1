# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a store is: its id, the features that it needs, and stores of other versions."""

from __future__ import annotations

import json
import multiprocessing
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import StoreError, Unsupported
from ansible_collections.volt.backup.plugins.module_utils._store import features, layout
from ansible_collections.volt.backup.plugins.module_utils._store.features import Format
from ansible_collections.volt.backup.plugins.module_utils._store.store import Store
from ansible_collections.volt.backup.plugins.module_utils._store.transaction import Transaction

#: As version 0.1.0 wrote it.
OLD = b'{\n "format": 1,\n "made_by": "volt.backup"\n}\n'


def write(path: Path, **value: Any) -> None:
    path.mkdir(exist_ok=True)
    (path / "format.json").write_text(json.dumps(value))


@pytest.mark.parametrize(
    "value", [{"format": 3}, {"format": 99, "id": [], "features": 7}, {"format": 2, "features": {"required": ["claims-of-tomorrow"]}},
              {"format": 1, "features": {"required": ["claims-of-tomorrow"]}}]
)  # fmt: skip
def test_only_a_newer_version_can_use_it(tmp_path: Path, value: dict[str, Any]) -> None:
    write(tmp_path, **value)
    for call in (lambda: layout.look(str(tmp_path)), lambda: Store(str(tmp_path))):
        with pytest.raises(Unsupported, match="written by a newer version; update volt.backup") as caught:
            call()
        assert caught.value.code == "unsupported" and not re.search("damage|delete|remove", caught.value.message)
    assert json.loads((tmp_path / "format.json").read_text()) == value


def test_what_is_optional_can_be_ignored_and_stays(tmp_path: Path) -> None:
    write(tmp_path, format=1, id="", features={"required": [], "optional": ["colours"]}, made_by="another", extra=[1])
    with Transaction(Store(str(tmp_path))) as transaction:
        transaction.commit()
    said = json.loads((tmp_path / "format.json").read_text())
    assert said["features"] == {"required": ["claims"], "optional": ["colours"]} and said["made_by"] == "another" and said["extra"] == [1] and said["id"]


def test_version_0_1_0_refuses_a_required_feature() -> None:
    assert json.loads(Format("").encode())["format"] == 1
    assert json.loads(Format("", required=("some",)).encode())["format"] == 2


def test_a_store_of_version_0_1_0_gets_an_id_with_the_next_write_and_keeps_it(tmp_path: Path) -> None:
    layout.make(str(tmp_path))
    (tmp_path / "format.json").write_bytes(OLD)
    store = Store(str(tmp_path))
    assert store.format == Format("") and (tmp_path / "format.json").read_bytes() == OLD
    with Transaction(store, dry=True):
        pass
    assert (tmp_path / "format.json").read_bytes() == OLD, "check mode writes nothing"
    seen = set()
    for _turn in range(2):
        with Transaction(Store(str(tmp_path))) as transaction:
            seen.add(transaction.store.format.id)
    assert len(seen) == 1 and re.fullmatch("[0-9a-f]{32}", seen.pop())
    assert Store(str(tmp_path)).format.id


def _open(path: str, start: Any, found: Any) -> None:
    store = Store(path, 30)
    start.wait()
    with Transaction(store) as transaction:
        transaction.commit()
        found.put(transaction.store.format.id)


@pytest.mark.parametrize("made", [True, False], ids=["of version 0.1.0", "to be made"])
def test_many_that_give_a_store_its_id_at_once_agree(tmp_path: Path, made: bool) -> None:
    if made:
        layout.make(str(tmp_path))
        (tmp_path / "format.json").write_bytes(OLD)
    fork = multiprocessing.get_context("fork")
    start, found = fork.Event(), fork.Queue()
    them = [fork.Process(target=_open, args=(str(tmp_path), start, found)) for _number in range(6)]
    for one in them:
        one.start()
    start.set()
    ids = {found.get(timeout=30) for _one in them}
    for one in them:
        one.join()
    assert ids == {features.read(str(tmp_path)).id} and "" not in ids


def test_a_removed_store_is_not_created_again(tmp_path: Path) -> None:
    """Its disk was unmounted between the first look and the lock."""
    layout.make(str(tmp_path))
    store = Store(str(tmp_path))
    (tmp_path / "format.json").unlink()
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(StoreError, match="no longer exists"), Transaction(store):
        pass
    assert [name for name in sorted(path.name for path in tmp_path.iterdir()) if name not in ("gate", "lock")] == before
