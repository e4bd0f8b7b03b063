"""The report's script: the player of the web page, and what ties it to the strips of a report."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import Final

_PARTS: Final = ("page/player.js", "report/scrub.js")
_COMMENT = re.compile(r"^ *//.*\n", re.MULTILINE)


@cache
def script() -> str:
    """Return the script, whole: a page that is opened from disk can import nothing."""
    library = resources.files("structureflow")
    parts = [(library / part).read_text(encoding="utf-8").replace("\r\n", "\n") for part in _PARTS]
    body = _COMMENT.sub("", "\n".join(parts)).replace("\nexport ", "\n")
    return f'"use strict";\n{{\n{body}}}\n'


@cache
def script_source() -> str:
    """Return the source of a Content-Security-Policy that lets this script run and no other."""
    digest = hashlib.sha256(script().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
