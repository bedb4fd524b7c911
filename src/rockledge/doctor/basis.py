"""The reference's weights in the basis that the artifact is stored in: what every stored matrix would be
without rounding.

The basis is found, not believed: recipe and description of a damaged artifact may be what is wrong. The
rotation is tried on rows of the embedding; whether channels were balanced, and before which inputs the
weights expect a Hadamard, on a few layers; the order of feed-forward channels is found by matching rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
import yaml
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rockledge.artifact import Artifact
from rockledge.doctor.likeness import likeness
from rockledge.doctor.specification import Specification, own_rotation
from rockledge.errors import UsageError
from rockledge.formats.hadamard import FFN_BLOCK_LIMIT, Rotation, power_of_two_block, random_rotation
from rockledge.formats.packing import dequantize
from rockledge.model.block import decoder
from rockledge.model.checkpoint import Checkpoint
from rockledge.quantization.steps import Steps
from rockledge.quantization.transforming.hadamard import hadamard, rotate
from rockledge.quantization.transforming.order import arranged
from rockledge.quantization.transforming.rotate import RotatedModel

ALIKE = 0.5
"""Least typical correlation of a stored matrix with its original: two bits a weight give 0.96, two unrelated
matrices almost 0."""
_SAMPLED = 256  # rows of the embedding that rotations are tried on
_PROJECTED = 256  # columns that rows are matched by
_SAME_LENGTH = 0.9  # correlation of the lengths of rows, which no rotation changes


@dataclass(frozen=True)
class Basis:
    """`model`: the reference, turned as the artifact's weights are. `down`: the Hadamard block that the
    stored columns of down expect of their input."""

    model: RotatedModel
    down: int

    @property
    def online(self) -> Mapping[str, int]:
        """Hadamard blocks that the stored weights expect of inputs, by place."""
        place = decoder(self.model.config).layers[0].ordered.place
        others = {name: block for name, block in self.model.online.items() if name != place}
        return {**others, **({place: self.down} if self.down else {})}

    def embedding(self) -> Tensor:
        """fp32 [vocab, hidden]."""
        return self.model.embedding()

    def head(self) -> Tensor:
        """fp32 [vocab, hidden]."""
        return self.model.head()

    def layer(self, number: int, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights, biases and kept gains of a layer by role, fp32, with feed-forward channels in the order of
        those that are `stored`."""
        plain, gated = self.model.block_weights(number, online=False), self.model.tree.layers[number].gated
        order = channel_order([(stored[one.role], plain[one.role]) for one in (gated.gate, gated.up)])
        return arranged(plain, gated, order, self.down)


def channel_order(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The permutation int64 [N] for which `original[order]` is most like `stored`, for all `pairs` of
    (stored, original) fp32 [N, K] together; the identity where that fits.

    A row scores by -log(1 - c^2) of its correlation c with another, the logarithm of what it explains:
    a row that fits outweighs chance in a matrix that is not like its original."""
    if max(likeness(stored, original).typical for stored, original in pairs) > ALIKE:
        return torch.arange(len(pairs[0][0]))
    generator = torch.Generator().manual_seed(0)
    scores: Tensor | float = 0.0
    for stored, original in pairs:
        directions = torch.eye(stored.shape[1])
        if stored.shape[1] > _PROJECTED:
            directions = torch.randn(stored.shape[1], _PROJECTED, generator=generator)
        ours, theirs = (torch.nn.functional.normalize(one @ directions, dim=-1) for one in (stored, original))
        alike = (ours.nan_to_num(0.0) @ theirs.T).clamp(0.0, 1.0)
        scores = scores - torch.log1p(1e-6 - alike * alike)
    assert isinstance(scores, Tensor)
    best = scores.argmax(dim=1)
    if len(best.unique()) == len(best):
        return best
    _, assigned = linear_sum_assignment(scores.numpy(), maximize=True)
    return torch.from_numpy(assigned)


def find_basis(artifact: Artifact, checkpoint: Checkpoint) -> Basis:
    """The basis of an artifact that was made from `checkpoint`. UsageError where it was not."""
    rotation = _rotation(artifact, checkpoint)
    place = decoder(checkpoint.config).layers[0].ordered.place
    own = artifact.online.get(place, 0)
    widest = power_of_two_block(checkpoint.config.ffn, FFN_BLOCK_LIMIT)
    looked = sorted({0, checkpoint.config.layers // 2, checkpoint.config.layers - 1})
    layers = [_Layer.of(artifact, number) for number in looked]
    models = [
        RotatedModel(
            checkpoint,
            rotation,
            torch.device("cpu"),
            Steps(rotate="none" if rotation is None else "hadamard", balance=balance),
        )
        for balance in (True, False)
    ]
    model = max(models, key=lambda one: sum(layer.agrees(one) for layer in layers))
    votes = [one.best_block(model, [own, widest, 0]) for one in layers]
    down = max(dict.fromkeys([own, *votes]), key=votes.count)  # its own where others are no more likely
    return Basis(replace(model, steps=replace(model.steps, down_hadamard=bool(down))), down)


def rotations(artifact: Artifact, config_hidden: int) -> Iterator[Rotation | None]:
    """What the weights may be turned by: what the artifact says first, then what its recipe says, or
    nothing."""
    own = own_rotation(artifact)
    yield own
    yield random_rotation(config_hidden, _seed(artifact.recipe))
    if own is not None:
        yield None


def _rotation(artifact: Artifact, checkpoint: Checkpoint) -> Rotation | None:
    """The first rotation that makes the reference's embedding the stored one. UsageError if none does and
    the rows are of other lengths too, which no rotation changes."""
    tree = decoder(checkpoint.config)
    packed = artifact.linear(tree.embed.role)
    stored = torch.from_numpy(dequantize(packed))
    original = torch.from_numpy(checkpoint.tensor(tree.embed.role))
    picked = torch.linspace(0, len(original) - 1, min(_SAMPLED, len(original))).long()
    stored, original = stored[picked], original[picked]
    for rotation in rotations(artifact, tree.hidden):
        if likeness(stored, rotate(original, rotation)).typical > ALIKE:
            return rotation
    lengths = torch.stack([one.square().sum(-1).sqrt() for one in (stored, original)])
    if float(torch.corrcoef(lengths)[0, 1]) < _SAME_LENGTH:
        raise UsageError(
            f"the embedding of {artifact.path} is not that of {checkpoint.path}, turned or not; "
            "give the checkpoint that the artifact was made from"
        )
    return own_rotation(artifact)


def _seed(recipe: str | None) -> int:
    """The seed that a recipe names, 0 where it names none: that of conversions."""
    try:
        content = yaml.safe_load(recipe or "")
        return int(content.get("seed", 0))
    except (yaml.YAMLError, AttributeError, TypeError, ValueError):
        return 0


@dataclass(frozen=True)
class _Layer:
    """A layer as it is stored."""

    number: int
    stored: Mapping[str, Tensor]

    @classmethod
    def of(cls, artifact: Artifact, number: int) -> "_Layer":
        return cls(number, Specification.of(artifact).layer_weights(number))

    def agrees(self, model: RotatedModel) -> float:
        """Correlation of the matrices that balancing changes with those of `model`."""
        weights, attention = model.block_weights(self.number, online=False), model.tree.layers[0].attends
        roles = [one.role for one in (attention.q, attention.k, attention.v, attention.out)]
        return sum(likeness(self.stored[role], weights[role]).typical for role in roles)

    def best_block(self, model: RotatedModel, blocks: list[int]) -> int:
        """The block of the Hadamard with which the columns of down are stored; the first where none fits."""
        weights, gated = model.block_weights(self.number, online=False), model.tree.layers[0].gated
        pairs = [(self.stored[one.role], weights[one.role]) for one in (gated.gate, gated.up)]
        down = weights[gated.down.role][:, channel_order(pairs)].contiguous()
        stored = self.stored[gated.down.role]
        likely = {block: likeness(stored, hadamard(down, block)).typical for block in blocks}
        best = max(likely, key=lambda block: likely[block])
        return best if likely[best] > ALIKE else blocks[0]
