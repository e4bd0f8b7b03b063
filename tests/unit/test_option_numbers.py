"""Numbers on the command line: what no command could use is refused before anything is done."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from structureflow_local.cli import build_parser, main

BAD = ["-1", "nan", "inf", "-inf", "1e999", "x", "", "\u00b2", "1 2", "99999999999999999999"]


def options(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, argparse.Action]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from options(below, (*words, name))
        elif action.option_strings:
            yield " ".join((*words, action.option_strings[-1])), action


def numbers() -> list[Any]:
    """Return the options that take a number: those whose default is one, or that read ``200`` as one."""
    return [
        pytest.param(action, id=name)
        for name, action in options(build_parser())
        if callable(action.type) and isinstance(_read(action.type), int | float)
    ]


def _read(kind: Callable[[str], Any]) -> Any:
    for text in ("200", "50"):
        try:
            return kind(text)
        except argparse.ArgumentTypeError:
            continue
    raise AssertionError(f"{kind} reads neither")


def test_the_options_are_found() -> None:
    assert len(numbers()) >= 12


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("action", numbers())
def test_what_is_no_number_for_an_option_is_refused(action: argparse.Action, text: str) -> None:
    assert callable(action.type)
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected [0-9m]"):
        action.type(text)


@pytest.mark.parametrize("action", numbers())
def test_defaults_are_values_that_an_option_takes(action: argparse.Action) -> None:
    assert callable(action.type)
    if action.default is not None and action.default != argparse.SUPPRESS:
        assert action.type(str(action.default)) == action.default


def test_the_command_line_says_which_option(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["viewer", "--port=-1"], ["jobs", "list", "--limit=-3"], ["run", "j", "--out", "o", "--timeout=0"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        option = words[-1].partition("=")[0]
        assert f"error: argument {option}: expected " in capsys.readouterr().err
