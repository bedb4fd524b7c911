"""What a run of `quantize` will take, before it starts: time, memory, disk, and the size of the result.

Work is counted in two kinds, operations of matrix products and passes over numbers, and the machine's speed
at both is measured. `python -m bench.estimate` compares the sum with what runs take on the CPU.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod

import torch

from rockledge.model.block import Decoder, decoder
from rockledge.model.config import ModelConfig
from rockledge.quantization.calibration.sequences import HELD_OUT
from rockledge.quantization.reporting.check import CHECKED_BANDS, CHECKED_TOKENS
from rockledge.quantization.steps import Steps

_PROBE = 768  # rows and columns of the product whose speed is measured
_PASS = 1 << 20  # numbers of the pass whose speed is measured
_PROBE_SECONDS = 0.1
_START_SECONDS = 2.0  # texts become tokens, PyTorch warms up
_STAGES: tuple[str, ...] = ("forward", "round", "check", "prices", "write")
# Passes over every number, an exponential being one: fitted to processor seconds of `bench.compress_cost`
# with one thread. Rounding is for each weight and width.
_ROUND_PASSES = {"gptq": 140, "nearest": 60}
_ROTATE_PASSES = 20  # reading a weight, folding, turning; before each of three stages
_CHECK_PASSES = 30  # a weight decoded and put in order
_WRITE_PASSES = 5
_LOGIT_PASSES = 40  # softmax, drawn label and gradient of a token's logit
# Operations of products for each weight of a linear, width and input of it: feedback at several scales, and
# the prices of its rows. Of second moments and of their factors for each number in them, and token or row.
_FEEDBACK, _MOMENT, _FACTOR = 13.0, 2.0, 2.5
# Bytes a weight of an index: a nibble as a byte for every 16 weights, in three widths at most.
_INDEX_BYTES = 0.25
_PROGRAM_BYTES = 450e6  # the interpreter with PyTorch loaded
_LOGIT_TOKENS, _STEP_TOKENS = 512, 2048
_ACTIVATIONS = 10  # arrays of tokens x channels that a backward pass through a feed-forward keeps


@dataclass(frozen=True)
class Speed:
    """Of this machine, now: operations of fp32 matrix products a second, and seconds a number of a pass."""

    products: float
    seconds_per_number: float

    def seconds(self, work: "_Work") -> float:
        """What `work` takes."""
        return work.products / self.products + work.numbers * self.seconds_per_number


@dataclass(frozen=True)
class _Work:
    """Operations of products, and numbers passed over."""

    products: float = 0.0
    numbers: float = 0.0

    def __add__(self, other: "_Work") -> "_Work":
        return _Work(self.products + other.products, self.numbers + other.numbers)

    def __mul__(self, times: float) -> "_Work":
        return _Work(times * self.products, times * self.numbers)


@dataclass(frozen=True)
class Estimate:
    """Expected cost of one run; `tensor_bytes` and `bits_per_weight` are the budget it aims at. `disk_bytes`
    are those of the work directory and of the artifact, `work_bytes` those of the directory alone. `stages`:
    the seconds of each stage in order, by the names that progress is reported with."""

    seconds: float
    peak_memory_bytes: int
    disk_bytes: int
    work_bytes: int
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
    speed: Speed | None = None,
) -> Estimate:
    """The cost of compressing a model to `tensor_bytes` by these `steps` with that many calibration tokens,
    every linear rounded at `widths`, and with `check_prices` random bands measured.

    `length`: tokens of a held-out sequence. `done`: the share of every stage that a work directory holds
    already, 0 to 1. `speed`: measured here where it is not given.
    """
    tree = decoder(config)
    ends = tree.embed.rows * tree.embed.cols
    blocks = sum(linear.rows * linear.cols for layer in tree.layers for linear in layer.linears)
    held = HELD_OUT * length
    works = _works(tree, config, tokens, gradient_tokens, len(widths), steps, length)
    if check_prices:
        # A changed model runs through half of the blocks on average, and through the head.
        works["prices"] = _Work(CHECKED_BANDS * CHECKED_TOKENS * (blocks + 2 * ends))
    speed = speed or measured_speed(device)
    stages = {
        name: speed.seconds(works[name]) * (1 - (done or {}).get(name, 0.0))
        for name in _STAGES
        if name in works
    }
    whole = steps.moments == "full"
    widest = max(group.first.cols for layer in tree.layers for group in layer.groups)
    # Embedding or head before and after the rotation, with logits; or a block with its activations, and of
    # its widest input the moments, as floats twice and as doubles.
    at_ends = 2 * 4 * ends + 4 * 4 * _LOGIT_TOKENS * config.vocab
    in_block = 4 * blocks / config.layers + _ACTIVATIONS * 4 * _STEP_TOKENS * config.ffn
    memory = (
        _PROGRAM_BYTES
        + max(at_ends, in_block + (16 * widest**2 if whole else 0))
        + 4 * 2 * tokens * config.hidden  # a block's inputs and outputs, mapped files
    )
    work = work_bytes(config, tokens + held, widths)
    return Estimate(
        seconds=_START_SECONDS + sum(stages.values()),
        peak_memory_bytes=int(memory),
        disk_bytes=work + tensor_bytes,
        work_bytes=work,
        tensor_bytes=tensor_bytes,
        bits_per_weight=8 * tensor_bytes / tree.parameters,
        stages=stages,
    )


def _works(
    tree: Decoder,
    config: ModelConfig,
    tokens: int,
    gradient_tokens: int,
    widths: int,
    steps: Steps,
    length: int,
) -> dict[str, _Work]:
    """The work of every stage but `prices`."""
    matrices = [(linear.rows, linear.cols) for _, linear in tree.linears()]
    weights = sum(map(prod, matrices))
    ends = tree.embed.rows * tree.embed.cols
    blocks = sum(linear.rows * linear.cols for layer in tree.layers for linear in layer.linears)
    rotated = _Work(numbers=_ROTATE_PASSES * weights)
    token = _token(blocks, config, length)
    held = HELD_OUT * length
    # Forward again, and back; logits and their gradient.
    backward = token * (tokens + gradient_tokens) + _Work(
        4 * ends * gradient_tokens, _LOGIT_PASSES * config.vocab * gradient_tokens
    )
    rounded = _Work(numbers=_ROUND_PASSES[steps.rounding] * widths * weights)
    if steps.moments == "full":
        # Every linear has moments of its own where tokens count by its gradients.
        inputs = [
            linear.cols
            for layer in tree.layers
            for group in layer.groups
            for linear in (group.linears if steps.token_weights == "gradient" else [group.first])
        ]
        rounded += _Work(_MOMENT * tokens * sum(k * k for k in inputs))
        if steps.rounding == "gptq":
            rounded += _Work(_FEEDBACK * widths * sum(rows * cols * cols for rows, cols in matrices))
            rounded += _Work(_FACTOR * sum(k**3 for k in inputs))
    return {
        "forward": rotated + token * (tokens + held),
        "round": rotated + backward + rounded,
        # The rounded model, and both models' logits.
        "check": rotated + token * held + _Work(4 * held * ends, _CHECK_PASSES * weights),
        "write": _Work(numbers=_WRITE_PASSES * weights),
    }


def _token(blocks: int, config: ModelConfig, length: int) -> _Work:
    """A token's way through all blocks of `blocks` weights: their products and attention over a sequence of
    `length`; norms, gates, scores."""
    across = config.heads * config.head_dim
    return _Work(
        2 * blocks + 4 * length * across * config.layers,
        config.layers * (10 * config.hidden + 6 * config.ffn + 5 * config.heads * length),
    )


def work_bytes(config: ModelConfig, tokens: int, widths: Sequence[int]) -> int:
    """Most bytes in the work directory at a time: every block's inputs, and candidates of every linear at
    `widths`. `tokens` are all, those held out too."""
    weights = sum(linear.rows * linear.cols for _, linear in decoder(config).linears())
    return int(4 * (config.layers + 1) * tokens * config.hidden + (len(widths) + _INDEX_BYTES) * weights)


def measured_speed(device: str, clock: Callable[[], float] = time.perf_counter) -> Speed:
    """The speed of this machine without what else it does, by the seconds of `clock`."""
    square = torch.randn(_PROBE, _PROBE, device=device)
    numbers = torch.randn(_PASS, device=device)
    product = _seconds(lambda: (square @ square)[0, 0].item(), clock)
    return Speed(2 * float(_PROBE) ** 3 / product, _seconds(lambda: numbers.exp()[0].item(), clock) / _PASS)


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Of the fastest `run`: other programs slow down some of them, and a run of hours will see their end."""
    run()  # warms up
    best, start = inf, clock()
    while best == inf or clock() - start < _PROBE_SECONDS:
        began = clock()
        run()
        best = min(best, clock() - began)
    return best
