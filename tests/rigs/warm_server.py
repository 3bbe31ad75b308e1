# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports Ansible once, and forks for each run of one of its programs; see warm.py. A script, not a module: Ansible has an importer of its own.

The descriptor that it is called with gives requests: JSON with `program`, `words` and `cwd`, and two descriptors, for the output and for the status.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import socket
import sys
import sysconfig
import warnings

#: What the programs import in any case, and plugins that nearly all runs use, by the names that Ansible gives them.
MODULES = (
    "ansible.cli.playbook", "ansible.cli.adhoc", "ansible.executor.module_common", "ansible.executor.process.worker", "ansible.executor.task_executor",
    "ansible.parsing.yaml.dumper", "ansible.playbook.included_file", "ansible.utils.encrypt", "ansible.utils.unicode",
    *(f"ansible.plugins.{plugin}" for plugin in (
        "action.normal", "become.su", "become.sudo", "cache.memory", "callback.default", "callback.minimal", "connection.local", "connection.ssh",
        "inventory.auto", "inventory.host_list", "inventory.ini", "inventory.script", "inventory.toml", "inventory.yaml", "shell.sh", "strategy.linear",
        "vars.host_group_vars",
    )),
    "multiprocessing.popen_fork", "multiprocessing.synchronize", "ssl", "urllib.request", "xml.dom.minidom",
)  # fmt: skip


def main(requests: socket.socket) -> None:
    sys.path[0] = sysconfig.get_path("scripts")  # as for the programs themselves
    for name in MODULES:
        importlib.import_module(name)
    prime()
    gc.disable()
    gc.freeze()
    while True:
        message, descriptors, _flags, _sender = socket.recv_fds(requests, 1 << 20, 2)
        if not message:
            return
        if os.fork() == 0:
            requests.close()
            serve(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        while reap():
            pass


def prime() -> None:
    """What each program does before its first play: install the importer, read the metadata of Ansible, and the documentation of such plugins."""
    from ansible.plugins import loader

    loader.init_plugin_loader()
    for plugins in (loader.connection_loader, loader.shell_loader, loader.become_loader, loader.callback_loader):
        list(plugins.all(class_only=True))
    warnings.filterwarnings("ignore", "AnsibleCollectionFinder has already been configured")  # by `prime`


def reap() -> bool:
    """Whether there was a child that has ended."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def serve(request: dict[str, object], output: int, status: int) -> None:
    """In a child: run a program in a child of its own, and tell how it ended."""
    program = os.fork()
    if program == 0:
        os.close(status)
        run(request, output)
    ended = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    os.write(status, str(ended).encode())
    os._exit(0)


def run(request: dict[str, object], output: int) -> None:
    """SystemExit, with the program's status."""
    from ansible import constants
    from ansible.utils.path import cleanup_tmp_file

    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(str(request["cwd"]))
    name = str(request["program"])
    sys.argv = [os.path.join(sys.path[0], name), *request["words"]]  # type: ignore[misc]
    # The one setting that each process has for itself, and removes at its end.
    atexit.unregister(cleanup_tmp_file)
    constants.DEFAULT_LOCAL_TMP = constants.config.get_config_value("DEFAULT_LOCAL_TMP", variables=vars(constants))
    cli = importlib.import_module(f"ansible.cli.{'adhoc' if name == 'ansible' else name[len('ansible-') :]}")
    sys.exit(cli.main())


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
