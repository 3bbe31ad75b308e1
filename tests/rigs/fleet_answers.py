# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What volt_backup_info would return from hosts that are not there: as many as are wanted, each time the same."""

from __future__ import annotations

import datetime
import random
from typing import Any

DAY = 86400
_LETTERS = "g" * 60 + "usf"


def time(ago: float) -> str:
    """So many seconds before now."""
    return (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def row(workload: str, state: str = "ok", newest: float | None = 7300, **more: Any) -> dict[str, Any]:
    """A schedule. :param newest: how many seconds ago its newest backup was made."""
    return {
        "workload": workload, "state": state, "overdue": False, "reason": None, "enabled": True, "source": f"/srv/{workload}", "interval": 21600,
        "on_calendar": None, "declared_at": time(80 * DAY), "last_success": None if newest is None else time(newest), "last_failure": None, "failures": 0,
        "last_proved": time(3 * DAY), "next_elapse": time(-14000), "newest_id": None if newest is None else f"{workload}-20261127-180341-scheduled",
        "newest_at": None if newest is None else time(newest), "newest_age": newest, "copied_age": None, "copied_at": None, "backup_count": 28,
        "damaged_count": 0, "new_bytes": 1 << 20, "total_size": 49283072, **more,
    }  # fmt: skip


def past(workload: str, dice: random.Random, declared: int = 80, until: int = 0, days: str | None = None) -> dict[str, Any]:
    """Its last 90 days. :param declared: since how many days there is a schedule. :param until: for how many days it has failed."""
    letters = "".join(dice.choice(_LETTERS) for _day in range(90 - until)) + "f" * until
    letters = ("-" * (90 - declared) + letters[90 - declared :]) if days is None else days
    kept = "".join(letter if at >= 78 - until and letter != "f" or letter == "g" and at % 7 == 0 else "-" for at, letter in enumerate(letters))
    size = dice.randrange(10 << 20, 80 << 30)
    sizes, news = [], []
    for number in range(28, 0, -1):
        size += dice.randrange(-size // 40, size // 22)
        new = dice.randrange(size // 200) * (9 if number % 7 == 0 else 1)
        sizes.append(size)
        news.append(new)
    recent = {"created_at": [f"{time(at * 21600)[:19]}Z" for at in range(28, 0, -1)], "states": "g" * 28, "total_size": sizes, "new_bytes": news}
    return {"workload": workload, "day": time(0)[:10], "days": letters, "kept": kept, "recent": recent}


def answer(*schedules: dict[str, Any], seed: int = 1, failing: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """Of a host."""
    dice = random.Random(seed)
    return {"schedules": list(schedules), "history": [past(one["workload"], dice, until=3 * (one["workload"] in failing)) for one in schedules], **more}


def three() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Three hosts, and one that is off: results, declared schedules, objectives."""
    copied = {"copied_age": 9 * 3600, "copied_at": time(9 * 3600)}
    gone = "Source /srv/shop does not exist; choose a directory on this host. /srv/shop is no longer a directory."
    hosts = {
        "db1": answer(
            row("postgres", **copied), row("etc", newest=9000, last_proved=time(41 * DAY), **copied), seed=3,
            problems=[{"what": "volt-cas-gc.timer", "state": "stopped", "reason": "volt-cas-gc.timer is not active; start it, or declare the schedule again."}],
        ),
        "web1": answer(
            row("shop", "failed", newest=3 * DAY + 9000, reason=gone, failures=11, last_failure=time(2000), **copied),
            row("mail", **copied), row("wiki", **copied), failing=("shop",), seed=7,
        ),
        "web2": answer(
            row("shop", newest=4000, **copied), row("media", "running", newest=20000), row("builds", "waiting", newest=None, last_proved=None), seed=5,
        ),
        "nas": {"unreachable": True, "msg": "ssh: connect to host nas port 22: No route to host"},
    }  # fmt: skip
    wanted = {"rpo": "26h", "drill_every": "30d", "copy_within": "2d"}
    return hosts, {name: [] for name in hosts}, dict.fromkeys(hosts, wanted)


def pictured() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The three hosts that are on, for a picture: it shows each sort of trouble once."""
    hosts, _declared, wanted = three()
    hosts = {name: {**result, "schedules": [one for one in result["schedules"] if one["workload"] not in ("media", "builds")]}
             for name, result in hosts.items() if name != "nas"}  # fmt: skip
    return hosts, {}, {name: wanted[name] for name in hosts}


def drill(backup: str, ago: float, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A recorded drill. :param ago: how many seconds ago it ended."""
    return {
        "at": time(ago), "backup_id": backup, "reason": reason, "command": None, "loaded": [], "not_loaded": None, "total_size": 49283072,
        "duration": 12_400_000_000, "unstable_count": 0, **more,
    }  # fmt: skip


def drilled() -> dict[str, Any]:
    """The three hosts and one that is off, with what their drills were."""
    hosts, _declared, _wanted = three()
    broken = "Its drill command /usr/local/sbin/check-shop: it failed with exit status 3 (table orders is empty); fix that, then run the drill again."
    dumped = {"loaded": [".volt-dumps/postgresql-shop.sql", ".volt-dumps/postgresql-globals.sql"]}
    drills = {
        "db1": {"postgres": [drill("postgres-1", 30 * DAY, **dumped), drill("postgres-2", 3 * DAY, **dumped)], "etc": [drill("etc-1", 41 * DAY)]},
        "web1": {
            "shop": [drill("shop-1", 32 * DAY), drill("shop-2", 3 * DAY, broken, command="failed")],
            "mail": [drill("mail-1", 4 * DAY, "Its dumps of redis cannot be loaded: the server ended; find out why, a restore would fail there too."),
                     drill("mail-2", 3 * DAY, command="passed", unstable_count=2)],
            "wiki": [drill("wiki-1", 3 * DAY, not_loaded="1 dump(s) were not loaded: .volt-dumps/mariadb.sql (no server)")],
        },
        "web2": {},
    }  # fmt: skip
    for name, found in drills.items():
        hosts[name]["drills"] = [{"workload": workload, "drills": each} for workload, each in found.items()]
        hosts[name]["workloads"] = [{"workload": "old", "state": "no schedule"}]
    return hosts


def many(number: int, each: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A fleet of so many hosts with so many workloads each; one in fifty hosts has a problem."""
    names = ("app", "db", "etc", "mail", "media", "wiki", "shop", "builds")
    hosts = {}
    for at in range(number):
        schedules = [row(names[place % len(names)], newest=600 * (place + 1) + at) for place in range(each)]
        if at % 50 == 0:
            schedules[0].update(state="failed", reason="No space left on device.", failures=1)
        hosts[f"node{at:04d}"] = answer(*schedules, seed=at)
    return hosts, {}, dict.fromkeys(hosts, {"rpo": "26h"})
