"""`rockledge npu disasm`: a command stream as text, with what is suspicious about it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rockledge.cli.command import Command
from rockledge.cli.sizes import counted
from rockledge.cli.terminal import Terminal

if TYPE_CHECKING:
    from rockledge_npu_lab.stream_file import NamedStream


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `npu disasm`."""
    parser.add_argument("file", metavar="FILE", help="raw 64-bit command words, or a JSON of cases")


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Prints every stream of the file; findings do not make it fail."""
    from rockledge_npu_lab.stream_file import read_streams

    streams = [_show(stream, terminal) for stream in read_streams(args.file)]
    findings = sum(len(stream["findings"]) for stream in streams)
    terminal.note(f"{counted(len(streams), 'stream')}, {counted(findings, 'suspicious place')}")
    return {"file": args.file, "streams": streams, "findings": findings}


def _show(stream: NamedStream, terminal: Terminal) -> dict[str, Any]:
    from rockledge_npu_lab.disassemble import describe
    from rockledge_npu_lab.linting.check import lint
    from rockledge_npu_lab.text.listing import listing

    findings = lint(stream.words)
    terminal.print(f"; {stream.name}: {len(stream.words)} words\n{listing(stream.words, findings)}\n")
    return {
        "id": stream.name,
        "words": [
            {"index": index, "word": f"{command:016x}", "text": describe(command)}
            for index, command in enumerate(stream.words)
        ],
        "findings": [{"index": f.word, "about": f.about, "reason": f.reason} for f in findings],
    }


COMMAND = Command("disasm", "disassemble command streams and mark suspicious fields", add_arguments, run)
