"""The integer specification of a whole artifact, in PyTorch: what every kernel has to compute.

Weights are the stored integers times their row scales; inputs of linears, queries, cached keys and cached
values are rounded as `formats.activations` says. Products of integers are taken in floats, so that results
agree with the runtime to the order of float sums. What is rounded can be left out by operation, and the rules
themselves can be changed: this is how causes are tried out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rockledge.artifact import Artifact
from rockledge.conversion.folds import folded
from rockledge.doctor.text import Text
from rockledge.formats.hadamard import Rotation
from rockledge.formats.packing import dequantize
from rockledge.model.block import Attention, Decoder, decoder, layer_name
from rockledge.model.config import ModelConfig
from rockledge.quantization.float_model.forward import Attend, attention, block_forward, rms_norm, scaled
from rockledge.quantization.float_model.logits import finished
from rockledge.quantization.learning.heads import int8_attention, large_key_bias
from rockledge.quantization.reporting.fakequant import rounded_inputs
from rockledge.quantization.transforming.hadamard import hadamard, rotate, rotate_inverse

Rounding = Callable[[Tensor, int], Tensor]
"""Inputs fp32 [..., K] and their int8 planes to what linears see, fp32 [..., K]."""


@dataclass(frozen=True)
class Arithmetic:
    """The rules by which an artifact is computed. `rounded` is that of inputs and heads; `key_scale` and
    `value_scale` are what cached keys and values are off by; `key_bias` whether the largest biases of keys
    enter scores."""

    rounded: Rounding = rounded_inputs
    key_scale: float = 1.0
    value_scale: float = 1.0
    key_bias: bool = True


_SHAKEN = 1e-6


def own_rotation(artifact: Artifact) -> Rotation | None:
    """The artifact's rotation in memory of its own, which PyTorch wants to be writable."""
    kept = artifact.rotation
    if kept is None:
        return None
    return Rotation(kept.block, kept.odd, np.array(kept.signs), np.array(kept.mix))


@dataclass(frozen=True)
class Specification:
    """`artifact` with another configuration, rotation or other rules than its own, where given."""

    artifact: Artifact
    config: ModelConfig
    rotation: Rotation | None
    online: Mapping[str, int]
    rules: Arithmetic = field(default_factory=Arithmetic)

    @classmethod
    def of(cls, artifact: Artifact) -> "Specification":
        """The artifact as it is."""
        return cls(artifact, artifact.config, own_rotation(artifact), artifact.online)

    @property
    def tree(self) -> Decoder:
        """What is computed with the stored weights."""
        return folded(decoder(self.config))

    def matrix(self, name: str) -> Tensor:
        """The real weights of a linear, fp32 [N, K]."""
        return torch.from_numpy(dequantize(self.artifact.linear(name)))

    def layer_weights(self, number: int) -> dict[str, Tensor]:
        """Weights, biases and kept gains of a layer, by role."""
        weights, layer = {}, self.tree.layers[number]
        for linear in layer.linears:
            name = layer_name(number, linear.role)
            weights[linear.role] = self.matrix(name)
            bias = self.artifact.linear(name).bias
            if bias is not None:
                weights[linear.role + ".bias"] = torch.from_numpy(np.array(bias))
        for norm in layer.kept_norms:
            weights[norm.role] = self.gain(layer_name(number, norm.role))
        return weights

    def gain(self, name: str) -> Tensor:
        """A kept gain, fp32."""
        return torch.from_numpy(np.array(self.artifact.array(name)))

    def planes(self, number: int, place: str) -> int:
        """How many int8 planes the input at a place of a layer takes."""
        layer = self.tree.layers[number]
        group = next(group for group in layer.groups if group.place == place)
        return self.artifact.planes(layer_name(number, group.first.role))

    def embedded(self, table: Tensor, text: Text) -> Tensor:
        """What enters the first layer, fp32 [sequences, length, hidden], of the stored embedding `table`."""
        rows = scaled(F.embedding(text.tokens, table), self.tree)
        return rows if self.tree.residual_turns else rotate_inverse(rows, self.rotation)

    def turned(self, place: str, x: Tensor) -> Tensor:
        """An input after the Hadamard that the runtime applies to it, if there is one."""
        return hadamard(x, self.online.get(place, 0))

    def layer(
        self,
        number: int,
        weights: Mapping[str, Tensor],
        x: Tensor,
        *,
        plain: frozenset[str] = frozenset(),
    ) -> Tensor:
        """What a layer makes of `x` fp32 [sequences, length, hidden]. `plain`: places whose input is not
        rounded, and "cache" where queries, keys and values are not."""

        def tap(place: str, seen: Tensor) -> Tensor:
            seen = self.turned(place, seen)
            return seen if place in plain else self.rules.rounded(seen, self.planes(number, place))

        attend = attention if "cache" in plain else self._attend(number, weights)
        return block_forward(weights, x, self.tree, number, tap, attend=attend)

    def _attend(self, number: int, weights: Mapping[str, Tensor]) -> Attend:
        body, rules = self.tree.layers[number].attends, self.rules
        past = large_key_bias(body, weights.get(body.k.role + ".bias"))
        if past is not None and not rules.key_bias:
            past = torch.zeros_like(past)

        def attend(body: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return int8_attention(
                body,
                q,
                k * rules.key_scale,
                v * rules.value_scale,
                past_cache=past,
                positions=None,
                rounded=lambda heads: rules.rounded(heads, 1),
            )

        return attend

    def head_input(self, x: Tensor) -> Tensor:
        """What the head multiplies, before it is rounded, of the last layer's output fp32 [..., hidden]."""
        tree = self.tree
        h = rms_norm(x, None, tree.norm_eps)
        if not tree.keeps_final_gain:
            return h
        h = rotate_inverse(h, self.rotation) if tree.residual_turns else h
        return rotate(self.gain(tree.final_norm.role) * h, self.rotation)

    def logits(self, x: Tensor, matrix: Tensor, *, plain: bool = False) -> Tensor:
        """Logits fp32 [..., vocab] of the last layer's output, by the stored head `matrix`; `plain`: its
        input is not rounded."""
        h = self.head_input(x)
        if not plain:
            h = self.rules.rounded(h, self.artifact.planes(self.tree.head.role))
        return finished(h @ matrix.T, self.tree)

    @torch.no_grad()
    def run(self, text: Text, *, shaken: bool = False) -> Tensor:
        """Logits fp32 [tokens, vocab] of the whole text. `shaken`: embeddings are about a millionth off,
        which shows how far differences of no importance go."""
        table = self.matrix(self.tree.embed.role)
        x = self.embedded(table, text)
        if shaken:
            x = x * (1 + _SHAKEN * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))
        for number in range(len(self.tree.layers)):
            x = self.layer(number, self.layer_weights(number), x)
        head = table if self.tree.tied else self.matrix(self.tree.head.role)
        return self.logits(text.rows(x), head)

    def with_rules(self, rules: Arithmetic) -> "Specification":
        """The same artifact by other rules."""
        return replace(self, rules=rules)
