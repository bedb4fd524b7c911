"""What compressing a model of a given shape costs: seconds per block by step, peak memory, the whole.

    python -m bench.compress_cost [--shape 8b] [--blocks 4] [--fast] [--tokens N] [--vocab N] [--device cuda]

The whole pipeline runs on random weights that are made when they are read, with fewer blocks than the shape
has, and where asked with fewer calibration tokens or rows of the vocabulary. Every step is then scaled to the
full shape: by blocks, by tokens (forward and backward) and by rows (embedding and head). Random weights cost
what real ones cost, except that their making is counted too; it is a step of its own, left out of the whole.
It also prints processor seconds, summed over threads: on a machine that does other things too, and
on the CPU, they are what the run itself takes. Disk is needed for the intermediate files. Writes a JSON file
into bench/results/.

`--instant` measures conversion without calibration instead (`bench.instant`).
"""

import argparse
import json
import platform
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

from rockledge.cli.pytorch_threads import let_threads_sleep

let_threads_sleep()  # before PyTorch is imported
# ruff: noqa: E402
import numpy as np
import torch
from numpy.typing import NDArray

from bench import instant
from rockledge.model.config import ModelConfig
from rockledge.model.family import stored_tensors
from rockledge.quantization import pipeline
from rockledge.quantization.calibration import calibrate
from rockledge.quantization.calibration.sequences import HELD_OUT
from rockledge.quantization.request import _LENGTH, default_tokens
from rockledge.quantization.rounding import measure
from rockledge.quantization.steps import FAST, Steps
from rockledge.quantization.transforming.rotate import RotatedModel
from rockledge.synth import SHAPES, model_files

RESULTS = Path(__file__).parent / "results"
SPREAD = 0.02


@dataclass(frozen=True)
class RandomCheckpoint:
    """A checkpoint that is nowhere: every tensor is drawn when it is read, the same each time."""

    config: ModelConfig
    clock: "Clock"
    path: Path = Path("random")
    stored: str = "random numbers"
    notes: tuple[str, ...] = ()

    def names(self) -> list[str]:
        return [tensor.name for tensor in stored_tensors(self.config)]

    def shape(self, name: str) -> tuple[int, ...]:
        return next(tensor.shape for tensor in stored_tensors(self.config) if tensor.name == name)

    def tensor(self, name: str) -> NDArray[np.float32]:
        with self.clock.step("make weights"):
            shape = self.shape(name)
            if name.endswith("norm"):
                return np.ones(shape, np.float32)
            generator = np.random.default_rng(crc32(name.encode()))
            values = generator.standard_normal(prod(shape), np.float32).reshape(shape)
            values *= SPREAD
            return values

    def files(self) -> dict[str, bytes]:
        return model_files(self.config)


@dataclass
class Clock:
    """Seconds by step, and those of the processor. A step inside a step counts for the inner one only."""

    device: str
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    processor: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _running: list[str] = field(default_factory=list)
    _since: tuple[float, float] = (0.0, 0.0)

    def step(self, name: str) -> "Step":
        return Step(self, name)

    def turn(self) -> None:
        """Books the time since the last turn to the step that is running."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        now = time.perf_counter(), time.process_time()
        if self._running:
            self.seconds[self._running[-1]] += now[0] - self._since[0]
            self.processor[self._running[-1]] += now[1] - self._since[1]
        self._since = now

    def enter(self, name: str) -> None:
        self.turn()
        self._running.append(name)

    def leave(self) -> None:
        self.turn()
        self._running.pop()

    def timed(self, module: ModuleType | type, name: str, step: str) -> None:
        """Counts every call of a function of the pipeline as `step`."""
        inner: Callable[..., Any] = getattr(module, name)

        @wraps(inner)
        def outer(*arguments: Any, **named: Any) -> Any:
            with self.step(step):
                return inner(*arguments, **named)

        setattr(module, name, outer)


@dataclass(frozen=True)
class Step:
    """A stretch of time that is booked to one name."""

    clock: Clock
    name: str

    def __enter__(self) -> None:
        self.clock.enter(self.name)

    def __exit__(self, *problem: object) -> None:
        self.clock.leave()


# Which functions are which step. What grows with what: b blocks, t tokens, h tokens with those held out, v
# rows of the vocabulary.
STEPS = (
    (RotatedModel, "block_weights", "rotate", "b"),
    (RotatedModel, "embedding", "rotate embedding and head", "v"),
    (calibrate, "run_block", "forward", "bh"),
    (measure, "head_statistics", "head statistics", "tv"),
    (measure, "block_statistics", "backward", "bt"),
    (measure._Pricing, "ordered", "round", "b"),
    (measure._Pricing, "block", "round", "b"),
    (measure, "feedback", "factor", "b"),
    (measure._Pricing, "ends", "round embedding and head", "v"),
    (pipeline, "held_out_divergence", "check", "b"),
    (pipeline, "write_artifact", "write", "b"),
)


def scaled(seconds: float, grows: str, times: Mapping[str, float]) -> float:
    """Seconds of a step at the full shape; `times` gives by letter how many times larger that is."""
    for letter in grows:
        seconds *= times[letter]
    return seconds


def measured(
    shape: str, blocks: int, tokens: int, vocab: int, device: str, bits: float, fast: bool
) -> dict[str, Any]:
    """One run; see the module."""
    full = SHAPES[shape]
    clock = Clock(device)
    checkpoint = RandomCheckpoint(replace(full, layers=blocks, vocab=vocab), clock)
    for module, name, step, _ in STEPS:
        clock.timed(module, name, step)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory(prefix="compress-cost-") as folder, clock.step("other"):
        pipeline.quantize(
            checkpoint, Path(folder) / "out", bits=bits, tokens=tokens, device=device, fast=fast
        )
    most = default_tokens(full, FAST if fast else Steps())
    held = HELD_OUT * _LENGTH
    times = {
        "b": full.layers / blocks,
        "t": most / tokens,
        "h": (most + held) / (tokens + held),
        "v": full.vocab / vocab,
    }

    def whole(seconds: dict[str, float]) -> dict[str, float]:
        return {step: scaled(seconds[step], grows, times) for _, _, step, grows in STEPS if step in seconds}

    seconds, processor = whole(clock.seconds), whole(clock.processor)
    per_block = {
        step: clock.seconds[step] / blocks
        for _, _, step, grows in STEPS
        if "b" in grows and step in clock.seconds
    }
    return {
        "shape": shape,
        "recipe": "fast" if fast else "default",
        "blocks": blocks,
        "tokens": tokens,
        "vocab": vocab,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else _processor(),
        "threads": torch.get_num_threads(),
        "seconds": {step: round(value, 3) for step, value in clock.seconds.items()},
        "processor_seconds": {step: round(value, 3) for step, value in clock.processor.items()},
        "seconds_per_block": {step: round(value, 3) for step, value in per_block.items()},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_device_bytes": torch.cuda.max_memory_allocated() if device.startswith("cuda") else None,
        "whole": {"tokens": most, "seconds": {step: round(value, 1) for step, value in seconds.items()}},
        "whole_seconds": round(sum(seconds.values()) + clock.seconds["other"], 1),
        "whole_processor_seconds": round(sum(processor.values()) + clock.processor["other"], 1),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main() -> None:
    """Runs, prints, and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--fast", action="store_true", help="the fast recipe, as in quantize --fast")
    parser.add_argument(
        "--instant", action="store_true", help="conversion without calibration: time, memory and divergence"
    )
    parser.add_argument("--windows", type=int, default=8, help="windows of 512 tokens for the divergence")
    parser.add_argument("--tokens", type=int, help="calibration tokens (default: what quantize takes)")
    parser.add_argument("--vocab", type=int, help="rows of embedding and head (default: all)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bits", type=float, default=4.5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    full = SHAPES[args.shape]
    blocks = min(args.blocks, full.layers)
    if args.instant:
        vocab = args.vocab or min(full.vocab, 16384)
        instant.report(args.shape, min(blocks, 2), vocab, args.windows, RESULTS / "instant.json")
        return
    tokens = args.tokens or default_tokens(full, FAST if args.fast else Steps())
    vocab = args.vocab or full.vocab
    found = measured(args.shape, blocks, tokens, vocab, args.device, args.bits, args.fast)
    print(
        f"{args.shape} on {found['device']}, {found['recipe']} recipe, {found['threads']} threads: "
        f"{blocks} blocks, {tokens} tokens, {vocab} rows of vocabulary"
    )
    for step, seconds in found["seconds"].items():
        each = f"{seconds / blocks:10.2f} s a block" if step in found["seconds_per_block"] else ""
        print(f"{step:26}{seconds:10.2f} s{found['processor_seconds'][step]:10.2f} s of processors{each}")
    print(f"peak memory {found['peak_memory_bytes'] / 1e9:.2f} GB", end="")
    if found["peak_device_bytes"] is not None:
        print(f", on the device {found['peak_device_bytes'] / 1e9:.2f} GB", end="")
    print(
        f"; all {full.layers} blocks, extrapolated: {found['whole_seconds'] / 60:.1f} min, "
        f"{found['whole_processor_seconds'] / 60:.1f} min of processors"
    )
    RESULTS.mkdir(exist_ok=True)
    name = f"compress-cost-{args.shape}{'-fast' if args.fast else ''}-{args.device.partition(':')[0]}.json"
    (RESULTS / name).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
