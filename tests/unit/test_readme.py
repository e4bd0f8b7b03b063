"""The README says only what is true: its commands exist, its examples are valid, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from structureflow.models.job import JobRequest
from structureflow_local.cli import build_parser

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "README.md").read_text()
PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", REPO / "CHANGELOG.md", *sorted((REPO / "docs").glob("*.md"))]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands() -> list[list[str]]:
    found = []
    for page in PAGES:
        for block in blocks("bash", page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                found += [shlex.split(part.rstrip(" &"), comments=True) for part in line.split("&&")]
    # of the environment or on the path, it is the same command
    return [[command[0].removeprefix(".venv/bin/"), *command[1:]] for command in found if command]


@pytest.mark.parametrize("command", [c for c in commands() if c[0] == "make"], ids=" ".join)
def test_make_targets_exist(command: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), flags=re.MULTILINE)
    assert next(word for word in command[1:] if "=" not in word) in targets


@pytest.mark.parametrize("command", [c for c in commands() if c[0] == "structureflow"], ids=" ".join)
def test_command_lines_parse(command: list[str]) -> None:
    build_parser().parse_args(command[1:])


def test_commands_are_found_in_a_fresh_shell() -> None:
    """Nothing is on the path there but what systems and AWS's own tools bring."""
    for page in PAGES:
        for block in blocks("bash", page.read_text()):
            assert not re.findall(r"^structureflow ", block, re.MULTILINE), f"{page.name}: give its path"


@pytest.mark.parametrize("command", [c for c in commands() if c[:3] == ["sam", "local", "invoke"]], ids=" ".join)
def test_sam_local_names_a_function_and_an_event(command: list[str]) -> None:
    assert re.search(rf"^  {command[3]}:$", (REPO / "template.yaml").read_text(), flags=re.MULTILINE)
    assert (REPO / command[command.index("-e") + 1]).is_file()


def test_every_example_request_is_valid() -> None:
    examples = blocks("json")
    assert examples
    for example in examples:
        JobRequest.parse(json.loads(example))


def test_every_field_of_the_request_is_in_the_table() -> None:
    for name in JobRequest.model_fields:
        assert f"| `{name}` |" in README, name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_folders_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target


def test_the_table_shows_what_was_measured() -> None:
    from bench.harness import load_results, summary

    rows, taken_on = load_results()
    assert summary(rows, taken_on) in README


def test_folders_of_the_table_exist() -> None:
    table = README.split("## Where things are", 1)[1]
    for name in re.findall(r"`([a-z./]+)`", table.split("| what is there |")[1]):
        if "/" in name:
            assert (REPO / name).exists(), name
