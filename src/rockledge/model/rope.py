"""Rotary position embedding: the frequencies of one model, and the scalings that become divisors of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError
from rockledge.model.config import ModelConfig


@dataclass(frozen=True)
class Rope:
    """The rotary embedding of one layer: the first 2 x len(`divisors`) channels of a head turn, in pairs half
    of them apart; the others do not. The other fields are those of `ModelConfig`."""

    theta: float
    divisors: tuple[float, ...]
    factor: float = 1.0
    original: int = 0
    long_divisors: tuple[float, ...] = ()
    dynamic: float = 0.0

    @property
    def turned(self) -> int:
        """Channels of a head that turn."""
        return 2 * len(self.divisors)

    def stretched(self, context: int) -> bool:
        """Whether sequences of up to `context` tokens need other angles than the original length."""
        return context > self.original > 0 and bool(self.long_divisors or self.dynamic)


def rope_of(config: ModelConfig, layer: int) -> Rope | None:
    """The rotary embedding of a layer; None where nothing turns."""
    if layer in config.unturned:
        return None
    if config.window_rope_theta and config.windows and config.windows[layer]:
        return Rope(config.window_rope_theta, (1.0,) * len(config.rope_divisors))
    return Rope(
        config.rope_theta,
        config.rope_divisors,
        config.rope_factor,
        config.rope_original,
        config.rope_long_divisors,
        config.rope_dynamic,
    )


def inverse_frequencies(rope: Rope, context: int = 0) -> npt.NDArray[np.float32]:
    """Radians per position of each rotary pair, float32 [turned // 2]: computed in double, rounded once.

    `context` is the longest sequence they are for, as llama.cpp and vLLM choose them; transformers chooses
    anew for every sequence, by its length.
    """
    pair = np.arange(rope.turned // 2, dtype=np.float64)
    divisors = np.asarray(rope.divisors, dtype=np.float64)
    if rope.stretched(context) and rope.long_divisors:
        divisors = np.asarray(rope.long_divisors, dtype=np.float64)
    if rope.stretched(context) and rope.dynamic:
        # theta grows to theta * s ** (n / (n - 2)) (_compute_dynamic_ntk_parameters in transformers).
        s = rope.dynamic * context / rope.original - (rope.dynamic - 1)
        divisors = divisors * s ** (2 * pair / (rope.turned - 2))
    frequency = rope.theta ** (-2.0 * pair / rope.turned)
    return np.asarray(frequency / divisors, dtype=np.float32)


def rope_divisors(scaling: Mapping[str, Any], head_dim: int, theta: float) -> tuple[float, ...]:
    """What each of the `head_dim // 2` frequencies is divided by under a Hugging Face `rope_scaling` entry.

    Known types: "default" (1), "linear" (the factor), "llama3" (Llama 3.1's: wavelengths shorter than
    original / high_freq_factor stay, longer than original / low_freq_factor are divided by the factor,
    between them the frequency is interpolated linearly in original / wavelength). Others need attention
    scaling or depend on the prompt's length and are refused by name.
    """
    kind = str(scaling.get("rope_type", scaling.get("type", "default")))
    pairs = head_dim // 2
    try:
        if kind == "default":
            return (1.0,) * pairs
        if kind == "linear":
            return (_positive(scaling["factor"]),) * pairs
        if kind == "llama3":
            factor, low, high, original = (
                _positive(scaling[key])
                for key in (
                    "factor",
                    "low_freq_factor",
                    "high_freq_factor",
                    "original_max_position_embeddings",
                )
            )
            if high <= low:
                raise ValueError("high_freq_factor is not above low_freq_factor")
            turns = [original * theta ** (-2.0 * i / head_dim) / (2 * math.pi) for i in range(pairs)]
            keep = [min(1.0, max(0.0, (t - low) / (high - low))) for t in turns]
            return tuple(1.0 / (k + (1.0 - k) / factor) for k in keep)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f'the rope_scaling of type "{kind}" is incomplete or malformed ({error})'
        ) from error
    raise CheckpointError(
        f'rope_scaling of type "{kind}" is not supported; supported are default, linear and llama3'
    )


def _positive(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{value!r} is not a positive number")
    return float(value)
