"""`rockledge run`: one prompt, one answer."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rockledge.cli.answer import stream_answer
from rockledge.cli.command import Command
from rockledge.cli.engine_options import (
    add_engine_arguments,
    add_model_argument,
    add_sampling_arguments,
    add_template_arguments,
    load_engine,
    sampling,
)
from rockledge.cli.terminal import Terminal
from rockledge.cli.window import answers_in_window
from rockledge.runtime.choices import GREEDY


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`."""
    add_model_argument(parser)
    parser.add_argument(
        "prompt",
        metavar="PROMPT",
        nargs="+",
        help="text to answer, with or without quotes; - reads it from stdin",
    )
    parser.add_argument("--system", metavar="TEXT", help="system message before the prompt")
    parser.add_argument(
        "--raw", action="store_true", help="continue the text instead of answering it as a chat message"
    )
    add_engine_arguments(parser)
    add_template_arguments(parser)
    add_sampling_arguments(parser, max_tokens=256, otherwise=GREEDY)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Answers a chat message, or continues the text with `--raw` or where the model has no chat template."""
    from rockledge.runtime.model import Model

    prompt = sys.stdin.read() if args.prompt == ["-"] else " ".join(args.prompt)
    system = [{"role": "system", "content": args.system}] if args.system else []
    with answers_in_window(terminal) as shown, load_engine(args) as engine:
        raw = args.raw or engine.chat is None
        ids = Model(engine).tokens(prompt if raw else [*system, {"role": "user", "content": prompt}])
        answer = stream_answer(
            engine, ids, shown, max_tokens=args.max_tokens, sampling=sampling(args, engine), stop=args.stop
        )
        npu = engine.npu
    terminal.note(answer.speed())
    if npu.driver:
        terminal.note(f"[{npu.line()}]")
    return {**answer.body(), "npu": npu.body()}


COMMAND = Command("run", "answer one prompt", add_arguments, run)
