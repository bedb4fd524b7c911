"""What an artifact's tensor file holds, tensor by tensor, for a model and its bands.

The writer lays the file out by it, the reader checks the file against it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from rockledge import tensor_file
from rockledge.formats.bands import TABLES, Band, aligned, stream_bytes, table_widths
from rockledge.formats.hadamard import Rotation
from rockledge.model.block import decoder, layer_name
from rockledge.model.config import ModelConfig

VERSION = 1
TENSORS = "model.safetensors"
CONFIG = "config.json"
RECIPE = "recipe.yaml"
REPORT = "report.json"
REPORT_TEXT = "report.md"
PICTURE = "widths.png"

# May be read and rewritten by people without harm to the model.
UNCHECKED = (RECIPE, REPORT, REPORT_TEXT, PICTURE)
META = "rockledge"
HEADER_SUM = "rockledge_header_sha256"
NO_SUM = "0" * 64
CHUNK = 16 << 20
_DOWN = "ffn.down"
NUMPY: dict[str, type[np.generic]] = {"U8": np.uint8, "I8": np.int8, "F32": np.float32}


@dataclass(frozen=True)
class LinearSpec:
    """How one linear is stored; `planes` (1 or 2) is how many int8 planes its input takes."""

    rows: int
    cols: int
    bands: tuple[Band, ...]
    planes: int = 1
    bias: bool = False


@dataclass(frozen=True)
class ArtifactPlan:
    """All that is known before the first tensor is written.

    `linears` and `arrays` (other fp32 tensors and their shapes) are in the order of the file. `parameters`
    counts the checkpoint's numbers, a tied matrix once. `files` are the small files that belong to the model
    (tokenizer.json, generation_config.json, chat_template.jinja); config.json is made from `config`.
    `online`: the block of the Hadamard transform that the runtime applies to an input, by place ("ffn.down").
    """

    config: ModelConfig
    linears: Mapping[str, LinearSpec]
    parameters: int
    arrays: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rotation: Rotation | None = None
    online: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    recipe: str | None = None

    @property
    def rotation_shape(self) -> tuple[int, int] | None:
        """(block, odd) of the rotation, None without one."""
        return None if self.rotation is None else (self.rotation.block, self.rotation.odd)


@dataclass(frozen=True)
class Stored:
    """One tensor before padding: its name in the file, dtype and logical shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def flat(self) -> int:
        """Elements in the file, padding included."""
        item = tensor_file.ITEM_BYTES[self.dtype]
        return aligned(prod(self.shape) * item) // item


def _stored_linear(name: str, linear: LinearSpec) -> Iterator[Stored]:
    codes, index = stream_bytes(linear.bands, linear.cols)
    widths = len(table_widths(linear.bands))
    yield Stored(f"{name}.codes", "U8", (codes,))
    if widths:
        yield Stored(f"{name}.index", "U8", (index,))
        yield Stored(f"{name}.tables", "I8", (widths, TABLES, 16))
    yield Stored(f"{name}.scale", "F32", (linear.rows,))
    if linear.bias:
        yield Stored(f"{name}.bias", "F32", (linear.rows,))


def stored_tensors_of(
    linears: Mapping[str, LinearSpec], arrays: Mapping[str, tuple[int, ...]], rotation: tuple[int, int] | None
) -> list[Stored]:
    """Every tensor of the file, in order; `rotation` is (block, odd)."""
    tensors = [stored for name, linear in linears.items() for stored in _stored_linear(name, linear)]
    tensors += [Stored(name, "F32", shape) for name, shape in arrays.items()]
    if rotation is not None:
        block, odd = rotation
        tensors += [
            Stored("rotation.signs", "F32", (block * odd,)),
            Stored("rotation.mix", "F32", (odd, odd)),
        ]
    return tensors


def packed_size(plan: ArtifactPlan) -> int:
    """Bytes of all tensors of an artifact before it is written: what bits_per_weight counts."""
    stored = stored_tensors_of(plan.linears, plan.arrays, plan.rotation_shape)
    return sum(tensor.flat * tensor_file.ITEM_BYTES[tensor.dtype] for tensor in stored)


def contradiction(
    config: ModelConfig,
    linears: Mapping[str, LinearSpec],
    arrays: Mapping[str, tuple[int, ...]],
    rotation: tuple[int, int] | None,
    online: Mapping[str, int],
) -> str | None:
    """What contradicts the model's configuration, in a few words, or None."""
    tree = decoder(config)
    matrices = dict(tree.linears())
    if odd := set(matrices) ^ set(linears):
        return f"{min(odd)!r} is stored but not part of the model, or the other way round"
    for name, spec in linears.items():
        rows, cols, bias = matrices[name].rows, matrices[name].cols, matrices[name].bias
        if (rows, cols, bias) != (spec.rows, spec.cols, spec.bias):
            return f"linear {name!r} has {spec.rows} x {spec.cols} numbers where the model has {(rows, cols)}"
        if spec.planes not in (1, 2):
            return f"linear {name!r} takes {spec.planes} activation planes instead of 1 or 2"
    for number, layer in enumerate(tree.layers):
        for group in layer.groups:
            first, *others = (layer_name(number, linear.role) for linear in group.linears)
            for name in others:
                if linears[name].planes != linears[first].planes:
                    return f"linear {name!r} and {first!r} take one input in different planes"
    gains = {name: (norm.size,) for name, norm in tree.kept_norms()}
    if dict(arrays) != gains:
        return f"the norm gains are {sorted(arrays)} where the model keeps {sorted(gains)}"
    if rotation is not None and (
        rotation[0] * rotation[1] != config.hidden or rotation[0] & (rotation[0] - 1)
    ):
        return f"a rotation of {rotation[1]} blocks of {rotation[0]} does not turn {config.hidden} channels"
    widths = {group.place: group.first.cols for layer in tree.layers for group in layer.groups}
    for place, block in online.items():
        if place not in widths:
            return f"an input is turned at {place!r}, which the model does not have"
        if block < 1 or block & (block - 1) or widths[place] % block:
            return f"a Hadamard block of {block} does not divide the {widths[place]} channels of {place!r}"
    return None


def described_online(online: Mapping[str, int]) -> dict[str, Any]:
    """Entries of the header that say which inputs are turned; `online_of` gives the mapping back.

    The input of down has a key of its own, which artifacts had before any other input could be turned.
    """
    others = {place: block for place, block in online.items() if place != _DOWN}
    return {"ffn_block": online.get(_DOWN, 0), **({"online_blocks": others} if others else {})}


def online_of(described: Mapping[str, Any]) -> dict[str, int]:
    """The blocks of a header's entries by place. Raises KeyError, TypeError and ValueError."""
    blocks = {_DOWN: described["ffn_block"], **described.get("online_blocks", {})}
    if not all(tensor_file.whole(block) for block in blocks.values()):
        raise ValueError(f"{blocks!r} are not whole numbers")
    return {place: block for place, block in blocks.items() if block}


def header_sum(raw: bytes, stated: str) -> str:
    """SHA-256 of the header with zeros in the place of the checksum it states."""
    return hashlib.sha256(raw.replace(stated.encode(), NO_SUM.encode())).hexdigest()
