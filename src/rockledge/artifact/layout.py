"""What an artifact's tensor file holds, tensor by tensor, for a model and its bands.

The writer lays the file out by it, the reader checks the file against it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from rockledge import tensor_file
from rockledge.formats.bands import TABLES, Band, aligned, stream_bytes, table_widths
from rockledge.formats.hadamard import Rotation
from rockledge.model.config import ModelConfig
from rockledge.model.family import stored_tensors

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
_SHARED = {"k": "q", "v": "q", "up": "gate"}  # linears that are given the same quantised input
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
    """

    config: ModelConfig
    linears: Mapping[str, LinearSpec]
    parameters: int
    arrays: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rotation: Rotation | None = None
    ffn_block: int = 0
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
    ffn_block: int,
) -> str | None:
    """What contradicts the model's configuration, in a few words, or None."""
    shapes = {tensor.name: tensor.shape for tensor in stored_tensors(config)}
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    if odd := set(matrices) ^ set(linears):
        return f"{min(odd)!r} is stored but not part of the model, or the other way round"
    for name, spec in linears.items():
        if matrices[name] != (spec.rows, spec.cols) or spec.bias != (f"{name}.bias" in shapes):
            return (
                f"linear {name!r} has {spec.rows} x {spec.cols} numbers where the model has {matrices[name]}"
            )
        if spec.planes not in (1, 2):
            return f"linear {name!r} takes {spec.planes} activation planes instead of 1 or 2"
    for name, spec in linears.items():
        layer, _, role = name.rpartition(".")
        if role in _SHARED and spec.planes != linears[f"{layer}.{_SHARED[role]}"].planes:
            return f"linear {name!r} and {_SHARED[role]} take one input in different planes"
    gains = {
        name: shape
        for name, shape in shapes.items()
        if name.endswith("_norm") and (name != "final_norm" or config.tied)
    }
    if dict(arrays) != gains:
        return f"the norm gains are {sorted(arrays)} where the model keeps {sorted(gains)}"
    if rotation is not None and (
        rotation[0] * rotation[1] != config.hidden or rotation[0] & (rotation[0] - 1)
    ):
        return f"a rotation of {rotation[1]} blocks of {rotation[0]} does not turn {config.hidden} channels"
    if ffn_block and (ffn_block & (ffn_block - 1) or config.ffn % ffn_block):
        return f"a Hadamard block of {ffn_block} does not divide {config.ffn} feed-forward channels"
    return None


def header_sum(raw: bytes, stated: str) -> str:
    """SHA-256 of the header with zeros in the place of the checksum it states."""
    return hashlib.sha256(raw.replace(stated.encode(), NO_SUM.encode())).hexdigest()
