"""`rockledge bench --calibrate-board`: this machine's constants, as a file that users can send as well."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rockledge.cli.overwrite import check_file, check_folder
from rockledge.cli.terminal import Terminal, table
from rockledge.errors import UsageError

if TYPE_CHECKING:
    from rockledge.board.facts_file import Measured, MeasuredFacts

FACTS: Final = Path("board-facts.json")
_STEADY: Final = 0.25
_SHOWN: Final = (
    ("cpu_read_bandwidth_1_core", "weights read by one core, GB/s", 1e-9),
    ("cpu_read_bandwidth", "by all cores, GB/s", 1e-9),
    ("cpu_hz", "clock, MHz", 1e-6),
    ("cpu_prefill_macs_per_cycle", "products a cycle and core in prompts", 1.0),
    ("cpu_operation_seconds", "beginning and ending an operation, us", 1e6),
    ("cpu_step_seconds", "a step outside of the core, us", 1e6),
    ("npu_submit_seconds", "an NPU job that hardly computes, us", 1e6),
    ("npu_int8_macs_per_cycle", "products a cycle and core of the NPU", 1.0),
)


def add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of a calibration."""
    parser.add_argument(
        "--calibrate-board",
        action="store_true",
        help="instead, without a model: measure what this machine's constants are and write them to --facts, "
        "for `rockledge plan --facts` and for the people who make the board models",
    )
    parser.add_argument("--facts", type=Path, default=FACTS, metavar="FILE", help="the file of a calibration")


def run_calibration(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Measures, writes the file and says what is in it."""
    from rockledge.artifact.publish import writing
    from rockledge.board.facts_file import parse, text
    from rockledge.board_calibration.calibrate import REPEATS, calibrate
    from rockledge.places import cache

    target: Path = args.facts
    if not target.parent.is_dir():
        raise UsageError(f"the folder of {target} does not exist; make it, or choose another place")
    check_file(target, args.overwrite)
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is not a file, and would be replaced by one; choose another place")
    check_folder(target)
    with terminal.progress() as advance:
        done = calibrate(
            cache(), repeats=REPEATS, advance=lambda number, of: advance("measuring the board", number, of)
        )
    found = done.facts
    content = text(found)
    parse(content.encode(), "what was measured")  # a machine that was too busy gives what cannot be
    with writing(target):
        _write(target, content)
    show(found, done.no_npu, target, terminal)
    return {
        "facts": str(target),
        "processor": found.processor,
        "threads": found.threads,
        "chip": found.chip or None,
        "npu": None if found.npu is None else found.npu.driver,
        "values": {name: one.value for name, one in all_facts(found).items()},
    }


def all_facts(found: MeasuredFacts) -> dict[str, Measured]:
    """Those of the CPU, and of the NPU where one was measured."""
    return {**found.facts, **(found.npu.facts if found.npu else {})}


def _apart(one: Measured) -> float:
    """How far repeats are apart, as a share of their median."""
    return (one.spread[1] - one.spread[0]) / one.value


def _write(target: Path, content: str) -> None:
    """The whole file or none of it."""
    import os
    import tempfile

    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def show(found: MeasuredFacts, no_npu: str, target: Path, terminal: Terminal) -> None:
    """The main figures, and what to do with the file."""
    terminal.print(f"{found.processor}, {found.threads} threads, {found.ram_bytes / (1 << 30):.1f} GiB\n")
    facts = all_facts(found)
    rows = [
        (about, f"{scale * one.value:.4g}", f"{scale * one.spread[0]:.4g} to {scale * one.spread[1]:.4g}")
        for name, about, scale in _SHOWN
        if (one := facts.get(name)) is not None
    ]
    terminal.print(table(("", "median", "best and upper quartile"), rows))
    if found.npu is not None and found.npu.virtual:
        terminal.print(
            "\nThe NPU is a virtual one: its figures are those of an emulator, and nothing uses them."
        )
    elif no_npu:
        terminal.print(f"\nNo NPU was measured: {no_npu}")
    if apart := [name for name, one in facts.items() if _apart(one) > _STEADY]:
        terminal.print(
            f"\nRepeats of {len(apart)} of {len(facts)} figures are more than {_STEADY:.0%} apart: something "
            "else kept this machine busy, or its clocks changed. Measure again when it is quiet."
        )
    terminal.print(
        f"\nAll {len(facts)} figures are in {target}. "
        f"`rockledge plan MODEL --facts {target}` plans for this machine.\n\n"
        "To help everybody with such a board, attach that file to an issue of the repository that you have "
        "Rockledge from. It holds what was measured, the names of processor and chip, the version of the "
        "kernel, sizes of memory and caches, clocks, governors and a temperature. It does not hold a name of "
        "yours or of this machine, a path, an address or a serial number. It is plain text: read it first."
    )
