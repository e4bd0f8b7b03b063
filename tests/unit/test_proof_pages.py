"""The pages on security and on faults name tests; each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PAGES = [pytest.param((REPO / "docs" / name).read_text(), id=name) for name in ("security.md", "faults.md")]


@pytest.mark.parametrize("page", PAGES)
def test_every_named_test_exists(page: str) -> None:
    named = 0
    path: Path | None = None
    for file, name in re.findall(r"`((?:[a-z0-9]+/test_\w+\.py)?)(?:::(test_\w+))?`", page):
        if not file and not name:
            continue
        path = REPO / "tests" / file if file else path
        assert path is not None, name
        assert path.is_file(), path
        if name:
            assert f"def {name}(" in path.read_text(), f"{path}: {name}"
        named += 1
    assert named >= 20


@pytest.mark.parametrize("page", PAGES)
def test_every_row_names_a_test(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) >= 25
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3, row
        assert "test_" in cells[2] or cells[2] in {"shown by", "the same"}, row
