"""One walk through the layers of the float model, beside the stored ones: every operation is read and every
matrix checked as it passes, so that one layer's weights are in memory at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rockledge.conversion.folds import Fold
from rockledge.doctor.basis import Basis
from rockledge.doctor.checks.linear_table import LINEAR_CHECKS
from rockledge.doctor.finding import Finding, Requantised
from rockledge.doctor.operation import Operation
from rockledge.doctor.reading import Reading, of_cache, of_inputs, of_weights
from rockledge.doctor.specification import Specification
from rockledge.doctor.stored_linear import StoredLinear
from rockledge.doctor.text import Text
from rockledge.model.block import Attention, Layer, layer_name
from rockledge.quantization.float_model.forward import attention, block_forward
from rockledge.quantization.transforming.hadamard import hadamard

Progress = Callable[[str, int, int], None]
_DIFFERENT_BIAS = 0.05  # relative error: biases are stored as they are
_DIFFERENT_GAIN = 0.02


@dataclass(frozen=True)
class Walked:
    """What the walk found; `twin` are logits fp32 [tokens, vocab] of the float weights in the artifact's
    basis, which are those of the float model if the basis is right."""

    readings: tuple[Reading, ...]
    findings: tuple[Finding, ...]
    twin: Tensor


@torch.no_grad()
def walk(spec: Specification, basis: Basis, text: Text, progress: Progress) -> Walked:
    """Reads and checks everything that `spec` stores, on the activations of the float model in `basis`."""
    exact = replace(spec, config=basis.model.config, rotation=basis.model.rotation, online=basis.online)
    tree, readings, findings = exact.tree, list[Reading](), list[Finding]()
    table, original = spec.matrix(tree.embed.role), basis.embedding()
    ends = {tree.embed.role: (table, original)}
    if not tree.tied:
        ends[tree.head.role] = (spec.matrix(tree.head.role), basis.head())
    for role, (stored, wanted) in ends.items():
        folds = tuple(fold for fold in basis.model.turns.ends(tree.head if role == "head" else tree.embed))
        findings += _checked(spec, basis, role, stored, wanted, 0, folds)
    x = exact.embedded(original, text)
    for number, layer in enumerate(tree.layers):
        stored_layer = spec.layer_weights(number)
        wanted_layer = basis.layer(number, stored_layer)
        inputs, heads, after = _seen(exact, number, wanted_layer, x)
        share = float((after - x).square().sum() / x.square().sum().clamp_min(1e-30))
        found = _readings(exact, number, layer, stored_layer, wanted_layer, inputs, heads, text)
        readings += [replace(one, weight=share * 10 ** (-one.snr_db / 10)) for one in found]
        findings += _checked_layer(spec, basis, number, layer, stored_layer, wanted_layer)
        x = after
        progress("layers, float beside stored", number + 1, len(tree.layers))
    h = exact.head_input(x)
    head_stored, head_wanted = ends[tree.head.role]
    rounded = exact.rules.rounded(h, spec.artifact.planes(tree.head.role))
    at_head = of_inputs(Operation("inputs", None, "head"), h, rounded, text)
    of_head = of_weights(Operation("weights", None, tree.head.role), text.rows(h), head_stored, head_wanted)
    readings += [replace(one, weight=10 ** (-one.snr_db / 10)) for one in (at_head, of_head)]
    findings += _gains(spec, basis)
    return Walked(tuple(readings), tuple(findings), exact.logits(text.rows(x), head_wanted, plain=True))


def _seen(
    exact: Specification, number: int, weights: Mapping[str, Tensor], x: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Inputs by place as they are rounded, heads by "q", "k", "v", and the layer's output, all in float."""
    inputs: dict[str, Tensor] = {}
    heads: dict[str, Tensor] = {}

    def tap(place: str, seen: Tensor) -> Tensor:
        inputs[place] = hadamard(seen, exact.online.get(place, 0))
        return inputs[place]

    def attend(body: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads.update(q=q, k=k, v=v)
        return attention(body, q, k, v)

    after = block_forward(weights, x, exact.tree, number, tap, attend=attend)
    return inputs, heads, after


def _readings(
    exact: Specification,
    number: int,
    layer: Layer,
    stored: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    heads: Mapping[str, Tensor],
    text: Text,
) -> list[Reading]:
    found, rounded = [], exact.rules.rounded
    for group in layer.groups:
        x = inputs[group.place]
        seen = rounded(x, exact.planes(number, group.place))
        found.append(of_inputs(Operation("inputs", number, group.place), x, seen, text))
        rows = text.rows(x)
        found += [
            of_weights(Operation("weights", number, one.role), rows, stored[one.role], wanted[one.role])
            for one in group.linears
        ]
    cached = {name: rounded(head, 1) for name, head in heads.items()}
    found.append(of_cache(Operation("cache", number, "attn"), layer.attends, heads, cached, text))
    return found


def _checked_layer(
    spec: Specification,
    basis: Basis,
    number: int,
    layer: Layer,
    stored: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
) -> list[Finding]:
    found: list[Finding] = []
    folds = list(basis.model.turns.layer(number))
    for linear in layer.linears:
        own = tuple(fold for fold in folds if fold.role == linear.role)
        head = layer.attends.head_dim if linear.banding == "head" else 0
        name, role = layer_name(number, linear.role), linear.role
        found += _checked(spec, basis, name, stored[role], wanted[role], head, own)
        if linear.bias and _differ(stored[role + ".bias"], wanted[role + ".bias"], _DIFFERENT_BIAS):
            found.append(
                Finding(
                    check="biases",
                    place=name,
                    severity="alarm",
                    cause="its bias is not that of the reference",
                    mend=f"quantise {name} again from the reference",
                    change=Requantised((name,)),
                )
            )
    return found


def _checked(
    spec: Specification,
    basis: Basis,
    name: str,
    stored: Tensor,
    wanted: Tensor,
    head: int,
    folds: tuple[Fold, ...],
) -> list[Finding]:
    linear = StoredLinear(name, spec.artifact.linear(name), stored, wanted, head, folds, basis.model.rotation)
    found = (list(check(linear)) for check in LINEAR_CHECKS.values())
    return next((findings for findings in found if findings), [])


def _gains(spec: Specification, basis: Basis) -> list[Finding]:
    wrong = [
        name
        for name in spec.artifact.arrays
        if _differ(spec.gain(name), basis.model.gain(name), _DIFFERENT_GAIN)
    ]
    return [
        Finding(
            check="gains",
            place=name,
            severity="alarm",
            cause="the gain of this norm is not that of the reference",
            mend="take the reference's gain",
            change=Requantised((name,)),
        )
        for name in wrong
    ]


def _differ(found: Tensor, wanted: Tensor, most: float) -> bool:
    away = float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))
    return not away <= most
