# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pages that need no server: a file that a browser opens, with its style and its script in it.

All values are escaped. The script and the style run by their hashes, and nothing else does.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

_TEMPLATES = Path(__file__).parents[2] / "playbooks" / "templates"


def rendered(template: str, script: str | None, data: Any, **values: Any) -> str:
    """A page from a template of the collection, in the style that all have.

    :param script: name of its script, if it has one. :param data: what the script reads. :param values: what the template shows.
    """
    import jinja2  # only here: it takes time to import
    import markupsafe

    maker = jinja2.Environment(loader=jinja2.FileSystemLoader(str(_TEMPLATES)), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    style = _part("fleet.css")
    rules = ["default-src 'none'", f"style-src {_hash(style)}", "base-uri 'none'", "form-action 'none'"]
    safe = {"css": style}
    if script is not None:
        safe.update(js=_part(script), data=_embedded(data))
        rules.append(f"script-src {_hash(safe['js'])}")
    trusted = {name: markupsafe.Markup(text) for name, text in safe.items()}
    return maker.get_template(template).render(policy="; ".join(rules), **trusted, **values)


def _part(name: str) -> str:
    """The style or the script, without the licence at its head."""
    return (_TEMPLATES / name).read_text(encoding="utf-8").split("*/\n", 1)[1]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded(value: Any) -> str:
    """JSON that HTML leaves alone, whatever the texts in it are."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
