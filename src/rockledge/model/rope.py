"""Rotary position embedding: the frequencies of one model, and the scalings that become divisors of them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError
from rockledge.model.config import ModelConfig


def inverse_frequencies(config: ModelConfig) -> npt.NDArray[np.float32]:
    """Radians per position of each rotary pair, float32 [head_dim // 2]: computed in double, rounded once."""
    pair = np.arange(config.head_dim // 2, dtype=np.float64)
    frequency = config.rope_theta ** (-2.0 * pair / config.head_dim)
    return np.asarray(frequency / np.asarray(config.rope_divisors, dtype=np.float64), dtype=np.float32)


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
