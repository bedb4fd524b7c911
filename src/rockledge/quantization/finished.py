"""How much of a run a work directory holds already, for the estimate."""

from pathlib import Path

from rockledge.model.config import ModelConfig
from rockledge.quantization.calibration.calibrate import boundary
from rockledge.quantization.rounding.measure import rounded_blocks
from rockledge.quantization.work.store import WorkDirectory


def finished_shares(path: Path, config: ModelConfig) -> dict[str, float]:
    """By stage, from 0 to 1; empty where nothing is there. Whether it is the same run shows only when that
    begins."""
    if not path.is_dir() or not any(path.iterdir()):
        return {}
    work = WorkDirectory(path)
    if work.has_prices():
        return {"forward": 1.0, "round": 1.0}
    rounded = rounded_blocks(work)
    if rounded:
        return {"forward": 1.0, "round": rounded / (config.layers + 1)}
    passed = sum(work.has_array(boundary(layer)) for layer in range(1, config.layers + 1))
    return {"forward": passed / config.layers}
