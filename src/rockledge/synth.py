"""Random models of a given shape, as checkpoint or artifact: for tests and for measuring cost and speed."""

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rockledge import tensor_file
from rockledge.artifact import ArtifactPlan, ArtifactWriter, LinearSpec
from rockledge.artifact.publish import publish_directory, write_file, writing
from rockledge.errors import ArtifactError, UsageError, did_you_mean
from rockledge.formats.bands import STRIP, Band, spans, stream_bytes, strips, table_widths
from rockledge.formats.hadamard import FFN_BLOCK_LIMIT, power_of_two_block, random_rotation
from rockledge.formats.packing import PackedLinear, pack_codes, pack_index
from rockledge.formats.table import Int8, padded_tables
from rockledge.model.block import Decoder, decoder
from rockledge.model.config import ModelConfig
from rockledge.model.family import StoredTensor, stored_tensors
from rockledge.model.hf_config import config_to_hf
from rockledge.model.rope import rope_divisors

BOS, EOS = 1, 2  # of every synthetic model
_SPECIAL = ("<|pad|>", "<|begin|>", "<|end|>")
_CHAT = (
    "{% for message in messages %}<|begin|>{{ message.role }}\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
_POOL_ROWS = 2048  # rows that are really random; a taller band repeats their bytes
_CHUNK = 1 << 22  # numbers drawn at a time


def _shape(
    hidden: int, layers: int, heads: tuple[int, int, int], ffn: int, vocab: int, theta: float, context: int
) -> ModelConfig:
    query, kv, head_dim = heads
    return ModelConfig(
        family="llama",
        hidden=hidden,
        layers=layers,
        heads=query,
        kv_heads=kv,
        head_dim=head_dim,
        ffn=ffn,
        vocab=vocab,
        norm_eps=1e-5,
        rope_theta=theta,
        rope_divisors=(1.0,) * (head_dim // 2),
        tied=True,
        context=context,
        qkv_bias=False,
        qk_norm=False,
        bos=BOS,
        eos=(EOS,),
    )


def _llama3(config: ModelConfig, factor: float) -> ModelConfig:
    """The same with Llama 3.1's stretched rotary wavelengths."""
    scaling = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    return replace(config, rope_divisors=rope_divisors(scaling, config.head_dim, config.rope_theta))


# toy has an odd number of Hadamard blocks and ragged strips and tiles, so that tests cover every edge; the
# others are the sizes of SmolLM2-135M, Llama-3.2-1B and -3B, and Llama-3.1-8B.
SHAPES: dict[str, ModelConfig] = {
    "toy": _shape(96, 2, (6, 2, 16), 208, 300, 10000.0, 512),
    "135m": _shape(576, 30, (9, 3, 64), 1536, 49152, 100000.0, 8192),
    "1b": _llama3(_shape(2048, 16, (32, 8, 64), 8192, 128256, 500000.0, 131072), 32.0),
    "3b": _llama3(_shape(3072, 28, (24, 8, 128), 8192, 128256, 500000.0, 131072), 32.0),
    "8b": replace(_llama3(_shape(4096, 32, (32, 8, 128), 14336, 128256, 500000.0, 131072), 8.0), tied=False),
}


def shape_config(shape: str | ModelConfig) -> ModelConfig:
    """The configuration of a named shape; a configuration is returned as it is."""
    if isinstance(shape, ModelConfig):
        return shape
    if shape not in SHAPES:
        raise UsageError(
            f"there is no shape {shape!r}, expected one of {', '.join(SHAPES)}{did_you_mean(shape, SHAPES)}"
        )
    return SHAPES[shape]


def model_files(config: ModelConfig) -> dict[str, bytes]:
    """Tokenizer (bytes, then filler words up to the vocabulary), chat template and generation settings."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if config.vocab < len(_SPECIAL) + len(alphabet):
        raise UsageError(
            f"a vocabulary of {config.vocab} has no room for 256 bytes and {len(_SPECIAL)} special tokens"
        )
    words = [*_SPECIAL, *alphabet]
    words += [f"word{number}" for number in range(config.vocab - len(words))]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in _SPECIAL])
    settings = {"bos_token": _SPECIAL[BOS], "eos_token": _SPECIAL[EOS], "add_bos_token": False}
    generation = {"bos_token_id": config.bos, "eos_token_id": list(config.eos)}
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings, indent=2).encode(),
        "generation_config.json": json.dumps(generation, indent=2).encode(),
        "chat_template.jinja": _CHAT.encode(),
    }


def _cycled(rows: int, block: int, widths: tuple[int, ...]) -> tuple[Band, ...]:
    starts = range(0, rows, block)
    return tuple(
        Band(start, min(block, rows - start), widths[i % len(widths)]) for i, start in enumerate(starts)
    )


def _bands(tree: Decoder, bits: int | None) -> dict[str, tuple[Band, ...]]:
    """By linear: one width everywhere, or (bits None) a mixture of all widths by heads and blocks of
    channels."""
    if bits is not None:
        return {name: (Band(0, linear.rows, bits),) for name, linear in tree.linears()}
    bands: dict[str, tuple[Band, ...]] = {}
    attention = tree.layers[0].attends
    for name, linear in tree.linears():
        if linear.banding == "head":
            bands[name] = _cycled(linear.rows, attention.head_dim, (8, 4, 3, 2))
        elif linear.banding == "block" and linear not in (tree.embed, tree.head):
            bands[name] = _cycled(linear.rows, 128, (4, 3))
        else:
            bands[name] = (Band(0, linear.rows, 8 if linear == attention.out else 4),)
    return bands


def _online(tree: Decoder) -> dict[str, int]:
    """Blocks of the inputs that are turned at run time: down's, and those of normed inputs where the residual
    stream cannot be turned in the weights."""
    layer = tree.layers[0]
    turned = [layer.gated.groups[1]]
    if not tree.residual_turns:
        turned += [branch.body.groups[0] for branch in layer.branches]
    return {group.place: power_of_two_block(group.first.cols, FFN_BLOCK_LIMIT) for group in turned}


def _tables(bits: int, generator: np.random.Generator) -> Int8:
    """Sixteen plausible tables int8 [16, 2^bits]: evenly spaced levels times rising multipliers, shaken."""
    levels = np.linspace(-1.0, 1.0, 1 << bits)
    multipliers = np.linspace(0.4, 1.0, 16)
    shaken = np.outer(multipliers, levels) * 120 + generator.uniform(-7, 7, (16, 1 << bits))
    return np.rint(shaken).astype(np.int8)


def _random_band(band: Band, cols: int, generator: np.random.Generator) -> tuple[npt.NDArray[np.uint8], ...]:
    """Streams (codes, index) of a band; beyond 2048 rows the strips repeat, so that 8B costs seconds."""

    def streams(rows: int) -> tuple[npt.NDArray[np.uint8], ...]:
        low = 1 if band.bits == 8 else 0  # shifted below: -128 is not a weight
        codes = generator.integers(low, 1 << band.bits, (rows, cols), dtype=np.uint8)
        if band.bits == 8:
            codes ^= 0x80
        index = generator.integers(0, 16, (rows, -(-cols // 16)), dtype=np.uint8)
        return pack_codes(codes, band.bits), pack_index(index, cols)

    if band.rows <= _POOL_ROWS:
        return streams(band.rows)
    count = strips(band.rows)
    filled = [
        np.resize(pool.reshape(_POOL_ROWS // STRIP, -1), (count, pool.size * STRIP // _POOL_ROWS))
        for pool in streams(_POOL_ROWS)
    ]
    if band.rows % STRIP:  # the rows that fill up the last strip are zeros
        for stream, last in zip(filled, streams(band.rows % STRIP), strict=True):
            stream[-1] = last
    return tuple(stream.reshape(-1) for stream in filled)


def _random_linear(spec: LinearSpec, output_rms: float, generator: np.random.Generator) -> PackedLinear:
    """Random codes with scales such that an input of rms 1 gives outputs of about `output_rms`."""
    codes_bytes, index_bytes = stream_bytes(spec.bands, spec.cols)
    codes, index = np.zeros(codes_bytes, np.uint8), np.zeros(index_bytes, np.uint8)
    tables = {bits: _tables(bits, generator) for bits in table_widths(spec.bands)}
    scale = np.empty(spec.rows, np.float32)
    for band, span in zip(spec.bands, spans(spec.bands, spec.cols), strict=True):
        band_codes, band_index = _random_band(band, spec.cols, generator)
        codes[span.codes : span.codes + span.codes_bytes] = band_codes
        index[span.index : span.index + span.index_bytes] = band_index[: span.index_bytes]
        values = tables[band.bits] if band.bits < 8 else np.arange(-127, 128)
        rms = np.sqrt(np.mean(np.square(values.astype(np.float64))))
        shaken = generator.uniform(0.8, 1.2, band.rows)
        scale[band.start : band.start + band.rows] = shaken * output_rms / (rms * np.sqrt(spec.cols))
    stored = [padded_tables(table) for table in tables.values()]
    return PackedLinear(
        rows=spec.rows,
        cols=spec.cols,
        bands=spec.bands,
        codes=codes,
        index=index,
        tables=np.stack(stored) if stored else np.zeros((0, 16, 16), np.int8),
        scale=scale,
        bias=generator.normal(0.0, 0.1, spec.rows).astype(np.float32) if spec.bias else None,
    )


def synth_artifact(
    shape: str | ModelConfig,
    path: str | Path,
    *,
    bits: int | None = None,
    rotate: bool = True,
    two_planes: Collection[str] = (),
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Writes a random artifact and returns its path.

    `bits` 2, 3, 4 or 8 for every linear; None mixes all four in bands. `rotate` adds a residual rotation, and
    the online Hadamard before down. `two_planes` names roles (such as "ffn.down"; "attn.q", "attn.k" and
    "attn.v" together, since they share an input) that take two planes. Linears are written one at a
    time. `overwrite` replaces an artifact that is there.
    """
    config = shape_config(shape)
    generator = np.random.default_rng(seed)
    tree = decoder(config)
    bands = _bands(tree, bits)
    linears = {
        name: LinearSpec(
            rows=linear.rows,
            cols=linear.cols,
            bands=bands[name],
            planes=2 if linear.role in two_planes else 1,
            bias=linear.bias,
        )
        for name, linear in tree.linears()
    }
    arrays = {name: (norm.size,) for name, norm in tree.kept_norms()}
    plan = ArtifactPlan(
        config=config,
        linears=linears,
        parameters=tree.parameters,
        arrays=arrays,
        rotation=random_rotation(config.hidden, seed) if rotate else None,
        online=_online(tree) if rotate else {},
        files=model_files(config),
        recipe=f"synth:\n  shape: {shape if isinstance(shape, str) else 'given'}\n  seed: {seed}\n",
    )
    with ArtifactWriter(path, plan, overwrite=overwrite) as writer:
        for name, spec in linears.items():
            # Twice the rms that keeps a stream's size: the head's choices are then clear, but not certain.
            writer.linear(name, _random_linear(spec, 2.0 if name in ("embed", "head") else 1.0, generator))
        for name, size in arrays.items():
            writer.array(name, generator.uniform(0.7, 1.3, size).astype(np.float32))
    return Path(path)


def _bfloat16(values: npt.NDArray[np.float32]) -> bytes:
    """The upper halves of fp32 numbers, rounded to nearest even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def _random_numbers(tensor: StoredTensor, generator: np.random.Generator) -> Iterator[bytes]:
    left = prod(tensor.shape)
    while left:
        count = min(left, _CHUNK)
        if tensor.name.endswith("norm"):
            yield _bfloat16(np.full(count, 1 - tensor.hf_offset, np.float32))
        else:
            yield _bfloat16(generator.standard_normal(count, np.float32) * np.float32(0.02))
        left -= count


def _check_checkpoint_place(path: Path, names: Collection[str], overwrite: bool) -> None:
    """Only a directory of the files that are about to be written is replaced, and only if that was asked."""
    if not path.is_dir() or {entry.name for entry in path.iterdir()} != set(names):
        raise ArtifactError(f"{path} exists and is not such a checkpoint; choose another place")
    if not overwrite:
        raise ArtifactError(
            f"{path} holds a checkpoint already; add --overwrite to replace it, or choose another place"
        )


def synth_checkpoint(
    shape: str | ModelConfig, path: str | Path, *, seed: int = 0, overwrite: bool = False
) -> Path:
    """Writes a random Hugging Face checkpoint (bfloat16, normal 0.02, norms 1) and returns its path;
    `overwrite` replaces one that was written before."""
    config = shape_config(shape)
    generator = np.random.default_rng(seed)
    tensors = list(stored_tensors(config))
    # Parts of one stored tensor follow each other, and so do their bytes.
    stored = {tensor.hf: (tensor.in_hf.rows, *tensor.shape[1:]) for tensor in tensors}
    entries = tensor_file.place((name, "BF16", shape) for name, shape in stored.items())
    described = {**config_to_hf(config), "torch_dtype": "bfloat16"}
    files = {**model_files(config), "config.json": (json.dumps(described, indent=2) + "\n").encode()}
    target = Path(path)
    names = {"model.safetensors", *files}

    def check(place: Path) -> None:
        _check_checkpoint_place(place, names, overwrite)

    with publish_directory(target, check) as partial, writing(target):
        with open(partial / "model.safetensors", "wb") as file:
            file.write(tensor_file.header_bytes(entries, {"format": "pt"}))
            for tensor in tensors:
                for part in _random_numbers(tensor, generator):
                    file.write(part)
        for name, data in files.items():
            write_file(partial / name, data)
    return target
