# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.
"""Retention: which backups a policy keeps, and by which rule. Arithmetic alone; `prune` does the deleting.

::

    newest first; a backup may be kept by several rules
    last             the newest so many
    hourly ... yearly  of each of the newest so many hours, days, ISO weeks, months, years that have a backup, the newest one
    within           whatever is younger than that, counted back from the newest one
    tags             whatever bears any of these tags
    the newest one   in any case, and the newest ones that are not unstable, and not changed since they were last hashed

Hours, days and weeks are those of the host's time zone, through daylight saving: a day is what the operator calls a day. All of this
is what restic's `forget` does; a test holds the two against each other. Six things are ours, each so that less is lost:

- *Bad* backups (incomplete or damaged) count for nothing among the good. They are kept where the policy, applied to all backups alike, would
  keep them: a bad one never pushes a good one out, and is never held longer than a good one in its place. Without any good one, all stay.
- A backup of the *future* (the clock was wrong when it was made, or is now) is kept and counts for nothing until its time comes. restic
  lets it use up a count, so that `last: 1` would delete all but the one that has no date.
- While a *suspect* backup stands last, all from before the first suspect one stay. The suspect ones are thinned by the policy among themselves; the
  first and the newest of them stay. Once a later backup fits again, they are bad ones like others.
- A *protected* backup is kept, and counts for what it is.
- What is *not ours* is kept and counts for nothing: backups of another directory or store, or of the original Volt command.
- What is *not known* is kept: a backup without a legible time, and with `tags` one without legible tags.

restic 0.16 and newer also keeps the oldest backup wherever a rule has counts left. We do as 0.14 does and as it is written: that one outlives
its hour or month, which surprised restic's own users, and to keep the beginning of a history, tag it.

The rules are *monotone*: what is kept among many is kept among any of these that it is one of. So pruning twice removes nothing more, and
where the policy keeps all of the backups, it also does so whichever of them are bad.
"""

from __future__ import annotations

import datetime
import re
import typing as t

from .._base import UsageError, parse_span

Keep = t.Mapping[str, t.Any]

#: Rules that keep one backup in each of so many spans of time, and what names the span.
_LABELS: t.Dict[str, t.Callable[[datetime.datetime], str]] = {
    "hourly": lambda local: f"{local.date()} {local.hour:02d}:00",
    "daily": lambda local: f"{local.date()}",
    "weekly": lambda local: f"{local.isocalendar()[0]:04d}-W{local.isocalendar()[1]:02d}",
    "monthly": lambda local: f"{local.date()}"[:7],
    "yearly": lambda local: f"{local.date()}"[:4],
}
COUNTS = ("last", *_LABELS)
KEYS = (*COUNTS, "within", "tags")

NEWEST, STABLE, CHECKED, FUTURE, NO_TIME, NO_TAGS = "newest", "newest stable", "newest checked", "future", "time unknown", "tags unknown"
PROTECTED, HELD = "protected", "older than a suspect backup"
FIRST_SUSPECT = "first suspect"
NEWER = "written by a newer version"
OF_DIRECTORY, OF_STORE, OF_ORIGINAL = "of another backup directory", "of another store", "of the original Volt command"
NO_GOOD = "no complete and undamaged backup is left"
GOES = "no rule keeps it"

_UTC = datetime.timezone.utc


class Policy(t.NamedTuple):
    """What to keep. `within` is (days by the calendar, time by the clock, as it was written)."""

    counts: t.Dict[str, int]
    within: t.Optional[t.Tuple[datetime.timedelta, datetime.timedelta, str]]
    tags: t.Tuple[str, ...]


class Item(t.NamedTuple):
    """A backup as retention sees it; None for what is not known. What a newer version wrote is `unsupported`: neither good nor to go. So is what is
    `alien`: another directory's or another store's, in a word. A suspect one is not good."""

    id: str
    moment: t.Optional[datetime.datetime]
    tags: t.Optional[t.Sequence[str]]
    good: bool
    unsupported: bool = False
    alien: t.Optional[str] = None
    stable: bool = True
    suspect: bool = False
    protected: bool = False
    checked: bool = True


def parse_policy(keep: Keep) -> Policy:
    """A policy as users write it; UsageError for one that says nothing: an empty variable must not delete a history."""
    if not isinstance(keep, t.Mapping):
        raise UsageError(f"keep must be a dictionary of {', '.join(KEYS)} (got {keep!r}).")
    unknown = sorted(str(key) for key in keep if key not in KEYS)
    if unknown:
        raise UsageError(f"keep has an unknown key {unknown[0]!r}; use {', '.join(KEYS)}.")
    counts = {name: _count(name, keep.get(name)) for name in COUNTS}
    policy = Policy({name: count for name, count in counts.items() if count}, _within(keep.get("within")), _tags(keep.get("tags")))
    if not any(policy):
        raise UsageError(f"keep has no rule; set at least one of {', '.join(KEYS)}, or omit it.")
    return policy


def _count(name: str, value: t.Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"keep.{name} must be a whole number, 0 or more (got {value!r}).")
    return value


def _within(value: t.Any) -> t.Optional[t.Tuple[datetime.timedelta, datetime.timedelta, str]]:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise UsageError(f"keep.within must be a duration such as 30d (got {value!r}).")
    if not parse_span(value):
        return None
    parts = re.findall(r"\d+\D", value.strip())
    days, rest = ([part for part in parts if (part[-1] in "dw") is calendar] for calendar in (True, False))
    return _sum(days), _sum(rest), value.strip()


def _sum(parts: t.Sequence[str]) -> datetime.timedelta:
    return parse_span("".join(parts)) if parts else datetime.timedelta(0)


def _tags(value: t.Any) -> t.Tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, t.Sequence) or not all(isinstance(tag, str) and tag for tag in value):
        raise UsageError(f"keep.tags must be a list of non-empty strings (got {value!r}).")
    return tuple(value)


# ---- what is kept


def decide(
    policy: Policy, items: t.Sequence[Item], now: datetime.datetime, suspect_since: t.Optional[datetime.datetime] = None
) -> t.List[t.Optional[str]]:
    """For each backup the rules that keep it, as text; None for one that goes.

    :param suspect_since: the time of the first suspect backup, while none fits after it.
    """
    counted = [number for number, item in enumerate(items) if item.moment is not None and item.moment <= now]
    counted.sort(key=lambda number: (items[number].moment, items[number].id), reverse=True)
    of_good = _apply(policy, items, [number for number in counted if items[number].good])
    of_all = {**_apply(policy, items, counted), **_of_suspect(policy, items, counted, suspect_since)}
    for rule, fitting in ((STABLE, [item.stable for item in items]), (CHECKED, [item.checked for item in items])):
        best = next((number for number in counted if items[number].good and fitting[number]), None)
        if best is not None:
            of_good.setdefault(best, rule)
    verdicts: t.List[t.Optional[str]] = []
    for number, item in enumerate(items):
        if item.alien is not None:
            verdicts.append(item.alien)
        elif item.unsupported:
            verdicts.append(NEWER)
        elif item.moment is None:
            verdicts.append(NO_TIME)
        elif item.moment > now:
            verdicts.append(FUTURE)
        elif item.protected:
            verdicts.append(PROTECTED)
        elif suspect_since is not None and item.moment < suspect_since:
            verdicts.append(HELD)
        elif item.good:
            verdicts.append(of_good.get(number))
        else:
            verdicts.append(of_all.get(number) or (NO_TAGS if policy.tags and item.tags is None else None))
    if not any(item.good for item in items):
        return [verdict or NO_GOOD for verdict in verdicts]
    return verdicts


def _of_suspect(policy: Policy, items: t.Sequence[Item], order: t.Sequence[int], since: t.Optional[datetime.datetime]) -> t.Dict[int, str]:
    """What keeps suspect backups while none fits after them."""
    suspect = [number for number in order if items[number].suspect and since is not None and _moment(items[number]) >= since]
    return {**{number: FIRST_SUSPECT for number in suspect[-1:]}, **_apply(policy, items, suspect)}


def _apply(policy: Policy, items: t.Sequence[Item], order: t.Sequence[int]) -> t.Dict[int, str]:
    """The policy over some of the backups, named by number, newest first: the rules that keep each, and none for what goes."""
    found: t.Dict[int, t.List[str]] = {}
    for number in order[: policy.counts.get("last", 0)]:
        found.setdefault(number, []).append("last")
    for rule, label in _LABELS.items():
        _apply_spans(rule, label, policy.counts.get(rule, 0), items, order, found)
    if policy.within is not None and order:
        since = _since(_moment(items[order[0]]), policy.within[0], policy.within[1])
        for number in order:
            if since is None or _moment(items[number]) > since:  # not at the very moment: as restic
                found.setdefault(number, []).append(f"within {policy.within[2]}")
    for number in order:
        for tag in policy.tags:
            if tag in (items[number].tags or ()):
                found.setdefault(number, []).append(f"tag {tag}")
    if order:
        found.setdefault(order[0], [NEWEST])
    return {number: ", ".join(rules) for number, rules in found.items()}


def _apply_spans(
    rule: str,
    label: t.Callable[[datetime.datetime], str],
    count: int,
    items: t.Sequence[Item],
    order: t.Sequence[int],
    found: t.Dict[int, t.List[str]],
) -> None:
    """Of each span of time, newest first, its newest backup, until the count is used up."""
    seen: t.Set[str] = set()
    for number in order:
        if len(seen) == count:
            return
        name = label(_local(_moment(items[number])))
        if name not in seen:
            seen.add(name)
            found.setdefault(number, []).append(f"{rule} {name}")


# ---- clocks


def _moment(item: Item) -> datetime.datetime:
    return t.cast(datetime.datetime, item.moment)


def _local(moment: datetime.datetime) -> datetime.datetime:
    """What clocks here show then; UTC at the ends of time, where a calendar of our own does not reach."""
    try:
        return moment.astimezone()
    except (ValueError, OverflowError, OSError):
        return moment.astimezone(_UTC)


def _since(newest: datetime.datetime, days: datetime.timedelta, rest: datetime.timedelta) -> t.Optional[datetime.datetime]:
    """So many days before by the calendar, at the same time of day, and then so much by the clock; None before all time."""
    try:
        return _at(_local(newest).replace(tzinfo=None) - days) - rest
    except OverflowError:
        return None


def _at(shown: datetime.datetime) -> datetime.datetime:
    """The moment at which clocks here show this. Where they do so twice in a night, or never, it is the moment that restic takes."""
    as_utc = shown.replace(tzinfo=_UTC)
    moment = as_utc - _offset(as_utc)
    return as_utc - _offset(moment)


def _offset(moment: datetime.datetime) -> datetime.timedelta:
    return _local(moment).utcoffset() or datetime.timedelta(0)
