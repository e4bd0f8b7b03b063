"""Cold starts: what a handler imports, in a fresh process, with and without compiled files.

Lambda's file systems cannot be written, so a function without compiled files compiles all that it imports at every
cold start; "without" is how the layers were built before. Processor time, for a fresh process takes long to start on a
busy machine. The handlers are taken from this checkout, with the packages of this environment.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.harness import Context, Row
from structureflow_local.cloud.template import FunctionSpec, load_template

REPO = Path(__file__).resolve().parent.parent
ROUNDS: Final = 5
_PROGRAM: Final = """
import sys
if not {compiled}:
    sys.dont_write_bytecode, sys.pycache_prefix = True, {nowhere!r}
import importlib, time
begin = time.process_time()
importlib.import_module({module!r})
print(time.process_time() - begin)
"""


def rows(context: Context) -> list[Row]:
    """Measure every handler that runs without the GPU part."""
    specs = list(load_template(REPO / "template.yaml").functions.values())
    spent: dict[tuple[str, bool], list[float]] = {}
    for number in range(2 if context.quick else ROUNDS + 1):
        for spec in specs:
            for compiled in (True, False):
                seconds = _import_s(spec, context.folder / "nowhere", compiled=compiled)
                # The first round compiles what is not compiled yet, and reads the files into memory.
                if number:
                    spent.setdefault((spec.logical_id, compiled), []).append(seconds)
    found = []
    for spec in specs:
        with_files, without = (statistics.median(spent[spec.logical_id, compiled]) for compiled in (True, False))
        kind = "media image" if spec.runtime is None else "zip"
        note = f"processor time; {without:.2f} s, {without / with_files:.1f} times as much, without compiled files"
        name = f"cold import, {spec.logical_id.removesuffix('Function')}, {kind}"
        found.append(Row("cold", name, "s", None, with_files, note=note))
    return found


def _import_s(spec: FunctionSpec, nowhere: Path, *, compiled: bool) -> float:
    module = spec.handler.rpartition(".")[0]
    program = _PROGRAM.format(compiled=compiled, nowhere=str(nowhere), module=module)
    environment = {
        **os.environ,
        **spec.environment,
        "PYTHONPATH": os.pathsep.join(map(str, (spec.code_dir, *spec.python_path))),
    }
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, cwd=spec.code_dir, capture_output=True, text=True, check=True)
    return float(done.stdout)
