"""Models moved off any grid: the same function, other weights.

The packaged models are 4-bit files, and a quantiser that lands on their grid looks lossless. Here every
channel between two matrices is multiplied on one side and divided on the other by its own random c,
log-uniform in [0.7, 1.4]: between a norm's gain and the linears after it, V and O (one c for all query
heads that share a key/value head), up and down. Shapes, ties and outliers stay, and the logits up to float32
rounding. A matrix that is both embedding and head has nothing in between and is not moved.

The model is written twice from the same float32 numbers: as a Hugging Face directory for us, as a GGUF for
llama.cpp with the source's own tokenizer metadata.
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from safetensors.numpy import save_file

from bench.models import UnavailableError
from rockledge.model.block import decoder
from rockledge.model.checkpoint import Checkpoint
from rockledge.model.config import ModelConfig
from rockledge.model.family import FAMILIES, stored_tensors
from rockledge.model.hf_config import config_to_hf

LOWEST, HIGHEST = 0.7, 1.4
SEED = 1
_SHARD_BYTES = 1 << 30

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OffGrid:
    """A checkpoint seen through the random rescaling; tensors are computed afresh at every call.

    `retie` joins the two roundings of one matrix that a packaged file of a tied model may hold: the head's,
    which is the finer one, is taken for both.
    """

    source: Checkpoint
    seed: int = SEED
    retie: bool = False

    @property
    def path(self) -> Path:
        """Where the source is."""
        return self.source.path

    @property
    def config(self) -> ModelConfig:
        """The source's, tied if asked for."""
        return replace(self.source.config, tied=True) if self.retie else self.source.config

    @property
    def stored(self) -> str:
        """For people."""
        return f"{self.source.stored}, moved off the grid"

    @property
    def notes(self) -> tuple[str, ...]:
        """The source's."""
        return self.source.notes

    def names(self) -> list[str]:
        """Every tensor."""
        return [tensor.name for tensor in stored_tensors(self.config)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self.source.shape(name)

    def tensor(self, name: str) -> Float32:
        """One tensor, rescaled in float64 and rounded once."""
        twin = self.retie and name == "embed" and not self.source.config.tied
        values = self.source.tensor("head" if twin else name).astype(np.float64)
        rows, columns = self._factors(name)
        if rows is not None:
            values *= rows if values.ndim == 1 else rows[:, None]
        if columns is not None:
            values /= columns
        return np.ascontiguousarray(values, dtype=np.float32)

    def files(self) -> dict[str, bytes]:
        """The source's, with the configuration as it is here."""
        return {
            **self.source.files(),
            "config.json": json.dumps(config_to_hf(self.config), indent=2).encode(),
        }

    def _factors(self, name: str) -> tuple[Float64 | None, Float64 | None]:
        """What the outputs (or a norm's gains) are multiplied by, and what the inputs are divided by."""
        prefix, role = _split(name)
        tree = decoder(self.config)
        layer = tree.layers[0]
        attention, gated = layer.attends, layer.gated
        if role == attention.out.role:
            return None, self._shared(self._draw(prefix + attention.v.role, attention.v.rows))
        if role == gated.down.role:
            return None, self._draw(prefix + gated.up.role, gated.up.rows)
        feeding = {} if tree.tied else {tree.head.role: tree.final_norm.role}
        for branch in layer.branches:
            if branch.before is not None:
                feeding |= {linear.role: branch.before.role for linear in branch.body.groups[0].linears}
        norm = feeding.get(role)
        columns = None if norm is None else self._draw(prefix + norm, self.config.hidden)
        above = (attention.v.role, gated.up.role, *feeding.values())
        moved = role.removesuffix(".bias") in above
        rows = self._draw(name.removesuffix(".bias"), self.shape(name)[0]) if moved else None
        return rows, columns

    def _draw(self, channel: str, size: int) -> Float64:
        random = np.random.default_rng([self.seed, *channel.encode()])
        return np.exp(random.uniform(np.log(LOWEST), np.log(HIGHEST), size))

    def _shared(self, of_values: Float64) -> Float64:
        """Factors of V's rows [kv heads x head_dim] as factors of O's columns [query heads x head_dim]."""
        heads = of_values.reshape(self.config.kv_heads, self.config.head_dim)
        return heads.repeat(self.config.heads // self.config.kv_heads, axis=0).reshape(-1)


def _split(name: str) -> tuple[str, str]:
    """ "layers.3.attn.q" as ("layers.3.", "attn.q"), "embed" as ("", "embed")."""
    if not name.startswith("layers."):
        return "", name
    layer, role = name.removeprefix("layers.").split(".", 1)
    return f"layers.{layer}.", role


def write_huggingface(checkpoint: Checkpoint, directory: Path) -> None:
    """The checkpoint as float32 shards of about 1 GiB with their index; appears whole or not at all."""
    partial = directory.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    where: dict[str, str] = {}
    shard: dict[str, Float32] = {}

    def flush() -> None:
        file = f"model-{len(set(where.values())) + 1:05d}.safetensors"
        save_file(shard, partial / file, metadata={"format": "pt"})
        where.update(dict.fromkeys(shard, file))
        shard.clear()

    for tensor in stored_tensors(checkpoint.config):
        values = checkpoint.tensor(tensor.name) - np.float32(tensor.hf_offset)
        before = [shard[tensor.hf]] if tensor.in_hf.first else []  # parts of one tensor follow each other
        shard[tensor.hf] = np.concatenate((*before, values))
        whole = tensor.in_hf.first + tensor.shape[0] == tensor.in_hf.rows
        if whole and sum(values.nbytes for values in shard.values()) >= _SHARD_BYTES:
            flush()
    if shard:
        flush()
    (partial / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    for file, content in checkpoint.files().items():
        (partial / file).write_bytes(content)
    partial.replace(directory)


def write_gguf(checkpoint: Checkpoint, source: Path, target: Path) -> None:
    """The checkpoint as a float32 GGUF with the metadata of the GGUF `source`; whole or not at all."""
    config = checkpoint.config
    if any(divisor != 1 for divisor in config.rope_divisors):
        raise UnavailableError(f"{source.name} scales its rotary embedding, which is not written here")
    reader = GGUFReader(source)
    partial = target.with_suffix(".partial")
    writer = GGUFWriter(partial, str(FAMILIES[config.family].gguf))
    _copy_metadata(reader, writer)
    tensors = list(stored_tensors(config))
    for tensor in tensors:
        size = 4 * int(np.prod(tensor.shape))
        writer.add_tensor_info(
            tensor.gguf, tensor.shape, np.dtype(np.float32), size, GGMLQuantizationType.F32
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        values = checkpoint.tensor(tensor.name)
        if tensor.rotary_heads and FAMILIES[config.family].gguf_interleaved:
            values = interleave(values, tensor.rotary_heads)
        writer.write_tensor_data(values)
    writer.close()
    partial.replace(target)


def interleave(values: Float32, heads: int) -> Float32:
    """Rows of each head from halves (0, 1, ...) to neighbouring rotary pairs (0, 0', 1, 1', ...)."""
    rest = values.shape[1:]
    return np.ascontiguousarray(values.reshape(heads, 2, -1, *rest).swapaxes(1, 2)).reshape(values.shape)


def _copy_metadata(reader: GGUFReader, writer: GGUFWriter) -> None:
    written_otherwise = ("general.architecture", "general.file_type", "general.quantization_version")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in written_otherwise:
            continue
        kind, *rest = field.types
        element = rest[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, element)
    writer.add_file_type(0)


def float_files(name: str, checkpoint: Checkpoint, folder: Path) -> tuple[Path, Path]:
    """The directory and the GGUF of a checkpoint that comes from a GGUF, made in `folder` where missing."""
    directory, gguf = folder / name, folder / f"{name}.gguf"
    if not directory.exists():
        write_huggingface(checkpoint, directory)
    if not gguf.exists():
        write_gguf(checkpoint, checkpoint.path, gguf)
    return directory, gguf
