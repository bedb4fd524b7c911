"""The sizes of a pruned model: which are legal, in which steps they are chosen, and its configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import gcd
from typing import Final

from rockledge.errors import UsageError
from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig, check_config

AXES: Final = ("layers", "hidden", "ffn", "heads")
"""What can be made smaller, by the names of the command's flags."""
TILE: Final = 32
"""Inputs of a tile of weights (`board/tiles.py`), and of a step of the NPU's matmul: another width is padded
to it, and its Hadamard blocks are short."""
_COARSEST: Final = 256
_STEPS: Final = 32  # a width is chosen in at least so many steps


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that pruning changes; `kv_heads` share `heads` evenly."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int

    def __str__(self) -> str:
        return (
            f"{self.layers} layers, hidden {self.hidden}, feed-forward {self.ffn}, "
            f"{self.heads} heads over {self.kv_heads}"
        )


def shape_of(config: ModelConfig) -> Shape:
    """The shape that a model has."""
    return Shape(config.layers, config.hidden, config.ffn, config.heads, config.kv_heads)


def grain(width: int) -> int:
    """The step in which a width below `width` is chosen: a power of two from 32 (a tile) to 256, a 32nd of
    the width or finer where that allows it."""
    step = TILE
    while 2 * step <= min(_COARSEST, width // _STEPS):
        step *= 2
    return step


def head_counts(config: ModelConfig) -> Mapping[int, int]:
    """How many query heads a pruned model can have, and over how many key/value heads.

    Every key/value head that stays keeps as many query heads as each other one. Where several numbers of
    key/value heads are possible, most stay (as in Minitron, arXiv 2408.11796: heads go and groups stay).
    """
    each = config.heads // config.kv_heads
    found: dict[int, int] = {}
    for kv in range(1, config.kv_heads + 1):
        for per in range(1, each + 1):
            found[kv * per] = max(kv, found.get(kv * per, 0))
    return dict(sorted(found.items()))


def kv_heads_for(config: ModelConfig, heads: int, kv_heads: int | None = None) -> int:
    """The key/value heads of a pruned model with `heads` query heads; UsageError where there are none, naming
    the nearest numbers that work."""
    each = config.heads // config.kv_heads
    if kv_heads is not None:
        if not 1 <= kv_heads <= config.kv_heads or heads % kv_heads or heads // kv_heads > each:
            raise UsageError(
                f"{heads} heads over {kv_heads} key/value heads cannot be cut from {config.heads} over "
                f"{config.kv_heads}; expected 1 to {config.kv_heads} key/value heads with 1 to {each} each"
            )
        return kv_heads
    counts = head_counts(config)
    if heads not in counts:
        near = sorted(sorted(counts, key=lambda count: abs(count - heads))[:2])
        raise UsageError(
            f"{heads} heads cannot be cut from {config.heads} heads over {config.kv_heads} key/value heads; "
            f"the nearest that can are {' and '.join(map(str, near))}"
        )
    return counts[heads]


def hidden_step(config: ModelConfig, heads: int) -> int | None:
    """What the hidden size of a pruned model with so many query heads is a multiple of; None where it is all
    heads together.

    Configurations of transformers refuse a hidden size that is not a multiple of the heads
    (`validate_architecture` of LlamaConfig, Gemma2Config and others), and count LongRoPE's factors by hidden
    size / heads (`validate_rope` of Phi3Config). A teacher that is not so needs it no more than its students.
    """
    if config.rope_long_divisors and config.hidden == config.heads * config.head_dim:
        return None
    return 1 if config.hidden % config.heads else heads


def hidden_fits(config: ModelConfig, shape: Shape) -> bool:
    """Whether the hidden size goes with the heads."""
    step = hidden_step(config, shape.heads)
    return shape.hidden == shape.heads * config.head_dim if step is None else shape.hidden % step == 0


def spread(layers: int, kept: int) -> tuple[int, ...]:
    """`kept` of `layers` numbers, evenly spread: stands for a choice that is not made yet."""
    return tuple(i * layers // kept for i in range(kept))


def pruned_config(config: ModelConfig, shape: Shape, layers: Sequence[int] | None = None) -> ModelConfig:
    """The configuration of a model of `shape` made of these layers of the teacher (None: any).

    What differs by layer goes with its layer. A norm's epsilon grows as the mean over fewer channels does
    when those that are left out are zero; `students` corrects the gains.
    """
    kept = tuple(spread(config.layers, shape.layers) if layers is None else layers)
    windows = tuple(config.windows[layer] for layer in kept) if config.windows else ()
    windows = windows if any(windows) else ()
    return check_config(
        replace(
            config,
            **asdict(shape),
            windows=windows,
            window_rope_theta=config.window_rope_theta if windows else 0.0,
            unturned=tuple(new for new, layer in enumerate(kept) if layer in config.unturned),
            norm_eps=config.norm_eps * config.hidden / shape.hidden,
        )
    )


def parameters(config: ModelConfig, shape: Shape) -> int:
    """Numbers in the checkpoint of a pruned model, a tied matrix once."""
    return decoder(pruned_config(config, shape)).parameters


def body_parameters(config: ModelConfig) -> int:
    """Numbers in a checkpoint without embedding and head."""
    tree = decoder(config)
    ends = (tree.embed,) if tree.tied else (tree.embed, tree.head)
    return tree.parameters - sum(linear.rows * linear.cols for linear in ends)


def check_widths(config: ModelConfig, shape: Shape) -> list[str]:
    """Notes on widths that tiles do not divide; UsageError for sizes that the teacher does not have."""
    for axis in AXES:
        wanted, most = getattr(shape, axis), getattr(config, axis)
        if not 1 <= wanted <= most:
            raise UsageError(f"--{axis} is {str(wanted)[:40]}, expected 1 to the teacher's {most}")
    if not hidden_fits(config, shape):
        step = hidden_step(config, shape.heads)
        if step is None:
            raise UsageError(
                f"hidden {shape.hidden} does not go with {shape.heads} heads of {config.head_dim}, expected "
                f"{shape.heads * config.head_dim} (LongRoPE); give --hidden and --heads that fit"
            )
        near = sorted(
            {max(1, shape.hidden // step) * step, min(-(-shape.hidden // step) * step, config.hidden)}
        )
        near = [hidden for hidden in near if hidden % step == 0]
        raise UsageError(
            f"hidden {shape.hidden} is not a multiple of {shape.heads} heads, which transformers wants; give "
            f"--hidden {' or '.join(map(str, near))}, or another --heads"
        )
    ragged = [
        f"{axis} {getattr(shape, axis)}"
        for axis in ("hidden", "ffn")
        if getattr(shape, axis) % TILE and getattr(shape, axis) != getattr(config, axis)
    ]
    if not ragged:
        return []
    block = min(gcd(getattr(shape, axis), 1 << 20) for axis in ("hidden", "ffn"))
    note = (
        f"{' and '.join(ragged)}: not in steps of {TILE}, so tiles of weights are padded, and rotations "
        f"before rounding have blocks of {block} channels only; multiples of {TILE} quantise better."
    )
    return [note]
