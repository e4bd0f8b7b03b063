"""What commands say: the result first, tables on demand, or one JSON document for programs.

Nothing that comes from outside (names, paths, messages) is read as markup: everything is plain text to the console.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from structureflow.errors import StructureFlowError


class Output:
    """Where a command's words go.

    Args:
        as_json: print one JSON document, of what `give` collected, and no words.
        verbose: print what `detail` is given.
        console: for results; default standard output. Errors go to standard error.
    """

    def __init__(self, *, as_json: bool = False, verbose: bool = False, console: Console | None = None) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)
        self._document: dict[str, Any] = {}
        self._finished = False

    @property
    def live(self) -> bool:
        """Whether somebody looks on: words may be rewritten in place."""
        return self.console.is_terminal and not self.as_json

    def say(self, text: str, style: str = "") -> None:
        """Print a line of a result."""
        if not self.as_json:
            self.console.print(Text(text, style=style))

    def show(self, table: RenderableType) -> None:
        """Print a table that is the result."""
        if not self.as_json:
            self.console.print(table)

    def detail(self, table: RenderableType) -> None:
        """Print more of a result, where more was asked for."""
        if self.verbose and not self.as_json:
            self.console.print(table)

    def remark(self, text: str, style: str = "") -> None:
        """Print what is no result: how far it is, a hint. It goes to standard error, out of the way of pipes."""
        if not self.as_json:
            self._errors.print(Text(text, style=style))

    def give(self, **values: Any) -> None:
        """Add to the JSON document."""
        self._document |= values

    def fail(self, error: StructureFlowError) -> None:
        """Say what ended the command."""
        self.give(error=error.as_dict())
        if self.as_json:
            return
        self._errors.print(Text.assemble((error.code, "bold red"), f": {error.message}"))
        for line in error.detail.get("problems", ()):
            if str(line) not in error.message:
                self._errors.print(Text(f"  {line}"))

    def finish(self) -> None:
        """Print the JSON document, if one is asked for; only the first call does anything."""
        if self.as_json and not self._finished:
            self._finished = True
            sys.stdout.write(json.dumps(plain(self._document), indent=2, ensure_ascii=False) + "\n")
            sys.stdout.flush()


def plain(value: Any) -> Any:
    """Return a value as JSON has it; models as they are stored, paths and moments as text."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def size(size_bytes: float) -> str:
    """Say a size in bytes."""
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"


def table(title: str, *columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """Return an empty table for rows of `cells`; the columns named in `numbers` stand to the right."""
    made = Table(title=Text(title), title_justify="left")
    for column in columns:
        made.add_column(Text(column), justify="right" if column in numbers else "left", overflow="fold")
    return made


def cells(*texts: object) -> list[Text]:
    """Return the cells of a row as plain text."""
    return [Text(str(text)) for text in texts]
