"""``python -m fuzz``: fuzz a target for a number of runs in a bounded child, or run one input again.

The archive reader and the request model are fuzzed by libFuzzer, guided by coverage; videos and images, which native
code reads, by plain mutation, a hundredth as many, for each takes a hundred times as long.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from fuzz.native import CHECKS, mutate
from fuzz.seeds import write_seeds
from fuzz.targets import TARGETS

REPO: Final = Path(__file__).resolve().parents[1]
FOUND: Final = REPO / "fuzz" / "found"
#: Of the child: the libraries take 400 MB of addresses, an input of 64 kB that inflates 1,000 times 64 MB.
ADDRESS_SPACE_BYTES: Final = 2 * 1024**3
RESIDENT_MB: Final = 512
#: Of one input; the slowest sound one takes milliseconds.
RUN_TIMEOUT_S: Final = 10
LONGEST_INPUT: Final = {"archive": 16_384, "request": 8_192}


def main() -> int:
    """Run the command; returns the exit code: 1 if a target crashed, hung or took too much memory."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Fuzz what reads bytes from outside.")
    parser.add_argument("target", nargs="?", choices=[*TARGETS, *CHECKS, "all"], default="all")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs for each target (default: 100,000)")
    parser.add_argument("--seed", type=int, help="of the mutations (default: drawn, and printed)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input that was found, and nothing else")
    parser.add_argument("--record", type=Path, metavar="FILE", help="append what was done to a JSON Lines file")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        _replay(arguments.target, arguments.replay)
        return 0
    seed = arguments.seed if arguments.seed is not None else int.from_bytes(os.urandom(3))
    failed = False
    for target in [*TARGETS, *CHECKS] if arguments.target == "all" else [arguments.target]:
        if target in TARGETS:
            result = fuzz(target, runs=arguments.runs, seed=seed)
        else:
            result = mutate(target, runs=max(1, arguments.runs // 100), seed=seed, found=FOUND)
        print(json.dumps(result))
        if arguments.record is not None:
            with arguments.record.open("a") as file:
                file.write(json.dumps(result) + "\n")
        failed |= not result["clean"]
    return int(failed)


def fuzz(target: str, *, runs: int, seed: int) -> dict[str, Any]:
    """Fuzz one target; inputs that crash it stay in `FOUND`."""
    FOUND.mkdir(exist_ok=True)
    before = set(FOUND.iterdir())
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        words = write_seeds(target, Path(folder))
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        command = [
            *(sys.executable, "-m", "fuzz.child", target, str(ADDRESS_SPACE_BYTES)),
            *(f"-runs={runs}", f"-seed={seed}", f"-dict={words}", f"-max_len={LONGEST_INPUT[target]}"),
            *(f"-timeout={RUN_TIMEOUT_S}", f"-rss_limit_mb={RESIDENT_MB}", f"-artifact_prefix={FOUND}/{target}-"),
            *("-print_final_stats=1", "-len_control=0", str(corpus), str(Path(folder) / "seeds")),
        ]
        started = time.monotonic()
        with (Path(folder) / "log").open("w+") as log:
            child = subprocess.run(command, cwd=REPO, stdout=log, stderr=subprocess.STDOUT, check=False)
            log.seek(0)
            said = log.read()
    found = sorted(str(path.relative_to(REPO)) for path in set(FOUND.iterdir()) - before)
    if child.returncode or found:
        print(said[-6000:], file=sys.stderr)
    return {
        "target": target,
        "date": time.strftime("%Y-%m-%d"),
        "seed": seed,
        "runs": _stat(said, "number_of_executed_units"),
        "seconds": round(time.monotonic() - started),
        "peak_rss_mb": _stat(said, "peak_rss_mb"),
        "new_inputs": _stat(said, "new_units_added"),
        "slowest_s": _stat(said, "slowest_unit_time_sec"),
        "clean": child.returncode == 0 and not found,
        "found": found,
    }


def _replay(target: str, path: Path) -> None:
    data = path.read_bytes()
    if target in TARGETS:
        TARGETS[target](data)
    else:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            CHECKS[target][0](data, Path(folder) / "input")
    print("nothing happens")


def _stat(said: str, name: str) -> int | None:
    match = re.search(rf"stat::{name}:\s+(\d+)", said)
    return int(match[1]) if match else None


if __name__ == "__main__":
    sys.exit(main())
