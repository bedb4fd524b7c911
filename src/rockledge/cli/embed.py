"""`rockledge embed`: texts to embeddings, with a model that was made for them."""

from __future__ import annotations

import argparse
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.engine_options import add_engine_arguments, load_engine, whole
from rockledge.cli.terminal import Terminal, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `embed`."""
    parser.add_argument("artifact", metavar="DIR", help="artifact of a model that makes embeddings")
    parser.add_argument("texts", metavar="TEXT", nargs="+", help="texts; how alike two are is their cosine")
    parser.add_argument(
        "--dimensions", type=whole(1), metavar="N", help="keep the first N numbers (default: all)"
    )
    add_engine_arguments(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Shows the cosines between all texts; the numbers themselves are in the object of `--json`."""
    from rockledge.runtime.model import Model

    with load_engine(args) as engine:
        found = Model(engine).embed(args.texts, dimensions=args.dimensions)
        tokens = [len(engine.tokenizer.encode_whole(text)) for text in args.texts]
    terminal.print(f"{found.shape[1]} dimensions; cosines between the texts:")
    numbers = [str(number) for number in range(1, len(found) + 1)]
    cosines = [[f"{cosine:.4f}" for cosine in row] for row in found @ found.T]
    rows = [(number, *row) for number, row in zip(numbers, cosines, strict=True)]
    terminal.print(table(("text", *numbers), rows))
    return {"dimensions": found.shape[1], "prompt_tokens": tokens, "embeddings": found.tolist()}


COMMAND = Command("embed", "turn texts into embeddings", add_arguments, run)
