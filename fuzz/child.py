"""The process that fuzzes: one target, in an address space that ends long before the machine's memory does."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def main(target: str, arguments: list[str], address_space_bytes: int) -> None:
    """Fuzz with libFuzzer's `arguments`; never returns."""
    import atheris

    with atheris.instrument_imports(include=["structureflow", "fuzz"], enable_loader_override=False):
        from fuzz.targets import TARGETS

    resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes, address_space_bytes))
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main(sys.argv[1], sys.argv[3:], int(sys.argv[2]))
