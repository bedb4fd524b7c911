"""The artifact of a module that has learnt: its codes, scales, tables and biases as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rockledge.formats.packing import PackedLinear
from rockledge.quantization.choosing.assemble import write_artifact
from rockledge.quantization.learning.model import LearningModel


class _Learnt:
    """The linears of a module, packed when asked for."""

    def __init__(self, model: LearningModel) -> None:
        self._model = model

    def linear(self, name: str) -> PackedLinear:
        return self._model.linear(name).packed()


def write_learnt(
    path: Path,
    model: LearningModel,
    report: dict[str, Any],
    report_text: str,
    overwrite: bool,
    progress: Callable[[int, int], None],
) -> None:
    """Writes it to `path`, whole or not at all; `progress` is told of linears. ArtifactError."""
    write_artifact(
        path, model.plan, model.rotated, _Learnt(model), report, report_text, None, progress, overwrite
    )
