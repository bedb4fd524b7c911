"""`rockledge npu info`: which NPU is here, what is wrong with it, and how to fix that."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.terminal import Terminal, table
from rockledge.errors import RockledgeError
from rockledge.runtime.choices import NPU_DRIVERS

_PROBE_MS = 500  # some thousand times what the small product takes
_JOB_MS = 2000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `npu info`."""
    parser.add_argument(
        "--driver",
        default="auto",
        choices=tuple(NPU_DRIVERS),
        help="look for this one",
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="try a driver that may hang the board too (rknpu before 0.9.6)",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Looks, and multiplies something small on every core; the exit code is 1 when no NPU can be used."""
    return report(args.driver, Path("/"), terminal, probe=args.probe)


def report(driver: str, root: Path, terminal: Terminal, *, probe: bool = False) -> dict[str, Any]:
    """As `run`, for a machine whose sysfs and procfs lie below `root`. `probe`: any driver is tried."""
    from rockledge.runtime.npu_cores import named, prove
    from rockledge.runtime.npu_device import NpuDevice
    from rockledge.runtime.npu_system import findings, look
    from rockledge.runtime.offload.budget import this_board
    from rockledge.runtime.offload.driver_versions import known_problem
    from rockledge.runtime.offload.representative import try_representative

    about, reason, proof, trials = None, None, None, None
    try:
        board = this_board(root)
        with NpuDevice(driver) as device:
            about = device.describe()
            reason = known_problem(about)
            if reason is not None and not probe:
                reason += "; nothing was tried: use another kernel, or see what happens with --probe"
            else:
                reason, proof = None, prove(device, _PROBE_MS)
                about = device.describe()
                trials = try_representative(device, board, _JOB_MS)
                about = device.describe()
    except RockledgeError as error:
        reason = str(error)
    system = look(root)
    found = findings(system, about.driver if about else None)
    rows = [("kernel", system.kernel), ("chip", system.soc or "unknown")]
    if about is not None:
        clock = about.clock_hz or (system.npu.current if system.npu else None)
        rows += [
            ("driver", f"{about.driver} {'.'.join(map(str, about.version))}, {about.node}"),
            ("address spaces", str(about.spaces)),
            ("clock", f"{clock / 1e6:.0f} MHz" if clock else "unknown"),
            ("IOMMU", _known(about.iommu if about.iommu is not None else system.iommu)),
            ("system SRAM", _sram(about.sram_bytes, about.sram_free_bytes)),
        ]
    rows += [("governor", f"{c.governor}, {c.folder}") for c in (system.npu, system.memory) if c is not None]
    rows += [(f"interrupt {i.number}", f"{i.name}, cores {i.processors}") for i in system.interrupts]
    if proof is not None:
        at_once = "right" if proof.runs == 1 else f"right at the {proof.runs}. run"
        rows.append(("a small product", f"{at_once} on {named(proof.cores)}"))
        rows += [(f"core {core}", f"does not work: {why}") for core, why in proof.failed.items()]
    if trials is not None:
        right = len(trials.jobs) - len(trials.wrong)
        rows.append(("programs", f"{right} of {len(trials.jobs)} tried are right, {trials.seconds:.1f} s"))
        rows += [("wrong", text) for text in trials.wrong]
    terminal.print(table(("", ""), rows))
    if reason is not None:
        terminal.print(f"\nThe NPU cannot be used: {reason}")
    for finding in found:
        terminal.print(f"\n{finding.what}\n  mend: {finding.mend}")
    return {
        "usable": reason is None,
        "reason": reason,
        "device": None if about is None else asdict(about),
        "probe_runs": None if proof is None else proof.runs,
        "cores": [] if proof is None else list(proof.cores),
        "failed_cores": {} if proof is None else {str(core): why for core, why in proof.failed.items()},
        "programs_tried": 0 if trials is None else len(trials.jobs),
        "programs_wrong": [] if trials is None else list(trials.wrong),
        "system": asdict(system),
        "findings": [asdict(finding) for finding in found],
        "exit_code": int(reason is not None),
    }


def _known(value: bool | None) -> str:
    return "unknown" if value is None else "on" if value else "off"


def _sram(total: int | None, free: int | None) -> str:
    if total is None:
        return "unknown"
    if not total:
        return "none for the NPU; none is needed"
    left = "" if free is None else f", {free >> 10:,} KiB free"
    return f"{total >> 10:,} KiB{left}; not used"


COMMAND = Command("info", "the NPU of this machine, and what is wrong with it", add_arguments, run)
