"""The flags shared by commands with an engine, and the engine that they configure."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rockledge.cli.sizes import parse_count, parse_size
from rockledge.errors import UsageError
from rockledge.runtime.choices import KERNELS, NPU_MODES

MOST_PORT = 65535
_LARGEST_TEMPLATE = 1 << 20  # characters; those of public models are some thousands
_MOST_WHOLE = 2**31 - 1  # the core takes signed 32-bit numbers

if TYPE_CHECKING:
    from rockledge.runtime.engine import Engine
    from rockledge.runtime.sampling import Sampling


def size(text: str) -> int:
    """An argument that is a size in bytes."""
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def whole(low: int) -> Callable[[str], int]:
    """An argument that is a whole number of at least `low`, and one that the core can count."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= _MOST_WHOLE:
            raise argparse.ArgumentTypeError(
                f"'{text[:60]}' is not a whole number of at least {low} and at most {_MOST_WHOLE}"
            )
        return value

    return parse


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """What answers."""
    parser.add_argument(
        "artifact",
        metavar="MODEL",
        help="artifact made by rockledge quantize, or a GGUF file, Hugging Face directory or Hub id, which "
        "is converted first",
    )


def tokens(low: int) -> Callable[[str], int]:
    """An argument that is a number of tokens of at least `low`, such as 4096 or 8k."""

    def parse(text: str) -> int:
        try:
            value = parse_count(text)
        except UsageError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(
                f"'{text}' is not a number of tokens of at least {low}; write one such as 4096 or 8k"
            )
        return value

    return parse


def number(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """An argument that is a finite number in [low, high], or `above` low."""
    bounds = f"{'above' if above else 'of at least'} {low:g}" + (
        f" and at most {high:g}" if high < math.inf else ""
    )

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low < value if above else low <= value) or not value <= high or value == math.inf:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number {bounds}")
        return value

    return parse


def port(text: str) -> int:
    """An argument that is a TCP port, or 0 for a free one."""
    if not text.isascii() or not text.isdigit() or int(text) > MOST_PORT:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port, expected 0 (a free one) to {MOST_PORT}")
    return int(text)


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """How the engine runs."""
    # Of commands without conversations, which do not add `add_template_arguments`.
    parser.set_defaults(chat_template=None, chat_template_kwargs=None)
    parser.add_argument("--threads", type=whole(1), metavar="N", help="CPU threads (default: the fast cores)")
    parser.add_argument(
        "--ctx",
        type=tokens(1),
        metavar="TOKENS",
        help="context length, such as 8k (default: up to 4096, as memory allows)",
    )
    parser.add_argument(
        "--memory", type=size, metavar="SIZE", help="memory limit, such as 6G (default: none)"
    )
    parser.add_argument(
        "--memory-budget",
        type=size,
        metavar="SIZE",
        help="memory limit within which weights that do not fit are read from the disk in every step",
    )
    parser.add_argument("--kernel", choices=tuple(KERNELS), default="auto", help="kernels to use")
    parser.add_argument(
        "--npu",
        choices=NPU_MODES,
        default="auto",
        help="prefill on the NPU: if it can be used (auto, default), never, or fail without it",
    )
    parser.add_argument(
        "--npu-rows",
        type=whole(1),
        metavar="N",
        help="fewest tokens of a prefill step on the NPU (default: where it is modelled to be faster)",
    )
    parser.add_argument(
        "--npu-attention-from",
        type=tokens(0),
        metavar="N",
        help="with the NPU, also attention of prompts, at positions from N on (default: never)",
    )


def add_template_arguments(parser: argparse.ArgumentParser) -> None:
    """How conversations become prompts."""
    parser.add_argument(
        "--chat-template", type=template, metavar="FILE", help="Jinja template (default: the model's own)"
    )
    parser.add_argument(
        "--chat-template-kwargs",
        type=variables,
        metavar="JSON",
        help="variables of the chat template, such as '{\"enable_thinking\": false}'",
    )


def template(text: str) -> str:
    """An argument that names a file with a chat template: its contents."""
    try:
        with open(text, encoding="utf-8") as file:  # which may be a pipe, or a device without an end
            read = file.read(_LARGEST_TEMPLATE + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = (getattr(error, "strerror", None) or "it is not UTF-8 text").lower()
        raise argparse.ArgumentTypeError(f"the chat template {text} cannot be read ({reason})") from None
    if len(read) > _LARGEST_TEMPLATE:
        raise argparse.ArgumentTypeError(f"{text} is too large for a chat template")
    return read


def variables(text: str) -> dict[str, Any]:
    """An argument that is a JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(
            f"'{text[:60]}' is not a JSON object such as '{{\"enable_thinking\": false}}'"
        )
    return value


def add_sampling_arguments(
    parser: argparse.ArgumentParser, max_tokens: int, otherwise: Mapping[str, float]
) -> None:
    """How tokens are drawn; what is left out is the model's, or where it says nothing `otherwise`, or off."""
    parser.add_argument(
        "--max-tokens", type=tokens(1), default=max_tokens, metavar="N", help="longest answer"
    )
    for flag, parse, metavar, about, value in (
        ("--temperature", number(0), "T", "0 is greedy", otherwise.get("temperature", 0)),
        ("--top-k", whole(0), "K", "keep the K most probable tokens, 0 for all", otherwise.get("top_k", 0)),
        (
            "--top-p",
            number(0, 1, above=True),
            "P",
            "keep the best tokens up to this mass",
            otherwise.get("top_p", 1),
        ),
        ("--min-p", number(0, 1), "P", "drop tokens below this share of the best", otherwise.get("min_p", 0)),
    ):
        parser.add_argument(
            flag, type=parse, metavar=metavar, help=f"{about} (default: the model's, else {value:g})"
        )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="repeats an answer (default: another each time)"
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be repeated"
    )
    parser.set_defaults(sampling_otherwise=otherwise)


def sampling(args: argparse.Namespace, engine: Engine) -> Sampling:
    """The sampling that the flags describe; those left out are the model's own, or else the command's."""
    from rockledge.runtime.sampling import Sampling
    from rockledge.runtime.sampling_defaults import default_sampling

    chosen = default_sampling(engine.artifact.files, Sampling(**args.sampling_otherwise))
    flags = {name: getattr(args, name) for name in ("temperature", "top_k", "top_p", "min_p", "seed")}
    return replace(chosen, **{name: value for name, value in flags.items() if value is not None})


def engine_options(args: argparse.Namespace, sequences: int = 1) -> dict[str, Any]:
    """What the flags say to `Engine.load`, the memory apart; with room for at least as many long `sequences`
    at a time."""
    from rockledge.board.memory import SEQUENCES

    flags = (
        "threads",
        "ctx",
        "memory_budget",
        "kernel",
        "npu",
        "npu_rows",
        "npu_attention_from",
        "chat_template",
        "chat_template_kwargs",
    )
    return {**{name: getattr(args, name) for name in flags}, "sequences": max(SEQUENCES, sequences)}


@contextmanager
def load_engine(
    args: argparse.Namespace,
    *,
    sequences: int = 1,
    check: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Engine]:
    """The engine of `args.artifact`, which may be any checkpoint (`cli.any_model`), with the flags of
    `add_engine_arguments` and room for at least as many long `sequences` at a time; closed at the end. With
    `check` every byte of the artifact is read in the background meanwhile, and the end waits for that:
    ArtifactError if there is damage. `options`: further ones of `Engine.load`.

    Its log (on stderr) says which kernel was chosen and why, what the memory is used for, and whether prefill
    runs on the NPU.
    """
    from rockledge.cli.any_model import artifact_of
    from rockledge.runtime.bus_error import explained_bus_errors
    from rockledge.runtime.engine import Engine

    with artifact_of(args.artifact, quiet=args.quiet) as path:
        engine = Engine.load(
            path, memory=args.memory, **{**engine_options(args, sequences), **(options or {})}
        )
        try:
            with explained_bus_errors(engine.artifact), engine.checked() if check else nullcontext():
                yield engine
        finally:
            engine.close()
