"""`rockledge prune`: a smaller checkpoint out of a larger one, for `distill` and `quantize` to go on with."""

from __future__ import annotations

import argparse
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge.cli.command import Command
from rockledge.cli.engine_options import number, tokens, whole
from rockledge.cli.pytorch_threads import let_threads_sleep
from rockledge.cli.sizes import megabytes
from rockledge.cli.terminal import Terminal, table
from rockledge.errors import UsageError
from rockledge.units import read_count, show_count, show_duration, show_size

if TYPE_CHECKING:
    from rockledge.model.config import ModelConfig
    from rockledge.pruning.estimate import PruneEstimate
    from rockledge.pruning.request import PruneRequest
    from rockledge.pruning.targets import Allowed, Tried

# Flags that a recipe's section `prune` may have too, by the names that it has them under.
_SETTINGS = (
    "target_params", "body", "layers", "hidden", "ffn", "heads", "kv_heads", "by", "fit", "decode_tok_s",
    "calibration", "tokens", "seed",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `prune`."""
    parser.add_argument(
        "teacher",
        nargs="?",
        metavar="TEACHER",
        help="Hugging Face directory or Hub id (or a recipe's teacher)",
    )
    parser.add_argument("-o", "--output", metavar="DIR", help="checkpoint to write")
    parser.add_argument(
        "--target-params", type=_count, metavar="N", help="most parameters, such as 3.5b or 82m"
    )
    parser.add_argument(
        "--body",
        type=number(0, 1, above=True),
        metavar="SHARE",
        help="most of the layers' parameters, as 0.6",
    )
    parser.add_argument("--fit", metavar="BOARD", help="what runs on this board at 4.25 bits, as rk3588-8gb")
    parser.add_argument(
        "--decode-tok-s", type=number(0, above=True), metavar="S", help="with --fit: modelled speed there"
    )
    parser.add_argument("--layers", type=whole(1), metavar="N", help="layers that stay")
    parser.add_argument(
        "--hidden", type=whole(1), metavar="N", help="channels of the residual stream that stay"
    )
    parser.add_argument("--ffn", type=whole(1), metavar="N", help="feed-forward channels that stay")
    parser.add_argument("--heads", type=whole(1), metavar="N", help="query heads that stay")
    parser.add_argument(
        "--kv-heads", type=whole(1), metavar="N", help="key/value heads that stay (default: by --heads)"
    )
    parser.add_argument("--by", choices=("depth", "width", "both"), help="which shapes to try (default: all)")
    parser.add_argument("--recipe", metavar="FILE", help="YAML with a section prune; flags count before it")
    parser.add_argument(
        "--calibration", metavar="FILE", help="text or JSON lines (default: the built-in mix)"
    )
    parser.add_argument("--tokens", type=tokens(1), metavar="N", help="calibration tokens (default: 16k)")
    parser.add_argument("--seed", type=whole(0), metavar="N", help="of sampling (default: 0)")
    parser.add_argument("--device", default="cpu", help="PyTorch device to compute on: cpu, cuda or cuda:N")
    parser.add_argument("--force", action="store_true", help="go on with too short a calibration text")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="shapes, parameters, memory and time only; TEACHER may be a config.json or a name as llama-3-8b",
    )


def _count(text: str) -> int:
    count = read_count(text)
    if count is None:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a number of parameters; write one such as 3.5b or 82m"
        )
    return count


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Estimates, prunes, reports; with `--dry-run` estimates only."""
    let_threads_sleep()
    teacher, asked = _asked(args)
    allowed = None if asked.fit is None else _on_board(asked)
    if args.dry_run:
        return _dry_run(teacher, asked, allowed, args.device, terminal)
    if args.output is None:
        raise UsageError("there is no place for the result; give -o DIR, or --dry-run")
    from rockledge.pruning.choice import candidates
    from rockledge.pruning.prune import prune
    from rockledge.pruning.teacher import open_teacher
    from rockledge.pruning.write import check_free

    check_free(Path(args.output))
    source = open_teacher(teacher)
    for note in source.notes:
        terminal.note(f"Note: {note}")
    tried = candidates(source.config, asked, allowed)
    expected = _estimate(source.config, asked, tried, args.device)
    terminal.note(
        f"Estimate: {show_duration(expected.seconds)}, {show_size(expected.peak_memory_bytes)} of memory, "
        f"{show_size(expected.disk_bytes)} of disk, {len(tried)} shapes to try."
    )
    with terminal.progress(expected.stages) as advance:
        report = prune(
            source,
            args.output,
            asked,
            allowed=allowed,
            device=args.device,
            force=args.force,
            command=args.typed,
            progress=advance,
        )
    found = report.numbers
    if report.reused:
        terminal.print(f"Note: taken from a run that was stopped: {', '.join(report.reused)}.")
    for note in found["notes"]:
        terminal.print(f"Note: {note}")
    terminal.print(_tried_table(found["tried"]))
    before, after = found["teacher_loss"], found["written_loss"]
    student = found["student"]
    terminal.print(
        f"\n{show_count(student['parameters'])} parameters, "
        f"{student['body'] / found['teacher']['body']:.0%} of the teacher's layers; perplexity "
        f"{exp(min(after, 700)):.2f} (teacher {exp(min(before, 700)):.2f}) on {found['scored_tokens']} "
        "held-out calibration tokens"
    )
    terminal.print(f"{args.output} is complete; its pruning.md says more. Train it with rockledge distill.")
    return {"checkpoint": args.output, "estimate": _estimate_body(expected), **found}


def _asked(args: argparse.Namespace) -> tuple[str, PruneRequest]:
    """The teacher and the request, out of flags and recipe."""
    from rockledge.pruning.request import recipe_settings, request_of

    given = {key: getattr(args, key) for key in _SETTINGS if getattr(args, key) is not None}
    teacher, place = args.teacher, "the flags"
    if args.recipe is not None:
        named, section = recipe_settings(Path(args.recipe))
        if {"target_params", "body", "fit"} & set(given):
            section = {
                key: value
                for key, value in section.items()
                if key not in ("target_params", "body", "fit", "decode_tok_s")
            }
        teacher, given, place = teacher or named, section | given, f"the section prune of {args.recipe}"
    if teacher is None:
        raise UsageError("there is no teacher; give a Hugging Face directory or a Hub id")
    return teacher, request_of(given, place)


def _on_board(asked: PruneRequest) -> Allowed:
    """Whether a model at 4.25 bits fits the board and is fast enough there, by `plan`."""
    from rockledge.board.boards import find_board
    from rockledge.planning.plan import DEFAULT_CONTEXT, Plan

    assert asked.fit is not None
    board, speed = find_board(asked.fit), asked.decode_tok_s

    def allowed(config: ModelConfig) -> bool:
        plan = Plan("student", config, board, min(DEFAULT_CONTEXT, config.context), 1)
        return plan.fits and (speed is None or plan.speed.decode(plan.context).likely >= speed)

    return allowed


def _dry_run(
    teacher: str, asked: PruneRequest, allowed: Allowed | None, device: str, terminal: Terminal
) -> dict[str, Any]:
    from rockledge.cli.planned_model import planned_model
    from rockledge.places import expanded
    from rockledge.pruning.choice import candidates, width_notes
    from rockledge.pruning.shape import body_parameters, parameters, pruned_config, shape_of
    from rockledge.pruning.teacher import refuse_other_forms

    path = expanded(teacher)
    if path.exists() and path.suffix != ".json":
        refuse_other_forms(path)
    model = planned_model(teacher)
    tried = candidates(model.config, asked, allowed)
    expected = _estimate(model.config, asked, tried, device)
    whole = body_parameters(model.config)
    shapes = [
        {
            "name": one.name,
            **vars(one.shape),
            "parameters": parameters(model.config, one.shape),
            "body_share": round(body_parameters(pruned_config(model.config, one.shape)) / whole, 4),
        }
        for one in tried
    ]
    for note in (*model.notes, *width_notes(model.config, tried)):
        terminal.print(f"Note: {note}")
    before = parameters(model.config, shape_of(model.config))
    terminal.print(f"{model.name}, {show_count(before)} parameters, from {model.source}\n")
    terminal.print(
        table(
            ("shape", "layers", "hidden", "feed-forward", "heads", "parameters", "of the layers"),
            [_row(one) for one in shapes],
        )
    )
    terminal.print(
        f"\nEstimate: {show_duration(expected.seconds)} on {device} here, "
        f"{show_size(expected.peak_memory_bytes)} of memory, {show_size(expected.disk_bytes)} of disk."
    )
    return {
        "teacher": model.name,
        "source": model.source,
        "teacher_parameters": before,
        "shapes": shapes,
        "tokens": asked.tokens,
        "estimate": _estimate_body(expected),
    }


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        one["name"],
        str(one["layers"]),
        str(one["hidden"]),
        str(one["ffn"]),
        f"{one['heads']}/{one['kv_heads']}",
        show_count(one["parameters"]),
        f"{one['body_share']:.0%}",
    )


def _tried_table(tried: list[dict[str, Any]]) -> str:
    head = (
        "shape",
        "layers",
        "hidden",
        "feed-forward",
        "heads",
        "parameters",
        "of the layers",
        "loss as cut",
        "refitted",
        "",
    )
    rows = [
        (*_row(one), f"{one['loss_cut']:.3f}", f"{one['loss']:.3f}", "chosen" if one["chosen"] else "")
        for one in tried
    ]
    return table(head, rows)


def _estimate(config: ModelConfig, asked: PruneRequest, tried: list[Tried], device: str) -> PruneEstimate:
    from rockledge.pruning.estimate import estimate_prune
    from rockledge.pruning.request import LENGTH
    from rockledge.quantization.device import check_device
    from rockledge.quantization.estimate import measured_speed

    check_device(device)
    return estimate_prune(
        config,
        [one.shape for one in tried],
        tokens=asked.tokens,
        length=min(LENGTH, config.context),
        speed=measured_speed(device),
    )


def _estimate_body(expected: PruneEstimate) -> dict[str, float]:
    return {
        "seconds": round(expected.seconds, 1),
        "peak_memory_mb": megabytes(expected.peak_memory_bytes),
        "disk_mb": megabytes(expected.disk_bytes),
    }


COMMAND = Command("prune", "make a smaller checkpoint out of a larger one", add_arguments, run)
