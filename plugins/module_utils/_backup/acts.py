# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What changes a store, a target or a remote leaves an entry in the journal: what was done, by whom, and what came of it.

This is decided here alone, by the methods that modules, the command and schedules all call:

::

    checked, in a dry run      no entry
    refused as wrong usage     no entry: nothing was touched
    nothing was to be done     no entry
    done                       one entry, for a push one for each backup: result success, or incomplete, suspect, damaged
    failed                     one entry: result failure, with code and reason
"""

from __future__ import annotations

import functools
import os
import pwd
import time
import typing as t

from .._base import UsageError, VoltError, journal, reason, show, tolerated
from .catalog import workload_of

Facts = t.Dict[str, t.Any]
Call = t.Mapping[str, t.Any]
_Class = t.TypeVar("_Class")

#: What the entries of each act are known by, for good (MESSAGE_ID).
IDS = {
    "init": "0af64aa884774167974e4cdad4d0dae1",
    "create": "a05e78720aba45bea0556bba9e72ca10",
    "restore": "531a834b46fe480594b226baa1dddf36",
    "delete": "6eb6f285c2934a439c276eb27d559403",
    "prune": "cac52077ea5a4c4082bae2866b1223b6",
    "gc": "46140d0792644c06b19208e3496e1b69",
    "verify": "070a88369d5f474c93c082a4f54a6cf1",
    "accept": "e4ddd7c9ff7f42a9ba8174dbdb21d881",
    "protect": "6fe3a35166d046f0a2d111fb32d44f96",
    "unprotect": "4edd1fbcc99d4dcdb81f9f2c3e905edb",
    "adopt": "69489d16ac964357afa2744e3cdef3f9",
    "import": "24377a1df8cd44bba4a54e4eb3fdd115",
    "push": "4cd1b930fce04487af52e131cef34cf9",
    "pull": "c73f4ed35cf847e08e75141c652de777",
}
_PRIORITIES = {"success": journal.INFO, "damaged": journal.ERROR, "failure": journal.ERROR}


class Act(t.NamedTuple):
    """A method that changes something.

    :ivar asked: arguments by name -> what is known before. :ivar done: its result -> the facts of each entry; none if nothing was changed.
    """

    action: str
    asked: t.Callable[[Call], Facts]
    done: t.Callable[[t.Any], t.List[Facts]]


def noted(acts: t.Mapping[str, Act], where: t.Callable[[t.Any], Facts]) -> t.Callable[[t.Type[_Class]], t.Type[_Class]]:
    """For a class whose methods leave entries.

    :param acts: by the names of its methods. :param where: an object of the class -> the facts about its place.
    """

    def decorate(kind: t.Type[_Class]) -> t.Type[_Class]:
        for name, act in acts.items():
            setattr(kind, name, _noting(act, getattr(kind, name), where))
        return kind

    return decorate


def _noting(act: Act, work: t.Callable[..., t.Any], where: t.Callable[[t.Any], Facts]) -> t.Callable[..., t.Any]:
    code = work.__code__
    names = code.co_varnames[1 : code.co_argcount]

    @functools.wraps(work)
    def method(self: t.Any, *values: t.Any, **more: t.Any) -> t.Any:
        call = {**dict(zip(names, values)), **more}
        if call.get("dry"):
            return work(self, *values, **more)
        began = time.monotonic()

        def tell(facts: Facts) -> None:
            place: Facts = {}
            with tolerated(VoltError, OSError):  # what keeps the act from knowing its place is the reason of its failure
                place = where(self)
            _send({"action": act.action, "result": "success", **act.asked(call), **place, "seconds": f"{time.monotonic() - began:.3f}", **facts})

        try:
            result = work(self, *values, **more)
        except UsageError:
            raise
        except (VoltError, OSError) as error:
            for facts in (*_finished(error), _failed(error)):
                tell(facts)
            raise
        for facts in act.done(result):
            tell(facts)
        return result

    return method


def _failed(error: t.Union[VoltError, OSError]) -> Facts:
    code, why = (VoltError.code, reason(error)) if isinstance(error, OSError) else (error.code, error.message)
    return {"result": "failure", "code": code, "reason": why}


def _finished(error: t.Union[VoltError, OSError]) -> t.List[Facts]:
    """The copies that a push made before it failed."""
    return _pushed(error.details.get("pushed", ())) if isinstance(error, VoltError) else []


def _send(facts: Facts) -> None:
    backups = facts.get("backup_id")
    backup = backups if isinstance(backups, str) else None
    if backup is not None and not facts.get("workload"):
        facts["workload"] = workload_of(backup)
    what = backup or facts.get("workload") or facts.get("remote") or facts.get("store")
    words = [str(facts["result"]), *(f"{facts[name]} {name}" for name in ("backups", "damages") if name in facts), *filter(None, [facts.get("reason")])]
    message = f"{facts['action']} {what}: {', '.join(words)}"
    journal.send(message, IDS[facts["action"]], _PRIORITIES.get(facts["result"], journal.WARNING), {**facts, "actor": who()})


def who() -> str:
    """The user who acts; also the one who became root to do so."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    asked = os.environ.get("SUDO_USER", name)
    return name if asked == name else f"{show(asked)} as {name}"


# ---- what each act says


def _created(made: t.Any) -> t.List[Facts]:
    backup = made.backup
    state = "suspect" if backup["suspect"] else "success" if backup["complete"] else "incomplete"
    told = {"backup_id": backup["id"], "type": backup["type"], "size": backup["total_size"], "new_bytes": backup["new_bytes"], "result": state}
    return [told] if made.changed else []


def _restored(result: t.Any) -> t.List[Facts]:
    done = result[0].restore
    told = {"backup_id": done["backup_id"], "target": done["target_dir"], "size": done["total_size"], "result": "incomplete" if done["lost"] else "success"}
    return [told] if result[0].changed else []


def _verified(found: t.Any) -> t.List[Facts]:
    """Also what a verification found that was to change nothing."""
    damaged = {"result": "damaged", "backup_id": found.damaged, "damages": found.damage_count} if found.damage_count else {}
    return [damaged] if damaged or found.changed and (found.repaired is not None or found.vetted) else []


def _collected(done: t.Mapping[str, t.Any]) -> t.List[Facts]:
    return [{"freed_bytes": done["freed_bytes"], "trashed_bytes": done["trashed_bytes"]}] if done["changed"] else []


def _pushed(rows: t.Iterable[t.Mapping[str, t.Any]]) -> t.List[Facts]:
    return [{"backup_id": row["id"], "new_bytes": row["new_bytes"]} for row in rows if row.get("changed", True)]


def _several(rows: t.Sequence[t.Mapping[str, t.Any]], key: str = "id") -> t.List[Facts]:
    return [{"backup_id": [row[key] for row in rows], "backups": len(rows)}] if rows else []


def _of_restore(call: Call) -> Facts:
    newest = call.get("newest")
    return {"backup_id": call["backup"], "workload": newest and newest.workload, "target": call["request"].target}


def _of_meant(call: Call) -> Facts:
    meant = call["meant"]
    return {"backup_id": meant.backup, "workload": meant.workload, "target": call["request"].target if "request" in call else None}


def _of_which(call: Call) -> Facts:
    which = call["which"]
    return {"backup_id": list(which.ids or ()), "workload": which.workload}


def _of_backup(call: Call) -> Facts:
    return {"backup_id": call["backup"]}


def _nothing(_call: Call) -> Facts:
    return {}


LOCAL = {
    "begin": Act("init", _nothing, lambda done: [{}] if done.steps else []),
    "create": Act("create", lambda call: {"workload": call["request"].workload}, _created),
    "restore": Act("restore", _of_restore, _restored),
    "delete": Act("delete", _of_backup, lambda gone: [{}] if gone is not None else []),
    "prune": Act("prune", lambda call: {"workload": call["workload"]}, lambda done: _several(done.removed)),
    "collect": Act("gc", _nothing, _collected),
    "verify": Act("verify", _nothing, _verified),
    "accept": Act("accept", _of_backup, lambda done: [{}] if done.changed else []),
    "accept_mounts": Act("accept", lambda call: {"workload": call["workload"]}, lambda forgotten: [{}] if forgotten else []),
    "protect": Act(
        "protect",
        lambda call: {**_of_backup(call), "action": "protect" if call.get("wanted", True) else "unprotect"},
        lambda done: [{}] if done.changed else [],
    ),
    "adopt": Act("adopt", _nothing, lambda done: _several(done.adopted)),
    "import_original": Act("import", _nothing, lambda done: _several(done.imported, "new_id")),
}
REMOTE = {
    "begin": Act("init", _nothing, lambda done: [{}] if done.changed else []),
    "push": Act("push", _of_which, lambda done: _pushed({"id": sidecar["id"], **pushed._asdict()} for sidecar, pushed in done if pushed is not None)),
    "restore": Act("restore", _of_meant, _restored),
    "verify": Act("verify", _nothing, _verified),
    "pull": Act("pull", _of_meant, lambda done: [{"backup_id": done.sidecar["id"], "new_bytes": done.new_bytes}] if done.changed else []),
}
