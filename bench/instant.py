"""What conversion without calibration takes and gives: `python -m bench.compress_cost --instant`.

Time and memory: a random model of a shape as a GGUF of Q8_0 or F16 matrices, with some of its blocks and rows
of its vocabulary, converted by `rockledge quantize --instant` in a process of its own; the rest is
extrapolated by the number of weights. Divergence: SmolLM2 off the grid as the engine runs it, beside
llama.cpp's files of the same float weights, made without an importance matrix as ours is made without
calibration.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from bench import llama_cpp
from bench.accuracy_models import MODELS
from bench.accuracy_ours import Workshop
from bench.accuracy_rows import Row, measured
from bench.accuracy_task import prepare
from bench.accuracy_texts import WINDOW
from bench.models import UnavailableError, cache
from rockledge.conversion.convert import DEFAULT_BITS, convert
from rockledge.model.block import decoder
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.config import ModelConfig
from rockledge.model.family import FAMILIES, stored_tensors
from rockledge.synth import SHAPES, model_files

KINDS = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "f16": gguf.GGMLQuantizationType.F16}
_SPREAD = np.float32(0.02)
_NORMAL, _CONTROL = 1, 3  # token types of GGUF


@dataclass(frozen=True)
class Cost:
    """One conversion, and what all blocks and the whole vocabulary would take; `weights` were converted."""

    shape: str
    kind: str
    threads: int
    weights: int
    seconds: float
    processor_seconds: float
    peak_memory_bytes: int
    whole_weights: int
    whole_seconds: float
    whole_processor_seconds: float
    vocabulary_bytes: int


def cost(shape: str, kind: str, blocks: int, vocab: int) -> Cost:
    """Converts a model of the shape with that many blocks and rows of vocabulary. `vocabulary_bytes` is what
    the packed embedding of the whole vocabulary takes more in memory than this one."""
    full = SHAPES[shape]
    config = replace(full, layers=blocks, vocab=vocab)
    with tempfile.TemporaryDirectory(prefix="instant-", dir=cache()) as folder:
        source = Path(folder) / "model.gguf"
        write_random(config, source, KINDS[kind])
        program = [sys.executable, "-m", "rockledge", "quantize", str(source), "--instant"]
        started = time.perf_counter()
        process = subprocess.Popen([*program, "-o", f"{folder}/out", "--json"], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise UnavailableError("the conversion failed; its error is above")
    done, whole = decoder(config).parameters, decoder(full).parameters
    processor = used.ru_utime + used.ru_stime
    return Cost(
        shape,
        kind,
        len(os.sched_getaffinity(0)),
        done,
        round(seconds, 1),
        round(processor, 1),
        used.ru_maxrss * 1024,
        whole,
        round(seconds * whole / done, 1),
        round(processor * whole / done, 1),
        int((full.vocab - vocab) * full.hidden * 8.0 / 8),
    )


def write_random(config: ModelConfig, target: Path, kind: gguf.GGMLQuantizationType) -> None:
    """A GGUF of normal random matrices of one type, and a tokenizer of bytes."""
    writer = gguf.GGUFWriter(target, str(FAMILIES[config.family].gguf))
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.hidden)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    vocabulary = list(json.loads(model_files(config)["tokenizer.json"])["model"]["vocab"])
    vocabulary[-1] = "ab"  # of the one merge
    writer.add_token_list(vocabulary)
    writer.add_token_types([_CONTROL if token.startswith("<|") else _NORMAL for token in vocabulary])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(config.bos or 0)
    writer.add_eos_token_id(config.eos[0])
    tensors = list(stored_tensors(config))
    for tensor in tensors:
        of = gguf.GGMLQuantizationType.F32 if len(tensor.shape) == 1 else kind
        block, size = gguf.GGML_QUANT_SIZES[of]
        shape = (*tensor.shape[:-1], tensor.shape[-1] // block * size)
        # The package takes the shape of bytes where the type is quantised, and of numbers where it is not.
        quantised = of == gguf.GGMLQuantizationType.Q8_0
        dtype = np.dtype(np.uint8 if quantised else np.float16 if of == KINDS["f16"] else np.float32)
        shown = shape if quantised else tensor.shape
        writer.add_tensor_info(
            tensor.gguf, shown, dtype, int(np.prod(tensor.shape)) // block * size, of if quantised else None
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    generator = np.random.default_rng(0)
    for tensor in tensors:
        if len(tensor.shape) == 1:
            writer.write_tensor_data(np.ones(tensor.shape, np.float32))
        else:
            values = generator.standard_normal(tensor.shape, np.float32) * _SPREAD
            writer.write_tensor_data(gguf.quants.quantize(values, kind))
    writer.close()


def divergences(windows: int, threads: int, bits: tuple[float, ...] = (DEFAULT_BITS, 8.0)) -> Iterator[Row]:
    """Rows of SmolLM2 off the grid: instant artifacts, then llama.cpp's Q4_0 and Q8_0."""
    task = prepare(MODELS["smollm2-135m"], windows, threads)
    workshop = Workshop(task)
    limits = {"window": WINDOW, "limit": len(task.windows), "threads": threads}
    with tempfile.TemporaryDirectory(prefix="instant-", dir=cache()) as folder:
        for budget in bits:
            made = convert(open_checkpoint(task.directory), Path(folder) / f"{budget:g}", bits=budget)
            yield workshop.score(made, f"instant {budget:g}").row
        base, file = Path(folder) / "base.bin", Path(folder) / "model.gguf"
        llama_cpp.reference_run(task.gguf, task.text, base, **limits)
        for kind in ("Q4_0", "Q8_0"):
            llama_cpp.run([llama_cpp.tool("llama-quantize"), task.gguf, file, kind, threads])
            found = llama_cpp.divergence(file, task.text, base, **limits)
            size = llama_cpp.tensor_bytes(file)
            yield measured(task.model.name, "llama.cpp", kind, size, task.parameters, found).row


def report(shape: str, blocks: int, vocab: int, windows: int, target: Path) -> None:
    """Measures everything, prints it and writes `target`."""
    found: dict[str, Any] = {"costs": [], "divergences": []}
    for kind in KINDS:
        one = cost(shape, kind, blocks, vocab)
        found["costs"].append(asdict(one))
        print(
            f"{shape} from {kind.upper()}, {one.threads} threads: {one.weights / 1e6:.0f} million weights in "
            f"{one.seconds:.1f} s ({one.processor_seconds:.1f} s of processors), peak memory "
            f"{one.peak_memory_bytes / 1e9:.2f} GB; all {one.whole_weights / 1e9:.2f} billion, extrapolated: "
            f"{one.whole_seconds:.0f} s ({one.whole_processor_seconds:.0f} s of processors), at most "
            f"{(one.peak_memory_bytes + one.vocabulary_bytes) / 1e9:.2f} GB",
            flush=True,
        )
    for row in divergences(windows, len(os.sched_getaffinity(0))):
        found["divergences"].append(asdict(row))
        print(
            f"{row.engine + ' ' + row.name:<24}{row.bits_per_weight:6.3f} bits a weight  "
            f"KL {row.kl_mean_nats:.5f}  same top token {row.top1_agreement:.1%}",
            flush=True,
        )
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(found, indent=1) + "\n")
