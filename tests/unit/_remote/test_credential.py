# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that systemd keeps, by its own program."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import RemoteError, UsageError
from ansible_collections.volt.backup.plugins.module_utils._remote import credential, s3_client, sealed
from ansible_collections.volt.backup.tests.rigs import need

HOST_KEY = Path("/var/lib/systemd/credential.secret")
PLACE = s3_client.Place("bucket")
OWN = {"access_key": "AK", "secret_key": "hidden"}


class Kept:
    """Places of credentials, as systemd has them, in a directory of the test."""

    def __init__(self, top: Path) -> None:
        self.encrypted, self.plain = top / "credstore.encrypted", top / "credstore"
        self.encrypted.mkdir()
        self.plain.mkdir()

    def encrypt(self, name: str, text: str) -> None:
        need("systemd-creds", root=True)
        subprocess.run(["systemd-creds", "encrypt", "--with-key=host", f"--name={name}", "-", self.encrypted / name], input=text, text=True, check=True)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """The key of the host is made by the first use, and removed again."""
    made = not HOST_KEY.exists()
    found = Kept(tmp_path)
    monkeypatch.setattr(credential, "PLACES", ((str(found.encrypted), True), (str(found.plain), False)))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    yield found
    if made:
        HOST_KEY.unlink(missing_ok=True)


def test_where_they_are_looked_for(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the unit loads comes first, then what is encrypted, then what is plain."""
    with pytest.raises(RemoteError, match="There is no credential s3 in .*; make it with systemd-creds encrypt"):
        credential.read("s3")
    (kept.plain / "s3").write_text("plain")
    assert credential.read("s3") == "plain"
    kept.encrypt("s3", "encrypted")
    assert credential.read("s3") == "encrypted" and b"encrypted" not in (kept.encrypted / "s3").read_bytes()
    (tmp_path / "given").mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "given"))
    assert credential.read("s3") == "encrypted"
    (tmp_path / "given" / "s3").write_text("given")
    assert credential.read("s3") == "given"


def test_one_that_cannot_be_decrypted(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.encrypt("s3", "hidden")
    os.rename(kept.encrypted / "s3", kept.encrypted / "other")  # its name is part of what is sealed
    with pytest.raises(RemoteError, match=r"Credential other cannot be decrypted \(.+\); encrypt it again on this host\."):
        credential.read("other")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RemoteError, match="this host has no systemd-creds"):
        credential.read("other")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\n", "-x", "ä", "x" * 129, None])
def test_a_name_is_no_path(kept: Kept, name: str) -> None:
    with pytest.raises(UsageError, match="is invalid; use letters"):
        credential.read(name)


def test_credentials_of_s3(kept: Kept) -> None:
    kept.encrypt("s3", json.dumps(OWN))
    assert s3_client.open_credential(PLACE, "s3") == OWN
    os.truncate(kept.encrypted / "s3", 10)
    with pytest.raises(RemoteError, match="Credential s3 cannot be decrypted"):  # before anything is sent
        s3_client.Client(PLACE, {"credential": "s3"}, "", "", 1)


@pytest.mark.parametrize("text", ["", "hidden", "[]", "{}", '"hidden"', json.dumps({"credential": "s3"})])
def test_a_credential_that_holds_none(kept: Kept, text: str) -> None:
    (kept.plain / "s3").write_text(text)
    with pytest.raises(UsageError, match="Credential s3 is not a JSON object with `access_key`") as caught:
        s3_client.open_credential(PLACE, "s3")
    assert "hidden" not in caught.value.message


@pytest.mark.parametrize(
    "given",
    [{"credential": "s3", **OWN}, {"credential": "s3", "profile": "p"}, {"credential": ""}, {"access_key": "AK"}, {"session_token": "t"}],
)
def test_one_way_at_a_time(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="credentials need"):
        s3_client.check_credentials(PLACE, given)


def test_keys_of_a_host(kept: Kept, tmp_path: Path) -> None:
    text = sealed.new_recovery().of_host("web1").text()
    kept.encrypt("vault", text)
    (tmp_path / "keys").write_text(text)
    assert sealed.read_host("credential:vault") == sealed.read_host(str(tmp_path / "keys"))
