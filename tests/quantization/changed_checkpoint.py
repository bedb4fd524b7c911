"""A toy checkpoint whose tensors are changed as they are read: models that a test needs and nobody ships."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.model.config import ModelConfig
from rockledge.synth import synth_checkpoint


@dataclass(frozen=True)
class Changed:
    """A checkpoint whose tensors pass through `change` on their way."""

    below: Checkpoint
    change: Callable[[str, npt.NDArray[np.float32]], None]

    @property
    def path(self) -> Path:
        return self.below.path

    @property
    def config(self) -> ModelConfig:
        return self.below.config

    @property
    def stored(self) -> str:
        return self.below.stored

    @property
    def notes(self) -> tuple[str, ...]:
        return self.below.notes

    def names(self) -> list[str]:
        return self.below.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.below.shape(name)

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        values = self.below.tensor(name).copy()
        self.change(name, values)
        return values

    def files(self) -> dict[str, bytes]:
        return self.below.files()


def changed(tmp_path: Path, change: Callable[[str, npt.NDArray[np.float32]], None]) -> Changed:
    return Changed(open_checkpoint(synth_checkpoint("toy", tmp_path / "model")), change)
