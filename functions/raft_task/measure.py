"""Measure RAFT on this machine: pairs per second (both directions) and peak memory, by model and frame size.

    python measure.py [--sizes 640x360,1280x720] [--models raft_small,raft_large] [--pairs 24] [--iterations 12]

Weights are random: they take as long as trained ones. Prints a Markdown table headed by the device's name.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from structureflow.flow.raft import Device, Precision, RaftEngine
from structureflow.flow.raft_weights import MODELS, RaftModel
from structureflow.testing.raft import RandomWeights


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description="Pairs per second and peak memory of RAFT.")
    parser.add_argument(
        "--sizes", default="640x360,960x544,1280x720,1920x1080", help="WIDTHxHEIGHT, separated by commas"
    )
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--batch-pairs", type=int, default=8)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "float16", "bfloat16"])
    asked = parser.parse_args()
    sizes = [(int(width), int(height)) for width, _, height in (size.partition("x") for size in asked.sizes.split(","))]
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(asked.models.split(",")):
            weights = RandomWeights.make(cast("RaftModel", name), Path(folder))
            for width, height in sizes:
                engine = weights.engine(
                    iterations=asked.iterations,
                    batch_pairs=asked.batch_pairs,
                    # As large as asked for: the point is to see what it costs.
                    max_area_px=width * height,
                    device=cast("Device", asked.device),
                    precision=cast("Precision", asked.precision),
                )
                if number == 0 and (width, height) == sizes[0]:
                    print(_heading(engine))
                pairs_per_s, peak_gb = _measure(engine, width, height, asked.pairs)
                print(f"| {name} | {width}x{height} | {pairs_per_s:.2f} | {peak_gb:.2f} |", flush=True)


def _heading(engine: RaftEngine) -> str:
    import torch

    params = engine.params()
    device = torch.cuda.get_device_name() if params["device"] == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return (
        f"{device}; {params['precision']}; {params['iterations']} iterations; PyTorch {params['torch']}\n\n"
        "| model | size | pairs per second, both directions | peak memory, GB |\n| --- | --- | --- | --- |"
    )


def _measure(engine: RaftEngine, width: int, height: int, pairs: int) -> tuple[float, float]:
    """Return pairs per second without the first batch, and the peak: of the GPU's memory, or of the process's."""
    import torch

    on_gpu = engine.params()["device"] == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    run = engine.run(_frames(pairs + engine.batch_pairs + 1, height, width), lambda *_pair: None, workers=2)
    times = [time.perf_counter() for _ in run]
    # A batch's pairs end together: from the end of one batch to the end of the last one.
    first = engine.batch_pairs - 1
    rate = (len(times) - 1 - first) / (times[-1] - times[first])
    peak_bytes = (
        torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    )
    return rate, peak_bytes / 1e9


def _frames(count: int, height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    still = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for index in range(count):
        yield np.roll(still, 2 * index, axis=1)


if __name__ == "__main__":
    main()
