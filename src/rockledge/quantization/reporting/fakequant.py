"""The quantised model in floats: dequantised weights and rounded inputs in the float reference.

It computes what the integer core computes, up to the order of float sums, and needs no native code: the
reference that the artifact's divergence is first measured with. Keys and values are not rounded here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch

from rockledge.formats.table import Float32
from rockledge.model.block import Decoder, layer_name
from rockledge.quantization.float_model.forward import Taps, block_forward
from rockledge.quantization.float_model.logits import finished
from rockledge.quantization.transforming.hadamard import hadamard

# Windows of one forward call.
_BATCH = 8
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


def rounding_taps(
    tree: Decoder,
    layer: int,
    planes: Callable[[str], int],
    online: Mapping[str, int],
    rounded: Callable[[torch.Tensor, int], torch.Tensor] = rounded_inputs,
) -> Taps:
    """What the quantised model does to the inputs of a layer's linears: transforms those that `online` has a
    block for, rounds all by `rounded`.

    `planes` says how many a linear's input takes.
    """
    first = {group.place: layer_name(layer, group.first.role) for group in tree.layers[layer].groups}

    def tap(place: str, x: torch.Tensor) -> torch.Tensor:
        return rounded(hadamard(x, online.get(place, 0)), planes(first[place]))

    return tap


class QuantisedLogits:
    """Logits of `windows` (equally long token lists) under quantised linears, or final states where there is
    no head; called with one of them.

    `tree` is what is left to compute, with Hadamards `online` before inputs, by place. `planes` says how many
    int8 planes the input of each linear takes; `stream` turns rows of the embedding into the first layer's
    input and `head_input` the last one's output into the head's; `gains` are the kept norms', by full name.
    Everything is computed on `device`.
    """

    def __init__(
        self,
        linears: Linears,
        tree: Decoder,
        online: Mapping[str, int],
        windows: Sequence[Sequence[int]],
        *,
        planes: Callable[[str], int],
        stream: Callable[[torch.Tensor], torch.Tensor],
        head_input: Callable[[torch.Tensor], torch.Tensor],
        gains: Callable[[str], Float32],
        device: torch.device | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._linears = linears
        self._device = device or torch.device("cpu")
        self._tree = tree
        self._online = online
        self._planes = planes
        self._gains = gains
        self._head: torch.Tensor | None = linears.weights(tree.embed.role, self._device)
        x = stream(self._head[torch.tensor([list(window) for window in windows])])
        if tree.gathered:
            self._head = None  # an embedding and a head at a time would be the largest things in memory
            self._head = None if tree.headless else linears.weights(tree.head.role, self._device)
        states = self._run(x, progress)
        with torch.no_grad():
            finals = {tuple(window): head_input(state) for window, state in zip(windows, states, strict=True)}
            if self._head is not None:
                count = planes(tree.head.role)
                finals = {window: rounded_inputs(state, count) for window, state in finals.items()}
        self._states = finals

    def __call__(self, tokens: Sequence[int]) -> Float32:
        """Logits fp32 [tokens, vocab] of one announced window, or states fp32 [tokens, hidden]."""
        if self._head is None:
            states: Float32 = self._states[tuple(tokens)].cpu().numpy()
            return states
        products = self._states[tuple(tokens)] @ self._head.T
        logits: Float32 = finished(products, self._tree).cpu().numpy()
        return logits

    def block_weights(self, layer: int) -> dict[str, torch.Tensor]:
        """Dequantised weights, biases and kept gains of one layer, by role."""
        weights, of = {}, self._tree.layers[layer]
        for linear in of.linears:
            name = layer_name(layer, linear.role)
            weights[linear.role] = self._linears.weights(name, self._device)
            if (bias := self._linears.bias(name)) is not None:
                weights[linear.role + ".bias"] = self._copied(bias)
        for norm in of.kept_norms:
            weights[norm.role] = self._copied(self._gains(layer_name(layer, norm.role)))
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
        layers = len(self._tree.layers)
        for layer in range(layers):
            weights = self.block_weights(layer)
            tap = rounding_taps(self._tree, layer, self._planes, self._online)
            states = [block_forward(weights, state, self._tree, layer, tap) for state in states]
            if progress is not None:
                progress(layer + 1, layers)
        return list(torch.cat(states))
