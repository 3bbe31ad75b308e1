# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What volt_runner writes, replaces and removes; and that Ansible's own payload makes the same file of itself as the sources do."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils import _version
from ansible_collections.volt.backup.plugins.module_utils._base import VoltError
from ansible_collections.volt.backup.plugins.module_utils._runner import archive, beside, cli, completion, page
from ansible_collections.volt.backup.plugins.module_utils._schedule import command, job

from .conftest import NOBODY, Host

PYTHONS = [path for path in os.environ.get("VOLT_PYTHONS", "").split(":") if path] or [sys.executable]
AFTER = command.describe(archive.build())


def older(version: str) -> bytes:
    """A command of another version."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.comment = command.stamp(command.CommandStamp(version, job.FORMAT))
    return file.getvalue()


def both(host: Host, **parameters: Any) -> dict[str, Any]:
    """What check mode says, held against what happens, and that it happens once."""
    path = str(host.top / "volt-backup")
    before = host.everything()
    said = host.run("volt_runner", check=True, path=path, **parameters)
    assert host.everything() == before
    done = host.run("volt_runner", path=path, **parameters)
    said, done = ({key: result[key] for key in ("changed", "path", "version", "job_format", "diff")} for result in (said, done))
    assert said == done
    for check in (True, False):
        again = host.run("volt_runner", check, path=path, **parameters)
        assert not again["changed"] and again["diff"] == {"before": done["diff"]["after"], "after": done["diff"]["after"]}
    return done


def test_present_and_absent(host: Host) -> None:
    path = str(host.top / "volt-backup")
    assert not both(host, state="absent")["changed"]
    wanted = {"path": path, "version": _version.VERSION, "job_format": job.FORMAT}
    previous = os.umask(0o077)
    try:
        done = both(host)
    finally:
        os.umask(previous)
    assert done == {"changed": True, **wanted, "diff": {"before": "", "after": AFTER}}
    assert os.stat(path).st_mode & 0o7777 == 0o755
    assert command.describe(Path(path).read_bytes()) == AFTER
    gone = {"path": path, "version": None, "job_format": None}
    assert both(host, state="absent") == {"changed": True, **gone, "diff": {"before": AFTER, "after": ""}}
    assert not os.path.lexists(path)


BESIDE = ["share/man/man8/volt-backup.8", "share/bash-completion/completions/volt-backup", "share/zsh/site-functions/_volt-backup",
          "share/fish/vendor_completions.d/volt-backup.fish"]  # fmt: skip


@pytest.mark.parametrize("room", ["bin", "sbin"])
def test_manual_page_and_completion_come_and_go_with_the_command(host: Host, room: str) -> None:
    path = str(host.top / room / "volt-backup")
    (host.top / room).mkdir()

    def twice(**parameters: Any) -> dict[str, Any]:
        before = host.everything()
        said = host.run("volt_runner", check=True, path=path, **parameters)
        assert host.everything() == before
        done = host.run("volt_runner", path=path, **parameters)
        assert (said["changed"], said["diff"]) == (done["changed"], done["diff"])
        assert not host.run("volt_runner", path=path, **parameters)["changed"]
        return done

    previous = os.umask(0o077)
    try:
        done = twice()
    finally:
        os.umask(previous)
    assert done["changed"] and done["diff"]["after"].count("\n") == AFTER.count("\n") + len(BESIDE) and not done.get("warnings")
    manual, *scripts = [host.top / place for place in BESIDE]
    assert manual.read_text() == page.render(cli.parser())
    assert [script.read_text() for script in scripts] == [completion.script(shell) for shell in completion.SHELLS]
    assert {(host.top / place).stat().st_mode & 0o777 for place in BESIDE} == {0o644}
    assert {(host.top / place).parent.stat().st_mode & 0o777 for place in BESIDE} == {0o755}

    manual.write_text(manual.read_text() + "more")
    scripts[0].chmod(0o600)
    scripts[1].unlink()
    done = twice()
    assert done["changed"] and done["diff"]["before"] != done["diff"]["after"] == AFTER + beside.Beside(path).before

    assert twice(state="absent")["diff"]["after"] == ""
    assert not any(os.path.lexists(host.top / place) for place in (*BESIDE, f"{room}/volt-backup"))


def test_what_others_wrote_beside_the_command_stays(host: Host) -> None:
    for place in ("bin", *(os.path.dirname(place) for place in BESIDE)):
        (host.top / place).mkdir(parents=True, exist_ok=True)
    (host.top / BESIDE[0]).write_text("another page")
    (host.top / BESIDE[1]).symlink_to("elsewhere")
    os.mkfifo(host.top / BESIDE[2])
    (host.top / BESIDE[3]).mkdir()
    others = [os.lstat(host.top / place) for place in BESIDE]
    for state in ("present", "absent"):
        for check in (True, False):
            done = host.run("volt_runner", check, path=str(host.top / "bin/volt-backup"), state=state)
            assert done["changed"] and len(done["warnings"]) == len(BESIDE)
            for place, warning in zip(BESIDE, done["warnings"]):
                assert f"{host.top / place} was not written by volt_runner and is left alone." in str(warning)
    assert [os.lstat(host.top / place)[:7] for place in BESIDE] == [other[:7] for other in others]  # without times: they are read


def test_what_two_commands_share_goes_with_the_last(host: Host) -> None:
    """A play that moves the command from `sbin` to `bin` changes something once."""
    new, old = (str(host.top / room / "volt-backup") for room in ("bin", "sbin"))
    for room in ("bin", "sbin"):
        (host.top / room).mkdir()
    host.run("volt_runner", path=old)
    for changed in (True, False):
        assert host.run("volt_runner", path=new)["changed"] is changed
        assert host.run("volt_runner", check=True, path=old, state="absent")["changed"] is changed
        assert host.run("volt_runner", path=old, state="absent")["changed"] is changed
        assert all((host.top / place).is_file() for place in BESIDE)
    (host.top / "sbin").rmdir()
    (host.top / "sbin").symlink_to("bin")  # as some distributions have it: one command of two names
    assert host.run("volt_runner", path=new, state="absent")["changed"]
    assert not any(os.path.lexists(host.top / place) for place in BESIDE)


def test_nothing_to_remove_is_no_reason_to_warn(host: Host) -> None:
    (host.top / "bin").mkdir()
    (host.top / "share").write_text("no directory")
    for check in (True, False):
        done = host.run("volt_runner", check, path=str(host.top / "bin/volt-backup"), state="absent")
        assert not done["changed"] and not done.get("warnings")


@pytest.mark.parametrize("path", ["/bin/volt-backup", "/sbin/volt-backup", "//bin/volt-backup", "/usr/sbin/volt-backup"])
def test_the_root_directory_gets_no_share(path: str) -> None:
    assert {place.rsplit("/", 1)[0] for place in beside._all(path)} == {f"/usr/{os.path.dirname(place)}" for place in BESIDE}


def test_a_link_put_in_place_of_a_new_directory_changes_no_mode_elsewhere(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the owner of the directory above it."""
    (host.top / "bin").mkdir()
    secret = host.top / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    make = os.mkdir

    def replaced(path: str, *mode: Any, **options: Any) -> None:
        make(path, *mode, **options)
        if path == str(host.top / "share"):
            os.rmdir(path)
            os.symlink(secret, path)

    monkeypatch.setattr(os, "mkdir", replaced)
    around = beside.Beside(str(host.top / "bin/volt-backup"))
    with pytest.raises(VoltError):
        around.write()
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_manual_page_that_cannot_be_written_keeps_no_command_away(host: Host) -> None:
    (host.top / "bin").mkdir()
    (host.top / "share").write_text("no directory")
    for changed in (True, False):
        done = host.run("volt_runner", path=str(host.top / "bin/volt-backup"))
        assert done["changed"] is changed and len(done["warnings"]) == len(BESIDE)
        assert "is left alone: not a directory" in str(done["warnings"][0])


@pytest.mark.parametrize("version", ["0.0.9", "99.0.0", _version.VERSION])
def test_replaces_any_other(host: Host, version: str) -> None:
    """Also one of the same version with other bytes, as while one works on it."""
    path = host.top / "volt-backup"
    path.write_bytes(older(version))
    path.chmod(0o755)
    done = both(host)
    assert done["changed"] and done["diff"] == {"before": command.describe(older(version)), "after": AFTER}


def test_fixes_the_mode(host: Host) -> None:
    path = host.top / "volt-backup"
    command.write(str(path), archive.build())
    path.chmod(0o644)
    assert both(host)["changed"]


def test_removes_what_it_wrote_once(host: Host) -> None:
    (host.top / "volt-backup").write_bytes(older("0.0.9"))
    assert both(host, state="absent")["changed"]


def test_noexec_is_reported(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_flag=os.ST_NOEXEC))
    for check in (True, False):
        (warning,) = host.run("volt_runner", check, path=str(host.top / "volt-backup"))["warnings"]
        assert f"The file system of {host.top} is mounted noexec" in str(warning)


def test_path_of_any_bytes(host: Host) -> None:
    done = host.run("volt_runner", path=f"{host.top}/caf\\xe9")
    assert done["path"] == f"{host.top}/caf\\xe9"
    assert os.path.exists(os.fsencode(host.top) + b"/caf\xe9")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_not_allowed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    made, said = archive.build(), archive.describe()  # another user may not read the checkout; of a module's payload it may
    monkeypatch.setattr(archive, "build", lambda: made)
    monkeypatch.setattr(archive, "describe", lambda: said)
    failure = host.run("volt_runner", user=NOBODY, path="/usr/volt-backup-never")
    assert failure["code"] == "error" and "cannot be written: permission denied; fix that" in failure["msg"]


def test_the_payload_makes_the_same(host: Host) -> None:
    """Ansible sends what the module imports. A module of the engine that nothing imports would be missing: import it in `archive`."""
    (host.top / "inventory").write_text(
        "".join(f"host{number} ansible_connection=local ansible_python_interpreter={python}\n" for number, python in enumerate(PYTHONS))
    )
    own = {"HOME": str(host.top / "home"), "ANSIBLE_REMOTE_TMP": str(host.top / "remote"), "LC_ALL": "C.UTF-8"}
    arguments = json.dumps({"path": f"{host.top}/{{{{ inventory_hostname }}}}", "store": str(host.store), "backup_dir": str(host.backups)})
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible")), "all", "-i", "inventory", "-m", "volt.backup.volt_runner", "-a", arguments],
        cwd=host.top, env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    for number in range(len(PYTHONS)):
        made = (host.top / f"host{number}").read_bytes()
        with zipfile.ZipFile(io.BytesIO(made)) as sent, zipfile.ZipFile(io.BytesIO(archive.build())) as tree:
            assert sent.namelist() == tree.namelist()
            assert all(sent.read(name) == tree.read(name) for name in tree.namelist() if name.endswith(".py"))
