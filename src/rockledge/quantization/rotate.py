"""The checkpoint in the basis that is quantised: the same function, with every weight rotated so that
outliers spread.

Following QuaRot (arXiv 2404.00456): norm gains are folded into the linears after them, then one random
orthogonal Q rotates the residual stream, a Hadamard transform each head's values, and a block Hadamard the
input of down, which the runtime applies online. The family's declaration says what is rotated and how. With a
tied embedding the final gain cannot be folded, so the head's input is rotated back, multiplied by the gain
and rotated again.
"""

from dataclasses import dataclass, field

import torch

from rockledge.formats.hadamard import FFN_BLOCK_LIMIT, Rotation, power_of_two_block, random_rotation
from rockledge.model.checkpoint import Checkpoint
from rockledge.model.config import ModelConfig
from rockledge.model.family import FAMILIES, Linear
from rockledge.quantization.balance import balanced, balanced_gains
from rockledge.quantization.steps import Steps
from rockledge.quantization.transform import hadamard, per_head_hadamard, rotate, rotate_inverse

_ROWS = 16384  # rows of an embedding rotated together
_QK_NORMS = ("attn.q_norm", "attn.k_norm")  # these normalise within a head, after the rotated linears


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
    def ffn_block(self) -> int:
        """Block of the online Hadamard in front of down, 0 for none."""
        if not self.steps.down_hadamard:
            return 0
        return power_of_two_block(self.config.ffn, FFN_BLOCK_LIMIT)

    def block_weights(self, layer: int, *, online: bool = True) -> dict[str, torch.Tensor]:
        """Weights of one decoder block by role, fp32 on the device; the folded norms are ones.

        With `online` false the columns of down are left plain, so that channels can still be reordered.
        """
        weights = {}
        family = FAMILIES[self.config.family]
        for linear in family.linears:
            if "{i}" not in linear.hf:
                continue
            name = f"layers.{layer}.{linear.role}"
            gain = self._tensor(f"layers.{layer}.{linear.norm}") if linear.norm else None
            weights[linear.role] = self._turned(linear, self._tensor(name), gain)
            if linear.bias and self.config.qkv_bias:
                bias = self._tensor(name + ".bias")
                turned = linear.hadamard == "head_rows" and self.rotation is not None
                weights[linear.role + ".bias"] = (
                    per_head_hadamard(bias, self.config.head_dim) if turned else bias
                )
        for norm in family.norms:
            if "{i}" not in norm.hf:
                continue
            kept = norm.role in _QK_NORMS
            gain = self._tensor(f"layers.{layer}.{norm.role}")
            weights[norm.role] = gain if kept else torch.ones_like(gain)
        if self.steps.balance:
            weights = balanced(weights, self.config)
        if online:
            weights["ffn.down"] = hadamard(weights["ffn.down"], self.ffn_block)
        return weights

    def embedding(self) -> torch.Tensor:
        """The stored embedding E Q, fp32 [vocab, hidden]; with tied weights also the head."""
        return self._by_rows(self._tensor("embed"), None)

    def head(self) -> torch.Tensor:
        """The stored head, fp32 [vocab, hidden]: the embedding when tied, else with the final gain folded
        in."""
        if self.config.tied:
            return self.embedding()
        return self._by_rows(self._tensor("head"), self._tensor("final_norm"))

    def head_input(self, x: torch.Tensor) -> torch.Tensor:
        """What the head multiplies, from the last block's output `x` fp32 [..., hidden]; differentiable."""
        h = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.config.norm_eps)
        if not self.config.tied:
            return h
        return rotate(self._tensor("final_norm") * rotate_inverse(h, self.rotation), self.rotation)

    def gain(self, name: str) -> torch.Tensor:
        """The gain of a norm that the artifact keeps, by its name."""
        layer, _, role = name.rpartition(".attn.")
        if not self.steps.balance or f"attn.{role}" not in _QK_NORMS:
            return self._tensor(name)
        gains = balanced_gains(*(self._tensor(f"{layer}.{norm}") for norm in _QK_NORMS))
        return gains[_QK_NORMS.index(f"attn.{role}")]

    def _by_rows(self, table: torch.Tensor, gain: torch.Tensor | None) -> torch.Tensor:
        """The rotated table; its temporaries, each as large as it, exist for a few rows only."""
        turned = torch.empty_like(table)
        for first in range(0, len(table), _ROWS):
            rows = table[first : first + _ROWS]
            turned[first : first + _ROWS] = rotate(rows if gain is None else rows * gain, self.rotation)
        return turned

    def _tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.checkpoint.tensor(name)).to(self.device)

    def _turned(self, linear: Linear, w: torch.Tensor, gain: torch.Tensor | None) -> torch.Tensor:
        if gain is not None:
            w = w * gain
        w = rotate(w, self.rotation) if linear.residual == "cols" else rotate(w.T, self.rotation).T
        per_head = self.rotation is not None
        if linear.hadamard == "head_rows" and per_head:
            w = per_head_hadamard(w.T.contiguous(), self.config.head_dim).T
        elif linear.hadamard == "head_cols" and per_head:
            w = per_head_hadamard(w.contiguous(), self.config.head_dim)
        return w.contiguous()


def rotated(
    checkpoint: Checkpoint, seed: int = 0, device: str | torch.device = "cpu", steps: Steps | None = None
) -> RotatedModel:
    """The view of a checkpoint that is quantised; `seed` fixes the random signs and the mix."""
    steps = steps or Steps()
    rotation = random_rotation(checkpoint.config.hidden, seed) if steps.rotate != "none" else None
    return RotatedModel(checkpoint, rotation, torch.device(device), steps)
