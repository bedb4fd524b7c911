"""`rockledge npu emulate`: runs a command that finds an NPU, where there is none."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.terminal import Terminal
from rockledge.errors import NpuError, UsageError

_NEWEST_VERSION = "0.9.8"
_SIGNALLED = 128  # a shell's exit code for a command that a signal ended, plus the signal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `npu emulate`."""
    parser.add_argument("argv", metavar="-- COMMAND", nargs="+", help="the command and its arguments")
    parser.add_argument(
        "--driver", default="rknpu", choices=("rknpu", "rocket"), help="whose system calls (default rknpu)"
    )
    parser.add_argument("--faults", metavar="FILE", help="what goes wrong, and when (docs/npu.md)")
    parser.add_argument(
        "--driver-version",
        metavar="X.Y.Z",
        default=_NEWEST_VERSION,
        help=f"what rknpu says it is (default {_NEWEST_VERSION})",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Runs the command; the exit code is its own. With `--json` its output goes to stderr."""
    from rockledge.npu.virtual.device_faults import load_faults
    from rockledge.npu.virtual.preload import environment
    from rockledge.npu.virtual.serve_device import VirtualNpu

    numbers = re.fullmatch(r"(\d{1,3})\.(\d{1,2})\.(\d{1,2})", args.driver_version)
    if numbers is None:
        raise UsageError(f"--driver-version is {args.driver_version!r}, expected three numbers such as 0.9.8")
    version = (int(numbers[1]), int(numbers[2]), int(numbers[3]))
    faults = load_faults(args.faults) if args.faults else ()
    with VirtualNpu(args.driver, faults, version=version, note=_note(terminal)) as npu:
        code = _run(args.argv, environment(npu.address, os.environ), quiet=terminal.as_json)
        npu.drain()
        summary = npu.summary()
    terminal.note(
        f"virtual NPU ({summary.driver}): {summary.jobs} jobs, {summary.programs} programs, "
        f"{summary.macs / 1e9:.1f} G products, {summary.faults} faults, {summary.resets} resets"
    )
    if summary.buffers_left or summary.files_left:
        terminal.note(f"left behind: {summary.buffers_left} buffers, {summary.files_left} open files")
    return {**asdict(summary), "notes": list(summary.notes), "exit_code": code}


def _note(terminal: Terminal) -> Any:
    return lambda text: terminal.note(f"virtual NPU: {text}")


def _run(command: list[str], variables: dict[str, str], *, quiet: bool) -> int:
    try:
        process = subprocess.Popen(command, env=variables, stdout=sys.stderr if quiet else None)
    except OSError as error:
        raise NpuError(f"{command[0]} cannot be run: {error.strerror}") from None
    try:
        code = process.wait()
    except BaseException:  # Ctrl-C reached the command too; give it time to end by itself
        process.terminate()
        process.wait()
        raise
    return code if code >= 0 else _SIGNALLED - code


COMMAND = Command("emulate", "run a command with a virtual NPU", add_arguments, run)
