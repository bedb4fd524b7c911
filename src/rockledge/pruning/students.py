"""What stays of a teacher, and the weights that are left of it.

Gains of norms are corrected for the channels that are gone: a norm over fewer of them divides by another mean
square. With s_i = E[x_i^2 / (mean square + eps)] of the teacher's input, the mean over the n channels that
stay is off by the factor E = (sum of their s_i) / n + (eps' / eps) (1 - mean of all s_i), and gains grow by
its square root. Where what is gone was zero, this is exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from rockledge.model.block import Layer, Norm
from rockledge.model.config import ModelConfig
from rockledge.pruning.importance import Importance, LayerImportance
from rockledge.pruning.shape import Shape, pruned_config


@dataclass(frozen=True)
class KeptLayer:
    """Of a layer: `number` in the teacher; feed-forward channels, query heads and key/value heads, int64,
    ascending."""

    number: int
    channels: Tensor
    heads: Tensor
    kv_heads: Tensor


@dataclass(frozen=True)
class Kept:
    """What stays of a teacher with `config`: layers, and channels of the residual stream, ascending."""

    shape: Shape
    config: ModelConfig
    layers: tuple[KeptLayer, ...]
    hidden: Tensor

    @property
    def numbers(self) -> tuple[int, ...]:
        """The teacher's layers that stay."""
        return tuple(layer.number for layer in self.layers)


def what_stays(teacher: ModelConfig, shape: Shape, layers: Sequence[int], found: Importance) -> Kept:
    """The parts of the teacher that matter most, in the given `layers`."""
    each = []
    for number in layers:
        of = found.layers[number]
        heads, kv_heads = _heads(of.heads, teacher, shape)
        each.append(KeptLayer(number, _top(of.channels, shape.ffn), heads, kv_heads))
    config = pruned_config(teacher, shape, layers)
    return Kept(shape, config, tuple(each), _top(found.hidden, shape.hidden))


def _top(values: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest, ascending; of equal ones the first."""
    order = torch.sort(values, descending=True, stable=True).indices
    return order[:count].sort().values


def _heads(energies: Tensor, teacher: ModelConfig, shape: Shape) -> tuple[Tensor, Tensor]:
    """The query heads that stay, and their key/value heads: of every group its best, and the best groups."""
    grouped = energies.view(teacher.kv_heads, -1)
    per = shape.heads // shape.kv_heads
    best = torch.stack([_top(group, per) for group in grouped])
    groups = _top(grouped.gather(1, best).sum(1), shape.kv_heads)
    each = grouped.shape[1]
    return (best[groups] + groups[:, None] * each).flatten(), groups


def student_layer(
    layer: Layer, weights: Mapping[str, Tensor], kept: Kept, index: int, found: LayerImportance, eps: float
) -> dict[str, Tensor]:
    """The weights of the student's layer `index` by role, out of the teacher's `layer` with `weights` and
    norms that add `eps`."""
    own = kept.layers[index]
    rows, inputs = _rows(layer, kept, own), _inputs(layer, kept, own)
    taken: dict[str, Tensor] = {}
    for linear in layer.linears:
        device = weights[linear.role].device
        chosen, columns = rows[linear.role].to(device), inputs[linear.role].to(device)
        taken[linear.role] = weights[linear.role][chosen][:, columns].contiguous()
        if linear.bias:
            taken[linear.role + ".bias"] = weights[linear.role + ".bias"][chosen]
    for norm in layer.norms:
        place = _normed(layer, norm, kept, own)
        gain = weights[norm.role][place.to(weights[norm.role].device)]
        taken[norm.role] = gain * _correction(found.normed[norm.role], place, eps, kept.config.norm_eps)
    return taken


def student_head(
    weights: Mapping[str, Tensor], kept: Kept, found: Importance, eps: float
) -> dict[str, Tensor]:
    """The student's "final_norm" and "head", out of the teacher's."""
    place = kept.hidden.to(weights["head"].device)
    correction = _correction(found.final_normed, kept.hidden, eps, kept.config.norm_eps)
    return {
        "final_norm": weights["final_norm"][place] * correction,
        "head": weights["head"][:, place].contiguous(),
    }


def _rows(layer: Layer, kept: Kept, own: KeptLayer) -> dict[str, Tensor]:
    body, gated, size = layer.attends, layer.gated, layer.attends.head_dim
    return {
        body.q.role: _channels(own.heads, size),
        body.k.role: _channels(own.kv_heads, size),
        body.v.role: _channels(own.kv_heads, size),
        body.out.role: kept.hidden,
        gated.gate.role: own.channels,
        gated.up.role: own.channels,
        gated.down.role: kept.hidden,
    }


def _inputs(layer: Layer, kept: Kept, own: KeptLayer) -> dict[str, Tensor]:
    found = {linear.role: kept.hidden for linear in layer.linears}
    found[layer.attends.out.role] = _channels(own.heads, layer.attends.head_dim)
    found[layer.gated.down.role] = own.channels
    return found


def _normed(layer: Layer, norm: Norm, kept: Kept, own: KeptLayer) -> Tensor:
    """Which channels of a norm stay."""
    body = layer.attends
    if norm not in layer.inner_norms:
        return kept.hidden
    if norm.size == body.head_dim:
        return torch.arange(norm.size)
    queries = body.q_norm is not None and norm.role == body.q_norm.role
    return _channels(own.heads if queries else own.kv_heads, body.head_dim)


def _channels(heads: Tensor, size: int) -> Tensor:
    return (heads[:, None] * size + torch.arange(size)).flatten()


def _correction(normed: Tensor, place: Tensor, eps: float, new_eps: float) -> float:
    """What a gain is multiplied with when only the channels at `place` stay."""
    rest = (1 - float(normed.mean())) * (new_eps / eps if eps else 1.0)
    return sqrt(max(float(normed[place].mean()) + rest, 1e-12))
