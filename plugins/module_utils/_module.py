# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Arguments and results in Ansible's form: the only file of the engine that knows AnsibleModule.

::

    a module      its options, the rules among them, and one function that takes a Task and returns a result
    run           options of all modules + its own -> AnsibleModule
                  its function, with signals as exceptions
                  a result -> exit_json;  a VoltError -> fail_json, its sentence as msg, its code as code
    both          text that is not valid UTF-8 leaves as \\xNN, as paths do; messages name options, or the variables by which a playbook sets them
"""

from __future__ import annotations

import os
import sys
import typing as t

from ansible.module_utils.basic import AnsibleModule

from . import _payload

_payload.install()

from ._base import UsageError, VoltError, interruptible, parse, show, translate, unexpected

Options = t.Dict[str, t.Dict[str, t.Any]]
Result = t.Dict[str, t.Any]
_Tuple = t.TypeVar("_Tuple", bound=t.Tuple[t.Any, ...])

#: Options of every member of the action group; doc_fragments/_store.py documents them.
SHARED: Options = {
    "store": {"type": "path"},
    "backup_dir": {"type": "path"},
    "lock_timeout": {"type": "int", "default": 300},
}
#: For modules that list paths.
DIFF_LIMIT: Options = {"diff_limit": {"type": "int", "default": 1000}}

_COUNT: t.Dict[str, t.Any] = {"type": "int"}
#: What to keep, as a suboption each; doc_fragments/_keep.py documents them.
KEEP: t.Dict[str, t.Any] = {
    "type": "dict",
    "options": {
        "last": _COUNT,
        "hourly": _COUNT,
        "daily": _COUNT,
        "weekly": _COUNT,
        "monthly": _COUNT,
        "yearly": _COUNT,
        "within": {"type": "str"},
        "tags": {"type": "list", "elements": "str"},
    },
}

_LOGIN: Options = {"host": {"type": "str"}, "port": {"type": "int"}, "user": {"type": "str"}, "password_file": {"type": "path"}, "name": {"type": "str"}}
_POSTGRESQL: Options = {
    "database": {"type": "str", "required": True},
    "globals": {"type": "bool", "default": True},
    "run_as": {"type": "str"},
    **_LOGIN,
}
_SQLITE: Options = {"path": {"type": "str", "required": True}, "name": {"type": "str"}}
_MONGODB: Options = {
    "database": {"type": "str"},
    "oplog": {"type": "bool", "default": False},
    "uri": {"type": "str"},
    "socket": {"type": "path"},
    "auth_database": {"type": "str"},
    **_LOGIN,
}
#: Dumps of databases. Which keys go together is checked by the engine.
DUMPS: t.Dict[str, t.Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "postgresql": {"type": "dict", "options": _POSTGRESQL},
        "mariadb": {"type": "dict", "options": {"database": {"type": "str"}, "socket": {"type": "path"}, **_LOGIN}},
        "sqlite": {"type": "dict", "options": _SQLITE},
        "redis": {"type": "dict", "options": {"socket": {"type": "path"}, **_LOGIN}},
        "mongodb": {"type": "dict", "options": _MONGODB},
    },
}

#: Credentials of a remote on S3.
CREDENTIALS: t.Dict[str, t.Any] = {
    "type": "dict",
    "no_log": True,
    "options": {
        "access_key": {"type": "str", "no_log": True},
        "secret_key": {"type": "str", "no_log": True},
        "session_token": {"type": "str", "no_log": True},
        "profile": {"type": "str"},
        "credential": {"type": "str"},
    },
}

#: A variable of the environment in which playbooks and roles of this collection say which of their variables set the options of a module, as in
#: `force=volt_force delete=volt_delete`.
_VARIABLES = "VOLT_VARIABLES"
#: Ansible takes a task whose result has a true `skipped` for one that did not run, whatever else the result says.
_RENAMED = {"skipped": "passed_over"}
_OLDEST = (3, 9)
#: What a result says in place of a secret; Ansible's own words.
_HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"


class Task(t.NamedTuple):
    """What a module's function sees of Ansible: its parameters, whether this is check mode, and a way to warn.

    :ivar manager: of the store that the parameters name, if the module asked `run` for one.
    """

    manager: t.Any
    params: t.Dict[str, t.Any]
    dry: bool
    warn: t.Callable[[str], None]

    def pick(self, kind: t.Type[_Tuple], **other: t.Any) -> _Tuple:
        """An engine's request, filled from the parameters of the same names."""
        names = t.cast(t.Any, kind)._fields
        return kind(**{**{name: self.params[name] for name in names if name in self.params}, **other})


class _Module(AnsibleModule):
    """Failures of Ansible's own, about options, have a code as well. Results repeat the parameters without those that are secret."""

    def exit_json(self, **kwargs: t.Any) -> t.NoReturn:
        super().exit_json(**{"invocation": self._called(), **kwargs})

    def fail_json(self, msg: str, **kwargs: t.Any) -> t.NoReturn:
        super().fail_json(msg, **{"code": UsageError.code, "invocation": self._called(), **kwargs})

    def _called(self) -> Result:
        return {"module_args": _without_secrets(self.params, self.argument_spec)}


def run(
    work: t.Callable[[Task], Result],
    options: Options,
    signed: t.Collection[str] = (),
    plain: t.Callable[[Result], t.Iterable[str]] = lambda _params: (),
    manager: t.Optional[t.Callable[[t.Optional[str], t.Optional[str], int], t.Any]] = None,
    **rules: t.Any,
) -> None:
    """Be a module.

    :param work: does it. :param options: argument spec without the shared options. :param signed: numbers that may be negative.
    :param plain: values of `no_log` options, of all parameters, that may be words of any text: Ansible would blot them out wherever they appear in a
        result. What a result repeats of the parameters hides them all the same.
    :param manager: the class Manager, for modules that open a store. The files that a module does not import are not sent to the host.
    :param rules: required_if and similar.
    """
    spec = {**SHARED, **options}
    module = _Module(argument_spec=spec, supports_check_mode=True, **rules)
    module.no_log_values.difference_update(plain(module.params))
    failure: t.Optional[VoltError] = None
    result: Result = {}
    try:
        _check(module.params, spec, signed, **rules)
        params = module.params
        opened = manager(params["store"], params["backup_dir"], params["lock_timeout"]) if manager else None
        with interruptible():
            result = work(Task(opened, params, module.check_mode, lambda text: module.warn(_utf8(_translated(text, spec)))))
    except VoltError as error:
        failure = error  # outside of the handler nothing adds the exception's own words to the message
    except OSError as error:
        failure = unexpected(error, show(error.filename) if isinstance(error.filename, (str, bytes)) else "")
    if failure is not None:
        details = {_RENAMED.get(key, key): value for key, value in failure.details.items()}
        module.fail_json(**_utf8({**details, "msg": _translated(failure.message, spec), "code": failure.code}))
    module.exit_json(**_utf8(result))


def _check(
    params: t.Dict[str, t.Any],
    spec: Options,
    signed: t.Collection[str],
    required_if: t.Sequence[t.Tuple[str, t.Any, t.Sequence[str]]] = (),
    **_rules: t.Any,
) -> None:
    """Rules that an argument spec cannot express, and one that differs: for Ansible a null is given, for us it is not."""
    if sys.version_info < _OLDEST:
        raise UsageError("The managed host needs Python 3.9 or newer; set ansible_python_interpreter to one.")
    for name, value, needed in required_if:
        missing = [other for other in needed if params[other] is None]
        if params[name] == value and missing:
            raise UsageError(f"{name} is {value} but all of the following are missing: {', '.join(missing)}")
    for name, option in spec.items():
        value = params[name]
        if value is None:
            continue
        if option["type"] == "path" and (not os.path.isabs(value) or b"\0" in parse(value)):
            raise UsageError(f"Option `{name}` must be an absolute path without NUL (got {value!r}).")
        if option["type"] == "int" and value < 0 and name not in signed:
            raise UsageError(f"Option `{name}` must not be negative (got {value}).")


def _without_secrets(params: t.Any, spec: Options) -> t.Any:
    """Parameters that a result may repeat. Those that do not match the spec, which a failure may be about, are hidden by Ansible."""
    if isinstance(params, list):
        return [_without_secrets(one, spec) for one in params]
    if not isinstance(params, dict):
        return params
    shown = {}
    for name, value in params.items():
        option = spec.get(name, {})
        hidden = option.get("no_log") and value is not None
        shown[name] = _HIDDEN if hidden else _without_secrets(value, option["options"]) if option.get("options") else value
    return shown


def _translated(text: str, options: t.Container[str] = ()) -> str:
    """A message as one writes it who calls the module: in a task its options, in a playbook of this collection that one's variables.

    :param options: those of the module.
    """
    variables = dict(said.split("=", 1) for said in os.environ.get(_VARIABLES, "").split() if "=" in said)

    def option(name: str, value: str) -> t.Optional[str]:
        said = variables.get(name, name if name in options else None)
        return said and (f"{said}: {value}" if value else said)

    return translate(text, option)


def _utf8(value: t.Any) -> t.Any:
    """The same value with bytes that came in through the file system, and are not UTF-8, as \\xNN; newer Ansible refuses them."""
    if isinstance(value, str):
        try:
            value.encode()
            return value
        except UnicodeEncodeError:
            pass
        try:
            return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_utf8(key): _utf8(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_utf8(item) for item in value]
    return value
