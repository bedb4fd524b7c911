"""What a run of `quantize` will take, before it starts: time, memory, disk, and the size of the result.

Work is counted, the machine's speed is measured on one small product; expect to be right within a factor of
two.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch

from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig
from rockledge.quantization.calibration.sequences import HELD_OUT
from rockledge.quantization.reporting.check import CHECKED_BANDS, CHECKED_TOKENS
from rockledge.quantization.steps import Steps

_PROBE = 768  # rows and columns of the product whose speed is measured
_PROBE_SECONDS = 0.2
# Reading, rotating and rounding at all widths, and packing: seconds a weight, the part that no product
# explains.
_SECONDS_PER_WEIGHT = 4e-7
# By stage; the check and the writing read candidates and put rows in order.
_WEIGHT_SHARES = {"forward": 0.05, "round": 0.6, "check": 0.25, "prices": 0.0, "write": 0.1}
# Bytes a weight of an index: a nibble as a byte for every 16 weights, in three widths at most.
_INDEX_BYTES = 0.25
_PROGRAM_BYTES = 450e6  # the interpreter with PyTorch loaded
_LOGIT_TOKENS, _STEP_TOKENS = 512, 2048
_ACTIVATIONS = 10  # arrays of tokens x channels that a backward pass through a feed-forward keeps


@dataclass(frozen=True)
class Estimate:
    """Expected cost of one run; `tensor_bytes` and `bits_per_weight` are the budget it aims at. `stages`:
    the seconds of each stage in order, by the names that progress is reported with."""

    seconds: float
    peak_memory_bytes: int
    disk_bytes: int
    tensor_bytes: int
    bits_per_weight: float
    stages: Mapping[str, float]


def estimate_run(
    config: ModelConfig,
    tensor_bytes: int,
    *,
    tokens: int,
    gradient_tokens: int,
    widths: Sequence[int],
    steps: Steps,
    check_prices: bool = False,
    device: str = "cpu",
    length: int = 512,
    done: Mapping[str, float] | None = None,
) -> Estimate:
    """The cost of compressing a model to `tensor_bytes` by these `steps` with that many calibration tokens,
    every linear rounded at `widths`, and with `check_prices` random bands measured.

    `length`: tokens of a held-out sequence. `done`: the share of every stage that a work directory holds
    already, 0 to 1.
    """
    tree = decoder(config)
    matrices = [(linear.rows, linear.cols) for _, linear in tree.linears()]
    weights = sum(map(prod, matrices))
    ends = tree.embed.rows * tree.embed.cols
    blocks = sum(linear.rows * linear.cols for layer in tree.layers for linear in layer.linears)
    inputs = [group.first.cols for layer in tree.layers for group in layer.groups]
    forward = 2 * blocks * (tokens + HELD_OUT * length)
    # Forward again, and back; logits and their gradient.
    products = 2 * blocks * (tokens + gradient_tokens) + 4 * ends * gradient_tokens
    whole = steps.moments == "full"
    if whole:
        products += 2 * tokens * sum(k * k for k in inputs)
        # Feedback and prices.
        products += sum(rows * cols * cols for rows, cols in matrices) * 4 * len(widths)
    # A changed model runs through half of the blocks on average, and through the head.
    checks = CHECKED_BANDS * CHECKED_TOKENS * (blocks + 2 * ends) if check_prices else 0
    held = 2 * HELD_OUT * length * (blocks + 2 * ends)
    speed = _speed(device)
    works = {"forward": forward, "round": products, "check": held, "prices": checks, "write": 0}
    stages = {
        stage: (work / speed + _WEIGHT_SHARES[stage] * weights * _SECONDS_PER_WEIGHT)
        * (1 - (done or {}).get(stage, 0.0))
        for stage, work in works.items()
        if stage != "prices" or check_prices
    }
    # Embedding or head before and after the rotation, with logits; or a block with its activations, and of
    # its widest input the moments, as floats twice and as doubles.
    at_ends = 2 * 4 * ends + 4 * 4 * _LOGIT_TOKENS * config.vocab
    in_block = 4 * blocks / config.layers + _ACTIVATIONS * 4 * _STEP_TOKENS * config.ffn
    memory = (
        _PROGRAM_BYTES
        + max(at_ends, in_block + (16 * max(inputs) ** 2 if whole else 0))
        + 4 * 2 * tokens * config.hidden  # a block's inputs and outputs, mapped files
    )
    return Estimate(
        seconds=sum(stages.values()),
        peak_memory_bytes=int(memory),
        disk_bytes=work_bytes(config, tokens, widths) + tensor_bytes,
        tensor_bytes=tensor_bytes,
        bits_per_weight=8 * tensor_bytes / decoder(config).parameters,
        stages=stages,
    )


def work_bytes(config: ModelConfig, tokens: int, widths: Sequence[int]) -> int:
    """Most bytes in the work directory at a time: every block's inputs, and candidates of every linear at
    `widths`."""
    weights = sum(linear.rows * linear.cols for _, linear in decoder(config).linears())
    return int(4 * (config.layers + 1) * tokens * config.hidden + (len(widths) + _INDEX_BYTES) * weights)


def _speed(device: str) -> float:
    """Operations a second of fp32 matrix products on this machine, now."""
    a = torch.randn(_PROBE, _PROBE, device=device)
    a @ a
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < _PROBE_SECONDS:
        (a @ a)[0, 0].item()
        done += 1
    return 2 * done * float(_PROBE) ** 3 / (time.perf_counter() - start)
