"""The page on security names tests; each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "security.md").read_text()


def test_every_named_test_exists() -> None:
    named = 0
    path: Path | None = None
    for file, name in re.findall(r"`((?:[a-z0-9]+/test_\w+\.py)?)(?:::(test_\w+))?`", PAGE):
        if not file and not name:
            continue
        path = REPO / "tests" / file if file else path
        assert path is not None, name
        assert path.is_file(), path
        if name:
            assert f"def {name}(" in path.read_text(), f"{path}: {name}"
        named += 1
    assert named >= 20


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) >= 20
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3, row
        assert "test_" in cells[2] or cells[2] in {"shown by", "the same"}, row
