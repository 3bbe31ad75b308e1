# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a key completes: the words themselves, and that bash, zsh and fish show them."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.volt.backup.plugins.module_utils._runner import cli, completion, upkeep

from .. import kit

WORKLOADS = ("app", "data-base")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the command, a store of two workloads, and a directory whose name has a blank."""
    top = tmp_path_factory.mktemp("completion")
    command = top / "volt-backup"
    command.write_bytes(kit.command())
    command.chmod(0o755)
    (top / "one place").mkdir()
    for workload in WORKLOADS:
        assert cli.main(["create", workload, "--source", f"{top}/one place", "--quiet", *named(top)]) == upkeep.DONE
    return top


def named(top: Path) -> list[str]:
    return ["--store", f"{top}/store", "--backup-dir", f"{top}/records"]


def words(*typed: str) -> list[str]:
    """Candidates without what they are for."""
    return [line.partition("\t")[0] for line in completion.answer(cli.parser(), typed)]


def ids(top: Path) -> list[str]:
    return sorted((path.stem for path in (top / "records").glob("*.json") if not path.name.startswith(".")), reverse=True)


def test_commands_and_options() -> None:
    every = words("")
    assert {"create", "restore", "completion"} <= set(every) and words("res") == ["restore"] and words("help", "res") == ["restore"]
    assert words("--quiet", "--lock-timeout", "5", "cre") == ["create"]
    assert words("restore", "--st") == ["--store", "--strategy"] and words("restore", "--strategy", "") == ["auto", "replace", "in_place"]
    assert words("create", "app", "--source", "") == [completion.DIRECTORIES]
    assert words("status", "--metrics", "/v") == [completion.FILES]
    assert words("nothing", "") == every and words("list", "app", "more", "") == [] and words("list", "--limit", "") == []
    assert words("completion", "f") == ["fish"]
    for command in every:
        assert words(command, "--help") == ["--help"]


def test_backups_and_workloads(place: Path) -> None:
    store, found = named(place), ids(place)
    assert words(*store, "show", "") == words("show", *store, "") == found and len(found) == len(WORKLOADS)
    assert words("show", *store, "data-base-2") == [found[0]]
    assert words("restore", *store, "") == [*found, *WORKLOADS, "latest"]
    assert words("prune", *store, "d") == ["data-base"]
    assert words("verify", *store, "--id", "app") == [found[1]]
    assert words("adopt", *store, found[0], "app") == [found[1]]


def test_paths_of_a_backup(tmp_path: Path) -> None:
    """With the source in front, too. Where no backup is named, a path of the host may be meant."""
    source, store = tmp_path / "source", named(tmp_path)
    for name in ("conf/app.conf", "conf/deep/x", "a\nb", "data"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("")
    assert cli.main(["create", "app", "--source", str(source), "--quiet", *store]) == upkeep.DONE
    before = sorted(tmp_path.rglob("*"))
    assert words("ls", *store, "app", "") == ["a\\x0ab", "conf/", "data"] and words("cat", *store, "latest", "d") == ["data"]
    assert words("cat", *store, "app", "conf/") == ["conf/app.conf", "conf/deep/"]
    assert words("cat", *store, "app", f"{source}/conf/a") == [f"{source}/conf/app.conf"]
    assert words("cat", *store, "app", "none/") == words("cat", *store, "other", "") == words("cat", *store, "--remote", "x", "app", "") == []
    assert words("history", *store, "c") == [completion.FILES]
    assert sorted(tmp_path.rglob("*")) == before


def test_asks_nothing_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no store, or none may be read, nothing is complained of."""
    (tmp_path / "file").write_text("")
    for store in ("none", "file"):
        assert words("show", "--store", f"{tmp_path}/{store}", "--backup-dir", f"{tmp_path}/{store}", "") == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert cli.main(["completion", "words", "--", "list", "--", "--qu"]) == upkeep.DONE
    assert cli.main(["completion", "words", "--", "list", "--qui"]) == upkeep.DONE
    assert capsys.readouterr().out.splitlines()[-1].startswith("--quiet\t")
    assert cli.main(["completion", "bash", "more"]) == upkeep.USAGE


@pytest.mark.parametrize("typed", [["--"], ["restore", "--"], ["restore", "app", "--"], ["restore", "--", ""], ["restore", "--", "--"]])
def test_two_dashes_reach_it_as_they_were_typed(typed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse drops them from a list of operands. A key after `restore --` must offer its options."""
    assert cli.main(["completion", "words", "--", *typed]) == upkeep.DONE
    assert capsys.readouterr().out.splitlines() == completion.answer(cli.parser(), typed)


def test_values_behind_an_equals_sign(place: Path) -> None:
    """As one word, and as bash has it, which breaks words there."""
    store = [f"--store={place}/store", f"--backup-dir={place}/records"]
    broken = [part for word in store for part in word.partition("=")]
    for given in (store, broken):
        assert words("show", *given, "") == words(*given, "show", "") == ids(place)
    assert words("restore", "app", "--strategy=a") == ["--strategy=auto"]
    assert words("restore", "--strategy", "=") == ["auto", "replace", "in_place"] and words("restore", "--strategy", "=", "a") == ["auto"]
    assert bash(place, "restore", "--strategy", "=", "a") == ["auto"]


def call(shell: str, place: Path, text: str, *arguments: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    environment = {"PATH": f"{place}:{os.environ['PATH']}", "HOME": str(place), "LC_ALL": "C.UTF-8", "XDG_DATA_HOME": str(place / "xdg")}
    done = subprocess.run(
        [shell, *arguments, "-c", text], cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def bash(place: Path, *typed: str) -> list[str]:
    quoted = " ".join(f"'{word}'" for word in ("volt-backup", *typed))
    return call(
        "bash", place, f"""set -u; compopt() {{ :; }}  # which bash has only while a key is pressed
        source <(volt-backup completion bash)
        [[ $(complete -p volt-backup) == 'complete -F _volt_backup volt-backup' ]] || exit 1
        COMP_WORDS=({quoted}); COMP_CWORD={len(typed)}
        _volt_backup volt-backup "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
        """, "--norc", "--noprofile",
    )  # fmt: skip


def test_bash(place: Path) -> None:
    assert bash(place, "res") == ["restore"]
    assert bash(place, "restore", "--st") == ["--store", "--strategy"]
    assert {"--store", "--strategy"} <= set(bash(place, "restore", "--"))
    assert bash(place, "show", *named(place), "") == ids(place)
    assert bash(place, "create", "app", "--source", f"{place}/one") == [f"{place}/one place"]
    assert "one place" in bash(place, "restore", "app", "--path", "")


def test_fish(place: Path) -> None:
    def fish(line: str) -> list[str]:
        return call("fish", place, f"volt-backup completion fish | source; complete -C '{line}'", "--no-config")

    assert fish("volt-backup res") == ["restore\trestore a backup"]
    assert [line.partition("\t")[0] for line in fish("volt-backup restore --st")] == ["--store", "--strategy"]
    assert fish("~/volt-backup res") == ["restore\trestore a backup"]
    assert [line.partition("\t")[0] for line in fish(f"volt-backup show {' '.join(named(place))} app")] == [ids(place)[1]]
    assert [line.partition("\t")[0] for line in fish(f"volt-backup create app --source {place}/sto")] == [f"{place}/store/"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
@pytest.mark.parametrize("way", ["autoload", "source"])
def test_zsh(place: Path, way: str) -> None:
    """In a terminal, as zsh completes nowhere else: by the function in `fpath`, and by the script as it is read."""
    functions = place / "functions"
    functions.mkdir(exist_ok=True)
    (functions / "_volt-backup").write_text(completion.script("zsh"), encoding="utf-8")
    begin = f"fpath=({functions} $fpath); " if way == "autoload" else ""
    begin += f"autoload -Uz compinit; compinit -u -d {place}/dump-{way}"
    begin += "; source <(volt-backup completion zsh)" if way == "source" else ""
    with Zsh(place) as zsh:
        zsh.type(f"{begin}; print ready=$((6*7))\n", "ready=42")
        shown = zsh.type("volt-backup restore --st\t", "--strategy")
        assert "replace the tree as a whole" in shown and "--store" in shown
        zsh.type("\x15", "")
        zsh.type("volt-backup sho\t", "show")
        shown = zsh.type(f"{' '.join(named(place))} app\t", ids(place)[1])


class Zsh:
    """A shell in a terminal, without settings of a user."""

    def __init__(self, place: Path) -> None:
        self.pid, self._fd = pty.fork()
        if not self.pid:
            os.chdir(place)
            os.execvpe(
                "zsh", ["zsh", "-f", "-i"],
                {"PATH": f"{place}:{os.environ['PATH']}", "HOME": str(place), "TERM": "xterm", "COLUMNS": "200", "LINES": "40", "LC_ALL": "C.UTF-8"},
            )  # fmt: skip

    def __enter__(self) -> Zsh:
        return self

    def __exit__(self, *_error: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)

    def type(self, text: str, expected: str) -> str:
        """What it shows after some keys, until what is expected is there."""
        os.write(self._fd, text.encode())
        shown, until = "", time.monotonic() + 30
        while time.monotonic() < until:
            if select.select([self._fd], [], [], 0.5)[0]:
                shown += os.read(self._fd, 65536).decode(errors="replace")
            elif expected in shown:
                return shown
        raise AssertionError(f"{expected!r} is not in {shown!r}")
