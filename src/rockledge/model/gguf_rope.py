"""The rotary embedding in the metadata of a GGUF file, as llama.cpp reads it (load_hparams in
src/llama-model.cpp, the constructor in src/llama-context.cpp, rope_yarn in ggml)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError
from rockledge.model.gguf_values import GgufValues
from rockledge.model.rope_scaling import yarn_divisors, yarn_magnitude

FACTORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
"""Tensors with divisors of the frequencies: for every length; up to the original context; beyond it."""

_YARN_MAGNITUDE = "yarn_attn_factor"

Read = Callable[[str, int], npt.NDArray[np.float32] | None]
"""The values of a tensor of divisors, given its name and length; None where there is none."""


def gguf_rope(values: GgufValues, turned: int, read: Read) -> dict[str, Any]:
    """The rotary fields of a model of which `turned` channels of a head turn.

    A factor without a type is linear, `rope.scale_linear` is its older name, and 0 means none.
    """
    theta = values.real("rope.freq_base", 10000.0)
    kind = str(values.get("rope.scaling.type", "linear"))
    factor = values.real("rope.scaling.factor", values.real("rope.scale_linear", 0.0))
    original = values.count("rope.scaling.original_context_length", values.context, least=0) or values.context
    magnitude, stated = (values.real(f"rope.scaling.{key}", 1.0) for key in ("attn_factor", _YARN_MAGNITUDE))
    fast = values.real("rope.scaling.yarn_beta_fast", 32.0)
    slow = values.real("rope.scaling.yarn_beta_slow", 1.0)
    all_dim = values.real("rope.scaling.yarn_log_multiplier", 0.0)
    extrapolated = values.real("rope.scaling.yarn_ext_factor", 1.0)
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise CheckpointError(
            f'{values.file}: RoPE scaling of type "{kind[:40]}" is not supported; supported are none, '
            "linear, yarn, longrope and the llama3 frequencies that GGUF stores as a tensor"
        )
    if kind != "yarn" or not factor:
        magnitude *= stated
    if factor < 0 or not 0 < magnitude < 1e30:
        raise CheckpointError(
            f"{values.file}: a RoPE scaling by {factor}, with attention by {magnitude}, is not possible"
        )
    plain, short, long = (read(name, turned // 2) for name in FACTORS)
    divisors: tuple[float, ...] = (factor if kind == "linear" and factor else 1.0,) * (turned // 2)
    if kind == "yarn" and factor:
        if extrapolated not in (1.0, -1.0):  # -1: as the type says
            raise values.wrong("rope.scaling.yarn_ext_factor", extrapolated, "1")
        if not 0 < slow < fast or theta <= 1:
            raise values.wrong(
                "rope.scaling.yarn_beta_fast", fast, f"more than yarn_beta_slow, which is {slow}"
            )
        divisors = yarn_divisors(turned, theta, factor, original, beta_fast=fast, beta_slow=slow)
        if all_dim < 0:
            raise values.wrong("rope.scaling.yarn_log_multiplier", all_dim, "a number from 0 on")
        magnitude *= yarn_magnitude(factor)
        if all_dim:
            magnitude /= yarn_magnitude(factor, all_dim)
        # llama.cpp passes it over; its converter writes what the model's config.json says of the whole.
        if stated != 1 and not math.isclose(stated, magnitude, rel_tol=1e-5):
            raise values.wrong(f"rope.scaling.{_YARN_MAGNITUDE}", stated, f"{magnitude:.5g}, by its factor")

    def scaled(values: npt.NDArray[np.float32]) -> tuple[float, ...]:
        return tuple(float(v) * d for v, d in zip(values, divisors, strict=True))

    fields = {"rope_theta": theta, "rope_divisors": divisors, "rope_factor": magnitude}
    if plain is not None:
        fields["rope_divisors"] = scaled(plain)
    if (short is None) != (long is None):
        there, missing = FACTORS[1:] if long is None else FACTORS[:0:-1]
        raise CheckpointError(
            f"{values.file} has the tensor {there}, but not {missing}; fetch the file again"
        )
    if short is not None and long is not None:
        fields["rope_divisors"] = scaled(short)
        fields["rope_long_divisors"] = scaled(long)
        fields["rope_original"] = original
    return fields
