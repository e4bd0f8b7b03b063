"""Run measurements: ``python -m bench [--quick] [names]``; without names, all modules of this folder."""

from __future__ import annotations

import argparse

from bench.harness import FOLDER, machine, markdown, run

_NO_MODULES = {"__init__", "__main__", "clips", "harness"}


def main() -> None:
    """Run the modules named on the command line and print their table."""
    known = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in _NO_MODULES)
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help="what to measure (default: everything)")
    parser.add_argument("--quick", action="store_true", help="one round, nothing written: does it run?")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(known):
        parser.error(f"expected names out of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    rows = run(arguments.names or known, quick=arguments.quick)
    print(markdown(rows, machine()))


if __name__ == "__main__":
    main()
