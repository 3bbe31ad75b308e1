# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of a terminal: what a command printed, as text and as SVG in docs/pictures, and whether it still prints that.

`VOLT_PICTURES=write` with a test that makes one writes it anew.
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
_WRITE = os.environ.get("VOLT_PICTURES") == "write"
#: What differs from run to run: numbers, spans of time, and with them the width of columns.
_CHANGING = re.compile(r"\d+(?:[dhms]\d*)*|[ ─*-]+")
#: Of text in a picture: what tells of success, of a change, of a failure.
_COLOURS = (("#d7827e", r"FAILED|STOPPED|fatal:|failed=[1-9]|UNREACHABLE|\[ERROR\]"), ("#d7a65f", "changed:"), ("#6b9e78", r"\bok\b|ok:"))
_WIDTH, _HEIGHT, _MARGIN = 8.4, 19, 16


def check(name: str, text: str) -> None:
    """Fail where a command prints something else than its picture shows."""
    written, drawn = PICTURES / f"{name}.txt", PICTURES / f"{name}.svg"
    if _WRITE:
        PICTURES.mkdir(exist_ok=True)
        written.write_text(text, encoding="utf-8")
        drawn.write_text(draw(text), encoding="utf-8")
    kept = written.read_text(encoding="utf-8")
    assert lasting(text) == lasting(kept), f"{written.name} is out of date; VOLT_PICTURES=write makes it anew"
    assert drawn.read_text(encoding="utf-8") == draw(kept)


def lasting(text: str) -> str:
    """A text without what differs from run to run."""
    return _CHANGING.sub(lambda found: "0" if found[0][0].isdigit() else " ", text)


def draw(text: str) -> str:
    """An SVG of a terminal that shows a text."""
    lines = text.splitlines()
    width = round(max(map(len, lines)) * _WIDTH + 2 * _MARGIN)
    height = len(lines) * _HEIGHT + 2 * _MARGIN
    shown = [
        f'<text x="{_MARGIN}" y="{_MARGIN + (number + 0.75) * _HEIGHT:.0f}">{_coloured(line)}</text>' for number, line in enumerate(lines) if line.strip()
    ]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#1f2430"/>',
        '<g fill="#d8dee9" font-family="ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14">',
        *shown, "</g>", "</svg>", "",
    ])  # fmt: skip


def _coloured(line: str) -> str:
    if line.startswith("$ "):
        return f'<tspan fill="#8fbcbb">{html.escape(line)}</tspan>'
    shown = html.escape(line, quote=False).replace(" ", "\N{NO-BREAK SPACE}")  # of spaces, viewers draw but one
    for colour, words in _COLOURS:
        shown = re.sub(words, rf'<tspan fill="{colour}">\g<0></tspan>', shown)
    return shown
