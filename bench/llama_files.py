"""The files of llama.cpp in the accuracy table, and how each is made from the float model.

Type names do not tell the size: K-quants of rows not divisible by 256 fall back to larger types, and
embedding and output are kept wide. So beside the ordinary files there are those whose embedding and output
have the body's type, and `--pure` ones, where every matrix has: together they are the curve to beat.
"""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from bench.llama_cpp import run, tool

# What llama-quantize takes for rows that are not a multiple of 256; named explicitly because it does so
# only for types that it chose itself.
_FALLBACKS = {"q3_K": "iq4_nl", "q4_K": "q5_0", "q5_K": "q5_1", "iq4_xs": "iq4_nl", "iq3_s": "iq4_nl"}


@dataclass(frozen=True)
class LlamaFile:
    """`kind` is the type that llama-quantize is asked for; `embedding` replaces its choice for embedding and
    output; `pure` gives every matrix the one type."""

    name: str
    kind: str
    embedding: str | None = None
    pure: bool = False


STANDARD = tuple(
    LlamaFile(kind, kind) for kind in ("Q8_0", "Q5_K_M", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q4_0", "Q3_K_M")
)
VARIANTS = (
    LlamaFile("Q5_K_M, embedding Q5_K", "Q5_K_M", embedding="q5_K"),
    LlamaFile("Q4_K_M, embedding Q4_K", "Q4_K_M", embedding="q4_K"),
    LlamaFile("IQ4_XS, embedding IQ4_XS", "IQ4_XS", embedding="iq4_xs"),
    LlamaFile("Q4_0, embedding Q4_0", "Q4_0", embedding="q4_0"),
    LlamaFile("Q3_K_M, embedding Q3_K", "Q3_K_M", embedding="q3_K"),
    LlamaFile("IQ3_M, embedding IQ3_S", "IQ3_M", embedding="iq3_s"),
    LlamaFile("Q5_K pure", "Q5_K_M", pure=True),
    LlamaFile("Q5_0 pure", "Q5_0", pure=True),
    LlamaFile("Q4_1 pure", "Q4_1", pure=True),
    LlamaFile("Q4_K pure", "Q4_K_M", pure=True),
    LlamaFile("IQ4_XS pure", "IQ4_XS", pure=True),
    LlamaFile("Q4_0 pure", "Q4_0", pure=True),
    LlamaFile("Q3_K pure", "Q3_K_M", pure=True),
)


def importance_matrix(model: Path, text: Path, target: Path, threads: int) -> Path:
    """llama.cpp's importance matrix of the float file on the calibration text; made once."""
    if not target.exists():
        partial = target.with_suffix(".partial.gguf")
        options = ["-c", 512, "-t", threads, "--no-ppl", "--process-output", "--parse-special"]
        run([tool("llama-imatrix"), "-m", model, "-f", text, "-o", partial, *options])
        partial.replace(target)
    return target


def make(file: LlamaFile, model: Path, matrix: Path, target: Path, hidden: int, threads: int) -> None:
    """Quantises the float GGUF `model`, whose rows have `hidden` weights, with the importance matrix."""
    options: list[object] = ["--imatrix", matrix]
    if file.embedding is not None:
        embedding = file.embedding if hidden % 256 == 0 else _FALLBACKS.get(file.embedding, file.embedding)
        options += ["--token-embedding-type", embedding, "--output-tensor-type", embedding]
    if file.pure:
        options.append("--pure")
    partial = target.with_suffix(".partial")
    run([tool("llama-quantize"), *options, model, partial, file.kind, threads])
    partial.replace(target)


def content_digest(model: Path) -> str:
    """SHA-256 of all tensors, their names and types, without metadata: two names for one file have one."""
    from gguf import GGUFReader

    found = hashlib.sha256()
    for tensor in GGUFReader(model).tensors:
        found.update(tensor.name.encode() + struct.pack("<i", int(tensor.tensor_type)))
        found.update(tensor.data.tobytes())
    return found.hexdigest()
