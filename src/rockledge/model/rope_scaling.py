"""Rotary scaling as Hugging Face files describe it, turned into fields of `ModelConfig`.

Facts: `ROPE_INIT_FUNCTIONS` in transformers' modeling_rope_utils.py; YaRN is arXiv:2309.00071, LongRoPE
arXiv:2402.13753.
"""

import math
from collections.abc import Mapping
from typing import Any

from rockledge.errors import CheckpointError
from rockledge.model.hf_values import HfValues
from rockledge.model.rope import rope_divisors

SUPPORTED = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")

_SCALE_KEYS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def scaled_fields(rope: HfValues, kind: str, turned: int, theta: float, context: int) -> dict[str, Any]:
    """The rotary fields under one entry of `rope_scaling` or `rope_parameters`, of type `kind`.

    `turned`: channels of a head that turn; `context`: `max_position_embeddings`. The field `context` is
    among them where the scaling stretches it.
    """
    try:
        if kind == "dynamic":
            factor = _positive(rope, "factor")
            # Without a limit in transformers; vLLM stretches max_position_embeddings by the factor.
            return {
                "rope_divisors": (1.0,) * (turned // 2),
                "rope_dynamic": factor,
                "rope_original": context,
                "context": int(context * max(factor, 1.0)),
            }
        if kind == "yarn":
            return _yarn(rope, turned, theta, context)
        if kind == "longrope":
            return _longrope(rope, turned, context)
        if kind in _SCALE_KEYS:
            scaling = {key: _positive(rope, key) for key in _SCALE_KEYS[kind]}
            return {"rope_divisors": rope_divisors({"rope_type": kind, **scaling}, turned, theta)}
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f'the {rope.place} of type "{kind}" is incomplete or malformed ({error})'
        ) from error
    raise CheckpointError(
        f'{rope.place} of type "{kind[:40]}" is not supported; supported are {", ".join(SUPPORTED)}'
    )


def yarn_divisors(
    turned: int,
    theta: float,
    factor: float,
    original: float,
    *,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> tuple[float, ...]:
    """YaRN: pairs that turn more than `beta_fast` times within `original` positions keep their frequency,
    those that turn less than `beta_slow` times have it divided by `factor`; between them, by pair number, the
    frequency is interpolated. `truncate` rounds the two ends outwards to whole pairs."""

    def pair(turns: float) -> float:
        return turned * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(beta_fast), pair(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, turned - 1)
    if low == high:
        high += 0.001  # as transformers, so that the ramp is a step
    ramp = [min(1.0, max(0.0, (i - low) / (high - low))) for i in range(turned // 2)]
    return tuple(1.0 / (r / factor + (1.0 - r)) for r in ramp)


def yarn_magnitude(factor: float, weight: float = 1.0) -> float:
    """What YaRN multiplies cosines and sines by, so that attention stays as sharp."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def longrope_magnitude(factor: float, original: float) -> float:
    """The same for LongRoPE, which stretches `original` positions by `factor`."""
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def _yarn(rope: HfValues, turned: int, theta: float, context: int) -> dict[str, Any]:
    original = _positive(rope, "original_max_position_embeddings")
    factor = context / original if rope.get("factor") is None else _positive(rope, "factor")
    fast, slow = (_positive(rope, key, plain) for key, plain in (("beta_fast", 32.0), ("beta_slow", 1.0)))
    truncate = rope.get("truncate", True)
    weight, all_dim = (rope.real(key, 0.0) for key in ("mscale", "mscale_all_dim"))
    magnitude = yarn_magnitude(factor)
    if weight and all_dim:
        magnitude = yarn_magnitude(factor, weight) / yarn_magnitude(factor, all_dim)
    if rope.get("attention_factor") is not None:
        magnitude = _positive(rope, "attention_factor")
    if not isinstance(truncate, bool):
        raise ValueError(f"truncate is {truncate!r}")
    divisors = yarn_divisors(
        turned, theta, factor, original, beta_fast=fast, beta_slow=slow, truncate=truncate
    )
    fields = {"rope_divisors": divisors, "rope_factor": magnitude}
    if factor * original > context:  # added by hand to a model that can be stretched
        fields["context"] = int(factor * original)
    return fields


def _longrope(rope: HfValues, turned: int, context: int) -> dict[str, Any]:
    original = _positive(rope, "original_max_position_embeddings")
    factor = context / original if rope.get("factor") is None else _positive(rope, "factor")
    magnitude = longrope_magnitude(factor, original)
    if rope.get("attention_factor") is not None:
        magnitude = _positive(rope, "attention_factor")
    short, long = (_positive_list(rope, key, turned // 2) for key in ("short_factor", "long_factor"))
    return {
        "rope_divisors": short,
        "rope_long_divisors": long,
        "rope_original": int(original),
        "rope_factor": magnitude,
    }


def _positive(rope: HfValues, key: str, default: float | None = None) -> float:
    value = rope.get(key, default)
    if value is None:
        raise ValueError(f"{key} is missing")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{key} is {repr(value)[:40]}, which is not a positive number")
    return float(value)


def _positive_list(rope: HfValues, key: str, count: int) -> tuple[float, ...]:
    value = rope.get(key)
    if (
        not isinstance(value, list)
        or len(value) != count
        or not all(isinstance(d, (int, float)) and not isinstance(d, bool) and 0 < d < 1e300 for d in value)
    ):
        raise ValueError(f"{key} is not a list of {count} positive numbers, one for each rotary pair")
    return tuple(float(d) for d in value)
