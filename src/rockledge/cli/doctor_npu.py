"""The NPU's part of `rockledge doctor`: a device that is here, else a virtual one, else why there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge.errors import NpuError

if TYPE_CHECKING:
    from torch import Tensor

    from rockledge.doctor.case import NpuRun

TOKENS = 24  # of the first sequence: an emulated NPU is slow
MOST_PARAMETERS = 400_000_000  # of a model that is emulated; about a minute


def npu_run(
    artifact: Path, tokens: Sequence[int], alone: Tensor, mode: str, parameters: int
) -> tuple[NpuRun | None, str | None]:
    """The beginning of a sequence with the NPU, beside `alone`, fp32 [tokens, vocab] without it; or a
    sentence that says why not. `mode`: a name of `choices.NPU_MODES`. NpuError where it is required
    and fails."""
    from rockledge.doctor.case import NpuRun

    if mode == "off":
        return None, None
    tokens = tokens[:TOKENS]
    try:
        if _is_here():
            logits, status = _run(artifact, tokens, mode, os.environ)
            return NpuRun(logits, alone[: len(tokens)], len(tokens), status, virtual=False), None
        if parameters > MOST_PARAMETERS and mode == "auto":
            return None, "There is no NPU here, and emulating one for a model of this size takes too long."
        logits, status = _on_virtual_npu(artifact, tokens)
    except ModuleNotFoundError as error:
        if error.name != "rockledge_npu_lab" or mode == "require":
            raise
        return None, (
            "There is no NPU here, and no package rockledge-npu-lab to emulate one: the NPU was not checked."
        )
    except NpuError as error:
        if mode == "require":
            raise
        return None, f"The NPU was not checked: {error}."
    return NpuRun(logits, alone[: len(tokens)], len(tokens), status, virtual=True), None


def _is_here() -> bool:
    """Whether this process has an NPU; nothing is submitted to it."""
    from rockledge.runtime.npu_device import NpuDevice

    try:
        NpuDevice().close()
    except NpuError:
        return False
    return True


def _on_virtual_npu(artifact: Path, tokens: Sequence[int]) -> tuple[Tensor, dict[str, Any]]:
    from rockledge_npu_lab.virtual.preload import environment
    from rockledge_npu_lab.virtual.serve_device import VirtualNpu

    with VirtualNpu() as npu:
        found = _run(artifact, tokens, "require", environment(npu.address, os.environ))
        npu.drain()
    return found


def _run(
    artifact: Path, tokens: Sequence[int], mode: str, variables: Mapping[str, str]
) -> tuple[Tensor, dict[str, Any]]:
    """Logits fp32 [tokens, vocab] and the NPU's status. NpuError where it was not used."""
    import numpy as np
    import torch

    with tempfile.TemporaryDirectory(prefix="rockledge-doctor-") as folder:
        out = Path(folder) / "logits.npy"
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "rockledge.doctor.npu_worker",
                str(artifact),
                mode,
                str(out),
                *map(str, tokens),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=dict(variables),
            check=False,
        )
        try:
            status = json.loads(done.stdout)
        except ValueError:
            raise NpuError(f"the process that was to use it ended with exit code {done.returncode}") from None
        if "error" in status:
            raise NpuError(status["error"])
        return torch.from_numpy(np.load(out)), status
