"""The audit's exceptions: each has a reason, and each still stands for something in the template."""

from __future__ import annotations

from pathlib import Path

LINES = (Path(__file__).resolve().parents[2] / ".checkov.yaml").read_text().splitlines()


def test_every_exception_of_the_audit_has_a_reason() -> None:
    checks = [number for number, line in enumerate(LINES) if line.strip().startswith("- CKV")]
    assert checks
    assert len({LINES[number] for number in checks}) == len(checks)
    for number in checks:
        assert LINES[number - 1].strip().startswith("#"), LINES[number]
