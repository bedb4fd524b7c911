"""What may be wrong with a runtime, as specifications that are wrong in the same way.

A runtime that does not do what the specification says is compared with each; the one that gives the same
logits names the fault. A new suspicion is a line here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from rockledge.doctor.specification import Arithmetic, Specification

_LARGEST = {1: 127.0, 2: 32512.0}


@dataclass(frozen=True)
class Hypothesis:
    """`cause` in words; `wrong` makes a specification that has this fault, None where it would change
    nothing."""

    cause: str
    wrong: Callable[[Specification], Specification | None]


def truncated(x: Tensor, planes: int) -> Tensor:
    """Activations fp32 [..., K] as `formats.activations` has them, but cut off toward zero."""
    return _cut(x, planes, torch.trunc)


def floored(x: Tensor, planes: int) -> Tensor:
    """The same, cut off downwards."""
    return _cut(x, planes, torch.floor)


def _cut(x: Tensor, planes: int, cut: Callable[[Tensor], Tensor]) -> Tensor:
    largest = x.abs().amax(dim=-1, keepdim=True)
    inverse = _LARGEST[planes] / largest
    usable = torch.isfinite(inverse)
    step = torch.where(usable, largest / _LARGEST[planes], torch.zeros_like(largest))
    return cut(x * torch.where(usable, inverse, torch.zeros_like(inverse))) * step


def _rules(cause: str, rules: Arithmetic) -> Hypothesis:
    return Hypothesis(cause, lambda spec: spec.with_rules(rules))


def _base(theta: float) -> Hypothesis:
    return Hypothesis(
        f"a wrong RoPE base: it computes with {theta:g}",
        lambda spec: (
            None
            if spec.config.rope_theta == theta
            else replace(spec, config=replace(spec.config, rope_theta=theta))
        ),
    )


def _without_hadamards(spec: Specification) -> Specification | None:
    return replace(spec, online={}) if spec.online else None


def _without_rotation(spec: Specification) -> Specification | None:
    used = spec.tree.keeps_final_gain or not spec.tree.residual_turns
    return replace(spec, rotation=None) if spec.rotation is not None and used else None


def _without_key_bias(spec: Specification) -> Specification | None:
    return spec.with_rules(Arithmetic(key_bias=False)) if spec.config.qkv_bias else None


HYPOTHESES: Mapping[str, Hypothesis] = MappingProxyType(
    {
        "truncation": _rules(
            "truncation for rounding: activations are cut off toward zero", Arithmetic(truncated)
        ),
        "floor": _rules("truncation for rounding: activations are cut off downwards", Arithmetic(floored)),
        "keys_doubled": _rules(
            "a KV scale off by two: cached keys are twice as large", Arithmetic(key_scale=2)
        ),
        "keys_halved": _rules(
            "a KV scale off by two: cached keys are half as large", Arithmetic(key_scale=0.5)
        ),
        "values_doubled": _rules(
            "a KV scale off by two: cached values are twice as large", Arithmetic(value_scale=2)
        ),
        "values_halved": _rules(
            "a KV scale off by two: cached values are half as large", Arithmetic(value_scale=0.5)
        ),
        "cache_doubled": _rules(
            "a KV scale off by two: cached keys and values are twice as large",
            Arithmetic(key_scale=2, value_scale=2),
        ),
        "cache_halved": _rules(
            "a KV scale off by two: cached keys and values are half as large",
            Arithmetic(key_scale=0.5, value_scale=0.5),
        ),
        "hadamard": Hypothesis(
            "a missing rotation: no Hadamard transform is applied to the inputs that need one",
            _without_hadamards,
        ),
        "rotation": Hypothesis(
            "a missing rotation: embedding or head are used as if they were not turned", _without_rotation
        ),
        "key_bias": Hypothesis("the largest biases of keys are left out of scores", _without_key_bias),
        **{f"rope_{theta:g}": _base(theta) for theta in (1e4, 1e5, 5e5, 1e6)},
    }
)
