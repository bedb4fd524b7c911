"""Putting an artifact together: rows of every band taken from the candidate of its width."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from rockledge.artifact import ArtifactPlan, ArtifactWriter
from rockledge.formats.bands import groups
from rockledge.formats.packing import PackedLinear, pack
from rockledge.formats.table import Float32, Int8
from rockledge.quantization.rounding.candidates import dequantized_rows
from rockledge.quantization.transforming.rotate import RotatedModel
from rockledge.quantization.work.store import WorkDirectory

# Rows that become real weights at a time: bounds the temporaries of an embedding.
_ROWS = 4096


class PackedLinears(Protocol):
    """Where the linears of an artifact that is written come from."""

    def linear(self, name: str) -> PackedLinear:
        """One linear as the artifact will hold it."""


class Assembly:
    """The linears of one allocation, made when asked for: packed, or as the real weights that they stand
    for."""

    def __init__(self, plan: ArtifactPlan, work: WorkDirectory) -> None:
        self._plan = plan
        self._work = work

    def linear(self, name: str) -> PackedLinear:
        """One linear as the artifact will hold it."""
        spec = self._plan.linears[name]
        codes = np.zeros((spec.rows, spec.cols), np.uint8)
        index = np.zeros((spec.rows, groups(spec.cols)), np.uint8)
        scale = np.zeros(spec.rows, np.float32)
        tables: dict[int, Int8] = {}
        for bits in sorted({band.bits for band in spec.bands}):
            candidate = self._work.candidate(name, bits)
            for band in spec.bands:
                if band.bits == bits:
                    rows = slice(band.start, band.start + band.rows)
                    codes[rows], scale[rows] = candidate.codes[rows], candidate.scale[rows]
                    if candidate.index is not None:
                        index[rows] = candidate.index[rows]
            if candidate.tables is not None:
                tables[bits] = candidate.tables
        return pack(codes, index, tables, scale, spec.bands, self.bias(name))

    def weights(self, name: str, device: torch.device) -> torch.Tensor:
        """What `dequantize` makes of that linear, fp32 [N, K] on `device`."""
        spec = self._plan.linears[name]
        weights = torch.empty(spec.rows, spec.cols, device=device)
        for bits in sorted({band.bits for band in spec.bands}):
            candidate = self._work.candidate(name, bits)
            for band in spec.bands:
                end = band.start + band.rows
                for first in range(band.start, end, _ROWS) if band.bits == bits else ():
                    rows = slice(first, min(first + _ROWS, end))
                    weights[rows] = dequantized_rows(candidate, rows, device)
        return weights

    def bias(self, name: str) -> Float32 | None:
        """The bias of a linear fp32 [N], None if it has none."""
        return self._work.bias(name)


def write_artifact(
    path: Path,
    plan: ArtifactPlan,
    model: RotatedModel,
    assembly: PackedLinears,
    report: dict[str, Any],
    report_text: str,
    picture: bytes | None,
    progress: Callable[[int, int], None],
    overwrite: bool = False,
) -> None:
    """Writes the whole artifact; nothing appears at `path` unless everything succeeds."""
    with ArtifactWriter(path, plan, overwrite=overwrite) as writer:
        for done, name in enumerate(plan.linears, start=1):
            writer.linear(name, assembly.linear(name))
            progress(done, len(plan.linears))
        for name in plan.arrays:
            writer.array(name, model.gain(name).cpu().numpy())
        writer.report(report, report_text, picture)
