"""`rockledge demo`: the whole workflow on a small real model: fetch, compress, measure the loss, answer."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge.cli.answer import stream_answer
from rockledge.cli.bench import peak_rss_mb
from rockledge.cli.command import Command
from rockledge.cli.demo_model import NAME, demo_model
from rockledge.cli.engine_options import whole
from rockledge.cli.evaluate import compare, evaluation_lines
from rockledge.cli.inspect import parts, parts_body, parts_table
from rockledge.cli.overwrite import add_overwrite_argument
from rockledge.cli.quantize import compress
from rockledge.cli.sizes import counted, megabytes
from rockledge.cli.terminal import Terminal
from rockledge.cli.window import answers_in_window
from rockledge.errors import ArtifactError
from rockledge.units import show_size

if TYPE_CHECKING:
    from rockledge.artifact import Artifact
    from rockledge.runtime.engine import Engine

BITS = 4.5
TEXT = (
    "demo_text.txt"  # L. Carroll, Alice's Adventures in Wonderland (1865), chapters I and II; public domain
)
WINDOWS = 8
EVALUATION = "evaluation"  # key of report.json: the second run reads what the first one measured
PROMPTS = (
    "What is the capital of France, and what is it known for?",
    "Explain to a child why the sky is blue.",
    "Write a short poem about a lighthouse in winter.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `demo`."""
    parser.add_argument("-o", "--output", default="demo-model", metavar="DIR", help="artifact")
    add_overwrite_argument(parser)
    parser.add_argument("--max-tokens", type=whole(1), default=80, metavar="N", help="longest answer")
    parser.add_argument("--threads", type=whole(1), metavar="N", help="CPU threads (default: the fast cores)")


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Compresses unless a finished artifact of this model is there already, then shows its loss and speed."""
    from rockledge.runtime.engine import Engine
    from rockledge.runtime.speed import measure_decode, measure_prefill

    model = compressed(args.output, terminal, args.overwrite)
    with Engine.load(args.output, threads=args.threads) as engine:
        with engine.checked():
            report = evaluated(engine, model, terminal)
            _show(engine.artifact, report, terminal)
            answers = _answers(engine, args.max_tokens, terminal)
        prefill = measure_prefill(engine, 128, 3)
        decode = measure_decode(engine, 1, 128, 64, 3)
        result = {
            "artifact": args.output,
            "model": NAME,
            "size_mb": megabytes(engine.artifact.tensor_bytes),
            "bits_per_weight": round(engine.artifact.bits_per_weight, 4),
            "parts": parts_body(parts(engine.artifact)),
            "notes": report["notes"],
            "evaluation": report[EVALUATION],
            "answers": answers,
            "prefill_tok_s": round(prefill.tok_s, 2),
            "decode_tok_s": round(decode.tok_s, 2),
            "peak_rss_mb": peak_rss_mb(),
            "kernel": engine.kernel,
            "threads": engine.threads,
        }
    terminal.print(
        f"\nprefill {result['prefill_tok_s']:.0f} tok/s, decode {result['decode_tok_s']:.1f} tok/s "
        f"({result['kernel']} kernel, {counted(result['threads'], 'thread')})"
    )
    terminal.print(f"\nNext: rockledge chat {args.output}")
    return result


def compressed(output: str, terminal: Terminal, overwrite: bool) -> Path:
    """The demo's model, compressed into `output` unless that was done before and `overwrite` is not asked."""
    if find_spec("torch") is None and not Path(output).exists():  # said before 93 MB are fetched
        raise ModuleNotFoundError(name="torch")
    model = demo_model(terminal)
    if overwrite or finished(Path(output), model.name) is None:
        compress(str(model), output, {"bits": BITS, "overwrite": overwrite}, terminal)
    else:
        terminal.note(f"{output} already exists; --overwrite compresses again.")
    return model


def finished(path: Path, model: str) -> Artifact | None:
    """The artifact at `path` if it was made from that model's file within the demo's budget."""
    from rockledge.artifact import open_artifact

    try:
        artifact = open_artifact(path)
        report = artifact.report
    except ArtifactError:
        return None
    # One that --instant made of the same file has no divergence: it is another artifact.
    mine = report is not None and report.get("model") == model and "divergence" in report
    return artifact if mine and artifact.bits_per_weight <= BITS else None


def evaluated(engine: Engine, model: Path, terminal: Terminal) -> dict[str, Any]:
    """The artifact's report with the divergence on the demo's text, which is measured once and kept there."""
    from rockledge.artifact.publish import write_file
    from rockledge.model.checkpoint import open_checkpoint

    report = engine.artifact.report or {}
    if EVALUATION not in report:
        text = files("rockledge.cli").joinpath(TEXT).read_text(encoding="utf-8")
        found = asdict(compare(engine, open_checkpoint(model), text, terminal, windows=WINDOWS))
        report = {**report, EVALUATION: {"text": "Alice's Adventures in Wonderland, I-II", **found}}
        path = engine.artifact.path / "report.json"
        partial = path.with_suffix(".partial")
        write_file(partial, json.dumps(report, indent=2).encode())
        partial.replace(path)
    return report


def _show(artifact: Artifact, report: dict[str, Any], terminal: Terminal) -> None:
    terminal.print(
        f"\n{NAME}: {show_size(artifact.tensor_bytes)}, {artifact.bits_per_weight:.3f} bits a weight"
    )
    for note in report["notes"]:
        terminal.print(note)
    terminal.print(f"\n{parts_table(parts(artifact))}\n")
    terminal.print(f"On {report[EVALUATION]['text']}, which the compression never saw:")
    for line in evaluation_lines(report[EVALUATION]):
        terminal.print(line)


def _answers(engine: Engine, max_tokens: int, terminal: Terminal) -> list[dict[str, Any]]:
    from rockledge.runtime.model import Model
    from rockledge.runtime.sampling import Sampling

    answers = []
    with answers_in_window(terminal) as shown:
        for prompt in PROMPTS:
            terminal.print(f"\n> {prompt}")
            ids = Model(engine).tokens([{"role": "user", "content": prompt}])
            answer = stream_answer(engine, ids, shown, max_tokens=max_tokens, sampling=Sampling())
            answers.append({"prompt": prompt, **answer.body()})
    return answers


COMMAND = Command(
    "demo", "compress a small real model, measure the loss, and answer prompts", add_arguments, run
)
