"""An artifact as a plain float checkpoint: what it computes before inputs are rounded, without the transforms
that only our runtime knows.

A transform of an input at run time is multiplied into the linears that read it. The rotation of the residual
stream is taken back where the embedding is the head too, because there the last norm's gain stands between
the two; where the head is a matrix of its own the stream stays turned, which costs nothing and rounds better.
Folded gains and multipliers, balances, the order of channels and the Hadamard inside heads stay: they are
part of the weights. `conversion.folds` lists what was done, and in which order.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rockledge.artifact import Artifact
from rockledge.artifact.layout import CONFIG
from rockledge.formats.hadamard import hadamard
from rockledge.formats.packing import dequantize
from rockledge.model.block import Decoder, Layer, decoder, layer_name
from rockledge.model.config import ModelConfig

Float32 = npt.NDArray[np.float32]

_BIAS = ".bias"


@dataclass(frozen=True)
class PlainModel:
    """The artifact under canonical names, as `model.checkpoint.Checkpoint` describes it; every call of
    `tensor` makes the tensor anew.

    `untied`: a head that is the embedding becomes a matrix of its own with the last gain in it, so that the
    stream may stay turned, and codes between stay the artifact's.
    """

    artifact: Artifact
    untied: bool = False

    @cached_property
    def config(self) -> ModelConfig:
        """That of the artifact; the multiplier of branches is in the weights."""
        tied = self.artifact.config.tied and not (self.untied and not self.artifact.config.headless)
        return replace(self.artifact.config, residual_scale=1.0, tied=tied)

    @property
    def path(self) -> Path:
        """The artifact's directory."""
        return self.artifact.path

    @property
    def stored(self) -> str:
        """For people."""
        return f"artifact, {self.artifact.bits_per_weight:.2f} bits a weight"

    @property
    def notes(self) -> tuple[str, ...]:
        """None."""
        return ()

    @cached_property
    def tree(self) -> Decoder:
        """What is computed with these tensors."""
        return decoder(self.config)

    def names(self) -> list[str]:
        """Every tensor, in the order of the forward pass."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor; linears are (outputs, inputs)."""
        return self._shapes[name]

    def tensor(self, name: str) -> Float32:
        """One tensor, fp32, C-contiguous: a matrix, a bias (".bias") or a norm's gain."""
        if name not in self._matrices and name != self.tree.head.role:
            if name.endswith(_BIAS):
                return self._bias(name.removesuffix(_BIAS))
            if name in self.artifact.arrays and not (
                name == self.tree.final_norm.role and self._head_has_gain
            ):
                return np.array(self.artifact.array(name), np.float32)
            return np.ones(self._shapes[name], np.float32)  # folded into the linears after it
        return np.ascontiguousarray(self._matrix(name), np.float32)

    def files(self) -> dict[str, bytes]:
        """The model's small files but config.json: tokenizer.json and the like."""
        return {name: data for name, data in self.artifact.files.items() if name != CONFIG}

    def bits(self, name: str) -> float:
        """Bits of a code of the matrix `name`, the mean over its rows."""
        spec = self.artifact.linears[name if name in self._matrices else self.tree.embed.role]
        return sum(band.rows * band.bits for band in spec.bands) / spec.rows

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}

        def add(layer: int | None, parts: Layer | Decoder) -> None:
            def named(role: str) -> str:
                return role if layer is None else layer_name(layer, role)

            if isinstance(parts, Layer):
                found.update({named(norm.role): (norm.size,) for norm in parts.norms})
                linears = parts.linears
            else:
                linears = (parts.embed,) if parts.tied else (parts.embed, parts.head)
                found[parts.final_norm.role] = (parts.final_norm.size,)
            for linear in linears:
                found[named(linear.role)] = (linear.rows, linear.cols)
                if linear.bias:
                    found[named(linear.role) + _BIAS] = (linear.rows,)

        for number, layer in enumerate(self.tree.layers):
            add(number, layer)
        add(None, self.tree)
        return found

    @cached_property
    def _matrices(self) -> frozenset[str]:
        return frozenset(self.artifact.linears)

    @property
    def _stream_is_turned_back(self) -> bool:
        """Whether the layers' matrices are turned back too, not only those at the ends of the stream."""
        return self.artifact.rotation is not None and self.tree.residual_turns and self.tree.tied

    @property
    def _ends_agree(self) -> bool:
        """Whether embedding and head stay as they are stored: with a head of its own both ends of a turned
        stream agree."""
        return self.artifact.rotation is None or (self.tree.residual_turns and not self.tree.tied)

    @property
    def _head_has_gain(self) -> bool:
        """Whether the last norm's gain is multiplied into a head that was the embedding."""
        return self.artifact.config.tied and not self.tree.tied and self.tree.residual_turns

    def keeps_codes(self, name: str) -> bool:
        """Whether the matrix `name` is the artifact's codes times its row scales."""
        if not name.startswith("layers."):
            return name in self._matrices and self._ends_agree
        _, number, role = name.split(".", 2)
        return not self._stream_is_turned_back and not any(
            self.artifact.online.get(group.place, 0)
            for group in self.tree.layers[int(number)].groups
            if role in {linear.role for linear in group.linears}
        )

    def _head_of_embedding(self) -> Float32:
        values, rotation = dequantize(self.artifact.linear(self.tree.embed.role)), self.artifact.rotation
        plain = values if rotation is None else rotation.inverse(values)
        if not self._head_has_gain:
            return plain
        plain = plain * self.artifact.array(self.tree.final_norm.role)
        return plain if rotation is None else rotation.forward(plain)

    def _matrix(self, name: str) -> Float32:
        if name not in self._matrices:
            return self._head_of_embedding()
        values, rotation = dequantize(self.artifact.linear(name)), self.artifact.rotation
        if not name.startswith("layers."):
            return values if rotation is None or self._ends_agree else rotation.inverse(values)
        _, number, role = name.split(".", 2)
        for branch in self.tree.layers[int(number)].branches:
            reads, last = branch.body.groups
            for group in (reads, last):
                if role in {linear.role for linear in group.linears} and (
                    block := self.artifact.online.get(group.place)
                ):
                    values = hadamard(values, block)
            if self._stream_is_turned_back:
                assert rotation is not None
                if role in {linear.role for linear in reads.linears}:
                    values = rotation.inverse(values)
                elif role == last.first.role:
                    values = np.ascontiguousarray(rotation.inverse(np.ascontiguousarray(values.T)).T)
        return values

    def _bias(self, linear: str) -> Float32:
        bias = self.artifact.linear(linear).bias
        assert bias is not None
        values = np.array(bias, np.float32)
        if self._stream_is_turned_back:
            _, number, role = linear.split(".", 2)
            written = {branch.body.groups[1].first.role for branch in self.tree.layers[int(number)].branches}
            if role in written:
                assert self.artifact.rotation is not None
                values = self.artifact.rotation.inverse(values)
        return values
