"""`rockledge eval`: what compression cost, against the float model on the same text."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge.cli.command import Command
from rockledge.cli.engine_options import add_engine_arguments, load_engine, tokens, whole
from rockledge.cli.probe_report import probe, probe_body, probe_lines
from rockledge.cli.pytorch_threads import let_threads_sleep
from rockledge.cli.terminal import Terminal
from rockledge.errors import UsageError

if TYPE_CHECKING:
    from rockledge.artifact import Artifact
    from rockledge.eval.divergence import DivergenceReport
    from rockledge.eval.embeddings import EmbeddingReport
    from rockledge.model.checkpoint import Checkpoint
    from rockledge.runtime.engine import Engine

PROBES = 40  # a family, where no number is given
WINDOW = 512  # tokens; as in llama.cpp's perplexity tool, so that numbers can be compared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `eval`."""
    parser.add_argument("artifact", metavar="DIR", help="artifact made by rockledge quantize")
    parser.add_argument("--reference", required=True, metavar="MODEL", help="checkpoint it was made from")
    parser.add_argument(
        "--text", required=True, metavar="FILE", help="UTF-8 text that was not used for calibration"
    )
    parser.add_argument("--window", type=tokens(4), default=WINDOW, metavar="N", help="tokens per window")
    parser.add_argument(
        "--windows", type=whole(1), metavar="N", help="most windows to score (default: the whole text)"
    )
    parser.add_argument(
        "--probes",
        type=whole(1),
        nargs="?",
        const=PROBES,
        metavar="N",
        help=f"also ask logic probes, N of each family (default: none; {PROBES} without a number)",
    )
    parser.add_argument("--probe-seed", type=whole(0), default=0, metavar="N", help="seed of the probes")
    parser.add_argument(
        "--force", action="store_true", help="compare with a model that the artifact was not made from"
    )
    add_engine_arguments(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Scores the second half of every window of the text with both models."""
    from rockledge.eval.text import read_text
    from rockledge.model.checkpoint import open_checkpoint

    text = read_text(Path(args.text))
    checkpoint = open_checkpoint(args.reference)
    with load_engine(args) as engine:
        check_heads(engine, checkpoint)  # says more than that the checkpoint is another
        check_source(engine.artifact, checkpoint, args.force, terminal)
        if args.probes is not None:
            engine.require_head()
        report = asdict(compare(engine, checkpoint, text, terminal, window=args.window, windows=args.windows))
        probes = None
        if args.probes is not None:
            probes = probe(engine, checkpoint, terminal, each=args.probes, seed=args.probe_seed)
    for line in [*evaluation_lines(report), *(probe_lines(probes) if probes else ())]:
        terminal.print(line)
    return {
        "artifact": args.artifact,
        "reference": args.reference,
        "reference_stored": checkpoint.stored,
        "text": args.text,
        **report,
        **({"probes": probe_body(probes, args.probe_seed)} if probes else {}),
    }


def check_heads(engine: Engine, checkpoint: Checkpoint) -> None:
    """Raises UsageError where only one of both has a language head."""
    if engine.config.headless != checkpoint.config.headless:
        without, other = (
            (engine.name, "the reference") if engine.config.headless else ("the reference", engine.name)
        )
        raise UsageError(
            f"{without} has no language head and {other} has one; compare a model with the checkpoint it was "
            "made from"
        )


def check_source(artifact: Artifact, checkpoint: Checkpoint, force: bool, terminal: Terminal) -> None:
    """Raises UsageError where the artifact was made from another checkpoint, unless `force`."""
    from rockledge.model.source_digest import source_digest

    report = artifact.report or {}
    source = report.get("source_sha256")
    if source is None:
        terminal.note("Note: this artifact does not say what it was made from; the reference is not checked.")
    elif source_digest(checkpoint) != source:
        sentence = (
            f"{checkpoint.path} is not what {artifact.path} was made from ({report.get('model', 'unknown')})"
        )
        if not force:
            raise UsageError(f"{sentence}; give that checkpoint, or --force to compare with this one")
        terminal.note(f"Note: {sentence}.")


def compare(
    engine: Engine,
    checkpoint: Checkpoint,
    text: str,
    terminal: Terminal,
    *,
    window: int = WINDOW,
    windows: int | None = None,
) -> DivergenceReport | EmbeddingReport:
    """Divergence of the engine from the float model on the first windows of `text`, or the distance of
    embeddings where neither has a language head. UsageError where one has."""
    check_heads(engine, checkpoint)
    let_threads_sleep()
    from rockledge.eval.divergence import divergence
    from rockledge.eval.embeddings import embedding_distances
    from rockledge.eval.windows import cut_windows
    from rockledge.quantization.float_model.reference_logits import ReferenceLogits

    bos = engine.tokenizer.bos
    scored = engine.tokenizer.encode(text, bos=True)
    with terminal.progress() as advance:
        reference = ReferenceLogits(
            checkpoint,
            cut_windows(scored, window, windows, bos),
            progress=lambda done, total: advance("float model, blocks", done, total),
        )
        measure = embedding_distances if engine.config.headless else divergence
        return measure(
            reference,
            engine.states if engine.config.headless else engine.logits,
            scored,
            window=window,
            limit=windows,
            bos=bos,
            progress=lambda done, total: advance("compressed model, windows", done, total),
        )


def evaluation_lines(report: Mapping[str, Any]) -> list[str]:
    """The numbers of a report, for people."""
    if "cosine_distance_mean" in report:
        scored, mean = report["scored_tokens"], report["cosine_distance_mean"]
        return [
            f"1 - cosine      {mean:.3g} to the float model's embeddings, on average over {scored} positions",
            f"at worst        {report['cosine_distance_max']:.3g}",
        ]
    from rockledge.eval.kl_words import kl_in_words

    float_perplexity = report["reference_perplexity"]
    kl, error = report["kl_mean_nats"], report["kl_mean_se_nats"]
    return [
        f"perplexity      {report['perplexity']:.3f} (float model {float_perplexity:.3f})",
        f"KL divergence   {kl:.5f} nats a token (standard error {error:.5f}): {kl_in_words(kl)}",
        f"same top token  {100 * report['top1_agreement']:.1f}% of {report['scored_tokens']} positions",
    ]


COMMAND = Command("eval", "measure the loss from compression", add_arguments, run)
