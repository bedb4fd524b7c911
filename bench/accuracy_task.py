"""What every row of one model's accuracy table is measured with: weights, texts and windows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy_models import TableModel
from bench.accuracy_texts import WINDOW, calibration, evaluation, shared_span
from bench.models import UnavailableError, cache
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Task:
    """What every row of one model is measured with."""

    model: TableModel
    directory: Path
    gguf: Path
    checkpoint: Checkpoint
    parameters: int
    text: Path
    windows: list[list[int]]
    bos: int | None
    calibration: Path
    threads: int

    @property
    def settings(self) -> dict[str, Any]:
        """What all rows depend on, whatever the engine; the texts' names hold their digests."""
        size = len(self.windows)
        return {"weights": self.gguf.name, "text": self.text.name, "windows": size, "window": WINDOW}

    def kept(self, suffix: str) -> Path:
        """A file in the cache that belongs to these weights and windows."""
        name = f"{self.gguf.stem}-{self.text.stem}-{len(self.windows)}{suffix}"
        (cache() / "accuracy").mkdir(exist_ok=True)
        return cache() / "accuracy" / name


def prepare(model: TableModel, windows: int, threads: int, limit: int | None = None) -> Task:
    """Weights, tokens and texts, for calibration at most about `limit` tokens; UnavailableError if
    calibration and evaluation share a span."""
    directory, gguf = model.files()
    checkpoint = open_checkpoint(directory)
    files = checkpoint.files()
    tokenizer = Tokenizer.from_files(files)
    text, pieces = evaluation(tokenizer, windows)
    calibration_text, calibration_tokens = calibration(files, limit)
    shared = shared_span([token for piece in pieces for token in piece], calibration_tokens)
    if shared is not None:
        raise UnavailableError(f"calibration and evaluation share {tokenizer.decode(shared)!r}")
    parameters = sum(int(np.prod(checkpoint.shape(name))) for name in checkpoint.names())
    bos = tokenizer.bos
    return Task(model, directory, gguf, checkpoint, parameters, text, pieces, bos, calibration_text, threads)
