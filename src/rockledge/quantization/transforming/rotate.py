"""The checkpoint in the basis that is quantised: the same function, with every weight rotated so that
outliers spread. `folds` lists what is changed; here it is done.

With a tied embedding the final gain cannot be folded, so the head's input is rotated back, multiplied by the
gain and rotated again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from rockledge.conversion.folds import Fold, Turns, folded
from rockledge.formats.hadamard import Rotation, random_rotation
from rockledge.model.block import Decoder, Linear, decoder, layer_name
from rockledge.model.checkpoint import Checkpoint
from rockledge.model.config import ModelConfig
from rockledge.quantization.float_model.forward import Taps, rms_norm, scaled
from rockledge.quantization.steps import Steps
from rockledge.quantization.transforming.balance import balanced, balanced_gains
from rockledge.quantization.transforming.hadamard import hadamard, rotate, rotate_inverse

_ROWS = 16384  # rows of an embedding rotated together


@dataclass(frozen=True)
class RotatedModel:
    """A view of `checkpoint` that computes rotated weights when asked; nothing is kept in memory.

    `rotation` is None where only the input of down is rotated.
    """

    checkpoint: Checkpoint
    rotation: Rotation | None
    device: torch.device
    steps: Steps = field(default_factory=Steps)

    @property
    def config(self) -> ModelConfig:
        return self.checkpoint.config

    @property
    def tree(self) -> Decoder:
        """What is computed with these weights."""
        return folded(decoder(self.config))

    @property
    def turns(self) -> Turns:
        """What is turned."""
        return Turns(decoder(self.config), self.rotation is not None, self.steps.down_hadamard)

    @property
    def online(self) -> Mapping[str, int]:
        """Blocks of the Hadamards that the runtime applies to inputs, by place."""
        return self.turns.online

    def taps(self, *, online: bool = True) -> Taps:
        """The Hadamards that `block_weights` with the same `online` wants before its linears."""
        late = None if online else decoder(self.config).layers[0].ordered.place
        blocks = {place: block for place, block in self.online.items() if place != late}

        def turn(place: str, x: torch.Tensor) -> torch.Tensor:
            return hadamard(x, blocks.get(place, 0))

        return turn

    def block_weights(self, layer: int, *, online: bool = True) -> dict[str, torch.Tensor]:
        """Weights, biases and kept gains of one decoder layer by role, fp32 on the device.

        With `online` false the columns of down are left plain, so that channels can still be reordered.
        """
        of, weights = decoder(self.config).layers[layer], {}
        for linear in of.linears:
            for role in (linear.role, *((linear.role + ".bias",) if linear.bias else ())):
                weights[role] = self._tensor(layer_name(layer, role))
        for norm in of.kept_norms:
            weights[norm.role] = self._tensor(layer_name(layer, norm.role))
        folds, late = list(self.turns.layer(layer)), {linear.role for linear in of.ordered.linears}
        for fold in folds:
            if fold.kind != "input":
                self._fold(weights, fold, layer_name(layer, fold.gain))
        if self.steps.balance:
            weights = balanced(weights, of)
        for fold in folds:
            if fold.kind == "input" and (online or fold.role not in late):
                self._fold(weights, fold)
        return weights

    def embedding(self) -> torch.Tensor:
        """The stored embedding E Q, fp32 [vocab, hidden]; with tied weights also the head."""
        return self._end(decoder(self.config).embed)

    def head(self) -> torch.Tensor:
        """The stored head, fp32 [vocab, hidden]: the embedding when tied, else with the final gain folded
        in."""
        return self._end(decoder(self.config).head)

    def stream(self, rows: torch.Tensor) -> torch.Tensor:
        """What enters the first layer of stored `rows` of the embedding, fp32 [..., hidden]."""
        rows = scaled(rows, self.tree)
        return rows if self.turns.folds_stream else rotate_inverse(rows, self.rotation)

    def at_embedding(self, gradients: torch.Tensor) -> torch.Tensor:
        """The gradients [..., hidden] of stored rows of the embedding, from those at the first layer."""
        gradients = scaled(gradients, self.tree)
        return gradients if self.turns.folds_stream else rotate(gradients, self.rotation)

    def head_input(self, x: torch.Tensor) -> torch.Tensor:
        """What the head multiplies, from the last layer's output `x` fp32 [..., hidden]; differentiable."""
        tree, turned = self.tree, self.turns.folds_stream
        h = rms_norm(x, None, tree.norm_eps)
        if not tree.keeps_final_gain:
            return h
        h = rotate_inverse(h, self.rotation) if turned else h
        return rotate(self._tensor(tree.final_norm.role).to(h.device) * h, self.rotation)

    def gain(self, name: str, *, balance: bool = True) -> torch.Tensor:
        """The gain of a norm that the artifact keeps, by its full name; q's and k's without `balance` if
        false."""
        if not name.startswith("layers."):
            return self._tensor(name)
        _, layer, role = name.split(".", 2)
        of = decoder(self.config).layers[int(layer)]
        weights = {norm.role: self._tensor(layer_name(int(layer), norm.role)) for norm in of.kept_norms}
        for fold in self.turns.layer(int(layer)):
            if fold.role in weights:
                self._fold(weights, fold)
        return (balanced_gains(weights, of.attends) if self.steps.balance and balance else weights)[role]

    def _end(self, linear: Linear) -> torch.Tensor:
        """Embedding or head, folded; the temporaries, each as large as it, exist for a few rows only."""
        folds = list(self.turns.ends(linear))
        table = self._tensor(linear.role)
        turned = torch.empty_like(table)
        for first in range(0, len(table), _ROWS):
            rows = {linear.role: table[first : first + _ROWS]}
            for fold in folds:
                self._fold(rows, fold, fold.gain)
            turned[first : first + _ROWS] = rows[linear.role]
        return turned

    def _tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.checkpoint.tensor(name)).to(self.device)

    def _fold(self, weights: dict[str, torch.Tensor], fold: Fold, gain: str = "") -> None:
        """Does `fold` to `weights` by role; `gain` is the full name of the gain that it needs."""
        if fold.side == "cols":
            by = self._tensor(gain) if fold.kind == "gain" else None
            weights[fold.role] = self._changed(weights[fold.role], fold, by)
            return
        for role in (fold.role, fold.role + ".bias"):
            if role in weights:
                turned = weights[role].T.contiguous() if weights[role].dim() == 2 else weights[role]
                changed = self._changed(turned, fold, None)
                weights[role] = changed.T.contiguous() if changed.dim() == 2 else changed

    def _changed(self, x: torch.Tensor, fold: Fold, gain: torch.Tensor | None) -> torch.Tensor:
        """`x` with its last axis folded."""
        if gain is not None:
            return x * gain
        if fold.kind == "multiplier":
            return x * fold.factor
        if fold.kind == "stream":
            return rotate(x, self.rotation)
        return hadamard(x.contiguous(), fold.size)


def rotated(
    checkpoint: Checkpoint, seed: int = 0, device: str | torch.device = "cpu", steps: Steps | None = None
) -> RotatedModel:
    """The view of a checkpoint that is quantised; `seed` fixes the random signs and the mix."""
    steps = steps or Steps()
    rotation = random_rotation(checkpoint.config.hidden, seed) if steps.rotate != "none" else None
    return RotatedModel(checkpoint, rotation, torch.device(device), steps)
