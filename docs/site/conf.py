# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation as a site: the guides of docs/, and a page for each module, role and filter by antsibull-docs. `make site` builds it."""

from __future__ import annotations

import re

project = "volt.backup"
copyright = "2026, volt.backup contributors"
extensions = ["myst_parser", "sphinx_antsibull_ext"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "volt.backup"
html_show_sphinx = False
html_copy_source = False
highlight_language = "yaml"
highlight_options = {"console": {"stripnl": False}}
exclude_patterns = ["_build"]
default_role = "any"
nitpicky = True
nitpick_ignore_regex = [("envvar", ".*")]

#: Links of the guides that lead out of docs/, and the pages that they are here. Others are shown as text.
_ROLE = re.compile(r"\]\(\.\./roles/(\w+)/README\.md\)")
_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+[^)]*\)")


#: The theme shows the contents of a page beside it.
_CONTENTS = re.compile(r"^\.\. contents::\n(?: +:.*\n)*", re.MULTILINE)


def _adapt(_app: object, name: str, source: list[str]) -> None:
    if name.startswith("reference/"):
        source[0] = _CONTENTS.sub("", source[0])
    else:
        source[0] = _OUTSIDE.sub(r"`\1`", _ROLE.sub(r"](reference/\1_role.rst)", source[0]))


def setup(app: object) -> None:
    """What Sphinx calls."""
    app.connect("source-read", _adapt)  # type: ignore[attr-defined]
