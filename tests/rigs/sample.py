# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of many like cases a run takes. A usual run takes some, by a seed that pytest prints in its header; the long mode takes all.

The gates take another seed each week. VOLT_SEED=N takes other cases, VOLT_TESTS=long all of them (`make test-long`). What is left out of the tests with
the marker `costly`, is decided in tests/conftest.py.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

LONG = os.environ.get("VOLT_TESTS") == "long"
SEED = int(os.environ.get("VOLT_SEED") or 1)
HEADER = "cases: all (VOLT_TESTS=long)" if LONG else f"cases: a sample (VOLT_SEED={SEED}); VOLT_TESTS=long takes all"

Case = TypeVar("Case")


def chance(*what: object) -> random.Random:
    """Random numbers that depend on the seed and on what they are for."""
    return random.Random(repr((SEED, *what)))


def some(cases: Sequence[Case], number: int, *what: object) -> list[Case]:
    """At most `number` of the cases, one from each of as many equal stretches, in their order; all in the long mode.

    :param what: what they are for; other ones are taken for each.
    """
    if LONG or len(cases) <= number:
        return list(cases)
    draw = chance(*what)
    bounds = [index * len(cases) // number for index in range(number + 1)]
    return [cases[draw.randrange(start, end)] for start, end in zip(bounds, bounds[1:])]
