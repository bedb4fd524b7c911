"""The models of the accuracy table, each as a directory for us and as a float32 GGUF for llama.cpp."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.models import cache, gemma3_270m, qwen_500m, qwen_1500m, smollm2
from bench.offgrid import SEED, OffGrid, float_files
from rockledge.model.checkpoint import open_checkpoint


@dataclass(frozen=True)
class TableModel:
    """`retie`: the package holds two roundings of one tied matrix, of which the finer is taken for both.
    `moved`: off the grid of the package."""

    name: str
    fetch: Callable[[], Path]
    about: str
    retie: bool = False
    moved: bool = True

    def files(self) -> tuple[Path, Path]:
        """(directory, GGUF) of the same float32 weights, made once."""
        source = open_checkpoint(self.fetch())
        suffix = f"offgrid{SEED}" if self.moved else "float"
        checkpoint = OffGrid(source, retie=self.retie) if self.moved else source
        return float_files(f"{self.name}-{suffix}", checkpoint, cache() / "models")


MODELS = {
    model.name: model
    for model in (
        TableModel(
            "smollm2-135m",
            smollm2,
            "SmolLM2-135M-Instruct, off the grid; the tied embedding is not moved and lies on its Q8_0 grid",
        ),
        TableModel(
            "qwen2.5-coder-0.5b",
            qwen_500m,
            "Qwen2.5-Coder-0.5B-Instruct, off the grid; the tied embedding is not moved and lies on its Q8_0 "
            "grid (the package's Q5_0 copy of it is not used)",
            retie=True,
        ),
        TableModel(
            "qwen2.5-coder-1.5b",
            qwen_1500m,
            "Qwen2.5-Coder-1.5B-Instruct, off the grid: rows are multiples of 256, so K-quants are what "
            "their names say; the tied embedding is not moved and lies on its Q6_K grid",
            retie=True,
        ),
        TableModel(
            "gemma-3-270m",
            gemma3_270m,
            "Gemma 3 270M (base), off the grid; the tied embedding, 63 % of the weights, is not moved and "
            "lies on its Q8_0 grid; rows of 640 are no multiple of 256, so most K-quants fall back",
        ),
        TableModel(
            "smollm2-135m-on-grid",
            smollm2,
            "SmolLM2-135M-Instruct as packaged: weights on the Q4_1 grid, which flatters Q4_1 and its like",
            moved=False,
        ),
    )
}
