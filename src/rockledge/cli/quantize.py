"""`rockledge quantize`: a checkpoint becomes an artifact within a budget, with an estimate and a report."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rockledge.cli.command import Command
from rockledge.cli.engine_options import tokens, whole
from rockledge.cli.made_artifacts import remember
from rockledge.cli.overwrite import add_overwrite_argument
from rockledge.cli.pytorch_threads import let_threads_sleep
from rockledge.cli.sizes import megabytes
from rockledge.cli.terminal import Terminal, table
from rockledge.errors import UsageError
from rockledge.units import show_duration, show_size

if TYPE_CHECKING:
    from rockledge.model.checkpoint import StoredCheckpoint
    from rockledge.quantization.estimate import Estimate
    from rockledge.quantization.reporting.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `quantize`."""
    parser.add_argument("model", metavar="MODEL", help="GGUF file, Hugging Face directory or Hub id")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="artifact to write")
    parser.add_argument(
        "--bits",
        type=_bits,
        metavar="B",
        help="most bits a weight, everything counted (default: 4.25, where nothing else limits the size)",
    )
    parser.add_argument("--fit", metavar="BOARD", help="what this board has room for, such as rk3588-8gb")
    parser.add_argument(
        "--milliseconds",
        type=_milliseconds,
        metavar="MS",
        help="most time a decoded token may take there, or on rk3588-8gb",
    )
    parser.add_argument(
        "--fast", action="store_true", help="round to the nearest: a part of the time, and less accurate"
    )
    parser.add_argument(
        "--instant",
        action="store_true",
        help="from the weights alone, without calibration and without PyTorch: seconds, and least accurate",
    )
    parser.add_argument("--adapter", metavar="DIR", help="LoRA adapter of peft, merged into MODEL first")
    parser.add_argument("--recipe", metavar="FILE", help="recipe.yaml of an artifact, to make it again")
    parser.add_argument("--device", default="cpu", help="PyTorch device to compute on: cpu, cuda or cuda:N")
    parser.add_argument(
        "--calibration", metavar="FILE", help="text or JSON lines (default: the built-in mix)"
    )
    parser.add_argument(
        "--tokens",
        type=tokens(1),
        metavar="N",
        help="calibration tokens, such as 8k (default: by the model's size)",
    )
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of rotation and sampling")
    parser.add_argument(
        "--work",
        metavar="DIR",
        help="keep intermediate files here: a stopped run continues from them (default: beside the artifact)",
    )
    parser.add_argument("--check-prices", action="store_true", help="measure what random bands really cost")
    parser.add_argument("--force", action="store_true", help="go on with too short a calibration text")
    add_overwrite_argument(parser)


def _bits(text: str) -> float:
    return _positive(text, "bits", "4.25")


def _milliseconds(text: str) -> float:
    return _positive(text, "milliseconds", "170")


def _positive(text: str, unit: str, example: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of {unit}; write one such as {example}")
    return value


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Estimates, compresses, reports; with `--instant` converts."""
    if args.instant:
        return _convert(args, terminal)
    settings = {"bits": args.bits, "fit": args.fit, "recipe": args.recipe, "device": args.device}
    settings |= {"milliseconds": args.milliseconds, "fast": args.fast}
    settings |= {"calibration": args.calibration, "tokens": args.tokens, "seed": args.seed}
    settings |= {"work": args.work, "force": args.force, "check_prices": args.check_prices}
    settings |= {"overwrite": args.overwrite, "command": args.typed}
    settings |= {"adapter": args.adapter}
    estimate, report = compress(args.model, args.output, settings, terminal)
    numbers = report.numbers
    for note in numbers["notes"]:
        terminal.print(f"Note: {note}")
    for line in summary(numbers):
        terminal.print(line)
    if (check := numbers["price_check"]) is not None:
        terminal.print(
            f"Prices rank {len(check['bands'])} measured bands with a correlation of "
            f"{check['rank_correlation']:.3f} (goal 0.8)"
        )
    terminal.print(f"\n{budget_table(numbers)}")
    terminal.print(f"\n{args.output} is complete; its report.md says more.")
    return {"artifact": args.output, "estimate": estimate_body(estimate), **numbers}


# Flags that mean nothing without calibration, and their defaults.
_NOT_INSTANT = {
    "fit": None,
    "milliseconds": None,
    "fast": False,
    "recipe": None,
    "device": "cpu",
    "calibration": None,
    "tokens": None,
    "work": None,
    "check_prices": False,
}


def _convert(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Writes the artifact that `run` makes of the same checkpoint by itself."""
    from rockledge.artifact import open_artifact
    from rockledge.artifact.writer import check_place
    from rockledge.conversion.convert import convert

    for flag, default in _NOT_INSTANT.items():
        if getattr(args, flag) != default:
            name = flag.replace("_", "-")
            raise UsageError(f"--instant does not calibrate; leave out --{name}, or --instant")
    checkpoint = _opened(args.model, args.adapter)
    for note in checkpoint.notes:
        terminal.note(f"Note: {note}")
    check_place(args.output, overwrite=args.overwrite)
    remember(args.output)
    with terminal.progress() as advance:
        convert(
            checkpoint,
            args.output,
            bits=args.bits,
            seed=args.seed,
            progress=advance,
            overwrite=args.overwrite,
            command=args.typed,
        )
    made = open_artifact(args.output)
    size = show_size(made.tensor_bytes)
    terminal.print(f"{size}, {made.bits_per_weight:.3f} bits a weight, not calibrated")
    terminal.print("Without --instant it would be more accurate.")
    terminal.print(f"{args.output} is complete; its report.md says more.")
    return {
        "artifact": args.output,
        "size_mb": megabytes(made.tensor_bytes),
        "bits_per_weight": round(made.bits_per_weight, 4),
    }


def compress(
    model: str, output: str, settings: Mapping[str, Any], terminal: Terminal
) -> tuple[Estimate, Report]:
    """Runs `rockledge.quantize` with `settings`, with an estimate first and progress bars during the run."""
    let_threads_sleep()
    from rockledge.artifact.writer import check_place
    from rockledge.quantization.pipeline import estimate, quantize

    settings = dict(settings)
    checkpoint = _opened(model, settings.pop("adapter", None))
    for note in checkpoint.notes:
        terminal.note(f"Note: {note}")
    check_place(output, overwrite=settings.get("overwrite", False))
    asked = ("bits", "fit", "milliseconds", "fast", "recipe", "device", "tokens", "check_prices", "work")
    expected = estimate(checkpoint, **{key: settings[key] for key in asked if key in settings})
    terminal.note(
        f"Estimate: {show_duration(expected.seconds)}, {show_size(expected.peak_memory_bytes)} of memory, "
        f"{show_size(expected.disk_bytes)} of disk while it works ({show_size(expected.work_bytes)} of them "
        f"for intermediate files); the result has at most {show_size(expected.tensor_bytes)} "
        f"({expected.bits_per_weight:.2f} bits a weight)."
    )
    remember(output)
    with terminal.progress(expected.stages) as advance:
        report = quantize(checkpoint, output, progress=advance, **settings)
    return expected, report


def _opened(model: str, adapter: str | None) -> StoredCheckpoint:
    """The checkpoint, with the adapter in its weights where there is one."""
    from rockledge.model.adapter import with_adapter
    from rockledge.model.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(model)
    return checkpoint if adapter is None else with_adapter(checkpoint, adapter)


def estimate_body(estimate: Estimate) -> dict[str, Any]:
    """The estimate as `--json` has it."""
    return {
        "seconds": round(estimate.seconds, 1),
        "stages": {stage: round(seconds, 1) for stage, seconds in estimate.stages.items()},
        "peak_memory_mb": megabytes(estimate.peak_memory_bytes),
        "disk_mb": megabytes(estimate.disk_bytes),
        "work_mb": megabytes(estimate.work_bytes),
        "size_mb": megabytes(estimate.tensor_bytes),
        "bits_per_weight": round(estimate.bits_per_weight, 4),
    }


def summary(numbers: Mapping[str, Any]) -> list[str]:
    """Size, loss, and what it is like on the board in three lines, from the numbers of a report."""
    from rockledge.eval.kl_words import kl_in_words
    from rockledge.quantization.reporting.on_board import board_line

    cost = numbers["divergence"]
    where = f"on {cost['scored_tokens']} held-out calibration tokens"
    if "cosine_distance_mean" in cost:
        mean, worst = cost["cosine_distance_mean"], cost["cosine_distance_max"]
        loss = f"1 - cosine to the float embeddings {mean:.2g}, at worst {worst:.2g}, {where}"
    else:
        kl, same = cost["kl_mean_nats"], f"same top token {100 * cost['top1_agreement']:.1f}%"
        loss = f"KL {kl:.4f} nats a token, {same}, {where}: {kl_in_words(kl)}"
    return [
        f"{show_size(numbers['tensor_bytes'])}, {numbers['bits_per_weight']:.3f} bits a weight",
        loss,
        board_line(numbers),
    ]


def budget_table(numbers: Mapping[str, Any]) -> str:
    """What other budgets would give, for people, from the numbers of a report."""
    from rockledge.quantization.reporting.loss import reported_loss

    loss, board = reported_loss(numbers), numbers["board"]
    rows = []
    for row in numbers["budgets"]:
        asked = f"{row['bits_asked']:.2f}{' (this one)' if row['made'] else ''}"
        if row["bits_per_weight"] is None:
            rows.append((asked, "-", "-", "-", f"impossible: at least {row['nearest']:.2f}"))
            continue
        rows.append(
            (
                asked,
                show_size(row["tensor_bytes"]),
                f"{row['bits_per_weight']:.2f}",
                loss.shown(row[loss.predicted]),
                f"{row['decode_tok_s_predicted']:.0f}",
            )
        )
    return table(
        ("budget", "size", "bits", f"{loss.name} (predicted)", f"tok/s on {board} (predicted)"), rows
    )


COMMAND = Command("quantize", "compress a checkpoint into an artifact", add_arguments, run)
