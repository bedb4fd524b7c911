"""llama.cpp as the yardstick: finds the tools of `make llama-cpp`, runs them, reads their reports."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.models import UnavailableError, cache


@dataclass(frozen=True)
class LlamaDivergence:
    """What llama-perplexity prints for one file against the float run; names as in rockledge.eval."""

    kl_mean_nats: float
    kl_mean_se_nats: float
    kl_p99_nats: float
    top1_agreement: float
    perplexity: float
    perplexity_se: float
    reference_perplexity: float
    ln_perplexity_ratio: float
    ln_perplexity_ratio_se: float


def tool(name: str) -> Path:
    """The program `name` of $ROCKLEDGE_LLAMA_CPP or of the cache; UnavailableError tells how to get it."""
    folder = Path(os.environ.get("ROCKLEDGE_LLAMA_CPP") or cache() / "llama.cpp/bin")
    path = folder / name
    if not os.access(path, os.X_OK):
        raise UnavailableError(f"{name} is not in {folder}: run `make llama-cpp` or set ROCKLEDGE_LLAMA_CPP")
    return path


def converted(model: Path, kind: str, threads: int) -> Path:
    """The GGUF `model` as an F16 file, or that F16 file quantised to `kind` ("Q4_0", "Q8_0", ...). Cached."""
    folder = cache() / "models"
    target = folder / f"{model.stem.split('.')[0]}-{kind}.gguf"
    if not target.exists():
        source = model if kind == "F16" else converted(model, "F16", threads)
        partial = target.with_suffix(".partial")
        run([tool("llama-quantize"), "--allow-requantize", source, partial, kind, threads])
        partial.replace(target)
    return target


def tensor_bytes(model: Path) -> int:
    """Bytes of all tensors of a GGUF file, without header, tokenizer and padding."""
    from gguf import GGUFReader

    return int(sum(tensor.n_bytes for tensor in GGUFReader(model).tensors))


def reference_run(model: Path, text: Path, base: Path, *, window: int, limit: int, threads: int) -> None:
    """Runs the float file over `text` and leaves its log-probabilities in `base` (50 MB a window at most)."""
    _perplexity(model, text, base, window, limit, threads, ())


def reference_tokens(base: Path) -> NDArray[np.int32]:
    """The token ids [windows, window] that llama.cpp cut from the text, read back from a base file."""
    with base.open("rb") as file:
        if file.read(8) != b"_logits_":
            raise UnavailableError(f"{base} is not a base file of llama-perplexity")
        window, _, windows = np.fromfile(file, np.int32, 3)
        return np.fromfile(file, np.int32, int(window) * int(windows)).reshape(windows, window)


def divergence(
    model: Path, text: Path, base: Path, *, window: int, limit: int, threads: int
) -> LlamaDivergence:
    """KL of `model` to the run in `base`, as llama-perplexity reports it."""
    return read_report(_perplexity(model, text, base, window, limit, threads, ("--kl-divergence",)))


def read_report(output: str) -> LlamaDivergence:
    """The figures in the output of `llama-perplexity --kl-divergence`; UnavailableError if one is missing."""
    number = r"(-?\d+\.\d+)"

    def find(label: str) -> tuple[float, float]:
        found = re.search(rf"^{label}\s*:\s*{number}(?:\s*±\s*{number})?", output, re.MULTILINE)
        if found is None:
            raise UnavailableError(f"llama-perplexity printed no line {label!r}; it ended: {output[-500:]}")
        return float(found[1]), float(found[2] or 0)

    ours, base = find(r"Mean PPL\(Q\)"), find(r"Mean PPL\(base\)")
    ratio, kl = find(r"Mean ln\(PPL\(Q\)/PPL\(base\)\)"), find(r"Mean\s+KLD")
    return LlamaDivergence(
        kl_mean_nats=kl[0],
        kl_mean_se_nats=kl[1],
        kl_p99_nats=find(r"99\.0%\s+KLD")[0],
        top1_agreement=find("Same top p")[0] / 100,
        perplexity=ours[0],
        perplexity_se=ours[1],
        reference_perplexity=base[0],
        ln_perplexity_ratio=ratio[0],
        ln_perplexity_ratio_se=ratio[1],
    )


def _perplexity(
    model: Path, text: Path, base: Path, window: int, limit: int, threads: int, extra: tuple[str, ...]
) -> str:
    options = ["-m", model, "-f", text, "-c", window, "--chunks", limit, "-t", threads]
    return run([tool("llama-perplexity"), *options, "--kl-divergence-base", base, *extra])


def run(command: list[object]) -> str:
    """Output and errors of a program; UnavailableError with their end where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(words)} failed:\n{done.stdout[-1000:]}")
    return done.stdout
