"""The quantised model in floats: dequantised weights and rounded inputs in the float reference.

It computes what the integer core computes, up to the order of float sums, and needs no native code: the
reference that the artifact's divergence is first measured with. Keys and values are not rounded here.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from rockledge.formats.table import Float32
from rockledge.model.config import ModelConfig
from rockledge.model.family import FAMILIES
from rockledge.quantization.reference import Taps, block_forward
from rockledge.quantization.transform import hadamard

# Windows of one forward call.
_BATCH = 8
# The linear whose planes hold for all that read at a place.
_FIRST = {"attn.in": "attn.q", "ffn.in": "ffn.gate"}
_LARGEST = {1: 127.0, 2: 32512.0}


class Linears(Protocol):
    """Where quantised linears come from: an artifact, or one that is being put together."""

    def weights(self, name: str, device: torch.device) -> torch.Tensor:
        """The real weights that a linear stands for, fp32 [N, K]."""

    def bias(self, name: str) -> Float32 | None:
        """Its bias fp32 [N], if it has one."""


def rounded_inputs(x: torch.Tensor, planes: int) -> torch.Tensor:
    """Activations fp32 [..., K] rounded as `formats.activations` rounds them, back in floats."""
    largest = x.abs().amax(dim=-1, keepdim=True)
    inverse = _LARGEST[planes] / largest
    usable = torch.isfinite(inverse)
    step = torch.where(usable, largest / _LARGEST[planes], torch.zeros_like(largest))
    return torch.round(x * torch.where(usable, inverse, torch.zeros_like(inverse))) * step


def rounding_taps(layer: int, planes: Callable[[str], int], ffn_block: int) -> Taps:
    """What the quantised model does to the inputs of a block's linears: transforms that of down, rounds all.

    `planes` says how many a linear's input takes.
    """

    def tap(place: str, x: torch.Tensor) -> torch.Tensor:
        if place == "ffn.down":
            x = hadamard(x, ffn_block)
        return rounded_inputs(x, planes(f"layers.{layer}.{_FIRST.get(place, place)}"))

    return tap


class QuantisedLogits:
    """Logits of `windows` (equally long token lists) under quantised linears; called with one of them.

    `planes` says how many int8 planes the input of each linear takes, `head_input` turns the last block's
    output into the head's input, `gains` are the norm gains inside heads, by full name. Everything is
    computed on `device`.
    """

    def __init__(
        self,
        linears: Linears,
        config: ModelConfig,
        ffn_block: int,
        windows: Sequence[Sequence[int]],
        *,
        planes: Callable[[str], int],
        head_input: Callable[[torch.Tensor], torch.Tensor],
        gains: Callable[[str], Float32],
        device: torch.device | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._linears = linears
        self._device = device or torch.device("cpu")
        self._config = config
        self._block = ffn_block
        self._planes = planes
        self._gains = gains
        self._roles = [linear.role for linear in FAMILIES[config.family].linears if "{i}" in linear.hf]
        self._norms = [norm.role for norm in FAMILIES[config.family].norms if norm.size == "head_dim"]
        name = "embed" if config.tied else "head"
        self._head = linears.weights("embed", self._device)
        x = self._head[torch.tensor([list(window) for window in windows])]
        if not config.tied:
            del self._head  # an embedding and a head at a time would be the largest things in memory
            self._head = linears.weights("head", self._device)
        states = self._run(x, progress)
        with torch.no_grad():
            self._states = {
                tuple(window): rounded_inputs(head_input(state), planes(name))
                for window, state in zip(windows, states, strict=True)
            }

    def __call__(self, tokens: Sequence[int]) -> Float32:
        """Logits fp32 [tokens, vocab] of one announced window."""
        logits: Float32 = (self._states[tuple(tokens)] @ self._head.T).cpu().numpy()
        return logits

    def block_weights(self, layer: int) -> dict[str, torch.Tensor]:
        """Dequantised weights, biases and inner gains of one block, by role."""
        weights = {}
        for role in self._roles:
            name = f"layers.{layer}.{role}"
            weights[role] = self._linears.weights(name, self._device)
            if (bias := self._linears.bias(name)) is not None:
                weights[role + ".bias"] = self._copied(bias)
        for role in self._norms:
            weights[role] = self._copied(self._gains(f"layers.{layer}.{role}"))
        return weights

    def _copied(self, array: Float32) -> torch.Tensor:
        return torch.from_numpy(np.array(array)).to(self._device)

    @torch.no_grad()
    def _run(
        self,
        x: torch.Tensor,
        progress: Callable[[int, int], None] | None,
    ) -> list[torch.Tensor]:
        states = list(x.split(_BATCH))
        for layer in range(self._config.layers):
            weights = self.block_weights(layer)
            tap = rounding_taps(layer, self._planes, self._block)
            states = [block_forward(weights, state, self._config, tap) for state in states]
            if progress is not None:
                progress(layer + 1, self._config.layers)
        return list(torch.cat(states))
