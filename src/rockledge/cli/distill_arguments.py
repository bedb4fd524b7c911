"""The flags of `rockledge distill`; those of a run have the names of the keys of a recipe's section."""

import argparse

from rockledge.cli.engine_options import number, size, whole
from rockledge.cli.overwrite import add_overwrite_argument
from rockledge.cli.sizes import parse_count
from rockledge.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `distill`; those of a run have the names of the keys of a recipe's `distill:` section."""
    parser.add_argument(
        "models",
        nargs="*",
        metavar="TEACHER STUDENT",
        help="Hugging Face directories or Hub ids (default: what the recipe names); --synthesize alone needs "
        "no STUDENT",
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="the taught student to write; without STUDENT the pairs"
    )
    parser.add_argument("--recipe", metavar="FILE", help="YAML file with a distill section; flags count more")
    parser.add_argument(
        "--dry-run", action="store_true", help="only say parameters, memory, time and cost, without weights"
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        help="keep checkpoints here: a stopped run continues from them (default: hidden beside the output)",
    )
    add_overwrite_argument(parser)
    _add_data_arguments(parser)
    _add_loss_arguments(parser)
    _add_training_arguments(parser)
    _add_on_policy_arguments(parser)


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        action="append",
        metavar="FILE",
        help="text, Markdown, HTML or PDF, a folder of these, or JSON lines with text or messages; may be "
        "repeated (default: none)",
    )
    parser.add_argument(
        "--synthesize",
        type=_pairs,
        metavar="N",
        help="let the teacher write N questions and answers from --documents first, beside DIR (default: 0)",
    )
    parser.add_argument(
        "--documents",
        action="append",
        metavar="FOLDER",
        help="Markdown, text, HTML and PDF files to ask about; may be repeated (default: none)",
    )
    parser.add_argument(
        "--synthesize-batch",
        type=whole(1),
        metavar="N",
        help="prompts that the teacher answers at a time (default: 8)",
    )
    parser.add_argument("--held-out", metavar="FILE", help="measure on this (default: on a part of the data)")
    parser.add_argument(
        "--held-out-share", type=number(0, 0.5), metavar="S", help="part that is held out (default: 0.05)"
    )
    parser.add_argument(
        "--tokens", type=_count, metavar="N", help="tokens to learn, such as 40e6 (default: the data once)"
    )
    parser.add_argument("--sequence", type=whole(8), metavar="N", help="tokens of a sequence (default: 1024)")
    parser.add_argument("--seed", type=whole(0), metavar="N", help="of the order of sequences (default: 0)")


def _add_loss_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--top-k", type=whole(1), metavar="K", help="the teacher's tokens that are told apart (default: 64)"
    )
    parser.add_argument(
        "--data-weight",
        type=number(0, 1),
        metavar="W",
        help="part of the loss that is the data's own; 1 leaves the teacher out (default: 0)",
    )
    parser.add_argument(
        "--hidden-weight",
        type=number(0),
        metavar="W",
        help="weight of the hidden-state loss (default: 0)",
    )
    parser.add_argument(
        "--lora", type=whole(0), metavar="R", help="train an adapter of this rank, and merge it (default: 0)"
    )
    parser.add_argument(
        "--quantization-aware",
        metavar="RECIPE",
        help="train and write an artifact, by a recipe of quantize or of so many bits a weight (default: no)",
    )
    parser.add_argument(
        "--float-tokens",
        type=_count,
        metavar="N",
        help="learn so many of the tokens in floats before that (default: 0)",
    )
    parser.add_argument(
        "--grid-learning-rate",
        type=number(0, 1, above=True),
        metavar="R",
        help="highest rate after them (default: as --learning-rate)",
    )
    parser.add_argument(
        "--fixed-codes",
        action="store_true",
        default=None,
        help="let only row scales and biases of the artifact learn (default: codes too)",
    )
    parser.add_argument(
        "--adapt-teacher",
        action="store_true",
        default=None,
        help="first tune the teacher on the data, by LoRA",
    )
    parser.add_argument("--adapt-rank", type=whole(1), metavar="R", help="its rank (default: 16)")
    parser.add_argument(
        "--adapt-tokens", type=_count, metavar="N", help="its tokens (default: the student's)"
    )
    parser.add_argument(
        "--adapt-learning-rate", type=number(0, 1, above=True), metavar="R", help="its rate (default: 2e-4)"
    )
    parser.add_argument(
        "--cache-logits", metavar="DIR", help="keep the teacher's logits here, for this and other runs"
    )
    parser.add_argument(
        "--cache-bytes", type=size, metavar="SIZE", help="most that they may take (default: 64G)"
    )


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch", type=whole(1), metavar="N", help="sequences a step, on all devices (default: 8)"
    )
    parser.add_argument(
        "--micro-batch", type=whole(1), metavar="N", help="sequences a device takes at a time (default: 1)"
    )
    parser.add_argument(
        "--learning-rate",
        type=number(0, 1, above=True),
        metavar="R",
        help="highest rate (default: 1e-4, with --lora 1e-3)",
    )
    parser.add_argument(
        "--final-learning-rate", type=number(0, 1), metavar="R", help="last rate (default: a tenth)"
    )
    parser.add_argument(
        "--warmup-steps",
        type=whole(0),
        metavar="N",
        help="steps up to the highest rate (default: at most 40)",
    )
    parser.add_argument("--bf16", action="store_true", default=None, help="compute in bfloat16")
    parser.add_argument(
        "--checkpointing", action="store_true", default=None, help="compute activations twice to save memory"
    )
    parser.add_argument(
        "--save-every", type=whole(1), metavar="N", help="steps between checkpoints (default: a tenth of all)"
    )
    parser.add_argument(
        "--evaluate-every", type=whole(1), metavar="N", help="steps between measurements (default: as saved)"
    )
    parser.add_argument(
        "--trainer",
        action="append",
        metavar="KEY=VALUE",
        help="further argument of transformers.TrainingArguments; may be repeated (default: none)",
    )


def _add_on_policy_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on-policy",
        type=whole(0),
        metavar="STEPS",
        help="steps of a last stage: the student writes, the teacher scores; needs TRL (default: 0)",
    )
    parser.add_argument(
        "--on-policy-answer",
        type=whole(1),
        metavar="N",
        help="tokens of an answer that it writes, at most (default: half a sequence)",
    )
    parser.add_argument(
        "--on-policy-learning-rate",
        type=number(0, 1, above=True),
        metavar="R",
        help="its highest rate (default: a tenth of --learning-rate)",
    )


def _count(text: str) -> int:
    """An argument that is a number of tokens, such as 40e6 or 8k."""
    return _counted(text, "tokens", "40e6")


def _pairs(text: str) -> int:
    """An argument that is a number of questions and answers, such as 2000."""
    return _counted(text, "questions and answers", "2000")


def _counted(text: str, what: str, example: str) -> int:
    try:
        value = float(text)
        found = int(value) if value == int(value) else 0
    except (ValueError, OverflowError):
        try:
            found = parse_count(text)
        except UsageError:
            found = 0
    if found < 1:
        raise argparse.ArgumentTypeError(
            f"'{text[:60]}' is not a number of {what}; write one such as {example}"
        )
    return found
