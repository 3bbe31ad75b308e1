# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three real hosts for all tests of a run, one a suite, and Ansible to play on them.

They boot when the first test asks for them, and are told apart by their suites' names. A test plays on one of them (`hosts`), other tests on
others; on all with the marker `everywhere`, and in the long mode. Tests share them: each works in a directory of its own (`place`), and a test
that breaks a host boots one of its own: `fleet.boot(name, suite)`, to be ended by `Host.kill()`.

Ansible plays on them in three ways. `play` and `ansible` run its programs. `modules` calls modules, by pytest-ansible. The Molecule scenarios
in extensions/molecule are tests too, where pytest-ansible collects them: `pytest tests/fleet extensions/molecule --molecule`.

A test with the marker `meanwhile` has its work done in a thread while the other tests run, on a fleet of its own, and asks last for the outcome.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Callable
from uuid import uuid4

import pytest
from ansible_collections.volt.backup.tests.rigs import Unavailable, control, sample, warm
from ansible_collections.volt.backup.tests.rigs.fleet import SUITES, Fleet, Host


class Lane:
    """What all tests share. Hooks of a plugin rather than of this file: those would not be called for the scenarios, which lie elsewhere."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._fleets: list[Fleet] = []
        self._hosts: Fleet | None = None
        self._lack = ""
        self._environment = pytest.MonkeyPatch()
        self._log = Path()
        config.add_cleanup(self.close)

    def hosts(self) -> Fleet:
        """The fleet, booted by the first call; once it cannot be had, no other call tries."""
        if self._lack:
            raise Unavailable(self._lack)
        if not self._hosts:
            try:
                hosts = self._own_fleet()
                for suite in SUITES:
                    hosts.boot(suite, suite)
                hosts.each(lambda host: host.ready())
                self._hosts = hosts
            except Unavailable as lack:
                self._lack = f"no real hosts: {lack}"
                raise Unavailable(self._lack) from lack
        return self._hosts

    def close(self) -> None:
        for fleet in self._fleets:
            fleet.close()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: item.get_closest_marker("meanwhile") is not None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Start what is to be done meanwhile."""
        for item in session.items if not self._config.option.collectonly else ():
            mark = item.get_closest_marker("meanwhile")
            if mark:
                item.stash[OUTCOME] = self._start(**mark.kwargs)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        try:
            if item.get_closest_marker("molecule"):
                self._furnish(item)
            return (yield)
        except Unavailable as lack:
            pytest.skip(str(lack))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        result = yield
        if item.get_closest_marker("molecule"):
            log = self._log.read_text(encoding="utf-8")
            assert "PLAY [Converge]" in log and "PLAY [Verify]" in log, log
        return result

    def pytest_runtest_teardown(self) -> None:
        self._environment.undo()

    def _own_fleet(self) -> Fleet:
        self._fleets.append(Fleet())
        return self._fleets[-1]

    def _start(self, work: Callable[[Fleet], None]) -> Future[None]:
        outcome: Future[None] = Future()

        def do() -> None:
            try:
                outcome.set_result(work(fleet))
            except BaseException as problem:
                outcome.set_exception(problem)
            finally:
                for host in fleet.hosts.values():
                    host.kill()

        try:
            fleet = self._own_fleet()  # here, so that `close` knows it
            threading.Thread(target=do, name=work.__name__, daemon=True).start()
        except Unavailable as lack:
            outcome.set_exception(lack)
        return outcome

    def _furnish(self, item: pytest.Item) -> None:
        """What a scenario finds in its environment. All that it writes lies in the fleet's room, and goes with it."""
        fleet, scenario = self.hosts(), item.path.parent.name
        room = fleet.room / f"molecule-{scenario}"
        room.mkdir()
        fleet.inventory(room / "inventory", sample.some([fleet.hosts[suite] for suite in SUITES], 1, scenario))
        self._log = room / "log"
        for name, value in {
            "HOME": room,
            "XDG_CACHE_HOME": room / "cache",
            "MOLECULE_EPHEMERAL_DIRECTORY": room / "ephemeral",
            "VOLT_MOLECULE_INVENTORY": room / "inventory",
            "ANSIBLE_LOG_PATH": self._log,
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
        }.items():
            self._environment.setenv(name, str(value))


OUTCOME = pytest.StashKey["Future[None]"]()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "meanwhile(work): the test asks for the outcome of work(fleet), which is done while other tests run")
    config.addinivalue_line("markers", "everywhere: the test plays on all hosts of the fleet, not on one alone")
    config.addinivalue_line("markers", "default: a Molecule scenario with the driver of this name")
    config.pluginmanager.register(Lane(config), "fleet-lane")
    if config.pluginmanager.has_plugin("ansible"):
        # pytest-ansible has installed Ansible's own importer, which must know the collection. What was imported before stays what it is.
        for name in ("ansible_collections.volt.backup", "ansible_collections.volt", "ansible_collections"):
            sys.modules.pop(name, None)
        importlib.import_module("ansible_collections.volt.backup")


@pytest.fixture(scope="session")
def fleet(pytestconfig: pytest.Config) -> Fleet:
    lane: Any = pytestconfig.pluginmanager.get_plugin("fleet-lane")
    return lane.hosts()


@pytest.fixture
def outcome(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Wait for what is done meanwhile, and raise what it has raised."""
    return request.node.stash[OUTCOME].result


@pytest.fixture
def hosts(fleet: Fleet, request: pytest.FixtureRequest) -> list[Host]:
    """The hosts that this test plays on: of those for all tests, for another test may have booted some of its own."""
    found = [fleet.hosts[suite] for suite in SUITES]
    return found if request.node.get_closest_marker("everywhere") else sample.some(found, 1, request.node.name)


@pytest.fixture
def place(hosts: list[Host]) -> Iterator[str]:
    """The path, on each of these hosts, of a new directory that is no overlay; from outside it is `host.srv / Path(place).name`.

    Schedules of an earlier test are gone; here their history goes as well, which outlives them.
    """
    name = uuid4().hex[:8]
    for host in hosts:
        (host.srv / name).mkdir()
        host.run("rm", "-rf", "/var/lib/volt/schedules")
    yield f"/srv/{name}"


@pytest.fixture(scope="session")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warm.Ansible]:
    with warm.Ansible(tmp_path_factory.mktemp("controller")) as ansible:
        yield ansible


@pytest.fixture
def node(fleet: Fleet, hosts: list[Host], tmp_path: Path, controller: warm.Ansible, request: pytest.FixtureRequest) -> control.Node:
    chosen = None if request.node.get_closest_marker("everywhere") else hosts
    return control.Node(fleet, tmp_path / "ansible", controller, chosen)


@pytest.fixture
def ansible(node: control.Node) -> Callable[..., Any]:
    """Run a program of Ansible against these hosts: `ansible("ansible-playbook", "volt.backup.status")`."""
    return node.run


@pytest.fixture
def play(node: control.Node) -> Callable[..., Any]:
    """Run a playbook, given as its text or its path, with further arguments of ansible-playbook. What comes back is not judged."""
    return node.play


@pytest.fixture
def modules(fleet: Fleet, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Call a module on all hosts of the fleet, and have the results by their names: `modules.ping()["trixie"]["ping"]`."""
    if not request.config.pluginmanager.has_plugin("ansible"):
        raise Unavailable("pytest-ansible is not loaded: it calls the modules")
    fleet.inventory(tmp_path / "inventory")
    hosts = request.getfixturevalue("ansible_adhoc")(inventory=str(tmp_path / "inventory"), host_pattern="all", user="root")
    return hosts.all
