"""Small random artifacts in every variant the format allows, with a tokenizer of single bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from rockledge.artifact import ArtifactPlan, ArtifactWriter, LinearSpec
from rockledge.formats.bands import Band, groups, table_widths
from rockledge.formats.hadamard import random_rotation
from rockledge.formats.packing import pack, unpack
from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig
from rockledge.model.family import stored_tensors

BOS, EOS, EOT = 256, 257, 258
VOCAB = 272
TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)
EVERYWHERE = ("q", "k", "v", "o", "gate", "up", "down", "embed")


@dataclass(frozen=True)
class Variant:
    """What differs between artifacts; `planes` by the last part of a linear's name ("q", "down", "embed")."""

    family: str = "llama"
    tied: bool = True
    rotated: bool = True
    ffn_block: int = 16
    planes: Mapping[str, int] | None = None
    seed: int = 1
    eos: tuple[int, ...] = (EOS, EOT)
    head_dim: int = 32
    windows: tuple[int, ...] = ()


VARIANTS = {
    "plain": Variant(tied=False, rotated=False, ffn_block=0),
    "tied": Variant(rotated=False, ffn_block=0),
    "rotated": Variant(tied=False),
    "rotated-tied": Variant(),
    "bias": Variant("qwen2", tied=False, rotated=False),
    "qk-norm": Variant("qwen3"),
    "two-planes": Variant(planes=dict.fromkeys(EVERYWHERE, 2)),
    "mixed-planes": Variant(tied=False, planes={"q": 2, "k": 2, "v": 2, "down": 2}),
    "heads-of-50": Variant("qwen2", planes={"o": 2}, head_dim=50),
    "windows": Variant(planes=dict.fromkeys(EVERYWHERE, 2), windows=(48, 0)),
    "windows-and-bias": Variant("qwen2", windows=(20, 48)),
}


def config_of(variant: Variant) -> ModelConfig:
    """Sizes that are no multiples of a tile wherever the format allows it."""
    return ModelConfig(
        family=variant.family, hidden=80, layers=2, heads=4, kv_heads=2, head_dim=variant.head_dim, ffn=144,
        vocab=VOCAB, norm_eps=1e-5, rope_theta=10000.0,
        rope_divisors=tuple(1.0 + i / 8 for i in range(variant.head_dim // 2)),
        tied=variant.tied, context=1024, qkv_bias=variant.family == "qwen2",
        qk_norm=variant.family == "qwen3",
        bos=BOS, eos=variant.eos, windows=variant.windows,
    )  # fmt: skip


def write_artifact(path: Path, variant: Variant, template: str | None = TEMPLATE) -> Path:
    """A random artifact of `variant` under `path`."""
    config = config_of(variant)
    rng = np.random.default_rng(variant.seed)
    shapes = {tensor.name: tensor.shape for tensor in stored_tensors(config)}
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    gains = {name: (norm.size,) for name, norm in decoder(config).kept_norms()}
    linears = {}
    for name, (rows, cols) in matrices.items():
        role = name.rsplit(".", 1)[-1]
        planes = (variant.planes or {}).get(role, 1)
        linears[name] = LinearSpec(rows, cols, _bands(role, rows), planes, f"{name}.bias" in shapes)
    plan = ArtifactPlan(
        config, linears, sum(int(np.prod(shape)) for shape in shapes.values()), gains,
        random_rotation(config.hidden, variant.seed) if variant.rotated else None,
        {"ffn.down": variant.ffn_block} if variant.ffn_block else {}, tokenizer_files(template),
    )  # fmt: skip
    with ArtifactWriter(path, plan) as writer:
        for name, spec in linears.items():
            writer.linear(name, _random_linear(rng, spec))
        for name, shape in gains.items():
            writer.array(name, rng.uniform(0.5, 1.5, shape).astype(np.float32))
    return path


def _bands(role: str, rows: int) -> tuple[Band, ...]:
    """Heads of Q, K, V and blocks of gate and up at various widths; the last band takes what is left."""
    sizes = {"q": (32, 8), "k": (32, 4), "v": (32, 8), "gate": (56, 3), "up": (56, 3)}
    step, first_bits = sizes.get(role, (rows, 4))
    widths = [first_bits, 4, 2, 3, 8]
    starts = range(0, rows, step)
    return tuple(Band(start, min(step, rows - start), widths[i % 5]) for i, start in enumerate(starts))


def _random_linear(rng: np.random.Generator, spec: LinearSpec):  # type: ignore[no-untyped-def]
    codes = np.empty((spec.rows, spec.cols), np.uint8)
    for band in spec.bands:
        part = codes[band.start : band.start + band.rows]
        if band.bits == 8:
            part[:] = rng.integers(-127, 128, part.shape).astype(np.int8).view(np.uint8)
        else:
            part[:] = rng.integers(0, 1 << band.bits, part.shape)
    tables = {
        bits: np.sort(rng.integers(-127, 128, (16, 1 << bits)), axis=1).astype(np.int8)
        for bits in table_widths(spec.bands)
    }
    index = rng.integers(0, 16, (spec.rows, groups(spec.cols))).astype(np.uint8)
    bias = rng.normal(0, 0.3, spec.rows).astype(np.float32) if spec.bias else None
    ones = np.ones(spec.rows, np.float32)
    w8 = unpack(pack(codes, index, tables, ones, spec.bands)).astype(np.float32)
    # Rows of unit gain keep the residual stream and the logits of sane size.
    scale = rng.uniform(0.8, 1.2, spec.rows) / np.sqrt((w8 * w8).sum(axis=1) + 1)
    return pack(codes, index, tables, scale.astype(np.float32), spec.bands, bias)


def tokenizer_files(template: str | None) -> dict[str, bytes]:
    """A tokenizer with one token a byte and a few special ones, a chat template, and two end-of-text ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|end|>", *(f"<extra{i}>" for i in range(VOCAB - 259))]
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in special])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    generation = {"bos_token_id": BOS, "eos_token_id": [EOS, EOT]}
    settings = {"bos_token": "<s>", "eos_token": "</s>"}
    files = {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
        "generation_config.json": json.dumps(generation).encode(),
    }
    return files if template is None else {**files, "chat_template.jinja": template.encode()}
