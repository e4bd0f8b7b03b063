"""How templates of pages are read: the settings that keep what others wrote from becoming markup."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def page_environment(folder: Path) -> Environment:
    """Return the environment of the templates in `folder`: everything is escaped, and an unknown name is an error."""
    # imported when a page is written: a function that writes none starts faster
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
