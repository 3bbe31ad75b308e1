# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts as people and programs write them: words of a made-up language, of which a few are frequent and most are rare."""

from __future__ import annotations

import base64
import functools
import json
import random
from typing import Callable

#: Lines of each sort that are made once; texts are drawn from them.
POOL = 1500
_DAY = 86_400


@functools.lru_cache(maxsize=None)
def words() -> list[str]:
    dice = random.Random("words")
    heads, cores, tails = ("", "b", "d", "f", "k", "l", "m", "pr", "s", "st", "t", "v"), ("a", "e", "i", "o", "u", "ä", "ei"), ("", "n", "r", "l", "st", "m")
    return ["".join(dice.choice(part) for _time in range(dice.randint(1, 3)) for part in (heads, cores, tails)) for _time in range(900)]


@functools.lru_cache(maxsize=None)
def _weights() -> list[float]:
    # After Zipf: the n-th word comes up one n-th as often.
    total, sums = 0.0, []
    for rank in range(len(words())):
        total += 1 / (rank + 1)
        sums.append(total)
    return sums


def some(dice: random.Random, count: int) -> list[str]:
    return dice.choices(words(), cum_weights=_weights(), k=count)


@functools.lru_cache(maxsize=None)
def _plain() -> list[str]:
    return [word.replace("ä", "ae") for word in words()]


def word(dice: random.Random) -> str:
    """One for a name: all are alike there, and plain letters."""
    return dice.choice(_plain())


def names(dice: random.Random, count: int) -> list[str]:
    return dice.choices(_plain(), k=count)


def _prose(dice: random.Random) -> str:
    return " ".join(some(dice, dice.randint(5, 16))).capitalize() + dice.choice(".....?!;")


def _source(dice: random.Random) -> str:
    one, two, three = word(dice), word(dice), word(dice)
    line = dice.choice(
        (
            f"def {one}_{two}({three}, {two}=None):", f"    return self.{one}.{two}({three}, {dice.randrange(100)})", f"        {one} = {two}[{three}] + 1",
            f"    if {one} is not None and {two}.{three}:", f"    # {' '.join(some(dice, 7))}", "", f"from {one}.{two} import {three}",
            f"        raise ValueError(\"{' '.join(some(dice, 4))}\")", f"    for {one}, {two} in {three}.items():",
            f"class {one.capitalize()}{two.capitalize()}:",
        )
    )  # fmt: skip
    return line


def _script(dice: random.Random) -> str:
    """Of a bundler: no spaces, short names."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    one, two, three = dice.choices(letters, k=3)
    return dice.choice(
        (f"function {one}({two}){{return {two}.{word(dice)}({three})}}", f"var {one}={{{word(dice)}:{two},{word(dice)}:{dice.randrange(999)}}};",
         f"{one}.exports={{{word(dice)}:function({two},{three}){{return {two}?{three}:null}}}};", f"if({one}&&{two}.{word(dice)}){{{three}+=\"{word(dice)}\"}}")
    )  # fmt: skip


def _html(dice: random.Random) -> str:
    return f'<{dice.choice(("p", "li", "h2", "td"))} class="{word(dice)}-{word(dice)}">{" ".join(some(dice, dice.randint(3, 20)))}</p>'


def _setting(dice: random.Random) -> str:
    number = dice.randrange(9999)
    return dice.choice((f"# {' '.join(some(dice, 8))}", f"{word(dice)}_{word(dice)} = {number}", f"{word(dice)}: {word(dice)}", f"[{word(dice)}]", ""))


def _markup(dice: random.Random) -> str:
    return dice.choice((f"## {' '.join(some(dice, 4))}", f"- {' '.join(some(dice, 9))}", " ".join(some(dice, 25)), "", f"`{word(dice)} --{word(dice)}`"))


_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "prose": _prose, "source": _source, "script": _script, "html": _html, "setting": _setting, "markup": _markup,
}  # fmt: skip


@functools.lru_cache(maxsize=None)
def _pool(sort: str) -> tuple[list[str], float]:
    dice = random.Random(sort)
    lines = [_MAKERS[sort](dice) for _time in range(POOL)]
    return lines, sum(map(len, lines)) / POOL + 1


def lines(dice: random.Random, sort: str, size: int) -> list[str]:
    pool, mean = _pool(sort)
    return dice.choices(pool, k=max(1, int(size / mean)))


def text(dice: random.Random, sort: str, size: int) -> bytes:
    return ("\n".join(lines(dice, sort, size)) + "\n").encode()


def prose(dice: random.Random, size: int) -> bytes:
    return text(dice, "prose", size)


def source(dice: random.Random, size: int) -> bytes:
    return text(dice, "source", size)


def script(dice: random.Random, size: int) -> bytes:
    return "".join(lines(dice, "script", size)).encode() + f"//# {dice.getrandbits(64):x}".encode()


def html(dice: random.Random, size: int) -> bytes:
    return b"<!DOCTYPE html>\n<html><body>\n" + text(dice, "html", size) + f"<!-- {dice.getrandbits(40):x} --></body></html>\n".encode()


def style(dice: random.Random, size: int) -> bytes:
    rules = (f".{word(dice)}-{word(dice)}{{margin:{dice.randrange(40)}px;color:#{dice.getrandbits(24):06x}}}" for _time in range(max(1, size // 45)))
    return "\n".join(rules).encode()


def setting(dice: random.Random, size: int) -> bytes:
    return text(dice, "setting", size)


def markup(dice: random.Random, size: int) -> bytes:
    return text(dice, "markup", size)


def records(dice: random.Random, size: int) -> bytes:
    """JSON."""
    rows = [{"id": dice.getrandbits(32), word(dice): " ".join(some(dice, 4)), "value": round(dice.gauss(50, 20), 3)} for _time in range(max(1, size // 75))]
    return json.dumps(rows, indent=1, ensure_ascii=False).encode()


def table(dice: random.Random, size: int) -> bytes:
    """CSV."""
    first = dice.randrange(10_000)
    rows = (f"{first + number},{name},{dice.random() * 200:.2f},{number % 7 % 2}" for number, name in enumerate(names(dice, max(1, size // 25))))
    return ("id,name,value,flag\n" + "\n".join(rows) + "\n").encode()


def log(dice: random.Random, size: int, day: int = 0) -> bytes:
    pool, _mean = _pool("prose")
    count = max(1, size // 100)
    date = f"2025-{1 + day // 30 % 12:02d}-{1 + day % 30:02d}"
    return "".join(
        f"{date}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d} host {word(dice)}[{dice.randrange(9999)}]: {line}\n"
        for second, line in zip(range(0, _DAY, max(1, _DAY // count)), dice.choices(pool, k=count))
    ).encode()


def dump(dice: random.Random, size: int) -> bytes:
    """SQL."""
    notes = lines(dice, "prose", size)
    rows = (f"({number}, '{note}', {dice.random():.4f})" for number, note in enumerate(notes))
    return b"-- PostgreSQL database dump\nCOPY public.items FROM stdin;\n" + "\n".join(rows).encode() + b"\n\\.\n-- done\n"


def mail(dice: random.Random, size: int) -> bytes:
    """A message; a third of them carry an attachment, which is base64 of what looks random."""
    head = f"Return-Path: <{word(dice)}@example.org>\nFrom: {word(dice)} <{word(dice)}@example.org>\nTo: {word(dice)}@example.net\n"
    head += f"Subject: {' '.join(some(dice, 4))}\nMessage-ID: <{dice.getrandbits(80):x}@example.org>\nMIME-Version: 1.0\n"
    if dice.random() < 0.66:
        return head.encode() + b"Content-Type: text/plain; charset=utf-8\n\n" + prose(dice, size)
    mark = f"b{dice.getrandbits(60):x}"
    part = f"\n--{mark}\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n".encode()
    body = prose(dice, min(size // 4, 1500)) + part + base64.encodebytes(dice.randbytes(size * 9 // 16))
    return head.encode() + f'Content-Type: multipart/mixed; boundary="{mark}"\n\n'.encode() + body + f"--{mark}--\n".encode()
