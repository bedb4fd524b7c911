"""The whole decoder in the basis and in the numbers of its artifact, to be trained: one module, whose logits
are those of the artifact that it would be stored as."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rockledge.artifact import ArtifactPlan
from rockledge.formats.packing import PackedLinear
from rockledge.model.block import layer_name
from rockledge.model.checkpoint import Checkpoint
from rockledge.quantization.float_model.forward import block_forward
from rockledge.quantization.float_model.logits import finished
from rockledge.quantization.learning.fixed import FixedLinear
from rockledge.quantization.learning.heads import int8_attention, large_key_bias
from rockledge.quantization.learning.linear import LearningLinear
from rockledge.quantization.learning.straight_through import rounded_straight
from rockledge.quantization.reporting.fakequant import rounding_taps
from rockledge.quantization.transforming.order import arranged
from rockledge.quantization.transforming.rotate import RotatedModel


@dataclass(frozen=True)
class Output:
    """`logits` fp32 [B, T, vocab]."""

    logits: Tensor


class LearningModel(nn.Module):
    """Every linear of `model` as `stored` has it in the artifact of `plan`; `order` int64 [ffn] is that of a
    layer's feed-forward channels there.

    Weights, row scales and biases learn. Gains of norms that no linear could take stay as they are. With
    `fixed_codes` weights stay, and of embedding and head the scales, too: a row is a token there, and an
    optimizer that gives every parameter steps of one size moves a rare token's logit with each.
    """

    def __init__(
        self,
        model: RotatedModel,
        plan: ArtifactPlan,
        stored: Callable[[str], PackedLinear],
        order: Callable[[int], Tensor],
        *,
        fixed_codes: bool = False,
    ) -> None:
        super().__init__()
        self.rotated, self.plan, self._tree = model, plan, model.tree
        self._linears = nn.ModuleDict()
        self._checkpointing = False

        ends = (self._tree.embed.role, self._tree.head.role)

        def add(name: str, weights: Tensor) -> None:
            packed = stored(name)
            made = (
                FixedLinear(packed, learns=name not in ends)
                if fixed_codes
                else LearningLinear(weights, packed)
            )
            self._linears[_key(name)] = made

        add(self._tree.embed.role, model.embedding())
        for number, layer in enumerate(self._tree.layers):
            block = model.online.get(layer.gated.groups[1].place, 0)
            weights = arranged(model.block_weights(number, online=False), layer.gated, order(number), block)
            for linear in layer.linears:
                add(layer_name(number, linear.role), weights[linear.role])
            for norm in layer.kept_norms:
                name = layer_name(number, norm.role)
                self.register_buffer(_key(name), model.gain(name), persistent=False)
        if not self._tree.tied:
            add(self._tree.head.role, model.head())

    @property
    def source(self) -> Checkpoint:
        """The checkpoint that it began as."""
        return self.rotated.checkpoint

    def linear(self, name: str) -> LearningLinear | FixedLinear:
        """One of the linears that `plan` names."""
        found = self._linears[_key(name)]
        assert isinstance(found, LearningLinear | FixedLinear)
        return found

    def activation_checkpointing_enable(self, **unused: Any) -> None:
        """Computes activations and real weights of every layer twice, to save memory. Called by the Trainer;
        its arguments are for other ways to do so."""
        self._checkpointing = True

    # What earlier versions of transformers call.
    gradient_checkpointing_enable = activation_checkpointing_enable

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None, **unused: Any) -> Output:
        """Logits of int64 [B, T], documents beginning where `position_ids` are 0. What else transformers'
        models are told, for caches and hidden states, is not needed."""
        tree = self._tree
        table = self.linear(tree.embed.role)()
        x = self.rotated.stream(F.embedding(input_ids, table))
        for number in range(len(tree.layers)):
            if self._checkpointing and self.training:
                x = checkpoint(self._layer, x, number, position_ids, use_reentrant=False)
            else:
                x = self._layer(x, number, position_ids)
        head = table if tree.tied else self.linear(tree.head.role)()
        seen = rounded_straight(self.rotated.head_input(x), self.plan.linears[tree.head.role].planes)
        return Output(finished(F.linear(seen, head), tree))

    def _layer(self, x: Tensor, number: int, positions: Tensor | None) -> Tensor:
        layer, weights = self._tree.layers[number], {}
        for linear in layer.linears:
            module = self.linear(layer_name(number, linear.role))
            weights[linear.role] = module()
            if module.bias is not None:
                weights[linear.role + ".bias"] = module.bias
        for norm in layer.kept_norms:
            weights[norm.role] = self.get_buffer(_key(layer_name(number, norm.role)))
        past_cache = large_key_bias(layer.attends, weights.get(layer.attends.k.role + ".bias"))
        return block_forward(
            weights,
            x,
            self._tree,
            number,
            rounding_taps(self._tree, number, self._planes, self.plan.online, rounded_straight),
            attend=partial(int8_attention, past_cache=past_cache, positions=positions),
            positions=positions,
        )

    def _planes(self, name: str) -> int:
        return self.plan.linears[name].planes


def _key(name: str) -> str:
    """The name of a linear as PyTorch can have it."""
    return name.replace(".", "_")
