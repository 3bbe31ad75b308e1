# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Everything that is printed: for people aligned, in their units and in the words of this command, for programs as JSON, and progress only on a terminal."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
import typing as t

from .._base import UsageError, VoltError, now, one_line, parse_time, reason, translate

#: Modules by the words that do the same, and states of volt_backup that have words of their own.
_WORDS = {"volt_backup": "create", "volt_restore": "restore", "volt_backup_prune": "prune", "volt_cas_gc": "gc", "volt_cas_verify": "verify"}
_STATES = {"accepted": "accept", "protected": "protect", "unprotected": "unprotect", "absent": "delete"}
#: Columns that are enough to wrap a text in.
_NARROW = 24
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(number: t.Optional[float]) -> str:
    """Bytes in a unit that fits."""
    if number is None:
        return "?"
    unit = 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number /= 1024
        unit += 1
    return f"{number:.0f} B" if not unit else f"{number:.1f} {_UNITS[unit]}"


def span(nanoseconds: t.Optional[int]) -> str:
    """A duration in words."""
    if nanoseconds is None:
        return "?"
    seconds = nanoseconds / 1e9
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def age(seconds: t.Optional[float]) -> str:
    """A span of time in its two largest units."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    first = next((at for at, (number, _unit) in enumerate(parts) if number), len(parts) - 1)
    return "".join(f"{number}{unit}" for number, unit in parts[first : first + 2] if number or unit == "s" and not whole)


def ago(text: t.Optional[str]) -> str:
    """A moment as people count from now: how long ago it was, or when it comes."""
    if not text:
        return "-"
    try:
        seconds = (now() - parse_time(text)).total_seconds()
    except UsageError:
        return text
    return age(seconds) if seconds >= 0 else f"in {age(-seconds)}"


def table(head: t.Sequence[str], rows: t.Sequence[t.Sequence[t.Any]], right: t.Container[int] = ()) -> str:
    """Aligned columns, those in `right` to the right."""
    return _laid_out([list(head)] + [[one_line(cell) for cell in row] for row in rows], right, sys.maxsize)


def fitted(head: t.Sequence[str], rows: t.Sequence[t.Sequence[t.Any]], right: t.Container[int] = (), wrap: bool = True) -> str:
    """The same for a screen: columns that are empty are left out, and the last one is wrapped, or goes below the others.

    :param wrap: False where the last column is no text but a name.
    """
    cells = [list(head)] + [[one_line(cell) for cell in row] for row in rows]
    used = [column for column in range(len(head)) if column == 0 or any(row[column] for row in cells[1:])]
    return _laid_out([[row[column] for column in used] for row in cells], [used.index(column) for column in used if column in right],
                     _columns() if wrap else sys.maxsize)  # fmt: skip


def _laid_out(cells: t.Sequence[t.Sequence[str]], right: t.Container[int], columns: int) -> str:
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    indent = sum(width + 2 for width in widths[:-1])
    lines = []
    for row in cells:
        *others, last = (cell.rjust(width) if column in right else cell.ljust(width) for column, (cell, width) in enumerate(zip(row, widths)))
        begin, last = "".join(cell + "  " for cell in others), last.rstrip()
        if indent + len(last) <= columns or not others:
            lines.append(begin + last)
        elif columns - indent >= _NARROW:
            first, *more = _wrapped(last, columns - indent)
            lines += [begin + first, *(" " * indent + line for line in more)]
        else:
            lines += [begin, *(f"    {line}" for line in _wrapped(last, columns - 4))]
    return "".join(line.rstrip() + "\n" for line in lines)


def _columns() -> int:
    """How wide a table may be. What goes to a file or into a pipe, where no one says how wide that is, has a line for each row: it is searched by lines."""
    return _terminal() if "COLUMNS" in os.environ or (sys.stdout is not None and sys.stdout.isatty()) else sys.maxsize


def _terminal() -> int:
    """Columns of the terminal."""
    import shutil  # only here: a start should not wait for what it brings

    return shutil.get_terminal_size().columns


def _wrapped(text: str, width: int) -> t.List[str]:
    import textwrap  # only here: most tables need none of it

    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False) or [""]


def fields(pairs: t.Iterable[t.Tuple[str, t.Any]]) -> str:
    """One thing a line: name, value."""
    shown = [(name, one_line(value)) for name, value in pairs if value not in (None, "", [])]
    width = max(len(name) for name, _value in shown)
    return "".join(f"{name.ljust(width)}  {value}\n" for name, value in shown)


def settle() -> None:
    """Let nothing that is to be printed be a failure for its letters: what the locale cannot show is escaped.

    Streams that are closed lead nowhere from here on; else the next file that is opened would have their number, and what hooks print would go there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # has the lowest free number: that of the stream
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def out(text: str) -> None:
    """Print a result. One who has read enough of it and closed the pipe makes no failure of it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _end_output(error)


def _end_output(error: OSError) -> None:
    """Print nothing more. VoltError unless it was the reader who ended it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer must not fail once more
    if not isinstance(error, BrokenPipeError):
        raise VoltError(f"The output cannot be written: {reason(error)}; fix that, then run again.") from None


def write(data: bytes) -> bool:
    """Write bytes of a file as they are; False where they are not read any more."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return True
    except OSError as error:
        _end_output(error)
        return False


def as_json(value: t.Any) -> None:
    out(json.dumps(value, indent=1) + "\n")


def complain(text: str) -> None:
    """Print an error after all other output: in the journal and in notifications, the last line counts."""
    with contextlib.suppress(OSError):  # who read it has gone, which is told elsewhere
        sys.stdout.flush()
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"volt-backup: {one_line(text)}\n")
        sys.stderr.flush()


def speak(text: str, args: t.Optional[argparse.Namespace] = None) -> str:
    """A message as one writes it on the command line. :param args: of the command that says it, whose `flags` are all that it has."""
    flags: t.Dict[str, argparse.Action] = getattr(args, "flags", {})

    def option(name: str, value: str) -> t.Optional[str]:
        action = flags.get(name)
        if action is None or (action.nargs == 0 and value not in ("", str(action.const).lower())):
            return None
        return action.option_strings[-1] + (f" {value}" if value and action.nargs != 0 else "")

    return translate(text, option, _called)


def _called(module: str, options: t.Dict[str, str]) -> t.Optional[str]:
    """A call of a module as one of this command."""
    if "new_store" in options:
        return "volt-backup init --replace"
    if "state" in options:
        word = _STATES.get(options["state"])
        return word and f"volt-backup {word} {options.get('id') or options.get('workload', '')}"
    words = [f"--{name.replace('_', '-')}" + ("" if value == "true" else f" {value}") for name, value in options.items()]
    return " ".join(["volt-backup", _WORDS[module], *words]) if module in _WORDS else None


class Progress:
    """A line that is drawn over: done, rate, and time left where a total is known. Silent where it is not watched.

    :param total: bytes expected, from the last backup or the one being restored; 0 if unknown.
    """

    _EVERY = 0.1

    def __init__(self, total: int, watched: bool) -> None:
        self._on = watched
        self._total = total
        self._files = self._size = 0
        self._began = time.monotonic()
        self._last = 0.0

    def __call__(self, files: int, amount: int) -> None:
        self._files += files
        self._size += amount
        if self._on and time.monotonic() - self._last >= self._EVERY:
            self._last = time.monotonic()
            self._draw()

    def _draw(self) -> None:
        passed = max(self._last - self._began, 0.001)
        rate = self._size / passed
        parts = [f"{self._files} files", size(self._size), f"{size(rate)}/s"]
        line = ""
        if self._total and self._size <= self._total:
            share = self._size / self._total
            left = (self._total - self._size) / rate if rate else 0
            parts.append(f"{span(int(left * 1e9))} left")
            width = 24
            line = "[" + "#" * int(share * width) + "." * (width - int(share * width)) + f"] {share:4.0%}  "
        columns = _terminal()
        sys.stderr.write("\r" + (line + ", ".join(parts))[: columns - 1].ljust(columns - 1))
        sys.stderr.flush()

    def end(self) -> None:
        """Wipe the line."""
        if self._on and self._last:
            sys.stderr.write("\r" + " " * (_terminal() - 1) + "\r")
            sys.stderr.flush()


@contextlib.contextmanager
def progress(silent: bool, expected: t.Callable[[], int]) -> t.Iterator[Progress]:
    """A progress line while the context lasts, on a terminal; only there it is worth a look at how many bytes to expect."""
    watched = sys.stderr.isatty() and not silent
    shown = Progress(expected() if watched else 0, watched)
    try:
        yield shown
    finally:
        shown.end()
