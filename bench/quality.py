"""Quality side by side: our artifacts and llama.cpp's files of the same float model, on the same tokens.

    python -m bench.quality [--bits 4.5 8] [--text alice|handbook] [--windows 24] [--artifact DIR ...]

Every row's divergence is to the dequantised packaged weights: ours to the PyTorch reference, llama.cpp's to
its own F16 run of them; the column "float" shows how equal the two are. Windows and scored positions are the
same, and token ids are compared one by one. Bits count all tensor bytes: embedding, scales and tables too.
Writes bench/results/quality-TEXT.json.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import rockledge
from bench import llama_cpp
from bench.models import TEXTS, UnavailableError, cache, smollm2
from rockledge.artifact import open_artifact
from rockledge.errors import RockledgeError
from rockledge.eval.divergence import DivergenceReport, divergence
from rockledge.eval.text import read_text
from rockledge.eval.windows import cut_windows
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantize.reference_logits import ReferenceLogits

RESULTS = Path(__file__).parent / "results"
WINDOW = 512
LLAMA_KINDS = ("Q8_0", "Q4_0")


@dataclass(frozen=True)
class Row:
    """One line of the table; figures as in rockledge.eval.divergence."""

    name: str
    tensor_mb: float
    bits_per_weight: float
    kl_mean_nats: float
    kl_mean_se_nats: float
    kl_p99_nats: float
    top1_agreement: float
    perplexity: float
    reference_perplexity: float
    ln_perplexity_ratio: float
    ln_perplexity_ratio_se: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison, prints the table, writes the JSON; 1 when something needed is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description="quality side by side")
    parser.add_argument("--bits", type=float, nargs="*", default=[4.5, 8.0], help="budgets to quantize to")
    parser.add_argument("--artifact", type=Path, action="append", default=[], help="ready artifacts to add")
    parser.add_argument("--text", choices=sorted(TEXTS), default="alice")
    parser.add_argument("--windows", type=int, default=24, help=f"windows of {WINDOW} tokens")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--without-llama-cpp", action="store_true")
    args = parser.parse_args(arguments)
    try:
        rows = compare(args)
    except (UnavailableError, RockledgeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(rows))
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"quality-{args.text}.json"
    settings = {"text": args.text, "windows": args.windows, "window_tokens": WINDOW}
    body = {**settings, "rows": [asdict(row) for row in rows]}
    target.write_text(json.dumps(body, indent=2) + "\n")
    print(f"written to {target}", file=sys.stderr)
    return 0


def compare(args: argparse.Namespace) -> list[Row]:
    """All rows: ours in the order given, then llama.cpp's (with a sentence instead where it is missing)."""
    model = smollm2()
    text = TEXTS[args.text]()
    checkpoint = open_checkpoint(model)
    tokens = Tokenizer.from_files(checkpoint.files()).encode(read_text(text), bos=False)
    windows = cut_windows(tokens, WINDOW, args.windows)
    parameters = sum(int(np.prod(checkpoint.shape(name))) for name in checkpoint.names())
    rows = _ours(args, checkpoint, model, windows, parameters)
    if not args.without_llama_cpp:
        try:
            llama_cpp.tool("llama-perplexity")
        except UnavailableError as missing:
            print(f"without llama.cpp: {missing}", file=sys.stderr)
        else:
            rows += _llamas(args, model, text, windows, parameters)
    return rows


def _ours(
    args: argparse.Namespace, checkpoint: Checkpoint, model: Path, windows: list[list[int]], parameters: int
) -> list[Row]:
    reference = ReferenceLogits(checkpoint, windows, progress=_note("float reference, block"))
    rows = [_row_of(path, reference, windows, parameters, args.threads) for path in args.artifact]
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        for bits in args.bits:
            path = Path(folder) / f"ours-{bits:g}"
            rockledge.quantize(model, path, bits=bits)
            rows.append(_row_of(path, reference, windows, parameters, args.threads))
    return rows


def _row_of(
    path: Path, reference: ReferenceLogits, windows: list[list[int]], parameters: int, threads: int
) -> Row:
    tokens = [token for window in windows for token in window]
    engine = rockledge.Engine.load(path, threads=threads, ctx=WINDOW)
    try:
        report = divergence(
            reference, engine.logits, tokens, window=WINDOW, progress=_note(f"{path.name}, window")
        )
    finally:
        engine.close()
    return _row(path.name, open_artifact(path).tensor_bytes, parameters, report)


def _llamas(
    args: argparse.Namespace, model: Path, text: Path, windows: list[list[int]], parameters: int
) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        base = Path(folder) / "base.bin"
        run = {"window": WINDOW, "limit": len(windows), "threads": args.threads}
        print("llama.cpp: F16 reference run", file=sys.stderr)
        llama_cpp.reference_run(llama_cpp.converted(model, "F16", args.threads), text, base, **run)
        if llama_cpp.reference_tokens(base).tolist() != windows:
            raise UnavailableError("llama.cpp cut the text into other tokens than we did: nothing to compare")
        for kind in LLAMA_KINDS:
            print(f"llama.cpp: {kind}", file=sys.stderr)
            file = llama_cpp.converted(model, kind, args.threads)
            report = llama_cpp.divergence(file, text, base, **run)
            rows.append(_row(f"llama.cpp {kind}", llama_cpp.tensor_bytes(file), parameters, report))
    return rows


def _row(
    name: str, size: int, parameters: int, report: DivergenceReport | llama_cpp.LlamaDivergence
) -> Row:
    return Row(
        name=name,
        tensor_mb=size / 1e6,
        bits_per_weight=8 * size / parameters,
        kl_mean_nats=report.kl_mean_nats,
        kl_mean_se_nats=report.kl_mean_se_nats,
        kl_p99_nats=report.kl_p99_nats,
        top1_agreement=report.top1_agreement,
        perplexity=report.perplexity,
        reference_perplexity=report.reference_perplexity,
        ln_perplexity_ratio=report.ln_perplexity_ratio,
        ln_perplexity_ratio_se=report.ln_perplexity_ratio_se,
    )


def _note(what: str) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        end = "\n" if done == total else ""
        print(f"\r{what} {done} of {total}", end=end, file=sys.stderr, flush=True)

    return progress


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    head = f"{'':<18}{'MB':>8}{'bits':>7}{'KL mean':>18}{'KL 99 %':>9}{'top-1':>8}{'PPL':>8}{'float':>8}"
    lines = [head + f"{'ln ratio':>18}"]
    for row in rows:
        kl = f"{row.kl_mean_nats:.4f} ± {row.kl_mean_se_nats:.4f}"
        ratio = f"{row.ln_perplexity_ratio:+.4f} ± {row.ln_perplexity_ratio_se:.4f}"
        lines.append(
            f"{row.name:<18}{row.tensor_mb:>8.1f}{row.bits_per_weight:>7.2f}{kl:>18}{row.kl_p99_nats:>9.3f}"
            f"{row.top1_agreement:>8.1%}{row.perplexity:>8.2f}{row.reference_perplexity:>8.2f}{ratio:>18}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
