"""`rockledge npu emulate`: runs a command with a virtual NPU."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.sizes import counted
from rockledge.cli.terminal import Terminal
from rockledge.errors import NpuError, UsageError

_NEWEST_VERSION = "0.9.8"
_SIGNALLED = 128  # a shell's exit code for a command that a signal ended, plus the signal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `npu emulate`."""
    parser.add_argument("argv", metavar="-- COMMAND", nargs="+", help="the command and its arguments")
    parser.add_argument("--driver", default="rknpu", choices=("rknpu", "rocket"), help="driver to imitate")
    parser.add_argument("--faults", metavar="FILE", help="faults to inject, and when (docs/npu.md)")
    parser.add_argument(
        "--driver-version",
        metavar="X.Y.Z",
        default=_NEWEST_VERSION,
        help="version that rknpu reports",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Runs the command; the exit code is its own. With `--json` its output goes to stderr."""
    from rockledge_npu_lab.virtual.device_faults import load_faults
    from rockledge_npu_lab.virtual.preload import environment
    from rockledge_npu_lab.virtual.serve_device import VirtualNpu

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
        f"virtual NPU ({summary.driver}): {counted(summary.jobs, 'job')}, "
        f"{counted(summary.programs, 'program')}, {summary.macs / 1e9:.1f} G products, "
        f"{counted(summary.faults, 'fault')}, {counted(summary.resets, 'reset')}"
    )
    if summary.buffers_left or summary.files_left:
        terminal.note(
            f"not freed: {counted(summary.buffers_left, 'buffer')}, "
            f"{counted(summary.files_left, 'open file')}"
        )
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
