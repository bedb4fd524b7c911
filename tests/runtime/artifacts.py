"""Small random artifacts in every variant the format allows, with a tokenizer of single bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from rockledge.artifact import ArtifactPlan, ArtifactWriter, LinearSpec
from rockledge.formats.bands import Band, groups, table_widths
from rockledge.formats.hadamard import random_rotation
from rockledge.formats.packing import pack, unpack
from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig

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
    more: Mapping[str, Any] = field(default_factory=dict)  # fields of the configuration


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
    # What families differ in besides, several at a time.
    "norms-around": Variant("qwen3", windows=(20, 0), more={
        "branch_norms": "both", "activation": "gelu_tanh", "window_rope_theta": 500.0, "embedding_scale": 8.9,
        "attention_softcap": 3.0, "logit_softcap": 2.0, "attention_scale": 0.11,
    }),
    "norms-after": Variant("qwen3", tied=False, more={"branch_norms": "after", "qk_norm_whole": True}),
    "partly-turned": Variant("qwen2", more={
        "rotary_channels": 12, "rope_divisors": (1.0, 1.5, 2.0, 2.5, 3.0, 3.5), "unturned": (1,),
        "rope_factor": 1.3, "o_bias": True, "mlp_bias": True,
    }),
    "scales": Variant(tied=False, more={
        "embedding_scale": 12.0, "attention_scale": 0.02, "logit_scale": 0.125, "rope_factor": 1.2,
        "query_growth": 0.2, "query_growth_length": 2,
    }),
}  # fmt: skip


def config_of(variant: Variant) -> ModelConfig:
    """Sizes that are no multiples of a tile wherever the format allows it."""
    plain = ModelConfig(
        family=variant.family, hidden=80, layers=2, heads=4, kv_heads=2, head_dim=variant.head_dim, ffn=144,
        vocab=VOCAB, norm_eps=1e-5, rope_theta=10000.0,
        rope_divisors=tuple(1.0 + i / 8 for i in range(variant.head_dim // 2)),
        tied=variant.tied, context=1024, qkv_bias=variant.family == "qwen2",
        qk_norm=variant.family == "qwen3",
        bos=BOS, eos=variant.eos, windows=variant.windows,
    )  # fmt: skip
    return replace(plain, **variant.more)


def write_artifact(path: Path, variant: Variant, template: str | None = TEMPLATE) -> Path:
    """A random artifact of `variant` under `path`."""
    config = config_of(variant)
    rng = np.random.default_rng(variant.seed)
    tree = decoder(config)
    gains = {name: (norm.size,) for name, norm in tree.kept_norms()}
    linears = {}
    for name, linear in tree.linears():
        role = name.rsplit(".", 1)[-1]
        planes = (variant.planes or {}).get(role, 1)
        linears[name] = LinearSpec(linear.rows, linear.cols, _bands(role, linear.rows), planes, linear.bias)
    plan = ArtifactPlan(
        config, linears, tree.parameters, gains,
        random_rotation(config.hidden, variant.seed) if variant.rotated else None,
        _online(variant, config), tokenizer_files(template),
    )  # fmt: skip
    with ArtifactWriter(path, plan) as writer:
        for name, spec in linears.items():
            writer.linear(name, _random_linear(rng, spec))
        for name, shape in gains.items():
            writer.array(name, rng.uniform(0.5, 1.5, shape).astype(np.float32))
    return path


def _online(variant: Variant, config: ModelConfig) -> dict[str, int]:
    """Inputs that are turned at run time; 16 divides all of them."""
    places = ["ffn.down"] if variant.ffn_block else []
    if variant.rotated and not decoder(config).residual_turns:
        places += ["attn.in", "ffn.in"]
    return dict.fromkeys(places, 16)


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
