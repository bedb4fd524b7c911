"""The families by name, and the tensors of one model. A new family is one more of `_FAMILIES`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rockledge.model.block import Linear, Norm, decoder, layer_name
from rockledge.model.config import ModelConfig
from rockledge.model.families.declaration import Family
from rockledge.model.families.gemma import GEMMA2, GEMMA3
from rockledge.model.families.granite import GRANITE, GRANITE_HYBRID, MINICPM
from rockledge.model.families.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from rockledge.model.families.ministral import MINISTRAL3
from rockledge.model.families.olmo import OLMO2
from rockledge.model.families.phi import PHI3
from rockledge.model.families.smollm import SMOLLM3

_FAMILIES = (
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    GEMMA2,
    GEMMA3,
    OLMO2,
    PHI3,
    SMOLLM3,
    MINISTRAL3,
    GRANITE,
    GRANITE_HYBRID,
    MINICPM,
)

FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _FAMILIES})


@dataclass(frozen=True)
class Stored:
    """Where a tensor is in one file format: its rows from `first` on, of the `rows` of the tensor `name`."""

    name: str
    first: int
    rows: int


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of one model: canonical name, shape, and where the two file formats keep it.

    `rotary_heads` is the number of heads whose rows (or entries) are laid out in rotary pairs, 0 for most
    tensors; `hf_offset` is added to what Hugging Face files hold.
    """

    name: str
    in_hf: Stored
    in_gguf: Stored
    shape: tuple[int, ...]
    rotary_heads: int = 0
    hf_offset: float = 0.0

    @property
    def hf(self) -> str:
        """Its name in Hugging Face files."""
        return self.in_hf.name

    @property
    def gguf(self) -> str:
        """Its name in GGUF files."""
        return self.in_gguf.name


def stored_tensors(config: ModelConfig) -> Iterator[StoredTensor]:
    """Every tensor a checkpoint of this configuration must hold, layer by layer as the forward needs it."""
    family, tree = FAMILIES[config.family], decoder(config)

    def all_of(parts: tuple[Linear | Norm, ...], layer: int | None) -> Iterator[StoredTensor]:
        rotary = {}
        if layer is not None:
            attention = tree.layers[layer].attends
            rotary = {attention.q.role: attention.heads, attention.k.role: attention.kv_heads}
        pieces = [piece for part in parts for piece in _pieces(family, part, layer)]
        rows: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for _, names, shape, _ in pieces:
            for count, name in zip(rows, names, strict=True):
                count[name] += shape[0]
        first: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for part, names, shape, suffix in pieces:
            name = part.role if layer is None else layer_name(layer, part.role)
            hf, gguf = (
                Stored(stored, before[stored], whole[stored])
                for stored, before, whole in zip(names, first, rows, strict=True)
            )
            offset = family.hf_gain_offset if isinstance(part, Norm) else 0.0
            yield StoredTensor(name + suffix, hf, gguf, shape, rotary.get(part.role, 0), offset)
            for count, stored in zip(first, names, strict=True):
                count[stored] += shape[0]

    yield from all_of((tree.embed,), None)
    for number, layer in enumerate(tree.layers):
        yield from all_of((*layer.norms, *layer.linears), number)
    yield from all_of((tree.final_norm,) if tree.tied else (tree.final_norm, tree.head), None)


def _pieces(
    family: Family, part: Linear | Norm, layer: int | None
) -> Iterator[tuple[Linear | Norm, tuple[str, str], tuple[int, ...], str]]:
    """(part, names in both formats, shape, what its canonical name ends in) of a part and its bias."""
    hf, gguf = (stored.format(i=layer) for stored in family.names[part.role])
    shape = (part.size,) if isinstance(part, Norm) else (part.rows, part.cols)
    yield part, (hf + ".weight", gguf + ".weight"), shape, ""
    if isinstance(part, Linear) and part.bias:
        yield part, (hf + ".bias", gguf + ".bias"), shape[:1], ".bias"
