"""``docs/limits.md`` and the constants: each has its row, each row its constant and value, each is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from structureflow import errors, limits

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "limits.md").read_text()
ROWS = dict(re.findall(r"^\| `([A-Z][A-Z0-9_]*)` \| ([^|]*) \|", PAGE, re.MULTILINE))
CONSTANTS = {name: value for name, value in vars(limits).items() if name.isupper()}
UNITS = {"PX": " px", "S": " s", "MB": " MB", "CHARS": " characters"}


def said(name: str, value: float) -> str:
    """Write a constant as the page does: the unit from its name, bytes in the largest unit that leaves them whole."""
    if "_BYTES" in name:
        for exponent, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
            if value % 1024**exponent == 0:
                return f"{int(value) // 1024**exponent:,} {unit}"
    number = f"{value:,.0f}" if value == int(value) else f"{value:g}"
    return number + UNITS.get(name.rpartition("_")[2], "")


def test_every_constant_stands_on_the_page_with_its_value() -> None:
    assert {name: said(name, value) for name, value in CONSTANTS.items()} == ROWS
    assert len(re.findall(r"^\| `[A-Z]", PAGE, re.MULTILINE)) == len(ROWS), "a constant stands there twice"


@pytest.mark.parametrize("name", CONSTANTS)
def test_every_constant_bounds_something(name: str) -> None:
    """In the code; a limit of AWS's own at least in the rules for the template."""
    places = [
        *(REPO / "layers").rglob("*.py"),
        *(REPO / "local").rglob("*.py"),
        *(REPO / "tests" / "infra").glob("*.py"),
    ]
    module = Path(limits.__file__).resolve()
    users = [path for path in places if path != module and re.search(rf"\b{name}\b", path.read_text())]
    assert users or re.search(rf"= .*\b{name}\b", module.read_text())


def test_the_page_names_errors_that_there_are() -> None:
    named = set(re.findall(r"`(\w+Error)`", PAGE))
    assert len(named) > 5
    assert {name for name in named if not hasattr(errors, name)} == set()


def test_the_page_names_parameters_that_there_are() -> None:
    template = (REPO / "template.yaml").read_text()
    for name in re.findall(r"`((?:Max|Gpu)[A-Z]\w+)`", PAGE):
        assert f"\n  {name}:\n" in template, name
