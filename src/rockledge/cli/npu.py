"""`rockledge npu`: the NPU of this machine, a virtual one, and register programs."""

from __future__ import annotations

import argparse
from typing import Any

from rockledge.cli import npu_demo, npu_disasm, npu_emulate, npu_info, npu_verify
from rockledge.cli.command import Command
from rockledge.cli.parser import add_commands
from rockledge.cli.terminal import Terminal

ACTIONS: tuple[Command, ...] = (
    npu_info.COMMAND,
    npu_emulate.COMMAND,
    npu_demo.COMMAND,
    npu_disasm.COMMAND,
    npu_verify.COMMAND,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One parser for each action."""
    add_commands(parser, ACTIONS, "action", "chosen_action", "ACTION")


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Runs the action that was chosen."""
    action: Command = args.chosen_action
    return action.run(args, terminal)


COMMAND = Command(
    "npu", "inspect the NPU, emulate one, disassemble and check its programs", add_arguments, run
)
