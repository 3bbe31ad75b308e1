# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gates: all checks and tests of the project, how each is called, and in which lane it runs.

    python3 gates.py check      what is quick: lint and unit tests
    python3 gates.py test       every gate, in lanes side by side
    python3 gates.py long       the same with every point of what is sampled otherwise, and the fresh machine
    python3 gates.py NAME...    some gates, one after the other, their output in front
    python3 gates.py pytest ... pytest as the gates call it, with arguments of one's own

Lanes: `hosts` waits for machines that boot and timers that tick; `compute` has a place for each of this machine's cores, and that of `hosts` once
these are done. What is made lies in .cache of the checkout (mirrors, logs, reports) and in the user's cache (environments, homes of tools, trees
of hosts).
"""

from __future__ import annotations

import fcntl
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import environments
import lanes
import pythons
import quick
import report
from lanes import Gate

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / ".cache"
LOGS, REPORTS = SCRATCH / "log", SCRATCH / "report"
TOOLS = ROOT / "tests" / "tools"
COLLECTION = Path("ansible_collections", "volt", "backup")
LINK = SCRATCH / "link"
ENDS = ("oldest", "newest")
#: Free bytes that all gates need in each of the places that they write to.
_ROOM = 4 << 30
#: Which cases are taken of what is sampled: others in each week, the same ones within it. VOLT_SEED=N takes others, VOLT_TESTS=long all.
SEED = os.environ.get("VOLT_SEED") or time.strftime("%G%V", time.gmtime())

#: Variables that make tests differ, or that lead git and pip elsewhere.
_DISTURBING = ("ANSIBLE_", "GIT_", "MOLECULE_", "PYTEST_", "PYTHON")

Command = tuple[Sequence[str], Mapping[str, str], Path]


def thorough() -> bool:
    """Whether nothing is to be left out."""
    return os.environ.get("VOLT_TESTS") == "long"


def mirror(name: str) -> Path:
    """A copy of the collection for some gates alone, below a directory for ANSIBLE_COLLECTIONS_PATH."""
    return SCRATCH / "mirror" / name


def env(name: str, **more: str) -> dict[str, str]:
    """The environment of a gate: what the user has, without what would make tests differ, and the programs of one of our environments first.

    PATH has no shims of pyenv, but the directories of every interpreter found: ansible-test looks for them there.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_DISTURBING)}
    found = pythons.found()
    path = [str(environments.environment(name) / "bin")]
    path += [entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if not entry.endswith("/shims")]
    path += [os.path.dirname(python) for python in found]
    return {
        **kept,
        "HOME": str(environments.cache() / "home" / name),
        "XDG_CACHE_HOME": str(environments.cache().parent),
        "PATH": os.pathsep.join(path),
        "LC_ALL": "C.UTF-8",  # Ansible wants UTF-8, and a fresh Debian has no locale set
        "NO_COLOR": "1",
        "ANSIBLE_COLLECTIONS_PATH": str(mirror("tools")),
        "VOLT_PYTHONS": os.pathsep.join(found),
        "VOLT_SEED": SEED,
        **more,
    }


def prepare(name: str) -> Callable[[], Command]:
    """Make an environment, a home for its tools and a mirror."""

    def command() -> Command:
        steps: list[tuple[object, ...]] = [("home", environments.cache() / "home" / name), ("mirror", ROOT, mirror(name) / COLLECTION)]
        if name == "tools":
            steps.append(("link", ROOT, LINK / COLLECTION))
        lines = [f'place="$(python3 {shlex.quote(str(TOOLS))}/environments.py {name})"']
        lines += [shlex.join(["PYTHON", str(TOOLS / "scratch.py"), *map(str, step)]).replace("PYTHON", '"$place"/bin/python', 1) for step in steps]
        return ["sh", "-ec", "\n".join(lines)], {key: value for key, value in os.environ.items() if not key.startswith(_DISTURBING)}, ROOT

    return command


def tool(*script: str) -> Callable[[], Command]:
    """Lines of shell in the mirror of the tools."""
    return lambda: (["bash", "-euo", "pipefail", "-c", "\n".join(script)], env("tools"), mirror("tools") / COLLECTION)


def ansible_test(end: str, what: str, *options: str) -> Callable[[], Command]:
    """ansible-test of one end. Sanity makes virtual environments in the shared home, so runs of other checkouts wait for it; it finds them made quick."""

    def command() -> Command:
        if what == "integration" and shutil.which("ssh-keygen") is None:  # ansible-test wants it, though these targets use no ssh
            return ["echo", "no integration tests: ssh-keygen is not installed"], env(end), ROOT
        place = environments.environment(end)
        version = subprocess.run([place / "bin/python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], stdout=subprocess.PIPE, text=True,
                                 check=True).stdout.strip()  # fmt: skip
        python = ["--python", version, *some_units(end)] if what == "units" else []
        home = environments.cache() / "home" / end
        before: list[str] = []
        if what == "sanity":
            made = ["sh", "-ec", 'python "$0" "$1" "$2"; shift 2; exec "$@"', str(TOOLS / "quick.py"), str(home), str(environments.cache() / "quick")]
            before = ["flock", "--no-fork", f"{home}.lock", *made, *some_lint(end)]
        return [*before, "ansible-test", what, "--local", "--color", "no", *python, *options], env(end), mirror(end) / COLLECTION

    return command


def some_units(end: str) -> list[str]:
    """Files of unit tests for one end: a third, by the seed, for the oldest one, whose Python runs all other tests as well; for the newest one all."""
    if end != "oldest" or thorough():
        return []
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/unit/**/test_*.py"))
    return sorted(random.Random(SEED).sample(files, len(files) // 3))


def some_lint(end: str) -> list[str]:
    """The command that runs ansible-test sanity. On the oldest end, pylint checks the plugins alone: it takes half of the time."""
    if end != "oldest" or thorough():
        return []
    return ["sh", "-ec", '"$@" --skip-test pylint; "$@" --test pylint plugins/', "sh"]


def checkout(module: str, *arguments: str) -> Callable[[], Command]:
    """A Python module that imports from the checkout."""
    paths = {"PYTHONPATH": str(LINK), "ANSIBLE_COLLECTIONS_PATH": str(LINK), "HYPOTHESIS_STORAGE_DIRECTORY": str(SCRATCH / "hypothesis")}
    return lambda: (["python", "-m", module, *arguments], env("tools", **paths), ROOT)


def pytest(name: str, *arguments: str) -> Callable[[], Command]:
    """pytest over the checkout itself. Where pytest-ansible is loaded, the process is a control node, in which modules behave otherwise."""
    return checkout("pytest", f"--junitxml={REPORTS / name}.xml", *arguments)


ALONE = ("-p", "no:pytest-ansible")
HOSTS = ("--ansible-unit-inject-only", "--molecule", "tests/fleet", "extensions/molecule")
#: Without root, targets that need it are left out.
ROOT_ONLY = ("--allow-root",) if os.geteuid() == 0 else ()
ARTIFACT, INSTALLED = shlex.quote(str(SCRATCH / "artifact")), shlex.quote(str(SCRATCH / "installed"))

GATES = (
    Gate("tools", "makes the environment of linters and pytest", "compute", (), prepare("tools")),
    Gate("images", "makes the trees that real hosts boot from", "compute", ("tools",), checkout("ansible_collections.volt.backup.tests.rigs.images")),
    Gate("hosts", "tests on real hosts, Molecule's scenarios, a machine whose clock jumps", "hosts", ("images",), pytest("hosts", *HOSTS), patient=False),
    Gate("oldest", "makes the environment of the oldest ansible-core", "compute", (), prepare("oldest")),
    Gate("newest", "makes the environment of the newest ansible-core", "compute", (), prepare("newest")),
    Gate("crash", "kills, errors and power cuts at the engine's system calls", "compute", ("tools",), pytest("crash", *ALONE, "tests/crash")),
    Gate("servers", "makes what S3 servers run from", "compute", ("tools",), checkout("ansible_collections.volt.backup.tests.rigs.s3_servers")),
    Gate("system", "the engine on real file systems, and on real S3 servers", "compute", ("servers",),
         pytest("system", *ALONE, "-n", "2", "--dist", "loadfile", "tests/system")),
    Gate("module", "modules in process; every example of the documentation", "compute", ("tools",), pytest("module", *ALONE, "tests/module")),
    *(
        Gate(f"{what}-{end}", f"ansible-test {what}, {end} ansible-core", "compute", (end,), ansible_test(end, what, *options))
        for end in ENDS
        for what, options in (("integration", ROOT_ONLY), ("units", ()), ("sanity", ()))
    ),
    Gate("rigs", "the tests' own tools", "compute", ("tools",), pytest("rigs", *ALONE, "tests/rigs")),
    Gate("lint", "ruff; reuse; antsibull-changelog; ansible-lint with its production profile", "compute", ("tools",),
         tool("ruff check .", "reuse lint --lines", "antsibull-changelog lint", "ansible-lint --offline --strict")),
    Gate("docs", "antsibull-docs over the documentation of modules and roles", "compute", ("tools",),
         tool("antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs self --disallow-unknown-collection-refs .")),
    Gate("writer", "makes the environment of Sphinx", "compute", (), prepare("site")),
    Gate("site", "the documentation as a site; a warning fails", "compute", ("writer",),
         lambda: (["bash", "tests/tools/site.sh", str(SCRATCH / "site")], env("site", ANSIBLE_COLLECTIONS_PATH=str(mirror("site"))),
                  mirror("site") / COLLECTION)),
    Gate("build", "ansible-galaxy builds the collection and installs it; ansible-doc finds it there", "compute", ("tools",),
         tool(f"rm -rf {ARTIFACT} {INSTALLED}", f"ansible-galaxy collection build --output-path {ARTIFACT}",
              f"export ANSIBLE_COLLECTIONS_PATH={INSTALLED}", f"ansible-galaxy collection install --offline -p {INSTALLED} {ARTIFACT}/*.tar.gz",
              "ansible-doc --type module volt.backup.volt_backup >/dev/null")),
    Gate("checker", "makes the environment of galaxy-importer", "compute", (), prepare("importer")),
    Gate("importer", "galaxy-importer on the artifact; a warning fails too", "compute", ("build", "checker"),
         lambda: (["bash", "-euo", "pipefail", "-c", f"cd {ARTIFACT}; python -m galaxy_importer.main *.tar.gz 2>&1 | tee importer.log\n"
                   "! grep -E '^(WARNING|ERROR)' importer.log"], env("importer", GALAXY_IMPORTER_CHECK_REQUIRED_TAGS="true"), SCRATCH)),
)  # fmt: skip
#: Only in `check`: in `test`, ansible-test runs the same on both ends.
UNIT = Gate("unit", "unit tests", "compute", ("tools",), pytest("unit", *ALONE, "-n", "2", "tests/unit"))
#: Only in `long`.
FRESH = Gate("fresh", "make test on a fresh Debian, as root and not, in narrow places", "hosts", ("tools",), pytest("fresh", *ALONE, "tests/fresh"))
KNOWN = {gate.name: gate for gate in (*GATES, UNIT, FRESH)}


def reports(gates: Sequence[Gate]) -> dict[str, Path]:
    """Where each gate that runs tests leaves its report."""
    found = {name: REPORTS / f"{name}.xml" for name in ("hosts", "crash", "system", "module", "rigs", "unit", "fresh")}
    found |= {f"units-{end}": mirror(end) / COLLECTION / "tests" / "output" / "junit" / "*-units.xml" for end in ENDS}
    return {gate.name: found[gate.name] for gate in gates if gate.name in found}


def together(gates: Sequence[Gate]) -> int:
    """Run gates in their lanes."""
    began = time.monotonic()
    shutil.rmtree(LOGS, ignore_errors=True)
    shutil.rmtree(REPORTS, ignore_errors=True)
    try:
        outcomes = lanes.run(gates, {"hosts": 1, "compute": max(2, os.cpu_count() or 2)}, LOGS)
    except KeyboardInterrupt as reason:
        print(f"Interrupted{f' by {reason}' if str(reason) else ''}; what ran was ended.", file=sys.stderr)
        return 130
    return 0 if report.tell(outcomes, reports(gates), LOGS, time.monotonic() - began) else 1


def in_front(names: Sequence[str]) -> int:
    """Run gates one after the other, with what they need; the first that fails ends it."""
    todo: list[Gate] = []

    def add(name: str) -> None:
        for need in KNOWN[name].needs:
            add(need)
        if KNOWN[name] not in todo:
            todo.append(KNOWN[name])

    for name in names:
        add(name)
    for gate in todo:
        print(f"\n=== {gate.name}: {gate.about}", flush=True)
        try:
            status = lanes.alone(gate)
        except KeyboardInterrupt:
            return 130
        if status:
            print(f"{gate.name} failed, status {status}", file=sys.stderr)
            return 1
    return 0


def lacks(room: int) -> None:
    """SystemExit where the tests cannot run; say what makes some of them skip."""
    cache = environments.cache()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    for place in (tempfile.gettempdir(), str(ROOT), str(cache)):
        free = shutil.disk_usage(place).free
        if free < room:
            raise SystemExit(f"gates: too little space in {place}: {free >> 20} MiB are free and {room >> 20} needed; make room, or set TMPDIR")
    if os.geteuid() != 0:
        print("gates: not root; tests that need root are skipped", flush=True)


def main(names: Sequence[str]) -> int:
    if names[:1] == ["pytest"]:
        words, environment, place = checkout("pytest", *ALONE, *names[1:])()
        return subprocess.run(words, env=environment, cwd=place, check=False).returncode
    whole = list(names) in (["check"], ["test"], ["long"])
    if not names or not whole and any(name not in KNOWN for name in names):
        raise SystemExit(f"usage: gates.py check | test | long | GATE...; gates: {', '.join(KNOWN)}")
    lacks(_ROOM if whole and names != ["check"] else _ROOM >> 3)
    SCRATCH.mkdir(exist_ok=True)
    with open(SCRATCH / "lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"gates: another run works in {ROOT}; wait for it, or use another clone") from None
        quick.sweep(str(environments.cache() / "quick"), time.time())
        if names == ["check"]:
            return together([KNOWN[name] for name in ("tools", "unit", "lint")])
        if names == ["test"]:
            return together(GATES)
        if names == ["long"]:
            os.environ["VOLT_TESTS"] = "long"
            return together([*GATES, FRESH])
        return in_front(names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
