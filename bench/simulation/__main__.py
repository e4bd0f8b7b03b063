"""Print what the model says, as Markdown tables: ``python -m bench.simulation``."""

from __future__ import annotations

from bench.simulation.tables import crowds, lengths, table


def main() -> None:
    """Print both tables."""
    print(table(lengths()))
    print()
    print(table(crowds()))


if __name__ == "__main__":
    main()
