# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealed bytes: the program age opens ours, and we open those of it. What was altered anywhere is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import Damaged, RemoteError, UsageError
from ansible_collections.volt.backup.plugins.module_utils._remote import age, age_program, sealed
from ansible_collections.volt.backup.tests.unit.kit import cuts, digest, flips, noise

pytest.importorskip("cryptography")
IDENTITY = age.identity(digest(b"an identity of tests"))
RECIPIENT = age.recipient(IDENTITY)
#: Around the chunks of the format.
SIZES = (0, 1, 65535, 65536, 65537, 131072, 131073)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_sealed_can_be_opened(size: int) -> None:
    data = noise(size)
    for recipients in ([RECIPIENT], [age.recipient(age.new_identity()), RECIPIENT]):
        assert age.unseal(age.seal(data, recipients), [age.new_identity(), IDENTITY]) == data
    assert age.seal(data, [RECIPIENT]) != age.seal(data, [RECIPIENT])


@pytest.mark.skipif(shutil.which("age") is None, reason="not installed: age")
@pytest.mark.parametrize("size", SIZES)
def test_age_is_the_judge(tmp_path: Path, size: int) -> None:
    data = noise(size, "judge")
    (tmp_path / "identity").write_text(f"{IDENTITY}\n")
    (tmp_path / "plain").write_bytes(data)
    (tmp_path / "ours").write_bytes(age.seal(data, [RECIPIENT]))
    opened = subprocess.run(["age", "-d", "-i", tmp_path / "identity", tmp_path / "ours"], stdout=subprocess.PIPE, check=True).stdout
    theirs = subprocess.run(["age", "-r", RECIPIENT, tmp_path / "plain"], stdout=subprocess.PIPE, check=True).stdout
    assert opened == data and age.unseal(theirs, [IDENTITY]) == data
    said = subprocess.run(["age-keygen", "-y", tmp_path / "identity"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said.strip() == RECIPIENT


def test_library_and_program_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    if not age_program.is_there():
        pytest.skip("not installed: age")
    data, recovery = noise(70_000), sealed.new_recovery()
    by_library = age.seal(data, [RECIPIENT])
    keys = recovery.of_host("web1")
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    by_program = age.seal(data, [age.recipient(age.new_identity()), age.recipient(IDENTITY)])
    assert age.unseal(by_library, [age.new_identity(), IDENTITY]) == data and recovery.of_host("web1") == keys
    for spoilt in (by_library[:-1], by_library[:300] + b"x" + by_library[301:], b"", by_library + b"x"):
        with pytest.raises(Damaged):
            age.unseal(spoilt, [IDENTITY])
    with pytest.raises(UsageError):
        age.unseal(by_library, [IDENTITY[:-1] + "Q"])
    monkeypatch.undo()
    assert age.unseal(by_program, [IDENTITY]) == data
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    monkeypatch.setattr(age_program.shutil, "which", lambda _name: None)
    with pytest.raises(RemoteError, match="install python3-cryptography"):
        age.seal(data, [RECIPIENT])


def test_what_was_altered_is_refused() -> None:
    data = noise(70_000)
    stored = age.seal(data, [RECIPIENT])
    for _at, changed in flips(stored):
        with pytest.raises(Damaged):
            age.unseal(changed, [IDENTITY])
    for short in cuts(stored):
        with pytest.raises(Damaged):
            age.unseal(short, [IDENTITY])
    with pytest.raises(Damaged):
        age.unseal(stored + b"x", [IDENTITY])
    with pytest.raises(Damaged, match="not for this identity"):
        age.unseal(stored, [age.new_identity()])


def test_chunks_cannot_change_places() -> None:
    stored = age.seal(noise(3 * 65536), [RECIPIENT])
    start = len(stored) - 3 * 65552
    first, second, third = (stored[start + 65552 * number : start + 65552 * (number + 1)] for number in range(3))
    for order in ((second, first, third), (first, third), (first, second), (first, second, second, third)):
        with pytest.raises(Damaged):
            age.unseal(stored[:start] + b"".join(order), [IDENTITY])


@pytest.mark.parametrize("text", ["", "age1", RECIPIENT, IDENTITY[:-1], IDENTITY[:-1] + ("Q" if IDENTITY[-1] != "Q" else "P"), "AGE-SECRET-KEY-1" + "é" * 58])
def test_keys_that_are_none(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        age.recipient(text)
    assert not text or text not in str(caught.value)


def test_key_files(tmp_path: Path) -> None:
    recovery = sealed.new_recovery()
    place = str(tmp_path / "recovery")
    sealed.write(place, recovery.text())
    assert sealed.read_recovery(place) == recovery
    with pytest.raises(UsageError, match="not overwritten"):
        sealed.write(place, recovery.text())
    keys = recovery.of_host("web1")
    sealed.write(str(tmp_path / "web1"), keys.text())
    assert sealed.read_host(str(tmp_path / "web1")) == keys
    assert not any(secret in keys.text() for secret in (recovery.data, recovery.catalog, recovery.domain.hex()))
    assert len({keys.mac, keys.naming, recovery.of_host("web2").mac}) == 3 and keys.naming == recovery.of_host("web2").naming
    for path in (place, "/dev/null", str(tmp_path / "missing")):
        with pytest.raises(UsageError):
            sealed.read_host(path)
    for path in (str(tmp_path / "web1"), "/dev/null", str(tmp_path / "missing")):
        with pytest.raises(UsageError):
            sealed.read_recovery(path)
