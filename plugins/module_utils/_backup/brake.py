# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The brake: a backup that has lost far more than its history shows is *suspect*, and pushes no good one out.

::

    compare with the newest good backup of the same source and rules, and with the tenth newest (or the oldest), so that slow loss adds up
        shrunk    files with content are fewer than before by more than max_shrink percent, or others have taken their place;
                  or they have become fewer in every run, by a third of that in seven runs
        lost      more than max_churn percent of the files were replaced by what looks encrypted or wiped (`content.is_lost`):
                  under their own names, or by others that came while they went
    both count from 50 files on, and not where the workload's history shows the like

New names for content that was there before are a move. What the files hold is looked at in samples, and only where enough of them were replaced.
`benchmarks/brake.py` measures how often this errs.
"""

from __future__ import annotations

import typing as t

from .._base import Damaged, Unsupported, UsageError, show
from .._format.tree import Entry, Read
from .._store.store import Store
from .records import Listed, Sidecar
from .replacement import Heads, Loss, Replacement, count_filled

#: Percent of files beyond which a loss is suspect, unless a user says otherwise.
MAX_SHRINK, MAX_CHURN = 50, 5
#: Smaller workloads are not judged: an everyday change replaces a few files.
LEAST_FILES = 50
#: Which good backup slow loss is counted from: so many back, or the oldest.
OLDER = 10
#: Counts that a sidecar remembers.
REMEMBERED = 64
#: Below this share of replaced files, none of them is looked at.
_LOOK = 0.01
#: Backups that show what is usual, and how many there must be; how far beyond that is too much, and what share of all files is in any case.
_RECENT, _ENOUGH, _BEYOND, _SURE = 5, 3, 3, 1 / 3
#: Where there were few files before, fewer are no loss, but for so much fewer.
_LOWER = 0.6
#: Runs in each of which files became fewer: so many at least, and at most so many are looked at; and which part of max_shrink is too much for them.
_FEWEST, _MOST, _STEADY = 5, 7, 1 / 3


def check_percent(name: str, value: int) -> None:
    """UsageError for a limit that is no percentage."""
    if not 0 <= value <= 100:
        raise UsageError(f"Option {name} must be a percentage from 0 (off) to 100 (got {value}).")


def since_accepted(good: t.Sequence[Listed]) -> t.Sequence[Listed]:
    """Good backups of one source, the newest first, to the one that was accepted last: what was before that is no measure any more."""
    accepted = (number for number, sidecar in enumerate(good, 1) if sidecar["accepted_at"])
    return good[: next(accepted, len(good))]


class Verdict(t.NamedTuple):
    """What is found of a new backup. `reason` is empty where it fits; the others are for its sidecar, to judge later ones by, the newest first."""

    reason: str
    lost_counts: t.List[int]
    file_counts: t.List[int]

    def marks(self) -> Sidecar:
        """What a new sidecar says of it; people have said nothing yet."""
        return Sidecar(
            suspect=bool(self.reason),
            suspect_reason=self.reason or None,
            lost_counts=self.lost_counts,
            file_counts=self.file_counts,
            accepted_by=None,
            accepted_at=None,
            protected=False,
            protected_by=None,
            protected_at=None,
        )


class Earlier(t.NamedTuple):
    """A good backup that the new one is compared with: how many good ones back it is (1: the newest), and how many files with content it has."""

    sidecar: Sidecar
    back: int
    files: int
    change: Replacement


class Brake:
    """Judges new backups of one workload and source.

    :param good: the good backups, the newest first. :param root_of: their roots; None for one that cannot be read or is gone.
    :param max_shrink: percent; 0 for off. :param max_churn: likewise.
    """

    def __init__(
        self, store: Store, good: t.Sequence[Sidecar], root_of: t.Callable[[Sidecar], t.Optional[Entry]], max_shrink: int, max_churn: int
    ) -> None:
        self._store, self._good, self._root_of = store, good, root_of
        self._max_shrink, self._max_churn = max_shrink, max_churn

    def __call__(self, root: Entry, read: Read, heads: Heads) -> Verdict:
        """:param root: of the new backup. :param read: reads its trees. :param heads: reads its files."""
        newest = self._comparable(range(1, len(self._good) + 1), root, read, heads)
        if newest is None:
            return Verdict("", [0], [])  # the next run counts its files, if it needs to
        counts, losses = newest.sidecar["file_counts"] or [newest.files], newest.sidecar["lost_counts"]
        count, loss = newest.files + newest.change.came - newest.change.gone, self._loss(newest)
        shrunk = self._shrunk(count, counts, newest.sidecar)
        if shrunk:
            shrunk = self._shrunk(count + newest.change.packed(), counts, newest.sidecar)
        reason = shrunk or self._churned(loss, newest, losses) or self._exchanged(newest)
        if not reason and newest.change.differs:
            one = self._comparable(range(min(len(self._good), OLDER), newest.back, -1), root, read, heads)
            if one is not None:
                known = one.sidecar["lost_counts"]
                usual = known if len(known) >= _RECENT else losses  # what was usual then; the youngest history tells only of itself
                reason = self._churned(self._loss(one), one, usual)
        return Verdict(reason, [loss.files, *losses][:REMEMBERED], [count, *counts][:REMEMBERED])

    def _comparable(self, order: t.Iterable[int], root: Entry, read: Read, heads: Heads) -> t.Optional[Earlier]:
        """The first good backup in an order whose trees can be read. A damaged one is no measure, and must not keep others from being one."""
        for back in order:
            sidecar = self._good[back - 1]
            old = self._root_of(sidecar)
            if old is None:
                continue
            try:
                change = Replacement(self._store, old, root, read, heads)
                files = sidecar["file_counts"][0] if sidecar["file_counts"] else count_filled(self._store.read, old)
                return Earlier(sidecar, back, files, change)
            except (Damaged, Unsupported):
                continue
        return None

    def _loss(self, earlier: Earlier) -> Loss:
        judged = self._max_churn and earlier.files >= LEAST_FILES
        return earlier.change.loss(_LOOK * earlier.files) if judged else Loss()

    def _shrunk(self, count: int, before: t.Sequence[int], newest: Sidecar) -> str:
        """Why so few files are a sign of loss, at once or little by little. Where there were about as few lately, they are none.

        :param before: counts of the good backups, the newest first.
        """
        recent = before[:OLDER]
        floor, high = min(recent), max(recent)
        if self._is_beyond(floor - count, floor) or count < _LOWER * floor and self._is_beyond(high - count, high):
            return f"it has {count} files with content, but {newest['id']} has {before[0]} and recent backups had {high} (max_shrink: {self._max_shrink})"
        run = [count, *before[:_MOST]]
        for length in range(_FEWEST, len(run)):
            falls = sum(new < old for new, old in zip(run[:length], run[1 : length + 1]))
            fewer = run[length] - count
            if count <= floor and falls >= length - length // _MOST and self._is_beyond(fewer, run[length], _STEADY):
                return f"the number of files fell in {falls} of {length} runs, from {run[length]} to {count} (max_shrink: {self._max_shrink})"
        return ""

    def _is_beyond(self, fewer: int, files: int, part: float = 1.0) -> bool:
        """Whether so many of so many files are more than `part` of max_shrink."""
        return bool(self._max_shrink) and files >= LEAST_FILES and fewer * 100 > part * self._max_shrink * files

    def _exchanged(self, newest: Earlier) -> str:
        """Why files of other kinds in the place of those that went are a sign of loss."""
        change, files = newest.change, newest.files
        if not self._is_beyond(change.gone, files):
            return ""
        masked = change.masked()
        if not self._is_beyond(masked, files):
            return ""
        return (
            f"{change.gone} of the {files} files of {newest.sidecar['id']} are gone, and {masked} files of other types are new"
            f" (max_shrink: {self._max_shrink})"
        )

    def _churned(self, loss: Loss, earlier: Earlier, losses: t.Sequence[int]) -> str:
        """Why so many lost files are more than what is usual. :param losses: of good backups, the newest first."""
        recent = losses[:_RECENT]
        if len(recent) < _ENOUGH:  # no history yet: what was accepted once is not usual
            recent = [lost for lost in recent if lost * 100 <= self._max_churn * earlier.files]
        usual = earlier.back * (sorted(recent)[len(recent) // 2] if recent else 0)  # the median, in each run
        allowed = min(_BEYOND * usual, _SURE * earlier.files * (1 if earlier.back == 1 else 2))
        if loss.files * 100 <= self._max_churn * earlier.files or loss.files <= allowed:
            return ""
        return (
            f"about {loss.files} of the {earlier.files} files of {earlier.sidecar['id']} look encrypted or wiped, for example {show(loss.example)}"
            f" (max_churn: {self._max_churn})"
        )
