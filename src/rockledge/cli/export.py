"""`rockledge export`: an artifact in the formats of other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.engine_options import whole
from rockledge.cli.inspect import is_artifact
from rockledge.cli.pytorch_threads import let_threads_sleep
from rockledge.cli.sizes import megabytes
from rockledge.cli.terminal import Terminal
from rockledge.errors import UsageError
from rockledge.units import show_size

# As in `export.targets`, which needs NumPy and more: help and completion are made without it.
_TARGETS = ("hf", "gguf", "rknn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to export, to what, and where."""
    parser.add_argument("artifact", metavar="DIR", help="artifact made by rockledge quantize")
    parser.add_argument(
        "--to",
        required=True,
        choices=_TARGETS,
        help="hf: safetensors for transformers; gguf: llama.cpp; rknn: the vendor's runtime",
    )
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="directory to write")
    parser.add_argument(
        "--type",
        default="",
        metavar="T",
        help="numbers: bf16, f16, f32 (hf); nearest, q8_0 ... q4_0, bf16, f16, f32 (gguf); "
        "w8a8, w16a16i_dfp (rknn); default: the first of each",
    )
    parser.add_argument(
        "--tokens",
        type=whole(0),
        metavar="N",
        help="tokens of built-in text to measure the cost of rounding on; 0 for none (default: 1024)",
    )
    parser.add_argument(
        "--blocks", action="store_true", help="rknn: whole layers over the first 64 positions, not linears"
    )
    parser.add_argument(
        "--rknn-python",
        metavar="PATH",
        help="rknn: the Python that has rknn-toolkit2 (default: $ROCKLEDGE_RKNN_PYTHON)",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Exports, and says what rounding again has cost."""
    let_threads_sleep()
    from rockledge.cli.any_model import model_path
    from rockledge.export.request import TOKENS, ExportRequest
    from rockledge.export.targets import export

    if args.to != "rknn" and (args.blocks or args.rknn_python):
        flag = "--blocks" if args.blocks else "--rknn-python"
        raise UsageError(f"{flag} belongs to --to rknn; leave it out")
    path = model_path(args.artifact)
    if not is_artifact(path):
        raise UsageError(f"{path} is not an artifact; make one with `rockledge quantize {path} -o DIR`")
    tokens = TOKENS if args.tokens is None else args.tokens
    with terminal.progress() as advance:
        request = ExportRequest(args.type, tokens, args.rknn_python, args.blocks, advance)
        written = export(path, args.output, args.to, request)
    for line in written.lines:
        terminal.print(line)
    if not tokens:
        terminal.note("What rounding has cost was not measured (--tokens 0).")
    for note in written.notes:
        terminal.note(f"Note: {note}")
    size = sum(file.stat().st_size for file in Path(args.output).rglob("*") if file.is_file())
    terminal.print(f"{args.output} is complete ({show_size(size)}).")
    return {"artifact": str(path), "output": args.output, "to": args.to, "size_mb": megabytes(size)} | {
        **written.report,
        "notes": list(written.notes),
    }


COMMAND = Command("export", "write an artifact for transformers, llama.cpp or the vendor", add_arguments, run)
