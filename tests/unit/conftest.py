# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hypothesis as these tests want it: no clocks to fail by on a busy machine, the same examples in every run."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile("volt", deadline=None, derandomize=True, max_examples=60, database=None)
hypothesis.settings.load_profile("volt")
