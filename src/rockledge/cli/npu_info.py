"""`rockledge npu info`: which NPU is here, what is wrong with it, and how to mend that."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.terminal import Terminal, table
from rockledge.errors import RockledgeError

_PROBE_MS = 500  # some thousand times what the small product takes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `npu info`."""
    parser.add_argument(
        "--driver",
        default="auto",
        choices=("auto", "rknpu", "rocket"),
        help="look for this one (default any)",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Looks, and multiplies something small on every core; the exit code is 1 when no NPU can be used."""
    return report(args.driver, Path("/"), terminal)


def report(driver: str, root: Path, terminal: Terminal) -> dict[str, Any]:
    """As `run`, for a machine whose sysfs and procfs lie below `root`."""
    from rockledge.runtime.npu_device import NpuDevice
    from rockledge.runtime.npu_launch import prove
    from rockledge.runtime.npu_system import findings, look

    about, reason, runs = None, None, None
    try:
        with NpuDevice(driver) as device:
            about = device.describe()
            runs = prove(device, _PROBE_MS)
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
            ("cores", f"{about.cores} in {about.spaces} address space{'s' * (about.spaces > 1)}"),
            ("clock", f"{clock / 1e6:.0f} MHz" if clock else "unknown"),
            ("IOMMU", _known(about.iommu if about.iommu is not None else system.iommu)),
        ]
    rows += [("governor", f"{c.governor}, {c.folder}") for c in (system.npu, system.memory) if c is not None]
    rows += [(f"interrupt {i.number}", f"{i.name}, cores {i.processors}") for i in system.interrupts]
    if runs is not None:
        rows.append(("a small product", "right" if runs == 1 else f"right at the {runs}. run"))
    terminal.print(table(("", ""), rows))
    if reason is not None:
        terminal.print(f"\nThe NPU cannot be used: {reason}")
    for finding in found:
        terminal.print(f"\n{finding.what}\n  mend: {finding.mend}")
    return {
        "usable": reason is None,
        "reason": reason,
        "device": None if about is None else asdict(about),
        "probe_runs": runs,
        "system": asdict(system),
        "findings": [asdict(finding) for finding in found],
        "exit_code": int(reason is not None),
    }


def _known(value: bool | None) -> str:
    return "unknown" if value is None else "on" if value else "off"


COMMAND = Command("info", "the NPU of this machine, and what is wrong with it", add_arguments, run)
