# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept between starts is what is there: a changed source is compiled again, and a changed module is packed again."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
ANSIBLE = Path(sys.executable).with_name("ansible")
MODULE = """from ansible.module_utils.basic import AnsibleModule
from ansible_collections.volt.backup.plugins.module_utils.{helper} import WORD
AnsibleModule({{}}).exit_json(word=WORD)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site directory of which Pythons keep what they compile."""
    (tmp_path / "site").mkdir()
    code = f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import quick; quick.install({str(tmp_path / 'site')!r}, {str(tmp_path / 'kept')!r})"
    subprocess.run([sys.executable, "-S", "-c", code], check=True)
    return tmp_path / "site"


def run(site: Path, archive: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Import `it` from an archive, in a Python that has no other site directory."""
    code = f"import site, sys; site.addsitedir({str(site)!r}); sys.path.insert(0, {str(archive)!r}); import it; print(it.word(), it.__file__)"
    return subprocess.run([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=check)


def pack(path: Path, text: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("it.py", text)
    return path


def test_code_is_that_of_the_source(site: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    pack(first, "def word():\n    return 1\n")
    assert run(site, first).stdout == f"1 {first}/it.py\n"
    kept = list((tmp_path / "kept/code").iterdir())
    assert len(kept) == 1
    first.rename(second)
    assert run(site, second).stdout == f"1 {second}/it.py\n"
    assert list((tmp_path / "kept/code").iterdir()) == kept
    pack(second, "def word():\n    return 2\n")
    assert run(site, second).stdout == f"2 {second}/it.py\n"


def test_a_traceback_names_the_archive_of_today(site: Path, tmp_path: Path) -> None:
    text = "def word():\n    raise ValueError\n"
    assert f"{tmp_path}/first.zip/it.py" in run(site, pack(tmp_path / "first.zip", text), check=False).stderr
    said = run(site, pack(tmp_path / "second.zip", text), check=False).stderr
    assert f"{tmp_path}/second.zip/it.py" in said and "first.zip" not in said


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, None], ids=["empty", "zeros", "a directory"])
def test_what_cannot_be_read_is_made_again(site: Path, tmp_path: Path, damage: bytes | None) -> None:
    archive = pack(tmp_path / "first.zip", "def word():\n    return 1\n")
    run(site, archive)
    (kept,) = (tmp_path / "kept/code").iterdir()
    if damage is None:
        kept.unlink()
        kept.mkdir()
    else:
        kept.write_bytes(damage)
    assert run(site, archive).stdout == f"1 {archive}/it.py\n"


def test_a_module_is_that_of_its_sources(tmp_path: Path) -> None:
    """The environment that runs these tests keeps modules. A change to what a module imports is seen, also where its size stays."""
    plugins = tmp_path / "ansible_collections/volt/backup/plugins"
    for name in ("modules", "module_utils"):
        (plugins / name).mkdir(parents=True)
    (plugins / "modules/said.py").write_text(MODULE.format(helper="helper"))
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(tmp_path), "HOME": str(tmp_path), "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
    for word in ("one", "two", "six"):
        (plugins / "module_utils/helper.py").write_text(f"WORD = {word!r}\n")
        for _time in range(2):
            done = subprocess.run([ANSIBLE, "localhost", "-m", "volt.backup.said"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, check=False)  # fmt: skip
            assert f'"word": "{word}"' in done.stdout, done.stdout
