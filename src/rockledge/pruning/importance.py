"""What matters in a model, by what its parts do on calibration text: one streamed forward pass.

A part counts by the energy that it adds: E[|w_j x_j|^2] over tokens for an input x_j of a matrix whose column
is w_j. So an input channel that is always zero counts for nothing, and one that no row reads neither. This
is the activation-based importance of Minitron (arXiv 2407.14679, section 2.2) with the matrix that reads the
activation in it.

- Feed-forward channels: the inputs of down. Query heads: their inputs of O together.
- Channels of the residual stream: what the linears after it (and the head) read of each, every input's shares
  adding up to one.
- A layer's influence: 1 - cosine of its input and output, the mean over tokens (ShortGPT, arXiv 2403.03853).

Norms need a mean square over the channels that stay; `normed` has what each channel adds to it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rockledge.errors import CheckpointError
from rockledge.model.block import Layer, Norm, decoder
from rockledge.model.checkpoint import Checkpoint
from rockledge.pruning.walk import through, token_losses, writer
from rockledge.quantization.float_model.forward import (
    block_weights,
    embed_tokens,
    head_weights,
    rms_norm,
)

Progress = Callable[[str, int, int], None]
"""Called with (stage, units done, units in all)."""


@dataclass(frozen=True)
class LayerImportance:
    """Of one layer: `influence`; energies of feed-forward channels [ffn], of query heads [heads], and what
    its inputs read of the residual stream [hidden]; by the role of each norm, E[x_i^2 / (mean square + eps)]
    of its inputs [size]. All float64, on the CPU."""

    influence: float
    channels: Tensor
    heads: Tensor
    reads: Tensor
    normed: Mapping[str, Tensor]


@dataclass(frozen=True)
class Importance:
    """Of a model: its layers, what all linears read of the residual stream [hidden], and the input of the
    last norm as `LayerImportance.normed` has it [hidden]."""

    layers: tuple[LayerImportance, ...]
    hidden: Tensor
    final_normed: Tensor


@torch.no_grad()
def importance(
    checkpoint: Checkpoint, tokens: Tensor, device: torch.device | str, progress: Progress
) -> Importance:
    """The importance of a model's parts on `tokens` int64 [S, T]; one layer is in memory at a time."""
    tree = decoder(checkpoint.config)
    states = embed_tokens(checkpoint, tokens)
    found = []
    for number, layer in enumerate(tree.layers):
        weights = block_weights(checkpoint, number, device)
        look = _Look(layer, weights, tree.norm_eps)
        before = states
        for branch in layer.branches:
            look.residual(branch.before, states)
            states = through(weights, states, tree, branch, device, look.inputs, look.outputs)
        found.append(look.result(_influence(before, states)))
        if not _finite(states, found[-1]):
            raise CheckpointError(
                f"layer {number} of the teacher overflows on the calibration text, though its weights are "
                "finite; its config.json may not be the one that it was trained with"
            )
        progress("importance", number + 1, len(tree.layers))
    head, mean = head_weights(checkpoint, device), _Mean()
    for sequence in states:
        mean.add(rms_norm(sequence, None, tree.norm_eps).square())
    final = mean.value()
    read = final * (head["final_norm"].double().square() * _column_energy(head["head"])).cpu()
    loss = token_losses(head, states[:1], tokens[:1], tree)
    if not bool(torch.isfinite(loss).all() and torch.isfinite(read).all()):
        raise CheckpointError(
            "the teacher's loss on the calibration text is not finite, though its weights are; its last norm "
            "or its head overflows"
        )
    hidden = _shares(read) + torch.stack([one.reads for one in found]).sum(0)
    return Importance(tuple(found), hidden, final)


class _Mean:
    """A running mean over tokens, float64 on the CPU."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, values: Tensor) -> None:
        """Values [..., channels]."""
        rows = values.reshape(-1, values.shape[-1])
        found = rows.double().sum(0).cpu() if rows.device.type == "cpu" else rows.sum(0).cpu().double()
        self._sum = found if self._sum is None else self._sum + found
        self._count += len(rows)

    def value(self) -> Tensor:
        """The mean [channels]."""
        assert self._sum is not None
        return self._sum / self._count


class _Look:
    """Gathers what one layer does."""

    def __init__(self, layer: Layer, weights: Mapping[str, Tensor], eps: float) -> None:
        self._layer, self._weights, self._eps = layer, weights, eps
        self._inputs = {group.place: _Mean() for group in layer.groups}
        self._normed = {norm.role: _Mean() for norm in layer.norms}
        self._heads = _Mean()
        attends = layer.attends
        self._inner = {
            linear.role: norm
            for linear, norm in ((attends.q, attends.q_norm), (attends.k, attends.k_norm))
            if norm is not None
        }
        self._after = {writer(b): b.after for b in layer.branches if b.after is not None}
        across = weights[attends.out.role].double().unflatten(1, (attends.heads, attends.head_dim))
        # [heads, head_dim, head_dim]: |W_h x_h|^2 = x_h^T (W_h^T W_h) x_h.
        self._gram = torch.einsum("nhi,nhj->hij", across, across).float()

    def residual(self, norm: Norm | None, states: Tensor) -> None:
        """What a branch's first norm is given."""
        if norm is not None:
            self._norm(norm, states)

    def inputs(self, place: str, x: Tensor) -> Tensor:
        """As `Taps`."""
        self._inputs[place].add(x.square())
        attends = self._layer.attends
        if place == attends.groups[1].place:
            heads = x.unflatten(-1, (attends.heads, attends.head_dim))
            turned = torch.einsum("sthi,hij->sthj", heads, self._gram)
            self._heads.add((turned * heads).sum(-1))
        return x

    def outputs(self, role: str, y: Tensor) -> Tensor:
        """As `OutputTaps`."""
        if role in self._inner:
            norm = self._inner[role]
            self._norm(norm, y.unflatten(-1, (-1, norm.over)))
        if role in self._after:
            self._norm(self._after[role], y)
        return y

    def _norm(self, norm: Norm, x: Tensor) -> None:
        self._normed[norm.role].add(rms_norm(x, None, self._eps).square())

    def result(self, influence: float) -> LayerImportance:
        """What was seen."""
        reads = torch.zeros(self._weights[self._layer.gated.down.role].shape[0], dtype=torch.float64)
        for branch in self._layer.branches:
            group = branch.body.groups[0]
            energy = sum(_column_energy(self._weights[linear.role]) for linear in group.linears)
            reads += _shares(self._inputs[group.place].value() * torch.as_tensor(energy).cpu())
        down = self._layer.ordered
        return LayerImportance(
            influence=influence,
            channels=self._inputs[down.place].value() * _column_energy(self._weights[down.first.role]).cpu(),
            heads=self._heads.value().clamp_min(0),
            reads=reads,
            normed={role: mean.value() for role, mean in self._normed.items()},
        )


def _finite(states: Tensor, found: LayerImportance) -> bool:
    """Whether neither a layer's output nor a sum of squares in it overflowed."""
    sums = (found.channels, found.heads, found.reads, *found.normed.values())
    return all(bool(torch.isfinite(one).all()) for one in (states, *sums))


def _column_energy(matrix: Tensor) -> Tensor:
    """Squared lengths of the columns, float64 [inputs]."""
    found: Tensor = torch.linalg.vector_norm(matrix, dim=0, dtype=torch.float64).square()
    return found


def _shares(values: Tensor) -> Tensor:
    """The same adding up to one, or all zero."""
    total = values.sum()
    return values / total if total > 0 else values


def _influence(before: Tensor, after: Tensor) -> float:
    """Block influence: 1 - cosine, the mean over tokens."""
    cosine = torch.nn.functional.cosine_similarity(before, after, dim=-1)
    return float(1 - cosine.double().mean())
