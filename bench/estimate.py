"""Whether the estimate of `quantize` is what a run takes.

    python -m bench.estimate [--model NAME] [--recipe NAME]

135M is compressed for real, from the demo's checkpoint. Of 1.5B and 8B one block of random weights is
measured, with few tokens and rows of the vocabulary, and scaled step by step (`bench.compress_cost`). The
estimate is made in the same process from the speeds measured before and after.

Everything runs in one thread and is told in processor seconds: on a machine that does other things too they
are what the run would take there alone. Each measurement is a process of its own. Writes
bench/results/estimate.json, where measurements of other models and recipes stay.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.compress_cost import RESULTS, measured  # before PyTorch: its threads are told to sleep

# ruff: noqa: I001
import torch

from rockledge.cli.demo_model import demo_model
from rockledge.cli.terminal import Terminal
from rockledge.model.config import ModelConfig
from rockledge.quantization.estimate import Estimate, Speed, estimate_run, measured_speed
from rockledge.quantization.pipeline import estimate, quantize
from rockledge.quantization.request import default_tokens
from rockledge.quantization.steps import FAST, Steps
from rockledge.synth import SHAPES

BITS = 4.25
RECIPES = {"fast": FAST, "default": Steps()}
TARGET = RESULTS / "estimate.json"
GOAL = 1.5
# Qwen2.5-1.5B: huggingface.co/Qwen/Qwen2.5-1.5B, config.json, without its biases.
SHAPES["1.5b"] = replace(
    SHAPES["1b"],
    hidden=1536,
    layers=28,
    heads=12,
    kv_heads=2,
    head_dim=128,
    ffn=8960,
    vocab=151936,
)
TOKENS = 1536  # of a measured block: three sequences, of which one gives gradients, as of all tokens a third
VOCABULARY = {"1.5b": 4096, "8b": 2048}  # rows that are measured


@dataclass(frozen=True)
class Row:
    """`measured_seconds` of the part that ran, `seconds` of the whole model; `estimated_...` of the same."""

    model: str
    recipe: str
    part: str
    measured_seconds: float
    estimated_part_seconds: float
    seconds: float
    estimated_seconds: float
    stages: dict[str, float]
    products_per_second: float
    seconds_per_number: float

    @property
    def factor(self) -> float:
        """How far the estimate is off, 1 or more."""
        ratio = self.estimated_seconds / self.seconds
        return max(ratio, 1 / ratio)


def mean(one: Speed, other: Speed) -> Speed:
    """Between the speed before a run and after it."""
    return Speed((one.products + other.products) / 2, (one.seconds_per_number + other.seconds_per_number) / 2)


def speed() -> Speed:
    """Of one thread of this machine, in its processor's seconds."""
    return measured_speed("cpu", time.process_time)


def real(recipe: str) -> Row:
    """The demo's checkpoint, all of it."""
    source, fast = demo_model(Terminal(as_json=True)), recipe == "fast"
    before, started = speed(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="estimate-") as folder:
        quantize(source, Path(folder) / "out", bits=BITS, fast=fast)
    took, now = time.process_time() - started, mean(before, speed())
    found = estimate(source, bits=BITS, fast=fast, speed=now)
    return row("135m", recipe, "all of SmolLM2-135M-Instruct", took, found, took, found, now)


def scaled(model: str, recipe: str) -> Row:
    """One block of the model's shape, and all of it as extrapolated."""
    before = speed()
    found = measured(model, 1, TOKENS, VOCABULARY[model], "cpu", BITS, recipe == "fast")
    now = mean(before, speed())
    seconds = found["processor_seconds"]
    took = sum(seconds.values()) - seconds["make weights"]
    block = replace(SHAPES[model], layers=1, vocab=VOCABULARY[model])
    part = expected(block, recipe, now, TOKENS)
    whole = expected(SHAPES[model], recipe, now, default_tokens(SHAPES[model], RECIPES[recipe]))
    what = f"1 block, {TOKENS} tokens, {VOCABULARY[model]} rows of vocabulary"
    return row(model, recipe, what, took, part, found["whole_processor_seconds"], whole, now)


def expected(config: ModelConfig, recipe: str, now: Speed, tokens: int) -> Estimate:
    """The estimate for a shape, or a part of it."""
    return estimate_run(
        config,
        0,
        tokens=tokens,
        gradient_tokens=tokens // 3,
        widths=(3, 4, 8),
        steps=RECIPES[recipe],
        speed=now,
    )


def row(
    model: str,
    recipe: str,
    part: str,
    took: float,
    of_part: Estimate,
    whole: float,
    of_all: Estimate,
    now: Speed,
) -> Row:
    """The numbers, rounded."""
    return Row(
        model,
        recipe,
        part,
        round(took, 1),
        round(of_part.seconds, 1),
        round(whole, 1),
        round(of_all.seconds, 1),
        {stage: round(seconds, 1) for stage, seconds in of_all.stages.items()},
        round(now.products, -8),
        round(now.seconds_per_number, 12),
    )


def line(one: Row) -> str:
    """A row for people."""
    return (
        f"{one.model:6}{one.recipe:9}took {one.seconds:9.0f} s, estimated {one.estimated_seconds:9.0f} s: "
        f"within a factor of {one.factor:.2f}{'' if one.factor <= GOAL else f' (goal {GOAL})'}; measured: "
        f"{one.part}, {one.measured_seconds:.0f} s for {one.estimated_part_seconds:.0f} s estimated"
    )


def main() -> None:
    """Measures what is asked for, prints it, and keeps it in the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=("135m", *VOCABULARY), action="append")
    parser.add_argument("--recipe", choices=RECIPES, action="append")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in a process for one row
    args = parser.parse_args()
    models, recipes = args.model or ["135m", *VOCABULARY], args.recipe or list(RECIPES)
    if args.here:
        torch.set_num_threads(1)
        found = real(recipes[0]) if models[0] == "135m" else scaled(models[0], recipes[0])
        print(json.dumps(asdict(found)))
        return
    for model in models:
        for recipe in recipes:
            words = [sys.executable, "-m", "bench.estimate", "--here", "--model", model, "--recipe", recipe]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            found = Row(**json.loads(done.stdout.splitlines()[-1]))
            print(line(found), flush=True)
            rows: list[dict[str, Any]] = json.loads(TARGET.read_text()) if TARGET.exists() else []
            others = [one for one in rows if (one["model"], one["recipe"]) != (model, recipe)]
            TARGET.write_text(json.dumps([*others, asdict(found)], indent=1) + "\n")


if __name__ == "__main__":
    main()
