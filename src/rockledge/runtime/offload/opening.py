"""The NPU as it is opened for a model: its driver's version looked at first, then its cores tried."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from rockledge.errors import NpuError
from rockledge.runtime.npu_cores import Proof, prove
from rockledge.runtime.npu_device import CORES, NpuDevice
from rockledge.runtime.offload.driver_versions import known_problem

PROBE_MS: Final = 500

log = logging.getLogger(__name__)


@dataclass
class OpeningCounts:
    """What loading met that the device in use does not count itself: `jobs`, `faults` and `resets` of devices
    that were closed again, and the programs that were `tried` and were `tried_wrong`."""

    jobs: int = 0
    faults: int = 0
    resets: int = 0
    tried: int = 0
    tried_wrong: int = 0

    def close(self, device: NpuDevice) -> None:
        """Closes a device that is not used, and keeps its counts."""
        about = device.describe()
        self.jobs += about.submits
        self.faults += about.faults
        self.resets += about.resets
        device.close()


def open_proven(counts: OpeningCounts, *, required: bool) -> NpuDevice:
    """The NPU of this machine with the cores that work in use, which the log says if some do not.

    Raises NpuError when there is none, when it cannot be used, and for a driver that is only used when it is
    `required`: nothing was submitted then. What closed devices met is added to `counts`.
    """
    device, proof = _opened(counts, required)
    if len(proof.cores) < CORES and device.describe().driver == "rocket":
        # A core whose job failed is not tried again while the files are open (npu_cores.py): this is its
        # second chance.
        counts.close(device)
        device, proof = _opened(counts, required)
    if (line := proof.line()) is not None:
        log.warning("%s", line)
    return device


def _opened(counts: OpeningCounts, required: bool) -> tuple[NpuDevice, Proof]:
    device = NpuDevice()
    try:
        about = device.describe()
        reason = known_problem(about)
        if reason is not None and not required:
            raise NpuError(f"{reason}; use a kernel with that driver, or force it with --npu require")
        try:
            return device, prove(device, PROBE_MS)
        except NpuError as error:
            busy = f"if another program uses it (`sudo fuser -v {about.node}` lists it), stop that program"
            raise NpuError(f"{error}; {busy}") from None
    except BaseException:
        counts.close(device)
        raise
