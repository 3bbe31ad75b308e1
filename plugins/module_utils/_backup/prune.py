# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.
"""Pruning: what retention does not keep is deleted, oldest first, so that wherever it stops the rest is a history that makes sense.

::

    list the workload's backups (of these types, as one series)
    is one of any type suspect, and none fits after it -> all before it stay
    the policy would keep all of them -> done; whether one is damaged makes no difference then
    look which are damaged
    the policy among the good, and among all -> what goes
    delete, oldest first: sidecar, then manifest; content is the collector's

Two prunes at once each keep what they would keep alone, the newest good backup included: what is gone already is no error.
"""

from __future__ import annotations

import datetime
import typing as t

from .._base import AHEAD, Damaged, now, one_line
from .._store.store import Store
from . import retention
from .catalog import Catalog, of_future, parse_created, trouble_of
from .directory import Owner
from .ids import check_type, check_workload
from .records import Listed

Row = t.Dict[str, t.Any]


class Pruned(t.NamedTuple):
    """What `prune` did. `kept` and `removed`, newest first, have id, time, type, rule and state of each backup."""

    kept: t.List[Row]
    removed: t.List[Row]
    diff: t.Dict[str, t.Any]
    changed: bool


class Pruner:
    """One pruning. Use once.

    :param types: which types of backups; none for all of them. :param coming: in check mode, the backup that would be there by then.
    :param anew: in check mode, the store would be a new one, so all backups that are listed are of another.
    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        workload: str,
        keep: retention.Keep,
        types: t.Sequence[str] = (),
        dry: bool = False,
        coming: t.Optional[Listed] = None,
        anew: bool = False,
    ) -> None:
        self._store, self._catalog, self._dry, self._coming, self._anew = store, catalog, dry, coming, anew
        self._workload = check_workload(workload)
        self._types = [check_type(kind) for kind in types]
        self._policy = retention.parse_policy(keep)

    def __call__(self) -> Pruned:
        store = self._store
        with store.lock():
            found, rules = self._judged()
            rows = [_row(sidecar, rule) for sidecar, rule in zip(found, rules)]
            going = [sidecar for sidecar, rule in zip(found, rules) if rule is None]
            gone = {sidecar["id"] for sidecar in reversed(going) if self._dry or self._catalog.remove(sidecar["id"], sidecar)}
        for row in rows:
            if row["rule"] == retention.GOES and row["id"] not in gone and self._catalog.exists(row["id"]):
                row["rule"] = "its record changed meanwhile"
        stays = {row["id"] for row in rows if row["rule"] != retention.GOES}
        kept, removed = ([row for row in rows if row["id"] in ids] for ids in (stays, gone))
        lines = [_line(row, row["id"] in gone) for row in rows if row["id"] in stays or row["id"] in gone]
        return Pruned(kept, removed, {"prepared": "".join(line + "\n" for line in lines)}, bool(removed))

    def _judged(self) -> t.Tuple[t.List[Listed], t.List[t.Optional[str]]]:
        """All backups in question with their state, and the rules that keep each."""
        listed = [sidecar for sidecar in self._catalog.list(self._workload) if sidecar["workload_name"] == self._workload]
        if self._coming is not None:
            listed.insert(0, self._coming)
        moment = now() + AHEAD  # what is newer is of the future, here as everywhere
        found, items, since = self._items(listed)
        if not all(retention.decide(self._policy, [item._replace(good=item.alien is None) for item in items], moment, since)):
            wanted = listed if any(sidecar["suspect"] for sidecar in listed) else found
            found, items, since = self._items([sidecar for sidecar in map(self._look, wanted) if sidecar is not None])
        return found, retention.decide(self._policy, items, moment, since)

    def _items(self, listed: t.Sequence[Listed]) -> t.Tuple[t.List[Listed], t.List[retention.Item], t.Optional[datetime.datetime]]:
        """Those of the wanted types, the same for retention, and since when backups of any type are suspect."""
        items = [_item(self._catalog.owner, sidecar) for sidecar in listed]
        if self._anew:
            items = [item if listed[at] is self._coming else item._replace(alien=item.alien or retention.OF_STORE, good=False) for at, item in enumerate(items)]
        wanted = [number for number, sidecar in enumerate(listed) if not self._types or sidecar["type"] in self._types]
        return [listed[number] for number in wanted], [items[number] for number in wanted], _suspect_since(listed, items)

    def _look(self, sidecar: Listed) -> t.Optional[Listed]:
        """The same with `damaged` found out; None if it was deleted meanwhile."""
        if sidecar is self._coming:
            return t.cast(Listed, {**sidecar, "damaged": False})
        return self._catalog.judged(sidecar)


def _item(owner: Owner, sidecar: Listed) -> retention.Item:
    """A backup as retention sees it."""
    unreadable = trouble_of(sidecar) is not None and sidecar["manifest_ref"] is None
    alien = retention.OF_DIRECTORY if sidecar.get("foreign") or owner.foreign(sidecar) else retention.OF_STORE if owner.elsewhere(sidecar) else None
    if sidecar.get("foreign") and sidecar["format"] is None:
        alien = retention.OF_ORIGINAL
    sound = bool(sidecar["complete"]) and trouble_of(sidecar) is None and alien is None
    return retention.Item(
        id=sidecar["id"] or "",
        moment=_moment(sidecar),
        tags=None if unreadable else sidecar["tags"],
        good=sound and not sidecar["suspect"],
        unsupported=sidecar.get("unsupported", False),
        alien=alien,
        stable=not sidecar["unstable"],
        checked=sidecar.get("checked") is not False,
        suspect=bool(sidecar["suspect"]) and alien is None,
        protected=bool(sidecar["protected"]),
    )


def held(owner: Owner, listed: t.Sequence[Listed]) -> t.Tuple[int, int]:
    """How many backups of a workload stay whatever the policy says, for they are older than a suspect one, and how many bytes they added to the store."""
    items = [_item(owner, sidecar) for sidecar in listed]
    since = _suspect_since(listed, items)
    found = [sidecar for sidecar, item in zip(listed, items) if since is not None and item.moment is not None and item.moment < since]
    return len(found), sum(sidecar["stored_bytes"] or 0 for sidecar in found)


def _suspect_since(listed: t.Sequence[Listed], items: t.Sequence[retention.Item]) -> t.Optional[datetime.datetime]:
    """The time of the first suspect backup after which no good one of the same source and rules was made; None where there is none."""
    fitting: t.Dict[str, datetime.datetime] = {}
    suspect: t.Dict[str, t.List[datetime.datetime]] = {}
    for sidecar, item in zip(listed, items):
        rules = repr((sidecar["source_path"], sidecar["exclude"], sidecar["exclude_caches"], sidecar["one_file_system"]))
        if item.moment is not None and item.suspect:
            suspect.setdefault(rules, []).append(item.moment)
        elif item.moment is not None and item.good and not of_future(sidecar):
            fitting[rules] = max(fitting.get(rules, item.moment), item.moment)
    open_ones = [moment for rules, moments in suspect.items() for moment in moments if rules not in fitting or fitting[rules] < moment]
    return min(open_ones, default=None)


def _moment(sidecar: Listed) -> t.Optional[datetime.datetime]:
    try:
        return t.cast(datetime.datetime, parse_created(sidecar).astimezone(datetime.timezone.utc))
    except (Damaged, OverflowError):
        return None


def _row(sidecar: Listed, rule: t.Optional[str]) -> Row:
    return {
        "id": sidecar["id"],
        "created_at": sidecar["created_at"],
        "type": sidecar["type"],
        "rule": rule or retention.GOES,
        "complete": bool(sidecar["complete"]),
        "damaged": sidecar.get("damaged"),
        "unsupported": sidecar.get("unsupported", False),
        "foreign": rule in (retention.OF_DIRECTORY, retention.OF_ORIGINAL),
        "suspect": bool(sidecar["suspect"]),
    }


def state(row: Row) -> str:
    """What is wrong with a backup, in a word; empty where nothing is known to be."""
    if row["foreign"]:
        return "foreign"
    if row["damaged"] or row["unsupported"]:
        return "damaged" if row["damaged"] else "unsupported"
    return "suspect" if row["suspect"] else "" if row["complete"] else "incomplete"


def _line(row: Row, goes: bool) -> str:
    """For a diff on the screen."""
    about = f"{row['rule']}; {state(row)}" if state(row) else row["rule"]
    return one_line(f"{'remove' if goes else 'keep  '} {row['id'] or '(the new backup)'} ({about})")
