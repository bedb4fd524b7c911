"""The models of the speed table: artifacts of random codes, and GGUF files of the same shapes. All cached.

Random weights cost exactly what real ones do. A GGUF comes from a random Hugging Face checkpoint of the
shape, written as float and quantised by llama.cpp itself, so that every tensor gets the type llama.cpp would
choose. Its tokenizer is the artifact's: bytes and filler words.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType

from bench.llama_cpp import converted, run, tool
from bench.models import UnavailableError, cache, smollm2
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.model.config import ModelConfig
from rockledge.model.family import FAMILIES, stored_tensors
from rockledge.synth import SHAPES, synth_artifact, synth_checkpoint


def folder() -> Path:
    """Where the models of this table are kept."""
    path = cache() / "speed"
    path.mkdir(exist_ok=True)
    return path


def artifact(shape: str, bits: int = 4) -> Path:
    """A random artifact of a named shape at `bits` bits of code a weight, 4.25 in all for 4."""
    target = folder() / f"{shape}-{bits}bit"
    if not target.exists():
        synth_artifact(shape, target, bits=bits)
    return target


def llama_file(shape: str, kind: str, threads: int) -> Path:
    """llama.cpp's file of a shape at a type: of the real SmolLM2 for "135m", else of random weights."""
    if shape == "135m":
        return converted(smollm2(), kind, threads)
    target = _named(shape, kind)
    if not target.exists():
        make_llama_files(shape, [kind], threads)
    return target


def make_llama_files(shape: str, kinds: Sequence[str], threads: int) -> None:
    """Writes the random checkpoint of a shape, its float GGUF and from that every file of `kinds`; the floats
    are deleted again."""
    tool("llama-quantize")
    scratch = folder() / f"{shape}-float"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        checkpoint = open_checkpoint(synth_checkpoint(shape_without_scaling(shape), scratch / "checkpoint"))
        source = scratch / "float.gguf"
        write_float_gguf(checkpoint, source)
        for kind in kinds:
            partial = scratch / f"{kind}.gguf"
            run([tool("llama-quantize"), source, partial, kind, threads])
            partial.replace(_named(shape, kind))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _named(shape: str, kind: str) -> Path:
    return folder() / f"{shape}-words-{kind}.gguf"  # older ones have no vocabulary, and cannot be served


def shape_without_scaling(shape: str) -> ModelConfig:
    """The shape with plain rotary wavelengths: its GGUF needs no tensor of divisors, and costs the same."""
    config = SHAPES[shape]
    return replace(config, rope_divisors=(1.0,) * len(config.rope_divisors))


def write_float_gguf(checkpoint: Checkpoint, target: Path) -> None:
    """The checkpoint as a GGUF of F16 matrices and F32 norms, with the checkpoint's vocabulary.

    Rows of Q and K stay in Hugging Face's order: for random weights it means nothing.
    Raises UnavailableError for a family llama.cpp stores under another name.
    """
    config, family = checkpoint.config, FAMILIES[checkpoint.config.family]
    if family.gguf is None:
        raise UnavailableError(f"no GGUF can be written for {family.name}; take a shape of another family")
    writer = GGUFWriter(target, family.gguf)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.hidden)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab)
    _write_vocabulary(writer, json.loads(checkpoint.files()["tokenizer.json"])["model"]["vocab"], config)
    writer.add_file_type(1)
    tensors = list(stored_tensors(config))
    for tensor in tensors:
        matrix = len(tensor.shape) == 2
        kind = GGMLQuantizationType.F16 if matrix else GGMLQuantizationType.F32
        dtype = np.dtype(np.float16 if matrix else np.float32)
        size = dtype.itemsize * int(np.prod(tensor.shape))
        writer.add_tensor_info(tensor.gguf, tensor.shape, dtype, size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        values = checkpoint.tensor(tensor.name)
        writer.write_tensor_data(values.astype(np.float16) if values.ndim == 2 else values)
    writer.close()


def _write_vocabulary(writer: GGUFWriter, ids: Mapping[str, int], config: ModelConfig) -> None:
    words = sorted(ids, key=lambda word: ids[word])
    special = {config.bos, *config.eos}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types(
        [TokenType.CONTROL if i in special else TokenType.NORMAL for i in range(len(words))]
    )
    writer.add_token_merges([f"{words[-2]} {words[-1]}"])  # the key must be there; this one never applies
    writer.add_eos_token_id(config.eos[0])
    writer.add_add_bos_token(False)
