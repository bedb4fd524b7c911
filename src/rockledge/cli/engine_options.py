"""The flags shared by commands with an engine, and the engine that they configure."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge.cli.sizes import parse_size
from rockledge.errors import UsageError
from rockledge.runtime.choices import KERNELS, NPU_MODES

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
    """An argument that is a whole number of at least `low`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least {low}")
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


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """How the engine runs."""
    parser.add_argument("--threads", type=whole(1), metavar="N", help="CPU threads (default: the fast cores)")
    parser.add_argument(
        "--ctx",
        type=whole(1),
        metavar="TOKENS",
        help="context length (default: up to 4096, as memory allows)",
    )
    parser.add_argument("--memory", type=size, metavar="SIZE", help="memory limit, such as 6G")
    parser.add_argument(
        "--kernel", choices=tuple(KERNELS), default="auto", help="kernels to use (default: auto)"
    )
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


def add_template_arguments(parser: argparse.ArgumentParser) -> None:
    """How conversations become prompts."""
    parser.add_argument(
        "--chat-template", type=template, metavar="FILE", help="Jinja template in place of the model's own"
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
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (getattr(error, "strerror", None) or "it is not UTF-8 text").lower()
        raise argparse.ArgumentTypeError(f"the chat template {text} cannot be read ({reason})") from None


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


def add_sampling_arguments(parser: argparse.ArgumentParser, max_tokens: int) -> None:
    """How tokens are drawn; without any of these the most probable token is taken."""
    parser.add_argument("--max-tokens", type=whole(1), default=max_tokens, metavar="N", help="longest answer")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default) is greedy")
    parser.add_argument("--top-k", type=whole(0), default=0, help="keep the K most probable tokens (0: all)")
    parser.add_argument("--top-p", type=float, default=1.0, help="keep the best tokens up to this mass")
    parser.add_argument("--min-p", type=float, default=0.0, help="drop tokens below this share of the best")
    parser.add_argument("--seed", type=int, help="makes sampling repeatable")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text")


def sampling(args: argparse.Namespace) -> Sampling:
    """The sampling that the flags describe."""
    from rockledge.runtime.sampling import Sampling

    return Sampling(args.temperature, args.top_k, args.top_p, args.min_p, args.seed)


@contextmanager
def load_engine(args: argparse.Namespace, *, sequences: int = 1) -> Iterator[Engine]:
    """The engine of `args.artifact`, which may be any checkpoint (`cli.any_model`), with the flags of
    `add_engine_arguments` and room for at least as many long `sequences` at a time; closed at the end.

    Its log (on stderr) says which kernel was chosen and why, what the memory is used for, and whether prefill
    runs on the NPU.
    """
    from rockledge.board.memory import SEQUENCES
    from rockledge.cli.any_model import artifact_of
    from rockledge.runtime.engine import Engine

    with artifact_of(args.artifact) as path:
        engine = Engine.load(
            path,
            threads=args.threads,
            ctx=args.ctx,
            memory=args.memory,
            kernel=args.kernel,
            npu=args.npu,
            npu_rows=args.npu_rows,
            chat_template=getattr(args, "chat_template", None),
            chat_template_kwargs=getattr(args, "chat_template_kwargs", None),
            sequences=max(SEQUENCES, sequences),
        )
        try:
            yield engine
        finally:
            engine.close()
