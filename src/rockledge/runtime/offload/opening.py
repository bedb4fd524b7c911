"""The NPU as it is opened for a model: its driver's version looked at first, then its cores tried."""

from __future__ import annotations

import logging
from typing import Final

from rockledge.errors import NpuError
from rockledge.runtime.npu_cores import Proof, prove
from rockledge.runtime.npu_device import CORES, NpuDevice
from rockledge.runtime.offload.driver_versions import known_problem

PROBE_MS: Final = 500

log = logging.getLogger(__name__)


def open_proven(*, required: bool) -> NpuDevice:
    """The NPU of this machine with the cores that work in use, which the log says if some do not.

    Raises NpuError when there is none, when it cannot be used, and for a driver that is only used when it is
    `required`: nothing was submitted then.
    """
    device, proof = _opened(required)
    if len(proof.cores) < CORES and device.describe().driver == "rocket":
        # A core whose job failed is not tried again while the files are open (npu_cores.py): this is its
        # second chance.
        device.close()
        device, proof = _opened(required)
    if (line := proof.line()) is not None:
        log.warning("%s", line)
    return device


def _opened(required: bool) -> tuple[NpuDevice, Proof]:
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
        device.close()
        raise
