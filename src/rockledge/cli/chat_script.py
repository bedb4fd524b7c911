"""A chat whose user messages are lines of a pipe or file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rockledge.cli.answer import stream_answer
from rockledge.cli.engine_options import sampling
from rockledge.cli.terminal import Terminal

if TYPE_CHECKING:
    from rockledge.runtime.engine import Engine


def answer_script(args: argparse.Namespace, engine: Engine, terminal: Terminal) -> dict[str, Any]:
    """Answers line by line with the whole conversation before it, until /exit or the end of the input."""
    messages = [{"role": "system", "content": args.system}] if args.system else []
    turns = []
    for line in _lines():
        messages.append({"role": "user", "content": line})
        prompt = _fitting_prompt(engine, messages, terminal)
        answer = stream_answer(
            engine,
            prompt,
            terminal,
            max_tokens=args.max_tokens,
            sampling=sampling(args, engine),
            stop=args.stop,
        )
        messages.append({"role": "assistant", "content": answer.text})
        turns.append(answer.body())
        terminal.note(answer.speed())
    return {"messages": messages, "turns": turns}


def _lines() -> Iterator[str]:
    """User messages: non-empty lines up to /exit."""
    while True:
        try:
            line = input("> ") if sys.stdin.isatty() else input()
        except EOFError:
            return
        if line.strip() == "/exit":
            return
        if line.strip():
            yield line


def _fitting_prompt(engine: Engine, messages: list[dict[str, str]], terminal: Terminal) -> list[int]:
    """The prompt of the conversation; drops the oldest exchanges until it fits."""
    from rockledge.runtime.model import Model

    model = Model(engine)
    first = 1 if messages[0]["role"] == "system" else 0
    prompt = model.tokens(messages)
    while len(prompt) >= engine.context and len(messages) - first > 2:
        terminal.note("[the conversation is longer than the context: its oldest exchange was dropped]")
        del messages[first : first + 2]
        prompt = model.tokens(messages)
    return prompt
