"""`rockledge synth`: a random model of a given shape, for measuring cost and speed."""

from __future__ import annotations

import argparse
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.engine_options import whole
from rockledge.cli.inspect import is_artifact
from rockledge.cli.overwrite import add_overwrite_argument
from rockledge.cli.sizes import megabytes
from rockledge.cli.terminal import Terminal
from rockledge.units import show_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `synth`."""
    parser.add_argument("shape", metavar="SHAPE", help="toy, 135m, 1b, 3b or 8b")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="directory to write")
    parser.add_argument("--checkpoint", action="store_true", help="write a float checkpoint, not an artifact")
    parser.add_argument(
        "--bits", type=int, choices=(2, 3, 4, 8), help="one width for all weights (default: a mixture)"
    )
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="seed of the random numbers")
    add_overwrite_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Writes random weights; they are meaningless, but cost exactly as much as real ones."""
    from rockledge.errors import UsageError
    from rockledge.synth import synth_artifact, synth_checkpoint

    if args.checkpoint and args.bits is not None:
        raise UsageError("--bits applies to artifacts; leave it out with --checkpoint")
    terminal.note(f"writing a random {args.shape} to {args.output}")
    if args.checkpoint:
        path = synth_checkpoint(args.shape, args.output, seed=args.seed, overwrite=args.overwrite)
    else:
        path = synth_artifact(
            args.shape, args.output, bits=args.bits, seed=args.seed, overwrite=args.overwrite
        )
    size = sum(file.stat().st_size for file in path.iterdir())
    kind = "artifact" if is_artifact(path) else "checkpoint"
    terminal.print(f"{path}: {kind}, {show_size(size)}")
    return {
        "kind": kind,
        "path": str(path),
        "shape": args.shape,
        "seed": args.seed,
        "size_mb": megabytes(size),
    }


COMMAND = Command("synth", "make a random model of a given shape", add_arguments, run)
